//! Receives RunPod's completion callbacks: a tower service to mount where RunPod can reach it.
//!
//! RunPod does not sign its callbacks and repeats them (docs/clouds/runpod.md, "Serverless jobs").
//! Each job's URL therefore contains its own secret, and a callback only *wakes* the waiters of
//! that job: the job's state is always read from the cloud. A callback that is lost, forged or
//! repeated costs at most one read.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use atlas_core::{Entropy, Secret};
use atlas_http::Body;
use data_encoding::BASE64URL_NOPAD;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use ring::digest;
use serde::Deserialize;
use tokio::sync::Notify;
use tower::Service;

/// The maximum size of a callback: it repeats input and output, 20 MB each at most.
const MAX_BODY: usize = 48 * 1024 * 1024;

/// Receives callbacks and wakes waiters. Cheap to clone; clones are the same receiver.
///
/// ```
/// use std::sync::Arc;
/// use atlas_core::SystemEntropy;
/// use atlas_provider_runpod::Webhooks;
///
/// let webhooks = Webhooks::new("https://backend.example/hooks/runpod", Arc::new(SystemEntropy::new()));
/// let callback = webhooks.callback();
/// assert!(callback.url().expose().starts_with("https://backend.example/hooks/runpod?t="));
/// ```
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

struct Inner {
    base: String,
    entropy: Arc<dyn Entropy>,
    /// By the SHA-256 of the token, so that the time of a look-up reveals nothing about the tokens.
    expected: Mutex<BTreeMap<[u8; 32], Expected>>,
}

#[derive(Default)]
struct Expected {
    wake: Arc<Notify>,
    seen: BTreeSet<(String, String)>,
}

impl Webhooks {
    /// A receiver that RunPod can reach at this URL.
    #[must_use]
    pub fn new(base_url: impl Into<String>, entropy: Arc<dyn Entropy>) -> Self {
        Self(Arc::new(Inner {
            base: base_url.into(),
            entropy,
            expected: Mutex::default(),
        }))
    }

    /// A URL for one job, with its own secret. It becomes invalid when the callback is dropped.
    #[must_use]
    pub fn callback(&self) -> Callback {
        let mut token = [0; 32];
        self.0.entropy.fill(&mut token);
        let token = BASE64URL_NOPAD.encode(&token);
        let hash = hash(&token);
        let wake = self.expected().entry(hash).or_default().wake.clone();
        let joint = if self.0.base.contains('?') { '&' } else { '?' };
        Callback {
            url: Secret::new(format!("{}{joint}t={token}", self.0.base)),
            hash,
            wake,
            webhooks: self.clone(),
        }
    }

    fn expected(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Expected>> {
        self.0
            .expected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a callback; wakes the waiters unless it is a repetition.
    fn note(&self, hash: &[u8; 32], said: Option<Said>) {
        if let Some(expected) = self.expected().get_mut(hash) {
            let new = said.is_none_or(|said| expected.seen.insert((said.id, said.status)));
            if new {
                expected.wake.notify_one();
            }
        }
    }
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks")
            .field("expected", &self.expected().len())
            .finish_non_exhaustive()
    }
}

/// One job's callback: give its URL to the job ([`atlas_core::JobRequest::webhook`]), and itself to
/// [`RunPod::wait_job_called_back`](crate::RunPod::wait_job_called_back).
pub struct Callback {
    url: Secret,
    hash: [u8; 32],
    pub(crate) wake: Arc<Notify>,
    webhooks: Webhooks,
}

impl Callback {
    /// The URL for this job. Knowing it only allows waking the job's waiters.
    #[must_use]
    pub const fn url(&self) -> &Secret {
        &self.url
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback(..)")
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        self.webhooks.expected().remove(&self.hash);
    }
}

fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

/// The parts of a callback that are used.
#[derive(Deserialize)]
struct Said {
    id: String,
    status: String,
}

impl<B> Service<Request<B>> for Webhooks
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let webhooks = self.clone();
        Box::pin(async move {
            // The receiver's own URL may have a parameter with that name too.
            let mut tokens = request
                .uri()
                .query()
                .unwrap_or_default()
                .split('&')
                .filter_map(|pair| pair.strip_prefix("t="));
            let known = tokens.find_map(|token| {
                Some(hash(token)).filter(|hash| webhooks.expected().contains_key(hash))
            });
            let status = match known {
                None => StatusCode::NOT_FOUND,
                Some(_) if request.method() != Method::POST => StatusCode::METHOD_NOT_ALLOWED,
                Some(hash) => {
                    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
                    // A callback that cannot be parsed still wakes the waiters.
                    let said = body
                        .ok()
                        .and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
                    webhooks.note(&hash, said);
                    StatusCode::OK
                }
            };
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::SeededEntropy;
    use futures_util::FutureExt;
    use tower::ServiceExt;

    async fn post(webhooks: &Webhooks, method: Method, uri: &str, body: &'static str) -> u16 {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .body(Body::from(body))
            .expect("a request");
        webhooks
            .clone()
            .oneshot(request)
            .await
            .expect("infallible")
            .status()
            .as_u16()
    }

    const DONE: &str = r#"{"id":"j-u1","status":"COMPLETED","input":{"secret":1},"output":2,"webhook":"https://x"}"#;

    #[tokio::test]
    async fn a_callback_wakes_once_however_often_it_is_delivered() {
        let webhooks = Webhooks::new(
            "https://b.example/hook?t=1",
            Arc::new(SeededEntropy::new(1)),
        );
        let callback = webhooks.callback();
        let url = callback.url().expose().to_owned();
        assert!(url.starts_with("https://b.example/hook?t=1&t="));
        for _ in 0..3 {
            assert_eq!(post(&webhooks, Method::POST, &url, DONE).await, 200);
        }
        callback.wake.notified().now_or_never().expect("woken");
        assert!(
            callback.wake.notified().now_or_never().is_none(),
            "a repetition woke again"
        );
        assert_eq!(post(&webhooks, Method::POST, &url, "torn {").await, 200);
        callback
            .wake
            .notified()
            .now_or_never()
            .expect("what cannot be read wakes too");
    }

    #[tokio::test]
    async fn only_the_jobs_own_url_is_answered_and_only_while_it_is_expected() {
        let webhooks = Webhooks::new("https://b.example/hook", Arc::new(SeededEntropy::new(1)));
        let (mine, other) = (webhooks.callback(), webhooks.callback());
        assert_ne!(mine.url().expose(), other.url().expose());
        for bad in [
            "https://b.example/hook",
            "https://b.example/hook?t=",
            "https://b.example/hook?t=guess",
        ] {
            assert_eq!(post(&webhooks, Method::POST, bad, DONE).await, 404);
        }
        let url = mine.url().expose().to_owned();
        assert_eq!(post(&webhooks, Method::GET, &url, "").await, 405);
        assert!(
            mine.wake.notified().now_or_never().is_none()
                && other.wake.notified().now_or_never().is_none()
        );
        drop(mine);
        assert_eq!(post(&webhooks, Method::POST, &url, DONE).await, 404);
        assert!(!format!("{other:?} {webhooks:?}").contains(&url[30..]));
    }
}
