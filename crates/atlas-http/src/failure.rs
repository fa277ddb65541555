//! Error answers: converts them to an [`Error`] without quoting secrets or a proxy's HTML.

use std::borrow::Cow;
use std::time::Duration;

use atlas_core::{Error, ErrorKind, Next, Outcome, REDACTED, RetryClass};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::Value;

use crate::headers::{REQUEST_IDS, request_id};
use crate::scrub::Scrubber;

/// The maximum length of a cloud's message in an error.
const LONGEST_MESSAGE: usize = 300;

/// An answer with an error status, as passed to a provider's mapper. Its body is already scrubbed
/// of secrets.
pub struct FailedAnswer {
    pub(crate) operation: &'static str,
    pub(crate) class: RetryClass,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) json: Option<Value>,
    pub(crate) retry_after: Option<Duration>,
    /// The credential's origin, for a 401.
    pub(crate) origin: Option<String>,
}

/// Converts a cloud's error where the generic mapping would be less precise; `None` to use the
/// generic mapping.
///
/// Fields it does not set are filled in: status, request id, `Retry-After`, provider, operation.
/// `NeverSent`, the outcome of a new [`Error`], is replaced by what the status implies: an answer
/// arrived, so the request was sent. [`FailedAnswer::error`] sets the right outcome.
pub type ErrorMapper = fn(&FailedAnswer) -> Option<Error>;

impl FailedAnswer {
    pub(crate) fn new(
        operation: &'static str,
        class: RetryClass,
        status: StatusCode,
        mut headers: HeaderMap,
        body: &[u8],
        secrets: &[&str],
    ) -> Self {
        let scrubber = Scrubber::new(secrets.iter().copied());
        scrub_headers(&mut headers, &scrubber);
        let (body, json) = scrub_body(&headers, body, &scrubber);
        Self {
            operation,
            class,
            status,
            headers,
            body,
            json,
            retry_after: None,
            origin: None,
        }
    }

