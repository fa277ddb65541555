//! A simulated Fly, a provider on it, and what passed between them.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{AnyProvider, Candidate, Compute, ComputeId, ComputeRequest, LaunchKey, Result};
use atlas_http::{Pace, Transport};
use atlas_provider_fly::{Fly, FlyBuilder};
use atlas_testkit::dialect::fly::{self, Quirks};
use atlas_testkit::dialect::watched::{Asked, Canned};
pub(crate) use atlas_testkit::provider_stage::{KEY, cx};
use atlas_testkit::provider_stage::{ProviderStage, at_once};

/// The stage of one test.
pub(crate) struct Stage(ProviderStage<fly::Fly, Fly>);

impl Deref for Stage {
    type Target = ProviderStage<fly::Fly, Fly>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A cloud that takes any number of calls, and a provider with the app `sim-app` that makes them at
/// once.
pub(crate) fn stage() -> Stage {
    built(|builder| builder.org(fly::ORG).app(fly::APP))
}

/// The same with a provider built like this.
pub(crate) fn built(with: impl FnOnce(FlyBuilder) -> FlyBuilder) -> Stage {
    let pace = Pace::every(Duration::ZERO);
    let stage = paced(|builder| with(builder.limits(at_once(1000)).paces(pace, pace)));
    stage.quirks(|_| {});
    stage
}

/// A cloud with its real limits, and a provider built like this.
pub(crate) fn paced(with: impl FnOnce(FlyBuilder) -> FlyBuilder) -> Stage {
    let stage = ProviderStage::new(&fly::CLOUD, fly::Fly::new, |watched, clock| {
        let builder = Fly::builder()
            .api_key(KEY)
            .transport(Transport::new(watched))
            .clock(Arc::new(clock));
        with(builder).build().unwrap()
    });
    for token in ["fo1_good", "fm2_good", "fm2_other"] {
        stage.world.add_key(fly::NAME, token, fly::ORG);
    }
    Stage(stage)
}

impl Stage {
    pub(crate) fn quirks(&self, with: impl FnOnce(&mut Quirks)) {
        let mut quirks = Quirks::unlimited();
        with(&mut quirks);
        self.dialect.set_quirks(quirks);
    }

    pub(crate) async fn spawn(&self, n: u8) -> Result<Compute> {
        self.order(n, &request()).await
    }

    /// A machine that runs.
    pub(crate) async fn running(&self, n: u8) -> Compute {
        let made = self.spawn(n).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        made
    }

    /// A machine that was made as an orchestrator makes it: its supporting objects first.
    pub(crate) async fn supported(&self, key: &LaunchKey, request: &ComputeRequest) -> Compute {
        for support in self.provider.supports(key, request).unwrap() {
            self.provider
                .ensure_support(&cx(), key, &support)
                .await
                .unwrap();
        }
        self.provider
            .spawn_compute(&cx(), key, request)
            .await
            .unwrap()
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.requests()
    }

    /// Only methods and paths of it.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lines("/v1/")
    }
}

/// A small machine in Frankfurt.
pub(crate) fn request() -> ComputeRequest {
    ComputeRequest::cpu(1)
        .image("x/y:1")
        .at(at("shared-cpu-1x:256", "fra"))
}

pub(crate) fn at(kind: &str, region: &str) -> Candidate {
    let mut candidate = Candidate::default();
    candidate.native_type = Some(kind.to_owned());
    candidate.region = Some(region.to_owned());
    candidate
}

pub(crate) fn id(text: &str) -> ComputeId {
    ComputeId::new(text).unwrap()
}

/// A provider whose calls are answered by the end of their path; anything else is a 404 without a
/// word, but for the question whose its token is.
pub(crate) fn answering(table: &[(&'static str, u16, &'static str)]) -> AnyProvider {
    let token = r#"{"tokens":[{"org_slug":"acme","apps":[]}]}"#;
    let mut table = table.to_vec();
    table.push(("/tokens/current", 200, token));
    let transport = Transport::new(Canned::by_path(&table));
    AnyProvider::new(
        Fly::builder()
            .api_key(KEY)
            .org("acme")
            .app("pods")
            .transport(transport)
            .build()
            .unwrap(),
    )
}
