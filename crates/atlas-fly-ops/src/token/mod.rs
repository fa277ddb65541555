//! Credentials for Fly: their forms, where they are kept, and the chain they are found by.

mod chain;
#[cfg(feature = "conformance")]
pub mod conformance;
mod file_store;
mod flyctl_config;
mod form;
mod mint;
mod store;

pub use chain::{Acquired, AppCredential, TokenSource, Tokens, TokensBuilder};
pub use file_store::FileTokenStore;
pub use form::{FlyToken, TokenScheme};
pub use mint::MintScope;
pub use store::{AnyTokenStore, MemoryTokenStore, StoredToken, TokenSlot, TokenStore};
