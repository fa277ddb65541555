//! Estimates the current time and how far it can be trusted.
//!
//! Several clocks are compared: the store's, which all nodes share, and those of the clouds, which
//! every answer carries and by which machines are billed. None of them is always right: a host
//! starts with a wrong clock until its time service corrects it, is suspended, or is set by hand.
//! The rule is pure; the runtime only feeds it what it read. See
//! `docs/adr/0009-what-time-it-is-and-how-far-to-trust-it.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{AccountName, Timestamp};

/// Clocks that differ by more than this disagree, and no decision relies on the difference.
pub const MAX_DIFFERENCE: Duration = Duration::from_secs(60);
/// A cloud whose clock differs from the store's by more than this is not compared: it is simulated
/// or broken. With a host clock that wrong, no TLS certificate would be valid.
pub const COMPARABLE: Duration = Duration::from_secs(24 * 3600);
/// If the store's clock moves by more than this within one renewal, it was set, or the host slept.
pub const MAX_DRIFT: Duration = Duration::from_secs(2);
/// The maximum correction towards the store's clock per renewal: more than two crystals drift
/// apart.
const SLEW: i64 = 1_000_000;

/// How far the current time can be trusted; part of the kernel's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeTrust {
    /// The uncertainty of the current time: the clocks agree only that `now` minus this has been
    /// reached. Limits are decided, and costs are counted, by that earlier time.
    pub doubt: Duration,
    /// When this process started to look after the most recent session that it took over.
    pub adopted_at: Timestamp,
    /// Since when this process has run without a gap: since its start, its last takeover, or the
    /// last time its host slept or a clock was set.
    pub returned_at: Timestamp,
    /// The last return after more than a lease of silence. No session could be touched during that
    /// silence, so the return counts as a touch.
    pub touched_at: Option<Timestamp>,
    /// Whether a complete walk over the account has been compared with the records since then.
    /// Before that, no session from before the return is ended for idleness or cost.
    pub looked: bool,
}

impl TimeTrust {
    /// Full trust since this time: all clocks agree.
    #[must_use]
    pub const fn since(returned_at: Timestamp) -> Self {
        Self {
            doubt: Duration::ZERO,
            adopted_at: returned_at,
            returned_at,
            touched_at: None,
            looked: true,
        }
    }

    /// Corrects a recorded instant. An instant later than now was written by a clock that was
    /// ahead; it is taken as the return of this process at the latest.
    #[must_use]
    pub fn believed(&self, recorded: Timestamp, now: Timestamp) -> Timestamp {
        if recorded > now.saturating_add(MAX_DIFFERENCE) {
            self.returned_at.min(now)
        } else {
            recorded
        }
    }
}

/// A clock reading, converted to what that clock showed when the process's monotonic clock was at
/// zero: lower and upper bound, in nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    earliest: i64,
    latest: i64,
}

impl Reading {
    /// A reading of a clock with resolution `grain` that showed `shown` at some moment between
    /// `asked` and `answered` on the monotonic clock.
    #[must_use]
    pub fn new(shown: Timestamp, grain: Duration, asked: Duration, answered: Duration) -> Self {
        let shown = nanos(shown.since(Timestamp::UNIX_EPOCH));
        Self {
            earliest: shown.saturating_sub(nanos(answered)),
            latest: shown
                .saturating_add(nanos(grain))
                .saturating_sub(nanos(asked)),
        }
    }

    /// The certain lead of this clock over `base`; negative when it is behind, 0 when it may agree.
    fn ahead_of(self, base: i64) -> i64 {
        if self.earliest > base {
            self.earliest.saturating_sub(base)
        } else {
            self.latest.saturating_sub(base).min(0)
        }
    }

    /// The certain distance between two readings.
    fn apart(self, other: Self) -> i64 {
        let gap = self.earliest.saturating_sub(other.latest);
        gap.max(other.earliest.saturating_sub(self.latest)).max(0)
    }
}

/// All clocks, as one process knows them.
#[derive(Clone, Debug)]
pub struct Clocks {
    /// The best estimate of the time at which the monotonic clock was at zero.
    base: i64,
    doubt: i64,
    store: Option<Reading>,
    clouds: BTreeMap<AccountName, Reading>,
    /// The store's clock jumped, or was not watched for a while, and no cloud has confirmed yet
    /// whether that time has passed.
    unsettled: bool,
}

