//! The durable records of the kernel: a session and its attempts, as they lie in the store.
//!
//! Additive: a field is never renamed or given another meaning; new ones have a default, so that N
//! reads N+1 and back.

use std::time::Duration;

use atlas_core::{
    AccountLimits, AccountName, AttemptId, Candidate, Compute, ComputeId, ProviderId, Support,
    Timestamp, TrackedKey, Usd, UsdPerHour,
};
use serde::{Deserialize, Serialize};

use crate::duration_ms;
use crate::event::{Limit, Reason, Stuck};
use crate::ids::SessionId;
use crate::options::SessionOptions;
use crate::report::Reports;
use crate::session::{AttemptPhase, Cost, Decision, SessionKind, SessionState, TaskOutcome};

/// How many decisions a session remembers.
const DECISIONS: usize = 12;

/// A session and everything it ever ordered: one row, one version, one guard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The session's id.
    pub id: SessionId,
    /// Which node looks after it.
    pub owner: String,
    /// What it is for.
    #[serde(default)]
    pub kind: SessionKind,
    /// Where it rents.
    pub account: AccountName,
    /// At which cloud.
    pub provider: ProviderId,
    /// As given; `idle_ttl` is filled in.
    pub options: SessionOptions,
    /// When it was made.
    pub created_at: Timestamp,
    /// Every order it ever made, oldest first.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    /// Set while a machine is wanted and not had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placing: Option<Placing>,
    /// When its present machine became usable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Timestamp>,
    /// How often its machine was replaced.
    #[serde(default)]
    pub respawns: u32,
    /// The newest event.
    #[serde(default)]
    pub last_seq: u64,
    /// The final intent to end it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// An extension: no idle end before then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_idle_before: Option<Timestamp>,
    /// The warning that was given last, and the activity it was given on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warned: Vec<Warned>,
    /// The activity of the last heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Timestamp>,
    /// How its task ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<TaskOutcome>,
    /// The newest decisions, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decision>,
    /// Its events were kept long enough.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub events_forgotten: bool,
    /// Billed by the cloud, where it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billed: Option<Usd>,
    /// How much its machines have reported.
    #[serde(default, skip_serializing_if = "Reports::is_empty")]
    pub reports: Reports,
    /// Its machine deletes itself once its command has ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_itself: bool,
}

/// The search for a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Placing {
    /// Since when.
    pub since: Option<Timestamp>,
    /// What is left to try, best first; `None` before the cloud was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidates: Option<Vec<Candidate>>,
    /// Orders that were made and refused for a reason of their own; an order that the cloud was
    /// too busy to take does not count.
    #[serde(default)]
    pub orders: u32,
    /// How often in a row it had to wait before it was tried again.
    #[serde(default)]
    pub waits: u32,
    /// Some candidate of this round was refused for a reason that may pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_pass: bool,
    /// No next step before then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// What was said last: kind and message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<(String, String)>,
}

/// A committed end of a session. Final.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// Why the session ends.
    pub reason: Reason,
    /// Since when.
    pub at: Timestamp,
    /// When every machine was proved to be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_at: Option<Timestamp>,
}

/// A warning that was given.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Warned {
    /// Of which limit.
    pub limit: Limit,
    /// Of which moment.
    pub at: Timestamp,
}

