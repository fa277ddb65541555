//! Fly's Machines API over a world: apps, IPs, machines, leases, metadata, volumes, whole
//! organisations. Facts: docs/clouds/fly.md.
//!
//! Not served, because atlas does not call them: certificates, single app secrets, secret keys,
//! Postgres, deploy tokens, memory reclaiming, OIDC and KMS tokens. They answer 501 with their name
//! (`unserved`). Left out entirely: the cookie that ties a client to one API node.

mod answer;
mod apps;
mod care;
mod cloud;
mod config;
mod lease;
mod machines;
mod orgs;
mod route;
mod stock;
mod token;
mod unserved;
mod volumes;
mod waiting;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atlas_core::Timestamp;
use bytes::Bytes;
use http::header::HeaderValue;
use http::request::Parts;
use http::{HeaderMap, Response};
use serde_json::Value;

use super::face::{BodyFault, face};
use super::query::Query;
use super::{SimBody, deliver};
use crate::world::{Account, Arrival, Machine, World};
use answer::Failure;
use apps::App;
pub use cloud::CLOUD;
use machines::Record;
use route::{Route, Verb, world_id};
pub use stock::{APP, NAME, ORG, cloud};
pub use token::Scope;
use volumes::Disk;

const MAX_BODY: usize = 4 << 20;

/// Fly's rate limits, per action on each machine or app.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// The minimum average time between two calls of an action.
    pub action: Duration,
    /// The burst size of an action.
    pub action_burst: u32,
    /// The same for reading one machine.
    pub read: Duration,
    /// The burst size of reading one machine.
    pub read_burst: u32,
    /// The wait in a refusal, if any.
    pub retry_after: Option<Duration>,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            action: Duration::from_millis(950),
            action_burst: 3,
            read: Duration::from_millis(190),
            read_burst: 10,
            retry_after: None,
        }
    }
}

/// The form in which a create reports that there is no capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoRoom {
    /// 422 with the status word.
    #[default]
    Unprocessable,
    /// 409 about the host, without a status word.
    Host,
    /// 503 with the status word.
    Unavailable,
    /// 412 about the volume's host.
    Volume,
}

/// How this Fly differs from an ordinary one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Quirks {
    /// The rate limits; `None` for no limit.
    pub rates: Option<Rates>,
    /// The maximum number of rows per page, whatever is requested.
    pub page_size: usize,
    /// How long a page's cursor is valid.
    pub cursor_life: Duration,
    /// Regions that a walk over the organisation cannot reach.
    pub error_regions: Vec<String>,
    /// How long a destroyed machine is still shown, as `destroyed`.
    pub remembers: Duration,
    /// How long stopping and suspending take.
    pub stopping: Duration,
    /// How long a new app is unknown to machine calls.
    pub app_appears: Duration,
    /// The form of "no capacity" answers.
    pub no_room: NoRoom,
    /// A duplicated scheme (`Bearer FlyV1 fm2_…`) is a bad token.
    pub strict_scheme: bool,
    /// Waiting for `stopped` without a version is refused.
    pub stopped_wait_needs_version: bool,
    /// A service's `autostop` reads back as a boolean.
    pub autostop_as_bool: bool,
    /// Hosts that do not answer: their machines are shown without configuration.
    pub unreachable: Vec<String>,
    /// A destroy is accepted, and has no effect.
    pub destroys_nothing: bool,
    /// Regions are written with capital letters.
    pub capital_regions: bool,
    /// An answer that is lost inside Fly is a 408 and not a 500.
    pub lost_is_408: bool,
    /// The state in which every machine is shown as stuck.
    pub stuck: Option<&'static str>,
    /// This many changes of machines collide with another change and are refused.
    pub busy: u32,
    /// Successful changes are answered with 200 and no body.
    pub says_nothing: bool,
    /// Errors are in the field `message` instead of `error`.
    pub errors_as_message: bool,
    /// Every object has an undocumented field, and empty lists are null.
    pub loose: bool,
    /// How long a deleted volume is still shown, as `pending_destroy` and then `destroyed`.
    pub volume_remembers: Duration,
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
            rates: Some(Rates::default()),
            page_size: 1000,
            cursor_life: Duration::from_secs(30 * 60),
            error_regions: Vec::new(),
            remembers: Duration::from_secs(60),
            stopping: Duration::from_secs(1),
            app_appears: Duration::from_millis(500),
            no_room: NoRoom::default(),
            strict_scheme: true,
            stopped_wait_needs_version: true,
            autostop_as_bool: true,
            unreachable: Vec::new(),
            destroys_nothing: false,
            capital_regions: false,
            lost_is_408: false,
            stuck: None,
            busy: 0,
            says_nothing: false,
            errors_as_message: false,
            loose: false,
            volume_remembers: Duration::from_secs(20),
        }
    }
}

