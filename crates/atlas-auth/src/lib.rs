//! Credentials that a browser presents directly to a machine: minted here, verified in front of the
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
pub mod control;
pub mod grant;
pub mod layer;
pub mod signed_url;
pub mod token;
mod verifier;

use atlas_core::{Auth, Credential, Entropy, Error, Result, Secret};
use ring::hmac;

pub use verifier::{ClientAddress, Principal, Verifier};

/// The minimum length of a secret. A shorter one, and above all an empty one (a variable set to
/// nothing, a pipe that failed), can be guessed from what it signs.
pub const MIN_SECRET_BYTES: usize = 16;

/// Mints a new credential for this scheme, with its own control secret; `None` for [`Auth::None`].
#[must_use]
pub fn mint(auth: Auth, entropy: &dyn Entropy) -> Option<Credential> {
    let credential = match auth {
        Auth::None => return None,
        Auth::Bearer => token::mint(entropy),
        Auth::SignedUrl => signed_url::mint_secret(entropy),
    };
    let secret = control::mint(entropy);
    let key = control::ControlSecret::new(&secret).ok()?.key();
    Some(credential.with_control(secret, key.to_string()))
}

pub(crate) fn check_length(secret: &Secret) -> Result<()> {
    if secret.expose().len() < MIN_SECRET_BYTES {
        return Err(Error::validation(
            "secret",
            "must be at least 16 bytes; `atlas token mint` makes one",
        ));
    }
    Ok(())
}

/// Derives a separate key for each purpose of a secret. A compatible signature, the only direct use
/// of the secret, is always over a text with a `?`, which no purpose contains.
fn derive_key(secret: &Secret, purpose: &[u8]) -> hmac::Key {
    let root = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, purpose).as_ref())
}

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guides/credentials.md")]
struct Guide;
