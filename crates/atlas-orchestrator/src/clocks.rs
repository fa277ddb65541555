//! Reports how the clocks around an orchestrator compare, for operators.

use std::time::Duration;

use atlas_core::{AccountName, DateListener};
use serde::{Deserialize, Serialize};

use crate::kernel::clock::MAX_DIFFERENCE;
use crate::orchestrator::Orchestrator;

/// A comparison of the clocks that a deployment depends on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClockReport {
    /// The uncertainty of the current time in seconds: the clocks agree only that the current time
    /// minus this value has been reached. No session is ended by an uncertain time.
    pub doubt_seconds: f64,
    /// How many seconds each account's cloud is ahead of the store's clock, for accounts with a
    /// dated answer so far. Negative when it is behind.
    pub clouds_ahead_seconds: Vec<(AccountName, f64)>,
}

impl ClockReport {
    /// The accounts whose cloud's clock differs so much from the store's that no decision relies on
    /// the difference.
    pub fn differing(&self) -> impl Iterator<Item = (&AccountName, f64)> {
        self.clouds_ahead_seconds
            .iter()
            .filter(|(_, ahead)| ahead.abs() > MAX_DIFFERENCE.as_secs_f64())
            .map(|(account, ahead)| (account, *ahead))
    }
}

impl Orchestrator {
    /// A comparison of the clocks that this deployment depends on. It makes no call: it uses the
    /// dates of answers so far.
    #[must_use]
    pub fn clocks(&self) -> ClockReport {
        report(&self.core.steady)
    }

    /// A listener for calls on an account that are made outside the orchestrator, so that the dates
    /// of their answers are used too.
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
