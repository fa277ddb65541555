//! Vast.ai's API over a world: offers, instances, logs, volumes, SSH keys, charges. Facts:
//! docs/clouds/vast.md.
//!
//! ```
//! use atlas_testkit::dialect::vast::{self, Vast};
//! use atlas_testkit::world::{World, WorldClock};
//!
//! let world = World::new(7, WorldClock::manual()).with_cloud(vast::cloud());
//! world.add_key(vast::NAME, "sim-key", "me");
//! let service = Vast::new(world);
//! # let _ = service;
//! ```
//!
//! Left out, and answered with 501 and the call's name: serverless, templates' own endpoints,
//! orders of several offers, snapshots, webhooks, teams and all host operations. Not modelled:
//! pulling an image without the GPU's price.

mod account;
mod cloud;
mod create;
mod credit;
mod envelope;
mod instances;
mod limit;
mod listing;
mod more;
mod offers;
mod results;
mod stock;
mod volumes;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atlas_core::{Timestamp, Usd};
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header};
use serde_json::{Value, json};

use super::face::{BodyFault, face};
use super::query::{Query, decode};
use super::{SimBody, deliver};
use crate::world::{Account, Arrival, World};
use account::Holdings;
pub use cloud::CLOUD;
use envelope::{Failure, answer, plain};
use limit::Limiter;
pub use limit::Rates;
use results::Results;
pub use stock::{NAME, cloud};

/// The largest body it reads.
const MAX_BODY: usize = 1 << 20;

/// How this Vast differs from an ordinary one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Quirks {
    /// The rate limits of the endpoints; `None` for no limit.
    pub rates: Option<Rates>,
    /// How many rows the searches of one account may give in a day, which ends at midnight UTC;
    /// `None` for any number. Vast does not publish its own.
    pub search_rows_a_day: Option<u64>,
    /// A wrong key is a 401 instead of a 404.
    pub bad_key_is_401: bool,
    /// A path without its slash is a 404 whatever the method, instead of a 301 for a read.
    pub slashless_is_404: bool,
    /// Successful changes are answered with 200 and no body.
    pub says_nothing: bool,
    /// The maximum number of instances per page.
    pub page_size: usize,
    /// How long a rented ask is still shown by searches.
    pub search_lag: Duration,
    /// For this many orders, another renter takes the ask just before.
    pub races_lost: u32,
    /// An ask can be rented twice.
    pub lets_twice: bool,
    /// A create is answered with 200 and `success: false`; nothing is rented.
    pub refuses_with_200: bool,
    /// The GPU that is delivered instead of the one that was shown.
    pub delivers: Option<String>,
    /// A bid is forgotten: the machine is on demand, at the full price.
    pub forgets_bid: bool,
    /// A filter that searches do not apply.
    pub ignores_filter: Option<String>,
    /// What is shown instead of `actual_status` and `status_msg`, until a machine runs.
    pub boot: Option<(String, String)>,
    /// How long the old `exited` is shown after a start.
    pub exited_after_start: Duration,
    /// How long an outbid machine waits until its bid wins again and it resumes by itself; `None`
    /// for never.
    pub resumes_after: Option<Duration>,
    /// How many times a result is not available yet.
    pub result_polls: u32,
    /// Where results are: another host than the API's.
    pub results_url: String,
    /// A destroy is accepted, and nothing follows.
    pub destroys_nothing: bool,
    /// A machine runs, and nothing ever answers at its ports.
    pub unreachable: bool,
    /// The prepaid money that an account began with; `None` for enough. What is used up stops all
    /// machines, and no other is rented.
    pub credit: Option<Usd>,
    /// How long what was stopped for lack of credit is kept.
    pub keeps_unpaid: Duration,
    /// How much is pulled for a machine's image, in GB. It is billed by the host's price of
    /// downloads.
    pub image_gb: u32,
}

