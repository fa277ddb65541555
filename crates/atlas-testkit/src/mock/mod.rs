//! The mock provider: a typed interface to the world, for short unit tests.
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
//! It has all optional operations, and the world's faults affect it like a real provider: a call
//! that commits and then fails has an unknown outcome, a rate-limited one does not. Reads lag like
//! the world's. Deliberately absent: HTTP, and sockets behind a machine's ports.

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
/// The valid API key of a fresh mock cloud.
pub const KEY: &str = "sim-key";
/// The serverless endpoint that a mock cloud has.
pub const ENDPOINT: &str = "sim-endpoint";
/// The template that a mock cloud has.
pub const TEMPLATE: &str = "sim-template";

/// A generic cloud over a world. Cheap to clone; clones are the same cloud.
#[derive(Clone, Debug)]
pub struct MockCloud {
    world: World,
    belongings: Arc<Mutex<Belongings>>,
    limits: Option<AccountLimits>,
    supporting: bool,
}

impl MockCloud {
    /// A fresh cloud in a new world, which follows tokio's clock, paused or real.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let world =
            World::new(seed, WorldClock::following(1.0)).with_cloud(CloudSpec::plain(CLOUD));
        world.add_key(CLOUD, KEY, "me");
        Self::in_world(world)
    }

    /// The mock over a world with a cloud called [`CLOUD`], and the keys it has there.
    #[must_use]
    pub fn in_world(world: World) -> Self {
        Self {
            world,
            belongings: Arc::default(),
            limits: None,
            supporting: false,
        }
    }

    /// Sets limits for its accounts that differ from the world's.
    #[must_use]
    pub fn limits(self, limits: AccountLimits) -> Self {
        Self {
            limits: Some(limits),
            ..self
        }
    }

    /// Makes a machine with ports require an address, which is made before it and released with it:
    /// a supporting object.
    #[must_use]
    pub fn supporting(self) -> Self {
        Self {
            supporting: true,
            ..self
        }
    }

    /// A provider with the valid key.
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

    /// Makes the next listing break off in the middle, visibly.
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
