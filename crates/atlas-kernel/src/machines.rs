//! Interprets the machines that carry a key: found, serving, duplicate, missing, dead.

use std::time::Duration;

use atlas_core::{AttemptId, Compute, ComputeId, ComputeStatus, ErrorKind, Timestamp};

use super::input::{Failure, Walk, backoff};
use super::record::{Attempt, Fate, Placing, SessionRecord, Sighted, is_plausible_price};
use super::step::{RETRY_BASE, RETRY_CAP, STUCK_AFTER, Stepper};
use super::task;
use crate::event::{Death, EventKind, Limit, Reason, Stuck};
use crate::options::OnFailure;
use crate::outcome::{TaskKind, TaskOutcome};
use crate::session::{AttemptPhase, SessionKind};

/// How far a cloud's clock may be behind ours.
const SKEW: Duration = Duration::from_secs(600);

/// Whether a machine existed before it was ordered: it was given our name later.
fn is_older(attempt: &Attempt, machine: &Compute) -> bool {
    machine
        .created_at
        .is_some_and(|born| born < attempt.created_at.saturating_sub(SKEW))
}

/// Whether a machine provably belongs to this order: its id is recorded, or all its carriers agree.
fn attempt_knows(record: &SessionRecord, id: AttemptId, machine: &Compute) -> bool {
    let Some(attempt) = record.attempt(id) else {
        return false;
    };
    let whole =
        matches!(machine.keys.claim(), atlas_core::Claim::Whole(_)) && !is_older(attempt, machine);
    whole || attempt.owns(&machine.id)
}