/// Fly's Machines API over a world. Cheap to clone; clones are the same service.
#[derive(Clone)]
pub struct Fly {
    world: World,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    quirks: Quirks,
    apps: BTreeMap<String, App>,
    /// App creations with an idempotency key, so that a repeated one returns the same app.
    app_keys: BTreeMap<String, String>,
    scopes: BTreeMap<String, Scope>,
    records: BTreeMap<String, Record>,
    disks: BTreeMap<String, Disk>,
    /// The earliest time of the next call of each action.
    due: BTreeMap<String, Timestamp>,
    serial: u64,
}

impl Default for Shared {
    /// Contains the initial app.
    fn default() -> Self {
        Self {
            quirks: Quirks::default(),
            apps: BTreeMap::from([(
                APP.to_owned(),
                App::new(ORG, None, Timestamp::UNIX_EPOCH, 1),
            )]),
            app_keys: BTreeMap::new(),
            scopes: BTreeMap::new(),
            records: BTreeMap::new(),
            disks: BTreeMap::new(),
            due: BTreeMap::new(),
            serial: 1,
        }
    }
}

/// A parsed call.
struct Call<'a> {
    account: Account,
    scope: Scope,
    arrival: Arrival,
    query: Query,
    nonce: Option<String>,
    body: &'a [u8],
}

impl Call<'_> {
    /// The body, which must be an object; an empty body is an empty object.
    fn json(&self) -> Result<Value, Failure> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        let value: Value = serde_json::from_slice(self.body)
            .map_err(|error| Failure::invalid(format!("invalid json: {error}")))?;
        if value.is_object() {
            return Ok(value);
        }
        let kind = if value.is_array() { "array" } else { "value" };
        Err(Failure::invalid(format!(
            "json: cannot unmarshal {kind} into Go value of type main.request"
        )))
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| Failure::invalid(format!("invalid_argument: {name}: {text:?}")))
        };
        self.query.get(name).map(parse).transpose()
    }
}

impl Fly {
    /// Fly over this world, which must contain the cloud of [`cloud`], and an account with the name
    /// of an organisation: [`ORG`].
    #[must_use]
    pub fn new(world: World) -> Self {
        Self {
            world,
            shared: Arc::default(),
        }
    }

    /// Adds an existing app of an organisation.
    pub fn add_app(&self, org: &str, name: &str) {
        let mut shared = self.shared();
        shared.serial += 1;
        let app = App::new(org, None, Timestamp::UNIX_EPOCH, shared.serial);
        shared.apps.insert(name.to_owned(), app);
    }

    /// Limits what a token may do and see, and until when.
    pub fn limit_token(&self, token: &str, scope: Scope) {
        self.shared().scopes.insert(token.to_owned(), scope);
    }

    /// The names of the apps there are.
    #[must_use]
    pub fn apps(&self) -> Vec<String> {
        self.shared().apps.keys().cloned().collect()
    }

    /// The addresses of an app, by type.
    #[must_use]
    pub fn addresses(&self, app: &str) -> Vec<String> {
        self.shared()
            .apps
            .get(app)
            .map(|app| app.ips.iter().map(|ip| ip.kind.clone()).collect())
            .unwrap_or_default()
    }

    /// Moves a machine to another host: the same id with another private address. False if it does
    /// not exist.
    pub fn migrate(&self, world_id: &str) -> bool {
        let there = self
            .world
            .truth(NAME, world_id)
            .is_some_and(|machine| machine.is_live());
        if there {
            self.shared()
                .records
                .entry(world_id.to_owned())
                .or_default()
                .moves += 1;
        }
        there
    }

    /// Fly accepts no larger body.
    fn most(&self, _parts: &Parts) -> usize {
        MAX_BODY
    }

    async fn answer(
        self,
        parts: Parts,
        body: Result<Bytes, BodyFault>,
    ) -> Result<Response<SimBody>, io::Error> {
        let id = {
            let mut shared = self.shared();
            shared.serial += 1;
            format!("01SIM{:021}-{}", shared.serial, stock::NEAREST)
        };
        let mut answer = self.understood(parts, body).await?;
        answer.headers_mut().insert(
            "fly-request-id",
            HeaderValue::try_from(id).expect("letters and digits"),
        );
        Ok(answer)
    }

