//! The life of a machine: orders of its account, and what happens to it by itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{LogSource, Protocol, Timestamp, UsdPerHour};

use super::accounts::{Account, Standing};
use super::cloud::Lag;
use super::fault::{Arrival, FaultKind};
use super::jobs::QueueEvent;
use super::machine::{Machine, MachineSpec, MachineState, Meter, Restart};
use super::program::Program;
use super::{Cloud, State, World};

/// Why the world did not carry out an order. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such cloud in this world.
    NoSuchCloud,
    /// There is no such shape, or not in this tier.
    UnknownShape,
    /// One machine cannot have this many units.
    TooMany,
    /// There is no such region.
    UnknownRegion(String),
    /// Sold out, or no units left in the requested place.
    NoCapacity,
    /// There is no such machine, volume, endpoint or job, or this account cannot see it (yet), or
    /// not there.
    NotFound,
    /// The machine is locked.
    Locked,
    /// The machine's state does not allow it.
    WrongState(MachineState),
    /// The account's balance is used up.
    NoMoney,
    /// The account has reached its maximum number of machines.
    Quota,
    /// The key lacks the permission.
    Forbidden,
    /// The resource's state does not allow it.
    NotNow,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchCloud => f.write_str("no such cloud"),
            Self::UnknownShape => f.write_str("no such shape"),
            Self::TooMany => f.write_str("too many for one machine"),
            Self::UnknownRegion(region) => write!(f, "no such region: {region}"),
            Self::NoCapacity => f.write_str("sold out"),
            Self::NotFound => f.write_str("not found"),
            Self::Locked => f.write_str("locked"),
            Self::WrongState(state) => write!(f, "not possible while {}", state.as_str()),
            Self::NoMoney => f.write_str("the balance is used up"),
            Self::Quota => f.write_str("the quota is used up"),
            Self::Forbidden => f.write_str("the key lacks the right"),
            Self::NotNow => f.write_str("not possible in its state"),
        }
    }
}

impl std::error::Error for Refusal {}

/// A scheduled event.
#[derive(Clone, Debug)]
pub(super) struct Timer {
    cloud: String,
    /// The machine, or the endpoint.
    subject: String,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Starting(u32),
    Running(u32),
    Print(u32, String),
    Exit(u32, i32),
    Preempt,
    Vanish,
    Stop,
    Destroy,
    Queue(QueueEvent),
}

impl World {
    /// Creates one machine (two under the fault `duplicate-commit`; the first is answered).
    ///
    /// # Errors
    /// A [`Refusal`]; then there is no machine and none is counted.
    pub fn create_machine(
        &self,
        cloud: &str,
        account: &Account,
        spec: MachineSpec,
        with: &Arrival,
    ) -> Result<Machine, Refusal> {
        let (mut state, now) = self.at_now();
        if with.has(FaultKind::NoCapacity) {
            state.faults.count(FaultKind::NoCapacity);
            return Err(Refusal::NoCapacity);
        }
        if with.has(FaultKind::QuotaExceeded) {
            state.faults.count(FaultKind::QuotaExceeded);
            return Err(Refusal::Quota);
        }
        let id = state.create(cloud, account, spec.clone(), with, now)?;
        if with.has(FaultKind::DuplicateCommit)
            && state.create(cloud, account, spec, with, now).is_ok()
        {
            state.faults.count(FaultKind::DuplicateCommit);
        }
        for kind in [
            FaultKind::LateAppearance,
            FaultKind::NeverReady,
            FaultKind::Preempt,
            FaultKind::Vanish,
        ] {
            if with.has(kind) {
                state.faults.count(kind);
            }
        }
        state.machine(cloud, &id).cloned().ok_or(Refusal::NotFound)
    }

    /// Stops a machine without deleting it.
    ///
    /// # Errors
    /// A [`Refusal`]; then nothing was changed.
    pub fn stop(&self, cloud: &str, account: &Account, id: &str) -> Result<Machine, Refusal> {
        let (mut state, now) = self.at_now();
        let machine = state.ordered(cloud, account, id, now)?;
        match machine.state {
            _ if machine.locked => return Err(Refusal::Locked),
            MachineState::Provisioning | MachineState::Starting | MachineState::Running => {}
            other => return Err(Refusal::WrongState(other)),
        }
        state.halt(cloud, id, now);
        state.machine(cloud, id).cloned().ok_or(Refusal::NotFound)
    }

