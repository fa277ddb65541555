//! A provider of an in-house cloud: what `docs/guides/writing-a-provider.md` explains, line by
//! line.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas::{
    AccountLimits, CallContext, Candidate, Capabilities, Capability, Compute, ComputeId,
    ComputeRequest, ComputeStatus, Error, ErrorKind, GpuType, KeyCarriers, LaunchKey, ListFilter,
    Listing, Next, Outcome, Presence, Provider, ProviderId, Result, Secret, UnreadableRow, Usd,
    UsdPerHour,
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
        let sent = self.room.http(key, operation, id, body);
        let (status, answer) = match tokio::time::timeout(limit, sent).await {
            Ok(Some(answered)) => answered,
            Ok(None) => return Err(failed(ErrorKind::Transport, None)),
            Err(_) => return Err(failed(ErrorKind::Timeout, None)),
        };
        let error = match status {
            200 if !answer.is_null() => return Ok(answer),
            400 | 422 => failed(ErrorKind::Validation, Some(Next::Stop)),
            401 => failed(ErrorKind::Unauthorized, Some(Next::Stop)),
            402 => failed(ErrorKind::Quota, Some(Next::Stop)),
            404 => failed(ErrorKind::NotFound, Some(Next::Stop)),
            409 => failed(ErrorKind::NoCapacity, Some(Next::NextCandidate)),
            429 => failed(ErrorKind::RateLimited, Some(Next::SameLater)),
            500.. => failed(ErrorKind::Unavailable, None),
            _ => failed(ErrorKind::Provider, None), // also a 200 that cannot be read
        };
        Err(match answer["retry_after"].as_u64() {
            Some(seconds) => error.with_retry_after(Duration::from_secs(seconds)),
            None => error,
        })
    }

    /// Reads one machine. Only its id is needed: what else is missing or odd counts as not told.
    fn compute(&self, row: &Value) -> Result<Compute, UnreadableRow> {
        let text = |field: &str| row[field].as_str();
        let id = text("id").and_then(|id| ComputeId::new(id).ok());
        let id = id.ok_or_else(|| UnreadableRow::of(row, "id: is not an id"))?;
        let state = ComputeStatus::from(text("state").unwrap_or("unknown"));
        let mut compute = Compute::new(id, self.id.clone(), state);
        compute.keys = KeyCarriers::name_and_tag(text("name").unwrap_or_default(), text("tag"));
        compute.name = text("name").map(str::to_owned);
        compute.image = text("image").map(str::to_owned);
        let cpus = row["cpus"]
            .as_u64()
            .and_then(|cpus| u32::try_from(cpus).ok());
        compute.cost_per_hour = cpus.map(|cpus| PRICE_PER_CPU.times(cpus));
        Ok(compute)
    }
}

/// A call that failed: what to do next where nothing was done, `None` where nobody knows.
fn failed(kind: ErrorKind, next: Option<Next>) -> Error {
    let outcome = next.map_or_else(|| Outcome::Unknown(vec![]), Outcome::NotApplied);
    Error::new(kind, "the machine room did not answer with a result").outcome_is(outcome)
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
        let options = request.provider_opts.as_object();
        if request.memory.is_some() {
            return Err(Error::unsupported(
                "memory",
                "the size of a machine's memory is fixed",
            ));
        }
        if options.is_some_and(|options| !options.is_empty()) {
            return Err(Error::unsupported(
                "provider_opts",
                "the machine room has no options",
            ));
        }
        Ok(())
    }

    async fn identity(&self, cx: &CallContext) -> Result<String> {
        let account = self.call(cx, "identity", "", Value::Null).await?;
        let account = account.as_str().map(str::to_owned);
        account.ok_or_else(|| Error::new(ErrorKind::Provider, "no account in the answer"))
    }

    async fn candidates(&self, _: &CallContext, order: &ComputeRequest) -> Result<Vec<Candidate>> {
        let Some(cpus) = order.cpu.filter(|cpus| *cpus <= MOST_CPUS) else {
            return Ok(vec![]);
        };
        let mut candidate = Candidate::default();
        candidate.price = Some(PRICE_PER_CPU.times(cpus));
        Ok(vec![candidate])
    }

    async fn spawn_compute(
        &self,
        cx: &CallContext,
        key: &LaunchKey,
        request: &ComputeRequest,
    ) -> Result<Compute> {
        let env = request.environment(key);
        let env: BTreeMap<_, _> = env
            .iter()
            .map(|(name, value)| (name, value.expose()))
            .collect();
        let order = json!({
            "name": key.machine_name(cx.name_prefix(), request.name.as_deref()),
            "tag": key.tracked(), "env": env,
            "cpus": request.cpu, "image": request.image, "command": request.command,
        });
        let made = self.call(cx, "spawn_compute", "", order).await?;
        self.compute(&made)
            .map_err(|_| failed(ErrorKind::Provider, None))
    }

    async fn get_compute(&self, cx: &CallContext, id: &ComputeId) -> Result<Compute> {
        let machine = self
            .call(cx, "get_compute", id.as_str(), Value::Null)
            .await?;
        self.compute(&machine).map_err(UnreadableRow::into_error)
    }

    async fn list_compute(&self, cx: &CallContext, filter: &ListFilter) -> Result<Listing> {
        let answer = self.call(cx, "list_compute", "", Value::Null).await?;
        let rows = answer
            .as_array()
            .ok_or_else(|| failed(ErrorKind::Provider, None))?;
        let read = rows.iter().map(|row| self.compute(row));
        Ok(Listing::of_walk(read, None).filtered(filter))
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
