//! Judges a history by the world's ledger, never by our own records of what we did. One function
//! for each promise.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use atlas_core::{
    AttemptId, ComputeId, ErrorKind, LAUNCH_KEY_ENV, Secret, Timestamp, TrackedKey, Usd,
};
use atlas_orchestrator::kernel::SessionRecord;
use atlas_orchestrator::kernel::glance::glance;
use atlas_orchestrator::store::{Memory, Row, Store, StoredEvent, Table};
use atlas_orchestrator::{
    Event, EventKind, Limit, Policy, Proof, Reason, SessionId, SessionInfo, SessionState, Stuck,
};
use atlas_testkit::world::{FaultKind, Machine, World};
use atlas_web::callback::URL_ENV;

use crate::callback::FORGED;
use crate::cloud::Cloud;
use crate::facts::Facts;
use crate::history::{CANARY, FLEET};
use crate::plan::{Plan, Step, Under};
use crate::report::Violation;
use crate::way::Deletion;

/// Of a fleet with more machines than this the breaker must end none: some of them may be missing
/// in a scan.
const BREAKER: usize = 8;

/// An event that was written so much later than it says was written by a clock that was wrong.
const MAX_LATENCY: Duration = Duration::from_secs(5);

/// Everything a judgement rests on.
pub(crate) struct Evidence<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) world: World,
    pub(crate) store: &'a Memory,
    pub(crate) secret: &'a Secret,
    pub(crate) policy: &'a Policy,
    pub(crate) facts: &'a Facts,
    pub(crate) deletions: Vec<Deletion>,
    /// Machines that others made, and what they are.
    pub(crate) planted: &'a BTreeMap<String, &'static str>,
    /// Our own view when it had been quiet for long enough, with the world's live machines of that
    /// moment.
    pub(crate) present: Present,
    /// Our own view after everything was asked to end.
    pub(crate) end: Vec<SessionInfo>,
}

/// Our own view of one moment, and the world's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Present {
    pub(crate) at: Option<Timestamp>,
    pub(crate) sessions: Vec<SessionInfo>,
    pub(crate) live: BTreeSet<String>,
}

/// A machine of ours in the world, and the session it was made for.
struct Ours {
    machine: Machine,
    attempt: Option<AttemptId>,
    session: Option<SessionId>,
}

impl Ours {
    fn cloud(&self) -> Option<Cloud> {
        Cloud::of(&self.machine)
    }

    /// Made with the key of another account.
    fn elsewhere(&self) -> bool {
        self.cloud()
            .is_none_or(|cloud| self.machine.account != cloud.account())
    }

    /// The values in its environment that must not appear elsewhere.
    fn secrets(&self) -> impl Iterator<Item = String> {
        let open = self.cloud().map(Cloud::open_variables).unwrap_or_default();
        let secret =
            |name: &str| name != LAUNCH_KEY_ENV && name != URL_ENV && !open.contains(&name);
        self.machine
            .spec
            .env
            .iter()
            .filter(move |(name, _)| secret(name))
            .map(|(_, value)| value.expose().to_owned())
    }
}

struct Case<'a> {
    evidence: &'a Evidence<'a>,
    ours: Vec<Ours>,
    logs: BTreeMap<SessionId, Vec<Event>>,
    struck: BTreeMap<FaultKind, u64>,
    found: Vec<(&'static str, String)>,
    judged: BTreeSet<&'static str>,
    excuses: BTreeMap<&'static str, u64>,
}

/// What was judged, what was left out and why, and the promises that did not hold.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) violations: Vec<Violation>,
    pub(crate) judged: BTreeSet<&'static str>,
    pub(crate) excuses: BTreeMap<&'static str, u64>,
}

/// Judges every promise.
pub(crate) async fn check(evidence: &Evidence<'_>) -> Judgement {
    let logs = read_logs(evidence).await;
    let mut sessions = BTreeMap::new();
    for info in &evidence.end {
        for attempt in &info.attempts {
            sessions.insert(attempt.attempt, info.id);
        }
    }
    let ours = evidence
        .machines()
        .filter(|machine| !evidence.planted.contains_key(&machine.id))
        .map(|machine| {
            let key: Option<TrackedKey> = machine
                .spec
                .env
                .get(LAUNCH_KEY_ENV)
                .and_then(|text| text.expose().parse().ok());
            let attempt = key.map(|key| key.attempt());
            Ours {
                session: attempt.and_then(|attempt| sessions.get(&attempt).copied()),
                attempt,
                machine,
            }
        })
        .collect();
    let mut case = Case {
        evidence,
        ours,
        logs,
        struck: evidence.world.struck(),
        found: Vec::new(),
        judged: BTreeSet::new(),
        excuses: BTreeMap::new(),
    };
    case.every_machine_was_intended();
    case.machines_are_the_sessions();
    case.one_serving_machine();
    case.nothing_of_others_is_killed();
    case.no_cap_is_exceeded();
    case.idle_deaths_are_due();
    case.runtime_limits_are_not_early();
    case.events_are_gapless().await;
    case.terminated_is_true();
    case.outcomes_are_the_machines();
    case.no_secret_shows().await;
    case.indexes_agree_with_the_records().await;
    case.report()
}

async fn read_logs(evidence: &Evidence<'_>) -> BTreeMap<SessionId, Vec<Event>> {
    let mut logs = BTreeMap::new();
    for info in &evidence.end {
        let stored = evidence
            .store
            .events(*info.id.as_bytes(), 0, usize::MAX)
            .await
            .unwrap_or_default();
        let seen = evidence.facts.seen();
        let log = stored.iter().filter_map(read).map(|mut event| {
            // The world's time is the truth, not what a wrong clock wrote.
            let key = (*event.session.as_bytes(), event.seq);
            if let Some(written) = seen.written.get(&key).and_then(|times| times.last())
                && (*written < event.at || written.since(event.at) > MAX_LATENCY)
            {
                event.at = *written;
            }
            event
        });
        logs.insert(info.id, log.collect());
    }
    logs
}

