//! The Fly dialect, in process: what a client sees of it.

use std::time::Duration;

use atlas_core::Clock;
use atlas_testkit::dialect::fly::{self, APP, Fly, NAME, ORG, Quirks, Rates, Scope};
use atlas_testkit::world::{MachineSpec, World, WorldClock};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;

const MACHINES: &str = "/v1/apps/sim-app/machines";

struct Client {
    service: Fly,
    world: World,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

fn client() -> Client {
    let world = World::new(7, WorldClock::following(1.0)).with_cloud(fly::cloud());
    for token in ["sim-key", "fm2_a", "fm2_b"] {
        world.add_key(NAME, token, ORG);
    }
    let client = Client {
        service: Fly::new(world.clone()),
        world,
    };
    client.quirks(|_| {});
    client
}

impl Client {
    fn quirks(&self, with: impl FnOnce(&mut Quirks)) {
        let mut quirks = Quirks::default();
        (quirks.rates, quirks.app_appears) = (None, Duration::ZERO);
        with(&mut quirks);
        self.service.set_quirks(quirks);
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://api.machines.dev{path}"));
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", "Bearer sim-key");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = self
            .service
            .clone()
            .oneshot(
                request
                    .body(Full::<bytes::Bytes>::from(text))
                    .expect("a request"),
            )
            .await
            .expect("an answer");
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
        }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let answer = self.send(method, path, &[], body).await;
        (answer.status, answer.body)
    }

    async fn create(&self, more: Value) -> (u16, Value) {
        let mut body = json!({ "region": "fra", "config": { "image": "x/y:1" } });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        self.call("POST", MACHINES, body).await
    }

    /// A machine that runs.
    async fn running(&self) -> String {
        let (status, machine) = self.create(json!({})).await;
        assert_eq!(status, 200, "{machine}");
        tokio::time::sleep(Duration::from_secs(30)).await;
        format!("{MACHINES}/{}", machine["id"].as_str().expect("an id"))
    }
}

fn says(answer: &(u16, Value), words: &str) -> bool {
    answer.1["error"]
        .as_str()
        .is_some_and(|error| error.contains(words))
}

#[tokio::test(start_paused = true)]
async fn tokens_are_taken_in_every_form_but_a_doubled_scheme() {
    let client = client();
    let seen = async |authorization: &str| {
        client
            .send(
                "GET",
                "/v1/tokens/current",
                &[("authorization", authorization)],
                Value::Null,
            )
            .await
            .status
    };
    for good in [
        "Bearer sim-key",
        "bearer fm2_a",
        "FlyV1 fm2_a",
        "FlyV1 fm2_x,fm2_a",
        "FlyV1  fm2_a , fm2_b",
    ] {
        assert_eq!(seen(good).await, 200, "{good}");
    }
    for bad in [
        "",
        "sim-key",
        "Basic sim-key",
        "FlyV1 sim-key",
        "Bearer FlyV1 fm2_a",
        "Bearer other",
    ] {
        assert_eq!(seen(bad).await, 401, "{bad}");
    }
    client.quirks(|quirks| quirks.strict_scheme = false);
    assert_eq!(seen("Bearer FlyV1 fm2_a").await, 200);

    let fm2 = async |path: &str, method: &str| {
        client
            .send(
                method,
                path,
                &[("authorization", "FlyV1 fm2_a")],
                json!({ "config": { "image": "x" } }),
            )
            .await
            .status
    };
    client.service.limit_token("fm2_a", Scope::read_only());
    assert_eq!(
        (fm2(MACHINES, "GET").await, fm2(MACHINES, "POST").await),
        (200, 403)
    );
    client.service.limit_token("fm2_a", Scope::app("other"));
    assert_eq!(
        (
            fm2(MACHINES, "GET").await,
            fm2("/v1/orgs/sim-org/machines", "GET").await
        ),
        (404, 403)
    );
    client.service.limit_token(
        "fm2_a",
        Scope::default().until(
            client
                .world
                .clock()
                .now()
                .saturating_add(Duration::from_secs(60)),
        ),
    );
    assert_eq!(fm2(MACHINES, "GET").await, 200);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(fm2(MACHINES, "GET").await, 401);
}

