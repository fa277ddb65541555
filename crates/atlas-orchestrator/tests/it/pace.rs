//! What an account's pace leaves for whom when many sessions want calls at once.

use std::time::Duration;

use atlas_core::AccountLimits;
use atlas_orchestrator::{SessionId, SessionKind, SessionOptions, SessionState, Shutdown};
use atlas_testkit::world::FaultKind;
use tokio::time::Instant;

use crate::node::{Bench, Node, carrying, ended, options, request, sleep};

fn limits(interval: u64, burst: u32, concurrency: u32, deadline: u64) -> AccountLimits {
    AccountLimits {
        visibility_bound: Duration::from_secs(120),
        call_deadline: Duration::from_secs(deadline),
        call_interval: Duration::from_millis(interval),
        burst,
        concurrency,
    }
}

/// One call a second, as Lambda allows.
fn slow() -> AccountLimits {
    limits(1_000, 1, 4, 60)
}

/// Ten calls a second.
fn usual() -> AccountLimits {
    limits(100, 10, 16, 30)
}

async fn start_tasks(node: &Node, many: usize, every: u64) -> Vec<SessionId> {
    let long = SessionOptions::new().max_runtime(Duration::from_secs(24 * 3600));
    let mut ids = Vec::new();
    for _ in 0..many {
        let command = request().command(vec!["sleep".to_owned(), "200000".to_owned()]);
        let launched = node.atlas.launch(command, long.clone(), SessionKind::Task);
        ids.push(launched.await.unwrap());
        sleep(every).await;
    }
    ids
}

/// Running tasks leave room for an order, for walks and for the proof of an end.
async fn tasks_leave_room(limits: AccountLimits, many: usize, every: u64) {
    let bench = Bench::with_limits(1, limits);
    bench.stock_up();
    let node = bench.node("a").await;
    let tasks = start_tasks(&node, many, every).await;
    sleep(300).await;
    assert_eq!(bench.ledger().live, many as u64);
    let walks = bench.weather.count("list_compute");
    let looks = bench.weather.count("get_compute");
    node.atlas.stop_tracked(tasks[0]).await.unwrap();
    let wish = node
        .atlas
        .launch(request(), options(), SessionKind::Interactive);
    let newcomer = wish.await.unwrap();
    sleep(900).await;
    let state = async |id| node.atlas.info(id).await.unwrap().state;
    assert_eq!(state(newcomer).await, SessionState::Ready);
    assert_eq!(state(tasks[0]).await, SessionState::Terminated);
    let walks = bench.weather.count("list_compute") - walks;
    assert!(walks >= 15, "{walks} walks in a quarter of an hour");
    let looks = bench.weather.count("get_compute") - looks;
    let possible = 900_000 / usize::try_from(limits.call_interval.as_millis()).unwrap();
    assert!(looks <= possible / 3 + 10, "{looks} looks");
}

#[tokio::test(start_paused = true)]
async fn a_dozen_tasks_at_one_call_a_second_leave_room_for_everything_else() {
    tasks_leave_room(slow(), 12, 20).await;
}

#[tokio::test(start_paused = true)]
async fn seventy_tasks_at_ten_calls_a_second_leave_room_for_everything_else() {
    tasks_leave_room(usual(), 70, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_leaked_machine_is_ended_in_time_while_many_tasks_run() {
    let bench = Bench::with_limits(2, usual());
    bench.stock_up();
    let node = bench.node("a").await;
    let (_, key) = ended(&bench, &node).await;
    start_tasks(&node, 70, 2).await;
    sleep(300).await;
    bench.plant(carrying(key));
    // Two reap intervals, the grace and two visibility bounds.
    sleep(480).await;
    assert_eq!(bench.ledger().live, 70);
}

#[tokio::test(start_paused = true)]
async fn the_newest_session_is_deleted_at_once_however_many_boot() {
    let bench = Bench::with_limits(3, usual());
    bench.stock_up();
    let node = bench.node("a").await;
    // They have machines that never run.
    bench
        .cloud
        .world()
        .inject([atlas_testkit::world::Fault::new(
            atlas_testkit::mock::CLOUD,
            "spawn_compute",
            FaultKind::NeverReady,
        )
        .times(u32::MAX)]);
    let mut newest = None;
    for _ in 0..400 {
        let wish = node
            .atlas
            .launch(request(), options(), SessionKind::Interactive);
        newest = Some(wish.await.unwrap());
    }
    let newest = newest.unwrap();
    while node.atlas.info(newest).await.unwrap().compute.is_none() {
        sleep(1).await;
    }
    let before = bench.weather.count("terminate");
    let begun = Instant::now();
    node.atlas.stop_tracked(newest).await.unwrap();
    while bench.weather.count("terminate") == before {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = begun.elapsed();
    assert!(
        took < Duration::from_secs(1),
        "the DELETE left after {took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn ends_of_many_sessions_are_proved_by_listings_within_their_bound() {
    const MANY: usize = 300;
    let bench = Bench::with_limits(4, usual());
    bench.stock_up();
    let node = bench.node("a").await;
    for _ in 0..MANY {
        let wish = node
            .atlas
            .launch(request(), options(), SessionKind::Interactive);
        wish.await.unwrap();
    }
    while bench.ledger().live < MANY as u64 {
        sleep(1).await;
    }
    sleep(300).await;
    let reads = bench.weather.count("presence") + bench.weather.count("get_compute");
    let begun = Instant::now();
    let wait = Duration::from_secs(3600);
    let how = Shutdown::TerminateAll { wait };
    let report = node.atlas.shutdown(how).await.unwrap();
    assert_eq!((report.terminated, bench.ledger().live), (MANY, 0));
    let reads = bench.weather.count("presence") + bench.weather.count("get_compute") - reads;
    assert!(reads <= MANY / 5, "{reads} point reads for {MANY} machines");
    let bound = (120.0 * 2.0 + MANY as f64 / 10.0) * 1.2;
    let took = begun.elapsed().as_secs_f64();
    assert!(
        took <= bound,
        "{took} s, and at most {bound} s are promised"
    );
}
