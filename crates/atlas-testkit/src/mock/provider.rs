//! Implements the provider contract over the world.

use std::fmt;
use std::time::Duration;

use atlas_core::{
    AccountLimits, BoxStream, CallContext, Candidate, Capabilities, Capability, Compute, ComputeId,
    ComputeRequest, ComputeSpend, Error, ErrorKind, GpuType, Job, JobMode, JobRef, JobRequest,
    JobStatus, LaunchKey, ListFilter, Listing, LogLine, LogQuery, LogSource, MemorySize,
    NetworkVolume, Next, Outcome, Presence, Provider, ProviderId, Result, RetryClass, Secret,
    SpendQuery, Support, UnreadableRow, VolumeId, VolumeRequest,
};
use serde_json::Value;

use super::call::Call;
use super::job::MockJob;
use super::lines::{Look, Polled};
use super::{CLOUD, ENDPOINT, MockCloud, TEMPLATE, translate};
use crate::world::{Account, Arrival, CloudSpec, LogEntry, Machine, MachineState, World};

/// The longest a synchronous submit is held, unless it says otherwise.
const SYNC_WAIT: Duration = Duration::from_secs(90);

/// One account of a mock cloud.
#[derive(Clone)]
pub(super) struct MockProvider {
    id: ProviderId,
    cloud: MockCloud,
    key: Secret,
}

impl fmt::Debug for MockProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockProvider").finish_non_exhaustive()
    }
}

impl MockProvider {
    pub(super) fn new(cloud: MockCloud, key: Secret) -> Self {
        Self {
            id: ProviderId::new(CLOUD).expect("lower-case letters"),
            cloud,
            key,
        }
    }

    pub(super) fn cloud(&self) -> &MockCloud {
        &self.cloud
    }

    pub(super) fn key(&self) -> &Secret {
        &self.key
    }

    fn world(&self) -> &World {
        self.cloud.world()
    }

    fn spec(&self) -> Result<CloudSpec> {
        self.world()
            .cloud(CLOUD)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "the world has no mock cloud"))
    }

    fn describe(&self, machine: &Machine) -> Result<Compute> {
        translate::compute(&self.id, &self.spec()?, machine, self.world().now())
    }

    /// A machine as a read tells it: by a description that may have been rewritten.
    fn read_back(&self, machine: &Machine) -> Result<Result<Compute, UnreadableRow>> {
        let compute = self.describe(machine)?;
        let rewrite = self.cloud.belongings().rewrite.clone();
        Ok(match rewrite {
            None => Ok(compute),
            Some(rewrite) => translate::rewritten(&compute, &rewrite),
        })
    }

    /// A point read, with the answer's meaning left to the caller.
    async fn read(&self, cx: &CallContext, id: &ComputeId) -> Result<Option<Compute>> {
        let call = Call::new("get_compute", RetryClass::Safe).about(id.as_str());
        call.make(self, cx, |account, with| {
            self.world()
                .machine(CLOUD, account, id.as_str(), with)
                .map(|machine| self.read_back(&machine)?.map_err(UnreadableRow::into_error))
                .transpose()
        })
        .await
    }

    fn order(
        &self,
        account: &Account,
        with: &Arrival,
        prefix: &str,
        key: &LaunchKey,
        request: &ComputeRequest,
    ) -> Result<Compute> {
        let mut request = request.clone();
        if request
            .template_id
            .as_deref()
            .is_some_and(|template| template != TEMPLATE)
        {
            return Err(Error::validation(
                "template_id",
                "there is no such template",
            ));
        }
        if let Some(id) = &request.network_volume_id {
            let volumes = &self.cloud.belongings().volumes;
            let volume = volumes
                .get(id.as_str())
                .filter(|(owner, _)| owner == account.as_str());
            let Some((_, volume)) = volume else {
                return Err(Error::validation(
                    "network_volume_id",
                    "there is no such volume",
                ));
            };
            request.region_hints = vec![volume.region.clone()];
        }
        let known = |region: &String| self.spec().is_ok_and(|spec| spec.region(region).is_some());
        if !request.region_hints.iter().all(known) {
            return Err(Error::validation("region_hints", "there is no such region"));
        }
        let sold_out = || {
            let error =
                Error::new(ErrorKind::NoCapacity, "nothing left that fits").with_status(409);
            error.outcome_is(Outcome::NotApplied(Next::NextCandidate))
        };
        let pinned = request.candidate.clone();
        let candidate = pinned
            .or_else(|| {
                translate::candidates(self.world(), &request)
                    .into_iter()
                    .next()
            })
            .ok_or_else(sold_out)?;
        let spec = translate::order(prefix, key, &request, &candidate);
        let made = self.world().create_machine(CLOUD, account, spec, with);
        self.describe(&made.map_err(|refusal| translate::refused(&refusal))?)
    }

    fn log_lines(
        &self,
        account: &Account,
        id: &ComputeId,
        source: Option<LogSource>,
    ) -> Option<Vec<LogLine>> {
        let line = |entry: LogEntry| LogLine {
            timestamp: Some(entry.at),
            source: entry.source,
            text: entry.line,
        };
        let entries = self.world().log_of(CLOUD, account, id.as_str(), source)?;
        Some(entries.into_iter().map(line).collect())
    }

    /// The job of this address, if the account has it.
    fn job(&self, account: &Account, address: &JobRef) -> Result<MockJob> {
        let belongings = self.cloud.belongings();
        let job = belongings.jobs.get(address.id.as_str());
        job.filter(|job| job.account == account.as_str() && job.is_of(&address.endpoint))
            .cloned()
            .ok_or_else(|| gone("job"))
    }
}

