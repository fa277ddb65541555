//! What the calls of one account share: the account's pace and that of single operations, a block
//! that the cloud announced, the places for concurrent calls, and the budget of repeats.
//!
//! # Why the order
//!
//! A call first takes a slot of its operation and then one of the account: an operation that has
//! none left must not use up the account's. It takes its place among the concurrent calls last,
//! after the wait, so that a waiting call keeps no place from one that could be sent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atlas_core::AccountLimits;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::budget::RetryBudget;
use super::gcra::Gcra;
use super::{Pace, nanos};

/// How many idle per-key paces are kept before they are removed.
const KEYED_SWEEP: usize = 1024;

#[derive(Debug)]
struct Operation {
    pace: Pace,
    shared: Gcra,
    keyed: Mutex<BTreeMap<String, Arc<Gcra>>>,
}

impl Operation {
    fn new(pace: Pace) -> Self {
        Self {
            pace,
            shared: Gcra::new(pace),
            keyed: Mutex::default(),
        }
    }

    fn reserve(&self, key: Option<&str>, now: u64, latest: u64) -> Result<u64, u64> {
        let Some(key) = key else {
            return self.shared.reserve(now, latest);
        };
        let gcra = {
            let mut keyed = self.keyed.lock().unwrap_or_else(PoisonError::into_inner);
            if keyed.len() >= KEYED_SWEEP {
                keyed.retain(|_, gcra| !gcra.is_idle(now));
            }
            match keyed.get(key) {
                Some(gcra) => gcra.clone(),
                None => keyed
                    .entry(key.to_owned())
                    .or_insert(Arc::new(Gcra::new(self.pace)))
                    .clone(),
            }
        };
        gcra.reserve(now, latest)
    }
}

/// The longest that an announced block is observed. A day's quota may be used up, but a machine
/// that bills must be deleted before the day ends: after this time we call again, and get a 429 if
/// it is really so.
const MOST_BELIEVED: Duration = Duration::from_secs(120);

/// Why a call cannot start before its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Our own pacing gives the next slot only after this time.
    Paced(Duration),
    /// The cloud announced that it accepts no more calls for this time.
    Blocked(Duration),
}

/// The limits that the calls of one account share.
#[derive(Debug)]
pub(crate) struct Gate {
    epoch: Instant,
    account: Gcra,
    operations: BTreeMap<&'static str, Operation>,
    under_way: Semaphore,
    /// No call before this time (nanoseconds since `epoch`): the cloud announced an empty window.
    blocked_until: AtomicU64,
    budget: RetryBudget,
}

impl Gate {
    pub(crate) fn new(limits: &AccountLimits, operations: &BTreeMap<&'static str, Pace>) -> Self {
        Self {
            epoch: Instant::now(),
            account: Gcra::new(Pace {
                interval: limits.call_interval,
                burst: limits.burst,
            }),
            operations: operations
                .iter()
                .map(|(name, pace)| (*name, Operation::new(*pace)))
                .collect(),
            under_way: Semaphore::new(
                (limits.concurrency.max(1) as usize).min(Semaphore::MAX_PERMITS),
            ),
            blocked_until: AtomicU64::new(0),
            budget: RetryBudget::new(),
        }
    }

    /// Takes a slot of the account and of the operation and returns when it is; `None` for now. If
    /// there is none before the deadline, it refuses and takes none.
    fn slot(
        &self,
        operation: &str,
        key: Option<&str>,
        deadline: Instant,
    ) -> Result<Option<Instant>, Refusal> {
        let at = Instant::now();
        let (now, latest) = (self.at(at), self.at(deadline));
        let blocked = self.blocked_until.load(Ordering::Acquire).max(now);
        if blocked > latest.max(now) {
            return Err(Refusal::Blocked(Duration::from_nanos(blocked - now)));
        }
        let paced = |slot: u64| Refusal::Paced(Duration::from_nanos(slot.saturating_sub(now)));
        // The operation is checked first: if it refuses, the account's slot is not spent.
        let operation = match self.operations.get(operation) {
            Some(pace) => pace.reserve(key, now, latest).map_err(paced)?,
            None => now,
        };
        let slot = self
            .account
            .reserve(now, latest)
            .map_err(paced)?
            .max(operation)
            .max(blocked);
        Ok((slot > now).then(|| at + Duration::from_nanos(slot - now)))
    }

    /// Waits for a slot of the account and of the operation. Refuses at once when there is none
    /// before the deadline.
    ///
    /// Cancel safe, but a slot that was taken stays taken: the account then waits one interval
    /// longer than necessary.
    pub(crate) async fn admit(
        &self,
        operation: &str,
        key: Option<&str>,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let Some(mut slot) = self.slot(operation, key, deadline)? else {
            return Ok(());
        };
        loop {
            tokio::time::sleep_until(slot).await;
            // A block may have been announced during the wait. The slot is already taken, so only
            // the block is waited for.
            let at = Instant::now();
            let (now, blocked) = (self.at(at), self.blocked_until.load(Ordering::Acquire));
            if blocked <= now {
                return Ok(());
            }
            if blocked > self.at(deadline) {
                return Err(Refusal::Blocked(Duration::from_nanos(blocked - now)));
            }
            slot = at + Duration::from_nanos(blocked - now);
        }
    }

    /// Waits for one of the places for concurrent calls.
    pub(crate) async fn enter(&self) -> SemaphorePermit<'_> {
        if let Ok(permit) = self.under_way.try_acquire() {
            return permit;
        }
        self.under_way
            .acquire()
            .await
            .expect("the semaphore is never closed")
    }

    /// The cloud announced that nothing is left of a window that ends in `wait`.
    pub(crate) fn block_for(&self, wait: Duration) {
        let wait = wait.min(MOST_BELIEVED);
        self.blocked_until.fetch_max(
            self.at(Instant::now()).saturating_add(nanos(wait)),
            Ordering::AcqRel,
        );
    }

    /// A call succeeded: this earns a tenth of a repeat.
    pub(crate) fn succeeded(&self) {
        self.budget.earn();
    }

    /// Whether the account may repeat a call now.
    pub(crate) fn may_repeat(&self) -> bool {
        self.budget.spend(self.at(Instant::now()))
    }

    fn at(&self, instant: Instant) -> u64 {
        nanos(instant.saturating_duration_since(self.epoch))
    }
}
