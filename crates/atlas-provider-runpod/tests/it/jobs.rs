//! Serverless jobs: submits, ends, and streams that drain.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{
    CallContext, ErrorKind, Job, JobId, JobMode, JobRef, JobRequest, JobStatus, Outcome,
    SeededEntropy,
};
use atlas_provider_runpod::{S3Config, Webhooks};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::script::{Reply, Script, html, json as reply, problem};

fn cx() -> CallContext {
    CallContext::new().with_retries(0)
}

fn request() -> JobRequest {
    JobRequest::new("ep1", json!({"prompt": "x"}))
}

fn address() -> JobRef {
    JobRef {
        endpoint: "ep1".to_owned(),
        id: JobId::new("j-u1").unwrap(),
    }
}

fn job(status: &str) -> Reply {
    reply(200, &json!({"id": "j-u1", "status": status}))
}

fn unknown_job() -> Reply {
    reply(
        404,
        &json!({"status": 404, "title": "Not Found", "detail": "job not found"}),
    )
}

async fn run(cloud: &Script, request: &JobRequest) -> Result<Job, atlas_core::Error> {
    cloud
        .provider()
        .jobs()
        .unwrap()
        .run_job(&cx(), request)
        .await
}

async fn stream(cloud: &Script) -> Vec<Result<Value, ErrorKind>> {
    let mut stream = cloud
        .provider()
        .jobs()
        .unwrap()
        .stream_job(&cx(), &address())
        .await
        .unwrap();
    let mut chunks = Vec::new();
    while let Some(chunk) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        chunks.push(chunk.map_err(|error| error.kind()));
    }
    chunks
}

fn drained(status: &str, chunks: &[Value]) -> Reply {
    let stream: Vec<_> = chunks
        .iter()
        .map(|chunk| json!({"output": chunk}))
        .collect();
    reply(200, &json!({"status": status, "stream": stream}))
}

