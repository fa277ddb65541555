//! The decisions of atlas about sessions and machines: records, inputs, transitions, effects. Pure:
//! no clock, no I/O, no async, no randomness. `cargo xtask layers` checks that this crate depends
//! on no runtime and names none.
//!
//! [`step()`] applies an input to a session and returns the events that belong to it; [`plan()`]
//! derives the next effects from a record and the evidence of a process. Because effects are
//! derived and not queued, a process that starts from the records alone does the right thing.
//! Nothing here undoes a session's history: a committed end is final.
//!
//! `atlas-orchestrator` drives this crate; applications depend on that one or on `atlas`.

pub mod clock;
mod ends;
pub mod event;
pub mod glance;
pub mod ids;
pub mod input;
pub mod limits;
mod machines;
pub mod options;
pub mod outcome;
mod place;
pub mod plan;
pub mod policy;
pub mod probe;
mod proof;
pub mod record;
pub mod refusal;
pub mod report;
pub mod session;
mod step;
mod task;
#[cfg(test)]
mod tests;

pub use clock::TimeTrust;
pub use input::{Activity, Answer, Cx, Evidence, Failure, Identity, Input, Reading, Walk};
pub use plan::{Effect, Plan, plan};
pub use record::{Attempt, AttemptRow, Bounds, Fate, SessionRecord};
pub use step::{Step, step};
