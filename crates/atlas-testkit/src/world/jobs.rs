//! Serverless endpoints: a queue, workers that start cold and stop when idle, and jobs whose input
//! determines what they do.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use atlas_core::{JobStatus, Secret, Timestamp, Usd, UsdPerHour};
use serde_json::{Value, json};

use super::accounts::Account;
use super::fault::{Arrival, FaultKind};
use super::life::Refusal;
use super::{State, World};

/// How long a job without a `sleep` works.
const WORK: Duration = Duration::from_millis(100);
/// The interval between the chunks of a streaming job.
const CHUNK: Duration = Duration::from_millis(250);

/// The specification of an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointSpec {
    /// Its id; drawn where unset.
    pub id: Option<String>,
    /// The maximum number of workers.
    pub max_workers: u32,
    /// From the start of a worker to its first job.
    pub cold_start: Duration,
    /// How long an idle worker is kept.
    pub idle_timeout: Duration,
    /// The default maximum run time of a job.
    pub execution_timeout: Duration,
    /// The price of a worker while it exists.
    pub price: UsdPerHour,
    /// Additional data of the dialect.
    pub extra: Value,
}

impl Default for EndpointSpec {
    fn default() -> Self {
        Self {
            id: None,
            max_workers: 1,
            cold_start: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(10),
            execution_timeout: Duration::from_secs(600),
            price: UsdPerHour::new(Usd::from_cents(190)),
            extra: Value::Null,
        }
    }
}

/// An endpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Endpoint {
    /// The endpoint's id.
    pub id: String,
    /// The account it belongs to.
    pub account: String,
    /// Its specification, including later updates.
    pub spec: EndpointSpec,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its workers, oldest first.
    pub workers: Vec<Worker>,
    queue: VecDeque<String>,
    jobs: BTreeMap<String, WorldJob>,
    counts: Counts,
    spans: Vec<(Timestamp, Timestamp)>,
}

/// A worker.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Worker {
    /// The worker's id.
    pub id: String,
    /// When it was requested.
    pub created_at: Timestamp,
    /// When it was ready for its first job.
    pub ready_at: Option<Timestamp>,
    /// The job it is running.
    pub job: Option<String>,
    turns: u64,
}

/// Number of jobs by result.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    completed: u64,
    failed: u64,
    retried: u64,
}

/// Numbers of jobs and workers of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Jobs that completed.
    pub completed: u64,
    /// Jobs that failed.
    pub failed: u64,
    /// Jobs that are running.
    pub in_progress: u64,
    /// Jobs waiting.
    pub in_queue: u64,
    /// How many jobs were retried.
    pub retried: u64,
    /// Workers without a job.
    pub idle: u64,
    /// Workers starting.
    pub initializing: u64,
    /// Workers with a job.
    pub running: u64,
}

/// A job to run.
#[derive(Clone, Debug, Default)]
pub struct JobSpec {
    /// `{"sleep":N}` works N seconds, `{"stream":N}` yields N chunks, `{"error":S}` fails; the
    /// output echoes it.
    pub input: Value,
    /// Whether the submitter waits for it; its result is then deleted sooner.
    pub sync: bool,
    /// Where to report the end.
    pub webhook: Option<Secret>,
    /// The longest it may run.
    pub execution_timeout: Option<Duration>,
    /// The longest it may exist.
    pub ttl: Option<Duration>,
}

/// A job.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorldJob {
    /// The job's id.
    pub id: String,
    /// What was submitted.
    pub spec: JobSpec,
    /// The status of the job.
    pub status: JobStatus,
    /// When it was submitted, or retried.
    pub queued_at: Timestamp,
    /// When a worker took it.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Which worker took it.
    pub worker: Option<String>,
    /// The output of the handler, once it returned.
    pub output: Option<Value>,
    /// Why it failed.
    pub error: Option<String>,
    read_from: Timestamp,
    attempt: u32,
    drained: usize,
}

/// The end of a job, to be reported to a webhook.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where to report it.
    pub url: Secret,
    /// The endpoint.
    pub endpoint: String,
    /// The job, ended.
    pub job: WorldJob,
}

