//! The mock cloud as a subject of the conformance suite.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use atlas_core::{AnyProvider, ComputeId, ComputeRequest, Gpu, Port, Result, Timestamp};
use serde_json::json;

use super::{CLOUD, ENDPOINT, KEY, MockCloud};
use crate::conformance::{BoxFuture, Control, LedgerEntry, Rewrite, Serverless, Subject};
use crate::world::{Fault, FaultKind, Lag, World};

/// A mock cloud for the suite, a fresh one for each case. Run it in paused time.
#[derive(Debug)]
pub struct MockSubject {
    seed: u64,
    lagging: bool,
    cloud: Mutex<MockCloud>,
}

impl MockSubject {
    /// Clouds with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            lagging: false,
            cloud: Mutex::new(MockCloud::new(seed).supporting()),
        }
    }

    /// The same with clouds whose reads lag, up to their bound.
    #[must_use]
    pub fn lagging(self) -> Self {
        Self {
            lagging: true,
            ..self
        }
    }

    /// The cloud of the case that is running.
    #[must_use]
    pub fn cloud(&self) -> MockCloud {
        self.cloud
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Subject for MockSubject {
    fn fresh(&self) -> BoxFuture<'_, Result<AnyProvider>> {
        let cloud = MockCloud::new(self.seed).supporting();
        if self.lagging {
            let bound = cloud
                .world()
                .cloud(CLOUD)
                .map(|spec| spec.visibility_bound)
                .unwrap_or_default();
            cloud.world().set_lag(CLOUD, Lag::within(bound));
        }
        let provider = cloud.provider();
        *self.cloud.lock().unwrap_or_else(PoisonError::into_inner) = cloud;
        Box::pin(async move { Ok(provider) })
    }

    fn with_bad_key(&self) -> Option<AnyProvider> {
        Some(self.cloud().provider_with_key("not-a-key"))
    }

    fn request(&self) -> ComputeRequest {
        ComputeRequest::gpu(Gpu::H100)
            .image("x/y:1")
            .port(Port::http(8080))
    }

    fn now(&self) -> Timestamp {
        self.cloud().world().now()
    }

    fn wait(&self, span: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(span))
    }

    fn control(&self) -> Option<&dyn Control> {
        Some(self)
    }

    fn serverless(&self) -> Option<Serverless> {
        Some(Serverless::simulated(ENDPOINT))
    }

    fn region(&self) -> Option<String> {
        Some("r2".to_owned())
    }

    fn secrets(&self) -> Vec<String> {
        vec![KEY.to_owned(), "not-a-key".to_owned()]
    }
}

impl Control for MockSubject {
    fn inject<'a>(
        &'a self,
        operation: &'a str,
        fault: FaultKind,
        count: u32,
    ) -> BoxFuture<'a, bool> {
        self.cloud()
            .world()
            .inject([Fault::new(CLOUD, operation, fault).times(count)]);
        Box::pin(async move { fault.concerns(operation) })
    }

    fn break_listing(&self) -> BoxFuture<'_, bool> {
        self.cloud().break_listing();
        Box::pin(async { true })
    }

    fn rewrite_machines(&self, rewrite: Option<Rewrite>) -> bool {
        self.cloud().rewrite_machines(rewrite);
        true
    }

    fn ledger(&self) -> BoxFuture<'_, Vec<LedgerEntry>> {
        let entries = LedgerEntry::of_world(self.cloud().world(), CLOUD);
        Box::pin(async move { entries })
    }

    fn requests<'a>(&'a self, operation: Option<&'a str>) -> BoxFuture<'a, u64> {
        let calls = self.cloud().calls();
        Box::pin(async move {
            operation.map_or_else(
                || calls.values().sum(),
                |operation| calls.get(operation).copied().unwrap_or(0),
            )
        })
    }
}

impl LedgerEntry {
    /// The books of one cloud of a world.
    #[must_use]
    pub fn of_world(world: &World, cloud: &str) -> Vec<Self> {
        let machines = world.all(cloud);
        machines
            .iter()
            .filter_map(|machine| {
                let env: BTreeMap<String, String> = machine
                    .spec
                    .env
                    .iter()
                    .map(|(name, value)| (name.clone(), value.expose().to_owned()))
                    .collect();
                let id = ComputeId::new(&machine.id).ok()?;
                Some(Self {
                    id,
                    live: machine.is_live(),
                    launch_key: machine.launch_key(),
                    env: Some(env),
                })
            })
            .collect()
    }
}

impl Serverless {
    /// The endpoint that every simulated cloud with serverless jobs has.
    #[must_use]
    pub fn simulated(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            echo: json!({ "prompt": "conformance" }),
            long: json!({ "sleep": 120 }),
            stream: (json!({ "stream": 5 }), 5),
            error: (
                json!({ "error": "out of paper" }),
                "out of paper".to_owned(),
            ),
        }
    }
}
