//! The candidates of a request and the price list: what Lambda's list of instance types offers.
//! Pure.

use std::collections::BTreeSet;

use atlas_core::{
    Candidate, CloudType, ComputeRequest, Error, ErrorKind, Gpu, GpuChoice, GpuType, MemorySize,
    Next, Outcome, ProviderId, Result, Stock, Timestamp, Usd, UsdPerHour,
};

use crate::network::Region;
use crate::{catalogue, wire};

/// The price of a GB on a file system for thirty days, in cents.
const FILE_SYSTEM_CENTS: i64 = 20;
const HOURS: i64 = 720;
/// Firewall rules do not apply there (docs/clouds/lambda.md), so a port can be guaranteed neither
/// to be reachable nor to be closed.
pub(crate) const REGION_WITHOUT_FIREWALL: &str = "us-south-1";

/// The candidates of a request, best first: region hints in their order, then cheaper types.
pub(crate) fn candidates(
    types: &wire::InstanceTypes,
    request: &ComputeRequest,
) -> Result<Vec<Candidate>> {
    let wanted = fitting_types(types, request)?;
    let mut found = Vec::new();
    for item in wanted {
        let kind = &item.instance_type;
        let open = |hint: &str| {
            item.regions_with_capacity_available
                .iter()
                .map(|region| region.name.as_str())
                .find(|name| name.eq_ignore_ascii_case(hint))
        };
        let regions: Vec<&str> = if request.region_hints.is_empty() {
            item.regions_with_capacity_available
                .iter()
                .map(|region| region.name.as_str())
                .collect()
        } else {
            request
                .region_hints
                .iter()
                .filter_map(|hint| open(hint))
                .collect()
        };
        for region in regions {
            if !request.ports.is_empty() && region == REGION_WITHOUT_FIREWALL {
                continue;
            }
            let mut candidate = Candidate::default();
            candidate.native_type = Some(kind.name.clone());
            candidate.gpu = catalogue::gpu(&kind.name);
            candidate.region = Some(region.to_owned());
            candidate.cloud_type = Some(CloudType::Secure);
            candidate.price = price(kind);
            candidate.stock = Some(Stock::Low);
            found.push(candidate);
        }
    }
    let rank = |region: &Option<String>| {
        request
            .region_hints
            .iter()
            .position(|hint| same_region(hint, region.as_deref()))
    };
    found.sort_by_key(|candidate| (rank(&candidate.region), candidate.price));
    Ok(found)
}

/// Compares regions without case.
pub(crate) fn same_region(hint: &str, region: Option<&str>) -> bool {
    region.is_some_and(|region| region.eq_ignore_ascii_case(hint))
}

/// The region hints that are missing in the price list. It contains only regions with a free
/// machine of some type, so a missing region may still exist.
pub(crate) fn hints_not_shown<'a>(
    types: &wire::InstanceTypes,
    request: &'a ComputeRequest,
) -> Vec<&'a str> {
    let shown = |hint: &&str| {
        types
            .types
            .values()
            .flat_map(|item| &item.regions_with_capacity_available)
            .any(|region| same_region(hint, Some(&region.name)))
    };
    let hints = request.region_hints.iter().map(String::as_str);
    hints.filter(|hint| !shown(hint)).collect()
}

/// Refuses a hint that is not a Lambda region: otherwise it would be treated as sold out and waited
/// for.
pub(crate) fn check_regions(hints: &[&str], known: &[Region]) -> Result<()> {
    let unknown = hints
        .iter()
        .find(|hint| !known.iter().any(|one| same_region(hint, Some(&one.name))));
    let Some(unknown) = unknown.filter(|_| !known.is_empty()) else {
        return Ok(());
    };
    let names: Vec<&str> = known.iter().map(|region| region.name.as_str()).collect();
    Err(Error::validation(
        "region_hints",
        format!(
            "lambda has no region {unknown:?}: it has {}",
            names.join(", ")
        ),
    ))
}

