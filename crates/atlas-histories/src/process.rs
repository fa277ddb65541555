//! A simulated process: its tasks can be stopped dead, paused, and crashed at any place where they
//! wait.
//!
//! A crashed process's tasks are never polled again, and not dropped before their history is over,
//! so that no destructor tidies up after them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::dice::Dice;
use crate::report::Awaits;

/// Keeps what crashed processes leave behind until the history is over. Clones are handles to the
/// same one.
#[derive(Clone, Default)]
pub(crate) struct Remains(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    over: bool,
    tasks: Vec<Box<dyn Send>>,
}

impl Remains {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, task: Box<dyn Send>) {
        let mut kept = self.kept();
        if kept.over {
            drop(kept);
            drop(task);
        } else {
            kept.tasks.push(task);
        }
    }

    /// The history was judged: nothing that a destructor does can change it any more.
    pub(crate) fn let_go(&self) {
        let tasks = {
            let mut kept = self.kept();
            kept.over = true;
            std::mem::take(&mut kept.tasks)
        };
        drop(tasks);
    }
}

impl std::fmt::Debug for Remains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tasks = self.kept().tasks.len();
        f.debug_struct("Remains").field("tasks", &tasks).finish()
    }
}

/// One simulated process. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    state: Arc<Mutex<State>>,
    remains: Remains,
}

#[derive(Debug)]
struct State {
    alive: bool,
    paused: bool,
    sleepers: BTreeMap<u64, Waker>,
    next: u64,
}

impl Process {
    /// A running one, whose tasks are kept here when it crashed.
    pub(crate) fn start(remains: &Remains) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                alive: true,
                paused: false,
                sleepers: BTreeMap::new(),
                next: 0,
            })),
            remains: remains.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has not crashed.
    pub(crate) fn is_alive(&self) -> bool {
        self.state().alive
    }

    /// Kills it: none of its tasks is ever polled again.
    pub(crate) fn crash(&self) {
        self.state().alive = false;
    }

    /// Keeps its tasks from being polled until it is resumed.
    pub(crate) fn pause(&self) {
        self.state().paused = true;
    }

    /// Lets its tasks go on.
    pub(crate) fn resume(&self) {
        let sleepers = {
            let mut state = self.state();
            state.paused = false;
            std::mem::take(&mut state.sleepers)
        };
        sleepers.into_values().for_each(Waker::wake);
    }

    /// A task of this process.
    pub(crate) fn task<F: Future + Send + 'static>(&self, future: F) -> Task<F> {
        let id = {
            let mut state = self.state();
            state.next += 1;
            state.next
        };
        Task {
            process: self.clone(),
            id,
            inner: Some(Box::pin(future)),
        }
    }
}

/// A task that lives and dies with its process.
pub(crate) struct Task<F: Future + Send + 'static> {
    process: Process,
    id: u64,
    inner: Option<Pin<Box<F>>>,
}

impl<F: Future + Send + 'static> Future for Task<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        {
            let id = self.id;
            let mut state = self.process.state();
            if !state.alive {
                return Poll::Pending;
            }
            if state.paused {
                state.sleepers.insert(id, cx.waker().clone());
                return Poll::Pending;
            }
        }
        let Some(inner) = self.inner.as_mut() else {
            return Poll::Pending;
        };
        let polled = inner.as_mut().poll(cx);
        if polled.is_ready() && self.process.is_alive() {
            self.inner = None;
            return polled;
        }
        Poll::Pending
    }
}

impl<F: Future + Send + 'static> Drop for Task<F> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take()
            && !self.process.is_alive()
        {
            self.process.remains.keep(Box::new(inner));
        }
    }
}

/// How many groups the operations of the store fall into, and how many the calls of a cloud; a
/// history prefers one of each. The latter are larger: only some histories have their cloud.
const BUCKETS: u64 = 29;
const ON_THE_WAY: u64 = 11;
/// A process crashes once in so many times where its history waits for the first time.
const FIRST_ODDS: u64 = 8;

fn bucket(operation: &str, of: u64) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, operation.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest.as_ref()[..8]);
    u64::from_le_bytes(bytes) % of
}

/// The places at which processes wait, and where they are to crash.
#[derive(Clone, Debug)]
pub(crate) struct Places(Arc<Mutex<Watch>>);

#[derive(Debug)]
struct Watch {
    dice: Dice,
    seed: u64,
    armed: bool,
    crashes_left: u64,
    stalls_left: u64,
    stalls: u64,
    /// Crashes at places that are reached for the first time, so that rare ones are not spared.
    firsts_left: u64,
    firsts: Dice,
    passes: u64,
    /// How often processes crashed in each operation.
    crashed: BTreeMap<String, u64>,
    awaits: Awaits,
}

