//! RunPod: REST v2 and GraphQL (`https://api.runpod.io`) and the job runtime
//! (`https://api.runpod.ai`), as docs/clouds/runpod.md and the official document describe it.
//!
//! ```
//! use atlas_testkit::dialect::runpod::{self, RunPod};
//! use atlas_testkit::world::{World, WorldClock};
//!
//! let world = World::new(7, WorldClock::manual()).with_cloud(runpod::cloud());
//! world.add_key(runpod::NAME, "sim-key", "me");
//! let service = RunPod::new(world);
//! # let _ = service;
//! ```

mod billing;
mod catalog;
mod cloud;
mod clusters;
mod command;
mod create;
mod graphql;
mod limit;
mod logs;
mod page;
mod pods;
mod problem;
mod runtime;
mod secrets;
mod serverless;
mod stock;
mod store;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use atlas_core::Timestamp;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::Value;

use super::face::{BodyFault, face};
use super::query::{Query, decode};
use super::{SimBody, deliver};
use crate::world::{Account, Arrival, FaultKind, World};
use billing::Billing;
pub use cloud::CLOUD;
pub use limit::Quota;
use limit::{Stand, Windows};
use problem::Problem;
pub use runtime::webhook_body;
pub use stock::{ENDPOINT, NAME, add_endpoint, cloud};
use store::Store;

/// The largest request body (docs/clouds/runpod.md).
const MAX_BODY: usize = 102_400;

/// What this RunPod does differently from an ordinary one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Quirks {
    /// The most things on a page, whatever `limit` says.
    pub page_size: usize,
    /// What the pagination block of a list is like.
    pub pagination: Pagination,
    /// How many calls a key may make.
    pub quota: Quota,
    /// How much is left of GraphQL.
    pub graphql: GraphQl,
}

/// How much is left of the deprecated GraphQL API: it is rate-limited in stages since 2026-09-17,
/// and answers 410 from early 2027 (docs/clouds/runpod.md, "GraphQL"). The stages' numbers are not
/// published.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct GraphQl {
    /// How many calls a key may make in a minute of simulated time; the next ones are answered 429.
    pub per_minute: u32,
    /// From when on every call is answered 410.
    pub ends_at: Option<Timestamp>,
}

impl Default for GraphQl {
    fn default() -> Self {
        Self {
            per_minute: 600,
            ends_at: None,
        }
    }
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            page_size: 1000,
            pagination: Pagination::Honest,
            quota: Quota::default(),
            graphql: GraphQl::default(),
        }
    }
}

/// What the pagination block of a list is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pagination {
    /// As it should be.
    #[default]
    Honest,
    /// Not there, and everything on one page: the form before autumn 2026.
    Omitted,
    /// It says that there is more, and not where.
    LosesCursor,
    /// It repeats the same cursor forever.
    RepeatsCursor,
}

/// RunPod's REST v2 over a world. Cheap to clone; clones are the same service.
#[derive(Clone)]
pub struct RunPod {
    world: World,
    shared: Arc<Mutex<Shared>>,
    /// Every call is the runtime's, whatever its host.
    runtime_only: bool,
}

#[derive(Default)]
struct Shared {
    quirks: Quirks,
    windows: BTreeMap<String, Windows>,
    job_windows: runtime::JobWindows,
    graphql_windows: BTreeMap<String, (Timestamp, u32)>,
    ssh_keys: BTreeMap<String, Vec<String>>,
    stores: BTreeMap<String, Store>,
    requests: u64,
}

/// One call, understood.
struct Call<'a> {
    account: Account,
    arrival: Arrival,
    headers: &'a HeaderMap,
    query: Query,
    body: &'a [u8],
}

