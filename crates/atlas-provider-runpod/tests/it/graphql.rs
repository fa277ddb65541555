//! The old API: spot and the balance. One call each, the key in the header only.

use atlas_core::{
    CallContext, Capability, ComputeRequest, ErrorKind, Gpu, LaunchKey, Next, Outcome, Usd,
};
use atlas_testkit::dialect::mutated::{Change, every_change};
use serde_json::json;

use crate::script::{KEY, Script, json as reply, problem};

fn cx() -> CallContext {
    CallContext::new().with_retries(0)
}

fn prices(bid: f64) -> serde_json::Value {
    json!({"data": {"gpuTypes": [{"id": "unknown", "memoryInGb": 0,
        "lowestPrice": {"minimumBidPrice": 0.01, "stockStatus": "High"}},
        {"id": "NVIDIA L40S", "memoryInGb": 48, "lowestPrice": {"minimumBidPrice": bid,
            "stockStatus": "Low"}},
        {"id": "NVIDIA L4", "memoryInGb": 24, "lowestPrice": {"minimumBidPrice": null,
            "stockStatus": null}}]}})
}

#[tokio::test(start_paused = true)]
async fn spot_is_bid_for_in_one_call_once_it_is_asked_for() {
    let made = json!({"data": {"made": {"id": "q8d2m5x0c7hn4v", "costPerHr": 0.29}}});
    let cloud = Script::new([
        reply(200, &prices(0.55)),
        reply(200, &prices(0.29)),
        reply(200, &made),
    ]);
    let provider = cloud.spot();
    assert!(provider.capabilities().has(Capability::Spot));
    assert!(
        !cloud.provider().capabilities().has(Capability::Spot),
        "the feature alone changes nothing"
    );
    let request = ComputeRequest::gpu(Gpu::L40S)
        .image("x/y:1")
        .spot(true)
        .env("A", "zz-canary");
    let pod = provider
        .spawn_compute(&cx(), &LaunchKey::untracked(), &request)
        .await
        .unwrap();
    assert_eq!(
        (pod.id.as_str(), pod.cost_per_hour.unwrap().per_hour()),
        ("q8d2m5x0c7hn4v", Usd::from_cents(29))
    );
    assert_eq!(cloud.lines(), ["POST /graphql"; 3]);
    let input = cloud.asked()[2].body["variables"]["in"].clone();
    assert_eq!(
        (
            &input["cloudType"],
            &input["bidPerGpu"],
            &input["gpuTypeId"]
        ),
        (&json!("COMMUNITY"), &json!(0.29), &json!("NVIDIA L40S"))
    );
    assert!(
        cloud
            .asked()
            .iter()
            .all(|asked| !asked.line.contains(KEY) && !asked.body.to_string().contains(KEY))
    );
}

