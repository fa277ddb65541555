//! RunPod's GraphQL, in process: spot, the dead-man's switch, the balance, and errors that come
//! with 200.

use std::time::Duration;

use atlas_testkit::dialect::runpod::{self, NAME, RunPod};
use atlas_testkit::world::{World, WorldClock};
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;

struct Client {
    service: RunPod,
    world: World,
}

fn client() -> Client {
    let world = World::new(7, WorldClock::following(1.0)).with_cloud(runpod::cloud());
    world.add_key(NAME, "sim-key", "me");
    Client {
        service: RunPod::new(world.clone()),
        world,
    }
}

impl Client {
    async fn ask_as(&self, key: Option<&str>, query: &str, variables: Value) -> (u16, Value) {
        let mut request = Request::builder()
            .method("POST")
            .uri("https://api.runpod.io/graphql")
            .header("user-agent", "test/1");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let body = json!({ "query": query, "variables": variables }).to_string();
        let request = request
            .body(Full::<bytes::Bytes>::from(body))
            .expect("a request");
        let response = self
            .service
            .clone()
            .oneshot(request)
            .await
            .expect("an answer");
        let status = response.status().as_u16();
        let bytes = response
            .into_body()
            .collect()
            .await
            .expect("a whole body")
            .to_bytes();
        (status, serde_json::from_slice(&bytes).expect("json"))
    }

    async fn ask(&self, query: &str, variables: Value) -> (u16, Value) {
        self.ask_as(Some("sim-key"), query, variables).await
    }
}

const RENT: &str = "mutation R($in: PodRentInterruptableInput!) { made: podRentInterruptable(input: $in) { id costPerHr runtime { uptimeInSeconds } } }";

fn order(bid: f64) -> Value {
    json!({ "in": { "gpuTypeId": "NVIDIA L40S", "gpuCount": 2, "cloudType": "COMMUNITY", "imageName": "x/y:1", "name": "n", "bidPerGpu": bid,
        "containerDiskInGb": 20, "ports": "8000/http,22/tcp", "env": [{ "key": "A", "value": "b" }] } })
}

#[tokio::test(start_paused = true)]
async fn a_bid_at_the_floor_rents_a_spot_pod_that_rest_sees_and_one_below_does_not() {
    let cloud = client();
    let prices = "query P($in: GpuLowestPriceInput!) { gpuTypes(input: {id: \"NVIDIA L40S\"}) { id lowestPrice(input: $in) { minimumBidPrice stockStatus } } }";
    let (_, asked) = cloud
        .ask_as(
            None,
            prices,
            json!({ "in": { "gpuCount": 2, "secureCloud": false } }),
        )
        .await;
    let lowest = &asked["data"]["gpuTypes"][0]["lowestPrice"];
    assert_eq!(
        (&lowest["minimumBidPrice"], &lowest["stockStatus"]),
        (&json!(0.395), &json!("High"))
    );
    let (status, low) = cloud.ask(RENT, order(0.39)).await;
    assert_eq!((status, &low["data"]["made"]), (200, &Value::Null));
    assert!(
        low["errors"][0]["message"]
            .as_str()
            .unwrap()
            .starts_with("There are no longer any instances")
    );
    let (_, made) = cloud.ask(RENT, order(0.395)).await;
    let made = &made["data"]["made"];
    assert_eq!(
        (&made["costPerHr"], &made["runtime"]),
        (&json!(0.79), &Value::Null)
    );
    let id = made["id"].as_str().unwrap();
    tokio::time::advance(Duration::from_secs(60)).await;
    let (_, pod) = cloud
        .ask(
            "query { pod(input: {podId: \"ID\"}) { desiredStatus env ports } }"
                .replace("ID", id)
                .as_str(),
            json!({}),
        )
        .await;
    assert_eq!(
        pod["data"]["pod"],
        json!({ "desiredStatus": "RUNNING", "env": ["A=b"], "ports": "8000/http,22/tcp" })
    );
    cloud.world.preempt_machine(NAME, id);
    let resume =
        "mutation B($in: PodBidResumeInput!) { made: podBidResume(input: $in) { id costPerHr } }";
    let (_, resumed) = cloud
        .ask(
            resume,
            json!({ "in": { "podId": id, "bidPerGpu": 0.5, "gpuCount": 2 } }),
        )
        .await;
    assert_eq!(resumed["data"]["made"]["costPerHr"], json!(1.0));
    let (_, gone) = cloud
        .ask(
            "mutation T { podTerminate(input: {podId: \"nope\"}) }",
            json!({}),
        )
        .await;
    assert_eq!(gone["errors"][0]["message"], "pod not found to terminate");
}

#[tokio::test(start_paused = true)]
async fn a_dead_mans_switch_ends_the_pod_by_itself() {
    let cloud = client();
    let mut input = order(0.0);
    let end = cloud.world.now().saturating_add(Duration::from_secs(3600));
    input["in"]["terminateAfter"] = json!(end);
    let query = "mutation D($in: PodFindAndDeployOnDemandInput) { podFindAndDeployOnDemand(input: $in) { id } }";
    let (_, made) = cloud.ask(query, input).await;
    assert!(
        made["data"]["podFindAndDeployOnDemand"]["id"].is_string(),
        "{made}"
    );
    tokio::time::advance(Duration::from_secs(3599)).await;
    assert_eq!(cloud.world.ledger().clouds[NAME].live, 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(cloud.world.ledger().clouds[NAME].live, 0);
}

#[tokio::test(start_paused = true)]
async fn the_balance_falls_with_what_is_spent_and_a_bad_key_or_field_is_refused() {
    let cloud = client();
    cloud.ask(RENT, order(0.5)).await;
    tokio::time::advance(Duration::from_secs(3600)).await;
    let (_, me) = cloud
        .ask(
            "query { myself { clientBalance currentSpendPerHr } }",
            json!({}),
        )
        .await;
    let balance = me["data"]["myself"]["clientBalance"].as_f64().unwrap();
    assert!((998.0..999.01).contains(&balance), "{balance}");
    assert_eq!(
        cloud
            .ask_as(Some("nope"), "query { myself { id } }", json!({}))
            .await
            .0,
        401
    );
    assert_eq!(
        cloud
            .ask("query { gpuTypes { stockStatus } }", json!({}))
            .await
            .0,
        400
    );
    assert_eq!(
        cloud.ask("query { nothing { id } }", json!({})).await.0,
        400
    );
}
