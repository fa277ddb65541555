//! The world's random numbers: one stream from one seed.

use std::time::Duration;

use atlas_core::{Entropy, SeededEntropy};

/// A seeded stream of draws.
#[derive(Debug)]
pub(super) struct Dice(SeededEntropy);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed))
    }

    fn draw(&self) -> u64 {
        let entropy: &dyn Entropy = &self.0;
        entropy.next_u64()
    }

    /// A number in `0..end`; 0 when `end` is 0.
    pub(super) fn below(&self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.draw() % end }
    }

    /// True in this many of a million cases.
    pub(super) fn chance(&self, per_million: u32) -> bool {
        self.below(1_000_000) < u64::from(per_million)
    }

    /// A whole number of milliseconds in `from..=to`.
    pub(super) fn span(&self, from: Duration, to: Duration) -> Duration {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 2);
        let (from, to) = (millis(from), millis(to));
        Duration::from_millis(from + self.below(to.saturating_sub(from) + 1))
    }

    /// A text of this length over an alphabet.
    pub(super) fn word(&self, alphabet: &[u8], len: usize) -> String {
        (0..len)
            .map(|_| {
                let index = usize::try_from(self.below(alphabet.len() as u64)).unwrap_or(0);
                char::from(alphabet[index])
            })
            .collect()
    }
}
