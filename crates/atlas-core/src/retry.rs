//! Which calls may be repeated, and how long to wait between attempts.

use std::time::Duration;

use crate::entropy::Entropy;

/// The effect of making the same call twice. A property of the operation, never of the error.
///
/// What `atlas-http` repeats, by the class of the call and by what came back:
///
/// | what came back | `Safe` | `Idempotent` | `Create` |
/// |---|---|---|---|
/// | nothing, and the request provably never left (DNS, connect, TLS) | yes | yes | yes |
/// | nothing, or a part of an answer: it may have been carried out | yes | yes | no |
/// | nothing before the deadline | no | no | no |
/// | 408, 425, 429, 500, 502, 503, 504, 520 to 530 | yes | yes | no |
/// | 401, from a credential source that has another credential | once | once | no |
/// | any other status | no | no | no |
///
/// A provider that knows better what an answer means gives the error another kind; then
/// [`Error::is_retryable`](crate::Error::is_retryable) decides by that kind. A repeat also needs
/// time before the deadline, one of the repeats that the call may have, and one in the account's
/// budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryClass {
    /// Reads: repeating them changes nothing.
    Safe,
    /// Changes that have no further effect when repeated: terminate, stop, delete.
    Idempotent,
    /// Each received call makes and bills something new. Repeated only if the request provably
    /// never left.
    Create,
}

/// Exponential backoff with full jitter, capped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
}

impl Backoff {
    /// The first wait is at most `base`, the second at most twice that, and none exceeds `cap`.
    #[must_use]
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }

    /// The maximum wait before repeat number `attempt`, starting at 0.
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
        fn a_delay_is_between_half_and_the_whole_of_a_capped_ceiling(attempt in 0_u32..200,
            seed: u64) {
            let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
            let delay = backoff.delay(attempt, &SeededEntropy::new(seed));
            prop_assert!(delay <= backoff.ceiling(attempt) && backoff.ceiling(attempt) <= Duration::from_secs(30));
            prop_assert!(delay >= backoff.ceiling(attempt) / 2);
        }
    }
}
