//! The Fly.io Machines provider: CPU machines, the apps and addresses that give them URLs, and
//! volumes.
//!
//! ```no_run
//! use atlas_core::{AnyProvider, CallContext, ComputeRequest, LaunchKey};
//! use atlas_provider_fly::Fly;
//!
//! # async fn run() -> atlas_core::Result<()> {
//! let fly = AnyProvider::new(Fly::from_env()?);
//! let cx = CallContext::new();
//! let request = ComputeRequest::cpu(1).image("ghcr.io/me/worker:1").region("fra");
//! let best = fly.candidates(&cx, &request).await?.remove(0);
//! let machine = fly.spawn_compute(&cx, &LaunchKey::untracked(), &request.at(best)).await?;
//! println!("{}", machine.id);
//! # Ok(()) }
//! ```
//!
//! A Fly URL belongs to an app, not to a machine, and machines on one network can reach each other.
//! A machine with ports therefore gets its own app, addresses and network, as recorded steps of its
//! attempt. A machine without ports is made in the app that the account names, if any.
//!
//! Deliberately absent: GPUs (Fly has none since August 2026), logs and deploys (`atlas-fly-ops`
//! has them), and updates in place.

mod app;
mod candidates;
mod check;
mod client;
mod config;
mod config_wire;
mod error;
mod machine;
mod place;
mod platform;
mod preset;
mod support;
mod token;
mod translate;
mod volume;
mod wire;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas_core::{
    AccountLimits, CallContext, Candidate, Capabilities, Capability, Compute, ComputeId,
    ComputeRequest, ComputeStatus, Error, ErrorKind, GpuType, LaunchKey, ListFilter, Listing,
    NetworkVolume, Next, Outcome, Port, Presence, Protocol, Provider, ProviderId, Raw, Result,
    RetryClass, Secret, Support, TrackedKey, VolumeId, VolumeRequest,
};
use atlas_http::Answer;
use http::StatusCode;
use serde_json::json;
use tokio::time::Instant;

pub use app::{App, IpAddress, IpKind};
use client::Cloud;
pub use config::{API_KEY_ENV, APP_ENV, FlyBuilder, ORG_ENV, PROXY_URL_ENV, URL_ENV};
pub use machine::{Executed, Lease, MachineEvent, WaitFor};
use place::Place;
pub use platform::{Placement, Region};
use preset::Preset;
use translate::Reader;
pub use volume::Volume;

/// One Fly account. Cheap to clone; clones share connections and pacing.
#[derive(Clone, Debug)]
pub struct Fly {
    id: ProviderId,
    cloud: Cloud,
    reader: Reader,
    org: Option<String>,
    app: Option<String>,
    own_apps: bool,
    limits: AccountLimits,
    recent: Arc<Mutex<Option<Recent>>>,
}

/// What a token can see of its account.
#[derive(Clone, Debug)]
enum View {
    /// A whole organisation.
    Org(String),
    /// Only some of the organisation's apps.
    Apps(String, Vec<String>),
}

/// How long the result of a token check is reused for other orders.
const RECENT: Duration = Duration::from_secs(30);

/// The result of a recent token check.
#[derive(Clone, Debug)]
struct Recent {
    at: Instant,
    /// The call's own token; `None` for the account's.
    key: Option<Secret>,
    view: View,
    /// Apps that were read and belong to the visible organisation.
    listed: BTreeSet<String>,
}

impl Fly {
    /// Reads `FLY_API_TOKEN` and, if set, `ATLAS_FLY_ORG`, `ATLAS_FLY_APP`, `ATLAS_FLY_URL` and
    /// `ATLAS_FLY_PROXY_URL`.
    ///
    /// # Errors
    /// See [`FlyBuilder::build`].
    pub fn from_env() -> Result<Self> {
        Self::builder()
            .environment(|name| std::env::var(name).ok())
            .build()
    }