/// One order: at most one call, one key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// The attempt's id, part of its launch key.
    pub id: AttemptId,
    /// The launch key that its machines carry.
    pub key: TrackedKey,
    /// Where it orders.
    pub account: AccountName,
    /// What it orders.
    #[serde(default)]
    pub candidate: Candidate,
    /// When it was put on record.
    pub created_at: Timestamp,
    /// When the call was put on record; every bound counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calling_at: Option<Timestamp>,
    /// Where it is.
    pub phase: AttemptPhase,
    /// The machine that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<ComputeId>,
    /// That machine as last seen, without the cloud's own description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<Compute>,
    /// When a read or a walk first showed the serving machine; the answer to its order is not
    /// enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<Timestamp>,
    /// When its container was first seen running. A task that never ran did not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran_at: Option<Timestamp>,
    /// Every id ever seen under its key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sighted: Vec<Sighted>,
    /// The final intent to end it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill: Option<Kill>,
    /// Its supporting objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supports: Vec<SupportStep>,
    /// Whose account the handle was when the order was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The handle was of that account before the call and after it: the machine is certainly there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub identity_held: bool,
    /// The price now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<UsdPerHour>,
    /// What it cost until `metered_to`.
    #[serde(default)]
    pub spent: Usd,
    /// The highest plausible price that it was quoted or seen at. A cap is held by it: a price that
    /// sinks may be a price that lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest: Option<UsdPerHour>,
    /// What it cost until `metered_to`, had it always been the highest price known by then.
    #[serde(default)]
    pub spent_at_highest: Usd,
    /// What it had cost at its last sign of life, once its end was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Usd>,
    /// Until when `spent` counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metered_to: Option<Timestamp>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// What the cloud said, when it refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Why its end could not be proved yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<Stuck>,
}

/// An id seen under a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sighted {
    /// The machine's id at the cloud.
    pub id: ComputeId,
    /// When first.
    pub at: Timestamp,
    /// What becomes of it.
    pub fate: Fate,
    /// What it costs, where it is not the machine that the attempt's own price is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<UsdPerHour>,
    /// When it was proved to be gone, under an attempt that went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
}

impl Sighted {
    /// Seen for the first time.
    #[must_use]
    pub fn new(id: ComputeId, at: Timestamp, fate: Fate) -> Self {
        Self {
            id,
            at,
            fate,
            price: None,
            gone_at: None,
        }
    }
}

/// What becomes of a machine that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It serves, or may come to serve.
    Kept,
    /// Its end is committed, whatever becomes of its attempt.
    Doomed,
    /// A point read proved it gone.
    Gone,
    /// It carries our key and is not provably of this order, as a copy of our machine is not:
    /// reported, never touched.
    Unclear,
}

/// A committed end of an attempt. Final.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kill {
    /// Why the attempt's machines are deleted.
    pub reason: Reason,
    /// Since when.
    pub at: Timestamp,
}

/// A supporting object and where it is in its life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SupportStep {
    /// The object, as the provider describes it.
    pub support: Support,
    /// Whether the cloud confirmed that it exists.
    #[serde(default)]
    pub made: bool,
    /// Whether the cloud confirmed that it is released.
    #[serde(default)]
    pub released: bool,
}

/// Where an attempt belongs: the row of `Table::Attempts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptRow {
    /// The session the attempt belongs to.
    pub session: SessionId,
    /// On which account.
    pub account: AccountName,
}

/// The bounds that hold for an account: what the kernel needs of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// How long a lease lasts.
    #[serde(with = "duration_ms")]
    pub lease: Duration,
    /// The cloud's.
    pub limits: AccountLimits,
}

/// No machine that anybody rents costs more than this an hour, unless its offer said something
/// near it.
const MOST_PLAUSIBLE: UsdPerHour = UsdPerHour::new(Usd::from_cents(10_000));
/// Nor more than so many times what its offer said.
const MOST_TIMES_QUOTED: u32 = 20;

/// Whether a price can be meant: neither nothing, nor less, nor absurdly much.
#[must_use]
pub fn is_plausible_price(price: UsdPerHour, quoted: Option<UsdPerHour>) -> bool {
    let quoted = quoted.filter(|quoted| *quoted > UsdPerHour::ZERO);
    price > UsdPerHour::ZERO
        && (price <= MOST_PLAUSIBLE
            || quoted.is_some_and(|quoted| price <= quoted.times(MOST_TIMES_QUOTED)))
}

impl Bounds {
    /// How long after `calling` nothing is concluded absent or dead.
    #[must_use]
    pub fn settle(&self) -> Duration {
        self.lease.saturating_add(self.delete_bound())
    }

    /// How long a machine may go on billing after its end was ordered.
    #[must_use]
    pub fn delete_bound(&self) -> Duration {
        let call = self.limits.call_deadline;
        call.saturating_add(self.limits.visibility_bound)
    }
}

