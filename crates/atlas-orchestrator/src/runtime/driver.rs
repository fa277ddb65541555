//! Works on one session until there is nothing to be done for now: plan, begin what is due, take
//! what came of it, commit, again.

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

/// How long a driver rests while its node has no lease, or its store does not answer.
const REST: Duration = Duration::from_secs(1);
/// The first and the longest wait before an effect that changed nothing is begun again.
const STALLED: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// A wait shorter than this keeps the driver where it is; a longer one gives its place to others.
const STAY: Duration = Duration::from_secs(2);

/// Tells the reconciler that the driver is gone, also when it panicked.
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

/// Works on one session. A panic is caught by the task's end: the session is looked at again from
/// its record alone.
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
    /// Effects whose last run changed nothing. The same record plans them again at once, so each
    /// waits longer every time, until something changes.
    stalled: BTreeMap<Effect, Stall>,
    running: FuturesUnordered<Running>,
}

/// How often an effect changed nothing in a row, and when it may be begun again.
#[derive(Clone, Copy, Debug)]
struct Stall {
    times: u32,
    until: Instant,
}

/// A driver that only waits, for its cloud or for its turn to call it, and takes up nobody's place
/// meanwhile: however many do, an end is ordered and a limit that is reached is put on record in
/// time.
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

/// What a look at the session says.
enum Look {
    /// There is work, or will be.
    Go(Box<Loaded>, Plan),
    /// It is not ours, or over.
    Gone,
    /// The store cannot be asked now.
    Later,
}

impl Driver {
    async fn run(&mut self, signal: &tokio::sync::Notify) -> Option<Timestamp> {
        loop {
            // Everything below may be ready at once, as it is with a store in memory: other tasks
            // get their turn all the same.
            tokio::task::coop::consume_budget().await;
            let stopping = self.core.stopping.is_cancelled();
            let mut due = None;
            match self.look().await {
                Look::Gone if self.running.is_empty() => return None,
                Look::Later if self.running.is_empty() => {
                    // Fail-static: nothing is begun on what cannot be read. It is looked at again
                    // soon.
                    let again = self.core.now().saturating_add(REST);
                    self.core.slots.rest(self.id, &self.evidence, Some(again));
                    return Some(again);
                }
                Look::Gone | Look::Later => {}
                Look::Go(loaded, plan) => {
                    due = plan.due;
                    if !self.core.may_commit() {
                        // Nothing that is learnt could be put on record: nothing is begun.
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

    /// Whether something is under way that must not be dropped in the middle: all that changes what
    /// a cloud has.
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

    /// Takes what was told meanwhile, reads the record, and derives what is to be done.
    async fn look(&mut self) -> Look {
        let loaded = loop {
            for input in self.core.slots.drain(self.id) {
                self.tell(input, Extra::default()).await;
            }
            let loaded = match self.core.load(self.id).await {
                Ok(loaded) => loaded,
                Err(error) => {
                    tracing::warn!(session = %self.id, %error, "a session's record could not be read");
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
            // Not ours, or over; unless somebody opened or claimed it since it was read.
            if self.core.slots.remove(self.id, &attempts) {
                self.core.touches.let_go(self.id);
                return Look::Gone;
            }
        };
        let record = &loaded.record;
        if record.ending.is_some() {
            // An end is final: no touch is acknowledged on a session that no touch can keep.
            self.core.touches.remove(self.id);
        }
        let activity = self.core.touches.newest(self.id).unwrap_or_else(|| {
            // A session that a rolled back store says is alive again: what is read of its activity
            // must have where to stay.
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

    /// Begins what is due. Returns when the first effect that changed nothing may be begun again.
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
            // What is just being made is there to be released only once that is answered.
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

    /// Notes what an effect changed: one that changed nothing waits before it is begun again, and
    /// any change frees all of them.
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
                    // It was asked because of what a listing showed: that is told again, unchanged,
                    // if this answer was wrong.
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
                    // Another owner goes on with this session: what we saw is put on record for it,
                    // under no fence.
                    effects::append_sightings(&self.core, extra).await;
                }
                self.in_flight.remove(&Effect::Order(id));
            }
        }
    }

    /// Commits `calling`, then begins the one call with the turn that was waited for.
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
                // Not sent, and never will be under this commit: if `calling` is on record after
                // all, it is resolved as lost.
                if let Some(e) = self.evidence.attempts.get_mut(&id) {
                    e.in_call = false;
                }
                self.in_flight.remove(&Effect::Order(id));
                self.settle(&Effect::Order(id), false);
            }
        }
    }

    /// Commits what can be learnt again: if the commit is refused, the next plan asks again.
    /// Returns whether the record or the evidence changed.
    async fn tell(&mut self, input: Input, extra: Extra) -> bool {
        let listed = matches!(input, Input::Found(..));
        let before = self.evidence.clone();
        let committed = self.commit(input, extra).await;
        let changed = matches!(committed, Ok(true)) || self.evidence != before;
        if let Err(error) = committed {
            if listed {
                // Told again, unchanged, by the next listing.
                self.core.slots.saw(self.id, 0);
            }
            tracing::debug!(session = %self.id, error = %atlas_core::Error::from(error), "what was learnt was not taken");
        }
        changed
    }

    /// Commits an input, on the freshest record. Waits out a store that does not answer: what we
    /// know must not be lost.
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
                        // What was decided on is not what the store holds: it is planned anew.
                        Err(CommitError::RolledBack) => return Err(CommitError::RolledBack),
                        Err(CommitError::Store(error)) => error,
                    }
                }
                Ok(_) => return Err(CommitError::Fenced),
                Err(error) => error,
            };
            tracing::warn!(session = %self.id, %error, "the store did not take a change; it is tried again");
            if !self.core.sleep(wait).await {
                break;
            }
            wait = (wait * 2).min(Duration::from_secs(1));
        }
        // Nothing is lost for good: the record says `calling` or what it said, and is resolved from
        // there.
        if let Input::Answered(id, _) = &input
            && let Some(e) = self.evidence.attempts.get_mut(id)
        {
            e.in_call = false;
        }
        Err(CommitError::Conflict)
    }
}
