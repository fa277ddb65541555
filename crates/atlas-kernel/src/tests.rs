//! Property tests of the transitions: whatever a cloud answers, in any order, the promises hold.

mod schedules;

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{
    AccountLimits, AccountName, AttemptId, Candidate, Compute, ComputeId, ComputeStatus, ErrorKind,
    KeyCarriers, Next, ProviderId, RealmId, Timestamp, TrackedKey, Usd, UsdPerHour,
};
use proptest::prelude::*;

use super::input::{Activity, Answer, Cx, Evidence, Failure, Identity, Input, Reading, Walk};
use super::record::{Bounds, Placing, SessionRecord};
use super::{Effect, plan, step};
use crate::event::{EventKind, Reason};
use crate::ids::SessionId;
use crate::options::{OnFailure, SessionOptions};
use crate::policy::{AccountPolicy, Policy};
use crate::session::{AttemptPhase, SessionKind, SessionState};

const START: i64 = 1_790_000_000;

/// A cloud that obeys, loses answers, duplicates machines and lags at random, within its bound.
#[derive(Debug, Default)]
struct Cloud {
    machines: BTreeMap<ComputeId, Machine>,
    made: u32,
    dice: u64,
}

#[derive(Clone, Debug)]
struct Machine {
    key: TrackedKey,
    created_at: Timestamp,
    shows_at: Timestamp,
    destroyed_at: Option<Timestamp>,
}

impl Cloud {
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % sides
    }

    fn create(&mut self, key: TrackedKey, now: Timestamp, bound: Duration) -> ComputeId {
        self.made += 1;
        let id = ComputeId::new(format!("m{}", self.made)).unwrap();
        let lag = Duration::from_secs(self.roll(bound.as_secs()));
        let machine = Machine {
            key,
            created_at: now,
            shows_at: now.saturating_add(lag),
            destroyed_at: None,
        };
        self.machines.insert(id.clone(), machine);
        id
    }

    fn describe(&self, id: &ComputeId) -> Compute {
        let machine = &self.machines[id];
        let mut compute = Compute::new(
            id.clone(),
            ProviderId::new("mock").unwrap(),
            ComputeStatus::Running,
        );
        compute.keys = KeyCarriers {
            name: Some(machine.key),
            tag: Some(machine.key),
            has_tag: true,
        };
        compute.created_at = Some(machine.created_at);
        compute.cost_per_hour = Some(UsdPerHour::new(Usd::from_cents(100)));
        compute
    }

    fn shown(&self, key: &TrackedKey, now: Timestamp) -> Vec<Compute> {
        let shown = |m: &Machine| m.key == *key && m.shows_at <= now && m.destroyed_at.is_none();
        self.machines
            .iter()
            .filter(|(_, m)| shown(m))
            .map(|(id, _)| self.describe(id))
            .collect()
    }

    fn live(&self) -> usize {
        self.machines
            .values()
            .filter(|m| m.destroyed_at.is_none())
            .count()
    }
}

fn failure(kind: ErrorKind) -> Failure {
    Failure {
        kind,
        message: "it broke".to_owned(),
        retry_after: None,
        no_handle: false,
    }
}

struct Run {
    policy: Policy,
    account: AccountPolicy,
    bounds: Bounds,
    now: Timestamp,
    started: Timestamp,
    record: SessionRecord,
    evidence: Evidence,
    cloud: Cloud,
    keys: u8,
    events: Vec<EventKind>,
    called: BTreeMap<AttemptId, u32>,
    held: bool,
}

