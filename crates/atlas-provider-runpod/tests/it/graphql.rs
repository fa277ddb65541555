//! The old API: spot, the dead-man's switch, the balance. One call each, the key in the header
//! only.

use atlas_core::{
    CallContext, Capability, ComputeRequest, ErrorKind, Gpu, LaunchKey, Next, Outcome, Timestamp,
    Usd,
};
use atlas_provider_runpod::DeadMan;
use serde_json::json;

use crate::script::{KEY, Script, json as reply, problem};

fn cx() -> CallContext {
    CallContext::new().with_retries(0)
}

fn prices(bid: f64) -> serde_json::Value {
    json!({"data": {"gpuTypes": [{"id": "unknown", "memoryInGb": 0, "lowestPrice": {"minimumBidPrice": 0.01, "stockStatus": "High"}},
        {"id": "NVIDIA L40S", "memoryInGb": 48, "lowestPrice": {"minimumBidPrice": bid, "stockStatus": "Low"}},
        {"id": "NVIDIA L4", "memoryInGb": 24, "lowestPrice": {"minimumBidPrice": null, "stockStatus": null}}]}})
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
async fn a_dead_mans_switch_travels_with_the_order() {
    let made = json!({"data": {"made": {"id": "p1", "costPerHr": 1.09}}});
    let cloud = Script::new([reply(200, &made)]);
    let mut candidate = atlas_core::Candidate::default();
    candidate.native_type = Some("NVIDIA L40S".to_owned());
    let request = ComputeRequest::gpu(Gpu::L40S).image("x/y:1").at(candidate);
    let cx = cx().with_extension(DeadMan::terminate_after(Timestamp::from_unix_seconds(
        1_790_000_000,
    )));
    cloud
        .provider()
        .spawn_compute(&cx, &LaunchKey::untracked(), &request)
        .await
        .unwrap();
    let body = &cloud.asked()[0].body;
    assert!(
        body["query"]
            .as_str()
            .unwrap()
            .contains("podFindAndDeployOnDemand")
    );
    assert_eq!(
        body["variables"]["in"]["terminateAfter"],
        json!("2026-09-21T14:13:20Z")
    );
}

#[tokio::test(start_paused = true)]
async fn an_end_is_taken_only_where_it_was_asked_for() {
    let made = json!({"data": {"made": {"id": "p1", "costPerHr": 1.09}}});
    let cloud = Script::new([reply(200, &made)]);
    let mut candidate = atlas_core::Candidate::default();
    candidate.native_type = Some("NVIDIA L40S".to_owned());
    let request = ComputeRequest::gpu(Gpu::L40S).image("x/y:1").at(candidate);
    let request = request
        .command(["sleep", "9"])
        .ends_with_command(true)
        .ends_at(Some(Timestamp::from_unix_seconds(1_790_000_000)));
    let refused = cloud
        .provider()
        .spawn_compute(&cx(), &LaunchKey::untracked(), &request)
        .await
        .unwrap_err();
    assert_eq!(
        refused.kind(),
        ErrorKind::Unsupported,
        "the feature alone changes nothing"
    );
    let provider = cloud.with_dead_man();
    assert!(provider.capabilities().has(Capability::DeadMan));
    provider
        .spawn_compute(&cx(), &LaunchKey::untracked(), &request)
        .await
        .unwrap();
    let input = &cloud.asked()[0].body["variables"]["in"];
    assert_eq!(input["terminateAfter"], json!("2026-09-21T14:13:20Z"));
    assert!(
        input["dockerArgs"]
            .as_str()
            .unwrap()
            .ends_with(" atlas-task sleep 9")
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
            ErrorKind::NoCapacity,
            Outcome::NotApplied(Next::NextCandidate),
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
async fn the_balance_is_read() {
    let myself = json!({"data": {"myself": {"id": "user_1", "clientBalance": 12.5, "currentSpendPerHr": 0.4, "spendLimit": 80}}});
    let cloud = Script::new([reply(200, &myself)]);
    let balance = cloud.runpod().balance(&cx()).await.unwrap();
    assert_eq!(
        (balance.balance, balance.spend_limit.unwrap().per_hour()),
        (Usd::from_cents(1250), Usd::from_cents(8000))
    );
}
