//! The memory store passes the suite, and each of two broken ones fails exactly its case.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use atlas_core::{Clock, SeededEntropy, Timestamp};

use super::*;
use crate::store::{Batch, Fence, Memory, Row, Store, StoreInfo, StoredEvent, Table};

#[derive(Debug, Default)]
struct Hand(AtomicI64);

impl Hand {
    fn advance(&self, by: Duration) {
        self.0
            .fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(1_790_000_000_000 + self.0.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct InMemory {
    clock: Arc<Hand>,
    entropy: SeededEntropy,
    wrap: fn(Memory) -> AnyStore,
}

impl InMemory {
    fn new(wrap: fn(Memory) -> AnyStore) -> Self {
        Self {
            clock: Arc::new(Hand::default()),
            entropy: SeededEntropy::new(1),
            wrap,
        }
    }
}

impl Subject for InMemory {
    async fn fresh(&self) -> Result<AnyStore, Error> {
        Ok((self.wrap)(Memory::new(self.clock.clone(), &self.entropy)))
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
}

#[tokio::test]
async fn the_memory_store_conforms() {
    let report = run(&InMemory::new(AnyStore::new)).await;
    assert_eq!(report.failed, []);
    assert_eq!(
        report.skipped,
        ["what_was_acknowledged_is_there_after_reopening"]
    );
    assert!(report.passed.len() >= 34, "{report:#?}");
}

#[tokio::test]
async fn the_faulty_wrapper_without_faults_conforms() {
    use crate::store::{FaultyStore, StoreFault, StoreFaults, StoreOp};
    #[derive(Debug)]
    struct Fair;
    impl StoreFaults for Fair {
        fn next(&self, _: StoreOp) -> StoreFault {
            StoreFault::Pass
        }
    }
    let report = run(&InMemory::new(|m| {
        AnyStore::new(FaultyStore::new(AnyStore::new(m), Arc::new(Fair)))
    }))
    .await;
    assert_eq!(report.failed, []);
}

/// A memory store with one defect.
#[derive(Debug)]
struct Broken(Memory, Defect);

#[derive(Debug)]
enum Defect {
    /// It accepts writes of an owner whose lease has been acquired by another since.
    ForgetsLostLeases,
    /// It keeps the rows of a batch whose events have a gap.
    HalfApplies,
}

impl Store for Broken {
    async fn info(&self) -> Result<StoreInfo, Error> {
        self.0.info().await
    }
    async fn bind(&self, fingerprint: &str) -> Result<(), Error> {
        self.0.bind(fingerprint).await
    }
    async fn set_incarnation(&self, incarnation: &str) -> Result<(), Error> {
        self.0.set_incarnation(incarnation).await
    }
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, Error> {
        self.0.get(table, key).await
    }
    async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, Error> {
        self.0.scan(table, prefix, after, limit).await
    }
    async fn commit(&self, batch: Batch) -> Result<u64, CommitError> {
        match self.1 {
            Defect::ForgetsLostLeases => {
                let leases = self.0.leases("").await.map_err(CommitError::Store)?;
                let lost = |f: &Fence| {
                    leases
                        .iter()
                        .any(|l| l.scope == f.scope && l.number > f.number && l.holder != f.holder)
                };
                let fence = batch.fence.clone().filter(|f| !lost(f));
                self.0.commit(Batch { fence, ..batch }).await
            }
            Defect::HalfApplies => {
                let rows = Batch {
                    appends: Vec::new(),
                    ..batch.clone()
                };
                let guards = Batch {
                    guards: batch.guards.clone(),
                    fence: batch.fence.clone(),
                    ..Batch::new()
                };
                let guarded = self.0.commit(guards).await.is_ok();
                let answer = self.0.commit(batch).await;
                if guarded && answer.is_err() {
                    self.0.commit(rows).await?;
                }
                answer
            }
        }
    }
    async fn events(
        &self,
        session: [u8; 16],
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        self.0.events(session, after_seq, limit).await
    }
    async fn feed(&self, after_position: u64, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        self.0.feed(after_position, limit).await
    }
    async fn forget_events(&self, session: [u8; 16], up_to_seq: u64) -> Result<(), Error> {
        self.0.forget_events(session, up_to_seq).await
    }
    async fn lease_acquire(
        &self,
        scope: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Fence>, Error> {
        self.0.lease_acquire(scope, holder, ttl).await
    }
    async fn lease_renew(&self, fence: &Fence, ttl: Duration) -> Result<Option<Fence>, Error> {
        self.0.lease_renew(fence, ttl).await
    }
    async fn lease_release(&self, fence: &Fence) -> Result<(), Error> {
        self.0.lease_release(fence).await
    }
    async fn leases(&self, prefix: &str) -> Result<Vec<Fence>, Error> {
        self.0.leases(prefix).await
    }
    async fn now(&self) -> Result<Timestamp, Error> {
        self.0.now().await
    }
}

async fn failures(wrap: fn(Memory) -> AnyStore) -> Vec<&'static str> {
    run(&InMemory::new(wrap))
        .await
        .failed
        .into_iter()
        .map(|(case, _)| case)
        .collect()
}

#[tokio::test]
async fn a_store_that_forgets_lost_leases_fails_exactly_that_case() {
    let failed = failures(|m| AnyStore::new(Broken(m, Defect::ForgetsLostLeases))).await;
    assert_eq!(failed, ["a_batch_under_a_lost_lease_is_refused_whole"]);
}

#[tokio::test]
async fn a_store_that_half_applies_fails_exactly_that_case() {
    let failed = failures(|m| AnyStore::new(Broken(m, Defect::HalfApplies))).await;
    assert_eq!(failed, ["a_refused_append_leaves_nothing_of_its_batch"]);
}
