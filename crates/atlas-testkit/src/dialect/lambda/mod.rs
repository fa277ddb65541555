//! Lambda Cloud's API over a world: instances, types, keys, file systems, rule sets, images,
//! regions. Facts: docs/clouds/lambda.md.
//!
//! Not served, because no machine of atlas needs them: fabric partitions and support tickets. They
//! answer 501 with their name (`unserved`).

mod account;
mod cloud;
mod envelope;
mod instances;
mod script;
mod stock;
mod unserved;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atlas_core::Timestamp;
use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, Method, Response, StatusCode, header};
use serde_json::Value;

use super::face::{BodyFault, face};
use super::query::{Query, decode};
use super::{SimBody, deliver};
use crate::world::{Account, Arrival, World};
use account::Holdings;
pub use cloud::CLOUD;
use envelope::Failure;
pub use stock::{NAME, cloud};

/// The old and the current host of the API.
const OLD_HOST: &str = "cloud.lambdalabs.com";
const HOST: &str = "cloud.lambda.ai";
const MINUTE: Duration = Duration::from_secs(60);
/// The largest body it reads.
const MAX_BODY: usize = 1 << 20;

/// Lambda's rate limits: one call a second, one launch in twelve seconds and five launches a minute
/// on average, with a small burst.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// The least time between two calls of any kind.
    pub any: Duration,
    /// The least time between two launches.
    pub launch: Duration,
    /// The burst size of calls.
    pub burst: u32,
    /// The maximum number of launches per minute.
    pub launches: usize,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            any: Duration::from_millis(950),
            launch: Duration::from_millis(11_500),
            burst: 2,
            launches: 5,
        }
    }
}

/// How this Lambda differs from an ordinary one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Quirks {
    /// The maximum number of instances per page; pages are used only if there is more than one.
    pub page_size: usize,
    /// The rate limits; `None` for no limit.
    pub rates: Option<Rates>,
    /// A 429 is plain text instead of an envelope.
    pub plain_429: bool,
    /// A launch that names a missing object gets a 404 instead of a 400; the documentation has
    /// both.
    pub unknown_is_404: bool,
    /// The price list shows this region as having free machines of every type, whether or not it
    /// does: the list is a hint, not a guarantee.
    pub claims_capacity: Option<String>,
    /// How outdated the price list's information about free machines may be.
    pub capacity_age: Duration,
    /// The maximum number of instances of an account; `None` for no limit.
    pub quota: Option<usize>,
    /// How long an ended instance is still shown, as `terminated` or `preempted`.
    pub remembers: Duration,
    /// New instances are unhealthy from the beginning, and stay so.
    pub boots_unhealthy: bool,
    /// A booting instance cannot be terminated yet.
    pub holds_while_booting: bool,
    /// How long a rule set counts as in use after its instances are gone.
    pub ruleset_lingers: Duration,
    /// Every object has an undocumented field.
    pub extra_fields: bool,
    /// The workspace that the key sees, by its name.
    pub workspace: String,
}

impl Quirks {
    /// An ordinary one without rate limits.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            rates: None,
            ..Self::default()
        }
    }
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            page_size: 1000,
            rates: Some(Rates::default()),
            plain_429: false,
            unknown_is_404: false,
            claims_capacity: None,
            capacity_age: Duration::ZERO,
            quota: None,
            remembers: MINUTE,
            boots_unhealthy: false,
            holds_while_booting: false,
            ruleset_lingers: Duration::from_secs(30),
            extra_fields: false,
            workspace: "Default Workspace".to_owned(),
        }
    }
}

/// Lambda's API over a world. Cheap to clone; clones are the same service.
#[derive(Clone)]
pub struct Lambda {
    world: World,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    quirks: Quirks,
    holdings: BTreeMap<Account, Holdings>,
    /// The earliest time of a key's next call, and of its next launch.
    due: BTreeMap<(String, bool), Timestamp>,
    /// When a key's last launches were.
    launches: BTreeMap<String, VecDeque<Timestamp>>,
    /// What the price list last reported about free machines, and when.
    capacity: Option<(Timestamp, Capacity)>,
    serial: u64,
}

