//! The RunPod provider: pods over REST v2, serverless jobs over the queue API.
//!
//! ```no_run
//! use atlas_core::{AnyProvider, CallContext, ComputeRequest, Gpu, LaunchKey, Port};
//! use atlas_provider_runpod::RunPod;
//!
//! # async fn run() -> atlas_core::Result<()> {
//! let runpod = AnyProvider::new(RunPod::from_env()?);
//! let cx = CallContext::new();
//! let request = ComputeRequest::gpu(Gpu::H100).image("ghcr.io/me/infer:1").port(Port::http(8000));
//! let best = runpod.candidates(&cx, &request).await?.remove(0);
//! let pod = runpod.spawn_compute(&cx, &LaunchKey::untracked(), &request.at(best)).await?;
//! println!("{:?}", pod.url(8000));
//! # Ok(()) }
//! ```
//!
//! Requests become RunPod JSON in `translate`; nothing outside this crate sees RunPod's field
//! names. Deliberately absent: retries and rate limits (`atlas-http` owns them), polling (the
//! orchestrator does), REST v1.

mod candidates;
mod catalogue;
mod check;
mod client;
mod config;
mod error;
#[cfg(feature = "graphql")]
mod graphql;
mod job_stream;
mod jobs;
mod logs;
mod pages;
mod proxy;
mod resources;
mod self_end;
mod sse;
mod support;
mod translate;
mod webhook;
mod wire;

use std::sync::Arc;

use atlas_core::{
    AccountLimits, BoxStream, CallContext, Candidate, Capabilities, Capability, Clock, CloudType,
    Compute, ComputeId, ComputeRequest, ComputeSpend, Entropy, Error, ErrorKind, GpuChoice,
    GpuType, Job, JobRef, JobRequest, LaunchKey, ListFilter, Listing, LogLine, LogQuery,
    NetworkVolume, Next, Outcome, Presence, Provider, ProviderId, Result, Secret, SpendQuery,
    Support, UnreadableRow, Usd, VolumeId, VolumeRequest,
};
use futures_util::future::try_join;
use serde_json::Value;

use client::Control;
#[cfg(feature = "graphql")]
pub use config::GRAPHQL_URL_ENV;
pub use config::{API_KEY_ENV, PROXY_URL_ENV, RUNTIME_URL_ENV, RunPodBuilder, URL_ENV};
use error::{Refusal, unread_create};
#[cfg(feature = "graphql")]
pub use graphql::Balance;
use jobs::Runtime;
pub use jobs::{EndpointHealth, JobCounts, S3Config, WorkerCounts};
use proxy::ProxyTemplate;
pub use resources::billing::{
    AccountBilling, BillingQuery, Bucket, ClusterBilling, PodBilling, PublicEndpointBilling,
    ServerlessBilling, VolumeBilling,
};
pub use resources::catalog::{
    CatalogCpu, CatalogCpuPrice, CatalogGpu, CatalogPrice, CpuRange, DataCentre, PlaceStock,
};
pub use resources::clusters::{Cluster, ClusterPods, ClusterShape};
pub use resources::container::Container;
pub use resources::endpoints::{
    Endpoint, EndpointCpu, EndpointGpu, EndpointKind, EndpointRequest, EndpointUpdate, Release,
    Releases, Rollout, Scaling, Worker, WorkerLimits, Workers,
};
pub use resources::pods::PodUpdate;
pub use resources::registries::{Delegation, Registry};
pub use resources::templates::{Template, TemplateSource, TemplateSpec};
use translate::Shape;
pub use webhook::{Callback, Webhooks};
use wire::read;