#[tokio::test(start_paused = true)]
async fn app_names_are_one_name_space_and_an_idempotency_key_answers_the_first_app_again() {
    let client = client();
    let create = async |more: Value| {
        let mut body = json!({ "org_slug": ORG });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        client.call("POST", "/v1/apps", body).await
    };
    let first = create(json!({ "name": "pods", "network": "net", "idempotency_key": "k" })).await;
    assert_eq!(first.0, 201);
    assert_eq!(
        create(json!({ "name": "pods", "idempotency_key": "k" })).await,
        first
    );
    assert_eq!(create(json!({ "idempotency_key": "k" })).await, first);
    assert_eq!(
        create(json!({ "name": "other", "idempotency_key": "k" }))
            .await
            .0,
        422
    );
    let taken = create(json!({ "name": "pods" })).await;
    assert_eq!((taken.0, &taken.1["status"]), (422, &json!("name_taken")));
    assert_eq!(create(json!({ "app_name": "prose" })).await.0, 201);
    assert_eq!(create(json!({ "name": "No Name" })).await.0, 422);
    assert_eq!(
        client.call("GET", "/v1/apps/pods", Value::Null).await.1["network"],
        "net"
    );
    client.service.add_app("somebody-else", "theirs");
    assert_eq!(
        client.call("GET", "/v1/apps/theirs", Value::Null).await.0,
        403
    );
    assert_eq!(
        client
            .call("GET", "/v1/apps/theirs/machines", Value::Null)
            .await
            .0,
        404
    );
    assert_eq!(
        client.call("GET", "/v1/apps/free", Value::Null).await.0,
        404
    );
    assert_eq!(
        client.call("GET", "/v1/apps", Value::Null).await.0,
        400,
        "org_slug is required"
    );
    let all = client
        .call("GET", "/v1/apps?org_slug=sim-org&limit=2", Value::Null)
        .await
        .1;
    assert_eq!(
        (&all["total_apps"], all["apps"].as_array().map(Vec::len)),
        (&json!(3), Some(2))
    );
    client.quirks(|quirks| quirks.app_appears = Duration::from_secs(5));
    assert_eq!(create(json!({ "name": "fresh" })).await.0, 201);
    assert_eq!(
        client
            .call("GET", "/v1/apps/fresh/machines", Value::Null)
            .await
            .0,
        404
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        client
            .call("GET", "/v1/apps/fresh/machines", Value::Null)
            .await,
        (200, json!([]))
    );
    assert_eq!(
        client
            .send("DELETE", "/v1/apps/fresh", &[], Value::Null)
            .await
            .status,
        202
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_is_unique_while_its_machine_lives_and_free_again_afterwards() {
    let client = client();
    let (_, made) = client.create(json!({ "name": "pod-a" })).await;
    let id = made["id"].as_str().expect("an id");
    assert_eq!(
        (
            id.len(),
            made["version"].as_str().map(str::len),
            made["instance_id"] == made["version"]
        ),
        (14, Some(26), true)
    );
    let again = client.create(json!({ "name": "pod-a" })).await;
    assert_eq!(again.0, 409);
    let words = format!(
        "already_exists: unique machine name violation, machine ID {id} already exists with name \
            \"pod-a\""
    );
    assert!(says(&again, &words), "{}", again.1);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let path = format!("{MACHINES}/{id}");
    let refused = client.call("DELETE", &path, Value::Null).await;
    assert!(
        refused.0 == 412 && says(&refused, "failed_precondition: unable to destroy machine"),
        "{}",
        refused.1
    );
    assert_eq!(
        client
            .call("DELETE", &format!("{path}?kill=true"), Value::Null)
            .await,
        (200, json!({ "ok": true }))
    );
    assert_eq!(
        client.call("GET", &path, Value::Null).await.1["state"],
        "destroying"
    );
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(
        client.call("GET", &path, Value::Null).await.1["state"],
        "destroyed"
    );
    assert_eq!(client.call("GET", MACHINES, Value::Null).await.1, json!([]));
    let deleted = client
        .call(
            "GET",
            &format!("{MACHINES}?include_deleted=true"),
            Value::Null,
        )
        .await
        .1;
    assert_eq!(deleted[0]["state"], "destroyed");
    assert_eq!(client.create(json!({ "name": "pod-a" })).await.0, 200);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(client.call("GET", &path, Value::Null).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn an_update_replaces_everything_and_is_refused_where_the_version_is_stale() {
    let client = client();
    let path = client.running().await;
    let before = client.call("GET", &path, Value::Null).await.1;
    let config =
        json!({ "image": "x/y:2", "env": { "A": "1" }, "guest": { "cpus": 2, "memory_mb": 1024 } });
    let stale = client
        .call(
            "POST",
            &path,
            json!({ "config": config, "current_version": "01OLD" }),
        )
        .await;
    assert_eq!(stale.0, 409);
    assert_eq!(
        client
            .call("POST", &path, json!({ "config": config, "region": "ams" }))
            .await
            .0,
        400
    );
    let fresh = client
        .call(
            "POST",
            &path,
            json!({ "config": config, "current_version": before["version"] }),
        )
        .await;
    assert_eq!(
        (
            fresh.0,
            &fresh.1["config"]["image"],
            &fresh.1["config"]["env"]["A"]
        ),
        (200, &json!("x/y:2"), &json!("1"))
    );
    assert!(fresh.1["version"] != before["version"] && fresh.1["id"] == before["id"]);
    assert_eq!(
        client
            .call("GET", &format!("{path}/versions"), Value::Null)
            .await
            .1
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    // Metadata make no new version, and a stale one is refused.
    let patch = |version: &Value| {
        json!({ "metadata": { "a": "b", "gone": null },
        "machine_version": version })
    };
    assert_eq!(
        client
            .call(
                "PATCH",
                &format!("{path}/metadata"),
                patch(&before["version"])
            )
            .await
            .0,
        412
    );
    assert_eq!(
        client
            .call(
                "PATCH",
                &format!("{path}/metadata"),
                patch(&fresh.1["version"])
            )
            .await
            .0,
        204
    );
    assert_eq!(
        client.call("GET", &path, Value::Null).await.1["version"],
        fresh.1["version"]
    );
    assert_eq!(
        client
            .call("GET", &format!("{path}/metadata/gone"), Value::Null)
            .await
            .0,
        404
    );
    assert_eq!(
        client
            .call("GET", &format!("{MACHINES}?metadata.a=b"), Value::Null)
            .await
            .1
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(
        client
            .call(
                "GET",
                &format!("{MACHINES}?metadata.a=b&metadata.c=d"),
                Value::Null
            )
            .await
            .1,
        json!([])
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_long_polled_within_a_minute_and_over_it_refused() {
    let client = client();
    let (_, made) = client.create(json!({})).await;
    let path = format!("{MACHINES}/{}", made["id"].as_str().expect("an id"));
    let wait = async |query: &str| {
        client
            .call("GET", &format!("{path}/wait?{query}"), Value::Null)
            .await
    };
    for wrong in [
        "timeout=90",
        "timeout=0",
        "timeout=x",
        "state=unheard-of",
        "state=stopped",
    ] {
        assert_eq!(wait(wrong).await.0, 400, "{wrong}");
    }
    let begun = tokio::time::Instant::now();
    assert_eq!(wait("timeout=60").await.1["state"], "started");
    assert!(begun.elapsed() < Duration::from_secs(20));
    let version = made["version"].as_str().expect("a version");
    let late = wait(&format!("state=stopped&timeout=2&version={version}")).await;
    assert!(
        late.0 == 408
            && says(
                &late,
                "deadline_exceeded: machine failed to reach desired state, stopped, currently \
                    started"
            )
    );
    assert_eq!(
        wait("state=stopped,started&instance_id=01OTHER&timeout=1")
            .await
            .0,
        408,
        "it is pinned to another version"
    );
    client.quirks(|quirks| quirks.stopped_wait_needs_version = false);
    assert_eq!(
        wait("state=stopped&state=started&timeout=1").await.1["state"],
        "started"
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_machine_may_not_be_is_refused_in_the_clouds_words() {
    let client = client();
    let refused = async |config: Value| client.create(json!({ "config": config })).await;
    let guest = |guest: Value| json!({ "image": "x", "guest": guest });
    for (answer, status, words) in [
        (
            refused(guest(json!({ "gpus": 1, "gpu_kind": "a10" }))).await,
            400,
            "GPU machines are no longer supported",
        ),
        (
            refused(guest(json!({ "memory_mb": 128 }))).await,
            400,
            "invalid memory size 128; must be in 256 MiB increment",
        ),
        (
            refused(json!({ "image": "x", "mounts": [{ "volume": "vol_nothing", "path": "/a" }] }))
                .await,
            400,
            "volume not found",
        ),
        (
            client.create(json!({ "region": "mad" })).await,
            400,
            "region mad not found",
        ),
        (
            client
                .call("POST", &format!("{MACHINES}/nothing/stop"), json!([]))
                .await,
            400,
            "cannot unmarshal array",
        ),
        (
            client
                .call("POST", "/v1/apps/never-was/machines", json!({}))
                .await,
            404,
            "Could not find App",
        ),
    ] {
        assert!(
            answer.0 == status && says(&answer, words),
            "{words}: {} {}",
            answer.0,
            answer.1
        );
    }
    let list = client.create(json!({ "region": "eu" })).await.1["region"]
        .as_str()
        .map(str::to_owned);
    assert_eq!(list.as_deref(), Some("ams"), "the first of a group");
    let (_, lax) = client
        .create(json!({ "config": { "image": "x", "auto_stop_machines": true } }))
        .await;
    assert!(
        lax["config"].get("auto_stop_machines").is_none(),
        "an unknown field is dropped without a word"
    );
    let (_, leased) = client.create(json!({ "lease_ttl": 30 })).await;
    let path = format!("{MACHINES}/{}", leased["id"].as_str().expect("an id"));
    assert_eq!(
        client
            .call("DELETE", &format!("{path}?force=true"), Value::Null)
            .await
            .0,
        409
    );
    let nonce = [(
        "fly-machine-lease-nonce",
        leased["nonce"].as_str().expect("a nonce"),
    )];
    assert_eq!(
        client
            .send("DELETE", &format!("{path}?force=true"), &nonce, Value::Null)
            .await
            .status,
        200
    );
}

#[tokio::test(start_paused = true)]
async fn lists_are_paged_by_a_header_or_a_field_and_a_cursor_expires() {
    let client = client();
    for _ in 0..3 {
        client.create(json!({})).await;
    }
    let first = client
        .send("GET", &format!("{MACHINES}?limit=2"), &[], Value::Null)
        .await;
    let cursor = first.headers["fly-next-cursor"]
        .to_str()
        .expect("text")
        .to_owned();
    assert_eq!(first.body.as_array().map(Vec::len), Some(2));
    let next = async || {
        client
            .send(
                "GET",
                &format!("{MACHINES}?limit=2&cursor={cursor}"),
                &[],
                Value::Null,
            )
            .await
    };
    let second = next().await;
    assert_eq!(
        (
            second.body.as_array().map(Vec::len),
            second.headers.get("fly-next-cursor").is_none()
        ),
        (Some(1), true)
    );
    tokio::time::sleep(Duration::from_secs(31 * 60)).await;
    assert_eq!(next().await.status, 400);
    let org = client
        .call(
            "GET",
            "/v1/orgs/sim-org/machines?limit=2&state=started,stopped&region=fra",
            Value::Null,
        )
        .await
        .1;
    assert_eq!(
        (
            org["machines"].as_array().map(Vec::len),
            org["next_cursor"] == ""
        ),
        (Some(2), false)
    );
    assert_eq!(org["machines"][0]["app_name"], APP);
    assert_eq!(
        client
            .call("GET", "/v1/orgs/other/machines", Value::Null)
            .await
            .0,
        404
    );
    assert_eq!(
        client
            .call("GET", &format!("{MACHINES}?state=unheard-of"), Value::Null)
            .await
            .0,
        400
    );
}

#[tokio::test(start_paused = true)]
async fn every_answer_has_a_request_id_and_calls_are_limited_for_each_action_and_machine() {
    let client = client();
    client.quirks(|quirks| {
        quirks.rates = Some(Rates {
            retry_after: Some(Duration::from_secs(1)),
            ..Rates::default()
        });
    });
    let mut refused = 0;
    for _ in 0..5 {
        let answer = client
            .send("POST", MACHINES, &[], json!({ "config": { "image": "x" } }))
            .await;
        assert!(answer.headers.contains_key("fly-request-id"));
        if answer.status == 429 {
            assert_eq!(answer.headers["retry-after"], "1");
            refused += 1;
        }
    }
    assert_eq!(refused, 2, "three at once");
    assert_eq!(
        client.call("GET", MACHINES, Value::Null).await.0,
        200,
        "another action has its own"
    );
    let machines = client.world.all(NAME);
    let read = async |id: &str| {
        client
            .call(
                "GET",
                &format!("{MACHINES}/{}", id.replace(".sim-app", "")),
                Value::Null,
            )
            .await
            .0
    };
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(read(&machines[0].id).await);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10);
    assert_eq!(
        read(&machines[1].id).await,
        200,
        "and so has another machine"
    );
}

#[tokio::test(start_paused = true)]
async fn an_apps_public_port_reaches_any_machine_of_it_or_the_one_that_is_named() {
    let client = client();
    let service = json!({ "protocol": "tcp", "internal_port": 8000, "ports": [{ "port": 443,
        "handlers": ["tls", "http"] }] });
    let config = json!({ "image": "x", "services": [service] });
    let (_, first) = client.create(json!({ "config": config })).await;
    let (_, second) = client.create(json!({ "config": config })).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(
        client.service.reached(APP, 443, None),
        None,
        "without an address there is no way in"
    );
    client
        .call(
            "POST",
            "/v1/apps/sim-app/ip_assignments",
            json!({ "type": "shared_v4" }),
        )
        .await;
    assert!(client.service.reached(APP, 443, None).is_some());
    for machine in [&first, &second] {
        let id = machine["id"].as_str().expect("an id");
        assert_eq!(
            client.service.reached(APP, 443, Some(id)),
            Some((format!("{id}.{APP}"), 8000))
        );
        assert_eq!(client.service.reached(APP, 8000, Some(id)), None);
    }
    let id = first["id"].as_str().expect("an id");
    client
        .call("POST", &format!("{MACHINES}/{id}/cordon"), Value::Null)
        .await;
    assert_eq!(client.service.reached(APP, 443, Some(id)), None);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_somebody_planted_is_told_of_like_any_other() {
    let client = client();
    let spec = MachineSpec::cpu("shared-cpu-1x", 1).named("by-hand");
    let planted = client
        .world
        .plant_machine(NAME, &client.world.account(ORG), spec)
        .expect("room");
    let told = client.call("GET", MACHINES, Value::Null).await.1;
    assert_eq!(
        (&told[0]["name"], told[0]["id"].as_str()),
        (&json!("by-hand"), planted.id.strip_suffix(".sim-app"))
    );
    client.service.reset();
    assert_eq!(client.service.apps(), [APP]);
}

#[tokio::test(start_paused = true)]
async fn volumes_are_for_one_machine_of_their_app_and_only_grow() {
    let client = client();
    let (_, volume) = client
        .call(
            "POST",
            "/v1/apps/sim-app/volumes",
            json!({ "name": "data", "region": "fra", "size_gb": 10 }),
        )
        .await;
    let id = volume["id"].as_str().expect("an id");
    let path = format!("/v1/apps/sim-app/volumes/{id}");
    let config = json!({ "image": "x", "mounts": [{ "volume": id, "path": "/data" }] });
    assert_eq!(
        client
            .create(json!({ "config": config, "region": "ams" }))
            .await
            .0,
        400,
        "it is elsewhere"
    );
    let (_, machine) = client.create(json!({ "config": config })).await;
    assert_eq!(
        client.create(json!({ "config": config })).await.0,
        412,
        "it is taken"
    );
    assert_eq!(
        client.call("GET", &path, Value::Null).await.1["attached_machine_id"],
        machine["id"]
    );
    assert_eq!(client.call("DELETE", &path, Value::Null).await.0, 412);
    assert_eq!(
        client
            .call("PUT", &format!("{path}/extend"), json!({ "size_gb": 5 }))
            .await
            .0,
        400
    );
    assert_eq!(
        client
            .call("PUT", &format!("{path}/extend"), json!({ "size_gb": 20 }))
            .await
            .1["volume"]["size_gb"],
        20
    );
    assert_eq!(
        client
            .call("PUT", &path, json!({ "snapshot_retention": 9 }))
            .await
            .1["snapshot_retention"],
        9
    );
    assert_eq!(
        client
            .call("POST", &format!("{path}/snapshots"), Value::Null)
            .await
            .0,
        200
    );
    assert_eq!(
        client
            .call("GET", &format!("{path}/snapshots"), Value::Null)
            .await
            .1
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    let machine = format!(
        "{MACHINES}/{}?force=true",
        machine["id"].as_str().expect("an id")
    );
    client.call("DELETE", &machine, Value::Null).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(
        client.call("GET", &path, Value::Null).await.1["attached_machine_id"],
        "",
        "a volume outlives its machine"
    );
    assert_eq!(
        client.call("DELETE", &path, Value::Null).await.1["state"],
        "pending_destroy"
    );
    // It goes in steps, and is nothing to mount meanwhile.
    assert_eq!(client.call("DELETE", &path, Value::Null).await.0, 404);
    assert_eq!(client.create(json!({ "config": config })).await.0, 400);
    for (wait, state) in [(5, "pending_destroy"), (6, "destroyed")] {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        assert_eq!(
            client.call("GET", &path, Value::Null).await.1["state"],
            state
        );
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(client.call("GET", &path, Value::Null).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn an_apps_secrets_are_shown_to_who_asks_and_may_and_their_version_counts() {
    let client = client();
    let path = "/v1/apps/sim-app/secrets";
    let set = async |values: Value| {
        client
            .call("POST", path, json!({ "values": values }))
            .await
            .1["version"]
            .as_u64()
    };
    assert_eq!(
        (
            set(json!({ "A": "zz-a", "B": "b" })).await,
            set(json!({ "B": null })).await
        ),
        (Some(1), Some(2))
    );
    let (plain, whole) = (
        client.call("GET", path, Value::Null).await.1,
        client
            .call("GET", &format!("{path}?show_secrets=true"), Value::Null)
            .await
            .1,
    );
    assert_eq!(
        (
            plain["secrets"].as_array().map(Vec::len),
            plain.to_string().contains("zz-a")
        ),
        (Some(1), false)
    );
    assert_eq!(whole["secrets"][0]["value"], "zz-a");
    client.service.limit_token("fm2_a", Scope::read_only());
    let reader = [("authorization", "FlyV1 fm2_a")];
    let seen = client
        .send(
            "GET",
            &format!("{path}?show_secrets=true"),
            &reader,
            Value::Null,
        )
        .await
        .body;
    assert!(!seen.to_string().contains("zz-a"), "{seen}");
    assert_eq!(
        client.create(json!({ "min_secrets_version": 9 })).await.0,
        400
    );
    let (_, made) = client.create(json!({ "min_secrets_version": 2 })).await;
    assert!(
        !made.to_string().contains("zz-a"),
        "a machine has them, and does not show them"
    );
}

#[tokio::test(start_paused = true)]
async fn an_end_by_itself_says_how_with_its_signal_for_lack_of_memory() {
    let client = client();
    let mut shapes = std::collections::BTreeSet::new();
    for _ in 0..6 {
        let config = json!({ "image": "x", "init": { "exec": ["sh", "-c", "exit 137"] },
            "restart": { "policy": "no" } });
        let (_, made) = client.create(json!({ "config": config })).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        let path = format!("{MACHINES}/{}", made["id"].as_str().expect("an id"));
        let events = client
            .call("GET", &format!("{path}/events"), Value::Null)
            .await
            .1;
        let request = events[0]["request"].clone();
        let exit = request
            .pointer("/MonitorEvent/exit_event")
            .or(request.get("exit_event"))
            .expect("an exit");
        assert_eq!(
            (
                &exit["exit_code"],
                &exit["oom_killed"],
                &exit["requested_stop"]
            ),
            (&json!(137), &json!(true), &json!(false))
        );
        let launch = events
            .as_array()
            .and_then(|events| events.last())
            .expect("the first");
        assert_eq!(
            (&launch["type"], &launch["request"]),
            (&json!("launch"), &Value::Null)
        );
        assert!(
            events[0]["timestamp"].as_i64() > launch["timestamp"].as_i64(),
            "milliseconds, newest first"
        );
        shapes.insert(request.get("MonitorEvent").is_some());
        assert_eq!(
            client.call("GET", &path, Value::Null).await.1["state"],
            "stopped"
        );
    }
    assert_eq!(shapes.len(), 2, "both shapes");
}

#[tokio::test(start_paused = true)]
async fn what_is_stuck_says_so_what_is_busy_is_refused_and_a_server_may_be_loose() {
    let client = client();
    let path = client.running().await;
    client.quirks(|quirks| quirks.stuck = Some("stopping"));
    assert_eq!(
        client.call("GET", &path, Value::Null).await.1["state"],
        "stopping"
    );
    assert_eq!(
        client
            .call("POST", &format!("{path}/start"), Value::Null)
            .await
            .0,
        412
    );
    client.quirks(|quirks| quirks.busy = 1);
    let stop = async || {
        client
            .call("POST", &format!("{path}/stop"), json!({}))
            .await
    };
    let refused = stop().await;
    assert!(
        refused.0 == 409 && says(&refused, "due to concurrent update"),
        "{}",
        refused.1
    );
    assert_eq!(stop().await.0, 200);
    client.quirks(|quirks| (quirks.loose, quirks.errors_as_message) = (true, true));
    let org = client
        .call("GET", "/v1/orgs/sim-org/machines", Value::Null)
        .await
        .1;
    assert_eq!(
        (
            &org["error_regions"],
            org["machines"][0]["brand_new"].is_object()
        ),
        (&Value::Null, true)
    );
    let missing = client
        .call("GET", &format!("{MACHINES}/nothing"), Value::Null)
        .await
        .1;
    assert_eq!(
        (&missing["message"], missing.get("error")),
        (&json!("machine not found"), None)
    );
    client.quirks(|quirks| quirks.says_nothing = true);
    let answer = client.send("GET", MACHINES, &[], Value::Null).await;
    assert_eq!((answer.status, answer.body), (200, Value::Null));
}

#[tokio::test(start_paused = true)]
async fn a_documented_call_that_is_not_served_is_answered_with_its_name() {
    let client = client();
    for (method, path, call) in [
        (
            "POST",
            "/v1/apps/sim-app/deploy_token",
            "App_create_deploy_token",
        ),
        ("GET", "/v1/postgres", "Postgres_list"),
        ("POST", "/v1/tokens/oidc", "Tokens_request_OIDC"),
    ] {
        let answer = client.call(method, path, json!({})).await;
        assert_eq!(answer.0, 501, "{path}");
        assert!(says(&answer, call), "{:?}", answer.1);
    }
    assert_eq!(client.call("GET", "/v1/nothing", Value::Null).await.0, 404);
}
