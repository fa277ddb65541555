//! The market: which offers are shown, which are good enough, and what they cost.

use atlas_core::{
    CloudType, ComputeRequest, DiskSize, ErrorKind, Gpu, GpuChoice, ListFilter, MemorySize, Port,
    Usd, UsdPerHour,
};
use atlas_provider_vast::OfferPolicy;

use crate::stage::{answering, cx, request, stage};

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
            stage.after_shared_searches().await;
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
    // The handle that ordered it knows that the earlier answer is outdated.
    assert_ne!(stage.best(&request()).await.offer, first.offer);
    stage.after_shared_searches().await;
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

/// Offers as the cloud answers them: each this row with what differs.
fn market(rows: &[&str]) -> &'static str {
    let whole = r#""machine_id":4,"num_gpus":1,"gpu_ram":24564,"gpu_frac":1.0,"dph_base":0.40,
        "dph_total":0.41,"min_bid":0.20,"storage_cost":0.72,"storage_total_cost":0.01,
        "reliability2":0.99,"verification":"verified","rentable":true,"rented":false,
        "direct_port_count":99,"inet_down":4000.0,"cuda_max_good":13.0,"cpu_cores":64,
        "cpu_ram":257000,"cpu_arch":"amd64","disk_space":900.0,"duration":9e6,
        "geolocation":"Iceland, IS","hosting_type":1"#;
    let rows: Vec<String> = rows
        .iter()
        .map(|row| match row.strip_prefix('+') {
            Some(own) => {
                let names: Vec<&str> = own
                    .split(',')
                    .map(|f| f.split(':').next().unwrap())
                    .collect();
                let rest = whole
                    .split(',')
                    .filter(|field| !names.contains(&field.trim().split(':').next().unwrap()));
                // A place has a comma in it: it is one field.
                let rest = rest.collect::<Vec<_>>().join(",");
                format!("{{{own},{rest}}}")
            }
            None => (*row).to_owned(),
        })
        .collect();
    Box::leak(format!(r#"{{"offers":[{}]}}"#, rows.join(",")).into_boxed_str())
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_offer_is_one_offer_less_and_a_market_of_them_is_no_sold_out_card() {
    let good = r#"+"id":1,"gpu_name":"RTX 4090""#;
    let (provider, _) = answering(&[(200, market(&[r#"{"id":2}"#, "null", "7", good]))]);
    let shown = provider.candidates(&cx(), &request()).await.unwrap();
    assert_eq!(shown.len(), 1);
    let texts = r#"+"id":"1","gpu_name":"RTX 4090","num_gpus":"1","dph_total":"0.41","new":[]"#;
    let (provider, _) = answering(&[(200, market(&[texts]))]);
    assert_eq!(provider.candidates(&cx(), &request()).await.unwrap(), shown);

    for nothing in [market(&[r#"{"id":2}"#, "null"]), r#"{"offers":null}"#, "{}"] {
        let (provider, _) = answering(&[(200, nothing)]);
        let error = provider.candidates(&cx(), &request()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Provider, "{nothing}");
        let error = provider.list_gpu_types(&cx()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Provider, "{nothing}");
    }
    let (provider, _) = answering(&[(200, market(&[]))]);
    assert!(
        provider
            .candidates(&cx(), &request())
            .await
            .unwrap()
            .is_empty()
    );
    assert!(provider.list_gpu_types(&cx()).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_offers_memory_is_its_share_of_the_machine() {
    let offered = async |row: &str, gib: u32| {
        let (provider, _) = answering(&[(200, market(&[row]))]);
        let request = request().memory(MemorySize::gib(gib));
        provider.candidates(&cx(), &request).await.unwrap().len()
    };
    // The machine has 251 GiB.
    let quarter = r#"+"id":1,"gpu_name":"RTX 4090","gpu_frac":0.25"#;
    assert_eq!(
        (offered(quarter, 62).await, offered(quarter, 64).await),
        (1, 0)
    );
    let by_cores = r#"+"id":1,"gpu_name":"RTX 4090","gpu_frac":null,"cpu_cores_effective":16"#;
    assert_eq!(
        (offered(by_cores, 62).await, offered(by_cores, 64).await),
        (1, 0)
    );
    let unknown = r#"+"id":1,"gpu_name":"RTX 4090","gpu_frac":null"#;
    assert_eq!(offered(unknown, 8).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_quoted_price_has_the_disk_in_it_whatever_the_search_priced() {
    let quoted = async |row: &str, spot: bool| {
        let (provider, _) = answering(&[(200, market(&[row]))]);
        let wanted = request().container_disk(DiskSize::gb(100)).spot(spot);
        let shown = provider.candidates(&cx(), &wanted).await.unwrap();
        shown[0]
            .price
            .map(|price| price.per_hour().nanos() / 1_000_000)
    };
    // 100 GB at 0.72 a month are 0.10 an hour; the search priced a smaller disk.
    let card = r#"+"id":1,"gpu_name":"RTX 4090""#;
    assert_eq!(quoted(card, false).await, Some(500));
    assert_eq!(quoted(card, true).await, Some(310), "the bid and the disk");
    let priced = format!(r#"{card},"dph_total":0.55,"storage_total_cost":0.15"#);
    assert_eq!(quoted(&priced, false).await, Some(550));
    assert_eq!(quoted(&priced, true).await, Some(360));
    // Where nothing says what the disk costs, a bid has no price, and so none that passes a cap.
    let untold = format!(r#"{card},"storage_cost":null,"storage_total_cost":null"#);
    assert_eq!(quoted(&untold, true).await, None);
    assert_eq!(quoted(&untold, false).await, Some(410));
}

#[tokio::test(start_paused = true)]
async fn a_card_on_another_board_is_the_same_card() {
    let stage = stage();
    let wanted = ComputeRequest::gpu(Gpu::B300).image("x");
    let shown = stage.provider.candidates(&cx(), &wanted).await.unwrap();
    for name in ["B300", "B300 PC"] {
        assert!(
            shown
                .iter()
                .any(|candidate| candidate.native_type.as_deref() == Some(name)
                    && candidate.gpu == Some(Gpu::B300)),
            "{name}"
        );
    }
    let lines = stage.provider.list_gpu_types(&cx()).await.unwrap();
    assert!(
        lines
            .iter()
            .any(|line| line.native_id == "B300 PC" && line.gpu == Some(Gpu::B300))
    );
}

#[tokio::test(start_paused = true)]
async fn a_region_is_taken_in_either_case_and_what_is_none_is_refused_before_any_call() {
    let stage = stage();
    let shown = async |region: &str| {
        let wanted = request().region(region);
        stage.provider.candidates(&cx(), &wanted).await
    };
    let upper = shown("US").await.unwrap();
    assert!(!upper.is_empty());
    assert_eq!(shown("us").await.unwrap(), upper);
    let asked = stage.asked();
    assert_eq!(asked.len(), 1, "and it is one search: {asked:?}");
    for unknown in ["us-west-1", "EU", "nowhere"] {
        let error = shown(unknown).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Validation, "{unknown}");
        assert!(error.message().contains("NO, NP"), "{error}");
    }
    assert!(stage.asked().is_empty());
    let made = stage.order(1, &request().region("us")).await.unwrap();
    let filter = ListFilter::all().region("us");
    let listed = stage.provider.list_compute(&cx(), &filter).await.unwrap();
    assert_eq!(listed.computes[0].id, made.id);
}

#[tokio::test(start_paused = true)]
async fn an_order_makes_no_volume_that_nobody_would_delete() {
    let mut wanted = request();
    wanted.provider_opts = serde_json::json!({ "volume_info": { "create_new": true, "size": 50 } });
    let stage = stage();
    let error = stage.provider.candidates(&cx(), &wanted).await.unwrap_err();
    assert_eq!(error.field(), Some("provider_opts"));
    wanted.provider_opts =
        serde_json::json!({ "volume_info": { "create_new": false, "volume_id": 7 } });
    assert!(stage.provider.check(&wanted).is_ok());
}