    /// Starts a stopped or failed machine, if its region has units left.
    ///
    /// # Errors
    /// A [`Refusal`]; then nothing was changed.
    pub fn start(
        &self,
        cloud: &str,
        account: &Account,
        id: &str,
        with: &Arrival,
    ) -> Result<Machine, Refusal> {
        let (mut state, now) = self.at_now();
        let machine = state.ordered(cloud, account, id, now)?;
        let failed = match machine.state {
            MachineState::Stopped => false,
            MachineState::Failed => true,
            other => return Err(Refusal::WrongState(other)),
        };
        if with.has(FaultKind::NoCapacity) {
            state.faults.count(FaultKind::NoCapacity);
            return Err(Refusal::NoCapacity);
        }
        if with.has(FaultKind::NeverReady) {
            state.faults.count(FaultKind::NeverReady);
        }
        if !failed {
            state.take_stock(cloud, id)?;
        }
        state.begin(cloud, id, now, with.has(FaultKind::NeverReady));
        state.machine(cloud, id).cloned().ok_or(Refusal::NotFound)
    }

    /// Restarts the container of a running machine in place.
    ///
    /// # Errors
    /// A [`Refusal`]; then nothing was changed.
    pub fn restart(&self, cloud: &str, account: &Account, id: &str) -> Result<Machine, Refusal> {
        let (mut state, now) = self.at_now();
        let machine = state.ordered(cloud, account, id, now)?;
        match machine.state {
            _ if machine.locked => return Err(Refusal::Locked),
            MachineState::Running => {}
            other => return Err(Refusal::WrongState(other)),
        }
        let generation = machine.generation + 1;
        if let Some(machine) = state.machine_mut(cloud, id) {
            machine.generation = generation;
        }
        state.run(cloud, id, generation, now);
        state.machine(cloud, id).cloned().ok_or(Refusal::NotFound)
    }

    /// Destroys a machine. The cloud may take a while, and reads may show it for longer.
    ///
    /// # Errors
    /// A [`Refusal`]; then nothing was changed. A machine already ordered to be destroyed is not
    /// found once reads forgot it.
    pub fn destroy(&self, cloud: &str, account: &Account, id: &str) -> Result<(), Refusal> {
        let (mut state, now) = self.at_now();
        let machine = state.ordered(cloud, account, id, now)?;
        if machine.locked {
            return Err(Refusal::Locked);
        }
        if machine.destroy_ordered || !machine.is_live() {
            return Ok(());
        }
        let (from, to) = state.clouds[cloud].spec.timing.destroying;
        let after = state.dice.span(from, to);
        if let Some(machine) = state.machine_mut(cloud, id) {
            machine.destroy_ordered = true;
        }
        if after.is_zero() {
            state.end(cloud, id, now, false);
        } else {
            state.schedule(now.saturating_add(after), cloud, id, What::Destroy);
        }
        Ok(())
    }

    /// Schedules that the cloud itself stops a machine at this instant, if it is running.
    pub fn stop_at(&self, cloud: &str, id: &str, at: Timestamp) {
        self.at_now().0.schedule(at, cloud, id, What::Stop);
    }

    /// Changes the parts of a machine that a dialect may change: its name, tags, environment, lock,
    /// ...
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; then nothing was changed.
    pub fn update(
        &self,
        cloud: &str,
        account: &Account,
        id: &str,
        change: impl FnOnce(&mut Machine),
    ) -> Result<Machine, Refusal> {
        let (mut state, now) = self.at_now();
        state.ordered(cloud, account, id, now)?;
        let machine = state.machine_mut(cloud, id).ok_or(Refusal::NotFound)?;
        change(machine);
        Ok(machine.clone())
    }