/// Instance types, and where each was free.
type Capacity = BTreeMap<&'static str, Vec<&'static str>>;

/// A parsed call.
struct Call<'a> {
    account: Account,
    arrival: Arrival,
    query: Query,
    body: &'a [u8],
}

impl Call<'_> {
    fn json(&self) -> Result<Value, Failure> {
        serde_json::from_slice(self.body)
            .map_err(|_| Failure::invalid("The request body is not valid JSON."))
    }
}

/// The operation of a path and method.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route {
    List,
    Get(String),
    Rename(String),
    Types,
    Launch,
    Restart,
    Terminate,
    Keys,
    AddKey,
    DeleteKey(String),
    FileSystems,
    AddFileSystem,
    DeleteFileSystem(String),
    Images,
    Regions,
    Rules,
    PutRules,
    Rulesets,
    AddRuleset,
    GetRuleset(String),
    PatchRuleset(String),
    DeleteRuleset(String),
    Audit,
}

face!(Lambda);

impl Lambda {
    /// Lambda over this world, which must contain the cloud of [`cloud`].
    #[must_use]
    pub fn new(world: World) -> Self {
        Self {
            world,
            shared: Arc::default(),
        }
    }

    const fn most(&self, _parts: &http::request::Parts) -> usize {
        MAX_BODY
    }

    async fn answer(
        self,
        parts: http::request::Parts,
        body: Result<Bytes, BodyFault>,
    ) -> Result<Response<SimBody>, io::Error> {
        let Ok(body) = body else {
            return Err(io::ErrorKind::ConnectionAborted.into());
        };
        if parts.uri.host() == Some(OLD_HOST) {
            return Ok(moved(&parts.uri));
        }
        let unauthorized = || {
            Failure::new(
                401,
                "global/invalid-api-key",
                "API key was invalid, expired, or deleted.",
            )
            .response()
        };
        let Some(key) = key(&parts.headers) else {
            return Ok(unauthorized());
        };
        if self.world.authorize(NAME, &key).is_none() {
            return Ok(unauthorized());
        }
        let Some(route) = route(&parts.method, parts.uri.path()) else {
            return Ok(no_route(&parts.method, parts.uri.path()));
        };
        if !self.in_time(&key, &route) {
            return Ok(self.limited());
        }
        let target = route.target(&body);
        let query = Query::of(parts.uri.query());
        let continues = query
            .get("page_token")
            .is_some_and(|token| !token.is_empty());
        let arrival =
            self.world
                .arrive(NAME, route.operation(), &key, target.as_deref(), continues);
        let Some(account) = self.world.authorize(NAME, &key) else {
            return Ok(unauthorized());
        };
        let honest = if arrival.refused().is_some() {
            Response::new(SimBody::empty())
        } else {
            let call = Call {
                account,
                arrival: arrival.clone(),
                query,
                body: &body,
            };
            self.handle(&route, &call)
                .unwrap_or_else(|failure| failure.response())
        };
        let honest = if self.shared().quirks.extra_fields {
            envelope::with_strange_fields(honest)
        } else {
            honest
        };
        let failed = || {
            Failure::new(
                500,
                "provider/internal-unavailable",
                "The upstream did not answer.",
            )
            .response()
        };
        deliver(&self.world, &arrival, honest, failed, || self.limited()).await
    }

