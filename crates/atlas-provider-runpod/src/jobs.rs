//! Serverless jobs on the runtime API: submit, read, cancel, retry, purge, health, and waiting for
//! the end.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::{
    Backoff, CallContext, Entropy, Error, ErrorKind, Job, JobId, JobMode, JobRef, JobRequest,
    JobStatus, Next, Outcome, ProviderId, REDACTED, Result, RetryClass, Secret,
};
use atlas_http::{Answer, Call, Client, is_loopback, merge_json};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::Refusal;
use crate::wire::read;

/// The maximum body of `/run` and `/runsync` (docs/clouds/runpod.md, "Serverless jobs").
const MAX_RUN: usize = 10 * 1000 * 1000;
const MAX_RUNSYNC: usize = 20 * 1000 * 1000;
/// The range of times for which the cloud can hold the answer of `/runsync`.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
const DEFAULT_WAIT: Duration = Duration::from_secs(90);
/// The network time added to a held answer.
const SLACK: Duration = Duration::from_secs(10);
/// A new id can be unknown for this long; a later 404 means that the cloud has deleted the job.
pub(crate) const FRESH: Duration = Duration::from_secs(150);
/// Results of `/runsync` are kept for a minute, so polls must come well before that.
const POLL: Backoff = Backoff::new(Duration::from_millis(400), Duration::from_secs(8));

/// Maximum number of consecutive failed polls, after their own retries, before the caller gets an
/// error.
const MAX_FAILURES: u32 = 10;
const LONGEST_POLICY: Duration = Duration::from_secs(7 * 24 * 3600);

/// The runtime API of one account.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    pub(crate) client: Client,
    pub(crate) provider: ProviderId,
    pub(crate) entropy: Arc<dyn Entropy>,
}

/// Where a job's worker stores large results: set it as an extension of a submit's [`CallContext`].
/// It is not a part of the job request, because that is printed.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// The access key's id.
    pub access_id: String,
    /// The access key.
    pub access_secret: Secret,
    /// The bucket.
    pub bucket: String,
    /// The S3 service.
    pub endpoint_url: String,
}

/// The state of an endpoint's queue and workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct EndpointHealth {
    /// Numbers of jobs by state.
    pub jobs: JobCounts,
    /// Numbers of workers by state.
    pub workers: WorkerCounts,
}

/// Number of jobs of an endpoint by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct JobCounts {
    pub completed: u64,
    pub failed: u64,
    pub in_progress: u64,
    pub in_queue: u64,
    pub retried: u64,
}

/// Number of workers of an endpoint by state. If all are throttled and none is running, the queue
/// does not progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct WorkerCounts {
    pub idle: u64,
    pub initializing: u64,
    pub ready: u64,
    pub running: u64,
    pub throttled: u64,
    pub unhealthy: u64,
}

impl Runtime {
    /// See [`atlas_core::Provider::run_job`].
    pub(crate) async fn run(&self, cx: &CallContext, request: &JobRequest) -> Result<Job> {
        let sync = request.mode == JobMode::Sync;
        let mut body = body(request)?;
        let mut secrets: Vec<_> = request.webhook.iter().cloned().collect();
        if let Some(s3) = cx.extension::<S3Config>() {
            secrets.push(s3.access_secret.clone());
            body["s3Config"] = json!({"accessId": s3.access_id,
                "accessSecret": s3.access_secret.expose(), "bucketName": s3.bucket,
                "endpointUrl": s3.endpoint_url});
        }
        let bytes = serde_json::to_vec(&body).map_or(0, |bytes| bytes.len());
        if bytes > if sync { MAX_RUNSYNC } else { MAX_RUN } {
            let most = if sync {
                "20 MB for a sync job"
            } else {
                "10 MB for a job"
            };
            return Err(Error::validation(
                "input",
                format!("is larger than the {most} that runpod takes"),
            ));
        }
        let segments = [
            request.endpoint.as_str(),
            if sync { "runsync" } else { "run" },
        ];
        let call = Call::post("run_job", RetryClass::Create, segments)
            .json(&body)
            .scrub(secrets);
        if !sync {
            return self.job(&request.endpoint, &self.client.call(cx, call).await?);
        }
        let limit = request.timeout.unwrap_or(DEFAULT_WAIT);
        let wait = limit.clamp(WAITS.0, WAITS.1);
        let deadline = Instant::now() + limit;
        let call = call
            .query("wait", wait.as_millis().to_string())
            .timeout(wait + SLACK);
        let job = self.job(&request.endpoint, &self.client.call(cx, call).await?)?;
        // 200 with IN_PROGRESS: the cloud's wait has ended and the job continues. Continue waiting
        // up to the caller's own limit.
        if job.status.is_terminal() || Instant::now() >= deadline {
            return Ok(job);
        }
        let address = JobRef {
            endpoint: job.endpoint.clone(),
            id: job.id.clone(),
        };
        match tokio::time::timeout_at(deadline, self.wait(cx, &address, None)).await {
            Ok(Ok(ended)) => Ok(ended),
            // The time is up, or the job cannot be followed. Return the job, because an error would
            // lose the id of what runs and bills.
            Ok(Err(_)) | Err(_) => Ok(job),
        }
    }