    /// Changes the price of a running machine, as a changed bid does.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; then nothing was changed.
    pub fn reprice(
        &self,
        cloud: &str,
        account: &Account,
        id: &str,
        price: UsdPerHour,
    ) -> Result<Machine, Refusal> {
        let (mut state, now) = self.at_now();
        state.ordered(cloud, account, id, now)?;
        let machine = state.machine_mut(cloud, id).ok_or(Refusal::NotFound)?;
        (machine.price, machine.spec.bid) = (price, Some(price));
        let current = machine.state;
        let rate = state.rate(cloud, id, current);
        let machine = state.machine_mut(cloud, id).ok_or(Refusal::NotFound)?;
        machine.meter.set(rate, now);
        Ok(machine.clone())
    }
}

impl State {
    /// Executes every event that is due by `now`, in order.
    pub(super) fn settle(&mut self, now: Timestamp) {
        while let Some(entry) = self.timers.first_entry() {
            let (at, _) = *entry.key();
            if at > now {
                break;
            }
            let timer = entry.remove();
            self.happen(&timer, at);
        }
    }

    fn happen(&mut self, timer: &Timer, at: Timestamp) {
        let (cloud, id) = (timer.cloud.as_str(), timer.subject.as_str());
        if let What::Queue(event) = &timer.what {
            return self.queue_event(cloud, id, event, at);
        }
        let Some(machine) = self.machine(cloud, id).filter(|machine| machine.is_live()) else {
            return;
        };
        let current = machine.generation;
        match &timer.what {
            What::Starting(generation) if *generation == current => {
                let rate = self.rate(cloud, id, MachineState::Starting);
                if let Some(machine) = self.machine_mut(cloud, id) {
                    machine.log(
                        at,
                        LogSource::System,
                        format!("image {} pulled", machine.spec.image),
                    );
                    machine.enter(MachineState::Starting, at, rate);
                }
            }
            What::Running(generation) if *generation == current => self.run(cloud, id, current, at),
            What::Print(generation, line) if *generation == current => {
                if let Some(machine) = self.machine_mut(cloud, id) {
                    machine.log(at, LogSource::Container, line.clone());
                }
            }
            What::Exit(generation, code) if *generation == current => {
                let stops = self
                    .clouds
                    .get(cloud)
                    .is_some_and(|cloud| cloud.spec.exit_stops);
                let mut removes = false;
                if let Some(machine) = self.machine_mut(cloud, id) {
                    removes = machine.spec.exit_destroys
                        || Program::of(&machine.spec.command).removes_machine;
                    machine.exit_code = Some(*code);
                    machine.log(at, LogSource::System, "container exited");
                }
                if self.started_again(cloud, id, *code, at) {
                    // It runs again in a moment.
                } else if removes {
                    self.end(cloud, id, at, false);
                } else if stops {
                    self.halt(cloud, id, at);
                }
            }
            What::Preempt => self.preempt(cloud, id, at),
            What::Vanish => self.end(cloud, id, at, true),
            What::Stop
                if matches!(
                    machine.state,
                    MachineState::Provisioning | MachineState::Starting | MachineState::Running
                ) =>
            {
                self.halt(cloud, id, at);
            }
            What::Destroy => self.end(cloud, id, at, false),
            _ => {}
        }
    }

    fn schedule(&mut self, at: Timestamp, cloud: &str, subject: &str, what: What) {
        self.serial += 1;
        self.timers.insert(
            (at, self.serial),
            Timer {
                cloud: cloud.to_owned(),
                subject: subject.to_owned(),
                what,
            },
        );
    }

    pub(super) fn schedule_queue(
        &mut self,
        at: Timestamp,
        cloud: &str,
        endpoint: &str,
        event: QueueEvent,
    ) {
        self.schedule(at, cloud, endpoint, What::Queue(event));
    }

    pub(super) fn machine(&self, cloud: &str, id: &str) -> Option<&Machine> {
        self.clouds.get(cloud)?.machines.get(id)
    }

    pub(super) fn machine_mut(&mut self, cloud: &str, id: &str) -> Option<&mut Machine> {
        self.clouds.get_mut(cloud)?.machines.get_mut(id)
    }

