//! The RunPod dialect, in process: what a client sees of it.

use std::time::Duration;

use atlas_testkit::dialect::SimBody;
use atlas_testkit::dialect::runpod::{self, NAME, Pagination, Quirks, Quota, RunPod};
use atlas_testkit::world::{Fault, FaultKind, MachineSpec, Standing, World, WorldClock};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;

const SOLD_OUT: &str = "There are no longer any instances available with the requested \
    specifications. Please refresh and try again.";

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

fn request(method: &str, path: &str, body: Option<&Value>) -> Request<Full<bytes::Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("https://api.runpod.io{path}"))
        .header("user-agent", "test/1")
        .header("authorization", "Bearer sim-key")
        .body(Full::from(
            body.map(ToString::to_string).unwrap_or_default(),
        ))
        .expect("a request")
}

impl Client {
    async fn send(
        &self,
        request: Request<Full<bytes::Bytes>>,
    ) -> std::io::Result<Response<SimBody>> {
        self.service.clone().oneshot(request).await
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let response = self
            .send(request(method, path, body.as_ref()))
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

    async fn create(&self) -> Value {
        let (status, pod) = self.call("POST", "/v2/pods", Some(pod())).await;
        assert_eq!(status, 201, "{pod}");
        pod
    }
}

fn pod() -> Value {
    json!({ "name": "atlas-x", "image": "x/y:1", "gpu": { "id": "NVIDIA L40S" }, "cloud": "SECURE",
        "disk": 40, "ports": ["8000/http", "22/tcp"], "env": { "A": "b" } })
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

#[tokio::test(start_paused = true)]
async fn a_pod_lives_as_the_document_says() {
    let cloud = client();
    let created = cloud.create().await;
    let id = created["id"].as_str().unwrap();
    assert_eq!(id.len(), 14);
    assert_eq!(
        (
            &created["status"],
            &created["runtime"],
            &created["startedAt"]
        ),
        (&json!("PROVISIONING"), &Value::Null, &Value::Null)
    );
    assert_eq!(
        (
            &created["ssh"]["direct"],
            &created["env"]["A"],
            &created["cost"]
        ),
        (&Value::Null, &json!("b"), &json!(1.09))
    );
    assert_eq!(
        created["createdAt"].as_str().unwrap().len(),
        "2026-09-03T10:15:22.607Z".len()
    );

    tokio::time::advance(Duration::from_secs(60)).await;
    let (_, running) = cloud.call("GET", &format!("/v2/pods/{id}"), None).await;
    assert_eq!(
        (&running["status"], &running["actions"]),
        (&json!("RUNNING"), &json!(["stop", "restart", "terminate"]))
    );
    let tcp = running["runtime"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .find(|port| port["type"] == "tcp")
        .unwrap()
        .clone();
    assert_eq!(
        (&tcp["private"], &tcp["public"]),
        (&json!(22), &running["ssh"]["direct"]["port"])
    );

    let act = async |action: &str| {
        cloud
            .call(
                "POST",
                &format!("/v2/pods/{id}/action"),
                Some(json!({ "action": action })),
            )
            .await
    };
    let (status, stopped) = act("stop").await;
    assert_eq!(
        (status, &stopped["status"], &stopped["cost"]),
        (200, &json!("EXITED"), &json!(0.0))
    );
    assert_eq!(act("stop").await.0, 409);
    assert_eq!(act("restart").await.0, 409);
    assert_eq!(act("reset").await.0, 422);
    assert_eq!(act("start").await.1["status"], "PROVISIONING");
    tokio::time::advance(Duration::from_secs(60)).await;
    let (_, again) = cloud.call("GET", &format!("/v2/pods/{id}"), None).await;
    assert_ne!(
        again["ssh"]["direct"]["port"], tcp["public"],
        "a start gives new ports"
    );

    assert_eq!(
        cloud.call("DELETE", &format!("/v2/pods/{id}"), None).await,
        (204, Value::Null)
    );
    assert_eq!(
        cloud.call("GET", &format!("/v2/pods/{id}"), None).await.1["detail"],
        "pod not found"
    );
    assert_eq!(
        cloud
            .call("DELETE", &format!("/v2/pods/{id}"), None)
            .await
            .0,
        404
    );
    assert_eq!(
        cloud.call("GET", "/v2/pods", None).await.1["pods"],
        json!([])
    );
}

#[tokio::test(start_paused = true)]
async fn a_locked_pod_is_neither_stopped_nor_deleted_until_it_is_unlocked() {
    let cloud = client();
    let id = cloud.create().await["id"].as_str().unwrap().to_owned();
    let path = format!("/v2/pods/{id}");
    let (status, locked) = cloud
        .call("PATCH", &path, Some(json!({ "locked": true })))
        .await;
    assert_eq!(
        (status, &locked["locked"], &locked["actions"]),
        (200, &json!(true), &json!(["stop", "terminate"]))
    );
    let (status, problem) = cloud.call("DELETE", &path, None).await;
    assert_eq!((status, &problem["detail"]), (400, &json!("Pod is locked")));
    assert_eq!(
        cloud
            .call(
                "POST",
                &format!("{path}/action"),
                Some(json!({ "action": "stop" }))
            )
            .await
            .0,
        400
    );
    assert_eq!(
        cloud
            .call(
                "PATCH",
                &path,
                Some(json!({ "locked": false, "name": "new" }))
            )
            .await
            .1["name"],
        "new"
    );
    assert_eq!(cloud.call("DELETE", &path, None).await.0, 204);
}

#[tokio::test(start_paused = true)]
async fn a_bad_body_is_refused_in_the_clouds_words() {
    let cloud = client();
    let long = "x".repeat(102_401);
    let cases = [
        (
            with(pod(), "gpuTypeIds", json!(["a"])),
            422,
            "$: additional properties 'gpuTypeIds' not allowed",
        ),
        (
            json!({ "image": "x", "gpu": { "id": "NVIDIA L40S" } }),
            422,
            "$: missing property 'name'",
        ),
        (
            with(pod(), "disk", json!("40")),
            422,
            "$.disk: got string, want integer",
        ),
        (
            with(pod(), "disk", json!(0)),
            422,
            "$.disk: minimum: got 0, want 1",
        ),
        (
            with(pod(), "env", json!([{ "key": "a", "value": "b" }])),
            422,
            "$.env: got array, want object",
        ),
        (
            with(pod(), "gpu", json!({ "id": "NVIDIA H1000" })),
            422,
            "Unknown GPU type: NVIDIA H1000",
        ),
        (
            with(pod(), "cloud", json!("ALL")),
            422,
            "$.cloud: value must be one of 'SECURE', 'COMMUNITY'",
        ),
        (
            with(pod(), "cpu", json!({ "id": "cpu5c", "vcpuCount": 4 })),
            400,
            "exactly one of gpu or cpu must be set",
        ),
        (
            with(pod(), "dataCenterIds", json!(["eu-ro-1"])),
            400,
            "invalid data center eu-ro-1",
        ),
        (
            with(pod(), "dataCenterIds", json!(["AP-JP-1"])),
            400,
            SOLD_OUT,
        ),
        (
            with(
                pod(),
                "gpu",
                json!({ "id": "NVIDIA A40", "allowedCudaVersions": ["12.8"],
                    "minCudaVersion": "12.1" }),
            ),
            400,
            "mutually exclusive",
        ),
        (
            with(
                pod(),
                "gpu",
                json!({ "id": "NVIDIA A40", "minCudaVersion": "12.11" }),
            ),
            400,
            SOLD_OUT,
        ),
        (
            with(pod(), "mounts", json!({ "persistent": { "size": 20 } })),
            422,
            "$.mounts.persistent: missing property 'path'",
        ),
        (
            with(
                pod(),
                "mounts",
                json!({ "persistent": { "size": 20, "path": "/a" }, "network": [{ "volumeId": "v",
                    "path": "/b" }] }),
            ),
            400,
            "mutually exclusive",
        ),
        (
            with(pod(), "ports", json!(["8000/udp"])),
            400,
            "invalid port: 8000/udp",
        ),
        (
            with(pod(), "templateId", json!("nope")),
            404,
            "template not found",
        ),
        (with(pod(), "name", json!(long)), 413, "102400"),
    ];
    for (body, status, text) in cases {
        let (got, problem) = cloud.call("POST", "/v2/pods", Some(body)).await;
        assert_eq!(got, status, "{problem}");
        assert!(problem.to_string().contains(text), "{text}: {problem}");
    }
    assert_eq!(cloud.world.ledger().clouds[NAME].created, 0);
    let (status, cpu) = cloud
        .call(
            "POST",
            "/v2/pods",
            Some(json!({ "name": "c", "image": "x", "cpu": { "id": "cpu5g", "vcpuCount": 4 } })),
        )
        .await;
    assert_eq!(
        (status, &cpu["cpu"]["memory"], cpu.get("gpu")),
        (201, &json!(16), None)
    );
}

#[tokio::test(start_paused = true)]
async fn auth_is_answered_before_anything_else() {
    let cloud = client();
    let status = async |change: fn(&mut Request<Full<bytes::Bytes>>)| {
        let mut request = request("GET", "/v2/pods?anything=ignored", None);
        change(&mut request);
        let response = cloud.send(request).await.unwrap();
        let limits = response.headers().contains_key("ratelimit");
        assert!(response.headers().contains_key("x-request-id"));
        (response.status().as_u16(), limits)
    };
    assert_eq!(status(|_| {}).await, (200, true));
    assert_eq!(
        status(|r| drop(r.headers_mut().remove("authorization"))).await,
        (401, false)
    );
    assert_eq!(
        status(|r| drop(
            r.headers_mut()
                .insert("authorization", "Bearer nope".parse().unwrap())
        ))
        .await,
        (401, false)
    );
    assert_eq!(
        status(|r| *r.uri_mut() = "/v2/nothing".parse().unwrap()).await,
        (404, true)
    );
    let mut bare = request("GET", "/v2/pods", None);
    bare.headers_mut().remove("user-agent");
    let response = cloud.send(bare).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "error code: 1010"
    );
    let response = cloud.send(request("PUT", "/v2/pods", None)).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["allow"]),
        (405, &"GET, POST".parse().unwrap())
    );
    cloud
        .world
        .set_standing(NAME, &cloud.world.account("me"), Standing::NoMoney);
    assert_eq!(cloud.call("POST", "/v2/pods", Some(pod())).await.0, 402);
    cloud
        .world
        .set_standing(NAME, &cloud.world.account("me"), Standing::ReadOnly);
    assert_eq!(
        cloud.call("POST", "/v2/pods", Some(pod())).await.1["detail"],
        "access denied"
    );
}