impl Run {
    fn new(seed: u64, hedge: bool, respawns: u32) -> Self {
        let now = Timestamp::from_unix_seconds(START);
        let limits = AccountLimits {
            visibility_bound: Duration::from_secs(60),
            call_deadline: Duration::from_secs(10),
            ..AccountLimits::default()
        };
        let mut options = SessionOptions::new()
            .idle_ttl(Duration::from_secs(3600))
            .on_failure(OnFailure::Respawn(respawns));
        options.hedge = hedge;
        let record = SessionRecord {
            id: SessionId::from_bytes([7; 16]),
            owner: "a".to_owned(),
            kind: SessionKind::Interactive,
            account: AccountName::new("mock").unwrap(),
            provider: ProviderId::new("mock").unwrap(),
            options,
            created_at: now,
            attempts: Vec::new(),
            placing: Some(Placing {
                since: Some(now),
                ..Placing::default()
            }),
            ready_at: None,
            respawns: 0,
            last_seq: 0,
            ending: None,
            not_idle_before: None,
            warned: Vec::new(),
            heartbeat: None,
            outcome: None,
            decisions: Vec::new(),
            events_forgotten: false,
            billed: None,
            reports: crate::report::Reports::default(),
            ends_itself: false,
            key_until_absent: false,
        };
        Self {
            policy: Policy::default(),
            account: AccountPolicy::default(),
            bounds: Bounds {
                lease: Duration::from_secs(15),
                limits,
            },
            now,
            started: now,
            record,
            evidence: Evidence::default(),
            cloud: Cloud {
                dice: seed,
                ..Cloud::default()
            },
            keys: 0,
            events: Vec::new(),
            called: BTreeMap::new(),
            held: false,
        }
    }

    /// A recorded order that was not sent.
    fn intend(&mut self, supports: Vec<atlas_core::Support>) -> (AttemptId, TrackedKey) {
        let id = AttemptId::new(self.now, [1; 6]);
        let key = TrackedKey::new(RealmId::from_bytes([1; 4]), id, [0; 5]);
        self.tell(&Input::Candidates(Ok(vec![Candidate::default()])));
        self.tell(&Input::Intend { key, supports });
        (id, key)
    }

    /// An order that was sent and is not answered yet.
    fn order(&mut self) -> (AttemptId, TrackedKey) {
        let (id, key) = self.intend(Vec::new());
        self.tell(&Input::Call(id, None));
        (id, key)
    }

