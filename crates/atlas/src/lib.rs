//! Rents GPU and CPU machines for a web backend and gives them back.
//!
//! The contract ([`ComputeRequest`], [`Provider`], [`Error`] and the rest of `atlas-core`) is
//! always included. Each cloud and each part is a feature: `runpod`, `auth`, `orchestrator`,
//! `config`, `testkit`, or all of them with `full`.
#![cfg_attr(
    all(feature = "runpod", feature = "orchestrator", feature = "testkit"),
    doc = include_str!("../../../README.md")
)]

#[cfg(feature = "cloud")]
mod clouds;
#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "orchestrator")]
mod facade;
#[cfg(feature = "guard")]
mod guard;
#[cfg(feature = "orchestrator")]
pub mod owner;
#[cfg(feature = "probe")]
mod probe;
#[cfg(feature = "orchestrator")]
mod realm;
#[cfg(feature = "config")]
pub mod span;

#[cfg(feature = "auth")]
pub use atlas_auth as auth;
pub use atlas_core::*;
#[cfg(feature = "fly-ops")]
pub use atlas_fly_ops as fly_ops;
#[cfg(feature = "orchestrator")]
pub use atlas_orchestrator::store::Memory;
#[cfg(feature = "orchestrator")]
pub use atlas_orchestrator::{
    AccountPolicy, Acquired, ActivitySource, AttemptInfo, AttemptPhase, Audit, Cost, Cursor, Death,
    Delivery, Event, EventKind, Limit, OnFailure, Orchestrator, Policy, Probe, Proof, ReadyProbe,
    ReapReport, Reason, Risk, Scope, Session, SessionFilter, SessionId, SessionInfo, SessionKind,
    SessionOptions, SessionState, Shutdown, ShutdownReport, StopOutcome, Stuck, Subscription,
    TaskCause, TaskKind, TaskOutcome, Touch, Unattended,
};
#[cfg(feature = "orchestrator")]
pub use atlas_store_redb::{Redb, RedbOptions};
#[cfg(feature = "testkit")]
pub use atlas_testkit as testkit;
#[cfg(feature = "web")]
pub use atlas_web as web;
#[cfg(feature = "cloud")]
pub use clouds::*;
#[cfg(feature = "orchestrator")]
pub use facade::{Atlas, AtlasBuilder};
#[cfg(feature = "guard")]
pub use guard::GuardActivity;
#[cfg(feature = "probe")]
pub use probe::NetProbe;
#[cfg(feature = "orchestrator")]
pub use realm::REALM_SECRET_ENV;

/// The programs of the guides, compiled and run as doc tests.
#[cfg(all(doctest, feature = "full"))]
mod guides {
    #[doc = include_str!("../../../docs/guides/callbacks.md")]
    struct Callbacks;
    #[doc = include_str!("../../../docs/guides/fly.md")]
    struct Fly;
    #[doc = include_str!("../../../docs/guides/getting-started.md")]
    struct GettingStarted;
    #[doc = include_str!("../../../docs/guides/tasks.md")]
    struct Tasks;
    #[doc = include_str!("../../../docs/guides/testing.md")]
    struct Testing;
    #[doc = include_str!("../../../docs/guides/transient-pods.md")]
    struct TransientPods;
}