    /// The operation's name in the contract.
    #[must_use]
    pub const fn operation(&self) -> &'static str {
        self.operation
    }

    /// The retry class of the call.
    #[must_use]
    pub const fn class(&self) -> RetryClass {
        self.class
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    #[must_use]
    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body without secrets; empty when it could not be read.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as JSON, if it is JSON.
    #[must_use]
    pub const fn json(&self) -> Option<&Value> {
        self.json.as_ref()
    }

    /// True when the body is HTML: a proxy's page, which must not be quoted.
    #[must_use]
    pub fn is_html(&self) -> bool {
        is_html(&self.headers, &self.body)
    }

    /// How long the cloud asked to wait.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The cloud's own message, short and on one line: from the usual JSON shapes (RFC 9457 first),
    /// else plain text.
    #[must_use]
    pub fn message(&self) -> Option<String> {
        let said = match &self.json {
            Some(json) => said(json)?,
            None if self.is_html() || self.is_json_typed() => return None,
            None => Cow::Owned(String::from_utf8_lossy(&self.body).into_owned()),
        };
        let line = one_line(&said);
        (!line.is_empty()).then_some(line)
    }

    /// An error of this kind with the outcome that status and class imply. `message` as for
    /// [`Error::new`].
    #[must_use]
    pub fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(kind, message).outcome_is(self.outcome())
    }

    /// An error that says what to try next: the cloud certainly did nothing.
    #[must_use]
    pub fn not_applied(&self, kind: ErrorKind, next: Next, message: impl Into<String>) -> Error {
        Error::new(kind, message).outcome_is(Outcome::NotApplied(next))
    }

    /// The outcome that the status alone implies.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let later = Outcome::NotApplied(Next::SameLater);
        match self.status.as_u16() {
            425 | 429 => later,
            // The proxy could not reach the cloud, or gave up waiting for it; the status does not
            // say which. 3xx: a 303 follows a POST that was carried out.
            300..=399 | 408 | 500..=599 => match self.class {
                RetryClass::Safe => later,
                RetryClass::Idempotent | RetryClass::Create => Outcome::Unknown(Vec::new()),
            },
            400..=499 => Outcome::NotApplied(Next::Stop),
            // A success that could not be parsed.
            _ => Outcome::Unknown(Vec::new()),
        }
    }

    /// The mapping for any cloud, by status and content type.
    #[must_use]
    pub fn generic(&self) -> Error {
        if let Some(code) = self.front_code() {
            return self.error(
                ErrorKind::Provider,
                format!(
                    "blocked by the cloud's front (error code {code}: user agent or address), \
                    not by the api key"
                ),
            );
        }
        let kind = match self.status.as_u16() {
            400 | 413 | 422 => ErrorKind::Validation,
            401 => ErrorKind::Unauthorized,
            402 => ErrorKind::Quota,
            403 => ErrorKind::Forbidden,
            404 | 410 => ErrorKind::NotFound,
            408 => ErrorKind::Timeout,
            409 | 412 | 423 => ErrorKind::Conflict,
            425 | 429 => ErrorKind::RateLimited,
            500 | 502 | 503 | 504 | 520..=530 => ErrorKind::Unavailable,
            _ => ErrorKind::Provider,
        };
        let said = self.message();
        let message = match (self.status, &self.origin, said) {
            (StatusCode::UNAUTHORIZED, Some(origin), Some(said)) => {
                format!("the api key from {origin} was rejected: {said}")
            }
            (StatusCode::UNAUTHORIZED, Some(origin), None) => {
                format!("the api key from {origin} was rejected")
            }
            (_, _, Some(said)) => said,
            (_, _, None) if self.is_html() => {
                "a proxy in front of the cloud answered with a page".to_owned()
            }
            (status, _, None) if status.is_redirection() => {
                "a redirect that is not followed".to_owned()
            }
            (status, _, None) => status
                .canonical_reason()
                .unwrap_or("an error without a message")
                .to_ascii_lowercase(),
        };
        self.error(kind, message)
    }

    /// True when the answer is declared as JSON. If it then does not parse, it was cut off, and a
    /// part of it is no useful message.
    fn is_json_typed(&self) -> bool {
        self.headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.contains("json"))
    }

    /// The four-digit code with which Cloudflare refuses a client before the cloud sees it
    /// (`error code: 1010`).
    fn front_code(&self) -> Option<u16> {
        if self.json.is_some() || self.status != StatusCode::FORBIDDEN || self.body.len() > 200 {
            return None;
        }
        let code = std::str::from_utf8(&self.body)
            .ok()?
            .trim()
            .strip_prefix("error code:")?
            .trim()
            .parse()
            .ok()?;
        (1000..=1999).contains(&code).then_some(code)
    }

    /// The error: from the provider's mapping or the generic one, completed from the answer's
    /// headers.
    pub(crate) fn into_error(self, mapper: Option<ErrorMapper>) -> Error {
        let mut error = mapper
            .and_then(|map| map(&self))
            .unwrap_or_else(|| self.generic());
        if *error.outcome() == Outcome::NeverSent {
            error = error.outcome_is(self.outcome());
        }
        if error.status().is_none() {
            error = error.with_status(self.status.as_u16());
        }
        if let (None, Some(id)) = (error.request_id(), request_id(&self.headers)) {
            error = error.with_request_id(id);
        }
        match (error.retry_after(), self.retry_after) {
            (None, Some(wait)) => error.with_retry_after(wait),
            _ => error,
        }
    }
}

impl std::fmt::Debug for FailedAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FailedAnswer")
            .field("operation", &self.operation)
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// True for a web page, by its type or its first bytes.
pub(crate) fn is_html(headers: &HeaderMap, body: &[u8]) -> bool {
    let typed = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value
                .get(..9)
                .is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"))
        });
    typed || body.trim_ascii_start().first() == Some(&b'<')
}

