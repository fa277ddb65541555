//! The view of calls: the faults of a call, machines as reads show them, stock, logs and a
//! machine's HTTP.

use std::collections::BTreeMap;

use atlas_core::{
    LogSource, PRESHARED_KEY_ENV, Protocol, SIGNING_SECRET_ENV, Secret, Stock, Timestamp,
};
use subtle::ConstantTimeEq;

use super::accounts::Account;
use super::fault::{Arrival, FaultKind, same_operation};
use super::machine::{LogEntry, Machine, MachineState};
use super::{State, World};

/// What listens at a machine's HTTP port.
#[derive(Clone, Debug)]
pub enum Listener {
    /// There is no such machine, or it has no such port.
    Nobody,
    /// Not running, or not listening yet: a proxy's 502.
    NotYet,
    /// It listens, and requires the credential in its environment.
    Open {
        /// The name of the account.
        name: String,
        /// The bearer token that it requires.
        bearer: Option<Secret>,
        /// The secret that signs the URLs it takes.
        signing: Option<Secret>,
    },
}

/// How a machine's HTTP port answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visit {
    /// There is no such machine, or it has no such port.
    Nobody,
    /// Not running, or not listening yet: a proxy's 502.
    NotYet,
    /// It demands a bearer token, and this is not it.
    Refused,
    /// It answers.
    Welcome {
        /// The name of the account.
        name: String,
    },
}

impl World {
    /// No fault at all, whatever is waiting: for calls that are not a client's.
    #[must_use]
    pub fn honest(&self) -> Arrival {
        Arrival::default()
    }

    /// A call arrives: which faults it meets. `key` is the caller's, `target` the machine it is
    /// about, and `continues` says that it asks for a later page. Faults on keys and on existing
    /// machines happen here.
    pub fn arrive(
        &self,
        cloud: &str,
        operation: &str,
        key: &str,
        target: Option<&str>,
        continues: bool,
    ) -> Arrival {
        let operation = same_operation(operation);
        let (mut state, now) = self.at_now();
        let state = &mut *state;
        if state.faults.queue.is_empty() && state.faults.plans.is_empty() {
            return Arrival::default();
        }
        let Some(held) = state.clouds.get(cloud) else {
            return Arrival::default();
        };
        let live = |id: &str| held.machines.get(id).is_some_and(Machine::is_live);
        let seen: Vec<String> = held
            .machines
            .values()
            .filter(|m| m.is_live() && m.listed(now))
            .map(|m| m.id.clone())
            .collect();
        let creates = operation == "spawn_compute";
        let mut arrival = state
            .faults
            .strike(cloud, operation, &state.dice, |kind| match kind {
                FaultKind::PageShift => continues,
                FaultKind::Preempt | FaultKind::Vanish if creates => true,
                FaultKind::Preempt | FaultKind::Vanish => target.map_or(!seen.is_empty(), live),
                FaultKind::PartialList | FaultKind::EmptyList => !seen.is_empty(),
                _ => true,
            });
        for kind in [FaultKind::Preempt, FaultKind::Vanish]
            .into_iter()
            .filter(|_| !creates)
        {
            if arrival.has(kind) {
                let drawn = usize::try_from(state.dice.below(seen.len() as u64)).unwrap_or(0);
                let id = target
                    .map(str::to_owned)
                    .or_else(|| seen.get(drawn).cloned())
                    .unwrap_or_default();
                if kind == FaultKind::Preempt {
                    state.preempt(cloud, &id, now)
                } else {
                    state.end(cloud, &id, now, true)
                }
                state.faults.count(kind);
                arrival.effects.retain(|effect| *effect != kind);
            }
        }
        if let Some(held) = state.clouds.get_mut(cloud) {
            if arrival.has(FaultKind::RevokeKey) {
                held.revoked.insert(key.to_owned());
            }
            if arrival.has(FaultKind::SwapAccount) && !held.swapped.remove(key) {
                held.swapped.insert(key.to_owned());
            }
        }
        // What a creation may still refuse to do is counted where it is done.
        let later = [
            FaultKind::DuplicateCommit,
            FaultKind::LateAppearance,
            FaultKind::NoCapacity,
            FaultKind::QuotaExceeded,
            FaultKind::NeverReady,
        ];
        for kind in arrival.effects.iter().chain(&arrival.answer) {
            if !later.contains(kind) && !matches!(kind, FaultKind::Preempt | FaultKind::Vanish) {
                state.faults.count(*kind);
            }
        }
        arrival
    }

    /// A point read by an account: the machine as it is shown, `None` while it is not shown yet or
    /// any more.
    #[must_use]
    pub fn machine(
        &self,
        cloud: &str,
        account: &Account,
        id: &str,
        with: &Arrival,
    ) -> Option<Machine> {
        let (state, now) = self.at_now();
        let machine = state
            .machine(cloud, id)
            .filter(|machine| machine.account == account.as_str())?;
        let seen_at = if with.has(FaultKind::StaleList) {
            state.some_time_ago(cloud, now)
        } else {
            now
        };
        machine.shown_by_id(seen_at).then(|| machine.as_of(seen_at))
    }

