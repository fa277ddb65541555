//! Serverless endpoints: creating, scaling, releases, inspection.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{BoxStream, CallContext, Error, LogLine, LogQuery, Result, Timestamp};
use atlas_http::lenient;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::container::{Container, put};
use super::read::{count, counts, listed, opt_whole, parts, told};
use super::units::{instant, millis, seconds};
use crate::RunPod;
use crate::logs::Owner;

const PATH: &str = "serverless";
/// RunPod documents five minutes, but was observed to treat an omitted value as none, so it is
/// always sent.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// How requests reach an endpoint's workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum EndpointKind {
    /// Through a queue: jobs.
    Queue,
    /// Directly to a worker's HTTP server.
    LoadBalancer,
    /// A kind that atlas does not know.
    #[serde(other)]
    Other,
}

/// When an endpoint scales up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "SCREAMING_SNAKE_CASE",
    rename_all_fields = "camelCase"
)]
#[non_exhaustive]
pub enum Scaling {
    /// When a job waits longer than this. Queues only; at least half a second.
    QueueDelay {
        /// The longest wait.
        #[serde(with = "seconds")]
        queue_delay: Duration,
    },
    /// When there are more requests per worker than this.
    RequestCount {
        /// Requests per worker.
        #[serde(deserialize_with = "lenient::number")]
        request_count: u32,
    },
    /// A rule that atlas does not know.
    #[serde(other)]
    Other,
}

/// Limits for the number of workers of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct WorkerLimits {
    /// The minimum number of workers. They bill while idle.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::opt_number"
    )]
    pub min: Option<u32>,
    /// The maximum number of workers.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::opt_number"
    )]
    pub max: Option<u32>,
    /// How long an idle worker is kept: 1 s to 1 h.
    #[serde(skip_serializing_if = "Option::is_none", with = "seconds::option")]
    pub idle_timeout: Option<Duration>,
}

/// The GPUs of an endpoint, by pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct EndpointGpu {
    /// The pools, best first: `ADA_24`, `AMPERE_80`, ...
    #[serde(deserialize_with = "lenient::texts")]
    pub pools: Vec<String>,
    /// RunPod's ids of GPUs in these pools to exclude.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "lenient::texts"
    )]
    pub excluded_types: Vec<String>,
    /// GPUs per worker.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::opt_number"
    )]
    pub count: Option<u32>,
    /// Only hosts with one of these CUDA versions.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "lenient::texts"
    )]
    pub allowed_cuda_versions: Vec<String>,
    /// Only hosts with at least this CUDA version.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::opt_text"
    )]
    pub min_cuda_version: Option<String>,
}

impl EndpointGpu {
    /// One GPU of these pools, best first.
    pub fn pools<I: IntoIterator<Item: Into<String>>>(pools: I) -> Self {
        Self {
            pools: pools.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// A CPU flavour of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointCpu {
    /// RunPod's id of the flavour: `cpu3g`.
    #[serde(deserialize_with = "lenient::text")]
    pub id: String,
    /// Virtual CPUs: a power of two.
    #[serde(deserialize_with = "lenient::number")]
    pub vcpu_count: u32,
}

/// An endpoint to create. Set one of `gpu` and `cpu`, and an image or a template.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointRequest {
    /// The endpoint's name.
    pub name: String,
    /// How requests reach its workers.
    pub kind: EndpointKind,
    /// When it scales up.
    pub scaling: Scaling,
    /// The container that its workers run.
    pub container: Container,
    /// The template it starts from.
    pub template_id: Option<String>,
    /// The GPUs that its workers run on.
    pub gpu: Option<EndpointGpu>,
    /// The CPUs that its workers run on.
    pub cpu: Vec<EndpointCpu>,
    /// How many workers it may have.
    pub workers: WorkerLimits,
    /// The maximum run time of a job. Five minutes by default.
    pub timeout: Duration,
    /// `OFF`, `FLASHBOOT` or `PRIORITY_FLASHBOOT`.
    pub flashboot: Option<String>,
    /// Only in these data centres.
    pub data_centres: Vec<String>,
    /// Network volumes its workers mount at `/runpod-volume`.
    pub network_volumes: Vec<String>,
}

impl EndpointRequest {
    /// A queue that scales up when a job waits for four seconds.
    pub fn queue(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: EndpointKind::Queue,
            scaling: Scaling::QueueDelay {
                queue_delay: Duration::from_secs(4),
            },
            container: Container::default(),
            template_id: None,
            gpu: None,
            cpu: Vec::new(),
            workers: WorkerLimits::default(),
            timeout: DEFAULT_TIMEOUT,
            flashboot: None,
            data_centres: Vec::new(),
            network_volumes: Vec::new(),
        }
    }