impl Quirks {
    /// An ordinary one that takes any number of calls.
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
            rates: Some(Rates::default()),
            search_rows_a_day: None,
            bad_key_is_401: false,
            page_size: 25,
            search_lag: Duration::ZERO,
            races_lost: 0,
            lets_twice: false,
            refuses_with_200: false,
            delivers: None,
            forgets_bid: false,
            ignores_filter: None,
            boot: None,
            exited_after_start: Duration::ZERO,
            resumes_after: None,
            result_polls: 2,
            results_url: "https://results.vast.example/s3".to_owned(),
            slashless_is_404: false,
            says_nothing: false,
            destroys_nothing: false,
            unreachable: false,
            credit: None,
            keeps_unpaid: Duration::from_secs(48 * 3600),
            image_gb: 0,
        }
    }
}

/// Vast's API over a world. Cheap to clone; clones are the same service.
#[derive(Clone)]
pub struct Vast {
    world: World,
    shared: Arc<Mutex<Shared>>,
    /// Every call is for a result, whatever its host.
    results_only: bool,
}

#[derive(Default)]
struct Shared {
    quirks: Quirks,
    limiter: Limiter,
    holdings: BTreeMap<Account, Holdings>,
    results: Results,
    /// When asks were rented.
    rented: BTreeMap<u64, Timestamp>,
    notes: BTreeMap<String, Note>,
    /// Since when an account has no credit left.
    broke: BTreeMap<String, Timestamp>,
    serial: u64,
}

/// What the API remembers of an instance, besides what the world knows.
#[derive(Clone, Copy, Debug, Default)]
struct Note {
    /// Its account stopped it.
    stopped: bool,
    /// A start waits until the card is free.
    queued: bool,
    /// When it was last started.
    started: Option<Timestamp>,
    /// Since when others bid more.
    outbid: Option<Timestamp>,
}

/// One call, understood.
struct Call<'a> {
    account: Account,
    arrival: Arrival,
    query: Query,
    body: &'a [u8],
}

impl Call<'_> {
    /// The body; an empty one is an empty object.
    fn json(&self) -> Result<Value, Failure> {
        if self.body.is_empty() {
            return Ok(json!({}));
        }
        serde_json::from_slice(self.body)
            .map_err(|_| Failure::new(400, "invalid_request", "error 400: the body is not JSON"))
    }
}

/// What a path and method name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route {
    Bundles,
    BundlesByQuery,
    SearchAsks,
    Create(String),
    OldList,
    List,
    Get(String),
    Put(String),
    Delete(String),
    Reboot(String),
    Recycle(String),
    Bid(String),
    Prepay(String),
    Balance(String),
    Logs(String),
    Command(String),
    InstanceKeys(String),
    AddInstanceKey(String),
    DeleteInstanceKey(String, String),
    Keys,
    AddKey,
    PutKey(String),
    DeleteKey(String),
    User,
    Charges,
    VolumeOffers,
    Volumes,
    AddVolume,
    DeleteVolume,
    GpuNames,
    GpuTypes,
    UpdateTemplate(String),
    PriceIncreases,
    Secrets,
    Count,
    DeleteMany,
    PutMany,
}

face!(Vast);

