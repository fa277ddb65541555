//! Which calls may be repeated, and how long to wait between tries.

use std::time::Duration;

use crate::entropy::Entropy;

/// How a call behaves when it is made twice. A property of the operation, never of the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryClass {
    /// Reads: nothing changes, however often.
    Safe,
    /// Changes whose second call changes nothing more: terminate, stop, delete.
    Idempotent,
    /// Makes something new, and bills it, each time it is received. Repeated only where the request
    /// provably never left.
    Create,
}

/// Exponential backoff with full jitter, capped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
}

impl Backoff {
    /// Waits up to `base` the first time, up to twice that the second, never more than `cap`.
    #[must_use]
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }

    /// The longest wait before try number `attempt` (0 is the first repeat).
    #[must_use]
    pub fn ceiling(&self, attempt: u32) -> Duration {
        self.base
            .saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX))
            .min(self.cap)
    }

    /// A wait between half the ceiling and the ceiling, drawn from `entropy`.
    #[must_use]
    pub fn delay(&self, attempt: u32, entropy: &dyn Entropy) -> Duration {
        let ceiling = self.ceiling(attempt);
        let half = ceiling / 2;
        half + entropy.duration_below(ceiling - half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_delay_is_between_half_and_the_whole_of_a_capped_ceiling(attempt in 0_u32..200, seed: u64) {
            let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
            let delay = backoff.delay(attempt, &SeededEntropy::new(seed));
            prop_assert!(delay <= backoff.ceiling(attempt) && backoff.ceiling(attempt) <= Duration::from_secs(30));
            prop_assert!(delay >= backoff.ceiling(attempt) / 2);
        }
    }
}
