//! Credentials a browser can carry straight to a machine: minted here, verified in front of the
//! machine.
//!
//! ```
//! use atlas_auth::token;
//! use atlas_core::{Auth, SystemEntropy};
//!
//! let minted = atlas_auth::mint(Auth::Bearer, &SystemEntropy::new()).expect("bearer mints");
//! assert!(token::verify(minted.secret().expose(), minted.hash().expect("bearer has a hash")));
//! ```
//!
//! Deliberately absent: reading a clock (callers pass `now`), the environment, and any I/O.

pub mod callback;
pub mod grant;
pub mod layer;
pub mod signed_url;
pub mod token;
mod verifier;

use atlas_core::{Auth, Credential, Entropy, Secret};
use ring::hmac;

pub use verifier::{ClientAddress, Principal, Verifier};

/// A new credential for this scheme; `None` for [`Auth::None`].
#[must_use]
pub fn mint(auth: Auth, entropy: &dyn Entropy) -> Option<Credential> {
    match auth {
        Auth::None => None,
        Auth::Bearer => Some(token::mint(entropy)),
        Auth::SignedUrl => Some(signed_url::mint_secret(entropy)),
    }
}

/// A key of its own for each purpose of one secret. A compatible signature, the other use of the
/// secret itself, is always over a text with a `?`, which no purpose has.
fn derive_key(secret: &Secret, purpose: &[u8]) -> hmac::Key {
    let root = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, purpose).as_ref())
}

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guides/credentials.md")]
struct Guide;
