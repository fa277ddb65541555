//! Draws from a seed: which moment, which order, which lull.

use std::ops::Range;
use std::time::Duration;

use atlas_core::{Entropy, SeededEntropy};

/// A stream of draws.
#[derive(Debug)]
pub(crate) struct Chance(SeededEntropy);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed))
    }

    pub(crate) fn draw(&self, range: Range<u64>) -> u64 {
        let source: &dyn Entropy = &self.0;
        range.start + source.next_u64() % (range.end - range.start).max(1)
    }

    pub(crate) fn percent(&self, share: u64) -> bool {
        self.draw(0..100) < share
    }

    pub(crate) fn millis(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.draw(range))
    }
}
