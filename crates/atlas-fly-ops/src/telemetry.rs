//! What is counted and measured, beside the spans: never a token, a line or an app's output.
//! Without the feature `metrics` nothing is.

use std::time::Duration;

use crate::process::Pipe;

/// A token was asked for: where it came from (an error's word where it came from nowhere), who
/// found it, how long that took.
pub(crate) fn token_acquired(source: &'static str, acquirer: &'static str, took: Duration) {
    #[cfg(feature = "metrics")]
    metrics::histogram!("atlas_fly_token_acquire_seconds", "source" => source,
        "acquirer" => acquirer)
    .record(took.as_secs_f64());
    let _ = (source, acquirer, took);
}

/// A page of a log was asked for: the answer's status (0 without an answer) and its entries.
pub(crate) fn logs_fetched(status: u16, entries: usize) {
    #[cfg(feature = "metrics")]
    {
        metrics::counter!("atlas_fly_logs_fetches_total", "status" => status.to_string())
            .increment(1);
        metrics::counter!("atlas_fly_logs_entries_total")
            .increment(u64::try_from(entries).unwrap_or(u64::MAX));
    }
    let _ = (status, entries);
}

/// A deploy printed a line.
pub(crate) fn deploy_line(pipe: Pipe, bytes: usize) {
    let pipe = pipe.as_str();
    #[cfg(feature = "metrics")]
    metrics::counter!("atlas_fly_deploy_lines_total", "pipe" => pipe).increment(1);
    tracing::trace!(pipe, bytes, "deploy line");
}

/// A deploy ended.
pub(crate) fn deploy_ended(result: &'static str, took: Duration) {
    #[cfg(feature = "metrics")]
    metrics::histogram!("atlas_fly_deploy_seconds", "result" => result).record(took.as_secs_f64());
    tracing::debug!(result, seconds = took.as_secs_f64(), "deploy ended");
}
