//! What ends with a credential, and what never begins: upgrades other than a WebSocket's.

use std::time::Duration;

use atlas_auth::grant::{Access, GrantId};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{HOST, KEY, World, grant, grant_for, read_until};

const WEBSOCKET: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n";

/// Opens `path` with a grant and waits for the beginning of its answer.
async fn open(world: &World, path: &str, token: &str, fields: &str, begins: &str) -> TcpStream {
    let mut stream = world.connect().await;
    let head = format!("GET {path}atlas_grant={token} HTTP/1.1\r\nhost: {HOST}\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut stream, begins).await;
    stream
}

async fn revoke(world: &World, grant: GrantId) {
    let revoke = format!("POST /_atlas/revoke/{grant}\nauthorization: Bearer {KEY}");
    assert_eq!(world.ask(&revoke).await.status, 204);
}

/// Reads to the end, however it comes.
async fn has_ended(mut stream: TcpStream) {
    let mut rest = vec![];
    let reading = stream.read_to_end(&mut rest);
    let ended = tokio::time::timeout(Duration::from_secs(10), reading).await;
    assert!(ended.is_ok(), "it goes on");
}

#[tokio::test]
async fn no_upgrade_but_a_websockets_reaches_the_server() {
    let world = World::new(&[]).await;
    let (_, token) = grant(Access::Read, "/ws");
    for upgrade in [
        "h2c",
        "H2C",
        "websocket, h2c",
        "h2c, websocket",
        "websocket\nupgrade: h2c",
    ] {
        let mut stream = world.connect().await;
        let head = format!(
            "GET /ws?atlas_grant={token} HTTP/1.1\nhost: {HOST}\nconnection: Upgrade, \
                HTTP2-Settings\n\
             upgrade: {upgrade}\nhttp2-settings: AAMAAABkAAQAAP__\nsec-websocket-key: x\n\n"
        );
        let head = head.replace('\n', "\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let got = read_until(&mut stream, "GET /ws").await.to_lowercase();
        assert!(got.starts_with("http/1.1 200"), "{upgrade}: {got}");
        assert!(!got.contains("h2c") && !got.contains("settings"), "{got}");
    }
}

#[tokio::test]
async fn revoking_a_grant_ends_its_websocket_and_its_streams_and_leaves_others() {
    let world = World::new(&[]).await;
    let ((first, token), (_, other)) = (grant(Access::Read, "/"), grant(Access::Read, "/"));
    let socket = open(&world, "/ws?", &token, WEBSOCKET, "\r\n\r\n").await;
    let events = open(&world, "/events?", &token, "", "data: 1").await;
    let mut kept = open(&world, "/ws?", &other, WEBSOCKET, "\r\n\r\n").await;
    assert_eq!(world.activity("open").await, 3);
    revoke(&world, first.id()).await;
    has_ended(socket).await;
    has_ended(events).await;
    world.until("open", 1).await;
    kept.write_all(b"ping").await.unwrap();
    read_until(&mut kept, "ping").await;
}

#[tokio::test]
async fn revoking_a_grant_ends_a_download_that_its_client_does_not_read() {
    let world = World::new(&[]).await;
    let (granted, token) = grant(Access::Read, "/");
    let unread = open(&world, "/zeros?1000000000&", &token, "", "200 OK").await;
    revoke(&world, granted.id()).await;
    world.until("open", 0).await;
    drop(unread);

    let (granted, token) = grant(Access::Read, "/");
    let io = TokioIo::new(world.connect().await);
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!(
        "http://{HOST}/zeros?1000000000&atlas_grant={token}"
    ));
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let mut unread = client.send_request(request).await.unwrap().into_body();
    revoke(&world, granted.id()).await;
    world.until("open", 0).await;
    let broken = loop {
        match unread.frame().await {
            Some(Ok(_)) => {}
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(broken, "an answer that was cut looks complete");
}

#[tokio::test]
async fn a_grant_that_expires_ends_what_it_opened() {
    let world = World::new(&[]).await;
    let (_, token) = grant_for(Access::Read, "/", Duration::from_secs(2));
    let socket = open(&world, "/ws?", &token, WEBSOCKET, "\r\n\r\n").await;
    let events = open(&world, "/events?", &token, "", "data: 1").await;
    has_ended(socket).await;
    has_ended(events).await;
    world.until("open", 0).await;
}
