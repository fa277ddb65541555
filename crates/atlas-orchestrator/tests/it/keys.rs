//! Session keys: at most one session that is not ending has a key.

use std::collections::BTreeSet;
use std::time::Duration;

use atlas_core::{Auth, ErrorKind};
use atlas_orchestrator::store::{Batch, Store as _, Table};
use atlas_orchestrator::{AccountPolicy, SessionOptions, SessionState};
use atlas_testkit::world::FaultKind;
use futures_util::future::join_all;

use crate::node::{BOUND, Bench, account, options, request, settle, sleep};

fn keyed() -> SessionOptions {
    options().user("u42").key("studio:u42")
}

#[tokio::test(start_paused = true)]
async fn a_thousand_concurrent_calls_on_two_nodes_rent_one_machine() {
    let bench = Bench::new(61);
    bench.stock_up();
    let nodes = [bench.node("a").await, bench.node("bb").await];
    let calls = (0..1000).map(|n| nodes[n % 2].atlas.get_or_spawn(request(), keyed()));
    let acquired: Vec<_> = join_all(calls)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let ids: BTreeSet<_> = acquired.iter().map(|one| one.session.id()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(acquired.iter().filter(|one| one.created).count(), 1);
    assert_eq!(bench.ledger().created, 1);
}

#[tokio::test(start_paused = true)]
async fn another_request_under_the_same_key_is_refused_with_the_field_that_differs() {
    let bench = Bench::new(62);
    let node = bench.node("a").await;
    let asked = request().auth(Auth::Bearer).env("MODEL", "small");
    let first = node
        .atlas
        .get_or_spawn(asked.clone(), keyed())
        .await
        .unwrap();
    assert!(first.created);

    let cases = [
        (asked.clone().image("x/y:2"), "image"),
        (asked.clone().env("MODEL", "large"), "env.MODEL"),
        (asked.clone().env("DEBUG", "1"), "env.DEBUG"),
        (asked.clone().auth(Auth::None), "auth"),
    ];
    for (other, field) in cases {
        let error = node.atlas.get_or_spawn(other, keyed()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(error.field(), Some(field), "{error}");
        assert!(error.to_string().contains(&first.session.id().to_string()));
        assert!(!error.to_string().contains("small"), "{error}");
    }
    // Limits and labels are no part of it, nor is what atlas itself puts into the environment.
    let limits = keyed()
        .label("team", "vision")
        .max_runtime(Duration::from_secs(9000));
    let again = asked.env("ATLAS_CALLBACK_TOKEN", "another one");
    let second = node.atlas.get_or_spawn(again, limits).await.unwrap();
    assert_eq!(
        (second.created, second.session.id()),
        (false, first.session.id())
    );
}

#[tokio::test(start_paused = true)]
async fn a_taken_key_is_a_conflict_for_spawn_and_find_returns_its_session() {
    let bench = Bench::new(63);
    let node = bench.node("a").await;
    assert!(node.atlas.find("studio:u42").await.unwrap().is_none());
    let first = node.atlas.spawn(request(), keyed()).await.unwrap();
    let found = node.atlas.find("studio:u42").await.unwrap().unwrap();
    assert_eq!(found.id(), first.id());
    let error = node.atlas.spawn(request(), keyed()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        error.to_string().contains(&first.id().to_string()),
        "{error}"
    );
    assert_eq!(bench.ledger().created, 1);
    let nameless = node
        .atlas
        .get_or_spawn(request(), options())
        .await
        .unwrap_err();
    assert_eq!(
        (nameless.kind(), nameless.field()),
        (ErrorKind::Validation, Some("key"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_is_free_as_soon_as_the_end_of_its_session_is_committed() {
    let bench = Bench::new(64);
    let node = bench.node("a").await;
    let first = node.atlas.spawn(request(), keyed()).await.unwrap();
    // The cloud refuses to delete for a while: the first machine is still there.
    for _ in 0..20 {
        bench.fault("terminate", FaultKind::Status500);
    }
    first.terminate().await.unwrap();
    assert!(node.atlas.find("studio:u42").await.unwrap().is_none());
    let second = node.atlas.get_or_spawn(request(), keyed()).await.unwrap();
    assert!(second.created);
    assert_eq!(bench.ledger().live, 2);
    settle(&node, first.id()).await;
    let found = node.atlas.find("studio:u42").await.unwrap().unwrap();
    assert_eq!(
        found.id(),
        second.session.id(),
        "the old end does not take the key away"
    );
}

#[tokio::test(start_paused = true)]
async fn with_one_at_a_time_a_key_is_free_once_the_machine_is_proved_absent() {
    let mut bench = Bench::new(65);
    let mut policy = AccountPolicy::default();
    policy.one_at_a_time = true;
    bench.policy = bench.policy.clone().with_account(account(), policy);
    let node = bench.node("a").await;
    let first = node.atlas.spawn(request(), keyed()).await.unwrap();
    first.terminate().await.unwrap();
    let early = node
        .atlas
        .get_or_spawn(request(), keyed())
        .await
        .unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Conflict, "{early}");
    settle(&node, first.id()).await;
    let second = node.atlas.get_or_spawn(request(), keyed()).await.unwrap();
    assert!(second.created);
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_the_next_process_returns_the_same_session() {
    let bench = Bench::new(66);
    let dying = bench.node("a").await;
    let first = dying.atlas.get_or_spawn(request(), keyed()).await.unwrap();
    dying.crash();
    sleep(60).await;
    let node = bench.node("a").await;
    let second = node.atlas.get_or_spawn(request(), keyed()).await.unwrap();
    assert_eq!(
        (second.created, second.session.id()),
        (false, first.session.id())
    );
    sleep(2 * BOUND.as_secs()).await;
    assert_eq!((bench.ledger().created, bench.ledger().live), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_key_row_that_was_left_over_is_taken_over_once() {
    let bench = Bench::new(67);
    let nodes = [bench.node("a").await, bench.node("bb").await];
    let first = nodes[0].atlas.spawn(request(), keyed()).await.unwrap();
    let key = b"studio:u42";
    let row = bench.store.get(Table::Keys, key).await.unwrap().unwrap();
    first.terminate().await.unwrap();
    settle(&nodes[0], first.id()).await;
    // An older release ends a session without knowing that it had a key.
    let mut batch = Batch::new();
    batch.put(Table::Keys, key, row.value);
    bench.store.commit(batch).await.unwrap();
    assert!(nodes[0].atlas.find("studio:u42").await.unwrap().is_none());
    let calls = (0..20).map(|n| nodes[n % 2].atlas.get_or_spawn(request(), keyed()));
    let created = join_all(calls)
        .await
        .into_iter()
        .filter(|one| one.as_ref().unwrap().created);
    assert_eq!(created.count(), 1);
    assert_eq!(bench.ledger().live, 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_got_no_machine_gives_its_key_back() {
    let bench = Bench::new(68);
    let node = bench.node("a").await;
    let refused = request().image("x/y:1").region("nowhere");
    let error = node.atlas.get_or_spawn(refused, keyed()).await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Conflict, "{error}");
    let next = node.atlas.get_or_spawn(request(), keyed()).await.unwrap();
    assert!(next.created);
    let info = next.session.info().await.unwrap();
    assert_ne!(info.state, SessionState::Terminated);
}
