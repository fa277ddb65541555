//! The candidates of a request: presets with enough CPUs and memory, in each region. Pure.

use atlas_core::{Candidate, CloudType, ComputeRequest, Error, Result};

use crate::preset::{Kind, MARKUPS, Preset};

/// The candidates of a request: regions in the order of its hints, cheaper ones first.
pub(crate) fn candidates(request: &ComputeRequest) -> Result<Vec<Candidate>> {
    let cpus = request.cpu.unwrap_or(1);
    let memory_mb = request.memory.map_or(0, |memory| memory.as_mib());
    let fitting: Vec<Preset> = [Kind::Shared, Kind::Performance]
        .into_iter()
        .filter_map(|kind| Preset::fitting(kind, cpus, memory_mb))
        .collect();
    if fitting.is_empty() {
        return Err(Error::unsupported(
            "cpu",
            "no machine of fly has that many cpus and that much memory",
        ));
    }
    let hints: Vec<String> = request
        .region_hints
        .iter()
        .map(|hint| hint.to_ascii_lowercase())
        .collect();
    let regions: Vec<&str> = if hints.is_empty() {
        MARKUPS.iter().map(|(code, _)| *code).collect()
    } else {
        hints.iter().map(String::as_str).collect()
    };
    let mut found = Vec::new();
    for (rank, region) in regions.iter().enumerate() {
        for preset in &fitting {
            let mut candidate = Candidate::default();
            candidate.native_type = Some(preset.native());
            candidate.region = Some((*region).to_owned());
            candidate.cloud_type = Some(CloudType::Secure);
            candidate.price = Some(preset.price(region));
            found.push((
                if request.region_hints.is_empty() {
                    0
                } else {
                    rank
                },
                candidate,
            ));
        }
    }
    found.sort_by_key(|(rank, candidate)| (*rank, candidate.price));
    Ok(found.into_iter().map(|(_, candidate)| candidate).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::MemorySize;

    #[test]
    fn the_cheapest_that_fits_comes_first_and_memory_is_rounded_up_to_what_is_sold() {
        let first =
            |request: &ComputeRequest| candidates(request).unwrap()[0].native_type.clone().unwrap();
        assert_eq!(
            first(&ComputeRequest::cpu(1).image("x")),
            "shared-cpu-1x:256"
        );
        assert_eq!(
            first(&ComputeRequest::cpu(3).image("x")),
            "shared-cpu-4x:1024"
        );
        assert_eq!(
            first(
                &ComputeRequest::cpu(1)
                    .image("x")
                    .memory(MemorySize::mib(300))
            ),
            "shared-cpu-1x:512"
        );
        assert_eq!(
            first(&ComputeRequest::cpu(1).image("x").memory(MemorySize::gib(3))),
            "shared-cpu-2x:3072"
        );
        assert_eq!(
            candidates(
                &ComputeRequest::cpu(8)
                    .image("x")
                    .memory(MemorySize::gib(64))
            )
            .unwrap()
            .len(),
            18
        );
        assert!(candidates(&ComputeRequest::cpu(17).image("x")).is_err());
        assert!(
            candidates(
                &ComputeRequest::cpu(1)
                    .image("x")
                    .memory(MemorySize::gib(65))
            )
            .is_err()
        );
    }

    #[test]
    fn hints_keep_their_order_and_a_name_reads_back() {
        let hinted = candidates(
            &ComputeRequest::cpu(2)
                .image("x")
                .region("gru")
                .region("iad"),
        )
        .unwrap();
        let regions: Vec<_> = hinted
            .iter()
            .filter_map(|candidate| candidate.region.as_deref())
            .collect();
        assert_eq!(regions, ["gru", "gru", "iad", "iad"]);
        for candidate in hinted {
            let native = candidate.native_type.unwrap();
            assert_eq!(Preset::parse(&native).unwrap().native(), native);
        }
        for odd in [
            "a10",
            "shared-cpu-3x",
            "shared-cpu-1x:300",
            "shared-cpu-1x:4096",
            "performance-1x:256",
            "performance-x",
        ] {
            assert_eq!(Preset::parse(odd), None, "{odd}");
        }
    }
}