/// An event of an endpoint that happens by itself.
#[derive(Clone, Debug)]
pub(super) enum QueueEvent {
    WorkerReady(String),
    WorkerIdle(String, u64),
    JobEnds(String, u32),
    JobTimesOut(String, u32),
    JobExpires(String),
    JobForgotten(String, u32),
}

impl WorldJob {
    fn number(&self, field: &str) -> Option<f64> {
        self.spec
            .input
            .get(field)?
            .as_f64()
            .filter(|number| number.is_finite() && *number >= 0.0)
    }

    /// How long it works before its first chunk.
    fn sleep(&self) -> Duration {
        self.number("sleep")
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .unwrap_or(WORK)
    }

    fn chunks(&self) -> u32 {
        self.spec
            .input
            .get("stream")
            .and_then(Value::as_u64)
            .map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX).min(100_000))
    }

    fn work(&self) -> Duration {
        self.sleep()
            .saturating_add(CHUNK.saturating_mul(self.chunks()))
    }

    /// How many chunks there are by now.
    fn yielded(&self, now: Timestamp) -> usize {
        let Some(started) = self.started_at else {
            return 0;
        };
        let until = self.ended_at.unwrap_or(now);
        let worked = until.since(started).saturating_sub(self.sleep());
        let chunks = u32::try_from(worked.as_millis() / CHUNK.as_millis()).unwrap_or(u32::MAX);
        chunks.min(self.chunks()) as usize
    }

    fn failure(&self) -> Option<String> {
        let error = self
            .spec
            .input
            .get("error")
            .filter(|error| !error.is_null())?;
        Some(
            error
                .as_str()
                .map_or_else(|| error.to_string(), str::to_owned),
        )
    }
}

impl World {
    /// Creates an endpoint; returns its id. An existing one with the same id is replaced.
    pub fn add_endpoint(
        &self,
        cloud: &str,
        account: &Account,
        spec: EndpointSpec,
    ) -> Option<String> {
        let (mut state, now) = self.at_now();
        let id = match &spec.id {
            Some(id) => id.clone(),
            None => state.dice.word(b"abcdefghijklmnopqrstuvwxyz0123456789", 12),
        };
        let endpoint = Endpoint {
            id: id.clone(),
            account: account.as_str().to_owned(),
            spec,
            created_at: now,
            workers: Vec::new(),
            queue: VecDeque::new(),
            jobs: BTreeMap::new(),
            counts: Counts::default(),
            spans: Vec::new(),
        };
        state
            .clouds
            .get_mut(cloud)?
            .endpoints
            .insert(id.clone(), endpoint);
        Some(id)
    }

    /// An endpoint of an account.
    #[must_use]
    pub fn endpoint(&self, cloud: &str, account: &Account, id: &str) -> Option<Endpoint> {
        self.at_now().0.endpoint(cloud, account, id).ok().cloned()
    }

    /// The endpoints of an account, newest first.
    #[must_use]
    pub fn endpoints(&self, cloud: &str, account: &Account) -> Vec<Endpoint> {
        let (state, _) = self.at_now();
        let all = state
            .clouds
            .get(cloud)
            .into_iter()
            .flat_map(|held| held.endpoints.values());
        let mut mine: Vec<Endpoint> = all
            .filter(|endpoint| endpoint.account == account.as_str())
            .cloned()
            .collect();
        mine.sort_by(|a, b| {
            b.created_at
                .cmp(&a.created_at)
                .then_with(|| a.id.cmp(&b.id))
        });
        mine
    }

