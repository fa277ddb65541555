//! Converts requests to Lambda's API and Lambda's answers to atlas types. Pure.

use std::collections::BTreeSet;

use atlas_core::{
    CallContext, Candidate, CloudType, Compute, ComputeId, ComputeRequest, ComputeStatus, DiskSize,
    Error, ErrorKind, Gpu, GpuChoice, GpuType, KeyCarriers, LAUNCH_KEY_TAG, LaunchKey, MemorySize,
    NetworkVolume, Next, Outcome, Port, PortMapping, Protocol, ProviderId, Result, Stock,
    Timestamp, UnreadableRow, Usd, UsdPerHour, VolumeId,
};
use atlas_http::lenient;
use serde_json::{Value, json};

use crate::catalogue;
use crate::resources::{FirewallRule, Region};
use crate::wire;

/// The tag with a machine's ports, because Lambda does not report the requested ones.
const PORTS_TAG: &str = "atlas-ports";
/// The tag with the image's name.
const IMAGE_TAG: &str = "atlas-image";
/// The tag with the size of a mounted file system, in GB.
const FILE_SYSTEM_TAG: &str = "atlas-file-system-gb";
/// The price of a GB on a file system for thirty days, in cents.
const FILE_SYSTEM_CENTS: i64 = 20;
const HOURS: i64 = 720;
const MAX_TAG: usize = 128;
const MAX_NAME: usize = 64;
/// Firewall rules do not apply there (docs/clouds/lambda.md), so a port can be guaranteed neither
/// to be reachable nor to be closed.
const REGION_WITHOUT_FIREWALL: &str = "us-south-1";

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
fn same_region(hint: &str, region: Option<&str>) -> bool {
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

/// Checks for what Lambda would refuse or silently drop, before any request.
pub(crate) fn check(request: &ComputeRequest) -> Result<()> {
    let hinted = !request.region_hints.is_empty()
        && request
            .region_hints
            .iter()
            .all(|hint| same_region(hint, Some(REGION_WITHOUT_FIREWALL)));
    let pinned = request
        .candidate
        .as_ref()
        .is_some_and(|at| at.region.as_deref() == Some(REGION_WITHOUT_FIREWALL));
    if !request.ports.is_empty() && (hinted || pinned) {
        return Err(Error::validation(
            if pinned { "candidate" } else { "region_hints" },
            "lambda applies no firewall rules in us-south-1, so no port can be opened there",
        ));
    }
    if request.image.is_none() && !request.command.is_empty() {
        return Err(Error::validation(
            "command",
            "lambda runs a command only inside an image",
        ));
    }
    if request.ports.iter().any(|port| port.is_symmetric()) {
        return Err(Error::validation(
            "ports",
            "every port of lambda is symmetric already: name the port itself",
        ));
    }
    if !matches!(&request.provider_opts, Value::Null | Value::Object(_)) {
        return Err(Error::validation("provider_opts", "must be an object"));
    }
    crate::cloud_init::script(request, &request.env, false).map(|_| ())
}

/// The body of a launch. The candidate must be pinned.
pub(crate) fn launch(
    cx: &CallContext,
    key: &LaunchKey,
    request: &ComputeRequest,
    ssh_key: &str,
    ruleset: Option<String>,
) -> Result<wire::Launch> {
    let pinned = request
        .candidate
        .as_ref()
        .and_then(|candidate| candidate.region.clone().zip(candidate.native_type.clone()));
    let Some((region_name, instance_type_name)) = pinned else {
        return Err(Error::validation(
            "candidate",
            "lambda needs a region and an instance type: pin a candidate",
        ));
    };
    let arm64 = request
        .candidate
        .as_ref()
        .is_some_and(|candidate| candidate.gpu == Some(Gpu::Gh200));
    let user_data = crate::cloud_init::script(request, &request.environment(key), arm64)?;
    let mut tags = Vec::new();
    if let Some(key) = key.tracked() {
        tags.push(tag(LAUNCH_KEY_TAG, key.to_string()));
    }
    let ports = request
        .ports
        .iter()
        .map(Port::to_string)
        .collect::<Vec<_>>()
        .join(",");
    if !ports.is_empty() && ports.len() <= MAX_TAG {
        tags.push(tag(PORTS_TAG, ports));
    }
    if let Some(image) = request
        .image
        .as_ref()
        .filter(|image| image.len() <= MAX_TAG)
    {
        tags.push(tag(IMAGE_TAG, image.clone()));
    }
    Ok(wire::Launch {
        region_name,
        instance_type_name,
        ssh_key_names: [ssh_key.to_owned()],
        name: key.machine_name(cx.name_prefix(), request.name.as_deref()),
        user_data: user_data.map(|script| script.expose().to_owned()),
        file_system_names: request
            .network_volume_id
            .iter()
            .map(|id| id.as_str().to_owned())
            .collect(),
        tags,
        firewall_rulesets: ruleset.map(|id| wire::Id { id }).into_iter().collect(),
    })
}

fn tag(key: &str, value: String) -> wire::Tag {
    wire::Tag {
        key: key.to_owned(),
        value,
    }
}

/// Adds the price of this many GB on a file system, which bill in addition to the machine.
pub(crate) fn with_file_system(price: UsdPerHour, gb: u32) -> UsdPerHour {
    let storage = Usd::from_cents(FILE_SYSTEM_CENTS * i64::from(gb)).nanos() / HOURS;
    UsdPerHour::new(Usd::from_nanos(
        price.per_hour().nanos().saturating_add(storage),
    ))
}

/// Records the size of the mounted file system in a machine's tags.
pub(crate) fn note_file_system(launch: &mut wire::Launch, gb: u32) {
    launch.tags.push(tag(FILE_SYSTEM_TAG, gb.to_string()));
}

/// The size of the contents of the file system that a request mounts.
pub(crate) fn mounted_gb(id: &VolumeId, found: Vec<wire::FileSystem>) -> Result<u32> {
    let read = found.into_iter().find(|one| one.name == id.as_str());
    let read = read.ok_or_else(|| {
        Error::validation(
            "network_volume_id",
            format!("the account has no file system {:?}", id.as_str()),
        )
    })?;
    Ok(file_system(read)?.size.as_gb())
}

/// The rules of a machine's own rule set. Port 22 is always included, because Lambda does not
/// document whether a rule set adds to the account's rules.
pub(crate) fn rules(ports: &[u16]) -> Vec<FirewallRule> {
    let mut ports: Vec<u16> = ports.iter().copied().chain([22]).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
        .into_iter()
        .map(|port| FirewallRule::tcp(port..=port, "atlas"))
        .collect()
}

/// Converts a machine. If it has an id, it is parsed, whatever else is wrong with it.
pub(crate) fn compute(provider: &ProviderId, raw: Value) -> Result<Compute, UnreadableRow> {
    let instance: wire::Instance = lenient::row(&raw)?;
    let id =
        ComputeId::new(&instance.id).map_err(|error| UnreadableRow::of(&raw, error.message()))?;
    let tagged = |name: &str| {
        instance
            .tags
            .iter()
            .find(|tag| tag.key.as_deref() == Some(name))
            .and_then(|tag| tag.value.as_deref())
    };
    let mut compute = Compute::new(id, provider.clone(), status(&instance.status));
    compute.keys = KeyCarriers::name_and_tag(
        instance.name.as_deref().unwrap_or_default(),
        tagged(LAUNCH_KEY_TAG),
    );
    // No `created_at`: Lambda does not report one, and with the time in the key a copy would look
    // as old as its original.
    compute.ports = tagged(PORTS_TAG)
        .unwrap_or_default()
        .split(',')
        .filter_map(|port| port.parse::<Port>().ok())
        .map(|port| port_mapping(port, instance.ip.as_deref()))
        .collect();
    compute.preempted = instance.status == "preempted";
    compute.image = tagged(IMAGE_TAG).map(str::to_owned);
    let storage = tagged(FILE_SYSTEM_TAG).and_then(|gb| gb.parse().ok());
    let kind = instance.instance_type;
    compute.gpu_type = kind.name.as_deref().and_then(catalogue::gpu);
    compute.gpu_count = kind.specs.gpus.unwrap_or(0);
    compute.cost_per_hour = kind
        .price_cents_per_hour
        .and_then(cents)
        .map(|price| with_file_system(price, storage.unwrap_or(0)));
    compute.native_type = kind.name;
    compute.region = instance.region.and_then(|region| region.name);
    compute.public_ip = instance.ip;
    compute.name = instance.name;
    compute.raw = wire::redacted(raw).into();
    Ok(compute)
}

/// Converts a plausible price: positive, and below a million dollars per hour.
fn cents(cents: i64) -> Option<UsdPerHour> {
    (0..100_000_000)
        .contains(&cents)
        .then(|| UsdPerHour::new(Usd::from_cents(cents)))
}

fn port_mapping(port: Port, ip: Option<&str>) -> PortMapping {
    let external = u16::try_from(port.number()).ok();
    let scheme = if port.protocol() == Protocol::Http {
        "http"
    } else {
        "tcp"
    };
    PortMapping {
        internal: port.number(),
        external: ip.and(external),
        protocol: port.protocol(),
        url: ip.map(|ip| format!("{scheme}://{ip}:{}", port.number())),
    }
}

/// `unhealthy` is alive and bills; so is any unknown word. `preempted` is gone.
fn status(word: &str) -> ComputeStatus {
    match word {
        "booting" => ComputeStatus::Provisioning,
        "active" => ComputeStatus::Running,
        "unhealthy" => ComputeStatus::Failed,
        "terminated" | "preempted" => ComputeStatus::Terminated,
        other => ComputeStatus::Other(other.to_owned()),
    }
}

fn price(kind: &wire::InstanceType) -> Option<UsdPerHour> {
    cents(kind.price_cents_per_hour)
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

/// The workspace that its global rules are named after (`Default Workspace Global Rules`); `None`
/// for the default one, and if the name contains no workspace.
pub(crate) fn workspace(global_rules: &str) -> Option<String> {
    let name = global_rules.strip_suffix(" Global Rules")?.trim();
    let plain: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
    (!plain.is_empty() && !plain.eq_ignore_ascii_case("default workspace")).then_some(plain)
}

/// The parameters of a machine's rule set; `None` while its region is not decided.
pub(crate) fn ruleset_spec(request: &ComputeRequest) -> Option<Value> {
    let pinned = request
        .candidate
        .as_ref()
        .and_then(|candidate| candidate.region.as_deref());
    // Region names are in lower case.
    let region = match (pinned, &request.region_hints[..]) {
        (Some(region), _) => region.to_owned(),
        (None, [only]) => only.to_ascii_lowercase(),
        (None, _) => return None,
    };
    Some(json!({ "region": region,
            "ports": request.ports.iter().map(|port| port.number()).collect::<Vec<_>>() }))
}

/// The name of a rule set that all machines with these ports in that region can share. Long lists
/// are distinguished by a digest.
pub(crate) fn shared_ruleset_name(spec: &Value) -> String {
    let mut ports: Vec<u64> = spec["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    let ports = ports
        .iter()
        .map(u64::to_string)
        .collect::<Vec<_>>()
        .join("-");
    let name = |ports: &str| {
        format!(
            "atlas-{}-{ports}",
            spec["region"].as_str().unwrap_or_default()
        )
    };
    if name(&ports).len() <= MAX_NAME {
        return name(&ports);
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, ports.as_bytes());
    name(&data_encoding::HEXLOWER.encode(&digest.as_ref()[..12]))
}

/// Parses region and ports of a rule set.
pub(crate) fn read_ruleset_spec(spec: &Value) -> Result<(String, Vec<u16>)> {
    let wrong = || Error::validation("support", "is not a rule set of lambda");
    let region = spec["region"].as_str().ok_or_else(wrong)?.to_owned();
    let port = |port: &Value| {
        port.as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .ok_or_else(wrong)
    };
    let ports = spec["ports"]
        .as_array()
        .ok_or_else(wrong)?
        .iter()
        .map(port)
        .collect::<Result<_>>()?;
    Ok((region, ports))
}

/// A machine that was just ordered and has not been read yet.
pub(crate) fn launched(
    provider: &ProviderId,
    id: ComputeId,
    launch: &wire::Launch,
    request: &ComputeRequest,
) -> Compute {
    let tagged = launch
        .tags
        .iter()
        .find(|tag| tag.key == LAUNCH_KEY_TAG)
        .map(|tag| tag.value.as_str());
    let mut compute = Compute::new(id, provider.clone(), ComputeStatus::Provisioning);
    compute.keys = KeyCarriers::name_and_tag(&launch.name, tagged);
    compute.ports = request
        .ports
        .iter()
        .map(|port| port_mapping(*port, None))
        .collect();
    compute.gpu_type = catalogue::gpu(&launch.instance_type_name);
    compute.gpu_count = if request.gpu.is_some() {
        request.gpu_count
    } else {
        0
    };
    compute.cost_per_hour = request
        .candidate
        .as_ref()
        .and_then(|candidate| candidate.price);
    compute.native_type = Some(launch.instance_type_name.clone());
    compute.region = Some(launch.region_name.clone());
    compute.image.clone_from(&request.image);
    compute.name = Some(launch.name.clone());
    compute
}

/// Converts a file system; a launch mounts it by its name.
pub(crate) fn file_system(read: wire::FileSystem) -> Result<NetworkVolume> {
    let gb = read.bytes_used.unwrap_or(0).div_ceil(1_000_000_000);
    let id = VolumeId::new(&read.name).map_err(|error| implausible().with_source(error))?;
    Ok(NetworkVolume::new(
        id,
        read.name,
        DiskSize::gb(u32::try_from(gb).unwrap_or(u32::MAX)),
        read.region.name,
    ))
}

fn implausible() -> Error {
    Error::new(
        atlas_core::ErrorKind::Provider,
        "the description of an instance could not be understood",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_sets_are_shared_by_the_same_ports_in_one_region_only() {
        let name = |region: &str, ports: &[u16]| {
            shared_ruleset_name(&json!({ "region": region, "ports": ports }))
        };
        assert_eq!(
            name("us-east-1", &[8000, 22, 8000]),
            "atlas-us-east-1-22-8000"
        );
        let many: Vec<u16> = (8000..8030).collect();
        let other: Vec<u16> = (8000..8029).chain([9000]).collect();
        assert_ne!(name("us-east-1", &many), name("us-east-1", &other));
        assert_ne!(name("us-east-1", &many), name("us-west-2", &many));
        assert!(name("asia-northeast-1", &many).len() <= MAX_NAME);
    }
}
