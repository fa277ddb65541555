//! Canonical GPUs and Vast's names for them, in both directions. See docs/clouds/vast.md.
//!
//! One name can mean two models (`A100 SXM4` has 40 or 80 GB); the reported memory distinguishes
//! them.

use std::ops::Range;

use atlas_core::{Gpu, MemorySize};

/// A Vast name, and the minimum memory in MB of this model.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) gpu: Gpu,
    pub(crate) name: &'static str,
    pub(crate) ram: Range<u32>,
}

const fn named(gpu: Gpu, name: &'static str, at_least: u32) -> Named {
    Named {
        gpu,
        name,
        ram: at_least..u32::MAX,
    }
}

const NAMES: &[Named] = &[
    named(Gpu::H100Sxm, "H100 SXM", 75_000),
    named(Gpu::H100Pcie, "H100 PCIE", 75_000),
    named(Gpu::H100Nvl, "H100 NVL", 88_000),
    named(Gpu::H200, "H200", 135_000),
    named(Gpu::H200Nvl, "H200 NVL", 135_000),
    named(Gpu::B200, "B200", 170_000),
    named(Gpu::B300, "B300", 260_000),
    // The same GPU on another board.
    named(Gpu::B300, "B300 PC", 260_000),
    named(Gpu::Gh200, "GH200 SXM", 88_000),
    named(Gpu::A100_80GSxm, "A100 SXM4", 70_000),
    named(Gpu::A100_80GPcie, "A100 PCIE", 70_000),
    named(Gpu::A100_80GPcie, "A100X", 70_000),
    Named {
        gpu: Gpu::A100_40GSxm,
        name: "A100 SXM4",
        ram: 36_000..50_000,
    },
    Named {
        gpu: Gpu::A100_40GPcie,
        name: "A100 PCIE",
        ram: 36_000..50_000,
    },
    named(Gpu::L40S, "L40S", 40_000),
    named(Gpu::L40, "L40", 40_000),
    named(Gpu::L4, "L4", 20_000),
    named(Gpu::A40, "A40", 40_000),
    named(Gpu::A30, "A30", 22_000),
    named(Gpu::A10, "A10", 20_000),
    named(Gpu::A6000, "RTX A6000", 44_000),
    named(Gpu::A5000, "RTX A5000", 22_000),
    named(Gpu::A4500, "RTX A4500", 18_000),
    named(Gpu::A4000, "RTX A4000", 14_500),
    named(Gpu::A2000, "RTX A2000", 5_500),
    named(Gpu::Rtx6000Ada, "RTX 6000Ada", 44_000),
    named(Gpu::Rtx5000Ada, "RTX 5000Ada", 29_000),
    named(Gpu::Rtx4000Ada, "RTX 4000Ada", 18_000),
    named(Gpu::Rtx2000Ada, "RTX 2000Ada", 14_500),
    named(Gpu::RtxPro6000Server, "RTX PRO 6000 S", 90_000),
    named(Gpu::RtxPro6000Ws, "RTX PRO 6000 WS", 90_000),
    named(Gpu::RtxPro6000MaxQ, "RTX PRO 6000 Max-Q", 90_000),
    named(Gpu::RtxPro6000, "RTX PRO 6000", 90_000),
    named(Gpu::RtxPro4500, "RTX PRO 4500", 29_000),
    named(Gpu::Rtx5090, "RTX 5090", 29_000),
    named(Gpu::Rtx5080, "RTX 5080", 14_500),
    named(Gpu::Rtx5070Ti, "RTX 5070 Ti", 14_500),
    named(Gpu::Rtx4090, "RTX 4090", 22_000),
    named(Gpu::Rtx4080, "RTX 4080", 14_500),
    named(Gpu::Rtx4080Super, "RTX 4080S", 14_500),
    named(Gpu::Rtx4070Ti, "RTX 4070 Ti", 11_000),
    named(Gpu::Rtx3090, "RTX 3090", 22_000),
    named(Gpu::Rtx3090Ti, "RTX 3090 Ti", 22_000),
    named(Gpu::Rtx3080, "RTX 3080", 9_000),
    named(Gpu::Rtx3080Ti, "RTX 3080 Ti", 11_000),
    named(Gpu::Rtx3070, "RTX 3070", 7_300),
    // Vast does not report which of the five it is.
    named(Gpu::V100, "Tesla V100", 14_500),
    named(Gpu::T4, "Tesla T4", 14_000),
    named(Gpu::Rtx8000, "Q RTX 8000", 44_000),
    named(Gpu::Rtx6000, "Q RTX 6000", 22_000),
];

/// The names of a GPU and of its variants; empty if Vast has none.
pub(crate) fn names(gpu: Gpu) -> Vec<&'static Named> {
    NAMES
        .iter()
        .filter(|named| named.gpu == gpu || gpu.variants().contains(&named.gpu))
        .collect()
}

