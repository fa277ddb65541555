//! What Lambda rents out: instance types, regions, prices. Facts: docs/clouds/lambda.md.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{Gpu, Usd, UsdPerHour};

use crate::world::{CloudSpec, Region, Shape, Tier, Timing};

/// The name of the cloud in the world, its ledger and its faults.
pub const NAME: &str = "lambda";

/// One instance type.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) gpu_description: &'static str,
    pub(super) gpu: Option<Gpu>,
    pub(super) gpus: u32,
    pub(super) cents: i64,
    pub(super) vcpus: u32,
    pub(super) memory_gib: u32,
    pub(super) storage_gib: u32,
    /// How many machines each stocked region has; none for a type that is sold out everywhere.
    machines: u32,
}

const fn kind(
    name: &'static str,
    gpu_description: &'static str,
    gpu: Option<Gpu>,
    gpus: u32,
    cents: i64,
    (vcpus, memory_gib, storage_gib): (u32, u32, u32),
    machines: u32,
) -> Kind {
    Kind {
        name,
        gpu_description,
        gpu,
        gpus,
        cents,
        vcpus,
        memory_gib,
        storage_gib,
        machines,
    }
}

/// The types, among them one without a GPU and one that is sold out.
pub(super) const KINDS: &[Kind] = &[
    kind("cpu_4x_general", "N/A", None, 0, 20, (4, 16, 200), 64),
    kind(
        "gpu_1x_a10",
        "A10 (24 GB PCIe)",
        Some(Gpu::A10),
        1,
        129,
        (30, 200, 1400),
        16,
    ),
    kind(
        "gpu_1x_a6000",
        "A6000 (48 GB)",
        Some(Gpu::A6000),
        1,
        109,
        (14, 100, 200),
        8,
    ),
    kind(
        "gpu_2x_a6000",
        "A6000 (48 GB)",
        Some(Gpu::A6000),
        2,
        218,
        (28, 200, 1024),
        4,
    ),
    kind(
        "gpu_1x_a100",
        "A100 (40 GB PCIe)",
        Some(Gpu::A100_40GPcie),
        1,
        199,
        (30, 200, 512),
        8,
    ),
    kind(
        "gpu_1x_a100_sxm4",
        "A100 (40 GB SXM4)",
        Some(Gpu::A100_40GSxm),
        1,
        199,
        (30, 200, 512),
        8,
    ),
    kind(
        "gpu_8x_a100",
        "A100 (40 GB SXM4)",
        Some(Gpu::A100_40GSxm),
        8,
        1592,
        (124, 1800, 6144),
        2,
    ),
    kind(
        "gpu_8x_a100_80gb_sxm4",
        "A100 (80 GB SXM4)",
        Some(Gpu::A100_80GSxm),
        8,
        2232,
        (240, 1800, 20480),
        2,
    ),
    kind(
        "gpu_1x_gh200",
        "GH200 (96 GB)",
        Some(Gpu::Gh200),
        1,
        229,
        (64, 432, 4096),
        4,
    ),
    kind(
        "gpu_1x_h100_pcie",
        "H100 (80 GB PCIe)",
        Some(Gpu::H100Pcie),
        1,
        329,
        (26, 200, 1024),
        8,
    ),
    kind(
        "gpu_1x_h100_sxm5",
        "H100 (80 GB SXM5)",
        Some(Gpu::H100Sxm),
        1,
        429,
        (26, 225, 2816),
        8,
    ),
    kind(
        "gpu_8x_h100_sxm5",
        "H100 (80 GB SXM5)",
        Some(Gpu::H100Sxm),
        8,
        3192,
        (208, 1800, 22528),
        2,
    ),
    kind(
        "gpu_1x_rtx6000",
        "RTX 6000 (24 GB)",
        Some(Gpu::Rtx6000),
        1,
        69,
        (14, 46, 512),
        4,
    ),
    kind(
        "gpu_8x_v100",
        "Tesla V100 (16 GB)",
        Some(Gpu::V100Sxm2_16G),
        8,
        632,
        (92, 448, 6041),
        0,
    ),
];

/// Regions, and what they are called for people.
pub(super) const REGIONS: &[(&str, &str)] = &[
    ("us-west-2", "Arizona, USA"),
    ("us-east-1", "Virginia, USA"),
    ("us-east-3", "Washington DC, USA"),
    ("us-south-1", "Texas, USA"),
    ("europe-central-1", "Germany"),
];

/// The regions that have machines.
const STOCKED: &[&str] = &["us-west-2", "us-east-1", "us-south-1"];

/// The type of this name.
pub(super) fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// The cloud, as the world needs to know it.
#[must_use]
pub fn cloud() -> CloudSpec {
    let mut cloud = CloudSpec::plain(NAME);
    cloud.regions = REGIONS
        .iter()
        .map(|(id, name)| Region {
            id: (*id).into(),
            name: (*name).into(),
        })
        .collect();
    cloud.shapes = KINDS
        .iter()
        .map(|kind| {
            let stock = STOCKED
                .iter()
                .filter(|_| kind.machines > 0)
                .map(|id| ((*id).to_owned(), kind.machines))
                .collect();
            let tier = Tier {
                price: UsdPerHour::new(Usd::from_cents(kind.cents)),
                max_count: 1,
                stock,
            };
            Shape {
                native: kind.name.into(),
                name: kind.name.into(),
                gpu: kind.gpu,
                vram_gb: kind.gpu.map_or(0, |gpu| gpu.vram().as_gib()),
                ram_gb: kind.memory_gib,
                tiers: BTreeMap::from([(String::new(), tier)]),
            }
        })
        .collect();
    let seconds = |from: u64, to: u64| (Duration::from_secs(from), Duration::from_secs(to));
    cloud.timing = Timing {
        provisioning: seconds(30, 90),
        starting: seconds(60, 180),
        ports: seconds(0, 0),
        warm_up: seconds(20, 60),
        destroying: seconds(5, 30),
        ..Timing::default()
    };
    cloud.visibility_bound = Duration::from_secs(120);
    cloud.disk_stopped = UsdPerHour::ZERO;
    cloud.id_alphabet = "0123456789abcdef";
    cloud.id_len = 32;
    cloud.preempted_stays = false;
    cloud.exit_stops = false;
    cloud
}
