//! Usable: what the cloud says, and what the host asks the machine besides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use atlas_core::{Compute, ComputeStatus, ErrorKind, SeededEntropy};
use atlas_orchestrator::store::AnyStore;
use atlas_orchestrator::{
    AnyReadyProbe, Limit, OnFailure, Orchestrator, Probe, ReadyProbe, Reason, SessionId,
    SessionOptions, SessionState,
};

use crate::node::{Bench, account, options, request, sleep};

/// Reports readiness on request; counts how often it was asked.
#[derive(Clone, Debug, Default)]
struct Asked {
    yes: Arc<AtomicBool>,
    times: Arc<AtomicU32>,
}

impl ReadyProbe for Asked {
    async fn is_ready(&self, _: SessionId, compute: &Compute, wanted: Option<&Probe>) -> bool {
        assert_eq!(
            compute.status,
            ComputeStatus::Running,
            "only a running machine is asked"
        );
        assert_eq!(
            wanted,
            Some(&Probe::http(8000, "/health")),
            "as the session's options say"
        );
        self.times.fetch_add(1, Ordering::Relaxed);
        self.yes.load(Ordering::Relaxed)
    }
}

async fn atlas(bench: &Bench, probe: Option<Asked>) -> Orchestrator {
    let builder = Orchestrator::builder()
        .account(account(), bench.cloud.provider())
        .store(AnyStore::new(bench.store.clone()))
        .realm(bench.realm.clone())
        .entropy(Arc::new(SeededEntropy::new(bench.seed)));
    let builder = probe.into_iter().fold(builder, |builder, probe| {
        builder.probe(AnyReadyProbe::new(probe))
    });
    builder.start().await.unwrap()
}

fn probed() -> SessionOptions {
    options().probe(Probe::http(8000, "/health"))
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_ready_once_it_answers_and_is_not_asked_again() {
    let bench = Bench::new(1);
    let probe = Asked::default();
    let atlas = atlas(&bench, Some(probe.clone())).await;
    let session = atlas.spawn(request(), probed()).await.unwrap();
    let error = session
        .await_ready(Duration::from_secs(300))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        error.to_string().contains("its machine running"),
        "the state last seen is named: {error}"
    );
    assert!(probe.times.load(Ordering::Relaxed) > 10);
    probe.yes.store(true, Ordering::Relaxed);
    session.await_ready(Duration::from_secs(20)).await.unwrap();
    let asked = probe.times.load(Ordering::Relaxed);
    sleep(600).await;
    assert_eq!(probe.times.load(Ordering::Relaxed), asked);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_never_answers_is_replaced_and_then_given_up() {
    let bench = Bench::new(2);
    let atlas = atlas(&bench, Some(Asked::default())).await;
    let options = probed()
        .ready_timeout(Duration::from_secs(120))
        .on_failure(OnFailure::Respawn(1));
    let session = atlas.spawn(request(), options).await.unwrap();
    assert!(session.await_ready(Duration::from_secs(900)).await.is_err());
    let info = session.info().await.unwrap();
    assert_eq!(
        (info.respawns, info.reason),
        (
            1,
            Some(Reason::Limit {
                limit: Limit::ReadyTimeout
            })
        )
    );
    atlas
        .await_terminated(session.id(), Duration::from_secs(900))
        .await
        .unwrap();
    assert_eq!(
        (session.info().await.unwrap().state, bench.ledger().live),
        (SessionState::Terminated, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_nothing_could_carry_out_is_refused() {
    let bench = Bench::new(3);
    let without = atlas(&bench, None).await;
    let field = |error: atlas_core::Error| error.field().map(str::to_owned);
    assert_eq!(
        field(without.spawn(request(), probed()).await.unwrap_err()).as_deref(),
        Some("probe")
    );
    without
        .shutdown(atlas_orchestrator::Shutdown::Handover)
        .await
        .unwrap();
    let with = atlas(&bench, Some(Asked::default())).await;
    for wrong in [
        Probe::tcp(9000),
        Probe::http(8000, "health"),
        Probe::http(8000, "/a b"),
        Probe::http(8000, ""),
    ] {
        assert_eq!(
            field(
                with.spawn(request(), options().probe(wrong))
                    .await
                    .unwrap_err()
            )
            .as_deref(),
            Some("probe")
        );
    }
    assert_eq!(bench.ledger().created, 0);
}
