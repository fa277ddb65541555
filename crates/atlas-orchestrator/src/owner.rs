//! The owner's socket: how another process reaches the one that holds a redb store.
//!
//! A 0600 Unix socket beside the store's file. Lines of JSON: a request, then any number of
//! `{"item":…}`, then one `{"done":…}` or `{"error":…}`; then the next request may follow. What
//! requests and answers mean is the caller's.
//!
//! The listener belongs to the process that holds the store's lock: bind it after opening the
//! store, drop it before closing.

mod client;
mod place;
mod server;
#[cfg(test)]
mod tests;
mod wire;

pub use self::client::OwnerClient;
pub use self::server::{Items, OwnerSocket};
