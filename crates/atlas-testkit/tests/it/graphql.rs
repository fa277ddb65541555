//! RunPod's GraphQL, in process: spot, the balance, and errors that come with 200.

use std::time::Duration;

use atlas_testkit::dialect::runpod::{self, NAME, Quirks, RunPod};
use atlas_testkit::world::{MachineState, World, WorldClock};
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

const RENT: &str = "mutation R($in: PodRentInterruptableInput!) { made: \
    podRentInterruptable(input: $in) { id costPerHr runtime { uptimeInSeconds } } }";

fn order(bid: f64) -> Value {
    json!({ "in": { "gpuTypeId": "NVIDIA L40S", "gpuCount": 2, "cloudType": "COMMUNITY",
        "imageName": "x/y:1", "name": "n", "bidPerGpu": bid,
        "containerDiskInGb": 20, "ports": "8000/http,22/tcp", "env": [{ "key": "A",
            "value": "b" }] } })
}

#[tokio::test(start_paused = true)]
async fn a_bid_at_the_floor_rents_a_spot_pod_that_rest_sees_and_one_below_does_not() {
    let cloud = client();
    let prices = "query P($in: GpuLowestPriceInput!) { gpuTypes(input: {id: \"NVIDIA L40S\"}) { id \
        lowestPrice(input: $in) { minimumBidPrice stockStatus } } }";
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
async fn terminate_after_and_stop_after_are_accepted_and_never_acted_on() {
    let cloud = client();
    let mut input = order(0.0);
    let end = cloud.world.now().saturating_add(Duration::from_secs(3600));
    input["in"]["terminateAfter"] = json!(end);
    input["in"]["stopAfter"] = json!(end);
    let query = "mutation D($in: PodFindAndDeployOnDemandInput) { podFindAndDeployOnDemand(input: \
        $in) { id } }";
    let (_, made) = cloud.ask(query, input).await;
    assert!(
        made["data"]["podFindAndDeployOnDemand"]["id"].is_string(),
        "{made}"
    );
    tokio::time::advance(Duration::from_secs(86_400)).await;
    let ledger = cloud.world.ledger();
    let machine = &ledger.clouds[NAME].machines[0];
    assert_eq!(
        (ledger.clouds[NAME].live, machine.state),
        (1, MachineState::Running)
    );
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

#[tokio::test(start_paused = true)]
async fn what_the_official_clients_ask_for_is_there() {
    let cloud = client();
    for query in [
        "{ gpuTypes(input: {id: \"NVIDIA L40S\"}) { cudaCores oneMonthPrice oneWeekPrice \
            __typename } }",
        "{ __typename myself { id authId email pubKey networkVolumes { id dataCenterId } } }",
        "{ myself { pods { id containerRegistryAuthId desiredStatus dockerArgs dockerId machineId \
            port
            uptimeSeconds vcpuCount memoryInGb volumeMountPath machine { gpuDisplayName } } } }",
        "{ gpuTypes(input: {cluster: true}) { minPodGpuCount clusterPrice sixMonthPrice
            nodeGroupDatacenters { id } lowestPrice(input: {gpuCount: 8}) { minVcpu
            gpuTypeCudaVersions { cudaVersion availability } } } }",
        "{ myself { endpoints { id gpuIds scalerType env { key value } } podTemplates { name }
            containerRegistryCreds { id } } }",
    ] {
        let (status, answer) = cloud.ask(query, json!({})).await;
        assert_eq!(
            (status, answer.get("errors")),
            (200, None),
            "{query}: {answer}"
        );
    }
    for open in [
        "{ cpuFlavors { id minVcpu specifics { stockStatus } } }",
        "{ countryCodes }",
    ] {
        assert_eq!(cloud.ask_as(None, open, json!({})).await.0, 200, "{open}");
    }
    assert_eq!(
        cloud.ask_as(None, "{ myself { id } }", json!({})).await.0,
        401
    );
    let (_, typed) = cloud
        .ask("{ __typename myself { __typename } }", json!({}))
        .await;
    let expected = json!({ "__typename": "Query", "myself": { "__typename": "User" } });
    assert_eq!(typed["data"], expected);
}