fn gone(what: &str) -> Error {
    let error =
        Error::new(ErrorKind::NotFound, format!("there is no such {what}")).with_status(404);
    error.outcome_is(Outcome::NotApplied(Next::Stop))
}

#[deny(clippy::missing_trait_methods)]
impl Provider for MockProvider {
    fn id(&self) -> &ProviderId {
        &self.id
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::from([
            Capability::Gpu,
            Capability::Cpu,
            Capability::Spot,
            Capability::ContainerImage,
            Capability::Templates,
            Capability::Stop,
            Capability::Start,
            Capability::Volume,
            Capability::ContainerDisk,
            Capability::NetworkVolumes,
            Capability::Serverless,
            Capability::JobStreaming,
            Capability::HttpProxy,
            Capability::RawTcp,
            Capability::SymmetricPorts,
            Capability::Logs,
            Capability::Spend,
            Capability::CloudTypes,
            Capability::Regions,
            Capability::Prices,
            Capability::ExitCodes,
            Capability::EndsWithCommand,
        ])
    }

    fn limits(&self) -> AccountLimits {
        self.cloud.limits.unwrap_or_else(|| {
            let bound = self
                .spec()
                .map(|spec| spec.visibility_bound)
                .unwrap_or_default();
            AccountLimits {
                visibility_bound: self.world().clock().real(bound),
                call_deadline: Duration::from_secs(30),
                call_interval: Duration::from_millis(1),
                burst: 1000,
                concurrency: 1000,
            }
        })
    }

    fn check(&self, _request: &ComputeRequest) -> Result<()> {
        Ok(())
    }

    fn supports(&self, key: &LaunchKey, request: &ComputeRequest) -> Result<Vec<Support>> {
        if !self.cloud.supporting || request.ports.is_empty() {
            return Ok(Vec::new());
        }
        let name = format!("{}-ip", key.machine_name("", None));
        Ok(vec![Support {
            kind: "address".to_owned(),
            name,
            id: None,
            spec: Value::Null,
        }])
    }

    async fn identity(&self, cx: &CallContext) -> Result<String> {
        Call::new("identity", RetryClass::Safe)
            .make(self, cx, |account, _| {
                Ok(format!("{CLOUD}:{}", account.as_str()))
            })
            .await
    }

    async fn candidates(
        &self,
        cx: &CallContext,
        request: &ComputeRequest,
    ) -> Result<Vec<Candidate>> {
        let call = Call::new("list_gpu_types", RetryClass::Safe);
        call.make(self, cx, |_, _| {
            Ok(translate::candidates(self.world(), request))
        })
        .await
    }

    async fn spawn_compute(
        &self,
        cx: &CallContext,
        key: &LaunchKey,
        request: &ComputeRequest,
    ) -> Result<Compute> {
        let call = Call::new("spawn_compute", RetryClass::Create);
        call.make(self, cx, |account, with| {
            self.order(account, with, cx.name_prefix(), key, request)
        })
        .await
    }