    fn in_time(&self, key: &str, route: &Route) -> bool {
        let mut shared = self.shared();
        let Some(rates) = shared.quirks.rates else {
            return true;
        };
        let now = self.world.now();
        let launches = *route == Route::Launch;
        if launches {
            let lately = shared.launches.entry(key.to_owned()).or_default();
            lately.retain(|at| now.since(*at) < MINUTE);
            if lately.len() >= rates.launches {
                return false;
            }
        }
        let windows = [(false, rates.any, rates.burst), (true, rates.launch, 1)];
        let concerned = windows
            .into_iter()
            .filter(|(launch, ..)| !launch || launches);
        let late = |due: Option<&Timestamp>, interval: Duration, burst: u32| {
            due.is_some_and(|due| due.since(now) > interval * burst.saturating_sub(1))
        };
        let concerned: Vec<_> = concerned.collect();
        if concerned.iter().any(|(launch, interval, burst)| {
            late(
                shared.due.get(&(key.to_owned(), *launch)),
                *interval,
                *burst,
            )
        }) {
            return false;
        }
        if launches {
            shared
                .launches
                .entry(key.to_owned())
                .or_default()
                .push_back(now);
        }
        for (launch, interval, _) in concerned {
            let due = shared.due.entry((key.to_owned(), launch)).or_insert(now);
            *due = (*due).max(now).saturating_add(interval);
        }
        true
    }

    fn limited(&self) -> Response<SimBody> {
        if self.shared().quirks.plain_429 {
            let mut response = Response::new(SimBody::from("Too Many Requests"));
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            return response;
        }
        Failure::new(429, "global/too-many-requests", "Rate limit exceeded.").response()
    }

    fn handle(&self, route: &Route, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        match route {
            Route::List => Ok(self.list(call)),
            Route::Get(id) => self.get(call, id),
            Route::Rename(id) => self.rename(call, id),
            Route::Types => Ok(self.types(call)),
            Route::Launch => self
                .launch(call)
                .map_err(|failure| failure.unknown_as_404(self.shared().quirks.unknown_is_404)),
            Route::Restart => self.restart(call),
            Route::Terminate => self.terminate(call),
            Route::Keys => Ok(self.keys(call)),
            Route::AddKey => self.add_key(call),
            Route::DeleteKey(id) => self.delete_key(call, id),
            Route::FileSystems => Ok(self.file_systems(call)),
            Route::AddFileSystem => self.add_file_system(call),
            Route::DeleteFileSystem(id) => self.delete_file_system(call, id),
            Route::Images => Ok(self.images()),
            Route::Regions => Ok(self.regions()),
            Route::Rules => Ok(self.rules(call)),
            Route::PutRules => self.put_rules(call),
            Route::Rulesets => Ok(self.rulesets(call)),
            Route::AddRuleset => self.add_ruleset(call),
            Route::GetRuleset(id) => self.get_ruleset(call, id),
            Route::PatchRuleset(id) => self.patch_ruleset(call, id),
            Route::DeleteRuleset(id) => self.delete_ruleset(call, id),
            Route::Audit => self.audit(call),
        }
    }

    /// A new id in Lambda's format.
    fn next_id(&self) -> String {
        let mut shared = self.shared();
        shared.serial += 1;
        format!(
            "{:032x}",
            u128::from(shared.serial) + (0x5e0b_7c41_u128 << 96)
        )
    }
}

impl Route {
    /// The operation's name in the contract.
    const fn operation(&self) -> &'static str {
        match self {
            Self::List => "list_compute",
            Self::Get(_) => "get_compute",
            Self::Rename(_) => "update_compute",
            Self::Types => "list_gpu_types",
            Self::Launch => "spawn_compute",
            Self::Restart => "restart",
            Self::Terminate => "terminate",
            Self::Keys | Self::AddKey | Self::DeleteKey(_) => "ssh_keys",
            Self::FileSystems => "list_network_volumes",
            Self::AddFileSystem => "create_network_volume",
            Self::DeleteFileSystem(_) => "delete_network_volume",
            Self::Images | Self::Regions => "list_regions",
            Self::AddRuleset => "ensure_support",
            Self::DeleteRuleset(_) => "release_support",
            Self::Rules
            | Self::PutRules
            | Self::Rulesets
            | Self::GetRuleset(_)
            | Self::PatchRuleset(_) => "supports",
            Self::Audit => "audit",
        }
    }

    /// The machine concerned.
    fn target(&self, body: &[u8]) -> Option<String> {
        match self {
            Self::Get(id) | Self::Rename(id) => Some(id.clone()),
            Self::Terminate | Self::Restart => {
                let body: Value = serde_json::from_slice(body).ok()?;
                body["instance_ids"][0].as_str().map(str::to_owned)
            }
            _ => None,
        }
    }
}

