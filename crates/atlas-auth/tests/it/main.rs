//! The verifying layer in front of an axum router: what passes, as whom, and what a handler of a
//! WebSocket still gets.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the verdict")]

use std::sync::Arc;
use std::time::Duration;

use atlas_auth::layer::VerifyLayer;
use atlas_auth::signed_url::{self, Format};
use atlas_auth::{Principal, Verifier};
use atlas_core::{Clock, Secret, SystemClock};
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::routing::get;
use axum::{Extension, Router};
use tower::ServiceExt as _;

fn secret() -> Secret {
    Secret::new("s3cret-of-twenty-two-b")
}

/// Says who asks, and for which part or protocol.
async fn who(Extension(who): Extension<Principal>, headers: HeaderMap) -> String {
    format!(
        "{who:?} {:?} {:?}",
        headers.get(header::RANGE),
        headers.get(header::UPGRADE)
    )
}

async fn answer(request: Request<Body>) -> (StatusCode, String) {
    let verifier = Verifier::new(Arc::new(SystemClock))
        .bearer(&secret())
        .unwrap()
        .signed_url(&secret())
        .unwrap();
    let router = Router::new()
        .route("/media", get(who))
        .layer(VerifyLayer::new(verifier));
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 10_000)
        .await
        .unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn ask(target: &str) -> axum::http::request::Builder {
    Request::get(target).header(header::HOST, "pod.example")
}

#[tokio::test]
async fn a_handler_of_axum_learns_who_passed_and_gets_ranges_and_upgrades() {
    let url = "https://pod.example/media?t=5";
    let signed = signed_url::sign(
        Format::Atlas,
        url,
        &secret(),
        SystemClock.now(),
        Duration::from_secs(60),
    )
    .unwrap();
    let target = signed.strip_prefix("https://pod.example").unwrap();
    let part = ask(target)
        .header(header::RANGE, "bytes=5-")
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        answer(part).await,
        (
            StatusCode::OK,
            "SignedUrl(Atlas) Some(\"bytes=5-\") None".to_owned()
        )
    );
    let socket = ask("/media")
        .header(header::AUTHORIZATION, "Bearer s3cret-of-twenty-two-b")
        .header(header::UPGRADE, "websocket");
    assert_eq!(
        answer(socket.body(Body::empty()).unwrap()).await,
        (StatusCode::OK, "Bearer None Some(\"websocket\")".to_owned())
    );
}

#[tokio::test]
async fn what_has_no_credential_reaches_no_handler() {
    for target in ["/media", "/media?atlas_sig=1.x.1.y", "/no-such-route"] {
        let refused = ask(target).body(Body::empty()).unwrap();
        assert_eq!(
            answer(refused).await,
            (StatusCode::UNAUTHORIZED, String::new()),
            "{target}"
        );
    }
}
