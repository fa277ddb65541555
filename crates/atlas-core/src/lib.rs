//! The contract of atlas: what to rent, what was rented, what a cloud must be able to do, and what
//! can go wrong.
//!
//! ```
//! use atlas_core::{Auth, ComputeRequest, Gpu, Port};
//!
//! let request = ComputeRequest::gpu(Gpu::H100)
//!     .image("ghcr.io/me/infer:1")
//!     .port(Port::http(8000))
//!     .env("MODEL", "llama");
//! request.validate()?;
//! # Ok::<(), atlas_core::Error>(())
//! ```
//!
//! Deliberately absent: the network, files, the environment, and any cloud's own names. Time and
//! randomness are traits; the system's are in [`SystemClock`] and [`SystemEntropy`] and nowhere
//! else (docs/adr/0001).

mod candidate;
mod capabilities;
mod compute;
pub mod config;
mod context;
mod credential;
pub mod duration_ms;
mod entropy;
mod error;
mod gpu;
mod ids;
mod image;
mod job;
mod launch_key;
mod listing;
mod money;
mod plain;
mod provider;
mod raw;
mod request;
mod resource;
mod retry;
mod secret;
mod size;
mod time;

pub use candidate::Candidate;
pub use capabilities::{Capabilities, Capability};
pub use compute::{Claim, Compute, ComputeStatus, KeyCarriers, PortMapping, StopCause};
pub use context::CallContext;
pub use credential::{Auth, CONTROL_KEY_ENV, Credential, PRESHARED_KEY_ENV, SIGNING_SECRET_ENV};
pub use entropy::{Entropy, SeededEntropy, SystemEntropy};
pub use error::{Error, ErrorKind, Next, Outcome, Result};
pub use gpu::{Gpu, GpuType, Stock};
pub use ids::{AccountName, ComputeId, JobId, ProviderId, VolumeId};
pub use job::{Job, JobMode, JobRef, JobRequest, JobStatus};
pub use launch_key::{
    AttemptId, DEFAULT_NAME_PREFIX, LAUNCH_KEY_ENV, LAUNCH_KEY_TAG, LaunchKey, MAX_NAME_LEN,
    RealmId, TrackedKey,
};
pub use listing::{Completeness, ListFilter, Listing, Presence, UnreadableRow};
pub use money::{Usd, UsdPerHour};
pub use plain::{is_unsafe, plain, plain_line};
pub use provider::{AnyProvider, BoxStream, Jobs, NetworkVolumes, Provider};
pub use raw::Raw;
pub use request::{CloudType, ComputeRequest, GpuChoice, Port, Protocol};
pub use resource::{
    AccountLimits, ComputeSpend, LogLine, LogQuery, LogSource, NetworkVolume, SpendQuery, Support,
    VolumeRequest,
};
pub use retry::{Backoff, RetryClass};
pub use secret::{REDACTED, Secret};
pub use size::{DiskSize, MemorySize};
pub use time::{Clock, DateListener, SystemClock, Timestamp};