/// The messages in the usual error shapes: `detail`, `title`, `message`, `msg`, `error` (text or
/// object), `errors` (texts or objects).
fn said(json: &Value) -> Option<Cow<'_, str>> {
    match json {
        Value::String(text) => Some(text.into()),
        Value::Object(fields) => {
            let main = [
                "detail",
                "message",
                "msg",
                "error_description",
                "error",
                "title",
                "reason",
                "code",
            ]
            .iter()
            .find_map(|name| {
                fields
                    .get(*name)
                    .filter(|value| !value.is_null())
                    .and_then(said)
            });
            let list = fields.get("errors").and_then(said);
            match (main, list) {
                (Some(main), Some(list)) if main != list => Some(format!("{main}: {list}").into()),
                (main, list) => main.or(list),
            }
        }
        Value::Array(items) => {
            let texts: Vec<_> = items.iter().take(4).filter_map(said).collect();
            (!texts.is_empty()).then(|| texts.join("; ").into())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// Reduces cloud text to a fragment: one line, printable, short, without a final period.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in atlas_core::plain(text)
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
    {
        if line.len() + word.len() >= LONGEST_MESSAGE {
            let room = LONGEST_MESSAGE.saturating_sub(line.len() + 1);
            line.push(' ');
            line.extend(word.chars().take(room.min(40)));
            line.push('…');
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line.truncate(line.trim_end_matches('.').len());
    line
}

/// Replaces the value of every header that contains a secret.
pub(crate) fn scrub_headers(headers: &mut HeaderMap, scrubber: &Scrubber) {
    for value in headers.values_mut() {
        // Bytes that are not text cannot be searched, and no error quotes them.
        if value.to_str().is_ok_and(|text| scrubber.finds(text)) {
            *value = HeaderValue::from_static(REDACTED);
        }
    }
}

/// The same for the request id only, the only header of a successful answer that is quoted.
pub(crate) fn scrub_request_id(headers: &mut HeaderMap, secrets: &[&str]) {
    if REQUEST_IDS.iter().all(|name| !headers.contains_key(name)) {
        return;
    }
    let scrubber = Scrubber::new(secrets.iter().copied());
    for name in REQUEST_IDS {
        if let Some(value) = headers.get_mut(name)
            && value.to_str().is_ok_and(|text| scrubber.finds(text))
        {
            *value = HeaderValue::from_static(REDACTED);
        }
    }
}

/// The body without secrets, as text and, if possible, as JSON. JSON is scrubbed in its decoded
/// strings, so the encoder's escapes do not matter.
fn scrub_body(headers: &HeaderMap, body: &[u8], scrubber: &Scrubber) -> (Bytes, Option<Value>) {
    let Ok(text) = std::str::from_utf8(body) else {
        // Not text: no error quotes it.
        return (Bytes::new(), None);
    };
    if !is_html(headers, body)
        && let Ok(mut json) = serde_json::from_str(text)
    {
        let found = scrubber.json(&mut json);
        let body = if found {
            Bytes::from(json.to_string())
        } else {
            Bytes::copy_from_slice(body)
        };
        return (body, Some(json));
    }
    (Bytes::from(scrubber.text(text).into_owned()), None)
}

/// A parser's message without the values it quotes, which may be secrets that the cloud echoed.
pub(crate) fn without_quotes(message: &str) -> String {
    let mut plain = String::new();
    let mut quoted = false;
    let mut chars = message.chars();
    while let Some(c) = chars.next() {
        match (quoted, c) {
            // Quoted text is formatted like `Debug`: an inner quote is escaped.
            (true, '\\') => drop(chars.next()),
            (true, '"') => {
                quoted = false;
                plain.push_str("…\"");
            }
            (true, _) => {}
            (false, c) => {
                quoted = c == '"';
                plain.push(c);
            }
        }
    }
    // In `unknown variant `x`, expected ...` the value is in backticks; elsewhere they contain our
    // own field names.
    match plain
        .strip_prefix("unknown variant `")
        .and_then(|rest| rest.split_once('`'))
    {
        Some((_, rest)) => format!("unknown variant{rest}"),
        None => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, content_type: &'static str, body: &str) -> FailedAnswer {
        let headers =
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        let status = StatusCode::from_u16(status).unwrap();
        FailedAnswer::new(
            "spawn_compute",
            RetryClass::Create,
            status,
            headers,
            body.as_bytes(),
            &["rpa_secret", "a\"b\nc"],
        )
    }

    #[test]
    fn the_usual_bodies_are_understood() {
        let table = [
            (
                400,
                "application/problem+json",
                r#"{"title":"Bad Request","status":400,"detail":"invalid image","errors":["image: empty"]}"#,
                ErrorKind::Validation,
                "invalid image: image: empty",
            ),
            (
                401,
                "application/json",
                r#"{"error":{"code":"global/invalid-api-key","message":"API key was invalid."}}"#,
                ErrorKind::Unauthorized,
                "API key was invalid",
            ),
            (
                404,
                "application/json",
                r#"{"success":false,"error":"no_such_instance","msg":"gone"}"#,
                ErrorKind::NotFound,
                "gone",
            ),
            (
                429,
                "text/plain",
                "API requests too frequent: endpoint threshold=4.5",
                ErrorKind::RateLimited,
                "API requests too frequent: endpoint threshold=4.5",
            ),
            (
                502,
                "text/html",
                "<html>secret page</html>",
                ErrorKind::Unavailable,
                "a proxy in front of the cloud answered with a page",
            ),
            (
                503,
                "application/json",
                "<!DOCTYPE html>",
                ErrorKind::Unavailable,
                "a proxy in front of the cloud answered with a page",
            ),
            (
                500,
                "application/json",
                "",
                ErrorKind::Unavailable,
                "internal server error",
            ),
            (
                422,
                "application/json",
                r#"{"detail":[{"msg":"field required"},{"msg":"too long"}]}"#,
                ErrorKind::Validation,
                "field required; too long",
            ),
            (
                409,
                "application/json",
                r#"{"trunca"#,
                ErrorKind::Conflict,
                "conflict",
            ),
        ];
        for (status, content_type, body, kind, message) in table {
            let error = answer(status, content_type, body).generic();
            assert_eq!((error.kind(), error.message()), (kind, message), "{body}");
        }
    }

    #[test]
    fn a_block_by_the_front_is_not_a_bad_key() {
        let error = answer(403, "text/plain; charset=UTF-8", "error code: 1010").generic();
        assert_eq!(error.kind(), ErrorKind::Provider);
        assert!(
            error.message().contains("blocked by the cloud's front"),
            "{error}"
        );
        assert_eq!(
            answer(403, "application/json", r#"{"detail":"no right"}"#)
                .generic()
                .kind(),
            ErrorKind::Forbidden
        );
    }

    #[test]
    fn only_definite_refusals_say_that_nothing_was_applied() {
        for (status, unknown) in [
            (500, true),
            (502, true),
            (504, true),
            (408, true),
            (303, true),
            (400, false),
            (401, false),
            (404, false),
        ] {
            assert_eq!(
                answer(status, "text/plain", "x").outcome().is_unknown(),
                unknown,
                "{status}"
            );
        }
        assert_eq!(
            answer(429, "text/plain", "x").outcome(),
            Outcome::NotApplied(Next::SameLater)
        );
    }

    #[test]
    fn echoed_secrets_are_scrubbed_before_anyone_sees_the_body() {
        let failed = answer(
            422,
            "application/json",
            r#"{"detail":"bad key rpa_secret and env a\"b\nc"}"#,
        );
        assert_eq!(
            failed.message().as_deref(),
            Some("bad key [redacted] and env [redacted]")
        );
    }

    #[test]
    fn a_secret_in_another_encoders_json_or_in_a_request_id_is_scrubbed() {
        let failed = answer(
            422,
            "application/json",
            r#"{"detail":"bad \u0072pa_secret and env a\u0022b\u000ac"}"#,
        );
        assert_eq!(
            failed.message().as_deref(),
            Some("bad [redacted] and env [redacted]")
        );
        assert!(!String::from_utf8_lossy(failed.body()).contains("pa_secret"));

        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("id-rpa_secret"));
        let error = FailedAnswer::new(
            "spawn_compute",
            RetryClass::Create,
            StatusCode::BAD_REQUEST,
            headers,
            b"no",
            &["rpa_secret"],
        )
        .into_error(None);
        assert_eq!(error.request_id(), Some(REDACTED));
    }

    #[test]
    fn an_outcome_a_mapper_left_out_is_filled_in() {
        let error = answer(500, "text/plain", "x")
            .into_error(Some(|_| Some(Error::new(ErrorKind::Provider, "mapped"))));
        assert_eq!(
            (
                error.message(),
                error.status(),
                error.outcome().is_unknown()
            ),
            ("mapped", Some(500), true)
        );
    }

    #[test]
    fn cloud_text_is_cut_to_one_short_line() {
        let failed = answer(
            400,
            "text/plain",
            &format!("a\nb\u{7} {}", "x".repeat(5000)),
        );
        let message = failed.message().unwrap();
        assert!(
            message.starts_with("a b x") && message.chars().count() <= LONGEST_MESSAGE + 1,
            "{message}"
        );
    }

    #[test]
    fn a_parsers_message_keeps_no_value() {
        assert_eq!(
            without_quotes(r#"invalid type: string "rpa\"_1", expected u64"#),
            r#"invalid type: string "…", expected u64"#
        );
        assert_eq!(
            without_quotes("unknown variant `rpa_1`, expected `a` or `b`"),
            "unknown variant, expected `a` or `b`"
        );
    }

    #[test]
    fn repeats_by_status_and_class_are_those_of_the_table() {
        let repeated = [408, 425, 429, 500, 502, 503, 504];
        for status in 300..600_u16 {
            let expected = repeated.contains(&status) || (520..=530).contains(&status);
            for (class, expected) in [
                (RetryClass::Safe, expected),
                (RetryClass::Idempotent, expected),
                (RetryClass::Create, false),
            ] {
                let mut failed = answer(status, "text/plain", "");
                failed.class = class;
                let error = failed.into_error(None);
                assert_eq!(error.is_retryable(class), expected, "{status} {class:?}");
            }
        }
    }
}
