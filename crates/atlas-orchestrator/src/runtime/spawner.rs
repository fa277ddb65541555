//! Spawns tasks: injected, so that a simulated node can be crashed, paused and repeated.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

/// A task of the orchestrator.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs the orchestrator's tasks. All of them go through here.
pub trait Spawner: Debug + Send + Sync + 'static {
    /// Runs a task until it ends. `name` is for display.
    fn spawn(&self, name: &'static str, task: Task);
}

/// Spawns tasks with tokio's own `spawn`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioSpawner;

impl Spawner for TokioSpawner {
    fn spawn(&self, _name: &'static str, task: Task) {
        drop(tokio::spawn(task));
    }
}
