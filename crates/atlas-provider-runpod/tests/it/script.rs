//! A cloud that answers from a script and remembers what it was asked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use atlas_core::AnyProvider;
use atlas_http::{Body, Transport};
use atlas_provider_runpod::{RunPod, RunPodBuilder};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;

/// The key of every test: it must show up nowhere.
pub(crate) const KEY: &str = "rpa_zz_canary_key";

/// One answer: status, content type, body.
#[derive(Clone, Debug)]
pub(crate) struct Reply(pub(crate) u16, pub(crate) &'static str, pub(crate) String);

pub(crate) fn json(status: u16, body: &Value) -> Reply {
    Reply(status, "application/json", body.to_string())
}

pub(crate) fn problem(status: u16, detail: &str) -> Reply {
    let body = serde_json::json!({"title": "T", "status": status, "detail": detail});
    Reply(status, "application/problem+json", body.to_string())
}

pub(crate) fn html(status: u16) -> Reply {
    Reply(
        status,
        "text/html",
        "<html><h1>zz-page</h1></html>".to_owned(),
    )
}

/// One request as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    /// `GET /v2/pods?cursor=x`
    pub(crate) line: String,
    pub(crate) body: Value,
    pub(crate) headers: http::HeaderMap,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Script {
    pub(crate) fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self {
            replies: Arc::new(Mutex::new(replies.into_iter().collect())),
            asked: Arc::default(),
        }
    }

    pub(crate) fn runpod(&self) -> RunPod {
        self.builder().build().unwrap()
    }

    #[cfg(feature = "graphql")]
    pub(crate) fn spot(&self) -> AnyProvider {
        AnyProvider::new(self.builder().spot(true).build().unwrap())
    }

    fn builder(&self) -> RunPodBuilder {
        let script = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let script = script.clone();
            async move { Ok::<_, Infallible>(script.answer(request).await) }
        });
        RunPod::builder()
            .api_key(KEY)
            .transport(Transport::new(service))
    }

    pub(crate) fn provider(&self) -> AnyProvider {
        AnyProvider::new(self.runpod())
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        assert_eq!(request.headers()["authorization"], format!("Bearer {KEY}"));
        assert!(request.headers().contains_key("user-agent"));
        let line = format!(
            "{} {}",
            request.method(),
            request.uri().path_and_query().unwrap()
        );
        let headers = request.headers().clone();
        let bytes = request.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        self.asked.lock().unwrap().push(Asked {
            line,
            body,
            headers,
        });
        let reply = self.replies.lock().unwrap().pop_front();
        let Reply(status, content_type, body) =
            reply.unwrap_or_else(|| problem(500, "the script is over"));
        let builder = Response::builder()
            .status(status)
            .header("content-type", content_type)
            .header("x-request-id", "req-7");
        builder.body(Body::from(Bytes::from(body))).unwrap()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}
