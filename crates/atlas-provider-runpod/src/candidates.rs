//! The candidates for a request, best first: matches the catalogue's two tiers with the request.
//! Pure.
//!
//! Order: the request's GPUs (in the order of a family; by price for "at least this much memory"),
//! then tiers (for "any", the cheaper first), then the request's regions. Entries that the
//! catalogue reports as sold out are left out; entries without stock information are kept.

use std::collections::BTreeSet;

use atlas_core::{
    Candidate, CloudType, ComputeRequest, Error, GpuChoice, GpuType, MemorySize, ProviderId,
    Result, Stock, Timestamp, UsdPerHour,
};

use crate::catalogue;
use crate::wire;

/// The tiers that a request allows. Network volumes exist in the secure tier only
/// (docs/clouds/runpod.md, "Network volumes").
pub(crate) fn tiers(request: &ComputeRequest) -> &'static [CloudType] {
    match request.cloud_type {
        CloudType::Secure => &[CloudType::Secure],
        CloudType::Community => &[CloudType::Community],
        CloudType::Any if request.network_volume_id.is_some() || request.cpu.is_some() => {
            &[CloudType::Secure]
        }
        CloudType::Any => &[CloudType::Secure, CloudType::Community],
    }
}

/// The regions of a request, in the upper case of RunPod's ids: parts of its API accept lower case
/// and then misbehave.
pub(crate) fn regions(request: &ComputeRequest) -> Vec<String> {
    let hints = request.region_hints.iter();
    hints.map(|region| region.to_ascii_uppercase()).collect()
}

/// Refuses regions that none of these data centres is, or is in.
///
/// # Errors
/// `validation`, naming the data centres.
pub(crate) fn known_regions(regions: &[String], centres: &[String]) -> Result<()> {
    let is_known = |region: &String| {
        centres
            .iter()
            .any(|centre| centre == region || catalogue::country(centre) == Some(region))
    };
    match regions.iter().find(|region| !is_known(region)) {
        Some(unknown) if !centres.is_empty() => Err(Error::validation(
            "region_hints",
            format!(
                "runpod has no data centre or country {unknown:?}: it has {}",
                centres.join(", ")
            ),
        )),
        _ => Ok(()),
    }
}

/// The tier's name in RunPod's API.
pub(crate) fn cloud(tier: CloudType) -> &'static str {
    if tier == CloudType::Community {
        "COMMUNITY"
    } else {
        "SECURE"
    }
}

/// The catalogue with the stock of one tier.
#[derive(Debug)]
pub(crate) struct Tier {
    pub(crate) tier: CloudType,
    pub(crate) gpus: Vec<wire::GpuType>,
    /// Whether there are GPUs and all of them could be read. Only then does a missing GPU mean that
    /// RunPod does not have it.
    pub(crate) complete: bool,
}

fn price(gpu: &wire::GpuType, tier: CloudType) -> Option<UsdPerHour> {
    // If the community tier does not offer a GPU, its price holds a placeholder, 0.5 or 0.
    let (offered, price) = if tier == CloudType::Community {
        (gpu.community, gpu.price.community)
    } else {
        (gpu.secure, gpu.price.secure)
    };
    price.filter(|_| offered).and_then(UsdPerHour::from_f64)
}

fn offered(gpu: &wire::GpuType, tier: CloudType) -> bool {
    if tier == CloudType::Community {
        gpu.community
    } else {
        gpu.secure
    }
}

fn max_count(gpu: &wire::GpuType, tier: CloudType) -> Option<u32> {
    if tier == CloudType::Community {
        gpu.max_count.community
    } else {
        gpu.max_count.secure
    }
    .filter(|most| *most > 0)
}

pub(crate) fn stock(word: Option<&str>) -> Option<Stock> {
    match word? {
        "NONE" => Some(Stock::None),
        "LOW" => Some(Stock::Low),
        "MEDIUM" => Some(Stock::Medium),
        "HIGH" => Some(Stock::High),
        _ => None,
    }
}

