//! A provider that repeats what it was sent in its errors, as clouds do: the sabotage
//! `leak-secret`.

use atlas_core::{
    AccountLimits, AnyProvider, BoxStream, CallContext, Candidate, Capabilities, Compute,
    ComputeId, ComputeRequest, ComputeSpend, Error, GpuType, Job, JobRef, JobRequest, LaunchKey,
    ListFilter, Listing, LogLine, LogQuery, NetworkVolume, Presence, Provider, ProviderId, Result,
    SpendQuery, Support, VolumeId, VolumeRequest,
};
use serde_json::Value;

/// A provider that cannot keep a secret.
#[derive(Debug)]
pub(crate) struct Leaky(pub(crate) AnyProvider);

macro_rules! forward {
    ($($op:ident($($arg:ident: &$ty:ty),*) -> $out:ty;)*) => {$(
        async fn $op(&self, cx: &CallContext $(, $arg: &$ty)*) -> $out {
            self.0.$op(cx $(, $arg)*).await
        }
    )*};
}

#[deny(clippy::missing_trait_methods)]
impl Provider for Leaky {
    fn id(&self) -> &ProviderId {
        self.0.id()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn limits(&self) -> AccountLimits {
        self.0.limits()
    }

    fn check(&self, request: &ComputeRequest) -> Result<()> {
        self.0.check(request)
    }

    fn supports(&self, key: &LaunchKey, request: &ComputeRequest) -> Result<Vec<Support>> {
        self.0.supports(key, request)
    }

    async fn spawn_compute(
        &self,
        cx: &CallContext,
        key: &LaunchKey,
        request: &ComputeRequest,
    ) -> Result<Compute> {
        self.0
            .spawn_compute(cx, key, request)
            .await
            .map_err(|error| {
                let sent: Vec<&str> = request.env.values().map(|value| value.expose()).collect();
                Error::new(
                    error.kind(),
                    format!("{}, you sent {}", error.message(), sent.join(" ")),
                )
                .outcome_is(error.outcome().clone())
            })
    }

    forward! {
        identity() -> Result<String>;
        candidates(request: &ComputeRequest) -> Result<Vec<Candidate>>;
        get_compute(id: &ComputeId) -> Result<Compute>;
        list_compute(filter: &ListFilter) -> Result<Listing>;
        presence(id: &ComputeId) -> Presence;
        terminate(id: &ComputeId) -> Result<()>;
        list_gpu_types() -> Result<Vec<GpuType>>;
        stop(id: &ComputeId) -> Result<()>;
        start(id: &ComputeId) -> Result<()>;
        ensure_support(key: &LaunchKey, support: &Support) -> Result<Support>;
        release_support(support: &Support) -> Result<()>;
        logs(id: &ComputeId, query: &LogQuery) -> Result<BoxStream<Result<LogLine>>>;
        compute_spend(query: &SpendQuery) -> Result<Vec<ComputeSpend>>;
    }

    async fn run_job(&self, cx: &CallContext, request: &JobRequest) -> Result<Job> {
        group(self.0.jobs())?.run_job(cx, request).await
    }

    async fn get_job(&self, cx: &CallContext, job: &JobRef) -> Result<Job> {
        group(self.0.jobs())?.get_job(cx, job).await
    }

    async fn cancel_job(&self, cx: &CallContext, job: &JobRef) -> Result<Job> {
        group(self.0.jobs())?.cancel_job(cx, job).await
    }

    async fn stream_job(&self, cx: &CallContext, job: &JobRef) -> Result<BoxStream<Result<Value>>> {
        group(self.0.jobs())?.stream_job(cx, job).await
    }

    async fn list_network_volumes(&self, cx: &CallContext) -> Result<Vec<NetworkVolume>> {
        group(self.0.network_volumes())?
            .list_network_volumes(cx)
            .await
    }

    async fn create_network_volume(
        &self,
        cx: &CallContext,
        request: &VolumeRequest,
    ) -> Result<NetworkVolume> {
        group(self.0.network_volumes())?
            .create_network_volume(cx, request)
            .await
    }

    async fn delete_network_volume(&self, cx: &CallContext, id: &VolumeId) -> Result<()> {
        group(self.0.network_volumes())?
            .delete_network_volume(cx, id)
            .await
    }
}

fn group<T>(group: Option<T>) -> Result<T> {
    group.ok_or_else(|| Error::unsupported("group", "this provider cannot do that"))
}
