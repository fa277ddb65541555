//! The clouds of a history: the simulated cloud of the test kit, with the provider that an
//! application builds for it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use atlas::{CloudSettings, built_in_cloud};
use atlas_core::config::{ApiKey, Origin};
use atlas_core::{
    AccountLimits, AccountName, AnyProvider, Clock, ComputeRequest, Entropy, Error, LAUNCH_KEY_ENV,
    LAUNCH_KEY_TAG, Port, Result, Secret, TrackedKey,
};
use atlas_http::Transport;
use atlas_testkit::dialect::cloud::{Api, KeyIn, Served, Setting, SimulatedCloud, Started};
use atlas_testkit::dialect::{CLOUDS, SimBody, cloud_named, fly};
use atlas_testkit::world::{CloudSpec, Machine, MachineSpec, World};
use http::{Method, Response, StatusCode};

/// One of the simulated clouds.
#[derive(Clone, Copy, Debug)]
pub struct Cloud(&'static SimulatedCloud);

impl Cloud {
    /// RunPod, over REST v2 and, for spot, GraphQL.
    pub const RUNPOD: Self = Self(&atlas_testkit::dialect::runpod::CLOUD);

    /// Whether it reports when a machine was made.
    #[must_use]
    pub const fn reports_birth(self) -> bool {
        self.0.reports_birth
    }

    /// All of them, in the order of the test kit's list.
    #[must_use]
    pub fn all() -> Vec<Self> {
        CLOUDS.iter().copied().map(Self).collect()
    }

    /// Its name: in the world, in faults, and of the account that rents from it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0.name
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
    pub(crate) fn account(self) -> &'static str {
        self.0.account.unwrap_or("ours")
    }

    /// The cloud, as the world knows it.
    pub(crate) fn spec(self) -> CloudSpec {
        (self.0.spec)()
    }

    /// Its API over this world, with lists of at most so many machines on a page.
    pub(crate) fn api(self, world: &World, page_size: usize) -> Api {
        let mut setting = Setting::default();
        (setting.page_size, setting.rates, setting.strangers) = (Some(page_size), true, true);
        let Started { services, .. } = (self.0.start)(world, &setting);
        let first = services.into_iter().next();
        match first {
            Some(Served::Api(api)) => api,
            _ => unreachable!("the first listener of a cloud is its API"),
        }
    }

    /// The provider, as an application builds it: on RunPod with spot pods, and on Fly without a
    /// name for the organisation, so that the token says which it is, and with the shared app of
    /// machines without ports.
    pub(crate) fn provider(
        self,
        key: &str,
        transport: Transport,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<AnyProvider> {
        let cloud = built_in_cloud(self.as_str()).ok_or_else(|| {
            Error::validation("provider", format!("atlas has no provider for {self}"))
        })?;
        let mut settings = CloudSettings::default();
        settings.key = Some(ApiKey {
            secret: Secret::new(key),
            origin: Origin::Builder,
        });
        settings.transport = Some(transport);
        settings.clock = Some(clock);
        settings.entropy = Some(entropy);
        settings.spot = self.lets_spot();
        settings.app = Some(fly::APP.to_owned());
        cloud.provider(&settings)
    }

    /// Bounds and pace of its account: the provider's own, or wider.
    pub(crate) const fn limits(self) -> AccountLimits {
        self.0.usage.limits
    }

    /// How late its reads may be at worst, within its stated bound.
    pub(crate) fn lag(self) -> Duration {
        self.limits().visibility_bound - Duration::from_secs(10)
    }

    /// Whether it lets machines that it may take back.
    pub(crate) const fn lets_spot(self) -> bool {
        self.0.usage.spot
    }

    /// What a user asks for. A task on this cloud has no reachable port, where that makes a
    /// difference.
    pub(crate) fn request(self, is_task: bool, spot: bool) -> ComputeRequest {
        let request = (self.0.usage.machine)().image("x/y:1").spot(spot);
        if is_task && self.0.usage.portless_differs {
            request
        } else {
            request.port(Port::http(8000))
        }
    }

    /// A machine that a stranger rents, without a key.
    pub(crate) fn strangers(self, world: &World, name: impl Into<String>) -> MachineSpec {
        (self.0.strangers.machine)(world).named(name)
    }

    /// The order of a user who copies a machine, including name and key.
    pub(crate) fn copy(self, world: &World, original: &Machine) -> MachineSpec {
        let mut spec = original.spec.clone();
        (self.0.strangers.copy)(world, &mut spec);
        spec
    }

    /// Whether a copy of a machine keeps the supporting objects of the original in use.
    pub(crate) const fn copies_share_support(self) -> bool {
        self.0.strangers.share_support
    }

    /// Puts a launch key where the cloud carries it besides the name, or takes it away.
    pub(crate) fn mark(self, spec: &mut MachineSpec, key: Option<TrackedKey>) {
        match (self.0.strangers.key_in, key) {
            (KeyIn::Environment, Some(key)) => {
                spec.env
                    .insert(LAUNCH_KEY_ENV.to_owned(), Secret::new(key.to_string()));
            }
            (KeyIn::Environment, None) => drop(spec.env.remove(LAUNCH_KEY_ENV)),
            (KeyIn::Tags, Some(key)) => {
                spec.tags.insert(LAUNCH_KEY_TAG.to_owned(), key.to_string());
            }
            (KeyIn::Tags, None) => drop(spec.tags.remove(LAUNCH_KEY_TAG)),
        }
    }

    /// Variables of a machine that the provider adds and that are no secrets.
    pub(crate) const fn open_variables(self) -> &'static [&'static str] {
        self.0.usage.open_variables
    }

    /// Whether a call orders a machine.
    pub(crate) fn orders(self, method: &Method, path: &str) -> bool {
        (self.0.traffic.orders)(method, path)
    }

    /// Whether a call reads one machine.
    pub(crate) fn looks(self, method: &Method, path: &str) -> bool {
        (self.0.traffic.reads)(method, path)
    }

    /// The machines that a call orders the end of.
    pub(crate) fn ended(
        self,
        world: &World,
        method: &Method,
        path: &str,
        body: &[u8],
    ) -> Vec<String> {
        (self.0.traffic.ends)(world, method, path, body)
    }

    /// What the front of the cloud says that takes a deletion and then forgets it.
    pub(crate) fn forgets(self) -> Response<SimBody> {
        let (status, body) = self.0.traffic.deleted;
        let body = match body {
            "" => SimBody::empty(),
            body => SimBody::from(body),
        };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
        response
    }

    fn position(self) -> Option<usize> {
        CLOUDS.iter().position(|cloud| cloud.name == self.0.name)
    }
}

