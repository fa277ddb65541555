//! Signed URLs: for what cannot send a header, such as `<video src>` and a browser's WebSocket.

use atlas_core::{Credential, Entropy};

use crate::token;

/// A new secret that signs URLs.
#[must_use]
pub fn mint_secret(entropy: &dyn Entropy) -> Credential {
    Credential::signed_url(token::random_text(entropy))
}
