//! A user's own store that says where it lives is treated like the built-in one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atlas::{Atlas, Error, Memory, Shutdown, SystemClock, SystemEntropy, Timestamp};
use atlas_orchestrator::store::{
    AnyStore, Batch, CommitError, Fence, Row, Store, StoreInfo, StoredEvent, Table,
};
use atlas_owner::OwnerClient;

use crate::facade::{name, quick};

/// A store at a path, as a user may write one.
#[derive(Debug)]
struct Foreign {
    rows: Memory,
    path: PathBuf,
}

impl Store for Foreign {
    fn location(&self) -> Option<&Path> {
        Some(&self.path)
    }

    async fn info(&self) -> Result<StoreInfo, Error> {
        self.rows.info().await
    }

    async fn bind(&self, fingerprint: &str) -> Result<(), Error> {
        self.rows.bind(fingerprint).await
    }

    async fn set_incarnation(&self, incarnation: &str) -> Result<(), Error> {
        self.rows.set_incarnation(incarnation).await
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, Error> {
        self.rows.get(table, key).await
    }

    async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, Error> {
        self.rows.scan(table, prefix, after, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<u64, CommitError> {
        self.rows.commit(batch).await
    }

    async fn events(
        &self,
        session: [u8; 16],
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        self.rows.events(session, after_seq, limit).await
    }

    async fn feed(&self, after_position: u64, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        self.rows.feed(after_position, limit).await
    }

    async fn forget_events(&self, session: [u8; 16], up_to_seq: u64) -> Result<(), Error> {
        self.rows.forget_events(session, up_to_seq).await
    }

    async fn lease_acquire(
        &self,
        scope: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Fence>, Error> {
        self.rows.lease_acquire(scope, holder, ttl).await
    }

    async fn lease_renew(&self, fence: &Fence, ttl: Duration) -> Result<Option<Fence>, Error> {
        self.rows.lease_renew(fence, ttl).await
    }

    async fn lease_release(&self, fence: &Fence) -> Result<(), Error> {
        self.rows.lease_release(fence).await
    }

    async fn leases(&self, prefix: &str) -> Result<Vec<Fence>, Error> {
        self.rows.leases(prefix).await
    }

    async fn now(&self) -> Result<Timestamp, Error> {
        self.rows.now().await
    }
}

#[tokio::test]
async fn a_foreign_store_with_a_location_gets_its_realm_secret_and_socket_beside_it() {
    let (cloud, policy) = quick();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("foreign");
    std::fs::write(&path, b"").unwrap();
    let rows = Memory::new(Arc::new(SystemClock), &SystemEntropy::new());
    let path_of_store = path.clone();
    let store = AnyStore::new(Foreign {
        rows,
        path: path_of_store,
    });
    let atlas = Atlas::builder()
        .account(name("mock"), cloud.provider())
        .store(store)
        .state_dir(dir.path().join("state"))
        .policy(policy)
        .build()
        .await
        .unwrap();
    assert!(dir.path().join("foreign.realm").is_file());
    assert!(
        OwnerClient::connect(&path).await.unwrap().is_some(),
        "another process can reach the one that holds the store"
    );
    atlas.shutdown(Shutdown::Handover).await.unwrap();
    assert!(OwnerClient::connect(&path).await.unwrap().is_none());
}
