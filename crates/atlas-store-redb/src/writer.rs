//! The single writer thread: takes what waits in its bounded queue, writes it as one transaction,
//! and answers when that is durable.
//!
//! While one transaction is written to disk the next one fills up, so the disk's latency is shared
//! by all waiting callers, and no caller is delayed on purpose. Each change is checked inside the
//! transaction, against those before it in the same group. A refused change does not affect the
//! others; only a failure of the disk fails the whole group.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use atlas_core::{Clock, Error, ErrorKind, Outcome};
use atlas_orchestrator::store::{Batch, CommitError, Fence, Table, other_realm};
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use crate::reserve::{self, Reserve};
use crate::schema::{
    self, EVENTS, FEED, FINGERPRINT, HEADS, INCARNATION, LAST_COMMIT, LAST_POSITION, LEASES, Lease,
    META,
};

/// The maximum number of changes in one transaction: enough to share a sync, few enough that the
/// first does not wait long.
const MAX_GROUP: usize = 512;

/// A change to write.
#[derive(Debug)]
pub(super) enum Change {
    Batch(Batch),
    Bind(String),
    SetIncarnation(String),
    ForgetEvents([u8; 16], u64),
    Acquire {
        scope: String,
        holder: String,
        ttl: Duration,
    },
    Renew(Fence, Duration),
    Release(Fence),
}

/// The result of a change.
#[derive(Debug)]
pub(super) enum Done {
    Commit(u64),
    Lease(Option<Fence>),
    Nothing,
}

/// A change with the caller that waits for it. A caller that stops waiting does not cancel the
/// change.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) change: Change,
    pub(super) reply: oneshot::Sender<Result<Done, CommitError>>,
}

/// The current database; `None` while it waits to be reopened after a disk failure.
#[derive(Debug)]
pub(super) struct Current {
    db: RwLock<Option<Arc<Database>>>,
    path: PathBuf,
}

impl Current {
    pub(super) fn new(db: Database, path: &Path) -> Self {
        Self {
            db: RwLock::new(Some(Arc::new(db))),
            path: path.to_owned(),
        }
    }

    /// The database. Do not keep the reference: the file is closed when the last one is dropped.
    pub(super) fn get(&self) -> Result<Arc<Database>, Error> {
        let current = self.db.read().unwrap_or_else(PoisonError::into_inner);
        current.clone().ok_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the store {} is closed since its disk failed, and is opened again with the \
                     next change",
                    self.path.display()
                ),
            )
        })
    }

    fn set(&self, db: Option<Database>) {
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = db.map(Arc::new);
    }

    /// The error of a failed write, which names the file and what to do.
    fn unwritten(&self, failure: &Error) -> Error {
        let path = self.path.display();
        let cause = failure.source().map(ToString::to_string);
        let message = if is_full(failure) {
            format!("the store {path} could not be written, because its disk is full: make room")
        } else {
            format!("the store {path} could not be read or written")
        };
        let error = Error::new(ErrorKind::Unavailable, message);
        match cause {
            Some(cause) => error.with_source(cause),
            None => error,
        }
    }

    /// The refusal of a new session while the disk is full.
    fn has_no_room(&self) -> Error {
        let message = format!(
            "the disk of the store {} is full, so no session is started: make room and try again",
            self.path.display()
        );
        Error::new(ErrorKind::Unavailable, message).outcome_is(Outcome::NeverSent)
    }
}

/// Whether a write failed because the disk is full.
fn is_full(failure: &Error) -> bool {
    let Some(source) = failure.source() else {
        return false;
    };
    match source.downcast_ref::<redb::Error>() {
        Some(redb::Error::Io(error)) => reserve::is_full(error),
        Some(_) => false,
        None => source.downcast_ref().is_some_and(reserve::is_full),
    }
}

/// Whether a change adds a session.
fn adds_session(change: &Change) -> bool {
    let Change::Batch(batch) = change else {
        return false;
    };
    let is_new = |guard: &atlas_orchestrator::store::Guard| {
        guard.table == Table::Sessions && guard.expected.is_none()
    };
    batch.guards.iter().any(is_new)
}

