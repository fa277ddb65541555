//! Grants: short-lived tokens that are signed with a session's key, verified offline by the
//! machine, and revocable one by one.
//!
//! The format is `ag1.PAYLOAD.MAC`, both in url-safe base64 without padding. The key is derived
//! from the session's credential, which machine and caller share: a new grant needs no new secret
//! in the machine and no restart.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use atlas_core::{Entropy, Error, Result, Secret, Timestamp};
use data_encoding::BASE64URL_NOPAD;
use ring::hmac;

use crate::signed_url::{Verdict, atlas::has_dot_segments};

/// The prefix of a grant.
pub const PREFIX: &str = "ag1.";
/// The query parameter for a grant where a header cannot be sent: a browser's WebSocket.
pub const PARAMETER: &str = "atlas_grant";
/// The path prefix of a guard's control calls: activity, permit, revocation. Only a scope that
/// begins with it permits them.
pub const CONTROL_PREFIX: &str = "/_atlas/";
/// The maximum lifetime of a grant. A verifier refuses more, so it may forget a revocation after
/// this time.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The id of a grant, by which it is revoked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId([u8; 16]);

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantId({self})")
    }
}

impl FromStr for GrantId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| {
                Error::validation("grant id", "must be 22 characters of url-safe base64")
            })
    }
}

/// What a grant permits: reading only, or everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `GET`, `HEAD` and `OPTIONS`; a WebSocket is a `GET`.
    Read,
    /// Every method.
    All,
}

/// The scope of a grant: a path prefix, for reading or for everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    access: Access,
    prefix: String,
}

impl Scope {
    /// Everything below `prefix`, which begins with `/`. Segments are compared whole: `/a` includes
    /// `/a` and `/a/b`, not `/ab`.
    ///
    /// # Errors
    /// `validation` for a prefix that does not begin with `/`, has dot segments, or is longer than
    /// 1024 bytes.
    pub fn new(access: Access, prefix: impl Into<String>) -> Result<Self> {
        let prefix = prefix.into();
        if !prefix.starts_with('/') || prefix.len() > 1024 || has_dot_segments(&prefix) {
            return Err(Error::validation(
                "scope",
                "must be a path prefix that begins with / and has no dot segments",
            ));
        }
        Ok(Self { access, prefix })
    }

    /// A guard's control paths: for reading its activity, or also for renewing its permit and
    /// revoking grants.
    #[must_use]
    pub fn control(access: Access) -> Self {
        Self {
            access,
            prefix: CONTROL_PREFIX.to_owned(),
        }
    }

    /// The path prefix.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The permitted kind of access.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    /// Whether the scope permits this request. A path that a server might resolve to another path
    /// is permitted by `/` only.
    #[must_use]
    pub fn allows(&self, method: &str, path: &str) -> bool {
        let method = self.access == Access::All || matches!(method, "GET" | "HEAD" | "OPTIONS");
        let stem = self.prefix.strip_suffix('/').unwrap_or(&self.prefix);
        let inside = match path.strip_prefix(stem) {
            _ if stem.is_empty() => true,
            Some("") => !self.prefix.ends_with('/'),
            Some(rest) => rest.starts_with('/') && !has_dot_segments(path),
            None => false,
        };
        method && inside
    }
}

/// The contents of a verified grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    id: GrantId,
    expires_at: Timestamp,
    scope: Scope,
}

impl Grant {
    pub(crate) fn new(
        scope: Scope,
        now: Timestamp,
        lifetime: Duration,
        entropy: &dyn Entropy,
    ) -> Self {
        let mut id = [0; 16];
        entropy.fill(&mut id);
        let expires_at = now.saturating_add(lifetime.min(MAX_LIFETIME));
        Self {
            id: GrantId(id),
            expires_at: Timestamp::from_unix_seconds(expires_at.unix_seconds()),
            scope,
        }
    }

    /// The id by which it is revoked.
    #[must_use]
    pub const fn id(&self) -> GrantId {
        self.id
    }

    /// The last second in which it is valid.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// The scope that it permits.
    #[must_use]
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }
}

/// The key of one session's grants.
#[derive(Clone)]
pub struct GrantKey(hmac::Key);

