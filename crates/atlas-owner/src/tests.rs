//! Two processes that share a store, represented by the two ends of a real socket.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use atlas_core::{Error, ErrorKind, Next, Outcome, SystemEntropy};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::*;

fn store(dir: &Path) -> PathBuf {
    let path = dir.join("s.redb");
    fs::write(&path, b"").unwrap();
    path
}

async fn echo(request: Value, items: Items) -> Result<Value, Error> {
    for n in 0..request["items"].as_u64().unwrap_or(0) {
        items.send(json!(n)).await?;
    }
    if request["fail"] == true {
        return Err(Error::new(ErrorKind::NoCapacity, "sold out")
            .with_status(409)
            .outcome_is(Outcome::NotApplied(Next::Stop)));
    }
    Ok(request)
}

fn listen(store: &Path) -> OwnerSocket {
    OwnerSocket::bind(store, &SystemEntropy::new(), echo).unwrap()
}

async fn client(store: &Path) -> OwnerClient {
    OwnerClient::connect(store).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_client_is_answered_again_and_again_items_before_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let _socket = listen(&store);
    let mut client = client(&store).await;
    for round in 0..3_u64 {
        let mut items = Vec::new();
        let request = json!({"items": 100 * round, "text": "line\nbreak ✓"});
        let answer = client.ask(&request, |item| {
            items.push(item);
            Ok(())
        });
        assert_eq!(answer.await.unwrap(), request);
        assert_eq!(
            items,
            (0..100 * round).map(|n| json!(n)).collect::<Vec<_>>()
        );
    }
    let error = client
        .ask(&json!({"fail": true}), |_| Ok(()))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::NoCapacity, Some(409))
    );
    assert_eq!(error.outcome(), &Outcome::NotApplied(Next::Stop));
    assert_eq!(
        client.ask(&json!(1), |_| Ok(())).await.unwrap(),
        json!(1),
        "an error does not end the connection"
    );
}

#[tokio::test]
async fn the_socket_is_private_and_goes_with_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    assert!(
        OwnerClient::connect(&store).await.unwrap().is_none(),
        "no owner"
    );
    assert!(
        OwnerClient::connect(&dir.path().join("none"))
            .await
            .unwrap()
            .is_none(),
        "no store"
    );
    let socket = listen(&store);
    assert_eq!(
        socket.path(),
        fs::canonicalize(&store)
            .unwrap()
            .with_extension("redb.sock")
    );
    assert_eq!(
        fs::metadata(socket.path()).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
    socket.close().await;
    assert!(OwnerClient::connect(&store).await.unwrap().is_none());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_dead_owners_socket_is_no_owner_and_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    // What a killed process leaves: the socket file without a listener.
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("s.redb.sock")).unwrap());
    assert!(OwnerClient::connect(&store).await.unwrap().is_none());
    let first = listen(&store);
    let second = listen(&store);
    drop(first);
    assert_eq!(
        client(&store)
            .await
            .ask(&json!(7), |_| Ok(()))
            .await
            .unwrap(),
        json!(7),
        "the first left the second's alone"
    );
    drop(second);
    fs::write(dir.path().join("s.redb.sock"), b"a file of somebody").unwrap();
    let refused = OwnerSocket::bind(&store, &SystemEntropy::new(), echo).unwrap_err();
    assert!(refused.to_string().contains("not a socket"), "{refused}");
    assert_eq!(
        fs::read(dir.path().join("s.redb.sock")).unwrap(),
        b"a file of somebody"
    );
}

#[tokio::test]
async fn a_store_with_a_long_path_is_found_in_a_private_directory() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(120));
    fs::create_dir(&deep).unwrap();
    let store = store(&deep);
    let socket = listen(&store);
    let home = socket.path().parent().unwrap().to_owned();
    assert_eq!(
        fs::metadata(&home).unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(
        client(&store)
            .await
            .ask(&json!(7), |_| Ok(()))
            .await
            .unwrap(),
        json!(7)
    );
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(
        OwnerClient::connect(&store).await.is_err(),
        "others could have put it there"
    );
    drop(socket);
    fs::remove_dir(home).unwrap();
}

#[tokio::test]
async fn what_is_not_a_request_is_refused_and_the_owner_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let socket = listen(&store);
    let long = [b"\"".as_slice(), &vec![b'x'; 3 << 20], b"\"\n"].concat();
    for (bad, says) in [(b"nonsense\n".to_vec(), "not JSON"), (long, "longer")] {
        let mut raw = UnixStream::connect(socket.path()).await.unwrap();
        // The owner may stop reading before everything is written.
        let _ = raw.write_all(&bad).await;
        let mut answer = Vec::new();
        let _ = raw.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.contains("\"validation\"") && answer.contains(says),
            "{answer}"
        );
    }
    let mut half = UnixStream::connect(socket.path()).await.unwrap();
    half.write_all(b"{\"half\":").await.unwrap();
    drop(half);
    let huge = json!("x".repeat(2 << 20));
    assert_eq!(
        client(&store)
            .await
            .ask(&huge, |_| Ok(()))
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Validation
    );
    assert_eq!(
        client(&store)
            .await
            .ask(&json!(7), |_| Ok(()))
            .await
            .unwrap(),
        json!(7)
    );
}