/// One RunPod account. Cheap to clone; clones share connections and pacing.
#[derive(Clone, Debug)]
pub struct RunPod {
    id: ProviderId,
    control: Control,
    runtime: Runtime,
    #[cfg(feature = "graphql")]
    graph: graphql::Graph,
    key: Secret,
    proxy: ProxyTemplate,
    limits: AccountLimits,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl RunPod {
    /// Reads `RUNPOD_API_KEY` and, if set, `ATLAS_RUNPOD_URL`, `ATLAS_RUNPOD_RUNTIME_URL` and
    /// `ATLAS_RUNPOD_PROXY_URL`.
    ///
    /// # Errors
    /// See [`RunPodBuilder::build`].
    pub fn from_env() -> Result<Self> {
        Self::builder()
            .environment(|name| std::env::var(name).ok())
            .build()
    }

    /// Starts building a provider.
    #[must_use]
    pub fn builder() -> RunPodBuilder {
        RunPodBuilder::default()
    }

    fn compute(&self, value: Value) -> Result<Compute> {
        translate::compute(&self.id, &self.proxy, value).map_err(UnreadableRow::into_error)
    }

    /// The shape of a create: the pinned candidate's, or the request's where it leaves no choice,
    /// or the best one in the catalogue. Only reads.
    async fn shape(&self, cx: &CallContext, request: &ComputeRequest) -> Result<Shape> {
        if let Some(pinned) = &request.candidate {
            let native_type = pinned
                .native_type
                .clone()
                .ok_or_else(|| Error::validation("candidate", "names no shape"))?;
            let tier = pinned.cloud_type.unwrap_or(request.cloud_type);
            let data_centres = pinned.region.clone().into_iter().collect();
            return Ok(Shape {
                native_type,
                cloud: candidates::cloud(tier),
                data_centres,
            });
        }
        let card = match request.gpu.as_ref() {
            Some(GpuChoice::Named(gpu)) if gpu.variants().len() == 1 => {
                catalogue::native(*gpu).map(str::to_owned)
            }
            Some(GpuChoice::Native(id)) => Some(id.clone()),
            _ => None,
        };
        let countries = request.region_hints.iter().any(|region| region.len() == 2);
        if let (Some(native_type), [tier], false) = (card, candidates::tiers(request), countries) {
            return Ok(Shape {
                native_type,
                cloud: candidates::cloud(*tier),
                data_centres: request.region_hints.clone(),
            });
        }
        let best = self.best(cx, request).await?;
        Ok(Shape {
            native_type: best.native_type.unwrap_or_default(),
            cloud: candidates::cloud(best.cloud_type.unwrap_or_default()),
            data_centres: best.region.into_iter().collect(),
        })
    }

    /// The best candidate. Only reads: whatever fails here, nothing was ordered.
    async fn best(&self, cx: &CallContext, request: &ComputeRequest) -> Result<Candidate> {
        let found = self
            .find_candidates(cx, "spawn_compute", request)
            .await
            .map_err(|error| match error.outcome() {
                Outcome::Unknown(_) => error.outcome_is(Outcome::NotApplied(Next::SameLater)),
                _ => error,
            })?;
        found.into_iter().next().ok_or_else(|| {
            let sold_out = Error::new(
                ErrorKind::NoCapacity,
                "the catalogue shows none of what was asked for",
            );
            sold_out.outcome_is(Outcome::NotApplied(Next::NextCandidate))
        })
    }

    #[cfg(feature = "graphql")]
    async fn pinned(&self, cx: &CallContext, request: &ComputeRequest) -> Result<Candidate> {
        match &request.candidate {
            Some(pinned) => Ok(pinned.clone()),
            None => self.best(cx, request).await,
        }
    }

    /// The price list with RunPod's spot prices, if the provider rents spot.
    #[cfg(feature = "graphql")]
    async fn with_bids(&self, cx: &CallContext, mut lines: Vec<GpuType>) -> Result<Vec<GpuType>> {
        if self.graph.spot {
            for tier in [CloudType::Secure, CloudType::Community] {
                let (bids, _) = self.graph.bids(cx, "list_gpu_types", tier, 1, None).await?;
                for line in lines
                    .iter_mut()
                    .filter(|line| line.cloud_type == Some(tier))
                {
                    line.spot_price = bids
                        .iter()
                        .find(|bid| bid.gpu == line.native_id)
                        .map(|bid| bid.price);
                }
            }
        }
        Ok(lines)
    }

    async fn find_candidates(
        &self,
        cx: &CallContext,
        operation: &'static str,
        request: &ComputeRequest,
    ) -> Result<Vec<Candidate>> {
        #[cfg(feature = "graphql")]
        if request.spot {
            return self.graph.candidates(cx, operation, request).await;
        }
        let regions = self.regions(cx, operation, request).await?;
        if let Some(vcpus) = request.cpu {
            let (flavours, complete) = self.control.cpus(cx, operation, vcpus).await?;
            let found = candidates::cpus(request, &regions, &flavours);
            return found.or_else(|error| known_refusal(error, complete));
        }
        let tier = |tier: CloudType| self.control.gpus(cx, operation, tier, request.gpu_count);
        let catalogue = match candidates::tiers(request) {
            [only] => vec![tier(*only).await?],
            _ => {
                let (secure, community) =
                    try_join(tier(CloudType::Secure), tier(CloudType::Community)).await?;
                vec![secure, community]
            }
        };
        let complete = catalogue.iter().all(|tier| tier.complete);
        let found = candidates::gpus(request, &regions, &catalogue);
        found.or_else(|error| known_refusal(error, complete))
    }

    /// The regions to search: the request's, or the data centre of its network volume, to which
    /// every pod is pinned.
    async fn regions(
        &self,
        cx: &CallContext,
        operation: &'static str,
        request: &ComputeRequest,
    ) -> Result<Vec<String>> {
        let Some(volume) = &request.network_volume_id else {
            return Ok(request.region_hints.clone());
        };
        let home = self
            .control
            .volume(cx, operation, volume.as_str())
            .await?
            .data_center;
        if home.is_empty() {
            let message = "the answer does not say where the network volume is";
            return Err(Error::new(ErrorKind::Provider, message)
                .outcome_is(Outcome::NotApplied(Next::SameLater)));
        }
        let wanted = |region: &String| *region == home || catalogue::country(&home) == Some(region);
        if !request.region_hints.is_empty() && !request.region_hints.iter().any(wanted) {
            return Err(Error::validation(
                "region_hints",
                format!("the network volume is in {home}, and in none of these"),
            ));
        }
        Ok(vec![home])
    }
}

/// A shape that the catalogue lacks is a refusal only if the whole catalogue was read; otherwise
/// there is nothing to try now.
fn known_refusal(error: Error, complete: bool) -> Result<Vec<Candidate>> {
    if complete { Err(error) } else { Ok(Vec::new()) }
}

impl Provider for RunPod {
    fn id(&self) -> &ProviderId {
        &self.id
    }

