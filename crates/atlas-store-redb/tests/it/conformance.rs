//! The suite that every store must pass.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atlas_core::{Clock, Error, Timestamp};
use atlas_orchestrator::store::AnyStore;
use atlas_orchestrator::store::conformance::{Subject, run};
use atlas_store_redb::{Redb, RedbOptions};

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
struct OnDisk {
    dir: tempfile::TempDir,
    clock: Arc<Hand>,
    opened: Mutex<Vec<PathBuf>>,
}

impl OnDisk {
    fn open(&self, path: PathBuf) -> Result<Redb, Error> {
        self.opened.lock().unwrap().push(path.clone());
        RedbOptions::new()
            .clock(self.clock.clone())
            .wait(Duration::ZERO)
            .open(path)
    }
}

impl Subject for OnDisk {
    async fn fresh(&self) -> Result<AnyStore, Error> {
        let count = self.opened.lock().unwrap().len();
        self.open(self.dir.path().join(format!("{count}.redb")))
            .map(AnyStore::new)
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    async fn reopen(&self, store: AnyStore) -> Result<Option<AnyStore>, Error> {
        let path = self.opened.lock().unwrap().last().unwrap().clone();
        drop(store);
        self.open(path).map(AnyStore::new).map(Some)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_redb_store_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let report = run(&OnDisk {
        dir,
        clock: Arc::default(),
        opened: Mutex::default(),
    })
    .await;
    assert_eq!(report.failed, []);
    assert_eq!(report.skipped, [""; 0]);
    assert!(report.passed.len() >= 35, "{report:#?}");
}
