//! Fly's log API: one JSON:API document per page, a cursor in nanoseconds, and a complete list of
//! all lines.
//!
//! `GET /api/v1/apps/<app>/logs?next_token=<ns>&region=<code>&instance=<id>`. A reader's output is
//! checked against the list.

mod page;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use atlas_core::{LogSource, Timestamp};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::Service;

use crate::dialect::fly::{self, Fly};
use crate::dialect::query::{Query, decode};
use crate::dialect::{SimBody, deliver};
use crate::world::{Machine, World};

/// The maximum age of a returned line, and how far back a first page reaches.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
const FIRST_PAGE: Duration = Duration::from_secs(24 * 3600);
const MACAROONS: [&str; 3] = ["fm1r_", "fm1a_", "fm2_"];

/// Undocumented behaviour of the API, which may change.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Quirks {
    /// Number of lines per page.
    pub page_size: usize,
    /// Whether lines at the cursor's own nanosecond are returned again.
    pub inclusive: bool,
    /// Whether `next_token` is a bare number.
    pub token_as_number: bool,
    /// Whether `meta` is left out when there are no more lines.
    pub no_token_at_end: bool,
    /// Whether the lines of a page are not in order of time.
    pub disorder: bool,
    /// Whether a page contains its first line twice, if the line has an id.
    pub repeats: bool,
    /// Whether the answer has one JSON object per line, like the internal feed, instead of a
    /// document.
    pub feed_shape: bool,
    /// How long an answer takes, in simulated time.
    pub delay: Duration,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            page_size: 100,
            inclusive: false,
            token_as_number: false,
            no_token_at_end: false,
            disorder: false,
            repeats: false,
            feed_shape: false,
            delay: Duration::ZERO,
        }
    }
}

/// A line as it was written. `None` is `null` in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// Nanoseconds since 1970: its position, whatever its timestamp is.
    pub at: u64,
    /// The API's own id.
    pub id: Option<String>,
    /// The printed text.
    pub message: Option<String>,
    /// `info`, `error`, ...
    pub level: Option<String>,
    /// The machine.
    pub instance: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The writer of the line.
    pub provider: Option<String>,
    /// Its `timestamp`, if it differs from its position; `Some("")` leaves the field out.
    pub timestamp: Option<String>,
    /// A replacement for the whole element of `data`.
    pub raw: Option<Value>,
}

impl Line {
    /// A line of machine `m1` in `fra`, with no id.
    pub fn new(at: u64, message: impl Into<String>) -> Self {
        Self {
            at,
            id: None,
            message: Some(message.into()),
            level: Some("info".into()),
            instance: Some("6e8294c17d5083".into()),
            region: Some("fra".into()),
            provider: Some("app".into()),
            timestamp: None,
            raw: None,
        }
    }

    /// Sets the id.
    #[must_use]
    pub fn id(self, id: impl Into<String>) -> Self {
        Self {
            id: Some(id.into()),
            ..self
        }
    }
}

/// The permissions of a token for this API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Read every app's log.
    Read,
    /// Deploy: the log is refused.
    DeployOnly,
}

/// An answer that takes precedence over everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status to answer with.
    pub status: u16,
    /// Its `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
}

/// A received request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asked {
    /// The app.
    pub app: String,
    /// `next_token`, unchanged.
    pub next_token: Option<String>,
    /// The status of the answer; 0 where the connection was cut.
    pub status: u16,
}

/// The log API over a world. Cheap to clone; clones are the same service.
#[derive(Clone)]
pub struct FlyLogs {
    world: World,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    quirks: Quirks,
    apps: BTreeMap<String, Vec<Line>>,
    tokens: BTreeMap<String, Rights>,
    refusals: VecDeque<Refusal>,
    asked: Vec<Asked>,
    sources: Vec<Source>,
}

type Source = Arc<dyn Fn(&str) -> Option<Vec<Line>> + Send + Sync>;

