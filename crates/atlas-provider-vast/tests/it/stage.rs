//! A simulated Vast, a provider on it, and what passed between them.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atlas_core::{
    AccountLimits, AnyProvider, AttemptId, CallContext, Candidate, Clock, Compute, ComputeRequest, Gpu, LaunchKey, RealmId,
    Result, TrackedKey,
};
use atlas_http::{Body, Transport};
use atlas_provider_vast::{Vast, VastBuilder};
use atlas_testkit::dialect::vast::{self, Quirks};
use atlas_testkit::world::{Fault, FaultKind, World, WorldClock};
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

pub(crate) const KEY: &str = "sim-key";

/// The stage of one test.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) dialect: vast::Vast,
    pub(crate) vast: Vast,
    pub(crate) provider: AnyProvider,
    asked: Arc<Mutex<Vec<String>>>,
}

/// A cloud that takes any number of calls, and a provider that makes them at once.
pub(crate) fn stage() -> Stage {
    let stage = built(|builder| unlimited(builder).endpoint_paces(false));
    stage.quirks(|_| {});
    stage
}

pub(crate) fn unlimited(builder: VastBuilder) -> VastBuilder {
    let mut limits = AccountLimits::default();
    (limits.call_interval, limits.burst) = (Duration::ZERO, 1000);
    builder.limits(limits)
}

/// A cloud with its real limits, and a provider built like this.
pub(crate) fn built(with: impl FnOnce(VastBuilder) -> VastBuilder) -> Stage {
    let world = World::new(7, WorldClock::following(1.0)).with_cloud(vast::cloud());
    world.add_key(vast::NAME, KEY, "me");
    let dialect = vast::Vast::new(world.clone());
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let (log, cloud) = (asked.clone(), dialect.clone());
    let transport = Transport::new(tower::service_fn(move |request: Request<Body>| {
        log.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path().trim_start_matches("/api/")));
        cloud.clone().oneshot(request)
    }));
    let builder = Vast::builder().api_key(KEY).transport(transport).clock(Arc::new(world.clock().clone()));
    let vast = with(builder).build().unwrap();
    let provider = AnyProvider::new(vast.clone());
    Stage { world, dialect, vast, provider, asked }
}

impl Stage {
    pub(crate) fn quirks(&self, with: impl FnOnce(&mut Quirks)) {
        let mut quirks = Quirks::default();
        quirks.rates = None;
        with(&mut quirks);
        self.dialect.set_quirks(quirks);
    }

    pub(crate) fn key(&self, n: u8) -> LaunchKey {
        let attempt = AttemptId::new(self.world.clock().now(), [n; 6]);
        LaunchKey::Tracked(TrackedKey::new(RealmId::from_bytes([1; 4]), attempt, [n; 5]))
    }

    pub(crate) async fn best(&self, request: &ComputeRequest) -> Candidate {
        self.provider.candidates(&cx(), request).await.unwrap().remove(0)
    }

    /// Orders this at its best offer.
    pub(crate) async fn order(&self, n: u8, request: &ComputeRequest) -> Result<Compute> {
        let at = self.best(request).await;
        self.provider.spawn_compute(&cx(), &self.key(n), &request.clone().at(at)).await
    }

    /// A machine that runs.
    pub(crate) async fn running(&self, n: u8, request: &ComputeRequest) -> Compute {
        let made = self.order(n, request).await.unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
        self.read(&made).await
    }

    pub(crate) async fn read(&self, compute: &Compute) -> Compute {
        self.provider.get_compute(&cx(), &compute.id).await.unwrap()
    }

    pub(crate) fn fault(&self, operation: &str, kind: FaultKind, count: u32) {
        self.world.inject([Fault::new(vast::NAME, operation, kind).times(count)]);
    }

    /// How many machines bill.
    pub(crate) fn live(&self) -> u64 {
        self.world.ledger().clouds[vast::NAME].live
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// How many orders were sent since the last time.
    pub(crate) fn orders(&self) -> usize {
        self.asked().iter().filter(|call| call.starts_with("PUT v0/asks/")).count()
    }
}

/// A context whose calls are made once.
pub(crate) fn cx() -> CallContext {
    CallContext::new().with_retries(0)
}

pub(crate) fn request() -> ComputeRequest {
    ComputeRequest::gpu(Gpu::Rtx4090).image("x/y:1")
}

/// Pinned to an offer that nobody looked up.
pub(crate) fn at(offer: &str) -> Candidate {
    let mut candidate = Candidate::default();
    candidate.offer = Some(offer.to_owned());
    candidate.native_type = Some("RTX 4090".to_owned());
    candidate
}

/// Method and path of each call, and its body.
pub(crate) type Sent = Arc<Mutex<Vec<(String, Value)>>>;

/// A provider whose calls are answered with these in turn, the last for ever; the method, path and body of each call.
pub(crate) fn answering(answers: &[(u16, &'static str)]) -> (AnyProvider, Sent) {
    let (vast, sent) = answered(answers);
    (AnyProvider::new(vast), sent)
}

pub(crate) fn answered(answers: &[(u16, &'static str)]) -> (Vast, Sent) {
    let sent = Sent::default();
    let (kept, answers) = (sent.clone(), answers.to_vec());
    let transport = Transport::new(tower::service_fn(move |request: Request<Body>| {
        let (kept, answers) = (kept.clone(), answers.clone());
        async move {
            let call = format!("{} {}", request.method(), request.uri().path());
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            let mut kept = kept.lock().unwrap();
            let (status, body) = answers[kept.len().min(answers.len() - 1)];
            kept.push((call, serde_json::from_slice(&bytes).unwrap_or_default()));
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            Ok::<_, Infallible>(response)
        }
    }));
    let vast = unlimited(Vast::builder()).endpoint_paces(false).api_key(KEY).transport(transport).build().unwrap();
    (vast, sent)
}