#[tokio::test(start_paused = true)]
async fn a_cpu_pod_a_template_and_a_registry_are_made_as_the_python_client_makes_them() {
    let cloud = client();
    let template = "mutation { saveTemplate(input: {name: \"t\", imageName: \"x/y:1\",
        dockerArgs: \"{\\\"cmd\\\":[\\\"a b\\\"]}\", containerDiskInGb: 10, volumeInGb: 0, ports: \
            \"\",
        env: [{key: \"A\", value: \"1\"}], isServerless: false, containerRegistryAuthId: \"\",
        startSsh: true, isPublic: false, readme: \"\"}) { id dockerArgs env { key value } } }";
    let (_, made) = cloud.ask(template, json!({})).await;
    let template = &made["data"]["saveTemplate"];
    assert_eq!(
        template["env"],
        json!([{ "key": "A", "value": "1" }]),
        "{made}"
    );
    let user =
        "mutation { updateUserSettings(input: {pubKey: \"ssh-ed25519 AAAA\"}) { id pubKey } }";
    cloud.ask(user, json!({})).await;
    let order = json!({ "in": { "name": "n", "imageName": "", "cloudType": "SECURE",
        "templateId": template["id"], "instanceId": "cpu3c-2-4", "startSsh": true } });
    let deploy = "mutation D($in: I) { made: deployCpuPod(input: $in) { id env dockerArgs \
        vcpuCount memoryInGb } }";
    let (_, made) = cloud.ask(deploy, order).await;
    let made = &made["data"]["made"];
    assert_eq!(
        (&made["vcpuCount"], &made["memoryInGb"]),
        (&json!(2), &json!(4)),
        "{made}"
    );
    assert_eq!(made["dockerArgs"], r#"{"cmd":["a b"]}"#);
    assert_eq!(made["env"], json!(["A=1", "PUBLIC_KEY=ssh-ed25519 AAAA"]));
    let unknown = json!({ "in": { "imageName": "x", "instanceId": "cpu3c-2-5" } });
    assert!(cloud.ask(deploy, unknown).await.1["errors"].is_array());
    let registry = "mutation { saveRegistryAuth(input: {name: \"r\", username: \"u\", password: \
        \"p\"}) { id name } }";
    let (_, made) = cloud.ask(registry, json!({})).await;
    let id = made["data"]["saveRegistryAuth"]["id"].as_str().unwrap();
    let delete = format!("mutation {{ deleteRegistryAuth(registryAuthId: \"{id}\") }}");
    let (_, gone) = cloud.ask(&delete, json!({})).await;
    assert_eq!(gone["data"]["deleteRegistryAuth"], true);
}

#[tokio::test(start_paused = true)]
async fn a_field_that_the_schema_lacks_is_refused_before_anything_is_ordered() {
    let cloud = client();
    let query = "mutation D($in: I) { podRentInterruptable(input: $in) { id nonsense } }";
    assert_eq!(cloud.ask(query, order(0.5)).await.0, 400);
    assert_eq!(cloud.world.ledger().clouds[NAME].created, 0);
    let (status, answer) = cloud
        .ask(
            "mutation { saveEndpoint(input: {name: \"e\"}) { id } }",
            json!({}),
        )
        .await;
    assert_eq!(status, 501);
    assert_eq!(
        answer["errors"][0]["message"],
        "saveEndpoint is not simulated"
    );
    let (status, answer) = cloud
        .ask("{ myself { id secrets { id } } }", json!({}))
        .await;
    assert_eq!(
        (status, &answer["errors"][0]["message"]),
        (501, &json!("myself.secrets is not simulated"))
    );
    // Browser logins and the hub are asked for without a key.
    for open in [
        "mutation { createFlashAuthRequest { id } }",
        "{ listings(input: {}) { id } }",
    ] {
        assert_eq!(cloud.ask_as(None, open, json!({})).await.0, 501, "{open}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_limit_are_answered_429_and_all_of_them_410_once_the_api_has_ended() {
    let cloud = client();
    let mut quirks = Quirks::default();
    quirks.graphql.per_minute = 2;
    quirks.graphql.ends_at = Some(cloud.world.now().saturating_add(Duration::from_secs(600)));
    cloud.service.set_quirks(quirks);
    let ask = async || cloud.ask("{ myself { id } }", json!({})).await.0;
    assert_eq!([ask().await, ask().await, ask().await], [200, 200, 429]);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(ask().await, 200);
    tokio::time::advance(Duration::from_secs(540)).await;
    assert_eq!(ask().await, 410);
}
