//! The Vast.ai provider: containers on hosts of a market, on demand or by bid, each rented with one
//! call for one offer.
//!
//! ```no_run
//! use atlas_core::{AnyProvider, CallContext, ComputeRequest, Gpu, LaunchKey, Next, Outcome, Port};
//! use atlas_provider_vast::Vast;
//!
//! # async fn run() -> atlas_core::Result<()> {
//! let vast = AnyProvider::new(Vast::from_env()?);
//! let cx = CallContext::new();
//! let request = ComputeRequest::gpu(Gpu::Rtx4090).image("ghcr.io/me/infer:1").port(Port::http(8000));
//! for offer in vast.candidates(&cx, &request).await? {
//!     // Offers vanish between the search and the order: then the next one's turn has come.
//!     match vast.spawn_compute(&cx, &LaunchKey::untracked(), &request.clone().at(offer)).await {
//!         Ok(machine) => return Ok(println!("{}", machine.id)),
//!         Err(error) if *error.outcome() == Outcome::NotApplied(Next::NextCandidate) => {}
//!         // Anything else may have left a machine: its outcome says which.
//!         Err(error) => return Err(error),
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! Deliberately absent: serverless, bulk and server-side rentals (partial results), virtual
//! machines, and operations of hosts.

mod candidates;
mod catalogue;
mod check;
mod client;
mod config;
mod error;
mod logs;
mod memory;
mod place;
mod policy;
mod resources;
mod searches;
mod support;
mod translate;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{
    AccountLimits, BoxStream, CallContext, Candidate, Capabilities, Capability, Compute, ComputeId,
    ComputeRequest, ComputeSpend, Error, ErrorKind, GpuType, LaunchKey, ListFilter, Listing,
    LogLine, LogQuery, Next, Outcome, Presence, Provider, ProviderId, Result, SpendQuery, Support,
    Timestamp, Usd,
};
use atlas_http::{Connection, lenient, merge_json};

use client::Cloud;
pub use config::{API_KEY_ENV, URL_ENV, VastBuilder};
use memory::Memory;
pub use policy::OfferPolicy;
pub use resources::{SshKey, Volume, VolumeOffer};
use searches::{FRESH, FRESH_PRICES, Found, Searches};

/// How many times a new machine is read to compare it with its order, and the waits in between: for
/// some seconds the read may find nothing.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// The maximum time of one read, because the caller of the order waits for it.
const LOOK: Duration = Duration::from_secs(5);

/// One Vast account. Cheap to clone; clones share connections, pacing, and the memory of hosts that
/// failed.
#[derive(Clone, Debug)]
pub struct Vast {
    id: ProviderId,
    cloud: Cloud,
    connection: Connection,
    policy: OfferPolicy,
    memory: Memory,
    searches: Searches,
    limits: AccountLimits,
}

impl Vast {
    /// Reads `VAST_API_KEY` and, if set, `ATLAS_VAST_URL`.
    ///
    /// # Errors
    /// See [`VastBuilder::build`].
    pub fn from_env() -> Result<Self> {
        Self::builder()
            .environment(|name| std::env::var(name).ok())
            .build()
    }

    /// Starts building a provider.
    #[must_use]
    pub fn builder() -> VastBuilder {
        VastBuilder::default()
    }

    fn policy<'a>(&'a self, cx: &'a CallContext) -> &'a OfferPolicy {
        cx.extension::<OfferPolicy>().unwrap_or(&self.policy)
    }

    async fn offered(&self, cx: &CallContext, request: &ComputeRequest) -> Result<Vec<Candidate>> {
        let policy = self.policy(cx);
        let search = policy::Search::of(request, policy, candidates::disk(request)).into_value();
        let found = self.searches.find(&self.cloud, cx, &search, FRESH).await?;
        found.check()?;
        Ok(candidates::candidates(
            found.offers(),
            request,
            policy,
            &self.memory,
        ))
    }

    /// Deletes what a refused order left behind. An accepted deletion is no proof, so the ids
    /// remain in the error, and the orchestrator proves that they are gone.
    async fn swept(&self, cx: &CallContext, error: Error) -> Error {
        let Outcome::Unknown(leaked) = error.outcome().clone() else {
            return error;
        };
        // The id that a 5xx leaks may be the ordered machine, and there may be others: the caller
        // of the order has to find out.
        if leaked.is_empty() || error.status().is_none_or(|status| status >= 500) {
            return error;
        }
        for id in &leaked {
            // Refused or not, the machine is not proved gone.
            let _ = self.terminate(cx, id).await;
        }
        not_as_ordered(error, leaked)
    }