/// Processes the queue until every sender is gone. `in_place` says whether the store's path still
/// names the open file: writes to a file that was replaced or removed would be lost, so every
/// change is then refused.
///
/// After a disk failure redb serves nothing more, so the database is closed. It is opened again,
/// with the full proof that opening requires, when the next change comes. Until that succeeds every
/// change and every read fails. If the disk is full and there is a reserve, that is done at once.
pub(super) fn run(
    current: &Current,
    mut reopen: impl FnMut() -> Result<Database, Error>,
    mut in_place: impl FnMut() -> bool,
    mut reserve: Reserve,
    clock: &dyn Clock,
    mut queue: mpsc::Receiver<Job>,
) {
    let mut group = Vec::new();
    let last_commit = Cell::new(None);
    while queue.blocking_recv_many(&mut group, MAX_GROUP) > 0 {
        let (changes, replies): (Vec<_>, Vec<_>) =
            group.drain(..).map(|job| (job.change, job.reply)).unzip();
        if !in_place() {
            for reply in replies {
                // The receiver was dropped: the caller stopped waiting.
                let _ = reply.send(Err(CommitError::RolledBack));
            }
            continue;
        }
        reserve.keep();
        let mut write = |has_room, expected: Option<u64>| {
            let db = current.get().or_else(|_| {
                current.set(Some(reopen()?));
                tracing::info!("the store is open again");
                current.get()
            })?;
            let found = committed(&db)?;
            if expected.is_some_and(|expected| expected != found) {
                // The failed write is there after all. Its callers find it when they look.
                return Ok(None);
            }
            last_commit.set(Some(found));
            write_group(current, &db, clock, &changes, has_room).map(Some)
        };
        let mut written = write(!reserve.is_in_use(), None);
        if written.as_ref().is_err_and(is_full) && reserve.release() {
            current.set(None);
            let again = write(false, last_commit.get());
            if !matches!(again, Ok(None)) {
                written = again;
            }
        }
        match written {
            Ok(outcomes) => {
                for (reply, outcome) in replies.into_iter().zip(outcomes.into_iter().flatten()) {
                    // The receiver was dropped: the caller stopped waiting. The outcome is in the
                    // store.
                    let _ = reply.send(outcome);
                }
            }
            Err(failure) => {
                current.set(None);
                tracing::error!(error = %current.unwritten(&failure),
                    cause = failure.source().map(ToString::to_string), changes = replies.len(),
                    "the store could not be written");
                for reply in replies {
                    let _ = reply.send(Err(CommitError::Store(current.unwritten(&failure))));
                }
            }
        }
    }
}

/// The number of the newest commit.
fn committed(db: &Database) -> Result<u64, Error> {
    let read = || -> Result<u64, Failure> {
        let meta = db.begin_read()?.open_table(META)?;
        Ok(schema::number(&meta, LAST_COMMIT)?)
    };
    read().map_err(Failure::into_error)
}

type Outcomes = Vec<Result<Done, CommitError>>;

fn write_group(
    current: &Current,
    db: &Database,
    clock: &dyn Clock,
    changes: &[Change],
    has_room: bool,
) -> Result<Outcomes, Error> {
    try_write_group(current, db, clock, changes, has_room).map_err(Failure::into_error)
}

fn try_write_group(
    current: &Current,
    db: &Database,
    clock: &dyn Clock,
    changes: &[Change],
    has_room: bool,
) -> Result<Outcomes, Failure> {
    let txn = db.begin_write()?;
    let mut group = Group::begin(&txn)?;
    let mut outcomes = Vec::with_capacity(changes.len());
    for change in changes {
        if !has_room && adds_session(change) {
            outcomes.push(Err(CommitError::Store(current.has_no_room())));
            continue;
        }
        outcomes.push(match group.write(change, clock) {
            Ok(done) => Ok(done),
            Err(Failure::Refused(why)) => Err(why),
            Err(disk @ Failure::Disk(_)) => return Err(disk),
        });
    }
    if group.finish()? {
        txn.commit()?;
    } else {
        txn.abort()?;
    }
    Ok(outcomes)
}

/// Why a change was not written.
enum Failure {
    /// Only this change was refused, before anything of it was written.
    Refused(CommitError),
    /// The disk failed, for the whole group.
    Disk(Error),
}

impl Failure {
    fn into_error(self) -> Error {
        match self {
            Self::Disk(error) => error,
            Self::Refused(why) => why.into(),
        }
    }
}

macro_rules! disk_failures {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for Failure {
            fn from(error: redb::$error) -> Self {
                Self::Disk(schema::unreadable(error.into()))
            }
        }
    )*};
}
disk_failures!(StorageError, TableError, TransactionError, CommitError);

/// A row could not be decoded while a change was checked.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(CommitError::Store(error))
    }
}

