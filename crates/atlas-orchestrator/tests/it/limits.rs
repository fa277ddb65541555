//! Limits on virtual time: none fires a tick early or a flush late.

use std::time::Duration;

use atlas_core::Usd;
use atlas_orchestrator::{
    EventKind, Limit, OnFailure, Reason, SessionFilter, SessionOptions, SessionState, Touch,
};
use atlas_testkit::world::{Fault, FaultKind};

use crate::node::{BOUND, Bench, Node, request, settle, sleep};

async fn ended_at(node: &Node, limit: Limit) -> Option<atlas_core::Timestamp> {
    let wanted = EventKind::Terminating {
        reason: Reason::Limit { limit },
    };
    node.events()
        .await
        .into_iter()
        .find(|event| event.kind == wanted)
        .map(|event| event.at)
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_ends_after_ttl_and_flush_and_is_warned_before() {
    let bench = Bench::new(1);
    let node = bench.node("a").await;
    let session = node
        .atlas
        .spawn(
            request(),
            SessionOptions::new().idle_ttl(Duration::from_secs(300)),
        )
        .await
        .unwrap();
    session.await_ready(Duration::from_secs(100)).await.unwrap();
    sleep(100).await;
    assert_eq!(session.touch(), Touch::Recorded);
    let touched = node.atlas.now();
    sleep(400).await;
    let ended = ended_at(&node, Limit::IdleTtl).await.unwrap();
    // Not before ttl and a flush: a touch on another node may be on its way. Not later than a tick
    // after that.
    let idle = ended.since(touched);
    assert!(
        idle >= Duration::from_secs(300 + 5) && idle <= Duration::from_secs(300 + 5 + 1),
        "{idle:?}"
    );
    let events = node.events().await;
    let warned = events
        .iter()
        .find(|e| {
            matches!(
                e.kind,
                EventKind::Warning {
                    limit: Limit::IdleTtl,
                    ..
                }
            )
        })
        .unwrap();
    let lead = ended.since(warned.at);
    assert!(
        lead >= Duration::from_secs(58) && lead <= Duration::from_secs(61),
        "a fifth, at most a minute: {lead:?}"
    );
    assert!(matches!(warned.kind, EventKind::Warning { due,
            .. } if due <= ended && ended.since(due) <= Duration::from_secs(1)));
    settle(&node, session.id()).await;
    assert_eq!(bench.ledger().live, 0);
}

#[tokio::test(start_paused = true)]
async fn touches_keep_a_session_alive_and_an_extension_does_too() {
    let bench = Bench::new(2);
    let node = bench.node("a").await;
    let session = node
        .atlas
        .spawn(
            request(),
            SessionOptions::new().idle_ttl(Duration::from_secs(60)),
        )
        .await
        .unwrap();
    for _ in 0..30 {
        sleep(40).await;
        assert_eq!(session.touch(), Touch::Recorded);
    }
    let extended = node.atlas.now();
    session.extend(Duration::from_secs(600)).await.unwrap();
    sleep(700).await;
    let lasted = ended_at(&node, Limit::IdleTtl)
        .await
        .unwrap()
        .since(extended);
    assert!(
        lasted >= Duration::from_secs(600) && lasted <= Duration::from_secs(601),
        "{lasted:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_veto_after_the_warning_gives_another_ttl() {
    let bench = Bench::new(9);
    let node = bench.node("a").await;
    let session = node
        .atlas
        .spawn(
            request(),
            SessionOptions::new().idle_ttl(Duration::from_secs(300)),
        )
        .await
        .unwrap();
    session.await_ready(Duration::from_secs(100)).await.unwrap();
    let mut events = session.events(atlas_orchestrator::Cursor::NOW);
    loop {
        let event = events.next().await.unwrap().unwrap().event;
        assert!(
            !matches!(event.kind, EventKind::Terminating { .. }),
            "a warning comes first"
        );
        if matches!(
            event.kind,
            EventKind::Warning {
                limit: Limit::IdleTtl,
                ..
            }
        ) {
            break;
        }
    }
    let vetoed = node.atlas.now();
    session.veto().await.unwrap();
    sleep(400).await;
    let lasted = ended_at(&node, Limit::IdleTtl).await.unwrap().since(vetoed);
    assert!(
        lasted >= Duration::from_secs(300) && lasted <= Duration::from_secs(301),
        "{lasted:?}"
    );
    let warnings = node
        .events()
        .await
        .iter()
        .filter(|event| matches!(event.kind, EventKind::Warning { .. }))
        .count();
    assert_eq!(warnings, 2, "it is warned of anew");
    assert_eq!(
        session.veto().await.unwrap_err().kind(),
        atlas_core::ErrorKind::Conflict
    );
}

#[tokio::test(start_paused = true)]
async fn a_touch_just_before_the_end_is_only_acknowledged_once_durable() {
    let bench = Bench::new(3);
    let node = bench.node("a").await;
    let session = node
        .atlas
        .spawn(
            request(),
            SessionOptions::new().idle_ttl(Duration::from_secs(100)),
        )
        .await
        .unwrap();
    sleep(97).await;
    assert_eq!(session.touch(), Touch::Deferred);
    assert_eq!(
        node.atlas.touch_durable(session.id()).await.unwrap(),
        Touch::Recorded
    );
    sleep(95).await;
    assert_ne!(
        session.info().await.unwrap().state,
        SessionState::Terminating
    );
    sleep(20).await;
    assert_eq!(
        session.info().await.unwrap().state,
        SessionState::Terminating
    );
}

#[tokio::test(start_paused = true)]
async fn max_runtime_ends_a_session_that_is_touched_all_the_time() {
    let bench = Bench::new(4);
    let node = bench.node("a").await;
    let options = SessionOptions::new()
        .idle_ttl(Duration::from_secs(60))
        .max_runtime(Duration::from_secs(300));
    let begun = node.atlas.now();
    let session = node.atlas.spawn(request(), options).await.unwrap();
    for _ in 0..16 {
        sleep(20).await;
        let _ = session.touch();
    }
    let ran = ended_at(&node, Limit::MaxRuntime)
        .await
        .unwrap()
        .since(begun);
    assert!(
        ran >= Duration::from_secs(300) && ran <= Duration::from_secs(301),
        "{ran:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cost_cap_is_never_exceeded_by_the_bill() {
    let bench = Bench::new(5);
    let node = bench.node("a").await;
    let cap = Usd::from_cents(100);
    let options = SessionOptions::new()
        .idle_ttl(Duration::from_secs(7200))
        .max_cost(cap);
    let session = node.atlas.spawn(request(), options).await.unwrap();
    sleep(7000).await;
    settle(&node, session.id()).await;
    assert!(ended_at(&node, Limit::MaxCost).await.is_some());
    let billed = bench.ledger().billed_usd;
    assert!(billed <= cap && billed > Usd::from_cents(60), "{billed}");
    // When what is spent, and what it may burn until the next tick and then until its end is done,
    // come to the cap.
    let events = node.events().await;
    let ordered = events
        .iter()
        .find(|event| matches!(event.kind, EventKind::Attempt { .. }))
        .unwrap();
    let EventKind::Attempt {
        price: Some(price), ..
    } = ordered.kind
    else {
        panic!("it was ordered at a price")
    };
    let reserve = Duration::from_secs(1 + 10) + BOUND;
    let lasts = price.lasts(cap).unwrap().checked_sub(reserve).unwrap();
    let lasted = ended_at(&node, Limit::MaxCost)
        .await
        .unwrap()
        .since(ordered.at);
    let (early, late) = (
        lasts.saturating_sub(Duration::from_millis(900)),
        lasts + Duration::from_secs(2),
    );
    assert!(
        lasted >= early && lasted <= late,
        "{lasted:?}, planned {lasts:?}"
    );
    let warned = events
        .iter()
        .find(|event| {
            matches!(
                event.kind,
                EventKind::Warning {
                    limit: Limit::MaxCost,
                    ..
                }
            )
        })
        .unwrap();
    assert!(warned.at < ended_at(&node, Limit::MaxCost).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_order_whose_hold_does_not_fit_under_the_cap_is_not_made() {
    let bench = Bench::new(6);
    let node = bench.node("a").await;
    let options = SessionOptions::new().max_cost(Usd::from_nanos(1_000));
    assert!(node.atlas.spawn(request(), options).await.is_err());
    assert_eq!(bench.ledger().created, 0);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_never_becomes_usable_is_replaced_then_given_up() {
    let bench = Bench::new(7);
    let node = bench.node("a").await;
    bench.fault("spawn_compute", FaultKind::NeverReady);
    let options = SessionOptions::new()
        .ready_timeout(Duration::from_secs(60))
        .on_failure(OnFailure::Respawn(1));
    let session = node.atlas.spawn(request(), options).await.unwrap();
    let ready = session.await_ready(Duration::from_secs(300)).await.unwrap();
    assert_eq!(ready.respawns, 1);
    sleep(300).await;
    assert_eq!(bench.ledger().live, 1);
}

#[tokio::test(start_paused = true)]
async fn an_ending_session_acknowledges_no_touch() {
    let bench = Bench::new(8);
    let node = bench.node("a").await;
    let session = node
        .atlas
        .spawn(request(), SessionOptions::new())
        .await
        .unwrap();
    session.stop().await.unwrap();
    assert_ne!(session.touch(), Touch::Recorded);
    assert_eq!(
        node.atlas.touch_durable(session.id()).await.unwrap(),
        Touch::Ended
    );
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_put_on_record_in_time_though_many_wait_for_a_cloud_that_does_not_answer() {
    let mut bench = Bench::new(11);
    bench.policy.concurrency = 4;
    let node = bench.node("a").await;
    let begun = node.atlas.now();
    let options = SessionOptions::new().idle_ttl(Duration::from_secs(3600));
    for _ in 0..20 {
        node.atlas.spawn(request(), options.clone()).await.unwrap();
    }
    node.atlas
        .spawn(request(), options.max_runtime(Duration::from_secs(100)))
        .await
        .unwrap();
    sleep(60).await;
    bench
        .cloud
        .world()
        .inject([Fault::new("mock", "terminate", FaultKind::CommitThenTimeout).times(u32::MAX)]);
    for info in node.atlas.list(SessionFilter::live()).await.unwrap() {
        if info.options.max_runtime.is_none() {
            node.atlas.stop_tracked(info.id).await.unwrap();
        }
    }
    sleep(600).await;
    let ran = ended_at(&node, Limit::MaxRuntime)
        .await
        .unwrap()
        .since(begun);
    assert!(ran <= Duration::from_secs(102), "{ran:?}");
}
