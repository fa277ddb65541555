//! Logs: read to their end, followed across reconnects.

use std::future::poll_fn;

use atlas_core::{CallContext, ComputeId, ErrorKind, LogQuery, LogSource};
use serde_json::json;

use crate::script::{Reply, Script, json as reply, problem};

fn events(lines: &[(&str, &str)]) -> Reply {
    let event = |(id, line): &(&str, &str)| {
        format!(
            "id: {id}\ndata: {}\n\n",
            json!({"source": "container", "line": line, "ts": id})
        )
    };
    Reply(200, "text/event-stream", lines.iter().map(event).collect())
}

async fn read(cloud: &Script, query: LogQuery) -> Vec<Result<String, ErrorKind>> {
    let id = ComputeId::new("p1").unwrap();
    let mut stream = cloud
        .provider()
        .logs(&CallContext::new().with_retries(0), &id, &query)
        .await
        .unwrap();
    let mut lines = Vec::new();
    while let Some(line) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        lines.push(line.map(|line| line.text).map_err(|error| error.kind()));
    }
    lines
}

#[tokio::test(start_paused = true)]
async fn a_log_is_read_to_its_end() {
    let cloud = Script::new([events(&[
        ("2026-09-03T10:16:09Z", "a"),
        ("2026-09-03T10:16:10Z", "b"),
    ])]);
    let mut query = LogQuery::default().tail(7);
    query.source = Some(LogSource::System);
    assert_eq!(
        read(&cloud, query).await,
        [Ok("a".to_owned()), Ok("b".to_owned())]
    );
    assert_eq!(cloud.lines(), ["GET /v2/pods/p1/logs?source=system&tail=7"]);
    assert_eq!(cloud.asked()[0].headers["accept"], "text/event-stream");
}

#[tokio::test(start_paused = true)]
async fn a_followed_log_goes_on_where_it_broke_off_and_ends_with_its_pod() {
    let cloud = Script::new([
        events(&[("t1", "a"), ("t2", "b")]),
        reply(200, &json!({"id": "p1", "status": "RUNNING"})),
        events(&[("t2", "b"), ("t3", "c")]),
        reply(200, &json!({"id": "p1", "status": "EXITED"})),
    ]);
    assert_eq!(
        read(&cloud, LogQuery::default().follow(true)).await,
        ["a", "b", "c"].map(|line| Ok(line.to_owned()))
    );
    let asked = cloud.asked();
    assert_eq!(
        (
            asked[2].line.as_str(),
            asked[2].headers["last-event-id"].to_str().unwrap()
        ),
        ("GET /v2/pods/p1/logs", "t2")
    );
}

#[tokio::test(start_paused = true)]
async fn the_log_of_no_pod_is_not_found() {
    let id = ComputeId::new("p1").unwrap();
    let cloud = Script::new([problem(404, "pod not found")]);
    let error = cloud
        .provider()
        .logs(&CallContext::new(), &id, &LogQuery::default())
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_workers_log_is_followed_while_its_endpoint_knows_it() {
    let workers = |ids: &[&str]| {
        let all: Vec<_> = ids
            .iter()
            .map(|id| json!({"id": id, "status": "RUNNING"}))
            .collect();
        reply(200, &json!({"workers": all, "summary": {}}))
    };
    let cloud = Script::new([
        events(&[("t1", "a")]),
        workers(&["w1", "w2"]),
        events(&[("t2", "b")]),
        workers(&["w2"]),
    ]);
    let query = LogQuery::default().follow(true);
    let mut stream = cloud
        .runpod()
        .worker_logs(&CallContext::new().with_retries(0), "ep1", "w1", &query)
        .await
        .unwrap();
    let mut lines = Vec::new();
    while let Some(line) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        lines.push(line.unwrap().text);
    }
    assert_eq!(lines, ["a", "b"]);
    assert_eq!(
        cloud.lines()[..2],
        [
            "GET /v2/serverless/ep1/workers/w1/logs",
            "GET /v2/serverless/ep1/workers"
        ]
    );
}
