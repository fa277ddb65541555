//! The provider over its whole HTTP stack, against the simulated cloud and against answers no cloud
//! of good faith gives.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the verdict")]

mod account;
mod money;
mod odd;
mod stage;