impl Vast {
    /// Vast over this world, which must have the cloud [`cloud`] describes.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self {
            world,
            shared: Arc::default(),
            results_only: false,
        }
    }

    /// The other host, where logs and the output of commands are: the same cloud, for a listener of
    /// its own.
    #[must_use]
    pub fn results(&self) -> Self {
        Self {
            results_only: true,
            ..self.clone()
        }
    }

    /// How often the other host was sent an `Authorization`, which it must never see.
    #[must_use]
    pub fn keys_leaked(&self) -> u32 {
        self.shared().results.leaked
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
        let results = self.shared().quirks.results_url.clone();
        let elsewhere = parts
            .uri
            .host()
            .is_some_and(|host| results.contains(&format!("//{host}")));
        if self.results_only || elsewhere {
            return Ok(self.result(&parts));
        }
        let query = Query::of(parts.uri.query());
        let route = route(&parts.method, parts.uri.path());
        let given = key(&parts.headers, &query);
        // The market can be searched without an account (docs/clouds/vast.md, "Offers").
        let open = given.is_none() && route == Some(Route::Bundles);
        if given.is_none() && !open {
            return Ok(Failure::new(
                403,
                "auth_error",
                "error 403/1: This action requires login.",
            )
            .response());
        }
        let key = given.unwrap_or_default();
        let account = || {
            if open {
                Some(self.world.account(""))
            } else {
                self.world.authorize(NAME, &key)
            }
        };
        if account().is_none() {
            return Ok(self.unauthorized());
        }
        let Some(route) = route else {
            let known = more::out_of_scope(&parts.method, parts.uri.path());
            return Ok(known.map_or_else(|| self.no_route(&parts), |failure| failure.response()));
        };
        if !self.in_time(&key, &route) {
            return Ok(self.limited());
        }
        self.settle();
        let continues = query
            .get("after_token")
            .is_some_and(|token| !token.is_empty());
        let arrival = self.world.arrive(
            NAME,
            route.operation(&body),
            &key,
            route.target().as_deref(),
            continues,
        );
        let Some(account) = account() else {
            return Ok(self.unauthorized());
        };
        self.collect(&account);
        let honest = if arrival.refused().is_some() {
            Response::new(SimBody::empty())
        } else {
            let call = Call {
                account,
                arrival: arrival.clone(),
                query,
                body: &body,
            };
            let done = self.handle(&route, &call);
            match done {
                Ok(_) if self.shared().quirks.says_nothing => Response::new(SimBody::empty()),
                done => done.unwrap_or_else(|failure| failure.response()),
            }
        };
        let failed = || {
            Failure::new(
                500,
                "internal_error",
                "error 500/9999: Something went wrong.",
            )
            .response()
        };
        deliver(&self.world, &arrival, honest, failed, || self.limited()).await
    }

    fn unauthorized(&self) -> Response<SimBody> {
        let status = if self.shared().quirks.bad_key_is_401 {
            401
        } else {
            404
        };
        Failure::new(
            status,
            "auth_error",
            format!("error {status}/3: Invalid user key"),
        )
        .response()
    }

    fn in_time(&self, key: &str, route: &Route) -> bool {
        let mut shared = self.shared();
        let Some(rates) = shared.quirks.rates else {
            return true;
        };
        let now = self.world.now();
        shared.limiter.takes(rates, key, route, now)
    }

    /// A 429 has no header, and one of two bodies in turn.
    fn limited(&self) -> Response<SimBody> {
        if self.shared().limiter.next_is_plain() {
            return plain(
                StatusCode::TOO_MANY_REQUESTS,
                "API requests too frequent: endpoint threshold=4.5",
            );
        }
        answer(
            StatusCode::TOO_MANY_REQUESTS,
            &json!({ "detail": "API requests too frequent" }),
        )
    }

    fn handle(&self, route: &Route, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        match route {
            Route::Bundles => self.bundles(call),
            Route::BundlesByQuery => self.bundles_by_query(call),
            Route::SearchAsks => self.search_asks(call),
            Route::Create(ask) => self.create(call, ask),
            Route::OldList => {
                let msg = "/api/v0/instances/ is deprecated. Use /api/v1/instances/ instead.";
                Err(Failure::new(410, "deprecated_endpoint", msg))
            }
            Route::List => self.list(call),
            Route::Get(id) => Ok(self.get(call, id)),
            Route::Put(id) => self.put(call, id),
            Route::Delete(id) => self.delete(call, id),
            Route::Reboot(id) | Route::Recycle(id) => self.reboot(call, id),
            Route::Bid(id) => self.bid(call, id),
            Route::Prepay(id) => self.prepay(call, id),
            Route::Balance(id) => self.balance(call, id),
            Route::Logs(id) => self.logs(call, id),
            Route::Command(id) => self.command(call, id),
            Route::InstanceKeys(id) => self.instance_keys(call, id),
            Route::AddInstanceKey(id) => self.add_instance_key(call, id),
            Route::DeleteInstanceKey(id, key) => self.delete_instance_key(call, id, key),
            Route::Keys => self.keys(call),
            Route::AddKey => self.add_key(call),
            Route::PutKey(id) => self.put_key(call, id),
            Route::DeleteKey(id) => self.delete_key(call, id),
            Route::User => Ok(self.user(call)),
            Route::Charges => self.charges(call),
            Route::VolumeOffers => Ok(self.volume_offers(call)),
            Route::Volumes => Ok(self.volumes(call)),
            Route::AddVolume => self.add_volume(call),
            Route::DeleteVolume => self.delete_volume(call),
            Route::GpuNames => Ok(self.gpu_names()),
            Route::GpuTypes => Ok(self.gpu_types()),
            Route::UpdateTemplate(id) => self.update_template(call, id),
            Route::PriceIncreases => Ok(self.price_increases()),
            Route::Secrets => Ok(self.secrets()),
            Route::Count => Ok(self.count(call)),
            Route::DeleteMany => self.delete_many(call),
            Route::PutMany => self.put_many(call),
        }
    }

    /// A path without its slash is sent on, where the method allows it; any other is a page of
    /// HTML.
    fn no_route(&self, parts: &http::request::Parts) -> Response<SimBody> {
        let whole = format!("{}/", parts.uri.path());
        if parts.method == Method::GET
            && route(&parts.method, &whole).is_some()
            && !self.shared().quirks.slashless_is_404
        {
            let mut moved = Response::new(SimBody::empty());
            *moved.status_mut() = StatusCode::MOVED_PERMANENTLY;
            if let Ok(whole) = whole.parse() {
                moved.headers_mut().insert(header::LOCATION, whole);
            }
            return moved;
        }
        let mut missing = Response::new(SimBody::from(
            "<html><body><h1>404 Not Found</h1></body></html>",
        ));
        *missing.status_mut() = StatusCode::NOT_FOUND;
        missing.headers_mut().insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("text/html"),
        );
        missing
    }

    /// A number that was not given out before.
    fn next_number(&self) -> u64 {
        let mut shared = self.shared();
        shared.serial += 1;
        shared.serial
    }

    fn note(&self, id: &str, change: impl FnOnce(&mut Note)) {
        change(self.shared().notes.entry(id.to_owned()).or_default());
    }

    fn noted(&self, id: &str) -> Note {
        self.shared().notes.get(id).copied().unwrap_or_default()
    }
}

