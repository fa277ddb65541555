//! What becomes of one request: answered here, refused, or passed on without its credential.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use atlas_auth::layer::unauthorized;
use atlas_core::Timestamp;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER};
use hyper::http::uri::Authority;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use crate::activity::{Activity, Connection, Open, Report};
use crate::body::Body;
use crate::config::Config;
use crate::forward::{self, Connector};
use crate::permit::Permit;
use crate::upstream::{Answer, Prefixed, Upstream};
use crate::{control, tunnel};

/// The server behind.
enum Behind {
    Http1(Arc<Upstream>),
    Http2(Box<Client<Connector, Body>>),
}

pub(crate) struct Proxy {
    pub(crate) config: Config,
    pub(crate) permit: Permit,
    activity: Arc<Activity>,
    behind: Behind,
    authority: Authority,
}

impl Proxy {
    pub(crate) fn new(config: Config) -> Self {
        let behind = if config.upstream_http2 {
            let mut client = Client::builder(TokioExecutor::new());
            client
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .http2_only(true)
                .set_host(false);
            Behind::Http2(Box::new(client.build(Connector(config.upstream))))
        } else {
            Behind::Http1(Upstream::new(config.upstream))
        };
        let authority = config
            .upstream
            .to_string()
            .parse()
            .expect("an address is an authority");
        let activity = Activity::new(Arc::clone(&config.clock));
        let permit = Permit::new(config.permit);
        Self {
            config,
            permit,
            activity,
            behind,
            authority,
        }
    }

    pub(crate) fn report(&self) -> Report {
        self.activity.report()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.config.clock.now()
    }

    /// Cancel safe: a dropped request is aborted on both sides.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        connection: &Arc<Connection>,
    ) -> Response<Body> {
        let origin = request.headers().get(ORIGIN).cloned();
        if let Some(response) = self.config.origins.preflight(&request) {
            return response;
        }
        let mut response = self.route(request, peer, connection).await;
        self.config
            .origins
            .mark(origin.as_ref(), response.headers_mut());
        response
    }

    async fn route(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        connection: &Arc<Connection>,
    ) -> Response<Body> {
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
        let Some(who) = who else {
            return unauthorized();
        };
        if *request.method() == Method::CONNECT {
            return status(StatusCode::METHOD_NOT_ALLOWED);
        }
        let open = self.activity.begin(connection);
        let (mut head, body) = request.into_parts();
        verifier.strip(&mut head.uri, &mut head.headers);
        let upgrade = match self.config.upstream_http2 {
            true => None,
            false => forward::upgrade_of(head.version, &head.headers),
        };
        forward::to_server(&mut head, &self.authority, upgrade, &who);
        let ours = hyper::upgrade::on(head_only(&mut head));
        let request = Request::from_parts(head, Body::to_server(body, Arc::clone(&open)));
        let answer = match &self.behind {
            Behind::Http1(upstream) => upstream.send(request).await.map(|answer| match answer {
                Answer::Response(response) => pass(response, |reply| Body::Reply {
                    reply: Box::new(reply),
                    open,
                }),
                Answer::Switched(response, server) => switch(
                    response,
                    ours,
                    server,
                    open,
                    self.config.half_closed_timeout,
                ),
            }),
            Behind::Http2(client) => {
                let answer = client.request(request).await.map_err(io::Error::other);
                answer.map(|response| pass(response, |incoming| Body::to_client(incoming, open)))
            }
        };
        match answer {
            Ok(response) => response,
            // Not its text: it may name addresses, and the client can do nothing about it.
            Err(_) => {
                let mut response = text(
                    StatusCode::BAD_GATEWAY,
                    "the server behind did not answer\n",
                );
                response
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from_static("1"));
                response
            }
        }
    }

    /// The address that signatures are bound to: what the trusted proxy says, which is the last it
    /// appended, else the peer's.
    fn client_address(&self, headers: &HeaderMap, peer: SocketAddr) -> Option<IpAddr> {
        let Some(name) = &self.config.client_header else {
            return Some(peer.ip());
        };
        headers
            .get_all(name)
            .iter()
            .next_back()?
            .to_str()
            .ok()?
            .rsplit(',')
            .next()?
            .trim()
            .parse()
            .ok()
    }
}

/// The extensions of a request whose body went elsewhere, where hyper keeps the way to upgrade.
fn head_only(head: &mut hyper::http::request::Parts) -> Request<()> {
    let mut request = Request::new(());
    std::mem::swap(request.extensions_mut(), &mut head.extensions);
    request
}

fn pass<B>(response: Response<B>, body: impl FnOnce(B) -> Body) -> Response<Body> {
    let (mut head, reply) = response.into_parts();
    forward::remove_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
    Response::from_parts(head, body(reply))
}

/// Answers 101 and carries what follows, for as long as both ends are there.
fn switch(
    response: Response<()>,
    client: OnUpgrade,
    server: Prefixed,
    open: Arc<Open>,
    half_closed: Duration,
) -> Response<Body> {
    tokio::spawn(async move {
        // It fails when the client's connection does: there is nothing to carry, and nobody to
        // tell.
        if let Ok(client) = client.await {
            let _ended = tunnel::carry(TokioIo::new(client), server, &open, half_closed).await;
        }
    });
    response.map(|()| Body::default())
}

pub(crate) fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}

pub(crate) fn text(code: StatusCode, text: &str) -> Response<Body> {
    status(code).map(|_| Body::from(text.to_owned()))
}
