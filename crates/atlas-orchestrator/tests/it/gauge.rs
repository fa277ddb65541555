//! The price per hour at risk, as a recorder of the `metrics` facade sees it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atlas_testkit::world::FaultKind;
use metrics::{
    Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

use crate::node::{Bench, options, request, sleep};

/// The last value of each gauge, by its cause.
#[derive(Clone, Default)]
struct Gauges(Arc<Mutex<BTreeMap<String, f64>>>);

struct OneGauge(Gauges, String);

impl GaugeFn for OneGauge {
    fn increment(&self, by: f64) {
        *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += by;
    }

    fn decrement(&self, by: f64) {
        self.increment(-by);
    }

    fn set(&self, value: f64) {
        self.0.0.lock().unwrap().insert(self.1.clone(), value);
    }
}

impl Recorder for Gauges {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let labels: Vec<String> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        Gauge::from_arc(Arc::new(OneGauge(
            self.clone(),
            format!("{} {}", key.name(), labels.join(" ")),
        )))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn a_machine_that_cannot_be_ended_shows_on_the_gauge_of_its_cause() {
    let gauges = Gauges::default();
    let shown = |cause: &str| {
        gauges
            .0
            .lock()
            .unwrap()
            .get(&format!("atlas_risk_usd_per_hour cause={cause}"))
            .copied()
    };
    metrics::with_local_recorder(&gauges, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let bench = Bench::new(1);
            let node = bench.node("a").await;
            let session = node.atlas.spawn(request(), options()).await.unwrap();
            session.await_ready(Duration::from_secs(300)).await.unwrap();
            let burn = session.info().await.unwrap().cost.burn.per_hour().to_f64();
            sleep(300).await;
            assert_eq!(
                (shown("stuck"), shown("unknown")),
                (Some(0.0), Some(0.0)),
                "what serves is not at risk"
            );
            bench.fault("list_compute", FaultKind::RevokeKey);
            sleep(100).await;
            session.stop().await.unwrap();
            sleep(600).await;
            assert_eq!(shown("stuck"), Some(burn));
        });
    });
}
