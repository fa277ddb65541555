//! Hosts that sleep, clocks that are wrong, and processes that were away.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use atlas_core::{Clock, SeededEntropy, Timestamp, Usd};
use atlas_orchestrator::store::Memory;
use atlas_orchestrator::{
    Event, EventKind, Limit, Reason, SessionFilter, SessionId, SessionKind, SessionOptions,
    SessionState, Shutdown, Touch,
};
use atlas_testkit::world::{FaultKind, Lag, WorldClock};

use crate::node::{Bench, Node, options, request, settle, sleep};

const HOUR: Duration = Duration::from_secs(3600);

/// The clock of the host that keeps the store: the world's, and wrong by as much as it is set
/// wrong.
#[derive(Clone, Debug)]
struct HostClock {
    world: WorldClock,
    ahead: Arc<AtomicI64>,
}

impl HostClock {
    fn of(bench: &mut Bench) -> Self {
        let clock = Self {
            world: bench.cloud.world().clock().clone(),
            ahead: Arc::default(),
        };
        let entropy = SeededEntropy::new(bench.seed);
        bench.store = Memory::new(Arc::new(clock.clone()), &entropy).durable(true);
        clock
    }

    fn is_ahead_by(&self, seconds: i64) {
        self.ahead.store(seconds * 1000, Ordering::Relaxed);
    }
}

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        let ahead = self.ahead.load(Ordering::Relaxed);
        Timestamp::from_unix_millis(self.world.now().unix_millis() + ahead)
    }
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

async fn ready(node: &Node, options: SessionOptions) -> SessionId {
    let session = node.atlas.spawn(request(), options).await.unwrap();
    session.await_ready(Duration::from_secs(200)).await.unwrap();
    session.id()
}

async fn reason(node: &Node, id: SessionId) -> Option<Reason> {
    node.atlas.info(id).await.unwrap().reason
}

async fn state(node: &Node, id: SessionId) -> SessionState {
    node.atlas.info(id).await.unwrap().state
}

/// How long the last idle end came after its warning; `None` when there was no end.
fn lead(events: &[Event]) -> Option<Duration> {
    let limit = Limit::IdleTtl;
    let warned = |e: &&Event| matches!(e.kind, EventKind::Warning { limit: l, .. } if l == limit);
    let ended = events
        .iter()
        .rfind(|e| matches!(e.kind, EventKind::Terminating { .. }))?;
    let warned = events.iter().rfind(warned).map(|e| e.at);
    Some(ended.at.since(warned.unwrap_or(ended.at)))
}

#[tokio::test(start_paused = true)]
async fn limits_that_passed_while_the_host_slept_end_their_machines_on_waking() {
    let bench = Bench::new(1);
    let node = bench.node("a").await;
    let timed = SessionOptions::new().no_idle_ttl().max_runtime(HOUR);
    let capped = SessionOptions::new()
        .no_idle_ttl()
        .max_runtime(HOUR * 24 * 30)
        .max_cost(Usd::from_cents(300));
    let (timed, capped) = (ready(&node, timed).await, ready(&node, capped).await);
    sleep(300).await;
    bench.cloud.world().clock().advance(HOUR * 8);
    sleep(15).await;
    for (id, limit) in [(timed, Limit::MaxRuntime), (capped, Limit::MaxCost)] {
        assert_eq!(reason(&node, id).await, Some(Reason::Limit { limit }));
    }
    for id in [timed, capped] {
        settle(&node, id).await;
    }
    assert_eq!(bench.ledger().live, 0);
}

