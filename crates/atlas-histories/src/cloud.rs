//! What differs between the clouds of a history, and all of it: keys and accounts, requests, what a
//! stranger's machine is made of, how a launch key is copied, which call ends a machine.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use atlas_core::{
    AccountLimits, AccountName, AnyProvider, Clock, ComputeRequest, Entropy, Gpu, LAUNCH_KEY_ENV,
    LAUNCH_KEY_TAG, Port, Result, Secret, TrackedKey,
};
use atlas_http::{Body, Transport};
use atlas_provider_fly::Fly;
use atlas_provider_lambda::Lambda;
use atlas_provider_runpod::RunPod;
use atlas_provider_vast::Vast;
use atlas_testkit::dialect::{SimBody, fly, lambda, runpod, vast};
use atlas_testkit::world::{CloudSpec, Machine, MachineSpec, World};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tower::Service;

/// One of the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cloud {
    /// RunPod, over REST v2 and, for spot, GraphQL.
    RunPod,
    /// Fly Machines.
    Fly,
    /// Lambda Cloud.
    Lambda,
    /// Vast.ai.
    Vast,
}

/// An app of Fly's into which strangers put what they copied: a name is unique in its app.
const THEIR_APP: &str = "their-app";
/// The card that requests name on Vast.
const VAST_CARD: Gpu = Gpu::Rtx4090;