/// Where to order: `None` for anywhere, else one entry per place that fits the request's regions,
/// in their order.
///
/// A region is a data centre's id or a two-letter country code. Where the catalogue lists no data
/// centres (community), a data centre requested by its id is still tried, and a country cannot be.
fn places(
    wanted: &[String],
    listed: &[wire::DataCenterStock],
    overall: Option<&str>,
) -> Vec<(Option<String>, Option<Stock>)> {
    if wanted.is_empty() {
        return vec![(None, stock(overall))];
    }
    let mut seen = BTreeSet::new();
    let mut places = Vec::new();
    for region in wanted {
        let fits = |centre: &&wire::DataCenterStock| {
            centre.id == *region || catalogue::country(&centre.id) == Some(region)
        };
        let known: Vec<_> = listed
            .iter()
            .filter(fits)
            .map(|centre| (centre.id.clone(), stock(centre.availability.as_deref())))
            .collect();
        let blind = listed.is_empty() && stock(overall) != Some(Stock::None) && region.len() > 2;
        let blind = blind.then(|| (region.clone(), stock(overall)));
        places.extend(
            known
                .into_iter()
                .chain(blind)
                .filter(|(id, _)| seen.insert(id.clone()))
                .map(|(id, stock)| (Some(id), stock)),
        );
    }
    places
}

/// The candidates of a GPU request.
///
/// # Errors
/// `validation` if the catalogue shows that no offer could ever fit.
pub(crate) fn gpus(
    request: &ComputeRequest,
    regions: &[String],
    catalogue: &[Tier],
) -> Result<Vec<Candidate>> {
    let choice = request
        .gpu
        .as_ref()
        .ok_or_else(|| Error::validation("gpu", "names no gpu"))?;
    let mut found: Vec<(usize, Option<UsdPerHour>, usize, Vec<Candidate>)> = Vec::new();
    let (mut known, mut fits) = (false, false);
    for (tier_rank, Tier { tier, gpus, .. }) in catalogue.iter().enumerate() {
        for gpu in gpus {
            let Some(rank) = rank(choice, gpu) else {
                continue;
            };
            known = true;
            if !offered(gpu, *tier)
                || max_count(gpu, *tier).is_some_and(|most| most < request.gpu_count)
            {
                continue;
            }
            fits = true;
            let price = price(gpu, *tier).map(|each| each.times(request.gpu_count));
            let at = places(regions, &gpu.data_centers, gpu.availability.as_deref());
            let candidates = at
                .into_iter()
                .filter(|(_, stock)| *stock != Some(Stock::None))
                .map(|(region, stock)| {
                    let mut candidate = Candidate::default();
                    candidate.native_type = Some(gpu.id.clone());
                    candidate.gpu = catalogue::canonical(&gpu.id);
                    candidate.region = region;
                    candidate.cloud_type = Some(*tier);
                    candidate.price = price;
                    candidate.stock = stock;
                    candidate
                });
            found.push((rank, price, tier_rank, candidates.collect()));
        }
    }
    if !known {
        return Err(Error::validation("gpu", "is not in runpod's catalogue"));
    }
    if !fits && request.gpu_count > 1 {
        return Err(Error::validation(
            "gpu_count",
            "is more than runpod puts into one pod",
        ));
    }
    // An unknown price sorts last, because it need not be low.
    found.sort_by_key(|(rank, price, tier, _)| (*rank, price.is_none(), *price, *tier));
    Ok(found
        .into_iter()
        .flat_map(|(.., candidates)| candidates)
        .collect())
}

/// The position of a GPU in the request's own list; `None` if it is not listed.
fn rank(choice: &GpuChoice, gpu: &wire::GpuType) -> Option<usize> {
    match choice {
        GpuChoice::Named(name) => catalogue::cards(*name)
            .iter()
            .position(|(_, id)| *id == gpu.id),
        GpuChoice::Native(id) => (*id == gpu.id).then_some(0),
        GpuChoice::AtLeast(memory) => gpu
            .memory
            .is_some_and(|own| MemorySize::gib(own) >= *memory)
            .then_some(0),
        _ => None,
    }
}

