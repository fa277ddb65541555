//! The reaper: it ends what has no session, and nothing else.

use std::time::Duration;

use atlas_core::{SeededEntropy, Timestamp};
use atlas_orchestrator::store::{AnyStore, Batch, Table};
use atlas_orchestrator::{SessionState, StopOutcome};
use atlas_testkit::mock::KEY;
use atlas_testkit::world::{FaultKind, MachineSpec};

use crate::node::{Bench, account, carrying, ended, options, request, settle, sleep};

#[tokio::test(start_paused = true)]
async fn a_clone_of_an_ended_machine_is_ended_and_a_strangers_is_not() {
    let bench = Bench::new(1);
    let node = bench.node("a").await;
    let (id, key) = ended(&bench, &node).await;
    bench.plant(carrying(key));
    bench.plant(MachineSpec::gpu("gpu-a", 1).named("somebody-elses"));
    let other = atlas_orchestrator::Realm::new(&atlas_core::Secret::new(
        "YW5vdGhlciByYW5kb20gbG9va2luZyBzZWNyZXQhIQ==",
    ))
    .unwrap();
    let foreign = other.mint_key(
        Timestamp::from_unix_seconds(1_790_000_000),
        &SeededEntropy::new(9),
    );
    bench.plant(carrying(foreign));
    // Our realm, our prefix, a real attempt, a forged MAC.
    let forged = atlas_core::TrackedKey::new(key.realm(), key.attempt(), [0; 5]);
    bench.plant(carrying(forged));
    sleep(600).await;
    let ledger = bench.ledger();
    let live: Vec<&str> = ledger
        .machines
        .iter()
        .filter(|machine| machine.destroyed_at.is_none())
        .map(|machine| machine.name.as_str())
        .collect();
    assert_eq!(live.len(), 3, "{live:?}");
    assert!(!live.contains(&format!("atlas-x-{key}").as_str()));
    settle(&node, id).await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_with_our_key_and_no_attempt_makes_the_process_hold_until_the_store_is_accepted()
{
    let bench = Bench::new(2);
    let before = bench.store.snapshot();
    let node = bench.node("a").await;
    let _ = node.atlas.spawn(request(), options()).await.unwrap();
    node.crash();
    bench.store.restore(&before);
    let node = bench.node("a").await;
    sleep(200).await;
    assert!(node.atlas.hold().is_some());
    assert!(node.atlas.spawn(request(), options()).await.is_err());
    assert_eq!(bench.ledger().live, 1);
    let report = node.atlas.accept_store().await.unwrap();
    assert_eq!(report.orphans.len(), 1);
    assert!(node.atlas.hold().is_none());
    settle(&node, report.orphans[0]).await;
    assert_eq!(bench.ledger().live, 0);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_key_is_stuck_and_never_done() {
    let bench = Bench::new(3);
    let node = bench.node("a").await;
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    sleep(60).await;
    bench.fault("list_compute", FaultKind::RevokeKey);
    sleep(100).await;
    session.stop().await.unwrap();
    sleep(3600).await;
    match node.atlas.stop_tracked(session.id()).await.unwrap() {
        StopOutcome::Terminating {
            stuck: Some(_),
            burn,
        } => assert!(burn > atlas_core::UsdPerHour::ZERO),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.ledger().live, 1);
}

#[tokio::test(start_paused = true)]
async fn another_accounts_silence_proves_nothing() {
    let bench = Bench::new(4);
    let node = bench.node("a").await;
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    sleep(60).await;
    bench.fault("list_compute", FaultKind::SwapAccount);
    sleep(100).await;
    session.stop().await.unwrap();
    sleep(3600).await;
    assert_eq!(
        session.info().await.unwrap().state,
        SessionState::Terminating
    );
    assert_eq!(bench.ledger().live, 1);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_ordered_while_the_key_was_moved_tells_nothing_of_those_ordered_before()
{
    for lost in [false, true] {
        let bench = Bench::new(13);
        let node = bench.node("a").await;
        let before = node
            .atlas
            .spawn(
                request(),
                options().idle_ttl(Duration::from_secs(24 * 3600)),
            )
            .await
            .unwrap();
        sleep(300).await;
        bench.fault("spawn_compute", FaultKind::SwapAccount);
        if lost {
            bench.fault("spawn_compute", FaultKind::CommitThen500);
        }
        let moved = node.atlas.spawn(request(), options()).await.unwrap();
        sleep(3600).await;
        assert_eq!(
            before.info().await.unwrap().state,
            SessionState::Ready,
            "lost {lost}"
        );
        before.stop().await.unwrap();
        moved.stop().await.unwrap();
        sleep(3600).await;
        assert_eq!(
            before.info().await.unwrap().state,
            SessionState::Terminating,
            "lost {lost}"
        );
        bench.cloud.world().restore_key("mock", KEY);
        settle(&node, before.id()).await;
        node.crash();
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_machine_of_one_order_is_ended_and_a_later_clone_is_only_reported() {
    let bench = Bench::new(5);
    let node = bench.node("a").await;
    bench.fault("spawn_compute", FaultKind::DuplicateCommit);
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    sleep(300).await;
    assert_eq!((bench.ledger().created, bench.ledger().live), (2, 1));
    let id = session.compute().await.unwrap().id;
    bench
        .cloud
        .world()
        .clone_machine("mock", id.as_str())
        .unwrap();
    sleep(600).await;
    assert_eq!(
        bench.ledger().live,
        2,
        "somebody's clone under a live session is theirs"
    );
    assert_eq!(session.info().await.unwrap().state, SessionState::Ready);
    let report = node.atlas.reap_now(&account(), true).await.unwrap();
    assert!(report.victims.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_empty_listing_ends_nothing() {
    let bench = Bench::new(6);
    let node = bench.node("a").await;
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    sleep(300).await;
    for _ in 0..20 {
        bench.fault("list_compute", FaultKind::EmptyList);
    }
    sleep(1200).await;
    assert_eq!(session.info().await.unwrap().state, SessionState::Ready);
    assert_eq!(bench.ledger().live, 1);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_a_rollback_undid_is_carried_out_again_once_the_store_is_accepted() {
    let bench = Bench::new(7);
    let node = bench.node("a").await;
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    sleep(300).await;
    session.stop().await.unwrap();
    let stopping = bench.store.snapshot();
    settle(&node, session.id()).await;
    bench.store.restore(&stopping);
    sleep(60).await;
    assert!(node.atlas.hold().is_some());
    assert_eq!(
        session.info().await.unwrap().state,
        SessionState::Terminating
    );
    node.atlas.accept_store().await.unwrap();
    settle(&node, session.id()).await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_gone_is_noticed_though_a_copy_of_it_carries_its_key() {
    let bench = Bench::new(8);
    let node = bench.node("a").await;
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    sleep(600).await;
    let id = session.compute().await.unwrap().id;
    bench
        .cloud
        .world()
        .clone_machine("mock", id.as_str())
        .unwrap();
    sleep(200).await;
    assert!(bench.cloud.world().destroy_machine("mock", id.as_str()));
    sleep(600).await;
    assert_ne!(session.info().await.unwrap().state, SessionState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_prefix_that_no_machine_name_could_begin_with_is_refused() {
    let bench = Bench::new(9);
    for bad in ["atlas-prod-eu-", "Atlas-", "my_app-"] {
        let error = bench.with_prefix(bad).await.unwrap_err();
        assert_eq!(error.field(), Some("name_prefix"), "{bad}");
    }
    for good in ["", "atlas", "atlas-", "prod-eu-"] {
        assert!(bench.with_prefix(good).await.is_ok(), "{good}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_record_cannot_be_read_keeps_nobody_from_the_others_and_its_machine_is_reported()
 {
    let bench = Bench::new(12);
    let node = bench.node("a").await;
    let damaged = node.atlas.spawn(request(), options()).await.unwrap().id();
    let sound = node
        .atlas
        .spawn(request(), options().max_runtime(Duration::from_secs(7200)))
        .await
        .unwrap()
        .id();
    sleep(60).await;
    node.crash();
    let store = AnyStore::new(bench.store.clone());
    let mut batch = Batch::new();
    batch.put(
        Table::Sessions,
        *damaged.as_bytes(),
        b"of a later schema".to_vec(),
    );
    store.commit(batch).await.unwrap();
    let node = bench.node("b").await;
    assert_eq!(node.atlas.audit().await.unwrap().unreadable, [damaged]);
    sleep(900).await;
    assert_eq!(node.atlas.list_ids().await.unwrap(), [sound]);
    let report = node.atlas.reap_now(&account(), false).await.unwrap();
    assert_eq!(report.ambiguous.len(), 1, "{report:?}");
    sleep(3 * 3600).await;
    assert_eq!(
        node.atlas.info(sound).await.unwrap().state,
        SessionState::Terminated
    );
    assert_eq!(bench.ledger().live, 1, "what cannot be read ends nothing");
}

#[tokio::test(start_paused = true)]
async fn too_many_victims_are_ended_once_an_operator_acknowledged_them_and_no_others_with_them() {
    let bench = Bench::new(8);
    let node = bench.node("a").await;
    let (id, key) = ended(&bench, &node).await;
    let plant = |many: usize| (0..many).for_each(|_| bench.plant(carrying(key)));
    plant(9);
    sleep(900).await;
    assert_eq!(bench.ledger().live, 9, "nobody said that they may go");
    node.atlas.acknowledge_breaker(&account()).await.unwrap();
    sleep(1800).await;
    assert_eq!(bench.ledger().live, 0);
    settle(&node, id).await;
    plant(9);
    sleep(900).await;
    assert_eq!(bench.ledger().live, 9, "these are others");
}

#[tokio::test(start_paused = true)]
async fn what_was_ordered_under_a_new_key_is_reaped_though_nothing_ties_it_to_the_old_one() {
    let bench = Bench::new(9);
    // What is on record of a key that was replaced while nothing was alive.
    let mut row = Batch::new();
    row.put(
        Table::Accounts,
        account().as_str().as_bytes(),
        br#"{"identity":"as under the old key","agreeing_scans":2}"#,
    );
    AnyStore::new(bench.store.clone())
        .commit(row)
        .await
        .unwrap();
    let node = bench.node("a").await;
    let (_, key) = ended(&bench, &node).await;
    bench.plant(carrying(key));
    sleep(900).await;
    assert_eq!(bench.ledger().live, 0);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_began_under_the_old_key_is_proved_once_an_operator_accepts_the_new_one() {
    let bench = Bench::new(10);
    let node = bench.node("a").await;
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    sleep(300).await;
    session.stop().await.unwrap();
    sleep(5).await;
    assert_eq!(
        bench.ledger().live,
        0,
        "its DELETE was the last that was done under the old key"
    );
    bench.fault("list_compute", FaultKind::SwapAccount);
    sleep(900).await;
    match node.atlas.stop_tracked(session.id()).await.unwrap() {
        StopOutcome::Terminating {
            stuck: Some(stuck), ..
        } => assert_eq!(stuck, atlas_orchestrator::Stuck::AccountChanged),
        other => panic!("{other:?}"),
    }
    node.atlas.accept_account(&account()).await.unwrap();
    settle(&node, session.id()).await;
}
