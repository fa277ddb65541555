//! The candidates of a request and the price list: what searches found, each limit checked again.
//! Pure, except for the memory of the account's handle.

use std::collections::BTreeSet;

use atlas_core::{
    Candidate, CloudType, ComputeRequest, GpuChoice, GpuType, MemorySize, ProviderId, Stock,
    Timestamp, Usd, UsdPerHour,
};

use crate::memory::Memory;
use crate::policy::OfferPolicy;
use crate::{catalogue, place, wire};

/// The default disk size, which is also the minimum.
const DEFAULT_DISK: u32 = 16;
const LEAST_DISK: u32 = 8;
/// Vast's month, by which it converts the price of storage to a price per hour.
const HOURS_A_MONTH: f64 = 30.0 * 24.0;

/// The disk to rent, in GB.
pub(crate) fn disk(request: &ComputeRequest) -> u32 {
    request
        .container_disk
        .map_or(DEFAULT_DISK, |disk| disk.as_gb())
        .max(LEAST_DISK)
}

/// The candidates of a request, best first: region hints in their order, then cheaper ones. Every
/// limit is checked again here.
pub(crate) fn candidates<'a>(
    offers: impl IntoIterator<Item = &'a wire::Offer>,
    request: &ComputeRequest,
    policy: &OfferPolicy,
    memory: &Memory,
) -> Vec<Candidate> {
    let mut seen = BTreeSet::new();
    let mut found: Vec<Candidate> = offers
        .into_iter()
        .filter(|offer| {
            seen.insert(offer.id)
                && fits(offer, request, policy)
                && !offer.machine_id.is_some_and(|host| memory.is_bad(host))
        })
        .filter_map(|offer| candidate(offer, request, policy))
        .filter(|candidate| {
            policy
                .max_price
                .is_none_or(|most| candidate.price.is_some_and(|price| price <= most))
        })
        .collect();
    let rank = |region: &Option<String>| {
        request
            .region_hints
            .iter()
            .position(|hint| region.as_ref().is_some_and(|own| place::is_same(own, hint)))
    };
    found.sort_by_key(|candidate| (rank(&candidate.region), candidate.price));
    found
}

/// The price list, one entry per GPU and country: the cheapest offer of each, for one GPU.
pub(crate) fn gpu_types<'a>(
    provider: &ProviderId,
    offers: impl IntoIterator<Item = &'a wire::Offer>,
    now: Timestamp,
) -> Vec<GpuType> {
    let mut lines: Vec<GpuType> = Vec::new();
    let mut counts: Vec<u32> = Vec::new();
    for offer in offers {
        let place = place::of(offer.geolocation.as_deref());
        let gpu = catalogue::gpu(&offer.gpu_name, whole(offer.gpu_ram));
        let each = |hourly: f64| {
            price(hourly / f64::from(offer.num_gpus.max(1)))
                .filter(|price| price.per_hour() > Usd::ZERO)
        };
        let (on_demand, spot) = (each(offer.dph_total), offer.min_bid.and_then(each));
        let same = |line: &GpuType| {
            line.native_id == offer.gpu_name && line.gpu == gpu && line.region == place
        };
        let index = lines.iter().position(same).unwrap_or_else(|| {
            let mut line = GpuType::new(
                provider.clone(),
                offer.gpu_name.clone(),
                MemorySize::mib(whole(offer.gpu_ram)),
                now,
            );
            (line.gpu, line.region) = (gpu, place.clone());
            lines.push(line);
            counts.push(0);
            lines.len() - 1
        });
        let line = &mut lines[index];
        let cheaper = |known: Option<UsdPerHour>, other: Option<UsdPerHour>| {
            known.into_iter().chain(other).min()
        };
        line.price = cheaper(line.price, on_demand);
        line.spot_price = cheaper(line.spot_price, spot);
        line.max_count = line.max_count.max(Some(offer.num_gpus));
        counts[index] += 1;
        line.stock = Some(match counts[index] {
            0 => Stock::None,
            1..=2 => Stock::Low,
            3..=5 => Stock::Medium,
            _ => Stock::High,
        });
    }
    lines
}

fn candidate(
    offer: &wire::Offer,
    request: &ComputeRequest,
    policy: &OfferPolicy,
) -> Option<Candidate> {
    let bid = if request.spot {
        Some(bid(offer, policy)?)
    } else {
        None
    };
    let mut candidate = Candidate::default();
    candidate.offer =
        Some(bid.map_or_else(|| offer.id.to_string(), |bid| format!("{}@{bid}", offer.id)));
    candidate.native_type = Some(offer.gpu_name.clone());
    candidate.gpu = catalogue::gpu(&offer.gpu_name, whole(offer.gpu_ram));
    candidate.region = place::of(offer.geolocation.as_deref());
    candidate.cloud_type = Some(tier(offer));
    // The disk is part of the bill. `dph_total` includes it if the search priced it; otherwise the
    // price is added up from its parts.
    let disk = storage(offer, disk(request));
    candidate.price = match (bid, disk) {
        (Some(bid), Some(disk)) => Some(price(bid + disk)?),
        // The price is unknown, and must not be assumed low.
        (Some(_), None) => None,
        (None, disk) => {
            let parts = offer.dph_base.zip(disk).map(|(base, disk)| base + disk);
            Some(price(parts.map_or(offer.dph_total, |parts| {
                parts.max(offer.dph_total)
            }))?)
        }
    };
    candidate.stock = Some(Stock::Low);
    Some(candidate)
}