    async fn get_compute(&self, cx: &CallContext, id: &ComputeId) -> Result<Compute> {
        self.read(cx, id).await?.ok_or_else(|| gone("machine"))
    }

    async fn list_compute(&self, cx: &CallContext, filter: &ListFilter) -> Result<Listing> {
        let call = Call::new("list_compute", RetryClass::Safe);
        let listed = call.make(self, cx, |account, with| {
            let machines = self.world().machines(CLOUD, account, with);
            machines
                .iter()
                .map(|machine| self.read_back(machine))
                .collect::<Result<Vec<_>>>()
        });
        let mut rows = listed.await?;
        let mut belongings = self.cloud.belongings();
        let mut missing = None;
        if belongings.broken_listings > 0 {
            belongings.broken_listings -= 1;
            rows.truncate(rows.len() / 2);
            missing = Some("the second page failed".to_owned());
        }
        Ok(Listing::of_walk(rows, missing).filtered(filter))
    }

    async fn presence(&self, cx: &CallContext, id: &ComputeId) -> Presence {
        match self.read(cx, id).await {
            Ok(Some(_)) => Presence::Present,
            // The mock's own word: a point read that finds nothing, with a good key, is proof.
            Ok(None) => Presence::Absent,
            Err(error) => Presence::NoAnswer(error),
        }
    }

    async fn terminate(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        let call = Call::new("terminate", RetryClass::Idempotent).about(id.as_str());
        let ended = call.make(self, cx, |account, _| {
            self.world()
                .destroy(CLOUD, account, id.as_str())
                .map_err(|refusal| translate::refused(&refusal))
        });
        ended.await.or_else(|error| {
            if error.kind() == ErrorKind::NotFound {
                Ok(())
            } else {
                Err(error)
            }
        })
    }

    async fn list_gpu_types(&self, cx: &CallContext) -> Result<Vec<GpuType>> {
        let call = Call::new("list_gpu_types", RetryClass::Safe);
        call.make(self, cx, |_, _| {
            let mut lines = Vec::new();
            for shape in self.spec()?.shapes.iter().filter(|shape| shape.vram_gb > 0) {
                for (name, tier) in &shape.tiers {
                    for (region, free) in self.world().stock(CLOUD, &shape.native, name) {
                        let mut line = GpuType::new(
                            self.id.clone(),
                            shape.native.clone(),
                            MemorySize::gib(shape.vram_gb),
                            self.world().now(),
                        );
                        line.gpu = shape.gpu;
                        line.display_name.clone_from(&shape.name);
                        line.cloud_type = translate::cloud_type(name);
                        line.region = Some(region);
                        line.price = Some(tier.price);
                        line.spot_price = Some(tier.price);
                        line.stock = Some(crate::world::stock_level(free));
                        line.max_count = Some(tier.max_count);
                        lines.push(line);
                    }
                }
            }
            Ok(lines)
        })
        .await
    }

    async fn stop(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        let call = Call::new("stop", RetryClass::Idempotent).about(id.as_str());
        call.make(self, cx, |account, _| {
            let stopped = self.world().stop(CLOUD, account, id.as_str());
            stopped
                .map(drop)
                .map_err(|refusal| translate::refused(&refusal))
        })
        .await
    }

    async fn start(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        let call = Call::new("start", RetryClass::Idempotent).about(id.as_str());
        call.make(self, cx, |account, with| {
            let started = self.world().start(CLOUD, account, id.as_str(), with);
            started
                .map(drop)
                .map_err(|refusal| translate::refused(&refusal))
        })
        .await
    }

    async fn ensure_support(
        &self,
        cx: &CallContext,
        _key: &LaunchKey,
        support: &Support,
    ) -> Result<Support> {
        let call = Call::new("ensure_support", RetryClass::Idempotent);
        call.make(self, cx, |_, _| {
            let mut belongings = self.cloud.belongings();
            let id = format!("sup-{}", belongings.next());
            let place = (support.kind.clone(), support.name.clone());
            let made = belongings.supports.entry(place).or_insert_with(|| Support {
                id: Some(id),
                ..support.clone()
            });
            Ok(made.clone())
        })
        .await
    }