    /// Changes an endpoint.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub fn update_endpoint(
        &self,
        cloud: &str,
        account: &Account,
        id: &str,
        change: impl FnOnce(&mut EndpointSpec),
    ) -> Result<Endpoint, Refusal> {
        let (mut state, now) = self.at_now();
        let endpoint = state.endpoint_mut(cloud, account, id)?;
        change(&mut endpoint.spec);
        state.dispatch(cloud, id, now);
        state.endpoint(cloud, account, id).cloned()
    }

    /// Deletes an endpoint and its jobs.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub fn delete_endpoint(&self, cloud: &str, account: &Account, id: &str) -> Result<(), Refusal> {
        let (mut state, _) = self.at_now();
        state.endpoint(cloud, account, id)?;
        if let Some(held) = state.clouds.get_mut(cloud) {
            held.endpoints.remove(id);
        }
        Ok(())
    }

    /// Puts a job into the queue (two under the fault `duplicate-commit`; the first is answered).
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; then nothing was queued.
    pub fn submit_job(
        &self,
        cloud: &str,
        account: &Account,
        endpoint: &str,
        job: JobSpec,
        with: &Arrival,
    ) -> Result<WorldJob, Refusal> {
        let (mut state, now) = self.at_now();
        state.endpoint(cloud, account, endpoint)?;
        let id = state.enqueue(cloud, account, endpoint, job.clone(), with, now)?;
        if with.has(FaultKind::DuplicateCommit) {
            state.enqueue(cloud, account, endpoint, job, with, now)?;
            state.faults.count(FaultKind::DuplicateCommit);
        }
        if with.has(FaultKind::LateAppearance) {
            state.faults.count(FaultKind::LateAppearance);
        }
        state.dispatch(cloud, endpoint, now);
        state
            .endpoint(cloud, account, endpoint)?
            .jobs
            .get(&id)
            .cloned()
            .ok_or(Refusal::NotFound)
    }

    /// A job as a read shows it.
    #[must_use]
    pub fn job(
        &self,
        cloud: &str,
        account: &Account,
        endpoint: &str,
        id: &str,
    ) -> Option<WorldJob> {
        let (state, now) = self.at_now();
        let job = state
            .endpoint(cloud, account, endpoint)
            .ok()?
            .jobs
            .get(id)?;
        (job.read_from <= now).then(|| job.clone())
    }

    /// The jobs of an endpoint that the cloud has not forgotten.
    #[must_use]
    pub fn jobs(&self, cloud: &str, account: &Account, endpoint: &str) -> Vec<WorldJob> {
        self.endpoint(cloud, account, endpoint)
            .map(|endpoint| endpoint.jobs.into_values().collect())
            .unwrap_or_default()
    }

    /// The chunks since the last drain. They are then removed.
    #[must_use]
    pub fn drain_job(
        &self,
        cloud: &str,
        account: &Account,
        endpoint: &str,
        id: &str,
    ) -> Option<(WorldJob, Vec<Value>)> {
        let (mut state, now) = self.at_now();
        let job = state
            .endpoint_mut(cloud, account, endpoint)
            .ok()?
            .jobs
            .get_mut(id)
            .filter(|job| job.read_from <= now)?;
        let (from, to, all) = (job.drained, job.yielded(now), job.chunks());
        job.drained = to.max(from);
        Some((
            job.clone(),
            (from..to)
                .map(|index| json!({ "index": index, "of": all }))
                .collect(),
        ))
    }

    /// Cancels a job; an ended one is returned unchanged.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub fn cancel_job(
        &self,
        cloud: &str,
        account: &Account,
        endpoint: &str,
        id: &str,
    ) -> Result<WorldJob, Refusal> {
        let (mut state, now) = self.at_now();
        let job = state
            .endpoint(cloud, account, endpoint)?
            .jobs
            .get(id)
            .filter(|job| job.read_from <= now);
        if !job.ok_or(Refusal::NotFound)?.status.is_terminal() {
            state.finish(cloud, endpoint, id, JobStatus::Cancelled, now);
        }
        state
            .endpoint(cloud, account, endpoint)?
            .jobs
            .get(id)
            .cloned()
            .ok_or(Refusal::NotFound)
    }

    /// Retries a job that failed or timed out.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], or [`Refusal::NotNow`] for a job in another state.
    pub fn retry_job(
        &self,
        cloud: &str,
        account: &Account,
        endpoint: &str,
        id: &str,
    ) -> Result<WorldJob, Refusal> {
        let (mut state, now) = self.at_now();
        let held = state.endpoint_mut(cloud, account, endpoint)?;
        let job = held.jobs.get_mut(id).ok_or(Refusal::NotFound)?;
        if !matches!(job.status, JobStatus::Failed | JobStatus::TimedOut) {
            return Err(Refusal::NotNow);
        }
        job.attempt += 1;
        (job.status, job.queued_at) = (JobStatus::InQueue, now);
        (
            job.started_at,
            job.ended_at,
            job.worker,
            job.output,
            job.error,
            job.drained,
        ) = (None, None, None, None, None, 0);
        held.counts.retried += 1;
        held.queue.push_back(id.to_owned());
        state.dispatch(cloud, endpoint, now);
        state
            .endpoint(cloud, account, endpoint)?
            .jobs
            .get(id)
            .cloned()
            .ok_or(Refusal::NotFound)
    }

    /// Cancels every queued job; returns their number.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub fn purge_queue(
        &self,
        cloud: &str,
        account: &Account,
        endpoint: &str,
    ) -> Result<usize, Refusal> {
        let (mut state, now) = self.at_now();
        let waiting: Vec<String> = state
            .endpoint(cloud, account, endpoint)?
            .queue
            .iter()
            .cloned()
            .collect();
        for id in &waiting {
            state.finish(cloud, endpoint, id, JobStatus::Cancelled, now);
        }
        Ok(waiting.len())
    }

    /// The ends of jobs that were not reported yet, each once.
    #[must_use]
    pub fn take_webhooks(&self) -> Vec<Webhook> {
        std::mem::take(&mut self.at_now().0.webhooks)
    }
}