impl GrantKey {
    /// Derived from the session's credential: its bearer token or its signing secret.
    ///
    /// # Errors
    /// `validation` for a credential of fewer than [`crate::MIN_SECRET_BYTES`] bytes.
    pub fn new(credential: &Secret) -> Result<Self> {
        crate::check_length(credential)?;
        Ok(Self(crate::derive_key(credential, b"atlas grant v1")))
    }

    /// Mints a new grant, and returns it with its token.
    #[must_use]
    pub fn mint(
        &self,
        scope: Scope,
        now: Timestamp,
        lifetime: Duration,
        entropy: &dyn Entropy,
    ) -> (Grant, Secret) {
        let grant = Grant::new(scope, now, lifetime, entropy);
        let payload = write(&grant);
        let mac = hmac::sign(&self.0, &payload);
        let token = [
            PREFIX,
            &BASE64URL_NOPAD.encode(&payload),
            ".",
            &BASE64URL_NOPAD.encode(mac.as_ref()),
        ]
        .concat();
        (grant, Secret::new(token))
    }

    /// Verifies a token. It does not check revocation or a request: use [`Revoked`] and
    /// [`Scope::allows`].
    ///
    /// # Errors
    /// Any verdict other than [`Verdict::Ok`]. The signature is checked first.
    pub fn verify(&self, token: &str, now: Timestamp) -> std::result::Result<Grant, Verdict> {
        let (payload, mac) = split(token, PREFIX).ok_or(Verdict::Malformed)?;
        hmac::verify(&self.0, &payload, &mac).map_err(|_| Verdict::BadSignature)?;
        read_valid(&payload, now)
    }
}

/// Splits a token into payload and signature.
pub(crate) fn split(token: &str, prefix: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let (payload, signature) = token.strip_prefix(prefix)?.split_once('.')?;
    let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).ok();
    decode(payload).zip(decode(signature))
}

/// Decodes a payload whose signature was verified.
pub(crate) fn read_valid(payload: &[u8], now: Timestamp) -> std::result::Result<Grant, Verdict> {
    let grant = read(payload).ok_or(Verdict::Malformed)?;
    let latest = now.saturating_add(MAX_LIFETIME).unix_seconds();
    if (now.unix_seconds()..=latest).contains(&grant.expires_at.unix_seconds()) {
        Ok(grant)
    } else {
        Err(Verdict::Expired)
    }
}

impl fmt::Debug for GrantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GrantKey(..)")
    }
}

/// Id, expiry, access, prefix: all but the last have a fixed length, so the encoding is
/// unambiguous.
pub(crate) fn write(grant: &Grant) -> Vec<u8> {
    let mut out = grant.id.0.to_vec();
    out.extend(grant.expires_at.unix_seconds().to_be_bytes());
    out.push(u8::from(grant.scope.access == Access::All));
    out.extend(grant.scope.prefix.as_bytes());
    out
}

fn read(payload: &[u8]) -> Option<Grant> {
    let (id, rest) = payload.split_first_chunk::<16>()?;
    let (expires_at, rest) = rest.split_first_chunk::<8>()?;
    let (access, prefix) = rest.split_first()?;
    let access = match access {
        0 => Access::Read,
        1 => Access::All,
        _ => return None,
    };
    let scope = Scope::new(access, std::str::from_utf8(prefix).ok()?).ok()?;
    Some(Grant {
        id: GrantId(*id),
        expires_at: Timestamp::from_unix_seconds(i64::from_be_bytes(*expires_at)),
        scope,
    })
}

/// The revoked grants of a machine. Each entry is dropped after [`MAX_LIFETIME`], when no grant
/// with that id can be valid.
#[derive(Debug, Default)]
pub struct Revoked(Mutex<BTreeMap<GrantId, Timestamp>>);

impl Revoked {
    /// Revokes the grant with this id.
    pub fn revoke(&self, id: GrantId, now: Timestamp) {
        let mut revoked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        revoked.retain(|_, since| now.since(*since) <= MAX_LIFETIME);
        revoked.insert(id, now);
    }

    /// True when it was revoked.
    #[must_use]
    pub fn contains(&self, id: GrantId) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&id)
    }
}

#[cfg(test)]
mod tests {
    use atlas_core::{SeededEntropy, SystemEntropy};
    use proptest::prelude::*;

    use super::*;

