//! The HTTP ports of the simulated machines, behind the credential that each machine's environment
//! demands. The cloud says which machine and port a URL is for.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use atlas_auth::Verifier;
use atlas_auth::signed_url::Key;
use atlas_core::SystemClock;
use atlas_testkit::dialect::cloud::Reach;
use atlas_testkit::world::{Listener, World};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::Service;

use crate::server::Sure;

#[derive(Clone)]
pub(crate) struct Proxy {
    world: World,
    cloud: &'static str,
    reach: Reach,
}

impl Proxy {
    pub(crate) fn new(world: World, cloud: &'static str, reach: Reach) -> Self {
        Self {
            world,
            cloud,
            reach,
        }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let target = (self.reach)(request.uri(), request.headers());
        let listener = target.map_or(Listener::Nobody, |(id, port)| {
            self.world.listener(self.cloud, &id, port)
        });
        let (name, bearer, signing) = match listener {
            Listener::Nobody => return text(StatusCode::NOT_FOUND, "no such pod or port\n"),
            Listener::NotYet => return text(StatusCode::BAD_GATEWAY, "bad gateway\n"),
            Listener::Open {
                name,
                bearer,
                signing,
            } => (name, bearer, signing),
        };
        if bearer.is_some() || signing.is_some() {
            // A browser lives in real time, whatever the speed of the simulated clouds.
            let mut verifier = Verifier::new(Arc::new(SystemClock));
            // The server in a simulated machine demands whatever it was given.
            if let Some(token) = &bearer {
                let hash = atlas_auth::token::hash(token.expose());
                if let Ok(demanding) = verifier.clone().bearer_hash(&hash) {
                    verifier = demanding;
                }
            }
            if let Some(key) = signing.and_then(|secret| Key::existing(&secret).ok()) {
                verifier = verifier.url_key(key);
            }
            if verifier.check(request).is_none() {
                let mut refused = text(StatusCode::UNAUTHORIZED, "unauthorized\n");
                refused
                    .headers_mut()
                    .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                return refused;
            }
        }
        text(StatusCode::OK, format!("hello from {name}\n"))
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

impl<B> Service<Request<B>> for Proxy {
    type Response = Response<Full<Bytes>>;
    type Error = std::convert::Infallible;
    type Future = Ready<Sure<Self::Response>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Sure<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.answer(&request)))
    }
}