impl Endpoint {
    /// Its numbers of jobs and workers.
    #[must_use]
    pub fn health(&self) -> Health {
        let jobs = |status: &JobStatus| {
            self.jobs
                .values()
                .filter(|job| job.status == *status)
                .count() as u64
        };
        let workers = |has: fn(&Worker) -> bool| {
            self.workers.iter().filter(|worker| has(worker)).count() as u64
        };
        Health {
            completed: self.counts.completed,
            failed: self.counts.failed,
            in_progress: jobs(&JobStatus::InProgress),
            in_queue: jobs(&JobStatus::InQueue),
            retried: self.counts.retried,
            idle: workers(|worker| worker.ready_at.is_some() && worker.job.is_none()),
            initializing: workers(|worker| worker.ready_at.is_none()),
            running: workers(|worker| worker.job.is_some()),
        }
    }

    /// What its workers cost between two instants.
    #[must_use]
    pub fn billed(&self, from: Timestamp, to: Timestamp) -> Usd {
        let living = self.workers.iter().map(|worker| (worker.created_at, to));
        self.spans
            .iter()
            .copied()
            .chain(living)
            .map(|(start, end)| end.min(to).since(start.max(from)))
            .filter_map(|span| self.spec.price.cost_of(span))
            .sum()
    }
}

impl State {
    fn endpoint(&self, cloud: &str, account: &Account, id: &str) -> Result<&Endpoint, Refusal> {
        let held = self.clouds.get(cloud).ok_or(Refusal::NoSuchCloud)?;
        held.endpoints
            .get(id)
            .filter(|endpoint| endpoint.account == account.as_str())
            .ok_or(Refusal::NotFound)
    }

    fn endpoint_mut(
        &mut self,
        cloud: &str,
        account: &Account,
        id: &str,
    ) -> Result<&mut Endpoint, Refusal> {
        let held = self.clouds.get_mut(cloud).ok_or(Refusal::NoSuchCloud)?;
        held.endpoints
            .get_mut(id)
            .filter(|endpoint| endpoint.account == account.as_str())
            .ok_or(Refusal::NotFound)
    }

    fn held(&mut self, cloud: &str, id: &str) -> Option<&mut Endpoint> {
        self.clouds.get_mut(cloud)?.endpoints.get_mut(id)
    }