    /// A load balancer that scales up at this many requests per worker.
    pub fn load_balancer(name: impl Into<String>, request_count: u32) -> Self {
        Self {
            kind: EndpointKind::LoadBalancer,
            scaling: Scaling::RequestCount { request_count },
            ..Self::queue(name)
        }
    }

    fn body(&self) -> Result<Value> {
        let wrong = |field: &str, message: &str| Err(Error::validation(field, message));
        if self.name.is_empty() {
            return wrong("name", "must not be empty");
        }
        if self.gpu.is_some() != self.cpu.is_empty() {
            return wrong("gpu", "an endpoint has gpus or cpus: exactly one of them");
        }
        if self.gpu.as_ref().is_some_and(|gpu| gpu.pools.is_empty()) {
            return wrong("gpu", "names no pool");
        }
        if self.container.image.is_none() && self.template_id.is_none() {
            return wrong("image", "name an image, or a template");
        }
        let (queue, by_count) = (
            self.kind == EndpointKind::Queue,
            matches!(self.scaling, Scaling::RequestCount { .. }),
        );
        if let Some(idle) = self.workers.idle_timeout {
            if !(1..=3600).contains(&idle.as_secs()) {
                return wrong("idle_timeout", "must be 1 second to 1 hour");
            }
            if queue && by_count {
                return wrong("idle_timeout", "a queue that scales by requests takes none");
            }
        }
        match self.scaling {
            Scaling::QueueDelay { .. } if !queue => {
                return wrong("scaling", "a delay is for queues only");
            }
            Scaling::QueueDelay { queue_delay } if queue_delay < Duration::from_millis(500) => {
                return wrong("scaling", "a delay must be at least half a second");
            }
            Scaling::RequestCount { request_count: 0 } => {
                return wrong("scaling", "must be at least one request");
            }
            _ => {}
        }
        let mut body = Map::new();
        self.container.put(&mut body);
        put(&mut body, "name", Some(&self.name));
        put(&mut body, "type", Some(self.kind));
        put(&mut body, "scaling", Some(self.scaling));
        put(&mut body, "templateId", self.template_id.as_ref());
        put(&mut body, "gpu", self.gpu.as_ref());
        put(
            &mut body,
            "cpu",
            (!self.cpu.is_empty()).then_some(&self.cpu),
        );
        put(
            &mut body,
            "workers",
            (self.workers != WorkerLimits::default()).then_some(&self.workers),
        );
        put(
            &mut body,
            "timeout",
            Some(u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX)),
        );
        put(&mut body, "flashboot", self.flashboot.as_ref());
        put(
            &mut body,
            "dataCenterIds",
            (!self.data_centres.is_empty()).then_some(&self.data_centres),
        );
        put(
            &mut body,
            "networkVolumes",
            (!self.network_volumes.is_empty()).then_some(&self.network_volumes),
        );
        Ok(Value::Object(body))
    }
}

/// Changes of an endpoint. `None` or an empty value leaves a field unchanged. The kind, and whether
/// it has GPUs or CPUs, cannot change.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct EndpointUpdate {
    /// A new name for the endpoint; unchanged where unset.
    pub name: Option<String>,
    /// When it scales up.
    pub scaling: Option<Scaling>,
    /// Its container: a change creates a release, which rolls out as workers are replaced.
    pub container: Container,
    /// Its GPUs, replaced as a whole.
    pub gpu: Option<EndpointGpu>,
    /// How many workers it may have.
    pub workers: Option<WorkerLimits>,
    /// The maximum run time of a job.
    pub timeout: Option<Duration>,
}