    /// Compares a new machine with its order. One that differs is destroyed; one that cannot be
    /// read yet is left alone.
    async fn compared(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        request: &ComputeRequest,
        wants_bid: bool,
    ) -> Result<()> {
        let brief = cx
            .clone()
            .with_retries(0)
            .with_timeout(cx.timeout().map_or(LOOK, |whole| whole.min(LOOK)));
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
            let raw = match self.cloud.instance(&brief, id.as_str()).await {
                Ok((Some(raw), _)) => raw,
                Ok((None, _)) => continue,
                // The id is the only handle, so a failed read must not lose it.
                Err(_) => return Ok(()),
            };
            let Some(differs) = translate::mismatch(&raw, request, wants_bid) else {
                return Ok(());
            };
            if let Some(machine) = raw["machine_id"].as_u64() {
                self.memory.host_failed(machine);
            }
            let _ = self.terminate(cx, id).await;
            let error = Error::new(
                ErrorKind::NoCapacity,
                format!("what was delivered is {differs}"),
            );
            return Err(not_as_ordered(error, vec![id.clone()]));
        }
        Ok(())
    }
}

/// Another offer may work. These machines were made nevertheless, and their deletion was requested.
/// Neither that nor a read that finds nothing proves that they are gone: for seconds after a create
/// there is nothing to read (docs/clouds/vast.md).
fn not_as_ordered(cause: Error, ids: Vec<ComputeId>) -> Error {
    let error =
        Error::new(ErrorKind::NoCapacity, cause.message()).outcome_is(Outcome::Unwanted(ids));
    cause.status().into_iter().fold(error, Error::with_status)
}

/// The error for an empty search.
fn no_offer() -> Error {
    Error::new(ErrorKind::NoCapacity, "no offer fits")
        .outcome_is(Outcome::NotApplied(Next::NextCandidate))
}

impl Provider for Vast {
    fn id(&self) -> &ProviderId {
        &self.id
    }

