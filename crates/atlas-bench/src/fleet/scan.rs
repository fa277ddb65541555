//! `reap_scan`: 100,000 machines listed through the RunPod provider and matched to their sessions,
//! against parsing the same pages.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{AccountLimits, AnyProvider, LaunchKey};
use atlas_http::{Body, Transport};
use atlas_orchestrator::Orchestrator;
use atlas_orchestrator::store::AnyStore;
use atlas_provider_runpod::RunPod;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tower::service_fn;

use super::Measured;
use super::sessions::{Fleet, Generated, Undriven, account, builder, quiet};
use crate::Failure;
use crate::measure::{cpu_time, median};

const SIZE: u64 = 100_000;
const PAGE: u64 = 1000;
const ROUNDS: usize = 3;

pub(super) fn measure() -> Result<Measured, Failure> {
    let fleet = Arc::new(Fleet::new(SIZE)?);
    let pages: Arc<Vec<Bytes>> = Arc::new(
        (0..SIZE / PAGE)
            .map(|page| self::page(&fleet, page))
            .collect(),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let orchestrator = start(fleet, pages.clone()).await?;
        // The first scan tells every session what its machine is; the others find nothing new.
        scan(&orchestrator).await?;
        let (mut value, mut base) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            value.push(scan(&orchestrator).await?);
            base.push(parse(&pages)?);
        }
        Ok(Measured {
            value: median(value),
            baseline: Some(median(base)),
            point_reads: None,
        })
    })
}

async fn start(fleet: Arc<Fleet>, pages: Arc<Vec<Bytes>>) -> Result<Orchestrator, Failure> {
    let cloud = service_fn(move |request: Request<Body>| {
        let page = request
            .uri()
            .query()
            .and_then(|query| query.strip_prefix("cursor="))
            .and_then(|page| page.parse().ok());
        let body: Bytes = pages
            .get(page.unwrap_or(0_usize))
            .cloned()
            .unwrap_or_default();
        async move { Ok::<_, Infallible>(Response::new(Full::new(body))) }
    });
    let limits = AccountLimits {
        call_interval: Duration::ZERO,
        call_deadline: Duration::from_secs(600),
        ..AccountLimits::default()
    };
    let provider = RunPod::builder()
        .api_key("bench-key")
        .transport(Transport::new(cloud))
        .limits(limits)
        .build()?;
    let policy = quiet(limits);
    Ok(builder(
        AnyStore::new(Generated::new(fleet)),
        AnyProvider::new(provider),
        policy,
    )?
    .spawner(Arc::new(Undriven))
    .start()
    .await?)
}

/// CPU milliseconds of one scan.
async fn scan(orchestrator: &Orchestrator) -> Result<f64, Failure> {
    let before = cpu_time();
    let report = orchestrator.reap_now(&account()?, true).await?;
    let used = cpu_time().saturating_sub(before);
    let clean = report.victims.is_empty()
        && report.ambiguous.is_empty()
        && report.quarantined.is_empty()
        && !report.held;
    if !report.complete || report.ours as u64 != SIZE || !clean {
        return Err(format!(
            "the scan went wrong: {} of {} are ours, {report:?}",
            report.ours, report.scanned
        )
        .into());
    }
    Ok(used.as_secs_f64() * 1000.0)
}

/// CPU milliseconds to parse the pages: every field of every machine, as the listing keeps them.
fn parse(pages: &[Bytes]) -> Result<f64, Failure> {
    let before = cpu_time();
    let mut kept = Vec::new();
    for page in pages {
        let mut body: Value = serde_json::from_slice(page)?;
        let Some(Value::Array(pods)) = body.get_mut("pods").map(Value::take) else {
            return Err("a page without pods".into());
        };
        kept.extend(pods);
    }
    let whole = kept.len() as u64 == SIZE;
    // A scan lets go of what it read, too.
    drop(kept);
    let used = cpu_time().saturating_sub(before);
    if whole {
        Ok(used.as_secs_f64() * 1000.0)
    } else {
        Err("machines are missing".into())
    }
}

fn page(fleet: &Fleet, page: u64) -> Bytes {
    let pods: Vec<Value> = (page * PAGE..(page + 1) * PAGE)
        .map(|index| pod(fleet, index))
        .collect();
    let more = (page + 1) * PAGE < SIZE;
    let pagination =
        json!({ "hasNextPage": more, "nextCursor": more.then(|| (page + 1).to_string()) });
    Bytes::from(json!({ "pods": pods, "pagination": pagination }).to_string())
}

fn pod(fleet: &Fleet, index: u64) -> Value {
    let (id, key) = fleet.machine(index);
    json!({
        "id": id,
        "name": LaunchKey::Tracked(key).machine_name(atlas_core::DEFAULT_NAME_PREFIX, Some("u42")),
        "status": "RUNNING",
        "image": "ghcr.io/acme/infer:1.2.3",
        "ports": ["8000/http", "22/tcp"],
        "env": { "ATLAS_LAUNCH_KEY": key.to_string(), "MODEL": "llama", "PORT": "8000" },
        "cloud": "SECURE",
        "locked": false,
        "dataCenterId": "EU-RO-1",
        "gpu": { "id": "NVIDIA H100 80GB HBM3", "count": 1, "name": "H100 SXM", "vram": 80 },
        "disk": 50,
        "volume": { "size": 100, "path": "/workspace" },
        "ssh": { "direct": { "host": "203.0.113.7", "port": 10_322 }, "proxy": {
            "user": format!("{id}-6441f0a1") } },
        "cost": 2.69,
        "costBreakdown": { "compute": 2.69, "disk": 0.007, "volume": 0.014 },
        "runtime": {
            "uptime": 8_412,
            "ports": [
                { "private": 8000, "public": 60_212, "type": "http", "ip": "100.65.12.9" },
                { "private": 22, "public": 10_322, "type": "tcp", "ip": "203.0.113.7" }
            ],
        },
        "createdAt": "2026-11-20T08:15:30.123Z"
    })
}