#[tokio::test(start_paused = true)]
async fn a_sleep_longer_than_the_idle_limit_counts_as_a_touch_and_the_end_is_announced() {
    let bench = Bench::new(2);
    let node = bench.node("a").await;
    let id = ready(&node, SessionOptions::new().idle_ttl(minutes(30))).await;
    bench.cloud.world().clock().advance(HOUR * 8);
    let woke = bench.cloud.world().now();
    sleep(29 * 60).await;
    assert_eq!(state(&node, id).await, SessionState::Ready);
    sleep(3 * 60).await;
    let limit = Limit::IdleTtl;
    assert_eq!(reason(&node, id).await, Some(Reason::Limit { limit }));
    let events = node.events().await;
    let lead = lead(&events).unwrap();
    assert!(lead >= Duration::from_secs(60), "{lead:?}");
    let ended = events
        .iter()
        .find(|e| matches!(e.kind, EventKind::Terminating { .. }))
        .map(|e| e.at.since(woke));
    assert!(ended.is_some_and(|after| after >= minutes(30)), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_touch_after_a_sleep_is_as_new_to_the_next_process() {
    let bench = Bench::new(3);
    let node = bench.node("a").await;
    let id = ready(&node, SessionOptions::new().idle_ttl(HOUR)).await;
    bench.cloud.world().clock().advance(HOUR * 8);
    sleep(10).await;
    let touched = bench.cloud.world().now();
    node.atlas.touch_durable(id).await.unwrap();
    node.atlas.shutdown(Shutdown::Handover).await.unwrap();
    let node = bench.node("a").await;
    sleep(30).await;
    let info = node.atlas.info(id).await.unwrap();
    assert_eq!(info.state, SessionState::Ready);
    let said = info.last_activity;
    assert!(
        said >= touched.saturating_sub(Duration::from_secs(1)),
        "{said}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_order_around_a_sleep_is_resolved_before_its_session_is_called_terminated() {
    for slept_before in [true, false] {
        let bench = Bench::new(4);
        let node = bench.node("a").await;
        let lag = Lag::within(Duration::from_secs(55));
        bench.cloud.world().set_lag("mock", lag);
        sleep(60).await;
        if slept_before {
            bench.cloud.world().clock().advance(HOUR * 8);
        }
        bench.fault("spawn_compute", FaultKind::CommitThenReset);
        let kind = SessionKind::Interactive;
        let id = node.atlas.launch(request(), options(), kind).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        node.atlas.stop_tracked(id).await.unwrap();
        if !slept_before {
            bench.cloud.world().clock().advance(HOUR * 8);
        }
        settle(&node, id).await;
        assert_eq!(bench.ledger().live, 0, "slept before: {slept_before}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_wrong_ends_nothing_and_the_node_says_so() {
    for wrong in [2 * 3600, -2 * 3600] {
        let mut bench = Bench::new(5);
        let host = HostClock::of(&mut bench);
        let node = bench.node("a").await;
        let options = SessionOptions::new()
            .idle_ttl(HOUR)
            .max_runtime(minutes(90))
            .max_cost(Usd::from_cents(600));
        let id = ready(&node, options).await;
        let born = bench.cloud.world().now();
        sleep(300).await;
        host.is_ahead_by(wrong);
        sleep(120).await;
        assert_eq!(state(&node, id).await, SessionState::Ready, "{wrong} s");
        let clocks = node.atlas.clocks();
        let differing: Vec<f64> = clocks.differing().map(|(_, ahead)| ahead).collect();
        let expected = -f64::from(i32::try_from(wrong).unwrap());
        assert!(
            matches!(differing[..], [ahead] if (ahead - expected).abs() < 10.0),
            "{clocks:?}"
        );
        host.is_ahead_by(0);
        sleep(60).await;
        assert_eq!(node.atlas.clocks().differing().count(), 0);
        // Its limits come at their own time.
        for _ in 0..60 {
            sleep(60).await;
            let _ = node.atlas.touch(id);
            assert_eq!(state(&node, id).await, SessionState::Ready);
        }
        let left = minutes(90).saturating_sub(bench.cloud.world().now().since(born));
        sleep(left.as_secs() + 120).await;
        let limit = Limit::MaxRuntime;
        assert_eq!(reason(&node, id).await, Some(Reason::Limit { limit }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_a_wrong_clock_ends_no_session_that_was_in_use() {
    for wrong in [2 * 3600, -2 * 3600] {
        let mut bench = Bench::new(6);
        let host = HostClock::of(&mut bench);
        let node = bench.node("a").await;
        let options = SessionOptions::new()
            .idle_ttl(HOUR)
            .max_runtime(minutes(100))
            .max_cost(Usd::from_cents(600));
        let id = ready(&node, options).await;
        sleep(600).await;
        assert_eq!(node.atlas.touch(id), Touch::Recorded);
        sleep(60).await;
        node.crash();
        host.is_ahead_by(wrong);
        let node = bench.node("a").await;
        for _ in 0..20 {
            sleep(60).await;
            assert_eq!(state(&node, id).await, SessionState::Ready, "{wrong} s");
        }
        // And once its time service has set it right.
        host.is_ahead_by(0);
        for _ in 0..20 {
            sleep(60).await;
            assert_eq!(state(&node, id).await, SessionState::Ready, "{wrong} s");
        }
        node.atlas.touch_durable(id).await.unwrap();
        assert_eq!(bench.ledger().live, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_a_clock_that_was_wrong_before_too_keeps_the_times_on_record() {
    for wrong in [2 * 3600, -2 * 3600] {
        let mut bench = Bench::new(12);
        let host = HostClock::of(&mut bench);
        host.is_ahead_by(wrong);
        let node = bench.node("a").await;
        sleep(60).await;
        // A copy of the machine that listings show only after the restart.
        let bound = Duration::from_secs(55);
        bench.cloud.world().set_lag("mock", Lag::within(bound));
        bench.fault("spawn_compute", FaultKind::DuplicateCommit);
        let limit = SessionOptions::new().no_idle_ttl().max_runtime(HOUR);
        let kind = SessionKind::Interactive;
        let id = node.atlas.launch(request(), limit, kind).await.unwrap();
        let created = bench.cloud.world().now();
        sleep(2).await;
        assert_eq!(bench.ledger().live, 2, "{wrong} s");
        node.crash();
        sleep(1).await;
        let node = bench.node("a").await;
        // Before a cloud's date corrects it.
        assert_ne!(
            state(&node, id).await,
            SessionState::Terminating,
            "{wrong} s"
        );
        sleep(600).await;
        assert_eq!(bench.ledger().live, 1, "{wrong} s");
        assert_eq!(state(&node, id).await, SessionState::Ready, "{wrong} s");
        let info = node.atlas.info(id).await.unwrap();
        let off = info.created_at.since(created) + created.since(info.created_at);
        assert!(off < minutes(1), "{wrong} s: {off:?}");
        sleep(45 * 60).await;
        assert_eq!(state(&node, id).await, SessionState::Ready, "{wrong} s");
        sleep(10 * 60).await;
        let limit = Limit::MaxRuntime;
        assert_eq!(reason(&node, id).await, Some(Reason::Limit { limit }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_makes_no_second_machine_however_wrong_the_clock_is() {
    for wrong in [3600, -3600, 7 * 60, -7 * 60] {
        for fault in [FaultKind::CommitThenReset, FaultKind::DuplicateCommit] {
            let mut bench = Bench::new(7);
            let host = HostClock::of(&mut bench);
            host.is_ahead_by(wrong);
            let node = bench.node("a").await;
            bench.fault("spawn_compute", fault);
            let session = node.atlas.spawn(request(), options()).await.unwrap();
            session.await_ready(Duration::from_secs(900)).await.unwrap();
            sleep(600).await;
            assert_eq!(bench.ledger().live, 1, "{fault} at {wrong} s");
            session.stop().await.unwrap();
            settle(&node, session.id()).await;
            assert_eq!(bench.ledger().live, 0, "{fault} at {wrong} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_end_is_announced_after_downtime_too() {
    for downtime in [5, 14, 20, 2 * 3600] {
        let bench = Bench::new(8);
        let node = bench.node("a").await;
        let ttl = minutes(10);
        let id = ready(&node, SessionOptions::new().idle_ttl(ttl)).await;
        // Its warning was due while no process was running.
        sleep(9 * 60).await;
        node.atlas.shutdown(Shutdown::Handover).await.unwrap();
        sleep(downtime).await;
        let node = bench.node("a").await;
        for _ in 0..15 {
            sleep(60).await;
            if state(&node, id).await != SessionState::Ready {
                break;
            }
        }
        let lead = lead(&node.events().await);
        let announced = lead.is_some_and(|lead| lead >= Duration::from_secs(60));
        assert!(announced, "after {downtime} s: {lead:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_veto_after_downtime_comes_in_time() {
    let bench = Bench::new(9);
    let node = bench.node("a").await;
    let id = ready(&node, SessionOptions::new().idle_ttl(minutes(10))).await;
    node.crash();
    sleep(3600).await;
    let node = bench.node("a").await;
    let mut warned = false;
    for _ in 0..60 {
        sleep(15).await;
        warned = node
            .events()
            .await
            .iter()
            .any(|e| matches!(e.kind, EventKind::Warning { .. }));
        if warned {
            break;
        }
    }
    assert!(warned);
    node.atlas.veto(id).await.unwrap();
    sleep(9 * 60).await;
    assert_eq!(state(&node, id).await, SessionState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_new_process_looks_at_its_account_before_it_ends_anything_for_cost() {
    let bench = Bench::new(10);
    let node = bench.node("a").await;
    let options = SessionOptions::new()
        .no_idle_ttl()
        .max_runtime(HOUR * 24)
        .max_cost(Usd::from_cents(100));
    let id = ready(&node, options).await;
    node.crash();
    sleep(2 * 3600).await;
    for _ in 0..1000 {
        bench.fault("list_compute", FaultKind::Status500);
    }
    let node = bench.node("a").await;
    sleep(300).await;
    assert_eq!(
        state(&node, id).await,
        SessionState::Ready,
        "it has seen nothing yet"
    );
    bench.cloud.world().calm();
    sleep(60).await;
    let limit = Limit::MaxCost;
    assert_eq!(reason(&node, id).await, Some(Reason::Limit { limit }));
    settle(&node, id).await;
}

#[tokio::test(start_paused = true)]
async fn durations_without_end_neither_panic_nor_overflow() {
    let mut bench = Bench::new(11);
    let endless = SessionOptions::new()
        .idle_ttl(Duration::MAX)
        .max_runtime(Duration::MAX)
        .ready_timeout(Duration::MAX)
        .max_cost(Usd::from_cents(1_000_000));
    let node = bench.node("a").await;
    let id = ready(&node, endless.clone()).await;
    node.atlas.extend(id, Duration::MAX).await.unwrap();
    node.atlas.veto(id).await.unwrap();
    assert_eq!(node.atlas.touch(id), Touch::Recorded);
    node.atlas.touch_durable(id).await.unwrap();
    node.atlas.await_ready(id, Duration::MAX).await.unwrap();
    sleep(3600).await;
    assert_eq!(state(&node, id).await, SessionState::Ready);
    node.atlas.stop_tracked(id).await.unwrap();
    node.atlas
        .await_terminated(id, Duration::MAX)
        .await
        .unwrap();
    node.atlas.shutdown(Shutdown::Handover).await.unwrap();

    // A policy whose every span is endless is of no use, and no reason to panic either.
    let policy = &mut bench.policy;
    for span in [
        &mut policy.lease,
        &mut policy.flush,
        &mut policy.retention,
        &mut policy.keep_events,
        &mut policy.placing_patience,
        &mut policy.default_account.grace,
        &mut policy.default_account.reap_interval,
        &mut policy.default_account.poll_interval,
    ] {
        *span = Duration::MAX;
    }
    let node = bench.node("b").await;
    let id = ready(&node, endless).await;
    sleep(3600).await;
    node.atlas.stop_tracked(id).await.unwrap();
    sleep(3600).await;
    node.atlas.list(SessionFilter::all()).await.unwrap();
    let left = node.atlas.shutdown(Shutdown::Handover);
    tokio::time::timeout(HOUR, left).await.unwrap().unwrap();
}
