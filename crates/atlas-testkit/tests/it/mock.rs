//! The mock cloud: it conforms, in a calm world and in one that lags, and its odd corners are as it
//! says.

use std::future::poll_fn;
use std::time::Duration;

use atlas_core::{
    CallContext, CloudType, ComputeRequest, ErrorKind, Gpu, GpuChoice, JobMode, JobRequest,
    JobStatus, LaunchKey, LogQuery, MemorySize, Next, Outcome, Usd, VolumeRequest,
};
use atlas_core::{DiskSize, Port};
use atlas_testkit::conformance;
use atlas_testkit::mock::{CLOUD, ENDPOINT, MockCloud, MockSubject};
use atlas_testkit::world::{CloudSpec, Lag, Standing, World, WorldClock};
use serde_json::json;

fn gpu() -> ComputeRequest {
    ComputeRequest::gpu(Gpu::H100).image("x/y:1")
}

const KEY: LaunchKey = LaunchKey::untracked();

#[tokio::test(start_paused = true)]
async fn the_mock_conforms_without_a_skip_whatever_the_seed() {
    for seed in [1, 7, 4242] {
        let report = conformance::run(&MockSubject::new(seed)).await;
        assert_eq!((report.failed, report.skipped), (0, 0), "{report}");
        assert_eq!(report.passed, conformance::cases().len());
    }
}

#[tokio::test(start_paused = true)]
async fn the_mock_conforms_when_its_reads_lag() {
    let subject = MockSubject::new(3).lagging();
    let report = conformance::run(&subject).await;
    assert_eq!((report.failed, report.skipped), (0, 0), "{report}");
}

