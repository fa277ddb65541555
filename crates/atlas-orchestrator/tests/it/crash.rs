//! A node stops at the worst moments; the next one leaves neither a machine without a session nor a
//! session without a machine.

use std::sync::mpsc;
use std::time::Duration;

use atlas_core::{AccountLimits, Auth};
use atlas_orchestrator::store::Store;
use atlas_orchestrator::{
    OnFailure, SessionFilter, SessionKind, SessionOptions, SessionState, StopOutcome, Touch,
};
use atlas_testkit::mock::CLOUD;
use atlas_testkit::world::{Fault, FaultKind};

use crate::node::{BOUND, Bench, assert_gapless, options, request, settle, sleep};

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_moment_of_a_launch_leaves_one_machine_for_one_session() {
    // Slow answers spread the protocol's steps over virtual time, so that the moments differ.
    for millis in (0..6_000).step_by(150) {
        let bench = Bench::new(millis);
        let node = bench.node("a").await;
        bench.fault("spawn_compute", FaultKind::Slow);
        let atlas = node.atlas.clone();
        let spawning = tokio::spawn(async move { atlas.spawn(request(), options()).await });
        tokio::time::sleep(Duration::from_millis(millis)).await;
        node.crash();
        spawning.abort();
        let node = bench.node("a").await;
        sleep(900).await;
        let live = node.atlas.list(SessionFilter::live()).await.unwrap();
        assert_eq!(
            bench.ledger().live,
            live.len() as u64,
            "crash after {millis} ms"
        );
        for info in live {
            assert_eq!(
                info.state,
                SessionState::Ready,
                "crash after {millis} ms: {info:?}"
            );
            node.atlas.stop_tracked(info.id).await.unwrap();
            settle(&node, info.id).await;
        }
        assert_eq!(bench.ledger().live, 0);
        assert_gapless(&node.events().await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_moment_of_a_stop_goes_on_with_it() {
    for seconds in (0..200).step_by(9) {
        let bench = Bench::new(seconds);
        let node = bench.node("a").await;
        let session = node.atlas.spawn(request(), options()).await.unwrap();
        sleep(5).await;
        bench.fault("terminate", FaultKind::Status500);
        session.stop().await.unwrap();
        let id = session.id();
        sleep(seconds).await;
        drop(session);
        node.crash();
        let node = bench.node("a").await;
        settle(&node, id).await;
        assert_eq!(bench.ledger().live, 0);
        assert_gapless(&node.events().await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_hands_back_the_same_token() {
    let bench = Bench::new(3);
    let node = bench.node("a").await;
    let session = node
        .atlas
        .spawn(request().auth(Auth::Bearer), options())
        .await
        .unwrap();
    let token = session
        .info()
        .await
        .unwrap()
        .auth
        .unwrap()
        .secret()
        .expose()
        .to_owned();
    let id = session.id();
    node.crash();
    let node = bench.node("a").await;
    assert_eq!(
        node.atlas
            .info(id)
            .await
            .unwrap()
            .auth
            .unwrap()
            .secret()
            .expose(),
        token
    );
}

#[tokio::test(start_paused = true)]
async fn another_node_takes_over_what_a_dead_one_leaves() {
    let bench = Bench::new(4);
    let a = bench.node("a").await;
    let b = bench.node("bb").await;
    let session = a.atlas.spawn(request(), options()).await.unwrap();
    let id = session.id();
    a.crash();
    sleep(40).await;
    assert_eq!(b.atlas.info(id).await.unwrap().owner, "bb");
    b.atlas.stop_tracked(id).await.unwrap();
    settle(&b, id).await;
    assert_eq!(bench.ledger().live, 0);
    assert_gapless(&b.events().await);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_wakes_up_beside_another_of_its_name_leaves_the_sessions_to_it() {
    let bench = Bench::new(9);
    let old = bench.node("a").await;
    let id = old.atlas.spawn(request(), options()).await.unwrap().id();
    old.pause();
    let new = bench.node("a").await;
    sleep(30).await;
    old.resume();
    sleep(60).await;
    assert_eq!((old.atlas.tracked(), new.atlas.tracked()), (0, 1));
    new.atlas.stop_tracked(id).await.unwrap();
    settle(&new, id).await;
    assert_eq!(bench.ledger().live, 0);
    // Once that one is gone it goes on.
    let id = new.atlas.spawn(request(), options()).await.unwrap().id();
    new.crash();
    sleep(60).await;
    old.atlas.stop_tracked(id).await.unwrap();
    settle(&old, id).await;
    assert_eq!(bench.ledger().live, 0);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_lose_their_leases_in_a_pause_leave_one_machine_for_one_session() {
    for millis in (0..6_000).step_by(300) {
        let bench = Bench::new(millis);
        let (paused, heir) = (bench.node("a").await, bench.node("bb").await);
        bench.fault("spawn_compute", FaultKind::Slow);
        let id = paused
            .atlas
            .launch(request(), options(), SessionKind::Interactive)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(millis)).await;
        paused.pause();
        sleep(40).await;
        paused.resume();
        sleep(600).await;
        let info = heir.atlas.info(id).await.unwrap();
        assert_eq!(
            (info.state, info.owner.as_str()),
            (SessionState::Ready, "bb"),
            "paused after {millis} ms"
        );
        assert_eq!(bench.ledger().live, 1, "paused after {millis} ms");
        heir.atlas.stop_tracked(id).await.unwrap();
        settle(&heir, id).await;
        assert_eq!(bench.ledger().live, 0);
        assert_gapless(&heir.events().await);
        paused.crash();
        heir.crash();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_on_any_node_is_carried_out_by_the_owner() {
    let bench = Bench::new(5);
    let a = bench.node("a").await;
    let b = bench.node("bb").await;
    let session = a.atlas.spawn(request(), options()).await.unwrap();
    assert!(matches!(
        b.atlas.stop_tracked(session.id()).await.unwrap(),
        StopOutcome::Terminating { .. }
    ));
    settle(&b, session.id()).await;
    assert_eq!(bench.ledger().live, 0);
}

#[tokio::test(start_paused = true)]
async fn a_touch_acknowledged_on_a_node_that_then_dies_still_counts() {
    let bench = Bench::new(6);
    let a = bench.node("a").await;
    let b = bench.node("bb").await;
    let options = SessionOptions::new().idle_ttl(Duration::from_secs(200));
    let session = a.atlas.spawn(request(), options).await.unwrap();
    sleep(150).await;
    assert_eq!(session.touch(), Touch::Recorded);
    let id = session.id();
    a.crash();
    sleep(198).await;
    assert!(b.atlas.info(id).await.unwrap().reason.is_none());
    sleep(60).await;
    assert!(b.atlas.info(id).await.unwrap().reason.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_crash_around_a_respawn_leaks_neither_machine() {
    for seconds in (0..240).step_by(17) {
        let bench = Bench::new(seconds);
        let node = bench.node("a").await;
        let session = node
            .atlas
            .spawn(request(), options().on_failure(OnFailure::Respawn(3)))
            .await
            .unwrap();
        let first = session
            .await_ready(Duration::from_secs(100))
            .await
            .unwrap()
            .compute
            .unwrap()
            .id;
        sleep(120).await;
        bench.cloud.world().stop_machine("mock", first.as_str());
        let id = session.id();
        sleep(seconds).await;
        node.crash();
        let node = bench.node("a").await;
        sleep(600).await;
        let info = node.atlas.info(id).await.unwrap();
        assert_eq!(
            (info.state, info.respawns),
            (SessionState::Ready, 1),
            "{info:?}"
        );
        assert_eq!(bench.ledger().live, 1);
        node.atlas.stop_tracked(id).await.unwrap();
        settle(&node, id).await;
        assert_eq!(bench.ledger().live, 0);
    }
}

/// A driver is at work on a session, another process of the node's name takes the lease, and then a
/// limit of the session is reached.
async fn limit_reached_without_a_lease() {
    let bench = Bench::with_limits(
        1,
        AccountLimits {
            visibility_bound: BOUND,
            call_deadline: Duration::from_secs(600),
            call_interval: Duration::from_millis(10),
            burst: 10,
            concurrency: 8,
        },
    );
    let node = bench.node("a").await;
    // The driver stays: the machine never runs, and every look at it takes long.
    bench.fault("spawn_compute", FaultKind::NeverReady);
    let limited = SessionOptions::new()
        .no_idle_ttl()
        .max_runtime(Duration::from_secs(300));
    let session = node.atlas.spawn(request(), limited).await.unwrap();
    let slow = Fault::new(CLOUD, "get_compute", FaultKind::CommitThenTimeout);
    bench.cloud.world().inject([slow.times(u32::MAX)]);
    sleep(285).await;
    let lease = bench
        .store
        .lease_acquire("node/a", "a", Duration::from_secs(3600));
    assert!(lease.await.unwrap().is_some());
    sleep(120).await;
    let state = session.info().await.unwrap().state;
    assert_ne!(state, SessionState::Terminated, "nothing was put on record");
}

#[test]
fn a_driver_without_a_lease_leaves_the_runtime_to_others() {
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(limit_reached_without_a_lease());
        done.send(()).unwrap();
    });
    finished
        .recv_timeout(Duration::from_secs(30))
        .expect("seven minutes of virtual time pass within half a minute");
}
