//! A simulated Vast, a provider on it, and what passed between them.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{AnyProvider, Candidate, Compute, ComputeRequest, Gpu, Result};
use atlas_http::Transport;
use atlas_provider_vast::{Vast, VastBuilder};
use atlas_testkit::dialect::vast::{self, Quirks};
use atlas_testkit::dialect::watched::{Answer, Canned, Requests, Watched};
pub(crate) use atlas_testkit::provider_stage::{KEY, cx};
use atlas_testkit::provider_stage::{ProviderStage, at_once};

/// The stage of one test.
pub(crate) struct Stage(ProviderStage<vast::Vast, Vast>);

impl Deref for Stage {
    type Target = ProviderStage<vast::Vast, Vast>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A cloud that takes any number of calls, and a provider that makes them at once.
pub(crate) fn stage() -> Stage {
    let stage = built(|builder| unlimited(builder).endpoint_paces(false));
    stage.quirks(|_| {});
    stage
}

pub(crate) fn unlimited(builder: VastBuilder) -> VastBuilder {
    builder.limits(at_once(1000))
}

/// A cloud with its real limits, and a provider built like this.
pub(crate) fn built(with: impl FnOnce(VastBuilder) -> VastBuilder) -> Stage {
    Stage(ProviderStage::new(
        &vast::CLOUD,
        vast::Vast::new,
        |watched, clock| {
            let builder = Vast::builder()
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

    pub(crate) async fn best(&self, request: &ComputeRequest) -> Candidate {
        self.provider
            .candidates(&cx(), request)
            .await
            .unwrap()
            .remove(0)
    }

    /// Orders this at its best offer.
    pub(crate) async fn order(&self, n: u8, request: &ComputeRequest) -> Result<Compute> {
        let at = self.best(request).await;
        self.0.order(n, &request.clone().at(at)).await
    }

    /// A machine that runs.
    pub(crate) async fn running(&self, n: u8, request: &ComputeRequest) -> Compute {
        let made = self.order(n, request).await.unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
        self.read(&made).await
    }

    pub(crate) async fn read(&self, compute: &Compute) -> Compute {
        self.provider.get_compute(&cx(), &compute.id).await.unwrap()
    }

    /// Waits until no answer of an earlier search is shared any more.
    pub(crate) async fn after_shared_searches(&self) {
        tokio::time::sleep(Duration::from_secs(6)).await;
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.lines("/api/")
    }

    /// How many orders were sent since the last time.
    pub(crate) fn orders(&self) -> usize {
        self.asked()
            .iter()
            .filter(|call| call.starts_with("PUT v0/asks/"))
            .count()
    }
}

pub(crate) fn request() -> ComputeRequest {
    ComputeRequest::gpu(Gpu::Rtx4090).image("x/y:1")
}

/// Pinned to an offer that was not looked up.
pub(crate) fn at(offer: &str) -> Candidate {
    let mut candidate = Candidate::default();
    candidate.offer = Some(offer.to_owned());
    candidate.native_type = Some("RTX 4090".to_owned());
    candidate
}

/// A provider whose calls are answered with these in turn, the last forever; what it asked.
pub(crate) fn answering(answers: &[Answer]) -> (AnyProvider, Requests) {
    let (vast, requests) = answered(answers);
    (AnyProvider::new(vast), requests)
}

pub(crate) fn answered(answers: &[Answer]) -> (Vast, Requests) {
    let watched = Watched::new(Canned::in_turn(answers));
    let (requests, transport) = (watched.requests(), Transport::new(watched));
    let vast = unlimited(Vast::builder())
        .endpoint_paces(false)
        .api_key(KEY)
        .transport(transport)
        .build()
        .unwrap();
    (vast, requests)
}
