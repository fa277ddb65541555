//! What is measured of requests, besides the spans: never a URL, a header or a body. Without the
//! feature `metrics` nothing is.

#[cfg(feature = "metrics")]
use tokio::time::Instant;

/// A request that is under way. It is recorded when it is dropped, so that one whose caller stopped
/// waiting is recorded too.
///
/// The histogram `atlas_http_request_seconds` counts the seconds from sending a request until its
/// answer's headers, by `provider`, `api`, `operation` and `status` (`none` without an answer).
/// Repeats and redirects are requests of their own.
pub(crate) struct Request<'a> {
    provider: &'a str,
    api: &'static str,
    operation: &'static str,
    status: Option<u16>,
    #[cfg(feature = "metrics")]
    began: Instant,
}

impl<'a> Request<'a> {
    /// A request that is sent now.
    pub(crate) fn sent(provider: &'a str, api: &'static str, operation: &'static str) -> Self {
        Self {
            provider,
            api,
            operation,
            status: None,
            #[cfg(feature = "metrics")]
            began: Instant::now(),
        }
    }

    /// Its answer's headers arrived.
    pub(crate) fn answered(mut self, status: u16) {
        self.status = Some(status);
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        #[cfg(feature = "metrics")]
        metrics::histogram!("atlas_http_request_seconds", "provider" => self.provider.to_owned(),
            "api" => self.api, "operation" => self.operation,
            "status" => self.status.map_or_else(|| "none".to_owned(), |status| status.to_string()))
        .record(self.began.elapsed().as_secs_f64());
        let _ = (self.provider, self.api, self.operation, self.status);
    }
}
