//! Events: gapless for every reader, however slow; kept for a week; and a live reader learns how
//! far behind it is.

use std::time::Duration;

use atlas_orchestrator::store::{AnyStore, Batch};
use atlas_orchestrator::{
    Cursor, EventKind, Scope, SessionFilter, SessionId, SessionOptions, SessionState, Shutdown,
};
use tokio::time::Instant;

use crate::node::{Bench, Node, options, request, settle, sleep};

/// More than what live subscribers are kept ready.
const MANY: u64 = 4_200;

async fn ready(node: &Node, options: SessionOptions) -> SessionId {
    let session = node.atlas.spawn(request(), options).await.unwrap();
    session.await_ready(Duration::from_secs(300)).await.unwrap();
    session.id()
}

async fn report(node: &Node, id: SessionId, from: u64, to: u64) {
    for n in from..to {
        node.atlas
            .report(id, "progress", &n.to_string())
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_told_how_far_it_lags_and_catches_up_and_slows_nobody() {
    let bench = Bench::new(1);
    let node = bench.node("a").await;
    let id = ready(&node, options()).await;
    for scope in [
        Scope::Session(id),
        Scope::All,
        Scope::User("nobody".to_owned()),
    ] {
        let others = scope == Scope::User("nobody".to_owned());
        let mut quick = node.atlas.subscribe(Scope::Session(id), Cursor::NOW);
        report(&node, id, 0, 1).await;
        let last = node.atlas.info(id).await.unwrap().last_seq;
        while quick.next().await.unwrap().unwrap().event.seq < last {}
        let mut slow = node.atlas.subscribe(scope.clone(), Cursor::NOW);
        let begun = Instant::now();
        for n in 1..=MANY {
            report(&node, id, n, n + 1).await;
            let delivery = quick.next().await.unwrap().unwrap();
            assert_eq!(
                (delivery.event.seq, delivery.behind),
                (last + n, 0),
                "the quick one is never behind"
            );
        }
        assert_eq!(
            begun.elapsed(),
            Duration::ZERO,
            "no commit and no reader waited for the slow one"
        );
        if others {
            assert!(
                slow.try_next().await.unwrap().is_none(),
                "none of these is its user's"
            );
            continue;
        }
        let first = slow.next().await.unwrap().unwrap();
        assert_eq!(
            first.event.seq,
            last + 1,
            "nothing before its beginning, and nothing missed after"
        );
        assert_eq!(first.behind, MANY - 1, "it is told");
        let mut seen = first.event.seq;
        while seen < last + MANY {
            let delivery = slow.next().await.unwrap().unwrap();
            assert_eq!(delivery.event.seq, seen + 1);
            seen += 1;
        }
        report(&node, id, 0, 1).await;
        let live = slow.next().await.unwrap().unwrap();
        assert_eq!(
            (live.event.seq, live.behind),
            (seen + 1, 0),
            "it is live again"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_goes_on_from_its_cursor_in_every_scope() {
    let bench = Bench::new(2);
    let node = bench.node("a").await;
    let mine = ready(&node, options().user("u1")).await;
    let theirs = ready(&node, options().user("u2")).await;
    for scope in [
        Scope::Session(mine),
        Scope::User("u1".to_owned()),
        Scope::All,
    ] {
        let mut whole = node.atlas.subscribe(scope.clone(), Cursor::START);
        let mut all = Vec::new();
        while let Some(delivery) = whole.try_next().await.unwrap() {
            all.push(delivery);
        }
        let foreign = all
            .iter()
            .filter(|delivery| delivery.event.session == theirs)
            .count();
        assert_eq!(foreign > 0, scope == Scope::All);
        for at in 0..all.len() {
            let mut rest = node.atlas.subscribe(scope.clone(), all[at].cursor);
            let next = rest.try_next().await.unwrap();
            assert_eq!(
                next.map(|delivery| delivery.event),
                all.get(at + 1).map(|delivery| delivery.event.clone())
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_one_session_is_refused_for_several_and_the_other_way_round() {
    let bench = Bench::new(5);
    let node = bench.node("a").await;
    let id = ready(&node, options().user("u1")).await;
    let session = Scope::Session(id);
    let several = [Scope::User("u1".to_owned()), Scope::All];
    let mut log = node.atlas.subscribe(session.clone(), Cursor::START);
    let of_session = log.next().await.unwrap().unwrap().cursor;
    for scope in several {
        let mut log = node.atlas.subscribe(scope.clone(), Cursor::START);
        let of_store = log.next().await.unwrap().unwrap().cursor;
        assert_eq!(scope.after(of_store.number()), of_store);
        for (scope, cursor) in [(session.clone(), of_store), (scope, of_session)] {
            let mut wrong = node.atlas.subscribe(scope, cursor);
            let error = wrong.next().await.unwrap_err();
            assert_eq!(error.field(), Some("cursor"), "{error}");
            assert!(wrong.try_next().await.is_err());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn events_are_kept_for_seven_days_after_the_end_and_then_forgotten() {
    let bench = Bench::new(3);
    let node = bench.node("a").await;
    let id = ready(&node, options()).await;
    node.atlas.session(id).await.unwrap().stop().await.unwrap();
    node.atlas
        .await_terminated(id, Duration::from_secs(7200))
        .await
        .unwrap();
    let logged = |node: &Node| {
        let mut log = node.atlas.subscribe(Scope::Session(id), Cursor::START);
        async move {
            let mut events = Vec::new();
            while let Some(delivery) = log.try_next().await.unwrap() {
                events.push(delivery.event);
            }
            events
        }
    };
    let kept = logged(&node).await;
    assert!(matches!(
        kept.last().unwrap().kind,
        EventKind::Terminated { .. }
    ));
    // No process runs for most of the week.
    node.atlas
        .shutdown(atlas_orchestrator::Shutdown::Handover)
        .await
        .unwrap();
    sleep(7 * 24 * 3600 - 3 * 3600).await;
    let node = bench.node("a").await;
    sleep(3 * 3600 - 60).await;
    assert_eq!(
        logged(&node).await,
        kept,
        "a minute before the week is over"
    );
    // The round that forgets goes once an hour.
    sleep(60 + 2 * 3600).await;
    assert!(logged(&node).await.is_empty());
    let info = node.atlas.info(id).await.unwrap();
    assert_eq!(
        (info.state, info.last_seq),
        (SessionState::Terminated, kept.last().unwrap().seq),
        "the session itself is remembered"
    );
}

#[tokio::test(start_paused = true)]
async fn sessions_are_found_by_user_label_and_state() {
    let bench = Bench::new(4);
    let node = bench.node("a").await;
    let vision = ready(
        &node,
        options()
            .user("u1")
            .label("team", "vision")
            .label("tier", "free"),
    )
    .await;
    let speech = ready(&node, options().user("u1").label("team", "speech")).await;
    let other = ready(&node, options().user("u2").label("team", "vision")).await;
    node.atlas
        .session(other)
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    settle(&node, other).await;
    let found = async |filter: SessionFilter| -> Vec<SessionId> {
        node.atlas
            .list(filter)
            .await
            .unwrap()
            .into_iter()
            .map(|info| info.id)
            .collect()
    };
    assert_eq!(found(SessionFilter::live()).await, [vision, speech]);
    assert_eq!(found(SessionFilter::all()).await, [vision, speech, other]);
    assert_eq!(
        found(SessionFilter::live().user("u1")).await,
        [vision, speech]
    );
    assert_eq!(found(SessionFilter::live().user("u2")).await, []);
    assert_eq!(
        found(SessionFilter::all().label("team", "vision")).await,
        [vision, other]
    );
    assert_eq!(
        found(
            SessionFilter::all()
                .label("team", "vision")
                .label("tier", "free")
        )
        .await,
        [vision]
    );
    assert_eq!(
        found(SessionFilter::all().label("team", "vision").user("u2")).await,
        [other]
    );
    assert_eq!(found(SessionFilter::all().label("team", "")).await, []);
    assert_eq!(
        found(SessionFilter::all().state(SessionState::Terminated)).await,
        [other]
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_understood_is_said_once_and_keeps_nobody_from_the_others() {
    let bench = Bench::new(9);
    let node = bench.node("a").await;
    let before = ready(&node, options()).await;
    let mut torn = Batch::new();
    torn.append([7; 16], 1, *b"of no release");
    AnyStore::new(bench.store.clone())
        .commit(torn)
        .await
        .unwrap();
    let after = ready(&node, options()).await;
    let mut log = node.atlas.subscribe(Scope::All, Cursor::START);
    let (mut seen, mut errors) = (Vec::new(), 0);
    loop {
        match log.try_next().await {
            Ok(Some(delivery)) => seen.push(delivery.event.session),
            Ok(None) => break,
            Err(_) => errors += 1,
        }
    }
    assert_eq!(
        (errors, seen.contains(&before), seen.contains(&after)),
        (1, true, true)
    );
}

#[tokio::test(start_paused = true)]
async fn a_subscription_reads_what_was_committed_before_it_was_told_to_end() {
    let bench = Bench::new(4);
    let node = bench.node("a").await;
    let id = ready(&node, options()).await;
    let mut log = node.atlas.subscribe(Scope::Session(id), Cursor::NOW);
    let before = node.atlas.info(id).await.unwrap().last_seq;
    for round in 0..40 {
        let text = format!("round {round}");
        node.atlas.report(id, "progress", &text).await.unwrap();
    }
    // No task has run since, so none of it was handed to a live reader yet.
    node.atlas.end_subscriptions();
    let mut read = Vec::new();
    while let Some(delivery) = log.next().await.unwrap() {
        read.push(delivery.event.seq);
    }
    assert_eq!(read, (before + 1..=before + 40).collect::<Vec<_>>());
    assert_eq!(log.next().await.unwrap(), None, "it has ended");
    assert!(
        node.atlas.info(id).await.is_ok(),
        "the orchestrator runs on"
    );
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_read_after_the_shutdown_has_lost_nothing() {
    let bench = Bench::new(5);
    let node = bench.node("a").await;
    let mut log = node.atlas.subscribe(Scope::All, Cursor::NOW);
    let id = ready(&node, options()).await;
    node.atlas.shutdown(Shutdown::Handover).await.unwrap();
    let mut read = Vec::new();
    while let Some(delivery) = log.next().await.unwrap() {
        read.push(delivery.event.seq);
    }
    let last = node.atlas.info(id).await.unwrap().last_seq;
    assert_eq!(read, (1..=last).collect::<Vec<_>>());
}