fn read(stored: &StoredEvent) -> Option<Event> {
    serde_json::from_slice(&stored.payload).ok()
}

impl Evidence<'_> {
    /// A digest of everything that was seen: equal for equal histories.
    pub(crate) async fn digest(&self) -> [u8; 32] {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        digest.update(
            serde_json::to_string(&self.world.ledger())
                .unwrap_or_default()
                .as_bytes(),
        );
        for stored in self.store.feed(0, usize::MAX).await.unwrap_or_default() {
            digest.update(&stored.payload);
        }
        for (at, line) in &self.facts.seen().story {
            digest.update(format!("{at} {line}\n").as_bytes());
        }
        for Deletion { at, id, .. } in &self.deletions {
            digest.update(format!("{at} {id}\n").as_bytes());
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.finish().as_ref());
        bytes
    }

    /// Every machine there ever was, on any cloud.
    fn machines(&self) -> impl Iterator<Item = Machine> {
        self.plan
            .clouds
            .iter()
            .flat_map(|cloud| self.world.all(cloud.as_str()))
    }

    /// The maximum time until the machines of this cloud are exactly those of its sessions.
    fn heal(&self, cloud: Cloud) -> Duration {
        let account = self.policy.account(&cloud.account_name());
        let limits = account.limits.unwrap_or_default();
        2 * account.reap_interval + account.grace + 2 * limits.visibility_bound
    }

    /// The same of a session's cloud.
    fn heal_of(&self, info: &SessionInfo) -> Duration {
        self.plan
            .clouds
            .iter()
            .find(|cloud| cloud.account_name() == info.account)
            .map(|cloud| self.heal(*cloud))
            .unwrap_or_default()
    }

    fn rolled_back(&self) -> bool {
        self.plan
            .steps
            .iter()
            .any(|(_, step)| matches!(step, Step::Rollback(Under::Rest | Under::Running)))
    }

    /// Whether what was put on record at that moment of the world was stamped by a clock that was
    /// wrong, or may have been: it takes a renewal, or an answer of a cloud, to notice a change.
    fn clock_was_wrong(&self, at: Timestamp) -> bool {
        let late = 2 * self.policy.lease;
        let around = |(from, until, _): &(Timestamp, Option<Timestamp>, i64)| {
            *from <= at && until.is_none_or(|until| at <= until.saturating_add(late))
        };
        self.facts.seen().wrong_clock.iter().any(around)
    }
}