    fn capabilities(&self) -> Capabilities {
        let all: Capabilities = [
            Capability::Gpu,
            Capability::Cpu,
            Capability::ContainerImage,
            Capability::Templates,
            Capability::Stop,
            Capability::Start,
            Capability::Volume,
            Capability::ContainerDisk,
            Capability::NetworkVolumes,
            Capability::Serverless,
            Capability::JobStreaming,
            Capability::Webhooks,
            Capability::HttpProxy,
            Capability::RawTcp,
            Capability::SymmetricPorts,
            Capability::GlobalNetworking,
            Capability::Logs,
            Capability::Spend,
            Capability::CloudTypes,
            Capability::Regions,
            Capability::Prices,
            Capability::EndsWithCommand,
        ]
        .into();
        #[cfg(feature = "graphql")]
        let all = if self.graph.spot {
            all.with(Capability::Spot)
        } else {
            all
        };
        all
    }

    fn limits(&self) -> AccountLimits {
        self.limits
    }

    fn check(&self, request: &ComputeRequest) -> Result<()> {
        check::check(request)
    }

    fn supports(&self, key: &LaunchKey, request: &ComputeRequest) -> Result<Vec<Support>> {
        Ok(support::planned(key, request))
    }

    /// A keyed hash of the key, because REST v2 does not report its owner (docs/clouds/runpod.md,
    /// "The APIs"). Makes no call.
    async fn identity(&self, cx: &CallContext) -> Result<String> {
        let key = cx.api_key().unwrap_or(&self.key);
        let hmac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.expose().as_bytes());
        let tag = ring::hmac::sign(&hmac, b"atlas account identity, runpod");
        Ok(format!(
            "runpod-key-{}",
            data_encoding::HEXLOWER.encode(&tag.as_ref()[..16])
        ))
    }

    async fn candidates(
        &self,
        cx: &CallContext,
        request: &ComputeRequest,
    ) -> Result<Vec<Candidate>> {
        self.find_candidates(cx, "candidates", request).await
    }

    async fn spawn_compute(
        &self,
        cx: &CallContext,
        key: &LaunchKey,
        request: &ComputeRequest,
    ) -> Result<Compute> {
        #[cfg(feature = "graphql")]
        if request.spot {
            return self
                .graph
                .rent(cx, &self.id, key, request, &self.pinned(cx, request).await?)
                .await;
        }
        let shape = self.shape(cx, request).await?;
        let body = translate::create(cx.name_prefix(), key, request, &shape)?;
        let env = body
            .get("env")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        let secrets = env
            .filter_map(|(_, value)| value.as_str().map(Secret::from))
            .collect();
        let answer = self.control.create_pod(cx, &body, secrets).await?;
        let made = translate::computed(&self.id, &self.proxy, &answer);
        made.map_err(|cause| {
            unread_create(answer.bytes(), &cause).with_status(answer.status().as_u16())
        })
    }

    async fn get_compute(&self, cx: &CallContext, id: &ComputeId) -> Result<Compute> {
        let answer = self
            .control
            .pod(cx, "get_compute", id.as_str(), false)
            .await?;
        let read = translate::computed(&self.id, &self.proxy, &answer)?;
        if read.id == *id {
            Ok(read)
        } else {
            Err(answer.misunderstood("the answer is about another pod"))
        }
    }

