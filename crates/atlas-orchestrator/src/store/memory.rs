//! A store in memory: for tests, for a first trial, and shared by all nodes of a simulation.
//!
//! Clones are handles to the same rows. A snapshot can be taken, restored under running nodes, or
//! opened as a second store, to simulate the failures that the realm ledger must detect.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas_core::{Clock, Entropy, Error, ErrorKind, Timestamp};
use data_encoding::HEXLOWER;

use super::{Batch, CommitError, Fence, Row, Store, StoreInfo, StoredEvent, Table};

/// Rows by key, each with its version.
type Rows = BTreeMap<Vec<u8>, Numbered>;
/// The number of a commit or event, and its bytes.
type Numbered = (u64, Arc<[u8]>);
/// A session and a sequence number in its log.
type Place = ([u8; 16], u64);

/// Rows in memory. Cheap to clone: all clones share one store.
#[derive(Clone, Debug)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
    durable: bool,
    exclusive: bool,
}

/// The complete contents of a [`Memory`] at one moment, including its incarnation.
#[derive(Clone, Debug)]
pub struct MemorySnapshot(State);

#[derive(Clone, Debug, Default)]
struct State {
    fingerprint: Option<String>,
    incarnation: String,
    last_commit: u64,
    last_position: u64,
    tables: BTreeMap<Table, Rows>,
    heads: BTreeMap<[u8; 16], u64>,
    events: BTreeMap<Place, Numbered>,
    feed: BTreeMap<u64, Place>,
    leases: BTreeMap<String, Lease>,
}

#[derive(Clone, Debug)]
struct Lease {
    fence: Fence,
    released: bool,
}

impl Memory {
    /// An empty store with a new incarnation and this clock.
    pub fn new(clock: Arc<dyn Clock>, entropy: &dyn Entropy) -> Self {
        let state = State {
            incarnation: draw_incarnation(entropy),
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            clock,
            durable: false,
            exclusive: false,
        }
    }

    /// Sets whether it reports itself as durable. A simulated node's crash then leaves it intact.
    #[must_use]
    pub fn durable(self, durable: bool) -> Self {
        Self { durable, ..self }
    }

    /// Sets whether it reports that only one process at a time can hold it.
    #[must_use]
    pub fn exclusive(self, exclusive: bool) -> Self {
        Self { exclusive, ..self }
    }

    /// Another handle to the same rows, with a clock of its own.
    #[must_use]
    pub fn with_clock(&self, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            ..self.clone()
        }
    }

    /// Takes a snapshot of the contents.
    #[must_use]
    pub fn snapshot(&self) -> MemorySnapshot {
        MemorySnapshot(self.lock().clone())
    }

    /// Restores a snapshot while the store is in use.
    pub fn restore(&self, snapshot: &MemorySnapshot) {
        *self.lock() = snapshot.0.clone();
    }

    /// A second store with the same rows and the same incarnation, like a copy of a store's file.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            state: Arc::new(Mutex::new(self.lock().clone())),
            ..self.clone()
        }
    }

    /// A panic while the lock is held cannot leave the state half written: a batch is checked
    /// before it is applied.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Draws the incarnation of a new store: 16 random bytes in hexadecimal.
pub fn draw_incarnation(entropy: &dyn Entropy) -> String {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    HEXLOWER.encode(&bytes)
}

/// The error with which [`Store::bind`] refuses a store that is bound to another realm.
pub fn other_realm() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "the store belongs to another realm: give the realm secret it was made with, or another \
            store",
    )
}

impl State {
    fn test(&self, batch: &Batch) -> Result<(), CommitError> {
        if let Some(point) = &batch.since
            && !point.is_reached_by(&self.incarnation, self.last_commit)
        {
            return Err(CommitError::RolledBack);
        }
        if let Some(fence) = &batch.fence {
            let holds = self.leases.get(&fence.scope).is_some_and(|l| l.is(fence));
            if !holds {
                return Err(CommitError::Fenced);
            }
        }
        for guard in &batch.guards {
            let found = self
                .tables
                .get(&guard.table)
                .and_then(|t| t.get(&guard.key))
                .map(|(version, _)| *version);
            if found != guard.expected {
                return Err(CommitError::Conflict);
            }
        }
        let mut next = BTreeMap::new();
        for append in &batch.appends {
            let head = next
                .entry(append.session)
                .or_insert_with(|| self.heads.get(&append.session).copied().unwrap_or(0));
            *head += 1;
            if append.seq != *head {
                return Err(CommitError::Conflict);
            }
        }
        Ok(())
    }

    fn apply(&mut self, batch: Batch) -> u64 {
        if batch.is_empty() {
            return self.last_commit;
        }
        self.last_commit += 1;
        for (table, key, value) in batch.puts {
            self.tables
                .entry(table)
                .or_default()
                .insert(key, (self.last_commit, value.into()));
        }
        for (table, key) in batch.deletes {
            if let Some(rows) = self.tables.get_mut(&table) {
                rows.remove(&key);
            }
        }
        for append in batch.appends {
            self.last_position += 1;
            self.heads.insert(append.session, append.seq);
            self.events.insert(
                (append.session, append.seq),
                (self.last_position, append.payload.into()),
            );
            self.feed
                .insert(self.last_position, (append.session, append.seq));
        }
        self.last_commit
    }
}

