//! What a RunPod account holds besides pods, in process: each made, read, changed, billed and
//! deleted.

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
    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("https://api.runpod.io/v2/{path}"))
            .header("user-agent", "test/1")
            .header("authorization", "Bearer sim-key")
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
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn make(&self, path: &str, body: Value) -> Value {
        let (status, body) = self.call("POST", path, body).await;
        assert_eq!(status, 201, "{path}: {body}");
        body
    }
}

fn id(thing: &Value) -> &str {
    thing["id"].as_str().expect("an id")
}

fn pod() -> Value {
    json!({ "name": "p", "image": "x/y:1", "gpu": { "id": "NVIDIA L40S" }, "disk": 40 })
}

#[tokio::test(start_paused = true)]
async fn a_pod_from_a_template_takes_its_settings_and_merges_its_environment() {
    let cloud = client();
    let template = cloud
        .make(
            "templates",
            json!({ "name": "t", "image": "a/b:2", "disk": 33, "env": { "A": "t", "B": "t" },
                "allowedCudaVersions": ["12.4"] }),
        )
        .await;
    let body = json!({ "name": "p", "gpu": { "id": "NVIDIA L40S" }, "templateId": id(&template),
        "env": { "B": "p" } });
    let made = cloud.make("pods", body.clone()).await;
    assert_eq!(
        (&made["image"], &made["disk"], &made["env"]),
        (
            &json!("a/b:2"),
            &json!(33),
            &json!({ "A": "t", "B": "p", "JUPYTER_PASSWORD": made["env"]["JUPYTER_PASSWORD"] })
        )
    );
    assert_eq!(
        (&made["cudaVersion"], &made["template"]),
        (&json!("12.4"), &Value::Null)
    );
    cloud
        .call(
            "PATCH",
            &format!("templates/{}", id(&template)),
            json!({ "serverless": true }),
        )
        .await;
    assert_eq!(cloud.call("POST", "pods", body.clone()).await.0, 422);
    assert_eq!(
        cloud
            .call(
                "DELETE",
                &format!("templates/{}", id(&template)),
                Value::Null
            )
            .await
            .0,
        204
    );
    assert_eq!(cloud.call("POST", "pods", body).await.0, 404);
    assert_eq!(cloud.get("templates").await["templates"], json!([]));
    assert_eq!(
        cloud.get("catalog/templates").await["templates"][0]["public"],
        true
    );
}

