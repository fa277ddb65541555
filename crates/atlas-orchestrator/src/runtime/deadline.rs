//! Wraps the store for the runtime. Every call returns within a time limit, if only with an error,
//! so that one call that hangs does not block a session. No batch is written to a store that is
//! behind what this process has seen of it.

use std::fmt::Debug;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use atlas_core::{Error, ErrorKind, Result, Timestamp};

use crate::store::{
    AnyStore, Batch, CommitError, Fence, Row, Store, StoreInfo, StorePoint, StoredEvent, Table,
};

/// How far the store had come when this process last heard of it, and whether it has since refused
/// a batch because it was rolled back.
#[derive(Debug)]
pub(crate) struct Progress {
    /// If false, no batch carries the known point.
    guarded: bool,
    known: Mutex<Option<StorePoint>>,
    refused: AtomicBool,
    /// Notified when a batch was refused.
    pub(crate) noticed: Notify,
}

impl Progress {
    pub(crate) fn new(guarded: bool) -> Self {
        Self {
            guarded,
            known: Mutex::new(None),
            refused: AtomicBool::new(false),
            noticed: Notify::new(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<StorePoint>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest point that this process knows of.
    pub(crate) fn known(&self) -> Option<StorePoint> {
        self.lock().clone()
    }

    /// The point to attach to a batch that is decided by what is read from now on.
    pub(crate) fn since(&self) -> Option<StorePoint> {
        self.known().filter(|_| self.guarded)
    }

    /// Whether the store refused a batch and this has not been handled yet.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }

    /// The store was read and continues from the known point.
    pub(crate) fn saw(&self, point: StorePoint) {
        let mut known = self.lock();
        match &mut *known {
            Some(old) if old.incarnation == point.incarnation => {
                old.commit = old.commit.max(point.commit);
            }
            _ => *known = Some(point),
        }
    }

    /// Continues from this point, wherever the store was before; `None` forgets it. The caller must
    /// have made the process hold, or have been told by an operator that the store is the right
    /// one. Returns whether this handles a refused batch.
    pub(crate) fn restart(&self, point: Option<StorePoint>) -> bool {
        *self.lock() = point;
        self.refused.swap(false, Ordering::AcqRel)
    }

    fn committed(&self, number: u64) {
        if let Some(known) = &mut *self.lock() {
            known.commit = known.commit.max(number);
        }
    }

    fn refuse(&self) {
        self.refused.store(true, Ordering::Release);
        self.noticed.notify_one();
    }
}

/// Gives up each call after a time limit. A commit that was given up may have been applied, like
/// one whose answer was lost. Every commit carries the known point of the store.
#[derive(Debug)]
pub(crate) struct WithDeadline {
    inner: AnyStore,
    longest: Duration,
    progress: Arc<Progress>,
}

impl WithDeadline {
    pub(crate) fn new(inner: AnyStore, longest: Duration, progress: Arc<Progress>) -> Self {
        Self {
            inner,
            longest,
            progress,
        }
    }

    async fn within<T, E: From<Late>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::time::timeout(self.longest, call)
            .await
            .unwrap_or_else(|_| Err(Late.into()))
    }
}

struct Late;

impl From<Late> for Error {
    fn from(Late: Late) -> Self {
        Self::new(ErrorKind::Timeout, "the store did not answer in time")
    }
}

impl From<Late> for CommitError {
    fn from(late: Late) -> Self {
        Self::Store(late.into())
    }
}

impl Store for WithDeadline {
    fn location(&self) -> Option<&Path> {
        self.inner.location()
    }

    async fn info(&self) -> Result<StoreInfo> {
        self.within(self.inner.info()).await
    }

    async fn bind(&self, fingerprint: &str) -> Result<()> {
        self.within(self.inner.bind(fingerprint)).await
    }

    async fn set_incarnation(&self, incarnation: &str) -> Result<()> {
        self.within(self.inner.set_incarnation(incarnation)).await
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>> {
        self.within(self.inner.get(table, key)).await
    }

    async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>> {
        self.within(self.inner.scan(table, prefix, after, limit))
            .await
    }

    async fn commit(&self, mut batch: Batch) -> Result<u64, CommitError> {
        if batch.since.is_none() {
            batch.since = self.progress.since();
        }
        let answer = self.within(self.inner.commit(batch)).await;
        match &answer {
            Ok(number) => self.progress.committed(*number),
            Err(CommitError::RolledBack) => self.progress.refuse(),
            Err(_) => {}
        }
        answer
    }

    async fn events(
        &self,
        session: [u8; 16],
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>> {
        self.within(self.inner.events(session, after_seq, limit))
            .await
    }

    async fn feed(&self, after_position: u64, limit: usize) -> Result<Vec<StoredEvent>> {
        self.within(self.inner.feed(after_position, limit)).await
    }

    async fn forget_events(&self, session: [u8; 16], up_to_seq: u64) -> Result<()> {
        self.within(self.inner.forget_events(session, up_to_seq))
            .await
    }

    async fn lease_acquire(
        &self,
        scope: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Fence>> {
        self.within(self.inner.lease_acquire(scope, holder, ttl))
            .await
    }

    async fn lease_renew(&self, fence: &Fence, ttl: Duration) -> Result<Option<Fence>> {
        self.within(self.inner.lease_renew(fence, ttl)).await
    }

    async fn lease_release(&self, fence: &Fence) -> Result<()> {
        self.within(self.inner.lease_release(fence)).await
    }

    async fn leases(&self, prefix: &str) -> Result<Vec<Fence>> {
        self.within(self.inner.leases(prefix)).await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.within(self.inner.now()).await
    }
}
