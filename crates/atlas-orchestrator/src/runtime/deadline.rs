//! A store that answers in time, if only with an error: one call that hangs must not keep a session
//! from everybody's care.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use atlas_core::{Error, ErrorKind, Result, Timestamp};

use crate::store::{
    AnyStore, Batch, CommitError, Fence, Row, Store, StoreInfo, StoredEvent, Table,
};

/// Gives up a call after so long. A commit given up may have been applied, as one whose answer was
/// lost.
#[derive(Debug)]
pub(crate) struct WithDeadline {
    inner: AnyStore,
    longest: Duration,
}

impl WithDeadline {
    pub(crate) fn new(inner: AnyStore, longest: Duration) -> Self {
        Self { inner, longest }
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

    async fn commit(&self, batch: Batch) -> Result<u64, CommitError> {
        self.within(self.inner.commit(batch)).await
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
