//! The kernel: records, inputs, transitions, effects. Pure: no clock, no I/O, no async, no
//! randomness.
//!
//! [`step`] applies an input to a session and returns the events that belong to it; [`plan()`]
//! derives the next effects from a record and the evidence of a process. Because effects are
//! derived and not queued, a process that starts from the records alone does the right thing.
//! Nothing here undoes a session's history: a committed end is final.

pub mod clock;
mod ends;
pub mod glance;
pub mod input;
pub mod limits;
mod machines;
mod place;
pub mod plan;
mod proof;
pub mod record;
mod step;
mod task;
#[cfg(test)]
mod tests;

pub use clock::TimeTrust;
pub use input::{Activity, Answer, Cx, Evidence, Failure, Identity, Input, Reading, Walk};
pub use plan::{Effect, Plan, plan};
pub use record::{Attempt, AttemptRow, Bounds, Fate, SessionRecord};
pub use step::{Step, step};
