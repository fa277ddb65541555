//! What Vast's hosts offer: cards, machines, and the asks on them. Facts: docs/clouds/vast.md.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use atlas_core::{Gpu, Usd, UsdPerHour};

use crate::world::{CloudSpec, Region, Shape, Tier, Timing};

/// The name of the cloud in the world, its ledger and its faults.
pub const NAME: &str = "vast";

/// What an ask has in stock: one machine, and one more that only a cloud which lets an ask twice
/// gives out.
pub(super) const WHOLE: u32 = 2;
/// Storage, in nano-dollars for a gigabyte and hour: $0.2 a month.
pub(super) const STORAGE_NANOS: i64 = 277_778;

/// Where machines stand: the code that is filtered by, and the place that is shown.
pub(super) const PLACES: &[(&str, &str)] = &[
    ("NO", "Oslo, NO"),
    ("US", "Texas, US"),
    ("CZ", "Prague, CZ"),
    ("SE", "Stockholm, SE"),
    ("JP", "Tokyo, JP"),
];

/// A card, and how many hosts have it.
struct Card {
    name: &'static str,
    gpu: Gpu,
    /// What it reports, in MB.
    ram: u32,
    /// Cents for one and an hour, at the cheapest host.
    cents: i64,
    cuda: f64,
    machines: u32,
    /// How many cards the host lets in each of its asks.
    asks: &'static [u32],
}

const fn card(
    name: &'static str,
    gpu: Gpu,
    ram: u32,
    cents: i64,
    cuda: f64,
    machines: u32,
    asks: &'static [u32],
) -> Card {
    Card {
        name,
        gpu,
        ram,
        cents,
        cuda,
        machines,
        asks,
    }
}

const SMALL: &[u32] = &[1, 1, 2];
const LARGE: &[u32] = &[1, 1, 2, 4, 8];

const CARDS: &[Card] = &[
    card("RTX 4090", Gpu::Rtx4090, 24_564, 35, 12.8, 14, SMALL),
    card("RTX 4090D", Gpu::Rtx4090, 24_564, 30, 12.8, 2, SMALL),
    card("RTX 5090", Gpu::Rtx5090, 32_607, 49, 12.9, 4, SMALL),
    card("RTX 3090", Gpu::Rtx3090, 24_576, 16, 12.4, 6, SMALL),
    card("RTX A6000", Gpu::A6000, 49_140, 45, 12.4, 3, SMALL),
    card("RTX 6000Ada", Gpu::Rtx6000Ada, 49_140, 62, 12.6, 2, SMALL),
    card("L40S", Gpu::L40S, 46_068, 58, 12.6, 3, SMALL),
    card("L4", Gpu::L4, 23_034, 28, 12.4, 3, SMALL),
    card("A100 SXM4", Gpu::A100_40GSxm, 40_960, 62, 12.4, 2, LARGE),
    card("A100 SXM4", Gpu::A100_80GSxm, 81_920, 88, 12.4, 3, LARGE),
    card("A100 PCIE", Gpu::A100_80GPcie, 81_920, 81, 12.4, 2, LARGE),
    card("H100 PCIE", Gpu::H100Pcie, 81_559, 165, 12.6, 2, LARGE),
    card("H100 SXM", Gpu::H100Sxm, 81_559, 189, 12.8, 3, LARGE),
    card("H100 NVL", Gpu::H100Nvl, 95_830, 175, 12.6, 2, LARGE),
    card("H200", Gpu::H200, 143_771, 239, 12.8, 2, LARGE),
    card("B200", Gpu::B200, 183_359, 379, 12.9, 1, LARGE),
    card("B300", Gpu::B300, 275_040, 489, 13.0, 1, LARGE),
    card("B300 PC", Gpu::B300, 275_040, 479, 13.0, 1, LARGE),
    card("GH200 SXM", Gpu::Gh200, 97_871, 149, 12.6, 1, &[1]),
    card("Tesla V100", Gpu::V100Sxm2_16G, 16_384, 12, 12.2, 2, SMALL),
];

