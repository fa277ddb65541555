//! What an orchestrator knows of the clocks around it, for operators.

use std::time::Duration;

use atlas_core::{AccountName, DateListener};
use serde::Serialize;

use crate::kernel::clock::MAX_DIFFERENCE;
use crate::orchestrator::Orchestrator;

/// How the clocks that a deployment depends on compare.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ClockReport {
    /// How much of the present time is in doubt, in seconds: the clocks agree only that the time
    /// less this has been reached. No session is ended by what is in doubt.
    pub doubt_seconds: f64,
    /// How many seconds each account's cloud is ahead of the store's clock, where a call to it was
    /// answered with a date. Negative when it is behind.
    pub clouds_ahead_seconds: Vec<(AccountName, f64)>,
}

impl ClockReport {
    /// The accounts whose clouds' clocks differ from the store's by so much that nothing is decided
    /// on the difference.
    pub fn differing(&self) -> impl Iterator<Item = (&AccountName, f64)> {
        self.clouds_ahead_seconds
            .iter()
            .filter(|(_, ahead)| ahead.abs() > MAX_DIFFERENCE.as_secs_f64())
            .map(|(account, ahead)| (account, *ahead))
    }
}

impl Orchestrator {
    /// How the clocks compare that this deployment depends on. Asks nobody: by what calls so far
    /// were answered with.
    #[must_use]
    pub fn clocks(&self) -> ClockReport {
        report(&self.core.steady)
    }

    /// For calls on an account that are made beside the orchestrator: what their answers say of the
    /// time is taken into account.
    #[must_use]
    pub fn date_listener(&self, account: &AccountName) -> DateListener {
        self.core.steady.listener(account)
    }
}

pub(crate) fn report(steady: &crate::runtime::steady::Steady) -> ClockReport {
    let doubt: Duration = steady.trust(steady.returns()).1.doubt;
    ClockReport {
        doubt_seconds: doubt.as_secs_f64(),
        clouds_ahead_seconds: steady.differences(),
    }
}