/// What a path and method name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route {
    CreatePod,
    ListPods,
    GetPod(String),
    UpdatePod(String),
    DeletePod(String),
    PodAction(String),
    PodLogs(String),
    Gpus,
    Gpu(String),
    Cpus,
    Cpu(String),
    Centres,
    Centre(String),
    GetSshKeys,
    PutSshKeys,
    ListSecrets,
    CreateSecret,
    GetSecret(String),
    UpdateSecret(String),
    DeleteSecret(String),
    ListTemplates,
    CreateTemplate,
    GetTemplate(String),
    UpdateTemplate(String),
    DeleteTemplate(String),
    PublicTemplates,
    ListVolumes,
    CreateVolume,
    GetVolume(String),
    UpdateVolume(String),
    DeleteVolume(String),
    ListRegistries,
    CreateRegistry,
    GetRegistry(String),
    DeleteRegistry(String),
    ListDelegations,
    CreateDelegation,
    DeleteDelegation(String),
    ListEndpoints,
    CreateEndpoint,
    GetEndpoint(String),
    UpdateEndpoint(String),
    DeleteEndpoint(String),
    EndpointWorkers(String),
    EndpointReleases(String),
    EndpointBuilds(String),
    EndpointBuild(String, String),
    WorkerLogs(String, String),
    ListClusters,
    CreateCluster,
    GetCluster(String),
    UpdateCluster(String),
    DeleteCluster(String),
    ClusterPods(String),
    Billing(Billing),
}

face!(RunPod);

