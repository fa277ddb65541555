//! The canonical GPU of an instance type. See docs/clouds/lambda.md.
//!
//! Only Lambda's live price list has the types and counts: a fixed list would refuse what the cloud
//! sells.

use atlas_core::{Gpu, MemorySize};

/// The GPU of an instance type.
pub(crate) fn gpu(name: &str) -> Option<Gpu> {
    let (count, stem) = name.strip_prefix("gpu_")?.split_once("x_")?;
    Some(match stem {
        "h100_pcie" => Gpu::H100Pcie,
        "h100_sxm5" | "h100_sxm5gdr" => Gpu::H100Sxm,
        "a100" if count == "8" => Gpu::A100_40GSxm,
        "a100" => Gpu::A100_40GPcie,
        "a100_sxm4" => Gpu::A100_40GSxm,
        "a100_80gb_sxm4" => Gpu::A100_80GSxm,
        "rtx6000" => Gpu::Rtx6000,
        "v100" | "v100_n" => Gpu::V100Sxm2_16G,
        // A GPU that is newer than this list: by its canonical name, if that means one model only.
        other => {
            let name = other.split_once('_').map_or(other, |(name, _)| name);
            name.parse::<Gpu>()
                .ok()
                .filter(|gpu| gpu.variants().len() == 1)?
        }
    })
}

/// Memory of one GPU, which Lambda gives only in text: the last `(<n> GB` of the description.
pub(crate) fn vram(gpu_description: &str) -> Option<MemorySize> {
    let (_, tail) = gpu_description.rsplit_once('(')?;
    let (gb, _) = tail.split_once(" GB")?;
    gb.trim().parse().ok().map(MemorySize::gib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_of_a_type_is_read_from_its_name() {
        for (name, card) in [
            ("gpu_1x_h100_pcie", Some(Gpu::H100Pcie)),
            ("gpu_4x_h100_sxm5", Some(Gpu::H100Sxm)),
            ("gpu_2x_a100", Some(Gpu::A100_40GPcie)),
            ("gpu_8x_a100", Some(Gpu::A100_40GSxm)),
            ("gpu_8x_a100_80gb_sxm4", Some(Gpu::A100_80GSxm)),
            ("gpu_1x_a10", Some(Gpu::A10)),
            ("gpu_4x_a6000", Some(Gpu::A6000)),
            ("gpu_8x_v100_n", Some(Gpu::V100Sxm2_16G)),
            ("gpu_1x_gh200", Some(Gpu::Gh200)),
            ("gpu_4x_b200_sxm6", Some(Gpu::B200)),
            ("gpu_8x_b300_sxm6", Some(Gpu::B300)),
            ("gpu_8x_h200", Some(Gpu::H200)),
            // Several models have that name.
            ("gpu_1x_h100", None),
            ("gpu_2x_a100_new", None),
            ("cpu_4x_general", None),
        ] {
            assert_eq!(gpu(name), card, "{name}");
        }
    }

    #[test]
    fn memory_is_read_from_the_prose() {
        assert_eq!(vram("A100 (80 GB SXM4)"), Some(MemorySize::gib(80)));
        assert_eq!(vram("GH200 (96 GB)"), Some(MemorySize::gib(96)));
        assert_eq!(vram("N/A"), None);
    }
}