impl Attempt {
    /// Whether it is over.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(
            self.phase,
            AttemptPhase::NotApplied | AttemptPhase::Absent | AttemptPhase::Dead
        )
    }

    /// Whether a machine of it may bill.
    #[must_use]
    pub fn may_bill(&self) -> bool {
        matches!(
            self.phase,
            AttemptPhase::Calling | AttemptPhase::Unknown | AttemptPhase::Live
        )
    }

    /// Whether it serves its session.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.phase == AttemptPhase::Live && self.kill.is_none()
    }

    /// Before then nothing is concluded absent or dead.
    #[must_use]
    pub fn settled_at(&self, bounds: &Bounds) -> Timestamp {
        self.calling_at
            .unwrap_or(self.created_at)
            .saturating_add(bounds.settle())
    }

    /// Before then a missing machine is not taken for a vanished one. A machine that never showed
    /// yet is given much longer: clouds exceed their own bounds, and what is believed gone is
    /// ended.
    #[must_use]
    pub fn may_vanish_at(&self, bounds: &Bounds) -> Timestamp {
        let patience = if self.seen_at.is_some() { 0 } else { 4 };
        self.settled_at(bounds)
            .saturating_add(bounds.limits.visibility_bound.saturating_mul(patience))
    }

    /// The machine that its own price is of: the one that serves, else the first that was seen.
    fn one(&self) -> Option<&ComputeId> {
        self.serving
            .as_ref()
            .or_else(|| self.own().next().map(|seen| &seen.id))
    }

    /// The machines its one call made besides.
    fn doubles(&self) -> impl Iterator<Item = &Sighted> {
        let one = self.one();
        self.own().filter(move |seen| Some(&seen.id) != one)
    }

    /// What the doubles of its machine burn.
    #[must_use]
    pub fn double_burn(&self) -> UsdPerHour {
        let living = self
            .doubles()
            .filter(|seen| self.may_bill() && seen.fate != Fate::Gone);
        living.filter_map(|seen| seen.price).sum()
    }

    /// What its machine burns.
    #[must_use]
    pub fn own_burn(&self) -> UsdPerHour {
        if self.may_bill() {
            self.price.unwrap_or_default()
        } else {
            UsdPerHour::ZERO
        }
    }

    /// What it burns.
    #[must_use]
    pub fn burn(&self) -> UsdPerHour {
        self.own_burn() + self.double_burn()
    }

    /// What it cost until `now`. A double is counted from the call that made it.
    #[must_use]
    pub fn cost(&self, now: Timestamp) -> Usd {
        let until = self.ended_at.unwrap_or(now);
        let called = self.calling_at.unwrap_or(self.created_at);
        let doubled = |seen: &Sighted| {
            seen.price?
                .cost_of(seen.gone_at.unwrap_or(until).since(called))
        };
        self.own_cost(until) + self.doubles().filter_map(doubled).sum()
    }

    /// What it cost until then, without its doubles.
    pub(super) fn own_cost(&self, until: Timestamp) -> Usd {
        let Some(from) = self.metered_to else {
            return self.spent;
        };
        self.spent
            + self
                .price
                .unwrap_or_default()
                .cost_of(until.since(from))
                .unwrap_or_default()
    }

    /// What it burns at the highest plausible price.
    fn burn_at_highest(&self) -> UsdPerHour {
        let own = if self.may_bill() {
            self.highest.max(self.price).unwrap_or_default()
        } else {
            UsdPerHour::ZERO
        };
        own + self.double_burn()
    }

    /// What it cost until then at the highest plausible prices, without its doubles.
    pub(super) fn own_cost_at_highest(&self, until: Timestamp) -> Usd {
        let before = self.spent_at_highest.max(self.spent);
        let Some(from) = self.metered_to else {
            return before;
        };
        let price = self.highest.max(self.price).unwrap_or_default();
        before + price.cost_of(until.since(from)).unwrap_or_default()
    }

    /// What it cost until `now` at the highest plausible prices.
    fn cost_at_highest(&self, now: Timestamp) -> Usd {
        let until = self.ended_at.unwrap_or(now);
        let doubles = self.cost(now) - self.own_cost(until);
        self.own_cost_at_highest(until) + doubles
    }

    /// What it cost until its last sign of life, or until now while it lives.
    #[must_use]
    pub fn cost_while_alive(&self, now: Timestamp) -> Usd {
        self.used.unwrap_or_else(|| self.cost(now))
    }

    /// The machine was alive until then, though its end was committed.
    pub(super) fn was_alive_at(&mut self, then: Timestamp) {
        let cost = self.cost(then);
        self.used = self.used.max(Some(cost));
    }

    /// What a machine costs from now on. A price of a machine that is not of this order changes
    /// nothing.
    pub fn reprice(&mut self, id: &ComputeId, price: UsdPerHour, now: Timestamp) {
        if self.one() == Some(id) {
            if self.price != Some(price) {
                let until = self.ended_at.unwrap_or(now);
                let seen_first = self.spent == Usd::ZERO && self.metered_to == self.calling_at;
                let before = self.own_cost_at_highest(until);
                self.highest = self.highest.max(self.price).max(Some(price));
                // The first price that is seen held from the start; a later one holds from then on.
                self.spent_at_highest = if seen_first {
                    self.own_cost_at_highest(until)
                } else {
                    before
                };
                self.spent = self.own_cost(until);
                self.metered_to = self.metered_to.map(|from| from.max(now));
                self.price = Some(price);
            }
        } else if let Some(seen) = self.sighted_mut(id)
            && seen.fate != Fate::Unclear
        {
            seen.price = Some(price);
        }
    }

    /// What is known of an id under this key.
    pub fn sighted_mut(&mut self, id: &ComputeId) -> Option<&mut Sighted> {
        self.sighted.iter_mut().find(|seen| seen.id == *id)
    }

    /// Every machine on record that is of this order: not those that only carry its key.
    pub fn own(&self) -> impl Iterator<Item = &Sighted> {
        self.sighted
            .iter()
            .filter(|seen| seen.fate != Fate::Unclear)
    }

    /// Whether a machine of this id is of this order.
    #[must_use]
    pub fn owns(&self, id: &ComputeId) -> bool {
        self.own().any(|seen| seen.id == *id)
    }

    /// Where, and of what shape, for people.
    #[must_use]
    pub fn placed(&self) -> String {
        let c = &self.candidate;
        let mut parts: Vec<String> = vec![self.account.to_string()];
        parts.extend(
            c.native_type
                .clone()
                .or_else(|| c.gpu.map(|gpu| gpu.to_string())),
        );
        parts.extend(c.region.clone());
        parts.extend(c.offer.clone());
        parts.join(" ")
    }
}

