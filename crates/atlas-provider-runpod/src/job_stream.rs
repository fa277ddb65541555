//! Streams a job's chunks, each once. `/stream` drains the chunks, so a lost answer loses its
//! chunks too.
//!
//! A read is therefore never repeated blindly. After a lost answer, the job's own output is the
//! only other copy: if the worker aggregates, it contains every chunk. It must begin with the
//! chunks already delivered; then the rest of it is delivered. Otherwise the stream ends with an
//! error that says so.

use std::collections::VecDeque;
use std::time::Duration;

use atlas_core::{
    Backoff, BoxStream, CallContext, Error, ErrorKind, Job, JobRef, JobStatus, Next, Outcome,
    Result, RetryClass,
};
use atlas_http::Call;
use ring::digest;
use serde_json::Value;
use tokio::time::Instant;

use crate::jobs::{FRESH, Runtime, bad_end, status};

const POLL: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(3));
/// The cloud holds an empty answer for about ten seconds.
const HOLD: Duration = Duration::from_secs(30);
/// Maximum number of consecutive rate-limit refusals.
const MAX_REFUSALS: u32 = 30;

/// See [`atlas_core::Provider::stream_job`].
pub(crate) fn open(runtime: Runtime, cx: CallContext, job: JobRef) -> BoxStream<Result<Value>> {
    let reader = Reader {
        runtime,
        cx,
        job,
        begun: Instant::now(),
        seen: false,
        empty: 0,
        refusals: 0,
        chunks: VecDeque::new(),
        given: Given::default(),
        end: None,
    };
    Box::pin(futures_util::stream::unfold(reader, Reader::next))
}

/// The contents of an answer of `/stream`.
#[derive(Debug, PartialEq)]
struct Drained {
    status: Option<JobStatus>,
    chunks: Vec<Value>,
}

/// Parses an answer: an object with status and chunks, or, as one page of the documentation shows,
/// the chunks alone.
fn drained(value: Value) -> Option<Drained> {
    let chunk = |item: Value| match item {
        Value::Object(mut map) if map.contains_key("output") => {
            map.remove("output").unwrap_or_default()
        }
        other => other,
    };
    match value {
        Value::Array(items) => Some(Drained {
            status: None,
            chunks: items.into_iter().map(chunk).collect(),
        }),
        Value::Object(mut map) => {
            let status = status(map.get("status")?.as_str()?);
            let chunks = match map.remove("stream") {
                Some(Value::Array(items)) => items.into_iter().map(chunk).collect(),
                None | Some(Value::Null) => Vec::new(),
                Some(_) => return None,
            };
            Some(Drained {
                status: Some(status),
                chunks,
            })
        }
        _ => None,
    }
}

/// The delivered chunks: their number, and a digest of them in order.
#[derive(Clone)]
struct Given {
    count: usize,
    digest: digest::Context,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            count: 0,
            digest: digest::Context::new(&digest::SHA256),
        }
    }
}

impl Given {
    fn add(&mut self, chunk: &Value) {
        self.count += 1;
        self.digest.update(chunk.to_string().as_bytes());
        self.digest.update(b"\n");
    }

    /// The part of an aggregated output after the delivered chunks; `None` if it does not begin
    /// with them.
    fn rest_of(&self, output: &Value) -> Option<Vec<Value>> {
        let all = output.as_array()?;
        let (known, rest) = all.split_at_checked(self.count)?;
        let mut check = Self::default();
        known.iter().for_each(|chunk| check.add(chunk));
        (check.digest.finish().as_ref() == self.digest.clone().finish().as_ref())
            .then(|| rest.to_vec())
    }
}

struct Reader {
    runtime: Runtime,
    cx: CallContext,
    job: JobRef,
    begun: Instant,
    /// Whether the cloud has ever known this job.
    seen: bool,
    empty: u32,
    refusals: u32,
    chunks: VecDeque<Value>,
    given: Given,
    /// How the stream ends after the buffered chunks are delivered.
    end: Option<Option<Error>>,
}

impl Reader {
    async fn next(mut self) -> Option<(Result<Value>, Self)> {
        loop {
            if let Some(chunk) = self.chunks.pop_front() {
                self.given.add(&chunk);
                return Some((Ok(chunk), self));
            }
            if let Some(end) = &mut self.end {
                return end.take().map(|error| (Err(error), self));
            }
            self.poll().await;
        }
    }