    async fn understood(
        &self,
        parts: Parts,
        body: Result<Bytes, BodyFault>,
    ) -> Result<Response<SimBody>, io::Error> {
        let body = match body {
            Ok(body) => body,
            Err(BodyFault::TooLarge) => {
                return Ok(Failure::new(413, "request body too large").response());
            }
            Err(BodyFault::Broken) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let Some(given) = self.token(&parts.headers) else {
            return Ok(Failure::unauthorized().response());
        };
        let Some(route) = Route::of(&parts.method, parts.uri.path()) else {
            return Ok(match unserved::name(&parts.method, parts.uri.path()) {
                Some(call) => Failure::new(501, format!("{call} is not simulated")).response(),
                None => Failure::new(404, "page not found").response(),
            });
        };
        if let Some(refused) = self.hurried(&route) {
            return Ok(refused);
        }
        let query = Query::of(parts.uri.query());
        let continues = query.get("cursor").is_some_and(|cursor| !cursor.is_empty());
        let arrival = self.world.arrive(
            NAME,
            route.operation(),
            &given,
            route.target().as_deref(),
            continues,
        );
        let Some(account) = self.world.authorize(NAME, &given) else {
            return Ok(Failure::unauthorized().response());
        };
        let scope = self
            .shared()
            .scopes
            .get(&given)
            .cloned()
            .unwrap_or_default();
        let call = Call {
            account,
            scope,
            arrival: arrival.clone(),
            query,
            nonce: nonce(&parts.headers),
            body: &body,
        };
        let honest = if arrival.refused().is_some() {
            Response::new(SimBody::empty())
        } else {
            let done = match self.permitted(&route, &call) {
                Err(failure) => Err(failure),
                Ok(()) => match &route {
                    Route::Machine(app, id, Verb::Wait) => {
                        self.wait(&call, &world_id(app, id)).await
                    }
                    other => self.handle(other, &call),
                },
            };
            self.dressed(done)
        };
        let late = self.shared().quirks.lost_is_408;
        let failed = || {
            let (code, text) = if late {
                (408, "deadline_exceeded: context deadline exceeded")
            } else {
                (500, "internal server error")
            };
            Failure::new(code, text).response()
        };
        deliver(&self.world, &arrival, honest, failed, || self.limited(None)).await
    }

    /// Converts the result to an answer, in the forms that this Fly uses.
    fn dressed(&self, done: Result<Response<SimBody>, Failure>) -> Response<SimBody> {
        let quirks = self.shared().quirks.clone();
        match done {
            Err(failure) if quirks.errors_as_message => failure.in_the_other_shape().response(),
            Err(failure) => failure.response(),
            Ok(_) if quirks.says_nothing => Response::new(SimBody::empty()),
            Ok(answer) if quirks.loose => answer::loosened(answer),
            Ok(answer) => answer,
        }
    }

    /// Fails if another change of the machine is in progress.
    fn not_busy(&self) -> Result<(), Failure> {
        let quirks = &mut self.shared().quirks;
        if quirks.busy == 0 {
            return Ok(());
        }
        quirks.busy -= 1;
        Err(Failure::new(
            409,
            "aborted: machine update failed due to concurrent update",
        ))
    }

    /// A refusal, if this action came too soon after the previous one.
    fn hurried(&self, route: &Route) -> Option<Response<SimBody>> {
        let rates = self.shared().quirks.rates?;
        let (budget, read) = route.budget();
        let (interval, burst) = if read {
            (rates.read, rates.read_burst)
        } else {
            (rates.action, rates.action_burst)
        };
        let now = self.world.now();
        let mut shared = self.shared();
        let due = shared.due.entry(budget).or_insert(now);
        if due.since(now) > interval * burst.saturating_sub(1) {
            drop(shared);
            return Some(self.limited(rates.retry_after));
        }
        *due = (*due).max(now).saturating_add(interval);
        None
    }

    fn limited(&self, retry_after: Option<Duration>) -> Response<SimBody> {
        let mut answer = Failure::new(429, "rate limit exceeded").response();
        if let Some(wait) = retry_after {
            answer
                .headers_mut()
                .insert(http::header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        }
        answer
    }

    /// Whether this token has the permission here, and whether the app exists. An app that a token
    /// may not see does not exist for it.
    fn permitted(&self, route: &Route, call: &Call<'_>) -> Result<(), Failure> {
        if route.writes() && call.scope.read_only {
            return Err(Failure::new(403, "this token may only read"));
        }
        let org = match route {
            Route::OrgMachines(org) | Route::OrgVolumes(org) => Some(org.as_str()),
            Route::Apps => call.query.get("org_slug"),
            _ => None,
        };
        if org.is_some_and(|org| org != call.account.as_str()) {
            return Err(Failure::new(404, "Could not find Organization"));
        }
        if (org.is_some() || matches!(route, Route::CreateApp)) && call.scope.app.is_some() {
            return Err(Failure::new(403, "this token is for one app"));
        }
        let Some(name) = route.app() else {
            return Ok(());
        };
        if call.scope.app.as_deref().is_some_and(|only| only != name) {
            return Err(Failure::no_app(name));
        }
        let shared = self.shared();
        let app = shared.apps.get(name).ok_or_else(|| Failure::no_app(name))?;
        if app.org != call.account.as_str() {
            // Only a read of the app itself reveals that another organisation has the name.
            let itself = matches!(route, Route::App(_) | Route::DeleteApp(_));
            return Err(if itself {
                Failure::new(403, "unauthorized")
            } else {
                Failure::no_app(name)
            });
        }
        if self.world.now().since(app.created_at) < shared.quirks.app_appears
            && !matches!(route, Route::DeleteApp(_))
        {
            return Err(Failure::no_app(name));
        }
        Ok(())
    }

    fn handle(&self, route: &Route, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        match route {
            Route::Apps => self.list_apps(call),
            Route::CreateApp => self.create_app(call),
            Route::App(app) => self.show_app(call, app),
            Route::DeleteApp(app) => self.delete_app(call, app),
            Route::Ips(app) => self.list_ips(app),
            Route::AssignIp(app) => self.assign_ip(call, app),
            Route::ReleaseIp(app, ip) => self.release_ip(app, ip),
            Route::Secrets(app) => self.list_secrets(call, app),
            Route::SetSecrets(app) => self.set_secrets(call, app),
            Route::Machines(app) => self.list_machines(call, app),
            Route::Create(app) => self.create(call, app),
            Route::Machine(app, id, verb) => {
                let id = world_id(app, id);
                if verb.respects_leases() {
                    self.unheld(call, &id)?;
                    self.not_busy()?;
                }
                self.machine_call(call, &id, verb)
            }
            Route::Volumes(app) => self.list_volumes(call, app),
            Route::CreateVolume(app) => self.create_volume(call, app),
            Route::Volume(app, id, verb) => self.volume_call(call, app, id, *verb),
            Route::OrgMachines(_) => self.org_machines(call),
            Route::OrgVolumes(_) => self.org_volumes(call),
            Route::Regions => Ok(self.regions()),
            Route::Placements => self.placements(call),
            Route::Token => Ok(self.current_token(call)),
        }
    }

    fn machine_call(
        &self,
        call: &Call<'_>,
        id: &str,
        verb: &Verb,
    ) -> Result<Response<SimBody>, Failure> {
        match verb {
            Verb::Get => self.get(call, id),
            Verb::Update => self.update(call, id),
            Verb::Destroy => self.destroy(call, id),
            Verb::Start => self.start(call, id),
            Verb::Stop => self.stop(call, id, false),
            Verb::Suspend => self.stop(call, id, true),
            Verb::Restart => self.restart(call, id),
            Verb::Signal => self.signal(call, id),
            Verb::Cordon(cordoned) => self.cordon(call, id, *cordoned),
            Verb::Exec => self.exec(call, id),
            Verb::Ps => self.ps(call, id),
            Verb::Events => self.list_events(call, id),
            Verb::Versions => self.versions(call, id),
            Verb::Wait => Err(Failure::invalid("waiting is not done here")),
            Verb::Lease => self.lease(call, id),
            Verb::TakeLease => self.take_lease(call, id),
            Verb::DropLease => self.drop_lease(call, id),
            Verb::Metadata => self.metadata(call, id),
            Verb::PatchMetadata => self.patch_metadata(call, id),
            Verb::MetadataKey(key) => self.metadata_key(call, id, key),
            Verb::SetMetadataKey(key) => self.set_metadata_key(call, id, key),
            Verb::DropMetadataKey(key) => self.drop_metadata_key(call, id, key),
            Verb::Memory => self.memory(call, id),
            Verb::SetMemory => self.set_memory(call, id),
        }
    }

    /// A machine as this call sees it; one that was destroyed recently is still shown.
    fn seen(&self, call: &Call<'_>, id: &str) -> Result<Machine, Failure> {
        if let Some(machine) = self.world.machine(NAME, &call.account, id, &call.arrival) {
            return Ok(machine);
        }
        let remembers = self.shared().quirks.remembers;
        let machine = self
            .world
            .truth(NAME, id)
            .filter(|machine| machine.account == call.account.as_str());
        let lately = |machine: &Machine| {
            machine
                .destroyed_at
                .is_some_and(|at| self.world.now().since(at) < remembers)
                && machine.was_ordered_to_end()
        };
        machine.filter(lately).ok_or_else(Failure::no_machine)
    }

    /// A random hexadecimal text.
    fn hex(&self, len: usize) -> String {
        self.world
            .word(len)
            .bytes()
            .map(|b| char::from(b"0123456789abcdef"[usize::from(b % 16)]))
            .collect()
    }

    /// An instant in the client's time.
    fn shown(&self, instant: Timestamp) -> Timestamp {
        self.world.clock().on_the_wire(instant)
    }
}

fn nonce(headers: &HeaderMap) -> Option<String> {
    headers
        .get("fly-machine-lease-nonce")?
        .to_str()
        .ok()
        .map(str::to_owned)
}

face!(Fly);
