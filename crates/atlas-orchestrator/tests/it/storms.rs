//! A cloud that refuses, asks for patience or contradicts itself: what waits, what goes on, and
//! what ends.

use std::time::Duration;

use atlas_core::{ErrorKind, Timestamp};
use atlas_orchestrator::{
    EventKind, Reason, SessionFilter, SessionKind, SessionOptions, SessionState,
};

use atlas_testkit::mock::CLOUD;

use crate::node::{Bench, options, request, sleep};
use crate::weather::{no_such_machine, refusal, too_many};

const HOURS: Duration = Duration::from_secs(6 * 3600);

#[tokio::test(start_paused = true)]
async fn a_placement_ends_by_its_patience_however_long_the_cloud_asks_it_to_wait() {
    for operation in ["spawn_compute", "candidates"] {
        let bench = Bench::new(1);
        bench.weather.answer(operation, || Some(too_many(HOURS)));
        let node = bench.node("a").await;
        let wish = node
            .atlas
            .launch(request(), options(), SessionKind::Interactive);
        let id = wish.await.unwrap();
        sleep(590).await;
        let state = node.atlas.info(id).await.unwrap().state;
        assert_eq!(state, SessionState::Launching, "{operation}");
        sleep(15).await;
        let info = node.atlas.info(id).await.unwrap();
        assert_eq!(info.state, SessionState::Terminated, "{operation}");
        assert!(
            matches!(&info.reason, Some(Reason::CannotPlace(refusal))
                if refusal.kind == ErrorKind::RateLimited),
            "{operation}: {:?}",
            info.reason
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_half_a_minute_fails_no_placement_though_the_cloud_says_to_come_back_at_once() {
    for wait in [Duration::ZERO, Duration::from_secs(1)] {
        for operation in ["spawn_compute", "candidates"] {
            let bench = Bench::new(2);
            bench
                .weather
                .answer(operation, move || Some(too_many(wait)));
            let node = bench.node("a").await;
            let wish = node
                .atlas
                .launch(request(), options(), SessionKind::Interactive);
            let id = wish.await.unwrap();
            sleep(30).await;
            let asked = bench.weather.count(operation);
            assert!(
                asked <= 6,
                "{operation} was called {asked} times in the storm"
            );
            bench.weather.clear(operation);
            sleep(120).await;
            let info = node.atlas.info(id).await.unwrap();
            assert_eq!(
                info.state,
                SessionState::Ready,
                "{operation}: {:?}",
                info.reason
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_that_is_over_before_the_patience_fails_no_placement() {
    let bench = Bench::new(3);
    let busy = || Some(too_many(Duration::from_secs(1)));
    bench.weather.answer("spawn_compute", busy);
    let node = bench.node("a").await;
    let wish = node
        .atlas
        .launch(request(), options(), SessionKind::Interactive);
    let id = wish.await.unwrap();
    sleep(500).await;
    bench.weather.clear("spawn_compute");
    sleep(160).await;
    let info = node.atlas.info(id).await.unwrap();
    assert_eq!(info.state, SessionState::Ready, "{:?}", info.reason);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_reaches_the_caller_with_its_status_and_request_id_and_its_kind_once() {
    let bench = Bench::new(6);
    bench.weather.answer("spawn_compute", || {
        let refused = refusal(ErrorKind::Validation).with_status(422);
        Some(refused.with_request_id("r-7"))
    });
    let node = bench.node("a").await;
    let error = node.atlas.spawn(request(), options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Validation);
    assert_eq!(
        (error.status(), error.request_id()),
        (Some(422), Some("r-7"))
    );
    let text = error.to_string();
    assert_eq!(text.matches("validation").count(), 1, "{text}");
    let all = node.atlas.list(SessionFilter::all()).await.unwrap();
    let info = all.into_iter().next().unwrap();
    let Some(Reason::CannotPlace(refused)) = info.reason else {
        panic!("{:?}", info.reason);
    };
    assert!(!refused.message.contains('['), "{refused:?}");
    assert_eq!((refused.status, refused.kind), (Some(422), error.kind()));
    assert!(
        node.events().await.iter().any(|event| matches!(&event.kind,
            EventKind::Refused { refusal, .. } if refusal.request_id.as_deref() == Some("r-7"))),
        "the event has the fields too"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_good_of_every_candidate_ends_the_placement_at_once() {
    for kind in [ErrorKind::Forbidden, ErrorKind::Validation] {
        let bench = Bench::new(4);
        bench
            .weather
            .answer("spawn_compute", move || Some(refusal(kind)));
        let node = bench.node("a").await;
        let wish = node
            .atlas
            .launch(request(), options(), SessionKind::Interactive);
        let id = wish.await.unwrap();
        sleep(5).await;
        let info = node.atlas.info(id).await.unwrap();
        assert_eq!(info.state, SessionState::Terminated, "{kind:?}");
        let orders = bench.weather.count("spawn_compute");
        assert_eq!(
            bench.weather.count("candidates"),
            1,
            "{kind:?}, {orders} orders"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_refusal_that_may_pass_keeps_a_placement_alive() {
    let mut bench = Bench::new(5);
    // However many offers there are.
    bench.policy.max_orders = 1_000;
    bench
        .weather
        .answer("spawn_compute", || Some(refusal(ErrorKind::NoCapacity)));
    let node = bench.node("a").await;
    let wish = node
        .atlas
        .launch(request(), options(), SessionKind::Interactive);
    let id = wish.await.unwrap();
    sleep(20).await;
    bench.weather.clear("spawn_compute");
    sleep(60).await;
    assert_eq!(
        node.atlas.info(id).await.unwrap().state,
        SessionState::Ready
    );
}

#[tokio::test(start_paused = true)]
async fn a_look_that_has_to_wait_for_hours_is_served_by_a_listing() {
    let bench = Bench::new(6);
    bench
        .weather
        .answer("get_compute", || Some(too_many(HOURS)));
    let node = bench.node("a").await;
    let limited = options().ready_timeout(Duration::from_secs(600));
    let session = node.atlas.spawn(request(), limited).await.unwrap();
    session.await_ready(Duration::from_secs(120)).await.unwrap();
    sleep(900).await;
    assert_eq!(session.info().await.unwrap().state, SessionState::Ready);
    let looks = bench.weather.count("get_compute");
    assert!(
        looks <= 2,
        "{looks} looks though the cloud asked for none for hours"
    );
}

/// Point reads answer 404 for minutes while every listing shows the machine.
async fn contradicted(kind: SessionKind, settled: bool) {
    let bench = Bench::new(7);
    let node = bench.node("a").await;
    let long = SessionOptions::new()
        .no_idle_ttl()
        .max_runtime(Duration::from_secs(9 * 3600));
    let order = request().command(vec!["sleep".to_owned(), "30000".to_owned()]);
    let id = node.atlas.launch(order, long, kind).await.unwrap();
    let session = node.atlas.session(id).await.unwrap();
    session.await_accepted().await.unwrap();
    sleep(if settled { 400 } else { 2 }).await;
    for operation in ["get_compute", "presence"] {
        bench.weather.answer(operation, || Some(no_such_machine()));
    }
    sleep(400).await;
    for operation in ["get_compute", "presence"] {
        bench.weather.clear(operation);
    }
    sleep(300).await;
    let events = node.events().await;
    let ended = events.iter().find(|event| {
        matches!(
            event.kind,
            EventKind::Died { .. } | EventKind::Terminating { .. }
        )
    });
    assert!(ended.is_none(), "{kind:?}, settled {settled}: {ended:?}");
    assert_eq!(session.info().await.unwrap().state, SessionState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_404_that_listings_contradict_is_no_death() {
    for kind in [SessionKind::Interactive, SessionKind::Task] {
        for settled in [true, false] {
            contradicted(kind, settled).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_neither_reads_nor_listings_show_is_dead() {
    let bench = Bench::new(8);
    let node = bench.node("a").await;
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    session.await_ready(Duration::from_secs(120)).await.unwrap();
    sleep(300).await;
    let machine = bench.ledger().machines[0].id.clone();
    assert!(bench.cloud.world().vanish_machine(CLOUD, &machine));
    let begun: Timestamp = node.atlas.now();
    while session.info().await.unwrap().state == SessionState::Ready {
        sleep(1).await;
    }
    let took = node.atlas.now().since(begun);
    assert!(took < Duration::from_secs(400), "noticed after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_is_put_off_for_hours_keeps_nobody_else_waiting() {
    let bench = Bench::new(9);
    let node = bench.node("a").await;
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    sleep(60).await;
    bench.weather.answer_once("terminate", || too_many(HOURS));
    session.stop().await.unwrap();
    sleep(1).await;
    let other = node.atlas.spawn(request(), options()).await.unwrap();
    other.await_ready(Duration::from_secs(60)).await.unwrap();
    other.stop().await.unwrap();
    sleep(900).await;
    assert_eq!(bench.ledger().live, 0);
}
