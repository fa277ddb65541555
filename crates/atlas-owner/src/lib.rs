//! The owner's socket: how another process reaches the one that holds a redb store.
//!
//! A Unix socket with mode 0600 beside the store's file. Both sides send lines of JSON: a request,
//! then any number of `{"item":…}`, then one `{"done":…}` or `{"error":…}`; then the next request
//! may follow. The caller defines the contents of requests and answers.
//!
//! The listener belongs to the process that holds the store's lock: bind it after opening the
//! store, and drop it before closing the store.

mod client;
mod place;
mod server;
#[cfg(test)]
mod tests;
mod wire;

pub use self::client::OwnerClient;
pub use self::server::{Items, OwnerSocket};
