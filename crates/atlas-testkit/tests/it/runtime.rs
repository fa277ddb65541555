//! The RunPod job runtime, in process, on paused time.

use std::time::Duration;

use atlas_testkit::dialect::runpod::{self, NAME, RunPod, webhook_body};
use atlas_testkit::world::{Fault, FaultKind, World, WorldClock};
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;

struct Client {
    service: RunPod,
    world: World,
}

fn client() -> Client {
    let world = World::new(7, WorldClock::following(1.0)).with_cloud(runpod::cloud());
    let me = world.add_key(NAME, "sim-key", "me");
    runpod::add_endpoint(&world, &me);
    Client {
        service: RunPod::new(world.clone()),
        world,
    }
}

impl Client {
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://api.runpod.ai/v2/sim-endpoint/{path}"))
            .header("user-agent", "test/1")
            .header("authorization", "Bearer sim-key")
            .body(Full::<bytes::Bytes>::from(
                body.map(|body| body.to_string()).unwrap_or_default(),
            ))
            .expect("a request");
        let response = self
            .service
            .clone()
            .oneshot(request)
            .await
            .expect("an answer");
        let status = response.status().as_u16();
        let bytes = response
            .into_body()
            .collect()
            .await
            .expect("a whole body")
            .to_bytes();
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }

    async fn run(&self, input: Value) -> String {
        let (status, job) = self
            .ask("POST", "run", Some(json!({ "input": input })))
            .await;
        assert_eq!((status, &job["status"]), (200, &json!("IN_QUEUE")));
        job["id"].as_str().expect("an id").to_owned()
    }

    async fn status(&self, id: &str) -> Value {
        self.ask("GET", &format!("status/{id}"), None).await.1
    }
}

