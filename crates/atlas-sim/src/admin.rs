//! The admin interface: the ledger, time, faults, recorded requests, and reset.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use atlas_testkit::world::{Fault, World};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
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
    /// `afresh` resets everything.
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

/// Whether the request comes from a program on this machine. A web page in a local browser can send
/// requests too, but those have an `Origin` header or, after DNS rebinding, a host that is not this
/// machine.
fn is_local(parts: &Parts) -> bool {
    let cross_site = parts
        .headers
        .get("sec-fetch-site")
        .is_some_and(|site| site != "none" && site != "same-origin");
    if parts.headers.contains_key(ORIGIN) || cross_site {
        return false;
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let named = host.to_str().ok().and_then(|host| host.parse().ok());
    let named: Option<Authority> = named.filter(|host: &Authority| !host.as_str().contains('@'));
    named.is_some_and(|authority| {
        let host = authority.host();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost")
            || address
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    })
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
                _ if !is_local(&parts) => Err((
                    StatusCode::FORBIDDEN,
                    "the admin answers local programs, not web pages or other hosts".to_owned(),
                )),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_programs_reach_the_admin() {
        let local = |headers: &[(&str, &str)]| {
            let mut request = Request::builder().uri("/ledger");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            is_local(&request.body(()).unwrap().into_parts().0)
        };
        for host in [
            "127.0.0.1:8080",
            "127.9.9.9",
            "localhost:1",
            "LocalHost",
            "[::1]:8080",
        ] {
            assert!(local(&[("host", host)]), "{host}");
        }
        for host in [
            "evil.example",
            "10.0.0.1:8080",
            "localhost.evil.example",
            "x@localhost",
            "",
        ] {
            assert!(!local(&[("host", host)]), "{host}");
        }
        let host = ("host", "127.0.0.1:8080");
        assert!(!local(&[]) && !local(&[host, host]));
        assert!(!local(&[host, ("origin", "null")]));
        assert!(!local(&[host, ("origin", "http://127.0.0.1:8080")]));
        assert!(!local(&[host, ("sec-fetch-site", "cross-site")]));
        assert!(local(&[host, ("sec-fetch-site", "none")]));
    }
}
