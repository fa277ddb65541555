//! A caller's own layers, base URL and transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use atlas_core::{CallContext, ErrorKind, RetryClass};
use atlas_http::{Body, Call, CallLayers};
use http::Request;
use tower::util::MapRequestLayer;

use crate::cloud::{Cloud, answer};

fn get() -> Call {
    Call::get("get_compute", RetryClass::Safe, ["pods"])
}

fn counting(
    counter: &Arc<AtomicUsize>,
) -> MapRequestLayer<impl Fn(Request<Body>) -> Request<Body> + Clone + Send + Sync + 'static> {
    let counter = counter.clone();
    MapRequestLayer::new(move |mut request: Request<Body>| {
        counter.fetch_add(1, Ordering::SeqCst);
        request
            .headers_mut()
            .insert("x-layered", http::HeaderValue::from_static("yes"));
        request
    })
}

#[tokio::test(start_paused = true)]
async fn a_clients_layer_sees_every_try() {
    let tries = Arc::new(AtomicUsize::new(0));
    let cloud = Cloud::new([answer(503, ""), answer(200, "{}")]);
    let client = cloud.builder().layer(&counting(&tries)).build().unwrap();
    client.call(&CallContext::new(), get()).await.unwrap();
    assert_eq!(
        (
            tries.load(Ordering::SeqCst),
            cloud.seen(|seen| seen.headers.contains_key("x-layered"))
        ),
        (2, vec![true, true])
    );
}

#[tokio::test(start_paused = true)]
async fn a_calls_layer_is_for_that_call_only() {
    let tries = Arc::new(AtomicUsize::new(0));
    let cloud = Cloud::new([answer(200, "{}")]);
    let client = cloud.client();
    let layer = counting(&tries);
    let cx = CallContext::new()
        .with_extension(CallLayers::new(move |transport| transport.layered(&layer)));
    client.call(&cx, get()).await.unwrap();
    client.call(&CallContext::new(), get()).await.unwrap();
    assert_eq!((tries.load(Ordering::SeqCst), cloud.requests()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_call_can_go_to_another_base_url_but_not_readable_across_the_network() {
    let cloud = Cloud::new([answer(200, "{}")]);
    let client = cloud.client();
    client
        .call(
            &CallContext::new().with_base_url("https://other.example/v3/"),
            get(),
        )
        .await
        .unwrap();
    assert_eq!(
        cloud.seen(|seen| seen.uri.to_string()),
        ["https://other.example/v3/pods"]
    );
    let error = client
        .call(
            &CallContext::new().with_base_url("http://other.example"),
            get(),
        )
        .await
        .unwrap_err();
    assert_eq!((error.kind(), cloud.requests()), (ErrorKind::Validation, 1));
}