impl EndpointUpdate {
    fn body(&self) -> Value {
        let mut body = Map::new();
        self.container.put(&mut body);
        put(&mut body, "name", self.name.as_ref());
        put(&mut body, "scaling", self.scaling);
        put(&mut body, "gpu", self.gpu.as_ref());
        put(&mut body, "workers", self.workers.as_ref());
        put(
            &mut body,
            "timeout",
            self.timeout
                .map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        );
        Value::Object(body)
    }
}

/// An endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Endpoint {
    /// The id assigned by RunPod.
    #[serde(deserialize_with = "lenient::text")]
    pub id: String,
    /// The endpoint's name.
    #[serde(default, deserialize_with = "told")]
    pub name: String,
    /// How requests reach its workers; optional in the documentation.
    #[serde(default, rename = "type", deserialize_with = "opt_whole")]
    pub kind: Option<EndpointKind>,
    /// The container that its workers run.
    #[serde(flatten)]
    pub container: Container,
    /// Its URLs by purpose, with `{job_id}` as the placeholder of a job's id.
    #[serde(default, deserialize_with = "urls")]
    pub request_urls: BTreeMap<String, String>,
    /// The GPUs that its workers run on.
    #[serde(default, deserialize_with = "lenient::opt_object")]
    pub gpu: Option<EndpointGpu>,
    /// The CPUs that its workers run on.
    #[serde(default, deserialize_with = "parts")]
    pub cpu: Vec<EndpointCpu>,
    /// How many workers it may have.
    #[serde(default, deserialize_with = "lenient::object")]
    pub workers: WorkerLimits,
    /// When it scales up.
    #[serde(default = "unknown", deserialize_with = "scaling")]
    pub scaling: Scaling,
    /// The data centres of its workers; empty for any.
    #[serde(default, deserialize_with = "lenient::texts")]
    pub data_center_ids: Vec<String>,
    /// Network volumes its workers mount.
    #[serde(default, deserialize_with = "lenient::texts")]
    pub network_volumes: Vec<String>,
    /// The maximum run time of a job.
    #[serde(default, with = "millis")]
    pub timeout: Option<Duration>,
    /// `OFF`, `FLASHBOOT` or `PRIORITY_FLASHBOOT`.
    #[serde(default, deserialize_with = "told")]
    pub flashboot: String,
    /// When it was created.
    #[serde(default, deserialize_with = "instant")]
    pub created_at: Option<Timestamp>,
}

/// One worker of an endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Worker {
    /// The id assigned by RunPod.
    #[serde(deserialize_with = "lenient::text")]
    pub id: String,
    /// `RUNNING`, `IDLE`, `INITIALIZING`, `THROTTLED`, `UNHEALTHY`.
    #[serde(default = "lenient::no_word", deserialize_with = "lenient::word")]
    pub status: String,
    /// True when it does not run the newest release.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub is_stale: bool,
    /// The release it runs.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub version: Option<i64>,
    /// Number of its GPUs.
    #[serde(default, deserialize_with = "count")]
    pub gpu_count: u32,
    /// RunPod's id of its GPU.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub gpu_type_id: Option<String>,
    /// The data centre.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub data_center_id: Option<String>,
    /// The image it runs.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub image: Option<String>,
    /// How long it has been up.
    #[serde(default, rename = "uptimeSeconds", with = "seconds::option")]
    pub uptime: Option<Duration>,
    /// When it started.
    #[serde(default, deserialize_with = "instant")]
    pub started_at: Option<Timestamp>,
}

/// The workers of an endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Workers {
    /// The workers.
    #[serde(deserialize_with = "listed")]
    pub workers: Vec<Worker>,
    /// Number of workers by state, and `total`.
    #[serde(default, deserialize_with = "counts")]
    pub summary: BTreeMap<String, u64>,
    /// The newest release.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub endpoint_version: Option<i64>,
}

/// One release of an endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Release {
    /// The id assigned by RunPod.
    #[serde(deserialize_with = "lenient::text")]
    pub id: String,
    /// The release's version number.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub version: Option<i64>,
    /// `MANUAL` or `GIT_BUILD`.
    #[serde(default, deserialize_with = "told")]
    pub source: String,
    /// How many workers run it.
    #[serde(default, deserialize_with = "count")]
    pub worker_count: u64,
    /// When it was created.
    #[serde(default, deserialize_with = "instant")]
    pub created_at: Option<Timestamp>,
    /// The names of the changed settings. Their values may be secrets and are not kept.
    #[serde(default, rename = "diff", deserialize_with = "changed")]
    pub changed: Vec<String>,
}

