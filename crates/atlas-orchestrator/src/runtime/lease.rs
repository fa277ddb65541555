//! This node's right to act: a lease in the store, and how long it holds on our own monotonic
//! clock.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::Fence;

/// How often a node without a lease looks whether it has one again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The lease of this node.
#[derive(Debug)]
pub(crate) struct NodeLease(Mutex<State>);

#[derive(Debug)]
struct State {
    fence: Option<Fence>,
    /// No side effect starts later than this.
    act_until: Option<Instant>,
    /// The newest that this process was ever given; 0 before the first.
    number: u64,
}

/// The scope of a node's lease.
pub(crate) fn scope(node: &str) -> String {
    format!("node/{node}")
}

impl NodeLease {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            fence: None,
            act_until: None,
            number: 0,
        }))
    }

    /// This process took it.
    pub(crate) fn took(&self, fence: &Fence) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).number = fence.number;
    }

    /// Whether somebody else took it since this process did. Who has just started was before
    /// nobody.
    pub(crate) fn was_taken_by(&self, newest: &Fence) -> bool {
        let number = self.0.lock().unwrap_or_else(PoisonError::into_inner).number;
        number > 0 && newest.number > number
    }

    /// It was granted or renewed by a call that was sent at `sent`.
    pub(crate) fn granted(&self, fence: Fence, sent: Instant, lease: Duration, margin: Duration) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.fence = Some(fence);
        state.act_until = Some(sent + lease.saturating_sub(margin));
    }

    /// Another has it.
    pub(crate) fn lost(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.fence, state.act_until) = (None, None);
    }

    /// The fence to write under.
    pub(crate) fn fence(&self) -> Option<Fence> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fence
            .clone()
    }

    /// Waits until a side effect may start, or the process stops.
    pub(crate) async fn wait(&self, stopped: &CancellationToken) {
        while !self.may_act() && !stopped.is_cancelled() {
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Whether a side effect may start now.
    pub(crate) fn may_act(&self) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.fence.is_some() && state.act_until.is_some_and(|until| Instant::now() < until)
    }
}
