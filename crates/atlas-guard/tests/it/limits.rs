//! What must not wear the guard down: long heads, slow heads, too many connections, a server that
//! is not there.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{HOST, KEY, World, start};

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
    let world = World::new(&[("ATLAS_GUARD_MAX_CONNECTIONS", "1")]).await;
    let mut first = world.connect().await;
    first
        .write_all(format!("GET /healthz HTTP/1.1\r\nhost: {HOST}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    crate::world::read_until(&mut first, "ok\n").await;
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
