//! Sessions over rented machines, and the kernel that keeps track of every machine.
//!
//! ```
//! # use std::{sync::Arc, time::Duration};
//! # use atlas_core::{AccountName, Auth, ComputeRequest, Gpu, Port, Secret, SystemEntropy};
//! # use atlas_orchestrator::store::{AnyStore, Memory};
//! # use atlas_orchestrator::{Orchestrator, Realm, SessionOptions, Shutdown, StopOutcome};
//! # let mut runtime = tokio::runtime::Builder::new_current_thread();
//! # runtime.enable_all().start_paused(true).build().unwrap().block_on(async {
//! let cloud = atlas_testkit::mock::MockCloud::new(7); // in your code: a provider of a real cloud
//! let clock = Arc::new(cloud.world().clock().clone());
//! let atlas = Orchestrator::builder()
//!     .account(AccountName::new("mock")?, cloud.provider())
//!     .store(AnyStore::new(Memory::new(clock, &SystemEntropy::new())))
//!     .realm(Realm::new(&Secret::new("NDIgcmFuZG9tIGJ5dGVzIGFyZSBiZXR0ZXIgdGhhbiB0aGlz"))?)
//!     .start()
//!     .await?;
//! let request = ComputeRequest::gpu(Gpu::H100)
//!     .image("ghcr.io/me/infer:1")
//!     .port(Port::http(8000))
//!     .auth(Auth::Bearer);
//! let options = SessionOptions::new().user("u42").idle_ttl(Duration::from_secs(900));
//! let session = atlas.spawn(request, options).await?;
//! session.await_ready(Duration::from_secs(600)).await?;
//! session.touch();
//! session.terminate().await?; // its end is on record, and final; it is proved later:
//! let outcome = atlas.await_terminated(session.id(), Duration::from_secs(900)).await?;
//! assert_eq!(outcome, StopOutcome::Terminated);
//! atlas.shutdown(Shutdown::TerminateAll { wait: Duration::from_secs(900) }).await?;
//! # Ok::<(), atlas_core::Error>(())
//! # }).unwrap();
//! ```
//!
//! Deliberately absent: any cloud (the orchestrator receives provider handles), any store on disk
//! (it receives a [`store::AnyStore`]), HTTP, and the socket of the process that holds a store.

mod accept;
mod activity;
mod audit;
mod builder;
mod clocks;
mod handle;
mod info;
mod launch;
mod orchestrator;
pub mod private_file;
pub mod realm;
mod runtime;
pub mod store;
mod unattended;

pub use atlas_kernel as kernel;

use atlas_kernel::{event, ids, options, outcome, policy, probe, report, session};

pub use accept::AcceptReport;
pub use activity::{ActivitySource, AnyActivitySource, AnyReadyProbe, ReadyProbe};
pub use audit::{Audit, Risk};
pub use builder::Builder;
pub use clocks::ClockReport;
pub use event::{Cursor, Death, Delivery, Event, EventKind, Limit, Reason, Scope, Stuck};
pub use handle::Session;
pub use ids::SessionId;
pub use info::{
    AttemptInfo, Finding, ReapReport, SessionInfo, Shutdown, ShutdownReport, StopOutcome, Touch,
};
pub use launch::Acquired;
pub use options::{
    DEFAULT_IDLE_TTL, DEFAULT_TASK_RUNTIME, OnFailure, SessionFilter, SessionOptions,
};
pub use orchestrator::Orchestrator;
pub use outcome::{Proof, TaskCause, TaskKind, TaskOutcome};
#[cfg(feature = "sabotage")]
pub use policy::Safeguards;
pub use policy::{AccountPolicy, Policy};
pub use probe::Probe;
pub use realm::Realm;
pub use report::Reports;
pub use runtime::{Spawner, Subscription, Task, TokioSpawner};
pub use session::{AttemptPhase, Cost, Deadline, Decision, SessionKind, SessionState};
pub use unattended::Unattended;