    /// Starts building a provider.
    #[must_use]
    pub fn builder() -> FlyBuilder {
        FlyBuilder::default()
    }

    /// The account that the token belongs to. It is read each time, because the token can be
    /// replaced.
    async fn view(&self, cx: &CallContext) -> Result<View> {
        let tokens = self.cloud.tokens(cx).await?;
        let mut orgs = BTreeSet::new();
        let (mut apps, mut whole) = (BTreeSet::new(), false);
        for token in tokens {
            // A user's own token belongs to no particular organisation.
            let Some(org) = Some(token.org_slug)
                .filter(|org| !org.is_empty())
                .or_else(|| self.org.clone())
            else {
                continue;
            };
            if self.org.as_ref().is_some_and(|own| *own != org) {
                continue;
            }
            let of = token.apps.unwrap_or_default();
            whole |= of.is_empty();
            apps.extend(of);
            orgs.insert(org);
        }
        let mut orgs = orgs.into_iter();
        match (orgs.next(), orgs.next()) {
            (Some(org), None) if whole => Ok(View::Org(org)),
            (Some(org), None) => Ok(View::Apps(org, apps.into_iter().collect())),
            (Some(_), Some(_)) => Err(Error::validation(
                "org",
                format!("the token is of several organisations: name one in {ORG_ENV}"),
            )),
            (None, _) => {
                let text = format!(
                    "the token is not of the organisation in {ORG_ENV}, or of none that it names"
                );
                Err(Error::new(ErrorKind::Forbidden, text)
                    .outcome_is(Outcome::NotApplied(Next::Stop)))
            }
        }
    }

    /// The result of a token check within the last half minute, so that many concurrent orders need
    /// only one.
    async fn recent_view(&self, cx: &CallContext) -> Result<Recent> {
        let key = || cx.api_key().map(Secret::expose);
        let known = self.recent().clone().filter(|recent| {
            recent.key.as_ref().map(Secret::expose) == key() && recent.at.elapsed() < RECENT
        });
        if let Some(recent) = known {
            return Ok(recent);
        }
        let recent = Recent {
            at: Instant::now(),
            key: cx.api_key().cloned(),
            view: self.view(cx).await?,
            listed: BTreeSet::new(),
        };
        *self.recent() = Some(recent.clone());
        Ok(recent)
    }

    fn recent(&self) -> MutexGuard<'_, Option<Recent>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses an app whose machines this token could not list: a machine rented there could not be
    /// found again.
    async fn check_listed(&self, cx: &CallContext, app: &str) -> Result<()> {
        let refused = |text: String| {
            let error = Error::new(ErrorKind::Forbidden, text);
            Err(error.outcome_is(Outcome::NotApplied(Next::Stop)))
        };
        let mut recent = self.recent_view(cx).await?;
        let org = match &recent.view {
            View::Apps(_, apps) if apps.iter().any(|one| one == app) => return Ok(()),
            View::Apps(_, apps) => {
                let apps = apps.join(", ");
                let text = format!(
                    "the token is for {apps} only, and could not list a machine in {app}: name \
                     its app in {APP_ENV}, or use a token of the whole organisation"
                );
                return refused(text);
            }
            View::Org(_) if recent.listed.contains(app) => return Ok(()),
            View::Org(org) => org,
        };
        let found = self.cloud.app(cx, "spawn_compute whose", app).await?;
        let slug = found
            .and_then(|app| app.organization)
            .and_then(|organization| organization.slug);
        match slug {
            Some(slug) if slug != *org => refused(format!(
                "the app {app} is of the organisation {slug}, and only {org} is listed: set \
                    {ORG_ENV}"
            )),
            Some(_) => {
                recent.listed.insert(app.to_owned());
                *self.recent() = Some(recent);
                Ok(())
            }
            // A missing app is refused by the order itself.
            None => Ok(()),
        }
    }

