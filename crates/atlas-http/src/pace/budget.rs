//! The budget of repeats that the calls of an account share.
//!
//! # Why a budget besides a maximum per call
//!
//! A maximum of three repeats is harmless for one call. While a cloud is failing, all calls fail,
//! and every one of them is sent four times: the load on the cloud is four times as high exactly
//! when it can bear it least, and every layer above that repeats multiplies it again. A budget
//! bounds the sum: a tenth of what succeeded. Single failures are always within it, and an outage
//! soon is not.
//!
//! # Why a trickle
//!
//! With a budget that only successes fill, an account whose first calls fail could never repeat
//! one. Ten repeats, and one more each second, let it notice that the cloud is back.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::Pace;
use super::gcra::Gcra;

/// The number of repeats an account may make: a tenth of its successful calls, with at most ten
/// saved up, and a few more while nothing succeeds.
#[derive(Debug)]
pub(super) struct RetryBudget {
    /// In tenths of a repeat.
    earned: AtomicI64,
    trickle: Gcra,
}

impl RetryBudget {
    const REPEAT: i64 = 10;
    const MOST: i64 = 10 * Self::REPEAT;

    pub(super) fn new() -> Self {
        let trickle = Gcra::new(Pace {
            interval: Duration::from_secs(1),
            burst: 10,
        });
        Self {
            earned: AtomicI64::new(0),
            trickle,
        }
    }

    pub(super) fn earn(&self) {
        // A lost race loses only a tenth of a repeat. A plain load keeps the common case, a full
        // budget, from writing to the shared cache line.
        let earned = self.earned.load(Ordering::Relaxed);
        if earned < Self::MOST {
            let _ = self.earned.compare_exchange(
                earned,
                earned + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
        }
    }

    pub(super) fn spend(&self, now: u64) -> bool {
        let paid = self
            .earned
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |earned| {
                (earned >= Self::REPEAT).then(|| earned - Self::REPEAT)
            });
        paid.is_ok() || self.trickle.reserve(now, now).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn repeats_without_any_success_are_ten_and_then_one_a_second() {
        let budget = RetryBudget::new();
        assert_eq!((0..100).filter(|_| budget.spend(0)).count(), 10);
        assert!(!budget.spend(SECOND / 2));
        assert!(budget.spend(SECOND) && !budget.spend(SECOND));
        (0..25).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend(SECOND)).count(), 2);
    }
}
