//! One simulated machine: its order, its states, and its cost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{
    LAUNCH_KEY_ENV, LAUNCH_KEY_TAG, LogSource, Port, Secret, Timestamp, TrackedKey, Usd, UsdPerHour,
};
use serde::{Serialize, Serializer};
use serde_json::Value;

/// Whether an ended container is restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// The container is never started again.
    #[default]
    No,
    /// If it failed, at most this many times.
    OnFailure(u32),
    /// The container is always started again.
    Always,
}

/// What to create.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MachineSpec {
    /// The shape's id.
    pub shape: String,
    /// How many units of it: GPUs, or virtual CPUs.
    pub count: u32,
    /// The tier; `None` for the cheapest that has stock.
    pub tier: Option<String>,
    /// Regions, best first; empty for any.
    pub regions: Vec<String>,
    /// The name it was ordered with.
    pub name: String,
    /// Its tags or metadata.
    pub tags: BTreeMap<String, String>,
    /// The environment of its container.
    pub env: BTreeMap<String, Secret>,
    /// The image.
    pub image: String,
    /// The command; empty for the image's own, which is a server.
    pub command: Vec<String>,
    /// The ports to expose.
    pub ports: Vec<Port>,
    /// The container disk, in GB. It is billed while running.
    pub disk_gb: u32,
    /// A disk that survives a stop, in GB.
    pub volume_gb: u32,
    /// A network volume of the account to mount; it pins the region.
    pub network_volume: Option<String>,
    /// Whether it is interruptible.
    pub spot: bool,
    /// The bid price of one unit; the list price if unset.
    pub bid: Option<UsdPerHour>,
    /// Whether its container is restarted when it has ended.
    pub restart: Restart,
    /// Whether the machine is deleted when its container ends.
    pub exit_destroys: bool,
    /// The suffix of its id, for clouds whose ids name the owner of a machine; the cloud's own if
    /// unset.
    pub id_suffix: Option<String>,
    /// Additional data of the dialect.
    pub extra: Value,
}

impl MachineSpec {
    /// A machine with this many GPUs of this shape.
    pub fn gpu(shape: impl Into<String>, count: u32) -> Self {
        Self {
            shape: shape.into(),
            count,
            tier: None,
            regions: Vec::new(),
            name: "machine".into(),
            tags: BTreeMap::new(),
            env: BTreeMap::new(),
            image: "x/y:1".into(),
            command: Vec::new(),
            ports: Vec::new(),
            disk_gb: 0,
            volume_gb: 0,
            network_volume: None,
            spot: false,
            bid: None,
            restart: Restart::No,
            exit_destroys: false,
            id_suffix: None,
            extra: Value::Null,
        }
    }

    /// A machine with this many virtual CPUs of this shape.
    pub fn cpu(shape: impl Into<String>, vcpus: u32) -> Self {
        Self::gpu(shape, vcpus)
    }

    /// Sets the name.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..self
        }
    }
}

/// The state of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineState {
    /// Being placed. It bills.
    Provisioning,
    /// Its container is being started.
    Starting,
    /// Its container runs.
    Running,
    /// Stopped, ended or taken back; its disks bill.
    Stopped,
    /// Failed, and billing.
    Failed,
    /// The machine is gone.
    Destroyed,
}

impl MachineState {
    /// The name in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Destroyed => "destroyed",
        }
    }
}

/// A line of a machine's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// When, in simulated time.
    pub at: Timestamp,
    /// Which log.
    pub source: LogSource,
    /// The line.
    pub line: String,
}

