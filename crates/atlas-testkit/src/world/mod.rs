//! The world: every simulated cloud as one seeded, deterministic state machine. It does not speak
//! HTTP.
//!
//! Nothing in it runs by itself: each call first executes all events that are due, in order, so
//! that the same calls at the same instants give the same world, byte for byte, whether time is
//! paused, real or advanced manually.

mod accounts;
mod clock;
mod cloud;
mod dice;
mod fault;
mod jobs;
mod life;
mod machine;
mod outside;
mod program;
mod reads;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas_core::{AttemptId, Clock, LaunchKey, RealmId, Timestamp, TrackedKey, Usd};

pub use accounts::{Account, Standing};
pub use clock::WorldClock;
pub use cloud::{CloudSpec, Lag, Region, Shape, Tier, Timing};
use dice::Dice;
use fault::Faults;
pub use fault::{Arrival, Fault, FaultKind, FaultPlan, same_operation};
pub use jobs::{Endpoint, EndpointSpec, Health, JobSpec, Webhook, Worker, WorldJob};
pub use life::Refusal;
use life::Timer;
pub use machine::{
    CloudLedger, Ledger, LedgerLine, LogEntry, Machine, MachineSpec, MachineState, Restart,
};
pub use program::{Program, split};
pub use reads::{Listener, Visit, stock_level};
pub use volumes::Volume;

/// One world. Cheap to clone; clones are the same world.
#[derive(Clone)]
pub struct World {
    clock: WorldClock,
    seed: u64,
    state: Arc<Mutex<State>>,
}

struct State {
    dice: Dice,
    clouds: BTreeMap<String, Cloud>,
    timers: BTreeMap<(Timestamp, u64), Timer>,
    serial: u64,
    faults: Faults,
    webhooks: Vec<Webhook>,
}

/// A cloud's state.
struct Cloud {
    spec: CloudSpec,
    machines: BTreeMap<String, Machine>,
    keys: BTreeMap<String, String>,
    swapped: BTreeSet<String>,
    revoked: BTreeSet<String>,
    standings: BTreeMap<String, Standing>,
    stock: BTreeMap<(String, String, String), u32>,
    skewed: bool,
    endpoints: BTreeMap<String, Endpoint>,
    volumes: BTreeMap<String, Volume>,
}

impl Cloud {
    fn new(spec: CloudSpec) -> Self {
        let mut stock = BTreeMap::new();
        for shape in &spec.shapes {
            for (name, tier) in &shape.tiers {
                for (region, units) in &tier.stock {
                    stock.insert((shape.native.clone(), name.clone(), region.clone()), *units);
                }
            }
        }
        Self {
            spec,
            stock,
            machines: BTreeMap::new(),
            keys: BTreeMap::new(),
            swapped: BTreeSet::new(),
            revoked: BTreeSet::new(),
            standings: BTreeMap::new(),
            skewed: false,
            endpoints: BTreeMap::new(),
            volumes: BTreeMap::new(),
        }
    }
}

