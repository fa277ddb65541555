//! Many sessions that are on record: each with its machine, ready, idle, and nothing to be done for
//! an hour.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::{
    AccountLimits, AccountName, AnyProvider, AttemptId, Clock, ComputeId, Entropy, Error,
    SeededEntropy, SystemClock, Timestamp,
};
use atlas_orchestrator::kernel::record::{Fate, SessionRecord, Sighted};
use atlas_orchestrator::store::{
    AnyStore, Batch, CommitError, Fence, Memory, Row, Store, StoreInfo, StoredEvent, Table,
};
use atlas_orchestrator::{
    Builder, Orchestrator, Policy, Realm, SessionId, Spawner, Task, TokioSpawner,
};
use serde_json::json;

use crate::Failure;

const SECRET: &str = "0f9kXq27LmZt5cRvB1yHdWn8GsEoPa3J-benches";
const PAGE: u64 = 1000;

/// The realm of every row.
pub(crate) fn realm() -> Result<Arc<Realm>, Failure> {
    Ok(Arc::new(Realm::new(&atlas_core::Secret::new(SECRET))?))
}

pub(crate) fn account() -> Result<AccountName, Failure> {
    Ok(AccountName::new("mock")?)
}

/// A policy under which nothing happens by itself for an hour, with this pace of the cloud.
pub(crate) fn quiet(limits: AccountLimits) -> Policy {
    let mut policy = Policy::default();
    policy.default_account.reap = false;
    policy.default_account.poll_interval = Duration::from_secs(24 * 3600);
    policy.default_account.limits = Some(limits);
    policy
}

/// Runs every task but those that work on sessions and on their indexes.
#[derive(Debug)]
pub(crate) struct Undriven;

impl Spawner for Undriven {
    fn spawn(&self, name: &'static str, task: Task) {
        if name != "reconciler" && name != "index" {
            TokioSpawner.spawn(name, task);
        }
    }
}

/// Runs an orchestrator over this store until the indexes cover every session in it.
pub(crate) async fn build_indexes(store: AnyStore) -> Result<(), Failure> {
    let cloud = AnyProvider::new(super::cloud::Obliging::new()?);
    let orchestrator = builder(store, cloud, quiet(AccountLimits::default()))?
        .start()
        .await?;
    while !orchestrator.is_indexed().await? {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    orchestrator
        .shutdown(atlas_orchestrator::Shutdown::Handover)
        .await?;
    Ok(())
}

/// An orchestrator over this store and cloud.
pub(crate) fn builder(
    store: AnyStore,
    cloud: AnyProvider,
    policy: Policy,
) -> Result<Builder, Failure> {
    Ok(Orchestrator::builder()
        .account(account()?, cloud)
        .store(store)
        .realm(realm()?)
        .policy(policy))
}

/// The sessions: the same for the same number, drawn when they are asked for.
#[derive(Debug)]
pub(crate) struct Fleet {
    realm: Arc<Realm>,
    prototype: SessionRecord,
    born: Timestamp,
    pub(crate) size: u64,
}

impl Fleet {
    pub(crate) fn new(size: u64) -> Result<Self, Failure> {
        let realm = realm()?;
        let now = SystemClock.now();
        let born = now.saturating_sub(Duration::from_secs(600));
        let key = realm.key_of(AttemptId::new(born, [0; 6]));
        let prototype = json!({
            "id": SessionId::from_bytes([0; 16]), "owner": "local", "account": "mock",
                "provider": "mock",
            "options": { "user_id": "u42", "account": "mock", "idle_ttl_ms": 7_200_000 },
            "created_at": born, "ready_at": now, "last_seq": 6,
            "attempts": [{
                "id": key.attempt(), "key": key, "account": "mock", "created_at": born,
                    "calling_at": born, "phase": "live",
                "candidate": { "native_type": "NVIDIA H100 80GB HBM3", "region": "EU-RO-1" },
                "seen_at": now, "metered_to": born, "identity": "me",
            }],
            "decisions": [{ "at": born, "text": "placed on mock NVIDIA H100 80GB HBM3 EU-RO-1; \
                nothing but a living atlas ends it" }],
        });
        Ok(Self {
            realm,
            prototype: SessionRecord::decode(prototype.to_string().as_bytes())?,
            born,
            size,
        })
    }

    fn random(index: u64) -> [u8; 6] {
        let mut random = [0; 6];
        SeededEntropy::new(index).fill(&mut random);
        random
    }

    pub(crate) fn id(&self, index: u64) -> SessionId {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&self.born.unix_millis().to_be_bytes()[2..]);
        bytes[6..10].copy_from_slice(&u32::try_from(index).unwrap_or(u32::MAX).to_be_bytes());
        bytes[10..].copy_from_slice(&Self::random(index));
        SessionId::from_bytes(bytes)
    }

    fn index(key: &[u8]) -> Option<u64> {
        Some(u64::from(u32::from_be_bytes(
            key.get(6..10)?.try_into().ok()?,
        )))
    }

    /// The name of a session's machine, its key included.
    pub(crate) fn machine(&self, index: u64) -> (String, atlas_core::TrackedKey) {
        (
            format!("machine-{index}"),
            self.realm
                .key_of(AttemptId::new(self.born, Self::random(index))),
        )
    }

    pub(crate) fn record(&self, index: u64) -> Result<SessionRecord, Error> {
        let (machine, key) = self.machine(index);
        let machine = ComputeId::new(machine)?;
        let mut record = self.prototype.clone();
        record.id = self.id(index);
        for attempt in &mut record.attempts {
            (attempt.id, attempt.key, attempt.serving) =
                (key.attempt(), key, Some(machine.clone()));
            attempt.sighted = vec![Sighted::new(machine.clone(), self.born, Fate::Kept)];
        }
        Ok(record)
    }

    /// Puts all of them into a store.
    pub(crate) async fn put_into(&self, store: &impl Store) -> Result<(), Failure> {
        for from in (0..self.size).step_by(1000) {
            let mut batch = Batch::new();
            for index in from..self.size.min(from + PAGE) {
                let record = self.record(index)?;
                batch.put(Table::Sessions, *record.id.as_bytes(), record.encode());
                for seq in 1..=record.last_seq {
                    batch.append(*record.id.as_bytes(), seq, *b"{}");
                }
            }
            store.commit(batch).await.map_err(Error::from)?;
        }
        Ok(())
    }
}