impl PartialEq for Cloud {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Cloud {}

impl PartialOrd for Cloud {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Cloud {
    /// In the order of the list.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.position().cmp(&other.position())
    }
}

impl FromStr for Cloud {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        cloud_named(text)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a simulated cloud"))
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::SystemClock;
    use atlas_http::Body;
    use http::Request;
    use std::convert::Infallible;

    fn named(name: &str) -> Cloud {
        name.parse().unwrap()
    }

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
        for cloud in Cloud::all() {
            if cloud == Cloud::RUNPOD {
                continue;
            }
            assert_eq!(cloud.limits(), provider(cloud).limits(), "{cloud}");
        }
        assert!(
            Cloud::RUNPOD.limits().visibility_bound
                >= provider(Cloud::RUNPOD).limits().visibility_bound
        );
    }

    #[test]
    fn every_request_is_one_that_its_provider_takes() {
        for cloud in Cloud::all() {
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
        let world = World::new(1, atlas_testkit::world::WorldClock::manual())
            .with_cloud(named("fly").spec());
        let account = world.account(named("fly").account());
        let theirs = world
            .plant_machine(
                named("fly").as_str(),
                &account,
                named("fly").strangers(&world, "theirs"),
            )
            .unwrap();
        let ended = |cloud: Cloud, method: Method, path: &str, body: &str| {
            cloud.ended(&world, &method, path, body.as_bytes())
        };
        assert_eq!(
            ended(Cloud::RUNPOD, Method::DELETE, "/v2/pods/abc", ""),
            ["abc"]
        );
        assert_eq!(
            ended(
                named("vast"),
                Method::DELETE,
                "/api/v0/instances/25417001/",
                ""
            ),
            ["25417001"]
        );
        assert_eq!(
            ended(
                named("fly"),
                Method::DELETE,
                "/v1/apps/pods/machines/6e82",
                ""
            ),
            ["6e82.pods"]
        );
        assert_eq!(
            ended(named("fly"), Method::DELETE, "/v1/apps/sim-app", ""),
            [theirs.id]
        );
        let body = r#"{"instance_ids":["0a1b"]}"#;
        assert_eq!(
            ended(
                named("lambda"),
                Method::POST,
                "/api/v1/instance-operations/terminate",
                body
            ),
            ["0a1b"]
        );
        assert!(
            ended(
                named("lambda"),
                Method::POST,
                "/api/v1/instance-operations/launch",
                body
            )
            .is_empty()
        );
        assert!(
            ended(
                named("fly"),
                Method::DELETE,
                "/v1/apps/pods/ip_assignments/2001:db8::1",
                ""
            )
            .is_empty()
        );
        assert!(ended(Cloud::RUNPOD, Method::GET, "/v2/pods/abc", "").is_empty());
    }
}