type ByteTable<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// The tables and counters of one transaction.
struct Group<'t> {
    txn: &'t WriteTransaction,
    rows: BTreeMap<Table, ByteTable<'t>>,
    events: Option<EventTables<'t>>,
    leases: redb::Table<'t, &'static str, &'static [u8]>,
    meta: redb::Table<'t, &'static str, &'static [u8]>,
    last_commit: u64,
    last_position: u64,
    numbers_changed: bool,
    changed: bool,
}

struct EventTables<'t> {
    events: ByteTable<'t>,
    feed: redb::Table<'t, u64, &'static [u8]>,
    heads: redb::Table<'t, &'static [u8], u64>,
}

impl<'t> Group<'t> {
    fn begin(txn: &'t WriteTransaction) -> Result<Self, Failure> {
        let meta = txn.open_table(META)?;
        let (last_commit, last_position) = (
            schema::number(&meta, LAST_COMMIT)?,
            schema::number(&meta, LAST_POSITION)?,
        );
        Ok(Self {
            txn,
            rows: BTreeMap::new(),
            events: None,
            leases: txn.open_table(LEASES)?,
            meta,
            last_commit,
            last_position,
            numbers_changed: false,
            changed: false,
        })
    }

    /// Writes the counters; false if there is nothing to commit.
    fn finish(mut self) -> Result<bool, Failure> {
        if self.numbers_changed {
            self.meta
                .insert(LAST_COMMIT, self.last_commit.to_be_bytes().as_slice())?;
            self.meta
                .insert(LAST_POSITION, self.last_position.to_be_bytes().as_slice())?;
        }
        Ok(self.changed)
    }

    fn write(&mut self, change: &Change, clock: &dyn Clock) -> Result<Done, Failure> {
        match change {
            Change::Batch(batch) => self.batch(batch).map(Done::Commit),
            Change::Bind(fingerprint) => self.bind(fingerprint),
            Change::SetIncarnation(incarnation) => {
                self.changed = true;
                self.meta.insert(INCARNATION, incarnation.as_bytes())?;
                Ok(Done::Nothing)
            }
            Change::ForgetEvents(session, up_to) => self.forget_events(session, *up_to),
            Change::Acquire { scope, holder, ttl } => {
                self.acquire(scope, holder, *ttl, clock).map(Done::Lease)
            }
            Change::Renew(fence, ttl) => self.renew(fence, *ttl, clock).map(Done::Lease),
            Change::Release(fence) => self.release(fence, clock),
        }
    }

    fn batch(&mut self, batch: &Batch) -> Result<u64, Failure> {
        self.test(batch)?;
        if batch.is_empty() {
            return Ok(self.last_commit);
        }
        (self.changed, self.numbers_changed) = (true, true);
        self.last_commit += 1;
        let number = self.last_commit;
        for (table, key, value) in &batch.puts {
            self.rows(*table)?.insert(
                key.as_slice(),
                schema::join_number(number, value).as_slice(),
            )?;
        }
        for (table, key) in &batch.deletes {
            self.rows(*table)?.remove(key.as_slice())?;
        }
        for append in &batch.appends {
            self.last_position += 1;
            let position = self.last_position;
            let key = schema::event_key(&append.session, append.seq);
            let tables = self.events()?;
            tables.events.insert(
                key.as_slice(),
                schema::join_number(position, &append.payload).as_slice(),
            )?;
            tables.feed.insert(position, key.as_slice())?;
            tables.heads.insert(append.session.as_slice(), append.seq)?;
        }
        Ok(number)
    }

    fn test(&mut self, batch: &Batch) -> Result<(), Failure> {
        if let Some(point) = &batch.since {
            let incarnation = self.meta.get(INCARNATION)?;
            let reached = incarnation.is_some_and(|found| {
                std::str::from_utf8(found.value())
                    .is_ok_and(|own| point.is_reached_by(own, self.last_commit))
            });
            if !reached {
                return Err(Failure::Refused(CommitError::RolledBack));
            }
        }
        if let Some(fence) = &batch.fence
            && !self.lease(&fence.scope)?.is_some_and(|l| l.is(fence))
        {
            return Err(Failure::Refused(CommitError::Fenced));
        }
        for guard in &batch.guards {
            let found = match self.rows(guard.table)?.get(guard.key.as_slice())? {
                Some(row) => Some(schema::split_number(row.value())?.0),
                None => None,
            };
            if found != guard.expected {
                return Err(Failure::Refused(CommitError::Conflict));
            }
        }
        let mut heads = BTreeMap::new();
        for append in &batch.appends {
            let newest = match heads.get(&append.session) {
                Some(seq) => *seq,
                None => self
                    .events()?
                    .heads
                    .get(append.session.as_slice())?
                    .map_or(0, |seq| seq.value()),
            };
            if append.seq != newest + 1 {
                return Err(Failure::Refused(CommitError::Conflict));
            }
            heads.insert(append.session, append.seq);
        }
        Ok(())
    }

