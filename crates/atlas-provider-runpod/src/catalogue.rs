//! RunPod's ids of GPUs, and the countries of its data centres.
//!
//! The ids are opaque and are never trimmed: some of them once had two consecutive spaces
//! (docs/clouds/runpod.md, "GPU ids"). Both lists are open: an id that is not listed here is passed
//! on unchanged and gets its memory from the live catalogue.

use atlas_core::Gpu;

/// Canonical names of GPU models with RunPod's ids. Families (`h100`) are expanded before the
/// look-up.
const IDS: &[(Gpu, &str)] = &[
    (Gpu::B300, "NVIDIA B300 SXM6 AC"),
    (Gpu::B300Mig34G, "NVIDIA B300 SXM6 AC MIG 1g.34gb"),
    (Gpu::B200, "NVIDIA B200"),
    (Gpu::H200, "NVIDIA H200"),
    (Gpu::H200Nvl, "NVIDIA H200 NVL"),
    (Gpu::H100Sxm, "NVIDIA H100 80GB HBM3"),
    (Gpu::H100Pcie, "NVIDIA H100 PCIe"),
    (Gpu::H100Nvl, "NVIDIA H100 NVL"),
    (Gpu::A100_80GSxm, "NVIDIA A100-SXM4-80GB"),
    (Gpu::A100_80GPcie, "NVIDIA A100 80GB PCIe"),
    (Gpu::A100_40GSxm, "NVIDIA A100-SXM4-40GB"),
    (Gpu::Mi300X, "AMD Instinct MI300X OAM"),
    (Gpu::Mi350X, "AMD Instinct MI350 OAM"),
    (Gpu::L40S, "NVIDIA L40S"),
    (Gpu::L40, "NVIDIA L40"),
    (Gpu::L4, "NVIDIA L4"),
    (Gpu::Rtx6000Ada, "NVIDIA RTX 6000 Ada Generation"),
    (Gpu::Rtx5000Ada, "NVIDIA RTX 5000 Ada Generation"),
    (Gpu::Rtx4000Ada, "NVIDIA RTX 4000 Ada Generation"),
    (Gpu::Rtx4000SffAda, "NVIDIA RTX 4000 SFF Ada Generation"),
    (Gpu::Rtx2000Ada, "NVIDIA RTX 2000 Ada Generation"),
    (Gpu::A40, "NVIDIA A40"),
    (Gpu::A30, "NVIDIA A30"),
    (Gpu::A6000, "NVIDIA RTX A6000"),
    (Gpu::A5000, "NVIDIA RTX A5000"),
    (Gpu::A4500, "NVIDIA RTX A4500"),
    (Gpu::A4000, "NVIDIA RTX A4000"),
    (Gpu::A2000, "NVIDIA RTX A2000"),
    (
        Gpu::RtxPro6000Server,
        "NVIDIA RTX PRO 6000 Blackwell Server Edition",
    ),
    (
        Gpu::RtxPro6000Ws,
        "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
    ),
    (
        Gpu::RtxPro6000MaxQ,
        "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
    ),
    (
        Gpu::RtxPro6000Mig24G,
        "NVIDIA RTX PRO 6000 Blackwell Server Edition MIG 1g.24gb",
    ),
    (
        Gpu::RtxPro6000Mig48G,
        "NVIDIA RTX PRO 6000 Blackwell Server Edition MIG 2g.48gb",
    ),
    (Gpu::RtxPro4500, "NVIDIA RTX PRO 4500 Blackwell"),
    (Gpu::Rtx5090, "NVIDIA GeForce RTX 5090"),
    (Gpu::Rtx5080, "NVIDIA GeForce RTX 5080"),
    (Gpu::Rtx4090, "NVIDIA GeForce RTX 4090"),
    (Gpu::Rtx4080, "NVIDIA GeForce RTX 4080"),
    (Gpu::Rtx4080Super, "NVIDIA GeForce RTX 4080 SUPER"),
    (Gpu::Rtx4070Ti, "NVIDIA GeForce RTX 4070 Ti"),
    (Gpu::Rtx3090, "NVIDIA GeForce RTX 3090"),
    (Gpu::Rtx3090Ti, "NVIDIA GeForce RTX 3090 Ti"),
    (Gpu::Rtx3080, "NVIDIA GeForce RTX 3080"),
    (Gpu::Rtx3080Ti, "NVIDIA GeForce RTX 3080 Ti"),
    (Gpu::Rtx3070, "NVIDIA GeForce RTX 3070"),
    (Gpu::V100Sxm2_32G, "Tesla V100-SXM2-32GB"),
    (Gpu::V100Sxm2_16G, "Tesla V100-SXM2-16GB"),
    (Gpu::V100Pcie32G, "Tesla V100-PCIE-32GB"),
    (Gpu::V100Pcie16G, "Tesla V100-PCIE-16GB"),
    (Gpu::V100Fhhl16G, "Tesla V100-FHHL-16GB"),
    (Gpu::T4, "Tesla T4"),
];

