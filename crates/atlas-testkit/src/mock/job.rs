//! Serverless jobs of the mock: their whole course follows from their input and the time of
//! submission.

use std::time::Duration;

use atlas_core::{Job, JobId, JobRequest, JobStatus, ProviderId, Result, Timestamp};
use serde_json::{Value, json};

/// How long a cold worker needs to start.
const COLD_START: Duration = Duration::from_secs(1);
/// The default run time of a job.
const WORK: Duration = Duration::from_millis(200);
/// How long the worker needs for a chunk.
const CHUNK: Duration = Duration::from_millis(500);

/// A job, as the cloud keeps it.
#[derive(Clone, Debug)]
pub(super) struct MockJob {
    id: String,
    pub(super) account: String,
    endpoint: String,
    input: Value,
    submitted: Timestamp,
    cancelled: Option<Timestamp>,
    execution_timeout: Option<Duration>,
    ttl: Option<Duration>,
}

impl MockJob {
    pub(super) fn new(
        id: String,
        account: String,
        request: &JobRequest,
        submitted: Timestamp,
    ) -> Self {
        Self {
            id,
            account,
            endpoint: request.endpoint.clone(),
            input: request.input.clone(),
            submitted,
            cancelled: None,
            execution_timeout: request.execution_timeout,
            ttl: request.ttl,
        }
    }

    pub(super) fn is_of(&self, endpoint: &str) -> bool {
        self.endpoint == endpoint
    }

    /// Ends it now, unless it ended already.
    pub(super) fn cancel(&mut self, now: Timestamp) {
        if !self.status(now).is_terminal() {
            self.cancelled = Some(now);
        }
    }

    pub(super) fn status(&self, now: Timestamp) -> JobStatus {
        let age = now.since(self.submitted);
        let work = self.work();
        let ran = age.saturating_sub(COLD_START);
        let limit = self.execution_timeout.unwrap_or(Duration::MAX);
        let ended = COLD_START + work.min(limit);
        let lived = self.ttl.unwrap_or(Duration::MAX);
        if self.cancelled.is_some() {
            JobStatus::Cancelled
        } else if age >= lived && lived < ended {
            JobStatus::TimedOut
        } else if age < COLD_START {
            JobStatus::InQueue
        } else if ran < work.min(limit) {
            JobStatus::InProgress
        } else if limit < work {
            JobStatus::TimedOut
        } else if self.failure().is_some() {
            JobStatus::Failed
        } else {
            JobStatus::Completed
        }
    }

    /// The chunks its worker yielded by now.
    pub(super) fn chunks(&self, now: Timestamp) -> Vec<Value> {
        let until = self.cancelled.unwrap_or(now);
        let ran = until
            .since(self.submitted)
            .saturating_sub(COLD_START)
            .as_millis()
            / CHUNK.as_millis();
        let yielded = self.count().min(u64::try_from(ran).unwrap_or(u64::MAX));
        (0..yielded)
            .map(|chunk| json!({ "chunk": chunk }))
            .collect()
    }

    /// Converts it to the contract's type.
    pub(super) fn describe(&self, provider: &ProviderId, now: Timestamp) -> Result<Job> {
        let status = self.status(now);
        let mut job = Job::new(
            JobId::new(&self.id)?,
            provider.clone(),
            self.endpoint.clone(),
            status.clone(),
        );
        let started = now.since(self.submitted) >= COLD_START;
        job.delay = started.then_some(COLD_START);
        if status == JobStatus::Completed {
            job.output = Some(if self.count() > 0 {
                Value::from(self.chunks(now))
            } else {
                self.input.clone()
            });
            job.execution = Some(self.work());
        }
        if status == JobStatus::Failed {
            job.error = self.failure();
        }
        job.raw = json!({ "id": self.id, "status": status });
        Ok(job)
    }

    /// The error of a failed job.
    pub(super) fn failure(&self) -> Option<String> {
        self.input.get("error").map(|text| {
            text.as_str()
                .map_or_else(|| text.to_string(), str::to_owned)
        })
    }

    fn count(&self) -> u64 {
        self.input
            .get("stream")
            .and_then(Value::as_u64)
            .unwrap_or(0)
    }

    fn work(&self) -> Duration {
        let slept = self
            .input
            .get("sleep")
            .and_then(Value::as_f64)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let streamed =
            u32::try_from(self.count()).map_or(Duration::MAX, |count| CHUNK.saturating_mul(count));
        slept.unwrap_or(WORK).max(streamed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(input: Value) -> MockJob {
        MockJob::new(
            "j".into(),
            "me".into(),
            &JobRequest::new("e", input),
            Timestamp::UNIX_EPOCH,
        )
    }

    fn after(millis: u64) -> Timestamp {
        Timestamp::UNIX_EPOCH.saturating_add(Duration::from_millis(millis))
    }

    #[test]
    fn a_job_waits_runs_and_ends_as_its_input_says() {
        let echo = job(json!({ "x": 1 }));
        assert_eq!(
            [0, 1000, 1200].map(|at| echo.status(after(at))),
            [
                JobStatus::InQueue,
                JobStatus::InProgress,
                JobStatus::Completed
            ]
        );
        assert_eq!(
            job(json!({ "error": "no" })).status(after(5000)),
            JobStatus::Failed
        );
        let stream = job(json!({ "stream": 3 }));
        assert_eq!(
            [1000, 1500, 9000].map(|at| stream.chunks(after(at)).len()),
            [0, 1, 3]
        );
        let mut long = MockJob {
            execution_timeout: Some(Duration::from_secs(2)),
            ..job(json!({ "sleep": 60 }))
        };
        assert_eq!(long.status(after(3000)), JobStatus::TimedOut);
        long.execution_timeout = None;
        long.cancel(after(2000));
        assert_eq!(long.status(after(3000)), JobStatus::Cancelled);
    }
}