    fn cx(&self) -> Cx<'_> {
        Cx {
            now: self.now,
            trust: super::TimeTrust::since(self.started),
            policy: &self.policy,
            account: &self.account,
            bounds: self.bounds,
            held: self.held,
        }
    }

    /// Applies a step and checks what no step may do.
    fn tell(&mut self, input: &Input) {
        let before = self.record.clone();
        let stepped = step(&before, &self.evidence, &self.cx(), input);
        let after = &stepped.record;
        for old in &before.attempts {
            let new = after
                .attempt(old.id)
                .expect("an attempt is never forgotten");
            if old.kill.is_some() {
                assert!(new.kill.is_some(), "a committed end is never undone");
            }
            for seen in &old.sighted {
                assert!(
                    new.sighted.iter().any(|kept| kept.id == seen.id),
                    "an id once seen is never forgotten"
                );
            }
        }
        if let Some(ending) = &before.ending {
            assert_eq!(
                after.ending.as_ref().map(|e| &e.reason),
                Some(&ending.reason),
                "a session's end is never undone"
            );
            assert!(
                !after
                    .attempts
                    .iter()
                    .any(|a| !a.is_terminal() && a.kill.is_none()),
                "an ending session keeps nothing alive"
            );
        }
        assert!(
            after.attempts.iter().filter(|a| a.is_serving()).count() <= 1,
            "one machine serves"
        );
        if after.state() == SessionState::Terminated {
            assert!(after.attempts.iter().all(|a| a.is_terminal()));
            assert_eq!(
                self.cloud.live(),
                0,
                "terminated is only said when nothing is left: {after:#?}"
            );
        }
        self.events.extend(stepped.events);
        self.record = stepped.record;
        self.evidence = stepped.evidence;
    }

    /// Applies an input as a caller does, with the record but without the driver's evidence.
    fn tell_aside(&mut self, input: &Input) {
        let facts = std::mem::take(&mut self.evidence);
        self.tell(input);
        self.evidence = facts;
    }

    fn crash(&mut self) {
        self.evidence = Evidence::default();
        self.record = SessionRecord::decode(&self.record.encode()).unwrap();
        self.started = self.now;
    }

    fn call(&mut self, id: AttemptId) {
        let calling = self
            .record
            .attempt(id)
            .is_some_and(|a| a.phase == AttemptPhase::Calling);
        if !calling || !self.evidence.attempts.get(&id).is_some_and(|e| e.in_call) {
            return;
        }
        *self.called.entry(id).or_default() += 1;
        assert_eq!(self.called[&id], 1, "one call for each attempt");
        let key = self.record.attempt(id).unwrap().key;
        let bound = self.bounds.limits.visibility_bound;
        let answer = match self.cloud.roll(8) {
            0 => Answer::NotApplied(Next::NextCandidate, failure(ErrorKind::NoCapacity)),
            1 => Answer::NotApplied(Next::SameLater, failure(ErrorKind::RateLimited)),
            2 => Answer::Unknown(Vec::new(), failure(ErrorKind::Timeout)),
            3 => {
                self.cloud.create(key, self.now, bound);
                Answer::Unknown(Vec::new(), failure(ErrorKind::Timeout))
            }
            4 => {
                let id = self.cloud.create(key, self.now, bound);
                Answer::Unknown(vec![id], failure(ErrorKind::Timeout))
            }
            5 => {
                self.cloud.create(key, self.now, bound);
                self.cloud.create(key, self.now, bound);
                Answer::Unknown(Vec::new(), failure(ErrorKind::Provider))
            }
            6 => {
                let id = self.cloud.create(key, self.now, bound);
                self.cloud.create(key, self.now, bound);
                Answer::Created(Box::new(self.cloud.describe(&id)), Some("me".to_owned()))
            }
            _ => {
                let id = self.cloud.create(key, self.now, bound);
                Answer::Created(Box::new(self.cloud.describe(&id)), Some("me".to_owned()))
            }
        };
        if self.cloud.roll(6) == 0 {
            return self.crash();
        }
        self.tell(&Input::Answered(id, answer));
    }

    fn perform(&mut self, effect: &Effect) {
        let broken = self.cloud.roll(5) == 0;
        match effect {
            Effect::Candidates => {
                let one = |cents| {
                    let mut candidate = Candidate::default();
                    candidate.price = Some(UsdPerHour::new(Usd::from_cents(cents)));
                    candidate
                };
                let found = if broken {
                    Err(failure(ErrorKind::Unavailable))
                } else {
                    Ok(vec![one(100), one(120)])
                };
                self.tell(&Input::Candidates(found));
            }
            Effect::Intend => {
                self.keys += 1;
                let attempt = AttemptId::new(self.now, [self.keys; 6]);
                let key = TrackedKey::new(RealmId::from_bytes([1; 4]), attempt, [0; 5]);
                self.tell(&Input::Intend {
                    key,
                    supports: Vec::new(),
                });
            }
            Effect::Order(id) => {
                self.tell(&Input::Call(*id, None));
                if self.cloud.roll(10) == 0 {
                    self.crash();
                }
                self.call(*id);
            }
            Effect::Recover(id) => self.tell(&Input::Lost(*id, Vec::new())),
            Effect::Walk(id) => {
                let Some(key) = self.record.attempt(*id).map(|a| a.key) else {
                    return;
                };
                let walk = match self.cloud.roll(6) {
                    0 => Err(failure(ErrorKind::Unavailable)),
                    1 => Ok(Walk {
                        begun: self.now,
                        complete: false,
                        found: Vec::new(),
                    }),
                    _ => Ok(Walk {
                        begun: self.now,
                        complete: true,
                        found: self.cloud.shown(&key, self.now),
                    }),
                };
                self.tell(&Input::Walked(*id, walk));
            }
            Effect::Poll(id, compute) => {
                let shown = self
                    .cloud
                    .machines
                    .get(compute)
                    .is_some_and(|m| m.shows_at <= self.now && m.destroyed_at.is_none());
                let seen = match (broken, shown) {
                    (true, _) => Err(failure(ErrorKind::Unavailable)),
                    (_, true) => Ok(Box::new(self.cloud.describe(compute))),
                    _ => Err(failure(ErrorKind::NotFound)),
                };
                self.tell(&Input::Observed(*id, seen));
            }
            Effect::PointRead(id, compute) => {
                let shown = self
                    .cloud
                    .machines
                    .get(compute)
                    .is_some_and(|m| m.shows_at <= self.now && m.destroyed_at.is_none());
                let reading = match (broken, shown) {
                    (true, _) => Reading::NoAnswer(failure(ErrorKind::Unavailable)),
                    (_, true) => Reading::Present,
                    _ => Reading::Absent,
                };
                self.tell(&Input::Read(*id, compute.clone(), self.now, reading));
            }
            Effect::Delete(id, compute) => {
                let shown = self
                    .cloud
                    .machines
                    .get(compute)
                    .is_some_and(|m| m.shows_at <= self.now);
                let deleted = if broken {
                    Err(failure(ErrorKind::Unavailable))
                } else {
                    Ok(())
                };
                // A DELETE of a machine that does not show yet is answered with 404, which counts
                // as done, and has no effect.
                if shown && (!broken || self.cloud.roll(2) == 0) {
                    let now = self.now;
                    self.cloud
                        .machines
                        .get_mut(compute)
                        .unwrap()
                        .destroyed_at
                        .get_or_insert(now);
                }
                self.tell(&Input::Deleted(*id, compute.clone(), deleted));
            }
            Effect::Conclude(id) => {
                let identity = if broken {
                    Err(failure(ErrorKind::Unavailable))
                } else {
                    Ok(Identity {
                        now: "me".to_owned(),
                        known: Some("me".to_owned()),
                        aliases: Vec::new(),
                    })
                };
                self.tell(&Input::Conclude(*id, identity, Vec::new()));
            }
            Effect::EnsureSupport(..) | Effect::ReleaseSupport(..) => {}
            Effect::Finish | Effect::GiveUpPlacing => self.tell(&Input::Tick),
            Effect::Limits => {
                self.tell(&Input::Limits(Activity {
                    at: self.record.created_at,
                    source: "created".to_owned(),
                    asked_at: self.now,
                }));
            }
        }
    }

    /// What the account's survey reports to a session: the machines with its open keys.
    fn survey(&mut self) {
        let open: Vec<_> = self
            .record
            .attempts
            .iter()
            .filter(|a| !a.is_terminal())
            .map(|a| (a.id, a.key))
            .collect();
        for (id, key) in open {
            let shown = self.cloud.shown(&key, self.now);
            if shown.is_empty() {
                self.tell(&Input::Missing(id, self.now));
            } else {
                self.tell(&Input::Found(id, shown));
            }
        }
    }

    /// Runs for `span`; returns the maximum number of effects at any moment.
    fn run(&mut self, span: Duration) -> u32 {
        let until = self.now.saturating_add(span);
        let (mut busiest, mut at_once) = (0, 0);
        let mut survey = self.now;
        while self.now < until {
            if survey <= self.now {
                survey = self.now.saturating_add(Duration::from_secs(60));
                self.survey();
            }
            let planned = plan(
                &self.record,
                &self.evidence,
                self.record.created_at,
                &self.cx(),
            );
            if let Some(effect) = planned.effects.first() {
                at_once += 1;
                busiest = busiest.max(at_once);
                assert!(
                    at_once < 200,
                    "the kernel goes round in circles: {effect:?} {:#?} {:#?}",
                    self.record,
                    self.evidence
                );
                let pick = usize::try_from(self.cloud.roll(planned.effects.len() as u64)).unwrap();
                self.perform(&planned.effects[pick].clone());
            } else {
                at_once = 0;
                let next = planned
                    .due
                    .unwrap_or(until)
                    .max(self.now.saturating_add(Duration::from_millis(1)));
                self.now = next.min(until).min(survey);
            }
        }
        busiest
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_cloud_answers_a_stopped_session_ends_with_nothing_left(
        seed: u64, hedge: bool, respawns in 0_u32..3, stop_after in 0_u64..1200,
            crashes in proptest::collection::vec(1_u64..400, 0..4)
    ) {
        let mut run = Run::new(seed, hedge, respawns);
        run.run(Duration::from_secs(stop_after));
        for wait in crashes {
            run.crash();
            run.run(Duration::from_secs(wait));
        }
        run.tell_aside(&Input::Stop(Reason::Requested));
        run.run(Duration::from_secs(100));
        run.tell_aside(&Input::Accept);
        run.run(Duration::from_secs(4 * 3600));
        prop_assert_eq!(run.record.state(), SessionState::Terminated, "{:#?} {:#?}", run.record,
            run.evidence);
        prop_assert_eq!(run.cloud.live(), 0);
        let ends = run.events.iter().filter(|event| matches!(event, EventKind::Terminated {
            .. })).count();
        prop_assert_eq!(ends, 1);
    }

    #[test]
    fn whatever_a_cloud_answers_a_session_has_at_most_one_machine_once_it_settled(seed: u64,
        respawns in 0_u32..3) {
        let mut run = Run::new(seed, false, respawns);
        run.run(Duration::from_secs(3400));
        let serving = usize::from(run.record.serving().is_some());
        if run.record.ending.is_none() {
            prop_assert_eq!(run.cloud.live(), serving, "{:#?} {:#?}", run.record, run.cloud);
        }
    }
}

