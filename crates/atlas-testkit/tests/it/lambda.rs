//! The Lambda dialect, in process: what a client sees of it.

use std::collections::BTreeSet;
use std::time::Duration;

use atlas_testkit::dialect::lambda::{self, Lambda, NAME, Quirks, Rates};
use atlas_testkit::world::{Fault, FaultKind, Lag, World, WorldClock};
use data_encoding::BASE64;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;

const BASE: &str = "https://cloud.lambda.ai/api/v1";

struct Client {
    service: Lambda,
    world: World,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
    body: Value,
}

impl Answer {
    /// The error's code; empty for a success.
    fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }
}

fn client() -> Client {
    let world = World::new(7, WorldClock::following(1.0)).with_cloud(lambda::cloud());
    world.add_key(NAME, "sim-key", "me");
    Client {
        service: Lambda::new(world.clone()).with_quirks(Quirks::unlimited()),
        world,
    }
}

fn order(more: Value) -> Value {
    let mut body = json!({ "region_name": "us-west-2", "instance_type_name": "gpu_1x_a10",
        "ssh_key_names": ["atlas-fleet"], "name": "a" });
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

impl Client {
    fn quirks(&self, with: impl FnOnce(&mut Quirks)) {
        let mut quirks = Quirks::unlimited();
        with(&mut quirks);
        self.service.set_quirks(quirks);
    }

    async fn send(&self, authorization: &str, method: &str, url: &str, body: Value) -> Answer {
        let url = if url.starts_with("https://") {
            url.to_owned()
        } else {
            format!("{BASE}{url}")
        };
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", authorization);
        let request = request
            .body(Full::<bytes::Bytes>::from(text))
            .expect("a request");
        let (parts, body) = self
            .service
            .clone()
            .oneshot(request)
            .await
            .expect("an answer")
            .into_parts();
        let bytes = body
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
        }
    }

    async fn call(&self, method: &str, url: &str, body: Value) -> Answer {
        self.send("Bearer sim-key", method, url, body).await
    }

    async fn data(&self, method: &str, url: &str, body: Value) -> Value {
        let answer = self.call(method, url, body).await;
        assert_eq!(answer.status, 200, "{method} {url}: {}", answer.text);
        assert_eq!(answer.body.get("error"), None);
        answer.body["data"].clone()
    }

    /// A launch; the instance's id.
    async fn launch(&self, more: Value) -> String {
        let made = self
            .data("POST", "/instance-operations/launch", order(more))
            .await;
        made["instance_ids"][0].as_str().expect("an id").to_owned()
    }

    async fn refused(&self, more: Value) -> Answer {
        self.call("POST", "/instance-operations/launch", order(more))
            .await
    }

    async fn terminate(&self, ids: &[&str]) -> Answer {
        self.call(
            "POST",
            "/instance-operations/terminate",
            json!({ "instance_ids": ids }),
        )
        .await
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_comes_as_bearer_or_basic_and_any_other_is_refused_in_an_envelope() {
    let client = client();
    let pair = format!("Basic {}", BASE64.encode(b"sim-key:"));
    for good in ["Bearer sim-key", "bearer sim-key", &pair, "Basic sim-key"] {
        assert_eq!(
            client
                .send(good, "GET", "/instances", Value::Null)
                .await
                .status,
            200,
            "{good}"
        );
    }
    for bad in ["", "sim-key", "Bearer other", "Token sim-key"] {
        let answer = client.send(bad, "GET", "/instances", Value::Null).await;
        assert_eq!(
            (answer.status, answer.code()),
            (401, "global/invalid-api-key"),
            "{bad}"
        );
    }
    let unknown = client.call("GET", "/nothing", Value::Null).await;
    assert_eq!((unknown.status, unknown.code()), (404, "global/not-found"));
    assert!(unknown.body.get("data").is_none());
    let documented = client.call("GET", "/tickets/t1", Value::Null).await;
    assert_eq!(documented.status, 501);
    assert!(documented.text.contains("getTicket"), "{}", documented.text);
}

#[tokio::test(start_paused = true)]
async fn the_old_host_sends_everybody_on() {
    let client = client();
    let answer = client
        .call(
            "POST",
            "https://cloud.lambdalabs.com/api/v1/instance-operations/launch",
            order(json!({})),
        )
        .await;
    assert_eq!(answer.status, 301);
    assert_eq!(
        answer.headers["location"],
        "https://cloud.lambda.ai/api/v1/instance-operations/launch"
    );
    assert_eq!(client.world.ledger().clouds[NAME].created, 0);
}

#[tokio::test(start_paused = true)]
async fn ids_are_hexadecimal_and_those_of_images_are_uuids() {
    let client = client();
    let hex = |id: &Value| {
        let id = id.as_str().unwrap_or_default();
        id.len() == 32
            && id
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    assert!(hex(&Value::from(client.launch(json!({})).await)));
    let key = client
        .data("POST", "/ssh-keys", json!({ "name": "k" }))
        .await;
    let disk = client
        .data(
            "POST",
            "/filesystems",
            json!({ "name": "data", "region": "us-east-1" }),
        )
        .await;
    let rules = json!({ "name": "r", "region": "us-east-1", "rules": [] });
    let set = client.data("POST", "/firewall-rulesets", rules).await;
    for made in [&key, &disk, &set] {
        assert!(hex(&made["id"]), "{made}");
    }
    assert!(key["private_key"].is_string(), "told this once");
    let images = client.data("GET", "/images", Value::Null).await;
    assert!(
        images
            .as_array()
            .expect("a list")
            .iter()
            .all(|image| image["id"].as_str().is_some_and(|id| id.len() == 36))
    );
}

#[tokio::test(start_paused = true)]
async fn calls_have_a_pace_and_launches_their_own_and_a_refusal_has_no_header() {
    for plain in [false, true] {
        let client = client();
        client.quirks(|quirks| (quirks.rates, quirks.plain_429) = (Some(Rates::default()), plain));
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(client.call("GET", "/instances", Value::Null).await);
        }
        assert_eq!(
            statuses
                .iter()
                .filter(|answer| answer.status == 429)
                .count(),
            2,
            "two at once"
        );
        let refused = statuses.last().expect("four");
        assert_eq!(
            (
                refused.headers.contains_key("retry-after"),
                refused.body.is_null()
            ),
            (false, plain),
            "{}",
            refused.text
        );
        pass(30).await;
        let mut made = 0;
        for wait in [0, 6, 6, 12, 12, 12] {
            pass(wait).await;
            made += u32::from(client.refused(json!({})).await.status == 200);
        }
        // Those after 0, 12, 24, 36 and 48 seconds.
        assert_eq!((made, client.world.ledger().clouds[NAME].created), (5, 5));
        let brisk = Rates {
            launch: Duration::from_secs(1),
            ..Rates::default()
        };
        client.quirks(|quirks| quirks.rates = Some(brisk));
        pass(10).await;
        assert_eq!(
            client.refused(json!({})).await.status,
            429,
            "five in a minute, however they are spread"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_launch_is_checked_in_order_and_told_what_was_sent() {
    let client = client();
    let (invalid, unknown) = ("global/invalid-parameters", "global/object-does-not-exist");
    let long = "x".repeat(65);
    let script = "#!".to_owned() + &"x".repeat(1_000_000);
    let all_wrong = json!({
        "ssh_key_names": ["nobody's"], "instance_type_name": "gpu_9x", "region_name": "nowhere",
            "name": long, "hostname": "-",
        "tags": [{ "key": "BAD", "value": "zz-tag" }], "user_data": script, "quantity": 2,
            "image": { "family": "nobody's" },
    });
    let mut body = order(all_wrong);
    body["ssh_key_names"] = json!([]);
    // Each step mends what was complained of, and the next complaint comes.
    for (field, mended, code, words) in [
        (
            "ssh_key_names",
            json!(["nobody's"]),
            invalid,
            "Exactly one SSH key",
        ),
        ("ssh_key_names", json!(["atlas-fleet"]), unknown, "SSH key"),
        (
            "instance_type_name",
            json!("gpu_1x_a10"),
            unknown,
            "instance type",
        ),
        ("region_name", json!("us-west-2"), unknown, "region"),
        (
            "image",
            json!({ "family": "lambda-stack-24-04" }),
            unknown,
            "image",
        ),
        ("name", json!("a"), invalid, "name"),
        ("hostname", json!("host-1"), invalid, "hostname"),
        (
            "tags",
            json!([{ "key": "good", "value": "v" }]),
            invalid,
            "BAD=zz-tag",
        ),
        ("user_data", json!("#!/bin/sh"), invalid, "user_data"),
        ("quantity", json!(1), invalid, "too many instances"),
    ] {
        let answer = client
            .call("POST", "/instance-operations/launch", body.clone())
            .await;
        let said = answer.body["error"]["message"].as_str().unwrap_or_default();
        assert!(
            answer.status == 400 && answer.code() == code && said.contains(words),
            "{words}: {:.300}",
            answer.text
        );
        body[field] = mended;
    }
    assert_eq!(client.world.ledger().clouds[NAME].created, 0);
    assert_eq!(
        client
            .call("POST", "/instance-operations/launch", body)
            .await
            .status,
        200
    );
    client.quirks(|quirks| quirks.unknown_is_404 = true);
    assert_eq!(
        client
            .refused(json!({ "region_name": "nowhere" }))
            .await
            .status,
        404
    );
    for odd in ["A", "a_b", "a.b", "", &long] {
        assert_eq!(
            client.refused(json!({ "hostname": odd })).await.code(),
            invalid,
            "{odd}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn capacity_is_by_type_and_region_and_a_quota_is_not_capacity() {
    let client = client();
    client
        .world
        .set_stock(NAME, "gpu_1x_a10", "", "us-west-2", 0);
    assert_eq!(
        client.refused(json!({})).await.code(),
        "instance-operations/launch/insufficient-capacity"
    );
    assert_eq!(
        client
            .refused(json!({ "region_name": "us-east-1" }))
            .await
            .status,
        200
    );
    client.quirks(|quirks| quirks.quota = Some(1));
    let refused = client.refused(json!({ "region_name": "us-east-1" })).await;
    assert_eq!(
        (refused.status, refused.code()),
        (400, "global/quota-exceeded")
    );
    let types = client.data("GET", "/instance-types", Value::Null).await;
    assert_eq!(
        types["gpu_8x_v100"]["regions_with_capacity_available"],
        json!([]),
        "sold out, and listed all the same"
    );
    let cpu = &types["cpu_4x_general"]["instance_type"];
    assert_eq!(
        (&cpu["specs"]["gpus"], &cpu["gpu_description"]),
        (&json!(0), &json!("N/A"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_address_shows_before_an_instance_is_active_and_what_was_written_is_never_read() {
    let client = client();
    let id = client
        .launch(
            json!({ "user_data": "#!/bin/sh\n# zz-script", "tags": [{ "key": "kk",
        "value": "v" }] }),
        )
        .await;
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        let shown = client
            .data("GET", &format!("/instances/{id}"), Value::Null)
            .await;
        seen.insert((
            shown["status"].as_str().unwrap_or_default().to_owned(),
            shown.get("ip").is_some(),
        ));
        let text = shown.to_string();
        assert!(
            !text.contains("zz-script") && !text.contains("created") && !text.contains("user_data"),
            "{text}"
        );
        pass(5).await;
    }
    let expected = [("active", true), ("booting", false), ("booting", true)]
        .map(|(word, ip)| (word.to_owned(), ip));
    assert_eq!(seen, expected.into());
    let shown = client
        .data("GET", &format!("/instances/{id}"), Value::Null)
        .await;
    assert!(
        shown["jupyter_url"]
            .as_str()
            .is_some_and(|url| url.contains("zz-jupyter")),
        "recognisable secrets: {shown}"
    );
    assert_eq!(shown["tags"], json!([{ "key": "kk", "value": "v" }]));
}

#[tokio::test(start_paused = true)]
async fn an_end_is_told_of_for_a_while_then_not_found_and_a_second_terminate_is_too_late() {
    let client = client();
    let (first, second) = (
        client.launch(json!({})).await,
        client.launch(json!({})).await,
    );
    pass(600).await;
    let before = client
        .data("GET", &format!("/instances/{first}"), Value::Null)
        .await["ip"]
        .clone();
    let missing = client.terminate(&[&first, "nothing"]).await;
    assert_eq!(
        (missing.status, missing.code()),
        (404, "global/object-does-not-exist"),
        "one unknown id fails all"
    );
    let answer = client.terminate(&[&first]).await;
    assert_eq!(
        answer.body["data"]["terminated_instances"][0]["status"],
        "terminating"
    );
    assert_eq!(
        client.terminate(&[&first]).await.code(),
        "global/object-does-not-exist"
    );
    pass(31).await;
    assert_eq!(
        client
            .data("GET", &format!("/instances/{first}"), Value::Null)
            .await["status"],
        "terminated"
    );
    assert!(client.world.preempt_machine(NAME, &second));
    let listed = client.data("GET", "/instances", Value::Null).await;
    let words: Vec<&str> = listed
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|row| row["status"].as_str())
        .collect();
    assert_eq!(words, ["preempted", "terminated"], "newest first");
    pass(61).await;
    assert_eq!(
        client.data("GET", "/instances", Value::Null).await,
        json!([])
    );
    for id in [&first, &second] {
        assert_eq!(
            client
                .call("GET", &format!("/instances/{id}"), Value::Null)
                .await
                .code(),
            "global/object-does-not-exist"
        );
    }
    let again = client.launch(json!({})).await;
    pass(600).await;
    let shown = client
        .data("GET", &format!("/instances/{again}"), Value::Null)
        .await;
    assert!(again != first && shown["ip"] != before, "another machine");
}

#[tokio::test(start_paused = true)]
async fn what_boots_is_not_rebooted_and_may_refuse_to_end() {
    let client = client();
    client.quirks(|quirks| quirks.holds_while_booting = true);
    let id = client.launch(json!({})).await;
    let restart = async || {
        client
            .call(
                "POST",
                "/instance-operations/restart",
                json!({ "instance_ids": [id] }),
            )
            .await
    };
    assert_eq!(
        (
            restart().await.code().to_owned(),
            client.terminate(&[&id]).await.status
        ),
        ("global/conflict".to_owned(), 409)
    );
    pass(600).await;
    assert_eq!(
        (
            restart().await.status,
            client.terminate(&[&id]).await.status
        ),
        (200, 200)
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_no_lost_machine_and_a_new_one_may_be_listed_late() {
    for (kind, status) in [(FaultKind::CommitThen500, 500), (FaultKind::Html502, 502)] {
        let client = client();
        client
            .world
            .inject([Fault::new(NAME, "spawn_compute", kind)]);
        let answer = client.refused(json!({})).await;
        assert_eq!(
            (answer.status, client.world.ledger().clouds[NAME].live),
            (status, 1),
            "{kind}"
        );
        let code = if status == 500 {
            "provider/internal-unavailable"
        } else {
            ""
        };
        assert_eq!(answer.code(), code);
    }
    let client = client();
    let bound = Duration::from_secs(120);
    client.world.set_lag(
        NAME,
        Lag {
            list_appears: bound,
            ..Lag::default()
        },
    );
    for _ in 0..12 {
        client.launch(json!({})).await;
    }
    let count = async || {
        client
            .data("GET", "/instances", Value::Null)
            .await
            .as_array()
            .map(Vec::len)
    };
    assert!(count().await < Some(12));
    pass(bound.as_secs()).await;
    assert_eq!(count().await, Some(12));
    client
        .world
        .inject([Fault::new(NAME, "list_compute", FaultKind::Truncated)]);
    assert!(
        client
            .call("GET", "/instances", Value::Null)
            .await
            .body
            .is_null(),
        "cut off in the middle"
    );
}

#[tokio::test(start_paused = true)]
async fn file_systems_have_two_spellings_one_region_and_no_end_while_mounted() {
    let client = client();
    assert_eq!(
        client
            .call(
                "POST",
                "/file-systems",
                json!({ "name": "data", "region": "us-east-1" })
            )
            .await
            .status,
        405
    );
    let made = client
        .data(
            "POST",
            "/filesystems",
            json!({ "name": "data", "region": "us-east-1" }),
        )
        .await;
    let again = client
        .call(
            "POST",
            "/filesystems",
            json!({ "name": "data", "region": "us-east-1" }),
        )
        .await;
    assert_eq!(again.code(), "global/duplicate");
    let wrong = client
        .refused(json!({ "file_system_names": ["data"] }))
        .await;
    assert_eq!(
        wrong.code(),
        "instance-operations/launch/file-system-in-wrong-region"
    );
    let mount = |point: &str| {
        json!({ "region_name": "us-east-1", "file_system_mounts": [{
        "mount_point": point, "file_system_id": made["id"] }] })
    };
    assert_eq!(
        client.refused(mount("/etc")).await.code(),
        "global/invalid-parameters"
    );
    let path = format!("/filesystems/{}", made["id"].as_str().expect("an id"));
    for how in [
        json!({ "region_name": "us-east-1", "file_system_names": ["data"] }),
        mount("/data/models"),
    ] {
        let id = client.launch(how).await;
        assert_eq!(
            client.data("GET", "/file-systems", Value::Null).await[0]["is_in_use"],
            true
        );
        assert_eq!(
            client.call("DELETE", &path, Value::Null).await.code(),
            "filesystems/filesystem-in-use"
        );
        client.terminate(&[&id]).await;
        pass(60).await;
    }
    assert_eq!(client.call("DELETE", &path, Value::Null).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_firewall_lets_in_ping_and_ssh_and_replaced_rules_are_all_there_are() {
    let client = client();
    let rules = client.data("GET", "/firewall-rules", Value::Null).await;
    let open: Vec<&str> = rules
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|rule| rule["protocol"].as_str())
        .collect();
    assert_eq!(
        (open, &rules[0]["port_range"]),
        (vec!["tcp", "icmp"], &json!([22, 22]))
    );
    let one = json!([{ "protocol": "udp", "port_range": [8000, 8000],
        "source_network": "0.0.0.0/0", "description": "" }]);
    assert_eq!(
        client
            .data("PUT", "/firewall-rules", json!({ "data": one }))
            .await,
        one
    );
    assert_eq!(
        client
            .data("GET", "/firewall-rulesets/global", Value::Null)
            .await["rules"],
        one
    );
    for wrong in [
        json!([{ "protocol": "icmp", "port_range": [1, 2], "source_network": "0.0.0.0/0",
            "description": "" }]),
        json!({}),
    ] {
        assert_eq!(
            client
                .call("PUT", "/firewall-rules", json!({ "data": wrong }))
                .await
                .code(),
            "global/invalid-parameters"
        );
    }
    let script = "#!/bin/sh\ndocker run -d -p 8000:8000 x/y:1\n";
    let (guarded, open) = (
        client.launch(json!({ "user_data": script })).await,
        client
            .launch(json!({ "user_data": script, "region_name": "us-south-1" }))
            .await,
    );
    let ports = |id: &str| {
        client
            .world
            .truth(NAME, id)
            .map(|machine| machine.spec.ports.len())
    };
    assert_eq!(
        (ports(&guarded), ports(&open)),
        (Some(0), Some(1)),
        "udp opens no tcp, and one region has no firewall"
    );
}

#[tokio::test(start_paused = true)]
async fn pages_are_announced_beside_the_data_and_objects_may_grow_fields() {
    let client = client();
    for _ in 0..3 {
        client.launch(json!({})).await;
    }
    client.quirks(|quirks| (quirks.page_size, quirks.extra_fields) = (2, true));
    for list in ["/instances", "/audit-events"] {
        let first = client.call("GET", list, Value::Null).await.body;
        assert_eq!(
            (
                first["data"].as_array().map(Vec::len),
                first["data"][0]["brand_new"].is_object()
            ),
            (Some(2), true)
        );
        let token = first["page_token"].as_str().expect("there is more");
        let last = client
            .call("GET", &format!("{list}?page_token={token}"), Value::Null)
            .await
            .body;
        assert_eq!(
            (last["data"].as_array().map(Vec::len), &last["page_token"]),
            (Some(1), &Value::Null),
            "{list}"
        );
    }
    let none = client
        .data(
            "GET",
            "/audit-events?resource_type=cloud.other",
            Value::Null,
        )
        .await;
    assert_eq!(none, json!([]));
    assert_eq!(
        client
            .call("GET", "/audit-events?start=yesterday", Value::Null)
            .await
            .code(),
        "global/invalid-parameters"
    );
}