/// A store that holds the fleet without keeping it in memory: what is left in memory is the
/// orchestrator's.
#[derive(Debug)]
pub(crate) struct Generated {
    fleet: Arc<Fleet>,
    inner: Memory,
}

impl Generated {
    pub(crate) fn new(fleet: Arc<Fleet>) -> Self {
        Self {
            fleet,
            inner: Memory::new(Arc::new(SystemClock), &SeededEntropy::new(1)),
        }
    }

    fn row(&self, index: u64) -> Result<Row, Error> {
        let record = self.fleet.record(index)?;
        Ok(Row {
            key: record.id.as_bytes().to_vec(),
            version: 1,
            value: record.encode(),
        })
    }
}

impl Store for Generated {
    async fn info(&self) -> Result<StoreInfo, Error> {
        self.inner.info().await
    }

    async fn bind(&self, fingerprint: &str) -> Result<(), Error> {
        self.inner.bind(fingerprint).await
    }

    async fn set_incarnation(&self, incarnation: &str) -> Result<(), Error> {
        self.inner.set_incarnation(incarnation).await
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, Error> {
        match (table, Fleet::index(key)) {
            (Table::Sessions, Some(index)) if index < self.fleet.size => self.row(index).map(Some),
            _ => self.inner.get(table, key).await,
        }
    }

    async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, Error> {
        if table != Table::Sessions {
            return self.inner.scan(table, prefix, after, limit).await;
        }
        let from = after.and_then(Fleet::index).map_or(0, |index| index + 1);
        (from..self.fleet.size)
            .take(limit)
            .map(|index| self.row(index))
            .collect()
    }

    async fn commit(&self, batch: Batch) -> Result<u64, CommitError> {
        self.inner.commit(batch).await
    }

    async fn events(
        &self,
        session: [u8; 16],
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        self.inner.events(session, after_seq, limit).await
    }

    async fn feed(&self, after_position: u64, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        self.inner.feed(after_position, limit).await
    }

    async fn forget_events(&self, session: [u8; 16], up_to_seq: u64) -> Result<(), Error> {
        self.inner.forget_events(session, up_to_seq).await
    }

    async fn lease_acquire(
        &self,
        scope: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Fence>, Error> {
        self.inner.lease_acquire(scope, holder, ttl).await
    }

    async fn lease_renew(&self, fence: &Fence, ttl: Duration) -> Result<Option<Fence>, Error> {
        self.inner.lease_renew(fence, ttl).await
    }

    async fn lease_release(&self, fence: &Fence) -> Result<(), Error> {
        self.inner.lease_release(fence).await
    }

    async fn leases(&self, prefix: &str) -> Result<Vec<Fence>, Error> {
        self.inner.leases(prefix).await
    }

    async fn now(&self) -> Result<Timestamp, Error> {
        self.inner.now().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_orchestrator::SessionState;

    #[tokio::test]
    async fn a_generated_store_pages_through_every_session_once_and_each_is_ready() {
        let fleet = Arc::new(Fleet::new(2500).unwrap());
        let store = Generated::new(fleet.clone());
        let (mut after, mut ids) = (None::<Vec<u8>>, Vec::new());
        loop {
            let rows = store
                .scan(Table::Sessions, &[], after.as_deref(), 1000)
                .await
                .unwrap();
            let Some(last) = rows.last() else { break };
            after = Some(last.key.clone());
            ids.extend(
                rows.iter()
                    .map(|row| SessionId::from_slice(&row.key).unwrap()),
            );
            let record = SessionRecord::decode(&rows[0].value).unwrap();
            assert_eq!(record.state(), SessionState::Ready);
        }
        assert!(ids.is_sorted() && ids.len() == 2500);
        assert_eq!(ids[2499], fleet.id(2499));
    }
}
