//! What holds in a history: the policy of every node, and what a sabotage takes away from outside.

use std::time::Duration;

use atlas_core::AccountLimits;
use atlas_orchestrator::{AccountPolicy, Policy};

/// What holds for all nodes of a history.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    /// The store acknowledges intents that a crash then undoes.
    pub(crate) loses_intents: bool,
    /// The store shows readers only some of the events.
    pub(crate) drops_events: bool,
    /// How much oftener processes stand still, where there are several.
    pub(crate) more_stalls: u64,
    /// A provider repeats in its errors what it was sent.
    pub(crate) leaks: bool,
}

impl Default for Rules {
    fn default() -> Self {
        let limits = AccountLimits {
            visibility_bound: Duration::from_secs(120),
            call_deadline: Duration::from_secs(30),
            call_interval: Duration::from_millis(50),
            burst: 20,
            concurrency: 16,
        };
        let mut account = AccountPolicy::default();
        account.limits = Some(limits);
        let mut policy = Policy::default();
        policy.default_account = account;
        Self { policy, loses_intents: false, drops_events: false, more_stalls: 0, leaks: false }
    }
}