    /// A list by an account, newest first: the machines as they are shown.
    #[must_use]
    pub fn machines(&self, cloud: &str, account: &Account, with: &Arrival) -> Vec<Machine> {
        let (state, now) = self.at_now();
        let Some(held) = state.clouds.get(cloud) else {
            return Vec::new();
        };
        if with.has(FaultKind::EmptyList) {
            return Vec::new();
        }
        let mut shown: Vec<Machine> = held
            .machines
            .values()
            .filter(|machine| machine.account == account.as_str())
            .filter_map(|machine| {
                let seen_at = if with.has(FaultKind::StaleList) {
                    state.some_time_ago(cloud, now)
                } else {
                    now
                };
                machine.listed(seen_at).then(|| machine.as_of(seen_at))
            })
            .collect();
        shown.sort_by_key(|machine| std::cmp::Reverse(machine.serial));
        if with.has(FaultKind::PartialList) && !shown.is_empty() {
            // At least one is lacking, and about half.
            let spared = state.dice.below(shown.len() as u64);
            let mut index = 0;
            shown.retain(|_| {
                index += 1;
                index - 1 != spared && state.dice.below(2) == 0
            });
        }
        shown
    }

    /// The truth about a machine, dead ones included.
    #[must_use]
    pub fn truth(&self, cloud: &str, id: &str) -> Option<Machine> {
        self.at_now().0.machine(cloud, id).cloned()
    }

    /// The truth about all machines of a cloud, oldest first, dead ones included.
    #[must_use]
    pub fn all(&self, cloud: &str) -> Vec<Machine> {
        let (state, _) = self.at_now();
        let mut machines: Vec<Machine> = state
            .clouds
            .get(cloud)
            .map(|held| held.machines.values().cloned().collect())
            .unwrap_or_default();
        machines.sort_by_key(|machine| machine.serial);
        machines
    }

    /// Free units by region, as the cloud's catalogue tells it: with a skewed catalogue, more than
    /// there are.
    #[must_use]
    pub fn stock(&self, cloud: &str, shape: &str, tier: &str) -> BTreeMap<String, u32> {
        let (state, _) = self.at_now();
        let Some(held) = state.clouds.get(cloud) else {
            return BTreeMap::new();
        };
        held.stock
            .iter()
            .filter(|((s, t, _), _)| s == shape && t == tier)
            .map(|((_, _, region), free)| {
                (region.clone(), if held.skewed { u32::MAX } else { *free })
            })
            .collect()
    }

    /// A machine's log, as its account sees it.
    #[must_use]
    pub fn log_of(
        &self,
        cloud: &str,
        account: &Account,
        id: &str,
        source: Option<LogSource>,
    ) -> Option<Vec<LogEntry>> {
        let (state, now) = self.at_now();
        let machine = state
            .machine(cloud, id)
            .filter(|machine| machine.account == account.as_str() && machine.shown_by_id(now))?;
        Some(
            machine
                .logs
                .iter()
                .filter(|entry| source.is_none_or(|wanted| wanted == entry.source))
                .cloned()
                .collect(),
        )
    }

    /// What is at a machine's HTTP port.
    #[must_use]
    pub fn listener(&self, cloud: &str, id: &str, port: u32) -> Listener {
        let (state, now) = self.at_now();
        let Some(machine) = state.machine(cloud, id).filter(|machine| machine.is_live()) else {
            return Listener::Nobody;
        };
        if !machine
            .spec
            .ports
            .iter()
            .any(|exposed| exposed.number() == port && exposed.protocol() == Protocol::Http)
        {
            return Listener::Nobody;
        }
        if !machine.is_warm(now) {
            return Listener::NotYet;
        }
        let demands = |name: &str| machine.spec.env.get(name).cloned();
        Listener::Open {
            name: machine.spec.name.clone(),
            bearer: demands(PRESHARED_KEY_ENV),
            signing: demands(SIGNING_SECRET_ENV),
        }
    }

    /// Someone calls a machine's HTTP port with this bearer token, or none.
    #[must_use]
    pub fn visit(&self, cloud: &str, id: &str, port: u32, bearer: Option<&str>) -> Visit {
        match self.listener(cloud, id, port) {
            Listener::Nobody => Visit::Nobody,
            Listener::NotYet => Visit::NotYet,
            Listener::Open {
                name,
                bearer: None,
                signing: None,
            } => Visit::Welcome { name },
            Listener::Open {
                name,
                bearer: Some(key),
                ..
            } if bearer.is_some_and(|token| {
                bool::from(token.as_bytes().ct_eq(key.expose().as_bytes()))
            }) =>
            {
                Visit::Welcome { name }
            }
            Listener::Open { .. } => Visit::Refused,
        }
    }
}

impl State {
    /// An instant up to the cloud's bound ago.
    fn some_time_ago(&self, cloud: &str, now: Timestamp) -> Timestamp {
        let bound = self
            .clouds
            .get(cloud)
            .map(|held| held.spec.visibility_bound)
            .unwrap_or_default();
        now.saturating_sub(self.dice.span(std::time::Duration::ZERO, bound))
    }
}

impl Machine {
    pub(super) fn shown_by_id(&self, at: Timestamp) -> bool {
        self.read_from <= at && self.read_until.is_none_or(|until| at < until)
    }

    pub(super) fn listed(&self, at: Timestamp) -> bool {
        self.list_from <= at && self.list_until.is_none_or(|until| at < until)
    }

    /// As a read shows it that looks at this instant: a dead machine not yet forgotten is shown as
    /// it last lived.
    fn as_of(&self, at: Timestamp) -> Self {
        let mut shown = self.clone();
        shown.state = self.state_at(at);
        if shown.state == MachineState::Destroyed {
            shown.state = self
                .past
                .iter()
                .rev()
                .map(|(_, state)| *state)
                .find(|state| *state != MachineState::Destroyed)
                .unwrap_or(self.state);
        }
        if self.started_at.is_some_and(|started| started > at) {
            shown.started_at = None;
        }
        shown
    }
}

/// A free number of units in the words of a catalogue.
#[must_use]
pub fn stock_level(free: u32) -> Stock {
    match free {
        0 => Stock::None,
        1..=2 => Stock::Low,
        3..=5 => Stock::Medium,
        _ => Stock::High,
    }
}
