//! The job runtime (`https://api.runpod.ai/v2/{endpoint}/…`): run, status, stream, cancel, retry,
//! purge, health.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use atlas_core::{JobStatus, Secret, Timestamp};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::problem::json as answer;
use super::stock::NAME;
use super::{BodyFault, RunPod, cloudflare_1010};
use crate::dialect::query::{Query, decode};
use crate::dialect::{SimBody, deliver};
use crate::world::{Account, Arrival, JobSpec, Refusal, Webhook, WorldJob};

/// The largest bodies (docs/clouds/runpod.md).
const RUN_BODY: usize = 10 * 1000 * 1000;
pub(super) const RUNSYNC_BODY: usize = 20 * 1000 * 1000;
/// How long a stream's answer is held while nothing comes.
const HOLD: Duration = Duration::from_secs(10);
/// How long `/status-sync` holds its answer while the job has not ended, as `/runsync` does.
const HOLD_SYNC: Duration = Duration::from_secs(90);
/// How often a held answer looks again.
const LOOK: Duration = Duration::from_millis(100);

/// One call of the runtime, understood.
struct Ask<'a> {
    account: Account,
    arrival: Arrival,
    endpoint: &'a str,
    query: Query,
    body: &'a [u8],
}

type Reply = Result<Response<SimBody>, Refused>;

/// Why a call was not done, as it is answered.
struct Refused(StatusCode, Value);

impl Refused {
    fn response(&self) -> Response<SimBody> {
        answer(self.0, &self.1)
    }
}