    /// See [`atlas_core::Provider::get_job`].
    pub(crate) async fn get(&self, cx: &CallContext, job: &JobRef) -> Result<Job> {
        let call = Call::get(
            "get_job",
            RetryClass::Safe,
            [job.endpoint.as_str(), "status", job.id.as_str()],
        );
        self.job(&job.endpoint, &self.client.call(cx, call).await?)
    }

    /// See [`atlas_core::Provider::cancel_job`]. RunPod does not document its answer to cancelling
    /// an ended job; in that case the job's state is returned.
    pub(crate) async fn cancel(&self, cx: &CallContext, job: &JobRef) -> Result<Job> {
        let call = Call::post(
            "cancel_job",
            RetryClass::Idempotent,
            [job.endpoint.as_str(), "cancel", job.id.as_str()],
        );
        let odd = [
            StatusCode::BAD_REQUEST,
            StatusCode::NOT_FOUND,
            StatusCode::CONFLICT,
        ];
        let answer = self
            .client
            .call(cx, odd.into_iter().fold(call, Call::accept_status))
            .await?;
        if answer.status().is_success() {
            return self.job(&job.endpoint, &answer);
        }
        let refused = Refusal::from(&answer).into_error();
        match self.get(cx, job).await {
            Ok(ended) if ended.status.is_terminal() => Ok(ended),
            _ => Err(refused),
        }
    }

    /// Runs a failed or timed-out job again with its old id. Its old result is lost.
    pub(crate) async fn retry(&self, cx: &CallContext, job: &JobRef) -> Result<Job> {
        let call = Call::post(
            "retry_job",
            RetryClass::Create,
            [job.endpoint.as_str(), "retry", job.id.as_str()],
        );
        self.job(&job.endpoint, &self.client.call(cx, call).await?)
    }

    pub(crate) async fn purge(&self, cx: &CallContext, endpoint: &str) -> Result<u64> {
        #[derive(Deserialize)]
        struct Purged {
            #[serde(default)]
            removed: u64,
        }
        let call = Call::post(
            "purge_queue",
            RetryClass::Idempotent,
            [endpoint, "purge-queue"],
        );
        Ok(self.client.json::<Purged>(cx, call).await?.removed)
    }

    pub(crate) async fn health(&self, cx: &CallContext, endpoint: &str) -> Result<EndpointHealth> {
        self.client
            .json(
                cx,
                Call::get("health", RetryClass::Safe, [endpoint, "health"]),
            )
            .await
    }

    /// Polls until the job ends, and at once when woken.
    pub(crate) async fn wait(
        &self,
        cx: &CallContext,
        job: &JobRef,
        wake: Option<&Notify>,
    ) -> Result<Job> {
        let begun = Instant::now();
        let (mut seen, mut polls, mut failures) = (false, 0, 0);
        loop {
            match self.get(cx, job).await {
                Ok(job) if job.status.is_terminal() => return Ok(job),
                Ok(_) => (seen, failures) = (true, 0),
                Err(error)
                    if error.kind() == ErrorKind::NotFound && !seen && begun.elapsed() < FRESH => {}
                Err(error) if error.is_retryable(RetryClass::Safe) && failures < MAX_FAILURES => {
                    // The retries of this call are used up, but the job continues, so polling
                    // continues too.
                    failures += 1;
                    if let Some(wait) = error.retry_after() {
                        tokio::time::sleep(wait).await;
                    }
                }
                Err(error) => return Err(error),
            }
            let pause = tokio::time::sleep(POLL.delay(polls, &*self.entropy));
            match wake {
                None => pause.await,
                Some(wake) => tokio::select! {
                    biased;
                    () = wake.notified() => {}
                    () = pause => {}
                },
            }
            polls = polls.saturating_add(1).min(16);
        }
    }

    pub(crate) fn job(&self, endpoint: &str, answer: &Answer) -> Result<Job> {
        job(&self.provider, endpoint, answer.json()?)
            .map_err(|error| answer.misunderstood(error.message()))
    }
}

