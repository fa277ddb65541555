//! The specification of a simulated cloud: its shapes and prices, its regions, its delays and its
//! lags.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{Gpu, Usd, UsdPerHour};

/// The constants of a simulated cloud. Build one with [`CloudSpec::plain`], or use a dialect's.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CloudSpec {
    /// Its name in the ledger and in faults: `runpod`, `mock`, ...
    pub name: String,
    /// Its regions, in the order the scheduler prefers them.
    pub regions: Vec<Region>,
    /// The shapes that can be rented.
    pub shapes: Vec<Shape>,
    /// How long things take.
    pub timing: Timing,
    /// How late reads may be.
    pub lag: Lag,
    /// The cloud's stated bound on how late a new machine may appear.
    pub visibility_bound: Duration,
    /// Price of a gigabyte of a running machine's disks.
    pub disk_running: UsdPerHour,
    /// Price of a gigabyte of a stopped machine's kept disk.
    pub disk_stopped: UsdPerHour,
    /// The characters of an id.
    pub id_alphabet: &'static str,
    /// The length of an id.
    pub id_len: usize,
    /// The first id, for clouds whose ids are ascending numbers.
    pub first_id: Option<u64>,
    /// The suffix of an id, unless its order sets another.
    pub id_suffix: &'static str,
    /// What happens to a preempted machine: true when it is kept, stopped; false when it is
    /// deleted.
    pub preempted_stays: bool,
    /// What happens to a machine whose command ended: true when it stops and its compute stops
    /// billing.
    pub exit_stops: bool,
    /// Whether a machine costs nothing before it first runs.
    pub bills_from_running: bool,
}

/// A region.
#[derive(Clone, Debug)]
pub struct Region {
    /// The cloud's id.
    pub id: String,
    /// The display name.
    pub name: String,
}

/// Something that can be rented.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The cloud's id.
    pub native: String,
    /// The display name.
    pub name: String,
    /// The GPU; `None` for a machine without one, or a GPU that the catalogue does not have.
    pub gpu: Option<Gpu>,
    /// Memory of one GPU in GB; 0 for a machine without one.
    pub vram_gb: u32,
    /// RAM in GB per unit.
    pub ram_gb: u32,
    /// Its tiers. A cloud without tiers has one with an empty name.
    pub tiers: BTreeMap<String, Tier>,
}

/// A shape in one tier.
#[derive(Clone, Debug)]
pub struct Tier {
    /// Price of one unit: one GPU, or one virtual CPU.
    pub price: UsdPerHour,
    /// The maximum number of units in one machine.
    pub max_count: u32,
    /// The initial number of units in each region.
    pub stock: BTreeMap<String, u32>,
}

/// How long things take: each time is drawn between its two limits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Timing {
    /// From the order to the start of the container.
    pub provisioning: (Duration, Duration),
    /// From the start of the container to running.
    pub starting: (Duration, Duration),
    /// From running to the ports being announced.
    pub ports: (Duration, Duration),
    /// From running to the container's HTTP answering.
    pub warm_up: (Duration, Duration),
    /// From an accepted destroy to the end of the machine and its bill.
    pub destroying: (Duration, Duration),
    /// From running to the end of a machine that a fault preempts or makes vanish.
    pub trouble: (Duration, Duration),
    /// From submit to a job's start on a cold worker.
    pub cold_start: Duration,
}

/// How late reads may be, drawn for each machine. All zero by default, so that only faults delay
/// reads.
#[derive(Clone, Debug, Default)]
pub struct Lag {
    /// A new machine is missing from lists for up to this long.
    pub list_appears: Duration,
    /// A new machine is missing from point reads for up to this long.
    pub read_appears: Duration,
    /// A dead machine is still listed for up to this long.
    pub list_forgets: Duration,
    /// A dead machine is still read for up to this long.
    pub read_forgets: Duration,
    /// How many machines per million appear later than the cloud's bound.
    pub beyond_bound_ppm: u32,
}

impl Lag {
    /// The lags of a real cloud: mostly small, at most the bound.
    #[must_use]
    pub fn within(bound: Duration) -> Self {
        Self {
            list_appears: bound,
            read_appears: bound / 4,
            list_forgets: bound / 2,
            read_forgets: bound / 4,
            beyond_bound_ppm: 0,
        }
    }
}

fn seconds(from: u64, to: u64) -> (Duration, Duration) {
    (Duration::from_secs(from), Duration::from_secs(to))
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            provisioning: seconds(1, 5),
            starting: seconds(2, 10),
            ports: seconds(0, 2),
            warm_up: seconds(1, 5),
            destroying: seconds(0, 0),
            trouble: seconds(5, 60),
            cold_start: Duration::from_secs(1),
        }
    }
}

impl CloudSpec {
    /// A generic cloud: two GPU shapes (`gpu-a`, an H100, and `gpu-b`, an L4) and a `cpu` shape,
    /// eight of each per region, in `r1` and `r2`.
    #[must_use]
    pub fn plain(name: impl Into<String>) -> Self {
        let regions = [("r1", "Region 1"), ("r2", "Region 2")];
        let tiers = |cents: i64, max_count: u32, stock: u32| {
            let tier = |price| Tier {
                price,
                max_count,
                stock: regions
                    .iter()
                    .map(|(id, _)| ((*id).to_owned(), stock))
                    .collect(),
            };
            BTreeMap::from([
                (
                    "secure".to_owned(),
                    tier(UsdPerHour::new(Usd::from_cents(cents))),
                ),
                (
                    "community".to_owned(),
                    tier(UsdPerHour::new(Usd::from_cents(cents * 3 / 4))),
                ),
            ])
        };
        let shape = |native: &str, gpu: Option<Gpu>, ram_gb, tiers| Shape {
            native: native.to_owned(),
            name: native.to_owned(),
            gpu,
            vram_gb: gpu.map_or(0, |gpu| gpu.vram().as_gib()),
            ram_gb,
            tiers,
        };
        Self {
            name: name.into(),
            regions: regions
                .iter()
                .map(|(id, name)| Region {
                    id: (*id).into(),
                    name: (*name).into(),
                })
                .collect(),
            shapes: vec![
                shape("gpu-a", Some(Gpu::H100Sxm), 128, tiers(349, 8, 8)),
                shape("gpu-b", Some(Gpu::L4), 32, tiers(49, 8, 8)),
                shape("cpu", None, 4, tiers(4, 32, 256)),
            ],
            timing: Timing::default(),
            lag: Lag::default(),
            visibility_bound: Duration::from_secs(60),
            disk_running: UsdPerHour::ZERO,
            disk_stopped: UsdPerHour::new(Usd::from_nanos(273_973)),
            id_alphabet: "abcdefghijklmnopqrstuvwxyz0123456789",
            id_len: 12,
            first_id: None,
            id_suffix: "",
            preempted_stays: true,
            exit_stops: true,
            bills_from_running: false,
        }
    }

    /// Sets other lags.
    #[must_use]
    pub fn lag(self, lag: Lag) -> Self {
        Self { lag, ..self }
    }

    /// Sets other delays.
    #[must_use]
    pub fn timing(self, timing: Timing) -> Self {
        Self { timing, ..self }
    }

    /// The shape with this id.
    #[must_use]
    pub fn shape(&self, native: &str) -> Option<&Shape> {
        self.shapes.iter().find(|shape| shape.native == native)
    }

    /// The region with this id.
    #[must_use]
    pub fn region(&self, id: &str) -> Option<&Region> {
        self.regions.iter().find(|region| region.id == id)
    }
}