/// Other ids that RunPod has used for a listed GPU.
const ALSO: &[(Gpu, &str)] = &[
    (Gpu::A4500, "NVIDIA  RTX A4500"),
    (Gpu::A30, "NVIDIA  A30"),
    (Gpu::A30, "NVIDIA RTX A30"),
    (Gpu::Rtx3080Ti, "NVIDIA GeForce RTX 3080TI"),
];

/// RunPod's id of a GPU model; `None` for a family and for a model it never offered (`a10`,
/// `gh200`).
pub(crate) fn native(gpu: Gpu) -> Option<&'static str> {
    IDS.iter()
        .find_map(|(card, id)| (*card == gpu).then_some(*id))
}

/// The GPU with this RunPod id.
pub(crate) fn canonical(id: &str) -> Option<Gpu> {
    IDS.iter()
        .chain(ALSO)
        .find_map(|(card, known)| (*known == id).then_some(*card))
}

/// RunPod's ids of the models that a name covers, best first; empty if it offers none of them.
pub(crate) fn cards(gpu: Gpu) -> Vec<(Gpu, &'static str)> {
    gpu.variants()
        .iter()
        .filter_map(|card| Some((*card, native(*card)?)))
        .collect()
}

/// The country of a data centre, from the middle part of its id; for `US-` and `CA-` ids that part
/// is a state or city.
pub(crate) fn country(data_centre: &str) -> Option<&str> {
    let mut parts = data_centre.split('-');
    match (parts.next()?, parts.next()?) {
        (country @ ("US" | "CA"), _) => Some(country),
        ("EU" | "EUR" | "AP" | "OC", country) if country.len() == 2 => Some(country),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_names_one_card_and_reads_back() {
        for (gpu, id) in IDS {
            assert_eq!((canonical(id), native(*gpu)), (Some(*gpu), Some(*id)));
            assert_eq!(gpu.variants(), [*gpu], "{gpu} is a family");
        }
        assert_eq!(canonical("NVIDIA  A30"), Some(Gpu::A30));
        assert_eq!(canonical("nvidia a30"), None, "ids are exact");
    }

    #[test]
    fn a_family_expands_in_order_and_what_runpod_never_offered_expands_to_nothing() {
        let ids = |gpu| cards(gpu).into_iter().map(|(_, id)| id).collect::<Vec<_>>();
        assert_eq!(
            ids(Gpu::H100),
            [
                "NVIDIA H100 80GB HBM3",
                "NVIDIA H100 PCIe",
                "NVIDIA H100 NVL"
            ]
        );
        assert_eq!(ids(Gpu::A100_40G), ["NVIDIA A100-SXM4-40GB"]);
        for gpu in [Gpu::A10, Gpu::Gh200, Gpu::A100_40GPcie] {
            assert!(cards(gpu).is_empty(), "{gpu}");
        }
    }

    #[test]
    fn a_data_centre_tells_its_country_or_nothing() {
        for (id, country_code) in [
            ("EU-RO-1", "RO"),
            ("EUR-IS-2", "IS"),
            ("AP-JP-1", "JP"),
            ("OC-AU-1", "AU"),
            ("US-KS-2", "US"),
            ("CA-MTL-3", "CA"),
        ] {
            assert_eq!(country(id), Some(country_code));
        }
        assert_eq!(
            (country("XX-YY-1"), country("nowhere"), country("EU-MARS-1")),
            (None, None, None)
        );
    }
}