    /// The IPv6 address of a machine's own app, which serves its raw TCP ports.
    async fn tcp_address(
        &self,
        cx: &CallContext,
        app: &str,
        own: bool,
        request: &ComputeRequest,
    ) -> Result<Option<String>> {
        let raw = |port: &Port| port.protocol() == Protocol::Tcp;
        if !own || !request.ports.iter().any(raw) {
            return Ok(None);
        }
        let ips = self.cloud.ips(cx, "spawn_compute address", app).await;
        let ips = ips.map_err(|error| match error.kind() {
            // The app was made a moment ago and is not yet known in every part of Fly.
            ErrorKind::NotFound => error.outcome_is(Outcome::NotApplied(Next::SameLater)),
            _ => error.before_the_order(),
        })?;
        let mut v6 = ips
            .into_iter()
            .filter(|ip| IpKind::of(ip) == Some(IpKind::V6));
        Ok(v6.next().map(|ip| ip.ip))
    }

    /// The organisation: the one configured, else the token's.
    async fn org(&self, cx: &CallContext) -> Result<String> {
        match &self.org {
            Some(org) => Ok(org.clone()),
            None => match self.view(cx).await? {
                View::Org(org) | View::Apps(org, _) => Ok(org),
            },
        }
    }

    /// The app in which a machine is made, and whether it is the machine's own.
    fn home(&self, key: &LaunchKey, request: &ComputeRequest) -> Result<(String, bool)> {
        if let Some(volume) = &request.network_volume_id {
            return Ok((Place::of_volume(volume)?.app, false));
        }
        match &self.app {
            Some(app) if request.ports.is_empty() && !self.own_apps => Ok((app.clone(), false)),
            _ => {
                let key = key.tracked().ok_or_else(|| {
                    let text = format!(
                        "a machine of its own app needs an orchestrator that \
                        releases the app: name one in {APP_ENV}, and no ports"
                    );
                    Error::validation("app", text)
                })?;
                Ok((format!("atlas-{key}"), true))
            }
        }
    }

    /// The pinned candidate of a create, or its best one.
    fn pinned(request: &ComputeRequest) -> Result<(Preset, String)> {
        let first;
        let candidate = match &request.candidate {
            Some(candidate) => candidate,
            None => {
                first = candidates::candidates(request)?
                    .into_iter()
                    .next()
                    .unwrap_or_default();
                &first
            }
        };
        let wrong = || {
            Error::validation(
                "candidate",
                "fly needs a region and a preset: pin a candidate",
            )
        };
        let preset = candidate
            .native_type
            .as_deref()
            .and_then(Preset::parse)
            .ok_or_else(wrong)?;
        Ok((preset, candidate.region.clone().ok_or_else(wrong)?))
    }

    /// Parses the machine in the answer of a create.
    fn created(&self, app: &str, answer: &Answer) -> Result<Compute> {
        let machine: wire::Machine = answer.json()?;
        let raw = Raw::parsed_later(answer.bytes(), wire::redact);
        self.reader
            .compute(Some(app), &machine, raw)
            .map_err(|error| error.outcome_is(Outcome::Unknown(Vec::new())))
    }

    /// A machine already has our name: either an earlier attempt of the same order made it, or the
    /// outcome is unknown.
    async fn adopt(&self, cx: &CallContext, key: &LaunchKey, at: &Place) -> Result<Compute> {
        let unknown = |error: Error| {
            error.outcome_is(Outcome::Unknown(at.compute_id().into_iter().collect()))
        };
        let answer = self
            .cloud
            .machine(cx, "spawn_compute find", at, false)
            .await
            .map_err(unknown)?;
        let found = self.read(at, &answer).map_err(unknown)?;
        match key.tracked() {
            Some(key) if found.keys.key() == Some(*key) => Ok(found),
            Some(_) => Err(unknown(Error::new(
                ErrorKind::Conflict,
                "a machine has this order's name, and not its key",
            ))),
            None => {
                let error = Error::new(
                    ErrorKind::Conflict,
                    "a machine of that name exists in the app",
                );
                Err(error.outcome_is(Outcome::NotApplied(Next::Stop)))
            }
        }
    }