#[tokio::test(start_paused = true)]
async fn pages_of_any_size_show_every_pod_once_newest_first() {
    for size in 1..=3 {
        let cloud = client();
        cloud.service.set_quirks({
            let mut quirks = Quirks::default();
            quirks.page_size = size;
            quirks
        });
        let mut expected = Vec::new();
        for _ in 0..5 {
            expected.insert(0, cloud.create().await["id"].clone());
        }
        let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let (_, page) = cloud
                .call("GET", &format!("/v2/pods?limit=2&cursor={cursor}"), None)
                .await;
            seen.extend(
                page["pods"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|pod| pod["id"].clone()),
            );
            pages += 1;
            match page["pagination"]["nextCursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
        }
        assert_eq!((seen, pages), (expected, 5_usize.div_ceil(size.min(2))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_is_taken_and_shown_in_each_of_its_three_forms() {
    let cloud = client();
    let forms = async |more: Value| {
        let mut body = pod();
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let (status, made) = cloud.call("POST", "/v2/pods", Some(body)).await;
        let shown = ["args", "entrypoint", "cmd"].map(|field| made[field].clone());
        (status, shown, made)
    };
    let (_, bare, made) = forms(json!({ "args": "serve 'a b'" })).await;
    assert_eq!(
        bare,
        [json!("serve 'a b'"), json!([]), json!(["serve", "a b"])]
    );
    let gpu = &made["gpu"];
    assert_eq!((&gpu["vcpuCount"], &gpu["memory"]), (&json!(8), &json!(64)));
    let lists = json!({ "entrypoint": ["/bin/sh"], "cmd": ["-c", "sleep 5"] });
    let (status, shown, made) = forms(lists).await;
    let stored = r#"{"cmd":["-c","sleep 5"],"entrypoint":["/bin/sh"]}"#;
    assert_eq!(status, 201);
    assert_eq!(
        shown,
        [json!(stored), json!(["/bin/sh"]), json!(["-c", "sleep 5"])]
    );
    // The lists are what runs.
    tokio::time::advance(Duration::from_secs(120)).await;
    let path = format!("/v2/pods/{}", made["id"].as_str().unwrap());
    assert_eq!(cloud.call("GET", &path, None).await.1["status"], "EXITED");
    let (_, back) = cloud.call("PATCH", &path, Some(json!({ "cmd": [] }))).await;
    assert_eq!(
        (&back["entrypoint"], &back["cmd"]),
        (&json!(["/bin/sh"]), &json!([]))
    );
    let (status, ..) = forms(json!({ "args": "a", "cmd": ["b"] })).await;
    assert_eq!(status, 400);
    let template = json!({ "name": "t", "image": "x/y:1", "entrypoint": ["sh"], "cmd": ["a"] });
    let (_, template) = cloud.call("POST", "/v2/templates", Some(template)).await;
    let (_, shown, _) = forms(json!({ "templateId": template["id"] })).await;
    assert_eq!(shown[1..], [json!(["sh"]), json!(["a"])]);
    let (_, shown, _) = forms(json!({ "templateId": template["id"], "cmd": ["b"] })).await;
    assert_eq!(
        shown[1..],
        [json!([]), json!(["b"])],
        "the body's command wins"
    );
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_too_small_is_sold_out_and_an_order_that_a_template_fills_up_is_too_large() {
    let cloud = client();
    for (more, status) in [
        (json!({ "minRamPerGpu": 8, "minVcpuCountPerGpu": 4 }), 201),
        (json!({ "minRamPerGpu": 65 }), 400),
        (json!({ "minVcpuCountPerGpu": 9 }), 400),
        (json!({ "minRamPerGpu": 0 }), 422),
    ] {
        let mut body = pod();
        for (name, value) in more.as_object().unwrap() {
            body["gpu"][name] = value.clone();
        }
        assert_eq!(
            cloud.call("POST", "/v2/pods", Some(body)).await.0,
            status,
            "{more}"
        );
    }
    let half = "x".repeat(60_000);
    let template = json!({ "name": "t", "image": "x/y:1", "env": { "A": half } });
    let (_, template) = cloud.call("POST", "/v2/templates", Some(template)).await;
    let mut body = pod();
    body["templateId"] = template["id"].clone();
    body["env"] = json!({ "B": half });
    assert_eq!(cloud.call("POST", "/v2/pods", Some(body)).await.0, 413);
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_written_once_under_its_name_and_never_read_back() {
    let cloud = client();
    let path = "/v2/account/secrets";
    let secret = json!({ "name": "hf-token", "value": "zz-canary" });
    let (status, made) = cloud.call("POST", path, Some(secret.clone())).await;
    assert_eq!((status, made.get("value")), (201, None));
    assert_eq!(cloud.call("POST", path, Some(secret)).await.0, 409);
    for (name, status) in [("runpod_x", 400), ("1a", 422), ("", 422)] {
        let body = json!({ "name": name, "value": "v" });
        assert_eq!(
            cloud.call("POST", path, Some(body)).await.0,
            status,
            "{name}"
        );
    }
    let one = format!("{path}/{}", made["id"].as_str().unwrap());
    tokio::time::advance(Duration::from_secs(5)).await;
    let (_, changed) = cloud
        .call("PATCH", &one, Some(json!({ "value": "other" })))
        .await;
    assert_ne!(changed["valueLastUpdatedAt"], made["valueLastUpdatedAt"]);
    assert_eq!(cloud.call("PATCH", &one, Some(json!({}))).await.0, 422);
    let (_, list) = cloud
        .call("GET", &format!("{path}?name=HF-TOKEN"), None)
        .await;
    assert_eq!(list["secrets"], json!([changed]));
    assert!(!list.to_string().contains("zz-canary"));
    assert_eq!(cloud.call("DELETE", &one, None).await.0, 204);
    assert_eq!(cloud.call("GET", &one, None).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_not_built_from_a_repository_has_an_empty_history_of_builds() {
    let cloud = client();
    let account = cloud.world.account("me");
    runpod::add_endpoint(&cloud.world, &account);
    let path = "/v2/serverless/sim-endpoint/builds";
    let (status, list) = cloud.call("GET", path, None).await;
    assert_eq!((status, &list["builds"]), (200, &json!([])));
    assert_eq!(list["pagination"]["hasNextPage"], false);
    assert_eq!(
        cloud
            .call("GET", &format!("{path}?limit=101"), None)
            .await
            .0,
        422
    );
    assert_eq!(cloud.call("GET", &format!("{path}/b1"), None).await.0, 404);
    assert_eq!(
        cloud
            .call("GET", "/v2/serverless/none/builds", None)
            .await
            .0,
        404
    );
}

#[tokio::test(start_paused = true)]
async fn every_paged_list_says_so_and_refuses_the_cursor_of_another_list() {
    let cloud = client();
    let mut quirks = Quirks::default();
    quirks.page_size = 1;
    cloud.service.set_quirks(quirks);
    for nth in 0..2 {
        cloud.create().await;
        let template = json!({ "name": format!("t{nth}"), "image": "x/y:1" });
        let volume = json!({ "name": "v", "size": 10, "dataCenter": "EU-RO-1" });
        assert_eq!(
            cloud.call("POST", "/v2/templates", Some(template)).await.0,
            201
        );
        assert_eq!(
            cloud
                .call("POST", "/v2/network-volumes", Some(volume))
                .await
                .0,
            201
        );
    }
    for (path, field) in [("pods", "pods"), ("templates", "templates")] {
        let (_, first) = cloud.call("GET", &format!("/v2/{path}"), None).await;
        assert_eq!(first["pagination"]["hasNextPage"], true, "{first}");
        let cursor = first["pagination"]["nextCursor"]
            .as_str()
            .unwrap()
            .to_owned();
        let next = format!("/v2/{path}?cursor={cursor}");
        let (_, second) = cloud.call("GET", &next, None).await;
        assert_eq!(
            second["pagination"],
            json!({ "hasNextPage": false, "nextCursor": null })
        );
        assert_ne!(first[field][0]["id"], second[field][0]["id"]);
        let other = format!("/v2/network-volumes?cursor={cursor}");
        assert_eq!(cloud.call("GET", &other, None).await.0, 422, "{path}");
    }
    for path in ["pods", "templates", "serverless", "clusters"] {
        for bad in ["?cursor=nonsense", "?limit=0", "?limit=1001"] {
            let (status, _) = cloud.call("GET", &format!("/v2/{path}{bad}"), None).await;
            assert_eq!(status, 422, "{path}{bad}");
        }
        let (_, list) = cloud.call("GET", &format!("/v2/{path}"), None).await;
        assert!(list["pagination"].is_object(), "{list}");
    }
    // These have no pages.
    for path in ["registries", "registries/delegations", "catalog/gpus"] {
        let (_, list) = cloud.call("GET", &format!("/v2/{path}"), None).await;
        assert_eq!(list.get("pagination"), None, "{list}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_without_its_cluster_members_is_short_and_still_has_a_next_one() {
    let cloud = client();
    let single = cloud.create().await["id"].clone();
    let compute = json!({ "gpuTypeId": "NVIDIA L4", "gpuCountPerPod": 1, "podCount": 2 });
    let order =
        json!({ "name": "fleet", "type": "TRAINING", "image": "x/y:1", "compute": compute });
    assert_eq!(cloud.call("POST", "/v2/clusters", Some(order)).await.0, 201);
    let (_, first) = cloud.call("GET", "/v2/pods?limit=2", None).await;
    assert_eq!(first["pods"], json!([]));
    assert_eq!(first["pagination"]["hasNextPage"], true);
    let cursor = first["pagination"]["nextCursor"].as_str().unwrap();
    let next = format!("/v2/pods?limit=2&cursor={cursor}");
    let (_, second) = cloud.call("GET", &next, None).await;
    assert_eq!(
        (
            &second["pods"][0]["id"],
            second["pods"].as_array().unwrap().len()
        ),
        (&single, 1)
    );
    let with_members = format!("/v2/pods?includeClusterPods=true&cursor={cursor}");
    assert_eq!(cloud.call("GET", &with_members, None).await.0, 422);
}

#[tokio::test(start_paused = true)]
async fn faulty_pagination_and_a_shifted_page_can_be_had() {
    let cloud = client();
    for _ in 0..4 {
        cloud.create().await;
    }
    for (pagination, expected) in [
        (
            Pagination::LosesCursor,
            json!({ "hasNextPage": true, "nextCursor": null }),
        ),
        (Pagination::Omitted, Value::Null),
    ] {
        let mut quirks = Quirks::default();
        quirks.pagination = pagination;
        cloud.service.set_quirks(quirks);
        assert_eq!(
            cloud.call("GET", "/v2/pods?limit=1", None).await.1["pagination"],
            expected
        );
    }
    cloud.service.set_quirks(Quirks::default());
    cloud
        .world
        .inject([Fault::new(NAME, "list_compute", FaultKind::PageShift)]);
    let (_, first) = cloud.call("GET", "/v2/pods?limit=2", None).await;
    assert_eq!(
        cloud.world.waiting_faults().len(),
        1,
        "a first page has nothing to shift"
    );
    let next = first["pagination"]["nextCursor"].as_str().unwrap();
    assert_eq!(
        cloud
            .call("GET", &format!("/v2/pods?limit=2&cursor={next}"), None)
            .await
            .1["pods"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_refuses_before_work_and_says_how_long() {
    let cloud = client();
    cloud.service.set_quirks({
        let mut quirks = Quirks::default();
        quirks.quota = Quota {
            minute: 2,
            ..Quota::default()
        };
        quirks
    });
    assert_eq!(cloud.call("GET", "/v2/pods", None).await.0, 200);
    cloud.create().await;
    let response = cloud
        .send(request("POST", "/v2/pods", Some(&pod())))
        .await
        .unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()["retry-after"]
        ),
        (429, &"60".parse().unwrap())
    );
    assert_eq!(cloud.world.ledger().clouds[NAME].created, 1);
    tokio::time::advance(Duration::from_secs(60)).await;
    cloud.create().await;
}

#[tokio::test(start_paused = true)]
async fn every_spoilt_answer_looks_as_its_name_says() {
    let cases = [
        (FaultKind::CommitThen500, Some(500), 1),
        (FaultKind::Status500, Some(500), 0),
        (FaultKind::Status429, Some(429), 0),
        (FaultKind::Html502, Some(502), 1),
        (FaultKind::Truncated, Some(201), 1),
        (FaultKind::Slow, Some(201), 1),
        (FaultKind::CommitThenReset, None, 1),
        (FaultKind::ResetBeforeCommit, None, 0),
        (FaultKind::DuplicateCommit, Some(201), 2),
        (FaultKind::NoCapacity, Some(400), 0),
        (FaultKind::RevokeKey, Some(401), 0),
    ];
    for (kind, status, created) in cases {
        let cloud = client();
        cloud
            .world
            .inject([Fault::new(NAME, "spawn_compute", kind)]);
        let before = tokio::time::Instant::now();
        let answer = cloud.send(request("POST", "/v2/pods", Some(&pod()))).await;
        assert_eq!(
            answer.as_ref().ok().map(|answer| answer.status().as_u16()),
            status,
            "{kind}"
        );
        assert_eq!(cloud.world.ledger().clouds[NAME].created, created, "{kind}");
        assert_eq!(cloud.world.struck()[&kind], 1);
        match (kind, answer) {
            (FaultKind::Truncated, Ok(answer)) => {
                assert!(answer.into_body().collect().await.is_err())
            }
            (FaultKind::Html502, Ok(answer)) => {
                assert_eq!(answer.headers()["content-type"], "text/html")
            }
            (FaultKind::NoCapacity, Ok(answer)) => {
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                assert!(std::str::from_utf8(&body).unwrap().contains(SOLD_OUT));
            }
            (FaultKind::Slow, _) => assert!(before.elapsed() >= Duration::from_secs(10)),
            (FaultKind::CommitThenReset, Err(error)) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset)
            }
            _ => {}
        }
    }
    let cloud = client();
    cloud.world.inject([Fault::new(
        NAME,
        "spawn_compute",
        FaultKind::CommitThenTimeout,
    )]);
    let never = tokio::time::timeout(
        Duration::from_secs(3600),
        cloud.send(request("POST", "/v2/pods", Some(&pod()))),
    )
    .await;
    assert!(never.is_err());
    assert_eq!(cloud.world.ledger().clouds[NAME].live, 1);
}

#[tokio::test(start_paused = true)]
async fn the_catalogue_tells_prices_and_stock_and_what_is_sold_out() {
    let cloud = client();
    let (_, plain) = cloud.call("GET", "/v2/catalog/gpus", None).await;
    let l40s = plain["gpus"]
        .as_array()
        .unwrap()
        .iter()
        .find(|gpu| gpu["id"] == "NVIDIA L40S")
        .unwrap();
    assert_eq!(
        (
            &l40s["price"]["secure"],
            &l40s["memory"],
            l40s.get("availability")
        ),
        (&json!(1.09), &json!(48), None)
    );
    for odd in [
        "include=AVAILABILITY",
        "product=POD",
        "count=2",
        "include=AVAILABILITY&product=POD&cudaVersions=12.8&minCudaVersion=12",
    ] {
        assert_eq!(
            cloud
                .call("GET", &format!("/v2/catalog/gpus?{odd}"), None)
                .await
                .0,
            400,
            "{odd}"
        );
    }
    let one = "/v2/catalog/gpus/NVIDIA%20L40S?include=AVAILABILITY&product=POD";
    let (_, stocked) = cloud
        .call("GET", &format!("{one}&countryCodes=RO"), None)
        .await;
    assert_eq!(
        (
            &stocked["availability"],
            stocked["dataCenters"][0]["id"].as_str()
        ),
        (&json!("HIGH"), Some("EU-RO-1"))
    );
    for (region, _) in cloud.world.stock(NAME, "NVIDIA L40S", "SECURE") {
        cloud
            .world
            .set_stock(NAME, "NVIDIA L40S", "SECURE", &region, 0);
    }
    let (_, sold_out) = cloud.call("GET", one, None).await;
    assert_eq!(
        (&sold_out["availability"], sold_out.get("dataCenters")),
        (&json!("NONE"), None)
    );
    assert_eq!(
        cloud.call("POST", "/v2/pods", Some(pod())).await.1["detail"],
        SOLD_OUT
    );
    let (_, centres) = cloud
        .call(
            "GET",
            "/v2/catalog/datacenters?regions=EUROPE&include=GPU_AVAILABILITY",
            None,
        )
        .await;
    assert!(
        centres["dataCenters"]
            .as_array()
            .unwrap()
            .iter()
            .all(|centre| centre["region"] == "EUROPE")
    );
    let (_, cpus) = cloud
        .call(
            "GET",
            "/v2/catalog/cpus?include=AVAILABILITY&product=POD&vcpuCount=4",
            None,
        )
        .await;
    assert_eq!(cpus["cpus"][0]["availability"], "HIGH");
    assert_eq!(
        cloud.call("GET", "/v2/catalog/gpus/none", None).await.0,
        404
    );
}

#[tokio::test(start_paused = true)]
async fn a_log_is_streamed_from_where_the_reader_asks_until_the_pod_is_gone() {
    let cloud = client();
    let body = with(
        pod(),
        "args",
        json!("sh -c 'sleep 5; echo hello; sleep infinity'"),
    );
    let id = cloud.call("POST", "/v2/pods", Some(body)).await.1["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut log = cloud
        .send(request(
            "GET",
            &format!("/v2/pods/{id}/logs?source=container"),
            None,
        ))
        .await
        .unwrap();
    assert_eq!(log.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while !text.contains("hello") {
        let frame = log.body_mut().frame().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    let lines: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert_eq!(
        (&lines[0]["line"], &lines[1]["line"]),
        (&json!("container started"), &json!("hello"))
    );
    let mut resume = request("GET", &format!("/v2/pods/{id}/logs?source=container"), None);
    resume.headers_mut().insert(
        "last-event-id",
        lines[1]["ts"].as_str().unwrap().parse().unwrap(),
    );
    let mut resumed = cloud.send(resume).await.unwrap();
    let again = resumed
        .body_mut()
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    assert!(
        std::str::from_utf8(&again).unwrap().contains("hello")
            && !std::str::from_utf8(&again).unwrap().contains("started")
    );
    cloud.world.destroy_machine(NAME, &id);
    assert!(log.body_mut().frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn another_accounts_pods_are_not_there() {
    let cloud = client();
    let other = cloud.world.add_key(NAME, "their-key", "them");
    let theirs = cloud
        .world
        .plant_machine(NAME, &other, MachineSpec::gpu("NVIDIA A40", 1))
        .unwrap();
    assert_eq!(
        cloud
            .call("GET", &format!("/v2/pods/{}", theirs.id), None)
            .await
            .0,
        404
    );
    assert_eq!(
        cloud
            .call("DELETE", &format!("/v2/pods/{}", theirs.id), None)
            .await
            .0,
        404
    );
    assert_eq!(cloud.world.ledger().clouds[NAME].live, 1);
}
