//! A tower service between a provider and a cloud: it keeps what passes, counts it, and can break a
//! listing off.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use atlas_http::{Body, BoxError, Transport};
use atlas_testkit::conformance::Rewrite;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tower::Service;

use crate::openapi::{Answer, Exchange};

/// How a cloud's exchanges are told apart, and how its listing is broken off.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The contract's word for a request, where it is of one that the suite counts.
    pub operation: fn(&Exchange) -> Option<&'static str>,
    /// How a listing is broken off. `None` where a listing is a single answer.
    pub lose_cursor: Option<Broken>,
}

/// Pages changed so that they say there is more, and not where.
#[derive(Clone, Copy, Debug)]
pub struct Broken {
    /// How many pages in a row.
    pub pages: u32,
    /// What becomes of each.
    pub by: fn(&mut serde_json::Value),
}

/// The tap. Cheap to clone; clones share what was kept.
#[derive(Clone)]
pub struct Tap {
    inner: Transport,
    reading: Reading,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    exchanges: Vec<Exchange>,
    by_operation: BTreeMap<&'static str, u64>,
    pages_to_break: u32,
    rewrite: Option<Rewrite>,
}

impl Tap {
    /// A tap on the way to a cloud.
    #[must_use]
    pub fn new(inner: Transport, reading: Reading) -> Self {
        Self {
            inner,
            reading,
            kept: Arc::default(),
        }
    }

    /// The same tap on another way.
    #[must_use]
    pub fn on(&self, inner: Transport) -> Self {
        Self {
            inner,
            ..self.clone()
        }
    }

    /// What passed, oldest first. An answer is there once its whole body was read.
    #[must_use]
    pub fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut self.kept().exchanges)
    }

    /// How many requests passed: of one operation, or all.
    #[must_use]
    pub fn count(&self, operation: Option<&str>) -> u64 {
        let kept = self.kept();
        operation.map_or(kept.by_operation.values().sum(), |operation| {
            kept.by_operation.get(operation).copied().unwrap_or(0)
        })
    }

    /// Breaks the next listing off, where this cloud's can be.
    #[must_use]
    pub fn break_listing(&self) -> bool {
        self.kept().pages_to_break += self.reading.lose_cursor.map_or(0, |broken| broken.pages);
        self.reading.lose_cursor.is_some()
    }

    /// Changes the body of each JSON answer from now on. What is kept is what the cloud answered.
    pub fn rewrite(&self, rewrite: Option<Rewrite>) {
        self.kept().rewrite = rewrite;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let mut exchange = Exchange {
            host: parts.uri.host().unwrap_or_default().to_owned(),
            method: parts.method.to_string(),
            path_and_query: parts
                .uri
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default(),
            content_type: content_type(&parts.headers),
            body: body.to_vec(),
            answer: None,
        };
        let operation = (self.reading.operation)(&exchange);
        let (index, breaks) = {
            let mut kept = self.kept();
            *kept
                .by_operation
                .entry(operation.unwrap_or("other"))
                .or_default() += 1;
            kept.exchanges.push(exchange.clone());
            let breaks = operation == Some("list_compute") && kept.pages_to_break > 0;
            kept.pages_to_break -= u32::from(breaks);
            (kept.exchanges.len() - 1, breaks)
        };
        let mut inner = self.inner.clone();
        std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
        let answer = inner
            .call(Request::from_parts(parts, Body::from(body)))
            .await?;
        let (mut parts, body) = answer.into_parts();
        if let (true, Some(broken)) = (breaks, self.reading.lose_cursor) {
            let bytes = body.collect().await?.to_bytes();
            let mut page = serde_json::from_slice(&bytes)?;
            (broken.by)(&mut page);
            return Ok(Response::from_parts(parts, Body::from(page.to_string())));
        }
        let rewrite = self.kept().rewrite.clone();
        let is_json = content_type(&parts.headers).is_some_and(|kind| kind.ends_with("json"));
        if let (Some(rewrite), true) = (rewrite, parts.status.is_success() && is_json) {
            let bytes = body.collect().await?.to_bytes();
            let mut whole = serde_json::from_slice(&bytes)?;
            if let Some(kept) = self.kept().exchanges.get_mut(index) {
                kept.answer = Some(Answer {
                    status: parts.status.as_u16(),
                    content_type: content_type(&parts.headers),
                    body: bytes.to_vec(),
                });
            }
            rewrite.apply(&mut whole);
            let body = Body::from(whole.to_string());
            parts.headers.remove(CONTENT_LENGTH);
            return Ok(Response::from_parts(parts, body));
        }
        let answer = Answer {
            status: parts.status.as_u16(),
            content_type: content_type(&parts.headers),
            body: Vec::new(),
        };
        // A stream may be left before its end: its status and content type are kept at once.
        exchange.answer = answer
            .content_type
            .as_deref()
            .is_some_and(|kind| kind == "text/event-stream")
            .then(|| answer.clone());
        if let Some(kept) = self.kept().exchanges.get_mut(index) {
            kept.answer.clone_from(&exchange.answer);
        }
        let finished = exchange.answer.is_none();
        let recorded = Recorded {
            body,
            answer: finished.then_some(answer),
            kept: self.kept.clone(),
            index,
        };
        Ok(Response::from_parts(parts, Body::wrap(recorded)))
    }
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(
        text.split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase(),
    )
}

impl Service<Request<Body>> for Tap {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().pass(request))
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap(..)")
    }
}

/// A body that is kept once its end was reached; one that breaks off is not an answer of the cloud.
struct Recorded {
    body: Body,
    answer: Option<Answer>,
    kept: Arc<Mutex<Kept>>,
    index: usize,
}

impl http_body::Body for Recorded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(answer), Some(data)) = (&mut this.answer, frame.data_ref()) {
                    answer.body.extend_from_slice(data);
                }
            }
            Some(Err(_)) => this.answer = None,
            None => this.keep(),
        }
        if matches!(frame, Some(Ok(_))) && this.body.is_end_stream() {
            this.keep();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // The end is only reached by polling for it, so that an empty body is kept too.
        false
    }
}

impl Recorded {
    fn keep(&mut self) {
        if let Some(answer) = self.answer.take()
            && let Some(exchange) = self
                .kept
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .exchanges
                .get_mut(self.index)
        {
            exchange.answer = Some(answer);
        }
    }
}

impl Drop for Recorded {
    /// A client need not read a body that says it is empty.
    fn drop(&mut self) {
        if http_body::Body::is_end_stream(&self.body) {
            self.keep();
        }
    }
}
