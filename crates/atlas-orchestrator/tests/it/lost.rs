//! A store that fails once, at each of its calls in turn, or for a while: whatever became this
//! node's meanwhile is looked after all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use atlas_orchestrator::store::{AnyStore, FaultyStore, StoreFault, StoreFaults, StoreOp};
use atlas_orchestrator::{EventKind, SessionFilter, SessionState};

use crate::node::{Bench, Node, carrying, ended, options, request, settle, sleep};

/// Fails one call of one kind: the n-th after it is armed.
#[derive(Debug)]
struct Nth {
    op: StoreOp,
    fault: StoreFault,
    left: AtomicUsize,
}

impl StoreFaults for Nth {
    fn next(&self, op: StoreOp) -> StoreFault {
        let count = |left: usize| left.checked_sub(1);
        let fails = op == self.op
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count)
                == Ok(1);
        if fails { self.fault } else { StoreFault::Pass }
    }
}

/// Fails every call while it is armed.
#[derive(Debug, Default)]
struct Away(AtomicBool);

impl StoreFaults for Away {
    fn next(&self, _: StoreOp) -> StoreFault {
        if self.0.load(Ordering::Relaxed) {
            StoreFault::Refuse
        } else {
            StoreFault::Pass
        }
    }
}

/// A node whose store will fail once.
async fn frail(bench: &Bench, name: &str, op: StoreOp, fault: StoreFault) -> (Node, Arc<Nth>) {
    let nth = Arc::new(Nth {
        op,
        fault,
        left: AtomicUsize::new(0),
    });
    let store = FaultyStore::new(AnyStore::new(bench.store.clone()), nth.clone());
    (bench.node_over(name, AnyStore::new(store)).await, nth)
}

/// Every commit that can be refused or whose answer can be lost, and every read that can fail: more
/// than there are in what is tried.
fn failures() -> impl Iterator<Item = (StoreOp, StoreFault, usize)> {
    let kinds = [
        (StoreOp::Commit, StoreFault::LoseAnswer, 12),
        (StoreOp::Commit, StoreFault::Refuse, 12),
        (StoreOp::Read, StoreFault::Refuse, 40),
    ];
    kinds
        .into_iter()
        .flat_map(|(op, fault, calls)| (1..=calls).map(move |nth| (op, fault, nth)))
}

