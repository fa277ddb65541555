//! What the simulated RunPod offers: cards, CPU flavours and data centres, with prices of the kind
//! its list had in autumn 2026.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{Usd, UsdPerHour};

use crate::world::{Account, CloudSpec, EndpointSpec, Region, Shape, Tier, Timing, World};

/// A card: canonical name, exact id, name for people, GB, serverless pool, cents an hour (secure,
/// community; 0 = not offered there).
pub(super) struct Card {
    canonical: &'static str,
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    gb: u32,
    pub(super) pool: Option<&'static str>,
    secure: i64,
    community: i64,
}

const fn card(
    canonical: &'static str,
    id: &'static str,
    name: &'static str,
    gb: u32,
    pool: &'static str,
    secure: i64,
    community: i64,
) -> Card {
    Card {
        canonical,
        id,
        name,
        gb,
        pool: if pool.is_empty() { None } else { Some(pool) },
        secure,
        community,
    }
}

pub(super) const CARDS: &[Card] = &[
    card(
        "b300",
        "NVIDIA B300 SXM6 AC",
        "B300",
        288,
        "BLACKWELL_288",
        789,
        0,
    ),
    card(
        "b200",
        "NVIDIA B200",
        "B200",
        180,
        "BLACKWELL_180",
        679,
        598,
    ),
    card(
        "h200",
        "NVIDIA H200",
        "H200 SXM",
        141,
        "HOPPER_141",
        459,
        359,
    ),
    card("h200_nvl", "NVIDIA H200 NVL", "H200 NVL", 143, "", 389, 0),
    card(
        "h100_sxm",
        "NVIDIA H100 80GB HBM3",
        "H100 SXM",
        80,
        "ADA_80_PRO",
        349,
        269,
    ),
    card(
        "h100_pcie",
        "NVIDIA H100 PCIe",
        "H100 PCIe",
        80,
        "ADA_80_PRO",
        289,
        199,
    ),
    card(
        "h100_nvl",
        "NVIDIA H100 NVL",
        "H100 NVL",
        94,
        "ADA_80_PRO",
        319,
        259,
    ),
    card(
        "a100_80g_sxm",
        "NVIDIA A100-SXM4-80GB",
        "A100 SXM",
        80,
        "AMPERE_80",
        179,
        139,
    ),
    card(
        "a100_80g_pcie",
        "NVIDIA A100 80GB PCIe",
        "A100 PCIe",
        80,
        "AMPERE_80",
        159,
        119,
    ),
    card(
        "a100_40g_sxm",
        "NVIDIA A100-SXM4-40GB",
        "A100 SXM 40GB",
        40,
        "",
        0,
        99,
    ),
    card(
        "mi300x",
        "AMD Instinct MI300X OAM",
        "MI300X",
        192,
        "",
        239,
        0,
    ),
    card("l40s", "NVIDIA L40S", "L40S", 48, "ADA_48_PRO", 109, 79),
    card("l40", "NVIDIA L40", "L40", 48, "ADA_48_PRO", 99, 69),
    card(
        "rtx_6000_ada",
        "NVIDIA RTX 6000 Ada Generation",
        "RTX 6000 Ada",
        48,
        "ADA_48_PRO",
        77,
        74,
    ),
    card("a40", "NVIDIA A40", "A40", 48, "AMPERE_48", 49, 0),
    card(
        "a6000",
        "NVIDIA RTX A6000",
        "RTX A6000",
        48,
        "AMPERE_48",
        53,
        33,
    ),
    card(
        "rtx_pro_6000_server",
        "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        "RTX PRO 6000",
        96,
        "BLACKWELL_96",
        184,
        169,
    ),
    card(
        "rtx_pro_6000_ws",
        "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
        "RTX PRO 6000 WK",
        96,
        "BLACKWELL_96",
        209,
        169,
    ),
    card(
        "rtx_5090",
        "NVIDIA GeForce RTX 5090",
        "RTX 5090",
        32,
        "ADA_32_PRO",
        99,
        69,
    ),
    card(
        "rtx_4090",
        "NVIDIA GeForce RTX 4090",
        "RTX 4090",
        24,
        "ADA_24",
        74,
        34,
    ),
    card(
        "rtx_4080_super",
        "NVIDIA GeForce RTX 4080 SUPER",
        "RTX 4080 SUPER",
        16,
        "",
        0,
        28,
    ),
    card(
        "rtx_3090",
        "NVIDIA GeForce RTX 3090",
        "RTX 3090",
        24,
        "AMPERE_24",
        50,
        22,
    ),
    card(
        "rtx_3090_ti",
        "NVIDIA GeForce RTX 3090 Ti",
        "RTX 3090 Ti",
        24,
        "",
        0,
        27,
    ),
    card(
        "rtx_3080",
        "NVIDIA GeForce RTX 3080",
        "RTX 3080",
        10,
        "",
        0,
        17,
    ),
    card(
        "rtx_3070",
        "NVIDIA GeForce RTX 3070",
        "RTX 3070",
        8,
        "",
        0,
        13,
    ),
    card("l4", "NVIDIA L4", "L4", 24, "AMPERE_24", 49, 0),
    card(
        "a5000",
        "NVIDIA RTX A5000",
        "RTX A5000",
        24,
        "AMPERE_24",
        27,
        16,
    ),
    card("a30", "NVIDIA A30", "A30", 24, "", 0, 22),
    card(
        "a4500",
        "NVIDIA RTX A4500",
        "RTX A4500",
        20,
        "AMPERE_16",
        25,
        19,
    ),
    card(
        "a4000",
        "NVIDIA RTX A4000",
        "RTX A4000",
        16,
        "AMPERE_16",
        25,
        17,
    ),
    card("a2000", "NVIDIA RTX A2000", "RTX A2000", 6, "", 0, 12),
    card(
        "rtx_4000_ada",
        "NVIDIA RTX 4000 Ada Generation",
        "RTX 4000 Ada",
        20,
        "AMPERE_16",
        26,
        20,
    ),
    card(
        "rtx_2000_ada",
        "NVIDIA RTX 2000 Ada Generation",
        "RTX 2000 Ada",
        16,
        "AMPERE_16",
        24,
        0,
    ),
    card(
        "v100_sxm2_32g",
        "Tesla V100-SXM2-32GB",
        "V100 SXM2 32GB",
        32,
        "",
        0,
        23,
    ),
];

