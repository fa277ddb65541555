//! Sessions over rented machines, and the kernel that never loses one.
//!
//! Deliberately absent: any cloud (the orchestrator is handed provider handles), HTTP, files other than the store's own.

mod accept;
mod activity;
mod audit;
mod duration_ms;
mod event;
mod handle;
mod ids;
pub mod kernel;
mod options;
mod orchestrator;
#[cfg(all(unix, feature = "redb"))]
pub mod owner;
mod policy;
pub mod realm;
mod runtime;
mod session;
pub mod store;

pub use accept::AcceptReport;
pub use activity::{ActivitySource, AnyActivitySource, AnyReadyProbe, ReadyProbe};
pub use audit::{Audit, Risk};
pub use event::{Cursor, Death, Delivery, Event, EventKind, Limit, Reason, Scope, Stuck};
pub use handle::Session;
pub use ids::SessionId;
pub use options::{DEFAULT_IDLE_TTL, OnFailure, SessionFilter, SessionOptions};
pub use orchestrator::{Builder, DEFAULT_TASK_RUNTIME, Orchestrator};
pub use policy::{AccountPolicy, Policy, Safeguards};
pub use realm::Realm;
pub use runtime::{Spawner, Subscription, Task, TokioSpawner};
pub use session::{
    AttemptInfo, AttemptPhase, Cost, Deadline, Decision, Finding, Proof, ReapReport, SessionInfo, SessionKind, SessionState,
    Shutdown, ShutdownReport, StopOutcome, TaskKind, TaskOutcome, Touch,
};
