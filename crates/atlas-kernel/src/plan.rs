//! Derives what to do next from the record and the evidence. After a crash, the same record gives
//! the right effects.

use atlas_core::{AttemptId, ComputeId, Timestamp};

use super::input::{AttemptEvidence, Cx, Evidence};
use super::limits;
use super::proof::{all_answered, both_walks, proved, searched};
use super::record::{Attempt, Fate, SessionRecord};
use crate::session::{AttemptPhase, SessionKind};

/// Something to do. Equal effects are the same work: it is not started twice at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Ask the provider for candidates.
    Candidates,
    /// Mint a key and record an attempt.
    Intend,
    /// Make a supporting object.
    EnsureSupport(AttemptId, usize),
    /// Commit `calling`, then make the create call.
    Order(AttemptId),
    /// Read the ids recorded outside the session's row, then treat the answer as lost.
    Recover(AttemptId),
    /// List the account and search for the key.
    Walk(AttemptId),
    /// Poll the serving machine.
    Poll(AttemptId, ComputeId),
    /// Read a machine by its id, as a proof of absence.
    PointRead(AttemptId, ComputeId),
    /// Delete a machine.
    Delete(AttemptId, ComputeId),
    /// Check the account's identity, then conclude the attempt.
    Conclude(AttemptId),
    /// Release a supporting object.
    ReleaseSupport(AttemptId, usize),
    /// Evaluate the limits with the latest activity.
    Limits,
    /// Give up a placement whose patience ended while it waited for its next attempt.
    GiveUpPlacing,
    /// Emit the end of a session that has nothing left; while the process held, this could not be
    /// emitted.
    Finish,
}

/// The effects to start now, and when to plan again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The effects to start now.
    pub effects: Vec<Effect>,
    /// When to plan again, if nothing happens before.
    pub due: Option<Timestamp>,
}

impl Plan {
    fn at(&mut self, when: Option<Timestamp>, now: Timestamp, effect: Effect) {
        match when {
            Some(when) if when > now => self.wake(when),
            _ => self.effects.push(effect),
        }
    }

    fn wake(&mut self, when: Timestamp) {
        self.due = Some(self.due.map_or(when, |due| due.min(when)));
    }
}

/// Derives the next effects.
#[must_use]
pub fn plan(record: &SessionRecord, evidence: &Evidence, activity: Timestamp, cx: &Cx<'_>) -> Plan {
    let mut plan = Plan::default();
    let none = AttemptEvidence::default();
    for attempt in &record.attempts {
        let e = evidence.attempts.get(&attempt.id).unwrap_or(&none);
        if attempt.is_terminal() {
            release(attempt, e, cx, &mut plan);
        } else if attempt.is_serving() {
            serving(record, attempt, e, cx, &mut plan);
        } else {
            unsettled(attempt, e, cx, &mut plan);
        }
    }
    if record.is_finished() && !cx.held {
        plan.effects.push(Effect::Finish);
    }
    place(record, cx, &mut plan);
    if let Some(look) = limits::next_look(record, activity, cx) {
        plan.at(Some(look), cx.now, Effect::Limits);
    }
    plan
}

/// Whether another order may be recorded now.
#[must_use]
pub fn may_order(record: &SessionRecord, cx: &Cx<'_>) -> bool {
    let Some(placing) = &record.placing else {
        return false;
    };
    let others_allow = record.attempts.iter().all(|attempt| {
        attempt.is_terminal()
            || (attempt.kill.is_some() && !cx.account.one_at_a_time)
            || (record.options.hedge && attempt.phase == AttemptPhase::Unknown)
    });
    // With `hedge`, nothing else ends a placement of which every order is unknown.
    let patient = placing.orders < cx.policy.max_orders;
    record.ending.is_none()
        && !cx.held
        && others_allow
        && patient
        && placing.not_before.is_none_or(|at| at <= cx.now)
}

fn place(record: &SessionRecord, cx: &Cx<'_>, plan: &mut Plan) {
    let Some(placing) = &record.placing else {
        return;
    };
    if let Some(at) = placing.not_before
        && at > cx.now
    {
        plan.wake(at);
        // However long the cloud asked to wait, the placement ends when its patience does.
        let patient_until = placing
            .since
            .map(|since| since.saturating_add(cx.policy.placing_patience));
        let unresolved = record
            .attempts
            .iter()
            .any(|attempt| !attempt.is_terminal() && attempt.kill.is_none());
        if !cx.held && !unresolved && patient_until.is_some() {
            plan.at(patient_until, cx.now, Effect::GiveUpPlacing);
        }
    }
    if may_order(record, cx) {
        plan.effects.push(if placing.candidates.is_some() {
            Effect::Intend
        } else {
            Effect::Candidates
        });
    }
}

fn release(attempt: &Attempt, e: &AttemptEvidence, cx: &Cx<'_>, plan: &mut Plan) {
    // Supporting objects are released in reverse order: a later one may depend on an earlier one.
    if let Some((index, _)) = attempt
        .supports
        .iter()
        .enumerate()
        .rev()
        .find(|(_, step)| !step.released)
    {
        plan.at(
            e.next_support,
            cx.now,
            Effect::ReleaseSupport(attempt.id, index),
        );
    }
}