impl World {
    /// An empty world. The same seed and the same calls at the same instants give the same world.
    #[must_use]
    pub fn new(seed: u64, clock: WorldClock) -> Self {
        let state = State {
            dice: Dice::new(seed),
            clouds: BTreeMap::new(),
            timers: BTreeMap::new(),
            serial: 0,
            faults: Faults::default(),
            webhooks: Vec::new(),
        };
        Self {
            clock,
            seed,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Adds a cloud, or replaces it by a fresh one.
    #[must_use]
    pub fn with_cloud(self, spec: CloudSpec) -> Self {
        self.lock()
            .clouds
            .insert(spec.name.clone(), Cloud::new(spec));
        self
    }

    /// Resets everything: no machines, no faults, the same clouds and keys, and the random stream
    /// of the seed from its start.
    pub fn reset(&self) {
        let mut state = self.lock();
        state.dice = Dice::new(self.seed);
        state.timers.clear();
        state.faults = Faults::default();
        state.webhooks.clear();
        state.serial = 0;
        for cloud in state.clouds.values_mut() {
            let keys = std::mem::take(&mut cloud.keys);
            *cloud = Cloud {
                keys,
                ..Cloud::new(cloud.spec.clone())
            };
        }
    }

    /// A launch key for this instant, made without an orchestrator; another number gives another
    /// key.
    #[must_use]
    pub fn key(&self, number: u8) -> LaunchKey {
        let attempt = AttemptId::new(self.clock.now(), [number; 6]);
        LaunchKey::Tracked(TrackedKey::new(
            RealmId::from_bytes([1; 4]),
            attempt,
            [number; 5],
        ))
    }

    /// The clock of the world.
    #[must_use]
    pub fn clock(&self) -> &WorldClock {
        &self.clock
    }

    /// Simulated time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Advances simulated time manually, and executes all events that are due.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
        drop(self.at_now());
    }

    /// When the next event is due, if there is any.
    #[must_use]
    pub fn next_event(&self) -> Option<Timestamp> {
        self.at_now().0.timers.keys().next().map(|(at, _)| *at)
    }

    /// The constants of a cloud, if the world has it.
    #[must_use]
    pub fn cloud(&self, cloud: &str) -> Option<CloudSpec> {
        self.lock()
            .clouds
            .get(cloud)
            .map(|cloud| cloud.spec.clone())
    }

    /// A shape of a cloud.
    #[must_use]
    pub fn shape(&self, cloud: &str, native: &str) -> Option<Shape> {
        self.lock().clouds.get(cloud)?.spec.shape(native).cloned()
    }

    /// The names of its clouds.
    #[must_use]
    pub fn clouds(&self) -> Vec<String> {
        self.lock().clouds.keys().cloned().collect()
    }

    /// Sets the lags of a cloud's reads.
    pub fn set_lag(&self, cloud: &str, lag: Lag) {
        if let Some(cloud) = self.lock().clouds.get_mut(cloud) {
            cloud.spec.lag = lag;
        }
    }

    /// Adds faults to the end of the queue.
    pub fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().faults.queue.extend(faults);
    }

    /// Sets the faults that may strike any call at random, replacing those planned before.
    pub fn plan_faults(&self, plans: impl IntoIterator<Item = FaultPlan>) {
        self.lock().faults.plans = plans.into_iter().collect();
    }

    /// Removes all faults, planned or queued.
    pub fn calm(&self) {
        let mut state = self.lock();
        state.faults.queue.clear();
        state.faults.plans.clear();
    }

    /// The queued faults.
    #[must_use]
    pub fn waiting_faults(&self) -> Vec<Fault> {
        self.lock().faults.queue.clone()
    }

    /// How often each kind of fault has struck.
    #[must_use]
    pub fn struck(&self) -> BTreeMap<FaultKind, u64> {
        self.lock().faults.struck.clone()
    }

    /// Counts a fault that was caused outside the queue, so that it appears among those that
    /// struck.
    pub fn count_fault(&self, kind: FaultKind) {
        self.lock().faults.count(kind);
    }

    /// A random text of lower-case letters and digits.
    #[must_use]
    pub fn word(&self, len: usize) -> String {
        self.lock()
            .dice
            .word(b"abcdefghijklmnopqrstuvwxyz0123456789", len)
    }

    /// The clouds' own records.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        let (state, now) = self.at_now();
        let clouds = state
            .clouds
            .iter()
            .map(|(name, cloud)| (name.clone(), cloud.ledger(now)))
            .collect();
        Ledger { now, clouds }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state after all due events, with the current instant.
    fn at_now(&self) -> (MutexGuard<'_, State>, Timestamp) {
        let mut state = self.lock();
        let now = self.clock.now();
        state.settle(now);
        (state, now)
    }
}

impl Cloud {
    fn ledger(&self, now: Timestamp) -> CloudLedger {
        let mut machines: Vec<&Machine> = self.machines.values().collect();
        machines.sort_by_key(|machine| machine.serial);
        let lines: Vec<LedgerLine> = machines
            .into_iter()
            .map(|machine| LedgerLine {
                id: machine.id.clone(),
                name: machine.spec.name.clone(),
                state: machine.state,
                launch_key: machine.launch_key(),
                created_at: machine.created_at,
                destroyed_at: machine.destroyed_at,
                billed_usd: machine.billed(now),
            })
            .collect();
        let live = lines
            .iter()
            .filter(|line| line.state != MachineState::Destroyed)
            .count() as u64;
        CloudLedger {
            created: lines.len() as u64,
            live,
            destroyed: lines.len() as u64 - live,
            billed_usd: lines.iter().map(|line| line.billed_usd).sum::<Usd>(),
            machines: lines,
        }
    }
}

impl fmt::Debug for World {
    /// Keys, environments and names are not printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.seed)
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}
