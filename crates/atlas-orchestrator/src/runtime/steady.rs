//! The source of the current time: the deployment's time, advanced by this process's monotonic
//! clock.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas_core::{AccountName, Clock, DateListener, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::kernel::clock::{Clocks, MAX_DIFFERENCE, MAX_DRIFT, Reading, TimeTrust};

/// Clouds give the time of an answer in whole seconds.
const DATE_GRAIN: Duration = Duration::from_secs(1);
/// No such time.
const NEVER: i64 = i64::MIN;

/// The time, and how far it can be trusted. Touches read it very often, so what they need is in
/// atomics; the clocks it is derived from are behind a lock.
#[derive(Debug)]
pub(crate) struct Steady {
    origin: Instant,
    /// The time at the origin, in nanoseconds since the epoch.
    base: AtomicI64,
    /// When this process started to look after the most recent session it took over, in
    /// milliseconds.
    adopted_at: AtomicI64,
    /// When this process last returned, in milliseconds.
    returned_at: AtomicI64,
    /// The last return that counts as a touch, in milliseconds.
    touched_at: AtomicI64,
    /// How many times this process returned. What an account saw before the last return is
    /// outdated.
    returns: AtomicU64,
    /// A larger jump than this counts as a return.
    lease: Duration,
    clocks: Mutex<Clocks>,
    host: Mutex<Host>,
    /// The total jump of the time that has not been handled yet, in nanoseconds.
    jumped: Mutex<Option<i64>>,
    /// Notified when a jump has to be handled, or a doubt ended.
    pub(crate) changed: Notify,
}

/// The host's own clocks, and their values at the last reading of the store's clock.
#[derive(Debug)]
struct Host {
    clock: Arc<dyn Clock>,
    seen: Marks,
}

/// One moment on every clock of the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    monotonic: Instant,
    wall: Timestamp,
    since_boot: Option<Duration>,
}

impl Marks {
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self {
            monotonic: Instant::now(),
            wall: clock.now(),
            since_boot: clock.since_boot(),
        }
    }

    /// How much more time has passed since `since` by the clocks that continue while the host
    /// sleeps: the wall clock, which may also have been set, and the one that is never set.
    fn missed(self, since: Self) -> (Duration, Duration) {
        let ran = self.monotonic.saturating_duration_since(since.monotonic);
        let slept = match (self.since_boot, since.since_boot) {
            (Some(now), Some(then)) => now.saturating_sub(then).saturating_sub(ran),
            _ => Duration::ZERO,
        };
        (self.wall.since(since.wall).saturating_sub(ran), slept)
    }

    /// Whether more than `span` may have passed since then, by any clock of the host.
    pub(crate) fn may_exceed(self, since: Self, span: Duration) -> bool {
        let ran = self.monotonic.saturating_duration_since(since.monotonic);
        let (wall, slept) = self.missed(since);
        ran.saturating_add(wall.max(slept)) >= span
    }

    pub(crate) const fn monotonic(self) -> Instant {
        self.monotonic
    }
}

/// This much later, limited by the range of tokio's timer: about two years.
pub(crate) fn later(span: Duration) -> Instant {
    Instant::now() + span.min(Duration::from_secs(365 * 24 * 3600))
}

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