impl Places {
    /// Crashes, and stands still for longer than a lease, at most so often.
    pub(crate) fn new(seed: u64, crashes: u64, stalls: u64) -> Self {
        Self(Arc::new(Mutex::new(Watch {
            dice: Dice::new(seed, "crashes"),
            seed,
            armed: true,
            crashes_left: crashes,
            stalls_left: stalls,
            stalls: 0,
            firsts_left: crashes.min(2),
            firsts: Dice::new(seed, "firsts"),
            passes: 0,
            crashed: BTreeMap::new(),
            awaits: Awaits::default(),
        })))
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more crashes.
    pub(crate) fn disarm(&self) {
        self.watch().armed = false;
    }

    /// What was reached, and where processes crashed.
    pub(crate) fn awaits(&self) -> Awaits {
        self.watch().awaits.clone()
    }

    /// How often a process stood still at a place.
    pub(crate) fn stalls(&self) -> u64 {
        self.watch().stalls
    }

    /// A place was reached: the process may stand still here, or die, and then this never returns.
    pub(crate) async fn pass(&self, process: &Process, place: &str) {
        self.pass_at(process, place, place).await;
    }

    /// The same, for one of several operations that wait at the same place; each is crashed at.
    pub(crate) async fn pass_at(&self, process: &Process, place: &str, operation: &str) {
        if let Some(span) = self.stalls_for(process, place) {
            let sleeper = process.clone();
            sleeper.pause();
            drop(tokio::spawn(async move {
                tokio::time::sleep(span).await;
                sleeper.resume();
            }));
            tokio::task::yield_now().await;
        }
        let dies = {
            let mut watch = self.watch();
            watch.passes += 1;
            let reached = watch.awaits.reached.entry(place.to_owned()).or_default();
            *reached += 1;
            // Every process passes most places of the store when it starts.
            let first = *reached == 1 && (watch.passes > 200 || !place.starts_with("store."));
            // Once or twice in one operation is enough for a history: there are others.
            let here = watch.crashed.get(operation).copied().unwrap_or(0);
            // Each history has its favourite operations, so that together they crash everywhere.
            let favourite = if place.starts_with("store.") {
                bucket(operation, BUCKETS) == watch.seed % BUCKETS && here < 1
            } else {
                bucket(operation, ON_THE_WAY) == watch.seed / BUCKETS % ON_THE_WAY && here < 2
            };
            let odds = if favourite { 2 } else { 20_000 };
            let may_die = watch.armed && process.is_alive();
            let first =
                first && may_die && watch.firsts_left > 0 && watch.firsts.draw(0..FIRST_ODDS) == 0;
            watch.firsts_left -= u64::from(first);
            let drawn = may_die && watch.crashes_left > 0 && watch.dice.draw(0..odds) == 0;
            watch.crashes_left -= u64::from(drawn);
            let dies = first || drawn;
            if dies {
                *watch.crashed.entry(operation.to_owned()).or_default() += 1;
                *watch.awaits.crashed.entry(place.to_owned()).or_default() += 1;
            }
            dies
        };
        if dies {
            process.crash();
            std::future::pending::<()>().await;
        }
    }

    fn stalls_for(&self, process: &Process, place: &str) -> Option<Duration> {
        let mut watch = self.watch();
        // Between what was read and what is written on it is where standing still hurts.
        let odds = if place.starts_with("store.commit") && place.ends_with("before") {
            40
        } else {
            400
        };
        let stalls = watch.armed
            && watch.stalls_left > 0
            && process.is_alive()
            && watch.dice.draw(0..odds) == 0;
        stalls.then(|| {
            watch.stalls_left -= 1;
            watch.stalls += 1;
            watch.dice.seconds(16..90)
        })
    }

    /// A process was killed from outside, while it was doing nothing in particular.
    pub(crate) fn killed_at_rest(&self) {
        let mut watch = self.watch();
        *watch
            .awaits
            .reached
            .entry("at rest".to_owned())
            .or_default() += 1;
        *watch
            .awaits
            .crashed
            .entry("at rest".to_owned())
            .or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a destructor tells.
    struct Told(Arc<Mutex<u32>>);

    impl Drop for Told {
        fn drop(&mut self) {
            *self.0.lock().unwrap() += 1;
        }
    }

    #[test]
    fn what_a_crashed_process_leaves_is_dropped_when_its_history_is_over() {
        let (remains, dropped) = (Remains::default(), Arc::new(Mutex::new(0)));
        let process = Process::start(&remains);
        let left = |told: Told| process.task(async move { drop(told) });
        let tasks = [(); 3].map(|()| left(Told(dropped.clone())));
        let [early, crashed, late] = tasks;
        drop(early);
        assert_eq!(*dropped.lock().unwrap(), 1, "the process is alive");
        process.crash();
        drop(crashed);
        assert_eq!(
            *dropped.lock().unwrap(),
            1,
            "nothing tidies up after a crash"
        );
        remains.let_go();
        assert_eq!(*dropped.lock().unwrap(), 2);
        drop(late);
        assert_eq!(*dropped.lock().unwrap(), 3);
    }

    #[tokio::test]
    async fn operations_that_wait_at_one_place_are_one_place_in_the_report() {
        let process = Process::start(&Remains::default());
        let places = Places::new(1, 0, 0);
        for operation in ["store.commit a before", "store.commit b before"] {
            places
                .pass_at(&process, "store.commit before", operation)
                .await;
        }
        let reached = places.awaits().reached;
        assert_eq!(
            reached.into_iter().collect::<Vec<_>>(),
            [("store.commit before".to_owned(), 2)]
        );
    }
}
