//! Where tasks run, and where "now" comes from: injected, so that a simulated node can be crashed, paused and repeated.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
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

/// The store's clock, carried on by this process's monotonic one: a step of a wall clock while we run moves no deadline.
#[derive(Debug)]
pub(crate) struct Steady(Mutex<Anchor>);

#[derive(Clone, Copy, Debug)]
struct Anchor {
    wall: Timestamp,
    at: Instant,
}

/// How far one renewal may move us towards the store's clock: more than two crystals drift apart, less than any step.
const SLEW: Duration = Duration::from_millis(1);

impl Steady {
    pub(crate) fn new(wall: Timestamp) -> Self {
        Self(Mutex::new(Anchor { wall, at: Instant::now() }))
    }

    pub(crate) fn now(&self) -> Timestamp {
        let anchor = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        anchor.wall.saturating_add(Instant::now().duration_since(anchor.at))
    }

    /// When `then` will be, on the monotonic clock.
    pub(crate) fn instant(&self, then: Timestamp) -> Instant {
        let wait = then.since(self.now());
        // Further ahead than tokio's wheel reaches, we look again.
        Instant::now() + wait.min(Duration::from_secs(30 * 24 * 3600))
    }

    /// Takes a reading of the store's clock into account.
    pub(crate) fn observe(&self, store: Timestamp) {
        let now = self.now();
        let mut anchor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if store > now {
            anchor.wall = anchor.wall.saturating_add(store.since(now).min(SLEW));
        } else {
            // Never backwards by more than what passes anyway before anybody looks again.
            anchor.wall = anchor.wall.saturating_sub(now.since(store).min(SLEW / 10));
        }
    }
}
