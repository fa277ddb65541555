//! What must flow: events, tunnels, half-closed connections, HTTP/2.

use atlas_auth::grant::Access;
use atlas_auth::signed_url::Format;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Version};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{HOST, KEY, World, grant, read_answer, read_until, signed};

#[tokio::test]
async fn an_event_arrives_while_the_stream_goes_on() {
    let world = World::new(&[]).await;
    let mut stream = world.connect().await;
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: {HOST}\r\n\r\n",
        signed(Format::Atlas, "/events")
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut stream, "data: 1").await;
    assert_eq!(world.activity("open").await, 1);
    world.more.notify_one();
    read_until(&mut stream, "data: 2").await;
    world.until("open", 0).await;
}

#[tokio::test]
async fn a_browser_that_leaves_is_not_open_any_more() {
    let world = World::new(&[("ATLAS_GUARD_HALF_CLOSED_TIMEOUT_SECS", "1")]).await;
    let mut stream = world.connect().await;
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: {HOST}\r\n\r\n",
        signed(Format::Atlas, "/events")
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut stream, "data: 1").await;
    drop(stream);
    world.until("open", 0).await;
}

#[tokio::test]
async fn a_client_that_closed_its_half_after_asking_still_gets_its_answer() {
    let world = World::new(&[]).await;
    let mut stream = world.connect().await;
    let head = format!(
        "POST /sink HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ncontent-length: \
            5\r\nauthorization: Bearer {KEY}\r\n\r\nhello"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let got = read_answer(&mut stream).await;
    assert_eq!((got.status, got.body.as_str()), (200, "5"));
}

#[tokio::test]
async fn a_websocket_opens_with_a_grant_and_carries_both_ways_past_the_clients_end() {
    let world = World::new(&[]).await;
    let mut stream = world.connect().await;
    let (_, token) = grant(Access::Read, "/ws");
    let head = format!(
        "GET /ws?atlas_grant={token} HTTP/1.1\r\nhost: {HOST}\r\nconnection: keep-alive, \
            Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-key: x\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n").await.to_lowercase();
    assert!(
        answer.starts_with("http/1.1 101") && answer.contains("upgrade: websocket"),
        "{answer}"
    );
    stream.write_all(b"ping").await.unwrap();
    read_until(&mut stream, "ping").await;
    assert_eq!(world.activity("open").await, 1);
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"|bye");
    world.until("open", 0).await;
    assert_eq!(
        (
            world.activity("bytes_in").await,
            world.activity("bytes_out").await
        ),
        (4, 8)
    );
}

#[tokio::test]
async fn a_websocket_without_a_credential_is_401() {
    let world = World::new(&[]).await;
    let got = world.ask("GET /ws\nupgrade: websocket").await;
    assert_eq!(got.status, 401);
}

#[tokio::test]
async fn a_partial_answer_passes_as_it_is() {
    let world = World::new(&[]).await;
    let got = world
        .ask(&format!(
            "GET {}\nrange: bytes=5-",
            signed(Format::Atlas, "/range")
        ))
        .await;
    assert_eq!(got.status, 206);
    assert!(got.head.contains("content-range: bytes=5-"), "{}", got.head);
}

#[tokio::test]
async fn http_2_passes_in_front_and_behind() {
    for behind in ["0", "1"] {
        let world = World::new(&[("ATLAS_GUARD_UPSTREAM_HTTP2", behind)]).await;
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http::<Empty<bytes::Bytes>>();
        let request = |path: &str| {
            let request = Request::get(format!("http://{}{path}", world.guard));
            let request = request
                .header("authorization", format!("Bearer {KEY}"))
                .header("cookie", "a=1")
                .header("cookie", "b=2");
            request.body(Empty::new()).unwrap()
        };
        let response = client.request(request("/p?a=1")).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.version()),
            (200, Version::HTTP_2)
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(
            body.contains(&world.guard.to_string()) && !body.contains(KEY),
            "{body}"
        );
        assert!(body.contains("\"cookie\": \"a=1; b=2\""), "{body}");

        let mut events = client
            .request(request("/events"))
            .await
            .unwrap()
            .into_body();
        assert_eq!(
            events.frame().await.unwrap().unwrap().into_data().unwrap(),
            "data: 1\n\n"
        );
        world.more.notify_one();
        assert_eq!(
            events.frame().await.unwrap().unwrap().into_data().unwrap(),
            "data: 2\n\n"
        );
    }
}
