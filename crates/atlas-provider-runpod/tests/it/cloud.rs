//! Against the simulated cloud: what its ledger says counts, not what we were told.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{
    AnyProvider, AttemptId, CallContext, Clock, ComputeId, ComputeRequest, ComputeStatus, DiskSize,
    ErrorKind, Gpu, LaunchKey, ListFilter, Listing, LogQuery, Next, Outcome, Presence, RealmId,
    TrackedKey,
};
use atlas_http::Transport;
use atlas_provider_runpod::RunPod;
use atlas_testkit::dialect::runpod::{self, Pagination, Quirks};
use atlas_testkit::provider_stage::{KEY, ProviderStage, cx};
use atlas_testkit::world::{FaultKind, World};

struct Cloud(ProviderStage<runpod::RunPod, RunPod>);

impl Deref for Cloud {
    type Target = ProviderStage<runpod::RunPod, RunPod>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

fn cloud() -> Cloud {
    Cloud(ProviderStage::new(
        &runpod::CLOUD,
        runpod::RunPod::new,
        |watched, clock| {
            let builder = RunPod::builder()
                .api_key(KEY)
                .transport(Transport::new(watched))
                .clock(Arc::new(clock));
            builder.build().unwrap()
        },
    ))
}

fn provider(world: &World, dialect: &runpod::RunPod, key: &str) -> AnyProvider {
    let built = RunPod::builder()
        .api_key(key)
        .transport(Transport::new(dialect.clone()))
        .clock(Arc::new(world.clock().clone()));
    AnyProvider::new(built.build().unwrap())
}

impl Cloud {
    fn key(&self, n: u8) -> TrackedKey {
        TrackedKey::new(
            RealmId::from_bytes([1; 4]),
            AttemptId::new(self.world.clock().now(), [n; 6]),
            [n; 5],
        )
    }

    async fn spawn(&self, n: u8) -> atlas_core::Result<atlas_core::Compute> {
        self.order(n, &request()).await
    }

    fn quirks(&self, page_size: usize, pagination: Pagination) {
        let mut quirks = Quirks::default();
        quirks.page_size = page_size;
        quirks.pagination = pagination;
        self.dialect.set_quirks(quirks);
    }