    /// The machine that an order names, if the account can see it.
    fn ordered(
        &self,
        cloud: &str,
        account: &Account,
        id: &str,
        now: Timestamp,
    ) -> Result<&Machine, Refusal> {
        let held = self.clouds.get(cloud).ok_or(Refusal::NoSuchCloud)?;
        if held.standings.get(account.as_str()) == Some(&Standing::ReadOnly) {
            return Err(Refusal::Forbidden);
        }
        held.machines
            .get(id)
            .filter(|machine| machine.account == account.as_str() && machine.shown_by_id(now))
            .ok_or(Refusal::NotFound)
    }

    fn create(
        &mut self,
        cloud: &str,
        account: &Account,
        mut spec: MachineSpec,
        with: &Arrival,
        now: Timestamp,
    ) -> Result<String, Refusal> {
        if let Some(volume) = &spec.network_volume {
            let region = &self
                .volume(cloud, account, volume)
                .ok_or(Refusal::NotFound)?
                .region;
            if !spec.regions.is_empty() && !spec.regions.contains(region) {
                return Err(Refusal::NotFound);
            }
            spec.regions = vec![region.clone()];
        }
        let held = self.clouds.get(cloud).ok_or(Refusal::NoSuchCloud)?;
        let live = held
            .machines
            .values()
            .filter(|machine| machine.is_live() && machine.account == account.as_str())
            .count();
        match held
            .standings
            .get(account.as_str())
            .copied()
            .unwrap_or_default()
        {
            Standing::Good => {}
            Standing::ReadOnly => return Err(Refusal::Forbidden),
            Standing::NoMoney => return Err(Refusal::NoMoney),
            Standing::Quota(most) if live < most as usize => {}
            Standing::Quota(_) => return Err(Refusal::Quota),
        }
        let (tier, region) = held.place(&spec)?;
        let shape = held.spec.shape(&spec.shape).ok_or(Refusal::UnknownShape)?;
        let price = spec
            .bid
            .unwrap_or(shape.tiers[&tier].price)
            .times(spec.count);
        let (alphabet, len) = (held.spec.id_alphabet, held.spec.id_len);
        let suffix = spec
            .id_suffix
            .clone()
            .unwrap_or_else(|| held.spec.id_suffix.to_owned());
        let id = match held.spec.first_id {
            Some(first) => first.saturating_add(self.serial).to_string(),
            None => format!("{}{suffix}", self.dice.word(alphabet.as_bytes(), len)),
        };
        let ip = format!("203.0.113.{}", 1 + self.dice.below(254));
        self.plant(
            cloud,
            account.as_str(),
            id.clone(),
            spec,
            (tier, region, price),
            ip,
            now,
        );
        self.take_stock(cloud, &id)?;
        self.draw_lag(cloud, &id, with.has(FaultKind::LateAppearance), now);
        self.begin(cloud, &id, now, with.has(FaultKind::NeverReady));
        for (kind, what) in [
            (FaultKind::Preempt, What::Preempt),
            (FaultKind::Vanish, What::Vanish),
        ] {
            if with.has(kind) {
                let (from, to) = self.clouds[cloud].spec.timing.trouble;
                let at = now.saturating_add(self.dice.span(from, to));
                self.schedule(at, cloud, &id, what);
            }
        }
        Ok(id)
    }

