//! The Lambda Cloud provider: on-demand VMs, an image run as a container on one, and rule sets that
//! open its ports.
//!
//! ```no_run
//! use atlas_core::{AnyProvider, CallContext, ComputeRequest, Gpu, LaunchKey, Port};
//! use atlas_provider_lambda::Lambda;
//!
//! # async fn run() -> atlas_core::Result<()> {
//! let lambda = AnyProvider::new(Lambda::from_env()?);
//! let cx = CallContext::new();
//! let request = ComputeRequest::gpu(Gpu::A10).image("ghcr.io/me/infer:1").port(Port::http(8000));
//! let best = lambda.candidates(&cx, &request).await?.remove(0);
//! let machine = lambda.spawn_compute(&cx, &LaunchKey::untracked(), &request.at(best)).await?;
//! println!("{}", machine.id);
//! # Ok(()) }
//! ```
//!
//! Deliberately absent: stop and start (Lambda has neither), and the end of a container (the API
//! never reports it; a callback does).

mod candidates;
mod catalogue;
mod check;
mod client;
mod cloud_init;
mod config;
mod error;
mod network;
mod resources;
mod support;
mod translate;
mod wire;

use std::sync::Arc;

use atlas_core::{
    AccountLimits, CallContext, Candidate, Capabilities, Capability, Clock, Compute, ComputeId,
    ComputeRequest, ComputeStatus, DiskSize, Error, ErrorKind, GpuType, LaunchKey, ListFilter,
    Listing, NetworkVolume, Next, Outcome, Presence, Provider, ProviderId, Result, Secret, Support,
    UnreadableRow, VolumeId, VolumeRequest,
};
use atlas_http::merge_json;
use serde_json::Value;

use client::Cloud;
pub use config::{API_KEY_ALIAS_ENV, API_KEY_ENV, LambdaBuilder, SSH_KEY_ENV, URL_ENV};
pub use network::{FirewallRule, Region};
pub use resources::{AuditEvent, AuditQuery, FileSystem, FirewallRuleset, Image, SshKey};

/// One Lambda account. Cheap to clone; clones share connections and pacing.
#[derive(Clone, Debug)]
pub struct Lambda {
    id: ProviderId,
    cloud: Cloud,
    key: Secret,
    ssh_key: Option<String>,
    limits: AccountLimits,
    clock: Arc<dyn Clock>,
}

impl Lambda {
    /// Reads `LAMBDA_LABS_API_KEY` (or `LAMBDA_API_KEY`) and, if set, `ATLAS_LAMBDA_URL` and
    /// `ATLAS_LAMBDA_SSH_KEY`.
    ///
    /// # Errors
    /// See [`LambdaBuilder::build`].
    pub fn from_env() -> Result<Self> {
        Self::builder()
            .environment(|name| std::env::var(name).ok())
            .build()
    }

    /// Starts building a provider.
    #[must_use]
    pub fn builder() -> LambdaBuilder {
        LambdaBuilder::default()
    }

    /// Reboots a machine. Its container does not start again by itself, because cloud-init runs
    /// once.
    ///
    /// # Errors
    /// `conflict` when its state does not allow it.
    pub async fn restart(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        self.cloud
            .restart(cx, id.as_str())
            .await
            .map_err(|error| error.during(&self.id, "restart"))
    }

    /// The candidates of a request, best first. The price list determines what can be ordered; a
    /// region that is missing in it is looked up before it counts as sold out.
    async fn placed(
        &self,
        cx: &CallContext,
        operation: &'static str,
        request: &ComputeRequest,
    ) -> Result<Vec<Candidate>> {
        let types = self.cloud.instance_types(cx, operation).await?;
        let not_shown = candidates::hints_not_shown(&types, request);
        if !not_shown.is_empty() {
            let known = self.cloud.regions(cx, operation).await?;
            candidates::check_regions(&not_shown, &known)?;
        }
        let mut found = candidates::candidates(&types, request)?;
        if let Some(gb) = self.mounted(cx, operation, request).await? {
            for candidate in &mut found {
                let whole = |price| candidates::with_file_system(price, gb);
                candidate.price = candidate.price.map(whole);
            }
        }
        Ok(found)
    }