    async fn settled(&self) -> Listing {
        tokio::time::sleep(self.provider.limits().visibility_bound).await;
        self.provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .unwrap()
    }
}

fn request() -> ComputeRequest {
    ComputeRequest::gpu(Gpu::Rtx4090)
        .image("x/y:1")
        .container_disk(DiskSize::gb(10))
}

#[tokio::test(start_paused = true)]
async fn every_page_is_walked_whatever_its_size() {
    let cloud = cloud();
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(cloud.spawn(n).await.unwrap().id);
    }
    made.sort();
    cloud.settled().await;
    for size in 1..=6 {
        cloud.quirks(size, Pagination::Honest);
        let listing = cloud
            .provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .unwrap();
        let mut seen: Vec<ComputeId> = listing
            .computes
            .iter()
            .map(|compute| compute.id.clone())
            .collect();
        seen.sort();
        assert_eq!(
            (seen, listing.is_complete()),
            (made.clone(), true),
            "pages of {size}"
        );
    }
    for (pagination, complete) in [
        (Pagination::Omitted, true),
        (Pagination::LosesCursor, false),
        (Pagination::RepeatsCursor, false),
    ] {
        cloud.quirks(2, pagination);
        let listing = cloud
            .provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .unwrap();
        assert_eq!(listing.is_complete(), complete, "{pagination:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_whose_answer_was_spoiled_is_unknown_made_once_and_found_by_its_key() {
    for kind in [
        FaultKind::CommitThen500,
        FaultKind::CommitThenReset,
        FaultKind::Html502,
        FaultKind::Truncated,
        FaultKind::CommitThenTimeout,
    ] {
        let cloud = cloud();
        cloud.fault("spawn_compute", kind, 1);
        let patient = CallContext::new().with_retries(5);
        let error = cloud
            .provider
            .spawn_compute(&patient, &LaunchKey::Tracked(cloud.key(1)), &request())
            .await
            .unwrap_err();
        assert!(error.outcome().is_unknown(), "{kind}: {error:?}");
        assert_eq!(cloud.live(), 1, "{kind}");
        cloud.settled().await;
        let key = cloud.world.all(runpod::NAME)[0].launch_key().unwrap();
        let found = cloud
            .provider
            .find_by_launch_key(&cx(), &key)
            .await
            .unwrap();
        assert_eq!(
            (found.computes.len(), found.is_complete()),
            (1, true),
            "{kind}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_that_was_refused_made_nothing() {
    let table = [
        (
            FaultKind::NoCapacity,
            ErrorKind::NoCapacity,
            Next::NextCandidate,
        ),
        (
            FaultKind::Status429,
            ErrorKind::RateLimited,
            Next::SameLater,
        ),
    ];
    for (kind, error_kind, next) in table {
        let cloud = cloud();
        cloud.fault("spawn_compute", kind, 1);
        let error = cloud.spawn(1).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (error_kind, &Outcome::NotApplied(next))
        );
        assert_eq!(cloud.live(), 0);
    }
    let cloud = cloud();
    let strange = request().provider_opts(serde_json::json!({"gpuTypeIds": ["x"]}));
    let error = cloud
        .provider
        .spawn_compute(&cx(), &LaunchKey::Tracked(cloud.key(1)), &strange)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.field(), error.status()),
        (ErrorKind::Validation, Some("gpuTypeIds"), Some(422))
    );
    assert_eq!(cloud.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_is_stopped_started_and_its_end_is_proved() {
    let cloud = cloud();
    let made = cloud.spawn(1).await.unwrap();
    cloud.settled().await;
    let read = cloud.provider.get_compute(&cx(), &made.id).await.unwrap();
    assert_eq!(
        (read.status, read.ready, read.gpu_type),
        (ComputeStatus::Running, Some(true), Some(Gpu::Rtx4090))
    );
    cloud.provider.stop(&cx(), &made.id).await.unwrap();
    cloud.provider.stop(&cx(), &made.id).await.unwrap();
    assert_eq!(
        cloud
            .provider
            .get_compute(&cx(), &made.id)
            .await
            .unwrap()
            .status,
        ComputeStatus::Stopped
    );
    cloud.provider.start(&cx(), &made.id).await.unwrap();
    cloud
        .world
        .lock_machine(runpod::NAME, made.id.as_str(), true);
    cloud.provider.terminate(&cx(), &made.id).await.unwrap();
    assert_eq!(cloud.live(), 0, "a locked pod is unlocked first");
    cloud.settled().await;
    assert!(matches!(
        cloud.provider.presence(&cx(), &made.id).await,
        Presence::Absent
    ));
    cloud.provider.terminate(&cx(), &made.id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_proves_nothing_and_ends_nothing() {
    let cloud = cloud();
    let made = cloud.spawn(1).await.unwrap();
    cloud.settled().await;
    let stranger = provider(&cloud.world, &cloud.dialect, "another-key");
    assert!(matches!(
        stranger.presence(&cx(), &made.id).await,
        Presence::NoAnswer(_)
    ));
    let error = stranger.terminate(&cx(), &made.id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(!error.to_string().contains("another-key"), "{error}");
    assert_eq!(cloud.live(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_walk_that_breaks_off_is_never_taken_for_whole() {
    for kind in [
        FaultKind::Html502,
        FaultKind::Truncated,
        FaultKind::Status500,
        FaultKind::CommitThenReset,
    ] {
        let cloud = cloud();
        for n in 0..3 {
            cloud.spawn(n).await.unwrap();
        }
        cloud.settled().await;
        cloud.quirks(1, Pagination::Honest);
        cloud.fault("list_compute", kind, 1);
        match cloud.provider.list_compute(&cx(), &ListFilter::all()).await {
            Ok(listing) => assert!(!listing.is_complete(), "{kind}"),
            Err(error) => assert!(
                matches!(
                    error.kind(),
                    ErrorKind::Unavailable | ErrorKind::Provider | ErrorKind::Transport
                ),
                "{kind}: {error}"
            ),
        }
        let whole = cloud
            .provider
            .list_compute(&CallContext::new(), &ListFilter::all())
            .await
            .unwrap();
        assert_eq!(
            (whole.computes.len(), whole.is_complete()),
            (3, true),
            "{kind}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_terminate_whose_answer_was_lost_is_repeated_until_it_is_answered() {
    let cloud = cloud();
    let made = cloud.spawn(1).await.unwrap();
    cloud.settled().await;
    cloud.fault("terminate", FaultKind::CommitThen500, 1);
    cloud
        .provider
        .terminate(&CallContext::new(), &made.id)
        .await
        .unwrap();
    assert_eq!(cloud.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pods_log_is_read() {
    let cloud = cloud();
    let made = cloud.spawn(1).await.unwrap();
    cloud.settled().await;
    let mut stream = cloud
        .provider
        .logs(&cx(), &made.id, &LogQuery::default().tail(50))
        .await
        .unwrap();
    let mut lines = 0;
    while let Some(line) = std::future::poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        line.unwrap();
        lines += 1;
    }
    assert!(lines > 0);
}

#[tokio::test(start_paused = true)]
async fn candidates_follow_the_stock_and_carry_the_price_that_is_charged() {
    let cloud = cloud();
    let candidates = cloud.provider.candidates(&cx(), &request()).await.unwrap();
    let best = candidates[0].clone();
    let made = cloud
        .provider
        .spawn_compute(&cx(), &LaunchKey::untracked(), &request().at(best.clone()))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(300)).await;
    let read = cloud.provider.get_compute(&cx(), &made.id).await.unwrap();
    assert_eq!(read.cost_per_hour, best.price);
    let lines = cloud.provider.list_gpu_types(&cx()).await.unwrap();
    assert!(
        lines
            .iter()
            .any(|line| line.gpu == Some(Gpu::Rtx4090) && line.price == best.price)
    );
}
