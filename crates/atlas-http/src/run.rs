//! Executes a call: deadline, pacing, attempts, repeats, redirects, and the error of a failure.
//!
//! The order is fixed. The deadline spans everything. Within it, each attempt waits for a slot of
//! the account's pace, takes a place among the concurrent calls, gets a credential, is sent,
//! follows redirects, and has its answer read. Whether a failed attempt is repeated depends on what
//! came back and on the class of the call:
//!
//! | what came back | `Safe` | `Idempotent` | `Create` |
//! |---|---|---|---|
//! | nothing, and the request provably never left | yes | yes | yes |
//! | nothing, or a part of an answer | yes | yes | no |
//! | nothing before the deadline | no | no | no |
//! | 408, 425, 429, 500, 502, 503, 504, 520 to 530 | yes | yes | no |
//! | 401, from a source that has another credential | once | once | no |
//! | any other status | no | no | no |
//!
//! A 429 to a create is not repeated here, although nothing was done: the orchestrator chooses
//! between waiting and another offer. [`RetryClass`] has the same table for callers; a test in
//! `failure.rs` compares it with what happens.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use atlas_core::config::{ApiKey, Origin};
use atlas_core::{
    CallContext, DateListener, Error, ErrorKind, Next, Outcome, Result, RetryClass, Secret,
    Timestamp,
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body as _;
use hyper_util::client::legacy::connect::CaptureConnection;
use serde::de::DeserializeOwned;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use tracing::{Instrument as _, Span, field};

use crate::answer::{Answer, StreamingAnswer};
use crate::body::{Body, BoxError};
use crate::call::Call;
use crate::client::{Base, Client, Inner};
use crate::credential::{Authorization, Authorizer};
use crate::failure::{self, FailedAnswer};
use crate::headers;
use crate::pace::Refusal;
use crate::telemetry;
use crate::transport::{CallLayers, Transport, TransportError, TransportFuture};

const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const MOST_REDIRECTS: u32 = 3;
/// Longer deadlines are cut: tokio's timer cannot hold an instant more than about two years ahead.
const LONGEST_DEADLINE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Client {
    /// Makes the call and reads its answer completely, all within the deadline, repeats included.
    ///
    /// # Errors
    /// As the status and the provider's mapper say; otherwise `timeout`, `transport` and
    /// `rate_limited`. The outcome says whether the cloud may have acted.
    ///
    /// # Cancel safety
    /// A dropped future of class `Safe` loses nothing. For other classes it loses whether the cloud
    /// acted: run them in a tracked task.
    pub async fn call(&self, cx: &CallContext, mut call: Call) -> Result<Answer> {
        let span = self.span(&call);
        if span.is_disabled() {
            return self.run(cx, &mut call, Whole).await;
        }
        // Boxed, so that the future of an untraced call is not twice as large.
        Box::pin(async {
            let answer = self.run(cx, &mut call, Whole).await;
            record(
                &Span::current(),
                answer
                    .as_ref()
                    .map(|answer| (answer.status, answer.resends)),
            );
            answer
        })
        .instrument(span)
        .await
    }

    /// Like [`Client::call`], with the answer parsed as JSON of this type.
    ///
    /// # Errors
    /// Like [`Client::call`] and [`Answer::json`].
    pub async fn json<T: DeserializeOwned>(&self, cx: &CallContext, call: Call) -> Result<T> {
        self.call(cx, call).await?.json()
    }

    /// Makes the call and returns its answer as a stream: logs, events. The deadline applies until
    /// the answer's headers, the call's idle timeout afterwards. The size limit does not apply.
    ///
    /// # Errors
    /// Like [`Client::call`].
    pub async fn call_streaming(
        &self,
        cx: &CallContext,
        mut call: Call,
    ) -> Result<StreamingAnswer> {
        let span = self.span(&call);
        async {
            let answer = self.run(cx, &mut call, Streamed).await;
            record(
                &Span::current(),
                answer.as_ref().map(|answer| (answer.status, 0)),
            );
            answer
        }
        .instrument(span)
        .await
    }

    /// The span of one call. Field names are OpenTelemetry's; the query, headers and body are never
    /// included.
    fn span(&self, call: &Call) -> Span {
        let inner = &*self.0;
        tracing::info_span!(
            "http.call",
            "otel.kind" = "client",
            provider = inner.provider.as_str(),
            api = inner.api,
            operation = call.operation,
            "http.request.method" = call.method.as_str(),
            "url.path" = call.path(),
            "server.address" = inner.base.authority.host(),
            "server.port" = inner.base.port,
            "http.response.status_code" = field::Empty,
            "http.request.resend_count" = field::Empty,
            "error.type" = field::Empty,
        )
    }

    async fn run<R: Reading>(
        &self,
        cx: &CallContext,
        call: &mut Call,
        reading: R,
    ) -> Result<R::Answer> {
        let inner = &*self.0;
        let named = |error: Error, call: &Call| error.during(&inner.provider, call.operation);
        if let Err(wrong) = call.take_wrong() {
            return Err(named(wrong, call));
        }
        let own = cx
            .timeout()
            .or_else(|| call.more().and_then(|more| more.timeout));
        let deadline = Instant::now()
            + own
                .unwrap_or(inner.limits.call_deadline)
                .min(LONGEST_DEADLINE);
        let mut progress = Progress::default();
        let tries = Tries {
            client: self,
            cx,
            call,
            deadline,
        };
        let result =
            match tokio::time::timeout_at(deadline, tries.run(&mut progress, reading)).await {
                Ok(result) => result,
                Err(_) => Err(progress.timed_out(call.class)),
            };
        result.map_err(|error| named(error, call))
    }
}

/// The state of a call, to determine its outcome when the deadline is reached.
#[derive(Default)]
struct Progress {
    /// An attempt is in progress; with its connection, if that can be determined.
    under_way: bool,
    connection: Option<CaptureConnection>,
    /// An earlier attempt may have taken effect.
    perhaps_applied: bool,
    last: Option<Error>,
    resends: u32,
}

impl Progress {
    fn timed_out(self, class: RetryClass) -> Error {
        if !self.under_way {
            return match self.last {
                Some(last) => last,
                None => Error::new(
                    ErrorKind::Timeout,
                    "the deadline passed before the call could start",
                ),
            };
        }
        // hyper-util reports the connection before it passes the request to it: without one,
        // nothing was sent.
        let unsent = self
            .connection
            .is_some_and(|capture| capture.connection_metadata().is_none());
        if unsent && !self.perhaps_applied {
            return Error::new(ErrorKind::Timeout, "no connection before the deadline");
        }
        Error::new(ErrorKind::Timeout, "no answer before the deadline").outcome_is(lost(class))
    }
}

/// The outcome of a call whose answer was lost.
fn lost(class: RetryClass) -> Outcome {
    match class {
        RetryClass::Safe => Outcome::NotApplied(Next::SameLater),
        RetryClass::Idempotent | RetryClass::Create => Outcome::Unknown(Vec::new()),
    }
}

/// The settings of a call that override the client's.
struct Own {
    base: Option<Base>,
    authorizer: Option<Authorizer>,
    transport: Option<Transport>,
}

impl Own {
    fn new(cx: &CallContext, inner: &Inner) -> Result<Self> {
        let base = cx
            .base_url()
            .map(|url| Base::parse(url, inner.allow_plain_http))
            .transpose()?;
        if let Some(base) = &base {
            let span = Span::current();
            span.record("server.address", base.authority.host());
            span.record("server.port", base.port);
        }
        let key = |secret: &Secret| ApiKey {
            secret: secret.clone(),
            origin: Origin::Call,
        };
        Ok(Self {
            base,
            authorizer: cx
                .api_key()
                .map(|secret| Authorizer::key(inner.scheme, key(secret)))
                .transpose()?,
            transport: cx
                .extension::<CallLayers>()
                .map(|layers| layers.wrap(inner.transport.clone())),
        })
    }
}

struct Tries<'a> {
    client: &'a Client,
    cx: &'a CallContext,
    call: &'a Call,
    deadline: Instant,
}