/// An ask: a priced part of one machine.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) id: u64,
    pub(super) machine: u64,
    pub(super) host: u64,
    pub(super) gpu_name: &'static str,
    gpu: Gpu,
    pub(super) gpu_ram: u32,
    pub(super) num_gpus: u32,
    /// How many cards the machine has.
    pub(super) of: u32,
    /// For the whole ask, without storage.
    pub(super) price: UsdPerHour,
    pub(super) min_bid: UsdPerHour,
    pub(super) place: (&'static str, &'static str),
    pub(super) reliability: f64,
    pub(super) verified: bool,
    pub(super) datacenter: bool,
    pub(super) ports: u32,
    pub(super) cuda: f64,
    pub(super) inet_down: f64,
    /// Some hosts report none.
    pub(super) cpu_cores: Option<u32>,
    pub(super) arm64: bool,
}

/// Every ask there is. The first hosts of the first card are the bad ones: cheapest, and for a
/// reason.
static ASKS: LazyLock<Vec<Ask>> = LazyLock::new(|| {
    let (mut asks, mut machine) = (Vec::new(), 31_000_u64);
    for card in CARDS {
        for nth in 0..card.machines {
            machine += 7;
            let bad = (card.name == "RTX 4090" && nth < 4).then_some(nth);
            // Each host asks a little more than the one before; a bad one less than any.
            let cents = card.cents * 100 + i64::from(nth) * card.cents * 3
                - if bad.is_some() { card.cents * 30 } else { 0 };
            for (index, count) in (0_u64..).zip(card.asks) {
                let price = Usd::from_nanos(cents * 100_000 * i64::from(*count));
                asks.push(Ask {
                    id: 21_000_000 + machine * 10 + index,
                    machine,
                    host: 90_000 + machine % 50,
                    gpu_name: card.name,
                    gpu: card.gpu,
                    gpu_ram: card.ram,
                    num_gpus: *count,
                    of: card.asks.iter().sum(),
                    price: UsdPerHour::new(price),
                    min_bid: UsdPerHour::new(Usd::from_nanos(price.nanos() * 45 / 100)),
                    place: PLACES[usize::try_from(nth).unwrap_or(0) % PLACES.len()],
                    reliability: if bad == Some(0) { 0.912 } else { 0.9964 },
                    verified: bad != Some(1),
                    datacenter: card.asks.len() > 3 && nth % 2 == 0,
                    ports: if bad == Some(2) { 0 } else { 199 },
                    cuda: card.cuda,
                    inet_down: if bad == Some(3) { 42.0 } else { 842.1 },
                    cpu_cores: (bad != Some(3)).then_some(64),
                    arm64: card.name.starts_with("GH200"),
                });
            }
        }
    }
    asks
});

/// Every ask there is.
pub(super) fn asks() -> &'static [Ask] {
    &ASKS
}

/// The ask with this id.
pub(super) fn find(id: u64) -> Option<&'static Ask> {
    ASKS.iter().find(|ask| ask.id == id)
}

/// Any ask of a machine.
pub(super) fn of_machine(machine: u64) -> Option<&'static Ask> {
    ASKS.iter().find(|ask| ask.machine == machine)
}

/// The cloud, as the world needs to know it: each ask is a shape of its own.
#[must_use]
pub fn cloud() -> CloudSpec {
    let mut cloud = CloudSpec::plain(NAME);
    cloud.regions = PLACES
        .iter()
        .map(|(code, place)| Region {
            id: (*code).into(),
            name: (*place).into(),
        })
        .collect();
    cloud.shapes = ASKS
        .iter()
        .map(|ask| {
            let tier = Tier {
                price: ask.price,
                max_count: 1,
                stock: BTreeMap::from([(ask.place.0.to_owned(), WHOLE)]),
            };
            Shape {
                native: ask.id.to_string(),
                name: ask.gpu_name.into(),
                // The D is a card of its own, and none of our catalogue.
                gpu: (ask.gpu_name != "RTX 4090D").then_some(ask.gpu),
                vram_gb: ask.gpu.vram().as_gib(),
                ram_gb: 252,
                tiers: BTreeMap::from([(String::new(), tier)]),
            }
        })
        .collect();
    let seconds = |from: u64, to: u64| (Duration::from_secs(from), Duration::from_secs(to));
    cloud.timing = Timing {
        provisioning: seconds(3, 15),
        starting: seconds(20, 90),
        ports: seconds(0, 3),
        warm_up: seconds(3, 60),
        ..Timing::default()
    };
    cloud.visibility_bound = Duration::from_secs(60);
    cloud.disk_running = UsdPerHour::new(Usd::from_nanos(STORAGE_NANOS));
    cloud.disk_stopped = cloud.disk_running;
    cloud.first_id = Some(25_417_000);
    cloud.preempted_stays = true;
    cloud.exit_stops = true;
    cloud
}
