//! A simulated Lambda, a provider on it, and what passed between them.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{AnyProvider, Candidate, Compute, ComputeRequest, Gpu, Result};
use atlas_http::{Pace, Transport};
use atlas_provider_lambda::{Lambda, LambdaBuilder};
use atlas_testkit::dialect::lambda::{self, Quirks};
use atlas_testkit::dialect::watched::{Canned, Requests, Watched};
pub(crate) use atlas_testkit::provider_stage::cx;
use atlas_testkit::provider_stage::{KEY, ProviderStage, at_once};
use atlas_testkit::world::CloudSpec;

/// The stage of one test.
pub(crate) struct Stage(ProviderStage<lambda::Lambda, Lambda>);

impl Deref for Stage {
    type Target = ProviderStage<lambda::Lambda, Lambda>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A cloud that takes any number of calls, and a provider that makes them at once.
pub(crate) fn stage() -> Stage {
    let stage = paced(unlimited);
    stage.quirks(|_| {});
    stage
}

pub(crate) fn unlimited(builder: LambdaBuilder) -> LambdaBuilder {
    builder
        .limits(at_once(1000))
        .launch_pace(Pace::every(Duration::ZERO))
}

/// A cloud with its real limits, and a provider built like this.
pub(crate) fn paced(with: impl FnOnce(LambdaBuilder) -> LambdaBuilder) -> Stage {
    on(lambda::cloud(), with)
}

/// The same on a cloud like this.
pub(crate) fn on(cloud: CloudSpec, with: impl FnOnce(LambdaBuilder) -> LambdaBuilder) -> Stage {
    let dialect = lambda::Lambda::new;
    Stage(ProviderStage::on(
        cloud,
        &lambda::CLOUD,
        dialect,
        |watched, clock| {
            let builder = Lambda::builder()
                .api_key(KEY)
                .transport(Transport::new(watched))
                .clock(Arc::new(clock));
            with(builder).build().unwrap()
        },
    ))
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
        tokio::time::sleep(Duration::from_secs(600)).await;
        made
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.lines("/api/v1/")
    }
}

/// An A10 in Arizona.
pub(crate) fn request() -> ComputeRequest {
    ComputeRequest::gpu(Gpu::A10)
        .image("x/y:1")
        .at(at("gpu_1x_a10", "us-west-2"))
}

pub(crate) fn at(kind: &str, region: &str) -> Candidate {
    let mut candidate = Candidate::default();
    candidate.native_type = Some(kind.to_owned());
    candidate.region = Some(region.to_owned());
    candidate
}

/// A provider whose calls are all answered like this; what it asked.
pub(crate) fn answering(status: u16, body: &'static str) -> (AnyProvider, Requests) {
    answering_in_turn(&[(status, body)])
}

/// The same with an answer for each call, the last one for all that follow.
pub(crate) fn answering_in_turn(answers: &[(u16, &'static str)]) -> (AnyProvider, Requests) {
    let watched = Watched::new(Canned::in_turn(answers));
    let (requests, transport) = (watched.requests(), Transport::new(watched));
    let lambda = Lambda::builder()
        .api_key(KEY)
        .ssh_key("fleet")
        .transport(transport)
        .build()
        .unwrap();
    (AnyProvider::new(lambda), requests)
}