impl Tries<'_> {
    async fn run<R: Reading>(&self, progress: &mut Progress, reading: R) -> Result<R::Answer> {
        let (inner, call) = (&*self.client.0, self.call);
        let own = if self.cx.base_url().is_some()
            || self.cx.api_key().is_some()
            || self.cx.extension::<CallLayers>().is_some()
        {
            Some(Box::new(Own::new(self.cx, inner)?))
        } else {
            None
        };
        let own = own.as_deref();
        let one = One {
            tries: self,
            base: own.and_then(|own| own.base.as_ref()).unwrap_or(&inner.base),
            authorizer: own
                .and_then(|own| own.authorizer.as_ref())
                .unwrap_or(&inner.authorizer),
            transport: own
                .and_then(|own| own.transport.as_ref())
                .unwrap_or(&inner.transport),
        };
        let retries = self.cx.retries().unwrap_or(inner.retries);
        let mut renewed = false;
        loop {
            // The place among the concurrent calls is held until the answer is read.
            let read = match one.go(progress).await {
                Ok((answer, _place)) => reading.read(&one, answer, progress.resends).await,
                Err(failure) => Err(failure),
            };
            let failure = match read {
                Ok(answer) => {
                    inner.gate.succeeded();
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            progress.under_way = false;
            let Failure {
                mut error,
                may_repeat,
                renew,
            } = failure;
            progress.perhaps_applied |= error.outcome().is_unknown();
            if progress.perhaps_applied && error.outcome() == &Outcome::NeverSent {
                // This attempt did nothing, but an earlier one may have.
                error = error.outcome_is(lost(call.class));
            }
            let renews = renew && !renewed && call.class != RetryClass::Create;
            if !renews && (!may_repeat || progress.resends >= retries) {
                return Err(error);
            }
            let wait = match (renews, error.retry_after()) {
                (true, _) => Duration::ZERO,
                // Waits a little longer than requested, so that callers that were told the same
                // wait do not return at once. A request for no wait during an overload is not
                // followed literally: the wait grows nevertheless.
                // same.
                (false, Some(told)) => {
                    told.max(inner.backoff.ceiling(progress.resends))
                        + inner.backoff.delay(0, &*inner.entropy) / 4
                }
                (false, None) => inner.backoff.delay(progress.resends, &*inner.entropy),
            };
            let left = self.deadline.saturating_duration_since(Instant::now());
            if wait >= left || !inner.gate.may_repeat() {
                return Err(error);
            }
            renewed |= renews;
            progress.resends += 1;
            progress.last = Some(error);
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// A failed attempt.
struct Failure {
    error: Error,
    may_repeat: bool,
    /// The credential was refused and its source can provide another.
    renew: bool,
}

impl Failure {
    fn new(error: Error, class: RetryClass) -> Self {
        Self {
            may_repeat: error.is_retryable(class),
            error,
            renew: false,
        }
    }

    fn last(error: Error) -> Self {
        Self {
            error,
            may_repeat: false,
            renew: false,
        }
    }
}

/// When an answer was created, by the clock of its server. A cached answer is as old as its `Age`
/// says (RFC 9111 §5.1).
fn date_of(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let age = headers
        .get(header::AGE)
        .and_then(|age| age.to_str().ok()?.parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs);
    Some(Timestamp::from_unix_millis(date.as_millisecond()).saturating_add(age))
}

/// One attempt of a call.
struct One<'a> {
    tries: &'a Tries<'a>,
    base: &'a Base,
    authorizer: &'a Authorizer,
    transport: &'a Transport,
}

impl One<'_> {
    /// Sends the request when the account's limits allow it, and returns the headers of a
    /// successful answer.
    async fn go(
        &self,
        progress: &mut Progress,
    ) -> Result<(Response<Body>, SemaphorePermit<'_>), Failure> {
        let Tries {
            client,
            call,
            deadline,
            ..
        } = self.tries;
        let inner = &*client.0;
        let pace_key = call.more().and_then(|more| more.pace_key.as_deref());
        if let Err(refusal) = inner.gate.admit(call.operation, pace_key, *deadline).await {
            return Err(Failure::last(
                progress
                    .last
                    .take()
                    .unwrap_or_else(|| not_admitted(refusal)),
            ));
        }
        let place = inner.gate.enter().await;
        let renewed = match self.authorizer {
            Authorizer::Source(source) if call.authorized => Some(Box::new(
                Authorization::from(&**source)
                    .await
                    .map_err(Failure::last)?,
            )),
            _ => None,
        };
        if Instant::now() >= *deadline {
            // A call that gets its slot at the very end must not be dropped: the slot would be lost
            // at the same moment.
            return Err(Failure::last(
                std::mem::take(progress).timed_out(call.class),
            ));
        }
        let mut moved = None;
        for redirects in 0.. {
            let measured =
                telemetry::Request::sent(inner.provider.as_str(), inner.api, call.operation);
            let sent = self
                .send(progress, moved.as_deref(), renewed.as_deref())
                .map_err(Failure::last)?;
            let listener = self.tries.cx.extension::<DateListener>();
            let dated = listener.map(DateListener::asked);
            let answer = match sent.await {
                Ok(answer) => answer,
                Err(cause) => return Err(self.not_carried(cause)),
            };
            measured.answered(answer.status().as_u16());
            if let Some(dated) = dated
                && let Some(date) = date_of(answer.headers())
            {
                dated(date);
            }
            if let Some(window) = headers::empty_window(answer.headers()) {
                inner.gate.block_for(window);
            }
            let status = answer.status();
            if status.is_success()
                || call
                    .more()
                    .is_some_and(|more| more.accepted.contains(&status.as_u16()))
            {
                let mut answer = answer;
                let secrets = self.secrets(renewed.as_deref());
                failure::scrub_request_id(answer.headers_mut(), &secrets);
                return Ok((answer, place));
            }
            match self
                .redirect(moved.as_deref(), &answer)
                .filter(|_| redirects < MOST_REDIRECTS)
            {
                Some(to) => moved = Some(Box::new(to)),
                None => return Err(Box::pin(self.refused(answer, renewed.as_deref())).await),
            }
        }
        unreachable!("the loop ends by returning: redirects are counted")
    }

    /// Passes the request to the transport. Separate from `go`, so that its future does not keep
    /// space for a request that was already sent.
    fn send(
        &self,
        progress: &mut Progress,
        moved: Option<&Uri>,
        renewed: Option<&Authorization>,
    ) -> Result<TransportFuture> {
        let mut request = self.request(moved, renewed)?;
        // Only a create needs to know; for other classes, an unknown outcome only costs a repeat.
        let watched = self.tries.call.class == RetryClass::Create;
        progress.connection = if watched {
            self.transport.watch(&mut request)
        } else {
            None
        };
        progress.under_way = true;
        Ok(self.transport.send(request))
    }

    /// The request, built for each attempt: to the call's own URL, or to its redirect.
    fn request(
        &self,
        moved: Option<&Uri>,
        renewed: Option<&Authorization>,
    ) -> Result<Request<Body>> {
        let (inner, call) = (&*self.tries.client.0, self.tries.call);
        let mut request = Request::new(call.body.clone().map_or_else(Body::empty, Body::from));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = match moved {
            Some(uri) => uri.clone(),
            None => self.base.uri(call.path_and_query())?,
        };
        let headers = request.headers_mut();
        headers.reserve(6);
        if let Some(host) = &self.base.host {
            headers.insert(header::HOST, host.clone());
        }
        headers.insert(header::USER_AGENT, inner.user_agent.clone());
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        for (name, value) in &inner.headers {
            headers.insert(name.clone(), value.clone());
        }
        if let Some(more) = call.more() {
            let typed = [
                (header::CONTENT_TYPE, &more.content_type),
                (header::ACCEPT, &more.accept),
            ];
            for (name, value) in typed {
                if let Some(value) = value {
                    headers.insert(name, value.clone());
                }
            }
            for (name, value) in &more.headers {
                headers.insert(name.clone(), value.clone());
            }
        }
        let authorization = match (self.authorizer, renewed) {
            (_, Some(renewed)) => Some(&renewed.value),
            (Authorizer::Key { value, .. }, None) if call.authorized => Some(value),
            _ => None,
        };
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    /// The redirect target: only for a GET, and only on the same scheme, host and port, because the
    /// key is sent along.
    fn redirect(&self, from: Option<&Uri>, answer: &Response<Body>) -> Option<Uri> {
        let is_move = matches!(answer.status().as_u16(), 301 | 302 | 307 | 308);
        if !is_move || self.tries.call.method != Method::GET {
            return None;
        }
        let to = answer.headers().get(header::LOCATION)?.to_str().ok()?;
        let from = match from {
            Some(uri) => uri.clone(),
            None => self.base.uri(self.tries.call.path_and_query()).ok()?,
        };
        if to.starts_with('/') && !to.starts_with("//") {
            let mut parts = from.into_parts();
            parts.path_and_query = Some(to.parse().ok()?);
            return Uri::from_parts(parts).ok();
        }
        let to: Uri = to.parse().ok()?;
        let port = |uri: &Uri| {
            uri.port_u16().or(if uri.scheme_str() == Some("https") {
                Some(443)
            } else {
                Some(80)
            })
        };
        let same = to.scheme() == from.scheme()
            && to
                .authority()
                .is_some_and(|authority| !authority.as_str().contains('@'))
            && to
                .host()
                .zip(from.host())
                .is_some_and(|(to, from)| to.eq_ignore_ascii_case(from))
            && port(&to) == port(&from);
        same.then_some(to)
    }

    /// The transport failed: the outcome depends on whether the request may have left.
    fn not_carried(&self, cause: BoxError) -> Failure {
        let class = self.tries.call.class;
        let (never_sent, message) = TransportError::read(&cause);
        let outcome = if never_sent {
            Outcome::NeverSent
        } else {
            lost(class)
        };
        Failure::new(
            Error::new(ErrorKind::Transport, message)
                .outcome_is(outcome)
                .with_source(cause),
            class,
        )
    }

    /// The secrets that the cloud may repeat from this request: its credential and the values that
    /// the call names.
    fn secrets<'a>(&'a self, renewed: Option<&'a Authorization>) -> Vec<&'a str> {
        let renewed = renewed.map(|renewed| renewed.secret.expose());
        let bare = renewed.and_then(|secret| secret.split_once(' '));
        let named = self.tries.call.more().map_or(&[][..], |more| &more.scrub);
        self.authorizer
            .secret()
            .map(Secret::expose)
            .into_iter()
            .chain(renewed)
            .chain(bare.map(|(_, token)| token))
            .chain(named.iter().map(Secret::expose))
            .collect()
    }

    /// Converts an error answer.
    async fn refused(&self, answer: Response<Body>, renewed: Option<&Authorization>) -> Failure {
        let Tries { client, call, .. } = self.tries;
        let inner = &*client.0;
        let (parts, body) = answer.into_parts();
        // The status counts even when the body was cut off or is too long.
        let bytes = Gather::new(body, inner.max_answer)
            .await
            .unwrap_or_default();
        let secrets = self.secrets(renewed);
        let mut failed = FailedAnswer::new(
            call.operation,
            call.class,
            parts.status,
            parts.headers,
            &bytes,
            &secrets,
        );
        failed.retry_after =
            headers::retry_after(&failed.headers, || inner.clock.now()).or_else(|| {
                (failed.status == StatusCode::TOO_MANY_REQUESTS)
                    .then(|| headers::empty_window(&failed.headers))
                    .flatten()
            });
        failed.origin = if call.authorized {
            self.authorizer.origin()
        } else {
            None
        };
        let secret = renewed.map(|renewed| &renewed.secret);
        let unauthorized = failed.status == StatusCode::UNAUTHORIZED;
        let error = failed.into_error(inner.mapper);
        let mut failure = Failure::new(error, call.class);
        if let (true, Authorizer::Source(source), Some(secret)) =
            (unauthorized, self.authorizer, secret)
        {
            source.rejected(secret);
            failure.renew = true;
        }
        failure
    }
}

/// Our own pacing, or a block that the cloud announced, leaves no slot before the deadline.
fn not_admitted(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Paced(wait) => Error::new(
            ErrorKind::Timeout,
            "the account's pace leaves no room for the call before its deadline",
        )
        .with_retry_after(wait),
        Refusal::Blocked(wait) => Error::new(
            ErrorKind::RateLimited,
            "the cloud announced that its limit is used up until after the deadline",
        )
        .with_retry_after(wait),
    }
}

fn record(span: &Span, result: Result<(StatusCode, u32), &Error>) {
    match result {
        Ok((status, resends)) => {
            span.record("http.response.status_code", status.as_u16());
            if resends > 0 {
                span.record("http.request.resend_count", resends);
            }
        }
        Err(error) => {
            if let Some(status) = error.status() {
                span.record("http.response.status_code", status);
            }
            span.record("error.type", error.kind().as_str());
        }
    }
}

/// How the body of a successful answer is read.
trait Reading: Sync {
    type Answer: Send;
    fn read(
        &self,
        one: &One<'_>,
        answer: Response<Body>,
        resends: u32,
    ) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;
}

struct Whole;

impl Reading for Whole {
    type Answer = Answer;

    async fn read(
        &self,
        one: &One<'_>,
        answer: Response<Body>,
        resends: u32,
    ) -> Result<Answer, Failure> {
        let Tries { client, call, .. } = one.tries;
        let (parts, body) = answer.into_parts();
        let whole = Gather::new(body, client.0.max_answer).await;
        let mut answer = Answer {
            client: client.0.clone(),
            operation: call.operation,
            class: call.class,
            status: parts.status,
            headers: parts.headers,
            body: Bytes::new(),
            resends,
            secrets: one.secrets(None).into_iter().map(Secret::new).collect(),
        };
        match whole {
            Ok(body) => {
                answer.body = body;
                Ok(answer)
            }
            Err(Cut::TooLong) => {
                let message = format!("the answer is longer than {} bytes", client.0.max_answer);
                Err(Failure::last(answer.misunderstood(&message)))
            }
            Err(Cut::Broken(cause)) => {
                let error = Error::new(
                    ErrorKind::Transport,
                    "the connection broke in the middle of the answer",
                )
                .outcome_is(lost(call.class))
                .with_status(parts.status.as_u16())
                .with_source(cause);
                Err(Failure::new(error, call.class))
            }
        }
    }
}

struct Streamed;

impl Reading for Streamed {
    type Answer = StreamingAnswer;

    async fn read(
        &self,
        one: &One<'_>,
        answer: Response<Body>,
        _: u32,
    ) -> Result<StreamingAnswer, Failure> {
        let Tries { client, call, .. } = one.tries;
        let (parts, body) = answer.into_parts();
        let idle = call
            .more()
            .and_then(|more| more.idle_timeout)
            .unwrap_or(DEFAULT_IDLE_TIMEOUT)
            .min(LONGEST_DEADLINE);
        Ok(StreamingAnswer {
            client: client.0.clone(),
            operation: call.operation,
            status: parts.status,
            headers: parts.headers,
            body,
            idle,
            silence: Box::pin(tokio::time::sleep(idle)),
            done: false,
        })
    }
}

/// Why a body could not be read completely.
enum Cut {
    TooLong,
    Broken(BoxError),
}

/// Reads a body of at most `most` bytes. A body that arrives in one piece is not copied.
struct Gather {
    body: Body,
    most: usize,
    first: Bytes,
    rest: BytesMut,
}

impl Gather {
    fn new(body: Body, most: usize) -> Self {
        Self {
            body,
            most,
            first: Bytes::new(),
            rest: BytesMut::new(),
        }
    }
}

impl Future for Gather {
    type Output = Result<Bytes, Cut>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.body.size_hint().lower() > this.most as u64 {
            return Poll::Ready(Err(Cut::TooLong));
        }
        while let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            let Ok(bytes) = frame.map_err(Cut::Broken)?.into_data() else {
                continue;
            };
            if this.first.len() + this.rest.len() + bytes.len() > this.most {
                return Poll::Ready(Err(Cut::TooLong));
            }
            if this.first.is_empty() && this.rest.is_empty() {
                this.first = bytes;
            } else {
                if this.rest.is_empty() {
                    this.rest
                        .extend_from_slice(&std::mem::take(&mut this.first));
                }
                this.rest.extend_from_slice(&bytes);
            }
        }
        let whole = if this.rest.is_empty() {
            std::mem::take(&mut this.first)
        } else {
            std::mem::take(&mut this.rest).freeze()
        };
        Poll::Ready(Ok(whole))
    }
}
