//! What the parent tells a worker: where its files are, how patient to be, and what to do.

use std::path::PathBuf;
use std::time::Duration;

use atlas_core::{AccountLimits, AccountName};
use atlas_orchestrator::{AccountPolicy, Policy};
use atlas_sim::Bounds;
use serde::{Deserialize, Serialize};

/// The hidden subcommand under which this binary is a worker; its orders come on stdin.
pub(crate) const WORKER: &str = "worker";
/// The label of sessions that are to outlive every kill.
pub(crate) const KEEPER: &str = "keeper";

/// What a worker is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Runs sessions until it is killed.
    Churn,
    /// Orders nothing; ends when everything that should end did.
    Settle,
    /// Ends everything.
    End,
}

/// One worker's orders, one line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) task: Task,
    pub(crate) seed: u64,
    pub(crate) store: PathBuf,
    pub(crate) secret: PathBuf,
    pub(crate) policy: Policy,
    pub(crate) limits: AccountLimits,
    pub(crate) patience: Duration,
    /// Whether the store may go back under this worker: it then says that it holds, and waits.
    pub(crate) may_hold: bool,
}

/// The one account of a run.
pub(crate) fn account() -> atlas_core::Result<AccountName> {
    AccountName::new("runpod")
}

/// How patient a client of this simulator has to be.
pub(crate) fn limits(bounds: &Bounds) -> AccountLimits {
    AccountLimits {
        visibility_bound: Duration::from_millis(bounds.visibility_bound_ms),
        call_deadline: Duration::from_millis(bounds.call_deadline_ms),
        call_interval: Duration::from_millis(bounds.call_interval_ms),
        burst: 20,
        concurrency: 16,
    }
}

/// The policy that goes with it: every span of the protocol shrunk as the simulator's are.
pub(crate) fn policy(bounds: &Bounds) -> atlas_core::Result<Policy> {
    let mut at = AccountPolicy::default();
    at.limits = Some(limits(bounds));
    at.grace = Duration::from_millis(bounds.grace_ms);
    at.reap_interval = Duration::from_millis(bounds.reap_interval_ms);
    at.poll_interval = Duration::from_millis(bounds.poll_interval_ms);
    let mut policy = Policy::default().with_account(account()?, at);
    policy.lease = Duration::from_millis(2000);
    policy.lease_renew = Duration::from_millis(400);
    policy.lease_margin = Duration::from_millis(300);
    policy.flush = Duration::from_millis(200);
    policy.tick = Duration::from_millis(100);
    Ok(policy)
}

impl Orders {
    /// How long after the last fault everything is as it should be (T_heal of the promises, and
    /// once the settling of an order).
    pub(crate) fn heal(&self) -> Duration {
        let at = self
            .policy
            .accounts
            .values()
            .next()
            .cloned()
            .unwrap_or_default();
        let settle = self.policy.lease + self.limits.call_deadline + self.limits.visibility_bound;
        2 * at.reap_interval + at.grace + 2 * self.limits.visibility_bound + settle
    }
}
