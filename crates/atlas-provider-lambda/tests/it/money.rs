//! The rules that keep a machine from billing unseen, each once: what the cloud's ledger says
//! counts, not what we were told.

use std::time::Duration;

use atlas_core::{
    CallContext, ComputeId, ComputeRequest, ComputeStatus, ErrorKind, Gpu, ListFilter, Next,
    Outcome, Port, Presence, Usd, UsdPerHour, VolumeId,
};
use atlas_http::Pace;
use atlas_testkit::dialect::lambda;
use atlas_testkit::world::{FaultKind, Standing};
use serde_json::json;

use crate::stage::{answering, answering_in_turn, at, cx, on, paced, request, stage, unlimited};

#[tokio::test(start_paused = true)]
async fn an_order_whose_answer_was_spoiled_is_unknown_made_once_and_found_by_its_key() {
    for kind in [
        FaultKind::CommitThen500,
        FaultKind::CommitThenReset,
        FaultKind::Html502,
        FaultKind::Truncated,
        FaultKind::CommitThenTimeout,
    ] {
        let stage = stage();
        stage.fault("spawn_compute", kind, 1);
        let patient = CallContext::new().with_retries(5);
        let error = stage
            .provider
            .spawn_compute(&patient, &stage.key(1), &request())
            .await
            .unwrap_err();
        assert!(error.outcome().is_unknown(), "{kind}: {error:?}");
        assert_eq!(stage.live(), 1, "{kind}");
        tokio::time::sleep(stage.provider.limits().visibility_bound).await;
        let key = stage.world.all(lambda::NAME)[0].launch_key().unwrap();
        let found = stage
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
async fn an_order_that_was_refused_made_nothing_and_says_what_to_try_next() {
    let table = [
        (
            FaultKind::NoCapacity,
            false,
            ErrorKind::NoCapacity,
            Next::NextCandidate,
        ),
        (
            FaultKind::Status429,
            false,
            ErrorKind::RateLimited,
            Next::SameLater,
        ),
        (
            FaultKind::Status429,
            true,
            ErrorKind::RateLimited,
            Next::SameLater,
        ),
    ];
    for (kind, plain, error_kind, next) in table {
        let stage = stage();
        stage.quirks(|quirks| quirks.plain_429 = plain);
        stage.fault("spawn_compute", kind, 1);
        let error = stage.spawn(1).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (error_kind, &Outcome::NotApplied(next)),
            "{error}"
        );
        assert_eq!(stage.live(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_region_that_only_claims_to_have_machines_is_left_for_the_next_candidate() {
    let stage = stage();
    stage.quirks(|quirks| quirks.claims_capacity = Some("europe-central-1".to_owned()));
    let wanted = ComputeRequest::gpu(Gpu::A10)
        .image("x/y:1")
        .region("europe-central-1")
        .region("us-east-1");
    let candidates = stage.provider.candidates(&cx(), &wanted).await.unwrap();
    assert_eq!(candidates[0].region.as_deref(), Some("europe-central-1"));
    let error = stage
        .provider
        .spawn_compute(
            &cx(),
            &stage.key(1),
            &wanted.clone().at(candidates[0].clone()),
        )
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (
            ErrorKind::NoCapacity,
            &Outcome::NotApplied(Next::NextCandidate)
        )
    );
    let made = stage
        .provider
        .spawn_compute(&cx(), &stage.key(2), &wanted.at(candidates[1].clone()))
        .await
        .unwrap();
    assert_eq!(
        (made.region.as_deref(), stage.live()),
        (Some("us-east-1"), 1)
    );
}

#[tokio::test(start_paused = true)]
async fn what_an_order_names_and_is_not_there_stops_it_whichever_status_says_so() {
    for unknown_is_404 in [false, true] {
        let stage = stage();
        stage.quirks(|quirks| quirks.unknown_is_404 = unknown_is_404);
        let strange = request().provider_opts(json!({ "image": { "family": "nobody's" } }));
        let error = stage
            .provider
            .spawn_compute(&cx(), &stage.key(1), &strange)
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::NotFound, &Outcome::NotApplied(Next::Stop))
        );
        assert_eq!(stage.live(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn at_its_own_pace_the_cloud_refuses_no_call() {
    let stage = paced(|builder| builder);
    let wanted = ComputeRequest::gpu(Gpu::A10).image("x/y:1");
    for n in 0..6 {
        let key = stage.key(n);
        stage
            .provider
            .spawn_compute(&cx(), &key, &wanted)
            .await
            .unwrap();
        stage
            .provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .unwrap();
    }
    assert_eq!(stage.live(), 6);
    let hasty = paced(|builder| builder.launch_pace(Pace::every(Duration::ZERO)));
    hasty.spawn(1).await.unwrap();
    assert_eq!(
        hasty.spawn(2).await.unwrap_err().kind(),
        ErrorKind::RateLimited,
        "or the limit was never there"
    );
}

#[tokio::test(start_paused = true)]
async fn no_read_follows_an_order_so_none_can_lose_its_id() {
    let stage = stage();
    stage.fault("get_compute", FaultKind::Status429, 9);
    stage.fault("list_compute", FaultKind::Status429, 9);
    let made = stage.spawn(1).await.unwrap();
    assert_eq!(
        stage.asked(),
        ["GET ssh-keys", "POST instance-operations/launch"]
    );
    assert!(stage.world.truth(lambda::NAME, made.id.as_str()).is_some());
}

#[tokio::test(start_paused = true)]
async fn another_number_of_ids_than_one_is_unknown_and_keeps_them_all() {
    let (provider, _) = answering(200, r#"{"data":{"instance_ids":["a1","b2"]}}"#);
    let error = provider
        .spawn_compute(&cx(), &stage().key(1), &request())
        .await
        .unwrap_err();
    let ids = ["a1", "b2"].map(|id| ComputeId::new(id).unwrap()).to_vec();
    assert_eq!(error.outcome(), &Outcome::Unknown(ids));
}

#[tokio::test(start_paused = true)]
async fn every_page_is_walked_and_a_body_that_breaks_off_is_no_empty_list() {
    let stage = stage();
    for n in 0..5 {
        stage.spawn(n).await.unwrap();
    }
    tokio::time::sleep(stage.provider.limits().visibility_bound).await;
    for size in [1, 2, 5, 100] {
        stage.quirks(|quirks| quirks.page_size = size);
        let listing = stage
            .provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .unwrap();
        assert_eq!(
            (listing.computes.len(), listing.is_complete()),
            (5, true),
            "pages of {size}"
        );
    }
    stage.fault("list_compute", FaultKind::Truncated, 1);
    assert!(
        stage
            .provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn a_second_page_that_fails_leaves_a_listing_that_says_it_is_incomplete() {
    let (provider, _) = answering(200, r#"{"data":[],"page_token":"again"}"#);
    let listing = provider
        .list_compute(&cx(), &ListFilter::all())
        .await
        .unwrap();
    assert!(!listing.is_complete());
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_machine_is_alive_and_bills_until_it_is_terminated() {
    let stage = stage();
    let made = stage.running(1).await;
    assert!(stage.world.fail_machine(lambda::NAME, made.id.as_str()));
    tokio::time::sleep(Duration::from_secs(600)).await;
    let read = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    assert_eq!(read.status, ComputeStatus::Failed);
    assert!(matches!(
        stage.provider.presence(&cx(), &made.id).await,
        Presence::Present
    ));
    assert_eq!(stage.live(), 1);
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(matches!(
        stage.provider.presence(&cx(), &made.id).await,
        Presence::Absent
    ));
    assert_eq!(stage.live(), 0);
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_taken_back_is_listed_as_preempted_and_told_apart_from_one_that_we_ended()
 {
    let stage = stage();
    let (taken, ended, lives) = (
        stage.running(1).await,
        stage.running(2).await,
        stage.running(3).await,
    );
    stage.provider.terminate(&cx(), &ended.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(stage.world.preempt_machine(lambda::NAME, taken.id.as_str()));
    let listing = stage
        .provider
        .list_compute(&cx(), &ListFilter::all())
        .await
        .unwrap();
    let told = |id: &ComputeId| {
        let row = listing
            .computes
            .iter()
            .find(|compute| compute.id == *id)
            .unwrap();
        (row.status.clone(), row.preempted)
    };
    assert_eq!(
        told(&taken.id),
        (ComputeStatus::Terminated, true),
        "gone, and not by us"
    );
    assert_eq!(told(&ended.id), (ComputeStatus::Terminated, false));
    assert_eq!(told(&lives.id), (ComputeStatus::Running, false));
    let read = stage.provider.get_compute(&cx(), &taken.id).await.unwrap();
    assert_eq!(
        (read.status, read.preempted),
        (ComputeStatus::Terminated, true)
    );
    assert!(matches!(
        stage.provider.presence(&cx(), &taken.id).await,
        Presence::Absent
    ));
    // A while later there is no row any more: that it was taken back is told nowhere.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(
        stage
            .provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .unwrap()
            .computes
            .len(),
        1
    );
    assert!(matches!(
        stage.provider.presence(&cx(), &taken.id).await,
        Presence::Absent
    ));
    assert_eq!(stage.live(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_old_host_redirects_and_nobody_follows_it_with_the_key() {
    let old = paced(|builder| {
        unlimited(builder)
            .base_url("https://cloud.lambdalabs.com/api/v1")
            .ssh_key("atlas-fleet")
    });
    let error = old.spawn(1).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Provider, &Outcome::NotApplied(Next::Stop)),
        "{error}"
    );
    let id = ComputeId::new("5e0b7c41d2f84a6f9a83c1f07be2d914").unwrap();
    assert!(
        old.provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .is_err()
    );
    assert!(old.provider.terminate(&cx(), &id).await.is_err());
    assert!(matches!(
        old.provider.presence(&cx(), &id).await,
        Presence::NoAnswer(_)
    ));
    assert_eq!(
        old.asked().len(),
        4,
        "each call was made once, and none to another host"
    );
    assert_eq!(old.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_quota_or_a_bad_account_stops_the_walk_over_candidates() {
    let stage = stage();
    stage.quirks(|quirks| quirks.quota = Some(1));
    stage.spawn(1).await.unwrap();
    let error = stage.spawn(2).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Quota, &Outcome::NotApplied(Next::Stop)),
        "{error}"
    );
    for (standing, kind) in [
        (Standing::NoMoney, ErrorKind::Forbidden),
        (Standing::ReadOnly, ErrorKind::Forbidden),
    ] {
        let stage = crate::stage::stage();
        stage
            .world
            .set_standing(lambda::NAME, &stage.world.account("me"), standing);
        let error = stage.spawn(1).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (kind, &Outcome::NotApplied(Next::Stop)),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_price_list_may_be_older_than_the_last_free_machine() {
    let stage = stage();
    stage.quirks(|quirks| quirks.capacity_age = Duration::from_secs(30));
    let wanted = ComputeRequest::gpu(Gpu::A10)
        .image("x/y:1")
        .region("us-west-2")
        .region("us-east-1");
    let first = stage
        .provider
        .candidates(&cx(), &wanted)
        .await
        .unwrap()
        .remove(0);
    stage
        .world
        .set_stock(lambda::NAME, "gpu_1x_a10", "", "us-west-2", 0);
    let again = stage
        .provider
        .candidates(&cx(), &wanted)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(again, first, "the list is a hint");
    let error = stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &wanted.clone().at(again))
        .await
        .unwrap_err();
    assert_eq!(error.outcome(), &Outcome::NotApplied(Next::NextCandidate));
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_ne!(
        stage.provider.candidates(&cx(), &wanted).await.unwrap()[0],
        first
    );
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_never_comes_up_is_alive_and_bills_whatever_it_is_called() {
    let stage = stage();
    stage.quirks(|quirks| quirks.boots_unhealthy = true);
    let sick = stage.running(1).await;
    stage.fault("spawn_compute", FaultKind::NeverReady, 1);
    stage.quirks(|_| {});
    let slow = stage.running(2).await;
    for (made, status) in [
        (&sick, ComputeStatus::Failed),
        (&slow, ComputeStatus::Provisioning),
    ] {
        let read = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
        assert_eq!((&read.status, read.preempted), (&status, false));
        assert!(matches!(
            stage.provider.presence(&cx(), &made.id).await,
            Presence::Present
        ));
        assert!(
            stage
                .world
                .truth(lambda::NAME, made.id.as_str())
                .unwrap()
                .burn()
                > UsdPerHour::ZERO
        );
        stage.provider.terminate(&cx(), &made.id).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(stage.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_terminate_that_came_while_booting_is_refused_and_repeated_until_it_is_taken() {
    let stage = stage();
    stage.quirks(|quirks| quirks.holds_while_booting = true);
    let made = stage.spawn(1).await.unwrap();
    let error = stage.provider.terminate(&cx(), &made.id).await.unwrap_err();
    assert_eq!(
        (error.kind(), stage.live()),
        (ErrorKind::Conflict, 1),
        "to give up would leak it: {error}"
    );
    tokio::time::sleep(Duration::from_secs(600)).await;
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
    assert!(
        matches!(
            stage.provider.presence(&cx(), &made.id).await,
            Presence::Present
        ),
        "accepted is not gone"
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_figure_we_give_is_never_below_the_bill_whenever_billing_begins() {
    let mut bills = Vec::new();
    for from_active in [false, true] {
        let mut cloud = lambda::cloud();
        cloud.bills_from_running = from_active;
        let stage = on(cloud, unlimited);
        stage.quirks(|_| {});
        let made = stage.spawn(1).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let billed = stage.world.ledger().clouds[lambda::NAME].billed_usd;
        let ours = made
            .cost_per_hour
            .unwrap_or(UsdPerHour::new(Usd::from_cents(129)));
        assert!(
            billed <= ours.cost_of(Duration::from_secs(3600)).unwrap(),
            "{billed}"
        );
        bills.push(billed);
    }
    assert_eq!(bills[0], Usd::from_cents(129), "from the launch");
    assert!(
        bills[1] < bills[0] && bills[1] > Usd::from_cents(110),
        "from the first active: {}",
        bills[1]
    );
}

#[tokio::test(start_paused = true)]
async fn fields_that_no_document_knows_are_no_trouble() {
    let stage = stage();
    stage.quirks(|quirks| (quirks.extra_fields, quirks.page_size) = (true, 1));
    let wanted = ComputeRequest::gpu(Gpu::A10)
        .image("x/y:1")
        .region("us-east-1")
        .port(Port::http(8000));
    let at = stage
        .provider
        .candidates(&cx(), &wanted)
        .await
        .unwrap()
        .remove(0);
    let made = stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &wanted.at(at))
        .await
        .unwrap();
    stage.spawn(2).await.unwrap();
    let listing = stage
        .provider
        .list_compute(&cx(), &ListFilter::all())
        .await
        .unwrap();
    assert_eq!((listing.computes.len(), listing.is_complete()), (2, true));
    assert_eq!(
        stage
            .provider
            .get_compute(&cx(), &made.id)
            .await
            .unwrap()
            .keys
            .key(),
        stage.key(1).tracked().copied()
    );
    assert_eq!(stage.own.firewall_rulesets(&cx()).await.unwrap().len(), 1);
    assert!(
        !stage
            .provider
            .list_gpu_types(&cx())
            .await
            .unwrap()
            .is_empty()
    );
    let strange = request().provider_opts(json!({ "region_name": "nowhere" }));
    let error = stage
        .provider
        .spawn_compute(&cx(), &stage.key(3), &strange)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn an_order_made_twice_is_two_machines_for_nothing_makes_it_one() {
    let stage = stage();
    let (first, second) = (stage.spawn(1).await.unwrap(), stage.spawn(1).await.unwrap());
    assert_ne!(first.id, second.id);
    assert_eq!(
        (stage.live(), first.name == second.name),
        (2, true),
        "names are not unique"
    );
}

#[tokio::test(start_paused = true)]
async fn a_404_that_is_not_the_clouds_own_ends_nothing() {
    let id = ComputeId::new("5e0b7c41d2f84a6f9a83c1f07be2d914").unwrap();
    for body in ["", "<html>404</html>", "{}", r#"{"error":"gone"}"#] {
        let (provider, _) = answering(404, body);
        assert!(
            matches!(provider.presence(&cx(), &id).await, Presence::NoAnswer(_)),
            "{body}"
        );
        assert!(provider.terminate(&cx(), &id).await.is_err(), "{body}");
    }
    let (provider, _) = answering(
        404,
        r#"{"error":{"code":"global/object-does-not-exist","message":"m","suggestion":"s"}}"#,
    );
    assert!(matches!(
        provider.presence(&cx(), &id).await,
        Presence::Absent
    ));
    provider.terminate(&cx(), &id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn prices_are_whole_cents_for_the_whole_machine_and_the_list_shows_one_gpus_share() {
    let stage = stage();
    let eight = ComputeRequest::gpu(Gpu::H100Sxm)
        .gpu_count(8)
        .image("x/y:1");
    let best = stage
        .provider
        .candidates(&cx(), &eight)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(best.price, Some(UsdPerHour::new(Usd::from_cents(3192))));
    let made = stage.running(1).await;
    let read = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    assert_eq!(
        read.cost_per_hour,
        Some(UsdPerHour::new(Usd::from_cents(129)))
    );
    let lines = stage.provider.list_gpu_types(&cx()).await.unwrap();
    let line = lines
        .iter()
        .find(|line| line.native_id == "gpu_8x_h100_sxm5")
        .unwrap();
    assert_eq!(line.price, Some(UsdPerHour::new(Usd::from_cents(399))));
    assert!(
        lines
            .iter()
            .any(|line| line.native_id == "gpu_8x_v100" && line.region.is_none()),
        "sold out is not left out"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_price_list_has_no_exact_machine_for_is_refused_with_what_it_has() {
    let stage = stage();
    for (gpu, count, said) in [
        (Gpu::A100_80G, 1, "only with 8"),
        (Gpu::V100, 1, "only with 8"),
        (Gpu::A6000, 3, "only with 1, 2"),
        (Gpu::L40S, 1, "price list has no l40s"),
    ] {
        let wanted = ComputeRequest::gpu(gpu).gpu_count(count).image("x/y:1");
        let error = stage.provider.candidates(&cx(), &wanted).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{gpu} x{count}");
        assert!(error.to_string().contains(said), "{error}");
    }
    let asked = stage.asked().len();
    let error = stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &request().provider_opts(json!([1])))
        .await
        .unwrap_err();
    assert_eq!(
        (error.field(), asked),
        (Some("provider_opts"), 4),
        "one call for each, and none for what is wrong in itself"
    );
    assert_eq!(stage.asked(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_type_that_only_the_live_price_list_knows_can_be_ordered() {
    let (provider, _) = answering(
        200,
        r#"{"data":{"gpu_4x_b200_sxm6":{"instance_type":{"name":"gpu_4x_b200_sxm6",
            "description":"4x B200","gpu_description":"B200 (180 GB SXM6)",
            "price_cents_per_hour":2716,
            "specs":{"vcpus":104,"memory_gib":1450,"storage_gib":11264,"gpus":4}},
            "regions_with_capacity_available":[{"name":"us-new-7","description":"new"}]}}}"#,
    );
    let wanted = ComputeRequest::gpu(Gpu::B200)
        .gpu_count(4)
        .image("x/y:1")
        .region("US-New-7");
    provider.check(&wanted).unwrap();
    let found = provider.candidates(&cx(), &wanted).await.unwrap();
    assert_eq!(found[0].native_type.as_deref(), Some("gpu_4x_b200_sxm6"));
    assert_eq!(found[0].region.as_deref(), Some("us-new-7"));
    assert_eq!(found[0].gpu, Some(Gpu::B200));
}

#[tokio::test(start_paused = true)]
async fn what_is_on_a_mounted_file_system_is_in_the_price() {
    const TYPES: &str = r#"{"data":{"gpu_1x_a10":{"instance_type":{"name":"gpu_1x_a10",
        "description":"1x A10","gpu_description":"A10 (24 GB PCIe)","price_cents_per_hour":129,
        "specs":{"vcpus":30,"memory_gib":200,"storage_gib":1400,"gpus":1}},
        "regions_with_capacity_available":[{"name":"us-west-2","description":"Arizona"}]}}}"#;
    const SYSTEMS: &str = r#"{"data":[{"id":"f1","name":"data","region":{"name":"us-west-2"},
        "bytes_used":36000000000}]}"#;
    const LAUNCHED: &str = r#"{"data":{"instance_ids":["5e0b7c41d2f84a6f9a83c1f07be2d914"]}}"#;
    let wanted = |name: &str| {
        let open = ComputeRequest::gpu(Gpu::A10).image("x/y:1");
        open.network_volume(VolumeId::new(name).unwrap())
    };
    let answers = [
        (200, TYPES),
        (200, SYSTEMS),
        (200, SYSTEMS),
        (200, LAUNCHED),
    ];
    let (provider, sent) = answering_in_turn(&answers);
    let found = provider.candidates(&cx(), &wanted("data")).await.unwrap();
    // 36 GB at 20 cents for thirty days.
    let whole = UsdPerHour::new(Usd::from_cents(130));
    assert_eq!(found[0].price, Some(whole));
    let pinned = wanted("data").at(found[0].clone());
    let key = stage().key(1);
    let made = provider.spawn_compute(&cx(), &key, &pinned).await.unwrap();
    assert_eq!(made.cost_per_hour, Some(whole));
    let launch = sent.take().pop().unwrap().body;
    let tag = json!({ "key": "atlas-file-system-gb", "value": "36" });
    assert!(
        launch["tags"].as_array().unwrap().contains(&tag),
        "{launch}"
    );
    assert_eq!(launch["file_system_names"], json!(["data"]));
    let (provider, _) = answering_in_turn(&answers);
    let error = provider
        .candidates(&cx(), &wanted("other"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.field()),
        (ErrorKind::Validation, Some("network_volume_id"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_empty_price_list_says_nothing_of_what_lambda_sells() {
    let (provider, _) = answering(200, r#"{"data":{}}"#);
    let wanted = ComputeRequest::gpu(Gpu::A10).image("x/y:1");
    let error = provider.candidates(&cx(), &wanted).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (
            ErrorKind::Unavailable,
            &Outcome::NotApplied(Next::SameLater)
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_region_is_known_in_any_case_and_one_that_lambda_has_not_is_refused_at_once() {
    let stage = stage();
    let in_region = |region: &str| ComputeRequest::gpu(Gpu::A10).image("x/y:1").region(region);
    let wanted = in_region("US-WEST-2").port(Port::http(8000));
    let made = stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &wanted)
        .await
        .unwrap();
    assert_eq!(made.region.as_deref(), Some("us-west-2"));
    let sets = stage.own.firewall_rulesets(&cx()).await.unwrap();
    let place = sets[0].region.as_ref().map(|region| &region.name[..]);
    assert_eq!((sets.len(), place), (1, Some("us-west-2")));
    // A region that exists and has no machine is sold out.
    let sold_out = in_region("Europe-Central-1");
    let found = stage.provider.candidates(&cx(), &sold_out).await.unwrap();
    assert_eq!(found, []);
    let unknown = in_region("us-west-2").region("us-nowhere-9");
    let error = stage
        .provider
        .candidates(&cx(), &unknown)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.field()),
        (ErrorKind::Validation, Some("region_hints"))
    );
    let text = error.to_string();
    assert!(text.contains("us-nowhere-9") && text.contains("europe-central-1"));
    let without_firewall = in_region("US-South-1").port(Port::http(8000));
    let error = stage.provider.check(&without_firewall).unwrap_err();
    assert_eq!(error.field(), Some("region_hints"));
}

#[tokio::test(start_paused = true)]
async fn an_error_says_what_the_cloud_says_and_nothing_that_it_echoes_of_the_environment() {
    let stage = stage();
    let strange = request()
        .env("A", "zz-canary-env")
        .provider_opts(json!({ "tags": [{ "key": "BAD", "value": "v" }] }));
    let error = stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &strange)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Validation);
    assert!(error.to_string().contains("tags"), "{error}");
    // In the spelling of the script that carried it.
    let (provider, _) = answering(
        400,
        r#"{"error":{"code":"global/invalid-parameters",
            "message":"hostname: not in {\"A\":\"two\\u000azz-canary\"}"}}"#,
    );
    let error = provider
        .spawn_compute(&cx(), &stage.key(1), &request().env("A", "two\nzz-canary"))
        .await
        .unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("hostname: not in") && !text.contains("zz-canary"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_secrets_of_a_machines_description_are_not_kept() {
    let stage = stage();
    let made = stage.running(1).await;
    let read = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    assert_eq!(read.status, ComputeStatus::Running);
    let text = format!("{read:?} {}", serde_json::to_string(&read).unwrap());
    assert!(!text.contains("zz-jupyter"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_order_is_one_machine_with_its_key_twice_and_an_arm_image_where_the_machine_is_one() {
    let (provider, sent) = answering(200, r#"{"data":{"instance_ids":["a1"]}}"#);
    let mut candidate = at("gpu_1x_gh200", "us-east-3");
    candidate.gpu = Some(Gpu::Gh200);
    let key = stage().key(1);
    let wanted = ComputeRequest::gpu(Gpu::Gh200)
        .image("x/y:1")
        .env("TOKEN", "s3cr't")
        .at(candidate);
    provider.spawn_compute(&cx(), &key, &wanted).await.unwrap();
    let sent = sent.take();
    let [asked] = &sent[..] else {
        panic!("{sent:?}")
    };
    let body = &asked.body;
    assert_eq!(
        (&body["ssh_key_names"], body.get("quantity")),
        (&json!(["fleet"]), None)
    );
    let key = key.tracked().unwrap().to_string();
    assert!(body["name"].as_str().unwrap().contains(&key));
    assert!(
        body["tags"]
            .as_array()
            .unwrap()
            .contains(&json!({ "key": "atlas-launch-key", "value": key }))
    );
    let script = body["user_data"].as_str().unwrap();
    assert!(
        script.contains("--platform linux/arm64") && script.contains(r#""TOKEN":"s3cr't""#),
        "{script}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_not_made_as_old_as_its_original_by_the_key_they_share() {
    let stage = stage();
    let original = stage.running(1).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    stage
        .world
        .clone_machine(lambda::NAME, original.id.as_str())
        .unwrap();
    let listed = stage
        .provider
        .list_compute(&cx(), &ListFilter::default())
        .await
        .unwrap();
    assert_eq!(listed.computes.len(), 2);
    // Lambda tells no time of creation. A time made up from the key would make the copy look like a
    // second commit of the order.
    assert!(
        original.created_at.is_none()
            && listed
                .computes
                .iter()
                .all(|machine| machine.created_at.is_none())
    );
}

#[tokio::test(start_paused = true)]
async fn a_rule_set_that_somebody_elses_machine_uses_is_left_to_it_and_one_with_our_key_is_waited_for()
 {
    let stage = stage();
    let (key, wanted) = (stage.key(1), request().port(atlas_core::Port::http(8000)));
    let planned = stage.provider.supports(&key, &wanted).unwrap().remove(0);
    let support = stage
        .provider
        .ensure_support(&cx(), &key, &planned)
        .await
        .unwrap();
    let ours = stage
        .provider
        .spawn_compute(&cx(), &key, &wanted)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let copy = stage
        .world
        .clone_machine(lambda::NAME, ours.id.as_str())
        .unwrap();
    stage.provider.terminate(&cx(), &ours.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let waits = stage
        .provider
        .release_support(&cx(), &support)
        .await
        .unwrap_err();
    assert_eq!(waits.kind(), ErrorKind::Conflict);
    stage
        .world
        .rename_machine(lambda::NAME, &copy.id, "their-own-thing");
    stage
        .provider
        .release_support(&cx(), &support)
        .await
        .unwrap();
    assert_eq!(stage.live(), 1, "the copy is not ours to end");
}