    async fn release_support(&self, cx: &CallContext, support: &Support) -> Result<()> {
        let call = Call::new("release_support", RetryClass::Idempotent);
        call.make(self, cx, |_, _| {
            self.cloud
                .belongings()
                .supports
                .remove(&(support.kind.clone(), support.name.clone()));
            Ok(())
        })
        .await
    }

    async fn logs(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        query: &LogQuery,
    ) -> Result<BoxStream<Result<LogLine>>> {
        let call = Call::new("logs", RetryClass::Safe).about(id.as_str());
        let account = call
            .make(self, cx, |account, _| Ok(account.clone()))
            .await?;
        let mut lines = self
            .log_lines(&account, id, query.source)
            .ok_or_else(|| gone("machine"))?;
        let mut seen = lines.len();
        match (query.since, query.tail) {
            (Some(since), _) => lines.retain(|line| line.timestamp.is_some_and(|at| at >= since)),
            (None, Some(tail)) => drop(lines.drain(..lines.len().saturating_sub(tail as usize))),
            (None, None) => {}
        }
        let (this, id, query) = (self.clone(), id.clone(), query.clone());
        let mut first = Some(lines);
        Ok(Box::pin(Polled::new(Duration::from_secs(1), move || {
            if let Some(lines) = first.take() {
                return Look {
                    items: lines.into_iter().map(Ok).collect(),
                    more: query.follow,
                };
            }
            let lines = this.log_lines(&account, &id, query.source);
            let fresh: Vec<_> = lines
                .as_ref()
                .map(|lines| lines[seen.min(lines.len())..].to_vec())
                .unwrap_or_default();
            seen += fresh.len();
            let runs = this
                .world()
                .truth(CLOUD, id.as_str())
                .is_some_and(|machine| {
                    matches!(
                        machine.state,
                        MachineState::Provisioning | MachineState::Starting | MachineState::Running
                    )
                });
            Look {
                more: runs || !fresh.is_empty(),
                items: fresh.into_iter().map(Ok).collect(),
            }
        })))
    }

