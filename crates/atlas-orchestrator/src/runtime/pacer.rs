//! Decides which call to a cloud may start next. The number of concurrent calls and the rate of
//! calls are limited, and each class of calls gets a share of them.
//!
//! A turn goes to the first class in the order of [`Class`] that has a waiting call. So that no
//! class can be starved, a class that waits gains a tenth of a turn with every turn that is given,
//! and goes first once it has gained a whole one. Polls of machines get at most a third of all
//! turns, whether or not other classes wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas_core::AccountLimits;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::spawner::Spawner;

/// The purpose of a call, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Deletes a machine, or releases a supporting object.
    Kill,
    /// Resolves the outcome of an order, or reads the account's identity.
    Resolve,
    /// Orders a machine, or makes a supporting object.
    Order,
    /// Lists candidates. Comes after the orders themselves, so that when many sessions launch at
    /// once, not all of them list before the first one orders.
    Offer,
    /// Reads that prove that a machine is absent.
    Proof,
    /// Lists the account.
    Scan,
    /// Polls a single machine of a live session.
    Look,
}

impl Class {
    const ALL: [Self; 7] = [
        Self::Kill,
        Self::Resolve,
        Self::Order,
        Self::Offer,
        Self::Proof,
        Self::Scan,
        Self::Look,
    ];

    fn index(self) -> usize {
        self as usize
    }

    /// Classes whose calls may take long, because of a rate limit of their own or a slow answer.
    const SLOW: [Self; 3] = [Self::Order, Self::Offer, Self::Look];
}

/// Every waiting class gets at least one turn in this many.
const GUARANTEED_ONE_IN: u32 = 10;
/// At most one turn in this many is a poll of a single machine.
const LOOKS_ARE_ONE_IN: u32 = 3;

/// How many calls of each kind may run concurrently. Slow classes leave places to the others, and
/// the last place is reserved for deletions.
#[derive(Clone, Copy, Debug)]
struct Room {
    all: u32,
    but_ends: u32,
    slow: u32,
    orders: u32,
    looks: u32,
}

impl Room {
    fn new(concurrency: u32) -> Self {
        let all = concurrency.max(1);
        Self {
            all,
            but_ends: if all > 2 { all - 1 } else { all },
            slow: (all * 3 / 4).max(1),
            orders: (all / 2).max(1),
            looks: (all / LOOKS_ARE_ONE_IN).max(1),
        }
    }
}

/// The call budget of one account.
#[derive(Clone, Debug)]
pub(crate) struct Pacer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: AccountLimits,
    spawner: Arc<dyn Spawner>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: [VecDeque<oneshot::Sender<Permit>>; Class::ALL.len()],
    /// How many turns were given to others while a class waited, since its own last turn.
    passed_over: [u32; Class::ALL.len()],
    under_way: [u32; Class::ALL.len()],
    all: Arrivals,
    looks: Arrivals,
    /// When the timer evaluates the turns next.
    timer: Option<Instant>,
}

/// GCRA: a call is on time when the theoretical arrival time is at most `burst` intervals ahead.
#[derive(Clone, Copy, Debug, Default)]
struct Arrivals(Option<Instant>);

impl Arrivals {
    /// The arrival time after one more call, or the time at which that call may be made.
    fn next(self, now: Instant, interval: Duration, burst: u32) -> Result<Self, Instant> {
        let arrival = self.0.map_or(now, |arrival| arrival.max(now)) + interval;
        let tolerance = interval * burst.max(1);
        if arrival > now + tolerance {
            Err(arrival - tolerance)
        } else {
            Ok(Self(Some(arrival)))
        }
    }
}

/// The right to make one call. It must be dropped when the call has ended.
#[derive(Debug)]
pub(crate) struct Permit(Option<(Arc<Shared>, Class)>);

/// The result of [`State::choose`].
enum Turn {
    /// The turn goes to a call of this class; holds the updated arrival times.
    Of(Class, Arrivals, Arrivals),
    /// No turn before this time.
    At(Instant),
    /// No turn until a call ends or another is requested.
    None,
}

impl State {
    fn choose(&self, limits: &AccountLimits) -> Turn {
        let room = Room::new(limits.concurrency);
        let under_way = |class: Class| self.under_way[class.index()];
        let all: u32 = self.under_way.iter().sum();
        if all >= room.all {
            return Turn::None;
        }
        let has_place = |class: Class| {
            let slow: u32 = Class::SLOW.into_iter().map(under_way).sum();
            class == Class::Kill
                || all - under_way(Class::Kill) < room.but_ends
                    && (!Class::SLOW.contains(&class) || slow < room.slow)
                    && (class != Class::Order || under_way(class) < room.orders)
                    && (class != Class::Look || under_way(class) < room.looks)
        };
        let can_start =
            |class: &Class| !self.waiting[class.index()].is_empty() && has_place(*class);
        let mut ready: Vec<Class> = Class::ALL.into_iter().filter(can_start).collect();
        if ready.is_empty() {
            return Turn::None;
        }
        let now = Instant::now();
        let arrivals = match self.all.next(now, limits.call_interval, limits.burst) {
            Ok(arrivals) => arrivals,
            Err(at) => return Turn::At(at),
        };
        let looks = self.looks.next(
            now,
            limits.call_interval * LOOKS_ARE_ONE_IN,
            limits.burst / LOOKS_ARE_ONE_IN,
        );
        if let Err(at) = looks {
            ready.retain(|class| *class != Class::Look);
            if ready.is_empty() {
                return Turn::At(at);
            }
        }
        let overdue = |class: &&Class| self.passed_over[class.index()] + 1 >= GUARANTEED_ONE_IN;
        let first = ready.iter().find(overdue).or(ready.first());
        match (first, looks) {
            (Some(Class::Look), Ok(looks)) => Turn::Of(Class::Look, arrivals, looks),
            (Some(class), _) => Turn::Of(*class, arrivals, self.looks),
            (None, _) => Turn::None,
        }
    }

