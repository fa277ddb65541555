//! A machine's configuration in a request: what Fly reads of it, what it refuses, and how it is
//! shown again.

use std::collections::BTreeMap;

use atlas_core::{Port, Secret};
use serde_json::{Map, Value, json};

use super::answer::Failure;
use super::stock::Guest;
use crate::world::{Machine, MachineSpec, Restart};

/// Configuration fields that Fly knows. Others are silently ignored, so a misspelt one has no
/// effect.
const KNOWN: &[&str] = &[
    "auto_destroy",
    "cache_drive",
    "checks",
    "containers",
    "disable_machine_autostart",
    "dns",
    "env",
    "files",
    "guest",
    "image",
    "init",
    "metadata",
    "metrics",
    "mounts",
    "processes",
    "restart",
    "rootfs",
    "schedule",
    "services",
    "size",
    "spot",
    "standbys",
    "statics",
    "stop_config",
];

/// The parsed request of a configuration.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) guest: Guest,
    pub(super) mount: Option<String>,
    /// The form in which it is stored and shown.
    pub(super) kept: Value,
}

/// Reads a configuration.
pub(super) fn read(sent: &Value) -> Result<Read, Failure> {
    let sent = sent
        .as_object()
        .ok_or_else(|| Failure::invalid("config is required"))?;
    let mut kept: Map<String, Value> = sent
        .iter()
        .filter(|(name, _)| KNOWN.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !kept.get("image").is_some_and(Value::is_string) && !kept.contains_key("containers") {
        return Err(Failure::invalid(
            "invalid config.image: an image is required",
        ));
    }
    let guest = guest(kept.get("guest"))?;
    kept.insert(
        "guest".to_owned(),
        json!({ "cpu_kind": if guest.performance { "performance" } else { "shared" },
            "cpus": guest.cpus, "memory_mb": guest.memory_mb }),
    );
    let mounts = kept
        .get("mounts")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if mounts.len() > 1 {
        return Err(Failure::invalid(
            "invalid config.mounts, only 1 volume supported",
        ));
    }
    for service in kept
        .get("services")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if service
            .get("autostart")
            .is_some_and(|value| !value.is_boolean())
        {
            return Err(Failure::invalid(
                "json: cannot unmarshal string into Go struct field \
                    MachineService.services.autostart of type bool",
            ));
        }
    }
    for name in ["env", "metadata"] {
        let texts = kept
            .get(name)
            .and_then(Value::as_object)
            .is_none_or(|map| map.values().all(Value::is_string));
        if !texts {
            return Err(Failure::invalid(format!(
                "json: cannot unmarshal value into Go struct field MachineConfig.{name} of type \
                    string"
            )));
        }
    }
    kept.entry("restart")
        .or_insert_with(|| json!({ "policy": "on-failure", "max_retries": 10 }));
    kept.entry("init").or_insert_with(|| json!({}));
    let mount = mounts
        .first()
        .and_then(|mount| mount["volume"].as_str())
        .map(str::to_owned);
    if !mounts.is_empty() && mount.is_none() {
        return Err(Failure::new(500, "internal server error"));
    }
    Ok(Read {
        guest,
        mount,
        kept: Value::Object(kept),
    })
}

fn guest(sent: Option<&Value>) -> Result<Guest, Failure> {
    let sent = sent.cloned().unwrap_or_default();
    if sent["gpus"].as_u64().is_some_and(|gpus| gpus > 0) || sent["gpu_kind"].is_string() {
        return Err(Failure::invalid("GPU machines are no longer supported"));
    }
    let performance = match sent["cpu_kind"].as_str() {
        None | Some("shared") => false,
        Some("performance") => true,
        Some(other) => {
            return Err(Failure::invalid(format!(
                "invalid config.guest.cpu_kind: {other}"
            )));
        }
    };
    let number = |field: &str, otherwise: u32| match &sent[field] {
        Value::Null => Ok(otherwise),
        value => value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| Failure::invalid(format!("invalid config.guest.{field}"))),
    };
    let cpus = number("cpus", 1)?;
    let memory_mb = number(
        "memory_mb",
        if performance { 2048 * cpus } else { 256 * cpus },
    )?;
    let guest = Guest {
        performance,
        cpus,
        memory_mb,
    };
    guest
        .wrong()
        .map_or(Ok(guest), |words| Err(Failure::invalid(words)))
}

