//! Checks for what RunPod in particular would refuse, before any request. Pure.

use atlas_core::{CloudType, ComputeRequest, Error, GpuChoice, Protocol, Result};
use serde_json::Value;

use crate::catalogue;

/// RunPod's proxy serves at most this many HTTP ports of a pod.
const MAX_HTTP_PORTS: usize = 10;
/// The minimum size of a persistent volume.
const MIN_VOLUME_GB: u32 = 10;

/// Fields that atlas itself sets in an order: those by which a machine is recognised, and the shape
/// whose price was reserved.
const RESERVED_OPTS: [&str; 8] = [
    "/name",
    "/cloud",
    "/gpu/id",
    "/gpu/count",
    "/cpu",
    "/env/ATLAS_LAUNCH_KEY",
    "/env/ATLAS_PRESHARED_KEY",
    "/env/ATLAS_SIGNING_SECRET",
];

/// See [`atlas_core::Provider::check`].
///
/// # Errors
/// `validation` or `unsupported`, naming the field.
pub(crate) fn check(request: &ComputeRequest) -> Result<()> {
    if let Some(GpuChoice::Named(gpu)) = &request.gpu
        && catalogue::cards(*gpu).is_empty()
    {
        return Err(Error::unsupported(
            "gpu",
            format!("runpod does not offer {gpu}"),
        ));
    }
    if request.gpu.is_some() && request.memory.is_some() {
        return Err(Error::unsupported(
            "memory",
            "runpod sets a gpu pod's memory by its gpu; it cannot be asked for",
        ));
    }
    if let Some(vcpus) = request.cpu {
        if vcpus < 2 || !vcpus.is_power_of_two() {
            return Err(Error::validation(
                "cpu",
                "must be a power of two, at least 2",
            ));
        }
        if request.volume.is_some() {
            return Err(Error::unsupported(
                "volume",
                "runpod gives a cpu pod no volume of its own",
            ));
        }
        if request.cloud_type == CloudType::Community {
            return Err(Error::unsupported(
                "cloud_type",
                "runpod rents cpu pods in its secure tier only",
            ));
        }
        if request
            .provider_opts
            .get("globalNetworking")
            .and_then(Value::as_bool)
            == Some(true)
        {
            return Err(Error::unsupported(
                "global_networking",
                "runpod has it for nvidia gpu pods only",
            ));
        }
    }
    if request.volume.is_some() && request.network_volume_id.is_some() {
        return Err(Error::validation(
            "network_volume_id",
            "a pod takes a volume of its own or a network volume, not both",
        ));
    }
    if request
        .volume
        .is_some_and(|size| size.as_gb() < MIN_VOLUME_GB)
    {
        return Err(Error::validation("volume_gb", "must be at least 10 GB"));
    }
    if request.network_volume_id.is_some() && request.cloud_type == CloudType::Community {
        return Err(Error::unsupported(
            "network_volume_id",
            "runpod has network volumes in its secure tier only",
        ));
    }
    if request
        .ports
        .iter()
        .filter(|port| port.protocol() == Protocol::Http)
        .count()
        > MAX_HTTP_PORTS
    {
        return Err(Error::validation(
            "ports",
            "runpod's proxy serves at most 10 http ports",
        ));
    }
    if request.region_hints.iter().any(|region| {
        !region
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    }) {
        return Err(Error::validation(
            "region_hints",
            "a runpod region is a data centre such as EU-RO-1, or a country such as RO",
        ));
    }
    let opts = &request.provider_opts;
    if let Some(name) = RESERVED_OPTS
        .iter()
        .find(|name| opts.pointer(name).is_some())
    {
        return Err(Error::validation(
            "provider_opts",
            format!("{name} is set by atlas"),
        ));
    }
    if ["env", "gpu"]
        .iter()
        .any(|name| opts.get(name).is_some_and(|value| !value.is_object()))
    {
        return Err(Error::validation(
            "provider_opts",
            "env and gpu must be objects",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::{DiskSize, ErrorKind, Gpu, MemorySize, Port, VolumeId};
    use serde_json::json;

    fn gpu() -> ComputeRequest {
        ComputeRequest::gpu(Gpu::L40S).image("x")
    }

    fn cpu(vcpus: u32) -> ComputeRequest {
        ComputeRequest::cpu(vcpus).image("x")
    }

    #[test]
    fn what_runpod_would_refuse_is_refused_here_and_names_its_field() {
        use ErrorKind::{Unsupported, Validation};
        let volume = || VolumeId::new("v").unwrap();
        let eleven = (0..11).fold(gpu(), |request, n| request.port(Port::http(8000 + n)));
        let table = [
            (Unsupported, "gpu", ComputeRequest::gpu(Gpu::A10).image("x")),
            (
                Unsupported,
                "gpu",
                ComputeRequest::gpu(Gpu::Gh200).image("x"),
            ),
            (Unsupported, "memory", gpu().memory(MemorySize::gib(8))),
            (Validation, "cpu", cpu(1)),
            (Validation, "cpu", cpu(6)),
            (Unsupported, "volume", cpu(2).volume(DiskSize::gb(10))),
            (
                Unsupported,
                "cloud_type",
                cpu(2).cloud_type(CloudType::Community),
            ),
            (
                Unsupported,
                "global_networking",
                cpu(2).provider_opts(json!({"globalNetworking": true})),
            ),
            (
                Validation,
                "network_volume_id",
                gpu().volume(DiskSize::gb(10)).network_volume(volume()),
            ),
            (Validation, "volume_gb", gpu().volume(DiskSize::gb(9))),
            (
                Unsupported,
                "network_volume_id",
                gpu()
                    .network_volume(volume())
                    .cloud_type(CloudType::Community),
            ),
            (Validation, "ports", eleven),
            (Validation, "region_hints", gpu().region("New York")),
            (
                Validation,
                "provider_opts",
                gpu().provider_opts(json!({"name": "mine"})),
            ),
            (
                Validation,
                "provider_opts",
                gpu().provider_opts(json!({"env": {"ATLAS_LAUNCH_KEY": "mine"}})),
            ),
            (
                Validation,
                "provider_opts",
                gpu().provider_opts(json!({"env": null})),
            ),
            (
                Validation,
                "provider_opts",
                gpu().provider_opts(json!({"gpu": {"id": "NVIDIA B200"}})),
            ),
            (
                Validation,
                "provider_opts",
                gpu().provider_opts(json!({"cloud": "SECURE"})),
            ),
        ];
        for (kind, field, request) in table {
            let error = check(&request).unwrap_err();
            assert_eq!(
                (error.kind(), error.field()),
                (kind, Some(field)),
                "{error}"
            );
        }
        for fine in [
            gpu()
                .port(Port::symmetric_tcp(0))
                .region("EU-RO-1")
                .region("us"),
            gpu().provider_opts(json!({"gpu": {"minCudaVersion": "12.4"}})),
            cpu(4).memory(MemorySize::gib(8)),
        ] {
            check(&fine).unwrap();
        }
    }
}
