//! `year_of_history`: a file with a few live sessions and a million that ended is opened, its live
//! sessions are taken up and listed, against the same file without those that ended.

use std::path::Path;
use std::time::Duration;

use atlas_core::{AccountLimits, AnyProvider, Error, Timestamp};
use atlas_orchestrator::kernel::record::{Ending, SessionRecord};
use atlas_orchestrator::store::{AnyStore, Batch, Store, Table};
use atlas_orchestrator::{AttemptPhase, Reason, SessionFilter, Shutdown};
use atlas_store_redb::Redb;

use super::Measured;
use super::cloud::Obliging;
use super::sessions::{Fleet, build_indexes, builder, quiet};
use crate::Failure;
use crate::measure::{cpu_time, median};

const LIVE: u64 = 1000;
const ENDED: u64 = 1_000_000;
const PAGE: u64 = 1000;
const ROUNDS: usize = 5;
/// Opening and listing take so little that several are measured as one.
const TIMES: u32 = 10;

pub(super) fn measure() -> Result<Measured, Failure> {
    measure_with(ENDED, ROUNDS, TIMES)
}

fn measure_with(ended: u64, rounds: usize, times: u32) -> Result<Measured, Failure> {
    let dir = tempfile::Builder::new().prefix("atlas-bench-").tempdir()?;
    let (with, without) = (
        dir.path().join("with.redb"),
        dir.path().join("without.redb"),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(prepare(&with, ended))?;
    runtime.block_on(prepare(&without, 0))?;
    let (mut value, mut base) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (mut ours, mut theirs) = (0.0, 0.0);
        for _ in 0..times {
            ours += runtime.block_on(open_and_list(&with))?;
            theirs += runtime.block_on(open_and_list(&without))?;
        }
        if round > 0 {
            value.push(ours / f64::from(times));
            base.push(theirs / f64::from(times));
        }
    }
    Ok(Measured {
        value: median(value),
        baseline: Some(median(base)),
        point_reads: None,
    })
}

/// A file with the live sessions and so many that ended over the last year, and whole indexes.
async fn prepare(path: &Path, ended: u64) -> Result<(), Failure> {
    let store = Redb::open(path)?;
    let fleet = Fleet::new(LIVE + ended)?;
    let now = store.now().await?;
    for from in (0..LIVE + ended).step_by(1000) {
        let mut batch = Batch::new();
        for index in from..(LIVE + ended).min(from + PAGE) {
            let mut record = fleet.record(index)?;
            // The live ones lie anywhere among the others.
            if index % (LIVE + ended).div_ceil(LIVE) != 0 {
                end(&mut record, year_before(now, index, LIVE + ended));
            }
            batch.put(Table::Sessions, *record.id.as_bytes(), record.encode());
        }
        store.commit(batch).await.map_err(Error::from)?;
    }
    build_indexes(AnyStore::new(store)).await
}

/// When the session of this place among so many ended.
fn year_before(now: Timestamp, index: u64, of: u64) -> Timestamp {
    let year = 365 * 24 * 3600 * 1000;
    now.saturating_sub(Duration::from_millis(year * (of - index) / of))
}

fn end(record: &mut SessionRecord, at: Timestamp) {
    for attempt in &mut record.attempts {
        attempt.phase = AttemptPhase::Dead;
        attempt.ended_at = Some(at);
    }
    record.ending = Some(Ending {
        reason: Reason::Requested,
        at,
        done_at: Some(at),
    });
}

/// CPU milliseconds until every live session is looked after and listed.
async fn open_and_list(path: &Path) -> Result<f64, Failure> {
    let before = cpu_time();
    let store = AnyStore::new(Redb::open(path)?);
    let cloud = AnyProvider::new(Obliging::new()?);
    let orchestrator = builder(store, cloud, quiet(AccountLimits::default()))?
        .start()
        .await?;
    let listed = orchestrator.list(SessionFilter::live()).await?.len();
    let used = cpu_time().saturating_sub(before);
    let tracked = orchestrator.tracked();
    orchestrator.shutdown(Shutdown::Handover).await?;
    if (tracked as u64, listed as u64) != (LIVE, LIVE) {
        return Err(format!("{tracked} sessions were adopted, {listed} listed").into());
    }
    Ok(used.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_history_is_measured() {
        let measured = measure_with(3000, 1, 1).unwrap();
        assert!(measured.value > 0.0 && measured.baseline.is_some_and(|base| base > 0.0));
    }
}
