//! The durable records of the kernel: a session and its attempts, as stored.
//!
//! Changes only add: a field is never renamed or given another meaning, and new fields have a
//! default, so that version N can read the records of N+1 and the other way round.

use std::time::Duration;

use atlas_core::{
    AccountLimits, AccountName, AttemptId, Candidate, Compute, ComputeId, ProviderId, Support,
    Timestamp, TrackedKey, Usd, UsdPerHour,
};
use serde::{Deserialize, Serialize};

use crate::event::{Event, EventKind, Limit, Reason, Stuck};
use crate::ids::SessionId;
use crate::options::SessionOptions;
use crate::outcome::TaskOutcome;
use crate::report::Reports;
use crate::session::{AttemptPhase, Cost, Decision, SessionKind, SessionState};
use atlas_core::duration_ms;

/// Maximum number of decisions that a session keeps.
const DECISIONS: usize = 12;

/// A session and every order it ever made: one row, one version, one guard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The session's id.
    pub id: SessionId,
    /// The node that looks after the session.
    pub owner: String,
    /// The purpose of the session.
    #[serde(default)]
    pub kind: SessionKind,
    /// The account to rent from.
    pub account: AccountName,
    /// The provider of that account.
    pub provider: ProviderId,
    /// The options as given, with `idle_ttl` filled in.
    pub options: SessionOptions,
    /// When the session was created.
    pub created_at: Timestamp,
    /// Every order it ever made, oldest first.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    /// Set while a machine is wanted and not yet accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placing: Option<Placing>,
    /// When its current machine became usable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Timestamp>,
    /// How many times its machine was replaced.
    #[serde(default)]
    pub respawns: u32,
    /// The sequence number of the latest event.
    #[serde(default)]
    pub last_seq: u64,
    /// The committed end, which is final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// An extension: no idle end before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_idle_before: Option<Timestamp>,
    /// The latest warnings, each with the moment it warned of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warned: Vec<Warned>,
    /// The activity that the latest heartbeat reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Timestamp>,
    /// The outcome of its task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<TaskOutcome>,
    /// The latest decisions, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decision>,
    /// Its events were deleted after their retention.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub events_forgotten: bool,
    /// What the cloud billed, if it reports that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billed: Option<Usd>,
    /// Counters of the reports of its machines.
    #[serde(default, skip_serializing_if = "Reports::is_empty")]
    pub reports: Reports,
    /// Its machine deletes itself when its command has ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_itself: bool,
    /// It keeps its session key until its machines are proved absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub key_until_absent: bool,
}

/// The state of a placement: the search for a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Placing {
    /// When the placement started.
    pub since: Option<Timestamp>,
    /// The candidates left to try, best first; `None` before the cloud was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidates: Option<Vec<Candidate>>,
    /// Number of orders made and refused for a reason of their own. An order that the cloud was too
    /// busy to accept does not count.
    #[serde(default)]
    pub orders: u32,
    /// Consecutive waits before another attempt.
    #[serde(default)]
    pub waits: u32,
    /// Some candidate of this round was refused for a reason that may pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_pass: bool,
    /// No next step before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// The latest refusal: kind and message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<(String, String)>,
}

/// The committed end of a session. Final.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// Why the session ends.
    pub reason: Reason,
    /// When the end was committed.
    pub at: Timestamp,
    /// When every machine was proved absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_at: Option<Timestamp>,
}

/// A warning that was given.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Warned {
    /// The limit it warned of.
    pub limit: Limit,
    /// The end that it announced.
    pub at: Timestamp,
}

