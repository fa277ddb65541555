//! A simulated Vast, a provider on it, and what passed between them.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::{
    AccountLimits, AnyProvider, CallContext, Candidate, Compute, ComputeRequest, Gpu, LaunchKey,
    Result,
};
use atlas_http::Transport;
use atlas_provider_vast::{Vast, VastBuilder};
use atlas_testkit::dialect::vast::{self, Quirks};
use atlas_testkit::dialect::watched::{Answer, Canned, Requests, Watched};
use atlas_testkit::world::{Fault, FaultKind, World, WorldClock};

pub(crate) const KEY: &str = "sim-key";

/// The stage of one test.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) dialect: vast::Vast,
    pub(crate) vast: Vast,
    pub(crate) provider: AnyProvider,
    requests: Requests,
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
    let watched = Watched::new(dialect.clone());
    let (requests, transport) = (watched.requests(), Transport::new(watched));
    let builder = Vast::builder()
        .api_key(KEY)
        .transport(transport)
        .clock(Arc::new(world.clock().clone()));
    let vast = with(builder).build().unwrap();
    let provider = AnyProvider::new(vast.clone());
    Stage {
        world,
        dialect,
        vast,
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

    pub(crate) async fn best(&self, request: &ComputeRequest) -> Candidate {
        self.provider
            .candidates(&cx(), request)
            .await
            .unwrap()
            .remove(0)
    }

    /// Orders this at its best offer.
    pub(crate) async fn order(&self, n: u8, request: &ComputeRequest) -> Result<Compute> {
        let at = self.best(request).await;
        self.provider
            .spawn_compute(&cx(), &self.key(n), &request.clone().at(at))
            .await
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
        self.world
            .inject([Fault::new(vast::NAME, operation, kind).times(count)]);
    }

    /// Waits until no answer of an earlier search is shared any more.
    pub(crate) async fn after_shared_searches(&self) {
        tokio::time::sleep(Duration::from_secs(6)).await;
    }

    /// How many machines bill.
    pub(crate) fn live(&self) -> u64 {
        self.world.ledger().clouds[vast::NAME].live
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.requests
            .lines()
            .into_iter()
            .map(|line| line.replace(" /api/", " "))
            .collect()
    }

    /// How many orders were sent since the last time.
    pub(crate) fn orders(&self) -> usize {
        self.asked()
            .iter()
            .filter(|call| call.starts_with("PUT v0/asks/"))
            .count()
    }
}

/// A context whose calls are made once.
pub(crate) fn cx() -> CallContext {
    CallContext::new().with_retries(0)
}

pub(crate) fn request() -> ComputeRequest {
    ComputeRequest::gpu(Gpu::Rtx4090).image("x/y:1")
}

/// Pinned to an offer that was not looked up.
pub(crate) fn at(offer: &str) -> Candidate {
    let mut candidate = Candidate::default();
    candidate.offer = Some(offer.to_owned());
    candidate.native_type = Some("RTX 4090".to_owned());
    candidate
}

/// A provider whose calls are answered with these in turn, the last forever; what it asked.
pub(crate) fn answering(answers: &[Answer]) -> (AnyProvider, Requests) {
    let (vast, requests) = answered(answers);
    (AnyProvider::new(vast), requests)
}

pub(crate) fn answered(answers: &[Answer]) -> (Vast, Requests) {
    let watched = Watched::new(Canned::in_turn(answers));
    let (requests, transport) = (watched.requests(), Transport::new(watched));
    let vast = unlimited(Vast::builder())
        .endpoint_paces(false)
        .api_key(KEY)
        .transport(transport)
        .build()
        .unwrap();
    (vast, requests)
}