impl Cloud {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::RunPod, Self::Fly, Self::Lambda, Self::Vast];

    /// Its name: in the world, in faults, and of the account that rents from it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RunPod => runpod::NAME,
            Self::Fly => fly::NAME,
            Self::Lambda => lambda::NAME,
            Self::Vast => vast::NAME,
        }
    }

    /// The cloud of a machine.
    pub(crate) fn of(machine: &Machine) -> Option<Self> {
        machine.cloud.parse().ok()
    }

    /// The account that rents from it, by its name in the deployment.
    pub(crate) fn account_name(self) -> AccountName {
        AccountName::new(self.as_str()).expect("a plain name")
    }

    /// The account of the nodes, by its name in the world.
    pub(crate) const fn account(self) -> &'static str {
        match self {
            Self::Fly => fly::ORG,
            Self::RunPod | Self::Lambda | Self::Vast => "ours",
        }
    }

    /// The cloud, as the world knows it.
    pub(crate) fn spec(self) -> CloudSpec {
        match self {
            Self::RunPod => runpod::cloud(),
            Self::Fly => fly::cloud(),
            Self::Lambda => lambda::cloud(),
            Self::Vast => vast::cloud(),
        }
    }

    /// Its API over this world, with lists of at most so many machines on a page.
    pub(crate) fn dialect(self, world: &World, page_size: usize) -> Dialect {
        match self {
            Self::RunPod => {
                let mut quirks = runpod::Quirks::default();
                quirks.page_size = page_size;
                Dialect::RunPod(runpod::RunPod::new(world.clone()).with_quirks(quirks))
            }
            Self::Fly => {
                let mut quirks = fly::Quirks::default();
                quirks.page_size = page_size;
                let dialect = fly::Fly::new(world.clone()).with_quirks(quirks);
                dialect.add_app(fly::ORG, THEIR_APP);
                Dialect::Fly(dialect)
            }
            Self::Lambda => {
                let mut quirks = lambda::Quirks::default();
                quirks.page_size = page_size;
                Dialect::Lambda(lambda::Lambda::new(world.clone()).with_quirks(quirks))
            }
            Self::Vast => {
                let mut quirks = vast::Quirks::default();
                quirks.page_size = page_size;
                Dialect::Vast(vast::Vast::new(world.clone()).with_quirks(quirks))
            }
        }
    }

    /// The provider, as an application builds it.
    pub(crate) fn provider(
        self,
        key: &str,
        transport: Transport,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<AnyProvider> {
        Ok(match self {
            Self::RunPod => {
                let builder = RunPod::builder()
                    .api_key(key)
                    .transport(transport)
                    .clock(clock)
                    .entropy(entropy);
                AnyProvider::new(builder.spot(true).build()?)
            }
            // Without a name for the organisation, so that the token says which it is; with the app
            // of machines without ports.
            Self::Fly => AnyProvider::new(
                Fly::builder()
                    .api_key(key)
                    .app(fly::APP)
                    .transport(transport)
                    .clock(clock)
                    .entropy(entropy)
                    .build()?,
            ),
            Self::Lambda => AnyProvider::new(
                Lambda::builder()
                    .api_key(key)
                    .transport(transport)
                    .clock(clock)
                    .entropy(entropy)
                    .build()?,
            ),
            Self::Vast => AnyProvider::new(
                Vast::builder()
                    .api_key(key)
                    .transport(transport)
                    .clock(clock)
                    .entropy(entropy)
                    .build()?,
            ),
        })
    }

    /// Bounds and pace of its account: the provider's own, but RunPod's bound is two minutes here,
    /// four times what it is said to be.
    pub(crate) fn limits(self) -> AccountLimits {
        let limits = |bound, deadline, interval, burst, concurrency| AccountLimits {
            visibility_bound: Duration::from_secs(bound),
            call_deadline: Duration::from_secs(deadline),
            call_interval: Duration::from_millis(interval),
            burst,
            concurrency,
        };
        match self {
            Self::RunPod => limits(120, 30, 50, 20, 16),
            Self::Fly => limits(60, 60, 20, 20, 32),
            Self::Lambda => limits(120, 60, 1_000, 1, 4),
            Self::Vast => limits(90, 60, 200, 5, 8),
        }
    }

    /// How late its reads may be at worst, within its stated bound.
    pub(crate) fn lag(self) -> Duration {
        self.limits().visibility_bound - Duration::from_secs(10)
    }

    /// Whether it lets machines that it may take back.
    pub(crate) const fn lets_spot(self) -> bool {
        matches!(self, Self::RunPod | Self::Vast)
    }

    /// What a user asks for. A task on this cloud has no reachable port, where that makes a
    /// difference.
    pub(crate) fn request(self, is_task: bool, spot: bool) -> ComputeRequest {
        let (request, serves) = match self {
            Self::RunPod => (ComputeRequest::gpu(Gpu::L40S), true),
            // A machine with ports gets an app of its own; the others share one.
            Self::Fly => (ComputeRequest::cpu(1), !is_task),
            Self::Lambda => (ComputeRequest::gpu(Gpu::A10), true),
            Self::Vast => (ComputeRequest::gpu(VAST_CARD), true),
        };
        let request = request.image("x/y:1").spot(spot);
        if serves {
            request.port(Port::http(8000))
        } else {
            request
        }
    }

    /// A machine that a stranger rents, without a key.
    pub(crate) fn strangers(self, world: &World, name: impl Into<String>) -> MachineSpec {
        let spec = match self {
            Self::RunPod => MachineSpec::gpu("NVIDIA L40S", 1),
            Self::Fly => MachineSpec::cpu("shared-cpu-1x", 1),
            Self::Lambda => MachineSpec::gpu("gpu_1x_a10", 1),
            Self::Vast => MachineSpec::gpu(free_ask(world), 1),
        };
        spec.named(name)
    }

    /// The order of a user who copies a machine, including name and key.
    pub(crate) fn copy(self, world: &World, original: &Machine) -> MachineSpec {
        let mut spec = original.spec.clone();
        match self {
            Self::RunPod | Self::Lambda => {}
            Self::Fly => spec.id_suffix = Some(format!(".{THEIR_APP}")),
            // An ask is let once.
            Self::Vast => {
                spec.shape = free_ask(world);
                spec.regions = Vec::new();
            }
        }
        spec
    }

    /// Puts a launch key where the cloud carries it besides the name, or takes it away.
    pub(crate) fn mark(self, spec: &mut MachineSpec, key: Option<TrackedKey>) {
        match (self, key) {
            (Self::RunPod | Self::Vast, Some(key)) => {
                spec.env
                    .insert(LAUNCH_KEY_ENV.to_owned(), Secret::new(key.to_string()));
            }
            (Self::RunPod | Self::Vast, None) => drop(spec.env.remove(LAUNCH_KEY_ENV)),
            (Self::Fly | Self::Lambda, Some(key)) => {
                spec.tags.insert(LAUNCH_KEY_TAG.to_owned(), key.to_string());
            }
            (Self::Fly | Self::Lambda, None) => drop(spec.tags.remove(LAUNCH_KEY_TAG)),
        }
    }

    /// Variables of a machine that the provider adds and that are no secrets.
    pub(crate) const fn open_variables(self) -> &'static [&'static str] {
        match self {
            Self::Vast => &["ATLAS_PORTS"],
            Self::RunPod | Self::Fly | Self::Lambda => &[],
        }
    }

    /// The machines that a call orders the end of.
    pub(crate) fn ended(
        self,
        world: &World,
        method: &Method,
        path: &str,
        body: &[u8],
    ) -> Vec<String> {
        let segments: Vec<&str> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .collect();
        let own = |id: &str| vec![id.to_owned()];
        match (self, method, segments.as_slice()) {
            (Self::RunPod, &Method::DELETE, [.., id]) => own(id),
            (Self::Vast, &Method::DELETE, [.., "instances", id]) => own(id),
            (Self::Fly, &Method::DELETE, [.., "apps", app, "machines", id]) => {
                vec![format!("{id}.{app}")]
            }
            // An app takes along what is in it.
            (Self::Fly, &Method::DELETE, [.., "apps", app]) => {
                let inside = world
                    .all(self.as_str())
                    .into_iter()
                    .filter(Machine::is_live);
                inside
                    .map(|machine| machine.id)
                    .filter(|id| id.split_once('.').is_some_and(|(_, of)| of == *app))
                    .collect()
            }
            (Self::Lambda, &Method::POST, [.., "instance-operations", "terminate"]) => {
                let body: Value = serde_json::from_slice(body).unwrap_or_default();
                body["instance_ids"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|id| id.as_str().map(str::to_owned))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// What the front of the cloud says that takes a deletion and then forgets it.
    pub(crate) fn forgets(self) -> Response<SimBody> {
        let (status, body) = match self {
            Self::RunPod => (StatusCode::NO_CONTENT, None),
            Self::Fly => (StatusCode::OK, Some(json!({ "ok": true }))),
            Self::Lambda => (
                StatusCode::OK,
                Some(json!({ "data": { "terminated_instances": [] } })),
            ),
            Self::Vast => (StatusCode::OK, Some(json!({ "success": true }))),
        };
        let mut response = Response::new(body.map_or_else(SimBody::empty, |body| {
            SimBody::from(body.to_string().into_bytes())
        }));
        *response.status_mut() = status;
        response
    }
}

/// A free ask of Vast, preferably without the GPU that requests name.
fn free_ask(world: &World) -> String {
    let shapes = world
        .cloud(vast::NAME)
        .map(|cloud| cloud.shapes)
        .unwrap_or_default();
    let whole = |native: &str| {
        world
            .stock(vast::NAME, native, "")
            .values()
            .any(|free| *free >= 2)
    };
    let mut free: Vec<_> = shapes
        .into_iter()
        .filter(|shape| shape.gpu != Some(VAST_CARD))
        .collect();
    free.retain(|shape| whole(&shape.native));
    free.into_iter()
        .next()
        .map(|shape| shape.native)
        .unwrap_or_default()
}

impl FromStr for Cloud {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|cloud| cloud.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no cloud"))
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A cloud's API over a world.
#[derive(Clone, Debug)]
pub(crate) enum Dialect {
    RunPod(runpod::RunPod),
    Fly(fly::Fly),
    Lambda(lambda::Lambda),
    Vast(vast::Vast),
}

impl Service<Request<Body>> for Dialect {
    type Response = Response<SimBody>;
    type Error = io::Error;
    type Future = <runpod::RunPod as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self {
            Self::RunPod(dialect) => dialect.call(request),
            Self::Fly(dialect) => dialect.call(request),
            Self::Lambda(dialect) => dialect.call(request),
            Self::Vast(dialect) => dialect.call(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::SystemClock;
    use std::convert::Infallible;

    fn provider(cloud: Cloud) -> AnyProvider {
        let unreached = tower::service_fn(|_: Request<Body>| {
            std::future::ready(Ok::<_, Infallible>(Response::new(Body::from(""))))
        });
        let entropy = Arc::new(crate::dice::entropy(1, "test"));
        cloud
            .provider(
                "a-key",
                Transport::new(unreached),
                Arc::new(SystemClock),
                entropy,
            )
            .unwrap()
    }

    #[test]
    fn bounds_are_the_providers_own_and_runpods_is_wider() {
        for cloud in [Cloud::Fly, Cloud::Lambda, Cloud::Vast] {
            assert_eq!(cloud.limits(), provider(cloud).limits(), "{cloud}");
        }
        assert!(
            Cloud::RunPod.limits().visibility_bound
                >= provider(Cloud::RunPod).limits().visibility_bound
        );
    }

    #[test]
    fn every_request_is_one_that_its_provider_takes() {
        for cloud in Cloud::ALL {
            assert_eq!(cloud.as_str().parse(), Ok(cloud));
            for is_task in [false, true] {
                provider(cloud)
                    .check(&cloud.request(is_task, cloud.lets_spot()))
                    .unwrap();
                provider(cloud)
                    .check(&cloud.request(is_task, false))
                    .unwrap();
            }
        }
        assert!("azure".parse::<Cloud>().is_err());
    }

    #[test]
    fn the_call_that_ends_a_machine_is_told_from_others() {
        let world =
            World::new(1, atlas_testkit::world::WorldClock::manual()).with_cloud(Cloud::Fly.spec());
        let account = world.account(Cloud::Fly.account());
        let theirs = world
            .plant_machine(
                Cloud::Fly.as_str(),
                &account,
                Cloud::Fly.strangers(&world, "theirs"),
            )
            .unwrap();
        let ended = |cloud: Cloud, method: Method, path: &str, body: &str| {
            cloud.ended(&world, &method, path, body.as_bytes())
        };
        assert_eq!(
            ended(Cloud::RunPod, Method::DELETE, "/v2/pods/abc", ""),
            ["abc"]
        );
        assert_eq!(
            ended(
                Cloud::Vast,
                Method::DELETE,
                "/api/v0/instances/25417001/",
                ""
            ),
            ["25417001"]
        );
        assert_eq!(
            ended(
                Cloud::Fly,
                Method::DELETE,
                "/v1/apps/pods/machines/6e82",
                ""
            ),
            ["6e82.pods"]
        );
        assert_eq!(
            ended(Cloud::Fly, Method::DELETE, "/v1/apps/sim-app", ""),
            [theirs.id]
        );
        let body = r#"{"instance_ids":["0a1b"]}"#;
        assert_eq!(
            ended(
                Cloud::Lambda,
                Method::POST,
                "/api/v1/instance-operations/terminate",
                body
            ),
            ["0a1b"]
        );
        assert!(
            ended(
                Cloud::Lambda,
                Method::POST,
                "/api/v1/instance-operations/launch",
                body
            )
            .is_empty()
        );
        assert!(
            ended(
                Cloud::Fly,
                Method::DELETE,
                "/v1/apps/pods/ip_assignments/2001:db8::1",
                ""
            )
            .is_empty()
        );
        assert!(ended(Cloud::RunPod, Method::GET, "/v2/pods/abc", "").is_empty());
    }
}
