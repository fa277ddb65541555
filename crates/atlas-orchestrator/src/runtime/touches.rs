//! Activity: acknowledged in memory, flushed in batches, compared before an idle end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use atlas_core::Timestamp;
use tokio::sync::Notify;

use crate::ids::SessionId;
use crate::session::Touch;

const SHARDS: usize = 64;

/// One session's activity.
#[derive(Debug)]
struct Cell {
    /// The newest that was acknowledged, in milliseconds since the epoch.
    newest: AtomicI64,
    /// The newest that is durable.
    durable: AtomicI64,
    /// The commit that wrote it; 0 before there is a row.
    version: AtomicU64,
    /// The idle limit in milliseconds, at most 49 days; 0 without one.
    ttl: AtomicU32,
    /// Whether it is on the list to be flushed.
    listed: AtomicBool,
}

/// Session ids end in random bytes: eight of them, stirred, are a hash, and the same one in every run. Unstirred, the byte that
/// chooses the shard would be the one by which the map tells the entries of a group apart.
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

type Shard = RwLock<HashMap<SessionId, Cell, BuildHasherDefault<IdHasher>>>;

/// The activity of every session of this node.
#[derive(Debug)]
pub(crate) struct Touches {
    shards: Vec<Shard>,
    /// Sessions with something to flush; in order, so that runs repeat.
    listed: Mutex<BTreeSet<SessionId>>,
    /// When the earliest of them has to be durable; `i64::MAX` for never.
    flush_at: AtomicI64,
    /// When flushing began to fail; `i64::MAX` while it works.
    failing_since: AtomicI64,
    /// The longest a touch may stay in memory only.
    flush: Duration,
    /// Whether one that an idle decision may have missed is acknowledged only once it is durable.
    defer_late: bool,
    pub(crate) wanted: Notify,
    /// Where the newest activity came from, of sessions where it was not a touch. For people; lost with the process.
    origins: Mutex<BTreeMap<SessionId, (Timestamp, String)>>,
}

