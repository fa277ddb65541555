//! A call: operation, class, method, path, query, headers, body.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use atlas_core::{Error, Result, RetryClass, Secret};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

/// Everything except the unreserved characters of RFC 3986, which are not escaped in a path segment
/// or a query.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// A call to be made. Each path segment is escaped: a hostile id cannot leave its segment.
///
/// ```
/// use atlas_core::RetryClass;
/// use atlas_http::Call;
///
/// let call = Call::get("get_compute", RetryClass::Safe, ["pods", "a/../b"]).query("include", "x&y");
/// assert_eq!(call.path_and_query(), "/pods/a%2F..%2Fb?include=x%26y");
/// ```
pub struct Call {
    pub(crate) operation: &'static str,
    pub(crate) class: RetryClass,
    pub(crate) method: Method,
    target: String,
    path_len: usize,
    pub(crate) body: Option<Bytes>,
    pub(crate) authorized: bool,
    /// Boxed, because a call is moved often and most calls have none of these settings.
    more: Option<Box<More>>,
    wrong: Option<Error>,
}

/// Settings that most calls do not have.
#[derive(Clone, Default)]
pub(crate) struct More {
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) content_type: Option<HeaderValue>,
    pub(crate) accept: Option<HeaderValue>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) accepted: Vec<u16>,
    pub(crate) scrub: Vec<Secret>,
    pub(crate) pace_key: Option<String>,
}

impl Call {
    /// A call with this method. `operation` is the name in the contract (`get_compute`), for
    /// errors, spans and pacing.
    #[must_use]
    pub fn new<S: AsRef<str>>(
        method: Method,
        operation: &'static str,
        class: RetryClass,
        segments: impl IntoIterator<Item = S>,
    ) -> Self {
        let mut target = String::with_capacity(48);
        let mut wrong = None;
        for segment in segments {
            let segment = segment.as_ref();
            target.push('/');
            // Escaping does not protect against these three: `%2E%2E` is `..` to a server that
            // normalises.
            if matches!(segment, "" | "." | "..") {
                wrong = Some(Error::validation(
                    "path",
                    "a segment is empty, or a dot segment",
                ));
            }
            target.extend(utf8_percent_encode(segment, ESCAPED));
        }
        Self {
            operation,
            class,
            method,
            path_len: target.len(),
            target,
            body: None,
            authorized: true,
            more: None,
            wrong,
        }
    }

    /// A GET call.
    #[must_use]
    pub fn get<S: AsRef<str>>(
        operation: &'static str,
        class: RetryClass,
        segments: impl IntoIterator<Item = S>,
    ) -> Self {
        Self::new(Method::GET, operation, class, segments)
    }

    /// A POST call.
    #[must_use]
    pub fn post<S: AsRef<str>>(
        operation: &'static str,
        class: RetryClass,
        segments: impl IntoIterator<Item = S>,
    ) -> Self {
        Self::new(Method::POST, operation, class, segments)
    }

    /// A PUT call.
    #[must_use]
    pub fn put<S: AsRef<str>>(
        operation: &'static str,
        class: RetryClass,
        segments: impl IntoIterator<Item = S>,
    ) -> Self {
        Self::new(Method::PUT, operation, class, segments)
    }

    /// A PATCH call.
    #[must_use]
    pub fn patch<S: AsRef<str>>(
        operation: &'static str,
        class: RetryClass,
        segments: impl IntoIterator<Item = S>,
    ) -> Self {
        Self::new(Method::PATCH, operation, class, segments)
    }

    /// A DELETE call.
    #[must_use]
    pub fn delete<S: AsRef<str>>(
        operation: &'static str,
        class: RetryClass,
        segments: impl IntoIterator<Item = S>,
    ) -> Self {
        Self::new(Method::DELETE, operation, class, segments)
    }

    /// Ends the path with `/`, for clouds whose routes do.
    #[must_use]
    pub fn trailing_slash(mut self) -> Self {
        if self.path_len == self.target.len() {
            self.target.push('/');
            self.path_len += 1;
        }
        self
    }

