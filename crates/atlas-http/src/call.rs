//! One call to be made: operation, class, method, path, query, headers, body.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use atlas_core::{Error, Result, RetryClass, Secret};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

/// What stays as it is in a path segment or a query: the unreserved characters of RFC 3986.
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
    /// Apart, because a call is moved often and most have none of it.
    more: Option<Box<More>>,
    wrong: Option<Error>,
}

/// What most calls do without.
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
    /// A call with this method. `operation` is the contract's word (`get_compute`), for errors,
    /// spans and pacing.
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
            // Escaping does not help against these three: `%2E%2E` is `..` to a server that
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

    /// A GET.
    #[must_use]
    pub fn get<S: AsRef<str>>(
        operation: &'static str,
        class: RetryClass,
        segments: impl IntoIterator<Item = S>,
    ) -> Self {
        Self::new(Method::GET, operation, class, segments)
    }

    /// A POST.
    #[must_use]
    pub fn post<S: AsRef<str>>(
        operation: &'static str,
        class: RetryClass,
        segments: impl IntoIterator<Item = S>,
    ) -> Self {
        Self::new(Method::POST, operation, class, segments)
    }

    /// A PUT.
    #[must_use]
    pub fn put<S: AsRef<str>>(
        operation: &'static str,
        class: RetryClass,
        segments: impl IntoIterator<Item = S>,
    ) -> Self {
        Self::new(Method::PUT, operation, class, segments)
    }

    /// A PATCH.
    #[must_use]
    pub fn patch<S: AsRef<str>>(
        operation: &'static str,
        class: RetryClass,
        segments: impl IntoIterator<Item = S>,
    ) -> Self {
        Self::new(Method::PATCH, operation, class, segments)
    }

    /// A DELETE.
    #[must_use]
    pub fn delete<S: AsRef<str>>(
        operation: &'static str,
        class: RetryClass,
        segments: impl IntoIterator<Item = S>,
    ) -> Self {
        Self::new(Method::DELETE, operation, class, segments)
    }

    /// Ends the path with `/`, for the clouds whose routes do (Vast).
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

    /// Adds a query parameter when there is a value.
    #[must_use]
    pub fn query_opt(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Sends this as JSON. What cannot be serialised makes the call fail before anything is sent.
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

    /// Sends these bytes.
    #[must_use]
    pub fn body(mut self, content_type: HeaderValue, bytes: impl Into<Bytes>) -> Self {
        self.body = Some(bytes.into());
        self.more_mut().content_type = Some(content_type);
        self
    }

    /// Adds a header. Mark a secret one with `set_sensitive`; the credential is not given here.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if name == header::ACCEPT {
            self.more_mut().accept = Some(value);
        } else {
            self.more_mut().headers.push((name, value));
        }
        self
    }

    /// What the answer should be; `application/json` unless set.
    #[must_use]
    pub fn accept(mut self, media_type: &'static str) -> Self {
        self.more_mut().accept = Some(HeaderValue::from_static(media_type));
        self
    }

    /// The longest this call may take, where the operation's own differs from the account's. A
    /// [`atlas_core::CallContext`]'s counts first.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.more_mut().timeout = Some(timeout);
        self
    }

    /// The longest silence of a streaming answer; 60 s unless set.
    #[must_use]
    pub fn idle_timeout(mut self, silence: Duration) -> Self {
        self.more_mut().idle_timeout = Some(silence);
        self
    }

    /// An answer with this status is given back instead of becoming an error: where 404 is an
    /// answer, not a failure.
    #[must_use]
    pub fn accept_status(mut self, status: StatusCode) -> Self {
        self.more_mut().accepted.push(status.as_u16());
        self
    }

    /// Values that an error's text must not hold though the cloud may echo them: a machine's
    /// environment values.
    #[must_use]
    pub fn scrub(mut self, values: impl IntoIterator<Item = Secret>) -> Self {
        self.more_mut().scrub.extend(values);
        self
    }

    /// Which of an operation's pacing budgets this call draws on, where the cloud limits per
    /// machine (Fly). None: the operation's.
    #[must_use]
    pub fn pace_key(mut self, key: impl Into<String>) -> Self {
        self.more_mut().pace_key = Some(key.into());
        self
    }

    /// Sends no credential: for public endpoints.
    #[must_use]
    pub fn without_credential(self) -> Self {
        Self {
            authorized: false,
            ..self
        }
    }

    /// The path and query as they go out, after the base URL's own path.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        &self.target
    }

    /// The path alone, for spans.
    pub(crate) fn path(&self) -> &str {
        &self.target[..self.path_len]
    }

    /// What was set besides, where anything was.
    pub(crate) fn more(&self) -> Option<&More> {
        self.more.as_deref()
    }

    fn more_mut(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// What was wrong with how the call was made, found before anything is sent.
    pub(crate) fn take_wrong(&mut self) -> Result<()> {
        self.wrong.take().map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the query, the headers or the body.
        f.debug_struct("Call")
            .field("operation", &self.operation)
            .field("class", &self.class)
            .field("method", &self.method)
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

/// One path segment, escaped, for a URL that is only shown or handed on.
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
        fn a_hostile_segment_or_value_stays_where_it_was_put(id in "\\PC{1,40}", value in "\\PC{0,40}") {
            prop_assume!(id != "." && id != "..");
            let call = Call::get("x", RetryClass::Safe, ["pods", &id, "logs"]).query("q", &value);
            let uri: http::Uri = format!("https://cloud.example{}", call.path_and_query()).parse().unwrap();
            prop_assert_eq!(uri.host(), Some("cloud.example"));
            let parts: Vec<_> = uri.path().split('/').collect();
            prop_assert_eq!(parts.len(), 4);
            prop_assert_eq!(percent_encoding::percent_decode_str(parts[2]).decode_utf8().unwrap(), id);
            let query = uri.query().unwrap();
            prop_assert!(!query.contains('&') && query.matches('=').count() == 1);
        }
    }
}
