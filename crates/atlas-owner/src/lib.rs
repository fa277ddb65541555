//! The owner protocol: how another process reaches the one that holds a store.
//!
//! A Unix socket with mode 0600 lies beside the store. Both sides send lines of JSON. A client says
//! first which version of the protocol it speaks, and the owner answers with its own. Then the
//! client sends a request; the owner sends any number of items and one answer or error, and the
//! next request may follow.
//!
//! Requests, items and answers are the types of this crate, on both sides: each request is a struct
//! that implements [`Call`], which names the types of its items and its answer. An owner implements
//! [`Answer`] for every request; [`OwnerSocket::bind`] does not compile while one is missing.
//!
//! The listener belongs to the process that holds the store's lock: bind it after opening the
//! store, and drop it before closing the store.

mod answers;
mod call;
mod client;
mod place;
mod request;
mod server;
#[cfg(test)]
mod tests;
mod wire;

pub use self::answers::{
    AccountHealth, Clocks, CredentialView, EventItem, EventsSent, Exposed, HealthReport, Progress,
    ReapReports, SessionView, Stopped, Touched,
};
pub use self::call::{Answer, Call, Items, NoItem};
pub use self::client::OwnerClient;
pub use self::request::{
    Accept, AcceptAccount, Answers, Audit, Await, Events, Filter, Health, Info, List, Reap,
    Request, Sealed, Spawn, SpawnAs, Stop, Touch, Until,
};
pub use self::server::OwnerSocket;
pub use self::wire::PROTOCOL;