/// The GPU with this name and this much memory in MB.
pub(crate) fn gpu(name: &str, ram: u32) -> Option<Gpu> {
    NAMES
        .iter()
        .find(|named| named.name == name && named.ram.contains(&ram))
        .map(|named| named.gpu)
}

/// The CPU architecture of the host; an image is built for one architecture.
pub(crate) fn cpu_arch(gpu: Option<Gpu>) -> &'static str {
    if gpu == Some(Gpu::Gh200) {
        "arm64"
    } else {
        "amd64"
    }
}

/// The oldest CUDA version whose driver supports the GPU; `None` if any does.
pub(crate) fn cuda(gpu: Gpu) -> Option<f64> {
    let blackwell = matches!(
        gpu,
        Gpu::B200
            | Gpu::B300
            | Gpu::Rtx5090
            | Gpu::Rtx5080
            | Gpu::Rtx5070Ti
            | Gpu::RtxPro6000
            | Gpu::RtxPro6000Server
            | Gpu::RtxPro6000Ws
            | Gpu::RtxPro6000MaxQ
            | Gpu::RtxPro4500
    );
    blackwell.then_some(12.8)
}

/// The memory in MB that a GPU with at least this much memory reports: slightly less than its
/// label.
pub(crate) fn reported(vram: MemorySize) -> u32 {
    vram.as_mib() / 10 * 9
}

/// The searches that make up a price list: few enough for the limit per minute, and grouped so that
/// a common GPU does not hide a rare one.
pub(crate) const GROUPS: &[&[&str]] = &[
    &["RTX 4090"],
    &["RTX 5090"],
    &[
        "H100 SXM",
        "H100 PCIE",
        "H100 NVL",
        "H200",
        "H200 NVL",
        "B200",
        "B300",
        "B300 PC",
        "GH200 SXM",
    ],
    &[
        "A100 SXM4",
        "A100 PCIE",
        "A100X",
        "L40S",
        "L40",
        "A40",
        "A30",
        "RTX PRO 6000 S",
        "RTX PRO 6000 WS",
        "RTX PRO 6000 Max-Q",
        "RTX PRO 6000",
        "RTX PRO 4500",
    ],
    &[
        "RTX A6000",
        "RTX A5000",
        "RTX A4500",
        "RTX A4000",
        "RTX A2000",
        "RTX 6000Ada",
        "RTX 5000Ada",
        "RTX 4000Ada",
        "RTX 2000Ada",
        "L4",
        "A10",
        "Q RTX 8000",
        "Q RTX 6000",
        "Tesla V100",
        "Tesla T4",
    ],
    &[
        "RTX 3090",
        "RTX 3090 Ti",
        "RTX 3080",
        "RTX 3080 Ti",
        "RTX 3070",
        "RTX 4080",
        "RTX 4080S",
        "RTX 4070 Ti",
        "RTX 5080",
        "RTX 5070 Ti",
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_tells_two_cards_of_one_name_apart() {
        assert_eq!(gpu("A100 SXM4", 40_960), Some(Gpu::A100_40GSxm));
        assert_eq!(gpu("A100 SXM4", 81_920), Some(Gpu::A100_80GSxm));
        assert_eq!(
            (gpu("A100 SXM4", 60_000), gpu("RTX 4090D", 24_564)),
            (None, None)
        );
        // Values reported by real GPUs, compared with minimum values that once matched none.
        for (name, ram, card) in [
            ("B200", 183_359, Gpu::B200),
            ("B300", 275_040, Gpu::B300),
            ("B300 PC", 275_040, Gpu::B300),
            ("H200", 143_771, Gpu::H200),
            ("L4", 22_500, Gpu::L4),
        ] {
            assert_eq!(gpu(name, ram), Some(card));
        }
    }

    #[test]
    fn every_name_is_in_one_group_and_no_name_has_an_underscore() {
        let grouped: Vec<&str> = GROUPS.iter().copied().flatten().copied().collect();
        for named in NAMES {
            assert_eq!(
                grouped.iter().filter(|name| **name == named.name).count(),
                1,
                "{}",
                named.name
            );
            assert!(!named.name.contains('_'));
        }
        assert!(
            grouped
                .iter()
                .all(|name| NAMES.iter().any(|named| named.name == *name))
        );
    }

    #[test]
    fn a_family_has_the_names_of_all_its_cards() {
        let names = |gpu| {
            names(gpu)
                .into_iter()
                .map(|named| named.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(Gpu::H100), ["H100 SXM", "H100 PCIE", "H100 NVL"]);
        assert_eq!(names(Gpu::Mi300X), Vec::<&str>::new());
        assert_eq!(reported(MemorySize::gib(192)), 176_940);
    }
}