    async fn list_compute(&self, cx: &CallContext, filter: &ListFilter) -> Result<Listing> {
        let read = |answer: &atlas_http::Answer| translate::page(&self.id, &self.proxy, answer);
        let walk = self
            .control
            .walk_with(cx, "list_compute", &["v2", "pods"], &[], read)
            .await?;
        Ok(Listing::of_walk(walk.items, walk.missing).filtered(filter))
    }

    async fn presence(&self, cx: &CallContext, id: &ComputeId) -> Presence {
        let answer = match self.control.pod(cx, "presence", id.as_str(), true).await {
            Ok(answer) => answer,
            Err(error) => return Presence::NoAnswer(error),
        };
        let refusal = Refusal::from(&answer);
        if refusal.says_no_pod() {
            return Presence::Absent;
        }
        if !answer.status().is_success() {
            return Presence::NoAnswer(refusal.into_error());
        }
        match answer.json::<Value>().and_then(|value| self.compute(value)) {
            Ok(pod) if pod.id != *id => {
                Presence::NoAnswer(answer.misunderstood("the answer is about another pod"))
            }
            // Terminated is final and frees everything: a pod never leaves this state.
            Ok(pod) if pod.status == atlas_core::ComputeStatus::Terminated => Presence::Absent,
            Ok(_) => Presence::Present,
            Err(error) => Presence::NoAnswer(error),
        }
    }

    async fn terminate(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        let Some(refusal) = self.control.delete_pod(cx, id.as_str()).await? else {
            return Ok(());
        };
        if !refusal.says_locked() {
            return Err(refusal.into_error());
        }
        self.control.unlock_pod(cx, id.as_str()).await?;
        self.control
            .delete_pod(cx, id.as_str())
            .await?
            .map_or(Ok(()), |refusal| Err(refusal.into_error()))
    }

    async fn list_gpu_types(&self, cx: &CallContext) -> Result<Vec<GpuType>> {
        let tier = |tier| self.control.gpus(cx, "list_gpu_types", tier, 1);
        let (secure, community) =
            try_join(tier(CloudType::Secure), tier(CloudType::Community)).await?;
        let lines = candidates::price_list(&self.id, &[secure, community], self.clock.now());
        #[cfg(feature = "graphql")]
        let lines = self.with_bids(cx, lines).await?;
        Ok(lines)
    }

    async fn stop(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        use atlas_core::ComputeStatus::{Failed, Stopped};
        self.act(cx, "stop", id, |status| matches!(status, Stopped | Failed))
            .await
    }

    async fn start(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        use atlas_core::ComputeStatus::{Provisioning, Running};
        self.act(cx, "start", id, |status| {
            matches!(status, Provisioning | Running)
        })
        .await
    }

    async fn logs(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        query: &LogQuery,
    ) -> Result<BoxStream<Result<LogLine>>> {
        self.open_log(cx, logs::Owner::Pod(id.to_string()), query)
            .await
    }

    async fn run_job(&self, cx: &CallContext, request: &JobRequest) -> Result<Job> {
        self.runtime.run(cx, request).await
    }

    async fn get_job(&self, cx: &CallContext, job: &JobRef) -> Result<Job> {
        self.runtime.get(cx, job).await
    }

    async fn cancel_job(&self, cx: &CallContext, job: &JobRef) -> Result<Job> {
        self.runtime.cancel(cx, job).await
    }

    async fn stream_job(&self, cx: &CallContext, job: &JobRef) -> Result<BoxStream<Result<Value>>> {
        Ok(job_stream::open(
            self.runtime.clone(),
            cx.clone(),
            job.clone(),
        ))
    }

    async fn list_network_volumes(&self, cx: &CallContext) -> Result<Vec<NetworkVolume>> {
        self.volumes(cx).await
    }

    async fn create_network_volume(
        &self,
        cx: &CallContext,
        request: &VolumeRequest,
    ) -> Result<NetworkVolume> {
        self.create_volume(cx, request).await
    }

    async fn delete_network_volume(&self, cx: &CallContext, id: &VolumeId) -> Result<()> {
        self.delete_volume(cx, id).await
    }

