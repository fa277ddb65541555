//! Handles one request: answers it here, refuses it, or passes it on without its credential.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use atlas_auth::Principal;
use atlas_auth::layer::unauthorized;
use atlas_core::Timestamp;
use hyper::body::{Body as _, Incoming};
use hyper::header::{HeaderMap, ORIGIN};
use hyper::http::uri::Authority;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;

use crate::activity::{Activity, Connection, Open, Report};
use crate::body::Body;
use crate::config::Config;
use crate::control::{self, Controlled};
use crate::forward::{self, Protocol};
use crate::permit::Permit;
use crate::reply::{later, status, text};
use crate::streams::{Ended, Full, Holder, Streams};
use crate::tunnel;
use crate::upstream::{Answer, Http2, Prefixed, Upstream};

/// The connection to the server.
enum Behind {
    Http1(Arc<Upstream>),
    Http2(Arc<Http2>),
}

pub(crate) struct Proxy {
    pub(crate) config: Config,
    pub(crate) permit: Permit,
    pub(crate) streams: Arc<Streams>,
    activity: Arc<Activity>,
    behind: Behind,
    authority: Authority,
}

impl Proxy {
    pub(crate) fn new(config: Config) -> Self {
        let behind = if config.upstream_http2 {
            Behind::Http2(Http2::new(config.upstream, config.max_streams))
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
        let streams = Streams::new(
            Arc::clone(&config.clock),
            config.max_streams,
            config.max_streams_each,
        );
        Self {
            config,
            permit,
            streams,
            activity,
            behind,
            authority,
        }
    }

    pub(crate) fn report(&self) -> Report {
        self.activity.report()
    }

    fn now(&self) -> Timestamp {
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
        if request.uri().path() == "/healthz" {
            return text(StatusCode::OK, "ok\n");
        }
        let (mut head, body) = request.into_parts();
        let Ok(host) = forward::host_of(&head) else {
            return text(StatusCode::BAD_REQUEST, "the request must name one host\n");
        };
        if head.uri.path().starts_with(control::PREFIX) {
            let controlled = Controlled {
                control: &self.config.control,
                revoked: &self.config.revoked,
                now: self.now(),
                permit: &self.permit,
                streams: &self.streams,
                activity: &self.activity,
            };
            return control::answer(&controlled, &head);
        }
        let client = self.client_address(&head.headers, peer);
        let verifier = &self.config.verifier;
        let Some(who) = verifier.check_parts(&head.method, &head.uri, &head.headers, client) else {
            return unauthorized();
        };
        if head.method == Method::CONNECT {
            return status(StatusCode::METHOD_NOT_ALLOWED);
        }
        let open = match self.open(&who, &head.uri, connection) {
            Ok(open) => open,
            Err(refused) => return refused.answer(),
        };
        verifier.strip(&mut head.uri, &mut head.headers);
        let protocol = match self.behind {
            Behind::Http2(_) => Protocol::Http2,
            Behind::Http1(_) if body.is_end_stream() && forward::asks_for_websocket(&head) => {
                Protocol::WebSocket
            }
            Behind::Http1(_) => Protocol::Http1,
        };
        let host = host.unwrap_or_else(|| self.authority.clone());
        forward::to_server(&mut head, host, protocol, &who);
        let ours = hyper::upgrade::on(head_only(&mut head));
        let request = Request::from_parts(head, Body::to_server(body, Arc::clone(&open)));
        let asked = async {
            match &self.behind {
                Behind::Http1(upstream) => upstream.send(request).await,
                Behind::Http2(server) => server.send(request).await.map(Answer::Http2),
            }
        };
        let answer = tokio::select! {
            biased;
            () = until(open.ended()) => return unauthorized(),
            answer = asked => answer,
        };
        match answer {
            Ok(Answer::Response(response)) => pass(response, |reply| Body::reply(reply, open)),
            Ok(Answer::Http2(response)) => pass(response, |reply| Body::to_client(reply, open)),
            Ok(Answer::Switched(response, server)) => switch(
                response,
                ours,
                server,
                open,
                self.config.half_closed_timeout,
            ),
            // The error text is not sent: it may contain addresses, and the client cannot do
            // anything about it.
            Err(_) => later(text(
                StatusCode::BAD_GATEWAY,
                "the server behind did not answer\n",
            )),
        }
    }

    /// Counts a verified request against the limits, and checks again whether its credential is
    /// still valid: it may have been revoked since it was verified.
    fn open(
        &self,
        who: &Principal,
        uri: &hyper::Uri,
        connection: &Arc<Connection>,
    ) -> Result<Arc<Open>, Refused> {
        let grant = match who {
            Principal::Grant(grant) => Some(grant),
            _ => None,
        };
        let expires_at = grant.map(atlas_auth::grant::Grant::expires_at);
        let stream = self
            .streams
            .open(Holder::of(who, uri), expires_at, connection)
            .map_err(Refused::Full)?;
        if grant.is_some_and(|grant| self.config.revoked.contains(grant.id())) {
            return Err(Refused::Revoked);
        }
        Ok(self.activity.begin(connection, stream))
    }

    /// The address to which signatures are bound: the last entry that the trusted proxy appended,
    /// else the peer's.
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

/// Why a verified request is not passed on.
#[derive(Clone, Copy, Debug)]
enum Refused {
    Full(Full),
    Revoked,
}

impl Refused {
    fn answer(self) -> Response<Body> {
        match self {
            Self::Full(Full::Credential) => later(text(
                StatusCode::TOO_MANY_REQUESTS,
                "this credential has too many requests open\n",
            )),
            Self::Full(Full::Guard) => later(text(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many requests are open\n",
            )),
            Self::Revoked => unauthorized(),
        }
    }
}

/// The extensions of a request whose body was moved; hyper stores the upgrade handle in them.
fn head_only(head: &mut hyper::http::request::Parts) -> Request<()> {
    let mut request = Request::new(());
    std::mem::swap(request.extensions_mut(), &mut head.extensions);
    request
}

fn pass<B>(response: Response<B>, body: impl FnOnce(B) -> Body) -> Response<Body> {
    let (mut head, reply) = response.into_parts();
    forward::remove_hop_by_hop(&mut head.headers);
    forward::keep_private(&mut head.headers);
    head.version = Version::HTTP_11;
    Response::from_parts(head, body(reply))
}

/// Answers 101 and carries the following bytes while both ends are connected.
fn switch(
    response: Response<()>,
    client: OnUpgrade,
    server: Prefixed,
    open: Arc<Open>,
    half_closed: Duration,
) -> Response<Body> {
    tokio::spawn(async move {
        // It fails when the client's connection fails; then there is nothing to carry and no client
        // to inform.
        if let Ok(client) = client.await {
            let carrying = tunnel::carry(TokioIo::new(client), server, &open, half_closed);
            tokio::select! {
                biased;
                () = until(open.ended()) => {}
                _ended = carrying => {}
            }
        }
    });
    response.map(|()| Body::default())
}

/// Waits for the end of a credential; never completes if it does not end what it opened.
async fn until(ended: Option<Ended>) {
    match ended {
        Some(ended) => ended.await,
        None => std::future::pending().await,
    }
}
