//! Placement: from the request for a machine to the answer of the create call.

use std::time::Duration;

use atlas_core::{
    AttemptId, Candidate, ComputeId, ErrorKind, Next, Support, Timestamp, TrackedKey,
};

use super::input::{Answer, Failure, backoff};
use super::record::{Attempt, Fate, SupportStep};
use super::step::{RETRY_BASE, RETRY_CAP, STUCK_AFTER, Stepper};
use crate::event::{EventKind, Reason};
use crate::session::AttemptPhase;

impl Stepper<'_> {
    pub(super) fn candidates(&mut self, found: &Result<Vec<Candidate>, Failure>) {
        let now = self.cx.now;
        let Some(placing) = self.step.record.placing.as_mut() else {
            return;
        };
        match found {
            Ok(list) if list.is_empty() => {
                placing.last_refusal = Some((
                    ErrorKind::NoCapacity.as_str().to_owned(),
                    "nothing fits the request now".to_owned(),
                ));
                self.place_later(None);
            }
            Ok(list) => {
                placing.candidates = Some(list.clone());
                (placing.not_before, placing.may_pass) = (None, false);
            }
            Err(failure) if is_final(failure) => {
                self.cannot_place(failure.kind.as_str(), &failure.message)
            }
            Err(failure) => {
                placing.last_refusal =
                    Some((failure.kind.as_str().to_owned(), failure.message.clone()));
                self.place_later(failure.retry_after);
            }
        }
        self.placing_patience(now);
    }

    /// Schedules the next attempt: after the wait that the cloud asked for, and later each time. A
    /// cloud that asks for no wait during an overload is not asked again at once.
    pub(super) fn place_later(&mut self, wait: Option<Duration>) {
        let now = self.cx.now;
        if let Some(placing) = self.step.record.placing.as_mut() {
            placing.waits += 1;
            let least = backoff(Duration::from_secs(2), RETRY_CAP, placing.waits);
            let wait = wait.unwrap_or_default().max(least);
            placing.not_before = Some(now.saturating_add(wait));
        }
    }

    pub(super) fn placing_patience(&mut self, now: Timestamp) {
        let policy = self.cx.policy;
        let Some(placing) = &self.step.record.placing else {
            return;
        };
        let waited = placing
            .since
            .map(|since| since.max(self.cx.trust.touched_at.unwrap_or(since)))
            .map_or(Duration::ZERO, |since| now.since(since));
        let unresolved = self
            .step
            .record
            .attempts
            .iter()
            .any(|a| !a.is_terminal() && a.kill.is_none());
        if unresolved || (waited < policy.placing_patience && placing.orders < policy.max_orders) {
            return;
        }
        let (kind, message) = placing.last_refusal.clone().unwrap_or_else(|| {
            (
                ErrorKind::NoCapacity.as_str().to_owned(),
                "no machine could be had in time".to_owned(),
            )
        });
        self.cannot_place(&kind, &message);
    }

    pub(super) fn cannot_place(&mut self, kind: &str, message: &str) {
        self.end(Reason::CannotPlace {
            kind: kind.to_owned(),
            message: message.to_owned(),
        });
    }

    pub(super) fn intend(&mut self, key: TrackedKey, supports: &[Support]) {
        let now = self.cx.now;
        if self.cx.held
            || !super::plan::may_order(&self.step.record, self.cx)
            || self.attempt(key.attempt()).is_some()
        {
            return;
        }
        let Some(candidate) = self.next_candidate() else {
            return;
        };
        let account = self.step.record.account.clone();
        let returned = self.cx.trust.touched_at;
        let Some(placing) = self.step.record.placing.as_mut() else {
            return;
        };
        placing.orders += 1;
        if self.step.record.attempts.is_empty()
            && let Some(returned) = returned
        {
            // Nothing was rented while the process was away, or before its clock was corrected.
            let record = self.record();
            record.created_at = record.created_at.max(returned);
        }
        let attempt = Attempt {
            id: key.attempt(),
            key,
            account,
            price: candidate.price,
            highest: candidate.price,
            spent_at_highest: atlas_core::Usd::ZERO,
            used: None,
            candidate,
            created_at: now,
            calling_at: None,
            phase: AttemptPhase::Intent,
            serving: None,
            compute: None,
            seen_at: None,
            ran_at: None,
            sighted: Vec::new(),
            kill: None,
            supports: supports
                .iter()
                .map(|s| SupportStep {
                    support: s.clone(),
                    made: false,
                    released: false,
                })
                .collect(),
            identity: None,
            identity_held: false,
            spent: atlas_core::Usd::ZERO,
            metered_to: None,
            ended_at: None,
            message: None,
            stuck: None,
        };
        self.step.intended = Some(attempt.id);
        self.emit(EventKind::Attempt {
            attempt: attempt.id,
            placed: attempt.placed(),
            price: attempt.price,
        });
        self.record().attempts.push(attempt);
    }

    /// Records an order of the first candidate, if it is still the one to try and its cost fits
    /// under the cap.
    pub(super) fn intend_first(
        &mut self,
        candidates: &[Candidate],
        key: TrackedKey,
        supports: &[Support],
    ) {
        let next = self
            .step
            .record
            .placing
            .as_ref()
            .and_then(|placing| placing.candidates.as_ref())
            .and_then(|list| list.first());
        let fits =
            next.is_some_and(|next| super::limits::fits(&self.step.record, next, self.cx).is_ok());
        if fits && next == candidates.first() {
            self.intend(key, supports);
        }
    }

    /// The first candidate whose cost fits under the cap; those that do not fit are dropped.
    pub(super) fn next_candidate(&mut self) -> Option<Candidate> {
        loop {
            let candidate = self
                .step
                .record
                .placing
                .as_ref()?
                .candidates
                .as_ref()?
                .first()?
                .clone();
            match super::limits::fits(&self.step.record, &candidate, self.cx) {
                Ok(()) => return Some(candidate),
                Err(why) => {
                    let placing = self.step.record.placing.as_mut()?;
                    placing.last_refusal =
                        Some((ErrorKind::Quota.as_str().to_owned(), why.to_owned()));
                    let rest = placing.candidates.as_mut()?;
                    rest.remove(0);
                    if rest.is_empty() {
                        self.cannot_place(ErrorKind::Quota.as_str(), why);
                        return None;
                    }
                }
            }
        }
    }

    pub(super) fn support_made(
        &mut self,
        id: AttemptId,
        index: usize,
        made: &Result<Support, Failure>,
    ) {
        let now = self.cx.now;
        let Some(step) = self.attempt(id).and_then(|a| a.supports.get_mut(index)) else {
            return;
        };
        match made {
            Ok(support) => {
                step.support = support.clone();
                // The object was made after all, so the earlier finding that it did not exist no
                // longer holds.
                (step.made, step.released) = (true, false);
                let e = self.evidence(id);
                (e.support_tries, e.next_support) = (0, None);
            }
            Err(failure) => {
                let e = self.evidence(id);
                e.support_tries += 1;
                let tries = e.support_tries;
                e.next_support = Some(now.saturating_add(backoff(RETRY_BASE, RETRY_CAP, tries)));
                if is_final(failure) || tries >= 6 {
                    // Nothing was ordered: the attempt ends here, and those of its supporting
                    // objects that were made are released.
                    self.refuse(id, Next::NextCandidate, failure);
                }
            }
        }
    }

    pub(super) fn support_released(
        &mut self,
        id: AttemptId,
        index: usize,
        released: &Result<(), Failure>,
    ) {
        let now = self.cx.now;
        match released {
            Ok(()) => {
                if let Some(attempt) = self.attempt(id) {
                    if let Some(step) = attempt.supports.get_mut(index) {
                        step.released = true;
                    }
                    // The cause that prevented its release no longer applies.
                    attempt.stuck = None;
                }
                let e = self.evidence(id);
                (e.support_tries, e.next_support) = (0, None);
            }
            Err(failure) => {
                let e = self.evidence(id);
                e.support_tries += 1;
                let tries = e.support_tries;
                e.next_support = Some(now.saturating_add(backoff(RETRY_BASE, RETRY_CAP, tries)));
                if tries >= STUCK_AFTER {
                    self.stuck(id, failure.stuck());
                }
            }
        }
    }

    pub(super) fn call(&mut self, id: AttemptId, identity: &Option<String>) {
        let now = self.cx.now;
        if self.cx.held {
            return;
        }
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        if attempt.phase != AttemptPhase::Intent
            || attempt.kill.is_some()
            || attempt.supports.iter().any(|s| !s.made)
        {
            return;
        }
        attempt.phase = AttemptPhase::Calling;
        attempt.calling_at = Some(now);
        attempt.metered_to = Some(now);
        // Recorded before the call: if its answer is lost, only this account can prove its outcome.
        attempt.identity.clone_from(identity);
        self.evidence(id).in_call = true;
    }

    pub(super) fn answered(&mut self, id: AttemptId, answer: &Answer) {
        self.evidence(id).in_call = false;
        let Some(phase) = self.attempt(id).map(|a| a.phase) else {
            return;
        };
        match answer {
            Answer::Created(compute, identity) => {
                if let Some(attempt) = self.attempt(id)
                    && identity.is_some()
                {
                    // If the identity differs from the one before the call, the key was replaced
                    // while the order waited for its turn.
                    attempt.identity_held = attempt.identity == *identity;
                    attempt.identity.clone_from(identity);
                }
                match phase {
                    AttemptPhase::Calling | AttemptPhase::Unknown => {
                        self.sight(id, &compute.id, Fate::Kept);
                        self.serve(id, compute, false);
                    }
                    // Applied again because the first commit's answer was lost; the machine is not
                    // counted as seen twice.
                    AttemptPhase::Live
                        if self
                            .attempt(id)
                            .is_some_and(|a| a.serving.as_ref() == Some(&compute.id)) => {}
                    AttemptPhase::Live => self.second(id, compute),
                    _ => self.reap(id, std::slice::from_ref(&compute.id)),
                }
            }
            Answer::NotApplied(next, failure) => {
                let seen = self.attempt(id).is_some_and(|a| !a.sighted.is_empty());
                match phase {
                    AttemptPhase::Calling if seen => self.unknown(id),
                    // An intent is refused if there is no provider handle to send it to.
                    AttemptPhase::Intent | AttemptPhase::Calling => self.refuse(id, *next, failure),
                    _ => {}
                }
            }
            Answer::Unknown(ids, failure) => {
                if matches!(phase, AttemptPhase::Calling | AttemptPhase::Unknown) {
                    let doomed = self.attempt(id).is_some_and(|a| a.kill.is_some());
                    for leaked in ids {
                        self.sight(id, leaked, if doomed { Fate::Doomed } else { Fate::Kept });
                    }
                    if let Some(attempt) = self.attempt(id) {
                        attempt.message = Some(failure.message.clone());
                    }
                    self.unknown(id);
                }
            }
            Answer::Unwanted(ids, failure) => {
                if !matches!(
                    phase,
                    AttemptPhase::Calling | AttemptPhase::Unknown | AttemptPhase::Live
                ) {
                    return self.reap(id, ids);
                }
                for delivered in ids {
                    self.sight(id, delivered, Fate::Doomed);
                }
                if phase != AttemptPhase::Live {
                    self.unknown(id);
                    self.kill(id, Reason::NotAsOrdered);
                    self.refused(id, Next::NextCandidate, failure);
                }
            }
        }
    }

    pub(super) fn unknown(&mut self, id: AttemptId) {
        let resolve = self.cx.policy.safeguards().resolve_unknown;
        if let Some(attempt) = self.attempt(id)
            && matches!(attempt.phase, AttemptPhase::Intent | AttemptPhase::Calling)
        {
            attempt.phase = AttemptPhase::Unknown;
            self.emit(EventKind::OutcomeUnknown { attempt: id });
            if !resolve {
                self.close(id, AttemptPhase::NotApplied);
            }
        }
    }

    pub(super) fn refuse(&mut self, id: AttemptId, next: Next, failure: &Failure) {
        self.close(id, AttemptPhase::NotApplied);
        self.refused(id, next, failure);
    }

    /// Decides what to try next after an order that led to nothing usable.
    fn refused(&mut self, id: AttemptId, next: Next, failure: &Failure) {
        if let Some(attempt) = self.attempt(id) {
            attempt.message = Some(failure.message.clone());
        }
        self.emit(EventKind::Refused {
            attempt: id,
            message: failure.message.clone(),
            kind: failure.kind.as_str().to_owned(),
        });
        let Some(placing) = self.step.record.placing.as_mut() else {
            return;
        };
        placing.last_refusal = Some((failure.kind.as_str().to_owned(), failure.message.clone()));
        placing.may_pass |= !is_final(failure);
        if is_busy(failure) {
            placing.orders = placing.orders.saturating_sub(1);
        }
        match next {
            Next::NextCandidate => {
                if let Some(rest) = placing.candidates.as_mut() {
                    if !rest.is_empty() {
                        rest.remove(0);
                    }
                    if rest.is_empty() && !placing.may_pass {
                        // Every candidate was refused permanently; repeating the same orders cannot
                        // help.
                        return self.cannot_place(failure.kind.as_str(), &failure.message);
                    }
                    if rest.is_empty() {
                        // Every candidate was refused: ask the cloud again later.
                        placing.candidates = None;
                        self.place_later(failure.retry_after);
                    }
                }
            }
            Next::SameLater => self.place_later(failure.retry_after),
            Next::Stop => self.cannot_place(failure.kind.as_str(), &failure.message),
        }
        self.placing_patience(self.cx.now);
    }

    pub(super) fn lost(&mut self, id: AttemptId, ids: &[ComputeId]) {
        if self
            .step
            .evidence
            .attempts
            .get(&id)
            .is_some_and(|e| e.in_call)
        {
            return;
        }
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        if attempt.is_terminal() || attempt.phase == AttemptPhase::Intent {
            return;
        }
        let fate = if attempt.kill.is_some() {
            Fate::Doomed
        } else {
            Fate::Kept
        };
        for seen in ids {
            self.sight(id, seen, fate);
        }
        self.unknown(id);
    }
}

/// Whether the cloud refused the call before it looked at the request.
fn is_busy(failure: &Failure) -> bool {
    matches!(
        failure.kind,
        ErrorKind::RateLimited | ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Transport
    )
}

/// Whether repeating the order, or another candidate, cannot help.
fn is_final(failure: &Failure) -> bool {
    !failure.no_handle
        && matches!(
            failure.kind,
            ErrorKind::Unauthorized
                | ErrorKind::Forbidden
                | ErrorKind::Validation
                | ErrorKind::Unsupported
                | ErrorKind::Quota
        )
}
