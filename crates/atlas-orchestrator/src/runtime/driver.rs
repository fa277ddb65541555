//! Works on one session until nothing is left to do for now: plan, start what is due, take the
//! results, commit, repeat.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{AttemptId, Timestamp};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::core::{Core, Extra, Loaded};
use super::effects::{self, Done, Running};
use super::slots::Work;
use crate::ids::SessionId;
use crate::kernel::input::backoff;
use crate::kernel::{Effect, Evidence, Input, Plan, plan};
use crate::session::AttemptPhase;
use crate::store::CommitError;

/// How long a driver waits while its node has no lease, or its store does not answer.
const REST: Duration = Duration::from_secs(1);
/// The first and the longest wait before an effect that changed nothing is started again.
const STALLED: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// For a shorter wait than this, the driver keeps running; for a longer one it frees its place.
const STAY: Duration = Duration::from_secs(2);

/// Tells the reconciler that the driver has ended, even when it panicked.
struct Released {
    core: Arc<Core>,
    id: SessionId,
    account: u16,
    again: Option<Timestamp>,
}

impl Drop for Released {
    fn drop(&mut self) {
        self.core.slots.released(self.id, self.account, self.again);
    }
}

/// Works on one session. A panic ends only this task: the session is then planned again from its
/// record alone.
pub(crate) async fn drive(core: Arc<Core>, id: SessionId, work: Work) {
    let again = core.now().saturating_add(Duration::from_secs(1));
    let Work {
        account,
        evidence,
        signal,
    } = work;
    let mut released = Released {
        core: core.clone(),
        id,
        account,
        again: Some(again),
    };
    let mut driver = Driver {
        core,
        id,
        account,
        evidence,
        in_flight: BTreeSet::new(),
        stalled: BTreeMap::new(),
        running: FuturesUnordered::new(),
    };
    released.again = driver.run(&signal).await;
}

struct Driver {
    core: Arc<Core>,
    id: SessionId,
    account: u16,
    evidence: Evidence,
    in_flight: BTreeSet<Effect>,
    /// Effects whose last run changed nothing. The unchanged record would plan them again at once,
    /// so each waits longer every time, until something changes.
    stalled: BTreeMap<Effect, Stall>,
    running: FuturesUnordered<Running>,
}

/// How many times in a row an effect changed nothing, and when it may be started again.
#[derive(Clone, Copy, Debug)]
struct Stall {
    times: u32,
    until: Instant,
}

/// Marks a driver that only waits, for its cloud or for its turn to call it, and gives up its place
/// meanwhile. However many drivers wait, ends are ordered and reached limits are recorded in time.
struct Parked<'a>(Option<(&'a Core, u16)>);

impl<'a> Parked<'a> {
    fn new(core: &'a Core, account: u16, parked: bool) -> Self {
        let parked = parked && core.slots.park(account);
        Self(parked.then_some((core, account)))
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        if let Some((core, account)) = self.0 {
            core.slots.unpark(account);
        }
    }
}

fn waits_for_its_cloud(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Candidates
            | Effect::EnsureSupport(..)
            | Effect::Order(_)
            | Effect::Walk(_)
            | Effect::Poll(..)
            | Effect::PointRead(..)
            | Effect::Delete(..)
            | Effect::Conclude(_)
            | Effect::ReleaseSupport(..)
    )
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

/// The result of planning the session.
enum Look {
    /// There is work now or later.
    Go(Box<Loaded>, Plan),
    /// The session is not ours, or has ended completely.
    Gone,
    /// The store cannot be read now.
    Later,
}

impl Driver {
    async fn run(&mut self, signal: &tokio::sync::Notify) -> Option<Timestamp> {
        loop {
            // Everything below may be ready at once, as with a store in memory; other tasks must
            // still get their turn.
            tokio::task::coop::consume_budget().await;
            let stopping = self.core.stopping.is_cancelled();
            let mut due = None;
            match self.look().await {
                Look::Gone if self.running.is_empty() => return None,
                Look::Later if self.running.is_empty() => {
                    // Nothing is started if the record cannot be read; it is read again soon.
                    let again = self.core.now().saturating_add(REST);
                    self.core.slots.rest(self.id, &self.evidence, Some(again));
                    return Some(again);
                }
                Look::Gone | Look::Later => {}
                Look::Go(loaded, plan) => {
                    due = plan.due;
                    if !self.core.may_commit() {
                        // No result could be recorded now, so nothing is started.
                        due = Some(self.core.now().saturating_add(REST));
                    } else if !stopping {
                        due = earlier(due, self.begin(&loaded, plan.effects));
                    }
                    if stopping && !self.must_finish() {
                        self.running.clear();
                        self.in_flight.clear();
                    }
                    if self.running.is_empty() {
                        let soon = due.is_some_and(|due| due.since(self.core.now()) < STAY);
                        if (stopping || !soon) && self.core.slots.rest(self.id, &self.evidence, due)
                        {
                            return due;
                        }
                    }
                }
            }
            let only_waits = self.in_flight.iter().all(waits_for_its_cloud);
            let core = self.core.clone();
            let parked = Parked::new(&core, self.account, only_waits);
            let wait = due.map_or_else(
                || tokio::time::Instant::now() + Duration::from_secs(3600),
                |due| self.core.steady.instant(due),
            );
            let done = tokio::select! {
                biased;
                () = self.core.stopped.cancelled() => return None,
                Some(done) = self.running.next(), if !self.running.is_empty() => Some(done),
                () = self.core.stopping.cancelled(), if !stopping => None,
                () = signal.notified() => None,
                () = tokio::time::sleep_until(wait) => None,
            };
            drop(parked);
            if let Some(done) = done {
                self.take(done).await;
            }
        }
    }

