//! `shutdown`: virtual time until the last of 10,000 DELETEs was accepted, against the number
//! divided by the cloud's rate.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::{AccountLimits, AnyProvider, SystemClock};
use atlas_orchestrator::Shutdown;
use atlas_orchestrator::store::{AnyStore, Memory};
use tokio::time::Instant;

use super::Measured;
use super::cloud::Obliging;
use super::sessions::{Fleet, builder, quiet};
use crate::Failure;

const SIZE: u32 = 10_000;
const INTERVAL: Duration = Duration::from_millis(10);

pub(super) fn measure() -> Result<Measured, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()?;
    runtime.block_on(async {
        let fleet = Fleet::new(SIZE.into())?;
        let store = Memory::new(Arc::new(SystemClock), &atlas_core::SeededEntropy::new(1));
        fleet.put_into(&store).await?;
        let cloud = Obliging::new()?;
        let limits = AccountLimits {
            call_interval: INTERVAL,
            burst: 1,
            ..AccountLimits::default()
        };
        let orchestrator = builder(
            AnyStore::new(store),
            AnyProvider::new(cloud.clone()),
            quiet(limits),
        )?
        .start()
        .await?;
        let began = Instant::now();
        let report = orchestrator
            .shutdown(Shutdown::TerminateAll {
                wait: Duration::from_secs(3600),
            })
            .await?;
        let (ended, last) = cloud.ends();
        let took = last.ok_or("nothing was ended")?.duration_since(began);
        if ended != SIZE as usize || report.terminated != ended {
            return Err(format!(
                "{ended} were ended, {} proved, {} left",
                report.terminated,
                report.unsettled.len()
            )
            .into());
        }
        let baseline = (INTERVAL * SIZE).as_secs_f64();
        Ok(Measured {
            value: took.as_secs_f64(),
            baseline: Some(baseline),
            point_reads: None,
        })
    })
}