#[test]
fn nothing_is_ordered_before_calling_is_on_record() {
    for seed in 0..500 {
        let mut run = Run::new(seed, seed % 2 == 0, 1);
        run.run(Duration::from_secs(900));
        for attempt in &run.record.attempts {
            if run.called.contains_key(&attempt.id) {
                assert!(attempt.calling_at.is_some());
            }
        }
        for machine in run.cloud.machines.values() {
            assert!(
                run.record.attempt(machine.key.attempt()).is_some(),
                "every machine has its attempt on record"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_head_of_a_row_says_what_the_record_says(seed: u64, respawns in 0_u32..2,
        seconds in 0_u64..2000, touched in 0_u64..2000) {
        let mut run = Run::new(seed, false, respawns);
        run.run(Duration::from_secs(seconds));
        let row = run.record.encode();
        let glance = super::glance::glance(&row).unwrap();
        prop_assert_eq!(glance.owner, run.record.owner.as_str());
        prop_assert_eq!(glance.over, run.record.state() == SessionState::Terminated);
        let open: Vec<_> = run.record.attempts.iter().filter(|a| !a.is_terminal()).map(|a| (a.id,
            a.is_serving())).collect();
        prop_assert_eq!(&glance.open, &open);
        prop_assert_eq!(SessionRecord::decode(&row).unwrap().encode(), row.clone());
        if glance.quiet {
            // A session loaded from its header alone has nothing to do before the header's time.
            let activity = run.record.created_at.saturating_add(Duration::from_secs(touched));
            let due = super::limits::next_look_of(&glance, activity, &run.cx()).unwrap();
            let planned = plan(&run.record, &Evidence::default(), activity, &run.cx());
            prop_assert!(planned.effects.is_empty() || due <= run.now, "{:?}", planned);
            prop_assert!(planned.due.is_none_or(|at| due.unix_millis() <= at.unix_millis()),
                "{:?} {:?}", planned, due);
        }
    }
}
