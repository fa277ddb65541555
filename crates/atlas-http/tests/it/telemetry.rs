//! The span of a call, and what no trace of it holds.

use std::io;
use std::sync::{Arc, Mutex};

use atlas_core::{CallContext, RetryClass, Secret};
use atlas_http::Call;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::cloud::{Cloud, KEY, answer};
use crate::wire::Server;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no test panics with the lock")).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("no test panics with the lock")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Everything that any crate traces on this thread until the guard is dropped.
fn traced() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    (log, guard)
}

fn call() -> Call {
    Call::post("spawn_compute", RetryClass::Safe, ["pods"])
        .query("token", "zzQUERYzz")
        .json(&serde_json::json!({"env": {"A": "zzBODYzz"}}))
        .header(
            http::HeaderName::from_static("x-extra"),
            http::HeaderValue::from_static("zzHEADERzz"),
        )
}

#[tokio::test]
async fn no_trace_of_any_crate_holds_a_key_a_query_a_header_or_a_body() {
    let (log, guard) = traced();
    let server = Server::answering_ok().await;
    let client = server.builder().build().unwrap();
    let cx = CallContext::new().with_api_key(Secret::new("zzCALLKEYzz"));
    client.call(&cx, call()).await.unwrap();
    let answer = client.call(&CallContext::new(), call()).await.unwrap();
    tracing::info!(?client, ?answer, call = ?call(), ?cx, "everything that can be printed");
    drop(guard);
    let text = log.text();
    assert!(
        text.contains("hyper_util") && text.contains("spawn_compute"),
        "nothing was traced:\n{text}"
    );
    for secret in [KEY, "zzCALLKEYzz", "zzQUERYzz", "zzBODYzz", "zzHEADERzz"] {
        let leak = text.lines().find(|line| line.contains(secret));
        assert!(leak.is_none(), "{secret}: {leak:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_span_per_call_carries_the_opentelemetry_names() {
    let (log, guard) = traced();
    let cloud = Cloud::new([answer(503, ""), answer(200, "{}"), answer(404, "{}")]);
    let client = cloud.builder().api("rest-v2").build().unwrap();
    client.call(&CallContext::new(), call()).await.unwrap();
    client.call(&CallContext::new(), call()).await.unwrap_err();
    drop(guard);
    let text = log.text();
    let closed: Vec<_> = text
        .lines()
        .filter(|line| line.contains("http.call") && line.contains(": close"))
        .collect();
    assert_eq!(closed.len(), 2, "{text}");
    for field in [
        r#"provider="acme""#,
        r#"api="rest-v2""#,
        r#"operation="spawn_compute""#,
        r#"http.request.method="POST""#,
        r#"url.path="/pods""#,
        r#"server.address="cloud.example""#,
        "server.port=443",
    ] {
        assert!(
            closed.iter().all(|line| line.contains(field)),
            "{field}: {text}"
        );
    }
    assert!(
        closed[0].contains("http.response.status_code=200")
            && closed[0].contains("http.request.resend_count=1"),
        "{text}"
    );
    assert!(
        closed[1].contains("http.response.status_code=404")
            && closed[1].contains(r#"error.type="not_found""#),
        "{text}"
    );
}