    /// Whether an effect is in progress that must not be dropped: one that changes what a cloud
    /// has.
    fn must_finish(&self) -> bool {
        self.in_flight.iter().any(|effect| {
            matches!(
                effect,
                Effect::Order(_)
                    | Effect::Delete(..)
                    | Effect::EnsureSupport(..)
                    | Effect::ReleaseSupport(..)
            )
        })
    }

    /// Applies the inputs received meanwhile, reads the record, and plans.
    async fn look(&mut self) -> Look {
        let loaded = loop {
            for input in self.core.slots.drain(self.id) {
                self.tell(input, Extra::default()).await;
            }
            let loaded = match self.core.load(self.id).await {
                Ok(loaded) => loaded,
                Err(error) => {
                    tracing::warn!(session = %self.id, %error,
                        "a session's record could not be read");
                    return Look::Later;
                }
            };
            let attempts = match loaded {
                Some(loaded)
                    if loaded.record.owner == self.core.node && !loaded.record.is_over() =>
                {
                    break loaded;
                }
                Some(loaded) => loaded.record.attempts,
                None => Vec::new(),
            };
            // Not ours, or ended completely; unless it was reopened or claimed since it was read.
            if self.core.slots.remove(self.id, &attempts) {
                self.core.touches.let_go(self.id);
                return Look::Gone;
            }
        };
        let record = &loaded.record;
        if record.ending.is_some() {
            // An end is final: no touch is acknowledged that cannot keep the session alive.
            self.core.touches.remove(self.id);
        }
        let activity = self.core.touches.newest(self.id).unwrap_or_else(|| {
            // A rolled-back store shows this session as alive again, so its activity needs an entry
            // again.
            if record.ending.is_none() {
                self.core
                    .touches
                    .insert(self.id, record.options.idle_ttl, record.created_at, None);
            }
            record.created_at
        });
        let plan = plan(
            record,
            &self.evidence,
            activity,
            &self.core.cx(&record.account),
        );
        Look::Go(Box::new(loaded), plan)
    }

    /// Starts what is due. Returns when the first effect that changed nothing may be started again.
    fn begin(&mut self, loaded: &Loaded, effects: Vec<Effect>) -> Option<Timestamp> {
        let now = Instant::now();
        let mut again: Option<Instant> = None;
        for effect in effects {
            if let Some(stall) = self.stalled.get(&effect)
                && stall.until > now
                && !self.in_flight.contains(&effect)
            {
                again = Some(again.map_or(stall.until, |at| at.min(stall.until)));
                continue;
            }
            // An object that is just being made can be released only after that call was answered.
            let being_made = |of: AttemptId| {
                self.in_flight
                    .iter()
                    .any(|other| matches!(other, Effect::EnsureSupport(id, _) if *id == of))
            };
            if matches!(effect, Effect::ReleaseSupport(id, _) if being_made(id)) {
                continue;
            }
            if self.in_flight.insert(effect.clone()) {
                self.running
                    .push(effects::run(self.core.clone(), &loaded.record, effect));
            }
        }
        again.map(|at| {
            self.core
                .now()
                .saturating_add(at.saturating_duration_since(now))
        })
    }

    /// Records whether an effect changed anything. If not, it waits before it is started again; any
    /// change releases all waiting effects.
    fn settle(&mut self, effect: &Effect, changed: bool) {
        if changed {
            return self.stalled.clear();
        }
        let times = self.stalled.get(effect).map_or(0, |stall| stall.times) + 1;
        let until = Instant::now() + backoff(STALLED.0, STALLED.1, times);
        self.stalled.insert(effect.clone(), Stall { times, until });
    }