    fn bind(&mut self, fingerprint: &str) -> Result<Done, Failure> {
        let bound = self.meta.get(FINGERPRINT)?.map(|v| v.value().to_vec());
        match bound {
            Some(bound) if bound != fingerprint.as_bytes() => {
                Err(Failure::Refused(CommitError::Store(other_realm())))
            }
            Some(_) => Ok(Done::Nothing),
            None => {
                self.changed = true;
                self.meta.insert(FINGERPRINT, fingerprint.as_bytes())?;
                Ok(Done::Nothing)
            }
        }
    }

    fn forget_events(&mut self, session: &[u8; 16], up_to: u64) -> Result<Done, Failure> {
        let (from, to) = (
            schema::event_key(session, 0),
            schema::event_key(session, up_to),
        );
        let tables = self.events()?;
        let mut positions = Vec::new();
        for gone in tables
            .events
            .extract_from_if(from.as_slice()..=to.as_slice(), |_, _| true)?
        {
            positions.push(
                schema::split_number(gone?.1.value())
                    .map_err(Failure::Disk)?
                    .0,
            );
        }
        for position in &positions {
            tables.feed.remove(position)?;
        }
        self.changed |= !positions.is_empty();
        Ok(Done::Nothing)
    }

    fn acquire(
        &mut self,
        scope: &str,
        holder: &str,
        ttl: Duration,
        clock: &dyn Clock,
    ) -> Result<Option<Fence>, Failure> {
        let now = clock.now();
        let old = self.lease(scope)?.map(|l| (l.released, l.fence(scope)));
        if let Some((false, f)) = &old
            && f.holder != holder
            && f.expires_at > now
        {
            return Ok(None);
        }
        let fence = Fence {
            scope: scope.to_owned(),
            holder: holder.to_owned(),
            number: old.map_or(0, |(_, f)| f.number) + 1,
            expires_at: now.saturating_add(ttl),
            store_time: now,
        };
        self.keep(scope, &Lease::of(&fence))?;
        Ok(Some(fence))
    }

    fn renew(
        &mut self,
        fence: &Fence,
        ttl: Duration,
        clock: &dyn Clock,
    ) -> Result<Option<Fence>, Failure> {
        if !self.lease(&fence.scope)?.is_some_and(|l| l.is(fence)) {
            return Ok(None);
        }
        let now = clock.now();
        let renewed = Fence {
            expires_at: now.saturating_add(ttl),
            store_time: now,
            ..fence.clone()
        };
        self.keep(&fence.scope, &Lease::of(&renewed))?;
        Ok(Some(renewed))
    }

    fn release(&mut self, fence: &Fence, clock: &dyn Clock) -> Result<Done, Failure> {
        if let Some(lease) = self.lease(&fence.scope)?.filter(|l| l.is(fence)) {
            let ended = Fence {
                expires_at: clock.now(),
                ..lease.fence(&fence.scope)
            };
            self.keep(&fence.scope, &Lease::ended(&ended))?;
        }
        Ok(Done::Nothing)
    }

    fn lease(&self, scope: &str) -> Result<Option<Lease>, Failure> {
        let found = self.leases.get(scope)?;
        Ok(found.map(|v| Lease::decode(v.value())).transpose()?)
    }

    fn keep(&mut self, scope: &str, lease: &Lease) -> Result<(), Failure> {
        self.changed = true;
        self.leases.insert(scope, lease.encode().as_slice())?;
        Ok(())
    }

    fn rows(&mut self, table: Table) -> Result<&mut ByteTable<'t>, Failure> {
        match self.rows.entry(table) {
            std::collections::btree_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::btree_map::Entry::Vacant(closed) => {
                Ok(closed.insert(self.txn.open_table(schema::rows(table))?))
            }
        }
    }

    fn events(&mut self) -> Result<&mut EventTables<'t>, Failure> {
        if self.events.is_none() {
            self.events = Some(EventTables {
                events: self.txn.open_table(EVENTS)?,
                feed: self.txn.open_table(FEED)?,
                heads: self.txn.open_table(HEADS)?,
            });
        }
        Ok(self.events.as_mut().expect("opened just above"))
    }
}
