//! The Vast dialect, in process: what a client sees of it.

use std::time::Duration;

use atlas_core::Usd;
use atlas_testkit::dialect::vast::{self, NAME, Quirks, Rates, Vast};
use atlas_testkit::world::{Fault, FaultKind, MachineState, World, WorldClock};
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;

struct Client {
    service: Vast,
    world: World,
}

fn client() -> Client {
    let world = World::new(7, WorldClock::following(1.0)).with_cloud(vast::cloud());
    world.add_key(NAME, "sim-key", "me");
    world.add_key(NAME, "other-key", "somebody");
    let client = Client {
        service: Vast::new(world.clone()),
        world,
    };
    client.quirks(|_| {});
    client
}

impl Client {
    fn quirks(&self, with: impl FnOnce(&mut Quirks)) {
        let mut quirks = Quirks::default();
        quirks.rates = None;
        with(&mut quirks);
        self.service.set_quirks(quirks);
    }

    async fn as_key(
        &self,
        key: Option<&str>,
        method: &str,
        url: &str,
        body: Value,
    ) -> (u16, String) {
        let url = if url.starts_with("https://") {
            url.to_owned()
        } else {
            format!("https://console.vast.ai/api{url}")
        };
        let mut request = Request::builder().method(method).uri(url);
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = request
            .body(Full::<bytes::Bytes>::from(text))
            .expect("a request");
        let answer = self
            .service
            .clone()
            .oneshot(request)
            .await
            .expect("an answer");
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        (
            parts.status.as_u16(),
            String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    async fn call(&self, method: &str, url: &str, body: Value) -> (u16, Value) {
        let (status, text) = self.as_key(Some("sim-key"), method, url, body).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn offers(&self, search: Value) -> Vec<Value> {
        let (status, found) = self.call("POST", "/v0/bundles/", search).await;
        assert_eq!(status, 200, "{found}");
        found["offers"].as_array().expect("a list").clone()
    }

    /// Rents the best offer of a search; the instance's id.
    async fn rent(&self, more: Value) -> u64 {
        let ask = self
            .offers(json!({ "gpu_name": { "eq": "RTX 4090" }, "reliability": { "gt": 0.98 } }))
            .await[0]["id"]
            .clone();
        let mut body = json!({ "client_id": "me", "image": "x/y:1", "runtype": "args" });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        let (status, made) = self.call("PUT", &format!("/v0/asks/{ask}/"), body).await;
        assert_eq!((status, &made["success"]), (200, &json!(true)), "{made}");
        made["new_contract"].as_u64().expect("a number")
    }

    async fn instance(&self, id: u64) -> Value {
        self.call("GET", &format!("/v0/instances/{id}/"), Value::Null)
            .await
            .1["instances"]
            .clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_missing_wrong_or_somebody_elses_and_each_is_told_its_own_way() {
    let client = client();
    let id = client.rent(json!({})).await;
    let path = format!("/v0/instances/{id}/");
    let (status, text) = client.as_key(None, "GET", &path, Value::Null).await;
    assert!(
        status == 403 && text.contains("auth_error") && text.contains("requires login"),
        "{text}"
    );
    let (status, text) = client.as_key(Some("nope"), "GET", &path, Value::Null).await;
    assert!(
        status == 404 && text.contains("auth_error") && text.contains("Invalid user key"),
        "{text}"
    );
    assert_eq!(
        client
            .as_key(Some("other-key"), "GET", &path, Value::Null)
            .await,
        (200, r#"{"instances":null}"#.to_owned())
    );
    assert_eq!(
        client
            .as_key(Some("other-key"), "DELETE", &path, Value::Null)
            .await
            .0,
        404
    );
    assert_eq!(
        client
            .as_key(None, "GET", &format!("{path}?api_key=sim-key"), Value::Null)
            .await
            .0,
        200
    );
    // The market is open, as gpuhunt searches it; a key that is sent must be right all the same.
    let search = async |key| {
        let (status, text) = client.as_key(key, "POST", "/v0/bundles/", json!({})).await;
        let found: Value = serde_json::from_str(&text).unwrap_or_default();
        (status, found["offers"].as_array().map_or(0, Vec::len))
    };
    assert!(matches!(search(None).await, (200, 1..)));
    assert_eq!(search(Some("nope")).await, (404, 0));
    client.quirks(|quirks| quirks.bad_key_is_401 = true);
    assert_eq!(
        client
            .as_key(Some("nope"), "GET", &path, Value::Null)
            .await
            .0,
        401
    );
}

#[tokio::test(start_paused = true)]
async fn a_path_ends_in_a_slash_an_id_is_a_number_and_the_old_list_is_gone() {
    let client = client();
    assert_eq!(
        client.call("GET", "/v1/instances", Value::Null).await.0,
        301
    );
    for (method, path) in [
        ("PUT", "/v0/asks/21310070"),
        ("DELETE", "/v0/instances/7"),
        ("GET", "/v0/instances/abc/"),
    ] {
        assert_eq!(
            client.call(method, path, json!({})).await.0,
            404,
            "{method} {path}"
        );
    }
    let (status, body) = client.call("GET", "/v0/instances/", Value::Null).await;
    assert_eq!(
        (status, &body["error"]),
        (410, &json!("deprecated_endpoint"))
    );
    assert_eq!(
        client
            .call("GET", "/v0/instances/99999999/", Value::Null)
            .await,
        (200, json!({ "instances": null }))
    );
}

#[tokio::test(start_paused = true)]
async fn a_search_wants_its_filters_at_the_top_and_each_with_an_operator() {
    let client = client();
    let name = json!({ "gpu_name": { "eq": "RTX 4090" } });
    assert!(!client.offers(name.clone()).await.is_empty());
    assert!(client.offers(json!({ "q": name })).await.is_empty());
    assert!(
        client
            .offers(json!({ "gpu_name": { "eq": "RTX_4090" } }))
            .await
            .is_empty()
    );
    for bare in [
        json!({ "rentable": true }),
        json!({ "num_gpus": 1 }),
        json!({ "num_gpus": { "is": 1 } }),
    ] {
        let (status, body) = client.call("POST", "/v0/bundles/", bare.clone()).await;
        assert!(
            status == 400
                && body["msg"]
                    .as_str()
                    .unwrap_or_default()
                    .contains("valid dictionary"),
            "{bare}: {body}"
        );
    }
    let first = client.offers(json!({})).await.remove(0);
    assert!(
        client
            .offers(json!({ "id": { "eq": first["id"] } }))
            .await
            .is_empty()
    );
    assert_eq!(
        client
            .offers(json!({ "ask_contract_id": { "eq": first["id"] } }))
            .await
            .len(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_search_is_sorted_capped_and_verified_unless_it_says_otherwise() {
    let client = client();
    let order = json!([["dph_total", "asc"]]);
    let found = client
        .offers(json!({ "limit": 3000, "order": order }))
        .await;
    assert_eq!(found.len(), 64);
    assert!(found.is_sorted_by_key(|offer| offer["dph_total"].as_f64().map(f64::to_bits)));
    assert!(
        found
            .iter()
            .all(|offer| offer["verification"] == "verified")
    );
    let unverified = client
        .offers(json!({ "verified": { "eq": false }, "order": order }))
        .await;
    assert!(
        !unverified.is_empty()
            && unverified
                .iter()
                .all(|offer| offer["verification"] == "unverified")
    );
    let search = |kind: &str, storage: u32| {
        json!({ "type": kind, "allocated_storage": storage,
        "ask_contract_id": { "eq": found[0]["id"] } })
    };
    let (small, large, bid) = (
        client.offers(search("on-demand", 0)).await,
        client.offers(search("ondemand", 720)).await,
        client.offers(search("bid", 0)).await,
    );
    let price = |found: &[Value]| found[0]["dph_total"].as_f64().unwrap_or_default();
    assert!(
        (price(&large) - price(&small) - 0.2).abs() < 1e-6,
        "storage is priced as asked for"
    );
    assert_eq!(bid[0]["dph_total"], bid[0]["min_bid"]);
}

#[tokio::test(start_paused = true)]
async fn an_order_is_checked_and_what_is_wrong_is_told_with_all_that_was_sent() {
    let client = client();
    let ask = client.offers(json!({})).await[0]["id"].clone();
    let long = "x".repeat(5000);
    let wrong = [
        json!({}),
        json!({ "image": "x", "disk": 4 }),
        json!({ "image": "x", "label": &long[..300] }),
        json!({ "image": "x", "onstart": long }),
        json!({ "image": "x", "args": [long] }),
        json!({ "image": "x", "runtype": "magic" }),
        json!({ "image": "x", "env": { "A": "x".repeat(40_000) } }),
        json!({ "image": "x", "price": 500 }),
    ];
    for body in wrong {
        let (status, told) = client.call("PUT", &format!("/v0/asks/{ask}/"), body).await;
        assert_eq!((status, &told["success"]), (400, &json!(false)), "{told}");
    }
    let (_, told) = client
        .call(
            "PUT",
            &format!("/v0/asks/{ask}/"),
            json!({ "image": "x", "disk": 1, "env": { "A": "zz-secret" } }),
        )
        .await;
    assert!(
        told["msg"]
            .as_str()
            .unwrap_or_default()
            .contains("zz-secret"),
        "the cloud echoes: {told}"
    );
    assert_eq!(client.world.ledger().clouds[NAME].created, 0);
}

#[tokio::test(start_paused = true)]
async fn an_order_without_a_price_is_on_demand_whatever_the_search_was_and_numbers_rise() {
    let client = client();
    let ask = client
        .offers(json!({ "type": "bid", "reliability": { "gt": 0.98 } }))
        .await[0]
        .clone();
    let (_, made) = client
        .call(
            "PUT",
            &format!("/v0/asks/{}/", ask["id"]),
            json!({ "image": "x" }),
        )
        .await;
    let first = made["new_contract"].as_u64().expect("a number");
    let shown = client.instance(first).await;
    assert_eq!(shown["is_bid"], json!(false));
    assert!(
        shown["dph_base"].as_f64() > ask["dph_base"].as_f64(),
        "the full price: {shown}"
    );
    assert!(client.rent(json!({})).await > first);
    assert_eq!(
        client
            .call(
                "PUT",
                &format!("/v0/asks/{}/", ask["id"]),
                json!({ "image": "x" })
            )
            .await
            .1["success"],
        json!(false)
    );
}

#[tokio::test(start_paused = true)]
async fn a_life_is_told_in_docker_words_with_ports_only_while_it_runs() {
    let client = client();
    let id = client
        .rent(json!({ "env": { "MODEL": "tiny", "-p 8000:8000": "1" }, "label": "mine" }))
        .await;
    assert_eq!(client.instance(id).await["actual_status"], Value::Null);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..150 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let shown = client.instance(id).await;
        let status = shown["actual_status"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            status == "running" || shown.get("ports").is_none(),
            "{shown}"
        );
        seen.insert(status);
    }
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        ["", "created", "loading", "running"]
    );
    let shown = client.instance(id).await;
    let rows = shown["ports"]["8000/tcp"].as_array().expect("rows").clone();
    assert!(
        rows.len() == 2 && rows.iter().all(|row| row["HostPort"].is_string()),
        "{rows:?}"
    );
    assert!(
        shown["extra_env"]
            .as_array()
            .expect("pairs")
            .contains(&json!(["MODEL", "tiny"]))
    );
    assert_ne!(
        shown["public_ipaddr"].as_str().map(str::trim),
        shown["public_ipaddr"].as_str()
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_waits_for_its_card_and_then_happens_by_itself() {
    let client = client();
    let id = client.rent(json!({})).await;
    let path = format!("/v0/instances/{id}/");
    tokio::time::sleep(Duration::from_secs(300)).await;
    client
        .call("PUT", &path, json!({ "state": "stopped" }))
        .await;
    let machine = client.world.truth(NAME, &id.to_string()).expect("it");
    client
        .world
        .set_stock(NAME, &machine.spec.shape, "", &machine.region, 0);
    let (status, told) = client
        .call("PUT", &path, json!({ "state": "running" }))
        .await;
    assert!(
        status == 200
            && told["msg"]
                .as_str()
                .unwrap_or_default()
                .contains("Required resources"),
        "{told}"
    );
    let shown = client.instance(id).await;
    assert_eq!(
        (&shown["intended_status"], &shown["cur_state"]),
        (&json!("running"), &json!("stopped"))
    );
    client
        .world
        .set_stock(NAME, &machine.spec.shape, "", &machine.region, 2);
    client.instance(id).await;
    assert_eq!(
        client
            .world
            .truth(NAME, &id.to_string())
            .map(|machine| machine.state),
        Some(MachineState::Provisioning)
    );
}

#[tokio::test(start_paused = true)]
async fn the_list_has_pages_by_an_opaque_token_and_filters_on_what_is_stored() {
    let client = client();
    for n in 0..30 {
        client
            .rent(json!({ "label": format!("job-{}", n % 2) }))
            .await;
    }
    let (_, first) = client
        .call("GET", "/v1/instances/?limit=500", Value::Null)
        .await;
    assert_eq!(
        (
            first["instances"].as_array().map(Vec::len),
            &first["total_instances"]
        ),
        (Some(25), &json!(30))
    );
    let token = first["next_token"]
        .as_str()
        .expect("a token")
        .replace('=', "%3D");
    let (_, second) = client
        .call(
            "GET",
            &format!("/v1/instances/?after_token={token}"),
            Value::Null,
        )
        .await;
    assert_eq!(
        (
            second["instances"].as_array().map(Vec::len),
            &second["next_token"]
        ),
        (Some(5), &Value::Null)
    );
    assert_eq!(
        client
            .call("GET", "/v1/instances/?limit=0", Value::Null)
            .await
            .1["instances"]
            .as_array()
            .map(Vec::len),
        Some(5)
    );
    let label = "/v1/instances/?select_filters=%7B%22label%22%3A%7B%22eq%22%3A%22job-1%22%7D%7D";
    let (_, found) = client.call("GET", label, Value::Null).await;
    assert_eq!(
        (&found["instances_found"], &found["label_counts"]),
        (&json!(15), &json!({ "job-1": 15 }))
    );
    for (query, error) in [
        ("after_token=nonsense", "invalid_token"),
        (
            "select_filters=%7B%22num_gpus%22%3A%7B%22eq%22%3A1%7D%7D",
            "invalid_request",
        ),
    ] {
        let (status, body) = client
            .call("GET", &format!("/v1/instances/?{query}"), Value::Null)
            .await;
        assert_eq!((status, &body["error"]), (400, &json!(error)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_is_on_another_host_after_a_while_and_refuses_whoever_brings_a_key() {
    let client = client();
    let id = client.rent(json!({})).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let logs = format!("/v0/instances/request_logs/{id}/");
    assert_eq!(
        client.call("PUT", &logs, json!({ "tail": 5 })).await.0,
        400,
        "a tail is a text"
    );
    let (_, told) = client.call("PUT", &logs, json!({ "tail": "1" })).await;
    let url = told["result_url"].as_str().expect("a url").to_owned();
    assert_eq!(
        client
            .as_key(Some("sim-key"), "GET", &url, Value::Null)
            .await
            .0,
        400
    );
    assert_eq!(client.service.keys_leaked(), 1);
    for due in [403, 403, 200] {
        assert_eq!(client.as_key(None, "GET", &url, Value::Null).await.0, due);
    }
    let unsigned = url.split('?').next().unwrap_or_default();
    assert_eq!(
        client.as_key(None, "GET", unsigned, Value::Null).await.0,
        404
    );
    client
        .call("DELETE", &format!("/v0/instances/{id}/"), Value::Null)
        .await;
    assert_eq!(
        client.as_key(None, "GET", &url, Value::Null).await.0,
        404,
        "it goes with its instance"
    );
    assert_eq!(client.call("PUT", &logs, json!({})).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn endpoints_have_least_intervals_and_a_refusal_has_two_bodies_and_no_header() {
    let client = client();
    let id = client.rent(json!({})).await;
    client.quirks(|quirks| quirks.rates = Some(Rates::default()));
    let read = format!("/v0/instances/{id}/");
    let mut bodies = Vec::new();
    for due in [200, 429, 429] {
        let (status, text) = client
            .as_key(Some("sim-key"), "GET", &read, Value::Null)
            .await;
        assert_eq!(status, due, "{text}");
        bodies.push(text.starts_with('{'));
    }
    assert_eq!(bodies[1..], [false, true]);
    assert_eq!(
        client
            .as_key(Some("other-key"), "GET", &read, Value::Null)
            .await
            .0,
        200,
        "another key has its own"
    );
    for n in 0..11 {
        let (status, _) = client.call("POST", "/v0/bundles/", json!({})).await;
        assert_eq!(status, if n < 10 { 200 } else { 429 }, "search {n}");
    }
    let order = json!({ "image": "x/y:1" });
    for (wait, due) in [(0, 404), (1, 429), (5, 429), (8, 404)] {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        assert_eq!(
            client.call("PUT", "/v0/asks/1/", order.clone()).await.0,
            due,
            "whoever came too early waits longer"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_destroyed_instance_is_gone_once_and_faults_spoil_answers_and_not_the_work() {
    let client = client();
    let id = client.rent(json!({})).await;
    let path = format!("/v0/instances/{id}/");
    client
        .world
        .inject([Fault::new(NAME, "terminate", FaultKind::Html502)]);
    assert_eq!(client.call("DELETE", &path, Value::Null).await.0, 502);
    let (status, told) = client.call("DELETE", &path, Value::Null).await;
    assert_eq!((status, &told["error"]), (404, &json!("no_such_instance")));
    assert_eq!(client.world.ledger().clouds[NAME].live, 0);
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_of_one_machine_and_its_name_of_plain_letters() {
    let client = client();
    let (_, found) = client
        .call("POST", "/v0/volumes/search/", json!({ "limit": 3 }))
        .await;
    let offer = &found["offers"][0];
    let make = async |name: &str| {
        client
            .call(
                "PUT",
                "/v0/volumes/",
                json!({ "id": offer["id"], "size": 20, "name": name }),
            )
            .await
    };
    assert_eq!(
        (make("a-b").await.0, make(&"x".repeat(65)).await.0),
        (422, 422)
    );
    let (status, made) = make("data_1").await;
    assert!(
        status == 200
            && made["volume_name"]
                .as_str()
                .is_some_and(|name| name.starts_with("V.")),
        "{made}"
    );
    let (_, listed) = client
        .call("GET", "/v0/volumes/?owner=me&type=all_volume", Value::Null)
        .await;
    let row = &listed["volumes"][0];
    assert_eq!(
        (&row["machine_id"], &row["status"]),
        (&offer["machine_id"], &json!("created"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_path_without_its_slash_may_be_nothing_at_all_and_what_is_done_may_be_told_by_an_empty_answer()
 {
    let client = client();
    client.quirks(|quirks| quirks.slashless_is_404 = true);
    assert_eq!(
        client.call("GET", "/v1/instances", Value::Null).await.0,
        404
    );
    let id = client.rent(json!({})).await;
    client.quirks(|quirks| quirks.says_nothing = true);
    let path = format!("/v0/instances/{id}/");
    assert_eq!(
        client
            .as_key(Some("sim-key"), "DELETE", &path, Value::Null)
            .await,
        (200, String::new())
    );
    assert_eq!(client.world.ledger().clouds[NAME].live, 0);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_does_not_cancel_waits_for_its_card_and_starts_by_itself() {
    let client = client();
    let ask = client
        .offers(json!({ "gpu_name": { "eq": "RTX 4090" } }))
        .await[0]
        .clone();
    let path = format!("/v0/asks/{}/", ask["id"]);
    client.quirks(|quirks| quirks.races_lost = 1);
    let (status, made) = client
        .call(
            "PUT",
            &path,
            json!({ "image": "x/y:1", "cancel_unavail": false }),
        )
        .await;
    assert_eq!((status, &made["success"]), (200, &json!(true)), "{made}");
    let id = made["new_contract"].as_u64().expect("a number");
    let shown = client.instance(id).await;
    assert_eq!(
        (&shown["intended_status"], &shown["cur_state"]),
        (&json!("running"), &json!("stopped"))
    );
    let machine = client.world.truth(NAME, &id.to_string()).expect("it");
    assert_eq!(
        (machine.state, machine.burn() > atlas_core::UsdPerHour::ZERO),
        (MachineState::Stopped, true),
        "its disk bills"
    );
    client
        .world
        .set_stock(NAME, &machine.spec.shape, "", &machine.region, 2);
    client.instance(id).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(client.instance(id).await["actual_status"], "running");
    assert_eq!(
        client.call("PUT", &path, json!({ "image": "x" })).await.1["success"],
        json!(false),
        "it has the card now"
    );
}

#[tokio::test(start_paused = true)]
async fn prepaid_money_ends_and_with_it_what_it_paid_for() {
    let client = client();
    let credit = |body: &Value| body["credit"].as_f64().unwrap_or_default();
    client.quirks(|quirks| (quirks.credit, quirks.image_gb) = (Some(Usd::from_cents(50)), 10));
    let id = client.rent(json!({})).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let (_, user) = client.call("GET", "/v0/users/current/", Value::Null).await;
    assert!(
        credit(&user) > 0.3 && credit(&user) < 0.48,
        "an image of 10 GB costs two cents: {user}"
    );
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    assert_eq!(client.instance(id).await["cur_state"], "stopped");
    let ask = client.offers(json!({})).await[0]["id"].clone();
    let (status, told) = client
        .call("PUT", &format!("/v0/asks/{ask}/"), json!({ "image": "x" }))
        .await;
    assert_eq!(
        (status, &told["error"]),
        (400, &json!("insufficient_credit"))
    );
    tokio::time::sleep(Duration::from_secs(49 * 3600)).await;
    assert_eq!(client.instance(id).await, Value::Null);
}

#[tokio::test(start_paused = true)]
async fn the_rows_of_searches_are_counted_by_account_and_day() {
    let client = client();
    client.quirks(|quirks| quirks.search_rows_a_day = Some(10));
    let search = json!({ "limit": 8 });
    for _ in 0..2 {
        let (status, _) = client
            .as_key(Some("sim-key"), "POST", "/v0/bundles/", search.clone())
            .await;
        assert_eq!(status, 200);
    }
    let (status, text) = client
        .as_key(Some("sim-key"), "POST", "/v0/bundles/", search.clone())
        .await;
    assert_eq!(status, 429);
    let body: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(body["error"], "search_quota_exceeded");
    let (status, _) = client
        .as_key(Some("other-key"), "POST", "/v0/bundles/", search.clone())
        .await;
    assert_eq!(status, 200, "another account has its own");
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    let (status, _) = client
        .as_key(Some("sim-key"), "POST", "/v0/bundles/", search)
        .await;
    assert_eq!(status, 200, "a new day");
}

#[tokio::test(start_paused = true)]
async fn what_the_official_client_calls_is_answered_or_named_as_not_simulated() {
    let client = client();
    let call = async |method: &str, url: &str, body: Value| {
        let (status, text) = client.as_key(Some("sim-key"), method, url, body).await;
        (
            status,
            serde_json::from_str::<Value>(&text).unwrap_or_default(),
        )
    };
    let (_, found) = call("POST", "/v0/bundles/", json!({ "limit": 1 })).await;
    let ask = &found["offers"][0]["id"];
    let order = json!({ "image": "u", "disk": 20, "runtype": "args" });
    let (_, made) = call("PUT", &format!("/v0/asks/{ask}/"), order).await;
    let id = made["new_contract"].as_u64().expect("an id");
    let (status, names) = call("GET", "/v0/gpu_names/unique/", Value::Null).await;
    let names = names["gpu_names"].as_array().expect("names").len();
    assert!(status == 200 && names > 10, "{names}");
    let update = format!("/v0/instances/update_template/{id}/");
    let (status, _) = call("PUT", &update, json!({ "image": "u:2" })).await;
    assert_eq!(status, 200);
    let (_, read) = call("GET", &format!("/v0/instances/{id}/"), Value::Null).await;
    assert_eq!(read["instances"]["image_uuid"], "u:2");
    for url in [
        "/v0/gpu_types/",
        "/v0/secrets/",
        "/v0/instances/pending-price-increases/",
        "/v0/instances/count/",
    ] {
        assert_eq!(call("GET", url, Value::Null).await.0, 200, "{url}");
    }
    for (method, url) in [
        ("GET", "/v0/endptjobs/"),
        ("PUT", "/v0/launch_instance/"),
        ("POST", "/v0/asks/bulk/"),
        ("GET", "/v0/workergroups/"),
        ("GET", "/v0/template/"),
        ("POST", "/v0/instances/take_snapshot/7/"),
        ("GET", "/v0/instances/filters/"),
        ("PUT", "/v0/users/"),
        ("POST", "/v0/secrets/"),
        ("GET", "/v0/tfa/status/"),
    ] {
        let (status, body) = call(method, url, json!({})).await;
        assert_eq!(
            (status, &body["error"]),
            (501, &json!("not_simulated")),
            "{url}"
        );
    }
    assert_eq!(call("GET", "/v0/nothing/", Value::Null).await.0, 404);
    let many = json!({ "instance_ids": [id, 999] });
    let (_, gone) = call("DELETE", "/v0/instances/", many).await;
    assert_eq!(gone["destroyed"], json!([id]));
    let (_, read) = call("GET", &format!("/v0/instances/{id}/"), Value::Null).await;
    assert_eq!(read["instances"], Value::Null);
}
