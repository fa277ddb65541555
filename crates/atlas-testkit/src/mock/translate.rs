//! Converts between the contract's types and the world's: pure functions.

use std::collections::BTreeMap;

use atlas_core::{
    Candidate, CloudType, Compute, ComputeId, ComputeRequest, ComputeStatus, Error, ErrorKind,
    GpuChoice, KeyCarriers, LAUNCH_KEY_TAG, LaunchKey, MemorySize, Next, Outcome, PortMapping,
    Protocol, ProviderId, REDACTED, Result, Timestamp, UnreadableRow,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{CLOUD, TEMPLATE};
use crate::conformance::Rewrite;
use crate::world::{
    CloudSpec, Machine, MachineSpec, MachineState, Refusal, Shape, World, stock_level,
};

/// What could be tried for a request, best first: the variants of a card in their order, then the
/// cheaper, then the regions in theirs.
pub(super) fn candidates(world: &World, request: &ComputeRequest) -> Vec<Candidate> {
    let Some(cloud) = world.cloud(CLOUD) else {
        return Vec::new();
    };
    let count = units(request);
    let wanted: Vec<String> = request.region_hints.clone();
    let regions: Vec<String> = if wanted.is_empty() {
        cloud
            .regions
            .iter()
            .map(|region| region.id.clone())
            .collect()
    } else {
        wanted
    };
    let mut found = Vec::new();
    for (rank, shape) in shapes(&cloud, request) {
        for (tier_name, tier) in &shape.tiers {
            let cloud_type = cloud_type(tier_name);
            let fits = count <= tier.max_count
                && (request.cloud_type == CloudType::Any || cloud_type == Some(request.cloud_type));
            let stock = world.stock(CLOUD, &shape.native, tier_name);
            for (place, region) in regions.iter().enumerate() {
                let free = stock.get(region).copied().unwrap_or(0);
                if fits && count <= free {
                    let mut candidate = Candidate::default();
                    candidate.native_type = Some(shape.native.clone());
                    candidate.gpu = shape.gpu;
                    candidate.region = Some(region.clone());
                    candidate.cloud_type = cloud_type;
                    candidate.price = Some(tier.price.times(count));
                    candidate.stock = Some(stock_level(free));
                    found.push(((rank, tier.price, place), candidate));
                }
            }
        }
    }
    found.sort_by_key(|(order, _)| *order);
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

/// The shapes that fit a request, with their rank.
fn shapes<'a>(cloud: &'a CloudSpec, request: &ComputeRequest) -> Vec<(usize, &'a Shape)> {
    let count = units(request);
    let enough = |shape: &Shape| {
        request
            .memory
            .is_none_or(|memory| MemorySize::gib(shape.ram_gb.saturating_mul(count)) >= memory)
    };
    let rank = |shape: &Shape| match &request.gpu {
        None => (shape.vram_gb == 0).then_some(0),
        Some(GpuChoice::Native(id)) => (shape.native == *id).then_some(0),
        Some(GpuChoice::AtLeast(size)) => {
            (shape.vram_gb > 0 && MemorySize::gib(shape.vram_gb) >= *size).then_some(0)
        }
        Some(GpuChoice::Named(gpu)) => shape
            .gpu
            .and_then(|card| gpu.variants().iter().position(|variant| *variant == card)),
        Some(_) => None,
    };
    cloud
        .shapes
        .iter()
        .filter(|shape| enough(shape))
        .filter_map(|shape| rank(shape).map(|rank| (rank, shape)))
        .collect()
}

fn units(request: &ComputeRequest) -> u32 {
    request.cpu.unwrap_or(request.gpu_count)
}

pub(super) fn cloud_type(tier: &str) -> Option<CloudType> {
    match tier {
        "secure" => Some(CloudType::Secure),
        "community" => Some(CloudType::Community),
        _ => None,
    }
}

/// The tier of a candidate, as the world calls it.
fn tier(cloud_type: Option<CloudType>) -> Option<String> {
    match cloud_type? {
        CloudType::Secure => Some("secure".to_owned()),
        CloudType::Community => Some("community".to_owned()),
        CloudType::Any => None,
    }
}

/// The order for a request pinned to a candidate.
pub(super) fn order(
    prefix: &str,
    key: &LaunchKey,
    request: &ComputeRequest,
    candidate: &Candidate,
) -> MachineSpec {
    let mut spec = MachineSpec::gpu(
        candidate.native_type.clone().unwrap_or_default(),
        units(request),
    );
    spec.tier = tier(candidate.cloud_type);
    spec.regions = candidate.region.iter().cloned().collect();
    spec.name = key.machine_name(prefix, request.name.as_deref());
    spec.tags = key
        .tracked()
        .map(|key| BTreeMap::from([(LAUNCH_KEY_TAG.to_owned(), key.to_string())]))
        .unwrap_or_default();
    spec.env = request.environment(key);
    spec.image = request
        .image
        .clone()
        .unwrap_or_else(|| format!("{TEMPLATE}:1"));
    spec.command.clone_from(&request.command);
    spec.ports.clone_from(&request.ports);
    spec.disk_gb = request.container_disk.map_or(0, |size| size.as_gb());
    spec.volume_gb = request.volume.map_or(0, |size| size.as_gb());
    spec.spot = request.spot;
    spec.extra = json!({ "network_volume_id": request.network_volume_id,
        "provider_opts": request.provider_opts });
    spec
}

/// A machine as the contract describes one.
pub(super) fn compute(
    provider: &ProviderId,
    cloud: &CloudSpec,
    machine: &Machine,
    now: Timestamp,
) -> Result<Compute> {
    let shape = cloud.shape(&machine.spec.shape);
    let mut compute = Compute::new(
        ComputeId::new(&machine.id)?,
        provider.clone(),
        status(machine.state),
    );
    compute.public_ip = machine.ports_announced(now).then(|| machine.ip.clone());
    compute.ports = machine
        .spec
        .ports
        .iter()
        .map(|port| mapping(machine, *port, now))
        .collect();
    compute.gpu_type = shape.and_then(|shape| shape.gpu);
    compute.native_type = Some(machine.spec.shape.clone());
    compute.gpu_count = if shape.is_some_and(|shape| shape.vram_gb > 0) {
        machine.spec.count
    } else {
        0
    };
    compute.cost_per_hour = Some(machine.burn());
    compute.region = Some(machine.region.clone());
    compute.image = Some(machine.spec.image.clone());
    compute.name = Some(machine.spec.name.clone());
    compute.created_at = Some(machine.created_at);
    compute.ready = Some(machine.state == MachineState::Running);
    compute.exit_code = machine.exit_code;
    compute.preempted = machine.preempted;
    compute.keys = KeyCarriers::name_and_tag(
        &machine.spec.name,
        machine.spec.tags.get(LAUNCH_KEY_TAG).map(String::as_str),
    );
    compute.raw = raw(machine).into();
    Ok(compute)
}

/// A machine as it reads after its description was changed. Only its id is needed: any other member
/// that cannot be read counts as not told.
pub(super) fn rewritten(
    honest: &Compute,
    rewrite: &Rewrite,
) -> std::result::Result<Compute, UnreadableRow> {
    let mut row = json!(honest);
    rewrite.apply(&mut row);
    let unreadable = |reason: &str| UnreadableRow::of(&row, reason);
    let id = row["id"].as_str().and_then(|id| ComputeId::new(id).ok());
    let id = id.ok_or_else(|| unreadable("id: is not an id"))?;
    let untold = ComputeStatus::Other("unknown".to_owned());
    let mut compute = Compute::new(id, honest.provider.clone(), untold);
    let mut read = json!(compute);
    for (name, member) in row.as_object().into_iter().flatten() {
        let before = std::mem::replace(&mut read[name], member.clone());
        match Compute::deserialize(&read) {
            Ok(with) => compute = with,
            Err(_) => read[name] = before,
        }
    }
    compute.raw = row.into();
    Ok(compute)
}

fn status(state: MachineState) -> ComputeStatus {
    match state {
        MachineState::Provisioning | MachineState::Starting => ComputeStatus::Provisioning,
        MachineState::Running => ComputeStatus::Running,
        MachineState::Stopped => ComputeStatus::Stopped,
        MachineState::Failed => ComputeStatus::Failed,
        MachineState::Destroyed => ComputeStatus::Terminated,
    }
}

fn mapping(machine: &Machine, port: atlas_core::Port, now: Timestamp) -> PortMapping {
    let announced = machine.ports_announced(now);
    let number = port.number();
    let external = machine.external.get(&number).copied().filter(|_| announced);
    let url = match port.protocol() {
        Protocol::Http => {
            announced.then(|| format!("https://{}-{number}.mock.invalid", machine.id))
        }
        Protocol::Tcp => external.map(|external| format!("tcp://{}:{external}", machine.ip)),
    };
    // A symmetric port has one number, which the cloud chose.
    let internal = if port.is_symmetric() {
        external.map_or(number, u32::from)
    } else {
        number
    };
    PortMapping {
        internal,
        external,
        protocol: port.protocol(),
        url,
    }
}

fn raw(machine: &Machine) -> Value {
    let env: BTreeMap<&str, &str> = machine
        .spec
        .env
        .keys()
        .map(|name| (name.as_str(), REDACTED))
        .collect();
    json!({
        "id": machine.id, "name": machine.spec.name, "state": machine.state,
            "shape": machine.spec.shape, "tier": machine.tier,
        "region": machine.region, "spot": machine.spec.spot, "env": env, "tags": machine.spec.tags,
    })
}

/// What a refusal of the world is in the contract's words. Nothing was changed.
pub(super) fn refused(refusal: &Refusal) -> Error {
    let (kind, status, next) = match refusal {
        Refusal::NoCapacity => (ErrorKind::NoCapacity, 409, Next::NextCandidate),
        Refusal::NoMoney => (ErrorKind::Quota, 402, Next::Stop),
        Refusal::Quota => (ErrorKind::Quota, 403, Next::Stop),
        Refusal::Forbidden => (ErrorKind::Forbidden, 403, Next::Stop),
        Refusal::NotFound | Refusal::NoSuchCloud => (ErrorKind::NotFound, 404, Next::Stop),
        Refusal::Locked | Refusal::WrongState(_) | Refusal::NotNow => {
            (ErrorKind::Conflict, 409, Next::Stop)
        }
        Refusal::UnknownRegion(_) => return Error::validation("region_hints", refusal.to_string()),
        Refusal::UnknownShape => return Error::validation("gpu", refusal.to_string()),
        Refusal::TooMany => return Error::validation("gpu_count", refusal.to_string()),
    };
    Error::new(kind, refusal.to_string())
        .with_status(status)
        .outcome_is(Outcome::NotApplied(next))
}
