//! Records the spend at risk in dollars per hour by cause, and how the clocks compare, through the
//! `metrics` facade.

use std::sync::Arc;

use super::core::Core;
use super::reaper::Suspects;
use crate::audit::at_risk;

/// Sets the gauges once per reap interval, while the orchestrator runs. Serving machines are not at
/// risk and are not included.
pub(crate) async fn keep(core: Arc<Core>, suspects: Vec<Arc<Suspects>>) {
    let every = core.policy.default_account.reap_interval;
    while core.sleep(every).await {
        let clocks = crate::clocks::report(&core.steady);
        metrics::gauge!("atlas_clock_doubt_seconds").set(clocks.doubt_seconds);
        for (account, ahead) in clocks.clouds_ahead_seconds {
            let account = account.to_string();
            metrics::gauge!("atlas_cloud_clock_ahead_seconds", "account" => account).set(ahead);
        }
        match at_risk(&core, suspects.iter()).await {
            Ok(risk) => {
                let causes = [
                    ("unknown", risk.unknown),
                    ("terminating", risk.terminating),
                    ("stuck", risk.stuck),
                    ("quarantined", risk.quarantined),
                    ("orphan", risk.orphan),
                ];
                for (cause, burn) in causes {
                    metrics::gauge!("atlas_risk_usd_per_hour", "cause" => cause)
                        .set(burn.per_hour().to_f64());
                }
            }
            // The gauges keep their values: a failed read does not mean that nothing is at risk.
            Err(error) => tracing::warn!(%error, "what is at risk could not be read"),
        }
    }
}