    fn key() -> GrantKey {
        GrantKey::new(&Secret::new("a session's credential")).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn minted(scope: Scope) -> (Grant, Secret) {
        key().mint(
            scope,
            at(1000),
            Duration::from_secs(60),
            &SystemEntropy::new(),
        )
    }

    #[test]
    fn a_grant_verifies_offline_until_its_last_second_and_only_with_its_sessions_key() {
        let (grant, token) = minted(Scope::new(Access::Read, "/ws").unwrap());
        assert_eq!(key().verify(token.expose(), at(1060)), Ok(grant));
        assert_eq!(
            key().verify(token.expose(), at(1061)),
            Err(Verdict::Expired)
        );
        assert_eq!(
            GrantKey::new(&Secret::new("another session's"))
                .unwrap()
                .verify(token.expose(), at(1000)),
            Err(Verdict::BadSignature)
        );
        assert_eq!(key().verify("ag1.x", at(1000)), Err(Verdict::Malformed));
    }

    #[test]
    fn no_grant_outlives_the_memory_of_its_revocation() {
        let (grant, token) = key().mint(
            Scope::new(Access::All, "/").unwrap(),
            at(0),
            Duration::MAX,
            &SystemEntropy::new(),
        );
        assert_eq!(grant.expires_at(), at(24 * 3600));
        let revoked = Revoked::default();
        revoked.revoke(grant.id(), at(0));
        revoked.revoke(minted(grant.scope().clone()).0.id(), at(24 * 3600));
        assert!(revoked.contains(grant.id()));
        revoked.revoke(minted(grant.scope().clone()).0.id(), at(24 * 3600 + 1));
        assert!(!revoked.contains(grant.id()));
        assert_eq!(
            key().verify(token.expose(), at(24 * 3600 + 1)),
            Err(Verdict::Expired)
        );
    }

    #[test]
    fn a_scope_opens_whole_segments_under_its_prefix_and_its_methods() {
        let scope = |access, prefix| Scope::new(access, prefix).unwrap();
        for (prefix, path, inside) in [
            ("/", "/a/../b", true),
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a", "/ab", false),
            ("/a/", "/a", false),
            ("/a/", "/a/b", true),
            ("/a", "/a/../b", false),
            ("/a", "/a/%2E%2e/b", false),
            ("/a", "/", false),
        ] {
            assert_eq!(
                scope(Access::All, prefix).allows("POST", path),
                inside,
                "{prefix} {path}"
            );
        }
        assert!(scope(Access::Read, "/").allows("GET", "/ws"));
        assert!(!scope(Access::Read, "/").allows("POST", "/ws"));
        assert!(Scope::new(Access::All, "a").is_err());
        assert!(Scope::new(Access::All, "/a/..").is_err());
    }

    #[test]
    fn a_grant_id_reads_back_from_its_text() {
        let id = minted(Scope::new(Access::All, "/").unwrap()).0.id();
        assert_eq!(id.to_string().parse::<GrantId>().unwrap(), id);
        assert!("x".parse::<GrantId>().is_err());
    }

    proptest! {
        #[test]
        fn any_changed_byte_fails(seed: u64, prefix in "/[a-z/]{0,20}", index: prop::sample::Index,
            to in "[A-Za-z0-9._-]") {
            let scope = Scope::new(Access::All, prefix).unwrap();
            let (grant, token) = key().mint(scope, at(1000), Duration::from_secs(60),
                &SeededEntropy::new(seed));
            prop_assert_eq!(key().verify(token.expose(), at(1000)), Ok(grant));
            let mut changed = token.expose().to_owned();
            let index = index.index(changed.len());
            prop_assume!(changed[index..=index] != to);
            changed.replace_range(index..=index, &to);
            prop_assert!(key().verify(&changed, at(1000)).is_err());
        }

        #[test]
        fn no_text_panics(text: String, near in "(ag1\\.)?[A-Za-z0-9_.-]{0,80}", path: String,
            payload: Vec<u8>) {
            let _ = (key().verify(&text, at(0)), key().verify(&near, at(0)),
                near.parse::<GrantId>(), read(&payload));
            let _ = Scope::new(Access::Read, format!("/{near}")).map(|scope| scope.allows(&text,
                &path));
        }
    }
}
