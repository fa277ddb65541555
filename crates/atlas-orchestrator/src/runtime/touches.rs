//! Activity of sessions: acknowledged in memory, flushed in batches, compared before an idle end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use atlas_core::Timestamp;
use tokio::sync::Notify;

use crate::ids::SessionId;
use crate::info::Touch;

const SHARDS: usize = 64;

/// Reads the row of a touch: its time in milliseconds, as text.
pub(crate) fn touch_time(value: &[u8]) -> Option<Timestamp> {
    std::str::from_utf8(value)
        .ok()?
        .parse()
        .ok()
        .map(Timestamp::from_unix_millis)
}

/// The part of a session's activity that every touch reads and writes: the latest acknowledged
/// touch, in milliseconds since the epoch, doubled. Odd while the session is on the list to be
/// flushed and no touch before that flush is due can be late; without an idle limit, always.
/// Fetching it is the cost of a touch, so it is small.
type Hot = AtomicI64;

/// The rest of a session's activity, needed for its first touch after a flush and for the flush.
#[derive(Debug)]
struct Cold {
    /// From this millisecond on, an idle decision may be made without asking this process: the
    /// latest durable touch plus the idle limit minus a flush interval. `i64::MAX` without a limit.
    late_from: i64,
    /// The commit that wrote the latest durable touch; 0 if there is no row.
    version: u64,
    /// The idle limit in milliseconds, at most 49 days; 0 without one.
    ttl: u32,
}

const fn noted(millis: i64, calm: bool) -> i64 {
    millis.saturating_mul(2) | calm as i64
}

const fn is_calm(noted: i64) -> bool {
    noted & 1 == 1
}

const fn millis_of(noted: i64) -> i64 {
    noted >> 1
}

/// Session ids end in random bytes: eight of them, mixed, are a hash, and the same one in every
/// run. Without mixing, the byte that selects the shard would be the one by which the hash map
/// distinguishes the entries of a group.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut tail = [0; 8];
        let from = bytes.len().saturating_sub(8);
        tail[..bytes.len() - from].copy_from_slice(&bytes[from..]);
        self.0 ^= u64::from_le_bytes(tail);
    }
}

type ById<T> = HashMap<SessionId, T, BuildHasherDefault<IdHasher>>;

#[derive(Debug, Default)]
struct Cells {
    hot: ById<Hot>,
    cold: ById<Cold>,
}

/// In its own cache line, so that threads on two shards do not contend.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(RwLock<Cells>);

/// The activity of every session of this node.
#[derive(Debug)]
pub(crate) struct Touches {
    shards: Vec<Shard>,
    listed: Mutex<Listed>,
    /// When the earliest unflushed touch has to be durable; `i64::MAX` for never.
    flush_at: AtomicI64,
    /// When flushing started to fail; `i64::MAX` while it works.
    failing_since: AtomicI64,
    /// Until when a touch may be acknowledged from memory. If this node died later than that, the
    /// touch would not be counted.
    trusted_until: AtomicI64,
    /// Whether every session of this node that is not ending is present.
    whole: AtomicBool,
    /// The longest time that a touch may stay in memory only.
    flush: Duration,
    /// Whether a touch that an idle decision may have missed is acknowledged only when it is
    /// durable.
    defer_late: bool,
    pub(crate) wanted: Notify,
    /// The source of the latest activity of sessions where it was not a touch. For display; lost
    /// with the process.
    origins: Mutex<BTreeMap<SessionId, (Timestamp, String)>>,
}

/// What is to be flushed; ordered, so that runs can be repeated.
#[derive(Debug, Default)]
struct Listed {
    /// Sessions with a touch that is not durable yet.
    ids: BTreeSet<SessionId>,
    /// Acknowledged touches of sessions that are no longer present, or that could not be flushed
    /// yet.
    left: BTreeMap<SessionId, Unflushed>,
}

impl Listed {
    fn leave(&mut self, unflushed: Unflushed) {
        let left = self.left.entry(unflushed.id).or_insert(unflushed);
        left.newest = left.newest.max(unflushed.newest);
        left.version = left.version.max(unflushed.version);
    }
}

/// A touch to flush.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unflushed {
    pub(crate) id: SessionId,
    pub(crate) newest: Timestamp,
    /// The version of the row that was last read or written; `None` if there was no row.
    pub(crate) version: Option<u64>,
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_unix_millis(millis)
}

