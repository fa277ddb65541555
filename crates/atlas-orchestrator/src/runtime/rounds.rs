//! Schedules the listings of an account: often by a walk that informs its sessions, less often by
//! the reaper.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::account::Account;
use super::core::Core;
use super::reaper::{Suspects, scan};
use super::steady::later;
use super::survey::observe;

/// The first walk after a return starts within this time, and is repeated until one is complete.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Lists an account periodically, while the orchestrator runs.
pub(crate) async fn keep(core: Arc<Core>, account: Arc<Account>, suspects: Arc<Suspects>) {
    let mut failures: u32 = 0;
    let first = account.policy.reap_interval / 4;
    let mut next_reap = later(core.entropy.duration_below(first));
    // Nothing from before the start is ended for idleness or cost before the first walk.
    let first = if core.slots.len() > 0 {
        account.policy.poll_interval.min(FIRST_LOOK)
    } else {
        account.policy.poll_interval
    };
    let mut next_poll = later(core.entropy.duration_below(first));
    loop {
        let wait = next_reap
            .min(next_poll)
            .saturating_duration_since(Instant::now());
        tokio::select! {
            biased;
            runs = core.sleep(wait) => if !runs { return },
            () = account.look.notified() => next_poll = Instant::now(),
        }
        if core.stopping.is_cancelled() {
            return;
        }
        let now = Instant::now();
        if next_reap <= now && account.policy.reap && core.lease.may_act() {
            next_reap = later(account.policy.reap_interval);
            match scan(&core, &account, &suspects, account.policy.report_only).await {
                Ok(report) if !report.victims.is_empty() || report.breaker => {
                    tracing::warn!(account = %account.name, victims = report.victims.len(),
                        breaker = report.breaker, "machines without a session");
                }
                Ok(_) => failures = 0,
                Err(error) => {
                    failures += 1;
                    tracing::warn!(account = %account.name, %error,
                        "the account could not be scanned");
                }
            }
            if account.looked_after() == core.steady.returns() {
                next_poll = next_poll.max(later(account.policy.poll_interval / 2));
            }
        } else {
            if next_reap <= now {
                next_reap = later(account.policy.reap_interval);
            }
            if next_poll <= now {
                let returns = core.steady.returns();
                let mut compared = false;
                match account.walk().await {
                    Ok(listed) => {
                        failures = 0;
                        compared = observe(&core, &account, &listed).await;
                    }
                    Err(failure) => {
                        failures += 1;
                        tracing::warn!(account = %account.name, error = failure.message,
                            "the account could not be looked at");
                    }
                }
                if compared {
                    core.steady.looked();
                    if account.has_looked(returns) {
                        core.slots.wake_all();
                    }
                }
                let looked = account.looked_after() == core.steady.returns();
                let poll = account.policy.poll_interval;
                let every = if looked { poll } else { poll.min(FIRST_LOOK) };
                // With jitter, and with backoff while the cloud does not answer.
                let interval = every.saturating_mul(1 << failures.min(3));
                let jitter = core.entropy.duration_below(interval / 10);
                next_poll = later(interval.saturating_add(jitter));
            }
        }
    }
}