    /// Proves that a 404 about a machine of this app means that there is none. Either the app is
    /// visible to this token; or it was a machine's own app and is gone: its name contains a launch
    /// key and so was never that of another app, Fly reports the name as free, which it does for no
    /// existing app of any organisation, and a token for the whole organisation sees all apps but
    /// this one.
    async fn certain(&self, cx: &CallContext, operation: &'static str, app: &str) -> Result<()> {
        let unknown = match self.cloud.known_app(cx, operation, app).await {
            Err(error)
                if error.kind() == ErrorKind::NotFound && TrackedKey::in_name(app).is_some() =>
            {
                error
            }
            answer => return answer,
        };
        let View::Org(org) = self.view(cx).await? else {
            return Err(unknown);
        };
        let apps = self.cloud.apps(cx, operation, &org).await?;
        if apps.iter().any(|there| there.name == app) {
            Err(unknown)
        } else {
            Ok(())
        }
    }

    fn read(&self, at: &Place, answer: &Answer) -> Result<Compute> {
        let machine: wire::Machine = answer.json()?;
        if machine.id != at.id {
            return Err(answer.misunderstood("the answer is about another machine"));
        }
        self.reader.compute(
            Some(&at.app),
            &machine,
            Raw::parsed_later(answer.bytes(), wire::redact),
        )
    }
}

impl Provider for Fly {
    fn id(&self) -> &ProviderId {
        &self.id
    }

    fn capabilities(&self) -> Capabilities {
        [
            Capability::Cpu,
            Capability::ContainerImage,
            Capability::Stop,
            Capability::Start,
            Capability::NetworkVolumes,
            Capability::HttpProxy,
            Capability::RawTcp,
            Capability::Regions,
            Capability::Prices,
            Capability::ExitCodes,
            Capability::EndsWithCommand,
        ]
        .into()
    }

    fn limits(&self) -> AccountLimits {
        self.limits
    }

    fn check(&self, request: &ComputeRequest) -> Result<()> {
        check::check(request)
    }

    /// The app of a machine that gets its own, with a separate network, and the addresses of its
    /// ports.
    fn supports(&self, key: &LaunchKey, request: &ComputeRequest) -> Result<Vec<Support>> {
        let Ok((app, true)) = self.home(key, request) else {
            return Ok(Vec::new());
        };
        let http = |port: &Port| port.protocol() == Protocol::Http;
        // A shared IPv4 address serves HTTP and TLS only; a raw TCP port is reached over IPv6.
        let kinds = match (request.ports.is_empty(), request.ports.iter().any(http)) {
            (true, _) => &[][..],
            (false, true) => &[IpKind::SharedV4, IpKind::V6],
            (false, false) => &[IpKind::V6],
        };
        let mut planned = vec![Support {
            kind: support::APP.to_owned(),
            name: app.clone(),
            id: None,
            // Apps on one network can reach each other; the default network is shared by the whole
            // organisation.
            spec: json!({ "network": app }),
        }];
        planned.extend(kinds.iter().map(|kind| Support {
            kind: support::IP.to_owned(),
            name: format!("{app}/{}", kind.as_str()),
            id: None,
            spec: json!({ "app": app, "type": kind.as_str() }),
        }));
        Ok(planned)
    }

    /// The token's organisation, as reported by Fly. The apps that a token can see may change; a
    /// machine that it cannot see is never assumed to be gone.
    async fn identity(&self, cx: &CallContext) -> Result<String> {
        match self.view(cx).await? {
            View::Org(org) | View::Apps(org, _) => Ok(format!("fly-org-{org}")),
        }
    }

