//! `sim_rate`: histories per second of the wall clock, on all cores. Reported only: there is no
//! bare history to compare it with.

use super::Measured;
use crate::Failure;

const SEEDS: u32 = 60;

pub(super) fn measure() -> Result<Measured, Failure> {
    let began = tokio::time::Instant::now();
    let report =
        atlas_histories::run::seeds(&atlas_histories::cloud::Cloud::all(), 0, SEEDS.into());
    let value = f64::from(SEEDS) / began.elapsed().as_secs_f64();
    let violations = report.violations.len();
    if violations > 0 {
        eprintln!("sim_rate: {violations} violations; `cargo xtask sim` tells them");
    }
    Ok(Measured {
        value,
        baseline: None,
        point_reads: None,
    })
}
