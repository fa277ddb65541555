//! What the orchestrator asks and tells a guard, under `/_atlas/`: activity, permit, revocation.
//!
//! Open to the session's bearer token and to grants made for `/_atlas/`; a grant for the whole
//! server does not open it.

use atlas_auth::grant::GrantId;
use atlas_auth::layer::unauthorized;
use atlas_auth::token;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::body::Body;
use crate::proxy::{Proxy, status, text};

pub(crate) use atlas_auth::grant::CONTROL_PREFIX as PREFIX;

pub(crate) fn answer<B>(proxy: &Proxy, request: &Request<B>) -> Response<Body> {
    if !authorised(proxy, request) {
        return unauthorized();
    }
    let rest = &request.uri().path()[PREFIX.len()..];
    match (request.method(), rest, rest.strip_prefix("revoke/")) {
        (&Method::GET, "activity", _) => report(proxy),
        (&Method::POST, "permit", _) => {
            proxy.permit.renew();
            report(proxy)
        }
        (&Method::POST, _, Some(id)) => match id.parse::<GrantId>() {
            Ok(id) => {
                proxy.config.revoked.revoke(id, proxy.now());
                status(StatusCode::NO_CONTENT)
            }
            Err(_) => text(StatusCode::BAD_REQUEST, "no grant id\n"),
        },
        (_, "activity" | "permit", _) | (_, _, Some(_)) => status(StatusCode::METHOD_NOT_ALLOWED),
        _ => status(StatusCode::NOT_FOUND),
    }
}

fn authorised<B>(proxy: &Proxy, request: &Request<B>) -> bool {
    let Some(shown) = token::from_headers(request.headers()) else {
        return false;
    };
    if proxy.config.bearer.is_some_and(|hash| hash.matches(shown)) {
        return true;
    }
    let now = proxy.now();
    let grant = proxy
        .config
        .control
        .iter()
        .find_map(|key| key.verify(shown, now).ok());
    grant.is_some_and(|grant| {
        let scope = grant.scope();
        scope.prefix().starts_with(PREFIX)
            && scope.allows(request.method().as_str(), request.uri().path())
            && !proxy.config.revoked.contains(grant.id())
    })
}

fn report(proxy: &Proxy) -> Response<Body> {
    let mut response = Response::new(Body::from(proxy.report().to_json() + "\n"));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