    /// Adds a machine that has not started yet and is visible at once.
    #[expect(
        clippy::too_many_arguments,
        reason = "a machine's identity and its place, told apart by their types"
    )]
    pub(super) fn plant(
        &mut self,
        cloud: &str,
        account: &str,
        id: String,
        spec: MachineSpec,
        (tier, region, price): (String, String, UsdPerHour),
        ip: String,
        now: Timestamp,
    ) {
        self.serial += 1;
        let machine = Machine {
            id: id.clone(),
            cloud: cloud.to_owned(),
            account: account.to_owned(),
            spec,
            region,
            tier,
            price,
            state: MachineState::Provisioning,
            created_at: now,
            started_at: None,
            ports_at: None,
            warm_at: None,
            destroyed_at: None,
            exit_code: None,
            preempted: false,
            locked: false,
            external: BTreeMap::new(),
            ip,
            serial: self.serial,
            generation: 0,
            never_ready: false,
            destroy_ordered: false,
            restarts: 0,
            list_from: now,
            read_from: now,
            list_until: None,
            read_until: None,
            past: Vec::new(),
            logs: Arc::default(),
            meter: Meter::new(now),
        };
        if let Some(held) = self.clouds.get_mut(cloud) {
            held.machines.insert(id, machine);
        }
    }

    /// When lists and point reads begin to show a new machine.
    fn draw_lag(&mut self, cloud: &str, id: &str, late: bool, now: Timestamp) {
        let Some(held) = self.clouds.get(cloud) else {
            return;
        };
        let (lag, bound) = (held.spec.lag.clone(), held.spec.visibility_bound);
        let beyond = self.dice.chance(lag.beyond_bound_ppm);
        let dice = &self.dice;
        let draw = |most: Duration| {
            if late || beyond {
                bound.saturating_add(dice.span(Duration::from_secs(1), bound * 2))
            } else {
                lag_below(most, dice)
            }
        };
        let (list, read) = (draw(lag.list_appears), draw(lag.read_appears));
        if let Some(machine) = self.machine_mut(cloud, id) {
            machine.list_from = now.saturating_add(list);
            machine.read_from = now.saturating_add(read);
        }
    }

    /// Starts a machine: schedules its way to running.
    pub(super) fn begin(&mut self, cloud: &str, id: &str, now: Timestamp, never_ready: bool) {
        let Some(timing) = self.clouds.get(cloud).map(|held| held.spec.timing.clone()) else {
            return;
        };
        let starting = self.dice.span(timing.provisioning.0, timing.provisioning.1);
        let running = starting.saturating_add(self.dice.span(timing.starting.0, timing.starting.1));
        let rate = self.rate(cloud, id, MachineState::Provisioning);
        let Some(machine) = self.machine_mut(cloud, id) else {
            return;
        };
        machine.generation += 1;
        machine.never_ready = never_ready;
        machine.exit_code = None;
        (machine.started_at, machine.ports_at, machine.warm_at) = (None, None, None);
        machine.external.clear();
        machine.enter(MachineState::Provisioning, now, rate);
        machine.log(
            now,
            LogSource::System,
            format!("create container {}", machine.spec.image),
        );
        let generation = machine.generation;
        self.schedule(
            now.saturating_add(starting),
            cloud,
            id,
            What::Starting(generation),
        );
        if !never_ready {
            self.schedule(
                now.saturating_add(running),
                cloud,
                id,
                What::Running(generation),
            );
        }
    }

    /// The container starts to run.
    fn run(&mut self, cloud: &str, id: &str, generation: u32, at: Timestamp) {
        let Some(timing) = self.clouds.get(cloud).map(|held| held.spec.timing.clone()) else {
            return;
        };
        let ports_at = at.saturating_add(self.dice.span(timing.ports.0, timing.ports.1));
        let warm_at = at.saturating_add(self.dice.span(timing.warm_up.0, timing.warm_up.1));
        let rate = self.rate(cloud, id, MachineState::Running);
        let inside: Vec<u32> = self.machine(cloud, id).map_or_else(Vec::new, |machine| {
            machine
                .spec
                .ports
                .iter()
                .filter(|port| port.protocol() == Protocol::Tcp)
                .map(|port| port.number())
                .collect()
        });
        let external: BTreeMap<u32, u16> = inside
            .into_iter()
            .map(|port| {
                (
                    port,
                    u16::try_from(10_000 + self.dice.below(50_000)).unwrap_or(u16::MAX),
                )
            })
            .collect();
        let Some(machine) = self.machine_mut(cloud, id) else {
            return;
        };
        machine.external = external;
        machine.exit_code = None;
        (machine.started_at, machine.ports_at, machine.warm_at) =
            (Some(at), Some(ports_at), Some(warm_at));
        machine.enter(MachineState::Running, at, rate);
        machine.log(at, LogSource::System, "start container");
        machine.log(at, LogSource::Container, "container started");
        let program = Program::of(&machine.spec.command);
        for (after, line) in program.lines {
            self.schedule(
                at.saturating_add(after),
                cloud,
                id,
                What::Print(generation, line),
            );
        }
        if let Some((after, code)) = program.end {
            self.schedule(
                at.saturating_add(after),
                cloud,
                id,
                What::Exit(generation, code),
            );
        }
    }

    /// Whether an ended container is restarted a second later.
    fn started_again(&mut self, cloud: &str, id: &str, code: i32, at: Timestamp) -> bool {
        let rate = self.rate(cloud, id, MachineState::Starting);
        let Some(machine) = self.machine_mut(cloud, id) else {
            return false;
        };
        let again = match machine.spec.restart {
            Restart::No => false,
            Restart::OnFailure(most) => code != 0 && machine.restarts < most,
            Restart::Always => true,
        };
        if again {
            machine.restarts += 1;
            machine.generation += 1;
            machine.enter(MachineState::Starting, at, rate);
            let generation = machine.generation;
            self.schedule(
                at.saturating_add(Duration::from_secs(1)),
                cloud,
                id,
                What::Running(generation),
            );
        }
        again
    }

    /// Stops a machine, gives its units back, and leaves its disk bill running.
    pub(super) fn halt(&mut self, cloud: &str, id: &str, at: Timestamp) {
        self.return_stock(cloud, id);
        let rate = self.rate(cloud, id, MachineState::Stopped);
        if let Some(machine) = self.machine_mut(cloud, id) {
            machine.generation += 1;
            (machine.ports_at, machine.warm_at) = (None, None);
            machine.external.clear();
            machine.enter(MachineState::Stopped, at, rate);
            machine.log(at, LogSource::System, "stop container");
        }
    }

    pub(super) fn preempt(&mut self, cloud: &str, id: &str, at: Timestamp) {
        let stays = self
            .clouds
            .get(cloud)
            .is_some_and(|cloud| cloud.spec.preempted_stays);
        let Some(machine) = self.machine_mut(cloud, id) else {
            return;
        };
        machine.preempted = true;
        machine.log(at, LogSource::System, "preempted");
        if !stays {
            self.end(cloud, id, at, false);
        } else if matches!(
            machine.state,
            MachineState::Provisioning | MachineState::Starting | MachineState::Running
        ) {
            self.halt(cloud, id, at);
        }
    }

    /// Ends the machine and its bill. Reads forget it late, unless `at_once`.
    pub(super) fn end(&mut self, cloud: &str, id: &str, at: Timestamp, at_once: bool) {
        let held = matches!(
            self.machine(cloud, id).map(|machine| machine.state),
            Some(
                MachineState::Provisioning
                    | MachineState::Starting
                    | MachineState::Running
                    | MachineState::Failed
            )
        );
        if held {
            self.return_stock(cloud, id);
        }
        let lag = self
            .clouds
            .get(cloud)
            .map(|held| held.spec.lag.clone())
            .unwrap_or_default();
        let (list, read) = if at_once {
            (Duration::ZERO, Duration::ZERO)
        } else {
            (
                lag_below(lag.list_forgets, &self.dice),
                lag_below(lag.read_forgets, &self.dice),
            )
        };
        if let Some(machine) = self.machine_mut(cloud, id) {
            machine.enter(MachineState::Destroyed, at, UsdPerHour::ZERO);
            machine.destroyed_at = Some(at);
            machine.list_until = Some(at.saturating_add(list));
            machine.read_until = Some(at.saturating_add(read));
        }
    }

    pub(super) fn fail(&mut self, cloud: &str, id: &str, at: Timestamp) {
        let rate = self.rate(cloud, id, MachineState::Failed);
        if let Some(machine) = self.machine_mut(cloud, id) {
            machine.generation += 1;
            machine.enter(MachineState::Failed, at, rate);
            machine.log(at, LogSource::System, "container failed");
        }
    }

    fn rate(&self, cloud: &str, id: &str, state: MachineState) -> UsdPerHour {
        let (Some(held), Some(machine)) = (self.clouds.get(cloud), self.machine(cloud, id)) else {
            return UsdPerHour::ZERO;
        };
        match state {
            MachineState::Destroyed => UsdPerHour::ZERO,
            MachineState::Stopped => held.spec.disk_stopped.times(machine.spec.volume_gb),
            MachineState::Provisioning | MachineState::Starting
                if held.spec.bills_from_running && !machine.ran() =>
            {
                UsdPerHour::ZERO
            }
            _ => {
                machine.price
                    + held
                        .spec
                        .disk_running
                        .times(machine.spec.disk_gb.saturating_add(machine.spec.volume_gb))
            }
        }
    }

    fn take_stock(&mut self, cloud: &str, id: &str) -> Result<(), Refusal> {
        let held = self.clouds.get_mut(cloud).ok_or(Refusal::NoSuchCloud)?;
        let machine = held.machines.get(id).ok_or(Refusal::NotFound)?;
        let place = (
            machine.spec.shape.clone(),
            machine.tier.clone(),
            machine.region.clone(),
        );
        let free = held.stock.entry(place).or_default();
        *free = free
            .checked_sub(machine.spec.count)
            .ok_or(Refusal::NoCapacity)?;
        Ok(())
    }

    fn return_stock(&mut self, cloud: &str, id: &str) {
        let Some(held) = self.clouds.get_mut(cloud) else {
            return;
        };
        let Some(machine) = held.machines.get(id) else {
            return;
        };
        let place = (
            machine.spec.shape.clone(),
            machine.tier.clone(),
            machine.region.clone(),
        );
        let free = held.stock.entry(place).or_default();
        *free = free.saturating_add(machine.spec.count);
    }
}

