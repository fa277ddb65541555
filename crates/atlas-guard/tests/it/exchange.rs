//! The guard's own HTTP/1.1 towards the server: what it sends, what it makes of odd answers, and
//! when it asks again.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::world::{HOST, KEY, World, read_until, start};

/// A server that plays one script on each connection: reads until a text has come, writes another,
/// and so on; then closes. What it read comes out of the channel, one text for each connection,
/// when that is over.
async fn scripted(
    scripts: Vec<Vec<(&'static str, &'static str)>>,
) -> (World, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (seen, seen_by_server) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for script in scripts {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut all = String::new();
            for (until, answer) in script {
                let mut read = String::new();
                let mut byte = [0];
                while !read.ends_with(until)
                    && stream.read(&mut byte).await.is_ok_and(|bytes| bytes > 0)
                {
                    read.push(char::from(byte[0]));
                }
                all.push_str(&read);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            let _unheard = seen.send(all);
        }
        // A new connection would wait forever, and the test would not end.
        std::future::pending::<()>().await;
    });
    let guard = start(&[], address).await;
    (
        World {
            guard,
            more: Arc::default(),
        },
        seen_by_server,
    )
}

async fn send(world: &World, text: &str) -> TcpStream {
    let mut stream = world.connect().await;
    let text = text.replace(
        "AUTH",
        &format!("host: {HOST}\r\nauthorization: Bearer {KEY}"),
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn a_connection_is_used_again_for_the_next_request_unless_it_answered_a_head() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n";
    let (world, mut seen) = scripted(vec![
        vec![("\r\n\r\n", OK), ("\r\n\r\n", OK), ("\r\n\r\n", head)],
        vec![("\r\n\r\n", OK)],
    ])
    .await;
    assert_eq!(world.get_with("/1", KEY).await.body, "ok");
    assert_eq!(world.get_with("/2", KEY).await.body, "ok");
    let got = world
        .ask(&format!("HEAD /3\nauthorization: Bearer {KEY}"))
        .await;
    assert!(
        got.head.contains("content-length: 7") && got.body.is_empty(),
        "{got:?}"
    );
    // A server that wrongly sends a body for a HEAD may send it late, so that connection is not
    // used again.
    assert_eq!(world.get_with("/4", KEY).await.body, "ok");
    let first = seen.recv().await.unwrap();
    assert!(
        ["GET /1", "GET /2", "HEAD /3"]
            .iter()
            .all(|line| first.contains(line)),
        "{first}"
    );
    assert!(seen.recv().await.unwrap().contains("GET /4"));
}

#[tokio::test]
async fn a_request_on_a_connection_that_the_server_has_just_closed_is_sent_again() {
    let (world, mut seen) = scripted(vec![
        vec![("\r\n\r\n", OK), ("\r\n\r\n", "")],
        vec![("\r\n\r\n", OK)],
    ])
    .await;
    assert_eq!(world.get_with("/1", KEY).await.body, "ok");
    assert_eq!(world.get_with("/2", KEY).await.body, "ok");
    assert!(seen.recv().await.unwrap().contains("GET /2"));
    assert!(seen.recv().await.unwrap().contains("GET /2"));
}

#[tokio::test]
async fn a_post_is_never_sent_twice() {
    let (world, mut seen) = scripted(vec![
        vec![("\r\n\r\n", OK), ("\r\n\r\n", "")],
        vec![("\r\n\r\n", OK)],
    ])
    .await;
    assert_eq!(world.get_with("/1", KEY).await.body, "ok");
    assert_eq!(
        world
            .ask(&format!("POST /2\nauthorization: Bearer {KEY}"))
            .await
            .status,
        502
    );
    assert!(seen.recv().await.unwrap().contains("POST /2"));
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_arrives_whole() {
    let (world, _) = scripted(vec![vec![(
        "\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nto the end",
    )]])
    .await;
    let got = world.get_with("/", KEY).await;
    assert!(
        got.body.contains("to the end") && got.body.trim_end().ends_with('0'),
        "{got:?}"
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_complete() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhalf",
    ] {
        let (world, _) = scripted(vec![vec![("\r\n\r\n", answer)]]).await;
        let got = world.get_with("/", KEY).await;
        let complete = got.body.ends_with("0\r\n\r\n") || got.body.len() == 9;
        // hyper may cut the connection before the head is out.
        assert!(matches!(got.status, 0 | 200) && !complete, "{got:?}");
    }
}

#[tokio::test]
async fn interim_answers_are_skipped_and_trailers_pass() {
    let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n\
                  HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: \
                      chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
    let (world, _) = scripted(vec![vec![("\r\n\r\n", answer)]]).await;
    let got = world
        .ask(&format!("GET /\nauthorization: Bearer {KEY}\nte: trailers"))
        .await;
    assert_eq!(got.status, 200);
    assert!(got.body.contains("2\r\nok\r\n0\r\nx-sum: 7\r\n"), "{got:?}");
}

#[tokio::test]
async fn what_is_no_http_or_switches_unasked_is_502() {
    for answer in [
        "SSH-2.0-OpenSSH_9\r\n\r\n",
        "HTTP/1.1 101 X\r\nupgrade: x\r\n\r\n",
        "",
    ] {
        let (world, _) = scripted(vec![vec![("\r\n\r\n", answer)]]).await;
        assert_eq!(world.get_with("/", KEY).await.status, 502, "{answer}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_a_body_before_it_came_is_heard() {
    let refusal = "HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nno!";
    let (world, _) = scripted(vec![vec![("\r\n\r\n", refusal)]]).await;
    let mut stream = send(
        &world,
        "POST /up HTTP/1.1\r\nAUTH\r\ncontent-length: 100000000\r\n\r\nbeginning",
    )
    .await;
    assert!(
        read_until(&mut stream, "no!")
            .await
            .starts_with("HTTP/1.1 413")
    );
}

#[tokio::test]
async fn a_body_has_one_length_towards_the_server_whatever_the_client_said() {
    let chunked = "POST /up HTTP/1.1\r\nAUTH\r\ncontent-length: 3\r\ntransfer-encoding: \
        chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let (world, mut seen) = scripted(vec![vec![("0\r\n\r\n", OK)]]).await;
    let mut stream = send(&world, chunked).await;
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    if answer.starts_with("HTTP/1.1 200") {
        let seen = seen.recv().await.unwrap();
        assert!(
            seen.contains("transfer-encoding: chunked") && !seen.contains("content-length"),
            "{seen}"
        );
        assert!(seen.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{seen}");
    } else {
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }

    let (world, mut seen) = scripted(vec![vec![("hello", OK)]]).await;
    let mut stream = send(
        &world,
        "POST /up HTTP/1.1\r\nAUTH\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n",
    )
    .await;
    assert!(
        read_until(&mut stream, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 100")
    );
    stream.write_all(b"hello").await.unwrap();
    read_until(&mut stream, "ok").await;
    let seen = seen.recv().await.unwrap();
    assert!(
        seen.contains("content-length: 5\r\n")
            && !seen.contains("expect")
            && !seen.contains("chunked"),
        "{seen}"
    );
}

#[tokio::test]
async fn an_upload_that_breaks_off_never_looks_complete_to_the_server() {
    let (world, mut seen) = scripted(vec![vec![("0\r\n\r\n", "")]]).await;
    let mut stream = send(
        &world,
        "POST /up HTTP/1.1\r\nAUTH\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    )
    .await;
    stream.flush().await.unwrap();
    world.until("bytes_in", 5).await;
    drop(stream);
    let seen = seen.recv().await.unwrap();
    assert!(
        seen.contains("hello") && !seen.ends_with("0\r\n\r\n"),
        "{seen}"
    );
    world.until("open", 0).await;
}

#[tokio::test]
async fn the_server_is_told_one_host_and_it_is_the_one_that_was_verified() {
    let (world, mut seen) = scripted(vec![vec![("\r\n\r\n", OK)]]).await;
    let target = crate::world::signed(atlas_auth::signed_url::Format::Atlas, "/p");
    for hosts in [
        "host: other\r\n".to_owned(),
        format!("host: {HOST}\r\nhost: {HOST}\r\n"),
    ] {
        let text = format!("GET http://{HOST}{target} HTTP/1.1\r\n{hosts}\r\n");
        let mut stream = send(&world, &text).await;
        read_until(&mut stream, "400 Bad Request").await;
    }
    let mut stream = send(&world, &format!("GET {target} HTTP/1.1\r\n\r\n")).await;
    read_until(&mut stream, "400 Bad Request").await;
    let text =
        format!("GET http://{HOST}{target} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
    let mut stream = send(&world, &text).await;
    read_until(&mut stream, "ok").await;
    let seen = seen.recv().await.unwrap();
    assert!(seen.starts_with("GET /p HTTP/1.1\r\n"), "{seen}");
    assert_eq!(seen.matches("host: ").count(), 1, "{seen}");
    assert!(seen.contains(&format!("host: {HOST}\r\n")), "{seen}");
}

#[tokio::test]
async fn a_request_of_http_1_0_has_a_host_behind_the_guard_and_no_trailer_says_who_asks() {
    let (world, mut seen) =
        scripted(vec![vec![("\r\n\r\n", OK)], vec![("x-sum: 7\r\n\r\n", OK)]]).await;
    let mut stream = send(
        &world,
        &format!("GET /p HTTP/1.0\r\nauthorization: Bearer {KEY}\r\n\r\n"),
    )
    .await;
    read_until(&mut stream, "ok").await;
    let text = seen.recv().await.unwrap();
    assert!(
        text.starts_with("GET /p HTTP/1.1\r\n") && text.matches("host: ").count() == 1,
        "{text}"
    );

    let trailers =
        format!("authorization: Bearer {KEY}\r\nx-atlas-principal: forged\r\nx-sum: 7\r\n\r\n");
    let head = "POST /up HTTP/1.1\r\nAUTH\r\ntransfer-encoding: chunked\r\ntrailer: \
        x-sum\r\n\r\n5\r\nhello\r\n0\r\n";
    let mut stream = send(&world, &format!("{head}{trailers}")).await;
    read_until(&mut stream, "ok").await;
    let text = seen.recv().await.unwrap();
    assert!(
        !text.contains("forged") && !text.contains(KEY) && text.contains("x-sum: 7"),
        "{text}"
    );
}
