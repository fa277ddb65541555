//! Random draws from a seed: one stream per purpose, so that a new draw in one place does not
//! change the others.

use std::ops::Range;
use std::time::Duration;

use atlas_core::{Entropy, SeededEntropy};

/// A stream of random draws.
#[derive(Debug)]
pub(crate) struct Dice(SeededEntropy);

impl Dice {
    /// The stream of this seed for this purpose.
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        Self(entropy(seed, purpose))
    }

    fn next(&self) -> u64 {
        let source: &dyn Entropy = &self.0;
        source.next_u64()
    }

    /// A number in the range.
    pub(crate) fn draw(&self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start).max(1)
    }

    /// True in this many of a hundred draws.
    pub(crate) fn percent(&self, share: u64) -> bool {
        self.draw(0..100) < share
    }

    /// A random element.
    pub(crate) fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.draw(0..from.len() as u64)).unwrap_or(0)]
    }

    /// A random span in this range of seconds.
    pub(crate) fn seconds(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.draw(range.start * 1000..range.end * 1000))
    }
}

/// A source of randomness for others: this seed, for this purpose.
pub(crate) fn entropy(seed: u64, purpose: &str) -> SeededEntropy {
    let digest = ring::digest::digest(
        &ring::digest::SHA256,
        format!("{seed}/{purpose}").as_bytes(),
    );
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest.as_ref()[..8]);
    SeededEntropy::new(u64::from_le_bytes(bytes))
}