impl RunPod {
    /// RunPod over this world, which must have the cloud [`cloud`] describes.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self {
            world,
            shared: Arc::default(),
            runtime_only: false,
        }
    }

    /// The same service as the job runtime alone. [`RunPod::new`]'s answers for both, told apart by
    /// the host (`*.runpod.ai`).
    #[must_use]
    pub fn runtime(&self) -> Self {
        Self {
            runtime_only: true,
            ..self.clone()
        }
    }

    /// Whether a request is for the runtime.
    fn is_runtime(&self, parts: &http::request::Parts) -> bool {
        let host = parts.uri.host().or_else(|| {
            parts
                .headers
                .get(header::HOST)?
                .to_str()
                .ok()?
                .split(':')
                .next()
        });
        self.runtime_only || host.is_some_and(|host| host.ends_with(".runpod.ai"))
    }

    fn most(&self, parts: &http::request::Parts) -> usize {
        if self.is_runtime(parts) {
            runtime::RUNSYNC_BODY
        } else {
            MAX_BODY
        }
    }

    async fn answer(
        self,
        parts: http::request::Parts,
        body: Result<Bytes, BodyFault>,
    ) -> Result<Response<SimBody>, io::Error> {
        let request_id = {
            let mut shared = self.shared();
            shared.requests += 1;
            format!("req-{:016x}", shared.requests)
        };
        let mut response = if self.is_runtime(&parts) {
            self.run_time(&parts, body).await?
        } else {
            self.respond(&parts, body).await?
        };
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response
                .headers_mut()
                .insert(HeaderName::from_static("x-request-id"), value);
        }
        Ok(response)
    }

    async fn respond(
        &self,
        parts: &http::request::Parts,
        body: Result<Bytes, BodyFault>,
    ) -> Result<Response<SimBody>, io::Error> {
        if parts
            .headers
            .get(header::USER_AGENT)
            .is_none_or(HeaderValue::is_empty)
        {
            return Ok(cloudflare_1010());
        }
        if parts.uri.path() == "/graphql" && parts.method == Method::POST {
            return match body {
                Ok(body) => self.graphql(parts, &body).await,
                Err(BodyFault::TooLarge) => Ok(Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "request entity too large",
                )
                .response()),
                Err(BodyFault::Broken) => Err(io::ErrorKind::ConnectionAborted.into()),
            };
        }
        let Some(key) = bearer(&parts.headers) else {
            return Ok(Problem::new(StatusCode::UNAUTHORIZED, "missing bearer token").response());
        };
        let refused = || Problem::new(StatusCode::UNAUTHORIZED, "invalid bearer token").response();
        if self.world.authorize(NAME, key).is_none() {
            return Ok(refused());
        }
        let stand = {
            let mut shared = self.shared();
            let quota = shared.quirks.quota;
            shared
                .windows
                .entry(key.to_owned())
                .or_default()
                .count(quota, self.world.now())
        };
        if let Some((window, seconds)) = stand.exceeded {
            return Ok(announced(&stand, limited(window, seconds)));
        }
        let body = match body {
            Ok(body) => body,
            Err(BodyFault::TooLarge) => {
                let problem = Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("request body exceeds {MAX_BODY} bytes"),
                );
                return Ok(announced(&stand, problem.response()));
            }
            Err(BodyFault::Broken) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let route = match route(&parts.method, parts.uri.path()) {
            Ok(route) => route,
            Err(response) => return Ok(announced(&stand, *response)),
        };
        let query = Query::of(parts.uri.query());
        let (operation, target) = route.operation(&body);
        let continues = query.get("cursor").is_some_and(|cursor| !cursor.is_empty());
        let arrival = self.world.arrive(NAME, operation, key, target, continues);
        // Faults on keys strike at this very call.
        let Some(account) = self.world.authorize(NAME, key) else {
            return Ok(refused());
        };
        let honest = if arrival.refused().is_some() {
            Response::new(SimBody::empty())
        } else {
            let call = Call {
                account,
                arrival: arrival.clone(),
                headers: &parts.headers,
                query,
                body: &body,
            };
            self.handle(&route, &call)
                .unwrap_or_else(|problem| problem.response())
        };
        let failed =
            || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal server error").response();
        let delivered = deliver(&self.world, &arrival, honest, failed, || {
            limited("minute", 12)
        })
        .await?;
        // What the proxy in front wrote never passed the limiter.
        Ok(if arrival.answer() == Some(FaultKind::Html502) {
            delivered
        } else {
            announced(&stand, delivered)
        })
    }

    fn handle(&self, route: &Route, call: &Call<'_>) -> Result<Response<SimBody>, Problem> {
        match route {
            Route::CreatePod => self.create_pod(call),
            Route::ListPods => self.list_pods(call),
            Route::GetPod(id) => self.get_pod(call, id),
            Route::UpdatePod(id) => self.update_pod(call, id),
            Route::DeletePod(id) => self.delete_pod(call, id),
            Route::PodAction(id) => self.pod_action(call, id),
            Route::PodLogs(id) => self.pod_logs(call, id),
            Route::Gpus => self.list_gpus(call),
            Route::Gpu(id) => self.get_gpu(call, id),
            Route::Cpus => self.list_cpus(call),
            Route::Cpu(id) => self.get_cpu(call, id),
            Route::Centres => self.list_centres(call),
            Route::Centre(id) => self.get_centre(call, id),
            Route::GetSshKeys => self.get_ssh_keys(call),
            Route::PutSshKeys => self.put_ssh_keys(call),
            Route::ListSecrets => self.list_secrets(call),
            Route::CreateSecret => self.create_secret(call),
            Route::GetSecret(id) => self.get_secret(call, id),
            Route::UpdateSecret(id) => self.update_secret(call, id),
            Route::DeleteSecret(id) => self.delete_secret(call, id),
            Route::ListTemplates => self.list_templates(call),
            Route::CreateTemplate => self.create_template(call),
            Route::GetTemplate(id) => self.get_template(call, id),
            Route::UpdateTemplate(id) => self.update_template(call, id),
            Route::DeleteTemplate(id) => self.delete_template(call, id),
            Route::PublicTemplates => self.public_templates(call),
            Route::ListVolumes => self.list_volumes(call),
            Route::CreateVolume => self.create_volume(call),
            Route::GetVolume(id) => self.get_volume(call, id),
            Route::UpdateVolume(id) => self.update_volume(call, id),
            Route::DeleteVolume(id) => self.delete_volume(call, id),
            Route::ListRegistries => self.list_registries(call),
            Route::CreateRegistry => self.create_registry(call),
            Route::GetRegistry(id) => self.get_registry(call, id),
            Route::DeleteRegistry(id) => self.delete_registry(call, id),
            Route::ListDelegations => self.list_delegations(call),
            Route::CreateDelegation => self.create_delegation(call),
            Route::DeleteDelegation(id) => self.delete_delegation(call, id),
            Route::ListEndpoints => self.list_endpoints(call),
            Route::CreateEndpoint => self.create_endpoint(call),
            Route::GetEndpoint(id) => self.get_endpoint(call, id),
            Route::UpdateEndpoint(id) => self.update_endpoint(call, id),
            Route::DeleteEndpoint(id) => self.delete_endpoint(call, id),
            Route::EndpointWorkers(id) => self.endpoint_workers(call, id),
            Route::EndpointReleases(id) => self.endpoint_releases(call, id),
            Route::EndpointBuilds(id) => self.endpoint_builds(call, id),
            Route::EndpointBuild(id, build) => self.endpoint_build(call, id, build),
            Route::WorkerLogs(id, worker) => self.worker_logs(call, id, worker),
            Route::ListClusters => self.list_clusters(call),
            Route::CreateCluster => self.create_cluster(call),
            Route::GetCluster(id) => self.get_cluster(call, id),
            Route::UpdateCluster(id) => self.update_cluster(call, id),
            Route::DeleteCluster(id) => self.delete_cluster(call, id),
            Route::ClusterPods(id) => self.cluster_pods(call, id),
            Route::Billing(billing) => self.billing(call, *billing),
        }
    }
}

