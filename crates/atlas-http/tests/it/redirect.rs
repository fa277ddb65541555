//! Where a call may be sent elsewhere.

use atlas_core::{CallContext, ErrorKind, Outcome, RetryClass};
use atlas_http::Call;
use http::Method;

use crate::cloud::{Cloud, answer, answer_with};

fn moved(status: u16, to: &str) -> crate::cloud::Act {
    answer_with(status, &[("location", to)], "")
}

fn get() -> Call {
    Call::get("get_compute", RetryClass::Safe, ["pods", "p1"])
}

#[tokio::test(start_paused = true)]
async fn a_read_follows_to_the_same_host_only() {
    for near in [
        "/v2/pods/p2?x=1",
        "https://cloud.example/v2/pods/p2?x=1",
        "https://CLOUD.example:443/v2/pods/p2?x=1",
    ] {
        let cloud = Cloud::new([moved(307, near), answer(200, "{}")]);
        cloud
            .client()
            .call(&CallContext::new(), get())
            .await
            .unwrap();
        assert_eq!(
            cloud.seen(|seen| seen.uri.path_and_query().unwrap().to_string())[1],
            "/v2/pods/p2?x=1"
        );
    }
    let far = [
        "https://evil.example/v2/pods",
        "http://cloud.example/v2/pods",
        "https://cloud.example:444/v2/pods",
        "https://cloud.example@evil.example/",
        "https://me@cloud.example/v2/pods",
        "//evil.example/v2/pods",
        "\\\\evil.example",
        "pods",
        "",
    ];
    for far in far {
        let cloud = Cloud::new([moved(302, far), answer(200, "{}")]);
        let error = cloud
            .client()
            .call(&CallContext::new(), get())
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), cloud.requests()),
            (ErrorKind::Provider, 1),
            "{far}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_loop_of_redirects_ends() {
    let cloud = Cloud::new([moved(302, "/v2/pods/p1")]);
    cloud
        .client()
        .call(&CallContext::new(), get())
        .await
        .unwrap_err();
    assert_eq!(cloud.requests(), 4);
}

#[tokio::test(start_paused = true)]
async fn nothing_but_a_get_is_ever_redirected() {
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        for status in [301, 302, 303, 307, 308] {
            let cloud = Cloud::new([moved(status, "/v2/elsewhere")]);
            let call = Call::new(
                method.clone(),
                "spawn_compute",
                RetryClass::Create,
                ["pods"],
            );
            let error = cloud
                .client()
                .call(&CallContext::new(), call)
                .await
                .unwrap_err();
            assert_eq!(
                (error.outcome(), cloud.seen(|seen| seen.method.clone())),
                (&Outcome::Unknown(vec![]), vec![method.clone()])
            );
        }
    }
}