    async fn compute_spend(
        &self,
        cx: &CallContext,
        query: &SpendQuery,
    ) -> Result<Vec<ComputeSpend>> {
        let mut parameters = vec![
            ("startTime", query.start.to_string()),
            ("endTime", query.end.to_string()),
            ("bucketSize", "hour".to_owned()),
        ];
        parameters.extend(query.id.as_ref().map(|id| ("podId", id.to_string())));
        let walk = self
            .control
            .walk(
                cx,
                "compute_spend",
                &["v2", "billing", "pods"],
                &parameters,
                "records",
            )
            .await?;
        let odd = || {
            Error::new(
                ErrorKind::Provider,
                "a billing record in the answer has no usable pod, span or amount",
            )
        };
        let row = |value: &Value| {
            let row: wire::PodSpend = read(value)?;
            Ok(ComputeSpend {
                id: ComputeId::new(&row.pod_id).map_err(|_| odd())?,
                start: row.start_time.parse().map_err(|_| odd())?,
                end: row.end_time.parse().map_err(|_| odd())?,
                amount: Usd::from_f64(row.total_amount).ok_or_else(odd)?,
            })
        };
        walk.whole()?.iter().map(row).collect()
    }
}

impl RunPod {
    /// Requests a transition. A refusal because of the state is a success if the pod is in the
    /// requested state.
    async fn act(
        &self,
        cx: &CallContext,
        action: &'static str,
        id: &ComputeId,
        reached: impl Fn(&atlas_core::ComputeStatus) -> bool,
    ) -> Result<()> {
        if self.control.act(cx, action, id.as_str(), action).await? {
            return Ok(());
        }
        let pod = self.compute(
            self.control
                .pod(cx, action, id.as_str(), false)
                .await?
                .json()?,
        )?;
        if reached(&pod.status) {
            return Ok(());
        }
        let message = format!("a pod that is {} does not {action}", pod.status);
        Err(Error::new(ErrorKind::Conflict, message)
            .outcome_is(Outcome::NotApplied(Next::Stop))
            .with_status(409))
    }

    async fn open_log(
        &self,
        cx: &CallContext,
        owner: logs::Owner,
        query: &LogQuery,
    ) -> Result<BoxStream<Result<LogLine>>> {
        let (client, entropy) = (self.control.0.clone(), self.entropy.clone());
        logs::open(logs::Source {
            client,
            cx: cx.clone(),
            entropy,
            owner,
            query: query.clone(),
        })
        .await
    }

    /// Polls until a job ends, and returns it with its result before the cloud deletes that.
    ///
    /// # Errors
    /// `not_found` when the cloud does not know the job (any more); otherwise like any read. A
    /// failed job is not an error here.
    ///
    /// # Cancel safety
    /// Cancel safe: the job continues.
    pub async fn wait_job(&self, cx: &CallContext, job: &JobRef) -> Result<Job> {
        self.runtime
            .wait(cx, job, None)
            .await
            .map_err(|error| error.during(&self.id, "wait_job"))
    }

    /// Like [`RunPod::wait_job`], but also reads the job as soon as its callback arrives. Polling
    /// continues, because a callback may be lost.
    ///
    /// # Errors
    /// Like [`RunPod::wait_job`].
    ///
    /// # Cancel safety
    /// Cancel safe: the job continues.
    pub async fn wait_job_called_back(
        &self,
        cx: &CallContext,
        job: &JobRef,
        callback: &Callback,
    ) -> Result<Job> {
        self.runtime
            .wait(cx, job, Some(&callback.wake))
            .await
            .map_err(|error| error.during(&self.id, "wait_job"))
    }

    /// Runs a failed or timed-out job again with its id; its old result is lost. Class `Create`.
    ///
    /// # Errors
    /// Like [`Provider::run_job`]; `validation` or `conflict` for a job in another state.
    ///
    /// # Cancel safety
    /// Not cancel safe: a dropped call may have started the job.
    pub async fn retry_job(&self, cx: &CallContext, job: &JobRef) -> Result<Job> {
        self.runtime
            .retry(cx, job)
            .await
            .map_err(|error| error.during(&self.id, "retry_job"))
    }

    /// Removes the jobs of an endpoint that no worker has started; returns their number.
    ///
    /// # Errors
    /// Like any idempotent call.
    ///
    /// # Cancel safety
    /// A dropped call may have taken effect.
    pub async fn purge_queue(&self, cx: &CallContext, endpoint: &str) -> Result<u64> {
        self.runtime
            .purge(cx, endpoint)
            .await
            .map_err(|error| error.during(&self.id, "purge_queue"))
    }

    /// The state of an endpoint's queue and workers.
    ///
    /// # Errors
    /// Like any read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn endpoint_health(
        &self,
        cx: &CallContext,
        endpoint: &str,
    ) -> Result<EndpointHealth> {
        self.runtime
            .health(cx, endpoint)
            .await
            .map_err(|error| error.during(&self.id, "endpoint_health"))
    }
}
