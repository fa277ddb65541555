//! Bearer tokens: 256 random bits a caller sees once, and the hash to keep of them.
//!
//! Tokens and hashes are interchangeable with `ex_atlas`'s: url-safe base64 without padding, SHA-256 in lower-case hex.

use atlas_core::{Credential, Entropy, Secret};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::digest;
use subtle::ConstantTimeEq;

/// Bytes of randomness in a token.
pub const TOKEN_BYTES: usize = 32;

/// A new token with its hash. The token is in [`Credential::secret`], its header value in [`Credential::header`].
#[must_use]
pub fn mint(entropy: &dyn Entropy) -> Credential {
    let token = random_text(entropy);
    let hash = hash(token.expose());
    Credential::bearer(token, hash)
}

/// What to keep of a token: its SHA-256 in lower-case hex.
#[must_use]
pub fn hash(token: &str) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, token.as_bytes()).as_ref())
}

/// True when `token` is the one `hash` was made of. Takes the same time wherever they differ.
#[must_use]
pub fn verify(token: &str, hash: &str) -> bool {
    self::hash(token).as_bytes().ct_eq(hash.as_bytes()).into()
}

/// True when `token` is `expected`. Takes the same time wherever they differ, and whatever their lengths are.
#[must_use]
pub fn same(token: &str, expected: &Secret) -> bool {
    let digest = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    digest(token).as_ref().ct_eq(digest(expected.expose()).as_ref()).into()
}

/// The value of the `Authorization` header that carries `token`.
#[must_use]
pub fn header(token: &Secret) -> Secret {
    Secret::new(format!("Bearer {}", token.expose()))
}

/// The token in the value of an `Authorization` header, when it is a bearer's.
///
/// The scheme is read in any case and any number of spaces may follow it (RFC 9110 §11.1, §11.4).
#[must_use]
pub fn from_header(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim_start();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(char::is_whitespace)).then_some(token)
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
        assert_eq!((minted.scheme(), minted.env_name()), (Auth::Bearer, PRESHARED_KEY_ENV));
        assert!(verify(token, minted.hash().unwrap()));
        assert_eq!(from_header(minted.header().unwrap().expose()), Some(token));
        assert_ne!(token, mint(&SystemEntropy::new()).secret().expose());
    }

    #[test]
    fn the_hash_is_sha_256_in_lower_case_hex() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
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
            prop_assert!(!same(&token, minted.secret()));
            prop_assert!(same(minted.secret().expose(), minted.secret()));
        }

        #[test]
        fn no_text_panics(token: String, hash: String) {
            let _ = (verify(&token, &hash), from_header(&token));
        }
    }
}