impl Route {
    /// The contract's word for it.
    fn operation(&self, body: &[u8]) -> &'static str {
        match self {
            Self::Bundles | Self::BundlesByQuery | Self::SearchAsks => "list_gpu_types",
            Self::Create(_) => "spawn_compute",
            Self::OldList | Self::List => "list_compute",
            Self::Get(_) => "get_compute",
            Self::Put(_) => {
                match serde_json::from_slice::<Value>(body).unwrap_or_default()["state"].as_str() {
                    Some("stopped") => "stop",
                    Some("running") => "start",
                    _ => "update_compute",
                }
            }
            Self::Delete(_) => "terminate",
            Self::Reboot(_) | Self::Recycle(_) => "restart",
            Self::Bid(_) | Self::Prepay(_) | Self::Balance(_) => "update_compute",
            Self::Logs(_) => "logs",
            Self::Command(_) => "exec",
            Self::InstanceKeys(_) | Self::AddInstanceKey(_) | Self::DeleteInstanceKey(..) => {
                "ssh_keys"
            }
            Self::Keys | Self::AddKey | Self::PutKey(_) | Self::DeleteKey(_) => "ssh_keys",
            Self::User => "identity",
            Self::Charges => "compute_spend",
            Self::VolumeOffers | Self::Volumes => "list_network_volumes",
            Self::AddVolume => "create_network_volume",
            Self::DeleteVolume => "delete_network_volume",
            Self::GpuNames | Self::GpuTypes => "list_gpu_types",
            Self::UpdateTemplate(_) => "update_compute",
            Self::PriceIncreases | Self::Secrets => "account",
            Self::Count => "list_compute",
            Self::DeleteMany => "terminate",
            Self::PutMany => {
                match serde_json::from_slice::<Value>(body).unwrap_or_default()["state"].as_str() {
                    Some("stopped") => "stop",
                    _ => "start",
                }
            }
        }
    }

    /// The machine it is about.
    fn target(&self) -> Option<String> {
        match self {
            Self::Get(id)
            | Self::Put(id)
            | Self::Delete(id)
            | Self::Reboot(id)
            | Self::Recycle(id)
            | Self::Logs(id) => Some(id.clone()),
            _ => None,
        }
    }
}

