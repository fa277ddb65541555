//! The conformance matrix: every provider against the public suite, in process, with reads that
//! lag, and over TCP.
//!
//! `atlas-conformance [--json] [--cloud NAME | --live NAME]`; exits 1 when a case fails. `--cloud`
//! tries one cloud only. `--live` runs one provider against the real cloud instead, with the key of
//! its environment variable and never for more than half a dollar.

use std::collections::BTreeMap;
use std::process::ExitCode;

use atlas_contract::cloud::{CLOUDS, Cloud, CloudSubject, LiveSubject};
use atlas_testkit::conformance::{self, Report, Subject};
use atlas_testkit::mock::MockSubject;
use serde_json::json;

const USAGE: &str = "usage: atlas-conformance [--json] [--cloud NAME | --live NAME]";

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
    let (mut live, mut only) = (None, None);
    let mut args = std::env::args_os().skip(1);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--json") => as_json = true,
            Some("--live") => {
                live = Some(
                    args.next()
                        .and_then(|name| name.into_string().ok())
                        .ok_or(USAGE)?,
                )
            }
            Some("--cloud") => {
                only = Some(
                    args.next()
                        .and_then(|name| name.into_string().ok())
                        .ok_or(USAGE)?,
                )
            }
            _ => return Err(USAGE.to_owned()),
        }
    }
    let reports = match live {
        Some(name) => {
            let cloud = CLOUDS
                .iter()
                .find(|cloud| cloud.name == name)
                .ok_or_else(|| format!("there is no provider {name}"))?;
            let subject = LiveSubject::new(*cloud).map_err(|error| error.to_string())?;
            BTreeMap::from([(name, examine(Time::Real, &subject)?)])
        }
        None => matrix(only.as_deref())?,
    };
    if as_json {
        println!("{}", json!({ "providers": reports }));
    }
    for (provider, report) in &reports {
        eprintln!("conformance: {provider}: {report}");
    }
    Ok(reports.values().all(|report| report.failed == 0))
}

/// The runs over TCP wait in real time: they all wait together, each on a thread, while those in
/// process run.
fn matrix(only: Option<&str>) -> Result<BTreeMap<String, Report>, String> {
    let chosen = |name: &str| only.is_none_or(|only| only == name);
    let clouds: Vec<_> = CLOUDS.iter().filter(|cloud| chosen(cloud.name)).collect();
    let subject = |cloud: &Cloud| CloudSubject::new(*cloud, 7);
    std::thread::scope(|scope| {
        let served = clouds.iter().filter(|cloud| cloud.served);
        let waiting: Vec<_> = served
            .map(|cloud| {
                (
                    cloud,
                    scope.spawn(move || examine(Time::Real, &subject(cloud).over_tcp())),
                )
            })
            .collect();
        let mut reports = BTreeMap::new();
        if chosen("mock") {
            reports.insert(
                "mock".to_owned(),
                examine(Time::Paused, &MockSubject::new(7))?,
            );
        }
        for cloud in &clouds {
            reports.insert(
                cloud.name.to_owned(),
                examine(Time::Paused, &subject(cloud))?,
            );
            reports.insert(
                format!("{}/lagging", cloud.name),
                examine(Time::Paused, &subject(cloud).lagging())?,
            );
        }
        for (cloud, run) in waiting {
            let report = run
                .join()
                .map_err(|_| format!("the run of {} over TCP panicked", cloud.name))??;
            reports.insert(format!("{}/tcp", cloud.name), report);
        }
        Ok(reports)
    })
}

/// Paused where no sockets are involved: every wait is over at once.
#[derive(PartialEq, Eq)]
enum Time {
    Paused,
    Real,
}

fn examine(time: Time, subject: &dyn Subject) -> Result<Report, String> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder
        .enable_all()
        .start_paused(time == Time::Paused)
        .build();
    Ok(runtime
        .map_err(|error| error.to_string())?
        .block_on(conformance::run(subject)))
}