    /// The size in GB of the data on the file system that a request mounts, if it mounts one.
    async fn mounted(
        &self,
        cx: &CallContext,
        operation: &'static str,
        request: &ComputeRequest,
    ) -> Result<Option<u32>> {
        let Some(id) = &request.network_volume_id else {
            return Ok(None);
        };
        let found = self.cloud.file_systems(cx, operation).await?;
        translate::mounted_gb(id, found.usable()?).map(Some)
    }

    /// A launch must name exactly one key, even if SSH is never used. A configured key is not
    /// checked first: a launch with a wrong one is refused.
    async fn ssh_key(&self, cx: &CallContext) -> Result<String> {
        match &self.ssh_key {
            Some(name) => Ok(name.clone()),
            None => self.ssh_key_of_account(cx).await,
        }
    }
}

impl Provider for Lambda {
    fn id(&self) -> &ProviderId {
        &self.id
    }

    fn capabilities(&self) -> Capabilities {
        [
            Capability::Gpu,
            Capability::Cpu,
            Capability::ContainerImage,
            Capability::NetworkVolumes,
            Capability::RawTcp,
            Capability::Regions,
            Capability::Prices,
        ]
        .into()
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

    /// A keyed hash of the key, because no operation reports its owner, combined with the visible
    /// workspace unless that is the account's default. A key that was moved to another workspace
    /// sees other machines, and none of the earlier ones.
    async fn identity(&self, cx: &CallContext) -> Result<String> {
        let workspace = match self.cloud.global_rules(cx).await? {
            Some(name) => translate::workspace(&name),
            None => None,
        };
        let key = cx.api_key().unwrap_or(&self.key);
        let hmac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.expose().as_bytes());
        let tag = ring::hmac::sign(&hmac, b"atlas account identity, lambda");
        let name = format!(
            "lambda-key-{}",
            data_encoding::HEXLOWER.encode(&tag.as_ref()[..16])
        );
        Ok(match workspace {
            None => name,
            Some(workspace) => format!("{name}, workspace {workspace}"),
        })
    }

    async fn candidates(
        &self,
        cx: &CallContext,
        request: &ComputeRequest,
    ) -> Result<Vec<Candidate>> {
        self.placed(cx, "candidates", request).await
    }

    async fn spawn_compute(
        &self,
        cx: &CallContext,
        key: &LaunchKey,
        request: &ComputeRequest,
    ) -> Result<Compute> {
        let pinned;
        let request = if request.candidate.is_some() {
            request
        } else {
            let found = self
                .placed(cx, "spawn_compute types", request)
                .await
                .map_err(Error::before_the_order)?;
            let sold_out = || {
                let error = Error::new(
                    ErrorKind::NoCapacity,
                    "no region has a free machine of that type",
                );
                error.outcome_is(Outcome::NotApplied(Next::NextCandidate))
            };
            pinned = request
                .clone()
                .at(found.into_iter().next().ok_or_else(sold_out)?);
            &pinned
        };
        let ssh_key = self.ssh_key(cx).await?;
        let mounted = self
            .mounted(cx, "spawn_compute file-systems", request)
            .await
            .map_err(Error::before_the_order)?;
        let ruleset = self.ruleset(cx, key, request).await?;
        let mut launch = translate::launch(cx, key, request, &ssh_key, ruleset)?;
        if let Some(gb) = mounted {
            translate::note_file_system(&mut launch, gb);
        }
        let secrets = cloud_init::spellings(&request.environment(key));
        let mut body = serde_json::to_value(&launch).map_err(|error| {
            Error::validation("request", "cannot be written").with_source(error)
        })?;
        if !request.provider_opts.is_null() {
            merge_json(&mut body, &request.provider_opts);
        }
        let answer = self.cloud.launch(cx, &body, secrets).await?;
        let ids = Cloud::launched(&answer)
            .map_err(|error| error.outcome_is(Outcome::Unknown(Vec::new())))?
            .instance_ids;
        let ids: Vec<ComputeId> = ids
            .iter()
            .filter_map(|id| ComputeId::new(id).ok())
            .collect();
        match &ids[..] {
            // No read follows: a failed read must never lose the id, which is the only handle.
            [id] => Ok(translate::launched(&self.id, id.clone(), &launch, request)),
            _ => Err(Error::new(
                ErrorKind::Provider,
                "a launch of one machine answered with another number of ids",
            )
            .outcome_is(Outcome::Unknown(ids))),
        }
    }

