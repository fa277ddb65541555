//! A provider of an in-house cloud: what `docs/guides/writing-a-provider.md` explains, line by
//! line.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas::{
    AccountLimits, CallContext, Candidate, Capabilities, Capability, Compute, ComputeId,
    ComputeRequest, ComputeStatus, Error, ErrorKind, GpuType, KeyCarriers, LaunchKey, ListFilter,
    Listing, Next, Outcome, Presence, Provider, ProviderId, Result, Secret, Usd, UsdPerHour,
};
use serde_json::{Value, json};

use super::room::Room;

const PRICE_PER_CPU: UsdPerHour = UsdPerHour::new(Usd::from_cents(2));
const MOST_CPUS: u32 = 16;

/// The provider: one account of the machine room.
#[derive(Debug)]
pub(crate) struct InHouse {
    id: ProviderId,
    room: Room, // yours holds an HTTP client and a base URL here
    key: Secret,
}

impl InHouse {
    pub(crate) fn new(room: &Room, key: &str) -> Result<Self> {
        Ok(Self {
            id: ProviderId::new("in-house")?,
            room: room.clone(),
            key: Secret::new(key),
        })
    }

    /// Makes one call, once, and says what its answer means.
    async fn call(
        &self,
        cx: &CallContext,
        operation: &str,
        id: &str,
        body: Value,
    ) -> Result<Value> {
        let key = cx.api_key().unwrap_or(&self.key).expose();
        let limit = cx.timeout().unwrap_or(self.limits().call_deadline);
        let (kind, outcome) =
            match tokio::time::timeout(limit, self.room.http(key, operation, id, body)).await {
                Err(_) => (ErrorKind::Timeout, Outcome::Unknown(vec![])),
                Ok(None) => (ErrorKind::Transport, Outcome::Unknown(vec![])),
                Ok(Some((200, answer))) if !answer.is_null() => return Ok(answer),
                Ok(Some((401, _))) => (ErrorKind::Unauthorized, Outcome::NotApplied(Next::Stop)),
                Ok(Some((400 | 422, _))) => {
                    (ErrorKind::Validation, Outcome::NotApplied(Next::Stop))
                }
                Ok(Some((404, _))) => (ErrorKind::NotFound, Outcome::NotApplied(Next::Stop)),
                Ok(Some((409, _))) => (
                    ErrorKind::NoCapacity,
                    Outcome::NotApplied(Next::NextCandidate),
                ),
                Ok(Some((429, _))) => {
                    (ErrorKind::RateLimited, Outcome::NotApplied(Next::SameLater))
                }
                Ok(Some((500.., _))) => (ErrorKind::Unavailable, Outcome::Unknown(vec![])),
                Ok(Some(_)) => (ErrorKind::Provider, Outcome::Unknown(vec![])), // also a 200 that cannot be read
            };
        Err(Error::new(kind, "the machine room did not answer with a result").outcome_is(outcome))
    }

    fn compute(&self, machine: &Value) -> Result<Compute> {
        let text = |field: &str| machine[field].as_str();
        let (Some(id), Some(name), Some(state)) = (
            text("id").and_then(|id| ComputeId::new(id).ok()),
            text("name"),
            text("state"),
        ) else {
            return Err(
                Error::new(ErrorKind::Provider, "not a machine's description")
                    .outcome_is(Outcome::Unknown(vec![])),
            );
        };
        let mut compute = Compute::new(id, self.id.clone(), ComputeStatus::from(state));
        compute.keys = KeyCarriers::name_and_tag(name, text("tag"));
        compute.name = Some(name.to_owned());
        compute.image = text("image").map(str::to_owned);
        compute.cost_per_hour = machine["cpus"]
            .as_u64()
            .and_then(|n| Some(PRICE_PER_CPU.times(u32::try_from(n).ok()?)));
        Ok(compute)
    }
}

impl Provider for InHouse {
    fn id(&self) -> &ProviderId {
        &self.id
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::from([
            Capability::Cpu,
            Capability::ContainerImage,
            Capability::Prices,
        ])
    }

    fn limits(&self) -> AccountLimits {
        AccountLimits {
            visibility_bound: Duration::from_secs(2),
            ..AccountLimits::default()
        }
    }

    fn check(&self, request: &ComputeRequest) -> Result<()> {
        let options = request
            .provider_opts
            .as_object()
            .is_some_and(|options| !options.is_empty());
        match (request.memory, options) {
            (Some(_), _) => Err(Error::unsupported(
                "memory",
                "a machine's memory cannot be chosen here",
            )),
            (_, true) => Err(Error::unsupported(
                "provider_opts",
                "the machine room has no options",
            )),
            _ => Ok(()),
        }
    }

    async fn identity(&self, cx: &CallContext) -> Result<String> {
        let account = self.call(cx, "identity", "", Value::Null).await?;
        account
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::new(ErrorKind::Provider, "no account in the answer"))
    }

    async fn candidates(
        &self,
        _: &CallContext,
        request: &ComputeRequest,
    ) -> Result<Vec<Candidate>> {
        let mut candidate = Candidate::default();
        candidate.price = request.cpu.map(|cpus| PRICE_PER_CPU.times(cpus));
        Ok(if request.cpu.is_some_and(|cpus| cpus <= MOST_CPUS) {
            vec![candidate]
        } else {
            vec![]
        })
    }

    async fn spawn_compute(
        &self,
        cx: &CallContext,
        key: &LaunchKey,
        request: &ComputeRequest,
    ) -> Result<Compute> {
        let env: BTreeMap<_, _> = request
            .environment(key)
            .into_iter()
            .map(|(n, v)| (n, v.expose().to_owned()))
            .collect();
        let order = json!({
            "name": key.machine_name(cx.name_prefix(), request.name.as_deref()), "tag": key.tracked(),
            "cpus": request.cpu, "image": request.image, "command": request.command, "env": env,
        });
        self.compute(&self.call(cx, "spawn_compute", "", order).await?)
    }

    async fn get_compute(&self, cx: &CallContext, id: &ComputeId) -> Result<Compute> {
        self.compute(
            &self
                .call(cx, "get_compute", id.as_str(), Value::Null)
                .await?,
        )
    }

    async fn list_compute(&self, cx: &CallContext, filter: &ListFilter) -> Result<Listing> {
        let answer = self.call(cx, "list_compute", "", Value::Null).await?;
        let rows = answer
            .as_array()
            .ok_or_else(|| Error::new(ErrorKind::Provider, "not a list"))?;
        let computes: Vec<_> = rows
            .iter()
            .filter_map(|row| self.compute(row).ok())
            .collect();
        let whole = computes.len() == rows.len();
        let listing = if whole {
            Listing::complete(computes)
        } else {
            Listing::incomplete(computes, "a row cannot be read")
        };
        Ok(listing.filtered(filter))
    }

    async fn presence(&self, cx: &CallContext, id: &ComputeId) -> Presence {
        match self.get_compute(cx, id).await {
            Ok(_) => Presence::Present,
            Err(error) if error.kind() == ErrorKind::NotFound => Presence::Absent,
            Err(error) => Presence::NoAnswer(error),
        }
    }

    async fn terminate(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        match self.call(cx, "terminate", id.as_str(), Value::Null).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn list_gpu_types(&self, _: &CallContext) -> Result<Vec<GpuType>> {
        Ok(vec![])
    }
}