/// A CPU flavour: id, name, generation, RAM in GB for each vCPU, tenths of a cent an hour for each
/// vCPU.
pub(super) const FLAVOURS: &[(&str, &str, &str, u32, i64)] = &[
    ("cpu3c", "Compute-Optimized", "Gen 3", 2, 30),
    ("cpu3g", "General Purpose", "Gen 3", 4, 40),
    ("cpu3m", "Memory-Optimized", "Gen 3", 8, 50),
    ("cpu5c", "Compute-Optimized", "Gen 5", 2, 35),
    ("cpu5g", "General Purpose", "Gen 5", 4, 45),
    ("cpu5m", "Memory-Optimized", "Gen 5", 8, 55),
];

/// A data centre: id, name, continent, ISO country, in the global network.
pub(super) const CENTRES: &[(&str, &str, &str, &str, bool)] = &[
    ("EU-RO-1", "EU Romania 1", "EUROPE", "RO", true),
    ("EU-CZ-1", "EU Czechia 1", "EUROPE", "CZ", true),
    ("EU-FR-1", "EU France 1", "EUROPE", "FR", true),
    ("EU-NL-1", "EU Netherlands 1", "EUROPE", "NL", true),
    ("EU-SE-1", "EU Sweden 1", "EUROPE", "SE", true),
    ("EUR-IS-1", "EU Iceland 1", "EUROPE", "IS", false),
    ("EUR-IS-2", "EU Iceland 2", "EUROPE", "IS", true),
    ("EUR-NO-1", "EU Norway 1", "EUROPE", "NO", false),
    ("US-KS-2", "US Kansas 2", "NORTH_AMERICA", "US", true),
    ("US-TX-3", "US Texas 3", "NORTH_AMERICA", "US", true),
    ("US-CA-2", "US California 2", "NORTH_AMERICA", "US", true),
    ("US-GA-1", "US Georgia 1", "NORTH_AMERICA", "US", true),
    ("US-IL-1", "US Illinois 1", "NORTH_AMERICA", "US", true),
    (
        "US-NC-1",
        "US North Carolina 1",
        "NORTH_AMERICA",
        "US",
        true,
    ),
    ("US-WA-1", "US Washington 1", "NORTH_AMERICA", "US", true),
    ("CA-MTL-1", "CA Montreal 1", "NORTH_AMERICA", "CA", false),
    ("CA-MTL-3", "CA Montreal 3", "NORTH_AMERICA", "CA", true),
    ("AP-JP-1", "AP Japan 1", "ASIA", "JP", false),
    ("OC-AU-1", "OC Australia 1", "OCEANIA", "AU", true),
];

