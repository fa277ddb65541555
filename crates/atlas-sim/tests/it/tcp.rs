//! The library's `serve`, on loopback.

use std::time::Duration;

use atlas_sim::{Options, Sim};
use serde_json::json;

use crate::{call, send, until};

const POD: &str = r#"{"name":"atlas-x-a1-aaaaaa-nkyqgaabaeaqcaib-aibaeaqc","image":"x/y:1","gpu":{"id":"NVIDIA H100 80GB HBM3"},
    "cloud":"SECURE","disk":20,"ports":["8000/http"],"env":{"ATLAS_PRESHARED_KEY":"zz-token"}}"#;

async fn sim() -> Sim {
    let mut options = Options::default();
    (options.seed, options.speed) = (7, 60.0);
    atlas_sim::serve(options)
        .await
        .expect("loopback has free ports")
}

fn control(sim: &Sim, path: &str) -> String {
    format!("{}{path}", sim.ready().url("runpod", "control"))
}

fn admin(sim: &Sim, path: &str) -> String {
    format!("{}{path}", sim.ready().admin)
}

#[tokio::test]
async fn a_pod_listens_behind_its_token() {
    let sim = sim().await;
    let pod = call("POST", &control(&sim, "/v2/pods"), POD).await.unwrap();
    assert_eq!(pod.status, 201);
    let id = pod.json()["id"].as_str().unwrap().to_owned();
    let url = sim
        .ready()
        .url("runpod", "proxy")
        .replace("{id}", &id)
        .replace("{port}", "8000");
    let with = async |token: &str| {
        let header = format!("Bearer {token}");
        send(
            "GET",
            &format!("{url}/v1/x"),
            &[("authorization", &header)],
            "",
        )
        .await
        .unwrap()
        .status
    };
    assert_eq!(with("zz-token").await, 502, "it is warming up");
    until("the pod answers", async || with("zz-token").await == 200).await;
    assert_eq!(with("zz-tokem").await, 401);
    assert_eq!(send("GET", &url, &[], "").await.unwrap().status, 401);
    assert_eq!(
        send("GET", &url.replace("8000", "8001"), &[], "")
            .await
            .unwrap()
            .status,
        404
    );
    assert_eq!(
        call("DELETE", &control(&sim, &format!("/v2/pods/{id}")), "")
            .await
            .unwrap()
            .status,
        204
    );
    assert_eq!(with("zz-token").await, 404);
    sim.stop().await;
}

#[tokio::test]
async fn a_fly_apps_port_answers_to_the_token_in_its_machines_environment() {
    let sim = sim().await;
    let machines = format!("{}/v1/apps/sim-app", sim.ready().url("fly", "machines"));
    let machine = json!({ "config": { "image": "x/y:1", "env": {
        "ATLAS_PRESHARED_KEY": "zz-token" }, "services": [
        { "protocol": "tcp", "internal_port": 8000, "ports": [{ "port": 443, "handlers": ["tls",
            "http"] }, { "port": 9000, "handlers": ["tls", "http"] }] },
    ] } });
    let made = call(
        "POST",
        &format!("{machines}/machines"),
        &machine.to_string(),
    )
    .await
    .unwrap();
    assert_eq!(made.status, 200, "{:?}", made.body);
    let url = sim.ready().url("fly", "proxy").replace("{app}", "sim-app");
    let with = async |url: &str, token: &str| {
        send(
            "GET",
            url,
            &[("authorization", &format!("Bearer {token}"))],
            "",
        )
        .await
        .unwrap()
        .status
    };
    assert_eq!(
        with(&url, "zz-token").await,
        404,
        "an app without an address has no url"
    );
    call(
        "POST",
        &format!("{machines}/ip_assignments"),
        r#"{"type":"shared_v4"}"#,
    )
    .await
    .unwrap();
    until("the machine answers", async || {
        with(&url, "zz-token").await == 200
    })
    .await;
    assert_eq!(
        (
            with(&url, "other").await,
            with(&format!("{url}:9000/a"), "zz-token").await
        ),
        (401, 200)
    );
    assert_eq!(with(&format!("{url}:9001"), "zz-token").await, 404);
    let bad = send(
        "GET",
        &format!("{machines}/machines"),
        &[("authorization", "Bearer nope")],
        "",
    )
    .await
    .unwrap();
    assert_eq!(bad.status, 401);
    sim.stop().await;
}

