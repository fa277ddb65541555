//! An orchestrator over the mock cloud, its callbacks, and a machine that reports.

use std::sync::Arc;
use std::time::Duration;

use atlas_auth::callback::CallbackKey;
use atlas_core::{AccountLimits, AccountName, Clock, ComputeRequest, Gpu, Secret, SeededEntropy};
use atlas_orchestrator::store::{AnyStore, Memory};
use atlas_orchestrator::{
    Cursor, Event, EventKind, Orchestrator, Policy, Realm, Scope, SessionId, SessionOptions,
};
use atlas_testkit::mock::MockCloud;
use atlas_web::callback::{CallbackUrl, Callbacks, NoBody, Reach};
use http::{Request, Response, StatusCode};
use tower::ServiceExt;

/// What a test holds.
pub(crate) struct Bench {
    pub(crate) cloud: MockCloud,
    pub(crate) atlas: Orchestrator,
    pub(crate) key: CallbackKey,
    pub(crate) callbacks: Callbacks,
}

impl Bench {
    pub(crate) async fn new(seed: u64) -> Self {
        let limits = AccountLimits {
            visibility_bound: Duration::from_secs(60),
            call_deadline: Duration::from_secs(10),
            call_interval: Duration::from_millis(10),
            burst: 10,
            concurrency: 8,
        };
        let cloud = MockCloud::new(seed).limits(limits);
        let entropy = SeededEntropy::new(seed);
        let store = Memory::new(Arc::new(cloud.world().clock().clone()), &entropy).durable(true);
        let secret = Secret::new("c29tZSByYW5kb20gbG9va2luZyB0ZXN0IHNlY3JldCE=");
        let atlas = Orchestrator::builder()
            .account(AccountName::new("mock").unwrap(), cloud.provider())
            .store(AnyStore::new(store))
            .realm(Realm::new(&secret).unwrap())
            .entropy(Arc::new(entropy))
            .policy(Policy::default())
            .start()
            .await
            .unwrap();
        let key = CallbackKey::new(&secret);
        let url = CallbackUrl::check("https://app.example.com/callbacks", Reach::Public).unwrap();
        let callbacks = Callbacks::new(atlas.clone(), key.clone(), url);
        Self {
            cloud,
            atlas,
            key,
            callbacks,
        }
    }

    pub(crate) fn token(&self, session: SessionId) -> Secret {
        self.key.mint(
            &session.to_string(),
            self.atlas.now().saturating_add(Duration::from_secs(7200)),
        )
    }

    /// Sends what a machine would.
    pub(crate) async fn send(&self, request: Request<axum::body::Body>) -> Response<NoBody> {
        self.callbacks.service().oneshot(request).await.unwrap()
    }

    /// Sends a report with a good token, and says how it was answered.
    pub(crate) async fn report(
        &self,
        session: SessionId,
        kind: &str,
        body: impl Into<axum::body::Body>,
    ) -> StatusCode {
        self.send(post(
            &format!("/{session}/{kind}"),
            self.token(session).expose(),
            body,
        ))
        .await
        .status()
    }

    /// What machines reported, in order.
    pub(crate) async fn reported(&self) -> Vec<(String, String)> {
        let text = |event: Event| match event.kind {
            EventKind::Reported { kind, text } => Some((kind, text)),
            _ => None,
        };
        self.events().await.into_iter().filter_map(text).collect()
    }

    pub(crate) async fn events(&self) -> Vec<Event> {
        let mut log = self.atlas.subscribe(Scope::All, Cursor::START);
        let mut events = Vec::new();
        while let Some(delivery) = log.try_next().await.unwrap() {
            events.push(delivery.event);
        }
        events
    }

    pub(crate) fn world_now(&self) -> atlas_core::Timestamp {
        self.cloud.world().clock().now()
    }
}

pub(crate) fn post(
    path: &str,
    token: &str,
    body: impl Into<axum::body::Body>,
) -> Request<axum::body::Body> {
    Request::post(path)
        .header("authorization", format!("Bearer {token}"))
        .body(body.into())
        .unwrap()
}

pub(crate) fn request() -> ComputeRequest {
    ComputeRequest::gpu(Gpu::H100).image("x/y:1")
}

pub(crate) fn options() -> SessionOptions {
    SessionOptions::new().idle_ttl(Duration::from_secs(3600))
}