/// A machine in its current state, or as a read showed it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Machine {
    /// The cloud's id of it.
    pub id: String,
    /// The name of the cloud.
    pub cloud: String,
    /// The account it belongs to.
    pub account: String,
    /// The order, including later renames and updates.
    pub spec: MachineSpec,
    /// The region it was placed in.
    pub region: String,
    /// The tier it was placed in.
    pub tier: String,
    /// Its price while it runs, without disks.
    pub price: UsdPerHour,
    /// The state of the machine.
    pub state: MachineState,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its container last started to run.
    pub started_at: Option<Timestamp>,
    /// When its ports were, or will be, announced; reset by every start.
    pub ports_at: Option<Timestamp>,
    /// When its HTTP server answers, or will answer; reset by every start.
    pub warm_at: Option<Timestamp>,
    /// When it was destroyed.
    pub destroyed_at: Option<Timestamp>,
    /// The exit code of its command, if it ended.
    pub exit_code: Option<i32>,
    /// Whether the cloud took it back.
    pub preempted: bool,
    /// Whether it refuses to be stopped or destroyed.
    pub locked: bool,
    /// External numbers of its TCP ports, by internal number. New at every start.
    pub external: BTreeMap<u32, u16>,
    /// Its public address.
    pub ip: String,
    pub(super) serial: u64,
    pub(super) generation: u32,
    pub(super) never_ready: bool,
    pub(super) destroy_ordered: bool,
    pub(super) restarts: u32,
    pub(super) list_from: Timestamp,
    pub(super) read_from: Timestamp,
    pub(super) list_until: Option<Timestamp>,
    pub(super) read_until: Option<Timestamp>,
    pub(super) past: Vec<(Timestamp, MachineState)>,
    /// Shared with the snapshots of reads: there are many of those, and logs are rarely read from
    /// them.
    pub(super) logs: Arc<Vec<LogEntry>>,
    pub(super) meter: Meter,
}

impl Machine {
    /// Every line printed by it, or by its host about it, oldest first.
    #[must_use]
    pub fn lines(&self) -> &[LogEntry] {
        &self.logs
    }

    /// The launch key in its name, its tags or its environment, in that order.
    #[must_use]
    pub fn launch_key(&self) -> Option<TrackedKey> {
        let tagged = || {
            self.spec
                .tags
                .get(LAUNCH_KEY_TAG)
                .and_then(|text| text.parse().ok())
        };
        let in_env = || {
            self.spec
                .env
                .get(LAUNCH_KEY_ENV)
                .and_then(|value| value.expose().parse().ok())
        };
        TrackedKey::in_name(&self.spec.name)
            .or_else(tagged)
            .or_else(in_env)
    }

    /// Its position in the order of creation: later is larger.
    #[must_use]
    pub const fn order(&self) -> u64 {
        self.serial
    }

    /// Its states, oldest first, with the time when each began.
    #[must_use]
    pub fn history(&self) -> &[(Timestamp, MachineState)] {
        &self.past
    }

    /// Whether its container ever ran.
    #[must_use]
    pub fn ran(&self) -> bool {
        self.past
            .iter()
            .any(|(_, state)| *state == MachineState::Running)
    }

    /// How many times its container was restarted after it ended.
    #[must_use]
    pub const fn restarts(&self) -> u32 {
        self.restarts
    }

    /// When both listings and point reads start to show it.
    #[must_use]
    pub fn shown_from(&self) -> Timestamp {
        self.list_from.max(self.read_from)
    }

