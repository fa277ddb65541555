//! What Fly would refuse or silently drop, found before any request. Pure.

use std::collections::BTreeMap;

use atlas_core::{ComputeRequest, Error, Port, Protocol, Result};

use crate::config_wire::CreateMachine;
use crate::place::Place;
use crate::preset::Preset;

/// The prefix of metadata of the platform and its CLI: with `fly_platform_version`, a `fly deploy`
/// adopts the machine and destroys it.
const PLATFORMS: &str = "fly_";
/// The port of HTTPS, and the port of HTTP that redirects to it.
pub(crate) const HTTPS: u16 = 443;
pub(crate) const HTTP: u16 = 80;

/// Checks for what Fly would refuse or silently drop, before any request.
pub(crate) fn check(request: &ComputeRequest) -> Result<()> {
    if request.gpu.is_some() {
        return Err(Error::unsupported(
            "gpu",
            "fly has had no gpus since august 2026",
        ));
    }
    if request.image.is_none() {
        return Err(Error::validation(
            "image",
            "fly runs an image, and nothing else",
        ));
    }
    let mut outside = BTreeMap::new();
    for (index, port) in request.ports.iter().enumerate() {
        let external = external(&request.ports, index)?;
        if outside.insert(external, port).is_some() {
            return Err(Error::validation(
                "ports",
                format!("two ports of the request would both be {external} outside"),
            ));
        }
    }
    if let Some(native) = request
        .candidate
        .as_ref()
        .and_then(|candidate| candidate.native_type.as_deref())
        && Preset::parse(native).is_none()
    {
        return Err(Error::validation(
            "candidate",
            "its type is not a preset of fly such as shared-cpu-1x:256",
        ));
    }
    if let Some(volume) = &request.network_volume_id {
        Place::of_volume(volume)?;
        if !request.ports.is_empty() {
            return Err(Error::validation(
                "network_volume_id",
                "a volume is in one app, and a machine with ports gets an app of its own: it \
                    cannot have both",
            ));
        }
    }
    own_opts(request).map(drop)
}

/// Parses `provider_opts` into fields that Fly knows. Others are refused here, because Fly would
/// silently ignore them.
pub(crate) fn own_opts(request: &ComputeRequest) -> Result<CreateMachine> {
    let wrong = |message: String| Err(Error::validation("provider_opts", message));
    if request.provider_opts.is_null() {
        return Ok(CreateMachine::default());
    }
    let opts: CreateMachine = match serde_path_to_error::deserialize(request.provider_opts.clone())
    {
        Ok(opts) => opts,
        Err(error) => {
            let unknown = error.inner().to_string().starts_with("unknown field");
            let what = if unknown {
                "is a field that fly does not know and would ignore"
            } else {
                "is not of the type that fly takes"
            };
            return wrong(format!("{} {what}", error.path()));
        }
    };
    let config = opts.config.clone().unwrap_or_default();
    let guest = config.guest.clone().unwrap_or_default();
    if guest.gpus.is_some_and(|gpus| gpus > 0) || guest.gpu_kind.is_some() {
        return Err(Error::unsupported(
            "gpu",
            "fly has had no gpus since august 2026",
        ));
    }
    let ours = [
        (opts.name.is_some(), "name"),
        (opts.region.is_some(), "region"),
        (config.image.is_some(), "config.image"),
        (config.env.is_some(), "config.env"),
        (
            guest.cpu_kind.is_some() || guest.cpus.is_some() || guest.memory_mb.is_some(),
            "config.guest's cpus and memory",
        ),
    ];
    if let Some((_, field)) = ours.into_iter().find(|(set, _)| *set) {
        return wrong(format!("{field} is set by the request itself"));
    }
    let metadata = config.metadata.unwrap_or_default();
    if let Some(key) = metadata
        .keys()
        .find(|key| key.starts_with(PLATFORMS) || key.starts_with("atlas-"))
    {
        return wrong(format!("the metadata {key} is not for callers to set"));
    }
    let mounts = config.mounts.as_ref().map_or(0, Vec::len);
    if mounts > 1 {
        return wrong("fly mounts one volume at most".to_owned());
    }
    Ok(opts)
}

/// The outside number of a port: 443 for the first HTTP port; any other keeps its number.
pub(crate) fn external(ports: &[Port], index: usize) -> Result<u16> {
    let port = ports[index];
    let first = ports
        .iter()
        .position(|port| port.protocol() == Protocol::Http);
    if first == Some(index) {
        return Ok(HTTPS);
    }
    u16::try_from(port.number())
        .ok()
        .filter(|number| !(first.is_some() && matches!(*number, HTTP | HTTPS)))
        .ok_or_else(|| {
            Error::validation("ports", format!("{port} has no number of its own outside"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::ErrorKind;
    use serde_json::{Value, json};

    fn request() -> ComputeRequest {
        ComputeRequest::cpu(1).image("ghcr.io/me/app:1")
    }

    #[test]
    fn what_fly_would_ignore_or_what_is_not_the_callers_is_refused_with_its_place() {
        let opts = |opts: Value| check(&request().provider_opts(opts)).unwrap_err();
        for (given, place) in [
            (json!({ "auto_stop_machines": true }), "auto_stop_machines"),
            (
                json!({ "config": { "services": [{ "auto_stop_machines": "stop" }] } }),
                "config.services[0].auto_stop_machines",
            ),
            (
                json!({ "config": { "services": [{ "autostart": "true" }] } }),
                "config.services[0].autostart",
            ),
            (
                json!({ "config": { "metadata": { "fly_platform_version": "v2" } } }),
                "fly_platform_version",
            ),
            (
                json!({ "config": { "metadata": { "atlas-launch-key": "x" } } }),
                "atlas-launch-key",
            ),
            (
                json!({ "config": { "guest": { "memory_mb": 512 } } }),
                "guest",
            ),
            (
                json!({ "config": { "env": { "A": "zz-canary" } } }),
                "config.env",
            ),
            (json!({ "name": "mine" }), "name"),
            (
                json!({ "config": { "mounts": [{ "volume": "a" }, { "volume": "b" }] } }),
                "one volume",
            ),
        ] {
            let error = opts(given);
            assert_eq!(
                (error.kind(), error.field()),
                (ErrorKind::Validation, Some("provider_opts")),
                "{error}"
            );
            assert!(
                error.to_string().contains(place) && !error.to_string().contains("zz-canary"),
                "{error}"
            );
        }
        assert_eq!(
            opts(json!({ "config": { "guest": { "gpus": 1 } } })).kind(),
            ErrorKind::Unsupported
        );
    }

    #[test]
    fn ports_that_would_meet_outside_are_refused() {
        for ports in [
            [Port::http(8000), Port::tcp(443)],
            [Port::http(8000), Port::http(80)],
            [Port::tcp(9), Port::http(8)],
        ] {
            let both = check(&request().port(ports[0]).port(ports[1]));
            let meet = ports.iter().any(|port| matches!(port.number(), 80 | 443));
            assert_eq!(both.is_err(), meet, "{ports:?}");
        }
    }
}
