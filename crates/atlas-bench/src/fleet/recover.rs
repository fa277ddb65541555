//! `recover`: a file with 100,000 sessions is opened and all of them are adopted, against reading
//! and decoding the same rows.

use std::path::Path;

use atlas_core::{AccountLimits, AnyProvider};
use atlas_orchestrator::kernel::SessionRecord;
use atlas_orchestrator::store::{AnyStore, Store, Table};
use atlas_orchestrator::{SessionState, Shutdown};
use atlas_store_redb::Redb;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::Measured;
use super::cloud::Obliging;
use super::sessions::{Fleet, build_indexes, builder, quiet};
use crate::Failure;
use crate::measure::{cpu_time, median};

const SIZE: u64 = 100_000;
const ROUNDS: usize = 3;
const ROWS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("rows");

pub(super) fn measure() -> Result<Measured, Failure> {
    let dir = tempfile::Builder::new().prefix("atlas-bench-").tempdir()?;
    let (ours, bare) = (dir.path().join("ours.redb"), dir.path().join("bare.redb"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(prepare(&ours, &bare))?;
    let (mut value, mut base) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let ours = runtime.block_on(adopt(&ours))?;
        let theirs = read(&bare)?;
        if round > 0 {
            value.push(ours);
            base.push(theirs);
        }
    }
    Ok(Measured {
        value: median(value),
        baseline: Some(median(base)),
        point_reads: None,
    })
}

async fn prepare(ours: &Path, bare: &Path) -> Result<(), Failure> {
    let store = Redb::open(ours)?;
    Fleet::new(SIZE)?.put_into(&store).await?;
    let bare = Database::create(bare)?;
    let txn = bare.begin_write()?;
    {
        let mut rows = txn.open_table(ROWS)?;
        for row in store.scan(Table::Sessions, &[], None, usize::MAX).await? {
            rows.insert(row.key.as_slice(), row.value.as_slice())?;
        }
    }
    txn.commit()?;
    build_indexes(AnyStore::new(store)).await
}

/// CPU milliseconds until every session is looked after.
async fn adopt(path: &Path) -> Result<f64, Failure> {
    let before = cpu_time();
    let store = AnyStore::new(Redb::open(path)?);
    let cloud = AnyProvider::new(Obliging::new()?);
    let orchestrator = builder(store, cloud, quiet(AccountLimits::default()))?
        .start()
        .await?;
    let used = cpu_time().saturating_sub(before);
    if orchestrator.tracked() as u64 != SIZE {
        return Err(format!("{} sessions were adopted", orchestrator.tracked()).into());
    }
    orchestrator.shutdown(Shutdown::Handover).await?;
    Ok(used.as_secs_f64() * 1000.0)
}

/// CPU milliseconds to open the file and make records of its rows.
fn read(path: &Path) -> Result<f64, Failure> {
    let before = cpu_time();
    let db = Database::open(path)?;
    let txn = db.begin_read()?;
    let rows = txn.open_table(ROWS)?;
    let mut ready = 0;
    for row in rows.iter()? {
        let record = SessionRecord::decode(row?.1.value())?;
        ready += u64::from(record.state() == SessionState::Ready);
    }
    let used = cpu_time().saturating_sub(before);
    if ready == SIZE {
        Ok(used.as_secs_f64() * 1000.0)
    } else {
        Err(format!("only {ready} rows are ready sessions").into())
    }
}
