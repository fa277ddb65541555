//! Control of a guard with a second secret, which the backend keeps and no browser receives.
//!
//! The machine is given only the public half. It verifies what the secret signs and cannot sign
//! anything itself, so a reader of the machine's environment can neither renew its permit nor
//! revoke grants. The format is `ak1.PAYLOAD.SIGNATURE`, both in url-safe base64 without padding;
//! the payload is that of a grant, the signature is Ed25519.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use atlas_core::{Entropy, Error, Result, Secret, Timestamp};
use data_encoding::BASE64URL_NOPAD;
use ring::hmac;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::grant::{self, Grant};
use crate::signed_url::Verdict;
use crate::token;

const PREFIX: &str = "ak1.";
/// The length in characters of a minted secret and of a public half.
const TEXT_LENGTH: usize = 43;

/// Generates a new control secret.
#[must_use]
pub fn mint(entropy: &dyn Entropy) -> Secret {
    token::random_text(entropy)
}

/// The control secret of one session, ready for signing.
pub struct ControlSecret(Ed25519KeyPair);

impl ControlSecret {
    /// Parses the text that [`mint`] generated.
    ///
    /// # Errors
    /// `validation` for a secret of fewer than [`crate::MIN_SECRET_BYTES`] bytes.
    pub fn new(secret: &Secret) -> Result<Self> {
        crate::check_length(secret)?;
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let seed = hmac::sign(&root, b"atlas control v1");
        Ed25519KeyPair::from_seed_unchecked(seed.as_ref())
            .map(Self)
            .map_err(|_| Error::validation("control secret", "makes no key"))
    }

    /// The public half, which the machine receives.
    #[must_use]
    pub fn key(&self) -> ControlKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        ControlKey(key)
    }

    /// A token that authorises calls to the control paths of this session's guard for `lifetime`.
    #[must_use]
    pub fn grant(
        &self,
        access: grant::Access,
        now: Timestamp,
        lifetime: Duration,
        entropy: &dyn Entropy,
    ) -> Secret {
        let grant = Grant::new(grant::Scope::control(access), now, lifetime, entropy);
        let payload = grant::write(&grant);
        let signature = self.0.sign(&payload);
        let text = [&payload, signature.as_ref()].map(|bytes| BASE64URL_NOPAD.encode(bytes));
        Secret::new(format!("{PREFIX}{}.{}", text[0], text[1]))
    }
}

impl fmt::Debug for ControlSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ControlSecret(..)")
    }
}

/// The public half of a control secret, with which a machine verifies control calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlKey([u8; 32]);

impl ControlKey {
    /// True when `shown` is the control secret itself.
    #[must_use]
    pub fn is_of(&self, shown: &str) -> bool {
        shown.len() == TEXT_LENGTH
            && ControlSecret::new(&Secret::new(shown)).is_ok_and(|secret| secret.key() == *self)
    }

    /// Verifies a token of [`ControlSecret::grant`].
    ///
    /// # Errors
    /// Any verdict other than [`Verdict::Ok`]. The signature is checked first.
    pub fn verify(&self, token: &str, now: Timestamp) -> std::result::Result<Grant, Verdict> {
        let (payload, signature) = grant::split(token, PREFIX).ok_or(Verdict::Malformed)?;
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(&payload, &signature)
            .map_err(|_| Verdict::BadSignature)?;
        grant::read_valid(&payload, now)
    }
}

impl fmt::Display for ControlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl FromStr for ControlKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| {
                Error::validation("control key", "must be 43 characters of url-safe base64")
            })
    }
}

#[cfg(test)]
mod tests {
    use atlas_core::{SeededEntropy, SystemEntropy};

    use super::*;
    use crate::grant::{Access, GrantKey};

    #[test]
    fn only_the_control_secret_and_what_it_signs_pass_and_only_in_time() {
        let entropy = SystemEntropy::new();
        let (ours, other) = (mint(&entropy), mint(&entropy));
        let secret = ControlSecret::new(&ours).unwrap();
        let key: ControlKey = secret.key().to_string().parse().unwrap();
        assert!(key.is_of(ours.expose()) && !key.is_of(other.expose()) && !key.is_of(""));
        let at = Timestamp::from_unix_seconds;
        let shown = secret.grant(Access::Read, at(100), Duration::from_secs(60), &entropy);
        let shown = shown.expose();
        assert!(key.verify(shown, at(160)).is_ok());
        assert_eq!(key.verify(shown, at(161)), Err(Verdict::Expired));
        let stranger = ControlSecret::new(&other).unwrap().key();
        assert_eq!(stranger.verify(shown, at(100)), Err(Verdict::BadSignature));
        // The key that the machine has cannot sign.
        let scope = grant::Scope::control(Access::All);
        let public = Secret::new(key.to_string());
        let forged = GrantKey::new(&public).unwrap();
        let (_, forged) = forged.mint(scope, at(100), Duration::from_secs(60), &entropy);
        assert_eq!(
            key.verify(forged.expose(), at(100)),
            Err(Verdict::Malformed)
        );
        assert!(!key.is_of(public.expose()));
    }

    #[test]
    fn every_changed_character_of_a_token_fails() {
        let entropy = SeededEntropy::new(3);
        let secret = ControlSecret::new(&mint(&entropy)).unwrap();
        let at = Timestamp::from_unix_seconds(100);
        let shown = secret.grant(Access::All, at, Duration::from_secs(60), &entropy);
        for index in 0..shown.expose().len() {
            let mut changed = shown.expose().to_owned().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(secret.key().verify(&changed, at).is_err(), "{changed}");
        }
    }
}
