//! What is taken of a machine's reports, and what is refused.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use atlas_orchestrator::{Limit, OnFailure, Reason, SessionId, SessionKind, StopOutcome};
use atlas_web::callback::TOKEN_ENV;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::{Body, Frame};

use crate::bench::{Bench, options, post, request};

#[tokio::test(start_paused = true)]
async fn a_machines_reports_are_in_its_sessions_events() {
    let bench = Bench::new(1).await;
    let session = bench.callbacks.spawn(request(), options()).await.unwrap();
    assert_eq!(
        bench
            .report(session.id(), "progress", r#"{"percent":40}"#)
            .await,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        bench
            .report(session.id(), "log", "epoch 1\nepoch 2\x1b[2J")
            .await,
        StatusCode::NO_CONTENT
    );
    let text = |kind: &str, text: &str| (kind.to_owned(), text.to_owned());
    assert_eq!(
        bench.reported().await,
        [
            text("progress", r#"{"percent":40}"#),
            text("log", "epoch 1\\nepoch 2[2J")
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn only_the_sessions_own_token_opens_its_callbacks() {
    let bench = Bench::new(2).await;
    let session = bench.callbacks.spawn(request(), options()).await.unwrap();
    let other = bench.callbacks.spawn(request(), options()).await.unwrap();
    let path = format!("/{}/log", session.id());
    let good = bench.token(session.id()).expose().to_owned();
    for (token, why) in [
        ("", "empty"),
        ("x", "no token"),
        (bench.token(other.id()).expose(), "another session's"),
        (&good[..good.len() - 1], "cut"),
    ] {
        let answer = bench.send(post(&path, token, "x")).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{why}");
    }
    let bare = Request::post(&path).body("x".into()).unwrap();
    assert_eq!(bench.send(bare).await.status(), StatusCode::UNAUTHORIZED);
    let twice = Request::post(&path)
        .header("authorization", format!("Bearer {good}"))
        .header("authorization", "Bearer y")
        .body("x".into())
        .unwrap();
    assert_eq!(bench.send(twice).await.status(), StatusCode::UNAUTHORIZED);
    // A token in the address would be in every proxy's log, so it counts for nothing there.
    let in_query = Request::post(format!("{path}?token={good}"))
        .body("x".into())
        .unwrap();
    assert_eq!(
        bench.send(in_query).await.status(),
        StatusCode::UNAUTHORIZED
    );
    assert!(bench.reported().await.is_empty());
    assert_eq!(
        bench.send(post(&path, &good, "x")).await.status(),
        StatusCode::NO_CONTENT
    );
}

#[tokio::test(start_paused = true)]
async fn a_stranger_cannot_tell_a_session_that_exists_from_one_that_does_not() {
    let bench = Bench::new(3).await;
    let session = bench.callbacks.spawn(request(), options()).await.unwrap();
    let nobody = SessionId::from_bytes([7; 16]);
    let mut answers = Vec::new();
    for id in [
        session.id().to_string(),
        nobody.to_string(),
        "..".to_owned(),
        "x".repeat(3000),
    ] {
        let answer = bench
            .send(post(&format!("/{id}/exit"), "ac1.1.AAAA", "0"))
            .await;
        answers.push((answer.status(), format!("{:?}", answer.headers())));
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    assert_eq!(answers[0].0, StatusCode::UNAUTHORIZED);
}

#[tokio::test(start_paused = true)]
async fn a_token_past_its_time_is_gone_and_so_is_a_session_that_is_over() {
    let bench = Bench::new(4).await;
    let session = bench.callbacks.spawn(request(), options()).await.unwrap();
    let id = session.id();
    let path = format!("/{id}/log");
    let past = bench.key.mint(&id.to_string(), bench.atlas.now());
    assert_eq!(
        bench.send(post(&path, past.expose(), "x")).await.status(),
        StatusCode::NO_CONTENT
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        bench.send(post(&path, past.expose(), "x")).await.status(),
        StatusCode::GONE
    );
    session.stop().await.unwrap();
    for kind in ["progress", "activity", "exit"] {
        let body = if kind == "progress" { "{}" } else { "0" };
        assert_eq!(
            bench.report(id, kind, body).await,
            StatusCode::GONE,
            "{kind}"
        );
    }
    assert_eq!(
        bench
            .report(SessionId::from_bytes([7; 16]), "log", "x")
            .await,
        StatusCode::GONE
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_no_callback_is_not_found() {
    let bench = Bench::new(5).await;
    let session = bench.callbacks.spawn(request(), options()).await.unwrap();
    let token = bench.token(session.id());
    for path in [
        "/".to_owned(),
        format!("/{}", session.id()),
        format!("/{}/secrets", session.id()),
        format!("/{}/log/", session.id()),
        format!("//{}/log", session.id()),
    ] {
        assert_eq!(
            bench.send(post(&path, token.expose(), "x")).await.status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    let get = Request::get(format!("/{}/log", session.id()))
        .header("authorization", format!("Bearer {}", token.expose()));
    assert_eq!(
        bench
            .send(get.body(axum::body::Body::empty()).unwrap())
            .await
            .status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(start_paused = true)]
async fn hostile_bodies_are_refused_and_leave_nothing() {
    let bench = Bench::new(6).await;
    let id = bench
        .callbacks
        .launch(request(), options(), SessionKind::Task)
        .await
        .unwrap();
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(1500), "]".repeat(1500));
    for (kind, body) in [
        ("progress", deep.as_str()),
        ("progress", "[]"),
        ("exit", "zero"),
        ("exit", "1e3"),
        ("exit", "{\"exit_code\":\"0\"}"),
    ] {
        assert_eq!(
            bench.report(id, kind, body.to_owned()).await,
            StatusCode::BAD_REQUEST,
            "{kind} {body:.20}"
        );
    }
    assert!(bench.reported().await.is_empty());
    assert!(bench.atlas.info(id).await.unwrap().outcome.is_none());
}

/// A body that never says how long it is, and counts what was taken of it.
struct Endless(std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl Body for Endless {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 1024])))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_too_long_is_cut_before_it_is_read_as_anything() {
    let bench = Bench::new(7).await;
    let id = bench
        .callbacks
        .spawn(request(), options())
        .await
        .unwrap()
        .id();
    assert_eq!(
        bench.report(id, "log", "x".repeat(4096)).await,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        bench.report(id, "log", "x".repeat(4097)).await,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    assert_eq!(
        bench.report(id, "exit", "1".repeat(257)).await,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let frames = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let endless = post(
        &format!("/{id}/log"),
        bench.token(id).expose(),
        axum::body::Body::new(Endless(frames.clone())),
    );
    assert_eq!(
        bench.send(endless).await.status(),
        StatusCode::PAYLOAD_TOO_LARGE
    );
    assert_eq!(frames.load(std::sync::atomic::Ordering::Relaxed), 5);
    // One that says so in its head is refused with nothing of it read.
    let frames = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut declared = post(
        &format!("/{id}/log"),
        bench.token(id).expose(),
        axum::body::Body::new(Endless(frames.clone())),
    );
    declared
        .headers_mut()
        .insert("content-length", 1_000_000.into());
    assert_eq!(
        bench.send(declared).await.status(),
        StatusCode::PAYLOAD_TOO_LARGE
    );
    assert_eq!(frames.load(std::sync::atomic::Ordering::Relaxed), 0);
}

/// A body that never comes.
struct Silent;

impl Body for Silent {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_given_up() {
    let bench = Bench::new(8).await;
    let id = bench
        .callbacks
        .spawn(request(), options())
        .await
        .unwrap()
        .id();
    let begun = tokio::time::Instant::now();
    let silent = post(
        &format!("/{id}/log"),
        bench.token(id).expose(),
        axum::body::Body::new(Silent),
    );
    assert_eq!(
        bench.send(silent).await.status(),
        StatusCode::REQUEST_TIMEOUT
    );
    assert!(begun.elapsed() < Duration::from_secs(11));
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_told_when_to_come_back_and_its_exit_still_passes() {
    let bench = Bench::new(9).await;
    let id = bench
        .callbacks
        .launch(request(), options(), SessionKind::Task)
        .await
        .unwrap();
    for _ in 0..5 {
        assert_eq!(
            bench.report(id, "progress", "{}").await,
            StatusCode::NO_CONTENT
        );
    }
    let answer = bench
        .send(post(
            &format!("/{id}/progress"),
            bench.token(id).expose(),
            "{}",
        ))
        .await;
    assert_eq!(
        (
            answer.status(),
            answer.headers()["retry-after"].to_str().unwrap()
        ),
        (StatusCode::TOO_MANY_REQUESTS, "5")
    );
    assert_eq!(
        bench.report(id, "log", "another kind").await,
        StatusCode::NO_CONTENT
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        bench.report(id, "progress", "{}").await,
        StatusCode::NO_CONTENT
    );
    assert_eq!(bench.report(id, "exit", "0").await, StatusCode::NO_CONTENT);
}

#[tokio::test(start_paused = true)]
async fn progress_is_no_activity_and_activity_is() {
    let bench = Bench::new(10).await;
    let ttl = Duration::from_secs(600);
    let quiet = bench
        .callbacks
        .spawn(request(), options().idle_ttl(ttl))
        .await
        .unwrap();
    let used = bench
        .callbacks
        .spawn(request(), options().idle_ttl(ttl))
        .await
        .unwrap();
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let _ = bench.report(quiet.id(), "progress", "{}").await;
        let _ = bench.report(quiet.id(), "log", "still here").await;
        assert_eq!(
            bench.report(used.id(), "activity", "").await,
            StatusCode::NO_CONTENT
        );
    }
    assert_eq!(
        quiet.info().await.unwrap().reason,
        Some(Reason::Limit {
            limit: Limit::IdleTtl
        })
    );
    let info = used.info().await.unwrap();
    assert_eq!(info.reason, None);
    assert!(bench.world_now().since(info.last_activity) < Duration::from_secs(70));
    assert_eq!(info.last_activity_source, "callback");
    assert!(matches!(
        used.stop().await.unwrap(),
        StopOutcome::Terminating { .. }
    ));
}

/// The token that a session's machine was given.
fn given(bench: &Bench, machine: &str) -> String {
    let machine = bench.cloud.world().truth("mock", machine).unwrap();
    machine.spec.env[TOKEN_ENV].expose().to_owned()
}

async fn serving(bench: &Bench, id: SessionId) -> String {
    let info = bench.atlas.info(id).await.unwrap();
    info.compute.unwrap().id.as_str().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_replaced_reports_for_its_session_no_more() {
    let bench = Bench::new(10).await;
    let options = options().on_failure(OnFailure::Respawn(3));
    let kind = SessionKind::Task;
    let id = bench
        .callbacks
        .launch(request(), options, kind)
        .await
        .unwrap();
    bench
        .atlas
        .await_ready(id, Duration::from_secs(600))
        .await
        .unwrap();
    let first = serving(&bench, id).await;
    let old = given(&bench, &first);
    assert!(
        old.starts_with("ac2."),
        "a machine's token names its attempt"
    );
    let send = async |token: &str, kind: &str, body: &'static str| {
        let report = post(&format!("/{id}/{kind}"), token, body);
        bench.send(report).await.status()
    };
    assert_eq!(send(&old, "log", "x").await, StatusCode::NO_CONTENT);
    let of_the_session = bench.token(id).expose().to_owned();
    assert_eq!(
        send(&of_the_session, "log", "x").await,
        StatusCode::NO_CONTENT
    );

    bench.cloud.world().preempt_machine("mock", &first);
    let replaced = async {
        while bench
            .atlas
            .info(id)
            .await
            .unwrap()
            .compute
            .is_none_or(|now| now.id.as_str() == first)
        {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3600), replaced)
        .await
        .unwrap();
    let new = given(&bench, &serving(&bench, id).await);
    for (kind, body) in [
        ("log", "x"),
        ("progress", "{}"),
        ("activity", ""),
        ("exit", "0"),
    ] {
        assert_eq!(send(&old, kind, body).await, StatusCode::GONE, "{kind}");
        // Which machine shows it cannot be told.
        assert_eq!(
            send(&of_the_session, kind, body).await,
            StatusCode::GONE,
            "{kind}"
        );
    }
    assert!(bench.atlas.info(id).await.unwrap().outcome.is_none());
    assert_eq!(send(&new, "exit", "7").await, StatusCode::NO_CONTENT);
    let outcome = bench.atlas.info(id).await.unwrap().outcome.unwrap();
    assert_eq!(outcome.exit_code, Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_session_keeps_so_much_of_reports_and_its_exit_is_still_taken() {
    let bench = Bench::new(11).await;
    let kind = SessionKind::Task;
    let id = bench
        .callbacks
        .launch(request(), options(), kind)
        .await
        .unwrap();
    let text = "x".repeat(4096);
    let mut refused = None;
    for n in 0..2000 {
        match bench.report(id, "log", text.clone()).await {
            StatusCode::NO_CONTENT => tokio::time::sleep(Duration::from_secs(1)).await,
            status => {
                refused = Some((n, status));
                break;
            }
        }
    }
    assert_eq!(refused, Some((1024, StatusCode::PAYLOAD_TOO_LARGE)));
    let exit = bench.report(id, "exit", "0").await;
    assert_eq!(exit, StatusCode::NO_CONTENT);
}