fn fits(offer: &wire::Offer, request: &ComputeRequest, policy: &OfferPolicy) -> bool {
    let ram = whole(offer.gpu_ram);
    let card = match &request.gpu {
        Some(GpuChoice::Named(gpu)) => {
            let own = catalogue::names(*gpu)
                .into_iter()
                .find(|named| named.name == offer.gpu_name && named.ram.contains(&ram));
            own.is_some_and(|own| {
                catalogue::cuda(own.gpu)
                    .is_none_or(|least| offer.cuda_max_good.unwrap_or(0.0) >= least)
            })
        }
        Some(GpuChoice::AtLeast(vram)) => ram >= catalogue::reported(*vram),
        Some(GpuChoice::Native(name)) => offer.gpu_name == *name,
        _ => false,
    };
    let arch = match &request.gpu {
        Some(GpuChoice::Named(gpu)) => Some(catalogue::cpu_arch(Some(*gpu))),
        Some(GpuChoice::AtLeast(_)) => Some(catalogue::cpu_arch(None)),
        _ => None,
    };
    let ports = u32::try_from(request.ports.len()).unwrap_or(u32::MAX);
    let at_least = |value: Option<f64>, least: f64| value.is_some_and(|value| value >= least);
    // `cpu_ram` is the machine's, of which the offer gets its share (docs/clouds/vast.md,
    // "Offers").
    let cores = || Some(offer.cpu_cores_effective? / offer.cpu_cores?);
    let share = offer.gpu_frac.or_else(cores);
    let memory = offer.cpu_ram.zip(share).map(|(ram, share)| ram * share);
    card && offer.num_gpus == request.gpu_count
        && offer.rentable != Some(false)
        && offer.rented != Some(true)
        && offer.cpu_cores.is_some()
        && arch.is_none_or(|arch| offer.cpu_arch.as_deref().unwrap_or("amd64") == arch)
        && (!policy.verified || offer.verification.as_deref() == Some("verified"))
        && at_least(offer.reliability2, policy.min_reliability)
        && at_least(offer.inet_down, f64::from(policy.min_inet_down_mbps))
        && at_least(offer.duration, policy.min_duration.as_secs_f64())
        && at_least(offer.disk_space, f64::from(disk(request)))
        && (ports == 0 || at_least(offer.direct_port_count, f64::from(ports)))
        && request
            .memory
            .is_none_or(|least| at_least(memory, f64::from(least.as_mib())))
        && (request.cloud_type == CloudType::Any || tier(offer) == request.cloud_type)
        && (request.region_hints.is_empty()
            || place::of(offer.geolocation.as_deref()).is_some_and(|own| {
                request
                    .region_hints
                    .iter()
                    .any(|hint| place::is_same(&own, hint))
            }))
        && policy
            .machine_id
            .is_none_or(|machine| offer.machine_id == Some(machine))
        && offer
            .machine_id
            .map_or(policy.avoid_machines.is_empty(), |host| {
                !policy.avoid_machines.contains(&host)
            })
}

fn tier(offer: &wire::Offer) -> CloudType {
    if offer.hosting_type == Some(1) {
        CloudType::Secure
    } else {
        CloudType::Community
    }
}

/// The price per hour of this much disk of an offer: the search's own figure or the price per GB
/// and month, whichever is higher. `None` if the answer contains neither.
fn storage(offer: &wire::Offer, disk_gb: u32) -> Option<f64> {
    let monthly = offer
        .storage_cost
        .map(|cost| cost * f64::from(disk_gb) / HOURS_A_MONTH);
    largest(offer.storage_total_cost, monthly).filter(|cost| *cost >= 0.0)
}

pub(crate) fn largest(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(f64::max)
}

/// A bid slightly above the minimum, rounded up to three decimals.
fn bid(offer: &wire::Offer, policy: &OfferPolicy) -> Option<f64> {
    let least = offer.min_bid.filter(|least| *least > 0.0)?;
    let wanted = least * (1.0 + f64::from(policy.bid_over_minimum_percent) / 100.0);
    // Rounding errors of a float are no reason to bid more.
    Some((wanted * 1000.0 - 1e-6).ceil() / 1000.0)
}

pub(crate) fn price(hourly: f64) -> Option<UsdPerHour> {
    UsdPerHour::from_f64(hourly).filter(|price| price.per_hour() >= Usd::ZERO)
}

pub(crate) fn whole(number: f64) -> u32 {
    format!("{:.0}", number.clamp(0.0, 4e9))
        .parse()
        .unwrap_or(0)
}