impl Cloud {
    /// The tier and region of an order: the first requested (or preferred) region with the units,
    /// in the cheapest tier.
    fn place(&self, spec: &MachineSpec) -> Result<(String, String), Refusal> {
        let shape = self.spec.shape(&spec.shape).ok_or(Refusal::UnknownShape)?;
        if let Some(unknown) = spec
            .regions
            .iter()
            .find(|region| self.spec.region(region).is_none())
        {
            return Err(Refusal::UnknownRegion(unknown.clone()));
        }
        let mut tiers: Vec<_> = shape
            .tiers
            .iter()
            .filter(|(name, _)| spec.tier.as_ref().is_none_or(|wanted| wanted == *name))
            .collect();
        tiers.sort_by_key(|(name, tier)| (tier.price, (*name).clone()));
        if tiers.is_empty() {
            return Err(Refusal::UnknownShape);
        }
        if spec.count == 0 || tiers.iter().all(|(_, tier)| spec.count > tier.max_count) {
            return Err(Refusal::TooMany);
        }
        let regions: Vec<&String> = if spec.regions.is_empty() {
            self.spec.regions.iter().map(|region| &region.id).collect()
        } else {
            spec.regions.iter().collect()
        };
        for (name, tier) in tiers {
            for region in &regions {
                let free = self
                    .stock
                    .get(&(shape.native.clone(), name.clone(), (*region).clone()))
                    .copied()
                    .unwrap_or(0);
                if spec.count <= tier.max_count && spec.count <= free {
                    return Ok((name.clone(), (*region).clone()));
                }
            }
        }
        Err(Refusal::NoCapacity)
    }
}

/// Draws a lag: mostly small, sometimes a quarter, rarely the whole of the maximum.
fn lag_below(most: Duration, dice: &super::dice::Dice) -> Duration {
    match (most.is_zero(), dice.below(10)) {
        (true, _) => Duration::ZERO,
        (_, 0..=5) => dice.span(Duration::ZERO, most / 32),
        (_, 6..=8) => dice.span(Duration::ZERO, most / 4),
        _ => dice.span(Duration::ZERO, most),
    }
}

impl World {
    /// The current lags of a cloud.
    #[must_use]
    pub fn lag(&self, cloud: &str) -> Lag {
        self.lock()
            .clouds
            .get(cloud)
            .map(|cloud| cloud.spec.lag.clone())
            .unwrap_or_default()
    }
}
