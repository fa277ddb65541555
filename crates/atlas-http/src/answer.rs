//! Answers: read completely, or as a stream.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use atlas_core::{Error, ErrorKind, Outcome, Result, RetryClass, Secret};
use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, Sleep};

use crate::body::Body;
use crate::client::Inner;
use crate::failure;
use crate::headers::request_id;
use crate::scrub::Scrubber;

/// An answer that was read completely.
pub struct Answer {
    pub(crate) client: Arc<Inner>,
    pub(crate) operation: &'static str,
    pub(crate) class: RetryClass,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) resends: u32,
    /// Secrets of the request that the body may repeat and an error must not.
    pub(crate) secrets: Vec<Secret>,
}

impl Answer {
    /// The HTTP status: 2xx, or one that the call accepts.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    #[must_use]
    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The cloud's own id of the request (`x-request-id`, `fly-request-id`, `cf-ray`).
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        request_id(&self.headers)
    }

    /// The body. It may echo secrets of the request: never print it.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// Text from this answer with the secrets of its request replaced, for errors about an answer
    /// that reports its failure with a success status.
    #[must_use]
    pub fn scrubbed(&self, words: &str) -> String {
        let secrets = self.secrets.iter().map(Secret::expose);
        Scrubber::new(secrets).text(words).into_owned()
    }

    /// How many times the request had to be repeated.
    #[must_use]
    pub const fn resends(&self) -> u32 {
        self.resends
    }

    /// Parses the body as JSON of this type.
    ///
    /// # Errors
    /// `provider`, naming the position (`pods[3].costPerHr`) but no value; the outcome is `Unknown`
    /// for a create.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        // UTF-8 is checked once, not string by string, which takes a fifth of the parse. The plain
        // parser runs first; the one that tracks the path of every field takes a third longer, and
        // is only used for errors.
        let parsed = match std::str::from_utf8(&self.body) {
            Ok(text) => serde_json::from_str(text),
            Err(_) => serde_json::from_slice(&self.body),
        };
        parsed.map_err(|error| self.misunderstood(&self.where_wrong::<T>(&error)))
    }

    /// An error about this answer: it arrived, but its contents cannot be what was requested.
    /// `message` as for [`Error::new`].
    #[must_use]
    pub fn misunderstood(&self, message: &str) -> Error {
        let error = Error::new(ErrorKind::Provider, message).outcome_is(match self.class {
            RetryClass::Safe => Outcome::NotApplied(atlas_core::Next::SameLater),
            RetryClass::Idempotent | RetryClass::Create => Outcome::Unknown(Vec::new()),
        });
        let error = match self.request_id() {
            Some(id) => error.with_request_id(id),
            None => error,
        };
        error
            .with_status(self.status.as_u16())
            .during(&self.client.provider, self.operation)
    }

    fn where_wrong<T: DeserializeOwned>(&self, plain: &serde_json::Error) -> String {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return "the answer is empty".to_owned();
        }
        if failure::is_html(&self.headers, &self.body) {
            return "the answer is html, not json".to_owned();
        }
        let parser = &mut serde_json::Deserializer::from_slice(&self.body);
        match serde_path_to_error::deserialize::<_, T>(parser) {
            Err(error) if !plain.is_eof() => {
                let place = error.path().to_string();
                format!(
                    "the answer is not as expected: {place}: {}",
                    failure::without_quotes(&error.inner().to_string())
                )
            }
            _ if plain.is_eof() => "the answer ends too early".to_owned(),
            _ => format!(
                "the answer is not as expected: {}",
                failure::without_quotes(&plain.to_string())
            ),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("operation", &self.operation)
            .field("status", &self.status)
            .field("request_id", &self.request_id())
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A streaming answer. It ends with an error when the connection breaks or no bytes arrive for the
/// idle timeout.
pub struct StreamingAnswer {
    pub(crate) client: Arc<Inner>,
    pub(crate) operation: &'static str,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    pub(crate) idle: Duration,
    pub(crate) silence: Pin<Box<Sleep>>,
    pub(crate) done: bool,
}

impl StreamingAnswer {
    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    #[must_use]
    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The cloud's own id of the request.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        request_id(&self.headers)
    }

    /// The next bytes; `None` at the end. Cancel safe: no bytes are lost when the future is
    /// dropped.
    ///
    /// # Errors
    /// `transport` when the connection breaks, `timeout` when nothing arrived for the idle timeout.
    pub async fn chunk(&mut self) -> Option<Result<Bytes>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    fn end(&mut self, kind: ErrorKind, message: &str) -> Error {
        self.done = true;
        let error = Error::new(kind, message)
            .outcome_is(Outcome::NotApplied(atlas_core::Next::SameLater))
            .with_status(self.status.as_u16())
            .during(&self.client.provider, self.operation);
        match self.request_id() {
            Some(id) => error.with_request_id(id),
            None => error,
        }
    }
}

impl Stream for StreamingAnswer {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let this = self.get_mut();
        while !this.done {
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    this.silence.as_mut().reset(Instant::now() + this.idle);
                    match frame.into_data() {
                        Ok(bytes) if !bytes.is_empty() => return Poll::Ready(Some(Ok(bytes))),
                        _ => {}
                    }
                }
                Poll::Ready(Some(Err(cause))) => {
                    let error = this.end(ErrorKind::Transport, "the stream broke");
                    return Poll::Ready(Some(Err(error.with_source(cause))));
                }
                Poll::Ready(None) => this.done = true,
                Poll::Pending => {
                    std::task::ready!(this.silence.as_mut().poll(cx));
                    return Poll::Ready(Some(Err(
                        this.end(ErrorKind::Timeout, "the stream fell silent")
                    )));
                }
            }
        }
        Poll::Ready(None)
    }
}

impl fmt::Debug for StreamingAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamingAnswer")
            .field("operation", &self.operation)
            .field("status", &self.status)
            .field("request_id", &self.request_id())
            .finish_non_exhaustive()
    }
}
