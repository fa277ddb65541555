//! The generic cell rate algorithm: a rate with a burst, in one atomic number.
//!
//! # Why this algorithm
//!
//! A token bucket needs a number of tokens and the time of the last refill, which change together
//! and so need a lock. This algorithm keeps only the time at which the next call would be due; a
//! call moves it by one interval, and the burst is how far ahead of the clock it may be. One
//! compare-and-swap takes a slot, so the limiter costs nothing to accounts that are far below their
//! rate. It also says *when* the next slot is, so a waiting call sleeps once instead of asking
//! again, and a call whose slot is after its deadline is refused without taking it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Pace, nanos};

/// The generic cell rate algorithm, in nanoseconds since the gate was created. Lock-free: one
/// compare-and-swap per call.
#[derive(Debug)]
pub(super) struct Gcra {
    interval: u64,
    tolerance: u64,
    /// When the next call would be due if every call were on time.
    due: AtomicU64,
}

impl Gcra {
    pub(super) fn new(pace: Pace) -> Self {
        let interval = nanos(pace.interval);
        Self {
            interval,
            tolerance: interval.saturating_mul(u64::from(pace.burst.max(1) - 1)),
            due: AtomicU64::new(0),
        }
    }

    /// Takes the next slot. If it is later than `latest`, nothing is taken and the slot's time is
    /// the error.
    pub(super) fn reserve(&self, now: u64, latest: u64) -> Result<u64, u64> {
        if self.interval == 0 {
            return Ok(now);
        }
        let mut slot = now;
        self.due
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |due| {
                slot = due.saturating_sub(self.tolerance).max(now);
                (slot <= latest).then(|| due.max(now).saturating_add(self.interval))
            })
            .map(|_| slot)
            .map_err(|_| slot)
    }

    /// Whether its state is the same as if it had never been used.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.due.load(Ordering::Acquire) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_slot_after_the_latest_is_refused_and_not_spent() {
        let gcra = Gcra::new(Pace::every(Duration::from_secs(4)));
        assert_eq!(gcra.reserve(0, 0), Ok(0));
        assert_eq!(gcra.reserve(0, SECOND), Err(4 * SECOND));
        assert_eq!(gcra.reserve(0, 5 * SECOND), Ok(4 * SECOND));
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_than_its_share(burst in 1_u32..5,
            arrivals in prop::collection::vec(0_u64..3_000, 1..60)) {
            let gcra = Gcra::new(Pace::every(Duration::from_nanos(1_000)).burst(burst));
            let mut now = 0;
            let mut slots = Vec::new();
            for gap in arrivals {
                now += gap;
                slots.push(gcra.reserve(now, u64::MAX).unwrap());
            }
            for (i, from) in slots.iter().enumerate() {
                let within = slots[i..].iter().filter(|slot| **slot < from + 10_000).count();
                prop_assert!(within <= 10 + burst as usize, "{within} calls in ten intervals");
            }
        }
    }
}
