//! A store that goes back under a running node, as a fail-over to a replica that lags makes it.

use std::time::Duration;

use atlas_core::ErrorKind;
use atlas_orchestrator::SessionState;

use crate::node::{Bench, Node, options, request, settle, sleep};

async fn ready(node: &Node) -> atlas_orchestrator::Session {
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    session.await_ready(Duration::from_secs(600)).await.unwrap();
    session
}

#[tokio::test(start_paused = true)]
async fn the_first_write_to_a_store_that_went_back_is_refused_and_makes_the_process_hold() {
    let bench = Bench::new(11);
    let node = bench.node("a").await;
    let session = ready(&node).await;
    let before = bench.store.snapshot();
    session.extend(Duration::from_secs(7200)).await.unwrap();
    bench.store.restore(&before);
    assert_eq!(node.atlas.hold(), None, "nobody has looked at it yet");
    let error = session.extend(Duration::from_secs(7200)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("rolled back"), "{error}");
    assert!(node.atlas.hold().is_some());
    assert_eq!(bench.ledger().live, 1);
    sleep(2 * 3600).await;
    assert_eq!(
        bench.ledger().live,
        1,
        "its idle limit has passed, and the process holds"
    );

    let report = node.atlas.accept_store().await.unwrap();
    assert_eq!(report.orphans, []);
    assert_eq!(node.atlas.hold(), None);
    session.extend(Duration::from_secs(60)).await.unwrap();
    session.stop().await.unwrap();
    settle(&node, session.id()).await;
}

#[tokio::test(start_paused = true)]
async fn no_limit_ends_a_session_in_the_moment_before_a_rollback_is_noticed() {
    for millis in (0..5000).step_by(250) {
        let bench = Bench::new(12);
        let node = bench.node("a").await;
        let session = ready(&node).await;
        let before = bench.store.snapshot();
        let due = session.info().await.unwrap().next_deadline.unwrap().at;
        session
            .extend(Duration::from_secs(24 * 3600))
            .await
            .unwrap();
        // The deadline passes on the older record, at each moment between two signs of life.
        let until = due.since(node.atlas.now()) + Duration::from_millis(millis);
        tokio::time::sleep(until).await;
        bench.store.restore(&before);
        sleep(600).await;
        let state = session.info().await.unwrap().state;
        assert_eq!(
            state,
            SessionState::Ready,
            "restored {millis} ms after the deadline"
        );
        assert!(node.atlas.hold().is_some());
        node.crash();
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_that_was_carried_out_is_not_made_again_on_a_store_that_forgot_it() {
    for millis in (0..5000).step_by(500) {
        let bench = Bench::new(13);
        let node = bench.node("a").await;
        let before = bench.store.snapshot();
        let session = ready(&node).await;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        bench.store.restore(&before);
        let again = node.atlas.spawn(request(), options()).await;
        assert!(
            again.is_err(),
            "a machine was ordered on a store that went back"
        );
        sleep(60).await;
        let ledger = bench.ledger();
        assert_eq!((ledger.created, ledger.live), (1, 1), "{millis} ms after");
        assert!(node.atlas.hold().is_some());
        // No record names its machine now, until an operator says which copy survives.
        let report = node.atlas.accept_store().await.unwrap();
        settle(&node, report.orphans[0]).await;
        assert_ne!(report.orphans[0], session.id());
        assert_eq!(bench.ledger().live, 0);
        node.crash();
    }
}