/// The data centres that have machines when a world begins.
const STOCKED: &[&str] = &[
    "EU-RO-1", "EU-CZ-1", "US-KS-2", "US-TX-3", "US-CA-2", "CA-MTL-3",
];

/// The vCPUs and the GB of memory that come with each GPU.
pub(super) const VCPUS_PER_GPU: u32 = 8;
pub(super) const RAM_PER_GPU: u32 = 64;

/// The CUDA versions of its hosts, newest first; a machine gets the newest that fits.
pub(super) const CUDA: &[&str] = &["12.8", "12.6", "12.4"];

/// The name of the cloud in the world, its ledger and its faults.
pub const NAME: &str = "runpod";

/// The cloud, as the world needs to know it.
#[must_use]
pub fn cloud() -> CloudSpec {
    let stock = |units: u32| {
        STOCKED
            .iter()
            .map(|id| ((*id).to_owned(), units))
            .collect::<BTreeMap<_, _>>()
    };
    let cards = CARDS.iter().map(|card| {
        let tiers = [
            ("SECURE", card.secure, 8, 16),
            ("COMMUNITY", card.community, 4, 8),
        ]
        .into_iter()
        .filter(|(_, cents, ..)| *cents > 0)
        .map(|(name, cents, max_count, units)| {
            (
                name.to_owned(),
                Tier {
                    price: UsdPerHour::new(Usd::from_cents(cents)),
                    max_count,
                    stock: stock(units),
                },
            )
        })
        .collect();
        Shape {
            native: card.id.into(),
            name: card.name.into(),
            gpu: card.canonical.parse().ok(),
            vram_gb: card.gb,
            ram_gb: RAM_PER_GPU,
            tiers,
        }
    });
    let flavours = FLAVOURS.iter().map(|(id, name, _, ram, mills)| Shape {
        native: (*id).into(),
        name: (*name).into(),
        gpu: None,
        vram_gb: 0,
        ram_gb: *ram,
        tiers: BTreeMap::from([(
            "SECURE".to_owned(),
            Tier {
                price: UsdPerHour::new(Usd::from_nanos(mills * 1_000_000)),
                max_count: 32,
                stock: stock(256),
            },
        )]),
    });
    let secs = |from, to| (Duration::from_secs(from), Duration::from_secs(to));
    let timing = Timing {
        provisioning: secs(2, 8),
        starting: secs(5, 20),
        ports: secs(1, 4),
        warm_up: secs(4, 10),
        ..Timing::default()
    };
    let mut spec = CloudSpec::plain(NAME).timing(timing);
    spec.regions = CENTRES
        .iter()
        .map(|(id, name, ..)| Region {
            id: (*id).into(),
            name: (*name).into(),
        })
        .collect();
    spec.shapes = cards.chain(flavours).collect();
    spec.visibility_bound = Duration::from_secs(120);
    // $0.10 and $0.20 for a gigabyte and a month of 730 hours (docs/clouds/runpod.md).
    spec.disk_running = UsdPerHour::new(Usd::from_nanos(136_986));
    spec.disk_stopped = UsdPerHour::new(Usd::from_nanos(273_973));
    spec.id_alphabet = "abcdefghijklmnopqrstuvwxyz0123456789";
    spec.id_len = 14;
    spec.preempted_stays = true;
    spec.exit_stops = true;
    spec
}

/// The endpoint that a fresh simulator holds: one worker, a cold start of a second.
pub const ENDPOINT: &str = "sim-endpoint";

/// Makes [`ENDPOINT`] for an account.
pub fn add_endpoint(world: &World, account: &Account) {
    let extra = serde_json::json!({
        "name": ENDPOINT,
        "type": "QUEUE",
        "image": "atlas/echo:1",
        "gpu": { "pools": ["ADA_24"], "count": 1, "allowedCudaVersions": [],
            "minCudaVersion": null },
        "scaling": { "type": "QUEUE_DELAY", "queueDelay": 4 },
        "workersMin": 0,
    });
    world.add_endpoint(
        NAME,
        account,
        EndpointSpec {
            id: Some(ENDPOINT.to_owned()),
            extra,
            ..EndpointSpec::default()
        },
    );
}