impl Stepper<'_> {
    /// Records an id. Returns whether it is new.
    pub(super) fn sight(&mut self, id: AttemptId, compute: &ComputeId, fate: Fate) -> bool {
        let now = self.cx.now;
        let Some(attempt) = self.attempt(id) else {
            return false;
        };
        match attempt.sighted_mut(compute) {
            Some(seen) => {
                if fate == Fate::Doomed && seen.fate != Fate::Doomed {
                    (seen.fate, seen.gone_at) = (Fate::Doomed, None);
                    let e = self.evidence(id);
                    e.deletes.remove(compute);
                    e.absent.remove(compute);
                } else if fate == Fate::Kept && seen.fate == Fate::Unclear {
                    // It was taken for another user's machine while not all of its carriers agreed.
                    seen.fate = Fate::Kept;
                }
                false
            }
            None => {
                attempt
                    .sighted
                    .push(Sighted::new(compute.clone(), now, fate));
                let e = self.evidence(id);
                (e.walks, e.absent) = ([None; 2], std::collections::BTreeMap::new());
                true
            }
        }
    }

    /// Makes the machine the serving one; or ends it, if another machine serves or the end is
    /// committed.
    pub(super) fn serve(&mut self, id: AttemptId, compute: &Compute, adopted: bool) {
        let now = self.cx.now;
        let other = self
            .step
            .record
            .attempts
            .iter()
            .any(|a| a.id != id && a.is_serving());
        let ending = self.step.record.ending.is_some();
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        attempt.phase = AttemptPhase::Live;
        attempt.serving = Some(compute.id.clone());
        attempt.seen_at = adopted.then_some(now);
        let killed = attempt.kill.is_some();
        if adopted {
            self.emit(EventKind::Adopted {
                attempt: id,
                compute: compute.id.clone(),
            });
        } else {
            self.emit(EventKind::Accepted {
                attempt: id,
                compute: compute.id.clone(),
            });
        }
        if killed || ending || other {
            self.kill(
                id,
                if other && !ending {
                    Reason::Replaced
                } else {
                    Reason::Requested
                },
            );
            self.sight(id, &compute.id, Fate::Doomed);
        } else {
            self.record().placing = None;
            self.record().ready_at = None;
            let placed = self.attempt(id).map(|a| a.placed()).unwrap_or_default();
            let most = self.most_it_can_burn(id);
            self.decide(format!("placed on {placed}; {most}"));
            let e = self.evidence(id);
            (e.polls, e.next_poll, e.suspect, e.suspect_since) = (0, None, false, None);
            // With `hedge`, several orders may be in progress: the first machine wins.
            let losers: Vec<AttemptId> = self
                .step
                .record
                .attempts
                .iter()
                .filter(|a| a.id != id && !a.is_terminal() && a.kill.is_none())
                .map(|a| a.id)
                .collect();
            for loser in losers {
                self.kill(loser, Reason::Replaced);
            }
        }
        self.observe(id, compute);
    }

    /// What the machine costs if every atlas process stops now.
    fn most_it_can_burn(&mut self, id: AttemptId) -> String {
        let now = self.cx.now;
        let price = self.attempt(id).and_then(|a| a.price);
        let record = &self.step.record;
        let cost = |until: Timestamp| price.and_then(|price| price.cost_of(until.since(now)));
        let alone = if record.ends_itself {
            "it tries to end itself once its command has ended; otherwise "
        } else {
            ""
        };
        let runs_until = record
            .options
            .max_runtime
            .map(|limit| record.created_at.saturating_add(limit));
        let most = match (price, runs_until) {
            (None, _) => "its price is not known".to_owned(),
            (Some(price), None) => format!("without one it burns {price}"),
            (Some(price), Some(until)) => {
                let planned = cost(until).unwrap_or_default();
                format!("without one it burns {price}; as planned at most {planned} until {until}")
            }
        };
        format!("{alone}nothing but a living atlas ends it, and {most}")
    }

    /// A machine other than the serving one, with a key whose attempt has a serving machine.
    pub(super) fn second(&mut self, id: AttemptId, compute: &Compute) {
        let bounds = self.cx.bounds;
        let now = self.cx.now;
        let every = self.cx.policy.safeguards().every_duplicate;
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        if attempt.serving.as_ref() == Some(&compute.id) {
            attempt.seen_at.get_or_insert(now);
            self.shown(id, compute);
            return self.observe(id, compute);
        }
        // The cloud does not report when it made the machine, so it was made before it was seen.
        // The first machine seen for an order is not a copy of another one.
        let first = attempt.own().next().is_none();
        let born = compute
            .created_at
            .unwrap_or(if first { attempt.created_at } else { now });
        let by_this_call = born <= attempt.settled_at(&bounds) && !is_older(attempt, compute);
        let known = attempt.sighted_mut(&compute.id).map(|seen| seen.fate);
        let whole = matches!(compute.keys.claim(), atlas_core::Claim::Whole(_));
        match known {
            Some(Fate::Doomed) => {}
            Some(Fate::Unclear)
                if !whole || !by_this_call || compute.created_at.is_none() && !first => {}
            Some(Fate::Gone | Fate::Kept) => {
                self.sight(id, &compute.id, Fate::Doomed);
            }
            None if !by_this_call || !whole => {
                self.sight(id, &compute.id, Fate::Unclear);
                self.decide(format!(
                    "machine {} carries the key of another and is not ours to end",
                    compute.id
                ));
            }
            // A machine whose carriers disagreed at first is classified again by what it shows now.
            Some(Fate::Unclear) | None if every => {
                self.sight(id, &compute.id, Fate::Doomed);
                self.emit(EventKind::DuplicateFound {
                    attempt: id,
                    compute: compute.id.clone(),
                });
            }
            Some(Fate::Unclear) | None => {}
        }
        self.priced(id, compute);
    }

    /// A listing contains the serving machine: this contradicts reads that did not find it. A
    /// machine seen running that was not usable yet is polled now.
    fn shown(&mut self, id: AttemptId, compute: &Compute) {
        let now = self.cx.now;
        let boots = self.step.record.ready_at.is_none();
        let Some(e) = self.step.evidence.attempts.get_mut(&id) else {
            return;
        };
        (e.suspect, e.suspect_since, e.unshown) = (false, None, None);
        e.absent.remove(&compute.id);
        if boots && compute.status == ComputeStatus::Running {
            e.next_poll = e.next_poll.map(|at| at.min(now));
        }
    }

    fn priced(&mut self, id: AttemptId, compute: &Compute) {
        let now = self.cx.now;
        let Some(price) = compute.cost_per_hour else {
            return;
        };
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        if is_plausible_price(price, attempt.candidate.price) {
            return attempt.reprice(&compute.id, price, now);
        }
        // A price of zero, or an absurdly high one, is treated as unknown: the last plausible price
        // remains valid.
        let counted = attempt.price.map_or_else(
            || "no other price is known".to_owned(),
            |price| format!("it is counted at {price}"),
        );
        let doubt = format!(
            "the price of machine {}, {price}, is not plausible: {counted}",
            compute.id
        );
        let decisions = &self.step.record.decisions;
        if decisions.iter().all(|decision| decision.text != doubt) {
            self.decide(doubt);
        }
    }

    pub(super) fn found(&mut self, id: AttemptId, machines: &[Compute]) {
        let now = self.cx.now;
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        if attempt.is_terminal() {
            return;
        }
        if attempt.is_serving()
            && let Some(ended) = machines.iter().find(|m| {
                Some(&m.id) == attempt.serving.as_ref() && m.status == ComputeStatus::Terminated
            })
        {
            // The cloud's own status of a machine that it still lists; this is the only place that
            // shows how it ended.
            self.observe(id, ended);
        }
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        let mut machines: Vec<&Compute> = machines
            .iter()
            .filter(|m| m.status != ComputeStatus::Terminated)
            .collect();
        // The oldest machine, by the cloud's dates, is the one to keep.
        machines.sort_by(|a, b| {
            let born = |m: &Compute| (m.created_at.is_none(), m.created_at);
            born(a).cmp(&born(b)).then_with(|| a.id.cmp(&b.id))
        });
        let killed = attempt.kill.is_some();
        let phase = attempt.phase;
        if phase == AttemptPhase::Intent && !machines.is_empty() {
            // Only after a rollback of the store does an intent have a machine: its call was made
            // in the part of the history that was lost.
            attempt.calling_at = Some(now);
            attempt.metered_to = Some(now);
            self.unknown(id);
        }
        match phase {
            _ if killed => {
                for machine in machines {
                    let known = self
                        .attempt(id)
                        .and_then(|a| a.sighted_mut(&machine.id).map(|seen| seen.fate));
                    if matches!(known, None | Some(Fate::Unclear)) {
                        self.second(id, machine);
                        continue;
                    }
                    self.sight(id, &machine.id, Fate::Doomed);
                    self.priced(id, machine);
                }
            }
            AttemptPhase::Live => {
                let serving = self.attempt(id).and_then(|attempt| attempt.serving.clone());
                if !machines.is_empty()
                    && !machines
                        .iter()
                        .any(|machine| Some(&machine.id) == serving.as_ref())
                {
                    // A copy that carries the key is not the serving machine.
                    self.evidence(id).suspect = true;
                }
                for machine in machines {
                    self.second(id, machine);
                }
            }
            _ if self
                .step
                .evidence
                .attempts
                .get(&id)
                .is_some_and(|e| e.in_call) => {}
            _ => {
                // A machine that only carries a copied environment, or was renamed before it was
                // first seen, is not provably the ordered one.
                let known = |machine: &&Compute| attempt_knows(&self.step.record, id, machine);
                let (ours, unclear): (Vec<&Compute>, Vec<&Compute>) =
                    machines.into_iter().partition(known);
                let mut ours = ours.into_iter();
                if let Some(first) = ours.next() {
                    self.sight(id, &first.id, Fate::Kept);
                    self.serve(id, first, true);
                }
                for other in ours.chain(unclear) {
                    self.second(id, other);
                }
            }
        }
    }

    pub(super) fn walked(&mut self, id: AttemptId, walk: &Result<Walk, Failure>) {
        let now = self.cx.now;
        let bounds = self.cx.bounds;
        let trust_partial = !self.cx.policy.safeguards().complete_walks;
        let retry = self.cx.policy.safeguards().retry_kill;
        match walk {
            Err(failure) => {
                let e = self.evidence(id);
                e.walk_tries += 1;
                let tries = e.walk_tries;
                e.next_walk = Some(now.saturating_add(backoff(RETRY_BASE, RETRY_CAP, tries)));
                if tries >= STUCK_AFTER || failure.stuck() == Stuck::Credential {
                    self.stuck(id, failure.stuck());
                }
            }
            Ok(walk) => {
                self.found(id, &walk.found);
                let Some(attempt) = self.step.record.attempt(id) else {
                    return;
                };
                let killed = attempt.kill.is_some();
                let clones: Vec<&ComputeId> = attempt
                    .sighted
                    .iter()
                    .filter(|s| s.fate == Fate::Unclear)
                    .map(|s| &s.id)
                    .collect();
                let seen: Vec<ComputeId> = walk
                    .found
                    .iter()
                    .filter(|m| m.status != ComputeStatus::Terminated && !clones.contains(&&m.id))
                    .map(|m| m.id.clone())
                    .collect();
                let from = super::proof::walks_count_from(
                    attempt,
                    self.step.evidence.attempts.get(&id),
                    &bounds,
                );
                let spacing = super::proof::walk_spacing(killed, &bounds);
                let unshown = attempt.is_serving()
                    && !walk
                        .found
                        .iter()
                        .any(|machine| Some(&machine.id) == attempt.serving.as_ref());
                let e = self.evidence(id);
                // If a listing never becomes complete, it eventually no longer counts as a
                // contradiction.
                if unshown && (walk.complete || e.walk_tries >= STUCK_AFTER) {
                    e.unshown = Some(walk.begun);
                }
                if e.walks[0].is_some_and(|first| first < from) {
                    // An end, or an operator's accept, was committed since: the proof starts over.
                    e.walks = [None; 2];
                }
                if !seen.is_empty() {
                    (e.walks, e.walk_tries) = ([None; 2], e.walk_tries + 1);
                    e.absent.clear();
                    let mut alive = false;
                    for id in seen {
                        alive |= e.deletes.get(&id).is_none_or(|d| {
                            d.answered_at.is_none_or(|at| {
                                walk.begun >= at.saturating_add(bounds.limits.visibility_bound)
                            })
                        });
                        // Listings lag: another DELETE is needed only for a machine still seen one
                        // bound after its DELETE was answered.
                        if let Some(d) = e.deletes.get_mut(&id)
                            && retry
                            && d.answered_at.is_some_and(|at| {
                                walk.begun >= at.saturating_add(bounds.limits.visibility_bound)
                            })
                        {
                            (d.answered_at, d.next_at) = (None, Some(now));
                        }
                    }
                    e.next_walk = Some(now.saturating_add(backoff(
                        RETRY_BASE * 2,
                        Duration::from_secs(15),
                        e.walk_tries,
                    )));
                    if killed
                        && alive
                        && let Some(attempt) = self.attempt(id)
                    {
                        attempt.was_alive_at(now);
                    }
                } else if !walk.complete && !trust_partial {
                    e.walk_tries += 1;
                    e.next_walk =
                        Some(now.saturating_add(backoff(RETRY_BASE, RETRY_CAP, e.walk_tries)));
                    if e.walk_tries >= STUCK_AFTER * 2 && killed {
                        self.stuck(
                            id,
                            Stuck::CloudUnreachable {
                                kind: "incomplete".to_owned(),
                            },
                        );
                    }
                } else {
                    let Some(attempt) = self.step.record.attempt(id) else {
                        return;
                    };
                    let e = self.step.evidence.of(id);
                    super::proof::search(attempt, e, walk.begun, &bounds);
                    let next = if walk.begun < from {
                        e.walk_tries += 1;
                        let longest = Duration::from_secs(15);
                        let wait = backoff(RETRY_BASE, longest, e.walk_tries);
                        now.saturating_add(wait).min(from.max(now))
                    } else {
                        e.walk_tries = 0;
                        let second = e.walks[0].map(|first| first.saturating_add(spacing));
                        match second {
                            None => e.walks[0] = Some(walk.begun),
                            Some(second) if walk.begun >= second => e.walks[1] = Some(walk.begun),
                            Some(_) => {}
                        }
                        let first = e.walks[0].unwrap_or(walk.begun);
                        let next = first.saturating_add(spacing);
                        let again = walk
                            .begun
                            .saturating_add(super::proof::search_spacing(&bounds));
                        let next = match e.walks[1] {
                            _ if super::proof::searched(attempt, e) => next,
                            None => next.min(again),
                            Some(_) => again,
                        };
                        next.max(now)
                    };
                    e.next_walk = Some(next);
                }
            }
        }
    }

    pub(super) fn missing(&mut self, id: AttemptId, begun: Timestamp) {
        let bounds = self.cx.bounds;
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        let fresh = attempt
            .sighted
            .iter()
            .map(|s| s.at)
            .max()
            .is_none_or(|at| begun < at.saturating_add(bounds.limits.visibility_bound));
        if attempt.is_serving() && begun >= attempt.settled_at(&bounds) && !fresh {
            self.evidence(id).suspect = true;
        }
    }

    pub(super) fn observed(&mut self, id: AttemptId, seen: &Result<Box<Compute>, Failure>) {
        let now = self.cx.now;
        let task = self.step.record.kind == SessionKind::Task;
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        if !attempt.is_serving() {
            return;
        }
        let slowest = Duration::from_secs(if task { 5 } else { 10 });
        let longest = self.cx.account.poll_interval;
        let e = self.evidence(id);
        e.polls += 1;
        e.next_poll =
            Some(now.saturating_add(backoff(Duration::from_millis(500), slowest, e.polls)));
        match seen {
            Ok(compute) => {
                (e.suspect, e.suspect_since) = (false, None);
                if let Some(attempt) = self.attempt(id) {
                    attempt.seen_at.get_or_insert(now);
                }
                self.observe(id, compute);
                self.usable(id, compute);
            }
            // A failed poll never means that the machine died; a missing machine is only suspect.
            Err(failure) if failure.kind == ErrorKind::NotFound => e.suspect = true,
            Err(failure) => {
                // The cloud's requested wait applies to polls by separate calls; a listing may give
                // the same information earlier.
                if let Some(wait) = failure.retry_after {
                    let again = now.saturating_add(wait.min(longest));
                    e.next_poll = e.next_poll.max(Some(again));
                }
            }
        }
    }

    pub(super) fn observe(&mut self, id: AttemptId, compute: &Compute) {
        let now = self.cx.now;
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        if attempt.serving.as_ref() != Some(&compute.id) {
            return;
        }
        let before = attempt.compute.as_ref().map(|c| c.status.clone());
        self.priced(id, compute);
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        let mut kept = compute.clone();
        kept.raw = atlas_core::Raw::default();
        kept.auth = None;
        attempt.compute = Some(kept);
        if task::is_running(compute) {
            attempt.ran_at.get_or_insert(now);
        }
        if before.as_ref() != Some(&compute.status) {
            self.emit(EventKind::Status {
                status: compute.status.clone(),
            });
        }
        if !self.attempt(id).is_some_and(|a| a.is_serving()) {
            return;
        }
        if self.step.record.kind == SessionKind::Task
            && let Some(outcome) = task::outcome(compute, self.run(id))
        {
            return self.task_ended(outcome);
        }
        let how = match compute.status {
            _ if compute.preempted => Some(Death::Preempted),
            ComputeStatus::Stopped => Some(Death::Stopped),
            ComputeStatus::Terminated => Some(Death::Terminated),
            ComputeStatus::Failed => Some(Death::Failed),
            _ => None,
        };
        if let Some(how) = how {
            self.died(id, how);
        }
    }

    /// What is known about the run of a task's machine.
    fn run(&self, id: AttemptId) -> task::Run {
        let record = &self.step.record;
        let ran = record.attempt(id).is_some_and(|a| a.ran_at.is_some());
        task::Run {
            // A record of an older release has no `ran_at`; it was ready, so it ran.
            seen_running: ran || record.ready_at.is_some(),
            ends_itself: record.ends_itself,
        }
    }

    /// A poll shows that the machine is usable. A listing does not show this, because no probe was
    /// made for it.
    fn usable(&mut self, id: AttemptId, compute: &Compute) {
        let now = self.cx.now;
        let serving = self.attempt(id).is_some_and(|a| a.is_serving());
        let usable = compute.status == ComputeStatus::Running && compute.ready.unwrap_or(true);
        if serving
            && usable
            && self.step.record.ready_at.is_none()
            && self.step.record.ending.is_none()
        {
            self.record().ready_at = Some(now);
            self.emit(EventKind::Ready);
        }
    }

    pub(super) fn task_reported(&mut self, code: i32) {
        if self.step.record.kind == SessionKind::Task {
            self.task_ended(TaskOutcome::reported(code));
        }
    }

    pub(super) fn task_ended(&mut self, outcome: TaskOutcome) {
        if self.step.record.outcome.is_none() && self.step.record.ending.is_none() {
            self.record().outcome = Some(outcome);
            self.emit(EventKind::TaskEnded { outcome });
            self.end(Reason::TaskEnded);
        }
    }

    /// The serving machine is dead. A dead machine may still bill, so its end is committed here,
    /// with what follows from it.
    pub(super) fn died(&mut self, id: AttemptId, how: Death) {
        let now = self.cx.now;
        let is_task = self.step.record.kind == SessionKind::Task;
        let outcome = {
            let last = self
                .step
                .record
                .attempt(id)
                .and_then(|a| a.compute.as_ref());
            task::of_death(how, last, self.run(id))
        };
        if is_task && outcome.kind == TaskKind::Completed {
            return self.task_ended(outcome);
        }
        let kills_old = self.cx.policy.safeguards().respawn_kills_old;
        self.emit(EventKind::Died { how });
        let allowed = match self.step.record.options.on_failure {
            OnFailure::End => 0,
            OnFailure::Respawn(n) => n,
        };
        if self.step.record.ending.is_some() {
            return;
        }
        if self.step.record.respawns < allowed {
            if kills_old {
                self.kill(id, Reason::MachineDied { how });
            } else {
                self.close(id, AttemptPhase::Dead);
            }
            self.record().respawns += 1;
            self.record().ready_at = None;
            self.record().placing = Some(Placing {
                since: Some(now),
                ..Placing::default()
            });
            let respawn = self.step.record.respawns;
            self.decide(format!(
                "machine died ({how:?}); respawn {respawn} of {allowed}"
            ));
            self.emit(EventKind::Respawning { respawn });
        } else {
            if is_task && self.step.record.outcome.is_none() {
                self.record().outcome = Some(outcome);
                self.emit(EventKind::TaskEnded { outcome });
            }
            let reason = if how == Death::NeverReady {
                Reason::Limit {
                    limit: Limit::ReadyTimeout,
                }
            } else {
                Reason::MachineDied { how }
            };
            self.end(reason);
        }
    }
}