impl Lease {
    fn is(&self, fence: &Fence) -> bool {
        !self.released && self.fence.number == fence.number && self.fence.holder == fence.holder
    }
}

impl Store for Memory {
    async fn info(&self) -> Result<StoreInfo, Error> {
        let state = self.lock();
        Ok(StoreInfo {
            kind: "memory".to_owned(),
            schema_version: 1,
            fingerprint: state.fingerprint.clone(),
            incarnation: state.incarnation.clone(),
            last_commit: state.last_commit,
            last_position: state.last_position,
            durable: self.durable,
            exclusive: self.exclusive,
        })
    }

    async fn bind(&self, fingerprint: &str) -> Result<(), Error> {
        let mut state = self.lock();
        match &state.fingerprint {
            Some(bound) if bound != fingerprint => Err(other_realm()),
            Some(_) => Ok(()),
            None => {
                state.fingerprint = Some(fingerprint.to_owned());
                Ok(())
            }
        }
    }

    async fn set_incarnation(&self, incarnation: &str) -> Result<(), Error> {
        self.lock().incarnation = incarnation.to_owned();
        Ok(())
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, Error> {
        let state = self.lock();
        let found = state.tables.get(&table).and_then(|t| t.get(key));
        Ok(found.map(|(version, value)| Row {
            key: key.to_vec(),
            version: *version,
            value: value.to_vec(),
        }))
    }

    async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, Error> {
        let state = self.lock();
        let Some(rows) = state.tables.get(&table) else {
            return Ok(Vec::new());
        };
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        Ok(rows
            .range::<[u8], _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, (version, value))| Row {
                key: key.clone(),
                version: *version,
                value: value.to_vec(),
            })
            .collect())
    }

    async fn commit(&self, batch: Batch) -> Result<u64, CommitError> {
        let mut state = self.lock();
        state.test(&batch)?;
        Ok(state.apply(batch))
    }

    async fn events(
        &self,
        session: [u8; 16],
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        let state = self.lock();
        Ok(state
            .events
            .range((
                Bound::Excluded((session, after_seq)),
                Bound::Included((session, u64::MAX)),
            ))
            .take(limit)
            .map(|((session, seq), (position, payload))| StoredEvent {
                position: *position,
                session: *session,
                seq: *seq,
                payload: payload.to_vec(),
            })
            .collect())
    }

    async fn feed(&self, after_position: u64, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        let state = self.lock();
        Ok(state
            .feed
            .range((Bound::Excluded(after_position), Bound::Unbounded))
            .take(limit)
            .filter_map(|(position, at)| {
                let (_, payload) = state.events.get(at)?;
                Some(StoredEvent {
                    position: *position,
                    session: at.0,
                    seq: at.1,
                    payload: payload.to_vec(),
                })
            })
            .collect())
    }

    async fn forget_events(&self, session: [u8; 16], up_to_seq: u64) -> Result<(), Error> {
        let mut state = self.lock();
        let gone: Vec<_> = state
            .events
            .range((session, 0)..=(session, up_to_seq))
            .map(|(at, (position, _))| (*at, *position))
            .collect();
        for (at, position) in gone {
            state.events.remove(&at);
            state.feed.remove(&position);
        }
        Ok(())
    }

    async fn lease_acquire(
        &self,
        scope: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Fence>, Error> {
        let now = self.clock.now();
        let mut state = self.lock();
        let old = state.leases.get(scope);
        if old.is_some_and(|l| !l.released && l.fence.holder != holder && l.fence.expires_at > now)
        {
            return Ok(None);
        }
        let fence = Fence {
            scope: scope.to_owned(),
            holder: holder.to_owned(),
            number: old.map_or(0, |l| l.fence.number) + 1,
            expires_at: now.saturating_add(ttl),
            store_time: now,
        };
        state.leases.insert(
            scope.to_owned(),
            Lease {
                fence: fence.clone(),
                released: false,
            },
        );
        Ok(Some(fence))
    }

    async fn lease_renew(&self, fence: &Fence, ttl: Duration) -> Result<Option<Fence>, Error> {
        let now = self.clock.now();
        let mut state = self.lock();
        let Some(lease) = state.leases.get_mut(&fence.scope).filter(|l| l.is(fence)) else {
            return Ok(None);
        };
        lease.fence.expires_at = now.saturating_add(ttl);
        lease.fence.store_time = now;
        Ok(Some(lease.fence.clone()))
    }

    async fn lease_release(&self, fence: &Fence) -> Result<(), Error> {
        let now = self.clock.now();
        let mut state = self.lock();
        if let Some(lease) = state.leases.get_mut(&fence.scope).filter(|l| l.is(fence)) {
            lease.fence.expires_at = now;
            lease.released = true;
        }
        Ok(())
    }

    async fn leases(&self, prefix: &str) -> Result<Vec<Fence>, Error> {
        let state = self.lock();
        let from = state
            .leases
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        Ok(from
            .take_while(|(scope, _)| scope.starts_with(prefix))
            .map(|(_, l)| l.fence.clone())
            .collect())
    }

    async fn now(&self) -> Result<Timestamp, Error> {
        Ok(self.clock.now())
    }
}