    async fn get_compute(&self, cx: &CallContext, id: &ComputeId) -> Result<Compute> {
        let answer = self
            .cloud
            .instance(cx, "get_compute", id.as_str(), false)
            .await?;
        let read = translate::compute(&self.id, answer.json::<wire::Envelope<Value>>()?.data)
            .map_err(UnreadableRow::into_error)?;
        if read.id == *id {
            Ok(read)
        } else {
            Err(answer.misunderstood("the answer is about another instance"))
        }
    }

    async fn list_compute(&self, cx: &CallContext, filter: &ListFilter) -> Result<Listing> {
        let walk = self.cloud.instances(cx).await?;
        let rows = walk
            .items
            .into_iter()
            .map(|raw| translate::compute(&self.id, raw));
        Ok(Listing::of_walk(rows, walk.missing).filtered(filter))
    }

    /// Absent means a 404 from Lambda itself, or `terminated` or `preempted` in an answer about
    /// this id.
    async fn presence(&self, cx: &CallContext, id: &ComputeId) -> Presence {
        let answer = match self.cloud.instance(cx, "presence", id.as_str(), true).await {
            Ok(answer) => answer,
            Err(error) => return Presence::NoAnswer(error),
        };
        if !answer.status().is_success() {
            return error::gone(&answer).map_or_else(Presence::NoAnswer, |()| Presence::Absent);
        }
        match answer.json::<wire::Envelope<Value>>().and_then(|envelope| {
            translate::compute(&self.id, envelope.data).map_err(UnreadableRow::into_error)
        }) {
            Ok(compute) if compute.id != *id => {
                Presence::NoAnswer(answer.misunderstood("the answer is about another instance"))
            }
            Ok(compute) if compute.status == ComputeStatus::Terminated => Presence::Absent,
            Ok(_) => Presence::Present,
            Err(error) => Presence::NoAnswer(error),
        }
    }

    /// One id per call. A 404 from Lambda itself is a success.
    async fn terminate(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        error::gone(&self.cloud.terminate(cx, id.as_str()).await?)
    }

    async fn list_gpu_types(&self, cx: &CallContext) -> Result<Vec<GpuType>> {
        let types = self.cloud.instance_types(cx, "list_gpu_types").await?;
        Ok(candidates::gpu_types(&self.id, &types, self.clock.now()))
    }

    async fn ensure_support(
        &self,
        cx: &CallContext,
        _key: &LaunchKey,
        support: &Support,
    ) -> Result<Support> {
        self.ensure_ruleset(cx, support).await
    }

    async fn release_support(&self, cx: &CallContext, support: &Support) -> Result<()> {
        self.release_ruleset(cx, support).await
    }

    async fn list_network_volumes(&self, cx: &CallContext) -> Result<Vec<NetworkVolume>> {
        let found = self.cloud.file_systems(cx, "list_network_volumes").await?;
        found
            .usable()?
            .into_iter()
            .map(translate::file_system)
            .collect()
    }

    /// Lambda's file systems grow with their contents: a requested size is not a limit, and is
    /// refused if it exceeds the maximum.
    async fn create_network_volume(
        &self,
        cx: &CallContext,
        request: &VolumeRequest,
    ) -> Result<NetworkVolume> {
        let plain = request.name.starts_with(|c: char| c.is_ascii_alphabetic())
            && request.name.len() <= 60
            && request
                .name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !plain {
            return Err(Error::validation(
                "name",
                "must be 1 to 60 letters, digits and -, beginning with a letter",
            ));
        }
        let body = wire::CreateFileSystem {
            name: &request.name,
            region: &request.region,
        };
        let made = translate::file_system(self.cloud.create_file_system(cx, &body).await?)?;
        Ok(NetworkVolume::new(
            made.id,
            made.name,
            DiskSize::gb(request.size.as_gb()),
            made.region,
        ))
    }

    async fn delete_network_volume(&self, cx: &CallContext, id: &VolumeId) -> Result<()> {
        let existing = self
            .cloud
            .file_systems(cx, "delete_network_volume find")
            .await?;
        match existing
            .rows
            .iter()
            .find(|file_system| file_system.id == id.as_str() || file_system.name == id.as_str())
        {
            Some(file_system) => self.cloud.delete_file_system(cx, &file_system.id).await,
            // It may be the one that could not be read.
            None => existing
                .unreadable
                .into_iter()
                .next()
                .map_or(Ok(()), |row| Err(row.into_error())),
        }
    }
}