#[tokio::test(start_paused = true)]
async fn candidates_are_the_cheapest_that_fit_and_have_stock() {
    let cloud = MockCloud::new(1);
    let (provider, cx) = (cloud.provider(), CallContext::new());
    let of = |request: ComputeRequest| {
        let (provider, cx) = (provider.clone(), cx.clone());
        async move { provider.candidates(&cx, &request).await.unwrap() }
    };
    let all = of(gpu()).await;
    assert!(
        all.iter()
            .all(|candidate| candidate.gpu == Some(Gpu::H100Sxm))
    );
    assert!(all.is_sorted_by_key(|candidate| candidate.price), "{all:?}");
    assert_eq!(all[0].cloud_type, Some(CloudType::Community));
    assert!(
        of(gpu().cloud_type(CloudType::Secure))
            .await
            .iter()
            .all(|c| c.cloud_type == Some(CloudType::Secure))
    );
    assert!(
        of(gpu().region("r2"))
            .await
            .iter()
            .all(|c| c.region.as_deref() == Some("r2"))
    );
    assert!(
        of(ComputeRequest::gpu(GpuChoice::AtLeast(MemorySize::gib(40))).image("x"))
            .await
            .iter()
            .all(|c| c.gpu == Some(Gpu::H100Sxm))
    );
    assert_eq!(of(ComputeRequest::gpu(Gpu::B200).image("x")).await, []);
    assert_eq!(of(gpu().gpu_count(9)).await, []);
    let pair = of(gpu().gpu_count(2)).await;
    assert_eq!(
        pair[0].price.unwrap().per_hour(),
        all[0].price.unwrap().times(2).per_hour()
    );
    for region in ["r1", "r2"] {
        cloud
            .world()
            .set_stock(CLOUD, "gpu-a", "community", region, 0);
    }
    assert!(
        of(gpu())
            .await
            .iter()
            .all(|c| c.cloud_type == Some(CloudType::Secure))
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_machine_costs_is_what_its_candidate_said() {
    let cloud = MockCloud::new(1);
    let (provider, cx) = (cloud.provider(), CallContext::new());
    let candidate = provider.candidates(&cx, &gpu()).await.unwrap().remove(0);
    let price = candidate.price.unwrap();
    let made = provider
        .spawn_compute(&cx, &KEY, &gpu().at(candidate))
        .await
        .unwrap();
    assert_eq!(made.cost_per_hour, Some(price));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let billed = cloud.world().ledger().clouds[CLOUD].billed_usd;
    assert!(
        billed >= price.per_hour() && billed < price.per_hour() + Usd::from_cents(1),
        "{billed}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_account_without_money_or_right_or_quota_is_told_to_stop() {
    for (standing, kind) in [
        (Standing::NoMoney, ErrorKind::Quota),
        (Standing::Quota(0), ErrorKind::Quota),
        (Standing::ReadOnly, ErrorKind::Forbidden),
    ] {
        let cloud = MockCloud::new(1);
        cloud
            .world()
            .set_standing(CLOUD, &cloud.world().account("me"), standing);
        let error = cloud
            .provider()
            .spawn_compute(&CallContext::new(), &KEY, &gpu())
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (kind, &Outcome::NotApplied(Next::Stop))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_followed_log_goes_on_until_the_container_ends() {
    let provider = MockCloud::new(1).provider();
    let cx = CallContext::new();
    let request = gpu().command(["sh", "-c", "echo one; sleep 20; echo two; exit 3"]);
    let made = provider.spawn_compute(&cx, &KEY, &request).await.unwrap();
    let mut stream = provider
        .logs(&cx, &made.id, &LogQuery::default().follow(true))
        .await
        .unwrap();
    let mut lines = Vec::new();
    while let Some(line) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        lines.push(line.unwrap().text);
    }
    assert!(
        lines.iter().any(|line| line == "one") && lines.iter().any(|line| line == "two"),
        "{lines:?}"
    );
    assert_eq!(
        provider.get_compute(&cx, &made.id).await.unwrap().exit_code,
        Some(3)
    );
}

#[tokio::test(start_paused = true)]
async fn a_synchronous_submit_waits_for_the_end_but_not_longer_than_it_may() {
    let provider = MockCloud::new(1).provider();
    let (jobs, cx) = (provider.jobs().unwrap(), CallContext::new());
    let quick = jobs
        .run_job(
            &cx,
            &JobRequest::new(ENDPOINT, json!({ "a": 1 })).mode(JobMode::Sync),
        )
        .await
        .unwrap();
    assert_eq!(
        (quick.status, quick.output),
        (JobStatus::Completed, Some(json!({ "a": 1 })))
    );
    let request = JobRequest::new(ENDPOINT, json!({ "sleep": 60 }))
        .mode(JobMode::Sync)
        .timeout(Duration::from_secs(5));
    assert_eq!(
        jobs.run_job(&cx, &request).await.unwrap().status,
        JobStatus::InProgress
    );
    let error = jobs
        .run_job(&cx, &JobRequest::new("elsewhere", json!({})))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_mounted_cannot_be_deleted_and_pins_the_region() {
    let provider = MockCloud::new(1).provider();
    let (volumes, cx) = (provider.network_volumes().unwrap(), CallContext::new());
    let request = VolumeRequest {
        name: "data".into(),
        size: DiskSize::gb(10),
        region: "r2".into(),
    };
    let volume = volumes.create_network_volume(&cx, &request).await.unwrap();
    let made = provider
        .spawn_compute(&cx, &KEY, &gpu().network_volume(volume.id.clone()))
        .await
        .unwrap();
    assert_eq!(made.region.as_deref(), Some("r2"));
    assert_eq!(
        volumes
            .delete_network_volume(&cx, &volume.id)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Conflict
    );
    provider.terminate(&cx, &made.id).await.unwrap();
    volumes
        .delete_network_volume(&cx, &volume.id)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn supporting_objects_are_asked_for_only_where_the_cloud_is_told_to() {
    let request = gpu().port(Port::http(8000));
    assert_eq!(
        MockCloud::new(1)
            .provider()
            .supports(&KEY, &request)
            .unwrap(),
        []
    );
    let cloud = MockCloud::new(1).supporting();
    let planned = cloud.provider().supports(&KEY, &request).unwrap();
    let made = cloud
        .provider()
        .ensure_support(&CallContext::new(), &KEY, &planned[0])
        .await
        .unwrap();
    assert_eq!(cloud.supports(), std::slice::from_ref(&made));
    cloud
        .provider()
        .release_support(&CallContext::new(), &made)
        .await
        .unwrap();
    assert_eq!(cloud.supports(), []);
}

#[tokio::test(start_paused = true)]
async fn the_mock_of_another_world_is_that_world() {
    let world = World::new(9, WorldClock::following(60.0))
        .with_cloud(CloudSpec::plain(CLOUD).lag(Lag::default()));
    world.add_key(CLOUD, "other", "them");
    let cloud = MockCloud::in_world(world.clone());
    let made = cloud
        .provider_with_key("other")
        .spawn_compute(&CallContext::new(), &KEY, &gpu())
        .await
        .unwrap();
    assert!(world.truth(CLOUD, made.id.as_str()).is_some());
    assert_eq!(
        cloud.provider().limits().visibility_bound,
        Duration::from_secs(1)
    );
    let error = cloud
        .provider()
        .get_compute(&CallContext::new(), &made.id)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
}