impl Call<'_> {
    /// The body as JSON.
    fn json(&self) -> Result<Value, Problem> {
        serde_json::from_slice(self.body)
            .map_err(|_| Problem::bad("request body is not valid JSON"))
    }
}

impl Route {
    /// The contract's word for it, and the machine it is about.
    fn operation(&self, body: &[u8]) -> (&'static str, Option<&str>) {
        match self {
            Self::CreatePod => ("spawn_compute", None),
            Self::ListPods => ("list_compute", None),
            Self::GetPod(id) => ("get_compute", Some(id)),
            Self::UpdatePod(id) => ("update_compute", Some(id)),
            Self::DeletePod(id) => ("terminate", Some(id)),
            Self::PodLogs(id) => ("logs", Some(id)),
            Self::PodAction(id) => {
                let action = serde_json::from_slice::<Value>(body).ok();
                let operation = match action.as_ref().and_then(|body| body["action"].as_str()) {
                    Some("start") => "start",
                    Some("stop") => "stop",
                    Some("terminate") => "terminate",
                    _ => "restart",
                };
                (operation, Some(id))
            }
            Self::Gpus | Self::Gpu(_) | Self::Cpus | Self::Cpu(_) => ("list_gpu_types", None),
            Self::Centres | Self::Centre(_) => ("list_regions", None),
            Self::GetSshKeys | Self::PutSshKeys => ("ssh_keys", None),
            Self::ListSecrets
            | Self::CreateSecret
            | Self::GetSecret(_)
            | Self::UpdateSecret(_)
            | Self::DeleteSecret(_) => ("secrets", None),
            Self::ListVolumes => ("list_network_volumes", None),
            Self::CreateVolume => ("create_network_volume", None),
            Self::DeleteVolume(_) => ("delete_network_volume", None),
            Self::GetVolume(_) | Self::UpdateVolume(_) => ("network_volumes", None),
            Self::Billing(_) => ("compute_spend", None),
            Self::ListEndpoints
            | Self::CreateEndpoint
            | Self::GetEndpoint(_)
            | Self::UpdateEndpoint(_)
            | Self::DeleteEndpoint(_)
            | Self::EndpointWorkers(_)
            | Self::EndpointReleases(_)
            | Self::EndpointBuilds(_)
            | Self::EndpointBuild(..)
            | Self::WorkerLogs(..) => ("endpoints", None),
            Self::ListClusters
            | Self::CreateCluster
            | Self::GetCluster(_)
            | Self::UpdateCluster(_)
            | Self::DeleteCluster(_)
            | Self::ClusterPods(_) => ("clusters", None),
            Self::ListRegistries
            | Self::CreateRegistry
            | Self::GetRegistry(_)
            | Self::DeleteRegistry(_)
            | Self::ListDelegations
            | Self::CreateDelegation
            | Self::DeleteDelegation(_) => ("registries", None),
            Self::ListTemplates
            | Self::CreateTemplate
            | Self::GetTemplate(_)
            | Self::UpdateTemplate(_)
            | Self::DeleteTemplate(_)
            | Self::PublicTemplates => ("templates", None),
        }
    }
}