    async fn take(&mut self, done: Done) {
        match done {
            Done::Told(effect, input, extra) => {
                let changed = self.tell(*input, extra).await;
                self.settle(&effect, changed);
                if let Effect::PointRead(..) = effect {
                    // The poll was caused by a listing. If this answer was wrong, the listing must
                    // report its unchanged state again.
                    self.core.slots.saw(self.id, 0);
                }
                self.in_flight.remove(&effect);
            }
            Done::Admitted(id, permit, identity) => {
                self.order(id, permit, identity).await;
            }
            Done::Answered(id, answer) => {
                let extra = effects::sightings(id, &answer, self.core.now());
                if self
                    .commit(Input::Answered(id, *answer), extra.clone())
                    .await
                    .is_err_and(|error| !matches!(error, CommitError::Store(_)))
                {
                    // Another owner continues with this session. What we saw is recorded for it,
                    // without a fence.
                    effects::append_sightings(&self.core, extra).await;
                }
                self.in_flight.remove(&Effect::Order(id));
            }
        }
    }

    /// Commits `calling`, then makes the create call with the turn that was waited for.
    async fn order(
        &mut self,
        id: AttemptId,
        permit: super::pacer::Permit,
        identity: Option<String>,
    ) {
        if self.core.stopping.is_cancelled() || !self.core.lease.may_act() {
            self.in_flight.remove(&Effect::Order(id));
            return;
        }
        let committed = self
            .commit(Input::Call(id, identity), Extra::default())
            .await;
        let calling = match self.core.load(self.id).await {
            Ok(Some(loaded)) => Some(loaded)
                .filter(|loaded| loaded.record.owner == self.core.node)
                .filter(|loaded| {
                    loaded
                        .record
                        .attempt(id)
                        .is_some_and(|a| a.phase == AttemptPhase::Calling)
                }),
            _ => None,
        };
        let ours = self.evidence.attempts.get(&id).is_some_and(|e| e.in_call);
        match calling {
            Some(loaded) if ours && matches!(committed, Ok(true)) => {
                self.running
                    .push(effects::call(self.core.clone(), &loaded.record, id, permit));
            }
            _ => {
                // Not sent, and never will be with this commit. If `calling` is recorded after all,
                // the attempt is resolved as lost.
                if let Some(e) = self.evidence.attempts.get_mut(&id) {
                    e.in_call = false;
                }
                self.in_flight.remove(&Effect::Order(id));
                self.settle(&Effect::Order(id), false);
            }
        }
    }

    /// Commits an input that can be obtained again: if the commit is refused, the next plan asks
    /// again. Returns whether the record or the evidence changed.
    async fn tell(&mut self, input: Input, extra: Extra) -> bool {
        let listed = matches!(input, Input::Found(..));
        let before = self.evidence.clone();
        let committed = self.commit(input, extra).await;
        let changed = matches!(committed, Ok(true)) || self.evidence != before;
        if let Err(error) = committed {
            if listed {
                // Makes the next listing report the state again, even if it is unchanged.
                self.core.slots.saw(self.id, 0);
            }
            tracing::debug!(session = %self.id, error = %atlas_core::Error::from(error),
                "what was learnt was not taken");
        }
        changed
    }

    /// Commits an input on the latest record. Waits while the store does not answer, because this
    /// information must not be lost.
    async fn commit(&mut self, input: Input, extra: Extra) -> Result<bool, CommitError> {
        let mut wait = Duration::from_millis(100);
        let guarded = !extra.guards.is_empty();
        for _ in 0..64 {
            let error = match self.core.load(self.id).await {
                Ok(Some(mut loaded)) if loaded.record.owner == self.core.node => {
                    match self
                        .core
                        .apply(&mut loaded, &mut self.evidence, &input, extra.clone())
                        .await
                    {
                        Ok(changed) => return Ok(changed),
                        // What was read for this input is stale: it is read again when the plan
                        // asks for it.
                        Err(CommitError::Conflict) if guarded => return Err(CommitError::Conflict),
                        Err(CommitError::Conflict) => continue,
                        Err(CommitError::Fenced) => {
                            self.core.lease.lost();
                            return Err(CommitError::Fenced);
                        }
                        // The store no longer contains what the decision was based on: plan again.
                        Err(CommitError::RolledBack) => return Err(CommitError::RolledBack),
                        Err(CommitError::Store(error)) => error,
                    }
                }
                Ok(_) => return Err(CommitError::Fenced),
                Err(error) => error,
            };
            tracing::warn!(session = %self.id, %error,
                "the store did not take a change; it is tried again");
            if !self.core.sleep(wait).await {
                break;
            }
            wait = (wait * 2).min(Duration::from_secs(1));
        }
        // Nothing is lost permanently: the record still says `calling` or its earlier phase, and
        // the attempt is resolved from there.
        if let Input::Answered(id, _) = &input
            && let Some(e) = self.evidence.attempts.get_mut(id)
        {
            e.in_call = false;
        }
        Err(CommitError::Conflict)
    }
}
