//! Signed URLs, for clients that cannot send a header, such as `<video src>` and a browser's
//! WebSocket.
//!
//! There are two formats, distinguished by their parameters: [`compatible`] reads and writes
//! `ex_atlas`'s (`exp`, `sig`), and [`atlas`] our own (`atlas_sig`), which is bound to more of the
//! request. Their keys are derived separately, so a signature of one format is never valid in the
//! other.

pub mod atlas;
pub mod compatible;
pub(crate) mod query;
mod split;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use atlas_core::{Credential, Entropy, Error, Result, Secret, Timestamp};
use data_encoding::BASE64URL_NOPAD;
use ring::hmac;

use crate::token;

pub use atlas::{Policy, Target};

/// Mints a new secret for signing URLs.
#[must_use]
pub fn mint_secret(entropy: &dyn Entropy) -> Credential {
    Credential::signed_url(token::random_text(entropy))
}

/// The format of a signature in a URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// The format of `ex_atlas`: bound to path and parameters.
    Compatible,
    /// Atlas's own format, for new code: bound to host, method, path and query as sent.
    #[default]
    Atlas,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "compatible" => Ok(Self::Compatible),
            "atlas" => Ok(Self::Atlas),
            _ => Err(Error::validation("format", "must be compatible or atlas")),
        }
    }
}

/// The result of verifying a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Signed with this secret, and currently valid.
    Ok,
    /// Expired. Reported before the signature is checked.
    Expired,
    /// Not signed with this secret, or not for this URL, or not yet valid.
    BadSignature,
    /// There is no signature of this format.
    Malformed,
}

impl Verdict {
    /// The stable name: `ok`, `expired`, `bad_signature` or `malformed`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Expired => "expired",
            Self::BadSignature => "bad_signature",
            Self::Malformed => "malformed",
        }
    }

    /// True for [`Verdict::Ok`].
    #[must_use]
    pub const fn is_ok(self) -> bool {
        matches!(self, Self::Ok)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A secret prepared for signing and verifying: keep it when there is more than one URL.
#[derive(Clone)]
pub struct Key {
    id: String,
    compatible: hmac::Key,
    atlas: hmac::Key,
}

impl Key {
    /// Prepares a secret. The key's id is derived from the secret, so that both ends agree on it
    /// without exchanging it.
    ///
    /// # Errors
    /// `validation` for a secret of fewer than [`crate::MIN_SECRET_BYTES`] bytes.
    pub fn new(secret: &Secret) -> Result<Self> {
        crate::check_length(secret)?;
        Ok(Self::of(secret))
    }

    /// Prepares a secret that is used elsewhere and cannot be changed here: `ex_atlas` has no
    /// minimum length. Callers should warn about a short one.
    ///
    /// # Errors
    /// `validation` for an empty secret, with which everyone can sign.
    pub fn existing(secret: &Secret) -> Result<Self> {
        if secret.expose().is_empty() {
            return Err(Error::validation("secret", "must not be empty"));
        }
        Ok(Self::of(secret))
    }

    fn of(secret: &Secret) -> Self {
        let compatible = compatible::key(secret);
        let mut id =
            BASE64URL_NOPAD.encode(&hmac::sign(&compatible, b"atlas url key id").as_ref()[..6]);
        id.truncate(8);
        Self {
            id,
            atlas: atlas::derive(&compatible),
            compatible,
        }
    }

    /// The key's id, as it appears in an atlas signature. It reveals nothing about the secret.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Signs `url` for `GET` until `expires_in` from `now`. See [`compatible::sign`] and
/// [`atlas::sign`] for more.
///
/// # Errors
/// `validation` for a secret of fewer than [`crate::MIN_SECRET_BYTES`] bytes, for a URL that
/// clients and servers would interpret differently, or, in the atlas format, one without a host.
pub fn sign(
    format: Format,
    url: &str,
    secret: &Secret,
    now: Timestamp,
    expires_in: Duration,
) -> Result<String> {
    let expires_at = now.saturating_add(expires_in);
    crate::check_length(secret)?;
    match format {
        Format::Compatible => compatible::sign_with(&compatible::key(secret), url, expires_at),
        Format::Atlas => atlas::sign(url, &Key::of(secret), &Policy::until(expires_at)),
    }
}

/// Verifies a signed URL for `GET`. The compatible format accepts a full URL or path and query, the
/// atlas format a full URL (a server that has only a request uses [`atlas::verify`]). With a secret
/// of fewer than [`crate::MIN_SECRET_BYTES`] bytes no signature is valid; [`Key::existing`] accepts
/// one.
#[must_use]
pub fn verify(format: Format, url: &str, secret: &Secret, now: Timestamp) -> Verdict {
    let verdict = match format {
        Format::Compatible => compatible::verify_with(&compatible::key(secret), url, now),
        Format::Atlas => Target::from_url("GET", url).map_or(Verdict::Malformed, |target| {
            atlas::verify(&target, &[Key::of(secret)], now)
        }),
    };
    if verdict.is_ok() && crate::check_length(secret).is_err() {
        return Verdict::BadSignature;
    }
    verdict
}

/// The signature in a query, which distinguishes signed URLs. `None` if there is none.
#[must_use]
pub fn signature(format: Format, query: &str) -> Option<Vec<u8>> {
    match format {
        Format::Atlas => atlas::signatures(query)
            .next()
            .map(|value| value.as_bytes().to_vec()),
        Format::Compatible => compatible::signature(query),
    }
}

#[cfg(test)]
mod tests;