    fn enqueue(
        &mut self,
        cloud: &str,
        account: &Account,
        endpoint: &str,
        spec: JobSpec,
        with: &Arrival,
        now: Timestamp,
    ) -> Result<String, Refusal> {
        let hex = b"0123456789abcdef";
        let parts: Vec<String> = [8, 4, 4, 4, 12]
            .into_iter()
            .map(|len| self.dice.word(hex, len))
            .collect();
        let id = format!(
            "{}{}-u1",
            if spec.sync { "sync-" } else { "" },
            parts.join("-")
        );
        let bound = self
            .clouds
            .get(cloud)
            .map(|held| held.spec.visibility_bound)
            .unwrap_or_default();
        let late = if with.has(FaultKind::LateAppearance) {
            self.dice.span(Duration::from_secs(1), bound)
        } else {
            Duration::ZERO
        };
        let ttl = spec.ttl;
        let held = self.endpoint_mut(cloud, account, endpoint)?;
        let job = WorldJob {
            id: id.clone(),
            spec,
            status: JobStatus::InQueue,
            queued_at: now,
            started_at: None,
            ended_at: None,
            worker: None,
            output: None,
            error: None,
            read_from: now.saturating_add(late),
            attempt: 1,
            drained: 0,
        };
        held.jobs.insert(id.clone(), job);
        held.queue.push_back(id.clone());
        let ttl = ttl.unwrap_or(Duration::from_secs(86_400));
        self.schedule_queue(
            now.saturating_add(ttl),
            cloud,
            endpoint,
            QueueEvent::JobExpires(id.clone()),
        );
        Ok(id)
    }

    /// Gives queued jobs to idle workers, and starts workers if there are too few.
    fn dispatch(&mut self, cloud: &str, endpoint: &str, now: Timestamp) {
        loop {
            let Some(held) = self.held(cloud, endpoint) else {
                return;
            };
            let idle = held
                .workers
                .iter()
                .position(|worker| worker.ready_at.is_some() && worker.job.is_none());
            let Some((index, id)) = idle.and_then(|index| Some((index, held.queue.pop_front()?)))
            else {
                break;
            };
            let default_timeout = held.spec.execution_timeout;
            let worker = &mut held.workers[index];
            worker.turns += 1;
            worker.job = Some(id.clone());
            let name = worker.id.clone();
            let Some(job) = held.jobs.get_mut(&id) else {
                continue;
            };
            (job.status, job.started_at, job.worker) =
                (JobStatus::InProgress, Some(now), Some(name));
            let (attempt, work) = (job.attempt, job.work());
            let limit = job.spec.execution_timeout.unwrap_or(default_timeout);
            let (after, event) = if work > limit {
                (limit, QueueEvent::JobTimesOut(id, attempt))
            } else {
                (work, QueueEvent::JobEnds(id, attempt))
            };
            self.schedule_queue(now.saturating_add(after), cloud, endpoint, event);
        }
        let Some(held) = self.held(cloud, endpoint) else {
            return;
        };
        let starting = held
            .workers
            .iter()
            .filter(|worker| worker.ready_at.is_none())
            .count();
        let room = (held.spec.max_workers as usize).saturating_sub(held.workers.len());
        let (wanted, cold) = (
            held.queue.len().saturating_sub(starting).min(room),
            held.spec.cold_start,
        );
        for _ in 0..wanted {
            let id = self.dice.word(b"abcdefghijklmnopqrstuvwxyz0123456789", 14);
            if let Some(held) = self.held(cloud, endpoint) {
                held.workers.push(Worker {
                    id: id.clone(),
                    created_at: now,
                    ready_at: None,
                    job: None,
                    turns: 0,
                });
            }
            self.schedule_queue(
                now.saturating_add(cold),
                cloud,
                endpoint,
                QueueEvent::WorkerReady(id),
            );
        }
    }

