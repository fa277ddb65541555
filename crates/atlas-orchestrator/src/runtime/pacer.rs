//! Who may call a cloud next: at most so many at once, at most so often, and the most urgent first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas_core::AccountLimits;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::spawner::Spawner;

/// What goes before what: a kill saves money, a look-up tells where money goes, a create spends it,
/// a listing can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    Kill,
    LookUp,
    Create,
    Listing,
}

/// One account's budget of calls.
#[derive(Clone, Debug)]
pub(crate) struct Pacer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: AccountLimits,
    spawner: Arc<dyn Spawner>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    waiting: BTreeMap<(Priority, u64), oneshot::Sender<Permit>>,
    next_ticket: u64,
    running: u32,
    /// The theoretical arrival time of GCRA: a call is on time when it is at most `burst` intervals
    /// ahead.
    arrival: Option<Instant>,
    timer: bool,
}

/// The right to make one call. Dropped when the call ended.
#[derive(Debug)]
pub(crate) struct Permit(Option<Arc<Shared>>);

impl Pacer {
    pub(crate) fn new(limits: AccountLimits, spawner: Arc<dyn Spawner>) -> Self {
        let state = State {
            waiting: BTreeMap::new(),
            next_ticket: 0,
            running: 0,
            arrival: None,
            timer: false,
        };
        Self(Arc::new(Shared {
            limits,
            spawner,
            state: Mutex::new(state),
        }))
    }

    /// Waits for a turn. Cancel safe: a dropped wait gives its turn up.
    pub(crate) async fn admit(&self, priority: Priority) -> Permit {
        let receiver = {
            let mut state = self.0.lock();
            let (sender, receiver) = oneshot::channel();
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            state.waiting.insert((priority, ticket), sender);
            receiver
        };
        Shared::pump(&self.0);
        // The sender lives in the shared state, which this handle keeps alive.
        receiver.await.unwrap_or(Permit(None))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out every turn that is due.
    fn pump(this: &Arc<Self>) {
        let interval = this.limits.call_interval;
        let tolerance = interval * this.limits.burst.max(1);
        loop {
            let mut state = this.lock();
            if state.waiting.is_empty() || state.running >= this.limits.concurrency.max(1) {
                return;
            }
            let now = Instant::now();
            let arrival = state.arrival.map_or(now, |arrival| arrival.max(now)) + interval;
            if arrival > now + tolerance {
                if !state.timer {
                    state.timer = true;
                    drop(state);
                    this.arm(arrival - tolerance);
                }
                return;
            }
            let Some((_, waiter)) = state.waiting.pop_first() else {
                return;
            };
            state.running += 1;
            let before = state.arrival.replace(arrival);
            drop(state);
            if let Err(mut permit) = waiter.send(Permit(Some(this.clone()))) {
                // Nobody waits any more: the turn was not used.
                permit.0 = None;
                let mut state = this.lock();
                state.running -= 1;
                state.arrival = before;
            }
        }
    }

    fn arm(self: &Arc<Self>, when: Instant) {
        let this = self.clone();
        self.spawner.spawn(
            "pacer",
            Box::pin(async move {
                tokio::time::sleep_until(when).await;
                this.lock().timer = false;
                Self::pump(&this);
            }),
        );
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.lock().running -= 1;
            Shared::pump(&shared);
        }
    }
}

/// How long one call may take before nobody waits for it any more.
pub(crate) fn deadline(limits: &AccountLimits) -> Duration {
    limits.call_deadline
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::spawner::TokioSpawner;

    fn pacer(concurrency: u32, interval: Duration) -> Pacer {
        let limits = AccountLimits {
            call_interval: interval,
            burst: 1,
            concurrency,
            ..AccountLimits::default()
        };
        Pacer::new(limits, Arc::new(TokioSpawner))
    }

    #[tokio::test(start_paused = true)]
    async fn a_kill_overtakes_every_waiting_create() {
        let pacer = pacer(1, Duration::from_millis(1));
        let first = pacer.admit(Priority::Listing).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for priority in [
            Priority::Listing,
            Priority::Create,
            Priority::LookUp,
            Priority::Kill,
        ] {
            let (pacer, order) = (pacer.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                let permit = pacer.admit(priority).await;
                order.lock().unwrap().push(priority);
                drop(permit);
            }));
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(
            *order.lock().unwrap(),
            [
                Priority::Kill,
                Priority::LookUp,
                Priority::Create,
                Priority::Listing
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn calls_keep_their_distance() {
        let pacer = pacer(100, Duration::from_millis(100));
        let begun = Instant::now();
        for _ in 0..11 {
            drop(pacer.admit(Priority::Kill).await);
        }
        assert_eq!(begun.elapsed().as_millis(), 1000);
    }
}
