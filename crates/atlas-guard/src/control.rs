//! The control paths of a guard under `/_atlas/`: activity, permit, revocation.
//!
//! They accept the control secret and grants that it signs. Once the machine has a control key, the
//! credential of a browser is not accepted here, nor is a grant signed with it. Machines rented
//! before control secrets existed have none: there the session's bearer token and its grants for
//! `/_atlas/` are accepted.

use atlas_auth::control::ControlKey;
use atlas_auth::grant::{GrantId, GrantKey};
use atlas_auth::layer::unauthorized;
use atlas_auth::token;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use crate::body::Body;
use crate::proxy::{Proxy, status, text};
use crate::streams::Holder;

pub(crate) use atlas_auth::grant::CONTROL_PREFIX as PREFIX;

/// The credential for the control paths.
#[derive(Clone, Debug)]
pub(crate) enum Control {
    /// The control secret of the session, and grants that it signs.
    Key(ControlKey),
    /// The credential of the session, if it has no control secret.
    Credential {
        bearer: Option<token::Hash>,
        grants: Vec<GrantKey>,
    },
}

pub(crate) fn answer(proxy: &Proxy, request: &Parts) -> Response<Body> {
    if !authorised(proxy, request) {
        return unauthorized();
    }
    let rest = &request.uri.path()[PREFIX.len()..];
    match (&request.method, rest, rest.strip_prefix("revoke/")) {
        (&Method::GET, "activity", _) => report(proxy),
        (&Method::POST, "permit", _) => {
            proxy.permit.renew();
            report(proxy)
        }
        (&Method::POST, _, Some(id)) => match id.parse::<GrantId>() {
            Ok(id) => {
                proxy.config.revoked.revoke(id, proxy.now());
                proxy.streams.end(&Holder::Grant(id));
                status(StatusCode::NO_CONTENT)
            }
            Err(_) => text(StatusCode::BAD_REQUEST, "no grant id\n"),
        },
        (_, "activity" | "permit", _) | (_, _, Some(_)) => status(StatusCode::METHOD_NOT_ALLOWED),
        _ => status(StatusCode::NOT_FOUND),
    }
}

fn authorised(proxy: &Proxy, request: &Parts) -> bool {
    let Some(shown) = token::from_headers(&request.headers) else {
        return false;
    };
    let now = proxy.now();
    let grant = match &proxy.config.control {
        Control::Key(key) if key.is_of(shown) => return true,
        Control::Key(key) => key.verify(shown, now).ok(),
        Control::Credential { bearer, .. } if bearer.is_some_and(|hash| hash.matches(shown)) => {
            return true;
        }
        Control::Credential { grants, .. } => {
            grants.iter().find_map(|key| key.verify(shown, now).ok())
        }
    };
    grant.is_some_and(|grant| {
        let scope = grant.scope();
        scope.prefix().starts_with(PREFIX)
            && scope.allows(request.method.as_str(), request.uri.path())
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