/// The candidates of a CPU request, the cheapest flavour first.
///
/// # Errors
/// `validation` if no flavour has such a shape.
pub(crate) fn cpus(
    request: &ComputeRequest,
    regions: &[String],
    flavours: &[wire::CpuType],
) -> Result<Vec<Candidate>> {
    let vcpus = request
        .cpu
        .ok_or_else(|| Error::validation("cpu", "names no number of cpus"))?;
    let fits = |flavour: &&wire::CpuType| {
        let wide = flavour.vcpu.as_ref().is_none_or(|range| {
            range.min.is_none_or(|min| min <= vcpus) && range.max.is_none_or(|max| max >= vcpus)
        });
        let gib = flavour.ram_gb_per_vcpu.map(|each| each * f64::from(vcpus));
        wide && request
            .memory
            .is_none_or(|least| gib.is_some_and(|gib| gib * 1024.0 >= f64::from(least.as_mib())))
    };
    let mut fitting: Vec<_> = flavours.iter().filter(fits).collect();
    if fitting.is_empty() {
        return Err(Error::validation(
            "cpu",
            "is a shape that no cpu flavour of runpod has",
        ));
    }
    let price = |flavour: &wire::CpuType| {
        let each = flavour
            .price
            .as_ref()
            .and_then(|price| price.secure_per_vcpu);
        each.and_then(UsdPerHour::from_f64)
            .map(|each| each.times(vcpus))
    };
    fitting.sort_by_key(|flavour| (price(flavour).is_none(), price(flavour), flavour.id.clone()));
    let all = fitting.into_iter().flat_map(|flavour| {
        let at = places(
            regions,
            &flavour.data_centers,
            flavour.availability.as_deref(),
        );
        let candidates = at
            .into_iter()
            .filter(|(_, stock)| *stock != Some(Stock::None))
            .map(|(region, stock)| {
                let mut candidate = Candidate::default();
                candidate.native_type = Some(flavour.id.clone());
                candidate.region = region;
                candidate.cloud_type = Some(CloudType::Secure);
                candidate.price = price(flavour);
                candidate.stock = stock;
                candidate
            });
        candidates.collect::<Vec<_>>()
    });
    Ok(all.collect())
}

