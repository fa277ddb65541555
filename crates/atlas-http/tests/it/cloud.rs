//! A cloud in process: answers from a script and remembers what it was asked.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use atlas_core::config::{ApiKey, Origin};
use atlas_core::{AccountLimits, ProviderId, Secret, SeededEntropy};
use atlas_http::{Body, BoxError, Client, ClientBuilder, Transport, TransportError};
use http::{HeaderMap, Method, Request, Response, Uri};
use tokio::time::Instant;
use tower::Service;

pub(crate) const KEY: &str = "rpa_canary_0123456789";

/// What the cloud does with one request.
#[derive(Clone)]
pub(crate) enum Act {
    Answer(u16, Vec<(&'static str, String)>, String),
    /// The same, after this long.
    Slow(Duration, Box<Act>),
    NeverSent,
    Broken,
    Silent,
}

pub(crate) fn answer(status: u16, body: &str) -> Act {
    Act::Answer(
        status,
        vec![("content-type", "application/json".to_owned())],
        body.to_owned(),
    )
}

pub(crate) fn answer_with(status: u16, headers: &[(&'static str, &str)], body: &str) -> Act {
    Act::Answer(
        status,
        headers
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
        body.to_owned(),
    )
}

#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
}

/// Answers the acts in order; the last one is repeated.
#[derive(Clone)]
pub(crate) struct Cloud {
    acts: Arc<Mutex<VecDeque<Act>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    busy: Arc<Mutex<(usize, usize)>>,
}

impl Cloud {
    pub(crate) fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        Self {
            acts: Arc::new(Mutex::new(acts.into_iter().collect())),
            seen: Arc::default(),
            busy: Arc::default(),
        }
    }

    pub(crate) fn requests(&self) -> usize {
        lock(&self.seen).len()
    }

    pub(crate) fn seen<T>(&self, read: impl Fn(&Seen) -> T) -> Vec<T> {
        lock(&self.seen).iter().map(read).collect()
    }

    /// The most requests that were under way at once.
    pub(crate) fn most_at_once(&self) -> usize {
        lock(&self.busy).1
    }

    pub(crate) fn client(&self) -> Client {
        self.builder().build().expect("a script is well formed")
    }

    /// A client without pacing, with a key and repeatable jitter.
    pub(crate) fn builder(&self) -> ClientBuilder {
        let key = ApiKey {
            secret: Secret::new(KEY),
            origin: Origin::Environment("ACME_API_KEY"),
        };
        Client::builder(
            ProviderId::new("acme").expect("a script is well formed"),
            "https://cloud.example/v2",
        )
        .api_key("Bearer", key)
        .limits(unpaced())
        .entropy(Arc::new(SeededEntropy::new(7)))
        .transport(Transport::new(self.clone()))
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().expect("no test panics with the lock")
}

pub(crate) fn unpaced() -> AccountLimits {
    AccountLimits {
        call_interval: Duration::ZERO,
        ..AccountLimits::default()
    }
}

async fn act(act: Act) -> Result<Response<Body>, BoxError> {
    match act {
        Act::Answer(status, headers, body) => {
            let mut answer = Response::builder().status(status);
            for (name, value) in headers {
                answer = answer.header(name, value);
            }
            Ok(answer.body(body.into()).expect("a script is well formed"))
        }
        Act::Slow(wait, next) => {
            tokio::time::sleep(wait).await;
            Box::pin(self::act(*next)).await
        }
        Act::NeverSent => Err(TransportError::never_sent("connection refused").into()),
        Act::Broken => Err("reset by peer".into()),
        Act::Silent => std::future::pending().await,
    }
}

impl Service<Request<Body>> for Cloud {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (parts, _) = request.into_parts();
        lock(&self.seen).push(Seen {
            at: Instant::now(),
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
        });
        let mut acts = lock(&self.acts);
        let next = if acts.len() > 1 {
            acts.pop_front()
        } else {
            acts.front().cloned()
        };
        let next = next.expect("a script has an act");
        let place = Place::take(&self.busy);
        Box::pin(async move {
            let answer = act(next).await;
            drop(place);
            answer
        })
    }
}

/// Counts a request as under way until it is answered or dropped.
struct Place(Arc<Mutex<(usize, usize)>>);

impl Place {
    fn take(busy: &Arc<Mutex<(usize, usize)>>) -> Self {
        let mut counts = lock(busy);
        counts.0 += 1;
        counts.1 = counts.1.max(counts.0);
        Self(busy.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.0).0 -= 1;
    }
}
