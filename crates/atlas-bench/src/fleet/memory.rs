//! `session_bytes_N`: what an idle tracked session adds to this process, allocator included.

use std::sync::Arc;

use atlas_core::{AccountLimits, AnyProvider};
use atlas_orchestrator::Orchestrator;
use atlas_orchestrator::store::AnyStore;

use super::Measured;
use super::cloud::Obliging;
use super::sessions::{Fleet, Generated, builder, quiet};
use crate::Failure;

/// Resident memory. It counts more than the heap's own books: what the allocator wastes is ours
/// too.
fn resident_bytes() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .ok_or("this system does not say how much memory is used")?;
    let kib: f64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kib * 1024.0)
}

async fn track(size: u64) -> Result<Orchestrator, Failure> {
    let store = AnyStore::new(Generated::new(Arc::new(Fleet::new(size)?)));
    let cloud = AnyProvider::new(Obliging::new()?);
    let orchestrator = builder(store, cloud, quiet(AccountLimits::default()))?
        .start()
        .await?;
    if orchestrator.tracked() as u64 != size {
        return Err(format!("{} of {size} sessions are tracked", orchestrator.tracked()).into());
    }
    // Whatever has to be done at once is done; an idle session has nothing.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    Ok(orchestrator)
}

pub(super) fn measure(size: u64) -> Result<Measured, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // The first one pays for what does not grow with sessions: pages of rows, tasks, the
        // runtime.
        let small = track(2000).await?;
        let before = resident_bytes()?;
        let large = track(size).await?;
        let after = resident_bytes()?;
        drop((small, large));
        #[expect(clippy::cast_precision_loss, reason = "a million is exact")]
        let value = (after - before) / size as f64;
        Ok(Measured {
            value,
            baseline: None,
            point_reads: None,
        })
    })
}
