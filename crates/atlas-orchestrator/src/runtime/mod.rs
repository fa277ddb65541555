//! Drives the kernel with tokio: one reconciler with its timers, a driver for each session that has
//! work, and a few background tasks (lease, flush, feed, rounds over each account).

pub(crate) mod account;
pub(crate) mod accounts;
pub(crate) mod adopt;
pub(crate) mod clock;
mod coalesce;
pub(crate) mod core;
pub(crate) mod deadline;
mod driver;
mod effects;
pub(crate) mod entries;
pub(crate) mod feed;
pub(crate) mod flush;
#[cfg(feature = "metrics")]
pub(crate) mod gauge;
pub(crate) mod index;
pub(crate) mod janitor;
pub(crate) mod keys;
mod lease;
mod looks;
pub(crate) mod nodes;
mod pacer;
pub(crate) mod pages;
mod plausible;
mod proofs;
pub(crate) mod reaper;
pub(crate) mod reconciler;
pub(crate) mod rounds;
pub(crate) mod self_ending;
mod slots;
pub(crate) mod spawner;
pub(crate) mod steady;
mod survey;
mod touches;

pub use feed::Subscription;
pub use spawner::{Spawner, Task, TokioSpawner};