    pub(super) fn queue_event(
        &mut self,
        cloud: &str,
        endpoint: &str,
        event: &QueueEvent,
        at: Timestamp,
    ) {
        let Some(held) = self.held(cloud, endpoint) else {
            return;
        };
        match event {
            QueueEvent::WorkerReady(id) => {
                if let Some(worker) = held.workers.iter_mut().find(|worker| worker.id == *id) {
                    worker.ready_at = Some(at);
                }
                self.dispatch(cloud, endpoint, at);
                self.rest(cloud, endpoint, at);
            }
            QueueEvent::WorkerIdle(id, turns) => {
                let idle = |worker: &Worker| {
                    worker.id == *id && worker.turns == *turns && worker.job.is_none()
                };
                if let Some(index) = held.workers.iter().position(idle) {
                    let worker = held.workers.remove(index);
                    held.spans.push((worker.created_at, at));
                }
            }
            QueueEvent::JobEnds(id, attempt) => {
                let Some(job) = held.jobs.get_mut(id).filter(|job| job.running(*attempt)) else {
                    return;
                };
                let failure = job.failure();
                job.error.clone_from(&failure);
                if failure.is_none() {
                    job.output = Some(job.spec.input.clone());
                }
                self.finish(
                    cloud,
                    endpoint,
                    id,
                    if failure.is_some() {
                        JobStatus::Failed
                    } else {
                        JobStatus::Completed
                    },
                    at,
                );
            }
            QueueEvent::JobTimesOut(id, attempt) => {
                let Some(job) = held.jobs.get_mut(id).filter(|job| job.running(*attempt)) else {
                    return;
                };
                job.error = Some("job timed out after 1 retries".into());
                self.finish(cloud, endpoint, id, JobStatus::TimedOut, at);
            }
            QueueEvent::JobExpires(id) => {
                // A ttl deletes a job even while it runs.
                if held
                    .jobs
                    .get(id)
                    .is_some_and(|job| !job.status.is_terminal())
                {
                    self.finish(cloud, endpoint, id, JobStatus::TimedOut, at);
                }
                if let Some(held) = self.held(cloud, endpoint) {
                    held.jobs.remove(id);
                }
            }
            QueueEvent::JobForgotten(id, attempt) => {
                if held
                    .jobs
                    .get(id)
                    .is_some_and(|job| job.attempt == *attempt && job.status.is_terminal())
                {
                    held.jobs.remove(id);
                }
            }
        }
    }

    /// A job ends: its worker is free, its end is reported, and its result is kept for a while.
    fn finish(&mut self, cloud: &str, endpoint: &str, id: &str, status: JobStatus, at: Timestamp) {
        let Some(held) = self.held(cloud, endpoint) else {
            return;
        };
        held.queue.retain(|waiting| waiting != id);
        for worker in held
            .workers
            .iter_mut()
            .filter(|worker| worker.job.as_deref() == Some(id))
        {
            worker.job = None;
        }
        match status {
            JobStatus::Completed => held.counts.completed += 1,
            JobStatus::Failed | JobStatus::TimedOut => held.counts.failed += 1,
            _ => {}
        }
        let Some(job) = held.jobs.get_mut(id) else {
            return;
        };
        (job.status, job.ended_at) = (status, Some(at));
        let ended = job.clone();
        let kept = Duration::from_secs(if ended.spec.sync { 60 } else { 30 * 60 });
        self.schedule_queue(
            at.saturating_add(kept),
            cloud,
            endpoint,
            QueueEvent::JobForgotten(id.to_owned(), ended.attempt),
        );
        if let Some(url) = ended.spec.webhook.clone() {
            self.webhooks.push(Webhook {
                url,
                endpoint: endpoint.to_owned(),
                job: ended,
            });
        }
        self.dispatch(cloud, endpoint, at);
        self.rest(cloud, endpoint, at);
    }

    /// Removes workers that were idle for too long.
    fn rest(&mut self, cloud: &str, endpoint: &str, at: Timestamp) {
        let Some(held) = self.held(cloud, endpoint) else {
            return;
        };
        let idle: Vec<(String, u64)> = held
            .workers
            .iter()
            .filter(|worker| worker.ready_at.is_some() && worker.job.is_none())
            .map(|worker| (worker.id.clone(), worker.turns))
            .collect();
        let until = at.saturating_add(held.spec.idle_timeout);
        for (id, turns) in idle {
            self.schedule_queue(until, cloud, endpoint, QueueEvent::WorkerIdle(id, turns));
        }
    }
}

impl WorldJob {
    fn running(&self, attempt: u32) -> bool {
        self.attempt == attempt && self.status == JobStatus::InProgress
    }
}
