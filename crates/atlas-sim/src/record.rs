//! What clients sent, kept for the admin with its secrets masked.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use atlas_core::{Clock, REDACTED};
use atlas_testkit::dialect::SimBody;
use atlas_testkit::world::WorldClock;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use tower::Service;

/// How many requests are kept; older ones are forgotten.
const KEPT: usize = 10_000;
/// The largest body that is read at all: no cloud takes one this large.
const MAX_BODY: usize = 24 * 1024 * 1024;
/// The largest body that is kept.
const MAX_KEPT_BODY: usize = 64 * 1024;
/// Headers whose values are kept as they are; of the others, only that they were there.
const OPEN_HEADERS: [&str; 8] = [
    "accept",
    "content-type",
    "content-length",
    "host",
    "user-agent",
    "last-event-id",
    "idempotency-key",
    "accept-encoding",
];
/// Fields of a body, and of a query, whose values are secrets, or may hold some.
const SECRET_FIELDS: [&str; 13] = [
    "env",
    "password",
    "token",
    "secret",
    "accesssecret",
    "accessid",
    "webhook",
    "api_key",
    "apikey",
    "key",
    "authorization",
    "signature",
    "image_login",
];

/// The requests so far. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(Arc<Mutex<VecDeque<Value>>>);

impl Recorder {
    pub(crate) fn all(&self) -> Vec<Value> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    pub(crate) fn clear(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn keep(&self, entry: Value) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(entry);
    }
}

/// Where the requests of one API are recorded, and under which name.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    recorder: Recorder,
    clock: WorldClock,
    cloud: &'static str,
    api: &'static str,
}

impl Log {
    pub(crate) fn new(
        recorder: Recorder,
        clock: WorldClock,
        cloud: &'static str,
        api: &'static str,
    ) -> Self {
        Self {
            recorder,
            clock,
            cloud,
            api,
        }
    }
}

/// A dialect whose requests are recorded.
#[derive(Clone, Debug)]
pub(crate) struct Recording<S> {
    inner: S,
    log: Log,
}

impl<S> Recording<S> {
    pub(crate) fn new(inner: S, log: Log) -> Self {
        Self { inner, log }
    }
}

impl<S> Service<Request<Incoming>> for Recording<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<SimBody>, Error = io::Error>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<SimBody>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<SimBody>, io::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let mut this = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = Limited::new(body, MAX_BODY)
                .collect()
                .await
                .map_err(io::Error::other)?
                .to_bytes();
            this.log.recorder.keep(entry(&this.log, &parts, &body));
            this.inner
                .call(Request::from_parts(parts, Full::new(body)))
                .await
        })
    }
}

fn entry(log: &Log, parts: &http::request::Parts, body: &Bytes) -> Value {
    let headers: Map<String, Value> = parts
        .headers
        .iter()
        .map(|(name, value)| {
            let open = OPEN_HEADERS.contains(&name.as_str());
            (
                name.to_string(),
                if open {
                    value.to_str().unwrap_or_default().into()
                } else {
                    REDACTED.into()
                },
            )
        })
        .collect();
    let query: Vec<String> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(masked_pair)
        .collect();
    let body = match serde_json::from_slice::<Value>(body) {
        Ok(mut json) if body.len() <= MAX_KEPT_BODY => {
            mask(&mut json);
            json
        }
        _ if body.is_empty() => Value::Null,
        // What is not JSON cannot be masked.
        _ => format!("{} bytes", body.len()).into(),
    };
    json!({
        "at": log.clock.now(), "cloud": log.cloud, "api": log.api, "method": parts.method.as_str(),
            "path": parts.uri.path(),
        "query": query.join("&"), "headers": headers, "body": body,
    })
}

fn is_secret(name: &str) -> bool {
    SECRET_FIELDS.contains(&name.to_ascii_lowercase().as_str())
}

fn masked_pair(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={REDACTED}"),
        _ => pair.to_owned(),
    }
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if is_secret(name) {
                    hide(value)
                } else {
                    mask(value)
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

/// Hides every leaf, so that names stay and values go.
fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(hide),
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Null => {}
        leaf => *leaf = REDACTED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_and_values_go() {
        let mut body = json!({ "name": "n", "env": { "A": "zz" }, "nested": [{ "password": "zz" }],
            "s3Config": { "accessSecret": "zz" } });
        mask(&mut body);
        assert!(!body.to_string().contains("zz"));
        assert_eq!(
            (&body["name"], &body["env"]["A"]),
            (&json!("n"), &json!(REDACTED))
        );
        assert_eq!(masked_pair("api_key=zz"), format!("api_key={REDACTED}"));
        assert_eq!(masked_pair("limit=2"), "limit=2");
    }
}
