//! The clouds under test: how each is set up in process, and what differs between them.

pub mod fly;
pub mod lambda;
mod live;
pub mod runpod;
pub mod vast;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas_core::{
    AccountLimits, AnyProvider, CallContext, Compute, ComputeId, ComputeRequest, Error, ErrorKind,
    LaunchKey, Result, Timestamp,
};
use atlas_http::{Body, Transport};
use atlas_sim::{Options, Ready, Sim};
use atlas_testkit::conformance::{BoxFuture, Control, LedgerEntry, Rewrite, Serverless, Subject};
use atlas_testkit::world::{Fault, FaultKind, Lag, World, WorldClock};
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

pub use live::LiveSubject;

use crate::openapi::Exchange;
use crate::tap::{Reading, Tap};

/// The key that is good on every simulated cloud.
pub const KEY: &str = "sim-key";
pub(crate) const BAD_KEY: &str = "conformance-bad-key";

/// What differs between clouds.
#[derive(Clone, Copy, Debug)]
pub struct Cloud {
    /// Its name: in the world, in the ledger, in the report.
    pub name: &'static str,
    /// The file name of its API document.
    pub document: &'static str,
    /// The hosts whose requests the document describes.
    pub hosts: &'static [&'static str],
    /// A world with this cloud, and [`KEY`] good on it.
    pub world: fn(u64, WorldClock) -> World,
    /// The way to its dialect over this world, in process.
    pub dialect: fn(&World) -> Transport,
    /// Whether `atlas-sim` serves it on TCP.
    pub served: bool,
    /// Its real provider, with this key, by this way; where the cloud is served on TCP, there.
    pub provider: fn(&World, Transport, &str, Option<&Ready>) -> Result<AnyProvider>,
    /// Its provider on the real cloud, with the environment's key or another.
    pub live: fn(Option<&str>) -> Result<AnyProvider>,
    /// How its exchanges are read.
    pub reading: Reading,
    /// A cheap request that it can honour.
    pub request: fn() -> ComputeRequest,
    /// A region that is not its first choice.
    pub region: Option<&'static str>,
    /// An id of its shape that no machine has.
    pub unknown_id: &'static str,
    /// Its serverless endpoint, if it has one.
    pub serverless: Option<&'static str>,
    /// Calls beyond the conformance suite that reach the rest of the provider crate's operations.
    pub more: for<'a> fn(&'a CloudSubject) -> BoxFuture<'a, Result<()>>,
    /// Every operation of the provider crate, by a way on which the document's own examples are
    /// answered.
    pub every: fn(Transport) -> BoxFuture<'static, Result<Calls>>,
}

/// What became of calls, by their names.
pub type Calls = Vec<(&'static str, Result<()>)>;

/// Every cloud that has a provider crate and a dialect.
pub const CLOUDS: &[Cloud] = &[runpod::CLOUD, fly::CLOUD, lambda::CLOUD, vast::CLOUD];

/// How a cloud is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In process, without sockets. Run it in paused time.
    InProcess,
    /// Over loopback. Run it in real time; simulated time is moved by hand.
    Tcp,
}

/// A cloud as a subject of the conformance suite; every exchange is kept.
#[derive(Debug)]
pub struct CloudSubject {
    cloud: Cloud,
    seed: u64,
    way: Way,
    lagging: bool,
    stage: Mutex<Stage>,
    kept: Mutex<Vec<Exchange>>,
}

#[derive(Debug)]
struct Stage {
    world: World,
    tap: Tap,
    /// The server, and where it is.
    sim: Option<Sim>,
}

impl CloudSubject {
    /// This cloud, in worlds with this seed.
    #[must_use]
    pub fn new(cloud: Cloud, seed: u64) -> Self {
        Self {
            cloud,
            seed,
            way: Way::InProcess,
            lagging: false,
            stage: Mutex::new(Stage::in_process(&cloud, seed)),
            kept: Mutex::default(),
        }
    }

    /// The same, served and called on TCP from the next fresh cloud on.
    #[must_use]
    pub fn over_tcp(self) -> Self {
        Self {
            way: Way::Tcp,
            ..self
        }
    }

    /// The same with clouds whose reads lag, up to their bound, from the next fresh one on.
    #[must_use]
    pub fn lagging(self) -> Self {
        Self {
            lagging: true,
            ..self
        }
    }

