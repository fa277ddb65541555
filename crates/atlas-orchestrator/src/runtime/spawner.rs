//! Where tasks run, and where "now" comes from: injected, so that a simulated node can be crashed,
//! paused and repeated.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use atlas_core::Timestamp;
use tokio::time::Instant;

/// A task of the orchestrator.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs the orchestrator's tasks. All of them go through here.
pub trait Spawner: Debug + Send + Sync + 'static {
    /// Runs a task until it ends. `name` is for people.
    fn spawn(&self, name: &'static str, task: Task);
}

/// tokio's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioSpawner;

impl Spawner for TokioSpawner {
    fn spawn(&self, _name: &'static str, task: Task) {
        drop(tokio::spawn(task));
    }
}

/// The store's clock, carried on by this process's monotonic one: a step of a wall clock while we
/// run moves no deadline.
#[derive(Debug)]
pub(crate) struct Steady {
    origin: Instant,
    /// The store's clock at the origin, in nanoseconds since the epoch.
    base: AtomicI64,
}

/// How far one renewal may move us towards the store's clock: more than two crystals drift apart,
/// less than any step.
const SLEW_NANOS: i64 = 1_000_000;

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

fn timestamp(nanos: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH.saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

impl Steady {
    pub(crate) fn new(wall: Timestamp) -> Self {
        Self {
            origin: Instant::now(),
            base: AtomicI64::new(nanos(wall.since(Timestamp::UNIX_EPOCH))),
        }
    }

    fn now_nanos(&self) -> i64 {
        self.base
            .load(Ordering::Relaxed)
            .saturating_add(nanos(Instant::now().duration_since(self.origin)))
    }

    pub(crate) fn now(&self) -> Timestamp {
        timestamp(self.now_nanos())
    }

    /// Milliseconds since the epoch, rounded down.
    pub(crate) fn now_millis(&self) -> i64 {
        self.now_nanos() / 1_000_000
    }

    /// When `then` will be, on the monotonic clock.
    pub(crate) fn instant(&self, then: Timestamp) -> Instant {
        let wait = then.since(self.now());
        // Further ahead than tokio's wheel reaches, we look again.
        Instant::now() + wait.min(Duration::from_secs(30 * 24 * 3600))
    }

    /// Takes a reading of the store's clock into account. Never backwards by more than passes
    /// before anybody looks again.
    pub(crate) fn observe(&self, store: Timestamp) {
        let ahead = nanos(store.since(Timestamp::UNIX_EPOCH)) - self.now_nanos();
        self.base
            .fetch_add(ahead.clamp(-SLEW_NANOS / 10, SLEW_NANOS), Ordering::Relaxed);
    }
}