/// The calls of one key to one operation of one endpoint, in a window of ten seconds.
pub(super) type JobWindows = BTreeMap<(String, String, &'static str), (Timestamp, u32)>;

impl RunPod {
    pub(super) async fn run_time(
        &self,
        parts: &http::request::Parts,
        body: Result<Bytes, BodyFault>,
    ) -> Result<Response<SimBody>, io::Error> {
        if parts
            .headers
            .get(header::USER_AGENT)
            .is_none_or(HeaderValue::is_empty)
        {
            return Ok(cloudflare_1010());
        }
        let unauthorized = || {
            answer(
                StatusCode::UNAUTHORIZED,
                &json!({ "error": "unauthorized" }),
            )
        };
        let Some(key) = key(&parts.headers).filter(|key| self.world.authorize(NAME, key).is_some())
        else {
            return Ok(unauthorized());
        };
        let segments: Vec<String> = parts
            .uri
            .path()
            .trim_start_matches('/')
            .split('/')
            .map(decode)
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let Some((endpoint, verb, job)) = verb(&parts.method, &segments) else {
            return Ok(missing("endpoint not found").response());
        };
        if !self.within_limit(key, endpoint, verb) {
            return Ok(empty(StatusCode::TOO_MANY_REQUESTS));
        }
        let most = if verb == "runsync" {
            RUNSYNC_BODY
        } else {
            RUN_BODY
        };
        let body = match body {
            Ok(body) if body.len() <= most => body,
            Err(BodyFault::Broken) => return Err(io::ErrorKind::ConnectionAborted.into()),
            Ok(_) | Err(BodyFault::TooLarge) => return Ok(empty(StatusCode::PAYLOAD_TOO_LARGE)),
        };
        let arrival = self.world.arrive(NAME, operation(verb), key, None, false);
        let Some(account) = self.world.authorize(NAME, key) else {
            return Ok(unauthorized());
        };
        let honest = if arrival.refused().is_some() {
            Response::new(SimBody::empty())
        } else {
            let ask = Ask {
                account,
                arrival: arrival.clone(),
                endpoint,
                query: Query::of(parts.uri.query()),
                body: &body,
            };
            self.job_call(verb, job, &ask)
                .await
                .unwrap_or_else(|refused| refused.response())
        };
        let failed = || {
            answer(
                StatusCode::INTERNAL_SERVER_ERROR,
                &json!({ "error": "internal server error" }),
            )
        };
        deliver(&self.world, &arrival, honest, failed, || {
            empty(StatusCode::TOO_MANY_REQUESTS)
        })
        .await
    }

    /// Limits of the sheet: so many calls in ten seconds for each operation, endpoint and key.
    /// Undocumented ones are not limited.
    fn within_limit(&self, key: &str, endpoint: &str, verb: &'static str) -> bool {
        let most = match verb {
            "run" => 1000,
            "runsync" | "status" | "status-sync" | "stream" => 2000,
            "cancel" => 100,
            "purge-queue" => 2,
            "requests" => 10,
            _ => return true,
        };
        let now = self.world.now();
        let mut shared = self.shared();
        let (since, used) = shared
            .job_windows
            .entry((key.to_owned(), endpoint.to_owned(), verb))
            .or_insert((now, 0));
        if now.since(*since) >= Duration::from_secs(10) {
            (*since, *used) = (now, 0);
        }
        *used += 1;
        *used <= most
    }

    async fn job_call(&self, verb: &str, job: &str, ask: &Ask<'_>) -> Reply {
        let world = &self.world;
        if world.endpoint(NAME, &ask.account, ask.endpoint).is_none() {
            return Err(missing("endpoint not found"));
        }
        match verb {
            "run" => {
                // The answer says so even where a warm worker has taken it already.
                let job = self.submit(ask, false)?;
                Ok(ok(&json!({ "id": job.id, "status": "IN_QUEUE" })))
            }
            "runsync" => {
                let wait = millis(&ask.query, "wait").unwrap_or(Duration::from_secs(90));
                if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&wait) {
                    return Err(bad("wait must be between 1000 and 300000"));
                }
                let job = self.submit(ask, true)?;
                let ended = self.settled(
                    wait,
                    || world.job(NAME, &ask.account, ask.endpoint, &job.id),
                    |job| job.status.is_terminal(),
                );
                Ok(ok(&object(&ended.await.unwrap_or(job))))
            }
            "status" => Ok(ok(&object(
                &world
                    .job(NAME, &ask.account, ask.endpoint, job)
                    .ok_or_else(no_job)?,
            ))),
            "status-sync" => {
                let ended = self.settled(
                    millis(&ask.query, "wait").unwrap_or(HOLD_SYNC),
                    || world.job(NAME, &ask.account, ask.endpoint, job),
                    |job| job.status.is_terminal(),
                );
                Ok(ok(&object(&ended.await.ok_or_else(no_job)?)))
            }
            "stream" => {
                let hold = millis(&ask.query, "wait")
                    .unwrap_or(HOLD)
                    .min(Duration::from_secs(300));
                let drain = || world.drain_job(NAME, &ask.account, ask.endpoint, job);
                let drained = self
                    .settled(hold, drain, |(job, chunks)| {
                        !chunks.is_empty() || job.status.is_terminal()
                    })
                    .await;
                let (job, chunks) = drained.ok_or_else(no_job)?;
                let stream: Vec<Value> = chunks
                    .into_iter()
                    .map(|chunk| json!({ "output": chunk }))
                    .collect();
                Ok(ok(
                    &json!({ "status": word(&job.status), "stream": stream }),
                ))
            }
            "cancel" => match world.cancel_job(NAME, &ask.account, ask.endpoint, job) {
                Ok(job) => Ok(ok(&json!({ "id": job.id, "status": word(&job.status) }))),
                Err(_) => Err(no_job()),
            },
            "retry" => match world.retry_job(NAME, &ask.account, ask.endpoint, job) {
                Ok(job) => Ok(ok(&json!({ "id": job.id, "status": "IN_QUEUE" }))),
                Err(Refusal::NotNow) => Err(bad("only failed or timed out jobs can be retried")),
                Err(_) => Err(no_job()),
            },
            "purge-queue" => {
                let removed = world
                    .purge_queue(NAME, &ask.account, ask.endpoint)
                    .map_err(|_| missing("endpoint not found"))?;
                Ok(ok(&json!({ "removed": removed, "status": "completed" })))
            }
            "requests" => {
                let jobs: Vec<Value> = world
                    .jobs(NAME, &ask.account, ask.endpoint)
                    .iter()
                    .map(object)
                    .collect();
                Ok(ok(&json!({ "requests": jobs })))
            }
            _ => {
                let health = world
                    .endpoint(NAME, &ask.account, ask.endpoint)
                    .map(|endpoint| endpoint.health())
                    .unwrap_or_default();
                Ok(ok(&json!({
                    "jobs": {
                        "completed": health.completed, "failed": health.failed,
                            "inProgress": health.in_progress,
                        "inQueue": health.in_queue, "retried": health.retried,
                    },
                    "workers": {
                        "idle": health.idle, "initializing": health.initializing,
                            "ready": health.idle,
                        "running": health.running, "throttled": 0, "unhealthy": 0,
                    },
                })))
            }
        }
    }

    fn submit(&self, ask: &Ask<'_>, sync: bool) -> Result<WorldJob, Refused> {
        let body: Value =
            serde_json::from_slice(ask.body).map_err(|_| bad("request body is not valid JSON"))?;
        let Some(input) = body.get("input").filter(|input| input.is_object()) else {
            return Err(bad("input is required and must be an object"));
        };
        let policy = |name: &str| {
            body.get("policy")
                .and_then(|policy| policy.get(name))
                .and_then(Value::as_u64)
                .map(Duration::from_millis)
        };
        let week = Duration::from_secs(7 * 86_400);
        let (timeout, ttl) = (policy("executionTimeout"), policy("ttl"));
        if timeout.is_some_and(|timeout| timeout < Duration::from_secs(5) || timeout > week)
            || ttl.is_some_and(|ttl| ttl < Duration::from_secs(10) || ttl > week)
        {
            return Err(bad("policy out of range"));
        }
        let spec = JobSpec {
            input: input.clone(),
            sync,
            webhook: body.get("webhook").and_then(Value::as_str).map(Secret::new),
            execution_timeout: timeout,
            ttl,
        };
        self.world
            .submit_job(NAME, &ask.account, ask.endpoint, spec, &ask.arrival)
            .map_err(|_| missing("endpoint not found"))
    }

    /// Looks until it is so, or this much simulated time has passed; answers what it saw last.
    async fn settled<T>(
        &self,
        most: Duration,
        mut look: impl FnMut() -> Option<T>,
        so: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let started = self.world.now();
        loop {
            let seen = look()?;
            if so(&seen) || self.world.now().since(started) >= most {
                return Some(seen);
            }
            tokio::time::sleep(self.world.clock().real(LOOK)).await;
        }
    }
}