/// One order: at most one create call, with one key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// The attempt's id, part of its launch key.
    pub id: AttemptId,
    /// The launch key that its machines carry.
    pub key: TrackedKey,
    /// The account it orders on.
    pub account: AccountName,
    /// What it orders.
    #[serde(default)]
    pub candidate: Candidate,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When the call was recorded; every bound counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calling_at: Option<Timestamp>,
    /// The phase of the attempt.
    pub phase: AttemptPhase,
    /// The id of the serving machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<ComputeId>,
    /// The serving machine as last seen, without the cloud's own description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<Compute>,
    /// When a read or a walk first showed the serving machine; the answer to its order does not
    /// count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<Timestamp>,
    /// When its container was first seen running. A task that never ran did not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran_at: Option<Timestamp>,
    /// Every id ever seen with its key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sighted: Vec<Sighted>,
    /// The committed end of the attempt, which is final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill: Option<Kill>,
    /// Its supporting objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supports: Vec<SupportStep>,
    /// The identity of the handle's account when the order was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The handle belonged to that account before and after the call: the machine is certainly
    /// there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub identity_held: bool,
    /// The current price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<UsdPerHour>,
    /// The cost until `metered_to`.
    #[serde(default)]
    pub spent: Usd,
    /// The highest plausible price that was quoted or observed. The cap uses it, because a falling
    /// price may be wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest: Option<UsdPerHour>,
    /// The cost until `metered_to` if the price had always been the highest one known at the time.
    #[serde(default)]
    pub spent_at_highest: Usd,
    /// The cost at the machine's last sign of life, once its end was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Usd>,
    /// The instant up to which `spent` counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metered_to: Option<Timestamp>,
    /// When the attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The cloud's message, if it refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Why its end could not be proved yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<Stuck>,
}

/// A machine id seen with a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sighted {
    /// The machine's id at the cloud.
    pub id: ComputeId,
    /// When it was first seen.
    pub at: Timestamp,
    /// What happens to it.
    pub fate: Fate,
    /// Its price, if it is not the machine to which the attempt's own price applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<UsdPerHour>,
    /// When it was proved absent, for an attempt that continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
}

impl Sighted {
    /// A first sighting.
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

/// What happens to a machine that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is serving, or may become the serving machine.
    Kept,
    /// Its end is committed, whatever happens to its attempt.
    Doomed,
    /// A point read proved it absent.
    Gone,
    /// It carries our key but does not provably belong to this order; it may be a copy of our
    /// machine. Reported, never deleted.
    Unclear,
}

/// The committed end of an attempt. Final.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kill {
    /// Why the attempt's machines are deleted.
    pub reason: Reason,
    /// When the end was committed.
    pub at: Timestamp,
}

/// A supporting object and its state.
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

/// The row of an attempt in `Table::Attempts`: what it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptRow {
    /// The session the attempt belongs to.
    pub session: SessionId,
    /// The account of the attempt.
    pub account: AccountName,
}

/// The bounds of an account: the part of its policy that the kernel needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// How long a lease lasts.
    #[serde(with = "duration_ms")]
    pub lease: Duration,
    /// The cloud's limits.
    pub limits: AccountLimits,
}

/// No machine that anybody rents costs more than this an hour, unless its offer said something
/// near it.
const MOST_PLAUSIBLE: UsdPerHour = UsdPerHour::new(Usd::from_cents(10_000));
/// Nor more than so many times what its offer said.
const MOST_TIMES_QUOTED: u32 = 20;

/// Whether a price is plausible: positive, and not absurdly high.
#[must_use]
pub fn is_plausible_price(price: UsdPerHour, quoted: Option<UsdPerHour>) -> bool {
    let quoted = quoted.filter(|quoted| *quoted > UsdPerHour::ZERO);
    price > UsdPerHour::ZERO
        && (price <= MOST_PLAUSIBLE
            || quoted.is_some_and(|quoted| price <= quoted.times(MOST_TIMES_QUOTED)))
}

impl Bounds {
    /// How long after `calling` nothing may be concluded absent or dead.
    #[must_use]
    pub fn settle(&self) -> Duration {
        self.lease.saturating_add(self.delete_bound())
    }

    /// How long a machine may continue to bill after its deletion was ordered.
    #[must_use]
    pub fn delete_bound(&self) -> Duration {
        let call = self.limits.call_deadline;
        call.saturating_add(self.limits.visibility_bound)
    }
}

