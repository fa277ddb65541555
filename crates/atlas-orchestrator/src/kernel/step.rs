//! The transitions: what an input makes of a session. Pure, and safe to repeat on a fresher record.

use std::time::Duration;

use atlas_core::{AttemptId, Candidate, Compute, ComputeId, ComputeStatus, ErrorKind, Next, Support, Timestamp, TrackedKey};

use super::input::{Answer, AttemptEvidence, Cx, Evidence, Failure, Input, Reading, Walk, backoff};
use super::record::{Attempt, Ending, Fate, Kill, Placing, SessionRecord, Sighted, SupportStep};
use crate::event::{Death, EventKind, Limit, Reason, Stuck};
use crate::options::OnFailure;
use crate::session::{AttemptPhase, Proof, SessionKind, TaskKind, TaskOutcome};

/// Failures in a row after which a kill is called stuck.
const STUCK_AFTER: u32 = 3;
/// The longest wait between two tries at anything that has to succeed in the end.
pub(super) const RETRY_CAP: Duration = Duration::from_secs(60);
pub(super) const RETRY_BASE: Duration = Duration::from_secs(1);

/// What a step made of a session.
#[derive(Clone, Debug)]
pub struct Step {
    /// The new record.
    pub record: SessionRecord,
    /// The new facts.
    pub evidence: Evidence,
    /// What happened, to be committed with the record.
    pub events: Vec<EventKind>,
    /// An attempt that is new on record.
    pub intended: Option<AttemptId>,
    /// The sealed request is of no use any more.
    pub erase: bool,
}

/// Takes a step.
#[must_use]
pub fn step(record: &SessionRecord, evidence: &Evidence, cx: &Cx<'_>, input: &Input) -> Step {
    let mut s = Stepper {
        cx,
        step: Step { record: record.clone(), evidence: evidence.clone(), events: Vec::new(), intended: None, erase: false },
    };
    s.take(input);
    s.finish();
    s.step
}

pub(super) struct Stepper<'a> {
    pub(super) cx: &'a Cx<'a>,
    pub(super) step: Step,
}

