//! Orders of unknown outcome: one machine in the end, whatever was answered.

use std::time::Duration;

use atlas_orchestrator::{EventKind, SessionKind, StopOutcome};
use atlas_testkit::mock::CLOUD;
use atlas_testkit::world::{Fault, FaultKind};

use crate::node::{Bench, account, options, request, settle, sleep};

async fn one_machine_after(kind: FaultKind, seed: u64) {
    let bench = Bench::new(seed);
    let node = bench.node("a").await;
    bench.fault("spawn_compute", kind);
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    let id = session.compute().await.unwrap().id;
    sleep(600).await;
    let ledger = bench.ledger();
    assert_eq!(ledger.live, 1, "{kind:?}");
    assert!(
        ledger
            .machines
            .iter()
            .any(|machine| machine.id == id.as_str() && machine.destroyed_at.is_none()),
        "{kind:?}"
    );
    session.stop().await.unwrap();
    settle(&node, session.id()).await;
    assert_eq!(bench.ledger().live, 0, "{kind:?}");
}

#[tokio::test(start_paused = true)]
async fn every_lost_answer_ends_with_exactly_one_machine() {
    let kinds = [
        FaultKind::CommitThen500,
        FaultKind::CommitThenReset,
        FaultKind::CommitThenTimeout,
        FaultKind::ResetBeforeCommit,
        FaultKind::Status500,
        FaultKind::Status429,
        FaultKind::Html502,
        FaultKind::Truncated,
        FaultKind::Slow,
        FaultKind::DuplicateCommit,
        FaultKind::LateAppearance,
    ];
    for (seed, kind) in kinds.into_iter().enumerate() {
        one_machine_after(kind, seed as u64).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_committed_create_that_answers_500_makes_one_order_only() {
    let bench = Bench::new(1);
    let node = bench.node("a").await;
    bench.fault("spawn_compute", FaultKind::CommitThen500);
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    assert_eq!(bench.ledger().created, 1);
    let events = node.events().await;
    assert!(
        events
            .iter()
            .any(|event| matches!(event.kind, EventKind::OutcomeUnknown { .. }))
    );
    assert!(
        events
            .iter()
            .any(|event| matches!(event.kind, EventKind::Adopted { .. }))
    );
    assert_eq!(session.info().await.unwrap().attempts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_appears_after_its_attempt_was_given_up_is_ended() {
    let mut bench = Bench::new(2);
    bench.policy.placing_patience = Duration::from_secs(3600);
    let node = bench.node("a").await;
    // The machine exists, unseen for longer than the bound; its answer is lost.
    bench.cloud.world().inject([
        atlas_testkit::world::Fault::new("mock", "spawn_compute", FaultKind::LateAppearance),
        atlas_testkit::world::Fault::new("mock", "spawn_compute", FaultKind::CommitThenReset),
    ]);
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    sleep(3600).await;
    assert_eq!(bench.ledger().live, 1, "{:?}", bench.ledger());
    assert!(session.info().await.unwrap().state == atlas_orchestrator::SessionState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_launch_is_final_and_ends_what_appears() {
    let bench = Bench::new(3);
    let node = bench.node("a").await;
    bench.fault("spawn_compute", FaultKind::CommitThenTimeout);
    let atlas = node.atlas.clone();
    let spawned = tokio::spawn(async move { atlas.spawn(request(), options()).await });
    sleep(3).await;
    let id = node.atlas.list_ids().await.unwrap()[0];
    assert!(matches!(
        node.atlas.stop_tracked(id).await.unwrap(),
        StopOutcome::Terminating { .. }
    ));
    assert!(spawned.await.unwrap().is_err());
    settle(&node, id).await;
    assert_eq!((bench.ledger().created, bench.ledger().live), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_machine_renamed_before_anybody_saw_it_is_reported_and_neither_adopted_nor_ended() {
    let bench = Bench::new(4);
    let node = bench.node("a").await;
    bench.fault("spawn_compute", FaultKind::CommitThenTimeout);
    let atlas = node.atlas.clone();
    let spawned = tokio::spawn(async move { atlas.spawn(request(), options()).await });
    sleep(3).await;
    let machine = bench.ledger().machines[0].clone();
    let foreign = "atlas-x-a1-aaaaaa-nkyqgaabaeaqcaib-aibaeaqc";
    assert!(
        bench
            .cloud
            .world()
            .rename_machine("mock", &machine.id, foreign)
    );
    // It could be somebody's own machine with the environment of ours: another is ordered once ours
    // is called absent.
    let session = spawned.await.unwrap().unwrap();
    assert_ne!(session.compute().await.unwrap().id.as_str(), machine.id);
    let report = node.atlas.reap_now(&account(), true).await.unwrap();
    assert_eq!(
        report
            .ambiguous
            .iter()
            .map(|finding| finding.compute.as_str())
            .collect::<Vec<_>>(),
        [machine.id.as_str()]
    );
    session.stop().await.unwrap();
    settle(&node, session.id()).await;
    sleep(600).await;
    assert_eq!((bench.ledger().created, bench.ledger().live), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn hedged_orders_whose_answers_are_all_lost_are_no_more_than_one_placement_may_make() {
    let bench = Bench::new(5);
    let node = bench.node("a").await;
    bench.cloud.world().inject([
        Fault::new(CLOUD, "spawn_compute", FaultKind::LateAppearance).times(100),
        Fault::new(CLOUD, "spawn_compute", FaultKind::CommitThen500).times(100),
    ]);
    let id = node
        .atlas
        .launch(request(), options().hedge(), SessionKind::Interactive)
        .await
        .unwrap();
    sleep(3600).await;
    let ledger = bench.ledger();
    assert!(
        ledger.created <= u64::from(bench.policy.max_orders),
        "{}",
        ledger.created
    );
    assert_eq!(ledger.live, 1);
    node.atlas.stop_tracked(id).await.unwrap();
    settle(&node, id).await;
    assert_eq!(bench.ledger().live, 0);
}
