//! A store that injects failures, for tests and simulated histories.
//!
//! Each simulated node has its own wrapper over the shared store, so that one node can be cut off
//! while the others continue.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{Error, ErrorKind, Timestamp};

use super::{AnyStore, Batch, CommitError, Fence, Row, Store, StoreInfo, StoredEvent, Table};

/// The kind of a store call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreOp {
    /// A read: `info`, `get`, `scan`, `events`, `feed`, `leases`, `now`.
    Read,
    /// `commit`.
    Commit,
    /// `bind`, `set_incarnation`, `forget_events`.
    Administer,
    /// `lease_acquire`, `lease_renew`, `lease_release`.
    Lease,
}

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreFault {
    /// Nothing goes wrong.
    #[default]
    Pass,
    /// The call fails without any effect.
    Refuse,
    /// The call takes effect, and the answer is a failure.
    LoseAnswer,
    /// The first delay comes before the effect, the second before the answer. A node that dies
    /// during the first loses the call; one that dies during the second never gets the answer.
    Slow(Duration, Duration),
    /// The call has no effect and never returns.
    Hang,
    /// The call takes effect and never returns.
    HangAfter,
}

/// Decides what goes wrong, call by call.
pub trait StoreFaults: Debug + Send + Sync + 'static {
    /// Called once for each store call, in order.
    fn next(&self, op: StoreOp) -> StoreFault;
}

/// A store that injects failures.
#[derive(Clone, Debug)]
pub struct FaultyStore {
    inner: AnyStore,
    faults: Arc<dyn StoreFaults>,
}

impl FaultyStore {
    /// Wraps a store.
    pub fn new(inner: AnyStore, faults: Arc<dyn StoreFaults>) -> Self {
        Self { inner, faults }
    }

    async fn through<T, E: From<StoreFailure>>(
        &self,
        op: StoreOp,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match self.faults.next(op) {
            StoreFault::Pass => call.await,
            StoreFault::Refuse => Err(StoreFailure("the store refused").into()),
            StoreFault::LoseAnswer => {
                call.await?;
                Err(StoreFailure("the store's answer was lost").into())
            }
            StoreFault::Slow(before, after) => {
                tokio::time::sleep(before).await;
                let answer = call.await;
                tokio::time::sleep(after).await;
                answer
            }
            StoreFault::Hang => std::future::pending().await,
            StoreFault::HangAfter => {
                call.await?;
                std::future::pending().await
            }
        }
    }
}

struct StoreFailure(&'static str);

impl From<StoreFailure> for Error {
    fn from(failure: StoreFailure) -> Self {
        Self::new(ErrorKind::Unavailable, failure.0)
    }
}

impl From<StoreFailure> for CommitError {
    fn from(failure: StoreFailure) -> Self {
        Self::Store(failure.into())
    }
}

impl Store for FaultyStore {
    fn location(&self) -> Option<&Path> {
        self.inner.location()
    }

    async fn info(&self) -> Result<StoreInfo, Error> {
        self.through(StoreOp::Read, self.inner.info()).await
    }

    async fn bind(&self, fingerprint: &str) -> Result<(), Error> {
        self.through(StoreOp::Administer, self.inner.bind(fingerprint))
            .await
    }

    async fn set_incarnation(&self, incarnation: &str) -> Result<(), Error> {
        self.through(StoreOp::Administer, self.inner.set_incarnation(incarnation))
            .await
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, Error> {
        self.through(StoreOp::Read, self.inner.get(table, key))
            .await
    }

    async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, Error> {
        self.through(StoreOp::Read, self.inner.scan(table, prefix, after, limit))
            .await
    }

    async fn commit(&self, batch: Batch) -> Result<u64, CommitError> {
        self.through(StoreOp::Commit, self.inner.commit(batch))
            .await
    }

    async fn events(
        &self,
        session: [u8; 16],
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        self.through(StoreOp::Read, self.inner.events(session, after_seq, limit))
            .await
    }

    async fn feed(&self, after_position: u64, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        self.through(StoreOp::Read, self.inner.feed(after_position, limit))
            .await
    }

    async fn forget_events(&self, session: [u8; 16], up_to_seq: u64) -> Result<(), Error> {
        self.through(
            StoreOp::Administer,
            self.inner.forget_events(session, up_to_seq),
        )
        .await
    }

    async fn lease_acquire(
        &self,
        scope: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Fence>, Error> {
        self.through(StoreOp::Lease, self.inner.lease_acquire(scope, holder, ttl))
            .await
    }

    async fn lease_renew(&self, fence: &Fence, ttl: Duration) -> Result<Option<Fence>, Error> {
        self.through(StoreOp::Lease, self.inner.lease_renew(fence, ttl))
            .await
    }

    async fn lease_release(&self, fence: &Fence) -> Result<(), Error> {
        self.through(StoreOp::Lease, self.inner.lease_release(fence))
            .await
    }

    async fn leases(&self, prefix: &str) -> Result<Vec<Fence>, Error> {
        self.through(StoreOp::Read, self.inner.leases(prefix)).await
    }

    async fn now(&self) -> Result<Timestamp, Error> {
        self.through(StoreOp::Read, self.inner.now()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;
    use atlas_core::{SeededEntropy, SystemClock};
    use std::sync::Mutex;

    #[derive(Debug)]
    struct Script(Mutex<Vec<StoreFault>>);

    impl StoreFaults for Script {
        fn next(&self, op: StoreOp) -> StoreFault {
            if op == StoreOp::Commit {
                self.0.lock().unwrap().pop().unwrap_or_default()
            } else {
                StoreFault::Pass
            }
        }
    }

    async fn commits_after(fault: StoreFault) -> (bool, u64) {
        let memory = Memory::new(Arc::new(SystemClock), &SeededEntropy::new(1));
        let faults = Arc::new(Script(Mutex::new(vec![fault])));
        let store = FaultyStore::new(AnyStore::new(memory), faults);
        let mut batch = Batch::new();
        batch.put(Table::Realm, *b"k", *b"v");
        let answer = tokio::time::timeout(Duration::from_secs(60), store.commit(batch)).await;
        (
            matches!(answer, Ok(Ok(_))),
            store.info().await.unwrap().last_commit,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn each_fault_does_or_does_not_reach_the_store_as_it_says() {
        let second = Duration::from_secs(1);
        assert_eq!(commits_after(StoreFault::Pass).await, (true, 1));
        assert_eq!(commits_after(StoreFault::Refuse).await, (false, 0));
        assert_eq!(commits_after(StoreFault::LoseAnswer).await, (false, 1));
        assert_eq!(
            commits_after(StoreFault::Slow(second, second)).await,
            (true, 1)
        );
        assert_eq!(
            commits_after(StoreFault::Slow(100 * second, second)).await,
            (false, 0),
            "died before it was done"
        );
        assert_eq!(
            commits_after(StoreFault::Slow(second, 100 * second)).await,
            (false, 1),
            "died before it heard"
        );
        assert_eq!(commits_after(StoreFault::Hang).await, (false, 0));
        assert_eq!(commits_after(StoreFault::HangAfter).await, (false, 1));
    }
}
