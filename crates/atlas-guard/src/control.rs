//! The control paths of a guard under `/_atlas/`: activity, permit, revocation.
//!
//! They accept the control secret and grants that it signs. Once the machine has a control key, the
//! credential of a browser is not accepted here, nor is a grant signed with it. Machines rented
//! before control secrets existed have none: there the session's bearer token and its grants for
//! `/_atlas/` are accepted.

use std::sync::Arc;

use atlas_auth::control::ControlKey;
use atlas_auth::grant::{GrantId, GrantKey, Revoked};
use atlas_auth::layer::unauthorized;
use atlas_auth::token;
use atlas_core::Timestamp;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use crate::activity::Activity;
use crate::body::Body;
use crate::permit::Permit;
use crate::reply::{status, text};
use crate::streams::{Holder, Streams};

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

/// What the control paths read and change.
pub(crate) struct Controlled<'a> {
    pub(crate) control: &'a Control,
    pub(crate) revoked: &'a Revoked,
    pub(crate) now: Timestamp,
    pub(crate) permit: &'a Permit,
    pub(crate) streams: &'a Arc<Streams>,
    pub(crate) activity: &'a Activity,
}

pub(crate) fn answer(guard: &Controlled<'_>, request: &Parts) -> Response<Body> {
    if !authorised(guard, request) {
        return unauthorized();
    }
    let rest = &request.uri.path()[PREFIX.len()..];
    match (&request.method, rest, rest.strip_prefix("revoke/")) {
        (&Method::GET, "activity", _) => report(guard),
        (&Method::POST, "permit", _) => {
            guard.permit.renew();
            report(guard)
        }
        (&Method::POST, _, Some(id)) => match id.parse::<GrantId>() {
            Ok(id) => {
                guard.revoked.revoke(id, guard.now);
                guard.streams.end(&Holder::Grant(id));
                status(StatusCode::NO_CONTENT)
            }
            Err(_) => text(StatusCode::BAD_REQUEST, "no grant id\n"),
        },
        (_, "activity" | "permit", _) | (_, _, Some(_)) => status(StatusCode::METHOD_NOT_ALLOWED),
        _ => status(StatusCode::NOT_FOUND),
    }
}

fn authorised(guard: &Controlled<'_>, request: &Parts) -> bool {
    let Some(shown) = token::from_headers(&request.headers) else {
        return false;
    };
    let now = guard.now;
    let grant = match guard.control {
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
            && !guard.revoked.contains(grant.id())
    })
}

fn report(guard: &Controlled<'_>) -> Response<Body> {
    let mut response = Response::new(Body::from(guard.activity.report().to_json() + "\n"));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
