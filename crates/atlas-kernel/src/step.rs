//! Transitions: applies an input to a session. Pure, and safe to repeat on a newer record.

use std::time::Duration;

use atlas_core::AttemptId;

use super::input::{AttemptEvidence, Cx, Evidence, Input};
use super::record::{Attempt, SessionRecord};
use crate::event::EventKind;

/// Consecutive failures after which a deletion is reported as stuck.
pub(super) const STUCK_AFTER: u32 = 3;
/// The maximum wait between two attempts at anything that must succeed eventually.
pub(super) const RETRY_CAP: Duration = Duration::from_secs(60);
pub(super) const RETRY_BASE: Duration = Duration::from_secs(1);

/// The result of a step.
#[derive(Clone, Debug)]
pub struct Step {
    /// The new record.
    pub record: SessionRecord,
    /// The new evidence.
    pub evidence: Evidence,
    /// The events, to be committed with the record.
    pub events: Vec<EventKind>,
    /// An attempt that this step recorded.
    pub intended: Option<AttemptId>,
    /// The sealed request is no longer needed.
    pub erase: bool,
}

/// Applies one input.
#[must_use]
pub fn step(record: &SessionRecord, evidence: &Evidence, cx: &Cx<'_>, input: &Input) -> Step {
    let mut s = Stepper {
        cx,
        step: Step {
            record: record.clone(),
            evidence: evidence.clone(),
            events: Vec::new(),
            intended: None,
            erase: false,
        },
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
            Input::Tick if self.cx.held => {}
            Input::Tick => self.placing_patience(self.cx.now),
            Input::Candidates(found) => self.candidates(found),
            Input::Place {
                candidates,
                key,
                supports,
            } => {
                self.candidates(&Ok(candidates.clone()));
                self.intend_first(candidates, *key, supports);
            }
            Input::Intend { key, supports } => self.intend(*key, supports),
            Input::SupportMade(id, index, made) => self.support_made(*id, *index, made),
            Input::SupportReleased(id, index, released) => {
                self.support_released(*id, *index, released)
            }
            Input::Call(id, identity) => self.call(*id, identity),
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
            Input::TimeJumped => self.time_jumped(),
            Input::Billed(amount) => self.record().billed = Some(*amount),
            Input::EventsForgotten => self.record().events_forgotten = true,
            Input::TaskReported(code) => self.task_reported(*code),
            Input::TaskReportedBy(id, code) => {
                if self.step.record.may_report(*id) {
                    self.task_reported(*code);
                }
            }
            Input::Reported(kind, text) => {
                if self.record().ending.is_none() && self.record().reports.take(text) {
                    self.emit(EventKind::Reported {
                        kind: kind.clone(),
                        text: text.clone(),
                    });
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

    pub(super) fn evidence(&mut self, id: AttemptId) -> &mut AttemptEvidence {
        self.step.evidence.of(id)
    }

    pub(super) fn attempt(&mut self, id: AttemptId) -> Option<&mut Attempt> {
        self.step.record.attempt_mut(id)
    }

    fn finish(&mut self) {
        let now = self.cx.now;
        if self.step.record.is_finished() && !self.cx.held {
            let cost = self.step.record.cost(now).spent;
            if let Some(ending) = self.record().ending.as_mut() {
                ending.done_at = Some(now);
            }
            self.emit(EventKind::Terminated { cost });
            self.step.erase = true;
        }
    }
}