    /// Whether it is not destroyed, regardless of whether any read shows it.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.state != MachineState::Destroyed
    }

    /// Whether its deletion was accepted and has not happened yet.
    #[must_use]
    pub fn is_being_destroyed(&self) -> bool {
        self.destroy_ordered && self.is_live()
    }

    /// Whether its deletion was requested, whether or not it has happened; false if the cloud took
    /// it away.
    #[must_use]
    pub const fn was_ordered_to_end(&self) -> bool {
        self.destroy_ordered || self.spec.exit_destroys
    }

    /// What it has cost up to `now`.
    #[must_use]
    pub fn billed(&self, now: Timestamp) -> Usd {
        self.meter.total(now)
    }

    /// The cost of its compute and disks between two instants, at these prices per gigabyte of disk
    /// while running and stopped.
    #[must_use]
    pub fn spent(
        &self,
        from: Timestamp,
        to: Timestamp,
        running: UsdPerHour,
        stopped: UsdPerHour,
    ) -> (Usd, Usd) {
        let ends = self.past.iter().skip(1).map(|(at, _)| *at).chain([to]);
        let mut sums = (Usd::ZERO, Usd::ZERO);
        for ((start, state), end) in self.past.iter().zip(ends) {
            let held = end.min(to).since((*start).max(from));
            let (compute, disk) = match state {
                MachineState::Destroyed => continue,
                MachineState::Stopped => (UsdPerHour::ZERO, stopped.times(self.spec.volume_gb)),
                _ => (
                    self.price,
                    running.times(self.spec.disk_gb.saturating_add(self.spec.volume_gb)),
                ),
            };
            sums.0 = sums.0 + compute.cost_of(held).unwrap_or_default();
            sums.1 = sums.1 + disk.cost_of(held).unwrap_or_default();
        }
        sums
    }

    /// Its current price per hour, including disks.
    #[must_use]
    pub fn burn(&self) -> UsdPerHour {
        self.meter.rate
    }

    /// Whether its container runs and its ports are announced.
    #[must_use]
    pub fn ports_announced(&self, now: Timestamp) -> bool {
        self.state == MachineState::Running && self.ports_at.is_some_and(|at| at <= now)
    }

    /// Whether its HTTP answers.
    #[must_use]
    pub fn is_warm(&self, now: Timestamp) -> bool {
        self.state == MachineState::Running && self.warm_at.is_some_and(|at| at <= now)
    }

    /// Its state at an earlier instant.
    pub(super) fn state_at(&self, at: Timestamp) -> MachineState {
        self.past
            .iter()
            .rev()
            .find(|(since, _)| *since <= at)
            .map_or(MachineState::Provisioning, |(_, state)| *state)
    }

    pub(super) fn enter(&mut self, state: MachineState, at: Timestamp, rate: UsdPerHour) {
        self.state = state;
        self.past.push((at, state));
        self.meter.set(rate, at);
    }

    pub(super) fn log(&mut self, at: Timestamp, source: LogSource, line: impl Into<String>) {
        Arc::make_mut(&mut self.logs).push(LogEntry {
            at,
            source,
            line: line.into(),
        });
    }
}

/// A billing meter: a rate since an instant, plus an earlier amount. Started seconds are billed as
/// whole seconds.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    before: Usd,
    rate: UsdPerHour,
    since: Timestamp,
}

impl Meter {
    pub(super) fn new(at: Timestamp) -> Self {
        Self {
            before: Usd::ZERO,
            rate: UsdPerHour::ZERO,
            since: at,
        }
    }

    fn total(&self, now: Timestamp) -> Usd {
        let held = now.since(self.since);
        let seconds = held.as_secs() + u64::from(held.subsec_nanos() > 0);
        self.before
            + self
                .rate
                .cost_of(Duration::from_secs(seconds))
                .unwrap_or(Usd::from_nanos(i64::MAX))
    }

    pub(super) fn set(&mut self, rate: UsdPerHour, at: Timestamp) {
        if rate == self.rate {
            return;
        }
        *self = Self {
            before: self.total(at),
            rate,
            since: at,
        };
    }
}

/// A machine in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LedgerLine {
    /// The machine's id.
    pub id: String,
    /// The machine's name.
    pub name: String,
    /// The state of the machine.
    #[serde(serialize_with = "word")]
    pub state: MachineState,
    /// The launch key it carries in any carrier.
    pub launch_key: Option<TrackedKey>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was destroyed.
    pub destroyed_at: Option<Timestamp>,
    /// What it has cost.
    pub billed_usd: Usd,
}

fn word<S: Serializer>(state: &MachineState, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.as_str())
}

/// A cloud in the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CloudLedger {
    /// The number of machines that were really created.
    pub created: u64,
    /// The number that are not destroyed, visible or not.
    pub live: u64,
    /// The number that are destroyed.
    pub destroyed: u64,
    /// Their total cost.
    pub billed_usd: Usd,
    /// The machines, oldest first.
    pub machines: Vec<LedgerLine>,
}

/// The clouds' own records, against which every check is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Simulated time.
    pub now: Timestamp,
    /// By cloud.
    pub clouds: BTreeMap<String, CloudLedger>,
}
