//! Rows about many sessions: what one costs in memory, in touches, on disk, at a restart, in a scan
//! and at the end.
//!
//! Each is measured in a process of its own, so that no row inherits another's heap, caches or
//! paused clock.

mod cloud;
mod durable;
mod fanout;
mod memory;
mod recover;
mod scan;
mod sessions;
mod shutdown;
mod sim;
mod terminate;
mod touch;
mod year;

use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::measure::Row;

/// Starts this program for one row alone; its name follows.
pub(crate) const FLAG: &str = "--alone";

/// A value and its baseline, both in the row's unit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Measured {
    value: f64,
    baseline: Option<f64>,
    /// Reads of single machines for each machine that was ended.
    #[serde(default)]
    point_reads: Option<f64>,
}

struct Work {
    name: &'static str,
    unit: &'static str,
    measure: fn() -> Result<Measured, Failure>,
}

const WORK: [Work; 12] = [
    Work {
        name: "session_bytes_100k",
        unit: "bytes of heap per idle session",
        measure: || memory::measure(100_000),
    },
    Work {
        name: "session_bytes_1m",
        unit: "bytes of heap per idle session",
        measure: || memory::measure(1_000_000),
    },
    Work {
        name: "touch_1",
        unit: "touches per CPU second",
        measure: || touch::measure(1),
    },
    Work {
        name: "touch_2",
        unit: "touches per CPU second",
        measure: || touch::measure(2),
    },
    Work {
        name: "spawn_rate",
        unit: "durable sessions per second",
        measure: durable::measure,
    },
    Work {
        name: "recover",
        unit: "CPU ms for 100,000 sessions",
        measure: recover::measure,
    },
    Work {
        name: "year_of_history",
        unit: "CPU ms to open and list 1,000 among 1,000,000 ended",
        measure: year::measure,
    },
    Work {
        name: "reap_scan",
        unit: "CPU ms for 100,000 machines",
        measure: scan::measure,
    },
    Work {
        name: "fanout",
        unit: "deliveries per CPU second",
        measure: fanout::measure,
    },
    Work {
        name: "shutdown",
        unit: "virtual seconds to the last of 10,000 deletes",
        measure: shutdown::measure,
    },
    Work {
        name: "terminate_all_2000",
        unit: "seconds until the ends of 2,000 machines are proved",
        measure: terminate::measure,
    },
    Work {
        name: "sim_rate",
        unit: "histories per second",
        measure: sim::measure,
    },
];

/// One row, measured in a process of its own.
pub(crate) fn row(name: &'static str) -> Result<Row, Failure> {
    let work = WORK
        .iter()
        .find(|work| work.name == name)
        .ok_or("no such row")?;
    let mut measured = alone(name)?;
    if name == "session_bytes_1m" {
        // Flat: a session costs among a million what it costs among a tenth of that.
        measured.baseline = Some(alone("session_bytes_100k")?.value);
    }
    Ok(Row {
        name: work.name,
        value: measured.value,
        unit: work.unit,
        baseline: measured.baseline,
        point_reads: measured.point_reads,
    })
}

fn alone(name: &str) -> Result<Measured, Failure> {
    let output = Command::new(std::env::current_exe()?)
        .args([FLAG, name])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("{name}: its process failed: {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The process of one row.
pub(crate) fn run(name: Option<&str>) -> Result<(), Failure> {
    let work = WORK
        .iter()
        .find(|work| Some(work.name) == name)
        .ok_or("no such row")?;
    println!("{}", serde_json::to_string(&(work.measure)()?)?);
    Ok(())
}
