//! The mock provider: a typed face of the world, for a five-line unit test.
//!
//! ```
//! use atlas_core::{CallContext, ComputeRequest, Gpu, LaunchKey};
//! use atlas_testkit::mock::MockCloud;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! let cloud = MockCloud::new(7);
//! let request = ComputeRequest::gpu(Gpu::H100).image("x/y:1");
//! let made = cloud.provider().spawn_compute(&CallContext::new(), &LaunchKey::untracked(), &request).await?;
//! assert_eq!(cloud.world().ledger().clouds["mock"].live, 1);
//! assert!(made.cost_per_hour.is_some());
//! # Ok::<(), atlas_core::Error>(())
//! # }).unwrap();
//! ```
//!
//! It has every capability group, and it meets the world's faults as a real provider does: what
//! commits and then breaks off is an unknown outcome, a refused rate is not. Reads lag as the
//! world's do. Deliberately absent: HTTP, and sockets behind a machine's ports.

mod account;
mod call;
mod job;
mod lines;
mod provider;
mod subject;
mod translate;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atlas_core::{AccountLimits, AnyProvider, Secret, Support};

use account::Belongings;
use provider::MockProvider;
pub use subject::MockSubject;

use crate::conformance::Rewrite;
use crate::world::{CloudSpec, World, WorldClock};

/// The cloud's name in the world, and the provider's id.
pub const CLOUD: &str = "mock";
/// The key that is good on a fresh mock cloud.
pub const KEY: &str = "sim-key";
/// The serverless endpoint that a mock cloud has.
pub const ENDPOINT: &str = "sim-endpoint";
/// The template that a mock cloud has.
pub const TEMPLATE: &str = "sim-template";

/// A cloud of no vendor, over a world. Cheap to clone; clones are the same cloud.
#[derive(Clone, Debug)]
pub struct MockCloud {
    world: World,
    belongings: Arc<Mutex<Belongings>>,
    limits: Option<AccountLimits>,
    supporting: bool,
}

impl MockCloud {
    /// A fresh cloud in a world of its own, which follows tokio's clock, paused or real.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let world =
            World::new(seed, WorldClock::following(1.0)).with_cloud(CloudSpec::plain(CLOUD));
        world.add_key(CLOUD, KEY, "me");
        Self::in_world(world)
    }

    /// The face of a world that has a cloud called [`CLOUD`], with whatever keys it has there.
    #[must_use]
    pub fn in_world(world: World) -> Self {
        Self {
            world,
            belongings: Arc::default(),
            limits: None,
            supporting: false,
        }
    }

    /// Limits of its accounts other than the world's.
    #[must_use]
    pub fn limits(self, limits: AccountLimits) -> Self {
        Self {
            limits: Some(limits),
            ..self
        }
    }

    /// With this, a machine with ports needs an address, made before it and released with it: an
    /// orchestrator's supporting steps.
    #[must_use]
    pub fn supporting(self) -> Self {
        Self {
            supporting: true,
            ..self
        }
    }

    /// A provider with the good key.
    #[must_use]
    pub fn provider(&self) -> AnyProvider {
        self.provider_with_key(KEY)
    }

    /// A provider with this key.
    #[must_use]
    pub fn provider_with_key(&self, key: &str) -> AnyProvider {
        AnyProvider::new(MockProvider::new(self.clone(), Secret::new(key)))
    }

    /// The world behind it: faults, prices, the ledger.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// How many calls were made since it was fresh, by operation.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.belongings().calls.clone()
    }

    /// The supporting objects that exist.
    #[must_use]
    pub fn supports(&self) -> Vec<Support> {
        self.belongings().supports.values().cloned().collect()
    }

    /// The next listing breaks off in the middle, and shows it.
    pub fn break_listing(&self) {
        self.belongings().broken_listings += 1;
    }

    /// From now on machines are read from descriptions that were changed by this; with `None`, as
    /// they are.
    pub fn rewrite_machines(&self, rewrite: Option<Rewrite>) {
        self.belongings().rewrite = rewrite;
    }

    fn belongings(&self) -> MutexGuard<'_, Belongings> {
        self.belongings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
