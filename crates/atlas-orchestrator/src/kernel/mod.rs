//! The kernel: records, inputs, transitions, effects. Pure: no clock, no I/O, no async, no
//! randomness.
//!
//! [`step`] says what an input makes of a session and which events belong to it; [`plan()`] derives
//! from a record, and the facts a process has, what is to be done next. Because effects are derived
//! and not queued, a process that starts over from the records alone does the right thing. Nothing
//! here deletes a session's history: a committed end is final.

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
