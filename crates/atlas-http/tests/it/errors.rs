//! What an answer becomes, and what never reaches an error.

use atlas_core::{CallContext, ErrorKind, Outcome, RetryClass, Secret};
use atlas_http::Call;
use serde::Deserialize;

use crate::cloud::{Cloud, KEY, answer, answer_with};

fn get() -> Call {
    Call::get("get_compute", RetryClass::Safe, ["pods", "p1"])
}

fn chain(error: &atlas_core::Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(" {error} {error:?}"));
        cause = error.source();
    }
    text
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only its shape counts")]
struct Pods {
    pods: Vec<Pod>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only its shape counts")]
struct Pod {
    cost: f64,
}

#[tokio::test(start_paused = true)]
async fn a_wrong_shape_is_named_by_its_place_and_not_by_its_value() {
    let cloud = Cloud::new([answer(
        200,
        r#"{"pods":[{"cost":1.0},{"cost":"zz\"canary"}]}"#,
    )]);
    let error = cloud
        .client()
        .json::<Pods>(&CallContext::new(), get())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Provider);
    assert!(
        error.message().contains("pods[1].cost") && !chain(&error).contains("canary"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_success_that_cannot_be_read_leaves_a_create_unknown() {
    for body in ["", "  ", "<html>", r#"{"pods":[{"cos"#, r#"{"pods":1}"#] {
        let cloud = Cloud::new([answer(201, body)]);
        let call = Call::post("spawn_compute", RetryClass::Create, ["pods"]);
        let error = cloud
            .client()
            .json::<Pods>(&CallContext::new(), call)
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Provider, &Outcome::Unknown(vec![])),
            "{body}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_key_is_named_by_its_origin_and_the_request_id_is_kept() {
    let body = format!(r#"{{"detail":"unknown key {KEY}"}}"#);
    let cloud = Cloud::new([answer_with(
        401,
        &[("x-request-id", "r-1"), ("cf-ray", "ray")],
        &body,
    )]);
    let error = cloud
        .client()
        .call(&CallContext::new(), get())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.request_id(), error.status()),
        (ErrorKind::Unauthorized, Some("r-1"), Some(401))
    );
    assert!(
        error
            .message()
            .starts_with("the api key from ACME_API_KEY was rejected"),
        "{error}"
    );
    assert!(!chain(&error).contains(KEY), "{error}");

    let cx = CallContext::new().with_api_key(Secret::new("other"));
    let error = cloud.client().call(&cx, get()).await.unwrap_err();
    assert!(
        error.message().contains("the api key from the call"),
        "{error}"
    );
    assert_eq!(
        cloud.seen(|seen| seen.headers["authorization"].clone())[1],
        "Bearer other"
    );
}

#[tokio::test(start_paused = true)]
async fn environment_values_that_a_cloud_echoes_do_not_reach_the_error() {
    let cloud = Cloud::new([answer(
        422,
        r#"{"detail":"env.TOKEN: hunter2hunter2 is too short"}"#,
    )]);
    let call = Call::post("spawn_compute", RetryClass::Create, ["pods"])
        .scrub([Secret::new("hunter2hunter2")]);
    let error = cloud
        .client()
        .call(&CallContext::new(), call)
        .await
        .unwrap_err();
    assert_eq!(error.message(), "env.TOKEN: [redacted] is too short");
}

#[tokio::test(start_paused = true)]
async fn secrets_reach_no_error_from_a_request_id_or_an_answer_with_a_success_status() {
    let headers = [("x-request-id", KEY), ("x-note", KEY)];
    let body = r#"{"errors":[{"message":"bad \u0068unter2hunter2"}]}"#;
    let cloud = Cloud::new([
        answer_with(422, &headers, "no"),
        answer_with(200, &headers, body),
    ]);
    let call = || {
        Call::post("spawn_compute", RetryClass::Create, ["pods"])
            .scrub([Secret::new("hunter2hunter2")])
    };
    let client = cloud.client();
    let error = client.call(&CallContext::new(), call()).await.unwrap_err();
    assert_eq!(error.request_id(), Some("[redacted]"));
    let answer = client.call(&CallContext::new(), call()).await.unwrap();
    assert_eq!(answer.request_id(), Some("[redacted]"));
    let read: serde_json::Value = answer.json().unwrap();
    let said = read["errors"][0]["message"].as_str().unwrap();
    assert_eq!(answer.scrubbed(said), "bad [redacted]");
}

#[tokio::test(start_paused = true)]
async fn every_request_says_who_we_are() {
    let cloud = Cloud::new([answer(200, "{}")]);
    cloud
        .client()
        .call(&CallContext::new(), get())
        .await
        .unwrap();
    let agent = cloud.seen(|seen| seen.headers["user-agent"].to_str().unwrap().to_owned());
    assert!(
        agent[0].starts_with("atlas/0.") && agent[0].ends_with(" (Rust)"),
        "{agent:?}"
    );
    assert!(cloud.seen(|seen| seen.headers["authorization"].is_sensitive())[0]);
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_an_answer_is_given_back() {
    let cloud = Cloud::new([answer(404, "null")]);
    let call = get().accept_status(http::StatusCode::NOT_FOUND);
    let answer = cloud
        .client()
        .call(&CallContext::new(), call)
        .await
        .unwrap();
    assert_eq!(answer.status(), 404);
}