#[tokio::test]
async fn a_pod_with_a_signing_secret_takes_signed_urls() {
    use atlas_auth::signed_url::{Format, sign};
    use atlas_core::{Clock, Secret, SystemClock};
    let sim = sim().await;
    let body = POD
        .replace("ATLAS_PRESHARED_KEY", "ATLAS_SIGNING_SECRET")
        .replace("zz-token", "zz-token-of-16-bytes");
    let pod = call("POST", &control(&sim, "/v2/pods"), &body)
        .await
        .unwrap()
        .json();
    let url = sim
        .ready()
        .url("runpod", "proxy")
        .replace("{id}", pod["id"].as_str().unwrap())
        .replace("{port}", "8000");
    let signed = |secret: &str| {
        let url = format!("{url}/a?b=c");
        sign(
            Format::Atlas,
            &url,
            &Secret::new(secret),
            SystemClock.now(),
            Duration::from_secs(600),
        )
        .unwrap()
    };
    let get = async |url: String| send("GET", &url, &[], "").await.unwrap().status;
    until("the pod answers", async || {
        get(signed("zz-token-of-16-bytes")).await == 200
    })
    .await;
    assert_eq!(get(signed("another-secret-of-24-byte")).await, 401);
    assert_eq!(get(format!("{url}/a?b=c")).await, 401);
    sim.stop().await;
}

#[tokio::test]
async fn a_wrong_key_is_answered_as_the_cloud_answers_one() {
    let sim = sim().await;
    let url = control(&sim, "/v2/pods");
    let wrong = send(
        "GET",
        &url,
        &[("authorization", "Bearer nope"), ("user-agent", "t")],
        "",
    )
    .await
    .unwrap();
    assert_eq!(
        (
            wrong.status,
            wrong.headers["content-type"].to_str().unwrap()
        ),
        (401, "application/problem+json")
    );
    assert_eq!(
        send("GET", &url, &[("authorization", "Bearer sim-key")], "")
            .await
            .unwrap()
            .body,
        "error code: 1010"
    );
    sim.stop().await;
}

#[tokio::test]
async fn a_committed_create_that_answers_500_is_in_the_ledger() {
    let sim = sim().await;
    let fault =
        r#"[{"cloud":"runpod","operation":"spawn_compute","kind":"commit-then-500","count":1}]"#;
    assert_eq!(
        send(
            "POST",
            &admin(&sim, "/faults"),
            &[("content-type", "application/json")],
            fault
        )
        .await
        .unwrap()
        .status,
        200
    );
    assert_eq!(
        call("POST", &control(&sim, "/v2/pods"), POD)
            .await
            .unwrap()
            .status,
        500
    );
    let ledger = send("GET", &admin(&sim, "/ledger"), &[], "")
        .await
        .unwrap()
        .json();
    let books = &ledger["clouds"]["runpod"];
    assert_eq!(
        (&books["created"], &books["live"], &books["destroyed"]),
        (&json!(1), &json!(1), &json!(0))
    );
    assert_eq!(
        books["machines"][0]["launch_key"],
        "a1-aaaaaa-nkyqgaabaeaqcaib-aibaeaqc"
    );
    let struck = send("GET", &admin(&sim, "/faults"), &[], "")
        .await
        .unwrap()
        .json();
    assert_eq!(
        struck,
        json!({ "waiting": [], "struck": { "commit-then-500": 1 } })
    );
    sim.stop().await;
}

#[tokio::test]
async fn resets_stalls_and_truncations_are_real_on_the_wire() {
    let sim = sim().await;
    for kind in ["commit-then-reset", "reset-before-commit", "truncated"] {
        let fault =
            json!([{ "cloud": "runpod", "operation": "spawn_compute", "kind": kind }]).to_string();
        send("POST", &admin(&sim, "/faults"), &[], &fault)
            .await
            .unwrap();
        let cut = call("POST", &control(&sim, "/v2/pods"), POD)
            .await
            .unwrap_err();
        assert_eq!(
            cut.starts_with("body:"),
            kind == "truncated",
            "{kind}: {cut}"
        );
    }
    let stall = r#"[{"operation":"spawn_compute","kind":"commit-then-timeout"}]"#;
    send("POST", &admin(&sim, "/faults"), &[], stall)
        .await
        .unwrap();
    let url = control(&sim, "/v2/pods");
    let stalled = tokio::time::timeout(Duration::from_millis(300), call("POST", &url, POD)).await;
    assert!(stalled.is_err());
    assert_eq!(sim.world().ledger().clouds["runpod"].created, 3);
    sim.stop().await;
}