impl Stepper<'_> {
    fn take(&mut self, input: &Input) {
        match input {
            Input::Tick => {}
            Input::Candidates(found) => self.candidates(found),
            Input::Intend { key, supports } => self.intend(*key, supports),
            Input::SupportMade(id, index, made) => self.support_made(*id, *index, made),
            Input::SupportReleased(id, index, released) => self.support_released(*id, *index, released),
            Input::Call(id) => self.call(*id),
            Input::Answered(id, answer) => self.answered(*id, answer),
            Input::Lost(id, ids) => self.lost(*id, ids),
            Input::Walked(id, walk) => self.walked(*id, walk),
            Input::Found(id, machines) => self.found(*id, machines),
            Input::Missing(id, begun) => self.missing(*id, *begun),
            Input::Observed(id, seen) => self.observed(*id, seen),
            Input::Read(id, compute, begun, reading) => self.read(*id, compute, *begun, reading),
            Input::Deleted(id, compute, deleted) => self.deleted(*id, compute, deleted),
            Input::Conclude(id, identity, ids) => self.conclude(*id, identity, ids),
            Input::Reap(id, ids) => self.reap(*id, ids),
            Input::Stop(reason) => self.end(reason.clone()),
            Input::Extend(until) => self.extend(*until),
            Input::Limits(activity) => self.limits(activity),
            Input::Claim(node) => self.claim(node),
            Input::Accept => self.accept(),
            Input::TaskReported(code) => self.task_reported(*code),
            Input::Reported(kind, text) => {
                if self.record().ending.is_none() {
                    self.emit(EventKind::Reported { kind: kind.clone(), text: text.clone() });
                }
            }
        }
    }

    pub(super) fn record(&mut self) -> &mut SessionRecord {
        &mut self.step.record
    }

    pub(super) fn emit(&mut self, event: EventKind) {
        self.step.events.push(event);
    }

    pub(super) fn decide(&mut self, text: impl Into<String>) {
        let now = self.cx.now;
        self.record().decide(now, text);
    }

    fn evidence(&mut self, id: AttemptId) -> &mut AttemptEvidence {
        self.step.evidence.of(id)
    }

    fn attempt(&mut self, id: AttemptId) -> Option<&mut Attempt> {
        self.step.record.attempt_mut(id)
    }

    // ---- placing -------------------------------------------------------------------------------------------------

    fn candidates(&mut self, found: &Result<Vec<Candidate>, Failure>) {
        let now = self.cx.now;
        let Some(placing) = self.step.record.placing.as_mut() else { return };
        match found {
            Ok(list) if list.is_empty() => {
                placing.last_refusal =
                    Some((ErrorKind::NoCapacity.as_str().to_owned(), "nothing fits the request now".to_owned()));
                self.place_later(None);
            }
            Ok(list) => {
                placing.candidates = Some(list.clone());
                placing.not_before = None;
            }
            Err(failure) if is_final(failure) => self.cannot_place(failure.kind.as_str(), &failure.message),
            Err(failure) => {
                placing.last_refusal = Some((failure.kind.as_str().to_owned(), failure.message.clone()));
                self.place_later(failure.retry_after);
            }
        }
        self.placing_patience(now);
    }

    fn place_later(&mut self, wait: Option<Duration>) {
        let now = self.cx.now;
        if let Some(placing) = self.step.record.placing.as_mut() {
            placing.orders += 1;
            let wait = wait.unwrap_or_else(|| backoff(Duration::from_secs(2), RETRY_CAP, placing.orders));
            placing.not_before = Some(now.saturating_add(wait));
        }
    }

    fn placing_patience(&mut self, now: Timestamp) {
        let policy = self.cx.policy;
        let Some(placing) = &self.step.record.placing else { return };
        let waited = placing.since.map_or(Duration::ZERO, |since| now.since(since));
        let unresolved = self.step.record.attempts.iter().any(|a| !a.is_terminal() && a.kill.is_none());
        if unresolved || (waited < policy.placing_patience && placing.orders < policy.max_orders) {
            return;
        }
        let (kind, message) = placing
            .last_refusal
            .clone()
            .unwrap_or_else(|| (ErrorKind::NoCapacity.as_str().to_owned(), "no machine could be had in time".to_owned()));
        self.cannot_place(&kind, &message);
    }

    fn cannot_place(&mut self, kind: &str, message: &str) {
        self.end(Reason::CannotPlace { kind: kind.to_owned(), message: message.to_owned() });
    }

    fn intend(&mut self, key: TrackedKey, supports: &[Support]) {
        let now = self.cx.now;
        if self.cx.held || !super::plan::may_order(&self.step.record, self.cx) || self.attempt(key.attempt()).is_some() {
            return;
        }
        let Some(candidate) = self.next_candidate() else { return };
        let account = self.step.record.account.clone();
        let Some(placing) = self.step.record.placing.as_mut() else { return };
        placing.orders += 1;
        let attempt = Attempt {
            id: key.attempt(),
            key,
            account,
            price: candidate.price,
            candidate,
            created_at: now,
            calling_at: None,
            phase: AttemptPhase::Intent,
            serving: None,
            compute: None,
            sighted: Vec::new(),
            kill: None,
            supports: supports.iter().map(|s| SupportStep { support: s.clone(), made: false, released: false }).collect(),
            identity: None,
            spent: atlas_core::Usd::ZERO,
            metered_to: None,
            ended_at: None,
            message: None,
            stuck: None,
        };
        self.step.intended = Some(attempt.id);
        self.emit(EventKind::Attempt { attempt: attempt.id, placed: attempt.placed(), price: attempt.price });
        self.record().attempts.push(attempt);
    }

    /// The first candidate whose hold fits under the cap; those that do not are dropped.
    fn next_candidate(&mut self) -> Option<Candidate> {
        loop {
            let candidate = self.step.record.placing.as_ref()?.candidates.as_ref()?.first()?.clone();
            match super::limits::fits(&self.step.record, &candidate, self.cx) {
                Ok(()) => return Some(candidate),
                Err(why) => {
                    let placing = self.step.record.placing.as_mut()?;
                    placing.last_refusal = Some((ErrorKind::Quota.as_str().to_owned(), why.to_owned()));
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

    fn support_made(&mut self, id: AttemptId, index: usize, made: &Result<Support, Failure>) {
        let now = self.cx.now;
        let Some(step) = self.attempt(id).and_then(|a| a.supports.get_mut(index)) else { return };
        match made {
            Ok(support) => {
                step.support = support.clone();
                step.made = true;
                let e = self.evidence(id);
                (e.support_tries, e.next_support) = (0, None);
            }
            Err(failure) => {
                let e = self.evidence(id);
                e.support_tries += 1;
                let tries = e.support_tries;
                e.next_support = Some(now.saturating_add(backoff(RETRY_BASE, RETRY_CAP, tries)));
                if is_final(failure) || tries >= 6 {
                    // Nothing was ordered: the attempt ends here, and what was made of its supports is released.
                    self.refuse(id, Next::NextCandidate, failure);
                }
            }
        }
    }

    fn support_released(&mut self, id: AttemptId, index: usize, released: &Result<(), Failure>) {
        let now = self.cx.now;
        match released {
            Ok(()) => {
                if let Some(step) = self.attempt(id).and_then(|a| a.supports.get_mut(index)) {
                    step.released = true;
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

    // ---- the one call --------------------------------------------------------------------------------------------

    fn call(&mut self, id: AttemptId) {
        let now = self.cx.now;
        if self.cx.held {
            return;
        }
        let Some(attempt) = self.attempt(id) else { return };
        if attempt.phase != AttemptPhase::Intent || attempt.kill.is_some() || attempt.supports.iter().any(|s| !s.made) {
            return;
        }
        attempt.phase = AttemptPhase::Calling;
        attempt.calling_at = Some(now);
        attempt.metered_to = Some(now);
        self.evidence(id).in_call = true;
    }

    fn answered(&mut self, id: AttemptId, answer: &Answer) {
        self.evidence(id).in_call = false;
        let Some(phase) = self.attempt(id).map(|a| a.phase) else { return };
        match answer {
            Answer::Created(compute, identity) => {
                if let Some(attempt) = self.attempt(id)
                    && attempt.identity.is_none()
                {
                    attempt.identity.clone_from(identity);
                }
                match phase {
                    AttemptPhase::Calling | AttemptPhase::Unknown => {
                        self.sight(id, &compute.id, Fate::Kept);
                        self.serve(id, compute, false);
                    }
                    AttemptPhase::Live => self.second(id, compute),
                    _ => self.reap(id, std::slice::from_ref(&compute.id)),
                }
            }
            Answer::NotApplied(next, failure) => {
                let seen = self.attempt(id).is_some_and(|a| !a.sighted.is_empty());
                if phase == AttemptPhase::Calling && seen {
                    self.unknown(id);
                } else if phase == AttemptPhase::Calling {
                    self.refuse(id, *next, failure);
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
        }
    }

    fn unknown(&mut self, id: AttemptId) {
        let resolve = self.cx.policy.safeguards.resolve_unknown;
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

    fn refuse(&mut self, id: AttemptId, next: Next, failure: &Failure) {
        if let Some(attempt) = self.attempt(id) {
            attempt.message = Some(failure.message.clone());
        }
        self.close(id, AttemptPhase::NotApplied);
        self.emit(EventKind::Refused { attempt: id, message: failure.message.clone(), kind: failure.kind.as_str().to_owned() });
        let Some(placing) = self.step.record.placing.as_mut() else { return };
        placing.last_refusal = Some((failure.kind.as_str().to_owned(), failure.message.clone()));
        match next {
            Next::NextCandidate => {
                if let Some(rest) = placing.candidates.as_mut() {
                    if !rest.is_empty() {
                        rest.remove(0);
                    }
                    if rest.is_empty() {
                        // Every candidate was refused: ask the cloud anew, later.
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

    fn lost(&mut self, id: AttemptId, ids: &[ComputeId]) {
        if self.step.evidence.attempts.get(&id).is_some_and(|e| e.in_call) {
            return;
        }
        let Some(attempt) = self.attempt(id) else { return };
        if attempt.is_terminal() || attempt.phase == AttemptPhase::Intent {
            return;
        }
        let fate = if attempt.kill.is_some() { Fate::Doomed } else { Fate::Kept };
        for seen in ids {
            self.sight(id, seen, fate);
        }
        self.unknown(id);
    }

    // ---- machines under a key ------------------------------------------------------------------------------------

    /// Puts an id on record. Answers whether it is new.
    fn sight(&mut self, id: AttemptId, compute: &ComputeId, fate: Fate) -> bool {
        let now = self.cx.now;
        let Some(attempt) = self.attempt(id) else { return false };
        match attempt.sighted_mut(compute) {
            Some(seen) => {
                if fate == Fate::Doomed && seen.fate != Fate::Doomed {
                    seen.fate = Fate::Doomed;
                    let e = self.evidence(id);
                    e.deletes.remove(compute);
                    e.absent.remove(compute);
                }
                false
            }
            None => {
                attempt.sighted.push(Sighted { id: compute.clone(), at: now, fate });
                let e = self.evidence(id);
                (e.walks, e.absent) = ([None; 2], std::collections::BTreeMap::new());
                true
            }
        }
    }

    /// The machine becomes the one that serves, or is ended where another does or the end is committed.
    fn serve(&mut self, id: AttemptId, compute: &Compute, adopted: bool) {
        let other = self.step.record.attempts.iter().any(|a| a.id != id && a.is_serving());
        let ending = self.step.record.ending.is_some();
        let Some(attempt) = self.attempt(id) else { return };
        attempt.phase = AttemptPhase::Live;
        attempt.serving = Some(compute.id.clone());
        let killed = attempt.kill.is_some();
        if adopted {
            self.emit(EventKind::Adopted { attempt: id, compute: compute.id.clone() });
        } else {
            self.emit(EventKind::Accepted { attempt: id, compute: compute.id.clone() });
        }
        if killed || ending || other {
            self.kill(id, if other && !ending { Reason::Replaced } else { Reason::Requested });
            self.sight(id, &compute.id, Fate::Doomed);
        } else {
            self.record().placing = None;
            self.record().ready_at = None;
            let placed = self.attempt(id).map(|a| a.placed()).unwrap_or_default();
            self.decide(format!("placed on {placed}"));
            let e = self.evidence(id);
            (e.polls, e.next_poll, e.suspect, e.suspect_since) = (0, None, false, None);
            // Under `hedge` others may be on their way: the first machine wins.
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

    /// A machine that is not the serving one, under a key whose attempt has one.
    fn second(&mut self, id: AttemptId, compute: &Compute) {
        let bounds = self.cx.bounds;
        let now = self.cx.now;
        let every = self.cx.policy.safeguards.every_duplicate;
        let Some(attempt) = self.attempt(id) else { return };
        if attempt.serving.as_ref() == Some(&compute.id) {
            return self.observe(id, compute);
        }
        let window_ends = attempt.settled_at(&bounds);
        // A cloud that does not say when it made a machine: it was made before it was seen.
        let born = compute.created_at.unwrap_or(now);
        let known = attempt.sighted_mut(&compute.id).map(|seen| seen.fate);
        let whole = matches!(compute.keys.claim(), atlas_core::Claim::Whole(_));
        match known {
            Some(Fate::Doomed | Fate::Clone) => {}
            Some(Fate::Gone | Fate::Kept) => {
                self.sight(id, &compute.id, Fate::Doomed);
            }
            None if born > window_ends || !whole => {
                self.sight(id, &compute.id, Fate::Clone);
                self.decide(format!("machine {} carries the key of another and is not ours to end", compute.id));
            }
            None if every => {
                self.sight(id, &compute.id, Fate::Doomed);
                self.emit(EventKind::DuplicateFound { attempt: id, compute: compute.id.clone() });
            }
            None => {}
        }
    }

    fn found(&mut self, id: AttemptId, machines: &[Compute]) {
        let now = self.cx.now;
        let Some(attempt) = self.attempt(id) else { return };
        if attempt.is_terminal() {
            return;
        }
        let mut machines: Vec<&Compute> = machines.iter().filter(|m| m.status != ComputeStatus::Terminated).collect();
        // The oldest, by the cloud's word, is the one to keep.
        machines.sort_by(|a, b| {
            let born = |m: &Compute| (m.created_at.is_none(), m.created_at);
            born(a).cmp(&born(b)).then_with(|| a.id.cmp(&b.id))
        });
        let killed = attempt.kill.is_some();
        let phase = attempt.phase;
        if phase == AttemptPhase::Intent && !machines.is_empty() {
            // Only a store that was rolled back has a machine under an intent: its call was made in a past we lost.
            attempt.calling_at = Some(now);
            attempt.metered_to = Some(now);
            self.unknown(id);
        }
        match phase {
            _ if killed => {
                for machine in machines {
                    let known = self.attempt(id).and_then(|a| a.sighted_mut(&machine.id).map(|seen| seen.fate));
                    if known.is_none() {
                        self.second(id, machine);
                    } else if known == Some(Fate::Gone) || known == Some(Fate::Kept) {
                        self.sight(id, &machine.id, Fate::Doomed);
                    }
                    if let Some(price) = machine.cost_per_hour {
                        let now = self.cx.now;
                        if let Some(attempt) = self.attempt(id) {
                            attempt.reprice(price, now);
                        }
                    }
                }
            }
            AttemptPhase::Live => {
                for machine in machines {
                    self.second(id, machine);
                }
            }
            _ if self.step.evidence.attempts.get(&id).is_some_and(|e| e.in_call) => {}
            _ => {
                let mut machines = machines.into_iter();
                if let Some(first) = machines.next() {
                    self.sight(id, &first.id, Fate::Kept);
                    self.serve(id, first, true);
                    for other in machines {
                        self.second(id, other);
                    }
                }
            }
        }
    }

    fn walked(&mut self, id: AttemptId, walk: &Result<Walk, Failure>) {
        let now = self.cx.now;
        let bounds = self.cx.bounds;
        let trust_partial = !self.cx.policy.safeguards.complete_walks;
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
                let Some(attempt) = self.step.record.attempt(id) else { return };
                let killed = attempt.kill.is_some();
                let clones: Vec<&ComputeId> = attempt.sighted.iter().filter(|s| s.fate == Fate::Clone).map(|s| &s.id).collect();
                let seen: Vec<ComputeId> = walk
                    .found
                    .iter()
                    .filter(|m| m.status != ComputeStatus::Terminated && !clones.contains(&&m.id))
                    .map(|m| m.id.clone())
                    .collect();
                let settled = attempt.settled_at(&bounds);
                let spacing = super::plan::walk_spacing(killed, &bounds);
                let e = self.evidence(id);
                if !seen.is_empty() {
                    (e.walks, e.walk_tries) = ([None; 2], e.walk_tries + 1);
                    e.absent.clear();
                    for id in seen {
                        // Listings lag: only what is still seen a bound after its DELETE was answered needs another.
                        if let Some(d) = e.deletes.get_mut(&id)
                            && d.answered_at.is_some_and(|at| walk.begun >= at.saturating_add(bounds.limits.visibility_bound))
                        {
                            (d.answered_at, d.next_at) = (None, Some(now));
                        }
                    }
                    e.next_walk = Some(now.saturating_add(backoff(RETRY_BASE * 2, Duration::from_secs(15), e.walk_tries)));
                } else if !walk.complete && !trust_partial {
                    e.walk_tries += 1;
                    e.next_walk = Some(now.saturating_add(backoff(RETRY_BASE, RETRY_CAP, e.walk_tries)));
                    if e.walk_tries >= STUCK_AFTER * 2 && killed {
                        self.stuck(id, Stuck::CloudUnreachable { kind: "incomplete".to_owned() });
                    }
                } else if walk.begun < settled {
                    e.walk_tries += 1;
                    let next = now.saturating_add(backoff(RETRY_BASE, Duration::from_secs(15), e.walk_tries));
                    e.next_walk = Some(next.min(settled.max(now)));
                } else {
                    e.walk_tries = 0;
                    match e.walks {
                        [Some(first), _] if walk.begun >= first.saturating_add(spacing) => e.walks[1] = Some(walk.begun),
                        [Some(first), _] => e.next_walk = Some(first.saturating_add(spacing).max(now)),
                        [None, _] => {
                            e.walks[0] = Some(walk.begun);
                            e.next_walk = Some(walk.begun.saturating_add(spacing).max(now));
                        }
                    }
                }
            }
        }
    }

    // ---- the serving machine -------------------------------------------------------------------------------------

    fn missing(&mut self, id: AttemptId, begun: Timestamp) {
        let bounds = self.cx.bounds;
        let Some(attempt) = self.attempt(id) else { return };
        let fresh =
            attempt.sighted.iter().map(|s| s.at).max().is_none_or(|at| begun < at.saturating_add(bounds.limits.visibility_bound));
        if attempt.is_serving() && begun >= attempt.settled_at(&bounds) && !fresh {
            self.evidence(id).suspect = true;
        }
    }

    fn observed(&mut self, id: AttemptId, seen: &Result<Box<Compute>, Failure>) {
        let now = self.cx.now;
        let task = self.step.record.kind == SessionKind::Task;
        let Some(attempt) = self.attempt(id) else { return };
        if !attempt.is_serving() {
            return;
        }
        let slowest = Duration::from_secs(if task { 5 } else { 10 });
        let e = self.evidence(id);
        e.polls += 1;
        e.next_poll = Some(now.saturating_add(backoff(Duration::from_millis(500), slowest, e.polls)));
        match seen {
            Ok(compute) => {
                (e.suspect, e.suspect_since) = (false, None);
                self.observe(id, compute);
            }
            // A failed poll is never a death; a missing machine is a suspicion.
            Err(failure) if failure.kind == ErrorKind::NotFound => e.suspect = true,
            Err(failure) => {
                if let Some(wait) = failure.retry_after {
                    e.next_poll = Some(now.saturating_add(wait));
                }
            }
        }
    }

    fn observe(&mut self, id: AttemptId, compute: &Compute) {
        let now = self.cx.now;
        let Some(attempt) = self.attempt(id) else { return };
        if attempt.serving.as_ref() != Some(&compute.id) {
            return;
        }
        let before = attempt.compute.as_ref().map(|c| c.status.clone());
        if let Some(price) = compute.cost_per_hour {
            attempt.reprice(price, now);
        }
        let mut kept = compute.clone();
        kept.raw = atlas_core::Raw::default();
        kept.auth = None;
        attempt.compute = Some(kept);
        if before.as_ref() != Some(&compute.status) {
            self.emit(EventKind::Status { status: compute.status.clone() });
        }
        if !self.attempt(id).is_some_and(|a| a.is_serving()) {
            return;
        }
        if self.step.record.kind == SessionKind::Task && !compute.preempted {
            let over = matches!(compute.status, ComputeStatus::Stopped | ComputeStatus::Failed | ComputeStatus::Terminated);
            if compute.exit_code.is_some() || over {
                let outcome = match compute.exit_code {
                    Some(0) => TaskOutcome { kind: TaskKind::Completed, exit_code: Some(0), proof: Proof::Reported },
                    Some(code) => TaskOutcome { kind: TaskKind::Failed, exit_code: Some(code), proof: Proof::Reported },
                    None if compute.status == ComputeStatus::Failed => {
                        TaskOutcome { kind: TaskKind::Failed, exit_code: None, proof: Proof::Inferred }
                    }
                    None => TaskOutcome { kind: TaskKind::Completed, exit_code: None, proof: Proof::Inferred },
                };
                return self.task_ended(outcome);
            }
        }
        let how = match compute.status {
            _ if compute.preempted => Some(Death::Preempted),
            ComputeStatus::Stopped => Some(Death::Stopped),
            ComputeStatus::Terminated => Some(Death::Terminated),
            ComputeStatus::Failed => Some(Death::Failed),
            _ => None,
        };
        if let Some(how) = how {
            return self.died(id, how);
        }
        let usable = compute.status == ComputeStatus::Running && compute.ready.unwrap_or(true);
        if usable && self.step.record.ready_at.is_none() {
            self.record().ready_at = Some(now);
            self.emit(EventKind::Ready);
        }
    }

    fn task_reported(&mut self, code: i32) {
        if self.step.record.kind == SessionKind::Task {
            let kind = if code == 0 { TaskKind::Completed } else { TaskKind::Failed };
            self.task_ended(TaskOutcome { kind, exit_code: Some(code), proof: Proof::Reported });
        }
    }

    fn task_ended(&mut self, outcome: TaskOutcome) {
        if self.step.record.outcome.is_none() && self.step.record.ending.is_none() {
            self.record().outcome = Some(outcome);
            self.emit(EventKind::TaskEnded { outcome });
            self.end(Reason::TaskEnded);
        }
    }

    /// The serving machine is dead. A dead machine is still a machine: its end is committed here, with what follows.
    pub(super) fn died(&mut self, id: AttemptId, how: Death) {
        let now = self.cx.now;
        let kills_old = self.cx.policy.safeguards.respawn_kills_old;
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
            self.record().placing = Some(Placing { since: Some(now), ..Placing::default() });
            let respawn = self.step.record.respawns;
            self.decide(format!("machine died ({how:?}); respawn {respawn} of {allowed}"));
            self.emit(EventKind::Respawning { respawn });
        } else {
            if self.step.record.kind == SessionKind::Task && self.step.record.outcome.is_none() {
                let outcome = TaskOutcome { kind: TaskKind::Failed, exit_code: None, proof: Proof::Inferred };
                self.record().outcome = Some(outcome);
                self.emit(EventKind::TaskEnded { outcome });
            }
            let reason =
                if how == Death::NeverReady { Reason::Limit { limit: Limit::ReadyTimeout } } else { Reason::MachineDied { how } };
            self.end(reason);
        }
    }

    // ---- ends ----------------------------------------------------------------------------------------------------

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
            let outcome = TaskOutcome { kind, exit_code: None, proof: Proof::Inferred };
            self.record().outcome = Some(outcome);
            self.emit(EventKind::TaskEnded { outcome });
        }
        self.record().placing = None;
        self.record().ending = Some(Ending { reason: reason.clone(), at: now, done_at: None });
        self.decide(format!("ending: {}", serde_json::to_string(&reason).unwrap_or_default()));
        self.emit(EventKind::Terminating { reason: reason.clone() });
        let open: Vec<AttemptId> = self.step.record.attempts.iter().filter(|a| !a.is_terminal()).map(|a| a.id).collect();
        for id in open {
            self.kill(id, reason.clone());
        }
    }

    /// Commits the end of an attempt. Final.
    fn kill(&mut self, id: AttemptId, reason: Reason) {
        let now = self.cx.now;
        let Some(attempt) = self.attempt(id) else { return };
        if attempt.is_terminal() {
            return;
        }
        if attempt.kill.is_none() {
            attempt.kill = Some(Kill { reason, at: now });
        }
        for seen in &mut attempt.sighted {
            if seen.fate == Fate::Kept {
                seen.fate = Fate::Doomed;
            }
        }
        let intent = attempt.phase == AttemptPhase::Intent;
        let e = self.evidence(id);
        // What was looked for until now was a machine to keep; the proof of an end starts anew.
        (e.walks, e.next_walk, e.next_read, e.walk_tries) = ([None; 2], None, None, 0);
        e.absent.clear();
        if intent && let Some(attempt) = self.attempt(id) {
            // The call was never put on record, and this write's guard keeps it from being: nothing was ordered.
            attempt.message = Some("ended before it was ordered".to_owned());
            self.close(id, AttemptPhase::NotApplied);
        }
    }

    fn close(&mut self, id: AttemptId, phase: AttemptPhase) {
        let now = self.cx.now;
        if let Some(attempt) = self.attempt(id) {
            attempt.spent = attempt.cost(now);
            attempt.metered_to = attempt.metered_to.map(|from| from.max(now));
            attempt.phase = phase;
            attempt.ended_at = Some(now);
            attempt.stuck = None;
            self.step.evidence.attempts.remove(&id);
        }
    }

    fn deleted(&mut self, id: AttemptId, compute: &ComputeId, deleted: &Result<(), Failure>) {
        let now = self.cx.now;
        let retry = self.cx.policy.safeguards.retry_kill;
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
                let wait = failure.retry_after.unwrap_or_default().max(backoff(RETRY_BASE, RETRY_CAP, d.tries));
                d.next_at = Some(now.saturating_add(wait.min(RETRY_CAP * 5)));
                let tries = d.tries;
                if tries >= STUCK_AFTER || failure.stuck() == Stuck::Credential {
                    self.stuck(id, failure.stuck());
                }
            }
        }
    }

    fn read(&mut self, id: AttemptId, compute: &ComputeId, begun: Timestamp, reading: &Reading) {
        let now = self.cx.now;
        let bound = self.cx.bounds.limits.visibility_bound;
        let Some(attempt) = self.attempt(id) else { return };
        let serving = attempt.is_serving() && attempt.serving.as_ref() == Some(compute);
        let killed = attempt.kill.is_some() || attempt.sighted_mut(compute).is_some_and(|s| s.fate == Fate::Doomed);
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
                }
            }
            Reading::Present => {
                (e.read_tries, e.next_read) = (0, None);
                e.absent.clear();
                if serving {
                    (e.suspect, e.suspect_since, e.next_poll) = (false, None, Some(now));
                } else if unresolved {
                    // A leaked id that is there: the order was carried out.
                    let compute = Compute::new(compute.clone(), provider, ComputeStatus::Provisioning);
                    self.serve(id, &compute, true);
                } else if killed {
                    e.walks = [None; 2];
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

    fn conclude(&mut self, id: AttemptId, identity: &Result<super::input::Identity, Failure>, ids: &[ComputeId]) {
        let now = self.cx.now;
        let check = self.cx.policy.safeguards.account_identity;
        let Some(attempt) = self.step.record.attempt(id) else { return };
        if attempt.is_terminal() {
            return;
        }
        let killed = attempt.kill.is_some();
        let fate = if killed { Fate::Doomed } else { Fate::Kept };
        let unread: Vec<ComputeId> = ids.iter().filter(|id| !attempt.sighted.iter().any(|s| s.id == **id)).cloned().collect();
        if !unread.is_empty() {
            for compute in unread {
                self.sight(id, &compute, fate);
            }
            return;
        }
        let refused = match identity {
            _ if self.cx.held => Some(Stuck::Held),
            Err(failure) => Some(failure.stuck()),
            Ok(identity) => {
                let expected = attempt.identity.as_ref().or(identity.known.as_ref());
                (check && expected.is_some_and(|known| *known != identity.now)).then_some(Stuck::AccountChanged)
            }
        };
        if let Some(stuck) = refused {
            let e = self.evidence(id);
            e.conclude_tries += 1;
            e.next_conclude = Some(now.saturating_add(backoff(RETRY_BASE * 2, RETRY_CAP, e.conclude_tries)));
            // What was read while the account was another's proves nothing.
            (e.walks, e.next_walk) = ([None; 2], None);
            e.absent.clear();
            (e.suspect_since, e.next_read) = (None, None);
            if killed {
                self.stuck(id, stuck);
            }
            return;
        }
        if !super::plan::proved(attempt, self.step.evidence.attempts.get(&id), self.cx) {
            return;
        }
        if attempt.is_serving() {
            self.died(id, Death::Vanished);
        } else if attempt.sighted.iter().any(|s| s.fate != Fate::Clone) {
            if let Some(attempt) = self.attempt(id) {
                for seen in &mut attempt.sighted {
                    if seen.fate != Fate::Clone {
                        seen.fate = Fate::Gone;
                    }
                }
            }
            self.close(id, AttemptPhase::Dead);
        } else {
            self.close(id, AttemptPhase::Absent);
            self.emit(EventKind::Absent { attempt: id });
            if self.step.record.placing.is_some() {
                self.placing_patience(now);
            }
        }
    }

    fn stuck(&mut self, id: AttemptId, stuck: Stuck) {
        let Some(attempt) = self.attempt(id) else { return };
        if attempt.kill.is_some() && attempt.stuck.as_ref() != Some(&stuck) {
            attempt.stuck = Some(stuck.clone());
            let burn = attempt.burn();
            self.emit(EventKind::TerminateFailed { stuck, burn });
        }
    }

    /// Machines under an ended attempt: it is opened again, only to be ended.
    fn reap(&mut self, id: AttemptId, ids: &[ComputeId]) {
        let now = self.cx.now;
        if self.cx.held {
            return;
        }
        let Some(attempt) = self.attempt(id) else { return };
        if !attempt.is_terminal() {
            return;
        }
        attempt.phase = AttemptPhase::Unknown;
        attempt.kill = Some(Kill { reason: Reason::Reaped, at: now });
        attempt.ended_at = None;
        attempt.calling_at = attempt.calling_at.or(Some(attempt.created_at));
        attempt.metered_to = Some(now);
        for compute in ids {
            self.sight(id, compute, Fate::Doomed);
            self.emit(EventKind::Reopened { attempt: id, compute: compute.clone() });
        }
        if let Some(ending) = self.record().ending.as_mut() {
            ending.done_at = None;
        }
    }

    fn extend(&mut self, until: Timestamp) {
        if self.step.record.ending.is_none() && self.step.record.not_idle_before.is_none_or(|old| old < until) {
            self.record().not_idle_before = Some(until);
            self.record().warned.retain(|warned| warned.limit != Limit::IdleTtl);
            self.decide(format!("kept alive until {until} on request"));
            self.emit(EventKind::Extended { until });
        }
    }

    fn claim(&mut self, node: &str) {
        if self.step.record.owner != node {
            node.clone_into(&mut self.record().owner);
            self.emit(EventKind::Owner { node: node.to_owned() });
        }
    }

    /// Nothing before the accept is certain: what was about to be ordered may have been.
    fn accept(&mut self) {
        let now = self.cx.now;
        let open: Vec<AttemptId> = self
            .step
            .record
            .attempts
            .iter()
            .filter(|a| matches!(a.phase, AttemptPhase::Intent | AttemptPhase::Calling | AttemptPhase::Unknown))
            .map(|a| a.id)
            .collect();
        for id in open {
            self.evidence(id).in_call = false;
            if let Some(attempt) = self.attempt(id) {
                attempt.calling_at = Some(now);
                attempt.metered_to = attempt.metered_to.or(Some(now));
            }
            self.unknown(id);
        }
        self.record().not_idle_before = None;
    }

    fn finish(&mut self) {
        let now = self.cx.now;
        let done = self.step.record.ending.as_ref().is_some_and(|ending| ending.done_at.is_none())
            && self.step.record.attempts.iter().all(|a| {
                a.is_terminal() && a.supports.iter().all(|s| s.released || !s.made && a.calling_at.is_none() && !s.made)
            });
        if done && !self.cx.held {
            let cost = self.step.record.cost(now).estimated;
            if let Some(ending) = self.record().ending.as_mut() {
                ending.done_at = Some(now);
            }
            self.emit(EventKind::Terminated { cost });
            self.step.erase = true;
        }
    }
}

/// Whether trying again, or elsewhere, cannot help.
fn is_final(failure: &Failure) -> bool {
    !failure.no_handle
        && matches!(
            failure.kind,
            ErrorKind::Unauthorized | ErrorKind::Forbidden | ErrorKind::Validation | ErrorKind::Unsupported | ErrorKind::Quota
        )
}
