//! The admin's face: the ledger, time, faults, what was sent, and a fresh start.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use atlas_testkit::world::{Fault, World};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::Service;

use crate::record::Recorder;
use crate::server::Sure;

const MAX_BODY: usize = 1024 * 1024;

#[derive(Clone)]
pub(crate) struct Admin {
    world: World,
    recorder: Recorder,
    afresh: Arc<dyn Fn() + Send + Sync>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    seconds: f64,
}

type Answer = Result<Value, (StatusCode, String)>;

impl Admin {
    /// `afresh` puts everything back to the beginning.
    pub(crate) fn new(
        world: World,
        recorder: Recorder,
        afresh: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            world,
            recorder,
            afresh: Arc::new(afresh),
        }
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> Answer {
        match (method, path) {
            (&Method::GET, "/ledger") => Ok(json!(self.world.ledger())),
            (&Method::GET, "/requests") => Ok(self.recorder.all().into()),
            (&Method::GET, "/faults") => {
                let struck: serde_json::Map<String, Value> = self
                    .world
                    .struck()
                    .into_iter()
                    .map(|(kind, times)| (kind.as_str().to_owned(), times.into()))
                    .collect();
                Ok(json!({ "waiting": self.world.waiting_faults(), "struck": struck }))
            }
            (&Method::POST, "/faults") => {
                let faults: Vec<Fault> = serde_json::from_slice(body).map_err(bad)?;
                self.world.inject(faults);
                Ok(json!({ "waiting": self.world.waiting_faults() }))
            }
            (&Method::POST, "/advance") => {
                let Advance { seconds } = serde_json::from_slice(body).map_err(bad)?;
                let span = Duration::try_from_secs_f64(seconds)
                    .map_err(|_| bad("seconds must be 0 or more"))?;
                self.world.advance(span);
                Ok(json!({ "now": self.world.now() }))
            }
            (&Method::POST, "/reset") => {
                (self.afresh)();
                Ok(json!({ "now": self.world.now() }))
            }
            (_, "/ledger" | "/requests" | "/faults" | "/advance" | "/reset") => Err((
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{path} does not take {method}"),
            )),
            _ => Err((StatusCode::NOT_FOUND, format!("no {path} here"))),
        }
    }
}

fn bad(error: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, error.to_string())
}

impl Service<Request<Incoming>> for Admin {
    type Response = Response<Full<Bytes>>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Sure<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Sure<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let answer = match Limited::new(body, MAX_BODY).collect().await {
                Ok(body) => this.answer(&parts.method, parts.uri.path(), &body.to_bytes()),
                Err(error) => Err(bad(error)),
            };
            let (status, body) = match answer {
                Ok(body) => (StatusCode::OK, body),
                Err((status, error)) => (status, json!({ "error": error })),
            };
            let mut response = Response::new(Full::from(body.to_string()));
            *response.status_mut() = status;
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok(response)
        })
    }
}