/// Counts the handlers that are running.
struct Alive(Arc<AtomicUsize>, Arc<Notify>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
        self.1.notify_one();
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_handler_and_an_owner_that_leaves_ends_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let (alive, changed) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (count, change) = (alive.clone(), changed.clone());
    let socket = OwnerSocket::bind(&store, &SystemEntropy::new(), move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(count.clone(), change.clone());
        change.notify_one();
        async move {
            std::future::pending::<()>().await;
            drop(alive);
            Ok(json!(null))
        }
    })
    .unwrap();
    let follow = |store: PathBuf| {
        tokio::spawn(async move { client(&store).await.ask(&json!("follow"), |_| Ok(())).await })
    };
    let first = follow(store.clone());
    changed.notified().await;
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    first.abort();
    changed.notified().await;
    assert_eq!(alive.load(Ordering::SeqCst), 0);

    let second = follow(store.clone());
    changed.notified().await;
    socket.close().await;
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    let error = second.await.unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Unavailable, &Outcome::Unknown(vec![]))
    );
}

#[tokio::test]
async fn a_slow_reader_holds_up_its_own_handler_and_one_too_many_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let sent = Arc::new(AtomicUsize::new(0));
    let (count, stuck) = (sent.clone(), Arc::new(Notify::new()));
    let told = stuck.clone();
    let socket = OwnerSocket::bind(&store, &SystemEntropy::new(), move |request, items| {
        let (count, told) = (count.clone(), told.clone());
        async move {
            if request == "flood" {
                let item = json!("x".repeat(100_000));
                while count.load(Ordering::SeqCst) < 10_000 {
                    let mut send = std::pin::pin!(items.send(item.clone()));
                    tokio::select! {
                        biased;
                        sent = &mut send => sent?,
                        // A second without progress: the client is not reading, so the handler is
                        // blocked.
                        () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {
                            told.notify_one();
                            send.await?;
                        }
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
            Ok(request)
        }
    })
    .unwrap();
    let mut slow = UnixStream::connect(socket.path()).await.unwrap();
    slow.write_all(b"\"flood\"\n").await.unwrap();
    stuck.notified().await;
    assert!(
        sent.load(Ordering::SeqCst) < 100,
        "a gigabyte was not queued for a client that does not read"
    );
    assert_eq!(
        client(&store)
            .await
            .ask(&json!(7), |_| Ok(()))
            .await
            .unwrap(),
        json!(7),
        "others are answered"
    );

    let mut crowd = Vec::new();
    let refused = loop {
        let mut next = client(&store).await;
        match next.ask(&json!(1), |_| Ok(())).await {
            Ok(_) => crowd.push(next),
            Err(error) => break error,
        }
        assert!(crowd.len() < 100);
    };
    assert!(refused.to_string().contains("too many"), "{refused}");
    drop(crowd);
}

#[tokio::test]
async fn a_socket_that_was_removed_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let socket = listen(&store);
    fs::remove_file(socket.path()).unwrap();
    let begun = tokio::time::Instant::now();
    let mut client = loop {
        if let Some(client) = OwnerClient::connect(&store).await.unwrap() {
            break client;
        }
        assert!(begun.elapsed().as_secs() < 30, "it was never made again");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(client.ask(&json!(7), |_| Ok(())).await.unwrap(), json!(7));
    let mode = fs::metadata(socket.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let path = socket.path().to_owned();
    socket.close().await;
    assert!(!path.exists(), "the new one goes with its owner too");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_does_not_answer_is_named_within_seconds_and_asked_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    // Like a stopped process: the kernel accepts connections, but no one reads from them.
    let path = dir.path().join("s.redb.sock");
    let _stopped = std::os::unix::net::UnixListener::bind(path).unwrap();
    let note = json!({"pid": 4242, "program": "backend", "since": "2026-11-30T10:00:00Z"});
    fs::write(dir.path().join("s.redb.owner"), note.to_string()).unwrap();
    let begun = tokio::time::Instant::now();
    let error = client(&store)
        .await
        .ask(&json!("spawn"), |_| Ok(()))
        .await
        .unwrap_err();
    assert!(begun.elapsed().as_secs() <= 10);
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.outcome(), &Outcome::NeverSent);
    let text = error.to_string();
    assert!(text.contains("4242") && text.contains("stopped"), "{text}");
}

#[tokio::test]
async fn a_closing_owner_finishes_what_it_was_told_to_and_leaves_who_follows() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (started, wait) = (begun.clone(), go.clone());
    let socket = OwnerSocket::bind(&store, &SystemEntropy::new(), move |request, items| {
        let (started, wait) = (started.clone(), wait.clone());
        async move {
            if request == "order" {
                items.finish_before_close();
                started.notify_one();
                wait.notified().await;
                items.send(json!("ordered")).await?;
                return Ok(json!("done"));
            }
            started.notify_one();
            std::future::pending().await
        }
    })
    .unwrap();
    let ask = |what: &'static str| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut items = Vec::new();
            let mut client = client(&store).await;
            let what = json!(what);
            let answer = client
                .ask(&what, |item| {
                    items.push(item);
                    Ok(())
                })
                .await;
            (answer, items)
        })
    };
    let follower = ask("follow");
    begun.notified().await;
    let order = ask("order");
    begun.notified().await;
    let closing = tokio::spawn(socket.close());
    while OwnerClient::connect(&store).await.unwrap().is_some() {
        tokio::task::yield_now().await;
    }
    go.notify_one();
    let (answer, items) = order.await.unwrap();
    assert_eq!(
        (answer.unwrap(), items),
        (json!("done"), vec![json!("ordered")])
    );
    closing.await.unwrap();
    assert!(
        follower
            .await
            .unwrap()
            .0
            .unwrap_err()
            .outcome()
            .is_unknown()
    );
}
