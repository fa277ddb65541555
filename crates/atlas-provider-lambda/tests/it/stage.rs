//! A simulated Lambda, a provider on it, and what passed between them.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::{
    AccountLimits, AnyProvider, CallContext, Candidate, Compute, ComputeRequest, Gpu, LaunchKey,
    Result,
};
use atlas_http::{Pace, Transport};
use atlas_provider_lambda::{Lambda, LambdaBuilder};
use atlas_testkit::dialect::lambda::{self, Quirks};
use atlas_testkit::dialect::watched::{Canned, Requests, Watched};
use atlas_testkit::world::{CloudSpec, Fault, FaultKind, World, WorldClock};

const KEY: &str = "sim-key";

/// The stage of one test.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) dialect: lambda::Lambda,
    pub(crate) lambda: Lambda,
    pub(crate) provider: AnyProvider,
    requests: Requests,
}

/// A cloud that takes any number of calls, and a provider that makes them at once.
pub(crate) fn stage() -> Stage {
    let stage = paced(unlimited);
    stage.quirks(|_| {});
    stage
}

pub(crate) fn unlimited(builder: LambdaBuilder) -> LambdaBuilder {
    let mut limits = AccountLimits::default();
    (limits.call_interval, limits.burst) = (Duration::ZERO, 1000);
    builder
        .limits(limits)
        .launch_pace(Pace::every(Duration::ZERO))
}

/// A cloud with its real limits, and a provider built like this.
pub(crate) fn paced(with: impl FnOnce(LambdaBuilder) -> LambdaBuilder) -> Stage {
    on(lambda::cloud(), with)
}

/// The same on a cloud like this.
pub(crate) fn on(cloud: CloudSpec, with: impl FnOnce(LambdaBuilder) -> LambdaBuilder) -> Stage {
    let world = World::new(7, WorldClock::following(1.0)).with_cloud(cloud);
    world.add_key(lambda::NAME, KEY, "me");
    let dialect = lambda::Lambda::new(world.clone());
    let watched = Watched::new(dialect.clone());
    let (requests, transport) = (watched.requests(), Transport::new(watched));
    let builder = Lambda::builder()
        .api_key(KEY)
        .transport(transport)
        .clock(Arc::new(world.clock().clone()));
    let lambda = with(builder).build().unwrap();
    let provider = AnyProvider::new(lambda.clone());
    Stage {
        world,
        dialect,
        lambda,
        provider,
        requests,
    }
}

impl Stage {
    pub(crate) fn quirks(&self, with: impl FnOnce(&mut Quirks)) {
        let mut quirks = Quirks::unlimited();
        with(&mut quirks);
        self.dialect.set_quirks(quirks);
    }

    pub(crate) fn key(&self, n: u8) -> LaunchKey {
        self.world.key(n)
    }

    pub(crate) async fn spawn(&self, n: u8) -> Result<Compute> {
        self.provider
            .spawn_compute(&cx(), &self.key(n), &request())
            .await
    }

    /// A machine that runs.
    pub(crate) async fn running(&self, n: u8) -> Compute {
        let made = self.spawn(n).await.unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
        made
    }

    pub(crate) fn fault(&self, operation: &str, kind: FaultKind, count: u32) {
        self.world
            .inject([Fault::new(lambda::NAME, operation, kind).times(count)]);
    }

    /// How many machines bill.
    pub(crate) fn live(&self) -> u64 {
        self.world.ledger().clouds[lambda::NAME].live
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.requests
            .lines()
            .into_iter()
            .map(|line| line.replace(" /api/v1/", " "))
            .collect()
    }
}

/// A context whose calls are made once.
pub(crate) fn cx() -> CallContext {
    CallContext::new().with_retries(0)
}

/// An A10 in Arizona.
pub(crate) fn request() -> ComputeRequest {
    ComputeRequest::gpu(Gpu::A10)
        .image("x/y:1")
        .at(at("gpu_1x_a10", "us-west-2"))
}

pub(crate) fn at(kind: &str, region: &str) -> Candidate {
    let mut candidate = Candidate::default();
    candidate.native_type = Some(kind.to_owned());
    candidate.region = Some(region.to_owned());
    candidate
}

/// A provider whose calls are all answered like this; what it asked.
pub(crate) fn answering(status: u16, body: &'static str) -> (AnyProvider, Requests) {
    answering_in_turn(&[(status, body)])
}

/// The same with an answer for each call, the last one for all that follow.
pub(crate) fn answering_in_turn(answers: &[(u16, &'static str)]) -> (AnyProvider, Requests) {
    let watched = Watched::new(Canned::in_turn(answers));
    let (requests, transport) = (watched.requests(), Transport::new(watched));
    let lambda = Lambda::builder()
        .api_key(KEY)
        .ssh_key("fleet")
        .transport(transport)
        .build()
        .unwrap();
    (AnyProvider::new(lambda), requests)
}