impl Touches {
    pub(crate) fn new(flush: Duration, defer_late: bool) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            listed: Mutex::default(),
            flush_at: AtomicI64::new(i64::MAX),
            failing_since: AtomicI64::new(i64::MAX),
            trusted_until: AtomicI64::new(i64::MIN),
            whole: AtomicBool::new(false),
            flush,
            defer_late,
            wanted: Notify::new(),
            origins: Mutex::default(),
        }
    }

    fn shard(&self, id: SessionId) -> &Shard {
        &self.shards[usize::from(id.as_bytes()[15]) % SHARDS]
    }

    fn read(&self, id: SessionId) -> RwLockReadGuard<'_, Cells> {
        self.shard(id)
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, id: SessionId) -> RwLockWriteGuard<'_, Cells> {
        self.shard(id)
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a touch of a session with this idle limit may stay in memory only, in milliseconds.
    fn flush_of(&self, ttl: u32) -> i64 {
        i64::try_from(self.flush.as_millis())
            .unwrap_or(i64::MAX)
            .min(i64::from(ttl) / 10)
    }

    /// From when a touch is late, if `durable` is the latest durable one.
    fn late_from(&self, ttl: u32, durable: i64) -> i64 {
        if ttl == 0 {
            i64::MAX
        } else {
            durable
                .saturating_add(i64::from(ttl))
                .saturating_sub(self.flush_of(ttl))
        }
    }

    /// Starts counting a session's activity.
    pub(crate) fn insert(
        &self,
        id: SessionId,
        ttl: Option<Duration>,
        durable: Timestamp,
        version: Option<u64>,
    ) {
        let given = ttl.map_or(0, |ttl| u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX));
        let millis = durable.unix_millis();
        let mut cells = self.write(id);
        let cold = cells.cold.entry(id).or_insert(Cold {
            late_from: i64::MIN,
            version: 0,
            ttl: given,
        });
        cold.version = cold.version.max(version.unwrap_or(0));
        cold.late_from = cold.late_from.max(self.late_from(cold.ttl, millis));
        let noted = noted(millis, cold.ttl == 0);
        cells
            .hot
            .entry(id)
            .or_insert_with(|| Hot::new(noted))
            .fetch_max(noted, Ordering::Relaxed);
    }

    /// Records the source of activity.
    pub(crate) fn came_from(&self, id: SessionId, at: Timestamp, source: &str) {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if source == "touch" {
            origins.remove(&id);
        } else {
            origins.insert(id, (at, source.to_owned()));
        }
    }

    /// The source of the activity at that moment.
    pub(crate) fn origin(&self, id: SessionId, at: Timestamp) -> String {
        let origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        origins
            .get(&id)
            .filter(|(noted, _)| *noted >= at)
            .map_or_else(|| "touch".to_owned(), |(_, source)| source.clone())
    }

    /// Forgets a session that touches cannot keep alive any more.
    pub(crate) fn remove(&self, id: SessionId) {
        self.origins
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        let mut cells = self.write(id);
        cells.hot.remove(&id);
        cells.cold.remove(&id);
        self.lock_list().left.remove(&id);
    }

    /// Removes a session that left this node: its acknowledged touches are still flushed, and no
    /// further touch is acknowledged.
    pub(crate) fn let_go(&self, id: SessionId) {
        self.origins
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        let mut cells = self.write(id);
        let (hot, cold) = (cells.hot.remove(&id), cells.cold.remove(&id));
        if let (Some(hot), Some(cold)) = (hot, cold) {
            self.leave(id, &hot, &cold);
        }
    }

    /// The same for every session.
    pub(crate) fn let_all_go(&self) {
        self.whole.store(false, Ordering::Release);
        self.origins
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        for shard in &self.shards {
            let mut cells = shard.0.write().unwrap_or_else(PoisonError::into_inner);
            let Cells { hot, mut cold } = std::mem::take(&mut *cells);
            for (id, hot) in hot {
                if let Some(cold) = cold.remove(&id) {
                    self.leave(id, &hot, &cold);
                }
            }
        }
    }

    /// Records that every session of this node was read.
    pub(crate) fn all_here(&self) {
        self.whole.store(true, Ordering::Release);
    }

    /// Whether an absent session belongs to another node or is ending.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    /// Lists the unflushed touch of a session separately. Its shard is locked.
    fn leave(&self, id: SessionId, hot: &Hot, cold: &Cold) {
        if let Some(unflushed) = self.newer(id, hot, cold) {
            self.lock_list().leave(unflushed);
            self.flush_at
                .fetch_min(unflushed.newest.unix_millis(), Ordering::AcqRel);
            self.wanted.notify_one();
        }
    }

    /// Locked last: the holder of a shard's lock may lock it.
    fn lock_list(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node's lease was renewed: touches acknowledged until then count even if it dies.
    pub(crate) fn trusted_until(&self, until: Timestamp) {
        self.trusted_until
            .store(until.unix_millis(), Ordering::Release);
    }

    /// The latest activity that this process knows of.
    pub(crate) fn newest(&self, id: SessionId) -> Option<Timestamp> {
        self.read(id)
            .hot
            .get(&id)
            .map(|hot| at(millis_of(hot.load(Ordering::Relaxed))))
    }

    /// Counts a touch, in milliseconds since the epoch. `None` if the session is not of this node.
    pub(crate) fn touch(&self, id: SessionId, millis: i64) -> Option<Touch> {
        let cells = self.read(id);
        let hot = cells.hot.get(&id)?;
        let mut before = hot.load(Ordering::Acquire);
        // The code that listed the session determined when the flush is due, and that no touch
        // before then can be late.
        while is_calm(before)
            && millis <= self.flush_at.load(Ordering::Acquire)
            && millis <= self.trusted_until.load(Ordering::Relaxed)
            && self.failing_since.load(Ordering::Relaxed) == i64::MAX
        {
            let after = before.max(noted(millis, true));
            match hot.compare_exchange_weak(before, after, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Touch::Recorded),
                Err(other) => before = other,
            }
        }
        Some(self.list(id, hot, cells.cold.get(&id)?, millis))
    }

    /// Records a touch and lists its session to be flushed.
    fn list(&self, id: SessionId, hot: &Hot, cold: &Cold, millis: i64) -> Touch {
        let note = |calm| {
            let newer = |before| Some(noted(millis_of(before).max(millis), calm));
            // The closure always returns a value.
            let _ = hot.fetch_update(Ordering::AcqRel, Ordering::Acquire, newer);
        };
        if cold.ttl == 0 {
            note(true);
            return Touch::Recorded;
        }
        let flush = self.flush_of(cold.ttl);
        // Half of the time for waiting, half for the write itself.
        let due = millis.saturating_add(flush / 2);
        // A flush sees this as one step: listed, due, and only then calm.
        let mut listed = self.lock_list();
        let is_late = self.defer_late && millis >= cold.late_from;
        let is_failing = self
            .failing_since
            .load(Ordering::Relaxed)
            .saturating_add(flush)
            <= millis;
        let is_trusted = millis <= self.trusted_until.load(Ordering::Relaxed);
        let (answer, flush_at) = if is_late || is_failing || !is_trusted {
            (Touch::Deferred, millis)
        } else {
            (Touch::Recorded, due)
        };
        listed.ids.insert(id);
        let sooner = flush_at < self.flush_at.fetch_min(flush_at, Ordering::AcqRel);
        note(!self.defer_late || due < cold.late_from);
        drop(listed);
        if sooner {
            self.wanted.notify_one();
        }
        answer
    }

    /// The time went backwards: touches of a later time were made now at the latest, and a new
    /// touch counts as newer.
    pub(crate) fn not_later_than(&self, now: Timestamp) {
        let millis = now.unix_millis();
        for shard in &self.shards {
            let mut cells = shard.0.write().unwrap_or_else(PoisonError::into_inner);
            let Cells { hot, cold } = &mut *cells;
            for (id, hot) in hot {
                let Some(cold) = cold.get_mut(id) else {
                    continue;
                };
                let limit = self.late_from(cold.ttl, millis);
                if cold.ttl > 0 && cold.late_from > limit {
                    // The durable touch has that later time too, so it is written again.
                    cold.late_from = limit.saturating_sub(1);
                    self.lock_list().ids.insert(*id);
                }
                let noted = hot.load(Ordering::Acquire);
                if millis_of(noted) > millis {
                    hot.store(self::noted(millis, cold.ttl == 0), Ordering::Release);
                }
            }
        }
        self.flush_at.fetch_min(millis, Ordering::AcqRel);
        self.wanted.notify_one();
    }

    /// When the next flush is due.
    pub(crate) fn flush_at(&self) -> Option<Timestamp> {
        let millis = self.flush_at.load(Ordering::Relaxed);
        (millis != i64::MAX).then(|| at(millis))
    }

    /// Takes what is to be flushed off the list. Until it is flushed, flushing counts as not
    /// working.
    pub(crate) fn take(&self) -> Vec<Unflushed> {
        let mut taken = {
            let mut listed = self.lock_list();
            self.flush_at.store(i64::MAX, Ordering::Release);
            std::mem::take(&mut *listed)
        };
        for id in std::mem::take(&mut taken.ids) {
            if let Some(unflushed) = self.unflushed(id) {
                taken.leave(unflushed);
            }
        }
        taken.left.into_values().collect()
    }

    /// What is to be flushed of one session, if anything.
    fn unflushed(&self, id: SessionId) -> Option<Unflushed> {
        let cells = self.read(id);
        self.newer(id, cells.hot.get(&id)?, cells.cold.get(&id)?)
    }

    /// The same, for values that are already locked.
    fn newer(&self, id: SessionId, hot: &Hot, cold: &Cold) -> Option<Unflushed> {
        let newest = millis_of(hot.fetch_and(!1, Ordering::AcqRel));
        let is_newer = self.late_from(cold.ttl, newest) > cold.late_from;
        is_newer.then(|| Unflushed {
            id,
            newest: at(newest),
            version: (cold.version > 0).then_some(cold.version),
        })
    }

    /// A touch was made durable, or a newer one of another node was read.
    pub(crate) fn flushed(&self, id: SessionId, durable: Timestamp, version: u64) {
        let millis = durable.unix_millis();
        let mut cells = self.write(id);
        let Some(cold) = cells.cold.get_mut(&id) else {
            return;
        };
        cold.version = cold.version.max(version);
        cold.late_from = cold.late_from.max(self.late_from(cold.ttl, millis));
        let noted = noted(millis, cold.ttl == 0);
        if let Some(hot) = cells.hot.get(&id) {
            hot.fetch_max(noted, Ordering::AcqRel);
        }
    }

    /// Puts back what could not be flushed.
    pub(crate) fn again(&self, chunk: Vec<Unflushed>, when: Timestamp) {
        let mut listed = self.lock_list();
        if !chunk.is_empty() {
            self.flush_at
                .fetch_min(when.unix_millis(), Ordering::AcqRel);
        }
        chunk
            .into_iter()
            .for_each(|unflushed| listed.leave(unflushed));
    }

    /// Records whether flushing works from now on.
    pub(crate) fn works(&self, works: bool, now: Timestamp) {
        if works {
            self.failing_since.store(i64::MAX, Ordering::Relaxed);
        } else {
            self.failing_since
                .fetch_min(now.unix_millis(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::SeededEntropy;

    fn trusted() -> Touches {
        let touches = Touches::new(Duration::from_secs(5), true);
        touches.trusted_until(Timestamp::from_unix_seconds(1_800_000_000));
        touches
    }

    #[test]
    fn nothing_is_acknowledged_from_memory_that_nobody_would_count_if_this_node_died() {
        let start = Timestamp::from_unix_seconds(1_790_000_000);
        let id = SessionId::new(start, &SeededEntropy::new(1));
        let touches = Touches::new(Duration::from_secs(5), true);
        touches.insert(id, Some(Duration::from_secs(100)), start, None);
        let touch = |after: i64| touches.touch(id, start.unix_millis() + after);
        assert_eq!(touch(1), Some(Touch::Deferred), "no lease yet");
        touches.trusted_until(start.saturating_add(Duration::from_secs(10)));
        assert_eq!(
            (touch(2), touch(9_000), touch(10_001)),
            (
                Some(Touch::Recorded),
                Some(Touch::Recorded),
                Some(Touch::Deferred)
            )
        );
        touches.trusted_until(start.saturating_add(Duration::from_secs(20)));
        assert_eq!(touch(10_002), Some(Touch::Recorded));
    }

    #[test]
    fn what_was_acknowledged_is_flushed_though_its_session_is_let_go() {
        let start = Timestamp::from_unix_seconds(1_790_000_000);
        let ids: Vec<SessionId> = (0..8)
            .map(|seed| SessionId::new(start, &SeededEntropy::new(seed)))
            .collect();
        let touches = trusted();
        for id in &ids {
            touches.insert(*id, Some(Duration::from_secs(3600)), start, Some(3));
            assert_eq!(
                touches.touch(*id, start.unix_millis() + 7),
                Some(Touch::Recorded)
            );
        }
        touches.let_go(ids[0]);
        touches.remove(ids[1]);
        assert_eq!(touches.touch(ids[0], start.unix_millis() + 8), None);
        touches.let_all_go();
        let taken = touches.take();
        assert_eq!(taken.len(), 7, "no touch keeps a session that is ending");
        assert!(
            taken
                .iter()
                .all(|left| left.newest == at(start.unix_millis() + 7) && left.version == Some(3))
        );
        touches.again(taken, start);
        assert_eq!((touches.take().len(), touches.take().len()), (7, 0));
    }

    #[test]
    fn a_touch_near_the_durable_deadline_is_not_acknowledged_from_memory() {
        let start = Timestamp::from_unix_seconds(1_790_000_000);
        let id = SessionId::new(start, &SeededEntropy::new(1));
        let touches = trusted();
        touches.insert(id, Some(Duration::from_secs(100)), start, None);
        let touch = |after: i64| touches.touch(id, start.unix_millis() + after);
        assert_eq!(touch(94_999), Some(Touch::Recorded));
        assert_eq!(touch(95_000), Some(Touch::Deferred));
        let unflushed = touches.take();
        assert_eq!(unflushed.len(), 1);
        touches.flushed(id, unflushed[0].newest, 7);
        assert_eq!(touch(96_000), Some(Touch::Recorded));
    }

    #[test]
    fn a_node_that_cannot_flush_defers() {
        let start = Timestamp::from_unix_seconds(1_790_000_000);
        let id = SessionId::new(start, &SeededEntropy::new(1));
        let touches = trusted();
        touches.insert(id, Some(Duration::from_secs(1000)), start, None);
        let touch = |after: i64| touches.touch(id, start.unix_millis() + after);
        touches.works(false, start);
        assert_eq!(touch(4_000), Some(Touch::Recorded));
        assert_eq!(touch(5_000), Some(Touch::Deferred));
        touches.works(true, start);
        assert_eq!(touch(6_000), Some(Touch::Recorded));
    }

    #[test]
    fn a_touch_becomes_late_at_its_time_even_while_its_session_is_on_the_list() {
        let start = Timestamp::from_unix_seconds(1_790_000_000);
        let id = SessionId::new(start, &SeededEntropy::new(1));
        let touches = trusted();
        touches.insert(id, Some(Duration::from_secs(100)), start, None);
        let touch = |after: i64| touches.touch(id, start.unix_millis() + after);
        // The flush for the first touch is due after the second one.
        assert_eq!(touch(94_000), Some(Touch::Recorded));
        assert_eq!(touch(94_500), Some(Touch::Recorded));
        assert_eq!(touch(95_000), Some(Touch::Deferred));
        // The same holds when no flush happens.
        let touches = trusted();
        touches.insert(id, Some(Duration::from_secs(100)), start, None);
        let touch = |after: i64| touches.touch(id, start.unix_millis() + after);
        assert_eq!(
            (touch(1_000), touch(2_000)),
            (Some(Touch::Recorded), Some(Touch::Recorded))
        );
        assert_eq!(touch(95_000), Some(Touch::Deferred));
    }

    #[test]
    fn no_touch_is_lost_between_a_flush_and_the_touches_that_go_on_meanwhile() {
        let start = Timestamp::from_unix_seconds(1_790_000_000);
        let ids: Vec<SessionId> = (0..8)
            .map(|seed| SessionId::new(start, &SeededEntropy::new(seed)))
            .collect();
        let touches = trusted();
        for id in &ids {
            touches.insert(*id, Some(Duration::from_secs(3600)), start, None);
        }
        let last = start.unix_millis() + 200_000;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for millis in start.unix_millis() + 1..=last {
                        for id in &ids {
                            assert_eq!(touches.touch(*id, millis), Some(Touch::Recorded));
                        }
                    }
                });
            }
            for version in 1..2_000 {
                touches.works(false, at(last));
                for unflushed in touches.take() {
                    touches.flushed(unflushed.id, unflushed.newest, version);
                }
                touches.works(true, at(last));
            }
        });
        // What is not durable yet is listed.
        for unflushed in touches.take() {
            touches.flushed(unflushed.id, unflushed.newest, 2_000);
        }
        for id in &ids {
            assert_eq!(touches.newest(*id), Some(at(last)));
            assert_eq!(
                touches.read(*id).cold[id].late_from,
                last + 3_600_000 - 5_000
            );
        }
    }
}
