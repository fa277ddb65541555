//! Pod logs: server-sent events, first what was written, then what is being written, for as long as
//! the pod is there.

use std::time::Duration;

use atlas_core::{LogSource, Timestamp};
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderName, Response};
use serde_json::json;

use super::pods::wire_time;
use super::problem::Problem;
use super::stock::NAME;
use super::{Call, RunPod};
use crate::dialect::SimBody;
use crate::world::LogEntry;

/// How often a live log looks for new lines, in simulated time.
const EVERY: Duration = Duration::from_secs(1);
const MAX_TAIL: usize = 5000;

impl RunPod {
    pub(super) fn pod_logs(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Problem> {
        let source = match call.query.get("source") {
            None => None,
            Some("container") => Some(LogSource::Container),
            Some("system") => Some(LogSource::System),
            Some(_) => {
                return Err(Problem::invalid(vec![
                    "source: value must be one of 'container', 'system'".into(),
                ]));
            }
        };
        let tail = match call.query.get("tail").map(str::parse::<usize>) {
            None => 100,
            Some(Ok(tail)) if tail <= MAX_TAIL => tail,
            Some(_) => {
                return Err(Problem::invalid(vec![format!(
                    "tail: must be between 0 and {MAX_TAIL}"
                )]));
            }
        };
        let resumed = call
            .headers
            .get("last-event-id")
            .and_then(|value| value.to_str().ok());
        let since = match resumed.or(call.query.get("since")) {
            None => None,
            Some(text) => {
                let instant = text.split('/').next().unwrap_or_default();
                Some(
                    instant
                        .parse::<Timestamp>()
                        .map_err(|_| Problem::invalid(vec!["since: not a date-time".into()]))?,
                )
            }
        };
        let lines = self
            .world
            .log_of(NAME, &call.account, id, source)
            .ok_or_else(|| Problem::not_found("pod"))?;
        let skip = match since {
            // From the instant on, the line of the instant included: a client sees the seam twice
            // rather than never.
            Some(since) => lines
                .iter()
                .take_while(|entry| self.world.clock().on_the_wire(entry.at) < since)
                .count(),
            None => lines.len().saturating_sub(tail),
        };
        let mut response = Response::new(self.live_log(call, id, source, skip));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
        headers.insert(
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        );
        Ok(response)
    }

    fn live_log(
        &self,
        call: &Call<'_>,
        id: &str,
        source: Option<LogSource>,
        skip: usize,
    ) -> SimBody {
        let (world, account, id) = (self.world.clone(), call.account.clone(), id.to_owned());
        let mut sent = skip;
        SimBody::live(world.clock().real(EVERY), move || {
            let lines = world.log_of(NAME, &account, &id, source)?;
            let fresh = lines.get(sent..).unwrap_or_default();
            let text: String = fresh
                .iter()
                .map(|entry| event(&wire_time(&world, entry.at), entry))
                .collect();
            sent = lines.len().max(sent);
            Some(Bytes::from(text))
        })
    }
}

fn event(at: &str, entry: &LogEntry) -> String {
    let source = match entry.source {
        LogSource::Container => "container",
        LogSource::System => "system",
    };
    format!(
        "id: {at}\ndata: {}\n\n",
        json!({ "source": source, "line": entry.line, "ts": at })
    )
}