#[tokio::test(start_paused = true)]
async fn a_submit_is_one_call_and_answers_the_jobs_id() {
    let cloud = Script::new([job("IN_QUEUE")]);
    let made = run(&cloud, &request()).await.unwrap();
    assert_eq!(
        (made.id.as_str(), made.status, made.endpoint.as_str()),
        ("j-u1", JobStatus::InQueue, "ep1")
    );
    assert_eq!(
        (cloud.lines(), &cloud.asked()[0].body),
        (
            vec!["POST /v2/ep1/run".to_owned()],
            &json!({"input": {"prompt": "x"}})
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_submit_whose_answer_was_lost_is_unknown_and_never_repeated() {
    for answer in [
        problem(500, "boom"),
        html(502),
        Reply(200, "application/json", r#"{"id":"j"#.to_owned()),
    ] {
        let cloud = Script::new([answer]);
        let error = cloud
            .provider()
            .jobs()
            .unwrap()
            .run_job(&CallContext::new().with_retries(5), &request())
            .await
            .unwrap_err();
        assert!(matches!(error.outcome(), Outcome::Unknown(_)), "{error}");
        assert_eq!(cloud.lines().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sync_job_that_outlasts_the_clouds_wait_is_followed_until_the_callers_limit() {
    let sync = request()
        .mode(JobMode::Sync)
        .timeout(Duration::from_secs(60));
    let cloud = Script::new([
        job("IN_PROGRESS"),
        job("IN_PROGRESS"),
        reply(
            200,
            &json!({"id": "j-u1", "status": "COMPLETED", "output": 7}),
        ),
    ]);
    let ended = run(&cloud, &sync).await.unwrap();
    assert_eq!(
        (ended.status, ended.output),
        (JobStatus::Completed, Some(json!(7)))
    );
    assert_eq!(
        cloud.lines()[..2],
        ["POST /v2/ep1/runsync?wait=60000", "GET /v2/ep1/status/j-u1"]
    );
    let slow = Script::new((0..100).map(|_| job("IN_PROGRESS")));
    let unfinished = run(&slow, &sync).await.unwrap();
    assert_eq!(
        unfinished.status,
        JobStatus::InProgress,
        "its id is not lost"
    );
    let silenced = Script::new([job("IN_PROGRESS"), problem(401, "the key was revoked")]);
    let unfollowed = run(&silenced, &sync).await.unwrap();
    assert_eq!(
        (unfollowed.id.as_str(), unfollowed.status),
        ("j-u1", JobStatus::InProgress),
        "it goes on and bills"
    );
}

#[tokio::test(start_paused = true)]
async fn too_large_an_input_is_refused_before_any_request() {
    let cloud = Script::default();
    let error = run(
        &cloud,
        &JobRequest::new("ep1", json!({"x": "y".repeat(10_000_001)})),
    )
    .await
    .unwrap_err();
    assert_eq!(
        (error.kind(), error.field()),
        (ErrorKind::Validation, Some("input"))
    );
    assert!(cloud.lines().is_empty());
    let sync = |bytes| JobRequest::new("ep1", json!({"x": "y".repeat(bytes)})).mode(JobMode::Sync);
    assert_eq!(
        run(&cloud, &sync(20_000_001)).await.unwrap_err().field(),
        Some("input")
    );
    assert!(cloud.lines().is_empty());
    let cloud = Script::new([job("COMPLETED")]);
    assert_eq!(
        run(&cloud, &sync(10_000_001)).await.unwrap().status,
        JobStatus::Completed,
        "a sync job may be twice as large"
    );
}

#[tokio::test(start_paused = true)]
async fn a_fresh_job_may_be_unknown_for_a_while_and_an_old_one_is_forgotten() {
    let cloud = Script::new([
        unknown_job(),
        unknown_job(),
        job("IN_QUEUE"),
        job("COMPLETED"),
    ]);
    assert_eq!(
        cloud
            .runpod()
            .wait_job(&cx(), &address())
            .await
            .unwrap()
            .status,
        JobStatus::Completed
    );
    let forgotten = Script::new([job("IN_PROGRESS"), unknown_job()]);
    assert_eq!(
        forgotten
            .runpod()
            .wait_job(&cx(), &address())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    let never = Script::new((0..1000).map(|_| unknown_job()));
    assert_eq!(
        never
            .runpod()
            .wait_job(&cx(), &address())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    let once = Script::new([unknown_job()])
        .provider()
        .jobs()
        .unwrap()
        .get_job(&cx(), &address())
        .await
        .unwrap_err();
    assert_eq!(once.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn cancelling_what_has_ended_answers_how_it_ended() {
    let cloud = Script::new([job("CANCELLED")]);
    let cancelled = cloud
        .provider()
        .jobs()
        .unwrap()
        .cancel_job(&cx(), &address())
        .await
        .unwrap();
    assert_eq!(
        (cancelled.status, cloud.lines()),
        (
            JobStatus::Cancelled,
            vec!["POST /v2/ep1/cancel/j-u1".to_owned()]
        )
    );
    let ended = Script::new([problem(400, "job is finished"), job("COMPLETED")]);
    assert_eq!(
        ended
            .provider()
            .jobs()
            .unwrap()
            .cancel_job(&cx(), &address())
            .await
            .unwrap()
            .status,
        JobStatus::Completed
    );
    let unknown = Script::new([unknown_job(), unknown_job()]);
    assert_eq!(
        unknown
            .provider()
            .jobs()
            .unwrap()
            .cancel_job(&cx(), &address())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test(start_paused = true)]
async fn every_chunk_comes_once_and_the_last_with_the_end() {
    let cloud = Script::new([
        unknown_job(),
        drained("IN_QUEUE", &[]),
        drained("IN_PROGRESS", &[json!("a"), json!({"b": 1})]),
        problem(429, "too many"),
        drained("IN_PROGRESS", &[]),
        drained("COMPLETED", &[json!("c")]),
    ]);
    assert_eq!(
        stream(&cloud).await,
        [Ok(json!("a")), Ok(json!({"b": 1})), Ok(json!("c"))]
    );
    assert!(
        cloud
            .lines()
            .iter()
            .all(|line| line == "GET /v2/ep1/stream/j-u1")
    );
}

#[tokio::test(start_paused = true)]
async fn a_bad_end_ends_the_stream_with_an_error_after_its_last_chunks() {
    for (word, kind) in [
        ("FAILED", ErrorKind::Provider),
        ("CANCELLED", ErrorKind::Provider),
        ("TIMED_OUT", ErrorKind::Timeout),
    ] {
        let cloud = Script::new([
            drained(word, &[json!(1)]),
            reply(
                200,
                &json!({"id": "j-u1", "status": word, "error": "bad steps"}),
            ),
        ]);
        assert_eq!(stream(&cloud).await, [Ok(json!(1)), Err(kind)], "{word}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_made_good_from_the_output_or_reported_and_never_read_again() {
    let lost = || [drained("IN_PROGRESS", &[json!("a")]), problem(500, "boom")];
    let done = |output: Value| {
        reply(
            200,
            &json!({"id": "j-u1", "status": "COMPLETED", "output": output}),
        )
    };
    let whole = Script::new(lost().into_iter().chain([done(json!(["a", "b", "c"]))]));
    assert_eq!(
        stream(&whole).await,
        ["a", "b", "c"].map(|chunk| Ok(json!(chunk)))
    );
    assert_eq!(
        whole
            .lines()
            .iter()
            .filter(|line| line.contains("/stream/"))
            .count(),
        2
    );
    let gone = Script::new(lost().into_iter().chain([done(json!(null))]));
    assert_eq!(
        stream(&gone).await,
        [Ok(json!("a")), Err(ErrorKind::Provider)]
    );
}

#[tokio::test(start_paused = true)]
async fn health_retry_and_purge_ask_what_they_say() {
    let health = json!({"jobs": {"completed": 1, "inQueue": 7}, "workers": {"throttled": 3}});
    let cloud = Script::new([
        reply(200, &health),
        job("IN_QUEUE"),
        reply(200, &json!({"removed": 2, "status": "completed"})),
    ]);
    let runpod = cloud.runpod();
    assert_eq!(
        runpod
            .endpoint_health(&cx(), "ep1")
            .await
            .unwrap()
            .workers
            .throttled,
        3
    );
    assert_eq!(
        runpod.retry_job(&cx(), &address()).await.unwrap().status,
        JobStatus::InQueue
    );
    assert_eq!(runpod.purge_queue(&cx(), "ep1").await.unwrap(), 2);
    assert_eq!(
        cloud.lines(),
        [
            "GET /v2/ep1/health",
            "POST /v2/ep1/retry/j-u1",
            "POST /v2/ep1/purge-queue"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_callback_ends_the_wait_and_the_cloud_is_asked_all_the_same() {
    let webhooks = Webhooks::new("https://b.example/hook", Arc::new(SeededEntropy::new(1)));
    let callback = webhooks.callback();
    let cloud = Script::new([job("IN_QUEUE"), job("IN_PROGRESS"), job("COMPLETED")]);
    let runpod = cloud.runpod();
    let submitted = JobRequest::new("ep1", json!({})).webhook(callback.url().clone());
    let made = run(&cloud, &submitted).await.unwrap();
    let uri = cloud.asked()[0].body["webhook"]
        .as_str()
        .unwrap()
        .to_owned();
    let begun = tokio::time::Instant::now();
    let deliver = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let request = http::Request::post(uri)
            .body(atlas_http::Body::from(
                r#"{"id":"j-u1","status":"COMPLETED"}"#,
            ))
            .unwrap();
        webhooks.clone().oneshot(request).await.unwrap()
    };
    let address = JobRef {
        endpoint: made.endpoint,
        id: made.id,
    };
    let cx = cx();
    let (ended, answer) = tokio::join!(
        runpod.wait_job_called_back(&cx, &address, &callback),
        deliver
    );
    assert_eq!(
        (ended.unwrap().status, answer.status().as_u16()),
        (JobStatus::Completed, 200)
    );
    assert!(
        begun.elapsed() < Duration::from_millis(100),
        "no poll was due yet"
    );
    assert_eq!(cloud.lines().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_s3_secret_reaches_the_cloud_and_no_error() {
    let s3 = S3Config {
        access_id: "AK1".to_owned(),
        access_secret: "zz-canary-s3".into(),
        bucket: "out".to_owned(),
        endpoint_url: "https://s3.example".to_owned(),
    };
    let cloud = Script::new([problem(400, "bad secret zz-canary-s3")]);
    let error = cloud
        .provider()
        .jobs()
        .unwrap()
        .run_job(&cx().with_extension(s3), &request())
        .await
        .unwrap_err();
    assert_eq!(
        cloud.asked()[0].body["s3Config"]["accessSecret"],
        json!("zz-canary-s3")
    );
    assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
}