/// Something to flush.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unflushed {
    pub(crate) id: SessionId,
    pub(crate) newest: Timestamp,
    /// The row's version that was read or written last; `None` when there was no row.
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
            flush,
            defer_late,
            wanted: Notify::new(),
            origins: Mutex::default(),
        }
    }

    fn shard(&self, id: SessionId) -> &Shard {
        &self.shards[usize::from(id.as_bytes()[15]) % SHARDS]
    }

    fn with<T>(&self, id: SessionId, look: impl FnOnce(&Cell) -> T) -> Option<T> {
        self.shard(id).read().unwrap_or_else(PoisonError::into_inner).get(&id).map(look)
    }

    /// Begins to count a session's activity.
    pub(crate) fn insert(&self, id: SessionId, ttl: Option<Duration>, durable: Timestamp, version: Option<u64>) {
        let ttl = ttl.map_or(0, |ttl| u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX));
        let millis = durable.unix_millis();
        let mut shard = self.shard(id).write().unwrap_or_else(PoisonError::into_inner);
        let cell = shard.entry(id).or_insert_with(|| Cell {
            newest: AtomicI64::new(millis),
            durable: AtomicI64::new(millis),
            version: AtomicU64::new(0),
            ttl: AtomicU32::new(ttl),
            listed: AtomicBool::new(false),
        });
        cell.newest.fetch_max(millis, Ordering::Relaxed);
        cell.durable.fetch_max(millis, Ordering::Relaxed);
        cell.version.fetch_max(version.unwrap_or(0), Ordering::Relaxed);
    }

    /// Remembers where activity came from.
    pub(crate) fn came_from(&self, id: SessionId, at: Timestamp, source: &str) {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if source == "touch" {
            origins.remove(&id);
        } else {
            origins.insert(id, (at, source.to_owned()));
        }
    }

    /// Where activity of that moment came from.
    pub(crate) fn origin(&self, id: SessionId, at: Timestamp) -> String {
        let origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        origins.get(&id).filter(|(noted, _)| *noted >= at).map_or_else(|| "touch".to_owned(), |(_, source)| source.clone())
    }

    pub(crate) fn remove(&self, id: SessionId) {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.shard(id).write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    pub(crate) fn clear(&self) {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for shard in &self.shards {
            shard.write().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// The newest activity this process knows of.
    pub(crate) fn newest(&self, id: SessionId) -> Option<Timestamp> {
        self.with(id, |cell| at(cell.newest.load(Ordering::Relaxed)))
    }

    /// Counts one, in milliseconds since the epoch. `None` when the session is not of this node.
    pub(crate) fn touch(&self, id: SessionId, millis: i64) -> Option<Touch> {
        let (answer, flush_at) = self.with(id, |cell| {
            cell.newest.fetch_max(millis, Ordering::Relaxed);
            let ttl = Duration::from_millis(cell.ttl.load(Ordering::Relaxed).into());
            if ttl.is_zero() {
                return (Touch::Recorded, i64::MAX);
            }
            let flush = i64::try_from(self.flush.min(ttl / 10).as_millis()).unwrap_or(i64::MAX);
            let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
            let durable = cell.durable.load(Ordering::Relaxed);
            if !cell.listed.load(Ordering::Relaxed) && !cell.listed.swap(true, Ordering::Relaxed) {
                self.listed.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
            }
            // The idle decision may be taken from here on without asking this process: only a durable touch counts.
            let late = self.defer_late && millis >= durable.saturating_add(ttl).saturating_sub(flush);
            let failing = self.failing_since.load(Ordering::Relaxed);
            if late || failing.saturating_add(flush) <= millis {
                (Touch::Deferred, millis)
            } else {
                // Half the time for waiting, half for the write itself.
                (Touch::Recorded, millis.saturating_add(flush / 2))
            }
        })?;
        if flush_at < self.flush_at.load(Ordering::Relaxed) {
            self.flush_at.fetch_min(flush_at, Ordering::Relaxed);
            self.wanted.notify_one();
        }
        Some(answer)
    }

    /// When the next flush is due.
    pub(crate) fn flush_at(&self) -> Option<Timestamp> {
        let millis = self.flush_at.load(Ordering::Relaxed);
        (millis != i64::MAX).then(|| at(millis))
    }

    /// Takes what is to be flushed off the list.
    pub(crate) fn take(&self) -> Vec<Unflushed> {
        self.flush_at.store(i64::MAX, Ordering::Relaxed);
        let listed = std::mem::take(&mut *self.listed.lock().unwrap_or_else(PoisonError::into_inner));
        listed.into_iter().filter_map(|id| self.unflushed(id)).collect()
    }

    /// What is to be flushed of one session, if anything is.
    pub(crate) fn unflushed(&self, id: SessionId) -> Option<Unflushed> {
        self.with(id, |cell| {
            cell.listed.store(false, Ordering::Relaxed);
            let (newest, durable) = (cell.newest.load(Ordering::Relaxed), cell.durable.load(Ordering::Relaxed));
            let version = cell.version.load(Ordering::Relaxed);
            (newest > durable).then(|| Unflushed { id, newest: at(newest), version: (version > 0).then_some(version) })
        })
        .flatten()
    }

    /// It is durable now; or a newer one of another node was read.
    pub(crate) fn flushed(&self, id: SessionId, durable: Timestamp, version: u64) {
        let millis = durable.unix_millis();
        self.with(id, |cell| {
            cell.durable.fetch_max(millis, Ordering::Relaxed);
            cell.newest.fetch_max(millis, Ordering::Relaxed);
            cell.version.fetch_max(version, Ordering::Relaxed);
        });
    }

    /// Puts back what could not be flushed.
    pub(crate) fn again(&self, ids: impl IntoIterator<Item = SessionId>, when: Timestamp) {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            if self.with(id, |cell| cell.listed.store(true, Ordering::Relaxed)).is_some() {
                listed.insert(id);
            }
        }
        if !listed.is_empty() {
            self.flush_at.fetch_min(when.unix_millis(), Ordering::Relaxed);
        }
    }

    /// Whether flushing works, from now on.
    pub(crate) fn works(&self, works: bool, now: Timestamp) {
        if works {
            self.failing_since.store(i64::MAX, Ordering::Relaxed);
        } else {
            self.failing_since.fetch_min(now.unix_millis(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::SeededEntropy;

    #[test]
    fn a_touch_near_the_durable_deadline_is_not_acknowledged_from_memory() {
        let start = Timestamp::from_unix_seconds(1_790_000_000);
        let id = SessionId::new(start, &SeededEntropy::new(1));
        let touches = Touches::new(Duration::from_secs(5), true);
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
        let touches = Touches::new(Duration::from_secs(5), true);
        touches.insert(id, Some(Duration::from_secs(1000)), start, None);
        let touch = |after: i64| touches.touch(id, start.unix_millis() + after);
        touches.works(false, start);
        assert_eq!(touch(4_000), Some(Touch::Recorded));
        assert_eq!(touch(5_000), Some(Touch::Deferred));
        touches.works(true, start);
        assert_eq!(touch(6_000), Some(Touch::Recorded));
    }
}
