//! What the tap keeps, and what it does not.

use std::convert::Infallible;

use atlas_contract::openapi::Exchange;
use atlas_contract::tap::{Broken, Reading, Tap};
use atlas_http::{Body, Transport};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

fn tap(answer: fn() -> Response<Body>) -> Tap {
    let cloud =
        tower::service_fn(move |_: Request<Body>| async move { Ok::<_, Infallible>(answer()) });
    let operation = |exchange: &Exchange| (exchange.method == "GET").then_some("list_compute");
    Tap::new(
        Transport::new(cloud),
        Reading {
            operation,
            lose_cursor: Some(Broken {
                pages: 1,
                by: |page| page["next"] = Value::Null,
            }),
        },
    )
}

async fn send(
    tap: &Tap,
    method: &str,
    body: &'static str,
) -> Result<Vec<u8>, atlas_http::BoxError> {
    let request = Request::builder()
        .method(method)
        .uri("https://cloud.example/a?x=1")
        .header("content-type", "application/json; charset=utf-8");
    let answer = tap
        .clone()
        .oneshot(request.body(Body::from(body)).unwrap())
        .await?;
    Ok(answer.into_body().collect().await?.to_bytes().to_vec())
}

fn page() -> Response<Body> {
    Response::builder()
        .header("content-type", "application/json")
        .body(Body::from(r#"{"next":"c"}"#))
        .unwrap()
}

#[tokio::test]
async fn an_exchange_is_kept_whole_and_counted() {
    let tap = tap(page);
    assert_eq!(send(&tap, "POST", "{}").await.unwrap(), br#"{"next":"c"}"#);
    send(&tap, "GET", "").await.unwrap();
    assert_eq!(
        (
            tap.count(None),
            tap.count(Some("list_compute")),
            tap.count(Some("spawn_compute"))
        ),
        (2, 1, 0)
    );
    let kept = tap.take();
    assert_eq!(
        (
            kept[0].host.as_str(),
            kept[0].path_and_query.as_str(),
            kept[0].body.as_slice()
        ),
        ("cloud.example", "/a?x=1", &b"{}"[..])
    );
    assert_eq!(kept[0].content_type.as_deref(), Some("application/json"));
    let answer = kept[0].answer.as_ref().unwrap();
    assert_eq!(
        (
            answer.status,
            answer.content_type.as_deref(),
            answer.body.as_slice()
        ),
        (200, Some("application/json"), &br#"{"next":"c"}"#[..])
    );
    assert!(tap.take().is_empty());
}

#[tokio::test]
async fn an_empty_answer_is_kept_though_nobody_reads_it() {
    let tap = tap(|| {
        Response::builder()
            .status(StatusCode::NO_CONTENT)
            .body(Body::empty())
            .unwrap()
    });
    let request = Request::delete("https://cloud.example/a")
        .body(Body::empty())
        .unwrap();
    drop(tap.clone().oneshot(request).await.unwrap());
    assert_eq!(tap.take()[0].answer.as_ref().unwrap().status, 204);
}

#[tokio::test]
async fn a_listing_is_broken_off_once() {
    let tap = tap(page);
    assert!(tap.break_listing());
    let read = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
    assert_eq!(
        read(send(&tap, "POST", "").await.unwrap()),
        json!({ "next": "c" })
    );
    assert_eq!(
        read(send(&tap, "GET", "").await.unwrap()),
        json!({ "next": null })
    );
    assert_eq!(
        read(send(&tap, "GET", "").await.unwrap()),
        json!({ "next": "c" })
    );
}