fn timestamp(nanos: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH.saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Steady {
    pub(crate) fn new(store: Timestamp, clock: Arc<dyn Clock>, lease: Duration) -> Self {
        let clocks = Clocks::new(store);
        Self {
            origin: Instant::now(),
            base: AtomicI64::new(clocks.base()),
            adopted_at: AtomicI64::new(store.unix_millis()),
            returned_at: AtomicI64::new(store.unix_millis()),
            touched_at: AtomicI64::new(NEVER),
            returns: AtomicU64::new(1),
            lease,
            clocks: Mutex::new(clocks),
            host: Mutex::new(Host {
                seen: Marks::now(&*clock),
                clock,
            }),
            jumped: Mutex::new(None),
            changed: Notify::new(),
        }
    }

    fn now_nanos(&self) -> i64 {
        self.base
            .load(Ordering::Relaxed)
            .saturating_add(nanos(self.ran()))
    }

    fn ran(&self) -> Duration {
        self.since_origin(Instant::now())
    }

    fn since_origin(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.origin)
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
        // Beyond the range of tokio's timer wheel, the caller checks again.
        Instant::now() + wait.min(Duration::from_secs(30 * 24 * 3600))
    }

    /// The time, and how far it can be trusted for an account whose cloud was listed after this
    /// many returns.
    pub(crate) fn trust(&self, looked_after: u64) -> (Timestamp, TimeTrust) {
        // Both are read under the lock, so that a jump is never seen without its doubt.
        let clocks = lock(&self.clocks);
        let doubt = Duration::from_nanos(u64::try_from(clocks.doubt()).unwrap_or(0));
        let touched_at = self.touched_at.load(Ordering::Relaxed);
        let trust = TimeTrust {
            doubt,
            adopted_at: Timestamp::from_unix_millis(self.adopted_at.load(Ordering::Relaxed)),
            returned_at: Timestamp::from_unix_millis(self.returned_at.load(Ordering::Relaxed)),
            touched_at: (touched_at != NEVER).then(|| Timestamp::from_unix_millis(touched_at)),
            looked: looked_after == self.returns(),
        };
        let now = self.now();
        drop(clocks);
        (now, trust)
    }

    /// How many times this process has returned.
    pub(crate) fn returns(&self) -> u64 {
        self.returns.load(Ordering::Acquire)
    }

    /// Records that this process started to look after one more session.
    pub(crate) fn took_up(&self) {
        self.adopted_at.store(self.now_millis(), Ordering::Relaxed);
    }

    /// Records that this process takes over sessions that were looked after until `silence` ago. If
    /// that is more than a lease, the return counts as a touch.
    pub(crate) fn returned(&self, silence: Duration) {
        let clocks = lock(&self.clocks);
        self.mark_return(silence > self.lease);
        drop(clocks);
    }

    /// For `span`, by the store's clock, no process watched that clock.
    pub(crate) fn unwatched(&self, span: Duration) {
        lock(&self.clocks).unwatched(span);
    }

    fn mark_return(&self, touched: bool) {
        let now = self.now_millis();
        self.returned_at.store(now, Ordering::Relaxed);
        if touched {
            self.touched_at.store(now, Ordering::Relaxed);
        }
        self.returns.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes a reading of the store's clock from a call that was sent at `sent`.
    pub(crate) fn store_showed(&self, shown: Timestamp, sent: Instant) {
        let (_, slept) = self.missed();
        {
            let mut host = lock(&self.host);
            host.seen = Marks::now(&*host.clock);
        }
        let reading = Reading::new(shown, Duration::ZERO, self.since_origin(sent), self.ran());
        let slept = slept > MAX_DRIFT;
        self.take(|clocks| clocks.store_showed(reading, slept));
    }

    /// How much more than by this process's monotonic clock may have passed since the store's clock
    /// was last read: by the host's wall clock, and by the one that is never set.
    pub(crate) fn missed(&self) -> (Duration, Duration) {
        let host = lock(&self.host);
        Marks::now(&*host.clock).missed(host.seen)
    }

    /// One moment on every clock of the host.
    pub(crate) fn marks(&self) -> Marks {
        Marks::now(&*lock(&self.host).clock)
    }

    /// A listener for the dates of this account's answers.
    pub(crate) fn listener(self: &Arc<Self>, account: &AccountName) -> DateListener {
        let (steady, account) = (self.clone(), account.clone());
        DateListener::new(move || {
            let (steady, account, asked) = (steady.clone(), account.clone(), steady.ran());
            move |date| {
                let reading = Reading::new(date, DATE_GRAIN, asked, steady.ran());
                steady.take(|clocks| clocks.cloud_showed(&account, reading));
            }
        })
    }

    /// A complete walk over an account's machines was compared with the records.
    pub(crate) fn looked(&self) {
        let mut clocks = lock(&self.clocks);
        if clocks.looked() {
            drop(clocks);
            self.changed.notify_one();
        }
    }

    /// By how many milliseconds the store's clock is ahead of the time, if that is not in doubt. 0
    /// when they agree well enough.
    pub(crate) fn store_ahead(&self) -> Option<i64> {
        let clocks = lock(&self.clocks);
        let ahead = clocks.store_ahead();
        let differs = ahead.unsigned_abs() > nanos(MAX_DIFFERENCE).unsigned_abs();
        (clocks.doubt() == 0).then_some(if differs { ahead / 1_000_000 } else { 0 })
    }

    /// By how many seconds each account's cloud is ahead of the store's clock.
    pub(crate) fn differences(&self) -> Vec<(AccountName, f64)> {
        let clocks = lock(&self.clocks);
        let seconds = |nanos: i64| Duration::from_nanos(nanos.unsigned_abs()).as_secs_f64();
        clocks
            .differences()
            .map(|(account, by)| {
                let size = seconds(by);
                (account.clone(), if by < 0 { -size } else { size })
            })
            .collect()
    }

    fn take(&self, show: impl FnOnce(&mut Clocks) -> i64) {
        let mut clocks = lock(&self.clocks);
        let doubt = clocks.doubt();
        let jump = show(&mut clocks);
        self.base.store(clocks.base(), Ordering::Relaxed);
        if jump != 0 {
            // Applied at once, and not when the jump is handled, so that nothing is decided in
            // between.
            if jump.unsigned_abs() > nanos(self.lease).unsigned_abs() {
                self.mark_return(true);
            }
            let mut jumped = lock(&self.jumped);
            *jumped = Some(jumped.unwrap_or(0).saturating_add(jump));
        } else if doubt == clocks.doubt() {
            return;
        }
        drop(clocks);
        self.changed.notify_one();
    }

    /// The jump that has to be handled, in nanoseconds.
    pub(crate) fn take_jump(&self) -> Option<i64> {
        lock(&self.jumped).take()
    }
}