#[tokio::test(start_paused = true)]
async fn an_order_that_failed_says_whether_a_pod_may_exist() {
    let error = |message: &str| {
        reply(
            200,
            &json!({"errors": [{"message": message}], "data": {"made": null}}),
        )
    };
    let mut candidate = atlas_core::Candidate::default();
    candidate.native_type = Some("NVIDIA L40S".to_owned());
    candidate.price = atlas_core::UsdPerHour::from_f64(0.3);
    let request = ComputeRequest::gpu(Gpu::L40S)
        .image("x/y:1")
        .spot(true)
        .at(candidate);
    let table = [
        (
            error("There are no longer any instances available"),
            ErrorKind::Unsupported,
            Outcome::NotApplied(Next::Stop),
        ),
        (
            error("Something went wrong"),
            ErrorKind::Provider,
            Outcome::Unknown(vec![]),
        ),
        (
            reply(200, &json!({"data": {"made": null}})),
            ErrorKind::Provider,
            Outcome::Unknown(vec![]),
        ),
        (
            reply(200, &json!({})),
            ErrorKind::Provider,
            Outcome::Unknown(vec![]),
        ),
        (
            problem(500, "boom"),
            ErrorKind::Unavailable,
            Outcome::Unknown(vec![]),
        ),
    ];
    for (answer, kind, outcome) in table {
        let shown = format!("{answer:?}");
        let cloud = Script::new([answer]);
        let error = cloud
            .spot()
            .spawn_compute(&CallContext::new(), &LaunchKey::untracked(), &request)
            .await
            .unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (kind, &outcome), "{shown}");
        assert_eq!(cloud.lines().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn spot_that_has_no_price_is_unsupported_and_not_sold_out() {
    let none = json!({"data": {"gpuTypes": [{"id": "NVIDIA L40S", "memoryInGb": 48,
        "lowestPrice": {"minimumBidPrice": null, "stockStatus": null}}]}});
    let cloud = Script::new([reply(200, &none), reply(200, &none)]);
    let request = ComputeRequest::gpu(Gpu::L40S).image("x/y:1").spot(true);
    let error = cloud.spot().candidates(&cx(), &request).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.field()),
        (ErrorKind::Unsupported, Some("spot"))
    );
    assert!(error.message().contains("being withdrawn"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_api_is_an_error_that_says_what_to_do() {
    let gone = json!({"errors": [{"message": "The GraphQL API has been shut down."}]});
    for answer in [reply(410, &gone), crate::script::html(410)] {
        let cloud = Script::new([answer]);
        let error = cloud.runpod().balance(&cx()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.status(), error.outcome()),
            (
                ErrorKind::Unsupported,
                Some(410),
                &Outcome::NotApplied(Next::Stop)
            )
        );
        for part in ["GraphQL API off", "remove `spot`", "console"] {
            assert!(error.message().contains(part), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrapped_command_is_stored_as_lists_of_words() {
    let made = json!({"data": {"made": {"id": "p1", "costPerHr": 0.3}}});
    let cloud = Script::new([reply(200, &made)]);
    let mut candidate = atlas_core::Candidate::default();
    candidate.native_type = Some("NVIDIA L40S".to_owned());
    candidate.price = atlas_core::UsdPerHour::from_f64(0.3);
    let request = ComputeRequest::gpu(Gpu::L40S)
        .image("x/y:1")
        .spot(true)
        .command(["echo", "it's"])
        .ends_with_command(true)
        .at(candidate);
    let key = LaunchKey::untracked();
    cloud
        .spot()
        .spawn_compute(&cx(), &key, &request)
        .await
        .unwrap();
    let args = cloud.asked()[0].body["variables"]["in"]["dockerArgs"].clone();
    let lists: serde_json::Value = serde_json::from_str(args.as_str().unwrap()).unwrap();
    assert_eq!(lists["entrypoint"][0], "sh");
    assert_eq!(lists["cmd"], json!(["echo", "it's"]));
}

/// Counts the warnings that a test's thread logs.
#[derive(Clone, Default)]
struct Warnings(std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        if event
            .metadata()
            .target()
            .starts_with("atlas_provider_runpod::graphql")
        {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn the_first_use_of_the_api_warns_once() {
    let warnings = Warnings::default();
    let seen = || warnings.0.load(std::sync::atomic::Ordering::Relaxed);
    let guard = tracing::subscriber::set_default(warnings.clone());
    let cloud = Script::new([]);
    let runpod = cloud.runpod();
    assert_eq!(seen(), 0, "nothing uses it yet");
    // Other tests may have used the same call sites while nothing listened.
    tracing::callsite::rebuild_interest_cache();
    for _ in 0..2 {
        drop(runpod.balance(&cx()).await);
        assert_eq!(seen(), 1);
    }
    tracing::callsite::rebuild_interest_cache();
    cloud.spot();
    assert_eq!(seen(), 2, "a provider that rents spot warns at its start");
    drop(guard);
}

#[tokio::test(start_paused = true)]
async fn the_balance_is_read() {
    let myself = json!({"data": {"myself": {"id": "user_1", "clientBalance": 12.5,
        "currentSpendPerHr": 0.4, "spendLimit": 80}}});
    let cloud = Script::new([reply(200, &myself)]);
    let balance = cloud.runpod().balance(&cx()).await.unwrap();
    assert_eq!(
        (balance.balance, balance.spend_limit.unwrap().per_hour()),
        (Usd::from_cents(1250), Usd::from_cents(8000))
    );
}

#[tokio::test(start_paused = true)]
async fn no_odd_price_list_says_that_spot_is_withdrawn() {
    let request = ComputeRequest::gpu(Gpu::L40S).image("x").spot(true);
    let mut prices = prices(0.29);
    // The row that is changed is the one that is asked for.
    let rows = prices["data"]["gpuTypes"].as_array_mut().unwrap();
    rows.swap(0, 1);
    for (case, body) in every_change(&prices) {
        let cloud = Script::new([reply(200, &body), reply(200, &body)]);
        let offered = cloud.spot().candidates(&cx(), &request).await;
        let says_not_offered = case.change == Change::Null
            && (case.pointer.ends_with("/lowestPrice")
                || case.pointer.ends_with("/minimumBidPrice")
                || case.pointer.ends_with("/stockStatus"));
        // Another id or name is another card.
        let another = case.pointer.ends_with("/0/id");
        match offered {
            Err(error) if error.kind() != ErrorKind::Provider && !says_not_offered && !another => {
                panic!("{case}: {error}");
            }
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_odd_answer_to_an_order_for_spot_says_that_nothing_was_made() {
    let request = ComputeRequest::gpu(Gpu::L40S).image("x").spot(true);
    let made = json!({"data": {"made": {"id": "q8d2m5x0c7hn4v", "costPerHr": 0.29}}});
    for (case, body) in every_change(&made) {
        let cloud = Script::new([
            reply(200, &prices(0.55)),
            reply(200, &prices(0.29)),
            reply(200, &body),
        ]);
        let key = LaunchKey::untracked();
        match cloud.spot().spawn_compute(&cx(), &key, &request).await {
            Ok(pod) => assert!(
                pod.id.as_str() == "q8d2m5x0c7hn4v" || case.pointer.ends_with("/id"),
                "{case}"
            ),
            Err(error) => {
                assert!(
                    matches!(error.outcome(), Outcome::Unknown(_)),
                    "{case}: {error}"
                );
                assert!(!case.pointer.ends_with("/costPerHr"), "{case}: {error}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_balance_and_the_account_are_needed_of_a_balance() {
    let myself = json!({"data": {"myself": {"id": 17, "clientBalance": "12.5",
        "currentSpendPerHr": 0.4, "spendLimit": 80}}});
    for (case, body) in every_change(&myself) {
        let balance = Script::new([reply(200, &body)])
            .runpod()
            .balance(&cx())
            .await;
        match balance {
            Ok(read) if case.pointer.ends_with("/currentSpendPerHr") => {
                // What is not said is not zero.
                assert_eq!(read.spend.is_some(), case.change.is_number(), "{case}");
            }
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Provider, "{case}");
                assert!(!case.pointer.ends_with("/spendLimit"), "{case}");
            }
        }
    }
}