impl Attempt {
    /// Whether the attempt has ended.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(
            self.phase,
            AttemptPhase::NotApplied | AttemptPhase::Absent | AttemptPhase::Dead
        )
    }

    /// Whether a machine of the attempt may bill.
    #[must_use]
    pub fn may_bill(&self) -> bool {
        matches!(
            self.phase,
            AttemptPhase::Calling | AttemptPhase::Unknown | AttemptPhase::Live
        )
    }

    /// Whether the attempt serves its session.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.phase == AttemptPhase::Live && self.kill.is_none()
    }

    /// Before this time, nothing is concluded absent or dead.
    #[must_use]
    pub fn settled_at(&self, bounds: &Bounds) -> Timestamp {
        self.calling_at
            .unwrap_or(self.created_at)
            .saturating_add(bounds.settle())
    }

    /// Before this time, a missing machine is not considered vanished. A machine that has never
    /// been shown is given much longer: clouds exceed their own bounds, and a machine believed gone
    /// is ended.
    #[must_use]
    pub fn may_vanish_at(&self, bounds: &Bounds) -> Timestamp {
        let patience = if self.seen_at.is_some() { 0 } else { 4 };
        self.settled_at(bounds)
            .saturating_add(bounds.limits.visibility_bound.saturating_mul(patience))
    }

    /// The machine to which the attempt's own price applies: the serving one, else the first one
    /// seen.
    fn one(&self) -> Option<&ComputeId> {
        self.serving
            .as_ref()
            .or_else(|| self.own().next().map(|seen| &seen.id))
    }

    /// Additional machines that its create call made.
    fn doubles(&self) -> impl Iterator<Item = &Sighted> {
        let one = self.one();
        self.own().filter(move |seen| Some(&seen.id) != one)
    }

    /// The price per hour of its duplicate machines.
    #[must_use]
    pub fn double_burn(&self) -> UsdPerHour {
        let living = self
            .doubles()
            .filter(|seen| self.may_bill() && seen.fate != Fate::Gone);
        living.filter_map(|seen| seen.price).sum()
    }

    /// The price per hour of its own machine.
    #[must_use]
    pub fn own_burn(&self) -> UsdPerHour {
        if self.may_bill() {
            self.price.unwrap_or_default()
        } else {
            UsdPerHour::ZERO
        }
    }

    /// The total price per hour.
    #[must_use]
    pub fn burn(&self) -> UsdPerHour {
        self.own_burn() + self.double_burn()
    }

    /// The cost until `now`. A duplicate counts from the call that made it.
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

    /// The cost until then, without duplicates.
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

    /// The price per hour at the highest plausible price.
    fn burn_at_highest(&self) -> UsdPerHour {
        let own = if self.may_bill() {
            self.highest.max(self.price).unwrap_or_default()
        } else {
            UsdPerHour::ZERO
        };
        own + self.double_burn()
    }

    /// The cost until then at the highest plausible prices, without duplicates.
    pub(super) fn own_cost_at_highest(&self, until: Timestamp) -> Usd {
        let before = self.spent_at_highest.max(self.spent);
        let Some(from) = self.metered_to else {
            return before;
        };
        let price = self.highest.max(self.price).unwrap_or_default();
        before + price.cost_of(until.since(from)).unwrap_or_default()
    }

    /// The cost until `now` at the highest plausible prices.
    fn cost_at_highest(&self, now: Timestamp) -> Usd {
        let until = self.ended_at.unwrap_or(now);
        let doubles = self.cost(now) - self.own_cost(until);
        self.own_cost_at_highest(until) + doubles
    }

    /// The cost until its last sign of life, or until now while it is alive.
    #[must_use]
    pub fn cost_while_alive(&self, now: Timestamp) -> Usd {
        self.used.unwrap_or_else(|| self.cost(now))
    }

    /// Records that the machine was alive until then, although its end was committed.
    pub(super) fn was_alive_at(&mut self, then: Timestamp) {
        let cost = self.cost(then);
        self.used = self.used.max(Some(cost));
    }

    /// Sets the current price of a machine. The price of a machine that does not belong to this
    /// order is ignored.
    pub fn reprice(&mut self, id: &ComputeId, price: UsdPerHour, now: Timestamp) {
        if self.one() == Some(id) {
            if self.price != Some(price) {
                let until = self.ended_at.unwrap_or(now);
                let seen_first = self.spent == Usd::ZERO && self.metered_to == self.calling_at;
                let before = self.own_cost_at_highest(until);
                self.highest = self.highest.max(self.price).max(Some(price));
                // The first observed price applies from the start; later ones apply from when they
                // are seen.
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

    /// The sighting of this id, if there is one.
    pub fn sighted_mut(&mut self, id: &ComputeId) -> Option<&mut Sighted> {
        self.sighted.iter_mut().find(|seen| seen.id == *id)
    }

    /// Every recorded machine that belongs to this order, without those that only carry its key.
    pub fn own(&self) -> impl Iterator<Item = &Sighted> {
        self.sighted
            .iter()
            .filter(|seen| seen.fate != Fate::Unclear)
    }

    /// Whether the machine with this id belongs to this order.
    #[must_use]
    pub fn owns(&self, id: &ComputeId) -> bool {
        self.own().any(|seen| seen.id == *id)
    }

    /// The place and shape, for display.
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
    /// The session key, as long as no other session may have it.
    #[must_use]
    pub fn held_key(&self) -> Option<&str> {
        let released = self.is_over() || self.ending.is_some() && !self.key_until_absent;
        self.options.key.as_deref().filter(|_| !released)
    }

    /// An event of this session.
    #[must_use]
    pub fn event(&self, seq: u64, at: Timestamp, kind: EventKind) -> Event {
        Event {
            session: self.id,
            user_id: self.options.user_id.clone(),
            seq,
            at,
            kind,
        }
    }

    /// The state of the session.
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

    /// Whether nothing remains to be done, unless the session is reopened: it ended, and so did its
    /// machines and their supporting objects.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state() == SessionState::Terminated && self.has_nothing_left()
    }

    /// Whether its end is committed and nothing is left of it, and that was not emitted yet.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state() == SessionState::Terminating && self.has_nothing_left()
    }

    fn has_nothing_left(&self) -> bool {
        self.attempts
            .iter()
            .all(|a| a.is_terminal() && a.supports.iter().all(|step| step.released))
    }

    /// The serving attempt.
    #[must_use]
    pub fn serving(&self) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.is_serving())
    }

    /// Whether the machine of this attempt may report for the session: it is serving, or it may
    /// become the serving one because its order was not answered yet. A machine that was replaced
    /// may not.
    #[must_use]
    pub fn may_report(&self, id: AttemptId) -> bool {
        match self.serving() {
            Some(serving) => serving.id == id,
            None => self
                .attempt(id)
                .is_some_and(|attempt| !attempt.is_terminal() && attempt.kill.is_none()),
        }
    }

    /// Finds an attempt by its id.
    #[must_use]
    pub fn attempt(&self, id: AttemptId) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.id == id)
    }

    /// Finds an attempt by its id.
    pub fn attempt_mut(&mut self, id: AttemptId) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find(|attempt| attempt.id == id)
    }

    /// The cost until `now`.
    #[must_use]
    pub fn cost(&self, now: Timestamp) -> Cost {
        // For an ended session: the quoted and last observed price of its last machine.
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

    /// What counts against the cap: the cost and the price per hour, at the highest plausible
    /// prices, and at least what was billed.
    #[must_use]
    pub fn under_cap(&self, now: Timestamp) -> (Usd, UsdPerHour) {
        let attempts = self.attempts.iter();
        let spent: Usd = attempts.clone().map(|a| a.cost_at_highest(now)).sum();
        let burn = attempts.map(Attempt::burn_at_highest).sum();
        (spent.max(self.billed.unwrap_or_default()), burn)
    }

    /// The latest activity in this record: creation, acceptance, readiness.
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

    /// Moves every recorded instant later than now to now.
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

    /// Records a decision and its reason.
    pub fn decide(&mut self, at: Timestamp, text: impl Into<String>) {
        if self.decisions.len() >= DECISIONS {
            self.decisions.remove(0);
        }
        self.decisions.push(Decision {
            at,
            text: text.into(),
        });
    }

    /// Encodes the record as the bytes of its row.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(1024);
        super::glance::write(self, &mut row);
        serde_json::to_writer(&mut row, self).expect("a record is plain data");
        row
    }

    /// Decodes the bytes of a row.
    ///
    /// # Errors
    /// When they are not a session of a known schema.
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