/// The price list: one entry per GPU, tier and data centre; without a region where the catalogue
/// lists no data centres.
pub(crate) fn price_list(
    provider: &ProviderId,
    catalogue: &[Tier],
    now: Timestamp,
) -> Vec<GpuType> {
    let mut lines = Vec::new();
    for Tier { tier, gpus, .. } in catalogue {
        for gpu in gpus.iter().filter(|gpu| offered(gpu, *tier)) {
            let line = |region: Option<&str>, word: Option<&str>| {
                let vram = MemorySize::gib(gpu.memory.unwrap_or(0));
                let mut line = GpuType::new(provider.clone(), &gpu.id, vram, now);
                line.gpu = catalogue::canonical(&gpu.id);
                line.display_name = gpu.name.clone().unwrap_or_else(|| gpu.id.clone());
                line.cloud_type = Some(*tier);
                line.region = region.map(str::to_owned);
                line.price = price(gpu, *tier);
                line.stock = stock(word);
                line.max_count = max_count(gpu, *tier);
                line
            };
            if gpu.data_centers.is_empty() {
                lines.push(line(None, gpu.availability.as_deref()));
            }
            lines.extend(
                gpu.data_centers
                    .iter()
                    .map(|centre| line(Some(&centre.id), centre.availability.as_deref())),
            );
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::{ErrorKind, Gpu};
    use serde_json::json;

    fn catalogue() -> Vec<Tier> {
        let gpu = |id: &str,
                   memory: u32,
                   secure: f64,
                   community: f64,
                   stock: [&str; 2],
                   centres: &[(&str, &str)],
                   tier: CloudType| {
            let centres: Vec<_> = centres
                .iter()
                .map(|(id, word)| json!({"id": id, "name": id, "availability": word}))
                .collect();
            let secure_tier = tier == CloudType::Secure;
            serde_json::from_value(json!({
                "id": id, "name": id, "pool": null, "manufacturer": "NVIDIA", "memory": memory,
                "secure": secure > 0.0, "community": community > 0.0,
                "price": {"secure": if secure > 0.0 { secure } else { 0.5 },
                    "community": if community > 0.0 { community } else { 0.5 }},
                "maxCount": {"secure": 8, "community": if community > 0.0 { 2 } else { 0 }},
                "availability": stock[usize::from(!secure_tier)],
                "dataCenters": if secure_tier { json!(centres) } else { json!(null) },
            }))
            .unwrap()
        };
        [CloudType::Secure, CloudType::Community]
            .map(|tier| Tier {
                tier,
                complete: true,
                gpus: vec![
                    gpu(
                        "NVIDIA H100 80GB HBM3",
                        80,
                        3.49,
                        2.69,
                        ["LOW", "HIGH"],
                        &[("EU-RO-1", "LOW"), ("US-KS-2", "HIGH")],
                        tier,
                    ),
                    gpu(
                        "NVIDIA H100 PCIe",
                        80,
                        2.89,
                        0.0,
                        ["HIGH", "NONE"],
                        &[("EU-RO-1", "HIGH"), ("EU-CZ-1", "NONE")],
                        tier,
                    ),
                    gpu("NVIDIA L40S", 48, 1.09, 0.79, ["NONE", "NONE"], &[], tier),
                    gpu(
                        "NVIDIA Something New",
                        200,
                        0.0,
                        9.0,
                        ["NONE", "LOW"],
                        &[],
                        tier,
                    ),
                ],
            })
            .into()
    }

    fn shown(request: &ComputeRequest, regions: &[&str]) -> Vec<String> {
        let regions: Vec<_> = regions.iter().map(|region| (*region).to_owned()).collect();
        let tiers = tiers(request);
        let catalogue: Vec<_> = catalogue()
            .into_iter()
            .filter(|tier| tiers.contains(&tier.tier))
            .collect();
        let show = |c: Candidate| {
            let price = c
                .price
                .map_or("-".to_owned(), |price| price.per_hour().nanos().to_string());
            format!(
                "{} {} {} {price}",
                c.native_type.unwrap_or_default().replace("NVIDIA ", ""),
                cloud(c.cloud_type.unwrap()),
                c.region.unwrap_or("*".to_owned())
            )
        };
        gpus(request, &regions, &catalogue)
            .unwrap()
            .into_iter()
            .map(show)
            .collect()
    }

    #[test]
    fn a_family_is_tried_card_by_card_and_the_cheaper_tier_first() {
        assert_eq!(
            shown(&ComputeRequest::gpu(Gpu::H100).image("x"), &[]),
            [
                "H100 80GB HBM3 COMMUNITY * 2690000000",
                "H100 80GB HBM3 SECURE * 3490000000",
                "H100 PCIe SECURE * 2890000000"
            ]
        );
    }

    #[test]
    fn regions_are_tried_in_the_order_asked_and_a_country_means_its_data_centres() {
        let secure = ComputeRequest::gpu(Gpu::H100)
            .image("x")
            .cloud_type(CloudType::Secure);
        assert_eq!(
            shown(&secure, &["US", "RO", "EU-RO-1"]),
            [
                "H100 80GB HBM3 SECURE US-KS-2 3490000000",
                "H100 80GB HBM3 SECURE EU-RO-1 3490000000",
                "H100 PCIe SECURE EU-RO-1 2890000000"
            ]
        );
        let community = ComputeRequest::gpu(Gpu::H100Sxm)
            .image("x")
            .cloud_type(CloudType::Community);
        assert_eq!(
            shown(&community, &["US", "EU-RO-1"]),
            ["H100 80GB HBM3 COMMUNITY EU-RO-1 2690000000"]
        );
    }

    #[test]
    fn at_least_so_much_memory_is_answered_by_price() {
        assert_eq!(
            shown(
                &ComputeRequest::gpu(GpuChoice::AtLeast(MemorySize::gib(80))).image("x"),
                &[]
            ),
            [
                "H100 80GB HBM3 COMMUNITY * 2690000000",
                "H100 PCIe SECURE * 2890000000",
                "H100 80GB HBM3 SECURE * 3490000000",
                "Something New COMMUNITY * 9000000000"
            ]
        );
    }

    #[test]
    fn a_price_is_of_the_whole_machine_and_a_tier_that_is_too_small_is_left_out() {
        assert_eq!(
            shown(
                &ComputeRequest::gpu(Gpu::H100Sxm).gpu_count(4).image("x"),
                &[]
            ),
            ["H100 80GB HBM3 SECURE * 13960000000"]
        );
    }

    #[test]
    fn sold_out_is_empty_and_what_can_never_fit_is_an_error_that_names_its_field() {
        assert_eq!(
            shown(&ComputeRequest::gpu(Gpu::L40S).image("x"), &[]),
            [""; 0]
        );
        for (field, request) in [
            (
                "gpu",
                ComputeRequest::gpu(GpuChoice::Native("NVIDIA Nope".to_owned())),
            ),
            ("gpu", ComputeRequest::gpu(Gpu::B200)),
            ("gpu_count", ComputeRequest::gpu(Gpu::H100).gpu_count(9)),
        ] {
            let error = gpus(&request.image("x"), &[], &catalogue()).unwrap_err();
            assert_eq!(
                (error.kind(), error.field()),
                (ErrorKind::Validation, Some(field))
            );
        }
    }

    #[test]
    fn a_placeholder_price_is_never_shown() {
        let lines = price_list(
            &ProviderId::new("runpod").unwrap(),
            &catalogue(),
            Timestamp::UNIX_EPOCH,
        );
        let of = |id: &str| {
            lines
                .iter()
                .filter(|line| line.native_id == id)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of("NVIDIA H100 PCIe").len(),
            2,
            "two data centres, and no community tier"
        );
        let new = of("NVIDIA Something New");
        assert_eq!(
            (new.len(), new[0].cloud_type, new[0].stock, new[0].gpu),
            (1, Some(CloudType::Community), Some(Stock::Low), None)
        );
        assert_eq!(new[0].vram, MemorySize::gib(200));
        assert!(lines.iter().all(|line| line.price.is_some()));
    }

    #[test]
    fn a_cpu_request_gets_the_cheapest_flavour_that_is_large_enough() {
        let flavour = |id: &str, ram: f64, price: f64| {
            let range = json!({"min": 2, "max": 32});
            json!({"id": id, "name": id, "group": "g", "vcpu": range, "ramGbPerVcpu": ram,
                "price": {"securePerVcpu": price}, "availability": "HIGH"})
        };
        let flavours: Vec<wire::CpuType> = serde_json::from_value(json!([
            flavour("cpu3m", 8.0, 0.05),
            flavour("cpu3c", 2.0, 0.03),
            flavour("cpu3g", 4.0, 0.04)
        ]))
        .unwrap();
        let ids = |request: ComputeRequest| {
            cpus(&request, &[], &flavours).map(|all| {
                all.into_iter()
                    .filter_map(|c| c.native_type)
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(
            ids(ComputeRequest::cpu(4).image("x")).unwrap(),
            ["cpu3c", "cpu3g", "cpu3m"]
        );
        assert_eq!(
            ids(ComputeRequest::cpu(4)
                .memory(MemorySize::gib(16))
                .image("x"))
            .unwrap(),
            ["cpu3g", "cpu3m"]
        );
        assert_eq!(
            ids(ComputeRequest::cpu(64).image("x")).unwrap_err().field(),
            Some("cpu")
        );
    }
}
