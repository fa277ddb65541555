//! The embedded store of atlas: one file, one process, one writer thread with group commit.
//!
//! Reads run on the calling task: a read transaction of redb waits neither for the writer nor for
//! other readers, and a row costs microseconds from the page cache. Long scans run on a blocking
//! thread, so that they do not occupy an async worker for long.

mod gate;
mod open;
mod pages;
mod schema;
mod seal;
mod sums;
#[cfg(test)]
mod tests;
mod writer;

use std::cell::Cell;
use std::fmt;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use atlas_core::{Clock, Entropy, Error, ErrorKind, SystemClock, SystemEntropy, Timestamp};
use atlas_orchestrator::store::{
    Batch, CommitError, Fence, Row, Store, StoreInfo, StoredEvent, Table,
};
use redb::{ReadTransaction, ReadableDatabase};
use tokio::sync::{mpsc, oneshot};

use crate::schema::{
    EVENTS, FEED, FINGERPRINT, INCARNATION, LAST_COMMIT, LEASES, META, SCHEMA_VERSION, unreadable,
};
use crate::writer::{Change, Current, Done, Job};

/// Maximum number of queued changes; further callers wait for a free slot.
const QUEUE: usize = 1024;
/// A scan of more rows than this runs on a blocking thread.
const LONG_SCAN: usize = 2048;
/// How long opening waits for another process to release the file.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// The embedded store. Cheap to clone; the file is closed when the last clone is dropped, after all
/// accepted changes are durable.
#[derive(Clone)]
pub struct Redb(Arc<Inner>);

struct Inner {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    db: Arc<Current>,
    // Both are taken when the last handle is dropped; until then they are always present.
    queue: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

/// Options for opening a [`Redb`].
#[derive(Clone, Debug)]
pub struct RedbOptions {
    wait: Duration,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl RedbOptions {
    /// The default options: the system's clock and randomness, and 30 s of waiting for the lock.
    #[must_use]
    pub fn new() -> Self {
        Self {
            wait: DEFAULT_WAIT,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
        }
    }

    /// Sets how long to wait for another process to release the file.
    #[must_use]
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// Sets the store's own clock, by which leases are granted and checked.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Sets the source of randomness for a new store's incarnation.
    #[must_use]
    pub fn entropy(self, entropy: Arc<dyn Entropy>) -> Self {
        Self { entropy, ..self }
    }

    /// Opens the store, or creates one if there is no file. Blocks; see
    /// [`RedbOptions::open_async`].
    ///
    /// # Errors
    /// `conflict` when another process holds it for longer than the wait; the message names the
    /// process. `validation` when the file is damaged, is not a store, or was written by a newer
    /// atlas; the file is then left unchanged, byte for byte. `unavailable` when the disk fails.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Redb, Error> {
        let path = path.as_ref().to_owned();
        let opened = open::open(&path, self)?;
        let db = Arc::new(Current::new(opened.db));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (served, note, place) = (db.clone(), opened.note, path.clone());
        let identity = opened.identity;
        // A caller that waits for a change waits for this too, so it does not also wait for the
        // lock.
        let again = self.clone().wait(Duration::ZERO);
        let writer = std::thread::Builder::new()
            .name("atlas-store".to_owned())
            .spawn(move || {
                let identity = Cell::new(identity);
                let reopen = || {
                    let opened = open::open(&place, &again)?;
                    identity.set(opened.identity);
                    Ok(opened.db)
                };
                let in_place = || identity.get().is_at(&place);
                writer::run(&served, reopen, in_place, &*again.clock, jobs);
                // Removed before the lock is released with the database; later the note could be
                // the next owner's.
                if let Err(e) = std::fs::remove_file(&note) {
                    tracing::debug!(path = %note.display(), error = %e,
                        "the note of the store's owner could not be removed");
                }
            })
            .map_err(|e| {
                Error::new(
                    ErrorKind::Unavailable,
                    "the store's writer could not be started",
                )
                .with_source(e)
            })?;
        Ok(Redb(Arc::new(Inner {
            path,
            clock: self.clock.clone(),
            db,
            queue: Some(queue),
            writer: Some(writer),
        })))
    }