impl Clocks {
    /// Starts with a reading of the store's clock.
    #[must_use]
    pub fn new(store: Timestamp) -> Self {
        Self {
            base: nanos(store.since(Timestamp::UNIX_EPOCH)),
            doubt: 0,
            store: None,
            clouds: BTreeMap::new(),
            unsettled: false,
        }
    }

    /// The time when the monotonic clock was at zero, in nanoseconds since the epoch.
    #[must_use]
    pub const fn base(&self) -> i64 {
        self.base
    }

    /// The uncertainty of the time in nanoseconds.
    #[must_use]
    pub const fn doubt(&self) -> i64 {
        self.doubt
    }

    /// Takes a reading of the store's clock. `slept` says that the host is known to have been
    /// suspended since the last reading. Returns by how many nanoseconds the time jumped; 0 if it
    /// did not.
    pub fn store_showed(&mut self, reading: Reading, slept: bool) -> i64 {
        let before = self.store.replace(reading);
        let jumped = match before {
            Some(before) => reading.apart(before) > nanos(MAX_DRIFT),
            None => reading.ahead_of(self.base).abs() > nanos(MAX_DRIFT),
        };
        if jumped {
            // Earlier readings of the clouds say nothing about the time since.
            self.clouds.clear();
            self.unsettled = !slept;
        }
        self.settle()
    }

    /// For `span`, by the store's clock, no process watched it: whether that time has passed is in
    /// doubt until a cloud confirms it.
    pub fn unwatched(&mut self, span: Duration) {
        self.unsettled = true;
        self.doubt = self.doubt.saturating_add(nanos(span));
    }

    /// Takes the date of an answer of this account's cloud. Returns the same as
    /// [`Clocks::store_showed`].
    pub fn cloud_showed(&mut self, account: &AccountName, reading: Reading) -> i64 {
        self.clouds.insert(account.clone(), reading);
        if self.is_comparable(reading) {
            self.unsettled = false;
        }
        self.settle()
    }

    /// A cloud has been listed since, and no date it sent contradicts the store's clock. Returns
    /// whether this ended a doubt.
    pub fn looked(&mut self) -> bool {
        let doubted = self.doubt > 0;
        self.unsettled = false;
        self.settle();
        doubted && self.doubt == 0
    }

    /// By how many nanoseconds the store's clock is ahead of the time; 0 when it may agree with it.
    #[must_use]
    pub fn store_ahead(&self) -> i64 {
        self.store.map_or(0, |store| store.ahead_of(self.base))
    }

    /// By how many nanoseconds each account's cloud is ahead of the store's clock.
    pub fn differences(&self) -> impl Iterator<Item = (&AccountName, i64)> {
        self.clouds
            .iter()
            .filter_map(|(account, cloud)| Some((account, ahead(*cloud, self.store?))))
    }

    fn is_comparable(&self, cloud: Reading) -> bool {
        self.store
            .is_none_or(|store| store.apart(cloud) <= nanos(COMPARABLE))
    }

    /// The decision rule. The store's clock counts while at least one cloud agrees with it, or none
    /// can be compared. If all clouds contradict it and agree with each other, their time counts.
    /// If they do not agree with each other either, only what is due by all clocks is decided.
    fn settle(&mut self) -> i64 {
        let Some(store) = self.store else { return 0 };
        let near = |a: Reading, b: Reading| a.apart(b) <= nanos(MAX_DIFFERENCE);
        let clouds: Vec<Reading> = self
            .clouds
            .values()
            .copied()
            .filter(|cloud| self.is_comparable(*cloud))
            .collect();
        let by_store = clouds.is_empty() || clouds.iter().any(|cloud| near(*cloud, store));
        let agree = |one: &Reading| clouds.iter().all(|other| near(*one, *other));
        let split = !by_store && !clouds.iter().all(agree);
        let before = self.base;
        let ahead = store.ahead_of(before);
        let jump = if by_store || split {
            if ahead.abs() <= nanos(MAX_DRIFT) {
                // The time moves backwards by less than passes before the next reading.
                self.base = before.saturating_add(ahead.clamp(-SLEW / 10, SLEW));
                0
            } else if ahead < 0 && self.unsettled {
                // Records are corrected only towards an earlier time that is known to be right.
                0
            } else {
                ahead
            }
        } else {
            // The reading with the smallest uncertainty.
            let best = clouds
                .iter()
                .min_by_key(|cloud| cloud.latest.saturating_sub(cloud.earliest));
            let ahead = best.map_or(0, |cloud| cloud.ahead_of(before));
            if ahead.abs() <= nanos(MAX_DIFFERENCE) {
                0
            } else {
                ahead
            }
        };
        self.base = self.base.saturating_add(jump);
        self.doubt = if split {
            let first = clouds.iter().map(|cloud| cloud.latest).min();
            self.base
                .saturating_sub(first.unwrap_or(self.base).min(store.latest))
                .max(0)
        } else if self.unsettled {
            let held_back = by_store && ahead < -nanos(MAX_DRIFT);
            let least = if held_back { -ahead } else { 0 };
            self.doubt.saturating_add(jump).max(least)
        } else {
            0
        };
        jump
    }
}