/// The types that fit exactly, whether or not one is free. Never a larger one: a request for one
/// GPU is not rounded up to eight.
fn fitting_types<'a>(
    types: &'a wire::InstanceTypes,
    request: &ComputeRequest,
) -> Result<Vec<&'a wire::InstanceTypeItem>> {
    if types.types.is_empty() {
        let error = Error::new(
            ErrorKind::Unavailable,
            "the price list is empty at the moment",
        );
        return Err(error.outcome_is(Outcome::NotApplied(Next::SameLater)));
    }
    let roomy = |kind: &wire::InstanceType| {
        request
            .memory
            .is_none_or(|memory| kind.specs.memory_gib >= Some(memory.as_mib().div_ceil(1024)))
    };
    let fitting: Vec<_> = match (&request.gpu, request.cpu) {
        (Some(GpuChoice::Named(gpu)), _) => of_card(types, *gpu)
            .filter(|item| item.instance_type.specs.gpus == request.gpu_count)
            .collect(),
        (Some(GpuChoice::Native(name)), _) => types.types.get(name).into_iter().collect(),
        (Some(GpuChoice::AtLeast(vram)), _) => types
            .types
            .values()
            .filter(|item| item.instance_type.specs.gpus == request.gpu_count)
            .filter(|item| vram_of(&item.instance_type).is_some_and(|own| own >= *vram))
            .collect(),
        (None, Some(cpus)) => types
            .types
            .values()
            .filter(|item| {
                item.instance_type.specs.gpus == 0 && item.instance_type.specs.vcpus >= Some(cpus)
            })
            .collect(),
        (None, None) => Vec::new(),
        (Some(_), _) => Vec::new(),
    };
    let fitting: Vec<_> = fitting
        .into_iter()
        .filter(|item| roomy(&item.instance_type))
        .collect();
    if fitting.is_empty() && types.complete {
        return Err(Error::unsupported("gpu", nothing_fits(types, request)));
    }
    Ok(fitting)
}

/// The types with this GPU, in any number.
fn of_card(types: &wire::InstanceTypes, gpu: Gpu) -> impl Iterator<Item = &wire::InstanceTypeItem> {
    types.types.values().filter(move |item| {
        catalogue::gpu(&item.instance_type.name).is_some_and(|card| gpu.variants().contains(&card))
    })
}

/// Why no type fits, with the available alternatives.
fn nothing_fits(types: &wire::InstanceTypes, request: &ComputeRequest) -> String {
    let Some(GpuChoice::Named(gpu)) = &request.gpu else {
        return "no instance type on lambda's price list fits the request".to_owned();
    };
    let counts: BTreeSet<u32> = of_card(types, *gpu)
        .map(|item| item.instance_type.specs.gpus)
        .collect();
    let count = request.gpu_count;
    if counts.is_empty() {
        return format!("lambda's price list has no {gpu}");
    }
    if counts.contains(&count) {
        return format!("no machine of lambda with {count} x {gpu} has as much memory");
    }
    let counts: Vec<String> = counts.iter().map(u32::to_string).collect();
    format!(
        "lambda has no machine with exactly {count} x {gpu}, only with {}",
        counts.join(", ")
    )
}

fn vram_of(kind: &wire::InstanceType) -> Option<MemorySize> {
    catalogue::vram(kind.gpu_description.as_deref()?)
}

/// Adds the price of this many GB on a file system, which bill in addition to the machine.
pub(crate) fn with_file_system(price: UsdPerHour, gb: u32) -> UsdPerHour {
    let storage = Usd::from_cents(FILE_SYSTEM_CENTS * i64::from(gb)).nanos() / HOURS;
    UsdPerHour::new(Usd::from_nanos(
        price.per_hour().nanos().saturating_add(storage),
    ))
}

pub(crate) fn price(kind: &wire::InstanceType) -> Option<UsdPerHour> {
    cents(kind.price_cents_per_hour)
}

/// Converts a plausible price: positive, and below a million dollars per hour.
pub(crate) fn cents(cents: i64) -> Option<UsdPerHour> {
    (0..100_000_000)
        .contains(&cents)
        .then(|| UsdPerHour::new(Usd::from_cents(cents)))
}

/// The price list: one entry per type and region with capacity, and one per type that is sold out
/// everywhere.
pub(crate) fn gpu_types(
    provider: &ProviderId,
    types: &wire::InstanceTypes,
    now: Timestamp,
) -> Vec<GpuType> {
    let mut lines = Vec::new();
    for item in types
        .types
        .values()
        .filter(|item| item.instance_type.specs.gpus > 0)
    {
        let kind = &item.instance_type;
        let count = kind.specs.gpus;
        let each = price(kind).map(|whole| whole.per_hour().nanos() / i64::from(count));
        let base = |stock| {
            let vram = vram_of(kind).unwrap_or(MemorySize::mib(0));
            let mut line = GpuType::new(provider.clone(), kind.name.clone(), vram, now);
            line.gpu = catalogue::gpu(&kind.name);
            line.display_name = kind
                .description
                .clone()
                .unwrap_or_else(|| kind.name.clone());
            line.price = each.map(|each| UsdPerHour::new(Usd::from_nanos(each)));
            line.max_count = Some(count);
            line.stock = Some(stock);
            line
        };
        if item.regions_with_capacity_available.is_empty() {
            lines.push(base(Stock::None));
        }
        for region in &item.regions_with_capacity_available {
            let mut line = base(Stock::Low);
            line.region = Some(region.name.clone());
            lines.push(line);
        }
    }
    lines
}