#[tokio::test(start_paused = true)]
async fn a_volume_pins_its_pods_grows_and_is_held_by_them() {
    let cloud = client();
    assert_eq!(
        cloud
            .call(
                "POST",
                "network-volumes",
                json!({ "name": "v", "size": 5, "dataCenter": "EU-CZ-1" })
            )
            .await
            .0,
        422
    );
    assert_eq!(
        cloud
            .call(
                "POST",
                "network-volumes",
                json!({ "name": "v", "size": 50, "dataCenter": "nowhere" })
            )
            .await
            .0,
        400
    );
    let volume = cloud
        .make(
            "network-volumes",
            json!({ "name": "v", "size": 50, "dataCenter": "EU-CZ-1" }),
        )
        .await;
    let path = format!("network-volumes/{}", id(&volume));
    let mut body = pod();
    body["mounts"] = json!({ "network": [{ "volumeId": id(&volume), "path": "/w" }] });
    let made = cloud.make("pods", body.clone()).await;
    assert_eq!(made["dataCenterId"], "EU-CZ-1");
    body["dataCenterIds"] = json!(["EU-RO-1"]);
    assert_eq!(cloud.call("POST", "pods", body).await.0, 400);
    assert_eq!(
        cloud.call("PATCH", &path, json!({ "size": 40 })).await.0,
        400
    );
    assert_eq!(cloud.call("PATCH", &path, json!({})).await.0, 422);
    assert_eq!(
        cloud
            .call("PATCH", &path, json!({ "size": 60, "name": "w" }))
            .await
            .1["size"],
        60
    );
    assert_eq!(
        cloud.call("DELETE", &path, Value::Null).await.0,
        400,
        "a pod mounts it"
    );
    assert_eq!(
        cloud
            .call("DELETE", &format!("pods/{}", id(&made)), Value::Null)
            .await
            .0,
        204
    );
    assert_eq!(cloud.call("DELETE", &path, Value::Null).await.0, 204);
    assert_eq!(cloud.call("GET", &path, Value::Null).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn registries_keep_their_password_and_delegations_read_their_arn() {
    let cloud = client();
    let made = cloud
        .make(
            "registries",
            json!({ "name": "r", "username": "u", "password": "zz" }),
        )
        .await;
    assert_eq!(made, json!({ "id": id(&made), "name": "r" }));
    assert_eq!(cloud.get("registries").await["registries"], json!([made]));
    assert_eq!(
        cloud
            .call(
                "POST",
                "registries",
                json!({ "name": "r", "username": "u", "password": "p" })
            )
            .await
            .0,
        400
    );
    assert_eq!(
        cloud
            .call("DELETE", &format!("registries/{}", id(&made)), Value::Null)
            .await
            .0,
        204
    );
    let arn = "arn:aws:ecr:us-east-2:418399314813:repository/runpod/deployment";
    let made = cloud
        .make("registries/delegations", json!({ "resource": arn }))
        .await;
    assert_eq!(
        (&made["repository"], &made["awsRegion"]),
        (&json!("runpod/deployment"), &json!("us-east-2"))
    );
    assert_eq!(
        cloud
            .call(
                "DELETE",
                &format!("registries/delegations/{}", id(&made)),
                Value::Null
            )
            .await
            .0,
        204
    );
    assert_eq!(
        cloud.get("registries/delegations").await["delegations"],
        json!([])
    );
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_made_runs_jobs_changes_and_goes() {
    let cloud = client();
    let body = json!({
        "name": "e", "type": "QUEUE", "image": "a/w:1", "disk": 20, "gpu": { "pools": ["ADA_24"],
            "count": 1 },
        "scaling": { "type": "QUEUE_DELAY", "queueDelay": 4 }, "workers": { "max": 2 },
    });
    let made = cloud.make("serverless", body.clone()).await;
    let path = format!("serverless/{}", id(&made));
    assert_eq!(
        (
            &made["timeout"],
            &made["flashboot"],
            &made["workers"]["max"]
        ),
        (&json!(0), &json!("OFF"), &json!(2))
    );
    assert!(
        made["requestUrls"]["status"]
            .as_str()
            .unwrap()
            .ends_with("/status/{job_id}")
    );
    for (field, value, status) in [
        ("flashboot", json!(true), 422),
        (
            "scaling",
            json!({ "type": "QUEUE_DELAY", "queueDelay": 0.1 }),
            422,
        ),
        ("gpu", json!({ "pools": ["NOPE"] }), 400),
        (
            "gpu",
            json!({ "pools": ["ADA_24"], "excludedTypes": ["NVIDIA L40"] }),
            400,
        ),
        ("cpu", json!([{ "id": "cpu5c", "vcpuCount": 2 }]), 400),
    ] {
        let mut body = body.clone();
        body[field] = value;
        assert_eq!(
            cloud.call("POST", "serverless", body).await.0,
            status,
            "{field}"
        );
    }
    let me = cloud.world.account("me");
    let job = atlas_testkit::world::JobSpec {
        input: json!({ "sleep": 60 }),
        ..Default::default()
    };
    cloud
        .world
        .submit_job(NAME, &me, id(&made), job, &cloud.world.honest())
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let workers = cloud.get(&format!("{path}/workers")).await;
    assert_eq!(
        (
            &workers["summary"]["running"],
            &workers["workers"][0]["status"]
        ),
        (&json!(1), &json!("RUNNING"))
    );
    assert_eq!(
        cloud.get(&format!("{path}/releases")).await["releases"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let (_, changed) = cloud
        .call(
            "PATCH",
            &path,
            json!({ "gpu": { "pools": ["AMPERE_24"] }, "timeout": 5000 }),
        )
        .await;
    assert_eq!(
        (&changed["gpu"]["pools"], &changed["timeout"]),
        (&json!(["AMPERE_24"]), &json!(5000))
    );
    assert_eq!(
        cloud
            .call(
                "PATCH",
                &path,
                json!({ "cpu": [{ "id": "cpu5c", "vcpuCount": 2 }] })
            )
            .await
            .0,
        400
    );
    assert_eq!(cloud.call("DELETE", &path, Value::Null).await.0, 204);
    assert_eq!(cloud.call("GET", &path, Value::Null).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn a_clusters_pods_are_hidden_and_its_own() {
    let cloud = client();
    let body = json!({ "name": "c", "type": "RAY", "image": "a/b", "compute": {
        "gpuTypeId": "NVIDIA L40S", "gpuCountPerPod": 2, "podCount": 3 } });
    let made = cloud.make("clusters", body).await;
    assert_eq!(made["pods"]["total"], 3);
    let pods = cloud.get(&format!("clusters/{}/pods", id(&made))).await;
    assert_eq!(pods["pods"][0]["cluster"]["role"], "RAY_HEAD");
    assert_eq!(cloud.get("pods").await["pods"], json!([]));
    assert_eq!(
        cloud.get("pods?includeClusterPods=true").await["pods"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let member = format!("pods/{}", id(&pods["pods"][0]));
    assert_eq!(cloud.call("DELETE", &member, Value::Null).await.0, 409);
    assert_eq!(
        cloud.call("PATCH", &member, json!({ "name": "x" })).await.0,
        409
    );
    assert_eq!(
        cloud
            .call(
                "PATCH",
                &format!("clusters/{}", id(&made)),
                json!({ "name": "d" })
            )
            .await
            .1["name"],
        "d"
    );
    assert_eq!(
        cloud
            .call("DELETE", &format!("clusters/{}", id(&made)), Value::Null)
            .await
            .0,
        204
    );
    assert_eq!(cloud.world.ledger().clouds[NAME].live, 0);
}

#[tokio::test(start_paused = true)]
async fn bills_lag_and_add_up_to_what_the_meters_say() {
    let cloud = client();
    let made = cloud.make("pods", pod()).await;
    cloud
        .make(
            "network-volumes",
            json!({ "name": "v", "size": 100, "dataCenter": "EU-CZ-1" }),
        )
        .await;
    tokio::time::advance(Duration::from_secs(200)).await;
    assert_eq!(
        cloud.get("billing/pods").await["records"],
        json!([]),
        "the last minutes are not billed yet"
    );
    tokio::time::advance(Duration::from_secs(3 * 86_400)).await;
    cloud
        .call("DELETE", &format!("pods/{}", id(&made)), Value::Null)
        .await;
    tokio::time::advance(Duration::from_secs(600)).await;
    let bill = cloud
        .get(&format!("billing/pods?podId={}", id(&made)))
        .await;
    let total = bill["metadata"]["totals"]["totalAmount"].as_f64().unwrap();
    let meter: f64 = cloud.world.ledger().clouds[NAME]
        .billed_usd
        .to_string()
        .parse()
        .unwrap();
    assert!(
        (total - meter).abs() < 0.001,
        "{total} billed, {meter} on the meter"
    );
    assert_eq!(
        (
            &bill["metadata"]["uniquePodCount"],
            bill["records"].as_array().unwrap().len()
        ),
        (&json!(1), 4)
    );
    let whole = cloud.get("billing?bucketSize=month").await;
    let amount = |field: &str| whole["metadata"]["totals"][field].as_f64().unwrap();
    assert!((amount("podGpuAmount") + amount("podDiskAmount") - total).abs() < 1e-6);
    assert!(amount("storageStandardAmount") > 0.6 && amount("totalAmount") > total);
    for kind in ["serverless", "endpoints", "network-volumes", "clusters"] {
        cloud
            .get(&format!("billing/{kind}?lastN=2&bucketSize=week"))
            .await;
    }
    assert_eq!(
        cloud
            .call(
                "GET",
                "billing/pods?lastN=2&startTime=2026-01-01T00:00:00Z",
                Value::Null
            )
            .await
            .0,
        400
    );
    assert_eq!(
        cloud
            .call("GET", "billing/pods?bucketSize=decade", Value::Null)
            .await
            .0,
        422
    );
}