    fn capabilities(&self) -> Capabilities {
        [
            Capability::Gpu,
            Capability::Spot,
            Capability::ContainerImage,
            Capability::Templates,
            Capability::Stop,
            Capability::Start,
            Capability::ContainerDisk,
            Capability::RawTcp,
            Capability::Logs,
            Capability::Spend,
            Capability::CloudTypes,
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

    async fn identity(&self, cx: &CallContext) -> Result<String> {
        Ok(format!("vast-user-{}", self.cloud.user(cx).await?.id))
    }

    async fn candidates(
        &self,
        cx: &CallContext,
        request: &ComputeRequest,
    ) -> Result<Vec<Candidate>> {
        self.offered(cx, request).await
    }

    async fn spawn_compute(
        &self,
        cx: &CallContext,
        key: &LaunchKey,
        request: &ComputeRequest,
    ) -> Result<Compute> {
        let found;
        let request = if request.candidate.is_some() {
            request
        } else {
            let offers = self
                .offered(cx, request)
                .await
                .map_err(Error::before_the_order)?;
            found = request
                .clone()
                .at(offers.into_iter().next().ok_or_else(no_offer)?);
            &found
        };
        let (ask, bid) = translate::pinned(request)?;
        let order = translate::create(cx, key, request, bid);
        let secrets = request.environment(key).into_values().collect();
        let mut body = serde_json::to_value(&order).map_err(|error| {
            Error::validation("request", "cannot be written").with_source(error)
        })?;
        if !request.provider_opts.is_null() {
            merge_json(&mut body, &request.provider_opts);
        }
        self.searches.ordered(&ask);
        let created = match self.cloud.create(cx, &ask, &body, secrets).await {
            Ok(created) => created,
            Err(error) => return Err(self.swept(cx, error).await),
        };
        let unread = || {
            Error::new(
                ErrorKind::Provider,
                "vast returned an instance id that is not a number",
            )
            .outcome_is(Outcome::Unknown(Vec::new()))
        };
        let id = ComputeId::new(created.new_contract.to_string()).map_err(|_| unread())?;
        self.compared(cx, &id, request, body["price"].is_number())
            .await?;
        Ok(translate::ordered(&self.id, id, &order, request))
    }

    async fn get_compute(&self, cx: &CallContext, id: &ComputeId) -> Result<Compute> {
        match self.cloud.instance(cx, id.as_str()).await? {
            (Some(raw), answer) => match translate::compute(&self.id, raw, &self.memory) {
                Ok(compute) if compute.id == *id => Ok(compute),
                Ok(_) => Err(answer.misunderstood("the answer is about another instance")),
                Err(row) => Err(row.into_error()),
            },
            (None, _) => Err(Error::new(ErrorKind::NotFound, "there is no such instance")
                .outcome_is(Outcome::NotApplied(Next::Stop))),
        }
    }

    async fn list_compute(&self, cx: &CallContext, filter: &ListFilter) -> Result<Listing> {
        let walk = self.cloud.instances(cx).await?;
        let rows = walk
            .items
            .into_iter()
            .map(|raw| translate::compute(&self.id, raw, &self.memory));
        Ok(Listing::of_walk(rows, walk.missing).filtered(filter))
    }

    /// Absent means `{"instances": null}`, or a 404 that names the instance and not the key.
    async fn presence(&self, cx: &CallContext, id: &ComputeId) -> Presence {
        match self.cloud.instance(cx, id.as_str()).await {
            Ok((None, _)) => Presence::Absent,
            Ok((Some(raw), _))
                if lenient::opt_number::<_, u64>(&raw["id"])
                    .is_ok_and(|own| own.is_some_and(|own| own.to_string() == id.as_str())) =>
            {
                Presence::Present
            }
            Ok((Some(_), answer)) => {
                Presence::NoAnswer(answer.misunderstood("the answer is about another instance"))
            }
            Err(error) => Presence::NoAnswer(error),
        }
    }

    async fn terminate(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        self.cloud.destroy(cx, id.as_str()).await?;
        self.memory.gone(id);
        Ok(())
    }

    /// The cheapest offers of each GPU in the catalogue; `spot_price` is the minimum bid.
    async fn list_gpu_types(&self, cx: &CallContext) -> Result<Vec<GpuType>> {
        let policy = self.policy(cx);
        let mut found = Vec::new();
        for group in catalogue::GROUPS {
            let mut search = policy::Search::new(false, 8)
                .among("gpu_name", group.iter().copied())
                .at_least("reliability", policy.min_reliability);
            if policy.verified {
                search = search.is("verified", true);
            }
            let search = search.into_value();
            let searches = self.searches.find(&self.cloud, cx, &search, FRESH_PRICES);
            found.push(searches.await?);
        }
        let offers: Vec<_> = found.iter().flat_map(Found::offers).collect();
        if offers.is_empty() {
            // An empty result differs from one in which nothing could be read.
            found.iter().try_for_each(Found::check)?;
        }
        let at = found.iter().map(|found| found.at).min();
        let Some(at) = at else {
            return Ok(Vec::new());
        };
        Ok(candidates::gpu_types(&self.id, offers, at))
    }

    async fn stop(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        // Recorded before the call, because its effect may be visible before its answer arrives.
        self.memory.stopped(id);
        self.cloud
            .set_state(cx, "stop", id.as_str(), "stopped")
            .await
            .map(drop)
    }

    /// A start that would wait for its GPU is undone: it would bill whenever the GPU becomes free.
    async fn start(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        self.memory.started(id);
        let waits = match self
            .cloud
            .set_state(cx, "start", id.as_str(), "running")
            .await
        {
            Ok(answer) => String::from_utf8_lossy(answer.bytes())
                .to_lowercase()
                .contains(error::QUEUED),
            Err(error) if error.kind() == ErrorKind::NoCapacity => true,
            Err(error) => return Err(error),
        };
        if !waits {
            return Ok(());
        }
        self.memory.stopped(id);
        let taken = Error::new(
            ErrorKind::NoCapacity,
            "the offer was rented by another user",
        );
        match self
            .cloud
            .set_state(cx, "stop", id.as_str(), "stopped")
            .await
        {
            Ok(_) => Err(taken.outcome_is(Outcome::NotApplied(Next::Stop))),
            Err(error) => Err(taken
                .outcome_is(Outcome::Unknown(vec![id.clone()]))
                .with_source(error)),
        }
    }

    async fn logs(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        query: &LogQuery,
    ) -> Result<BoxStream<Result<LogLine>>> {
        logs::read((&self.cloud, &self.connection), cx, id.as_str(), query).await
    }

    async fn compute_spend(
        &self,
        cx: &CallContext,
        query: &SpendQuery,
    ) -> Result<Vec<ComputeSpend>> {
        // Whole seconds: the last one is rounded up, or what was billed in it would be missing.
        let until = (query.end.unix_millis() + 999).div_euclid(1000);
        let charges = self
            .cloud
            .charges(cx, query.start.unix_seconds(), until)
            .await?;
        let mut spent: BTreeMap<(ComputeId, i64, i64), Usd> = BTreeMap::new();
        for charge in charges {
            let named = charge
                .source
                .as_deref()
                .and_then(|source| source.strip_prefix("instance-"))
                .map(ComputeId::new);
            let Some(Ok(id)) = named else { continue };
            if query.id.as_ref().is_some_and(|wanted| *wanted != id) {
                continue;
            }
            let amount = Usd::from_f64(charge.amount).ok_or_else(|| {
                Error::new(ErrorKind::Provider, "a charge is not an amount of money")
                    .outcome_is(Outcome::NotApplied(Next::Stop))
            })?;
            let sum = spent.entry((id, charge.start, charge.end)).or_default();
            *sum = sum.saturating_add(amount);
        }
        let at = Timestamp::from_unix_seconds;
        Ok(spent
            .into_iter()
            .map(|((id, start, end), amount)| ComputeSpend {
                id,
                start: at(start),
                end: at(end),
                amount,
            })
            .collect())
    }
}
