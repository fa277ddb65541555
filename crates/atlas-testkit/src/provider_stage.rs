//! The stage of a provider crate's tests: a simulated cloud, a provider on it, and what passed
//! between them. Every provider crate's `tests/it/stage.rs` builds on it.
//!
//! Deliberately absent: how a provider is built, and what its requests look like. Each crate knows
//! its own.

use std::time::Duration;

use atlas_core::{
    AccountLimits, AnyProvider, CallContext, Compute, ComputeRequest, LaunchKey, Provider, Result,
};

use crate::dialect::CloudService;
use crate::dialect::cloud::SimulatedCloud;
use crate::dialect::mutated::{Counts, Mutated, Subject, violations};
use crate::dialect::watched::{Asked, Requests, Watched};
use crate::world::{CloudSpec, Fault, FaultKind, World, WorldClock};

/// The key that is good on a stage's cloud.
pub const KEY: &str = "sim-key";

/// The stage of one test: a cloud of the type `D`, and a provider of the type `P` on it.
#[derive(Debug)]
pub struct ProviderStage<D, P> {
    /// The world of the cloud.
    pub world: World,
    /// The cloud's API.
    pub dialect: D,
    /// The provider itself, with what it offers beyond the contract.
    pub own: P,
    /// The provider as the orchestrator sees it.
    pub provider: AnyProvider,
    cloud: &'static str,
    requests: Requests,
}

impl<D: CloudService, P: Provider + Clone> ProviderStage<D, P> {
    /// A stage with this cloud. `dialect` starts its API over the world, and `build` a provider
    /// that calls it, whose clock is the world's.
    pub fn new(
        cloud: &SimulatedCloud,
        dialect: impl FnOnce(World) -> D,
        build: impl FnOnce(Watched<D>, WorldClock) -> P,
    ) -> Self {
        Self::on((cloud.spec)(), cloud, dialect, build)
    }

    /// The same with a cloud that differs from the usual one.
    pub fn on(
        spec: CloudSpec,
        cloud: &SimulatedCloud,
        dialect: impl FnOnce(World) -> D,
        build: impl FnOnce(Watched<D>, WorldClock) -> P,
    ) -> Self {
        let world = world(spec, cloud);
        let dialect = dialect(world.clone());
        let watched = Watched::new(dialect.clone());
        let requests = watched.requests();
        let own = build(watched, world.clock().clone());
        Self {
            provider: AnyProvider::new(own.clone()),
            world,
            dialect,
            own,
            cloud: cloud.name,
            requests,
        }
    }

    /// The key of an attempt.
    pub fn key(&self, number: u8) -> LaunchKey {
        self.world.key(number)
    }

    /// Orders a machine for an attempt.
    ///
    /// # Errors
    /// Those of the provider.
    pub async fn order(&self, number: u8, request: &ComputeRequest) -> Result<Compute> {
        self.provider
            .spawn_compute(&cx(), &self.key(number), request)
            .await
    }

    /// The next calls of an operation fail like this.
    pub fn fault(&self, operation: &str, kind: FaultKind, count: u32) {
        self.world
            .inject([Fault::new(self.cloud, operation, kind).times(count)]);
    }

    /// How many machines bill.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.world.ledger().clouds[self.cloud].live
    }

    /// How many machines were ever made.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.world.ledger().clouds[self.cloud].created
    }

    /// The requests since the last time, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Asked> {
        self.requests.take()
    }

    /// The methods and paths of the requests since the last time, without the path of the API's
    /// version.
    #[must_use]
    pub fn lines(&self, version: &str) -> Vec<String> {
        let lines = self.requests.lines().into_iter();
        lines
            .map(|line| line.replace(&format!(" {version}"), " "))
            .collect()
    }
}

/// A cloud with [`KEY`], in a world of its own.
fn world(spec: CloudSpec, cloud: &SimulatedCloud) -> World {
    let world = World::new(7, WorldClock::following(1.0)).with_cloud(spec);
    world.add_key(cloud.name, KEY, cloud.account.unwrap_or("me"));
    world
}

/// A context whose calls are made once.
#[must_use]
pub fn cx() -> CallContext {
    CallContext::new().with_retries(0)
}

/// Limits of an account that may make this many calls at once.
#[must_use]
pub fn at_once(calls: u32) -> AccountLimits {
    let mut limits = AccountLimits::default();
    (limits.call_interval, limits.burst) = (Duration::ZERO, calls);
    limits
}

/// Changes every field of every answer that a provider reads, and reports what must not follow from
/// that: see [`violations`]. Two machines of ours run while it does. `order` is the request they
/// are ordered with, and `with` adjusts what is read.
///
/// # Panics
/// When the machines cannot be ordered.
pub async fn odd_answers<D: CloudService>(
    cloud: &SimulatedCloud,
    dialect: impl FnOnce(World) -> D,
    build: impl FnOnce(Mutated<D>, WorldClock) -> AnyProvider,
    order: ComputeRequest,
    with: impl FnOnce(Subject) -> Subject,
) -> (Counts, Vec<String>) {
    let world = world((cloud.spec)(), cloud);
    let mutated = Mutated::new(dialect(world.clone()));
    let plans = mutated.plans();
    let provider = build(mutated, world.clock().clone());
    let mut ours = Vec::new();
    for number in [1, 2] {
        let key = world.key(number);
        let made = provider
            .spawn_compute(&cx(), &key, &order)
            .await
            .expect("the cloud has a machine for each of two orders");
        ours.extend(key.tracked().map(|key| (made.id, *key)));
    }
    // Longer than any cloud takes to start a machine.
    tokio::time::sleep(Duration::from_secs(1200)).await;
    let subject = with(Subject {
        provider,
        context: cx(),
        ours,
        request: order,
        rows: "/",
        absence: None,
    });
    violations(&plans, &subject).await
}

/// Fails unless at least this many fields were changed and nothing went wrong.
///
/// # Panics
/// When something went wrong, with the first of it.
pub fn assert_none(fields: usize, (counts, wrong): (Counts, Vec<String>)) {
    println!("{counts:?}");
    assert!(counts.fields > fields, "{counts:?}");
    assert!(
        wrong.is_empty(),
        "{} of {counts:?}: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(20)]
    );
}
