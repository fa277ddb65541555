//! When an account is looked at: often by a walk that tells its sessions, less often by the reaper.

use std::sync::Arc;

use tokio::time::Instant;

use super::account::Account;
use super::core::Core;
use super::reaper::{Suspects, scan};
use super::survey::observe;

/// Looks at an account as long as the orchestrator runs.
pub(crate) async fn keep(core: Arc<Core>, account: Arc<Account>, suspects: Arc<Suspects>) {
    let mut failures: u32 = 0;
    let mut next_reap = Instant::now()
        + core
            .entropy
            .duration_below(account.policy.reap_interval / 4);
    let mut next_poll = Instant::now() + core.entropy.duration_below(account.policy.poll_interval);
    loop {
        let wait = next_reap
            .min(next_poll)
            .saturating_duration_since(Instant::now());
        if !core.sleep(wait).await || core.stopping.is_cancelled() {
            return;
        }
        let now = Instant::now();
        if next_reap <= now && account.policy.reap && core.lease.may_act() {
            next_reap = now + account.policy.reap_interval;
            match scan(&core, &account, &suspects, account.policy.report_only).await {
                Ok(report) if !report.victims.is_empty() || report.breaker => {
                    tracing::warn!(account = %account.name, victims = report.victims.len(), breaker = report.breaker, "machines without a session");
                }
                Ok(_) => failures = 0,
                Err(error) => {
                    failures += 1;
                    tracing::warn!(account = %account.name, %error, "the account could not be scanned");
                }
            }
            next_poll = next_poll.max(now + account.policy.poll_interval / 2);
        } else {
            if next_reap <= now {
                next_reap = now + account.policy.reap_interval;
            }
            if next_poll <= now {
                match account.walk().await {
                    Ok(listed) => {
                        failures = 0;
                        observe(&core, &account, &listed).await;
                    }
                    Err(failure) => {
                        failures += 1;
                        tracing::warn!(account = %account.name, error = failure.message, "the account could not be looked at");
                    }
                }
                // Jittered, and backing off while the cloud does not answer.
                let interval = account.policy.poll_interval * (1 << failures.min(3));
                next_poll = Instant::now() + interval + core.entropy.duration_below(interval / 10);
            }
        }
    }
}