/// The endpoint, the operation and the job that a path names.
fn verb<'a>(method: &Method, segments: &[&'a str]) -> Option<(&'a str, &'static str, &'a str)> {
    let get = method == Method::GET;
    let post = method == Method::POST;
    match segments {
        ["v2", endpoint, "run"] if post => Some((endpoint, "run", "")),
        ["v2", endpoint, "runsync"] if post => Some((endpoint, "runsync", "")),
        ["v2", endpoint, "status", job] if get || post => Some((endpoint, "status", job)),
        ["v2", endpoint, "status-sync", job] if get || post => Some((endpoint, "status-sync", job)),
        ["v2", endpoint, "stream", job] if get || post => Some((endpoint, "stream", job)),
        ["v2", endpoint, "cancel", job] if post => Some((endpoint, "cancel", job)),
        ["v2", endpoint, "retry", job] if post => Some((endpoint, "retry", job)),
        ["v2", endpoint, "purge-queue"] if post => Some((endpoint, "purge-queue", "")),
        ["v2", endpoint, "health"] if get => Some((endpoint, "health", "")),
        ["v2", endpoint, "requests"] if get => Some((endpoint, "requests", "")),
        _ => None,
    }
}

/// The contract's word for an operation.
fn operation(verb: &str) -> &'static str {
    match verb {
        "run" | "runsync" => "run_job",
        "status" | "status-sync" => "get_job",
        "stream" => "stream_job",
        "cancel" => "cancel_job",
        "retry" => "retry_job",
        "purge-queue" => "purge_queue",
        "requests" => "list_jobs",
        _ => "job_health",
    }
}

/// A job as it is written on the wire, without what its submitter sent.
pub(super) fn object(job: &WorldJob) -> Value {
    let mut fields = Map::new();
    fields.insert("id".into(), job.id.as_str().into());
    fields.insert("status".into(), word(&job.status).into());
    if let Some(started) = job.started_at {
        fields.insert(
            "delayTime".into(),
            whole_millis(started.since(job.queued_at)).into(),
        );
        if let Some(ended) = job.ended_at {
            fields.insert(
                "executionTime".into(),
                whole_millis(ended.since(started)).into(),
            );
        }
    }
    if let Some(worker) = &job.worker {
        fields.insert("workerId".into(), worker.as_str().into());
    }
    if let Some(output) = &job.output {
        fields.insert("output".into(), output.clone());
    }
    if let Some(error) = &job.error {
        fields.insert("error".into(), error.as_str().into());
    }
    Value::Object(fields)
}

/// What a webhook delivers: the job, and what its submitter sent.
#[must_use]
pub fn webhook_body(hook: &Webhook) -> Value {
    let mut body = object(&hook.job);
    body["input"] = hook.job.spec.input.clone();
    body["webhook"] = hook.url.expose().into();
    body
}

fn whole_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn millis(query: &Query, name: &str) -> Option<Duration> {
    query.get(name)?.parse().ok().map(Duration::from_millis)
}

fn word(status: &JobStatus) -> &'static str {
    match status {
        JobStatus::InProgress => "IN_PROGRESS",
        JobStatus::Completed => "COMPLETED",
        JobStatus::Failed => "FAILED",
        JobStatus::Cancelled => "CANCELLED",
        JobStatus::TimedOut => "TIMED_OUT",
        _ => "IN_QUEUE",
    }
}

/// `Bearer <key>`, or the bare key as the documentation's examples also show it.
fn key(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    Some(value.split_once(' ').map_or(value, |(_, key)| key.trim())).filter(|key| !key.is_empty())
}

fn ok(body: &Value) -> Response<SimBody> {
    answer(StatusCode::OK, body)
}

fn empty(status: StatusCode) -> Response<SimBody> {
    let mut response = Response::new(SimBody::empty());
    *response.status_mut() = status;
    response
}

fn bad(why: &str) -> Refused {
    Refused(StatusCode::BAD_REQUEST, json!({ "error": why }))
}

fn no_job() -> Refused {
    missing("job not found")
}

/// Here `status` is a number, which is not a job's status.
fn missing(detail: &str) -> Refused {
    Refused(
        StatusCode::NOT_FOUND,
        json!({ "status": 404, "title": "Not Found", "detail": detail }),
    )
}
