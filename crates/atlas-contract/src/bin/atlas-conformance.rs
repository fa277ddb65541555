//! The conformance matrix: every provider against the public suite, in process and over TCP.
//!
//! `atlas-conformance [--json]`; exits 1 when a case fails.

use std::collections::BTreeMap;
use std::process::ExitCode;

use atlas_contract::cloud::{CLOUDS, CloudSubject, Way};
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
    let mut reports = BTreeMap::from([("mock".to_owned(), examine(Way::InProcess, &MockSubject::new(7))?)]);
    for cloud in CLOUDS {
        let subject = CloudSubject::new(*cloud, 7);
        reports.insert(cloud.name.to_owned(), examine(Way::InProcess, &subject)?);
        reports.insert(format!("{}/tcp", cloud.name), examine(Way::Tcp, &subject.over_tcp())?);
    }
    if as_json {
        println!("{}", json!({ "providers": reports }));
    }
    for (provider, report) in &reports {
        eprintln!("conformance: {provider}: {report}");
    }
    Ok(reports.values().all(|report| report.failed == 0))
}

fn examine(way: Way, subject: &dyn Subject) -> Result<Report, String> {
    // Paused time where no sockets are involved: every wait is over at once.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(way == Way::InProcess).build();
    Ok(runtime.map_err(|error| error.to_string())?.block_on(conformance::run(subject)))
}
