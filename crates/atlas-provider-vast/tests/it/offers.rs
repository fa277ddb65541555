//! The market: which offers are shown, which are good enough, and what they cost.

use atlas_core::{
    CloudType, ComputeRequest, DiskSize, Gpu, GpuChoice, MemorySize, Port, Usd, UsdPerHour,
};
use atlas_provider_vast::OfferPolicy;

use crate::stage::{cx, request, stage};

#[tokio::test(start_paused = true)]
async fn the_cheapest_hosts_are_the_bad_ones_and_are_not_among_the_candidates() {
    let stage = stage();
    let wanted = request().port(Port::http(8000));
    let good = stage.best(&wanted).await;
    let mut lax = OfferPolicy::default();
    (lax.min_reliability, lax.verified, lax.min_inet_down_mbps) = (0.0, false, 0);
    let any = stage
        .provider
        .candidates(&cx().with_extension(lax), &request())
        .await
        .unwrap();
    let cheaper = any
        .iter()
        .filter(|candidate| candidate.price < good.price)
        .count();
    // Unreliable, unverified and without ports.
    assert!(cheaper >= 3, "{cheaper}");
    // A host that reports no cores is skipped, however lax one is: machine 31028.
    assert!(
        any.iter()
            .all(|candidate| !candidate.offer.as_deref().unwrap().starts_with("2131028")),
        "{any:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_the_cloud_does_not_apply_is_applied_here() {
    for filter in [
        "reliability",
        "gpu_ram",
        "num_gpus",
        "direct_port_count",
        "gpu_name",
        "inet_down",
        "cpu_arch",
        "geolocation",
    ] {
        let stage = stage();
        let large = ComputeRequest::gpu(Gpu::A100_80G).image("x").gpu_count(2);
        for wanted in [large, request()] {
            let wanted = wanted
                .port(Port::http(80))
                .region("US")
                .region("NO")
                .region("CZ")
                .region("SE");
            stage.quirks(|_| {});
            let honest = stage.provider.candidates(&cx(), &wanted).await.unwrap();
            stage.quirks(|quirks| quirks.ignores_filter = Some(filter.to_owned()));
            let checked = stage.provider.candidates(&cx(), &wanted).await.unwrap();
            assert!(
                !honest.is_empty() && checked.iter().all(|candidate| honest.contains(candidate)),
                "{filter}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_memory_of_a_card_tells_two_of_one_name_apart() {
    let stage = stage();
    for (gpu, card) in [
        (Gpu::A100_40G, Gpu::A100_40GSxm),
        (Gpu::A100_80GSxm, Gpu::A100_80GSxm),
        (Gpu::Rtx4090, Gpu::Rtx4090),
    ] {
        let candidates = stage
            .provider
            .candidates(&cx(), &ComputeRequest::gpu(gpu).image("x"))
            .await
            .unwrap();
        assert!(
            !candidates.is_empty()
                && candidates
                    .iter()
                    .all(|candidate| candidate.gpu == Some(card)),
            "{gpu}"
        );
    }
    // The D is cheaper, and another card.
    let shown = stage.provider.candidates(&cx(), &request()).await.unwrap();
    assert!(
        shown
            .iter()
            .all(|candidate| candidate.native_type.as_deref() == Some("RTX 4090"))
    );
    let large = ComputeRequest::gpu(GpuChoice::AtLeast(MemorySize::gib(80))).image("x");
    let shown = stage.provider.candidates(&cx(), &large).await.unwrap();
    assert!(
        shown.iter().all(|candidate| candidate
            .gpu
            .is_some_and(|gpu| gpu.vram() >= MemorySize::gib(80))),
        "{shown:?}"
    );
    assert!(
        shown
            .iter()
            .all(|candidate| candidate.gpu != Some(Gpu::Gh200)),
        "an image is not built for arm by chance"
    );
    let arm = stage
        .provider
        .candidates(&cx(), &ComputeRequest::gpu(Gpu::Gh200).image("x"))
        .await
        .unwrap();
    assert_eq!(arm.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_price_has_the_disk_in_it_and_a_cap_holds() {
    let stage = stage();
    let price = |candidate: atlas_core::Candidate| candidate.price.unwrap().per_hour().nanos();
    let (small, large) = (
        price(
            stage
                .best(&request().container_disk(DiskSize::gb(10)))
                .await,
        ),
        price(
            stage
                .best(&request().container_disk(DiskSize::gb(110)))
                .await,
        ),
    );
    assert!(
        (large - small - 100 * 277_778).abs() < 1_000,
        "{small} {large}"
    );
    let mut policy = OfferPolicy::default();
    policy.max_price = Some(UsdPerHour::new(Usd::from_cents(40)));
    let capped = stage
        .provider
        .candidates(&cx().with_extension(policy.clone()), &request())
        .await
        .unwrap();
    assert!(
        !capped.is_empty()
            && capped
                .iter()
                .all(|candidate| candidate.price <= policy.max_price)
    );
    assert!(
        capped.len()
            < stage
                .provider
                .candidates(&cx(), &request())
                .await
                .unwrap()
                .len()
    );
}

#[tokio::test(start_paused = true)]
async fn regions_are_countries_in_the_order_of_their_hints_and_the_cheapest_comes_first() {
    let stage = stage();
    let shown = stage
        .provider
        .candidates(&cx(), &request().region("JP").region("US"))
        .await
        .unwrap();
    let regions: Vec<&str> = shown
        .iter()
        .filter_map(|candidate| candidate.region.as_deref())
        .collect();
    let turn = regions.iter().position(|region| *region == "US").unwrap();
    assert!(
        turn > 0
            && regions[..turn].iter().all(|region| *region == "JP")
            && regions[turn..].iter().all(|region| *region == "US")
    );
    assert!(shown[..turn].is_sorted_by_key(|candidate| candidate.price));
    let secure = stage
        .provider
        .candidates(
            &cx(),
            &ComputeRequest::gpu(Gpu::H100)
                .image("x")
                .cloud_type(CloudType::Secure),
        )
        .await;
    let secure = secure.unwrap();
    assert!(
        !secure.is_empty()
            && secure
                .iter()
                .all(|candidate| candidate.cloud_type == Some(CloudType::Secure))
    );
}

#[tokio::test(start_paused = true)]
async fn a_bid_is_a_little_above_the_minimum_and_below_the_price_on_demand() {
    let stage = stage();
    let (bid, whole) = (
        stage.best(&request().spot(true)).await,
        stage.best(&request()).await,
    );
    let (ask, amount) = bid.offer.as_deref().unwrap().split_once('@').unwrap();
    assert_eq!(Some(ask), whole.offer.as_deref());
    let amount: f64 = amount.parse().unwrap();
    assert!(
        (amount * 1000.0).fract() < 1e-6,
        "{amount} has three decimals"
    );
    assert!(bid.price < whole.price, "{bid:?} {whole:?}");
    let made = stage.order(1, &request().spot(true)).await.unwrap();
    let truth = stage
        .world
        .truth(atlas_testkit::dialect::vast::NAME, made.id.as_str())
        .unwrap();
    assert_eq!(truth.spec.bid, UsdPerHour::from_f64(amount));
}

#[tokio::test(start_paused = true)]
async fn a_rented_ask_is_shown_for_a_while_and_then_is_not() {
    let stage = stage();
    stage.quirks(|quirks| quirks.search_lag = std::time::Duration::from_secs(30));
    let first = stage.best(&request()).await;
    stage.order(1, &request()).await.unwrap();
    assert_eq!(stage.best(&request()).await.offer, first.offer);
    tokio::time::sleep(std::time::Duration::from_secs(31)).await;
    assert_ne!(stage.best(&request()).await.offer, first.offer);
}

#[tokio::test(start_paused = true)]
async fn a_price_list_is_of_one_card_each_with_its_least_bid_and_takes_a_minutes_allowance_at_most()
{
    let stage = stage();
    let lines = stage.provider.list_gpu_types(&cx()).await.unwrap();
    assert!(stage.asked().len() <= 6);
    for gpu in [
        Gpu::Rtx4090,
        Gpu::A100_40GSxm,
        Gpu::A100_80GSxm,
        Gpu::H100Sxm,
        Gpu::V100,
    ] {
        let line = lines
            .iter()
            .find(|line| line.gpu == Some(gpu))
            .unwrap_or_else(|| panic!("{gpu}"));
        assert!(
            line.spot_price < line.price && line.region.is_some(),
            "{line:?}"
        );
    }
    let eight = lines
        .iter()
        .filter(|line| line.gpu == Some(Gpu::H100Sxm))
        .map(|line| line.max_count)
        .max()
        .flatten();
    assert_eq!(eight, Some(8));
}
