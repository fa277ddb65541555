//! Fly's log API in process: what it says to a good token, a bad one, and one of the wrong kind.

use std::time::Duration;

use atlas_testkit::dialect::fly_logs::{FlyLogs, Line, Refusal, Rights};
use atlas_testkit::world::{World, WorldClock};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tower::ServiceExt as _;

/// 2026-11-21T00:00:00Z, where a world begins.
const NOW: u64 = 1_795_219_200_000_000_000;

fn api() -> FlyLogs {
    let logs = FlyLogs::new(World::new(1, WorldClock::manual()));
    logs.add_token("fm2_good", Rights::Read);
    logs.add_token("fo1_good", Rights::Read);
    logs.add_token("fm2_deploy", Rights::DeployOnly);
    logs.add_app("shop");
    logs
}

async fn ask(logs: &FlyLogs, path: &str, authorization: &str) -> (u16, Value) {
    let request = Request::get(path)
        .header("authorization", authorization)
        .body(Full::<bytes::Bytes>::default())
        .expect("a request");
    let answer = logs.clone().oneshot(request).await.expect("an answer");
    let status = answer.status().as_u16();
    let body = answer
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn page(logs: &FlyLogs, query: &str) -> (Vec<String>, Value) {
    let (status, body) = ask(
        logs,
        &format!("/api/v1/apps/shop/logs{query}"),
        "FlyV1 fm2_good",
    )
    .await;
    assert_eq!(status, 200, "{body}");
    let message = |entry: &Value| {
        entry["attributes"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (
        body["data"]
            .as_array()
            .expect("entries")
            .iter()
            .map(message)
            .collect(),
        body["meta"]["next_token"].clone(),
    )
}

#[tokio::test]
async fn each_kind_of_token_is_good_under_its_own_scheme_only() {
    let logs = api();
    for (authorization, status) in [
        ("FlyV1 fm2_good", 200),
        ("FlyV1 fm2_other,fm2_good", 200),
        ("Bearer fo1_good", 200),
        ("Bearer fm2_good", 401),
        ("FlyV1 fo1_good", 401),
        ("Bearer FlyV1 fm2_good", 401),
        ("FlyV1 fm2_bad", 401),
        ("FlyV1 fm2_deploy", 403),
        ("fm2_good", 401),
    ] {
        assert_eq!(
            ask(&logs, "/api/v1/apps/shop/logs", authorization).await.0,
            status,
            "{authorization}"
        );
    }
    assert_eq!(
        ask(&logs, "/api/v1/apps/other/logs", "FlyV1 fm2_good")
            .await
            .0,
        404
    );
    logs.revoke_token("fm2_good");
    assert_eq!(
        ask(&logs, "/api/v1/apps/shop/logs", "FlyV1 fm2_good")
            .await
            .0,
        401
    );
    assert_eq!(logs.asked().len(), 11);
}

#[tokio::test]
async fn pages_go_on_by_the_nanosecond_and_the_first_is_the_newest_of_a_day() {
    let logs = api();
    let day = 24 * 3600 * 1_000_000_000;
    for at in [NOW - 8 * day, NOW - 2 * day] {
        logs.write("shop", Line::new(at, format!("{} days", (NOW - at) / day)));
    }
    (0..150).for_each(|n| logs.write("shop", Line::new(NOW - 1000 + n, n.to_string())));
    let (newest, cursor) = page(&logs, "").await;
    assert_eq!(
        (newest.len(), newest[0].as_str(), cursor.as_str()),
        (100, "50", Some(&*(NOW - 851).to_string()))
    );
    let (history, _) = page(&logs, "?next_token=1").await;
    assert_eq!(
        (history[0].as_str(), history.len()),
        ("2 days", 100),
        "seven days are kept"
    );
    assert_eq!(
        page(&logs, &format!("?next_token={}", NOW - 851)).await,
        (vec![], (NOW - 851).to_string().into())
    );
    logs.quirk(|quirks| (quirks.inclusive, quirks.token_as_number) = (true, true));
    assert_eq!(
        page(&logs, &format!("?next_token={}", NOW - 851)).await,
        (vec!["149".into()], (NOW - 851).into())
    );
    assert_eq!(
        ask(
            &logs,
            "/api/v1/apps/shop/logs?next_token=x",
            "FlyV1 fm2_good"
        )
        .await
        .0,
        400
    );
    assert_eq!(page(&logs, "?region=ams").await.0, Vec::<String>::new());
    logs.world().advance(Duration::from_secs(25 * 3600));
    assert_eq!(page(&logs, "").await, (vec![], "".into()));
}

#[tokio::test]
async fn refusals_come_first_and_once() {
    let logs = api();
    logs.refuse([Refusal {
        status: 429,
        retry_after: Some(7),
    }]);
    assert_eq!(
        ask(&logs, "/api/v1/apps/shop/logs", "FlyV1 fm2_good")
            .await
            .0,
        429
    );
    assert_eq!(
        ask(&logs, "/api/v1/apps/shop/logs", "FlyV1 fm2_good")
            .await
            .0,
        200
    );
}