impl SessionRecord {
    /// Where the session is in its life.
    #[must_use]
    pub fn state(&self) -> SessionState {
        match &self.ending {
            Some(Ending {
                done_at: Some(_), ..
            }) => SessionState::Terminated,
            Some(_) => SessionState::Terminating,
            None if self.serving().is_some() && self.ready_at.is_some() => SessionState::Ready,
            None if self.serving().is_some() => SessionState::Starting,
            None if self.respawns > 0 => SessionState::Respawning,
            None => SessionState::Launching,
        }
    }

    /// Nothing is left to be done, unless it is opened again: it ended, and so did its machines and
    /// what was made for them.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state() == SessionState::Terminated && self.has_nothing_left()
    }

    /// It was to end and nothing is left of it, and that was not said yet.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state() == SessionState::Terminating && self.has_nothing_left()
    }

    fn has_nothing_left(&self) -> bool {
        self.attempts
            .iter()
            .all(|a| a.is_terminal() && a.supports.iter().all(|step| step.released))
    }

    /// The attempt that serves.
    #[must_use]
    pub fn serving(&self) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.is_serving())
    }

    /// Whether the machine of this attempt speaks for the session: it serves, or it may be the one
    /// that will, because its order was not answered yet. A machine that was replaced does not.
    #[must_use]
    pub fn may_report(&self, id: AttemptId) -> bool {
        match self.serving() {
            Some(serving) => serving.id == id,
            None => self
                .attempt(id)
                .is_some_and(|attempt| !attempt.is_terminal() && attempt.kill.is_none()),
        }
    }

    /// An attempt by its id.
    #[must_use]
    pub fn attempt(&self, id: AttemptId) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.id == id)
    }

    /// An attempt by its id.
    pub fn attempt_mut(&mut self, id: AttemptId) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find(|attempt| attempt.id == id)
    }

    /// What it cost until `now`.
    #[must_use]
    pub fn cost(&self, now: Timestamp) -> Cost {
        // Of an ended session: what its last machine was ordered at, and was last seen to cost.
        let serving = self.serving().or_else(|| {
            self.attempts
                .iter()
                .rev()
                .find(|attempt| attempt.serving.is_some())
        });
        Cost {
            quoted: serving.and_then(|attempt| attempt.candidate.price),
            observed: serving.and_then(|attempt| attempt.price),
            spent: self
                .attempts
                .iter()
                .map(|attempt| attempt.cost_while_alive(now))
                .sum(),
            estimated: self.attempts.iter().map(|attempt| attempt.cost(now)).sum(),
            billed: self.billed,
            burn: self.attempts.iter().map(Attempt::burn).sum(),
        }
    }

    /// What counts against its cap: what it cost and what it burns, at the highest plausible
    /// prices, and not less than what was billed.
    #[must_use]
    pub fn under_cap(&self, now: Timestamp) -> (Usd, UsdPerHour) {
        let attempts = self.attempts.iter();
        let spent: Usd = attempts.clone().map(|a| a.cost_at_highest(now)).sum();
        let burn = attempts.map(Attempt::burn_at_highest).sum();
        (spent.max(self.billed.unwrap_or_default()), burn)
    }

    /// The newest activity on this record: creation, acceptance, readiness.
    #[must_use]
    pub fn own_activity(&self) -> Timestamp {
        let accepted = self
            .serving()
            .and_then(|attempt| attempt.sighted.first())
            .map(|seen| seen.at);
        [Some(self.created_at), accepted, self.ready_at]
            .into_iter()
            .flatten()
            .max()
            .unwrap_or(self.created_at)
    }

    /// Whatever it says happened later than now happened now.
    pub fn not_later_than(&mut self, now: Timestamp) {
        let mut cut = |at: &mut Timestamp| *at = (*at).min(now);
        cut(&mut self.created_at);
        let placing = self.placing.as_mut();
        let (since, not_before) =
            placing.map_or((None, None), |p| (p.since.as_mut(), p.not_before.as_mut()));
        let own = [
            since,
            not_before,
            self.ready_at.as_mut(),
            self.heartbeat.as_mut(),
            self.ending.as_mut().map(|ending| &mut ending.at),
        ];
        own.into_iter().flatten().for_each(&mut cut);
        for attempt in &mut self.attempts {
            cut(&mut attempt.created_at);
            let times = [
                attempt.calling_at.as_mut(),
                attempt.seen_at.as_mut(),
                attempt.metered_to.as_mut(),
                attempt.ended_at.as_mut(),
                attempt.kill.as_mut().map(|kill| &mut kill.at),
            ];
            times.into_iter().flatten().for_each(&mut cut);
            for seen in &mut attempt.sighted {
                cut(&mut seen.at);
                seen.gone_at.iter_mut().for_each(&mut cut);
            }
        }
    }

    /// Remembers a decision and its reason.
    pub fn decide(&mut self, at: Timestamp, text: impl Into<String>) {
        if self.decisions.len() >= DECISIONS {
            self.decisions.remove(0);
        }
        self.decisions.push(Decision {
            at,
            text: text.into(),
        });
    }

    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(1024);
        super::glance::write(self, &mut row);
        serde_json::to_writer(&mut row, self).expect("a record is plain data");
        row
    }

    /// Reads a row's bytes.
    ///
    /// # Errors
    /// When they are not a session of a schema we understand.
    pub fn decode(bytes: &[u8]) -> atlas_core::Result<Self> {
        serde_json::from_slice(super::glance::body(bytes)).map_err(|error| {
            atlas_core::Error::new(
                atlas_core::ErrorKind::Unavailable,
                "a session's record in the store cannot be read",
            )
            .with_source(error)
        })
    }
}