fn serving(
    record: &SessionRecord,
    attempt: &Attempt,
    e: &AttemptEvidence,
    cx: &Cx<'_>,
    plan: &mut Plan,
) {
    doomed(attempt, e, cx, plan);
    let Some(id) = &attempt.serving else { return };
    if e.suspect {
        if proved(attempt, Some(e), cx) {
            plan.at(e.next_conclude, cx.now, Effect::Conclude(attempt.id));
        } else if e.absent.contains_key(id) && cx.now >= attempt.may_vanish_at(&cx.bounds) {
            // A point read counts only if no listing contradicts it.
            plan.at(e.next_walk, cx.now, Effect::Walk(attempt.id));
        } else {
            let not_before = attempt
                .may_vanish_at(&cx.bounds)
                .max(e.next_read.unwrap_or(cx.now));
            plan.at(
                Some(not_before),
                cx.now,
                Effect::PointRead(attempt.id, id.clone()),
            );
        }
    } else if record.ready_at.is_none()
        || record.kind == SessionKind::Task
        || e.next_poll.is_some_and(|_| e.polls == 0)
    {
        plan.at(e.next_poll, cx.now, Effect::Poll(attempt.id, id.clone()));
    }
}

/// Machines of a serving attempt that are to be deleted: deleted, then read after one visibility
/// bound.
fn doomed(attempt: &Attempt, e: &AttemptEvidence, cx: &Cx<'_>, plan: &mut Plan) {
    for seen in attempt
        .sighted
        .iter()
        .filter(|seen| seen.fate == Fate::Doomed)
    {
        let d = e.deletes.get(&seen.id).copied().unwrap_or_default();
        match d.answered_at {
            None => plan.at(
                d.next_at,
                cx.now,
                Effect::Delete(attempt.id, seen.id.clone()),
            ),
            Some(at) => {
                let after = at
                    .saturating_add(cx.bounds.limits.visibility_bound)
                    .max(attempt.settled_at(&cx.bounds));
                plan.at(
                    Some(after.max(e.next_read.unwrap_or(after))),
                    cx.now,
                    Effect::PointRead(attempt.id, seen.id.clone()),
                );
            }
        }
    }
}

/// Plans for an attempt that is not resolved to a machine, or to the proof that there is none.
fn unsettled(attempt: &Attempt, e: &AttemptEvidence, cx: &Cx<'_>, plan: &mut Plan) {
    let (id, now) = (attempt.id, cx.now);
    match attempt.phase {
        AttemptPhase::Intent => {
            if cx.held {
                return;
            }
            match attempt.supports.iter().position(|step| !step.made) {
                Some(index) => plan.at(e.next_support, now, Effect::EnsureSupport(id, index)),
                None => plan.effects.push(Effect::Order(id)),
            }
            return;
        }
        AttemptPhase::Calling if e.in_call => {
            // Its answer is still expected; a committed end does not wait for it where ids are
            // known already.
            return deletes(attempt, e, cx, plan);
        }
        AttemptPhase::Calling => return plan.effects.push(Effect::Recover(id)),
        _ => {}
    }
    let killed = attempt.kill.is_some();
    if killed {
        deletes(attempt, e, cx, plan);
    }
    if killed && !all_answered(attempt, e) {
        // The proof can start only after a DELETE was answered; meanwhile, machines that are not
        // known yet are searched for.
        if attempt.serving.is_none() {
            plan.at(e.next_walk, now, Effect::Walk(id));
        }
        return;
    }
    if proved(attempt, Some(e), cx) {
        return plan.at(e.next_conclude, now, Effect::Conclude(id));
    }
    let settled = attempt.settled_at(&cx.bounds);
    if now < settled {
        if attempt.serving.is_none() {
            plan.at(e.next_walk, now, Effect::Walk(id));
        }
        if !killed {
            // A leaked id is read until it appears.
            for seen in attempt
                .sighted
                .iter()
                .filter(|seen| seen.fate == Fate::Kept && !e.absent.contains_key(&seen.id))
            {
                plan.at(e.next_read, now, Effect::PointRead(id, seen.id.clone()));
            }
        }
        return plan.wake(settled);
    }
    let Some(walked) = both_walks(attempt, e, cx).filter(|_| searched(attempt, e)) else {
        return plan.at(e.next_walk, now, Effect::Walk(id));
    };
    for seen in attempt.own() {
        if e.absent.get(&seen.id).is_none_or(|begun| *begun < walked) {
            plan.at(e.next_read, now, Effect::PointRead(id, seen.id.clone()));
        }
    }
}

fn deletes(attempt: &Attempt, e: &AttemptEvidence, cx: &Cx<'_>, plan: &mut Plan) {
    for seen in attempt
        .sighted
        .iter()
        .filter(|seen| matches!(seen.fate, Fate::Doomed | Fate::Kept))
    {
        let d = e.deletes.get(&seen.id).copied().unwrap_or_default();
        if d.answered_at.is_none() {
            plan.at(
                d.next_at,
                cx.now,
                Effect::Delete(attempt.id, seen.id.clone()),
            );
        }
    }
}