async fn after(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_waits_for_a_cold_worker_runs_and_echoes_its_input() {
    let cloud = client();
    let id = cloud.run(json!({ "sleep": 5, "x": [1] })).await;
    assert!(id.ends_with("-u1"));
    let health = cloud.ask("GET", "health", None).await.1;
    assert_eq!(
        (
            &health["workers"]["initializing"],
            &health["jobs"]["inQueue"]
        ),
        (&json!(1), &json!(1))
    );
    after(2).await;
    assert_eq!(cloud.status(&id).await["status"], "IN_PROGRESS");
    after(5).await;
    let done = cloud.status(&id).await;
    assert_eq!(
        (&done["status"], &done["output"]),
        (&json!("COMPLETED"), &json!({ "sleep": 5, "x": [1] }))
    );
    assert_eq!(
        (&done["delayTime"], &done["executionTime"]),
        (&json!(1000), &json!(5000))
    );
    let warm = cloud.run(json!({})).await;
    after(1).await;
    assert_eq!(
        cloud.status(&warm).await["delayTime"],
        0,
        "the worker is still warm"
    );
    after(60).await;
    assert_eq!(
        cloud.ask("GET", "health", None).await.1["workers"]["idle"],
        0,
        "and idles away"
    );
    after(30 * 60).await;
    let gone = cloud.ask("GET", &format!("status/{id}"), None).await;
    assert_eq!(
        gone,
        (
            404,
            json!({ "status": 404, "title": "Not Found", "detail": "job not found" })
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_drained_and_its_last_chunks_come_with_the_end() {
    let cloud = client();
    let id = cloud.run(json!({ "stream": 7, "sleep": 1 })).await;
    let mut chunks = Vec::new();
    let last = loop {
        let (status, page) = cloud.ask("GET", &format!("stream/{id}"), None).await;
        assert_eq!(status, 200);
        let fresh = page["stream"].as_array().unwrap();
        chunks.extend(
            fresh
                .iter()
                .map(|chunk| chunk["output"]["index"].as_u64().unwrap()),
        );
        if page["status"] != "IN_QUEUE" && page["status"] != "IN_PROGRESS" {
            break page["status"].clone();
        }
    };
    assert_eq!((chunks, last), ((0..7).collect(), json!("COMPLETED")));
    assert_eq!(
        cloud.ask("GET", &format!("stream/{id}"), None).await.1["stream"],
        json!([]),
        "drained is gone"
    );
}

#[tokio::test(start_paused = true)]
async fn jobs_fail_time_out_expire_are_cancelled_retried_and_purged() {
    let cloud = client();
    let failed = cloud.run(json!({ "error": "boom" })).await;
    after(2).await;
    let status = cloud.status(&failed).await;
    assert_eq!(
        (&status["status"], &status["error"], status.get("output")),
        (&json!("FAILED"), &json!("boom"), None)
    );
    assert_eq!(
        cloud.ask("POST", &format!("retry/{failed}"), None).await.1["status"],
        "IN_QUEUE"
    );
    let policy =
        json!({ "input": { "sleep": 60 }, "policy": { "executionTimeout": 5000, "ttl": 10000 } });
    let (_, slow) = cloud.ask("POST", "run", Some(policy)).await;
    let slow = slow["id"].as_str().unwrap().to_owned();
    after(7).await;
    assert_eq!(cloud.status(&slow).await["status"], "TIMED_OUT");
    after(4).await;
    assert_eq!(
        cloud.ask("GET", &format!("status/{slow}"), None).await.0,
        404,
        "its ttl is over"
    );
    let running = cloud.run(json!({ "sleep": 600 })).await;
    let waiting = cloud.run(json!({})).await;
    assert_eq!(
        cloud.ask("POST", "purge-queue", None).await.1,
        json!({ "removed": 1, "status": "completed" })
    );
    assert_eq!(cloud.status(&waiting).await["status"], "CANCELLED");
    assert_eq!(
        cloud
            .ask("POST", &format!("cancel/{running}"), None)
            .await
            .1["status"],
        "CANCELLED"
    );
    assert_eq!(
        cloud
            .ask("POST", &format!("cancel/{running}"), None)
            .await
            .1["status"],
        "CANCELLED"
    );
    assert_eq!(
        cloud.ask("POST", &format!("retry/{running}"), None).await.0,
        400
    );
    assert_eq!(
        cloud
            .ask("POST", "run", Some(json!({ "inputs": {} })))
            .await
            .0,
        400
    );
    assert_eq!(cloud.ask("GET", "status/nope", None).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn a_synchronous_submit_answers_200_whether_or_not_the_job_has_ended() {
    let cloud = client();
    let quick = cloud
        .ask("POST", "runsync", Some(json!({ "input": { "sleep": 2 } })))
        .await;
    assert_eq!((quick.0, &quick.1["status"]), (200, &json!("COMPLETED")));
    let (status, slow) = cloud
        .ask(
            "POST",
            "runsync?wait=1000",
            Some(json!({ "input": { "sleep": 20 } })),
        )
        .await;
    assert_eq!((status, &slow["status"]), (200, &json!("IN_PROGRESS")));
    assert!(slow["id"].as_str().unwrap().starts_with("sync-"));
}

#[tokio::test(start_paused = true)]
async fn a_fresh_id_may_be_unknown_for_a_while_and_one_submit_may_make_two_jobs() {
    let cloud = client();
    cloud.world.inject([
        Fault::new(NAME, "run_job", FaultKind::LateAppearance),
        Fault::new(NAME, "run_job", FaultKind::DuplicateCommit),
    ]);
    let id = cloud.run(json!({})).await;
    assert_eq!(cloud.ask("GET", &format!("status/{id}"), None).await.0, 404);
    after(121).await;
    assert_eq!(cloud.status(&id).await["status"], "COMPLETED");
    assert_eq!(
        cloud.ask("GET", "health", None).await.1["jobs"]["completed"],
        2
    );
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_job_is_reported_once_with_what_was_sent() {
    let cloud = client();
    let body = json!({ "input": { "a": 1 }, "webhook": "https://hooks.example.com/x?t=zz" });
    let (_, job) = cloud.ask("POST", "run", Some(body)).await;
    assert!(cloud.world.take_webhooks().is_empty());
    after(5).await;
    let hooks = cloud.world.take_webhooks();
    let sent = webhook_body(&hooks[0]);
    assert_eq!(
        (hooks.len(), &sent["id"], &sent["input"]),
        (1, &job["id"], &json!({ "a": 1 }))
    );
    assert!(!format!("{hooks:?}").contains("t=zz"));
    assert!(cloud.world.take_webhooks().is_empty());
}
