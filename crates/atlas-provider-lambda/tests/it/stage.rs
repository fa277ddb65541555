//! A simulated Lambda, a provider on it, and what passed between them.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atlas_core::{AccountLimits, AnyProvider, AttemptId, CallContext, Candidate, Clock, Compute, ComputeRequest, Gpu, LaunchKey};
use atlas_core::{RealmId, Result, TrackedKey};
use atlas_http::{Body, Pace, Transport};
use atlas_provider_lambda::{Lambda, LambdaBuilder};
use atlas_testkit::dialect::lambda::{self, Quirks};
use atlas_testkit::world::{Fault, FaultKind, World, WorldClock};
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

const KEY: &str = "sim-key";

/// The stage of one test.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) dialect: lambda::Lambda,
    pub(crate) lambda: Lambda,
    pub(crate) provider: AnyProvider,
    asked: Arc<Mutex<Vec<String>>>,
}

/// A cloud that takes any number of calls, and a provider that makes them at once.
pub(crate) fn stage() -> Stage {
    let stage = paced(|builder| {
        let mut limits = AccountLimits::default();
        (limits.call_interval, limits.burst) = (Duration::ZERO, 1000);
        builder.limits(limits).launch_pace(Pace::every(Duration::ZERO))
    });
    stage.quirks(|_| {});
    stage
}

/// A cloud with its real limits, and a provider built like this.
pub(crate) fn paced(with: impl FnOnce(LambdaBuilder) -> LambdaBuilder) -> Stage {
    let world = World::new(7, WorldClock::following(1.0)).with_cloud(lambda::cloud());
    world.add_key(lambda::NAME, KEY, "me");
    let dialect = lambda::Lambda::new(world.clone());
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let (log, cloud) = (asked.clone(), dialect.clone());
    let transport = Transport::new(tower::service_fn(move |request: Request<Body>| {
        log.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path().trim_start_matches("/api/v1/")));
        cloud.clone().oneshot(request)
    }));
    let builder = Lambda::builder().api_key(KEY).transport(transport).clock(Arc::new(world.clock().clone()));
    let lambda = with(builder).build().unwrap();
    let provider = AnyProvider::new(lambda.clone());
    Stage { world, dialect, lambda, provider, asked }
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

    pub(crate) async fn spawn(&self, n: u8) -> Result<Compute> {
        self.provider.spawn_compute(&cx(), &self.key(n), &request()).await
    }

    /// A machine that runs.
    pub(crate) async fn running(&self, n: u8) -> Compute {
        let made = self.spawn(n).await.unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
        made
    }

    pub(crate) fn fault(&self, operation: &str, kind: FaultKind, count: u32) {
        self.world.inject([Fault::new(lambda::NAME, operation, kind).times(count)]);
    }

    /// How many machines bill.
    pub(crate) fn live(&self) -> u64 {
        self.world.ledger().clouds[lambda::NAME].live
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// A context whose calls are made once.
pub(crate) fn cx() -> CallContext {
    CallContext::new().with_retries(0)
}

/// An A10 in Arizona.
pub(crate) fn request() -> ComputeRequest {
    ComputeRequest::gpu(Gpu::A10).image("x/y:1").at(at("gpu_1x_a10", "us-west-2"))
}

pub(crate) fn at(kind: &str, region: &str) -> Candidate {
    let mut candidate = Candidate::default();
    candidate.native_type = Some(kind.to_owned());
    candidate.region = Some(region.to_owned());
    candidate
}

/// A provider whose calls are all answered like this; the bodies it sent.
pub(crate) fn answering(status: u16, body: &'static str) -> (AnyProvider, Arc<Mutex<Vec<Value>>>) {
    let sent = Arc::<Mutex<Vec<Value>>>::default();
    let kept = sent.clone();
    let transport = Transport::new(tower::service_fn(move |request: Request<Body>| {
        let kept = kept.clone();
        async move {
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            kept.lock().unwrap().push(serde_json::from_slice(&bytes).unwrap_or_default());
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            Ok::<_, Infallible>(response)
        }
    }));
    let lambda = Lambda::builder().api_key(KEY).ssh_key("fleet").transport(transport).build().unwrap();
    (AnyProvider::new(lambda), sent)
}
