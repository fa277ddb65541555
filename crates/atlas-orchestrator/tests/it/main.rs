//! The orchestrator over a simulated cloud, on virtual time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod clocks;
mod crash;
mod deaths;
mod events;
#[cfg(feature = "metrics")]
mod gauge;
mod index;
mod keys;
mod life;
mod limits;
#[cfg(feature = "conformance")]
mod lost;
mod money;
mod node;
mod pace;
mod ready;
mod reap;
mod rollback;
mod storms;
mod tasks;
mod unknown;
mod weather;
