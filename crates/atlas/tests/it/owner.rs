//! What the socket of the process that holds a store answers.

use atlas::owner::{Filter, Request, Sealed, describe};
use atlas::{Atlas, Redb, SessionOptions, Shutdown};
use atlas_owner::OwnerClient;
use serde_json::{Value, json};

use crate::facade::{name, quick, request};

async fn ask(client: &mut OwnerClient, request: &Request) -> (Value, Vec<Value>) {
    let mut items = Vec::new();
    let request = json!(request);
    let answer = client.ask(&request, |item| {
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
    let order = Request::Spawn {
        request: Sealed::new(&request()),
        options: SessionOptions::new().user("u1"),
        task: false,
    };
    assert!(
        !format!("{order:?}").contains("x/y:1"),
        "a sealed request shows itself"
    );
    let (made, told) = ask(&mut client, &order).await;
    assert!(
        told.iter().any(|item| item["progress"] == "on record"),
        "{told:?}"
    );
    assert_eq!(made["compute"]["provider"], "mock");
    assert_eq!(made["compute"]["auth"]["scheme"], "bearer");
    assert_eq!(made["compute"]["ports"][0]["internal"], 8000);
    assert!(made["compute"]["auth"]["token"].as_str().unwrap().len() == 43);

    let (all, _) = ask(&mut client, &Request::List(Filter::default())).await;
    assert_eq!(
        (all.as_array().unwrap().len(), &all[0]["session"]),
        (1, &made["session"])
    );
    let session = made["session"].as_str().unwrap().parse().unwrap();
    let (info, _) = ask(
        &mut client,
        &Request::Info {
            session,
            secrets: false,
        },
    )
    .await;
    assert_eq!(
        (
            info["compute"]["auth"]["token"].is_null(),
            &info["compute"]["auth"]["hash"]
        ),
        (true, &made["compute"]["auth"]["hash"])
    );
    assert_eq!(
        ask(&mut client, &Request::Touch { session }).await.0["touch"],
        "recorded"
    );
    let (_, events) = ask(
        &mut client,
        &Request::Events {
            session: Some(session),
            since: 0,
            follow: false,
        },
    )
    .await;
    assert_eq!(events[0]["event"], "created", "{events:?}");
    let places: Vec<u64> = events
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(
        events.last().unwrap()["cursor"],
        events.last().unwrap()["seq"],
        "a session's log is resumed by its numbers"
    );
    assert_eq!(
        places,
        (1..=u64::try_from(places.len()).unwrap()).collect::<Vec<_>>(),
        "a gap in {places:?}"
    );
    assert_eq!(
        ask(&mut client, &Request::Stop { session }).await.0["state"],
        "terminating"
    );

    let unknown = client
        .ask(&json!({"do": "dance"}), |_| Ok(()))
        .await
        .unwrap_err();
    assert_eq!(unknown.field(), Some("request"));
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
    let shown = describe(&session.info().await.unwrap(), true);
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
    let order = Request::SpawnAs {
        session: atlas.new_id(),
        request: Sealed::new(&request()),
        options: SessionOptions::new().user("u1"),
        task: false,
    };
    let (first, _) = ask(&mut connect(&path).await, &order).await;
    let (again, _) = ask(&mut connect(&path).await, &order).await;
    assert_eq!(first["compute"]["id"], again["compute"]["id"]);
    assert_eq!(first["compute"]["auth"], again["compute"]["auth"]);
    let (all, _) = ask(&mut connect(&path).await, &Request::List(Filter::default())).await;
    assert_eq!(all.as_array().unwrap().len(), 1);
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
    let feed = async |since: u64| {
        let request = Request::Events {
            session: None,
            since,
            follow: false,
        };
        ask(&mut connect(&path).await, &request).await
    };
    let (answer, all) = feed(0).await;
    assert!(
        all.len() > 16,
        "more than any queue on the way holds: {}",
        all.len()
    );
    assert_eq!(answer["events"], all.len());
    let half = all.len() / 2;
    let cursor = all[half - 1]["cursor"].as_u64().unwrap();
    let (_, rest) = feed(cursor).await;
    assert_eq!(rest[..all.len() - half], all[half..]);
    atlas.shutdown(Shutdown::Handover).await.unwrap();
}
