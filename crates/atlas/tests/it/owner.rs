//! What the socket of the process that holds a store answers.

use atlas::owner::{
    Call, EventItem, Events, EventsSent, Filter, Info, List, OwnerClient, Sealed, SessionView,
    Spawn, SpawnAs, Stop, Touch,
};
use atlas::{Atlas, EventKind, Redb, SessionOptions, SessionState, Shutdown};
use serde_json::json;

use crate::facade::{name, quick, request};

async fn ask<C: Call>(client: &mut OwnerClient, call: C) -> (C::Answer, Vec<C::Item>) {
    let mut items = Vec::new();
    let answer = client.ask(call, |item| {
        items.push(item);
        Ok(())
    });
    (answer.await.expect("the holder answers"), items)
}

#[tokio::test]
async fn another_process_can_do_everything_over_the_socket() {
    let (cloud, policy) = quick();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.redb");
    let atlas = Atlas::builder()
        .account(name("mock"), cloud.provider())
        .store(Redb::open(&path).unwrap())
        .policy(policy)
        .build()
        .await
        .unwrap();
    let mut client = OwnerClient::connect(&path)
        .await
        .unwrap()
        .expect("the holder listens");
    let order = Spawn {
        request: Sealed::new(&request()),
        options: SessionOptions::new().user("u1"),
        task: false,
    };
    assert!(
        !format!("{order:?}").contains("x/y:1"),
        "a sealed request shows itself"
    );
    let (made, told) = ask(&mut client, order).await;
    assert!(
        told.iter().any(|item| item.progress == "on record"),
        "{told:?}"
    );
    let (compute, auth) = (made.info.compute.unwrap(), made.auth.unwrap());
    assert_eq!(compute.provider.as_str(), "mock");
    assert_eq!(auth.scheme, atlas::Auth::Bearer);
    assert_eq!(compute.ports[0].internal, 8000);
    let token = auth.token.as_ref().unwrap();
    assert!(token.expose().len() == 43);
    assert!(
        !format!("{auth:?}").contains(token.expose()),
        "a token shows itself"
    );

    let (all, _) = ask(&mut client, List(Filter::default())).await;
    let session = made.info.id;
    assert_eq!((all.len(), all[0].info.id), (1, session));
    let secrets = false;
    let (view, _) = ask(&mut client, Info { session, secrets }).await;
    let shown = view.auth.unwrap();
    assert_eq!((shown.token, shown.hash), (None, auth.hash));
    let (touched, _) = ask(&mut client, Touch { session }).await;
    assert_eq!(touched.touch, atlas::Touch::Recorded);
    let call = Events {
        session: Some(session),
        ..Events::default()
    };
    let (_, events) = ask(&mut client, call).await;
    assert!(
        matches!(events[0].event.kind, EventKind::Created { .. }),
        "{events:?}"
    );
    let places: Vec<u64> = events.iter().map(|item| item.event.seq).collect();
    let last = events.last().unwrap();
    assert_eq!(
        last.cursor, last.event.seq,
        "a session's log is resumed by its numbers"
    );
    assert_eq!(
        places,
        (1..=u64::try_from(places.len()).unwrap()).collect::<Vec<_>>(),
        "a gap in {places:?}"
    );
    let (stopped, _) = ask(&mut client, Stop { session }).await;
    assert_eq!(stopped.outcome.state(), SessionState::Terminating);

    atlas.shutdown(Shutdown::Handover).await.unwrap();
    assert!(
        OwnerClient::connect(&path).await.unwrap().is_none(),
        "the socket outlived the holder"
    );
}

#[tokio::test]
async fn a_session_looks_as_scripts_rely_on() {
    let (cloud, policy) = quick();
    let atlas = Atlas::builder()
        .account(name("mock"), cloud.provider())
        .policy(policy)
        .build()
        .await
        .unwrap();
    let session = atlas.spawn(request(), SessionOptions::new()).await.unwrap();
    let shown = json!(SessionView::new(session.info().await.unwrap(), true));
    for path in [
        "/session",
        "/compute/id",
        "/compute/name",
        "/compute/provider",
        "/compute/status",
        "/compute/ports/0/internal",
    ] {
        assert!(
            shown.pointer(path).is_some_and(|value| !value.is_null()),
            "{path} is missing in {shown}"
        );
    }
    for path in [
        "/compute/ports/0/external",
        "/compute/ports/0/protocol",
        "/compute/ports/0/url",
    ] {
        assert!(
            shown.pointer(path).is_some(),
            "{path} is missing in {shown}"
        );
    }
    let header = format!(
        "Bearer {}",
        shown["compute"]["auth"]["token"].as_str().unwrap()
    );
    assert_eq!(shown["compute"]["auth"]["header"], header.as_str());
    assert_eq!(shown["compute"]["auth"]["hash"].as_str().unwrap().len(), 64);
    atlas
        .shutdown(Shutdown::TerminateAll {
            wait: std::time::Duration::from_secs(20),
        })
        .await
        .unwrap();
}

async fn owner(path: &std::path::Path) -> Atlas {
    let (cloud, policy) = quick();
    Atlas::builder()
        .account(name("mock"), cloud.provider())
        .store(Redb::open(path).expect("a new store"))
        .state_dir(path.with_extension("state"))
        .policy(policy)
        .build()
        .await
        .expect("it starts")
}

async fn connect(path: &std::path::Path) -> OwnerClient {
    let found = OwnerClient::connect(path).await;
    found.expect("it can be reached").expect("it listens")
}

#[tokio::test]
async fn an_order_that_is_asked_for_again_under_its_id_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.redb");
    let atlas = owner(&path).await;
    let order = SpawnAs {
        session: atlas.new_id(),
        request: Sealed::new(&request()),
        options: SessionOptions::new().user("u1"),
        task: false,
    };
    let (first, _) = ask(&mut connect(&path).await, order.clone()).await;
    let (again, _) = ask(&mut connect(&path).await, order).await;
    let machine = |view: &SessionView| view.info.compute.as_ref().unwrap().id.clone();
    assert_eq!(machine(&first), machine(&again));
    assert_eq!(first.auth.unwrap(), again.auth.unwrap());
    let (all, _) = ask(&mut connect(&path).await, List(Filter::default())).await;
    assert_eq!(all.len(), 1);
    atlas.shutdown(Shutdown::Handover).await.unwrap();
}

#[tokio::test]
async fn the_feed_of_all_sessions_is_read_whole_and_resumed_from_what_it_sends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.redb");
    let atlas = owner(&path).await;
    for _ in 0..8 {
        atlas.spawn(request(), SessionOptions::new()).await.unwrap();
    }
    let feed = async |since: u64| -> (EventsSent, Vec<EventItem>) {
        let call = Events {
            since,
            ..Events::default()
        };
        ask(&mut connect(&path).await, call).await
    };
    let (answer, all) = feed(0).await;
    assert!(
        all.len() > 16,
        "more than any queue on the way holds: {}",
        all.len()
    );
    assert_eq!(answer.events, all.len() as u64);
    let half = all.len() / 2;
    let cursor = all[half - 1].cursor;
    let (_, rest) = feed(cursor).await;
    assert_eq!(rest[..all.len() - half], all[half..]);
    atlas.shutdown(Shutdown::Handover).await.unwrap();
}