/// A route, or the 404 or 405 that is answered instead.
fn route(method: &Method, path: &str) -> Result<Route, Box<Response<SimBody>>> {
    let segments: Vec<String> = path
        .trim_start_matches('/')
        .split('/')
        .map(decode)
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let of = |id: &str, make: fn(String) -> Route| make(id.to_owned());
    let routes: Vec<(Method, Route)> = match segments.as_slice() {
        ["v2", "pods"] => vec![
            (Method::GET, Route::ListPods),
            (Method::POST, Route::CreatePod),
        ],
        ["v2", "pods", id] if !id.is_empty() => vec![
            (Method::DELETE, of(id, Route::DeletePod)),
            (Method::GET, of(id, Route::GetPod)),
            (Method::PATCH, of(id, Route::UpdatePod)),
        ],
        ["v2", "pods", id, "action"] => vec![(Method::POST, of(id, Route::PodAction))],
        ["v2", "pods", id, "logs"] => vec![(Method::GET, of(id, Route::PodLogs))],
        ["v2", "catalog", "gpus"] => vec![(Method::GET, Route::Gpus)],
        ["v2", "catalog", "gpus", id] => vec![(Method::GET, of(id, Route::Gpu))],
        ["v2", "catalog", "cpus"] => vec![(Method::GET, Route::Cpus)],
        ["v2", "catalog", "cpus", id] => vec![(Method::GET, of(id, Route::Cpu))],
        ["v2", "catalog", "datacenters"] => vec![(Method::GET, Route::Centres)],
        ["v2", "catalog", "datacenters", id] => vec![(Method::GET, of(id, Route::Centre))],
        ["v2", "catalog", "templates"] => vec![(Method::GET, Route::PublicTemplates)],
        ["v2", "templates"] => vec![
            (Method::GET, Route::ListTemplates),
            (Method::POST, Route::CreateTemplate),
        ],
        ["v2", "templates", id] => vec![
            (Method::DELETE, of(id, Route::DeleteTemplate)),
            (Method::GET, of(id, Route::GetTemplate)),
            (Method::PATCH, of(id, Route::UpdateTemplate)),
        ],
        ["v2", "network-volumes"] => vec![
            (Method::GET, Route::ListVolumes),
            (Method::POST, Route::CreateVolume),
        ],
        ["v2", "network-volumes", id] => vec![
            (Method::DELETE, of(id, Route::DeleteVolume)),
            (Method::GET, of(id, Route::GetVolume)),
            (Method::PATCH, of(id, Route::UpdateVolume)),
        ],
        ["v2", "registries"] => vec![
            (Method::GET, Route::ListRegistries),
            (Method::POST, Route::CreateRegistry),
        ],
        ["v2", "registries", "delegations"] => {
            vec![
                (Method::GET, Route::ListDelegations),
                (Method::POST, Route::CreateDelegation),
            ]
        }
        ["v2", "registries", "delegations", id] => {
            vec![(Method::DELETE, of(id, Route::DeleteDelegation))]
        }
        ["v2", "registries", id] => {
            vec![
                (Method::DELETE, of(id, Route::DeleteRegistry)),
                (Method::GET, of(id, Route::GetRegistry)),
            ]
        }
        ["v2", "serverless"] => vec![
            (Method::GET, Route::ListEndpoints),
            (Method::POST, Route::CreateEndpoint),
        ],
        ["v2", "serverless", id] => vec![
            (Method::DELETE, of(id, Route::DeleteEndpoint)),
            (Method::GET, of(id, Route::GetEndpoint)),
            (Method::PATCH, of(id, Route::UpdateEndpoint)),
        ],
        ["v2", "serverless", id, "workers"] => vec![(Method::GET, of(id, Route::EndpointWorkers))],
        ["v2", "serverless", id, "releases"] => {
            vec![(Method::GET, of(id, Route::EndpointReleases))]
        }
        ["v2", "serverless", id, "builds"] => vec![(Method::GET, of(id, Route::EndpointBuilds))],
        ["v2", "serverless", id, "builds", build] => vec![(
            Method::GET,
            Route::EndpointBuild((*id).to_owned(), (*build).to_owned()),
        )],
        ["v2", "serverless", id, "workers", worker, "logs"] => {
            vec![(
                Method::GET,
                Route::WorkerLogs((*id).to_owned(), (*worker).to_owned()),
            )]
        }
        ["v2", "clusters"] => vec![
            (Method::GET, Route::ListClusters),
            (Method::POST, Route::CreateCluster),
        ],
        ["v2", "clusters", id] => vec![
            (Method::DELETE, of(id, Route::DeleteCluster)),
            (Method::GET, of(id, Route::GetCluster)),
            (Method::PATCH, of(id, Route::UpdateCluster)),
        ],
        ["v2", "clusters", id, "pods"] => vec![(Method::GET, of(id, Route::ClusterPods))],
        ["v2", "billing"] => vec![(Method::GET, Route::Billing(Billing::All))],
        ["v2", "billing", "pods"] => vec![(Method::GET, Route::Billing(Billing::Pods))],
        ["v2", "billing", "serverless"] => vec![(Method::GET, Route::Billing(Billing::Serverless))],
        ["v2", "billing", "endpoints"] => vec![(Method::GET, Route::Billing(Billing::Endpoints))],
        ["v2", "billing", "network-volumes"] => {
            vec![(Method::GET, Route::Billing(Billing::Volumes))]
        }
        ["v2", "billing", "clusters"] => vec![(Method::GET, Route::Billing(Billing::Clusters))],
        ["v2", "account", "ssh-keys"] => vec![
            (Method::GET, Route::GetSshKeys),
            (Method::PUT, Route::PutSshKeys),
        ],
        ["v2", "account", "secrets"] => vec![
            (Method::GET, Route::ListSecrets),
            (Method::POST, Route::CreateSecret),
        ],
        ["v2", "account", "secrets", id] => vec![
            (Method::DELETE, of(id, Route::DeleteSecret)),
            (Method::GET, of(id, Route::GetSecret)),
            (Method::PATCH, of(id, Route::UpdateSecret)),
        ],
        _ => Vec::new(),
    };
    if let ["v2", "global-volumes", ..] = segments.as_slice() {
        let detail = format!("{method} /v2/global-volumes is not simulated");
        let problem = Problem::new(StatusCode::NOT_IMPLEMENTED, detail);
        return Err(Box::new(problem.response()));
    }
    if routes.is_empty() {
        return Err(Box::new(
            Problem::new(StatusCode::NOT_FOUND, "The requested path was not found.").response(),
        ));
    }
    if let Some((_, route)) = routes.iter().find(|(allowed, _)| allowed == method) {
        return Ok(route.clone());
    }
    let allowed: Vec<&str> = routes.iter().map(|(method, _)| method.as_str()).collect();
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "The requested method is not allowed for this path.",
    );
    let mut response = problem.response();
    if let Ok(value) = HeaderValue::from_str(&allowed.join(", ")) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    Err(Box::new(response))
}

/// The key of `Authorization: Bearer <key>`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !key.trim().is_empty()).then_some(key.trim())
}

fn cloudflare_1010() -> Response<SimBody> {
    let mut response = Response::new(SimBody::from("error code: 1010"));
    *response.status_mut() = StatusCode::FORBIDDEN;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=UTF-8"),
    );
    response
}

fn limited(window: &str, seconds: u64) -> Response<SimBody> {
    let mut response = Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        format!("rate limit exceeded for the {window} window"),
    )
    .response();
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn announced(stand: &Stand, mut response: Response<SimBody>) -> Response<SimBody> {
    stand.announce(response.headers_mut());
    response
}