#[tokio::test]
async fn the_admin_moves_time_shows_requests_without_secrets_and_starts_afresh() {
    let sim = sim().await;
    call("POST", &control(&sim, "/v2/pods?api_key=zz-key"), POD)
        .await
        .unwrap();
    let billed = || sim.world().ledger().clouds["runpod"].billed_usd;
    send("POST", &admin(&sim, "/advance"), &[], r#"{"seconds":3600}"#)
        .await
        .unwrap();
    assert!(
        billed() >= atlas_core::Usd::from_cents(349),
        "an hour of an H100 is billed: {}",
        billed()
    );
    let requests = send("GET", &admin(&sim, "/requests"), &[], "")
        .await
        .unwrap();
    let text = String::from_utf8(requests.body.to_vec()).unwrap();
    assert!(!text.contains("zz-") && !text.contains("sim-key"), "{text}");
    let sent = &requests.json()[0];
    assert_eq!(
        (&sent["method"], &sent["path"], &sent["body"]["image"]),
        (&json!("POST"), &json!("/v2/pods"), &json!("x/y:1"))
    );
    assert_eq!(
        send("POST", &admin(&sim, "/faults"), &[], r#"[{"kind":"nope"}]"#)
            .await
            .unwrap()
            .status,
        400
    );
    assert_eq!(
        send("GET", &admin(&sim, "/advance"), &[], "")
            .await
            .unwrap()
            .status,
        405
    );
    assert_eq!(
        send("POST", &admin(&sim, "/reset"), &[], "")
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(sim.world().ledger().clouds["runpod"].created, 0);
    assert_eq!(
        call("GET", &control(&sim, "/v2/pods"), "")
            .await
            .unwrap()
            .json()["pods"],
        json!([])
    );
    sim.stop().await;
}

#[tokio::test]
async fn what_the_wire_calls_now_is_the_clients_now() {
    use atlas_core::{Clock, SystemClock, Timestamp};
    let sim = sim().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let pod = call("POST", &control(&sim, "/v2/pods"), POD)
        .await
        .unwrap()
        .json();
    let created: Timestamp = pod["createdAt"].as_str().unwrap().parse().unwrap();
    assert!(
        created <= SystemClock.now(),
        "{created} lies in the client's future"
    );
    assert!(SystemClock.now().since(created) < Duration::from_secs(30));
    sim.stop().await;
}

#[tokio::test]
async fn the_endpoint_of_a_fresh_simulator_runs_jobs_after_a_reset_too() {
    let sim = sim().await;
    send("POST", &admin(&sim, "/reset"), &[], "").await.unwrap();
    let url = |path: &str| {
        format!(
            "{}/sim-endpoint/{path}",
            sim.ready().url("runpod", "runtime")
        )
    };
    let job = call("POST", &url("runsync"), r#"{"input":{"a":1,"sleep":2}}"#)
        .await
        .unwrap()
        .json();
    assert_eq!(
        (&job["status"], &job["output"]["a"]),
        (&json!("COMPLETED"), &json!(1))
    );
    assert_eq!(
        call("GET", &url("health"), "").await.unwrap().json()["jobs"]["completed"],
        1
    );
    sim.stop().await;
}

#[tokio::test]
async fn the_end_of_a_job_is_reported_to_the_webhook_again_until_it_is_taken() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let sim = sim().await;
    let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hook = format!("http://{}/hook?t=zz", receiver.local_addr().unwrap());
    let body = json!({ "input": { "a": 1 }, "webhook": hook }).to_string();
    let job = call(
        "POST",
        &format!("{}/sim-endpoint/run", sim.ready().url("runpod", "runtime")),
        &body,
    )
    .await
    .unwrap()
    .json();
    let mut taken = Vec::new();
    for answer in ["503 Busy", "200 OK"] {
        let (mut stream, _) = receiver.accept().await.unwrap();
        let mut text = String::new();
        while !text.contains("\"webhook\"") {
            let mut chunk = [0; 1024];
            let read = stream.read(&mut chunk).await.unwrap();
            text.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
        }
        stream
            .write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes())
            .await
            .unwrap();
        taken.push(text);
    }
    for text in &taken {
        assert!(
            text.starts_with("POST /hook?t=zz HTTP/1.1")
                && text.contains(job["id"].as_str().unwrap()),
            "{text}"
        );
    }
    let third = tokio::time::timeout(Duration::from_millis(600), receiver.accept()).await;
    assert!(third.is_err(), "what was taken is not reported again");
    sim.stop().await;
}

#[tokio::test]
async fn every_cloud_has_the_key_and_its_books() {
    let sim = sim().await;
    let types = call(
        "GET",
        &format!("{}/instance-types", sim.ready().base_url("lambda")),
        "",
    )
    .await
    .unwrap();
    assert_eq!(types.status, 200, "{:?}", types.body);
    let bad = send(
        "GET",
        &format!("{}/instances", sim.ready().base_url("lambda")),
        &[("authorization", "Bearer nope")],
        "",
    )
    .await
    .unwrap();
    assert_eq!(bad.status, 401);
    let me = send(
        "POST",
        sim.ready().url("runpod", "graphql"),
        &[("authorization", "Bearer sim-key"), ("user-agent", "t")],
        r#"{"query":"{ myself { id } }"}"#,
    );
    assert_eq!(me.await.unwrap().json()["data"]["myself"]["id"], "user_sim");
    let ledger = send("GET", &admin(&sim, "/ledger"), &[], "")
        .await
        .unwrap()
        .json();
    assert_eq!(
        ledger["clouds"]
            .as_object()
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        ["fly", "lambda", "runpod", "vast"]
    );
    sim.stop().await;
}

#[tokio::test]
async fn flys_log_api_answers_the_simulators_key_and_begins_anew() {
    let sim = sim().await;
    let url = format!(
        "{}/api/v1/apps/sim-app/logs",
        sim.ready().url("fly", "logs")
    );
    let page = call("GET", &url, "").await.unwrap();
    assert_eq!(
        (page.status, page.json()["data"].as_array().unwrap().len()),
        (200, 3)
    );
    let cursor = page.json()["meta"]["next_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        call("GET", &format!("{url}?next_token={cursor}"), "")
            .await
            .unwrap()
            .json()["data"],
        json!([])
    );
    assert_eq!(
        send("GET", &url, &[("authorization", "Bearer nope")], "")
            .await
            .unwrap()
            .status,
        401
    );
    assert_eq!(
        call("POST", &admin(&sim, "/reset"), "")
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(
        call("GET", &url, "").await.unwrap().json()["data"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let requests = call("GET", &admin(&sim, "/requests"), "")
        .await
        .unwrap()
        .json();
    assert_eq!(
        (&requests[0]["cloud"], &requests[0]["api"]),
        (&json!("fly"), &json!("logs"))
    );
    sim.stop().await;
}

#[tokio::test]
async fn what_a_fly_machine_prints_is_in_its_apps_log() {
    let sim = sim().await;
    let machines = format!(
        "{}/v1/apps/sim-app/machines",
        sim.ready().url("fly", "machines")
    );
    let order = r#"{"name":"printer","region":"fra","config":{"image":"x/y:1","guest":{"cpu_kind":"shared","cpus":1,"memory_mb":256}}}"#;
    let machine = call("POST", &machines, order).await.unwrap();
    assert_eq!(machine.status, 200, "{}", machine.json());
    let id = machine.json()["id"].as_str().unwrap().to_owned();
    let logs = format!(
        "{}/api/v1/apps/sim-app/logs?instance={id}",
        sim.ready().url("fly", "logs")
    );
    until("it has printed", async || {
        !call("GET", &logs, "").await.unwrap().json()["data"]
            .as_array()
            .unwrap()
            .is_empty()
    })
    .await;
    let page = call("GET", &logs, "").await.unwrap().json();
    assert_eq!(
        (
            &page["data"][0]["attributes"]["instance"],
            &page["data"][0]["attributes"]["region"]
        ),
        (&json!(id), &json!("fra"))
    );
    sim.stop().await;
}