impl Case<'_> {
    fn violated(&mut self, invariant: &'static str, what: impl Into<String>) {
        self.found.push((invariant, what.into()));
    }

    /// Records that this promise was compared with the world at least once.
    fn judge(&mut self, invariant: &'static str) {
        self.judged.insert(invariant);
    }

    /// Records that a judgement of one machine or session was left out for this reason.
    fn excuse(&mut self, reason: &'static str) {
        *self.excuses.entry(reason).or_default() += 1;
    }

    /// A rollback undid what was on record at this time. Attempts are stamped in whole seconds.
    fn undone(&self, at: Timestamp) -> bool {
        let second = Duration::from_secs(1);
        let seen = self.evidence.facts.seen();
        let within = |(from, to): &(Timestamp, Timestamp)| {
            *from <= at.saturating_add(second) && at <= to.saturating_add(second)
        };
        seen.undone.iter().any(within)
    }

    /// A rollback undid the record of this machine's attempt.
    fn undone_attempt(&self, attempt: Option<AttemptId>) -> bool {
        attempt.is_some_and(|attempt| self.undone(attempt.created_at()))
    }

    /// A rollback undid something on this session's record.
    fn undone_session(&self, session: SessionId) -> bool {
        let log = self.logs.get(&session).into_iter().flatten();
        let machines = self
            .ours
            .iter()
            .filter(|ours| ours.session == Some(session));
        machines
            .into_iter()
            .any(|ours| self.undone_attempt(ours.attempt))
            || self.info(session).is_some_and(|info| {
                let ended = info.attempts.iter().filter_map(|attempt| attempt.ended_at);
                self.undone(info.created_at) || ended.into_iter().any(|at| self.undone(at))
            })
            || log.into_iter().any(|event| self.undone(event.at))
    }

    /// Its cloud showed it, or its owner's call made it, later than the protocol waits for: the
    /// cloud exceeded its bound, or the owner was paused across its lease.
    fn came_late(&self, ours: &Ours) -> bool {
        let (Some(attempt), Some(cloud)) = (ours.attempt, ours.cloud()) else {
            return false;
        };
        let account = self.evidence.policy.account(&cloud.account_name());
        let limits = account.limits.unwrap_or_default();
        let settle = self.evidence.policy.lease + limits.call_deadline + limits.visibility_bound;
        let machine = &ours.machine;
        let shown = machine.created_at.max(machine.shown_from());
        shown > attempt.created_at().saturating_add(settle)
    }

    fn struck(&self, kind: FaultKind) -> bool {
        self.struck.contains_key(&kind)
    }

    /// A session with an order on an account without a known key: its machines cannot be read, and
    /// it reports that it is stuck.
    fn out_of_reach(&self, session: Option<SessionId>) -> bool {
        let Some(info) = session.and_then(|session| self.info(session)) else {
            return false;
        };
        let seen = self.evidence.facts.seen();
        let wrong = |at: Timestamp| {
            seen.wrong_key
                .iter()
                .any(|(from, until)| *from <= at && until.is_none_or(|until| at <= until))
        };
        // An order that was on record before the wrong deploy, and left after it.
        let elsewhere = || {
            self.ours
                .iter()
                .any(|ours| ours.session == Some(info.id) && ours.elsewhere())
        };
        info.state != SessionState::Terminated
            && (info
                .attempts
                .iter()
                .any(|attempt| wrong(attempt.created_at))
                || elsewhere())
    }

    /// A session that reports that its machines' supporting objects are still in use: another
    /// user's fleet of copies keeps its rule set, and the breaker leaves the fleet to an operator.
    /// Its machines are judged by I2.
    fn held_by_a_fleet(&self, info: &SessionInfo) -> bool {
        let conflict = matches!(&info.stuck, Some(Stuck::CloudUnreachable {
            kind }) if kind == ErrorKind::Conflict.as_str());
        let shares = |cloud: Cloud| cloud.copies_share_support();
        info.account.as_str().parse().is_ok_and(shares)
            && conflict
            && self.evidence.planted.values().any(|kind| *kind == FLEET)
    }

    /// It was renamed before we saw it, and no record identifies its owner: it is reported, never
    /// ended.
    fn is_ambiguous(&self, ours: &Ours) -> bool {
        let machine = &ours.machine;
        let log = ours
            .session
            .and_then(|session| self.logs.get(&session))
            .into_iter()
            .flatten();
        let taken = log.into_iter().any(|event| match &event.kind {
            EventKind::Accepted { compute, .. }
            | EventKind::Adopted { compute, .. }
            | EventKind::DuplicateFound { compute, .. }
            | EventKind::Reopened { compute, .. } => compute.as_str() == machine.id,
            _ => false,
        });
        !taken && TrackedKey::in_name(&machine.spec.name).map(|key| key.attempt()) != ours.attempt
    }

    fn info(&self, session: SessionId) -> Option<&SessionInfo> {
        self.evidence.end.iter().find(|info| info.id == session)
    }

    /// When the attempt of a machine was put on record, in the world's time.
    fn intended_at(&self, ours: &Ours, says: Timestamp) -> Timestamp {
        let log = ours.session.and_then(|session| self.logs.get(&session));
        let event = log.into_iter().flatten().find(|event| {
            matches!(&event.kind, EventKind::Attempt { attempt,
                .. } if Some(*attempt) == ours.attempt)
        });
        event.map_or(says, |event| event.at.min(says))
    }

    /// I1: every machine made with our key has an attempt that was on record before the request
    /// left.
    fn every_machine_was_intended(&mut self) {
        let mut found = Vec::new();
        let mut undone = 0;
        for ours in &self.ours {
            let machine = &ours.machine;
            if self.undone_attempt(ours.attempt) {
                undone += 1;
                continue;
            }
            let recorded = ours.session.and_then(|id| self.info(id)).and_then(|info| {
                info.attempts
                    .iter()
                    .find(|a| Some(a.attempt) == ours.attempt)
            });
            match recorded {
                None => found.push(format!(
                    "machine {} was made at {} and no attempt is on record",
                    machine.id, machine.created_at
                )),
                Some(attempt)
                    if !self.evidence.clock_was_wrong(machine.created_at)
                        && self.intended_at(ours, attempt.created_at) > machine.created_at =>
                {
                    found.push(format!(
                        "machine {} was made at {}, before its attempt of {}",
                        machine.id, machine.created_at, attempt.created_at
                    ));
                }
                Some(_) => {}
            }
        }
        if self.ours.len() > undone {
            self.judge("I1");
        }
        (0..undone).for_each(|_| self.excuse("I1: a rollback undid the attempt"));
        found.into_iter().for_each(|what| self.violated("I1", what));
    }

    /// I2: after quiet, the machines of the realm are exactly its live sessions'; after the end,
    /// there are none.
    fn machines_are_the_sessions(&mut self) {
        let present = self.evidence.present.clone();
        let Some(at) = present.at else { return };
        let mut allowed: BTreeSet<String> = BTreeSet::new();
        let (mut found, mut late) = (Vec::new(), 0);
        // A breaker that another user's fleet tripped waits for an operator, and with it all other
        // machines without a session.
        let broken = self.evidence.planted.values().any(|kind| *kind == FLEET);
        for info in &present.sessions {
            let heal = self.evidence.heal_of(info);
            let serving = info.compute.as_ref().map(|compute| compute.id.to_string());
            match info.state {
                SessionState::Starting | SessionState::Ready => {
                    if let Some(id) = serving {
                        if !present.live.contains(&id)
                            && !self.ended_lately(&id, at, heal)
                            && !self.out_of_reach(Some(info.id))
                        {
                            found.push(format!(
                                "session {} is {} and its machine {id} is not there",
                                info.id,
                                info.state.as_str()
                            ));
                        }
                        allowed.insert(id);
                    }
                }
                SessionState::Terminated => continue,
                _ => {}
            }
            // Machines whose end was ordered a moment ago may still be there.
            let lately = self
                .logs
                .get(&info.id)
                .into_iter()
                .flatten()
                .rev()
                .find(|event| ends_something(&event.kind) && event.at <= at);
            if lately.is_some_and(|event| at.since(event.at) < heal) {
                allowed.extend(
                    info.attempts
                        .iter()
                        .flat_map(|attempt| attempt.computes.iter().map(ComputeId::to_string)),
                );
            }
        }
        for ours in self
            .ours
            .iter()
            .filter(|ours| !self.out_of_reach(ours.session) && !self.is_ambiguous(ours))
        {
            let id = &ours.machine.id;
            let recorded = ours.session.and_then(|id| self.info(id));
            let over = recorded.is_some_and(|info| {
                info.attempts.iter().any(|attempt| {
                    Some(attempt.attempt) == ours.attempt && attempt.ended_at.is_some()
                })
            });
            let lost_elsewhere =
                recorded.is_none() && ours.elsewhere() && self.evidence.rolled_back();
            if broken && over || lost_elsewhere {
                continue;
            }
            let heal = ours
                .cloud()
                .map(|cloud| self.evidence.heal(cloud))
                .unwrap_or_default();
            if present.live.contains(id)
                && !allowed.contains(id)
                && at.since(ours.machine.created_at) > heal
            {
                if self.cannot_be_told_from_a_copy(ours) {
                    late += 1;
                } else {
                    found.push(format!(
                        "machine {id} of {} lives, and no live session has it",
                        ours.machine.created_at
                    ));
                }
            }
            if ours.machine.is_live() {
                found.push(format!(
                    "machine {id} of {} is still there after everything was asked to end",
                    ours.machine.created_at
                ));
            }
        }
        self.judge("I2");
        let excuse =
            "I2: a second commit came later than its cloud's bound, and has no time of birth";
        (0..late).for_each(|_| self.excuse(excuse));
        found.into_iter().for_each(|what| self.violated("I2", what));
    }

    /// A second machine of one order that showed only after its cloud's bound, where the cloud does
    /// not report when it was made: another user's copy looks the same. It is reported, and not
    /// ended before its attempt is over.
    fn cannot_be_told_from_a_copy(&self, ours: &Ours) -> bool {
        let mut others = self
            .ours
            .iter()
            .filter(|other| other.machine.id != ours.machine.id);
        ours.cloud().is_some_and(|cloud| !cloud.reports_birth())
            && self.came_late(ours)
            && others.any(|other| other.attempt.is_some() && other.attempt == ours.attempt)
    }

    /// The world ended it by itself less than a look ago.
    fn ended_lately(&self, id: &str, at: Timestamp, heal: Duration) -> bool {
        self.ours.iter().any(|ours| {
            ours.machine.id == id
                && ours
                    .machine
                    .destroyed_at
                    .is_some_and(|gone| at.since(gone) < heal)
        })
    }

    /// I3: one serving machine for each session, but where a cloud or a pause excuses another.
    fn one_serving_machine(&mut self) {
        let mut found = Vec::new();
        let mut undone = 0;
        let mut by_attempt: BTreeMap<AttemptId, Vec<&Machine>> = BTreeMap::new();
        for ours in &self.ours {
            if let Some(attempt) = ours.attempt {
                by_attempt.entry(attempt).or_default().push(&ours.machine);
            }
        }
        if !self.struck(FaultKind::DuplicateCommit) {
            for (attempt, machines) in &by_attempt {
                if machines.len() > 1 {
                    found.push(format!(
                        "attempt {attempt} made {} machines, and no cloud committed a call twice",
                        machines.len()
                    ));
                }
            }
        }
        for (index, first) in self.ours.iter().enumerate() {
            for second in &self.ours[index + 1..] {
                let (Some(session), Some(a), Some(b)) =
                    (first.session, first.attempt, second.attempt)
                else {
                    continue;
                };
                if second.session != Some(session)
                    || a == b
                    || self.info(session).is_some_and(|info| info.options.hedge)
                {
                    continue;
                }
                let (early, late) = if first.machine.created_at <= second.machine.created_at {
                    (first, second)
                } else {
                    (second, first)
                };
                let overlap = early
                    .machine
                    .destroyed_at
                    .is_none_or(|gone| gone > late.machine.created_at);
                let (Some(early_id), Some(late_id)) = (early.attempt, late.attempt) else {
                    continue;
                };
                if overlap && self.undone_session(session) {
                    undone += 1;
                } else if overlap && !self.given_up_before(session, early_id, late_id) {
                    found.push(format!(
                        "session {session}: machine {} was ordered while {} lived and was not \
                            given up",
                        late.machine.id, early.machine.id
                    ));
                }
            }
        }
        if !self.ours.is_empty() {
            self.judge("I3");
        }
        (0..undone).for_each(|_| self.excuse("I3: a rollback undid part of the session's record"));
        found.into_iter().for_each(|what| self.violated("I3", what));
    }

    /// Whether the first attempt was given up, on record, before the second was ordered.
    fn given_up_before(&self, session: SessionId, first: AttemptId, second: AttemptId) -> bool {
        let Some(log) = self.logs.get(&session) else {
            return false;
        };
        let ordered = log.iter().find(
            |event| matches!(event.kind, EventKind::Attempt { attempt, .. } if attempt == second),
        );
        let Some(ordered) = ordered else { return false };
        log.iter()
            .take_while(|event| event.seq < ordered.seq)
            .any(|event| match &event.kind {
                EventKind::Absent { attempt } => *attempt == first,
                EventKind::Died { .. } => true,
                _ => false,
            })
    }

    /// I4: nothing that is not provably ours is ended, and no live session's machine is.
    fn nothing_of_others_is_killed(&mut self) {
        let mut found = Vec::new();
        // A breaker can only count what a scan shows.
        let torn = [
            FaultKind::EmptyList,
            FaultKind::PageShift,
            FaultKind::PartialList,
            FaultKind::StaleList,
        ];
        let torn = torn.into_iter().any(|kind| self.struck(kind));
        for Deletion { at, id, .. } in &self.evidence.deletions {
            if let Some(kind) = self.evidence.planted.get(id)
                && *kind != "clone"
                && (*kind != FLEET
                    || !torn && !self.evidence.rolled_back() && self.fleet_at(*at) > BREAKER)
            {
                found.push(format!(
                    "at {at} a deletion of {id}, a {kind} machine, was sent"
                ));
            }
        }
        if !self.evidence.rolled_back() {
            for ours in &self.ours {
                let Some(session) = ours.session else {
                    continue;
                };
                let Some(Deletion { at, .. }) = self.first_deletion(&ours.machine) else {
                    continue;
                };
                let log = self
                    .logs
                    .get(&session)
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                let ordered =
                    log.iter()
                        .take_while(|event| event.at <= *at)
                        .any(|event| match &event.kind {
                            EventKind::DuplicateFound { compute, .. }
                            | EventKind::Reopened { compute, .. } => {
                                compute.as_str() == ours.machine.id
                            }
                            EventKind::Adopted { .. } | EventKind::Accepted { .. } => {
                                self.info(session).is_some_and(|info| info.options.hedge)
                            }
                            kind => ends_something(kind),
                        });
                if !ordered {
                    found.push(format!(
                        "at {at} a deletion of {}, the machine of the live session {session}, was \
                            sent",
                        ours.machine.id
                    ));
                }
            }
        }
        if !self.evidence.deletions.is_empty() {
            self.judge("I4");
        }
        found.into_iter().for_each(|what| self.violated("I4", what));
    }

    /// The number of machines in another user's fleet at that moment.
    fn fleet_at(&self, at: Timestamp) -> usize {
        let lived = |machine: &Machine| {
            machine.created_at <= at && machine.destroyed_at.is_none_or(|gone| gone >= at)
        };
        self.evidence
            .machines()
            .filter(|m| {
                self.evidence
                    .planted
                    .get(&m.id)
                    .is_some_and(|kind| *kind == FLEET)
                    && lived(m)
            })
            .count()
    }

    fn first_deletion(&self, machine: &Machine) -> Option<&Deletion> {
        let mut deletions = self.evidence.deletions.iter();
        deletions.find(|deletion| deletion.id == machine.id)
    }

    /// I5: in calm weather no session costs more than its cap. Otherwise the end of its machines is
    /// ordered before they cost more than that, without what they cost while nobody could order
    /// it: what a cloud adds that refuses or forgets a deletion is overrun.
    fn no_cap_is_exceeded(&mut self) {
        let now = self.evidence.world.now();
        let calm = self.evidence.plan.calm;
        let (mut found, mut excuses) = (Vec::new(), Vec::new());
        for info in &self.evidence.end {
            let Some(cap) = info.options.max_cost else {
                continue;
            };
            if let Some(excuse) = self.cost_is_unknowable(info) {
                excuses.push(excuse);
                continue;
            }
            self.judged.insert("I5");
            let machines = self.ours.iter();
            let machines = machines.filter(|ours| ours.session == Some(info.id));
            let (mut cost, mut unavoidable) = (Usd::ZERO, Usd::ZERO);
            for Ours { machine, .. } in machines {
                let billed = machine.billed(now);
                let ordered = self.first_deletion(machine).filter(|_| !calm);
                cost = cost + ordered.map_or(billed, |deletion| deletion.billed.min(billed));
                let until = machine.destroyed_at.unwrap_or(now);
                let until = ordered.map_or(until, |deletion| deletion.at.min(until));
                unavoidable = unavoidable + self.cost_while_away(machine, until);
            }
            if cost > cap + unavoidable {
                found.push(format!(
                    "session {} cost {cost} under a cap of {cap}, {unavoidable} of it while nobody \
                        could end it",
                    info.id
                ));
            }
        }
        excuses.into_iter().for_each(|excuse| self.excuse(excuse));
        found.into_iter().for_each(|what| self.violated("I5", what));
    }

    /// Why nobody can know in time what a session costs.
    fn cost_is_unknowable(&self, info: &SessionInfo) -> Option<&'static str> {
        if self.undone_session(info.id) {
            return Some("I5: a rollback undid part of the session's record");
        }
        if self.out_of_reach(Some(info.id)) {
            return Some("I5: its machines are on an account without a known key");
        }
        let machines: Vec<&Ours> = self
            .ours
            .iter()
            .filter(|ours| ours.session == Some(info.id))
            .collect();
        let twice = |ours: &&Ours| {
            let same = |other: &&&Ours| other.attempt == ours.attempt;
            machines.iter().filter(same).count() > 1
        };
        if machines.iter().copied().any(|ours| twice(&ours)) {
            return Some("I5: a cloud carried out one call twice");
        }
        if machines.iter().any(|ours| self.came_late(ours)) {
            return Some("I5: a machine came later than its cloud's bound");
        }
        if machines.iter().any(|ours| self.is_ambiguous(ours)) {
            return Some("I5: a machine was renamed before it was seen");
        }
        None
    }

    /// What a machine cost until then, at its average price, while hosts slept, a node was paused,
    /// the key was refused or another's, or the store was held; and in the moments after, in which
    /// a process looks before it ends anything.
    fn cost_while_away(&self, machine: &Machine, until: Timestamp) -> Usd {
        let now = self.evidence.world.now();
        let lived = machine
            .destroyed_at
            .unwrap_or(now)
            .since(machine.created_at);
        if self.evidence.plan.calm || lived.is_zero() {
            return Usd::ZERO;
        }
        let seen = self.evidence.facts.seen();
        let open = |(from, until): &(Timestamp, Option<Timestamp>)| (*from, until.unwrap_or(now));
        let away = seen.slept.iter().chain(&seen.away).copied();
        let away = away.chain(seen.held.iter().map(open));
        let away = away.chain(seen.wrong_key.iter().map(open));
        let recovery = 4 * self.evidence.policy.lease;
        let spans = away.map(|(from, to)| (from, to.saturating_add(recovery)));
        let total = covered(spans.collect(), machine.created_at, until);
        let share = total.as_secs_f64() / lived.as_secs_f64();
        Usd::from_f64(machine.billed(now).to_f64() * share).unwrap_or_default()
    }

    /// I6: no idle death before its time after the last acknowledged touch; in calm weather none
    /// long after it either.
    fn idle_deaths_are_due(&mut self) {
        let mut found = Vec::new();
        let seen = self.evidence.facts.seen();
        for info in &self.evidence.end {
            let (
                Some(ttl),
                Some(Reason::Limit {
                    limit: Limit::IdleTtl,
                }),
            ) = (info.options.idle_ttl, &info.reason)
            else {
                continue;
            };
            let touches = seen
                .touches
                .get(&info.id)
                .map(Vec::as_slice)
                .unwrap_or_default();
            // The deployment's time is the store's, which is the world's: no wrong clock of a node
            // moves it.
            let log = self.logs.get(&info.id).into_iter().flatten();
            let killed = log
                .rev()
                .find(|event| matches!(event.kind, EventKind::Terminating { .. }))
                .map(|event| event.at);
            let Some(killed) = killed else { continue };
            self.judged.insert("I6");
            let lead = (ttl / 5).min(Duration::from_secs(60));
            let warned = self
                .logs
                .get(&info.id)
                .into_iter()
                .flatten()
                .filter(|event| {
                    let limit = Limit::IdleTtl;
                    matches!(event.kind, EventKind::Warning { limit: l, .. } if l == limit)
                })
                .map(|event| event.at)
                .next_back();
            let announced = warned.is_some_and(|at| killed.since(at) + MAX_LATENCY >= lead);
            if !announced && !self.evidence.rolled_back() {
                found.push(format!(
                    "session {} was ended for idleness at {killed}, and its warning came at \
                        {warned:?}",
                    info.id
                ));
            }
            if let Some(touch) = touches
                .iter()
                .find(|touch| killed < touch.saturating_add(ttl))
            {
                found.push(format!(
                    "session {} with an idle limit of {ttl:?} was ended at {killed} though touched \
                        at {touch}",
                    info.id
                ));
            }
            // A return after more than a lease counts as a touch. What was due before is due.
            let slept = seen.slept.iter().find(|(from, until)| {
                let long = until.since(*from) > 2 * self.evidence.policy.lease;
                let committed = killed.since(*until) <= MAX_LATENCY;
                long && info.created_at < *from
                    && killed > *from
                    && killed < until.saturating_add(ttl)
                    && !committed
            });
            if let Some((from, until)) = slept {
                found.push(format!(
                    "session {} with an idle limit of {ttl:?} was ended at {killed} though its \
                        hosts slept from {from} until {until}",
                    info.id
                ));
            }
            if self.evidence.plan.calm {
                let ready = self
                    .logs
                    .get(&info.id)
                    .into_iter()
                    .flatten()
                    .filter(|event| {
                        // A machine that was had counts as activity, as one that is usable does.
                        matches!(
                            event.kind,
                            EventKind::Ready
                                | EventKind::Accepted { .. }
                                | EventKind::Adopted { .. }
                        )
                    })
                    .map(|event| event.at);
                let deferred = seen
                    .deferred
                    .get(&info.id)
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                let newest = touches
                    .iter()
                    .chain(deferred)
                    .copied()
                    .chain(ready)
                    .chain([info.created_at])
                    .max()
                    .unwrap_or(info.created_at);
                let slack = self.evidence.policy.flush_of(ttl)
                    + self.evidence.policy.tick
                    + Duration::from_secs(5);
                let latest = newest.saturating_add(ttl).saturating_add(slack);
                if killed > latest {
                    found.push(format!(
                        "session {} was idle from {newest} for more than {ttl:?} and ended only at \
                            {killed}",
                        info.id
                    ));
                }
            }
        }
        drop(seen);
        found.into_iter().for_each(|what| self.violated("I6", what));
    }

    /// I6 too: no session ends for its maximum runtime before that has passed, however wrong a clock
    /// is.
    fn runtime_limits_are_not_early(&mut self) {
        let (mut found, mut excused) = (Vec::new(), 0);
        for info in &self.evidence.end {
            let limit = Limit::MaxRuntime;
            let by_limit = info.reason == Some(Reason::Limit { limit });
            let Some(longest) = info.options.max_runtime.filter(|_| by_limit) else {
                continue;
            };
            if self.undone_session(info.id) {
                continue;
            }
            let log = self.logs.get(&info.id).map(Vec::as_slice);
            let log = log.unwrap_or_default();
            let first = |of: fn(&EventKind) -> bool| log.iter().find(|event| of(&event.kind));
            let created = first(|kind| matches!(kind, EventKind::Created { .. }));
            let ended = first(|kind| matches!(kind, EventKind::Terminating { .. }));
            let (Some(created), Some(ended)) = (created, ended) else {
                continue;
            };
            let early = ended.at.since(created.at) + MAX_LATENCY < longest;
            if early && self.clock_was_just_set_back(ended.at) {
                excused += 1;
                continue;
            }
            self.judged.insert("I6");
            if early {
                found.push(format!(
                    "session {} of {} was ended at {} for its maximum runtime of {longest:?}",
                    info.id, created.at, ended.at
                ));
            }
        }
        (0..excused).for_each(|_| self.excuse("I6: the store's clock was just set back"));
        found.into_iter().for_each(|what| self.violated("I6", what));
    }

    /// An open fault and not a right behaviour (seed 39): a process that starts within this time of
    /// a store's clock being set back takes the recorded instants for later than now, because no
    /// process has recorded yet how wrong that clock is.
    fn clock_was_just_set_back(&self, at: Timestamp) -> bool {
        let unrecorded = Duration::from_secs(60);
        let seen = self.evidence.facts.seen();
        seen.wrong_clock
            .iter()
            .any(|(from, _, error)| *error < 0 && *from <= at && at.since(*from) <= unrecorded)
    }

    /// I7: the events of a session are gapless and ordered, and a reader misses none.
    async fn events_are_gapless(&mut self) {
        let mut found = Vec::new();
        for info in &self.evidence.end {
            let log = self
                .logs
                .get(&info.id)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let gapless = log.iter().zip(1..).all(|(event, seq)| event.seq == seq);
            if !gapless || log.last().map(|event| event.seq) != Some(info.last_seq) {
                found.push(format!(
                    "the log of session {} has a gap, or ends at another event than \
                    the session says",
                    info.id
                ));
            }
            let says_ended = log
                .iter()
                .any(|event| matches!(event.kind, EventKind::Terminated { .. }));
            if info.state == SessionState::Terminated && !says_ended {
                found.push(format!(
                    "session {} is terminated and its log does not say so",
                    info.id
                ));
            }
        }
        let mut undone = 0;
        {
            let seen = self.evidence.facts.seen();
            // What a wrong clock stamped on an event does not say whether it was undone.
            let undoes = |event: &Event| {
                let key = (*event.session.as_bytes(), event.seq);
                let mut times = seen.written.get(&key).into_iter().flatten();
                times.any(|at| {
                    let within = |(from, to): &(Timestamp, Timestamp)| from <= at && at <= to;
                    seen.undone.iter().any(within)
                })
            };
            for (reader, events) in &seen.read {
                let Some(first) = events.first() else {
                    continue;
                };
                if events.iter().any(undoes) {
                    undone += 1;
                    continue;
                }
                let log = self
                    .logs
                    .get(&first.session)
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                let differ = |(read, stored): (&Event, &Event)| {
                    (read.session, read.seq, &read.kind)
                        != (stored.session, stored.seq, &stored.kind)
                };
                if events.iter().zip(log).any(differ) || events.len() > log.len() {
                    found.push(format!(
                        "reader {reader} of session {} missed an event",
                        first.session
                    ));
                }
            }
        }
        if !self.evidence.end.is_empty() {
            self.judge("I7");
        }
        (0..undone).for_each(|_| self.excuse("I7: a rollback undid events that a reader had read"));
        found.into_iter().for_each(|what| self.violated("I7", what));
    }

    /// I8: "terminated" is said only when nothing of the session is left, but where a cloud broke
    /// its bound or an owner was paused.
    fn terminated_is_true(&mut self) {
        let mut found = Vec::new();
        let (mut undone, mut late, mut judged) = (0, 0, false);
        for info in &self.evidence.end {
            if info.state != SessionState::Terminated
                && !self.out_of_reach(Some(info.id))
                && !self.held_by_a_fleet(info)
            {
                found.push(format!(
                    "session {} was asked to end and is {}: {:?}",
                    info.id,
                    info.state.as_str(),
                    info.stuck
                ));
            }
            if self.undone_session(info.id) {
                undone += 1;
                continue;
            }
            judged = true;
            for (at, attempt) in self
                .logs
                .get(&info.id)
                .into_iter()
                .flatten()
                .filter_map(|event| match event.kind {
                    EventKind::Absent { attempt } => Some((event.at, attempt)),
                    _ => None,
                })
            {
                let lived = |ours: &&Ours| {
                    let machine = &ours.machine;
                    ours.attempt == Some(attempt)
                        && machine.created_at <= at
                        && machine.destroyed_at.is_none_or(|gone| gone > at)
                };
                if let Some(ours) = self
                    .ours
                    .iter()
                    .find(lived)
                    .filter(|ours| !self.is_ambiguous(ours))
                {
                    if self.came_late(ours) {
                        late += 1;
                        continue;
                    }
                    found.push(format!(
                        "attempt {attempt} was called absent at {at}, and machine {} lived",
                        ours.machine.id
                    ));
                }
            }
            let said = self
                .logs
                .get(&info.id)
                .into_iter()
                .flatten()
                .filter(|event| matches!(event.kind, EventKind::Terminated { .. }));
            for said in said.map(|event| event.at) {
                for ours in self
                    .ours
                    .iter()
                    .filter(|ours| ours.session == Some(info.id))
                {
                    let alive = ours.machine.created_at <= said
                        && ours.machine.destroyed_at.is_none_or(|gone| gone > said);
                    if alive && self.came_late(ours) {
                        late += 1;
                    } else if alive && !self.is_ambiguous(ours) {
                        found.push(format!(
                            "session {} was called terminated at {said}, and machine {} lived",
                            info.id, ours.machine.id
                        ));
                    }
                }
            }
        }
        if judged {
            self.judge("I8");
        }
        (0..undone).for_each(|_| self.excuse("I8: a rollback undid part of the session's record"));
        (0..late).for_each(|_| self.excuse("I8: a machine came later than its cloud's bound"));
        found.into_iter().for_each(|what| self.violated("I8", what));
    }

    /// I8 too: what is said of a task is what its own machine did, or is marked as a guess.
    /// Strangers' reports change nothing.
    fn outcomes_are_the_machines(&mut self) {
        let mut found = Vec::new();
        for info in &self.evidence.end {
            let Some(outcome) = &info.outcome else {
                continue;
            };
            let ended_so = |ours: &&Ours| {
                ours.session == Some(info.id) && ours.machine.exit_code == outcome.exit_code
            };
            let own = match outcome.proof {
                Proof::Reported => {
                    outcome.exit_code.is_some() && self.ours.iter().any(|ours| ended_so(&ours))
                }
                Proof::Inferred => outcome.exit_code.is_none(),
            };
            if !own && !self.evidence.rolled_back() {
                found.push(format!(
                    "the task of session {} is said to have ended as {outcome:?}, and no machine \
                        of it did",
                    info.id
                ));
            }
        }
        let forged = |event: &&Event| {
            matches!(&event.kind, EventKind::Reported { text,
            .. } if text.contains(FORGED))
        };
        found.extend(
            self.logs
                .values()
                .flatten()
                .filter(forged)
                .map(|event| format!("session {} has a stranger's report", event.session)),
        );
        found.extend(
            self.evidence
                .facts
                .seen()
                .forged_taken
                .iter()
                .map(|path| format!("a stranger's report to {path} was taken")),
        );
        found.into_iter().for_each(|what| self.violated("I8", what));
    }

    /// What the indexes say is what the records say, once they are built: a live session that is
    /// not in them would be looked after by nobody.
    async fn indexes_agree_with_the_records(&mut self) {
        let store = &self.evidence.store;
        let built = store.get(Table::Realm, b"index").await.ok().flatten();
        let built = built
            .and_then(|row| serde_json::from_slice::<serde_json::Value>(&row.value).ok())
            .is_some_and(|row| row["step"] == "whole");
        if !built {
            return;
        }
        let all = async |table| {
            let rows = store.scan(table, &[], None, usize::MAX).await;
            rows.unwrap_or_default()
        };
        let (mut live, mut users, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        for row in all(Table::Sessions).await {
            let Ok(record) = SessionRecord::decode(&row.value) else {
                continue;
            };
            let id = row.key.clone();
            if record.options.user_id.is_some() {
                users.push(id.clone());
            }
            if record.is_over() {
                ended.push(id);
            } else {
                live.push((id, format!("{:?}", glance(&row.value))));
            }
        }
        let of = |row: &Row| row.key[row.key.len().saturating_sub(16)..].to_vec();
        let heads: Vec<_> = all(Table::Live)
            .await
            .into_iter()
            .map(|row| (row.key.clone(), format!("{:?}", glance(&row.value))))
            .collect();
        let mut found = Vec::new();
        if heads != live {
            found.push("the index of live sessions differs from the records".to_owned());
        }
        for (table, mut expected) in [(Table::Users, users), (Table::Ended, ended)] {
            let mut entries: Vec<Vec<u8>> = all(table).await.iter().map(of).collect();
            entries.sort();
            expected.sort();
            if entries != expected {
                let table = table.as_str();
                found.push(format!("the index {table} differs from the records"));
            }
        }
        found
            .into_iter()
            .for_each(|what| self.violated("index", what));
    }

    /// I9: no secret byte in records, events, answers, or what the application was told.
    async fn no_secret_shows(&mut self) {
        let mut places: Vec<(String, Vec<u8>)> = Vec::new();
        for table in Table::ALL {
            for row in self
                .evidence
                .store
                .scan(table, &[], None, usize::MAX)
                .await
                .unwrap_or_default()
            {
                places.push((format!("the table {}", table.as_str()), row.value));
            }
        }
        for stored in self
            .evidence
            .store
            .feed(0, usize::MAX)
            .await
            .unwrap_or_default()
        {
            places.push(("an event".to_owned(), stored.payload));
        }
        for info in &self.evidence.end {
            places.push((
                "a session's debug output".to_owned(),
                format!("{info:?}").into_bytes(),
            ));
        }
        for (_, line) in &self.evidence.facts.seen().story {
            places.push((
                "what the application was told".to_owned(),
                line.clone().into_bytes(),
            ));
        }
        let mut secrets: BTreeSet<String> = self.ours.iter().flat_map(Ours::secrets).collect();
        secrets.insert(CANARY.to_owned());
        secrets.insert(crate::node::API_KEY.to_owned());
        secrets.insert(self.evidence.secret.expose().to_owned());
        let holds = |bytes: &[u8], secret: &str| {
            bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes())
        };
        let found: BTreeSet<String> = places
            .iter()
            .filter(|(_, bytes)| secrets.iter().any(|secret| holds(bytes, secret)))
            .map(|(place, _)| format!("a secret shows in {place}"))
            .collect();
        self.judge("I9");
        found.into_iter().for_each(|what| self.violated("I9", what));
    }

    fn report(self) -> Judgement {
        let story = self
            .evidence
            .facts
            .seen()
            .story
            .iter()
            .map(|(at, line)| format!("{at} {line}"))
            .collect::<Vec<_>>()
            .join("\n");
        let mut log = String::new();
        for (session, events) in &self.logs {
            for event in events {
                log.push_str(&format!(
                    "\n{} {session} #{} {:?}",
                    event.at, event.seq, event.kind
                ));
            }
        }
        let machines = self.ours.iter().fold(String::new(), |text, ours| {
            let machine = &ours.machine;
            format!(
                "{text}\n{} machine {} gone {:?} attempt {:?}",
                machine.created_at, machine.id, machine.destroyed_at, ours.attempt
            )
        });
        let deletions = self
            .evidence
            .deletions
            .iter()
            .fold(String::new(), |text, Deletion { at, id, .. }| {
                format!("{text}\n{at} DELETE {id}")
            });
        let violations = self
            .found
            .iter()
            .map(|(invariant, what)| Violation {
                seed: self.evidence.plan.seed,
                invariant,
                story: format!(
                    "{what}\n{story}\n-- events{log}\n-- machines{machines}\n-- \
                    deletions{deletions}"
                ),
            })
            .collect();
        Judgement {
            violations,
            judged: self.judged,
            excuses: self.excuses,
        }
    }
}