    /// Opens the store on a blocking thread, so that waiting for its lock does not block the
    /// runtime.
    ///
    /// # Errors
    /// Like [`RedbOptions::open`].
    ///
    /// # Cancel safety
    /// A dropped call still opens the store, and then closes it again.
    pub async fn open_async(&self, path: impl AsRef<Path>) -> Result<Redb, Error> {
        let (options, path) = (self.clone(), path.as_ref().to_owned());
        blocking(move || options.open(path)).await
    }
}

impl Redb {
    /// Opens the store with the default options. See [`RedbOptions::open`]; it blocks for up to 30
    /// s while another process holds the file.
    ///
    /// # Errors
    /// Like [`RedbOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        RedbOptions::new().open(path)
    }

    /// The path of the store's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    fn read(&self) -> Result<ReadTransaction, Error> {
        self.0
            .db
            .get()?
            .begin_read()
            .map_err(|e| unreadable(e.into()))
    }

    async fn change(&self, change: Change) -> Result<Done, CommitError> {
        let gone = || {
            CommitError::Store(Error::new(
                ErrorKind::Unavailable,
                "the store's writer has stopped",
            ))
        };
        let queue = self.0.queue.as_ref().ok_or_else(gone)?;
        let (reply, answer) = oneshot::channel();
        queue
            .send(Job { change, reply })
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    async fn lease(&self, change: Change) -> Result<Option<Fence>, Error> {
        match self.change(change).await? {
            Done::Lease(fence) => Ok(fence),
            Done::Commit(_) | Done::Nothing => Ok(None),
        }
    }
}

impl Drop for Inner {
    /// Waits for the writer to finish what it accepted: at most a full queue of commits.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the store's writer panicked");
        }
    }
}

impl fmt::Debug for Redb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Redb").field(&self.0.path).finish()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|e| {
        Error::new(ErrorKind::Unavailable, "the store's thread was stopped").with_source(e)
    })?
}

fn failed(error: impl Into<redb::Error>) -> Error {
    unreadable(error.into())
}

