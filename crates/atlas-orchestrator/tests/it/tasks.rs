//! How tasks end besides by themselves, and what decides when: limits, people, dying machines,
//! sources of activity.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atlas_core::{Error, ErrorKind, Result, SeededEntropy, Timestamp};
use atlas_orchestrator::store::AnyStore;
use atlas_orchestrator::{
    ActivitySource, AnyActivitySource, Death, EventKind, Limit, Orchestrator, Proof, Reason,
    SessionId, SessionKind, SessionOptions, SessionState, TaskKind,
};
use atlas_testkit::world::FaultKind;

use crate::node::{Bench, account, request, settle, sleep};

#[tokio::test(start_paused = true)]
async fn a_task_that_outruns_its_limit_is_timed_out_on_the_tick() {
    let bench = Bench::new(1);
    let node = bench.node("a").await;
    let begun = node.atlas.now();
    let options = SessionOptions::new().max_runtime(Duration::from_secs(300));
    let (session, outcome) = node
        .atlas
        .run_task(request().command(["serve"]), options)
        .await
        .unwrap();
    let ran = node.atlas.now().since(begun);
    assert!(
        ran >= Duration::from_secs(300) && ran <= Duration::from_secs(301),
        "{ran:?}"
    );
    assert_eq!(
        (outcome.kind, outcome.exit_code, outcome.proof),
        (TaskKind::TimedOut, None, Proof::Inferred)
    );
    settle(&node, session.id()).await;
    assert_eq!(bench.ledger().live, 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_without_a_limit_has_one_all_the_same() {
    let bench = Bench::new(2);
    let node = bench.node("a").await;
    let id = node
        .atlas
        .launch(
            request().command(["serve"]),
            SessionOptions::new(),
            SessionKind::Task,
        )
        .await
        .unwrap();
    let info = node.atlas.info(id).await.unwrap();
    assert_eq!(
        info.options.max_runtime,
        Some(atlas_orchestrator::DEFAULT_TASK_RUNTIME)
    );
}

#[tokio::test(start_paused = true)]
async fn a_stopped_task_is_cancelled_and_a_later_exit_changes_nothing() {
    let bench = Bench::new(3);
    let node = bench.node("a").await;
    let id = node
        .atlas
        .launch(
            request().command(["serve"]),
            SessionOptions::new(),
            SessionKind::Task,
        )
        .await
        .unwrap();
    let session = node.atlas.session(id).await.unwrap();
    session.await_ready(Duration::from_secs(300)).await.unwrap();
    session.stop().await.unwrap();
    node.atlas.report_exit(id, 0).await.unwrap();
    let outcome = session.await_outcome().await.unwrap();
    assert_eq!(
        (outcome.kind, outcome.exit_code),
        (TaskKind::Cancelled, None)
    );
    settle(&node, id).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_machine_vanished_failed_without_a_code() {
    let bench = Bench::new(4);
    let node = bench.node("a").await;
    let id = node
        .atlas
        .launch(
            request().command(["serve"]),
            SessionOptions::new(),
            SessionKind::Task,
        )
        .await
        .unwrap();
    let session = node.atlas.session(id).await.unwrap();
    let info = session.await_ready(Duration::from_secs(300)).await.unwrap();
    sleep(300).await;
    assert!(
        bench
            .cloud
            .world()
            .vanish_machine("mock", info.compute.unwrap().id.as_str())
    );
    let outcome = session.await_outcome().await.unwrap();
    assert_eq!(
        (outcome.kind, outcome.exit_code, outcome.proof),
        (TaskKind::Failed, None, Proof::Inferred)
    );
    assert_eq!(
        session.info().await.unwrap().reason,
        Some(Reason::MachineDied {
            how: Death::Vanished
        })
    );
    settle(&node, id).await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_not_usable_in_time_is_ended_on_the_tick() {
    let bench = Bench::new(5);
    let node = bench.node("a").await;
    bench.fault("spawn_compute", FaultKind::NeverReady);
    let options = SessionOptions::new().ready_timeout(Duration::from_secs(120));
    let session = node.atlas.spawn(request(), options).await.unwrap();
    let error = session
        .await_ready(Duration::from_secs(600))
        .await
        .unwrap_err();
    let events = node.events().await;
    let at = |wanted: fn(&EventKind) -> bool| {
        events.iter().find(|event| wanted(&event.kind)).unwrap().at
    };
    let waited = at(|kind| matches!(kind, EventKind::Died { .. }))
        .since(at(|kind| matches!(kind, EventKind::Attempt { .. })));
    assert!(
        waited >= Duration::from_secs(120) && waited <= Duration::from_millis(121_500),
        "{waited:?}"
    );
    assert!(
        error.to_string().contains("terminating"),
        "the state last seen is named: {error}"
    );
    settle(&node, session.id()).await;
    assert_eq!(bench.ledger().live, 0);
}

/// The ways in which a source can be of no use.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Broken {
    Fails,
    Hangs,
    Panics,
}

/// Knows of no activity, or is broken.
#[derive(Clone, Debug)]
struct Source {
    broken: Arc<AtomicBool>,
    how: Broken,
}

impl ActivitySource for Source {
    fn name(&self) -> &str {
        "queue"
    }

    async fn last_activity(&self, _: SessionId) -> Result<Option<Timestamp>> {
        match self.how {
            _ if !self.broken.load(Ordering::Relaxed) => Ok(None),
            Broken::Fails => Err(Error::new(ErrorKind::Unavailable, "the queue is away")),
            Broken::Hangs => std::future::pending().await,
            Broken::Panics => panic!("the queue is away"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_counts_as_active_until_max_runtime() {
    counts_as_active_until_max_runtime(Broken::Fails).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_counts_as_active_until_max_runtime() {
    counts_as_active_until_max_runtime(Broken::Hangs).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_counts_as_active_until_max_runtime() {
    counts_as_active_until_max_runtime(Broken::Panics).await;
}

async fn counts_as_active_until_max_runtime(how: Broken) {
    let bench = Bench::new(6);
    let source = Source {
        broken: Arc::new(AtomicBool::new(true)),
        how,
    };
    let atlas = Orchestrator::builder()
        .account(account(), bench.cloud.provider())
        .store(AnyStore::new(bench.store.clone()))
        .realm(bench.realm.clone())
        .entropy(Arc::new(SeededEntropy::new(6)))
        .activity(AnyActivitySource::new(source.clone()))
        .start()
        .await
        .unwrap();
    let named = |info: atlas_orchestrator::SessionInfo| info.last_activity_source;
    let options = SessionOptions::new().idle_ttl(Duration::from_secs(60));
    let bounded = atlas
        .spawn(
            request(),
            options.clone().max_runtime(Duration::from_secs(900)),
        )
        .await
        .unwrap();
    let free = atlas.spawn(request(), options).await.unwrap();
    sleep(800).await;
    assert_eq!(
        (
            bounded.info().await.unwrap().reason,
            free.info().await.unwrap().reason
        ),
        (None, None)
    );
    assert_eq!(
        named(free.info().await.unwrap()),
        "queue",
        "info says what keeps it alive"
    );
    let _ = free.touch();
    assert_eq!(named(free.info().await.unwrap()), "touch");
    sleep(120).await;
    assert_eq!(
        bounded.info().await.unwrap().reason,
        Some(Reason::Limit {
            limit: Limit::MaxRuntime
        })
    );
    assert_eq!(free.info().await.unwrap().reason, None);
    source.broken.store(false, Ordering::Relaxed);
    sleep(120).await;
    assert_eq!(
        free.info().await.unwrap().reason,
        Some(Reason::Limit {
            limit: Limit::IdleTtl
        })
    );
}

#[tokio::test(start_paused = true)]
async fn a_deadline_survives_a_restart_on_the_wall_clock() {
    let bench = Bench::new(7);
    let node = bench.node("a").await;
    let begun = node.atlas.now();
    let options = SessionOptions::new()
        .max_runtime(Duration::from_secs(600))
        .idle_ttl(Duration::from_secs(3600));
    let id = node.atlas.spawn(request(), options).await.unwrap().id();
    sleep(200).await;
    node.crash();
    sleep(100).await;
    let node = bench.node("a").await;
    sleep(295).await;
    assert_ne!(
        node.atlas.info(id).await.unwrap().state,
        SessionState::Terminating
    );
    sleep(10).await;
    let wanted = EventKind::Terminating {
        reason: Reason::Limit {
            limit: Limit::MaxRuntime,
        },
    };
    let ended = node
        .events()
        .await
        .into_iter()
        .find(|event| event.kind == wanted)
        .unwrap()
        .at;
    let ran = ended.since(begun);
    assert!(
        ran >= Duration::from_secs(600) && ran <= Duration::from_secs(601),
        "{ran:?}"
    );
}
