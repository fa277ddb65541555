//! The indexes over sessions: what is read of a store with a long history, and how indexes that do
//! not agree with the records are noticed and built again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atlas_core::{Error, Timestamp};
use atlas_orchestrator::kernel::SessionRecord;
use atlas_orchestrator::kernel::glance::glance;
use atlas_orchestrator::store::{
    AnyStore, Batch, CommitError, Fence, Memory, Row, Store, StoreInfo, StoredEvent, Table,
};
use atlas_orchestrator::{Orchestrator, SessionFilter, SessionId, SessionOptions, SessionState};

use crate::node::{Bench, ended, options, request, settle, sleep};

/// A store that counts the rows that are read from it.
#[derive(Clone, Debug)]
struct Counting {
    inner: Memory,
    rows: Arc<AtomicUsize>,
}

impl Counting {
    fn over(store: &Memory) -> Self {
        Self {
            inner: store.clone(),
            rows: Arc::default(),
        }
    }

    /// Rows read since it was asked last.
    fn read(&self) -> usize {
        self.rows.swap(0, Ordering::Relaxed)
    }
}

impl Store for Counting {
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
        self.rows.fetch_add(1, Ordering::Relaxed);
        self.inner.get(table, key).await
    }

    async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, Error> {
        let rows = self.inner.scan(table, prefix, after, limit).await?;
        self.rows.fetch_add(rows.len().max(1), Ordering::Relaxed);
        Ok(rows)
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

/// A session that nothing ends in the time of a test.
fn lasting() -> SessionOptions {
    options().idle_ttl(Duration::from_secs(30 * 24 * 3600))
}

async fn indexed(atlas: &Orchestrator) {
    for _ in 0..600 {
        if atlas.is_indexed().await.unwrap() {
            return;
        }
        sleep(1).await;
    }
    panic!("the indexes were not built within ten minutes");
}

async fn all(store: &Memory, table: Table) -> Vec<Row> {
    store.scan(table, &[], None, usize::MAX).await.unwrap()
}

/// The sessions that an index says something about, in order of id.
async fn in_index(store: &Memory, table: Table) -> Vec<Vec<u8>> {
    let rows = all(store, table).await;
    let id = |row: &Row| row.key[row.key.len() - 16..].to_vec();
    let mut ids: Vec<Vec<u8>> = rows.iter().map(id).collect();
    ids.sort();
    ids
}

/// Every record has the entries that it must have, and there is no other entry.
async fn assert_agrees(store: &Memory) {
    let (mut live, mut users, mut over) = (Vec::new(), Vec::new(), Vec::new());
    for row in all(store, Table::Sessions).await {
        let record = SessionRecord::decode(&row.value).unwrap();
        if record.options.user_id.is_some() {
            users.push(row.key.clone());
        }
        if record.is_over() {
            over.push(row.key);
            continue;
        }
        let entry = store.get(Table::Live, &row.key).await.unwrap().unwrap();
        assert_eq!(glance(&entry.value), glance(&row.value));
        assert!(entry.value.len() < row.value.len(), "no more than the head");
        live.push(row.key);
    }
    assert_eq!(in_index(store, Table::Live).await, live);
    assert_eq!(in_index(store, Table::Users).await, users);
    assert_eq!(in_index(store, Table::Ended).await, over);
}

async fn of_user(atlas: &Orchestrator, user: &str, ended: bool) -> Vec<SessionId> {
    let filter = if ended {
        SessionFilter::all()
    } else {
        SessionFilter::live()
    };
    let found = atlas.list(filter.user(user)).await.unwrap();
    found.into_iter().map(|info| info.id).collect()
}

/// What an older release of atlas does as a node: it takes the node's lease, and writes the node's
/// row without a word about indexes. Then it writes this batch, and leaves.
async fn older_release(store: &Memory, node: &str, mut batch: Batch) {
    let scope = format!("node/{node}");
    let ttl = Duration::from_secs(60);
    let fence = store.lease_acquire(&scope, node, ttl).await.unwrap();
    let fence = fence.unwrap();
    let row = format!(
        r#"{{"number":{},"clean":true,"buried":false}}"#,
        fence.number
    );
    batch.put(Table::Nodes, node.as_bytes(), row);
    store.commit(batch.fenced(fence.clone())).await.unwrap();
    store.lease_release(&fence).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn opening_listing_and_the_hourly_round_read_no_more_rows_with_100_000_ended_sessions() {
    let bench = Bench::new(41);
    let node = bench.node("a").await;
    let (id, _) = ended(&bench, &node).await;
    let mut live = Vec::new();
    for n in 0..10 {
        let options = lasting().user(format!("u{}", n % 2));
        live.push(node.atlas.spawn(request(), options).await.unwrap().id());
    }
    // The ids of one millisecond are in any order.
    live.sort();
    sleep(600).await;
    node.crash();
    let mut read = Vec::new();
    for history in [0, 100_000_u128] {
        let row = bench.store.get(Table::Sessions, id.as_bytes()).await;
        let mut record = SessionRecord::decode(&row.unwrap().unwrap().value).unwrap();
        // Long enough ago that no bill is waited for, and nothing is to be forgotten yet.
        let ending = record.ending.as_mut().unwrap();
        let days = Duration::from_secs(5 * 24 * 3600);
        ending.done_at = ending.done_at.map(|at| at.saturating_sub(days));
        let row = record.encode();
        let mut batch = Batch::new();
        for n in 0..history {
            batch.put(Table::Sessions, n.to_be_bytes(), row.clone());
        }
        older_release(&bench.store, "a", batch).await;
        let node = bench.node("a").await;
        indexed(&node.atlas).await;
        node.crash();
        let rows = all(&bench.store, Table::Ended).await.len();
        assert_eq!(rows as u128, history + 1);

        let store = Counting::over(&bench.store);
        let node = bench.node_over("a", AnyStore::new(store.clone())).await;
        let opening = store.read();
        assert_eq!(node.atlas.tracked(), 10);
        assert_eq!(node.atlas.list_ids().await.unwrap(), live);
        let listing = store.read();
        assert_eq!(of_user(&node.atlas, "u1", false).await.len(), 5);
        let by_user = store.read();
        node.atlas.risk().await.unwrap();
        let risk = store.read();
        // One round of the janitor, and every other one, over an hour.
        sleep(3600).await;
        read.push([opening, listing, by_user, risk, store.read()]);
        node.crash();
    }
    let [without, with] = read[..] else { panic!() };
    for (without, with) in without.into_iter().zip(with) {
        assert!(with <= without + without / 5, "{read:?}");
    }
    assert!(without[1] < 60 && without[2] < 30, "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn every_change_of_a_session_leaves_the_indexes_in_agreement_with_the_records() {
    let mut bench = Bench::new(42);
    bench.policy.keep_events = Duration::from_secs(24 * 3600);
    bench.policy.retention = Duration::from_secs(2 * 24 * 3600);
    let node = bench.node("a").await;
    indexed(&node.atlas).await;
    assert_agrees(&bench.store).await;
    let mut ids = Vec::new();
    for user in [Some("u"), Some("uu"), None] {
        let options = options();
        let options = user
            .into_iter()
            .fold(options, |options, user| options.user(user));
        ids.push(node.atlas.spawn(request(), options).await.unwrap().id());
        assert_agrees(&bench.store).await;
        sleep(120).await;
        assert_agrees(&bench.store).await;
    }
    assert_eq!(of_user(&node.atlas, "u", false).await, [ids[0]]);
    node.atlas.stop_tracked(ids[0]).await.unwrap();
    assert_agrees(&bench.store).await;
    settle(&node, ids[0]).await;
    sleep(5).await;
    assert_agrees(&bench.store).await;
    assert_eq!(of_user(&node.atlas, "u", false).await, []);
    assert_eq!(of_user(&node.atlas, "u", true).await, [ids[0]]);
    assert_eq!(of_user(&node.atlas, "uu", true).await, [ids[1]]);
    // All end by idleness, the events are forgotten, and then the sessions.
    let kept = bench.policy.keep_events.as_secs();
    sleep(kept + 4 * 3600).await;
    assert_agrees(&bench.store).await;
    let info = node.atlas.info(ids[2]).await.unwrap();
    assert_eq!(info.state, SessionState::Terminated);
    let forgotten = all(&bench.store, Table::Ended).await;
    assert!(
        forgotten.iter().all(|row| row.key[0] == 1),
        "events go first"
    );
    sleep(bench.policy.retention.as_secs() - kept).await;
    assert!(all(&bench.store, Table::Sessions).await.is_empty());
    assert_agrees(&bench.store).await;
}

#[tokio::test(start_paused = true)]
async fn sessions_that_an_older_release_wrote_are_found_at_once_and_the_indexes_are_built_again() {
    for name in ["a", "b"] {
        let bench = Bench::new(43);
        let node = bench.node("a").await;
        let (over, _) = ended(&bench, &node).await;
        let options = lasting().user("u1");
        let id = node.atlas.spawn(request(), options).await.unwrap().id();
        sleep(60).await;
        indexed(&node.atlas).await;
        node.crash();
        assert_agrees(&bench.store).await;
        sleep(300).await;
        // To an older release the running session is new, and the ended one is forgotten.
        let mut batch = Batch::new();
        for table in [Table::Live, Table::Users] {
            for row in all(&bench.store, table).await {
                batch.delete(table, row.key);
            }
        }
        batch.delete(Table::Sessions, *over.as_bytes());
        older_release(&bench.store, name, batch).await;

        let node = bench.node("a").await;
        assert_eq!(node.atlas.tracked(), 1, "it is looked after at once");
        assert_eq!(node.atlas.list_ids().await.unwrap(), [id]);
        assert_eq!(of_user(&node.atlas, "u1", false).await, [id]);
        indexed(&node.atlas).await;
        assert_agrees(&bench.store).await;
        assert_eq!(of_user(&node.atlas, "u1", false).await, [id]);
    }
}

#[tokio::test(start_paused = true)]
async fn indexes_are_not_trusted_while_an_older_release_may_still_write() {
    let bench = Bench::new(44);
    let node = bench.node("a").await;
    indexed(&node.atlas).await;
    // The older release starts on the same store, and lives.
    let ttl = Duration::from_secs(3600);
    let fence = bench.store.lease_acquire("node/old", "old", ttl).await;
    let fence = fence.unwrap().unwrap();
    let row = format!(r#"{{"number":{}}}"#, fence.number);
    let mut batch = Batch::new();
    batch.put(Table::Nodes, *b"old", row);
    bench.store.commit(batch).await.unwrap();
    assert!(!node.atlas.is_indexed().await.unwrap());
    let options = lasting().user("u1");
    let id = node.atlas.spawn(request(), options).await.unwrap().id();
    sleep(600).await;
    assert!(!node.atlas.is_indexed().await.unwrap());
    assert_eq!(of_user(&node.atlas, "u1", false).await, [id]);
    bench.store.lease_release(&fence).await.unwrap();
    indexed(&node.atlas).await;
    assert_agrees(&bench.store).await;
}

#[tokio::test(start_paused = true)]
async fn building_the_indexes_goes_on_where_a_crash_broke_it_off() {
    let bench = Bench::new(45);
    let node = bench.node("a").await;
    let (id, _) = ended(&bench, &node).await;
    node.crash();
    let row = bench.store.get(Table::Sessions, id.as_bytes()).await;
    let value = row.unwrap().unwrap().value;
    let mut batch = Batch::new();
    for n in 0..5000_u128 {
        batch.put(Table::Sessions, n.to_be_bytes(), value.clone());
    }
    older_release(&bench.store, "a", batch).await;
    let entries = async || all(&bench.store, Table::Ended).await.len();
    let mut crashes = 0;
    let mut most = 0;
    while entries().await < 5001 {
        let node = bench.node("a").await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        node.crash();
        let now = entries().await;
        assert!(now >= most || crashes == 1, "{now} after {most}");
        most = now;
        crashes += 1;
        assert!(crashes < 500);
    }
    assert!(crashes > 2, "it was broken off {crashes} times");
    let node = bench.node("a").await;
    indexed(&node.atlas).await;
    assert_eq!(entries().await, 5001);
}