fn route(method: &Method, path: &str) -> Option<Route> {
    let segments: Vec<String> = path
        .strip_prefix("/api/v1/")?
        .split('/')
        .map(decode)
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let own = str::to_owned;
    Some(match (method.as_str(), segments.as_slice()) {
        ("GET", ["instances"]) => Route::List,
        ("GET", ["instances", id]) if !id.is_empty() => Route::Get(own(id)),
        ("POST", ["instances", id]) if !id.is_empty() => Route::Rename(own(id)),
        ("GET", ["instance-types"]) => Route::Types,
        ("POST", ["instance-operations", "launch"]) => Route::Launch,
        ("POST", ["instance-operations", "restart"]) => Route::Restart,
        ("POST", ["instance-operations", "terminate"]) => Route::Terminate,
        ("GET", ["ssh-keys"]) => Route::Keys,
        ("POST", ["ssh-keys"]) => Route::AddKey,
        ("DELETE", ["ssh-keys", id]) => Route::DeleteKey(own(id)),
        ("GET", ["file-systems"]) => Route::FileSystems,
        ("POST", ["filesystems"]) => Route::AddFileSystem,
        ("DELETE", ["filesystems", id]) => Route::DeleteFileSystem(own(id)),
        ("GET", ["images"]) => Route::Images,
        ("GET", ["regions"]) => Route::Regions,
        ("GET", ["firewall-rules"]) => Route::Rules,
        ("PUT", ["firewall-rules"]) => Route::PutRules,
        ("GET", ["firewall-rulesets"]) => Route::Rulesets,
        ("POST", ["firewall-rulesets"]) => Route::AddRuleset,
        ("GET", ["firewall-rulesets", id]) => Route::GetRuleset(own(id)),
        ("PATCH", ["firewall-rulesets", id]) => Route::PatchRuleset(own(id)),
        ("DELETE", ["firewall-rulesets", id]) => Route::DeleteRuleset(own(id)),
        ("GET", ["audit-events"]) => Route::Audit,
        _ => return None,
    })
}

/// A documented call that is not served is a 501; an unknown path is a 404; a known one with
/// another method a 405.
fn no_route(method: &Method, path: &str) -> Response<SimBody> {
    if let Some(call) = unserved::name(method, path) {
        let text = format!("{call} is not simulated.");
        return Failure::new(501, "global/not-implemented", text).response();
    }
    let methods = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ];
    if methods
        .iter()
        .any(|other| other != method && route(other, path).is_some())
    {
        return Failure::new(405, "global/method-not-allowed", "Method not allowed.").response();
    }
    Failure::new(
        404,
        "global/not-found",
        "The requested resource was not found.",
    )
    .response()
}

/// The old host's answer to every request. A client that follows it turns a launch into a read.
fn moved(uri: &http::Uri) -> Response<SimBody> {
    let mut response = Response::new(SimBody::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let path = uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    if let Ok(to) = format!("https://{HOST}{path}").parse() {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

/// The key of `Bearer <key>`, of `Basic base64(<key>:)`, or of `Basic <key>`.
fn key(headers: &HeaderMap) -> Option<String> {
    let (scheme, given) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    let given = given.trim();
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(given.to_owned()),
        "basic" => {
            let decoded = BASE64
                .decode(given.as_bytes())
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok());
            Some(
                decoded
                    .and_then(|pair| pair.split_once(':').map(|(user, _)| user.to_owned()))
                    .unwrap_or_else(|| given.to_owned()),
            )
        }
        _ => None,
    }
    .filter(|key| !key.is_empty())
}