/// The minimum lead of one clock over another.
fn ahead(one: Reading, other: Reading) -> i64 {
    if one.earliest >= other.latest {
        one.earliest.saturating_sub(other.latest)
    } else {
        one.latest.saturating_sub(other.earliest).min(0)
    }
}

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    /// A process that has run for an hour by its monotonic clock, while all clocks agreed.
    struct World {
        clocks: Clocks,
        ran: Duration,
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_790_000_000 + seconds)
    }

    fn account(name: &str) -> AccountName {
        AccountName::new(name).unwrap()
    }

    impl World {
        fn new() -> Self {
            let mut world = Self {
                clocks: Clocks::new(at(0)),
                ran: Duration::ZERO,
            };
            world.ran = Duration::from_secs(3600);
            assert_eq!(world.store(HOUR, false), 0);
            world
        }

        fn reading(&self, seconds: i64) -> Reading {
            let asked = self.ran.saturating_sub(Duration::from_millis(200));
            Reading::new(at(seconds), Duration::from_secs(1), asked, self.ran)
        }

        fn store(&mut self, seconds: i64, slept: bool) -> i64 {
            let asked = self.ran.saturating_sub(Duration::from_millis(5));
            let reading = Reading::new(at(seconds), Duration::ZERO, asked, self.ran);
            self.clocks.store_showed(reading, slept) / 1_000_000_000
        }

        fn cloud(&mut self, name: &str, seconds: i64) -> i64 {
            let reading = self.reading(seconds);
            self.clocks.cloud_showed(&account(name), reading) / 1_000_000_000
        }

        /// The current time and the certain time, in seconds.
        fn time(&self) -> (i64, i64) {
            let now = self.clocks.base() + nanos(self.ran);
            let start = nanos(at(0).since(Timestamp::UNIX_EPOCH));
            let seconds = |nanos: i64| (nanos - start + 500_000_000).div_euclid(1_000_000_000);
            (seconds(now), seconds(now - self.clocks.doubt()))
        }
    }

    #[test]
    fn a_jump_of_the_stores_clock_counts_once_a_cloud_confirms_it() {
        let mut world = World::new();
        world.cloud("a", HOUR);
        assert_eq!(world.store(9 * HOUR, false), 8 * HOUR);
        assert_eq!(
            world.time(),
            (9 * HOUR, HOUR),
            "nobody knows yet whether it passed"
        );
        assert_eq!(world.cloud("a", 9 * HOUR), 0);
        assert_eq!(world.time(), (9 * HOUR, 9 * HOUR));
    }

    #[test]
    fn a_jump_that_a_cloud_contradicts_is_taken_back_and_nothing_was_certain_by_it() {
        let mut world = World::new();
        assert_eq!(world.store(3 * HOUR, false), 2 * HOUR);
        assert_eq!(world.time(), (3 * HOUR, HOUR));
        let back = world.cloud("a", HOUR);
        assert!((back + 2 * HOUR).abs() <= 2, "{back}");
        let right = |world: &World| {
            let (now, certain) = world.time();
            (now - HOUR).abs() <= 2 && now == certain
        };
        assert!(right(&world));
        assert_eq!(
            world.store(3 * HOUR, false),
            0,
            "it stays wrong, and known to be"
        );
        let back = world.store(HOUR, false);
        assert!(back.abs() <= 2, "set right again: {back}");
        assert!(right(&world));
    }

    #[test]
    fn a_step_back_counts_once_a_cloud_confirms_it() {
        let mut world = World::new();
        assert_eq!(world.store(-HOUR, false), 0);
        let (now, certain) = world.time();
        assert_eq!(
            (now, certain),
            (HOUR, -HOUR),
            "nobody knows yet which was right"
        );
        assert_eq!(world.store(-HOUR, false), 0);
        assert_eq!(world.cloud("a", HOUR), 0);
        assert_eq!(world.time(), (HOUR, HOUR), "contradicted");
        let mut world = World::new();
        world.store(-HOUR, false);
        assert!(world.cloud("a", -HOUR) <= -2 * HOUR + 2);
        let (now, certain) = world.time();
        assert!((now + HOUR).abs() <= 2 && now == certain, "{now} {certain}");
    }

    #[test]
    fn a_time_that_nobody_watched_is_in_doubt_until_a_cloud_tells() {
        let mut world = World::new();
        world.clocks.unwatched(Duration::from_secs(1800));
        assert_eq!(world.time(), (HOUR, HOUR / 2));
        assert_eq!(world.store(HOUR, false), 0);
        assert_eq!(world.time(), (HOUR, HOUR / 2));
        world.cloud("a", HOUR);
        assert_eq!(world.time(), (HOUR, HOUR));
    }

    #[test]
    fn a_suspended_host_needs_no_cloud_to_know_that_time_passed() {
        let mut world = World::new();
        assert_eq!(world.store(9 * HOUR, true), 8 * HOUR);
        assert_eq!(world.time(), (9 * HOUR, 9 * HOUR));
    }

    #[test]
    fn a_cloud_without_a_date_confirms_by_being_looked_at() {
        let mut world = World::new();
        world.store(9 * HOUR, false);
        assert!(world.clocks.looked());
        assert_eq!(world.time(), (9 * HOUR, 9 * HOUR));
    }

    #[test]
    fn a_store_whose_clock_is_wrong_from_the_start_is_corrected_by_the_clouds() {
        for wrong in [2 * HOUR, -2 * HOUR] {
            let mut world = World::new();
            world.clocks = Clocks::new(at(wrong));
            world.store(HOUR + wrong, false);
            let jump = world.cloud("a", HOUR);
            assert!((jump + wrong).abs() <= 2, "{jump}");
            let (now, certain) = world.time();
            assert!((now - HOUR).abs() <= 2 && certain == now, "{now} {certain}");
        }
    }

    #[test]
    fn one_cloud_that_agrees_with_the_store_outweighs_one_that_does_not() {
        let mut world = World::new();
        world.cloud("right", HOUR);
        assert_eq!(world.cloud("wrong", 3 * HOUR), 0);
        assert_eq!(world.time(), (HOUR, HOUR));
    }

    #[test]
    fn where_no_two_clocks_agree_only_what_all_have_reached_is_certain() {
        let mut world = World::new();
        world.cloud("a", 3 * HOUR);
        world.cloud("b", -HOUR);
        let (now, certain) = world.time();
        assert_eq!(now, HOUR);
        assert!((certain + HOUR).abs() <= 2, "{certain}");
    }

    #[test]
    fn an_answer_that_was_long_under_way_contradicts_nobody() {
        let mut world = World::new();
        let (asked, answered) = (Duration::from_secs(3600), Duration::from_secs(3900));
        world.ran = answered;
        let date = Reading::new(at(HOUR), Duration::from_secs(1), asked, answered);
        assert_eq!(world.clocks.cloud_showed(&account("a"), date), 0);
        assert_eq!(world.time(), (HOUR + 300, HOUR + 300));
    }

    #[test]
    fn a_cloud_in_another_month_is_not_compared() {
        let mut world = World::new();
        assert_eq!(world.cloud("a", -40 * 24 * HOUR), 0);
        assert_eq!(world.time(), (HOUR, HOUR));
    }

    #[test]
    fn what_a_clock_that_was_ahead_wrote_counts_from_the_return() {
        let trust = TimeTrust::since(at(100));
        assert_eq!(trust.believed(at(90), at(200)), at(90));
        assert_eq!(trust.believed(at(7200), at(200)), at(100));
    }
}