impl FlyLogs {
    /// The API over this world: its clock, its faults on `logs` of the cloud `fly`, and that
    /// cloud's keys.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self {
            world,
            shared: Arc::default(),
        }
    }

    /// Makes a token valid. One part of it: `fm2_…` is used as `FlyV1`, anything else as `Bearer`.
    pub fn add_token(&self, part: impl Into<String>, rights: Rights) {
        self.shared().tokens.insert(part.into(), rights);
    }

    /// Makes a token invalid.
    pub fn revoke_token(&self, part: &str) {
        self.shared().tokens.remove(part);
    }

    /// Adds an app without lines.
    pub fn add_app(&self, app: &str) {
        self.shared().apps.entry(app.to_owned()).or_default();
    }

    /// Writes a line; adds its app if necessary.
    pub fn write(&self, app: &str, line: Line) {
        self.shared()
            .apps
            .entry(app.to_owned())
            .or_default()
            .push(line);
    }

    /// Writes a line at the current time with a new id.
    pub fn print(&self, app: &str, message: impl Into<String>) {
        let at = nanos(self.world.clock().on_the_wire(self.world.now()));
        let mut shared = self.shared();
        let lines = shared.apps.entry(app.to_owned()).or_default();
        let id = format!("{app}-{at}-{}", lines.len());
        lines.push(Line::new(at, message).id(id));
    }

    /// Adds a source of apps and their lines. It is queried at every request, and returns `None`
    /// for an unknown app.
    pub fn add_source(&self, source: impl Fn(&str) -> Option<Vec<Line>> + Send + Sync + 'static) {
        self.shared().sources.push(Arc::new(source));
    }

    /// Adds the apps of this Fly, with the output of their machines, including dead ones.
    pub fn add_machines_of(&self, fly: &Fly) {
        let (fly, world) = (fly.clone(), self.world.clone());
        self.add_source(move |app| {
            if !fly.apps().iter().any(|known| known == app) {
                return None;
            }
            let machines = world.all(fly::NAME).into_iter().filter_map(|machine| {
                let (id, of) = machine
                    .id
                    .split_once('.')
                    .unwrap_or((&machine.id, fly::APP));
                (of == app).then(|| printed(&world, id, &machine))
            });
            Some(machines.flatten().collect())
        });
    }

    /// Every line an app ever wrote, in the order it was written.
    #[must_use]
    pub fn lines(&self, app: &str) -> Vec<Line> {
        self.lines_of(app, |_| true).unwrap_or_default()
    }

    /// How many lines were written to an app here.
    #[must_use]
    pub fn count(&self, app: &str) -> usize {
        self.shared().apps.get(app).map_or(0, Vec::len)
    }

    /// Changes undocumented behaviour.
    pub fn quirk(&self, change: impl FnOnce(&mut Quirks)) {
        change(&mut self.shared().quirks);
    }

    /// Sets the answers of the next requests, in order.
    pub fn refuse(&self, refusals: impl IntoIterator<Item = Refusal>) {
        self.shared().refusals.extend(refusals);
    }

    /// The requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.shared().asked.clone()
    }

    /// Removes apps, refusals and requests; keeps quirks, tokens and sources.
    pub fn reset(&self) {
        let mut shared = self.shared();
        shared.apps.clear();
        shared.refusals.clear();
        shared.asked.clear();
    }

    /// The world it lives in.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines_of(&self, app: &str, wanted: impl Fn(&Line) -> bool) -> Option<Vec<Line>> {
        let (own, sources) = {
            let shared = self.shared();
            let own = shared.apps.get(app).map(|lines| {
                lines
                    .iter()
                    .filter(|line| wanted(line))
                    .cloned()
                    .collect::<Vec<_>>()
            });
            (own, shared.sources.clone())
        };
        // Not while locked: a source reads the world.
        let others: Vec<Vec<Line>> = sources.iter().filter_map(|source| source(app)).collect();
        if own.is_none() && others.is_empty() {
            return None;
        }
        let others = others.into_iter().flatten().filter(|line| wanted(line));
        Some(own.into_iter().flatten().chain(others).collect())
    }

    async fn answer(self, parts: http::request::Parts) -> Result<Response<SimBody>, io::Error> {
        let (delay, refusal) = {
            let mut shared = self.shared();
            (shared.quirks.delay, shared.refusals.pop_front())
        };
        if delay.is_zero() {
            // Like a network: other tasks run in the meantime.
            once_around().await;
        } else {
            tokio::time::sleep(self.world.clock().real(delay)).await;
        }
        let app = app_of(&parts.method, parts.uri.path());
        let query = Query::of(parts.uri.query());
        let asked = Asked {
            app: app.clone().unwrap_or_default(),
            next_token: query.get("next_token").map(str::to_owned),
            status: 0,
        };
        let arrival = self.world.arrive(
            fly::NAME,
            "logs",
            &key(&parts.headers).unwrap_or_default(),
            None,
            false,
        );
        let honest = match refusal {
            Some(refusal) => refused(refusal),
            None => self.honest(&parts.headers, app.as_deref(), &query),
        };
        let failed = || {
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "{\"error\":\"internal error\"}",
            )
        };
        let limited = || {
            text(
                StatusCode::TOO_MANY_REQUESTS,
                "{\"error\":\"rate limit exceeded\"}",
            )
        };
        let answer = deliver(&self.world, &arrival, honest, failed, limited).await;
        let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
        self.shared().asked.push(Asked { status, ..asked });
        answer
    }

    fn honest(&self, headers: &HeaderMap, app: Option<&str>, query: &Query) -> Response<SimBody> {
        let Some(rights) = self.rights(headers) else {
            return text(
                StatusCode::UNAUTHORIZED,
                "{\"error\":\"Not authenticated\"}",
            );
        };
        let asked = match query
            .get("next_token")
            .filter(|token| !token.is_empty())
            .map(str::parse::<u64>)
        {
            None => None,
            Some(Ok(asked)) => Some(asked),
            Some(Err(_)) => {
                return text(
                    StatusCode::BAD_REQUEST,
                    "{\"error\":\"invalid next_token\"}",
                );
            }
        };
        let now = self.world.clock().on_the_wire(self.world.now());
        let quirks = self.shared().quirks.clone();
        let wanted = page::Wanted {
            from: asked,
            oldest: nanos(now.saturating_sub(if asked.is_none() {
                FIRST_PAGE
            } else {
                RETENTION
            })),
            region: query.get("region").filter(|region| !region.is_empty()),
            instance: query
                .get("instance")
                .filter(|instance| !instance.is_empty()),
        };
        let lines = app.and_then(|app| {
            Some((
                app,
                self.lines_of(app, |line| wanted.holds(line, quirks.inclusive))?,
            ))
        });
        let Some((app, lines)) = lines else {
            return text(StatusCode::NOT_FOUND, "{\"error\":\"Could not find App\"}");
        };
        if rights == Rights::DeployOnly {
            return text(
                StatusCode::FORBIDDEN,
                "{\"error\":\"not authorized to retrieve app logs\"}",
            );
        }
        page::answer(app, lines, &wanted, &quirks)
    }

    /// `Bearer` with a macaroon is refused, as the real API does, and so are two schemes at once.
    fn rights(&self, headers: &HeaderMap) -> Option<Rights> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, rest) = value.split_once(' ')?;
        let parts: Vec<&str> = rest
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect();
        let macaroon = |part: &str| MACAROONS.iter().any(|prefix| part.starts_with(prefix));
        let fits = match scheme.to_ascii_lowercase().as_str() {
            "flyv1" => parts.iter().all(|part| macaroon(part)),
            "bearer" => parts
                .iter()
                .all(|part| !macaroon(part) && !part.contains(' ')),
            _ => false,
        };
        if !fits {
            return None;
        }
        let of = |part: &&str| {
            let own = self.shared().tokens.get(*part).copied();
            own.or_else(|| self.world.authorize(fly::NAME, part).map(|_| Rights::Read))
        };
        parts.iter().find_map(of)
    }
}