/// The body of a submit.
fn body(request: &JobRequest) -> Result<Value> {
    if !request.input.is_object() {
        return Err(Error::validation("input", "must be an object"));
    }
    if request.endpoint.is_empty() {
        return Err(Error::validation("endpoint", "must not be empty"));
    }
    let mut policy = Map::new();
    let limits = [
        (
            "execution_timeout_ms",
            "executionTimeout",
            request.execution_timeout,
            5,
        ),
        ("ttl_ms", "ttl", request.ttl, 10),
    ];
    for (field, name, span, least) in limits {
        let Some(span) = span else { continue };
        if span < Duration::from_secs(least) || span > LONGEST_POLICY {
            return Err(Error::validation(
                field,
                format!("must be {least} seconds to 7 days"),
            ));
        }
        policy.insert(
            name.to_owned(),
            Value::from(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        );
    }
    if request.low_priority {
        policy.insert("lowPriority".to_owned(), Value::Bool(true));
    }
    let mut body = json!({"input": request.input});
    if !policy.is_empty() {
        body["policy"] = Value::Object(policy);
    }
    if let Some(webhook) = &request.webhook {
        check_webhook(webhook)?;
        body["webhook"] = Value::from(webhook.expose());
    }
    match &request.provider_opts {
        Value::Null => {}
        opts @ Value::Object(_) => merge_json(&mut body, opts),
        _ => return Err(Error::validation("provider_opts", "must be an object")),
    }
    Ok(body)
}

/// The cloud sends input, output and the URL's secret there, so the connection must be encrypted.
/// Whether the cloud can reach the URL is not checked; a missing callback only costs a poll.
fn check_webhook(webhook: &Secret) -> Result<()> {
    let uri: Option<http::Uri> = webhook.expose().parse().ok();
    let good = uri.is_some_and(|uri| match (uri.scheme_str(), uri.authority()) {
        (_, Some(authority)) if authority.host().is_empty() || authority.as_str().contains('@') => {
            false
        }
        (Some("https"), Some(_)) => true,
        (Some("http"), Some(authority)) => is_loopback(authority.host()),
        _ => false,
    });
    if good {
        Ok(())
    } else {
        Err(Error::validation(
            "webhook",
            "must be an https URL without a user, or http to loopback",
        ))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireJob {
    id: String,
    status: String,
    #[serde(default)]
    delay_time: Option<f64>,
    #[serde(default)]
    execution_time: Option<f64>,
    #[serde(default)]
    output: Option<Value>,
    #[serde(default)]
    error: Option<Value>,
}

/// Converts a job. Keeps the whole value, without the parts that may hold a secret.
pub(crate) fn job(provider: &ProviderId, endpoint: &str, mut value: Value) -> Result<Job> {
    let wire: WireJob = read(&value)?;
    let id = JobId::new(&wire.id)
        .map_err(|_| Error::new(ErrorKind::Provider, "the answer has no usable job id"))?;
    let mut job = Job::new(id, provider.clone(), endpoint, status(&wire.status));
    let millis = |ms: f64| Duration::try_from_secs_f64(ms / 1000.0).ok();
    job.delay = wire.delay_time.and_then(millis);
    job.execution = wire.execution_time.and_then(millis);
    job.output = wire.output.filter(|output| !output.is_null());
    job.error = wire
        .error
        .filter(|error| !error.is_null())
        .map(|error| reason(&error));
    for name in ["webhook", "s3Config"] {
        if let Some(secret) = value.get_mut(name) {
            *secret = Value::from(REDACTED);
        }
    }
    job.raw = value;
    Ok(job)
}

pub(crate) fn status(word: &str) -> JobStatus {
    match word {
        "IN_QUEUE" => JobStatus::InQueue,
        "IN_PROGRESS" => JobStatus::InProgress,
        "COMPLETED" => JobStatus::Completed,
        "FAILED" => JobStatus::Failed,
        "CANCELLED" => JobStatus::Cancelled,
        "TIMED_OUT" => JobStatus::TimedOut,
        other => JobStatus::Other(other.to_owned()),
    }
}

/// The message of a failed job: a Python worker's error is a JSON document inside a string.
fn reason(error: &Value) -> String {
    let Some(text) = error.as_str() else {
        return error.to_string();
    };
    let inner: Option<Map<String, Value>> = serde_json::from_str(text).ok();
    inner
        .and_then(|inner| inner.get("error_message")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| text.to_owned())
}

/// The error with which a stream or a wait reports that a job failed.
pub(crate) fn bad_end(job: &Job) -> Error {
    let kind = if job.status == JobStatus::TimedOut {
        ErrorKind::Timeout
    } else {
        ErrorKind::Provider
    };
    let why = job
        .error
        .as_deref()
        .map(|why| format!(": {why}"))
        .unwrap_or_default();
    Error::new(kind, format!("the job ended as {}{why}", job.status))
        .outcome_is(Outcome::NotApplied(Next::Stop))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_job(value: Value) -> Result<Job> {
        job(&ProviderId::new("runpod").unwrap(), "ep", value)
    }

    #[test]
    fn a_submit_has_its_settings_beside_its_input() {
        let request = JobRequest::new("ep", json!({"prompt": "a red fox"}))
            .execution_timeout(Duration::from_secs(900))
            .ttl(Duration::from_secs(3600))
            .webhook(Secret::new("https://hooks.example/rp?t=9f2c"));
        assert_eq!(
            body(&request).unwrap(),
            json!({"input": {"prompt": "a red fox"}, "policy": {"executionTimeout": 900_000,
                "ttl": 3_600_000},
                "webhook": "https://hooks.example/rp?t=9f2c"})
        );
        assert_eq!(
            body(&JobRequest::new("ep", json!({}))).unwrap(),
            json!({"input": {}})
        );
    }

    #[test]
    fn what_the_runtime_would_refuse_is_refused_here() {
        let plain = || JobRequest::new("ep", json!({}));
        for (field, request) in [
            ("input", JobRequest::new("ep", json!([1]))),
            ("input", JobRequest::new("ep", Value::Null)),
            ("endpoint", JobRequest::new("", json!({}))),
            (
                "execution_timeout_ms",
                plain().execution_timeout(Duration::from_secs(4)),
            ),
            ("ttl_ms", plain().ttl(Duration::from_secs(9))),
            ("ttl_ms", plain().ttl(Duration::from_secs(8 * 24 * 3600))),
        ] {
            assert_eq!(body(&request).unwrap_err().field(), Some(field));
        }
        for webhook in [
            "",
            "/hook",
            "b.example/hook",
            "http://b.example/zz-canary",
            "ftp://b.example/",
            "https://u:zz-canary@b.example/",
        ] {
            let error = body(&plain().webhook(Secret::new(webhook))).unwrap_err();
            assert!(
                error.field() == Some("webhook") && !format!("{error:?}").contains("canary"),
                "{webhook}"
            );
        }
        for webhook in [
            "HTTPS://b.example:8443/hook?x=1&t=s",
            "http://127.0.0.1:8080/hook",
            "http://[::1]/",
        ] {
            assert!(
                body(&plain().webhook(Secret::new(webhook))).is_ok(),
                "{webhook}"
            );
        }
    }

    #[test]
    fn a_job_is_read_whole_and_a_workers_error_is_unwrapped() {
        let done = read_job(
            json!({"id": "3f0c-u1", "status": "COMPLETED", "delayTime": 2140, "executionTime": 5310,
            "workerId": "w", "output": {"images": []}, "webhook": "https://zz-canary"}),
        )
        .unwrap();
        assert_eq!(
            (done.status, done.delay, done.execution),
            (
                JobStatus::Completed,
                Some(Duration::from_millis(2140)),
                Some(Duration::from_millis(5310))
            )
        );
        assert_eq!(
            (done.output, &done.raw["webhook"]),
            (Some(json!({"images": []})), &json!(REDACTED))
        );
        let inner = json!({"error_type": "<class 'ValueError'>", "error_message": "bad steps",
            "worker_id": "w"})
        .to_string();
        let failed = read_job(json!({"id": "a", "status": "FAILED", "error": inner})).unwrap();
        assert_eq!(
            (failed.error.as_deref(), failed.status.is_terminal()),
            (Some("bad steps"), true)
        );
        let plain = read_job(
            json!({"id": "a", "status": "TIMED_OUT", "error": "job timed out after 1 retries"}),
        )
        .unwrap();
        assert_eq!(
            plain.error.as_deref(),
            Some("job timed out after 1 retries")
        );
        assert!(
            !read_job(json!({"id": "a", "status": "RUNNING"}))
                .unwrap()
                .status
                .is_terminal()
        );
    }

    #[test]
    fn a_numeric_status_is_no_job() {
        assert!(
            read_job(json!({"status": 404, "title": "Not Found", "detail": "job not found"}))
                .is_err()
        );
    }

    #[test]
    fn health_reads_what_is_there_and_counts_the_rest_as_none() {
        let health: EndpointHealth = serde_json::from_value(
            json!({"jobs": {"inQueue": 7}, "workers": {"idle": 1, "throttled": 2}}),
        )
        .unwrap();
        assert_eq!(
            (
                health.jobs.in_queue,
                health.jobs.completed,
                health.workers.throttled
            ),
            (7, 0, 2)
        );
    }
}