fn urls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(lenient::text_map(deserializer)?.unwrap_or_default())
}

fn scaling<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Scaling, D::Error> {
    Ok(opt_whole(deserializer)?.unwrap_or(Scaling::Other))
}

const fn unknown() -> Scaling {
    Scaling::Other
}

fn changed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    struct Entry {
        #[serde(deserialize_with = "lenient::text")]
        field: String,
    }
    let entries: Vec<Entry> = parts(deserializer)?;
    Ok(entries.into_iter().map(|entry| entry.field).collect())
}

/// The progress of a release's rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct Rollout {
    /// Whether it is in progress.
    #[serde(deserialize_with = "lenient::flag")]
    pub in_progress: bool,
    /// Number of workers with the newest release.
    #[serde(deserialize_with = "count")]
    pub workers_on_latest: u64,
    /// Number of all workers.
    #[serde(deserialize_with = "count")]
    pub workers_total: u64,
    /// The share of workers with the newest release, in percent.
    #[serde(deserialize_with = "count")]
    pub percent_on_latest: u64,
}

/// The releases of an endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Releases {
    /// The releases.
    #[serde(deserialize_with = "listed")]
    pub releases: Vec<Release>,
    /// The rollout of the newest release.
    #[serde(default, deserialize_with = "lenient::object")]
    pub rollout: Rollout,
    /// The version of the newest release.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub endpoint_version: Option<i64>,
}

