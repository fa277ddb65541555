//! The launch key, by which atlas recognises its own machines: `a1-<realm:6>-<attempt:16>-<mac:8>`.
//!
//! This module defines the format and where a key is carried. Verifying the MAC is the
//! orchestrator's task.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use data_encoding::{BASE32_NOPAD, Encoding};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, Result};
use crate::time::Timestamp;

/// The environment variable that carries the key, on clouds that return a machine's environment.
pub const LAUNCH_KEY_ENV: &str = "ATLAS_LAUNCH_KEY";
/// The metadata or tag name that carries the key, on clouds that have one.
pub const LAUNCH_KEY_TAG: &str = "atlas-launch-key";
/// The default prefix of machine names.
pub const DEFAULT_NAME_PREFIX: &str = "atlas-";
/// The maximum length of a machine name. Every supported cloud accepts names of `[a-z0-9-]` this
/// long (docs/clouds/).
pub const MAX_NAME_LEN: usize = 60;

const KEY_LEN: usize = 35;

/// Built once, because a listing decodes a key for every machine in it.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = BASE32_NOPAD.specification();
    spec.symbols.make_ascii_lowercase();
    spec.encoding()
        .expect("lower-case base32 is a valid specification")
});

/// Identifies one deployment: all nodes that share a store. Six characters of lower-case base32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealmId([u8; 6]);

impl RealmId {
    /// The realm id made from the upper thirty bits of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 4]) -> Self {
        let text = BASE32.encode(&bytes);
        let mut id = [0; 6];
        id.copy_from_slice(&text.as_bytes()[..6]);
        Self(id)
    }

    /// The six characters of the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base32 is ASCII")
    }
}

/// Identifies one attempt to create a machine. 80 bits; the first 32 are the second it was created
/// in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId([u8; 10]);

impl AttemptId {
    /// A new id for this second, with 48 random bits.
    #[must_use]
    pub fn new(now: Timestamp, random: [u8; 6]) -> Self {
        let seconds =
            u32::try_from(now.unix_seconds().clamp(0, i64::from(u32::MAX))).unwrap_or(u32::MAX);
        let mut id = [0; 10];
        id[..4].copy_from_slice(&seconds.to_be_bytes());
        id[4..].copy_from_slice(&random);
        Self(id)
    }

    /// The bytes, which sort in order of creation.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 10] {
        &self.0
    }

    /// The id with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 10]) -> Self {
        Self(bytes)
    }

    /// The second in which the id was created.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        let [a, b, c, d, ..] = self.0;
        Timestamp::from_unix_seconds(i64::from(u32::from_be_bytes([a, b, c, d])))
    }
}

/// A machine's launch key, or the absence of one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LaunchKey {
    /// The machine was made without an orchestrator: it belongs to no realm, is never reaped, and
    /// only the caller looks after it.
    Untracked,
    /// The machine was made for a recorded attempt.
    Tracked(TrackedKey),
}

/// The launch key of a recorded attempt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackedKey {
    realm: RealmId,
    attempt: AttemptId,
    mac: [u8; 5],
}

impl TrackedKey {
    /// Builds a key from its three parts. The MAC is a truncated HMAC over
    /// [`TrackedKey::signed_part`].
    #[must_use]
    pub const fn new(realm: RealmId, attempt: AttemptId, mac: [u8; 5]) -> Self {
        Self {
            realm,
            attempt,
            mac,
        }
    }

    /// The realm that the key claims.
    #[must_use]
    pub const fn realm(&self) -> RealmId {
        self.realm
    }

    /// The attempt that the key claims.
    #[must_use]
    pub const fn attempt(&self) -> AttemptId {
        self.attempt
    }

    /// The MAC of the key. It is not verified here.
    #[must_use]
    pub const fn mac(&self) -> [u8; 5] {
        self.mac
    }

    /// The text that the MAC covers.
    #[must_use]
    pub fn signed_part(realm: RealmId, attempt: AttemptId) -> String {
        format!("a1-{realm}-{attempt}")
    }

    /// Finds the key at the end of a machine's name. The rest of the name is ignored.
    #[must_use]
    pub fn in_name(name: &str) -> Option<Self> {
        let start = name.len().checked_sub(KEY_LEN)?;
        let key = name.get(start..)?.parse().ok()?;
        (start == 0 || name.as_bytes()[start - 1] == b'-').then_some(key)
    }
}

impl LaunchKey {
    /// The key for calls without an orchestrator.
    #[must_use]
    pub const fn untracked() -> Self {
        Self::Untracked
    }

    /// The tracked key, if this is one.
    #[must_use]
    pub const fn tracked(&self) -> Option<&TrackedKey> {
        match self {
            Self::Untracked => None,
            Self::Tracked(key) => Some(key),
        }
    }