    async fn poll(&mut self) {
        // Class `Create`, although it is a GET: what it drained cannot be read again.
        let path = [self.job.endpoint.as_str(), "stream", self.job.id.as_str()];
        let call = Call::get("stream_job", RetryClass::Create, path).timeout(HOLD);
        let answer = match self.runtime.client.call(&self.cx, call).await {
            Ok(answer) => answer,
            Err(error) => return self.failed(error).await,
        };
        (self.seen, self.refusals) = (true, 0);
        let Some(Drained { status, chunks }) = answer.json::<Value>().ok().and_then(drained) else {
            return self
                .recover(answer.misunderstood("a part of the stream could not be understood"))
                .await;
        };
        self.empty = if chunks.is_empty() {
            self.empty.saturating_add(1)
        } else {
            0
        };
        self.chunks.extend(chunks);
        let ended = match status {
            Some(JobStatus::Completed) => return self.end = Some(None),
            Some(status) => status.is_terminal(),
            // Chunks alone do not say whether more will follow.
            None if self.empty > 1 => {
                return match self.runtime.get(&self.cx, &self.job).await {
                    Ok(job) if job.status == JobStatus::Completed => self.end = Some(None),
                    Ok(job) if job.status.is_terminal() => self.end = Some(Some(bad_end(&job))),
                    _ => self.pause().await,
                };
            }
            None => false,
        };
        if ended {
            let status = self.runtime.get(&self.cx, &self.job).await;
            let plain = |status: JobStatus| {
                let job = Job::new(
                    self.job.id.clone(),
                    self.runtime.provider.clone(),
                    &self.job.endpoint,
                    status,
                );
                bad_end(&job)
            };
            self.end = Some(Some(match status {
                Ok(job) if job.status.is_terminal() => bad_end(&job),
                _ => plain(drained_status(&answer)),
            }));
        } else if self.chunks.is_empty() {
            self.pause().await;
        }
    }

    async fn pause(&self) {
        tokio::time::sleep(POLL.delay(self.empty.min(10), &*self.runtime.entropy)).await;
    }

    async fn failed(&mut self, error: Error) {
        match error.kind() {
            ErrorKind::NotFound if !self.seen && self.begun.elapsed() < FRESH => {
                self.empty = self.empty.saturating_add(1);
                self.pause().await;
            }
            // Refused before any work: nothing was drained.
            ErrorKind::RateLimited if self.refusals < MAX_REFUSALS => {
                self.refusals += 1;
                self.empty = self.empty.saturating_add(1);
                match error.retry_after() {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => self.pause().await,
                }
            }
            _ if error.outcome().is_unknown() => self.recover(error).await,
            _ => self.end = Some(Some(error)),
        }
    }

    /// Chunks may be lost: the rest is read from the job's own output, if possible.
    async fn recover(&mut self, lost: Error) {
        let lost_for_good = |lost: Error| {
            Error::new(
                ErrorKind::Provider,
                "an answer was lost, and chunks of the stream with it",
            )
            .outcome_is(Outcome::NotApplied(Next::Stop))
            .with_source(lost)
        };
        self.end = Some(match self.runtime.wait(&self.cx, &self.job, None).await {
            Ok(job) => match job
                .output
                .as_ref()
                .and_then(|output| self.given.rest_of(output))
            {
                Some(rest) => {
                    self.chunks.extend(rest);
                    (job.status != JobStatus::Completed).then(|| bad_end(&job))
                }
                None => Some(lost_for_good(lost)),
            },
            Err(_) => Some(lost_for_good(lost)),
        });
    }
}

fn drained_status(answer: &atlas_http::Answer) -> JobStatus {
    let word = answer
        .json::<Value>()
        .ok()
        .and_then(|value| value.get("status")?.as_str().map(status));
    word.unwrap_or(JobStatus::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_shapes_of_an_answer_are_read() {
        let both = json!({"status": "IN_PROGRESS", "stream": [{"output": {"index": 4}},
            {"output": "next", "metrics": {}}]});
        assert_eq!(
            drained(both),
            Some(Drained {
                status: Some(JobStatus::InProgress),
                chunks: vec![json!({"index": 4}), json!("next")]
            })
        );
        assert_eq!(
            drained(json!([{"output": 1}, 2])),
            Some(Drained {
                status: None,
                chunks: vec![json!(1), json!(2)]
            })
        );
        assert_eq!(
            drained(json!({"status": "COMPLETED"})),
            Some(Drained {
                status: Some(JobStatus::Completed),
                chunks: vec![]
            })
        );
        assert_eq!(
            (drained(json!({"status": 404})), drained(json!("x"))),
            (None, None)
        );
    }

    #[test]
    fn only_an_output_that_begins_with_what_was_given_completes_it() {
        let mut given = Given::default();
        [json!("a"), json!({"b": 1})]
            .iter()
            .for_each(|chunk| given.add(chunk));
        assert_eq!(
            given.rest_of(&json!(["a", {"b": 1}, "c"])),
            Some(vec![json!("c")])
        );
        assert_eq!(given.rest_of(&json!(["a", {"b": 1}])), Some(vec![]));
        for other in [
            json!(["a"]),
            json!(["a", {"b": 2}, "c"]),
            json!("a"),
            json!([]),
        ] {
            assert_eq!(given.rest_of(&other), None, "{other}");
        }
    }
}
