//! Canonical GPUs and Lambda's instance types, both ways. Facts: docs/clouds/lambda.md.

use atlas_core::{Gpu, MemorySize};

/// The type that holds exactly `count` of this card. Never a larger one: a request for one GPU is
/// not rounded up to eight.
pub(crate) fn instance_types(gpu: Gpu, count: u32) -> Vec<String> {
    gpu.variants()
        .iter()
        .flat_map(|card| {
            let (counts, stem): (&[u32], &[&str]) = match card {
                Gpu::H100Pcie => (&[1], &["h100_pcie"]),
                Gpu::H100Sxm => (&[1, 2, 4, 8], &["h100_sxm5"]),
                Gpu::B200 => (&[1, 2, 8], &["b200_sxm6"]),
                Gpu::Gh200 => (&[1], &["gh200"]),
                // `gpu_8x_a100` is SXM4 although its name does not say so.
                Gpu::A100_40GPcie if count != 8 => (&[1, 2, 4], &["a100"]),
                Gpu::A100_40GSxm if count == 8 => (&[8], &["a100"]),
                Gpu::A100_40GSxm => (&[1], &["a100_sxm4"]),
                Gpu::A100_80GSxm => (&[8], &["a100_80gb_sxm4"]),
                Gpu::A10 => (&[1], &["a10"]),
                Gpu::A6000 => (&[1, 2, 4], &["a6000"]),
                Gpu::Rtx6000 => (&[1], &["rtx6000"]),
                Gpu::V100Sxm2_16G => (&[8], &["v100", "v100_n"]),
                _ => (&[], &[]),
            };
            stem.iter()
                .filter(|_| counts.contains(&count))
                .map(|stem| format!("gpu_{count}x_{stem}"))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The card of an instance type.
pub(crate) fn gpu(name: &str) -> Option<Gpu> {
    let (count, stem) = name.strip_prefix("gpu_")?.split_once("x_")?;
    Some(match stem {
        "h100_pcie" => Gpu::H100Pcie,
        "h100_sxm5" | "h100_sxm5gdr" => Gpu::H100Sxm,
        "b200_sxm6" => Gpu::B200,
        "gh200" => Gpu::Gh200,
        "a100" if count == "8" => Gpu::A100_40GSxm,
        "a100" => Gpu::A100_40GPcie,
        "a100_sxm4" => Gpu::A100_40GSxm,
        "a100_80gb_sxm4" => Gpu::A100_80GSxm,
        "a10" => Gpu::A10,
        "a6000" => Gpu::A6000,
        "rtx6000" => Gpu::Rtx6000,
        "v100" | "v100_n" => Gpu::V100Sxm2_16G,
        _ => return None,
    })
}

/// Memory of one GPU, which Lambda says only in prose: the last `(<n> GB` of the description.
pub(crate) fn vram(gpu_description: &str) -> Option<MemorySize> {
    let (_, tail) = gpu_description.rsplit_once('(')?;
    let (gb, _) = tail.split_once(" GB")?;
    gb.trim().parse().ok().map(MemorySize::gib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_never_rounded_up_to_a_larger_machine() {
        for (gpu, count) in [
            (Gpu::A100_80G, 1),
            (Gpu::V100, 1),
            (Gpu::H100Pcie, 2),
            (Gpu::L40S, 1),
            (Gpu::A10, 2),
        ] {
            assert_eq!(
                instance_types(gpu, count),
                Vec::<String>::new(),
                "{gpu} x{count}"
            );
        }
    }

    #[test]
    fn a_type_holds_the_card_it_was_chosen_for() {
        assert_eq!(
            instance_types(Gpu::H100, 1),
            ["gpu_1x_h100_sxm5", "gpu_1x_h100_pcie"]
        );
        assert_eq!(instance_types(Gpu::A100_40G, 8), ["gpu_8x_a100"]);
        for card in Gpu::ALL {
            for count in [1, 2, 4, 8] {
                for name in instance_types(*card, count) {
                    assert!(
                        card.variants().contains(&gpu(&name).unwrap()),
                        "{card} {name}"
                    );
                }
            }
        }
    }

    #[test]
    fn memory_is_read_from_the_prose() {
        assert_eq!(vram("A100 (80 GB SXM4)"), Some(MemorySize::gib(80)));
        assert_eq!(vram("GH200 (96 GB)"), Some(MemorySize::gib(96)));
        assert_eq!(vram("N/A"), None);
    }
}
