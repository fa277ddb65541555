//! Chooses between polling a machine with a separate call and reading it from a listing that shows
//! all machines.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use atlas_core::{AccountLimits, Compute, ComputeId, ComputeStatus};
use tokio::time::Instant;

use super::account::Account;
use super::pacer::Class;
use crate::kernel::Failure;

/// The period in which polls are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Separate polls may use at most one call in this many; beyond that, a listing is used.
const ONE_IN: u32 = 6;
/// The minimum age up to which a listing may serve a poll.
const FRESH: Duration = Duration::from_secs(5);
/// Approximate number of machines per call of a listing.
const PAGE: usize = 100;

/// How the machines of an account are polled.
#[derive(Debug)]
pub(crate) struct Looks {
    /// How many polls within the window are made as separate calls.
    few: usize,
    /// The maximum age of a listing that serves a poll.
    fresh: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The times of requested polls within the window.
    wanted: VecDeque<Instant>,
    /// The cloud asked for no separate poll before this time.
    not_before: Option<Instant>,
}

impl Looks {
    pub(crate) fn new(limits: &AccountLimits) -> Self {
        let interval = limits.call_interval.max(Duration::from_millis(1));
        let calls = WINDOW.as_millis() / interval.as_millis().max(1);
        Self {
            few: usize::try_from(calls).unwrap_or(usize::MAX) / ONE_IN as usize,
            fresh: FRESH.max(limits.call_interval * 10),
            state: Mutex::default(),
        }
    }

    /// Counts a requested poll, and returns how many were requested recently.
    fn want(&self) -> usize {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.wanted.push_back(now);
        while state
            .wanted
            .front()
            .is_some_and(|at| now.duration_since(*at) > WINDOW)
        {
            state.wanted.pop_front();
        }
        state.wanted.len()
    }

    fn must_wait(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.not_before.is_some_and(|at| Instant::now() < at)
    }

    fn wait_for(&self, span: Duration) {
        let at = Instant::now() + span;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.not_before = Some(state.not_before.map_or(at, |before| before.max(at)));
    }
}

/// Whether a listing gives all relevant information: the machine boots, or runs and is usable. For
/// one that ended or is not usable yet, a separate poll may give more.
fn says_enough(machine: &Compute, is_ready: bool) -> bool {
    match machine.status {
        ComputeStatus::Provisioning => true,
        ComputeStatus::Running => is_ready || machine.ready.unwrap_or(true),
        _ => false,
    }
}

impl Account {
    /// The machine as the cloud shows it now: by a separate call if that gives more information or
    /// costs less than a listing. `is_ready` says that the session's machine was usable before.
    ///
    /// An error is ignored if a listing contradicts it: a machine that the listing contains exists.
    pub(crate) async fn look(&self, id: &ComputeId, is_ready: bool) -> Result<Compute, Failure> {
        let many = self.looks.want() > self.looks.few.max(1);
        let listed = if many || self.looks.must_wait() {
            self.listed(id).await
        } else {
            None
        };
        if let Some((machine, pages)) = &listed
            && *pages <= self.looks.few.max(1)
            && says_enough(machine, is_ready)
        {
            return Ok(machine.clone());
        }
        if self.looks.must_wait() {
            return listed.map(|(machine, _)| machine).ok_or_else(|| Failure {
                retry_after: None,
                ..Failure::from(&atlas_core::Error::new(
                    atlas_core::ErrorKind::RateLimited,
                    "the cloud asked for no look before later, and no listing shows the machine",
                ))
            });
        }
        let looked = self
            .call(Class::Look, self.provider.get_compute(self.context(), id))
            .await;
        let failure = match looked {
            Ok(machine) => return Ok(machine),
            Err(error) => Failure::from(&error),
        };
        if let Some(wait) = failure.retry_after {
            self.looks.wait_for(wait);
        }
        match self.listed(id).await {
            Some((machine, _)) => Ok(machine),
            None => Err(failure),
        }
    }

    /// The machine in a recent listing, and how many calls such a listing takes.
    async fn listed(&self, id: &ComputeId) -> Option<(Compute, usize)> {
        let listed = self.walked_within(self.looks.fresh).await.ok()?;
        let machine = listed.of_id(id)?;
        Some((machine.clone(), 1 + listed.machines.len() / PAGE))
    }
}
