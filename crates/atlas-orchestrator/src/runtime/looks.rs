//! Whether a machine is looked at by a call of its own, or found in a listing that tells the state
//! of all of them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use atlas_core::{AccountLimits, Compute, ComputeId, ComputeStatus};
use tokio::time::Instant;

use super::account::Account;
use super::pacer::Class;
use crate::kernel::Failure;

/// The span over which looks are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Looks by calls of their own may take one call in so many before a listing is asked instead.
const ONE_IN: u32 = 6;
/// The least age of a listing that serves a look.
const FRESH: Duration = Duration::from_secs(5);
/// How many machines one call of a walk lists, roughly.
const PAGE: usize = 100;

/// How an account's machines are looked at.
#[derive(Debug)]
pub(crate) struct Looks {
    /// How many looks within the window are made by calls of their own.
    few: usize,
    /// How old a listing may be that serves a look.
    fresh: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When somebody wanted to look, within the window.
    wanted: VecDeque<Instant>,
    /// The cloud asked for no look by a call of its own before then.
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

    /// Counts a look, and says how many were wanted lately.
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

/// Whether a listing says all there is to know: the machine boots, or runs and is usable. Of one
/// that ended or is not usable yet, a look of its own may say more.
fn says_enough(machine: &Compute, is_ready: bool) -> bool {
    match machine.status {
        ComputeStatus::Provisioning => true,
        ComputeStatus::Running => is_ready || machine.ready.unwrap_or(true),
        _ => false,
    }
}

impl Account {
    /// The machine as the cloud shows it now, by a call of its own where that says more or costs
    /// less than a listing. `is_ready` says that the session's machine was usable before.
    ///
    /// An error that a listing contradicts is none: a machine that it shows is there.
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

    /// The machine in a fresh listing, and how many calls such a listing takes.
    async fn listed(&self, id: &ComputeId) -> Option<(Compute, usize)> {
        let listed = self.walked_within(self.looks.fresh).await.ok()?;
        let machine = listed.of_id(id)?;
        Some((machine.clone(), 1 + listed.machines.len() / PAGE))
    }
}
