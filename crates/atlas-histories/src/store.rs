//! The shared store as one process sees it: with possible crash points around every call, and
//! failing writes.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atlas_core::{Error, ErrorKind, Timestamp};
use atlas_orchestrator::store::{
    AnyStore, Batch, CommitError, Fence, Memory, MemorySnapshot, Row, Store, StoreInfo,
    StoredEvent, Table,
};

use tokio::time::sleep;

use atlas_testkit::world::World;

use crate::dice::Dice;
use crate::facts::Facts;
use crate::process::{Places, Process};

/// How the store misbehaves, for all processes that share it.
#[derive(Clone, Debug)]
pub(crate) struct StoreWeather(Arc<Mutex<Weather>>);

#[derive(Debug)]
struct Weather {
    dice: Dice,
    per_thousand: u64,
    struck: u64,
}

impl StoreWeather {
    pub(crate) fn new(seed: u64, per_thousand: u64) -> Self {
        Self(Arc::new(Mutex::new(Weather {
            dice: Dice::new(seed, "store"),
            per_thousand,
            struck: 0,
        })))
    }

    /// How long a write takes, in milliseconds.
    fn latency(&self) -> u64 {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .dice
            .draw(1..40)
    }

    /// No more failures.
    pub(crate) fn calm(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .per_thousand = 0;
    }

    /// How many writes failed.
    pub(crate) fn struck(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).struck
    }

    fn strikes(&self) -> Option<bool> {
        let mut weather = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = weather.per_thousand;
        if limit == 0 || weather.dice.draw(0..1000) >= limit {
            return None;
        }
        weather.struck += 1;
        Some(weather.dice.percent(50))
    }
}

/// The shared store as used by one process.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) inner: AnyStore,
    pub(crate) process: Process,
    pub(crate) places: Places,
    pub(crate) weather: StoreWeather,
    pub(crate) memory: Memory,
    /// Where what it held before the newest intent is kept, for a store that loses what it
    /// acknowledged.
    pub(crate) last_intent: Option<Arc<Mutex<Option<MemorySnapshot>>>>,
    /// Shows readers only some of the events.
    pub(crate) drops_events: bool,
    pub(crate) world: World,
    pub(crate) facts: Facts,
}

impl Watched {
    /// The events that a reader is shown.
    fn shown(&self, mut events: Vec<StoredEvent>) -> Vec<StoredEvent> {
        if self.drops_events {
            events.retain(|event| event.seq % 4 != 3);
        }
        events
    }

    async fn at(&self, place: &str) {
        self.places.pass(&self.process, place).await;
    }
}

/// What a batch writes, so that processes crash at each kind of write.
fn kind(batch: &Batch) -> String {
    let mut tables: Vec<&str> = batch
        .puts
        .iter()
        .map(|(table, ..)| table.as_str())
        .collect();
    tables.extend(batch.deletes.iter().map(|(table, _)| table.as_str()));
    tables.sort_unstable();
    tables.dedup();
    if tables.is_empty() {
        "nothing".to_owned()
    } else {
        tables.join("+")
    }
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "the store did not answer")
}

macro_rules! reads {
    ($($op:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {$(
        async fn $op(&self $(, $arg: $ty)*) -> Result<$out, Error> {
            self.at(concat!("store.", stringify!($op), " before")).await;
            let answer = self.inner.$op($($arg),*).await;
            self.at(concat!("store.", stringify!($op), " after")).await;
            answer
        }
    )*};
}

#[deny(clippy::missing_trait_methods)]
impl Store for Watched {
    fn location(&self) -> Option<&Path> {
        self.inner.location()
    }

    reads! {
        info() -> StoreInfo;
        bind(fingerprint: &str) -> ();
        set_incarnation(incarnation: &str) -> ();
        get(table: Table, key: &[u8]) -> Option<Row>;
        scan(table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Row>;
        forget_events(session: [u8; 16], up_to_seq: u64) -> ();
        lease_acquire(scope: &str, holder: &str, ttl: Duration) -> Option<Fence>;
        lease_renew(fence: &Fence, ttl: Duration) -> Option<Fence>;
        lease_release(fence: &Fence) -> ();
        leases(prefix: &str) -> Vec<Fence>;
        now() -> Timestamp;
    }

    async fn events(
        &self,
        session: [u8; 16],
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        self.at("store.events before").await;
        let answer = self.inner.events(session, after_seq, limit).await;
        self.at("store.events after").await;
        answer.map(|events| self.shown(events))
    }

    async fn feed(&self, after_position: u64, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        self.at("store.feed before").await;
        let answer = self.inner.feed(after_position, limit).await;
        self.at("store.feed after").await;
        answer.map(|events| self.shown(events))
    }

    async fn commit(&self, batch: Batch) -> Result<u64, CommitError> {
        let kind = kind(&batch);
        let (process, places) = (&self.process, &self.places);
        let writes = format!("store.commit {kind} before");
        places
            .pass_at(process, "store.commit before", &writes)
            .await;
        if let Some(last) = &self.last_intent
            && batch
                .puts
                .iter()
                .any(|(table, ..)| *table == Table::Attempts)
        {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.memory.snapshot());
        }
        // A write takes time: what was read for it may be old when it is applied.
        sleep(Duration::from_millis(self.weather.latency())).await;
        let strikes = self.weather.strikes();
        let events: Vec<([u8; 16], u64)> = batch
            .appends
            .iter()
            .map(|append| (append.session, append.seq))
            .collect();
        let answer = match strikes {
            Some(false) => Err(CommitError::Store(unavailable())),
            Some(true) | None => self.inner.commit(batch).await,
        };
        if answer.is_ok() {
            let now = self.world.now();
            let written = &mut self.facts.seen().written;
            for event in events {
                written.entry(event).or_default().push(now);
            }
        }
        let answer = match strikes {
            // It was written, and the answer was lost.
            Some(true) => Err(CommitError::Store(unavailable())),
            _ => answer,
        };
        let writes = format!("store.commit {kind} after");
        places.pass_at(process, "store.commit after", &writes).await;
        answer
    }
}
