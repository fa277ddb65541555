//! This node's right to act: its lease in the store, and how long it is certainly valid by the
//! host's clocks, the monotonic one and those that continue while the host sleeps.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atlas_core::Clock;
use tokio_util::sync::CancellationToken;

use super::steady::Marks;
use crate::store::Fence;

/// How often a node without a lease checks whether it has one again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The lease of this node.
#[derive(Debug)]
pub(crate) struct NodeLease {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    fence: Option<Fence>,
    /// When the lease was requested, and how long after that a side effect may start.
    granted: Option<(Marks, Duration)>,
    /// The latest lease number that this process was given; 0 before the first.
    number: u64,
}

/// The scope of a node's lease.
pub(crate) fn scope(node: &str) -> String {
    format!("node/{node}")
}

impl NodeLease {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let state = State {
            fence: None,
            granted: None,
            number: 0,
        };
        Self {
            clock,
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that this process acquired the lease. Returns whether for the first time.
    pub(crate) fn took(&self, fence: &Fence) -> bool {
        std::mem::replace(&mut self.lock().number, fence.number) == 0
    }

    /// Whether another process acquired the lease after this one did. A process that has just
    /// started has not held it before.
    pub(crate) fn was_taken_by(&self, newest: &Fence) -> bool {
        let number = self.lock().number;
        number > 0 && newest.number > number
    }

    /// Records that a call that was sent at `sent` acquired or renewed the lease.
    pub(crate) fn granted(&self, fence: Fence, sent: Marks, lease: Duration, margin: Duration) {
        let mut state = self.lock();
        state.fence = Some(fence);
        state.granted = Some((sent, lease.saturating_sub(margin)));
    }

    /// Records that another node has the lease.
    pub(crate) fn lost(&self) {
        let mut state = self.lock();
        (state.fence, state.granted) = (None, None);
    }

    /// The fence for writing.
    pub(crate) fn fence(&self) -> Option<Fence> {
        self.lock().fence.clone()
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

    /// Whether a side effect may start now: by none of the host's clocks can the lease have
    /// expired, even if the host slept.
    pub(crate) fn may_act(&self) -> bool {
        let state = self.lock();
        let holds =
            |(sent, span): (Marks, Duration)| !Marks::now(&*self.clock).may_exceed(sent, span);
        state.fence.is_some() && state.granted.is_some_and(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::Timestamp;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The clocks of a host whose monotonic clock stands still while it sleeps.
    #[derive(Debug, Default)]
    struct Host {
        wall: AtomicU64,
        since_boot: AtomicU64,
    }

    impl Clock for Host {
        fn now(&self) -> Timestamp {
            let seconds = self.wall.load(Ordering::Relaxed);
            Timestamp::UNIX_EPOCH.saturating_add(Duration::from_secs(1_790_000_000 + seconds))
        }

        fn since_boot(&self) -> Option<Duration> {
            Some(Duration::from_secs(self.since_boot.load(Ordering::Relaxed)))
        }
    }

    fn fence() -> Fence {
        Fence {
            scope: scope("a"),
            holder: "a".to_owned(),
            number: 1,
            expires_at: Timestamp::UNIX_EPOCH,
            store_time: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_ran_out_while_the_host_slept_allows_nothing() {
        let second = Duration::from_secs(1);
        for clock in ["monotonic", "wall", "since boot"] {
            let host = Arc::new(Host::default());
            let lease = NodeLease::new(host.clone());
            assert!(!lease.may_act(), "it was never granted");
            lease.granted(fence(), Marks::now(&*host), second * 15, second * 2);
            assert!(lease.may_act());
            match clock {
                "monotonic" => tokio::time::advance(second * 13).await,
                "wall" => host.wall.store(13, Ordering::Relaxed),
                _ => host.since_boot.store(13, Ordering::Relaxed),
            }
            assert!(!lease.may_act(), "{clock}");
            lease.granted(fence(), Marks::now(&*host), second * 15, second * 2);
            assert!(lease.may_act(), "renewed, {clock}");
        }
    }
}