/// Completes when polled the second time.
async fn once_around() {
    let mut waited = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The output of a machine. The world's time has no nanoseconds, so the index of the line is used
/// for them.
fn printed(world: &World, id: &str, machine: &Machine) -> Vec<Line> {
    let lines = (0_u64..).zip(machine.lines()).map(|(number, entry)| {
        let at = nanos(world.clock().on_the_wire(entry.at)).saturating_add(number % 1_000_000);
        let provider = match entry.source {
            LogSource::Container => "app",
            LogSource::System => "runner",
        };
        Line {
            instance: Some(id.to_owned()),
            region: Some(machine.region.clone()),
            provider: Some(provider.to_owned()),
            ..Line::new(at, &*entry.line).id(format!("{id}-{at}"))
        }
    });
    lines.collect()
}

/// Nanoseconds since 1970, to the millisecond.
fn nanos(at: Timestamp) -> u64 {
    u64::try_from(at.unix_millis())
        .unwrap_or(0)
        .saturating_mul(1_000_000)
}

fn app_of(method: &Method, path: &str) -> Option<String> {
    let app = path.strip_prefix("/api/v1/apps/")?.strip_suffix("/logs")?;
    (method == Method::GET && !app.is_empty() && !app.contains('/')).then(|| decode(app))
}

/// The key for the world's key faults: the first part after the scheme.
fn key(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    Some(
        value
            .split_once(' ')?
            .1
            .split(',')
            .next()?
            .trim()
            .to_owned(),
    )
}

fn refused(refusal: Refusal) -> Response<SimBody> {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = text(status, "{\"error\":\"refused by the test\"}");
    if let Some(seconds) = refusal.retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<SimBody> {
    let mut response = Response::new(SimBody::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

impl<B> Service<Request<B>> for FlyLogs
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<SimBody>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<SimBody>, io::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            body.collect()
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))?;
            this.answer(parts).await
        })
    }
}

impl fmt::Debug for FlyLogs {
    /// Tokens and lines are not printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlyLogs")
            .field("world", &self.world)
            .finish_non_exhaustive()
    }
}
