//! The conformance matrix: every provider against the public suite, in process.
//!
//! `atlas-conformance [--json]`; exits 1 when a case fails.

use std::collections::BTreeMap;
use std::process::ExitCode;

use atlas_contract::cloud::{CLOUDS, CloudSubject};
use atlas_testkit::conformance::{self, Report, Subject};
use atlas_testkit::mock::MockSubject;
use serde_json::json;

const USAGE: &str = "usage: atlas-conformance [--json]";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("conformance: {message}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, String> {
    let mut as_json = false;
    for arg in std::env::args_os().skip(1) {
        match arg.to_str() {
            Some("--json") => as_json = true,
            _ => return Err(USAGE.to_owned()),
        }
    }
    let mut reports = BTreeMap::from([("mock", examine(&MockSubject::new(7))?)]);
    for cloud in CLOUDS {
        reports.insert(cloud.name, examine(&CloudSubject::new(*cloud, 7))?);
    }
    if as_json {
        println!("{}", json!({ "providers": reports }));
    }
    for (provider, report) in &reports {
        eprintln!("conformance: {provider}: {report}");
    }
    Ok(reports.values().all(|report| report.failed == 0))
}

fn examine(subject: &dyn Subject) -> Result<Report, String> {
    // Paused time: no sockets are involved, so every wait is over at once.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    Ok(runtime.map_err(|error| error.to_string())?.block_on(conformance::run(subject)))
}
