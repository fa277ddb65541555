//! Converts requests to Lambda's API and Lambda's answers to atlas types. Pure.

use atlas_core::{
    CallContext, Compute, ComputeId, ComputeRequest, ComputeStatus, DiskSize, Error, Gpu,
    KeyCarriers, LAUNCH_KEY_TAG, LaunchKey, NetworkVolume, Port, PortMapping, Protocol, ProviderId,
    Result, UnreadableRow, VolumeId,
};
use atlas_http::lenient;
use serde_json::Value;

use crate::candidates::{cents, with_file_system};
use crate::{catalogue, wire};

/// The tag with a machine's ports, because Lambda does not report the requested ones.
const PORTS_TAG: &str = "atlas-ports";
/// The tag with the image's name.
const IMAGE_TAG: &str = "atlas-image";
/// The tag with the size of a mounted file system, in GB.
const FILE_SYSTEM_TAG: &str = "atlas-file-system-gb";
const MAX_TAG: usize = 128;

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

/// Records the size of the mounted file system in a machine's tags.
pub(crate) fn note_file_system(launch: &mut wire::Launch, gb: u32) {
    launch.tags.push(tag(FILE_SYSTEM_TAG, gb.to_string()));
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

/// The workspace that its global rules are named after (`Default Workspace Global Rules`); `None`
/// for the default one, and if the name contains no workspace.
pub(crate) fn workspace(global_rules: &str) -> Option<String> {
    let name = global_rules.strip_suffix(" Global Rules")?.trim();
    let plain: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
    (!plain.is_empty() && !plain.eq_ignore_ascii_case("default workspace")).then_some(plain)
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