/// The route of a path that ends in a slash, as all do; two may do without.
fn route(method: &Method, path: &str) -> Option<Route> {
    let (version, rest) = path.strip_prefix("/api/")?.split_once('/')?;
    let rest = match rest {
        "users/current" | "volumes" => rest,
        rest => rest.strip_suffix('/')?,
    };
    let segments: Vec<String> = rest.trim_end_matches('/').split('/').map(decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let number = |id: &&str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
    let own = str::to_owned;
    Some(match (version, method.as_str(), segments.as_slice()) {
        ("v1", "GET", ["instances"]) => Route::List,
        ("v0", "GET", ["instances"]) => Route::OldList,
        ("v0", "GET", ["instances", "count"]) => Route::Count,
        ("v0", "GET", ["instances", "pending-price-increases"]) => Route::PriceIncreases,
        ("v0", "DELETE", ["instances"]) => Route::DeleteMany,
        ("v0", "PUT", ["instances"]) => Route::PutMany,
        ("v0", "PUT", ["instances", "update_template", id]) if number(id) => {
            Route::UpdateTemplate(own(id))
        }
        ("v0", "GET", ["gpu_names", "unique"]) => Route::GpuNames,
        ("v0", "GET", ["gpu_types"]) => Route::GpuTypes,
        ("v0", "GET", ["secrets"]) => Route::Secrets,
        ("v0", "POST", ["bundles"]) => Route::Bundles,
        ("v0", "GET", ["bundles"]) => Route::BundlesByQuery,
        ("v0", "PUT", ["search", "asks"]) => Route::SearchAsks,
        ("v0", "PUT", ["asks", id]) if number(id) => Route::Create(own(id)),
        ("v0", "GET", ["instances", id]) if number(id) => Route::Get(own(id)),
        ("v0", "PUT", ["instances", id]) if number(id) => Route::Put(own(id)),
        ("v0", "DELETE", ["instances", id]) if number(id) => Route::Delete(own(id)),
        ("v0", "PUT", ["instances", "reboot", id]) if number(id) => Route::Reboot(own(id)),
        ("v0", "PUT", ["instances", "recycle", id]) if number(id) => Route::Recycle(own(id)),
        ("v0", "PUT", ["instances", "bid_price", id]) if number(id) => Route::Bid(own(id)),
        ("v0", "PUT", ["instances", "prepay", id]) if number(id) => Route::Prepay(own(id)),
        ("v0", "GET", ["instances", "balance", id]) if number(id) => Route::Balance(own(id)),
        ("v0", "PUT", ["instances", "request_logs", id]) if number(id) => Route::Logs(own(id)),
        ("v0", "PUT", ["instances", "command", id]) if number(id) => Route::Command(own(id)),
        ("v0", "GET", ["instances", id, "ssh"]) if number(id) => Route::InstanceKeys(own(id)),
        ("v0", "POST", ["instances", id, "ssh"]) if number(id) => Route::AddInstanceKey(own(id)),
        ("v0", "DELETE", ["instances", id, "ssh", key]) if number(id) && number(key) => {
            Route::DeleteInstanceKey(own(id), own(key))
        }
        ("v0", "GET", ["ssh"]) => Route::Keys,
        ("v0", "POST", ["ssh"]) => Route::AddKey,
        ("v0", "PUT", ["ssh", id]) if number(id) => Route::PutKey(own(id)),
        ("v0", "DELETE", ["ssh", id]) if number(id) => Route::DeleteKey(own(id)),
        ("v0", "GET", ["users", "current"]) => Route::User,
        ("v0", "GET", ["charges"]) => Route::Charges,
        ("v0", "POST", ["volumes", "search"]) => Route::VolumeOffers,
        ("v0", "GET", ["volumes"]) => Route::Volumes,
        ("v0", "PUT", ["volumes"]) => Route::AddVolume,
        ("v0", "DELETE", ["volumes"]) => Route::DeleteVolume,
        _ => return None,
    })
}

/// The key of `Bearer <key>`, or of the query's `api_key`.
fn key(headers: &HeaderMap, query: &Query) -> Option<String> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.strip_prefix("Bearer "));
    bearer
        .or_else(|| query.get("api_key"))
        .map(|key| key.trim().to_owned())
        .filter(|key| !key.is_empty())
}