/// How much of the time from `from` to `until` these spans cover; what several cover counts once.
fn covered(mut spans: Vec<(Timestamp, Timestamp)>, from: Timestamp, until: Timestamp) -> Duration {
    spans.sort();
    let (mut total, mut counted) = (Duration::ZERO, from);
    for (begin, end) in spans {
        let end = end.min(until);
        total += end.since(begin.max(counted));
        counted = counted.max(end);
    }
    total
}

/// Whether an event orders the end of something.
fn ends_something(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::Terminating { .. }
            | EventKind::Died { .. }
            | EventKind::DuplicateFound { .. }
            | EventKind::Reopened { .. }
            | EventKind::TerminateFailed { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_two_spans_cover_counts_once_and_only_within_a_life() {
        let at = Timestamp::from_unix_seconds;
        let spans = vec![
            (at(50), at(70)),
            (at(0), at(20)),
            (at(10), at(30)),
            (at(95), at(200)),
        ];
        let seconds = |from, until| covered(spans.clone(), at(from), at(until)).as_secs();
        assert_eq!(seconds(0, 100), 30 + 20 + 5);
        assert_eq!(seconds(15, 60), 15 + 10);
        assert_eq!(seconds(30, 50), 0);
        assert_eq!(seconds(300, 400), 0);
    }
}
