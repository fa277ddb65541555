//! Limits of the calls of one account, before and between them: a rate ([`gcra`]), what all calls
//! of the account share ([`gate`]), and how many calls may be repeated ([`budget`]).
//!
//! # Why calls wait here
//!
//! A cloud limits the calls of a key, not of a process or a caller, and answers too many of them
//! with 429. Each of those costs a round trip and, with some clouds, lengthens the block. A caller
//! that waits for its slot here needs no repeat, and one that could get none before its deadline is
//! told at once and has spent nothing.

mod budget;
mod gate;
mod gcra;

use std::time::Duration;

pub(crate) use gate::{Gate, Refusal};

/// The minimum average time between two calls, and how many may be made at once before that average
/// applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time per call. Zero disables pacing.
    pub interval: Duration,
    /// Number of calls that may be made at once; 0 counts as 1.
    pub burst: u32,
}

impl Pace {
    /// One call per interval, never two at once.
    #[must_use]
    pub const fn every(interval: Duration) -> Self {
        Self { interval, burst: 1 }
    }

    /// Sets how many calls may be made at once before the average applies.
    #[must_use]
    pub const fn burst(self, burst: u32) -> Self {
        Self { burst, ..self }
    }
}

/// A time in nanoseconds, as the atomics of this module keep it: 584 years fit.
fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
