//! Credentials for Fly: their forms, where they are kept, and the chain they are found by.

mod chain;
#[cfg(feature = "conformance")]
pub mod conformance;
mod flyctl_config;
mod form;
mod mint;
#[cfg(feature = "redb")]
mod redb_store;
mod store;

pub use chain::{Acquired, AppCredential, TokenSource, Tokens, TokensBuilder};
pub use form::{FlyToken, TokenScheme};
pub use mint::MintScope;
#[cfg(feature = "redb")]
pub use redb_store::RedbTokenStore;
pub use store::{AnyTokenStore, MemoryTokenStore, StoredToken, TokenSlot, TokenStore};
