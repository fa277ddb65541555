//! The rules of a history: the policy of every node, and what a sabotage changes from outside.

use atlas_orchestrator::{AccountPolicy, Policy};

use crate::cloud::Cloud;

/// The rules for all nodes of a history.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    /// The store acknowledges intents that a crash then undoes.
    pub(crate) loses_intents: bool,
    /// The store shows readers only some of the events.
    pub(crate) drops_events: bool,
    /// How much more often processes are paused, if there are several.
    pub(crate) more_stalls: u64,
    /// A provider whose errors repeat what it was sent.
    pub(crate) leaks: bool,
}

impl Default for Rules {
    fn default() -> Self {
        let mut policy = Policy::default();
        for cloud in Cloud::all() {
            let mut account = AccountPolicy::default();
            account.limits = Some(cloud.limits());
            policy = policy.with_account(cloud.account_name(), account);
        }
        Self {
            policy,
            loses_intents: false,
            drops_events: false,
            more_stalls: 0,
            leaks: false,
        }
    }
}