    async fn run_job(&self, cx: &CallContext, request: &JobRequest) -> Result<Job> {
        let call = Call::new("run_job", RetryClass::Create);
        let job = call.make(self, cx, |account, _| {
            if request.endpoint != ENDPOINT {
                return Err(gone("endpoint"));
            }
            let mut belongings = self.cloud.belongings();
            let id = format!("job-{}", belongings.next());
            let job = MockJob::new(
                id.clone(),
                account.as_str().to_owned(),
                request,
                self.world().now(),
            );
            belongings.jobs.insert(id, job.clone());
            job.describe(&self.id, self.world().now())
        });
        let mut job = job.await?;
        if request.mode == JobMode::Sync {
            let address = JobRef {
                endpoint: job.endpoint.clone(),
                id: job.id.clone(),
            };
            let deadline = tokio::time::Instant::now() + request.timeout.unwrap_or(SYNC_WAIT);
            while !job.status.is_terminal() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(100)).await;
                job = self.get_job(cx, &address).await?;
            }
        }
        Ok(job)
    }

    async fn get_job(&self, cx: &CallContext, job: &JobRef) -> Result<Job> {
        let call = Call::new("get_job", RetryClass::Safe);
        call.make(self, cx, |account, _| {
            self.job(account, job)?
                .describe(&self.id, self.world().now())
        })
        .await
    }

    async fn cancel_job(&self, cx: &CallContext, job: &JobRef) -> Result<Job> {
        let call = Call::new("cancel_job", RetryClass::Idempotent);
        call.make(self, cx, |account, _| {
            self.job(account, job)?;
            let now = self.world().now();
            let mut belongings = self.cloud.belongings();
            let held = belongings
                .jobs
                .get_mut(job.id.as_str())
                .ok_or_else(|| gone("job"))?;
            held.cancel(now);
            held.describe(&self.id, now)
        })
        .await
    }

    async fn stream_job(&self, cx: &CallContext, job: &JobRef) -> Result<BoxStream<Result<Value>>> {
        let call = Call::new("stream_job", RetryClass::Safe);
        let account = call
            .make(self, cx, |account, _| {
                self.job(account, job).map(|_| account.clone())
            })
            .await?;
        let (this, address) = (self.clone(), job.clone());
        let mut taken = 0;
        Ok(Box::pin(Polled::new(
            Duration::from_millis(500),
            move || {
                let now = this.world().now();
                let held = match this.job(&account, &address) {
                    Ok(held) => held,
                    Err(error) => {
                        return Look {
                            items: vec![Err(error)],
                            more: false,
                        };
                    }
                };
                let chunks = held.chunks(now);
                let mut items: Vec<Result<Value>> =
                    chunks[taken..].iter().cloned().map(Ok).collect();
                taken = chunks.len();
                let status = held.status(now);
                if status.is_terminal() && status != JobStatus::Completed {
                    let why = held
                        .failure()
                        .filter(|_| status == JobStatus::Failed)
                        .unwrap_or_default();
                    items.push(Err(Error::new(
                        ErrorKind::Provider,
                        format!("the job ended as {status} {why}")
                            .trim_end()
                            .to_owned(),
                    )));
                }
                Look {
                    items,
                    more: !status.is_terminal(),
                }
            },
        )))
    }

    async fn list_network_volumes(&self, cx: &CallContext) -> Result<Vec<NetworkVolume>> {
        let call = Call::new("list_network_volumes", RetryClass::Safe);
        call.make(self, cx, |account, _| {
            let belongings = self.cloud.belongings();
            let mine = belongings
                .volumes
                .values()
                .filter(|(owner, _)| owner == account.as_str());
            Ok(mine.map(|(_, volume)| volume.clone()).collect())
        })
        .await
    }

    async fn create_network_volume(
        &self,
        cx: &CallContext,
        request: &VolumeRequest,
    ) -> Result<NetworkVolume> {
        let call = Call::new("create_network_volume", RetryClass::Create);
        call.make(self, cx, |account, _| {
            if self.spec()?.region(&request.region).is_none() {
                return Err(Error::validation("region", "there is no such region"));
            }
            let mut belongings = self.cloud.belongings();
            let id = format!("vol-{}", belongings.next());
            let volume = NetworkVolume::new(
                VolumeId::new(&id)?,
                request.name.clone(),
                request.size,
                request.region.clone(),
            );
            belongings
                .volumes
                .insert(id, (account.as_str().to_owned(), volume.clone()));
            Ok(volume)
        })
        .await
    }

    async fn delete_network_volume(&self, cx: &CallContext, id: &VolumeId) -> Result<()> {
        let call = Call::new("delete_network_volume", RetryClass::Idempotent);
        call.make(self, cx, |account, _| {
            let mounted = |machine: &crate::world::Machine| {
                machine.is_live()
                    && machine.spec.extra["network_volume_id"].as_str() == Some(id.as_str())
            };
            if self.world().all(CLOUD).iter().any(mounted) {
                let error = Error::new(ErrorKind::Conflict, "a machine mounts it").with_status(409);
                return Err(error.outcome_is(Outcome::NotApplied(Next::Stop)));
            }
            let mut belongings = self.cloud.belongings();
            if belongings
                .volumes
                .get(id.as_str())
                .is_some_and(|(owner, _)| owner == account.as_str())
            {
                belongings.volumes.remove(id.as_str());
            }
            Ok(())
        })
        .await
    }

    /// One row for each machine that began in the span, with all it has cost by now.
    async fn compute_spend(
        &self,
        cx: &CallContext,
        query: &SpendQuery,
    ) -> Result<Vec<ComputeSpend>> {
        let call = Call::new("compute_spend", RetryClass::Safe);
        call.make(self, cx, |account, _| {
            let now = self.world().now();
            let machines = self.world().all(CLOUD);
            let asked = machines.iter().filter(|machine| {
                machine.account == account.as_str()
                    && query.id.as_ref().is_none_or(|id| id.as_str() == machine.id)
                    && (query.start..query.end).contains(&machine.created_at)
            });
            asked
                .map(|machine| {
                    Ok(ComputeSpend {
                        id: ComputeId::new(&machine.id)?,
                        start: machine.created_at,
                        end: machine.destroyed_at.unwrap_or(now),
                        amount: machine.billed(now),
                    })
                })
                .collect()
        })
        .await
    }
}
