//! A simulated Fly, a provider on it, and what passed between them.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::{
    AccountLimits, AnyProvider, CallContext, Candidate, Compute, ComputeId, ComputeRequest,
    LaunchKey, Result,
};
use atlas_http::{Pace, Transport};
use atlas_provider_fly::{Fly, FlyBuilder};
use atlas_testkit::dialect::fly::{self, Quirks};
use atlas_testkit::dialect::watched::{Asked, Canned, Requests, Watched};
use atlas_testkit::world::{Fault, FaultKind, World, WorldClock};

pub(crate) const KEY: &str = "sim-key";

/// The stage of one test.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) dialect: fly::Fly,
    pub(crate) fly: Fly,
    pub(crate) provider: AnyProvider,
    requests: Requests,
}

/// A cloud that takes any number of calls, and a provider with the app `sim-app` that makes them at
/// once.
pub(crate) fn stage() -> Stage {
    built(|builder| builder.org(fly::ORG).app(fly::APP))
}

/// The same with a provider built like this.
pub(crate) fn built(with: impl FnOnce(FlyBuilder) -> FlyBuilder) -> Stage {
    let at_once = Pace::every(Duration::ZERO);
    let stage = paced(|builder| {
        let mut limits = AccountLimits::default();
        (limits.call_interval, limits.burst) = (Duration::ZERO, 1000);
        with(builder.limits(limits).paces(at_once, at_once))
    });
    stage.quirks(|_| {});
    stage
}

/// A cloud with its real limits, and a provider built like this.
pub(crate) fn paced(with: impl FnOnce(FlyBuilder) -> FlyBuilder) -> Stage {
    let world = World::new(7, WorldClock::following(1.0)).with_cloud(fly::cloud());
    for token in [KEY, "fo1_good", "fm2_good", "fm2_other"] {
        world.add_key(fly::NAME, token, fly::ORG);
    }
    let dialect = fly::Fly::new(world.clone());
    let watched = Watched::new(dialect.clone());
    let (requests, transport) = (watched.requests(), Transport::new(watched));
    let builder = Fly::builder()
        .api_key(KEY)
        .transport(transport)
        .clock(Arc::new(world.clock().clone()));
    let fly = with(builder).build().unwrap();
    let provider = AnyProvider::new(fly.clone());
    Stage {
        world,
        dialect,
        fly,
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
        tokio::time::sleep(Duration::from_secs(60)).await;
        made
    }

    /// A machine that was made as an orchestrator makes it: its supporting objects first.
    pub(crate) async fn supported(&self, key: &LaunchKey, request: &ComputeRequest) -> Compute {
        for support in self.provider.supports(key, request).unwrap() {
            self.provider
                .ensure_support(&cx(), key, &support)
                .await
                .unwrap();
        }
        self.provider
            .spawn_compute(&cx(), key, request)
            .await
            .unwrap()
    }

    pub(crate) fn fault(&self, operation: &str, kind: FaultKind, count: u32) {
        self.world
            .inject([Fault::new(fly::NAME, operation, kind).times(count)]);
    }

    /// How many machines bill.
    pub(crate) fn live(&self) -> u64 {
        self.world.ledger().clouds[fly::NAME].live
    }

    /// How many machines were ever made.
    pub(crate) fn made(&self) -> u64 {
        self.world.ledger().clouds[fly::NAME].created
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.requests.take()
    }

    /// Only methods and paths of it.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests
            .lines()
            .into_iter()
            .map(|line| line.replace(" /v1/", " "))
            .collect()
    }
}

/// A context whose calls are made once.
pub(crate) fn cx() -> CallContext {
    CallContext::new().with_retries(0)
}

/// A small machine in Frankfurt.
pub(crate) fn request() -> ComputeRequest {
    ComputeRequest::cpu(1)
        .image("x/y:1")
        .at(at("shared-cpu-1x:256", "fra"))
}

pub(crate) fn at(kind: &str, region: &str) -> Candidate {
    let mut candidate = Candidate::default();
    candidate.native_type = Some(kind.to_owned());
    candidate.region = Some(region.to_owned());
    candidate
}

pub(crate) fn id(text: &str) -> ComputeId {
    ComputeId::new(text).unwrap()
}

/// A provider whose calls are answered by the end of their path; anything else is a 404 without a
/// word, but for the question whose its token is.
pub(crate) fn answering(table: &[(&'static str, u16, &'static str)]) -> AnyProvider {
    let token = r#"{"tokens":[{"org_slug":"acme","apps":[]}]}"#;
    let mut table = table.to_vec();
    table.push(("/tokens/current", 200, token));
    let transport = Transport::new(Canned::by_path(&table));
    AnyProvider::new(
        Fly::builder()
            .api_key(KEY)
            .org("acme")
            .app("pods")
            .transport(transport)
            .build()
            .unwrap(),
    )
}