    /// The name of the machine: `<prefix><slug>-<key>`, at most sixty characters of `[a-z0-9-]`.
    ///
    /// The slug is derived from the requested name. An untracked machine keeps the requested name
    /// unchanged.
    #[must_use]
    pub fn machine_name(&self, prefix: &str, wished: Option<&str>) -> String {
        match self {
            Self::Untracked => wished.map_or_else(|| format!("{prefix}untracked"), str::to_owned),
            Self::Tracked(key) => {
                let prefix = &slug(prefix)[..slug(prefix).len().min(12)];
                let prefix = if prefix.is_empty() {
                    String::new()
                } else {
                    format!("{prefix}-")
                };
                let room = MAX_NAME_LEN - KEY_LEN - 1 - prefix.len();
                let slug = slug(wished.unwrap_or("session"));
                let slug = slug[..slug.len().min(room)].trim_end_matches('-');
                let slug = if slug.is_empty() { "x" } else { slug };
                format!("{prefix}{slug}-{key}")
            }
        }
    }
}

/// Reduces a text to `[a-z0-9-]`: other characters are folded into single dashes, and the result
/// begins with a letter or digit.
fn slug(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
    }
    out.truncate(out.trim_end_matches('-').len());
    out
}

impl fmt::Display for RealmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        BASE32.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Display for TrackedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a1-{}-{}-{}",
            self.realm,
            self.attempt,
            BASE32.encode_display(&self.mac)
        )
    }
}

macro_rules! text_form {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}
text_form!(RealmId, AttemptId, TrackedKey);

impl fmt::Debug for LaunchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untracked => f.write_str("untracked"),
            Self::Tracked(key) => fmt::Display::fmt(key, f),
        }
    }
}

impl FromStr for RealmId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let id: [u8; 6] = text
            .as_bytes()
            .try_into()
            .map_err(|_| wrong("realm", "not six characters"))?;
        let ok = id
            .iter()
            .all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(b));
        if ok {
            Ok(Self(id))
        } else {
            Err(wrong("realm", "not lower-case base32"))
        }
    }
}

impl FromStr for AttemptId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        decode(text)
            .map(Self)
            .ok_or_else(|| wrong("attempt", "not sixteen characters of lower-case base32"))
    }
}

impl FromStr for TrackedKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split('-');
        let (Some("a1"), Some(realm), Some(attempt), Some(mac), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(wrong("launch_key", "not of the form a1-realm-attempt-mac"));
        };
        let mac = decode(mac).ok_or_else(|| {
            wrong(
                "launch_key",
                "its mac is not eight characters of lower-case base32",
            )
        })?;
        Ok(Self {
            realm: realm.parse()?,
            attempt: attempt.parse()?,
            mac,
        })
    }
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let exact = BASE32.encode_len(N) == text.len()
        && BASE32.decode_mut(text.as_bytes(), &mut bytes).is_ok();
    exact.then_some(bytes)
}

fn wrong(field: &'static str, message: &str) -> Error {
    Error::validation(field, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(realm: [u8; 4], seconds: u32, random: [u8; 6], mac: [u8; 5]) -> TrackedKey {
        TrackedKey::new(
            RealmId::from_bytes(realm),
            AttemptId::new(Timestamp::from_unix_seconds(seconds.into()), random),
            mac,
        )
    }

    proptest! {
        #[test]
        fn a_key_reads_back_from_any_name_that_carries_it(realm: [u8; 4], seconds: u32,
            random: [u8; 6], mac: [u8; 5], prefix in ".{0,30}",
                wished in proptest::option::of(".{0,80}")) {
            let key = key(realm, seconds, random, mac);
            prop_assert_eq!(key.to_string().len(), KEY_LEN);
            prop_assert_eq!(key.attempt().created_at().unix_seconds(), i64::from(seconds));
            let name = LaunchKey::Tracked(key).machine_name(&prefix, wished.as_deref());
            prop_assert!(name.len() <= MAX_NAME_LEN, "{}", name);
            prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{}", name);
            prop_assert_eq!(TrackedKey::in_name(&name), Some(key));
        }

        #[test]
        fn no_text_panics_the_parser(text in ".{0,80}") {
            let _ = (text.parse::<TrackedKey>(), TrackedKey::in_name(&text));
        }
    }

    #[test]
    fn a_name_looks_as_documented() {
        let key = key([0; 4], 1_790_000_000, [1; 6], [2; 5]);
        assert_eq!(
            LaunchKey::Tracked(key).machine_name("atlas-", Some("User 42")),
            "atlas-user-42-a1-aaaaaa-nkytxaabaeaqcaib-aibaeaqc"
        );
    }
}
