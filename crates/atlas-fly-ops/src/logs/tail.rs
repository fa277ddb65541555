//! The position of a log reader: what to request next, and which entries it has already delivered.
//! Pure.
//!
//! The server's cursor is one nanosecond, and it is not documented whether that nanosecond's
//! entries are repeated. So each page is requested from one nanosecond earlier, each round from an
//! overlap earlier, and repeated entries are recognised by id.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ring::digest::{Context, SHA256};

use crate::logs::wire::{LogCursor, LogEntry, LogPage, nanos};

/// Number of remembered entries: far more than an overlap contains at the API's rate.
const REMEMBERED: usize = 65_536;

/// The identity of an entry.
pub(crate) type Key = [u8; 16];

/// The position of a reader.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    furthest: Option<u64>,
    ask: Option<u64>,
    /// Where the first page began, which was the newest: what is before it is the past, not late.
    floor: u64,
    seen: BTreeSet<Key>,
    order: VecDeque<Key>,
}

impl Tail {
    /// From there on; from the newest page where there is none.
    pub(crate) fn from(cursor: Option<LogCursor>) -> Self {
        let at = cursor.map(|cursor| cursor.0.saturating_sub(1));
        Self {
            furthest: at,
            ask: at,
            ..Self::default()
        }
    }

    /// Begins a round: this long before the furthest place, for entries that came late.
    pub(crate) fn begin(&mut self, overlap: Duration) {
        self.ask = self
            .furthest
            .map(|furthest| LogCursor(furthest).before(overlap).0.max(self.floor));
    }

    /// The cursor to request.
    pub(crate) fn ask(&self) -> Option<LogCursor> {
        self.ask.map(LogCursor)
    }

    /// Nothing was there at all: entries that come are not only the newest page of them.
    pub(crate) fn nothing_before(&mut self, nanos: u64) {
        self.furthest.get_or_insert(nanos);
    }

    /// Takes an answer: its new entries, and whether to request again at once.
    pub(crate) fn take(&mut self, page: LogPage) -> (Vec<(Key, LogEntry)>, bool) {
        let empty = page.entries.is_empty();
        if self.ask.is_none() {
            self.floor = page
                .entries
                .iter()
                .filter_map(|entry| entry.timestamp.map(nanos))
                .min()
                .unwrap_or(0);
        }
        let fresh = self.fresh(page.entries);
        let Some(LogCursor(next)) = page.next else {
            return (fresh, false);
        };
        self.furthest = Some(self.furthest.map_or(next, |furthest| furthest.max(next)));
        let before = next.saturating_sub(1);
        let (ask, more) = match self.ask {
            // It goes back, or says that this is the end.
            Some(asked) if next < asked || empty => (asked, false),
            Some(asked) if next == asked => (next, !fresh.is_empty()),
            // A page full of one nanosecond, or the end: its other side tells.
            Some(asked) if before == asked && fresh.is_empty() => (next, true),
            _ => (before, !empty),
        };
        self.ask = Some(ask);
        (fresh, more)
    }

    /// Whether an entry that another reader found is new here.
    pub(crate) fn is_new(&mut self, key: Key) -> bool {
        self.remember(key)
    }

    fn fresh(&mut self, entries: Vec<LogEntry>) -> Vec<(Key, LogEntry)> {
        let mut equals: BTreeMap<Key, u32> = BTreeMap::new();
        let mut fresh = Vec::with_capacity(entries.len());
        for entry in entries {
            let ordinal = if entry.id.is_some() {
                0
            } else {
                let count = equals.entry(key(&entry, 0)).or_default();
                *count += 1;
                *count - 1
            };
            let key = key(&entry, ordinal);
            if self.remember(key) {
                fresh.push((key, entry));
            }
        }
        fresh
    }

    fn remember(&mut self, key: Key) -> bool {
        if !self.seen.insert(key) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }
}

/// The identity of an entry: its id; without one, its text and its index among equal entries.
fn key(entry: &LogEntry, ordinal: u32) -> Key {
    let mut hash = Context::new(&SHA256);
    if let Some(id) = &entry.id {
        hash.update(id.as_bytes());
    } else {
        hash.update(&ordinal.to_le_bytes());
        let timestamp = entry.timestamp.map(|at| at.to_string());
        for part in [&timestamp, &entry.instance, &entry.message] {
            let part = part.as_deref().unwrap_or_default();
            hash.update(&part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
    }
    let mut key = [0; 16];
    key.copy_from_slice(&hash.finish().as_ref()[..16]);
    key
}
