//! Ends of sessions and attempts: committed once, repeated until proved, never undone.

use atlas_core::{AttemptId, Compute, ComputeId, ComputeStatus, ErrorKind, Timestamp, Usd};

use super::input::{Failure, Identity, Reading, backoff};
use super::record::{Ending, Fate, Kill};
use super::step::{RETRY_BASE, RETRY_CAP, STUCK_AFTER, Stepper};
use crate::event::{Death, EventKind, Limit, Reason, Stuck};
use crate::outcome::{TaskKind, TaskOutcome};
use crate::session::{AttemptPhase, SessionKind};

impl Stepper<'_> {
    /// Commits the end of the session. Final: a second end changes nothing.
    pub(super) fn end(&mut self, reason: Reason) {
        let now = self.cx.now;
        if self.step.record.ending.is_some() {
            return;
        }
        if self.step.record.kind == SessionKind::Task && self.step.record.outcome.is_none() {
            let kind = match reason {
                Reason::Limit { .. } => TaskKind::TimedOut,
                Reason::CannotPlace { .. } | Reason::MachineDied { .. } => TaskKind::Failed,
                _ => TaskKind::Cancelled,
            };
            let outcome = TaskOutcome::inferred(kind, None);
            self.record().outcome = Some(outcome);
            self.emit(EventKind::TaskEnded { outcome });
        }
        self.record().placing = None;
        self.record().ending = Some(Ending {
            reason: reason.clone(),
            at: now,
            done_at: None,
        });
        self.decide(format!(
            "ending: {}",
            serde_json::to_string(&reason).unwrap_or_default()
        ));
        self.emit(EventKind::Terminating {
            reason: reason.clone(),
        });
        let open: Vec<AttemptId> = self
            .step
            .record
            .attempts
            .iter()
            .filter(|a| !a.is_terminal())
            .map(|a| a.id)
            .collect();
        for id in open {
            self.kill(id, reason.clone());
        }
    }

    /// Commits the end of an attempt. Final.
    pub(super) fn kill(&mut self, id: AttemptId, reason: Reason) {
        let now = self.cx.now;
        // A machine that vanished was last alive before the first read that did not find it.
        let evidence = self.step.evidence.attempts.get(&id);
        let suspect_since = evidence.and_then(|e| e.suspect_since);
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        if attempt.is_terminal() {
            return;
        }
        if attempt.kill.is_none() {
            attempt.kill = Some(Kill { reason, at: now });
            attempt.was_alive_at(suspect_since.unwrap_or(now));
        }
        for seen in &mut attempt.sighted {
            if seen.fate == Fate::Kept {
                seen.fate = Fate::Doomed;
            }
        }
        let intent = attempt.phase == AttemptPhase::Intent;
        let e = self.evidence(id);
        // Until now the search was for a machine to keep; the proof of its end starts over.
        (e.walks, e.next_walk, e.next_read, e.walk_tries) = ([None; 2], None, None, 0);
        e.absent.clear();
        let held = self.cx.held;
        let Some(attempt) = self.attempt(id).filter(|_| intent) else {
            return;
        };
        if held {
            // The store may have been rolled back to before a call that was made, so the outcome of
            // that call has to be found out.
            attempt.calling_at = Some(now);
            attempt.metered_to = Some(now);
            self.unknown(id);
        } else {
            // The call was never recorded, and the guard of this write prevents that now: nothing
            // was ordered.
            attempt.message = Some("ended before it was ordered".to_owned());
            self.close(id, AttemptPhase::NotApplied);
        }
    }

    pub(super) fn close(&mut self, id: AttemptId, phase: AttemptPhase) {
        let now = self.cx.now;
        let evidence = self.step.evidence.attempts.get(&id);
        // The only DELETE that was needed was answered at that time.
        let deleted_at = evidence
            .into_iter()
            .flat_map(|e| e.deletes.values())
            .filter(|d| d.tries == 1)
            .filter_map(|d| d.answered_at)
            .max();
        if let Some(attempt) = self.attempt(id) {
            if phase != AttemptPhase::Dead {
                // There never was a machine.
                attempt.used = Some(Usd::ZERO);
            } else if attempt.kill.is_some()
                && let Some(then) = deleted_at
            {
                attempt.was_alive_at(then);
            }
            attempt.spent_at_highest = attempt.own_cost_at_highest(now);
            attempt.spent = attempt.own_cost(now);
            attempt.metered_to = attempt.metered_to.map(|from| from.max(now));
            attempt.phase = phase;
            attempt.ended_at = Some(now);
            attempt.stuck = None;
            self.step.evidence.attempts.remove(&id);
        }
    }

    pub(super) fn deleted(
        &mut self,
        id: AttemptId,
        compute: &ComputeId,
        deleted: &Result<(), Failure>,
    ) {
        let now = self.cx.now;
        let retry = self.cx.policy.safeguards().retry_kill;
        let e = self.evidence(id);
        (e.walks, e.next_walk) = ([None; 2], None);
        e.absent.clear();
        let d = e.deletes.entry(compute.clone()).or_default();
        d.tries += 1;
        match deleted {
            Ok(()) => (d.answered_at, d.next_at) = (Some(now), None),
            Err(_) if !retry => (d.answered_at, d.next_at) = (Some(now), None),
            Err(failure) => {
                d.answered_at = None;
                let wait = failure
                    .retry_after
                    .unwrap_or_default()
                    .max(backoff(RETRY_BASE, RETRY_CAP, d.tries));
                d.next_at = Some(now.saturating_add(wait.min(RETRY_CAP * 5)));
                let tries = d.tries;
                if tries >= STUCK_AFTER || failure.stuck() == Stuck::Credential {
                    self.stuck(id, failure.stuck());
                }
            }
        }
    }

    pub(super) fn read(
        &mut self,
        id: AttemptId,
        compute: &ComputeId,
        begun: Timestamp,
        reading: &Reading,
    ) {
        let now = self.cx.now;
        let bound = self.cx.bounds.limits.visibility_bound;
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        let serving = attempt.is_serving() && attempt.serving.as_ref() == Some(compute);
        let killed = attempt.kill.is_some()
            || attempt
                .sighted_mut(compute)
                .is_some_and(|s| s.fate == Fate::Doomed);
        let unresolved = attempt.phase == AttemptPhase::Unknown && !killed;
        let provider = self.step.record.provider.clone();
        let e = self.evidence(id);
        match reading {
            Reading::Absent => {
                (e.read_tries, e.next_read) = (0, None);
                if serving {
                    match e.suspect_since {
                        None => {
                            e.suspect_since = Some(begun);
                            e.next_read = Some(begun.saturating_add(bound).max(now));
                        }
                        Some(first) if begun >= first.saturating_add(bound) => {
                            e.absent.insert(compute.clone(), begun);
                        }
                        Some(first) => e.next_read = Some(first.saturating_add(bound).max(now)),
                    }
                } else {
                    e.absent.insert(compute.clone(), begun);
                    self.gone_beside_serving(id, compute, begun);
                }
            }
            Reading::Present => {
                (e.read_tries, e.next_read) = (0, None);
                e.absent.clear();
                if serving {
                    (e.suspect, e.suspect_since, e.next_poll) = (false, None, Some(now));
                } else if unresolved {
                    // A leaked id that exists: the order was carried out.
                    let compute =
                        Compute::new(compute.clone(), provider, ComputeStatus::Provisioning);
                    self.serve(id, &compute, true);
                } else if killed {
                    e.walks = [None; 2];
                    if let Some(attempt) = self.attempt(id) {
                        attempt.was_alive_at(now);
                    }
                    let e = self.evidence(id);
                    let d = e.deletes.entry(compute.clone()).or_default();
                    let again = backoff(RETRY_BASE, RETRY_CAP, d.tries.max(1));
                    (d.answered_at, d.next_at) = (None, Some(now.saturating_add(again)));
                    if d.tries >= STUCK_AFTER {
                        self.stuck(id, Stuck::StillThere);
                    }
                }
            }
            Reading::NoAnswer(failure) => {
                e.read_tries += 1;
                let tries = e.read_tries;
                e.next_read = Some(now.saturating_add(backoff(RETRY_BASE, RETRY_CAP, tries)));
                if killed && (tries >= STUCK_AFTER || failure.stuck() == Stuck::Credential) {
                    self.stuck(id, failure.stuck());
                }
            }
        }
    }

    /// A doomed machine of an attempt that keeps serving counts as gone when a point read proves
    /// it, one visibility bound after its DELETE.
    pub(super) fn gone_beside_serving(
        &mut self,
        id: AttemptId,
        compute: &ComputeId,
        begun: Timestamp,
    ) {
        let (now, bounds) = (self.cx.now, self.cx.bounds);
        let answered = self
            .evidence(id)
            .deletes
            .get(compute)
            .and_then(|d| d.answered_at);
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        let late_enough = answered
            .is_some_and(|at| begun >= at.saturating_add(bounds.limits.visibility_bound))
            && begun >= attempt.settled_at(&bounds);
        if attempt.is_serving()
            && late_enough
            && let Some(seen) = attempt.sighted_mut(compute)
            && seen.fate == Fate::Doomed
        {
            (seen.fate, seen.gone_at) = (Fate::Gone, Some(now));
            if attempt.own().all(|seen| seen.fate != Fate::Doomed) {
                attempt.stuck = None;
            }
        }
    }

    pub(super) fn conclude(
        &mut self,
        id: AttemptId,
        identity: &Result<Identity, Failure>,
        ids: &[ComputeId],
    ) {
        let now = self.cx.now;
        let check = self.cx.policy.safeguards().account_identity;
        let Some(attempt) = self.step.record.attempt(id) else {
            return;
        };
        if attempt.is_terminal() {
            return;
        }
        let killed = attempt.kill.is_some();
        let fate = if killed { Fate::Doomed } else { Fate::Kept };
        let known = |id: &ComputeId| {
            attempt
                .sighted
                .iter()
                .any(|seen| seen.id == *id && seen.fate != Fate::Unclear)
        };
        let unread: Vec<ComputeId> = ids.iter().filter(|id| !known(id)).cloned().collect();
        if !unread.is_empty() {
            for compute in unread {
                self.sight(id, &compute, fate);
            }
            return;
        }
        let refused = match identity {
            _ if self.cx.held => Some(Stuck::Held),
            Err(failure) => Some(failure.stuck()),
            Ok(identity) => (check && !identity.speaks_for(attempt.identity.as_deref()))
                .then_some(Stuck::AccountChanged),
        };
        if let Some(stuck) = refused {
            let e = self.evidence(id);
            e.conclude_tries += 1;
            e.next_conclude =
                Some(now.saturating_add(backoff(RETRY_BASE * 2, RETRY_CAP, e.conclude_tries)));
            // Readings taken while the handle belonged to another account prove nothing.
            (e.walks, e.next_walk, e.searched) = ([None; 2], None, None);
            e.absent.clear();
            (e.suspect_since, e.unshown, e.next_read) = (None, None, None);
            if killed {
                self.stuck(id, stuck);
            }
            return;
        }
        if !super::proof::proved(attempt, self.step.evidence.attempts.get(&id), self.cx) {
            return;
        }
        if attempt.is_serving() {
            self.died(id, Death::Vanished);
        } else if attempt.own().next().is_some() {
            if let Some(attempt) = self.attempt(id) {
                for seen in &mut attempt.sighted {
                    if seen.fate != Fate::Unclear {
                        seen.fate = Fate::Gone;
                    }
                }
            }
            self.close(id, AttemptPhase::Dead);
            if !killed {
                self.given_up(id);
            }
        } else {
            self.close(id, AttemptPhase::Absent);
            self.given_up(id);
        }
    }

    /// An order whose answer was lost left no machine. Emits that, and counts it against the
    /// patience for other orders.
    fn given_up(&mut self, id: AttemptId) {
        let now = self.cx.now;
        self.emit(EventKind::Absent { attempt: id });
        if self.step.record.placing.is_some() {
            self.placing_patience(now);
        }
    }

    pub(super) fn stuck(&mut self, id: AttemptId, stuck: Stuck) {
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        let burn = match (
            &attempt.kill,
            attempt.own().any(|seen| seen.fate == Fate::Doomed),
        ) {
            (Some(_), _) => attempt.burn(),
            (None, true) => attempt.double_burn(),
            (None, false) => return,
        };
        // A rate limit gives no new information about what blocks the deletion.
        let haste = matches!(&stuck, Stuck::CloudUnreachable {
            kind } if kind == ErrorKind::RateLimited.as_str());
        if attempt.stuck.as_ref() != Some(&stuck) && !(haste && attempt.stuck.is_some()) {
            attempt.stuck = Some(stuck.clone());
            self.emit(EventKind::TerminateFailed { stuck, burn });
        }
    }

    /// Machines of an ended attempt were found: the attempt is reopened, only to end them.
    pub(super) fn reap(&mut self, id: AttemptId, ids: &[ComputeId]) {
        let now = self.cx.now;
        if self.cx.held {
            return;
        }
        let spare = self.cx.policy.safeguards().spare_unresolved;
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        if !attempt.is_terminal() && spare {
            return;
        }
        attempt.phase = AttemptPhase::Unknown;
        attempt.kill = Some(Kill {
            reason: Reason::Reaped,
            at: now,
        });
        attempt.ended_at = None;
        attempt.calling_at = attempt.calling_at.or(Some(attempt.created_at));
        attempt.metered_to = Some(now);
        attempt.was_alive_at(now);
        for compute in ids {
            self.sight(id, compute, Fate::Doomed);
            self.emit(EventKind::Reopened {
                attempt: id,
                compute: compute.clone(),
            });
        }
        if let Some(ending) = self.record().ending.as_mut() {
            ending.done_at = None;
        }
    }

    pub(super) fn extend(&mut self, until: Timestamp) {
        if self.step.record.ending.is_none()
            && self
                .step
                .record
                .not_idle_before
                .is_none_or(|old| old < until)
        {
            self.record().not_idle_before = Some(until);
            self.record()
                .warned
                .retain(|warned| warned.limit != Limit::IdleTtl);
            self.decide(format!("kept alive until {until} on request"));
            self.emit(EventKind::Extended { until });
        }
    }

    pub(super) fn claim(&mut self, node: &str) {
        if self.step.record.owner != node {
            node.clone_into(&mut self.record().owner);
            self.emit(EventKind::Owner {
                node: node.to_owned(),
            });
        }
    }

    /// The time jumped. Orders in progress may have left only after the jump, and recorded instants
    /// later than now were written by a clock that was ahead.
    pub(super) fn time_jumped(&mut self) {
        let now = self.cx.now;
        if self.cx.trust.doubt.is_zero() {
            self.record().not_later_than(now);
        }
        for attempt in &mut self.step.record.attempts {
            if matches!(attempt.phase, AttemptPhase::Calling | AttemptPhase::Unknown) {
                attempt.calling_at = Some(now);
                // It may have left only after it was searched for.
                self.step.evidence.of(attempt.id).searched = None;
            }
        }
        self.step.evidence.not_later_than(now);
    }

    /// Nothing before the accept is certain: an order that was about to be made may have been made.
    pub(super) fn accept(&mut self) {
        let now = self.cx.now;
        let open: Vec<AttemptId> = self
            .step
            .record
            .attempts
            .iter()
            .filter(|a| {
                matches!(
                    a.phase,
                    AttemptPhase::Intent | AttemptPhase::Calling | AttemptPhase::Unknown
                )
            })
            .map(|a| a.id)
            .collect();
        for id in open {
            let e = self.evidence(id);
            (e.in_call, e.searched) = (false, None);
            if let Some(attempt) = self.attempt(id) {
                attempt.calling_at = Some(now);
                attempt.metered_to = attempt.metered_to.or(Some(now));
            }
            self.unknown(id);
        }
    }
}
