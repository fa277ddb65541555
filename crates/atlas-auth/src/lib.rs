//! Credentials a browser can carry straight to a machine: minted here, verified in front of the machine.
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

pub mod signed_url;
pub mod token;

use atlas_core::{Auth, Credential, Entropy};

/// A new credential for this scheme; `None` for [`Auth::None`].
#[must_use]
pub fn mint(auth: Auth, entropy: &dyn Entropy) -> Option<Credential> {
    match auth {
        Auth::None => None,
        Auth::Bearer => Some(token::mint(entropy)),
        Auth::SignedUrl => Some(signed_url::mint_secret(entropy)),
    }
}