/// Transfers a configuration to the world's machine.
pub(super) fn apply(config: &Value, spec: &mut MachineSpec) {
    let map = |name: &str| -> BTreeMap<String, String> {
        let pairs = config[name].as_object().into_iter().flatten();
        pairs
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    };
    spec.env = map("env")
        .into_iter()
        .map(|(name, value)| (name, Secret::new(value)))
        .collect();
    spec.tags = map("metadata");
    config["image"]
        .as_str()
        .unwrap_or_default()
        .clone_into(&mut spec.image);
    let words = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect()
    };
    let init = &config["init"];
    // `exec` replaces everything; `cmd` replaces the image's own command, after an entrypoint.
    spec.command = match words(&init["exec"]) {
        exec if !exec.is_empty() => exec,
        _ => words(&init["entrypoint"])
            .into_iter()
            .chain(words(&init["cmd"]))
            .collect(),
    };
    spec.ports = services(config)
        .filter_map(|service| {
            let inside = u16::try_from(service["internal_port"].as_u64()?).ok()?;
            let http = ports(service).any(|port| handles(port, "http"));
            Some(if http {
                Port::http(inside)
            } else {
                Port::tcp(inside)
            })
        })
        .collect();
    let retries = config["restart"]["max_retries"]
        .as_u64()
        .and_then(|most| u32::try_from(most).ok())
        .unwrap_or(10);
    spec.restart = match config["restart"]["policy"].as_str() {
        Some("always") => Restart::Always,
        Some("no") => Restart::No,
        _ => Restart::OnFailure(retries),
    };
    spec.exit_destroys = config["auto_destroy"] == true;
}

fn services(config: &Value) -> impl Iterator<Item = &Value> {
    config["services"].as_array().into_iter().flatten()
}

fn ports(service: &Value) -> impl Iterator<Item = &Value> {
    service["ports"].as_array().into_iter().flatten()
}

fn handles(port: &Value, handler: &str) -> bool {
    port["handlers"]
        .as_array()
        .is_some_and(|handlers| handlers.iter().any(|known| known == handler))
}

/// The inside port of an external one.
pub(super) fn inside(config: &Value, external: u16) -> Option<u32> {
    let exposes = |service: &&Value| ports(service).any(|port| port["port"] == external);
    let service = services(config).find(exposes)?;
    u32::try_from(service["internal_port"].as_u64()?).ok()
}

/// The configuration as a read shows it, with the changes since.
pub(super) fn shown(machine: &Machine, autostop_as_bool: bool) -> Value {
    let spec = &machine.spec;
    let mut config = match &spec.extra["config"] {
        Value::Object(kept) => kept.clone(),
        _ => Map::from_iter([
            (
                "guest".to_owned(),
                json!({ "cpu_kind": "shared", "cpus": 1, "memory_mb": 256 }),
            ),
            ("init".to_owned(), json!({ "cmd": spec.command })),
        ]),
    };
    // What came from the app's secrets is never shown.
    let own = spec.extra["config"].is_object().then(|| {
        spec.extra["config"]["env"]
            .as_object()
            .cloned()
            .unwrap_or_default()
    });
    let shown = |name: &String| own.as_ref().is_none_or(|own| own.contains_key(name));
    let env = spec.env.iter().filter(|(name, _)| shown(name));
    let env: Map<String, Value> = env
        .map(|(name, value)| (name.clone(), Value::from(value.expose())))
        .collect();
    config.insert("env".to_owned(), Value::Object(env));
    config.insert("metadata".to_owned(), json!(spec.tags));
    config.insert("image".to_owned(), Value::from(spec.image.as_str()));
    let mut config = Value::Object(config);
    if autostop_as_bool {
        for service in config
            .get_mut("services")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let read = match service["autostop"].as_str() {
                Some("off") => Some(false),
                Some("stop") => Some(true),
                _ => None,
            };
            if let Some(read) = read {
                service["autostop"] = Value::from(read);
            }
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(config: Value) -> String {
        format!("{:?}", read(&config).unwrap_err())
    }

    #[test]
    fn what_fly_refuses_is_refused_in_its_words() {
        let with = |field: &str, value: Value| {
            let mut config = json!({ "image": "x/y:1" });
            config[field] = value;
            refused(config)
        };
        assert!(
            with("guest", json!({ "gpus": 1, "gpu_kind": "a10" }))
                .contains("GPU machines are no longer supported")
        );
        assert!(
            with("guest", json!({ "memory_mb": 128 }))
                .contains("invalid memory size 128; must be in 256 MiB increment")
        );
        let small = json!({ "cpu_kind": "performance", "cpus": 1, "memory_mb": 256 });
        assert!(with("guest", small).contains("minimum required 2048 MiB"));
        assert!(with("guest", json!({ "cpus": 3 })).contains("cpus"));
        assert!(
            with("mounts", json!([{ "volume": "a" }, { "volume": "b" }]))
                .contains("only 1 volume supported")
        );
        assert!(
            with("services", json!([{ "autostart": "true" }])).contains("cannot unmarshal string")
        );
        assert!(refused(json!({})).contains("image"));
    }

    #[test]
    fn an_unknown_field_is_dropped_without_a_word() {
        let kept = read(&json!({ "image": "x", "auto_stop_machines": true }))
            .unwrap()
            .kept;
        assert!(
            kept.get("auto_stop_machines").is_none() && kept["restart"]["policy"] == "on-failure",
            "{kept}"
        );
    }
}