    /// Estimates, because Fly's API has neither prices nor stock. Only a region that the price
    /// table lacks is looked up, and a volume, which bills with the machine.
    async fn candidates(
        &self,
        cx: &CallContext,
        request: &ComputeRequest,
    ) -> Result<Vec<Candidate>> {
        let mut found = candidates::candidates(request)?;
        self.check_regions(cx, "candidates", request).await?;
        if let Some(volume) = &request.network_volume_id {
            let volume = preset::volume(self.volume(cx, volume).await?.volume.size.as_gb());
            for candidate in &mut found {
                candidate.price = candidate.price.map(|price| preset::together(price, volume));
            }
        }
        Ok(found)
    }

    async fn spawn_compute(
        &self,
        cx: &CallContext,
        key: &LaunchKey,
        request: &ComputeRequest,
    ) -> Result<Compute> {
        let (app, own) = self.home(key, request)?;
        let (preset, region) = Self::pinned(request)?;
        let mut order = translate::create(cx, key, request, (preset, &region), own)?;
        if request.candidate.is_none() {
            self.check_regions(cx, "spawn_compute regions", request)
                .await
                .map_err(Error::before_the_order)?;
        }
        if !own {
            // The machine's own app was made by a token that sees the whole organisation.
            self.check_listed(cx, &app)
                .await
                .map_err(Error::before_the_order)?;
        }
        if let Some(volume) = &request.network_volume_id {
            let read = self.volume(cx, volume).await;
            let read = read.map_err(Error::before_the_order)?;
            translate::note_volume(&mut order, read.volume.size.as_gb());
        }
        if let Some(address) = self.tcp_address(cx, &app, own, request).await? {
            translate::note_address(&mut order, address);
        }
        // Its app was made a moment ago and is not yet known in every part of Fly.
        let unheard = |error: Error| match error.kind() {
            ErrorKind::NotFound if own => error.outcome_is(Outcome::NotApplied(Next::SameLater)),
            _ => error,
        };
        if !order.hidden.is_empty() {
            let set = self
                .cloud
                .set_secrets(cx, "spawn_compute secrets", &app, &order.hidden)
                .await;
            let version = set.map_err(|error| unheard(error.before_the_order()))?;
            order.body.min_secrets_version = order.body.min_secrets_version.max(version);
        }
        let answer = self
            .cloud
            .create(cx, &app, &order.body, order.secrets.clone())
            .await
            .map_err(unheard)?;
        if answer.status() != StatusCode::CONFLICT {
            return self.created(&app, &answer);
        }
        match error::existing_machine(answer.bytes()) {
            Some(id) => self.adopt(cx, key, &Place::new(app, id)).await,
            None => Err(error::of_conflict(
                answer.bytes(),
                &order.secrets,
                answer.request_id(),
            )),
        }
    }

    async fn get_compute(&self, cx: &CallContext, id: &ComputeId) -> Result<Compute> {
        let at = Place::of(id)?;
        let answer = self.cloud.machine(cx, "get_compute", &at, false).await?;
        self.read(&at, &answer)
    }

    /// The machines of the whole organisation, whatever their app; for a token with access to some
    /// apps, those of these apps, even if an organisation is configured.
    async fn list_compute(&self, cx: &CallContext, filter: &ListFilter) -> Result<Listing> {
        let view = self.view(cx).await?;
        let (mut rows, mut missing) = (Vec::new(), None);
        match view {
            View::Org(org) => {
                let walk = self.cloud.org_machines(cx, &org).await?;
                (rows, missing) = (walk.items, walk.missing);
            }
            View::Apps(_, apps) => {
                for app in apps {
                    let walk = self.cloud.app_machines(cx, "list_compute", &app).await?;
                    rows.extend(walk.items);
                    missing = missing.or(walk.missing);
                }
            }
        }
        let rows = rows
            .into_iter()
            .map(|(app, row)| translate::listed(&self.reader, app.as_deref(), row));
        Ok(Listing::of_walk(rows, missing).filtered(filter))
    }