impl RunPod {
    /// Every serverless endpoint.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn list_endpoints(&self, cx: &CallContext) -> Result<Vec<Endpoint>> {
        self.control
            .all(cx, "list_endpoints", &[PATH], &[], "endpoints")
            .await
    }

    /// One endpoint.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn endpoint(&self, cx: &CallContext, id: &str) -> Result<Endpoint> {
        self.control
            .fetch(cx, "get_endpoint", &[PATH, id], &[])
            .await
    }

    /// Creates an endpoint. Class `Create`: not cancel safe.
    ///
    /// # Errors
    /// `validation` before any request; otherwise the outcome says whether it may exist
    /// nevertheless.
    pub async fn create_endpoint(
        &self,
        cx: &CallContext,
        request: &EndpointRequest,
    ) -> Result<Endpoint> {
        self.control
            .make(
                cx,
                "create_endpoint",
                &[PATH],
                &request.body()?,
                request.container.secrets(),
            )
            .await
    }

    /// Changes an endpoint.
    ///
    /// # Errors
    /// Like any idempotent call. A dropped call may have changed it.
    pub async fn update_endpoint(
        &self,
        cx: &CallContext,
        id: &str,
        update: &EndpointUpdate,
    ) -> Result<Endpoint> {
        self.control
            .change(
                cx,
                "update_endpoint",
                &[PATH, id],
                &update.body(),
                update.container.secrets(),
            )
            .await
    }

    /// Deletes an endpoint, its jobs, and the template bound to it.
    ///
    /// # Errors
    /// Like any idempotent call; if it is already gone, the call succeeds. A dropped call may have
    /// deleted it.
    pub async fn delete_endpoint(&self, cx: &CallContext, id: &str) -> Result<()> {
        self.control
            .remove(cx, "delete_endpoint", &[PATH, id])
            .await
    }

    /// An endpoint's workers.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn endpoint_workers(&self, cx: &CallContext, id: &str) -> Result<Workers> {
        self.control
            .fetch(cx, "endpoint_workers", &[PATH, id, "workers"], &[])
            .await
    }

    /// An endpoint's releases.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn endpoint_releases(&self, cx: &CallContext, id: &str) -> Result<Releases> {
        self.control
            .fetch(cx, "endpoint_releases", &[PATH, id, "releases"], &[])
            .await
    }

    /// A worker's log, like a pod's in [`atlas_core::Provider::logs`].
    ///
    /// # Errors
    /// Like any read; the stream's items can fail too.
    pub async fn worker_logs(
        &self,
        cx: &CallContext,
        endpoint: &str,
        worker: &str,
        query: &LogQuery,
    ) -> Result<BoxStream<Result<LogLine>>> {
        let owner = Owner::Worker {
            endpoint: endpoint.to_owned(),
            worker: worker.to_owned(),
        };
        self.open_log(cx, owner, query).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_endpoint_is_ordered_as_documented_and_always_with_its_timeout() {
        let mut request = EndpointRequest::queue("atlas-sdxl");
        request.container = Container::image("acme/sdxl-worker:2.1.0");
        request
            .container
            .env
            .insert("TOKEN".to_owned(), "zz-canary".into());
        request.gpu = Some(EndpointGpu::pools(["ADA_24", "AMPERE_24"]));
        request.workers = WorkerLimits {
            min: Some(0),
            max: Some(3),
            idle_timeout: Some(Duration::from_secs(10)),
        };
        assert_eq!(
            request.body().unwrap(),
            json!({"name": "atlas-sdxl", "type": "QUEUE", "image": "acme/sdxl-worker:2.1.0",
                "env": {"TOKEN": "zz-canary"},
                "gpu": {"pools": ["ADA_24", "AMPERE_24"]}, "scaling": {"type": "QUEUE_DELAY",
                    "queueDelay": 4},
                "workers": {"min": 0, "max": 3, "idleTimeout": 10}, "timeout": 300_000})
        );
        assert!(!format!("{request:?}").contains("zz-canary"));
    }

    #[test]
    fn an_endpoint_that_runpod_would_refuse_is_refused_here() {
        let good = || {
            let mut request = EndpointRequest::queue("n");
            request.container = Container::image("x");
            request.gpu = Some(EndpointGpu::pools(["ADA_24"]));
            request
        };
        good().body().unwrap();
        let cpu = || {
            vec![EndpointCpu {
                id: "cpu3g".to_owned(),
                vcpu_count: 2,
            }]
        };
        type Spoil = fn(&mut EndpointRequest);
        let table: [(&str, Spoil); 6] = [
            ("name", |r| r.name.clear()),
            ("gpu", |r| r.gpu = None),
            ("gpu", |r| r.gpu = Some(EndpointGpu::default())),
            ("image", |r| r.container = Container::default()),
            ("scaling", |r| r.kind = EndpointKind::LoadBalancer),
            ("idle_timeout", |r| {
                r.scaling = Scaling::RequestCount { request_count: 1 };
                r.workers.idle_timeout = Some(Duration::from_secs(5));
            }),
        ];
        for (field, spoil) in table {
            let mut request = good();
            spoil(&mut request);
            assert_eq!(request.body().unwrap_err().field(), Some(field));
        }
        assert!(
            EndpointRequest {
                cpu: cpu(),
                ..good()
            }
            .body()
            .is_err(),
            "both"
        );
        assert!(
            EndpointRequest {
                cpu: cpu(),
                gpu: None,
                ..good()
            }
            .body()
            .is_ok()
        );
    }

    #[test]
    fn an_endpoint_is_read_with_units_and_without_showing_its_environment() {
        let endpoint: Endpoint = serde_json::from_value(json!({
            "id": "e1", "name": "n", "type": "QUEUE", "image": "x", "env": {"A": "zz-canary"},
                "ports": ["80/http"], "disk": 20, "registry": null,
            "requestUrls": {"run": "https://api.runpod.ai/v2/e1/run"}, "gpu": {"pools": ["ADA_24"],
                "count": 1, "allowedCudaVersions": [], "minCudaVersion": null},
            "workers": {"min": 0, "max": 3, "idleTimeout": 10},
                "scaling": {"type": "SOMETHING_NEW", "x": 1}, "dataCenterIds": [],
            "networkVolumes": [], "timeout": 600_000, "flashboot": "OFF",
                "createdAt": "2026-09-03T10:15:22.607Z", "new": 1
        }))
        .unwrap();
        assert_eq!(
            (endpoint.timeout, endpoint.scaling),
            (Some(Duration::from_secs(600)), Scaling::Other)
        );
        assert!(!format!("{endpoint:?}").contains("zz-canary"));
        assert!(
            !serde_json::to_string(&endpoint)
                .unwrap()
                .contains("zz-canary")
        );
    }
}
