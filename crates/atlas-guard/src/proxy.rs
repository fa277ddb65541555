//! What becomes of one request: answered here, refused, or passed on without its credential.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use atlas_auth::layer::unauthorized;
use atlas_core::Timestamp;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use crate::activity::{Activity, Open, Report};
use crate::body::Body;
use crate::config::Config;
use crate::forward::{self, Connector};
use crate::permit::Permit;
use crate::{control, tunnel};

/// How long a connection to the server is kept for the next request.
const UPSTREAM_IDLE: Duration = Duration::from_secs(30);
const UPSTREAM_IDLE_CONNECTIONS: usize = 256;

pub(crate) struct Proxy {
    pub(crate) config: Config,
    pub(crate) permit: Permit,
    activity: Arc<Activity>,
    client: Client<Connector, Body>,
    upstream: Authority,
}

impl Proxy {
    pub(crate) fn new(config: Config) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(UPSTREAM_IDLE)
            .pool_max_idle_per_host(UPSTREAM_IDLE_CONNECTIONS)
            .http2_only(config.upstream_http2)
            .set_host(false)
            .build(Connector(config.upstream));
        let upstream = config.upstream.to_string().parse().expect("an address is an authority");
        let activity = Activity::new(Arc::clone(&config.clock));
        let permit = Permit::new(config.permit);
        Self { config, permit, activity, client, upstream }
    }

    pub(crate) fn report(&self) -> Report {
        self.activity.report()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.config.clock.now()
    }

    /// Cancel safe: a dropped request is aborted on both sides.
    pub(crate) async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let origin = request.headers().get(ORIGIN).cloned();
        if let Some(response) = self.config.origins.preflight(&request) {
            return response;
        }
        let mut response = self.route(request, peer).await;
        self.config.origins.mark(origin.as_ref(), response.headers_mut());
        response
    }

    async fn route(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        if head_bytes(request.uri(), request.headers()) > self.config.max_header_bytes as usize {
            return status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        let path = request.uri().path();
        if path == "/healthz" {
            return text(StatusCode::OK, "ok\n");
        }
        if path.starts_with(control::PREFIX) {
            return control::answer(self, &request);
        }
        let client = self.client_address(request.headers(), peer);
        let verifier = &self.config.verifier;
        let who = verifier.check_parts(request.method(), request.uri(), request.headers(), client);
        let Some(who) = who else { return unauthorized() };
        if *request.method() == Method::CONNECT {
            return status(StatusCode::METHOD_NOT_ALLOWED);
        }
        let open = self.activity.begin();
        let (mut head, body) = request.into_parts();
        verifier.strip(&mut head.uri, &mut head.headers);
        let upgrade = match self.config.upstream_http2 {
            true => None,
            false => forward::upgrade_of(head.version, &head.headers),
        };
        let asked = upgrade.is_some();
        forward::to_server(&mut head, &self.upstream, upgrade, &who);
        let ours = hyper::upgrade::on(head_only(&mut head));
        let request = Request::from_parts(head, Body::to_server(body, Arc::clone(&open)));
        match self.client.request(request).await {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => switch(response, asked.then_some(ours), open),
            Ok(response) => pass(response, open),
            // Not its text: it may name addresses, and the client can do nothing about it.
            Err(_) => {
                let mut response = text(StatusCode::BAD_GATEWAY, "the server behind did not answer\n");
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                response
            }
        }
    }

    /// The address that signatures are bound to: what the trusted proxy says, which is the last it appended, else the peer's.
    fn client_address(&self, headers: &HeaderMap, peer: SocketAddr) -> Option<IpAddr> {
        let Some(name) = &self.config.client_header else { return Some(peer.ip()) };
        headers.get_all(name).iter().next_back()?.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
    }
}

/// The extensions of a request whose body went elsewhere, where hyper keeps the way to upgrade.
fn head_only(head: &mut hyper::http::request::Parts) -> Request<()> {
    let mut request = Request::new(());
    std::mem::swap(request.extensions_mut(), &mut head.extensions);
    request
}

fn pass(response: Response<Incoming>, open: Arc<Open>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    forward::remove_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
    Response::from_parts(head, Body::to_client(body, open))
}

/// Answers 101 and carries what follows, for as long as both ends are there.
fn switch(mut response: Response<Incoming>, client: Option<hyper::upgrade::OnUpgrade>, open: Arc<Open>) -> Response<Body> {
    let Some(client) = client else { return status(StatusCode::BAD_GATEWAY) };
    let server = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        // Either fails when its connection does: there is nothing to carry, and nobody to tell.
        if let (Ok(client), Ok(server)) = (client.await, server.await) {
            let _ended = tunnel::carry(TokioIo::new(client), TokioIo::new(server), &open).await;
        }
    });
    let (head, _) = response.into_parts();
    Response::from_parts(head, Body::default())
}

fn head_bytes(uri: &Uri, headers: &HeaderMap) -> usize {
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    target + headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>()
}

pub(crate) fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}

pub(crate) fn text(code: StatusCode, text: &str) -> Response<Body> {
    status(code).map(|_| Body::from(text.to_owned()))
}