    /// Absent means `destroyed` in an answer about this machine, or a 404 from Fly itself while its
    /// app is visible or proved gone: a wrong app and a wrong token look the same.
    async fn presence(&self, cx: &CallContext, id: &ComputeId) -> Presence {
        let at = match Place::of(id) {
            Ok(at) => at,
            Err(error) => return Presence::NoAnswer(error),
        };
        let answer = match self.cloud.machine(cx, "presence", &at, true).await {
            Ok(answer) => answer,
            Err(error) => return Presence::NoAnswer(error),
        };
        if answer.status().is_success() {
            return match self.read(&at, &answer) {
                Ok(compute) if compute.status == ComputeStatus::Terminated => Presence::Absent,
                Ok(_) => Presence::Present,
                Err(error) => Presence::NoAnswer(error),
            };
        }
        if let Err(error) = error::gone(&answer) {
            return Presence::NoAnswer(error);
        }
        match self.certain(cx, "presence", &at.app).await {
            Ok(()) => Presence::Absent,
            Err(error) => Presence::NoAnswer(error),
        }
    }

    /// Uses force, because Fly otherwise refuses to delete a running machine. A 404 is a success
    /// only while the app is visible.
    async fn terminate(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        let at = Place::of(id)?;
        let answer = self.cloud.destroy(cx, &at).await?;
        if answer.status().is_success() {
            return Ok(());
        }
        error::gone(&answer)?;
        self.certain(cx, "terminate", &at.app).await
    }

    /// Always empty: Fly's GPUs were withdrawn in August 2026. Makes no call.
    async fn list_gpu_types(&self, _cx: &CallContext) -> Result<Vec<GpuType>> {
        Ok(Vec::new())
    }

    /// Accepted does not mean stopped: the machine bills until it is.
    async fn stop(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        let call =
            Cloud::act("stop", RetryClass::Idempotent, &Place::of(id)?, "stop").json(&json!({}));
        self.cloud.call(cx, call).await.map(drop)
    }

    async fn start(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        let call = Cloud::act("start", RetryClass::Idempotent, &Place::of(id)?, "start");
        self.cloud.call(cx, call).await.map(drop)
    }

    async fn ensure_support(
        &self,
        cx: &CallContext,
        _key: &LaunchKey,
        support: &Support,
    ) -> Result<Support> {
        match support.kind.as_str() {
            support::APP => self.ensure_app(cx, support).await,
            support::IP => self.ensure_ip(cx, support).await,
            _ => Err(support::not_ours()),
        }
    }

    async fn release_support(&self, cx: &CallContext, support: &Support) -> Result<()> {
        match support.kind.as_str() {
            support::APP => self.release_app(cx, support).await,
            support::IP => self.release_ip_support(cx, support).await,
            _ => Err(support::not_ours()),
        }
    }

    async fn list_network_volumes(&self, cx: &CallContext) -> Result<Vec<NetworkVolume>> {
        let here = |app: Option<&str>, found: Vec<wire::Volume>| {
            let stays = found.iter().filter(|volume| !translate::is_going(volume));
            stays
                .map(|volume| translate::volume(app, volume))
                .collect::<Result<Vec<_>>>()
        };
        match self.view(cx).await? {
            View::Org(org) => here(None, self.cloud.org_volumes(cx, &org).await?),
            View::Apps(_, apps) => {
                let mut all = Vec::new();
                for app in apps {
                    let found = self
                        .cloud
                        .app_volumes(cx, "list_network_volumes", &app)
                        .await?;
                    all.extend(here(Some(&app), found)?);
                }
                Ok(all)
            }
        }
    }

    /// Made in the account's app: a volume belongs to one app, and only machines of that app can
    /// mount it.
    async fn create_network_volume(
        &self,
        cx: &CallContext,
        request: &VolumeRequest,
    ) -> Result<NetworkVolume> {
        self.create_volume(cx, request).await
    }

    async fn delete_network_volume(&self, cx: &CallContext, id: &VolumeId) -> Result<()> {
        self.delete_volume(cx, id).await
    }
}
