//! Bearer tokens: 256 random bits that a caller sees once, and the hash that should be stored.
//!
//! Tokens and hashes are interchangeable with `ex_atlas`'s: url-safe base64 without padding,
//! SHA-256 in lower-case hex.

use std::fmt;

use atlas_core::{Credential, Entropy, Secret};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::digest;
use subtle::ConstantTimeEq;

/// Number of random bytes in a token.
pub const TOKEN_BYTES: usize = 32;

/// Mints a new token with its hash. The token is in [`Credential::secret`], its header value in
/// [`Credential::header`].
#[must_use]
pub fn mint(entropy: &dyn Entropy) -> Credential {
    let token = random_text(entropy);
    let hash = hash(token.expose());
    Credential::bearer(token, hash)
}

/// The hash of a token, which is what a caller should store: its SHA-256 in lower-case hex.
#[must_use]
pub fn hash(token: &str) -> String {
    HEXLOWER.encode(&sha256(token))
}

/// True when `hash` is the hash of `token`. Constant time.
#[must_use]
pub fn verify(token: &str, hash: &str) -> bool {
    Hash::parse(hash).is_some_and(|hash| hash.matches(token))
}

/// A parsed hash of a token, as a verifier keeps it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The hash of this token.
    #[must_use]
    pub fn of(token: &Secret) -> Self {
        Self(sha256(token.expose()))
    }

    /// Parses the output of [`hash`]; `None` for anything else, including upper-case digits.
    #[must_use]
    pub fn parse(hash: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        (hash.len() == 64 && HEXLOWER.decode_mut(hash.as_bytes(), &mut bytes).is_ok())
            .then_some(Self(bytes))
    }

    /// True when this is the hash of `token`. Takes the same time wherever they differ, and
    /// whatever the token is.
    #[must_use]
    pub fn matches(&self, token: &str) -> bool {
        let difference = sha256(token)
            .as_chunks::<8>()
            .0
            .iter()
            .zip(self.0.as_chunks::<8>().0)
            .fold(0, |sum, (a, b)| {
                sum | (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b))
            });
        difference.ct_eq(&0).into()
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(..)")
    }
}

fn sha256(token: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    bytes
}

/// The value of an `Authorization` header with `token`.
#[must_use]
pub fn header(token: &Secret) -> Secret {
    Secret::new(format!("Bearer {}", token.expose()))
}

/// The token in the value of an `Authorization` header, if the scheme is `Bearer`.
///
/// The scheme is compared without case and may be followed by any number of spaces (RFC 9110 §11.1,
/// §11.4).
#[must_use]
pub fn from_header(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim_start();
    (scheme.eq_ignore_ascii_case("bearer")
        && !token.is_empty()
        && !token.contains(char::is_whitespace))
    .then_some(token)
}

/// The token in the only `Authorization` header. If there are several, none is used: servers behind
/// this one differ in which one they use.
#[must_use]
pub fn from_headers(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => from_header(value.to_str().ok()?),
        _ => None,
    }
}

/// 256 random bits as text that needs no escaping in a URL, a header or a shell.
pub(crate) fn random_text(entropy: &dyn Entropy) -> Secret {
    let mut bytes = [0; TOKEN_BYTES];
    entropy.fill(&mut bytes);
    Secret::new(BASE64URL_NOPAD.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use atlas_core::{Auth, PRESHARED_KEY_ENV, SeededEntropy, SystemEntropy};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_minted_token_is_256_bits_of_unpadded_base64url_and_verifies() {
        let minted = mint(&SystemEntropy::new());
        let token = minted.secret().expose();
        assert_eq!(BASE64URL_NOPAD.decode(token.as_bytes()).unwrap().len(), 32);
        assert_eq!(
            (minted.scheme(), minted.env_name()),
            (Auth::Bearer, PRESHARED_KEY_ENV)
        );
        assert!(verify(token, minted.hash().unwrap()));
        assert_eq!(from_header(minted.header().unwrap().expose()), Some(token));
        assert_ne!(token, mint(&SystemEntropy::new()).secret().expose());
    }

    #[test]
    fn the_hash_is_sha_256_in_lower_case_hex() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            hash("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(!verify("abc", &hash("abc").to_uppercase()));
    }

    #[test]
    fn only_a_bearer_header_yields_a_token() {
        for value in ["Bearer t", "bearer t", "BEARER   t"] {
            assert_eq!(from_header(value), Some("t"));
        }
        for value in ["", "Bearer", "Bearer ", "Basic t", "Bearer a b", "t"] {
            assert_eq!(from_header(value), None, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn any_flipped_byte_fails(seed: u64, at in 0usize..43, to in "[A-Za-z0-9_-]") {
            let minted = mint(&SeededEntropy::new(seed));
            let mut token = minted.secret().expose().to_owned();
            prop_assume!(token[at..=at] != to);
            token.replace_range(at..=at, &to);
            prop_assert!(!verify(&token, minted.hash().unwrap()));
            prop_assert!(Hash::of(minted.secret()).matches(minted.secret().expose()));
        }

        #[test]
        fn no_text_panics(token: String, hash: String) {
            let _ = (verify(&token, &hash), from_header(&token));
        }
    }
}
