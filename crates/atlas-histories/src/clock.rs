//! A node's own clock: the world's, and wrong by as much as somebody set it wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use atlas_core::{Clock, Timestamp};
use atlas_testkit::world::World;

/// The world's time, off by an error that can be changed.
#[derive(Clone)]
pub(crate) struct NodeClock {
    world: World,
    error_ms: Arc<AtomicI64>,
}

impl NodeClock {
    /// Right, to begin with.
    pub(crate) fn new(world: World) -> Self {
        Self {
            world,
            error_ms: Arc::new(AtomicI64::new(0)),
        }
    }

    /// Steps it, to this error.
    pub(crate) fn set_error_ms(&self, error: i64) {
        self.error_ms.store(error, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for NodeClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeClock")
            .field("error_ms", &self.error_ms)
            .finish_non_exhaustive()
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(
            self.world.now().unix_millis() + self.error_ms.load(Ordering::Relaxed),
        )
    }
}