fn scan(
    txn: &ReadTransaction,
    table: Table,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Row>, Error> {
    let rows = txn.open_table(schema::rows(table)).map_err(failed)?;
    let from = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    let mut out = Vec::new();
    for row in rows
        .range::<&[u8]>((from, Bound::Unbounded))
        .map_err(failed)?
        .take(limit)
    {
        let (key, value) = row.map_err(failed)?;
        if !key.value().starts_with(prefix) {
            break;
        }
        let (version, value) = schema::split_number(value.value())?;
        out.push(Row {
            key: key.value().to_vec(),
            version,
            value: value.to_vec(),
        });
    }
    Ok(out)
}

fn events(
    txn: &ReadTransaction,
    session: [u8; 16],
    after_seq: u64,
    limit: usize,
) -> Result<Vec<StoredEvent>, Error> {
    let table = txn.open_table(EVENTS).map_err(failed)?;
    let (from, to) = (
        schema::event_key(&session, after_seq),
        schema::event_key(&session, u64::MAX),
    );
    let range = table
        .range::<&[u8]>((
            Bound::Excluded(from.as_slice()),
            Bound::Included(to.as_slice()),
        ))
        .map_err(failed)?;
    let mut out = Vec::new();
    for event in range.take(limit) {
        let (key, value) = event.map_err(failed)?;
        let ((session, seq), (position, payload)) = (
            schema::split_event_key(key.value())?,
            schema::split_number(value.value())?,
        );
        out.push(StoredEvent {
            position,
            session,
            seq,
            payload: payload.to_vec(),
        });
    }
    Ok(out)
}

fn feed(
    txn: &ReadTransaction,
    after_position: u64,
    limit: usize,
) -> Result<Vec<StoredEvent>, Error> {
    let (feed, events) = (
        txn.open_table(FEED).map_err(failed)?,
        txn.open_table(EVENTS).map_err(failed)?,
    );
    let mut out = Vec::new();
    for entry in feed
        .range((Bound::Excluded(after_position), Bound::Unbounded))
        .map_err(failed)?
        .take(limit)
    {
        let (position, key) = entry.map_err(failed)?;
        let (session, seq) = schema::split_event_key(key.value())?;
        if let Some(event) = events.get(key.value()).map_err(failed)? {
            let payload = schema::split_number(event.value())?.1.to_vec();
            out.push(StoredEvent {
                position: position.value(),
                session,
                seq,
                payload,
            });
        }
    }
    Ok(out)
}

impl Store for Redb {
    fn location(&self) -> Option<&Path> {
        Some(&self.0.path)
    }

    async fn info(&self) -> Result<StoreInfo, Error> {
        let txn = self.read()?;
        let meta = txn.open_table(META).map_err(failed)?;
        Ok(StoreInfo {
            kind: "redb".to_owned(),
            schema_version: u32::try_from(schema::number(&meta, SCHEMA_VERSION)?)
                .unwrap_or(u32::MAX),
            fingerprint: schema::text(&txn, FINGERPRINT)?,
            incarnation: schema::text(&txn, INCARNATION)?.unwrap_or_default(),
            last_commit: schema::number(&meta, LAST_COMMIT)?,
            last_position: schema::number(&meta, schema::LAST_POSITION)?,
            durable: true,
            exclusive: true,
        })
    }

    async fn bind(&self, fingerprint: &str) -> Result<(), Error> {
        self.change(Change::Bind(fingerprint.to_owned())).await?;
        Ok(())
    }

    async fn set_incarnation(&self, incarnation: &str) -> Result<(), Error> {
        self.change(Change::SetIncarnation(incarnation.to_owned()))
            .await?;
        Ok(())
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, Error> {
        let rows = self
            .read()?
            .open_table(schema::rows(table))
            .map_err(failed)?;
        let Some(found) = rows.get(key).map_err(failed)? else {
            return Ok(None);
        };
        let (version, value) = schema::split_number(found.value())?;
        Ok(Some(Row {
            key: key.to_vec(),
            version,
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
        let txn = self.read()?;
        if limit <= LONG_SCAN {
            return scan(&txn, table, prefix, after, limit);
        }
        let (prefix, after) = (prefix.to_vec(), after.map(<[u8]>::to_vec));
        blocking(move || scan(&txn, table, &prefix, after.as_deref(), limit)).await
    }

    async fn commit(&self, batch: Batch) -> Result<u64, CommitError> {
        match self.change(Change::Batch(batch)).await? {
            Done::Commit(number) => Ok(number),
            Done::Lease(_) | Done::Nothing => Err(CommitError::Store(Error::new(
                ErrorKind::Unknown,
                "the store's writer answered something else",
            ))),
        }
    }

    async fn events(
        &self,
        session: [u8; 16],
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        let txn = self.read()?;
        if limit <= LONG_SCAN {
            return events(&txn, session, after_seq, limit);
        }
        blocking(move || events(&txn, session, after_seq, limit)).await
    }

    async fn feed(&self, after_position: u64, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        let txn = self.read()?;
        if limit <= LONG_SCAN {
            return feed(&txn, after_position, limit);
        }
        blocking(move || feed(&txn, after_position, limit)).await
    }

    async fn forget_events(&self, session: [u8; 16], up_to_seq: u64) -> Result<(), Error> {
        self.change(Change::ForgetEvents(session, up_to_seq))
            .await?;
        Ok(())
    }

    async fn lease_acquire(
        &self,
        scope: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Fence>, Error> {
        self.lease(Change::Acquire {
            scope: scope.to_owned(),
            holder: holder.to_owned(),
            ttl,
        })
        .await
    }

    async fn lease_renew(&self, fence: &Fence, ttl: Duration) -> Result<Option<Fence>, Error> {
        self.lease(Change::Renew(fence.clone(), ttl)).await
    }

    async fn lease_release(&self, fence: &Fence) -> Result<(), Error> {
        self.change(Change::Release(fence.clone())).await?;
        Ok(())
    }

    async fn leases(&self, prefix: &str) -> Result<Vec<Fence>, Error> {
        let table = self.read()?.open_table(LEASES).map_err(failed)?;
        let mut out = Vec::new();
        for lease in table
            .range::<&str>((Bound::Included(prefix), Bound::Unbounded))
            .map_err(failed)?
        {
            let (scope, lease) = lease.map_err(failed)?;
            if !scope.value().starts_with(prefix) {
                break;
            }
            out.push(schema::Lease::decode(lease.value())?.fence(scope.value()));
        }
        Ok(out)
    }

    async fn now(&self) -> Result<Timestamp, Error> {
        Ok(self.0.clock.now())
    }
}