    fn passed(&mut self, given: Class) {
        for class in Class::ALL {
            let passed = &mut self.passed_over[class.index()];
            *passed = if class == given || self.waiting[class.index()].is_empty() {
                0
            } else {
                passed.saturating_add(1)
            };
        }
    }
}

impl Pacer {
    pub(crate) fn new(limits: AccountLimits, spawner: Arc<dyn Spawner>) -> Self {
        Self(Arc::new(Shared {
            limits,
            spawner,
            state: Mutex::default(),
        }))
    }

    /// Waits for a turn. Cancel safe: a dropped wait gives up its turn.
    pub(crate) async fn admit(&self, class: Class) -> Permit {
        let receiver = {
            let (sender, receiver) = oneshot::channel();
            self.0.lock().waiting[class.index()].push_back(sender);
            receiver
        };
        Shared::pump(&self.0);
        // The sender is in the shared state, which this handle keeps alive.
        receiver.await.unwrap_or(Permit(None))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grants every turn that is due.
    fn pump(this: &Arc<Self>) {
        loop {
            let mut state = this.lock();
            match state.choose(&this.limits) {
                Turn::None => return,
                Turn::At(at) => {
                    if state.timer.is_none_or(|timer| at < timer) {
                        state.timer = Some(at);
                        drop(state);
                        this.arm(at);
                    }
                    return;
                }
                Turn::Of(class, all, looks) => {
                    let Some(waiter) = state.waiting[class.index()].pop_front() else {
                        return;
                    };
                    if waiter.is_closed() {
                        // No waiter remains, so no turn is used.
                        continue;
                    }
                    state.under_way[class.index()] += 1;
                    let before = (state.all, state.looks);
                    (state.all, state.looks) = (all, looks);
                    state.passed(class);
                    drop(state);
                    if let Err(mut permit) = waiter.send(Permit(Some((this.clone(), class)))) {
                        // The waiter was dropped just now, so the turn was not used.
                        permit.0 = None;
                        let mut state = this.lock();
                        state.under_way[class.index()] -= 1;
                        (state.all, state.looks) = before;
                    }
                }
            }
        }
    }

    fn arm(self: &Arc<Self>, when: Instant) {
        let this = self.clone();
        self.spawner.spawn(
            "pacer",
            Box::pin(async move {
                tokio::time::sleep_until(when).await;
                let mut state = this.lock();
                // An earlier timer may have been set since; that one evaluates the turns.
                if state.timer == Some(when) {
                    state.timer = None;
                }
                drop(state);
                Self::pump(&this);
            }),
        );
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((shared, class)) = self.0.take() {
            shared.lock().under_way[class.index()] -= 1;
            Shared::pump(&shared);
        }
    }
}

/// The time limit of one call.
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
    async fn calls_that_wait_start_in_the_order_of_their_classes() {
        let pacer = pacer(1, Duration::from_millis(1));
        let first = pacer.admit(Class::Scan).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for class in Class::ALL.into_iter().rev() {
            let (pacer, order) = (pacer.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                let permit = pacer.admit(class).await;
                order.lock().unwrap().push(class);
                drop(permit);
            }));
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), Class::ALL);
    }

    /// Turns per class within this many seconds, at ten calls a second, while each of these classes
    /// always has waiting calls.
    async fn turns(busy: &[Class], seconds: u64) -> Vec<(Class, u32)> {
        let pacer = pacer(4, Duration::from_millis(100));
        let counts = Arc::new(Mutex::new([0; Class::ALL.len()]));
        let mut tasks = Vec::new();
        for class in busy.iter().copied() {
            for _ in 0..8 {
                let (pacer, counts) = (pacer.clone(), counts.clone());
                tasks.push(tokio::spawn(async move {
                    loop {
                        let permit = pacer.admit(class).await;
                        counts.lock().unwrap()[class.index()] += 1;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        drop(permit);
                    }
                }));
            }
        }
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        for task in tasks {
            task.abort();
        }
        let counts = *counts.lock().unwrap();
        busy.iter()
            .map(|class| (*class, counts[class.index()]))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn every_class_gets_a_tenth_of_the_turns_and_ends_get_the_rest() {
        for (class, given) in turns(&Class::ALL, 100).await {
            let least = if class == Class::Kill { 350 } else { 90 };
            assert!(given >= least, "{class:?} got {given} of 1,000 turns");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn looks_get_at_most_a_third_of_the_turns() {
        let alone = turns(&[Class::Look], 100).await[0].1;
        assert!((300..=340).contains(&alone), "{alone} of 1,000 turns");
        let beside = turns(&[Class::Order, Class::Look], 100).await;
        assert!(beside[0].1 >= 660, "{beside:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn orders_that_take_long_leave_room_for_other_calls() {
        let pacer = pacer(4, Duration::from_millis(1));
        let orders: Vec<_> = (0..8)
            .map(|_| {
                let pacer = pacer.clone();
                tokio::spawn(async move {
                    let _permit = pacer.admit(Class::Order).await;
                    tokio::time::sleep(Duration::from_secs(60)).await;
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        let scan = pacer.admit(Class::Scan).await;
        let kill = pacer.admit(Class::Kill).await;
        assert!(begun.elapsed() < Duration::from_secs(1));
        drop((scan, kill));
        for order in orders {
            order.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_keep_their_distance() {
        let pacer = pacer(100, Duration::from_millis(100));
        let begun = Instant::now();
        for _ in 0..11 {
            drop(pacer.admit(Class::Kill).await);
        }
        assert_eq!(begun.elapsed().as_millis(), 1000);
    }
}
