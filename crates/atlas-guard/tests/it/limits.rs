//! What must not wear the guard down: long heads, slow heads, too many connections, a server that
//! is not there.

use std::net::SocketAddr;
use std::time::Duration;

use atlas_auth::grant::Access;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{HOST, KEY, World, grant, start};

#[tokio::test]
async fn a_head_over_the_limit_is_431_and_one_under_it_passes() {
    let world = World::new(&[("ATLAS_GUARD_MAX_HEADER_BYTES", "2048")]).await;
    let with = |bytes: usize| {
        format!(
            "GET /p\nauthorization: Bearer {KEY}\nx-long: {}",
            "x".repeat(bytes)
        )
    };
    assert_eq!(world.ask(&with(1500)).await.status, 200);
    assert_eq!(world.ask(&with(2500)).await.status, 431);
    assert_eq!(world.ask(&with(200_000)).await.status, 431);
}

#[tokio::test]
async fn a_peer_that_never_finishes_its_head_is_cut() {
    let world = World::new(&[("ATLAS_GUARD_HEADER_TIMEOUT_SECS", "1")]).await;
    for beginning in ["", "P", "GET / HTTP/1.1\r\nhost: h\r\nx-slow: "] {
        let mut stream = world.connect().await;
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let ended =
            tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "still open after {beginning:?}");
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{rest:?}");
    }
}

#[tokio::test]
async fn one_connection_too_many_waits_for_a_place() {
    let world = World::new(&[
        ("ATLAS_GUARD_HALF_CLOSED_TIMEOUT_SECS", "1"),
        ("ATLAS_GUARD_MAX_CONNECTIONS", "1"),
    ])
    .await;
    let mut first = world.connect().await;
    let head =
        format!("GET /events HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {KEY}\r\n\r\n");
    first.write_all(head.as_bytes()).await.unwrap();
    crate::world::read_until(&mut first, "data: 1").await;
    let second = world.get("/healthz");
    let mut second = std::pin::pin!(second);
    assert!(
        tokio::time::timeout(Duration::from_millis(200), &mut second)
            .await
            .is_err()
    );
    drop(first);
    assert_eq!(second.await.status, 200);
}

#[tokio::test]
async fn connections_without_a_credential_give_way_when_places_are_short() {
    let world = World::new(&[("ATLAS_GUARD_MAX_CONNECTIONS", "2")]).await;
    let refused = format!("GET /p HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    let mut strangers = vec![];
    for _ in 0..2 {
        let mut stranger = world.connect().await;
        stranger.write_all(refused.as_bytes()).await.unwrap();
        crate::world::read_until(&mut stranger, "401").await;
        strangers.push(stranger);
    }
    let got = tokio::time::timeout(Duration::from_secs(10), world.get_with("/p", KEY)).await;
    assert_eq!(got.expect("a place is made").status, 200);
    let mut rest = vec![];
    strangers[0].read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn a_refused_request_does_not_keep_a_connection() {
    let world = World::new(&[("ATLAS_GUARD_HEADER_TIMEOUT_SECS", "1")]).await;
    let mut stranger = world.connect().await;
    let refused = format!("GET /p HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    let asking = async {
        let mut chunk = [0; 4096];
        loop {
            if stranger.write_all(refused.as_bytes()).await.is_err() {
                return;
            }
            match stranger.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(10), asking).await;
    assert!(ended.is_ok(), "401 after 401 keeps its place");
}

#[tokio::test]
async fn one_grant_opens_only_so_many_streams_and_leaves_room_for_others() {
    let world = World::new(&[
        ("ATLAS_GUARD_HALF_CLOSED_TIMEOUT_SECS", "1"),
        ("ATLAS_GUARD_MAX_STREAMS", "3"),
        ("ATLAS_GUARD_MAX_STREAMS_PER_CREDENTIAL", "2"),
    ])
    .await;
    let open = async |token: &str| {
        let mut stream = world.connect().await;
        let head = format!("GET /events?atlas_grant={token} HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        crate::world::read_until(&mut stream, "data: 1").await;
        stream
    };
    let (_, greedy) = grant(Access::Read, "/");
    let _held = (open(&greedy).await, open(&greedy).await);
    let got = world.get(&format!("/p?atlas_grant={greedy}")).await;
    assert_eq!(got.status, 429);
    assert!(got.head.contains("retry-after: 1"), "{}", got.head);
    let (_, other) = grant(Access::Read, "/");
    let last = open(&other).await;
    assert_eq!(world.get_with("/p", KEY).await.status, 503);
    assert_eq!(world.get_with("/_atlas/activity", KEY).await.status, 200);
    drop(last);
    world.until("open", 2).await;
    assert_eq!(world.get_with("/p", KEY).await.status, 200);
}

#[tokio::test]
async fn streams_of_http_2_that_nobody_reads_hold_up_no_others() {
    let world = World::new(&[("ATLAS_GUARD_UPSTREAM_HTTP2", "1")]).await;
    let io = TokioIo::new(world.connect().await);
    let (mut client, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1 << 30)
        .initial_connection_window_size(65_535)
        .handshake(io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut unread = vec![];
    for _ in 0..50 {
        let request = Request::get(format!("http://{HOST}/zeros?100000000"))
            .header("authorization", format!("Bearer {KEY}"));
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        unread.push(client.send_request(request).await.unwrap());
    }
    let got = tokio::time::timeout(Duration::from_secs(10), world.get_with("/p", KEY)).await;
    assert_eq!(got.expect("the server's connection has room").status, 200);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_502_and_the_guard_is_healthy() {
    let nobody: SocketAddr = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let guard = start(&[], nobody).await;
    let world = World {
        guard,
        more: std::sync::Arc::default(),
    };
    let got = world.get_with("/p", KEY).await;
    assert_eq!(got.status, 502);
    assert!(!got.body.contains(&nobody.to_string()), "{}", got.body);
    assert_eq!(world.get("/healthz").await.status, 200);
    world.until("open", 0).await;
}

#[tokio::test]
async fn an_http_2_connection_on_which_nothing_passes_is_ended_and_one_with_an_open_stream_is_not()
{
    let world = World::new(&[("ATLAS_GUARD_HEADER_TIMEOUT_SECS", "1")]).await;
    let connect = || async {
        let io = TokioIo::new(world.connect().await);
        let (client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        (client, tokio::spawn(connection))
    };
    let request = |path: &str, token: &str| {
        let request = Request::get(format!("http://{HOST}{path}"))
            .header("authorization", format!("Bearer {token}"));
        request.body(Empty::<Bytes>::new()).unwrap()
    };
    let (mut streaming, going_on) = connect().await;
    let mut events = streaming
        .send_request(request("/events", KEY))
        .await
        .unwrap()
        .into_body();
    assert_eq!(
        events.frame().await.unwrap().unwrap().into_data().unwrap(),
        "data: 1\n\n"
    );

    let (mut refused, ended) = connect().await;
    assert_eq!(
        refused
            .send_request(request("/p", "wrong"))
            .await
            .unwrap()
            .status(),
        401
    );
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
    assert!(ended.is_ok(), "it stands idle for ever");

    world.more.notify_one();
    assert_eq!(
        events.frame().await.unwrap().unwrap().into_data().unwrap(),
        "data: 2\n\n"
    );
    assert!(events.collect().await.unwrap().to_bytes().is_empty());
    assert!(!going_on.is_finished());
}