#[tokio::test(start_paused = true)]
async fn a_clone_of_an_ended_machine_is_ended_whichever_call_to_the_store_fails() {
    for (op, fault, nth) in failures() {
        let bench = Bench::new(31);
        let (node, frail) = frail(&bench, "a", op, fault).await;
        let (id, key) = ended(&bench, &node).await;
        bench.plant(carrying(key));
        frail.left.store(nth, Ordering::Relaxed);
        sleep(900).await;
        assert_eq!(bench.ledger().live, 0, "{op:?} {fault:?} {nth}");
        settle(&node, id).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_driven_or_refused_whichever_call_to_the_store_fails() {
    for (op, fault, nth) in failures() {
        let bench = Bench::new(32);
        let (node, frail) = frail(&bench, "a", op, fault).await;
        frail.left.store(nth, Ordering::Relaxed);
        let spawned = node.atlas.spawn(request(), options()).await;
        sleep(300).await;
        let known = node.atlas.list(SessionFilter::default()).await.unwrap();
        assert!(
            spawned.is_err() || known.iter().all(|info| info.state == SessionState::Ready),
            "{op:?} {fault:?} {nth}: {known:?}"
        );
        let live = known
            .iter()
            .filter(|info| info.state != SessionState::Terminated)
            .count();
        assert_eq!(bench.ledger().live, live as u64, "{op:?} {fault:?} {nth}");
        for info in &known {
            node.atlas.stop_tracked(info.id).await.unwrap();
            settle(&node, info.id).await;
        }
        assert_eq!(bench.ledger().live, 0, "{op:?} {fault:?} {nth}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_nodes_session_is_taken_over_whichever_call_to_the_store_fails() {
    for (op, fault, nth) in failures() {
        let bench = Bench::new(33);
        let dying = bench.node("a").await;
        let session = dying.atlas.spawn(request(), options()).await.unwrap();
        let id = session.id();
        sleep(100).await;
        let (node, frail) = frail(&bench, "bb", op, fault).await;
        frail.left.store(nth, Ordering::Relaxed);
        dying.crash();
        sleep(200).await;
        // The caller only records the end: the node that took the session over has to carry it out.
        node.atlas.stop_tracked(id).await.unwrap();
        settle(&node, id).await;
        assert_eq!(bench.ledger().live, 0, "{op:?} {fault:?} {nth}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_key_has_one_machine_whichever_call_to_the_store_fails() {
    for (op, fault, nth) in failures() {
        let bench = Bench::new(34);
        let (node, frail) = frail(&bench, "a", op, fault).await;
        frail.left.store(nth, Ordering::Relaxed);
        let mut acquired = None;
        for _ in 0..4 {
            let asked = node.atlas.get_or_spawn(request(), options().key("k"));
            acquired = acquired.or(asked.await.ok());
        }
        sleep(300).await;
        let context = format!("{op:?} {fault:?} {nth}");
        let session = acquired.expect(&context).session;
        assert_eq!(bench.ledger().created, 1, "{context}");
        let found = node.atlas.find("k").await.unwrap().expect(&context);
        assert_eq!(found.id(), session.id(), "{context}");
    }
}

/// Takes its time for every commit while told to.
#[derive(Debug, Default)]
struct Sluggish(AtomicBool);

impl StoreFaults for Sluggish {
    fn next(&self, op: StoreOp) -> StoreFault {
        let slow = op == StoreOp::Commit && self.0.load(Ordering::Relaxed);
        if slow {
            StoreFault::Slow(Duration::from_secs(8), Duration::ZERO)
        } else {
            StoreFault::Pass
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_while_it_is_taken_over_is_taken_over_again_when_it_dies_again() {
    let bench = Bench::new(34);
    let dying = bench.node("a").await;
    for _ in 0..4 {
        dying.atlas.spawn(request(), options()).await.unwrap();
    }
    sleep(60).await;
    let sluggish = Arc::new(Sluggish::default());
    let store = FaultyStore::new(AnyStore::new(bench.store.clone()), sluggish.clone());
    let heir = bench.node_over("bb", AnyStore::new(store)).await;
    sluggish.0.store(true, Ordering::Relaxed);
    dying.crash();
    sleep(20).await;
    let back = bench.node("a").await;
    let session = back.atlas.spawn(request(), options()).await.unwrap();
    sleep(60).await;
    sluggish.0.store(false, Ordering::Relaxed);
    sleep(60).await;
    back.crash();
    sleep(60).await;
    assert_eq!(heir.atlas.info(session.id()).await.unwrap().owner, "bb");
    heir.atlas.stop_tracked(session.id()).await.unwrap();
    settle(&heir, session.id()).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_is_looked_after_whichever_call_to_the_store_hangs_for_ever() {
    let kinds = [
        (StoreOp::Commit, StoreFault::HangAfter, 8),
        (StoreOp::Commit, StoreFault::Hang, 8),
        (StoreOp::Read, StoreFault::Hang, 20),
    ];
    for (op, fault, nth) in kinds
        .into_iter()
        .flat_map(|(op, fault, calls)| (1..=calls).map(move |nth| (op, fault, nth)))
    {
        let bench = Bench::new(34);
        let (node, frail) = frail(&bench, "a", op, fault).await;
        frail.left.store(nth, Ordering::Relaxed);
        let _ = node.atlas.spawn(request(), options()).await;
        sleep(300).await;
        for info in node.atlas.list(SessionFilter::live()).await.unwrap() {
            assert_eq!(info.state, SessionState::Ready, "{op:?} {fault:?} {nth}");
            node.atlas.stop_tracked(info.id).await.unwrap();
            settle(&node, info.id).await;
        }
        assert_eq!(bench.ledger().live, 0, "{op:?} {fault:?} {nth}");
        node.crash();
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_stopped_while_the_store_was_away_is_noticed_once_it_is_back() {
    for minutes in [1, 10, 60] {
        let bench = Bench::new(35);
        let away = Arc::new(Away::default());
        let store = FaultyStore::new(AnyStore::new(bench.store.clone()), away.clone());
        let node = bench.node_over("a", AnyStore::new(store)).await;
        let session = node
            .atlas
            .spawn(
                request(),
                options().idle_ttl(Duration::from_secs(24 * 3600)),
            )
            .await
            .unwrap();
        sleep(300).await;
        let machine = session.compute().await.unwrap().id;
        away.0.store(true, Ordering::Relaxed);
        assert!(bench.cloud.world().stop_machine("mock", machine.as_str()));
        sleep(minutes * 60).await;
        away.0.store(false, Ordering::Relaxed);
        sleep(120).await;
        assert!(
            session.info().await.unwrap().reason.is_some(),
            "{minutes} min"
        );
        settle(&node, session.id()).await;
        node.crash();
    }
}

/// A store far away.
#[derive(Debug)]
struct SlowCommits;

impl StoreFaults for SlowCommits {
    fn next(&self, op: StoreOp) -> StoreFault {
        if op == StoreOp::Commit {
            StoreFault::Slow(Duration::ZERO, Duration::from_secs(1))
        } else {
            StoreFault::Pass
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_take_over_for_longer_than_a_lease_do_not_take_over_each_other() {
    let bench = Bench::new(8);
    let dying = bench.node("a").await;
    for _ in 0..30 {
        dying.atlas.spawn(request(), options()).await.unwrap();
    }
    let slow = || {
        AnyStore::new(FaultyStore::new(
            AnyStore::new(bench.store.clone()),
            Arc::new(SlowCommits),
        ))
    };
    let nodes = [
        bench.node_over("bb", slow()).await,
        bench.node_over("ccc", slow()).await,
    ];
    dying.crash();
    sleep(300).await;
    let owners = nodes[0]
        .events()
        .await
        .into_iter()
        .filter(|event| matches!(event.kind, EventKind::Owner { .. }))
        .count();
    assert_eq!(owners, 30, "each session is taken over once");
    assert_eq!(
        nodes.iter().map(|node| node.atlas.tracked()).sum::<usize>(),
        30
    );
    assert_eq!(bench.ledger().live, 30);
}