    /// The world of the case that is running.
    #[must_use]
    pub fn world(&self) -> World {
        self.stage().world.clone()
    }

    /// The way to the dialect of the case that is running, through the tap.
    #[must_use]
    pub fn transport(&self) -> Transport {
        Transport::new(self.stage().tap.clone())
    }

    /// Another way to this cloud, through the same tap.
    #[must_use]
    pub fn tapped(&self, transport: Transport) -> Transport {
        Transport::new(self.stage().tap.on(transport))
    }

    /// Sends requests as they are, with the good key: what no provider of ours sends is still
    /// answered as the document says.
    ///
    /// # Errors
    /// When a request cannot be built, or an answer's status is not the one that is due.
    pub async fn send(
        &self,
        base: &str,
        table: &[(&str, &str, Option<Value>, u16)],
    ) -> Result<Vec<Value>> {
        let mut bodies = Vec::new();
        for (method, path, body, due) in table {
            let wrong = |what: String| unexpected(format!("{method} {path}: {what}"));
            let mut request = Request::builder()
                .method(*method)
                .uri(format!("{base}{path}"));
            request = request
                .header(AUTHORIZATION, format!("Bearer {KEY}"))
                .header(USER_AGENT, "atlas-contract");
            if body.is_some() {
                request = request.header(CONTENT_TYPE, "application/json");
            }
            let bytes = body.as_ref().map(Value::to_string).unwrap_or_default();
            let request = request
                .body(Body::from(bytes))
                .map_err(|error| wrong(error.to_string()))?;
            let answer = self
                .transport()
                .oneshot(request)
                .await
                .map_err(|error| wrong(error.to_string()))?;
            let status = answer.status().as_u16();
            let bytes = answer
                .into_body()
                .collect()
                .await
                .map_err(|error| wrong(error.to_string()))?
                .to_bytes();
            if status != *due {
                return Err(wrong(format!(
                    "answered {status}, not {due}: {}",
                    String::from_utf8_lossy(&bytes)
                )));
            }
            bodies.push(serde_json::from_slice(&bytes).unwrap_or_default());
        }
        Ok(bodies)
    }

    /// Every exchange there was since the last time, oldest first.
    #[must_use]
    pub fn take(&self) -> Vec<Exchange> {
        let mut kept =
            std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        kept.extend(self.stage().tap.take());
        kept
    }

    /// What calls are made with.
    #[must_use]
    pub fn cx(&self) -> CallContext {
        CallContext::new()
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stage {
    fn in_process(cloud: &Cloud, seed: u64) -> Self {
        let world = (cloud.world)(seed, WorldClock::following(1.0));
        let tap = Tap::new((cloud.dialect)(&world), cloud.reading);
        Self {
            world,
            tap,
            sim: None,
        }
    }

    async fn over_tcp(cloud: &Cloud, seed: u64) -> Result<Self> {
        let mut options = Options::default();
        options.seed = seed;
        options.rates = false;
        let sim = atlas_sim::serve(options)
            .await
            .map_err(|error| unexpected(format!("cannot serve: {error}")))?;
        Ok(Self {
            world: sim.world().clone(),
            tap: Tap::new(Transport::hyper(), cloud.reading),
            sim: Some(sim),
        })
    }

    fn provider(&self, cloud: &Cloud, key: &str) -> Result<AnyProvider> {
        (cloud.provider)(
            &self.world,
            Transport::new(self.tap.clone()),
            key,
            self.sim.as_ref().map(Sim::ready),
        )
    }
}

impl Subject for CloudSubject {
    fn fresh(&self) -> BoxFuture<'_, Result<AnyProvider>> {
        Box::pin(async {
            let stage = match self.way {
                Way::InProcess => Stage::in_process(&self.cloud, self.seed),
                Way::Tcp => Stage::over_tcp(&self.cloud, self.seed).await?,
            };
            if self.lagging {
                let bound = stage
                    .world
                    .cloud(self.cloud.name)
                    .map(|spec| spec.visibility_bound)
                    .unwrap_or_default();
                stage.world.set_lag(self.cloud.name, Lag::within(bound));
            }
            let provider = stage.provider(&self.cloud, KEY);
            let before = std::mem::replace(&mut *self.stage(), stage);
            self.kept
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(before.tap.take());
            provider
        })
    }

    fn with_bad_key(&self) -> Option<AnyProvider> {
        self.stage().provider(&self.cloud, BAD_KEY).ok()
    }

    fn request(&self) -> ComputeRequest {
        (self.cloud.request)()
    }

    fn now(&self) -> Timestamp {
        // What a client's own clock shows: it knows of no advance by hand.
        let world = self.world();
        world.clock().on_the_wire(world.now())
    }

    fn wait(&self, span: Duration) -> BoxFuture<'_, ()> {
        match self.way {
            Way::InProcess => Box::pin(tokio::time::sleep(span)),
            Way::Tcp => {
                self.world().advance(span);
                Box::pin(tokio::task::yield_now())
            }
        }
    }