    /// Adds a query parameter, escaped.
    #[must_use]
    pub fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.target.push(if self.path_len == self.target.len() {
            '?'
        } else {
            '&'
        });
        self.target.extend(utf8_percent_encode(name, ESCAPED));
        self.target.push('=');
        self.target
            .extend(utf8_percent_encode(value.as_ref(), ESCAPED));
        self
    }

    /// Adds a query parameter if there is a value.
    #[must_use]
    pub fn query_opt(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Sets a JSON body. If it cannot be serialised, the call fails before anything is sent.
    #[must_use]
    pub fn json(mut self, body: &(impl Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(body) {
            Ok(bytes) => self.body(HeaderValue::from_static("application/json"), bytes),
            Err(cause) => {
                self.wrong =
                    Some(Error::validation("body", "cannot be written as json").with_source(cause));
                self
            }
        }
    }

    /// Sets the bytes of the body.
    #[must_use]
    pub fn body(mut self, content_type: HeaderValue, bytes: impl Into<Bytes>) -> Self {
        self.body = Some(bytes.into());
        self.more_mut().content_type = Some(content_type);
        self
    }

    /// Adds a header. Mark a secret one with `set_sensitive`; the credential is not set here.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if name == header::ACCEPT {
            self.more_mut().accept = Some(value);
        } else {
            self.more_mut().headers.push((name, value));
        }
        self
    }

    /// Sets the `Accept` header; `application/json` by default.
    #[must_use]
    pub fn accept(mut self, media_type: &'static str) -> Self {
        self.more_mut().accept = Some(HeaderValue::from_static(media_type));
        self
    }

    /// Sets the maximum time of this call, if the operation's differs from the account's. The
    /// timeout of an [`atlas_core::CallContext`] takes precedence.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.more_mut().timeout = Some(timeout);
        self
    }

    /// Sets the longest silence of a streaming answer; 60 s by default.
    #[must_use]
    pub fn idle_timeout(mut self, silence: Duration) -> Self {
        self.more_mut().idle_timeout = Some(silence);
        self
    }

    /// Returns an answer with this status instead of an error: for calls where, for example, 404 is
    /// a valid answer.
    #[must_use]
    pub fn accept_status(mut self, status: StatusCode) -> Self {
        self.more_mut().accepted.push(status.as_u16());
        self
    }

    /// Adds values that must not appear in an error's text, although the cloud may echo them, such
    /// as a machine's environment values.
    #[must_use]
    pub fn scrub(mut self, values: impl IntoIterator<Item = Secret>) -> Self {
        self.more_mut().scrub.extend(values);
        self
    }

    /// Selects a separate pacing budget of the operation by this key, where the cloud limits calls
    /// per machine (Fly). By default, all calls of an operation share its budget.
    #[must_use]
    pub fn pace_key(mut self, key: impl Into<String>) -> Self {
        self.more_mut().pace_key = Some(key.into());
        self
    }

    /// Sends no credential, for public endpoints.
    #[must_use]
    pub fn without_credential(self) -> Self {
        Self {
            authorized: false,
            ..self
        }
    }

    /// The path and query as sent, after the base URL's own path.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        &self.target
    }

    /// The path alone, for spans.
    pub(crate) fn path(&self) -> &str {
        &self.target[..self.path_len]
    }

    /// The additional settings, if there are any.
    pub(crate) fn more(&self) -> Option<&More> {
        self.more.as_deref()
    }

    fn more_mut(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Returns the error of a wrongly built call, before anything is sent.
    pub(crate) fn take_wrong(&mut self) -> Result<()> {
        self.wrong.take().map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The query, the headers and the body are never printed.
        f.debug_struct("Call")
            .field("operation", &self.operation)
            .field("class", &self.class)
            .field("method", &self.method)
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

/// Escapes one path segment, for a URL that is only displayed or passed on.
#[must_use]
pub fn escape_segment(segment: &str) -> Cow<'_, str> {
    utf8_percent_encode(segment, ESCAPED).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dot_segments_and_empty_ones_are_refused_before_sending() {
        for hostile in ["", ".", ".."] {
            let mut call = Call::get("get_compute", RetryClass::Safe, ["pods", hostile]);
            assert_eq!(
                call.take_wrong().unwrap_err().field(),
                Some("path"),
                "{hostile:?}"
            );
        }
    }

    #[test]
    fn the_path_of_a_span_has_no_query() {
        let call = Call::get("x", RetryClass::Safe, ["a"])
            .trailing_slash()
            .query("k", "v")
            .query_opt("l", None::<&str>);
        assert_eq!((call.path(), call.path_and_query()), ("/a/", "/a/?k=v"));
    }

    proptest! {
        #[test]
        fn a_hostile_segment_or_value_stays_where_it_was_put(id in "\\PC{1,40}",
            value in "\\PC{0,40}") {
            prop_assume!(id != "." && id != "..");
            let call = Call::get("x", RetryClass::Safe, ["pods", &id, "logs"]).query("q", &value);
            let uri: http::Uri = format!("https://cloud.example{}",
                call.path_and_query()).parse().unwrap();
            prop_assert_eq!(uri.host(), Some("cloud.example"));
            let parts: Vec<_> = uri.path().split('/').collect();
            prop_assert_eq!(parts.len(), 4);
            prop_assert_eq!(percent_encoding::percent_decode_str(parts[2]).decode_utf8().unwrap(),
                id);
            let query = uri.query().unwrap();
            prop_assert!(!query.contains('&') && query.matches('=').count() == 1);
        }
    }
}
