//! A host's own clock: the world's time with an adjustable error.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use atlas_core::{Clock, Timestamp};
use atlas_testkit::world::World;

/// The world's time, off by an error that can be changed.
#[derive(Clone)]
pub(crate) struct HostClock {
    world: World,
    began: Timestamp,
    error_ms: Arc<AtomicI64>,
    /// Whether the host counts the time that it slept, as one that is suspended does. A paused
    /// virtual machine does not.
    counts_sleep: bool,
}

impl HostClock {
    /// Right, to begin with.
    pub(crate) fn new(world: World, counts_sleep: bool) -> Self {
        Self {
            began: world.now(),
            world,
            error_ms: Arc::default(),
            counts_sleep,
        }
    }

    /// Steps it, to this error.
    pub(crate) fn set_error_ms(&self, error: i64) {
        self.error_ms.store(error, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for HostClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostClock")
            .field("error_ms", &self.error_ms)
            .finish_non_exhaustive()
    }
}

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        let error = self.error_ms.load(Ordering::Relaxed);
        Timestamp::from_unix_millis(self.world.now().unix_millis().saturating_add(error))
    }

    fn since_boot(&self) -> Option<Duration> {
        self.counts_sleep
            .then(|| self.world.now().since(self.began))
    }
}