    fn control(&self) -> Option<&dyn Control> {
        Some(self)
    }

    fn serverless(&self) -> Option<Serverless> {
        self.cloud.serverless.map(Serverless::simulated)
    }

    fn unknown_id(&self) -> ComputeId {
        ComputeId::new(self.cloud.unknown_id).expect("a plain id")
    }

    fn region(&self) -> Option<String> {
        self.cloud.region.map(str::to_owned)
    }

    fn secrets(&self) -> Vec<String> {
        vec![KEY.to_owned(), BAD_KEY.to_owned()]
    }
}

impl Control for CloudSubject {
    fn inject<'a>(
        &'a self,
        operation: &'a str,
        fault: FaultKind,
        count: u32,
    ) -> BoxFuture<'a, bool> {
        self.world()
            .inject([Fault::new(self.cloud.name, operation, fault).times(count)]);
        Box::pin(async move { fault.concerns(operation) })
    }

    fn break_listing(&self) -> BoxFuture<'_, bool> {
        let broken = self.stage().tap.break_listing();
        Box::pin(async move { broken })
    }

    fn rewrite_machines(&self, rewrite: Option<Rewrite>) -> bool {
        let (world, name) = (self.world(), self.cloud.name);
        // What follows a point is the app of a Fly machine, which its description does not repeat.
        let is_machine = move |id: &str| {
            let machines = world.all(name);
            machines
                .iter()
                .any(|known| known.id == id || known.id.split('.').next() == Some(id))
        };
        let whole =
            rewrite.map(|each| Rewrite::new(move |body| rewrite_each(body, &is_machine, &each)));
        self.stage().tap.rewrite(whole);
        true
    }

    fn ledger(&self) -> BoxFuture<'_, Vec<LedgerEntry>> {
        let entries = LedgerEntry::of_world(&self.world(), self.cloud.name);
        Box::pin(async move { entries })
    }

    fn requests<'a>(&'a self, operation: Option<&'a str>) -> BoxFuture<'a, u64> {
        let count = self.stage().tap.count(operation);
        Box::pin(async move { count })
    }
}

/// Changes every object in a body whose member `id` is the id of a machine.
fn rewrite_each(body: &mut Value, is_machine: &dyn Fn(&str) -> bool, each: &Rewrite) {
    let id = match &body["id"] {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => String::new(),
    };
    if is_machine(&id) {
        return each.apply(body);
    }
    match body {
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| rewrite_each(item, is_machine, each)),
        Value::Object(members) => members
            .values_mut()
            .for_each(|member| rewrite_each(member, is_machine, each)),
        _ => {}
    }
}

/// As many calls as one likes: pace has its own test in each provider's crate.
pub(crate) fn unhurried() -> AccountLimits {
    let mut limits = AccountLimits::default();
    (limits.call_interval, limits.burst) = (Duration::from_millis(1), 1_000);
    limits
}

/// One machine of no orchestrator, at the request's best candidate.
pub(crate) async fn spawn(
    provider: &AnyProvider,
    subject: &CloudSubject,
    request: &ComputeRequest,
) -> Result<Compute> {
    let candidates = provider.candidates(&subject.cx(), request).await?;
    let first = candidates
        .into_iter()
        .next()
        .ok_or_else(|| unexpected("a request has no candidate"))?;
    provider
        .spawn_compute(
            &subject.cx(),
            &LaunchKey::untracked(),
            &request.clone().at(first),
        )
        .await
}

/// An error of the checks themselves.
pub(crate) fn unexpected(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unknown, message)
}
