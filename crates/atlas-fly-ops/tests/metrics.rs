//! What is counted and measured when a recorder is installed. It has a process of its own because
//! the test of the spans must be alone in its process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use atlas_fly_ops::{AppName, DeployRequest, FlyCli, LogClient, LogFilter, MintScope, Tokens};
use atlas_http::{Body, Transport};
use atlas_testkit::fake_fly::FakeFly;
use http::{Request, Response};

/// Remembers which metrics were touched, with their labels.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<String>>>);

impl Names {
    fn keep(&self, key: &metrics::Key) {
        let labels: Vec<String> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        self.0
            .lock()
            .unwrap()
            .push(format!("{} {}", key.name(), labels.join(" ")));
    }
}

impl metrics::Recorder for Names {
    fn describe_counter(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn describe_gauge(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn describe_histogram(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }

    fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        self.keep(key);
        metrics::Counter::noop()
    }

    fn register_gauge(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        self.keep(key);
        metrics::Gauge::noop()
    }

    fn register_histogram(
        &self,
        key: &metrics::Key,
        _: &metrics::Metadata<'_>,
    ) -> metrics::Histogram {
        self.keep(key);
        metrics::Histogram::noop()
    }
}

#[test]
fn metrics_count_tokens_pages_lines_and_deploys_by_what_became_of_them() {
    let names = Names::default();
    metrics::with_local_recorder(&names, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let fake = tempfile::tempdir().unwrap();
            let fly = FakeFly::new(fake.path()).unwrap();
            let tokens = Tokens::builder()
                .config_file(None)
                .cli(Some(FlyCli::new().program(fly.program())))
                .scope(MintScope::ReadOrganisation(Some("acme".into())))
                .build();
            let shop = AppName::new("shop").unwrap();
            tokens.get(&shop).await.unwrap();
            tokens.get(&shop).await.unwrap();
            fly.doing("echo one; echo two >&2; exit 1").unwrap();
            FlyCli::new()
                .program(fly.program())
                .deploy(DeployRequest::new(fake.path()))
                .await
                .unwrap_err();
            let api = tower::service_fn(|_: Request<Body>| async {
                Ok::<_, Infallible>(
                    Response::builder()
                        .status(404)
                        .body(Body::from(b"no".to_vec()))
                        .unwrap(),
                )
            });
            let client =
                LogClient::with_transport(tokens, "https://api.example", Transport::new(api));
            client
                .page(&shop, &LogFilter::all(), None)
                .await
                .unwrap_err();
        });
    });
    let mut names = names.0.lock().unwrap().clone();
    // What the HTTP client counts is its own.
    names.retain(|name| name.starts_with("atlas_fly_"));
    names.sort();
    names.dedup();
    assert_eq!(
        names,
        [
            "atlas_fly_deploy_lines_total pipe=stderr",
            "atlas_fly_deploy_lines_total pipe=stdout",
            "atlas_fly_deploy_seconds result=exit_code",
            "atlas_fly_logs_entries_total ",
            "atlas_fly_logs_fetches_total status=404",
            "atlas_fly_token_acquire_seconds source=cli acquirer=search",
            "atlas_fly_token_acquire_seconds source=memory acquirer=caller",
        ]
    );
}
