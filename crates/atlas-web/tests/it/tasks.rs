//! Tasks whose machines report their own end, and the mounting in axum.

use std::time::Duration;

use atlas_orchestrator::{Proof, SessionKind, StopOutcome, TaskKind};
use atlas_testkit::mock::CLOUD;
use http::StatusCode;
use tower::ServiceExt;

use crate::bench::{Bench, options, post, request};

#[tokio::test(start_paused = true)]
async fn a_reported_exit_is_the_tasks_outcome_and_ends_its_machine() {
    let bench = Bench::new(21).await;
    for (body, kind, code) in [
        ("3", TaskKind::Failed, 3),
        (r#"{"exit_code":0}"#, TaskKind::Completed, 0),
    ] {
        // A server to the simulated cloud: it never ends by itself, so the report alone tells.
        let id = bench
            .callbacks
            .launch(request().command(["train"]), options(), SessionKind::Task)
            .await
            .unwrap();
        let session = bench.atlas.session(id).await.unwrap();
        session.await_ready(Duration::from_secs(300)).await.unwrap();
        assert_eq!(bench.report(id, "exit", body).await, StatusCode::NO_CONTENT);
        let outcome = session.await_outcome().await.unwrap();
        assert_eq!(
            (outcome.kind, outcome.exit_code, outcome.proof),
            (kind, Some(code), Proof::Reported)
        );
        // The first word counts.
        assert_eq!(bench.report(id, "exit", "9").await, StatusCode::GONE);
        assert_eq!(
            bench
                .atlas
                .await_terminated(id, Duration::from_secs(900))
                .await
                .unwrap(),
            StopOutcome::Terminated
        );
    }
    assert_eq!(bench.cloud.world().ledger().clouds[CLOUD].live, 0);
}

#[tokio::test(start_paused = true)]
async fn a_machine_finds_its_url_and_a_token_that_outlives_its_task() {
    let bench = Bench::new(22).await;
    let options = options().max_runtime(Duration::from_secs(3600));
    let id = bench.atlas.new_id();
    let until = bench.atlas.now().saturating_add(Duration::from_secs(7200));
    let equipped = bench.callbacks.equip(request(), id, until);
    assert_eq!(
        equipped.env["ATLAS_CALLBACK_URL"].expose(),
        format!("https://app.example.com/callbacks/{id}")
    );
    let token = equipped.env["ATLAS_CALLBACK_TOKEN"].expose().to_owned();
    assert!(
        !format!("{equipped:?}").contains(&token)
            && !format!("{:?}", bench.callbacks).contains(&token)
    );
    bench
        .atlas
        .launch_as(id, equipped, options, SessionKind::Task)
        .await
        .unwrap();
    assert_eq!(
        bench
            .send(post(&format!("/{id}/log"), &token, "hello"))
            .await
            .status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(bench.reported().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn run_task_over_callbacks_takes_the_clouds_word_too() {
    let bench = Bench::new(23).await;
    let (session, outcome) = bench
        .callbacks
        .run_task(request().command(["sh", "-c", "exit 3"]), options())
        .await
        .unwrap();
    assert_eq!(
        (outcome.kind, outcome.exit_code),
        (TaskKind::Failed, Some(3))
    );
    let ended = bench
        .atlas
        .await_terminated(session.id(), Duration::from_secs(900))
        .await
        .unwrap();
    assert_eq!(ended, StopOutcome::Terminated);
}

#[tokio::test(start_paused = true)]
async fn it_mounts_in_axum_under_its_path() {
    let bench = Bench::new(24).await;
    let id = bench
        .callbacks
        .spawn(request(), options())
        .await
        .unwrap()
        .id();
    let app: axum::Router =
        axum::Router::new().nest_service("/callbacks", bench.callbacks.service());
    let send = |path: String| {
        app.clone()
            .oneshot(post(&path, bench.token(id).expose(), "a line"))
    };
    assert_eq!(
        send(format!("/callbacks/{id}/log")).await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        send(format!("/callbacks/{id}/other"))
            .await
            .unwrap()
            .status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        send(format!("/{id}/log")).await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
}
