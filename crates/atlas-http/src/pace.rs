//! Rate limits of an account: pacing, blocks that the cloud announced, concurrent calls, and the
//! budget of repeats.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atlas_core::AccountLimits;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// The minimum average time between two calls, and how many may be made at once before that average
/// applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time per call. Zero disables pacing.
    pub interval: Duration,
    /// Number of calls that may be made at once; 0 counts as 1.
    pub burst: u32,
}

impl Pace {
    /// One call per interval, never two at once.
    #[must_use]
    pub const fn every(interval: Duration) -> Self {
        Self { interval, burst: 1 }
    }

    /// Sets how many calls may be made at once before the average applies.
    #[must_use]
    pub const fn burst(self, burst: u32) -> Self {
        Self { burst, ..self }
    }
}

/// The generic cell rate algorithm, in nanoseconds since the gate was created. Lock-free: one
/// compare-and-swap per call.
#[derive(Debug)]
struct Gcra {
    interval: u64,
    tolerance: u64,
    /// When the next call would be due if every call were on time.
    due: AtomicU64,
}

impl Gcra {
    fn new(pace: Pace) -> Self {
        let interval = nanos(pace.interval);
        Self {
            interval,
            tolerance: interval.saturating_mul(u64::from(pace.burst.max(1) - 1)),
            due: AtomicU64::new(0),
        }
    }

    /// Takes the next slot. If it is later than `latest`, nothing is taken and the slot's time is
    /// the error.
    fn reserve(&self, now: u64, latest: u64) -> Result<u64, u64> {
        if self.interval == 0 {
            return Ok(now);
        }
        let mut slot = now;
        self.due
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |due| {
                slot = due.saturating_sub(self.tolerance).max(now);
                (slot <= latest).then(|| due.max(now).saturating_add(self.interval))
            })
            .map(|_| slot)
            .map_err(|_| slot)
    }

    /// Whether its state is the same as if it had never been used.
    fn is_idle(&self, now: u64) -> bool {
        self.due.load(Ordering::Acquire) <= now
    }
}

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

/// The number of repeats an account may make: a tenth of its successful calls, with at most ten
/// saved up, and a few more while nothing succeeds.
///
/// Without it, every caller's own retries multiply the load on a cloud that is failing.
#[derive(Debug)]
struct RetryBudget {
    /// In tenths of a repeat.
    earned: AtomicI64,
    trickle: Gcra,
}

impl RetryBudget {
    const REPEAT: i64 = 10;
    const MOST: i64 = 10 * Self::REPEAT;

    fn new() -> Self {
        let trickle = Gcra::new(Pace {
            interval: Duration::from_secs(1),
            burst: 10,
        });
        Self {
            earned: AtomicI64::new(0),
            trickle,
        }
    }

    fn earn(&self) {
        // A lost race loses only a tenth of a repeat. A plain load keeps the common case, a full
        // budget, from writing to the shared cache line.
        let earned = self.earned.load(Ordering::Relaxed);
        if earned < Self::MOST {
            let _ = self.earned.compare_exchange(
                earned,
                earned + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
        }
    }

    fn spend(&self, now: u64) -> bool {
        let paid = self
            .earned
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |earned| {
                (earned >= Self::REPEAT).then(|| earned - Self::REPEAT)
            });
        paid.is_ok() || self.trickle.reserve(now, now).is_ok()
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_slot_after_the_latest_is_refused_and_not_spent() {
        let gcra = Gcra::new(Pace::every(Duration::from_secs(4)));
        assert_eq!(gcra.reserve(0, 0), Ok(0));
        assert_eq!(gcra.reserve(0, SECOND), Err(4 * SECOND));
        assert_eq!(gcra.reserve(0, 5 * SECOND), Ok(4 * SECOND));
    }

    #[test]
    fn repeats_without_any_success_are_ten_and_then_one_a_second() {
        let budget = RetryBudget::new();
        assert_eq!((0..100).filter(|_| budget.spend(0)).count(), 10);
        assert!(!budget.spend(SECOND / 2));
        assert!(budget.spend(SECOND) && !budget.spend(SECOND));
        (0..25).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend(SECOND)).count(), 2);
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_than_its_share(burst in 1_u32..5,
            arrivals in prop::collection::vec(0_u64..3_000, 1..60)) {
            let gcra = Gcra::new(Pace::every(Duration::from_nanos(1_000)).burst(burst));
            let mut now = 0;
            let mut slots = Vec::new();
            for gap in arrivals {
                now += gap;
                slots.push(gcra.reserve(now, u64::MAX).unwrap());
            }
            for (i, from) in slots.iter().enumerate() {
                let within = slots[i..].iter().filter(|slot| **slot < from + 10_000).count();
                prop_assert!(within <= 10 + burst as usize, "{within} calls in ten intervals");
            }
        }
    }
}
