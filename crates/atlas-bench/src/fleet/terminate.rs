//! `terminate_all_2000`: seconds of the wall clock until the ends of 2,000 sessions are proved,
//! against a simulated RunPod over TCP that takes 1,200 calls a minute.
//!
//! The baseline is what the protocol needs: two visibility bounds for the proof, and one call for
//! each machine at the cloud's rate.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atlas_core::{AccountLimits, AnyProvider, ComputeRequest, Error, Port};
use atlas_http::Transport;
use atlas_orchestrator::store::AnyStore;
use atlas_orchestrator::{Orchestrator, Policy, SessionKind, SessionOptions, Shutdown};
use atlas_provider_runpod::RunPod;
use atlas_sim::Sim;
use atlas_store_redb::Redb;
use http::{Method, Request};
use tokio::time::Instant;

use super::Measured;
use super::sessions::{account, realm};
use crate::Failure;

const SIZE: u32 = 2000;
/// Calls a second that the simulated RunPod takes.
const RATE: f64 = 20.0;
const BOUND: Duration = Duration::from_secs(2);
/// The longest that the spawns and the ends may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// A client that is faster than the cloud, so that the cloud's rate is the limit.
const LIMITS: AccountLimits = AccountLimits {
    visibility_bound: BOUND,
    call_deadline: Duration::from_secs(30),
    call_interval: Duration::from_millis(1),
    burst: 50,
    concurrency: 64,
};

pub(super) fn measure() -> Result<Measured, Failure> {
    measure_with(SIZE)
}

fn measure_with(size: u32) -> Result<Measured, Failure> {
    let dir = tempfile::Builder::new().prefix("atlas-bench-").tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let sim = atlas_sim::serve(atlas_sim::Options::default()).await?;
        let reads = Arc::new(AtomicU64::new(0));
        let orchestrator = start(&sim, &reads, &dir.path().join("atlas.redb")).await?;
        spawn(&orchestrator, size).await?;
        reads.store(0, Ordering::Relaxed);
        let began = Instant::now();
        let report = orchestrator
            .shutdown(Shutdown::TerminateAll { wait: PATIENCE })
            .await?;
        let took = began.elapsed().as_secs_f64();
        let live: u64 = sim.world().ledger().clouds.values().map(|c| c.live).sum();
        if live > 0 || report.terminated != size as usize {
            let (proved, left) = (report.terminated, report.unsettled.len());
            return Err(format!("{proved} ends were proved, {left} left, {live} live").into());
        }
        let baseline = 2.0 * BOUND.as_secs_f64() + f64::from(size) / RATE;
        let reads = u32::try_from(reads.load(Ordering::Relaxed))?;
        Ok(Measured {
            value: took,
            baseline: Some(baseline),
            point_reads: Some(f64::from(reads) / f64::from(size)),
        })
    })
}

async fn start(
    sim: &Sim,
    reads: &Arc<AtomicU64>,
    store: &std::path::Path,
) -> Result<Orchestrator, Failure> {
    let counted = reads.clone();
    let layer = tower::layer::layer_fn(move |inner: Transport| {
        let counted = counted.clone();
        tower::ServiceExt::map_request(inner, move |request: Request<_>| {
            let is_pod = request
                .uri()
                .path()
                .rsplit_once('/')
                .is_some_and(|(before, _)| before.ends_with("/pods"));
            if is_pod && request.method() == Method::GET {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            request
        })
    });
    let provider = RunPod::builder()
        .api_key(atlas_sim::KEY)
        .control_url(sim.ready().url("runpod", "control"))
        .transport(Transport::hyper().layered(&layer))
        .limits(LIMITS)
        .build()?;
    Ok(Orchestrator::builder()
        .account(account()?, AnyProvider::new(provider))
        .store(AnyStore::new(Redb::open(store)?))
        .realm(realm()?)
        .policy(Policy::default())
        .start()
        .await?)
}

/// Starts the sessions, and waits until each has its machine.
async fn spawn(orchestrator: &Orchestrator, size: u32) -> Result<(), Failure> {
    let began = Instant::now();
    let refused: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let mut spawns = tokio::task::JoinSet::new();
    for _ in 0..size {
        let (orchestrator, refused) = (orchestrator.clone(), refused.clone());
        spawns.spawn(async move {
            let request = ComputeRequest::cpu(2).image("x/y:1").port(Port::http(8000));
            let options = SessionOptions::new().idle_ttl(Duration::from_secs(7200));
            let placed = async {
                let kind = SessionKind::Interactive;
                let id = orchestrator.launch(request, options, kind).await?;
                orchestrator.session(id).await?.await_accepted().await?;
                Ok::<_, Error>(())
            };
            if let Err(error) = placed.await {
                let mut refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
                refused.insert(error.to_string());
            }
        });
    }
    tokio::time::timeout(PATIENCE, spawns.join_all()).await?;
    let refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = refused.first() {
        return Err(format!("a session got no machine: {error}").into());
    }
    eprintln!(
        "terminate_all_2000: {size} spawns took {:.0} s, {:.0} s at the cloud's rate",
        began.elapsed().as_secs_f64(),
        f64::from(size) / RATE
    );
    Ok(())
}
