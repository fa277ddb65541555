//! The histogram of requests, when a recorder is installed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use atlas_core::{CallContext, RetryClass, Secret};
use atlas_http::Call;

use crate::cloud::{Act, Cloud, KEY, answer};

/// Remembers which histograms were recorded, with their labels.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Vec<String>>>);

impl Recorded {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no test panics with the lock"))
    }
}

impl metrics::Recorder for Recorded {
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
    fn register_counter(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        metrics::Counter::noop()
    }
    fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::noop()
    }
    fn register_histogram(
        &self,
        key: &metrics::Key,
        _: &metrics::Metadata<'_>,
    ) -> metrics::Histogram {
        let labels: Vec<String> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let line = format!("{} {}", key.name(), labels.join(" "));
        self.0
            .lock()
            .expect("no test panics with the lock")
            .push(line);
        metrics::Histogram::noop()
    }
}

#[test]
fn every_request_is_measured_by_what_became_of_it_and_no_secret_is_a_label() {
    let recorded = Recorded::default();
    metrics::with_local_recorder(&recorded, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let read = || {
                Call::get("get_compute", RetryClass::Safe, ["pods", "zz-path"])
                    .query("token", "zz-query")
            };
            let line = |status: &str| {
                format!(
                    "atlas_http_request_seconds provider=acme api=rest operation=get_compute \
                     status={status}"
                )
            };
            let cloud = Cloud::new([answer(503, ""), Act::Broken, answer(200, "{}")]);
            let cx = CallContext::new().with_api_key(Secret::new(KEY));
            cloud.client().call(&cx, read()).await.unwrap();
            assert_eq!(recorded.take(), [line("503"), line("none"), line("200")]);

            // A request whose caller stopped waiting is measured too.
            let silent = Cloud::new([Act::Silent]);
            let short = CallContext::new().with_timeout(Duration::from_secs(1));
            silent.client().call(&short, read()).await.unwrap_err();
            assert_eq!(recorded.take(), [line("none")]);
        });
    });
}
