//! Holds what our provider crates send, and what our dialects answer, against the clouds' own API
//! documents.
//!
//! `atlas-contract --specs DIR [--cloud NAME] [--json]`. Without the documents: a loud skip, or
//! with `CI=true` a failure.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use atlas_contract::cloud::{CLOUDS, Cloud, CloudSubject};
use atlas_contract::contract::{Finding, check};
use atlas_contract::examples;
use atlas_contract::openapi::{Document, Exchange};
use atlas_contract::tap::Tap;
use atlas_contract::waiver;
use atlas_http::Transport;
use atlas_testkit::conformance;
use serde_json::json;

const USAGE: &str = "usage: atlas-contract --specs DIR [--cloud NAME] [--json]";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("contract: {message}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, String> {
    let mut specs = None::<PathBuf>;
    let mut only = None::<String>;
    let mut as_json = false;
    let mut args = std::env::args_os().skip(1);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--specs") => specs = Some(args.next().ok_or(USAGE)?.into()),
            Some("--cloud") => {
                only = Some(
                    args.next()
                        .and_then(|name| name.into_string().ok())
                        .ok_or(USAGE)?,
                )
            }
            Some("--json") => as_json = true,
            _ => return Err(USAGE.to_owned()),
        }
    }
    let specs = specs.ok_or(USAGE)?;
    let clouds: Vec<&Cloud> = CLOUDS
        .iter()
        .filter(|cloud| only.as_deref().is_none_or(|only| only == cloud.name))
        .collect();
    let absent: Vec<_> = clouds
        .iter()
        .map(|cloud| specs.join(cloud.document))
        .filter(|path| !path.is_file())
        .collect();
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    for path in &absent {
        let word = if ci { "CI may skip nothing" } else { "SKIPPED" };
        eprintln!("contract: {word}: there is no {}", path.display());
    }
    if ci && !absent.is_empty() {
        return Ok(false);
    }
    let mut findings = BTreeMap::new();
    let mut driven = true;
    for cloud in clouds
        .into_iter()
        .filter(|cloud| specs.join(cloud.document).is_file())
    {
        let document = Arc::new(Document::read(&specs.join(cloud.document))?);
        let subject = CloudSubject::new(*cloud, 7);
        driven &= drive(cloud, &subject)?;
        let mut exchanges = subject.take();
        driven &= show(cloud, &document, &mut exchanges)?;
        findings.insert(
            cloud.name,
            check(&document, cloud.hosts, &exchanges, &waiver::of(cloud.name)),
        );
    }
    if as_json {
        println!("{}", json!({ "clouds": findings }));
    }
    for (cloud, finding) in &findings {
        tell(cloud, finding);
    }
    Ok(driven && findings.values().all(|finding| finding.mismatches == 0))
}

fn paused() -> Result<tokio::runtime::Runtime, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.map_err(|error| error.to_string())
}

/// Makes the provider call each of its operations once where the document's own examples are
/// answered. Those answers are not the dialect's and do not count; that the provider understands
/// them does.
fn show(
    cloud: &Cloud,
    document: &Arc<Document>,
    exchanges: &mut Vec<Exchange>,
) -> Result<bool, String> {
    let tap = Tap::new(examples::transport(document.clone()), cloud.reading);
    let calls = paused()?
        .block_on((cloud.every)(Transport::new(tap.clone())))
        .map_err(|error| error.to_string())?;
    let mut understood = true;
    for (call, answer) in calls {
        if let Err(error) = answer {
            eprintln!(
                "contract: {}: {call} does not understand the document's own example: {error}",
                cloud.name
            );
            understood = false;
        }
    }
    exchanges.extend(tap.take().into_iter().map(|exchange| Exchange {
        answer: None,
        ..exchange
    }));
    Ok(understood)
}

/// Makes the provider and the dialect meet in everything the conformance suite does and more;
/// `false` when a call failed.
fn drive(cloud: &Cloud, subject: &CloudSubject) -> Result<bool, String> {
    paused()?.block_on(async {
        let report = conformance::run(subject).await;
        for failure in &report.failures {
            eprintln!(
                "contract: {}: the case {} does not hold here: {}",
                cloud.name, failure.case, failure.reason
            );
        }
        let more = (cloud.more)(subject).await;
        if let Err(error) = &more {
            eprintln!(
                "contract: {}: not every call could be made: {error}",
                cloud.name
            );
        }
        Ok(more.is_ok())
    })
}

fn tell(cloud: &str, finding: &Finding) {
    for (mismatch, times) in &finding.details {
        eprintln!("contract: {cloud}: {mismatch} ({times} times)");
    }
    for waiver in &finding.idle {
        eprintln!("contract: {cloud}: a waiver that nothing needs: {waiver}");
    }
    if !finding.uncovered.is_empty() {
        eprintln!(
            "contract: {cloud}: never called: {}",
            finding.uncovered.join(", ")
        );
    }
    eprintln!(
        "contract: {cloud}: {} operations, {} requests, {} answers, {} mismatches, {} waivers",
        finding.operations,
        finding.requests,
        finding.answers,
        finding.mismatches,
        finding.waived.len()
    );
}
