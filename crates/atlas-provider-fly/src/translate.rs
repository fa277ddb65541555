//! Converts requests to Fly's API and Fly's answers to atlas types. Pure.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use atlas_core::{
    CallContext, Compute, ComputeRequest, ComputeStatus, DiskSize, Error, KeyCarriers,
    LAUNCH_KEY_ENV, LAUNCH_KEY_TAG, LaunchKey, NetworkVolume, Port, PortMapping, Protocol,
    ProviderId, Raw, Result, Secret, StopCause, UnreadableRow,
};
use atlas_http::{lenient, merge_json};
use serde_json::Value;

use crate::check::{HTTP, HTTPS, external, own_opts};
use crate::config_wire::{
    CreateMachine, Guest, Init, MachineConfig, Mount, Restart, Service, ServicePort,
};
use crate::place::Place;
use crate::preset::{self, Preset};
use crate::wire;

/// The metadata key with a machine's ports, in order: listings do not contain its services.
const PORTS_TAG: &str = "atlas-ports";
/// The metadata key with the IPv6 address of a machine's app, if the machine has raw TCP ports.
const ADDRESS_TAG: &str = "atlas-ipv6";
/// The metadata key with the size of a machine's volume, in GB.
const VOLUME_TAG: &str = "atlas-volume-gb";
/// The mount path of a volume, unless `provider_opts` sets another.
const MOUNT: &str = "/data";

/// The parts of an order for a machine.
pub(crate) struct Order {
    /// The body of the create.
    pub(crate) body: CreateMachine,
    /// The part of its environment that is stored as its app's secrets, because every reader of the
    /// app can see a machine's other variables.
    pub(crate) hidden: BTreeMap<String, Secret>,
    /// Secrets that no error may repeat.
    pub(crate) secrets: Vec<Secret>,
}

/// Builds the order of a request, pinned to `preset` and `region`; `own` says that no other machine
/// is in its app.
pub(crate) fn create(
    cx: &CallContext,
    key: &LaunchKey,
    request: &ComputeRequest,
    (preset, region): (Preset, &str),
    own: bool,
) -> Result<Order> {
    let mut environment = request.environment(key);
    let secrets = environment.values().cloned().collect();
    let hides = own && own_opts(request)?.skip_secrets != Some(true);
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let hidden: BTreeMap<String, Secret> = environment
        .iter()
        .filter(|(name, _)| hides && plain(name) && *name != LAUNCH_KEY_ENV)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    environment.retain(|name, _| !hidden.contains_key(name));
    let mut metadata = BTreeMap::new();
    if let Some(key) = key.tracked() {
        metadata.insert(LAUNCH_KEY_TAG.to_owned(), key.to_string());
    }
    if !request.ports.is_empty() {
        metadata.insert(
            PORTS_TAG.to_owned(),
            request
                .ports
                .iter()
                .map(Port::to_string)
                .collect::<Vec<_>>()
                .join(","),
        );
    }
    let services = (0..request.ports.len())
        .map(|index| service(&request.ports, index))
        .collect::<Result<Vec<_>>>()?;
    let mounts = request
        .network_volume_id
        .as_ref()
        .map(Place::of_volume)
        .transpose()?;
    let config = MachineConfig {
        image: request.image.clone(),
        env: Some(
            environment
                .iter()
                .map(|(name, value)| (name.clone(), value.expose().to_owned()))
                .collect(),
        ),
        guest: Some(Guest {
            cpu_kind: Some(preset.kind.as_str().to_owned()),
            cpus: Some(preset.cpus),
            memory_mb: Some(preset.memory_mb),
            ..Guest::default()
        }),
        // A container that ended stays ended. Otherwise Fly would restart it ten times, and a
        // caller that waits for its exit code would get the last one.
        restart: Some(Restart {
            policy: Some("no".to_owned()),
            max_retries: None,
        }),
        auto_destroy: Some(false),
        // `exec` replaces the image's entrypoint and command, `cmd` only the latter.
        init: (!request.command.is_empty()).then(|| Init {
            exec: Some(request.command.clone()),
            ..Init::default()
        }),
        metadata: Some(metadata),
        services: (!services.is_empty()).then_some(services),
        mounts: mounts.map(|place| {
            vec![Mount {
                volume: Some(place.id),
                path: Some(MOUNT.to_owned()),
                ..Mount::default()
            }]
        }),
        ..MachineConfig::default()
    };
    let body = CreateMachine {
        name: Some(key.machine_name(cx.name_prefix(), request.name.as_deref())),
        region: Some(region.to_owned()),
        config: Some(config),
        ..CreateMachine::default()
    };
    if request.provider_opts.is_null() {
        return Ok(Order {
            body,
            hidden,
            secrets,
        });
    }
    let written = |error: serde_json::Error| {
        Error::validation("provider_opts", "cannot be merged").with_source(error)
    };
    let mut merged = serde_json::to_value(&body).map_err(written)?;
    merge_json(
        &mut merged,
        &serde_json::to_value(own_opts(request)?).map_err(written)?,
    );
    Ok(Order {
        body: serde_json::from_value(merged).map_err(written)?,
        hidden,
        secrets,
    })
}

/// Records the address of a machine's raw TCP ports in its metadata.
pub(crate) fn note_address(order: &mut Order, address: String) {
    note(order, ADDRESS_TAG, address);
}

/// Records the size of a machine's volume in its metadata, because its price includes the volume.
pub(crate) fn note_volume(order: &mut Order, gb: u32) {
    note(order, VOLUME_TAG, gb.to_string());
}

fn note(order: &mut Order, tag: &str, value: String) {
    let config = order.body.config.get_or_insert_default();
    let metadata = config.metadata.get_or_insert_default();
    metadata.insert(tag.to_owned(), value);
}

/// A port as a service. `autostop` and `autostart` are off: only the holder of the machine decides,
/// and a request must not wake it.
fn service(ports: &[Port], index: usize) -> Result<Service> {
    let port = ports[index];
    let outside = external(ports, index)?;
    let texts = |list: &[&str]| {
        Some(
            list.iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>(),
        )
    };
    let mut public = vec![ServicePort {
        port: Some(outside),
        handlers: if port.protocol() == Protocol::Http {
            texts(&["tls", "http"])
        } else {
            texts(&[])
        },
        ..ServicePort::default()
    }];
    if outside == HTTPS && port.protocol() == Protocol::Http {
        public.push(ServicePort {
            port: Some(HTTP),
            handlers: texts(&["http"]),
            force_https: Some(true),
            ..ServicePort::default()
        });
    }
    Ok(Service {
        protocol: Some("tcp".to_owned()),
        internal_port: Some(port.number()),
        ports: Some(public),
        autostop: Some("off".to_owned()),
        autostart: Some(false),
        min_machines_running: Some(0),
        ..Service::default()
    })
}

/// Converts Fly's answers.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) provider: ProviderId,
    /// The URL of an app's public port: `https://{app}.fly.dev`.
    pub(crate) url: String,
}

impl Reader {
    /// Converts a machine. `app` is known from where it was read; an organisation's list contains
    /// it.
    pub(crate) fn compute(
        &self,
        app: Option<&str>,
        machine: &wire::Machine,
        raw: Raw,
    ) -> Result<Compute> {
        let app = app
            .or(machine.app_name.as_deref())
            .filter(|app| crate::place::is_app_name(app))
            .ok_or_else(implausible)?;
        let id = Place::new(app, &machine.id).compute_id()?;
        let empty = wire::ReadConfig::default();
        let config = machine
            .config
            .as_ref()
            .or(machine.incomplete_config.as_ref())
            .unwrap_or(&empty);
        let tag = |name: &str| {
            config
                .metadata
                .as_ref()
                .and_then(|metadata| metadata.get(name))
                .map(String::as_str)
        };
        let guest = config.guest.as_ref();
        let preset = guest
            .and_then(|guest| Preset::of(guest.cpu_kind.as_deref(), guest.cpus, guest.memory_mb));
        let word = machine.state.as_deref().unwrap_or("unknown");
        let mut compute = Compute::new(id, self.provider.clone(), status(word));
        compute.keys = KeyCarriers::name_and_tag(
            machine.name.as_deref().unwrap_or_default(),
            tag(LAUNCH_KEY_TAG),
        );
        compute.created_at = machine
            .created_at
            .as_deref()
            .and_then(|text| text.parse().ok());
        let ports: Vec<Port> = tag(PORTS_TAG)
            .unwrap_or_default()
            .split(',')
            .filter_map(|port| port.parse().ok())
            .collect();
        compute.ports = (0..ports.len())
            .map(|index| self.port(app, tag(ADDRESS_TAG), &ports, index))
            .collect();
        compute.gpu_count = guest.and_then(|guest| guest.gpus).unwrap_or(0);
        compute.native_type = preset.map(Preset::name);
        let volume = tag(VOLUME_TAG).and_then(|gb| gb.parse().ok()).unwrap_or(0);
        let machine_alone = match word {
            "destroyed" => None,
            // Not free: the root filesystem continues to bill.
            "stopped" | "suspended" => Some(preset::stopped()),
            _ => preset.map(|preset| preset.price(machine.region.as_deref().unwrap_or_default())),
        };
        compute.cost_per_hour =
            machine_alone.map(|price| preset::together(price, preset::volume(volume)));
        compute.region.clone_from(&machine.region);
        compute.image.clone_from(&config.image);
        compute.name.clone_from(&machine.name);
        compute.ready = match word {
            "started" => Some(true),
            "created" | "creating" | "starting" | "stopped" | "suspended" | "failed" => Some(false),
            _ => None,
        };
        if word == "stopped" {
            (compute.exit_code, compute.stop_cause) = exit(&machine.events);
        }
        compute.raw = raw;
        Ok(compute)
    }

    /// A raw TCP port is reached at the app's IPv6 address. The app's name also resolves to a
    /// shared IPv4 address, which does not serve such a port.
    fn port(&self, app: &str, address: Option<&str>, ports: &[Port], index: usize) -> PortMapping {
        let host = address
            .and_then(|text| text.parse::<Ipv6Addr>().ok())
            .map_or_else(
                || format!("{app}.fly.dev"),
                |address| format!("[{address}]"),
            );
        let port = ports[index];
        let external = external(ports, index).ok();
        let base = self.url.replace("{app}", app);
        let url = external.map(|external| match (port.protocol(), external) {
            (Protocol::Http, HTTPS) => base.clone(),
            (Protocol::Http, other) => format!("{base}:{other}"),
            (Protocol::Tcp, other) => format!("tcp://{host}:{other}"),
        });
        PortMapping {
            internal: port.number(),
            external,
            protocol: port.protocol(),
            url,
        }
    }
}

/// `stopping` and `suspending` still bill, and a machine can be started only when it has stopped,
/// so they remain Fly's own words, like any unknown word. `replaced` is used for old versions only,
/// `migrated` for a machine that continues elsewhere.
fn status(word: &str) -> ComputeStatus {
    match word {
        "created" | "creating" | "starting" | "restarting" | "updating" | "replacing" => {
            ComputeStatus::Provisioning
        }
        "started" => ComputeStatus::Running,
        "stopped" | "suspended" => ComputeStatus::Stopped,
        "failed" | "launch_failed" => ComputeStatus::Failed,
        "destroyed" => ComputeStatus::Terminated,
        other => ComputeStatus::Other(other.to_owned()),
    }
}

/// How and why the container last ended. A requested stop has an exit event too, and the exit code
/// of a container that ran out of memory may be 0. Events are listed newest first.
fn exit(events: &[wire::Event]) -> (Option<i32>, Option<StopCause>) {
    let Some(exit) = last_exit(events).filter(|exit| !exit.restarting) else {
        return (None, None);
    };
    let cause = if exit.oom_killed {
        Some(StopCause::OutOfMemory)
    } else if exit.requested_stop {
        Some(StopCause::Requested)
    } else {
        exit.exit_code.map(|_| StopCause::CommandEnded)
    };
    (exit.exit_code.filter(|_| !exit.requested_stop), cause)
}

fn last_exit(events: &[wire::Event]) -> Option<wire::ExitEvent> {
    let last = events
        .iter()
        .find(|event| matches!(event.kind.as_deref(), Some("exit" | "start" | "launch")))?;
    let request = last
        .request
        .as_ref()
        .filter(|_| last.kind.as_deref() == Some("exit"))?;
    let told = request
        .pointer("/MonitorEvent/exit_event")
        .or_else(|| request.get("exit_event"))?;
    serde_json::from_value(told.clone()).ok()
}

/// Converts a volume, which belongs permanently to one app.
pub(crate) fn volume(app: Option<&str>, read: &wire::Volume) -> Result<NetworkVolume> {
    let app = app.or(read.app_name.as_deref()).ok_or_else(implausible)?;
    let size = DiskSize::gb(read.size_gb.unwrap_or(0));
    let name = read.name.clone().unwrap_or_default();
    Ok(NetworkVolume::new(
        Place::new(app, &read.id).volume_id()?,
        name,
        size,
        read.region.clone().unwrap_or_default(),
    ))
}

/// Whether a volume is being deleted.
pub(crate) fn is_going(volume: &wire::Volume) -> bool {
    matches!(
        volume.state.as_deref(),
        Some("scheduling_destroy" | "pending_destroy" | "destroying" | "destroyed")
    )
}

/// The error for a description that cannot be parsed.
pub(crate) fn implausible() -> Error {
    Error::new(
        atlas_core::ErrorKind::Provider,
        "the description of a machine could not be understood",
    )
    .outcome_is(atlas_core::Outcome::NotApplied(atlas_core::Next::SameLater))
}

/// A machine of a listing, reduced to these fields.
pub(crate) fn listed(
    reader: &Reader,
    app: Option<&str>,
    row: Value,
) -> Result<Compute, UnreadableRow> {
    let machine: wire::Machine = lenient::row(&row)?;
    let mut raw = row.clone();
    wire::redact(&mut raw);
    reader
        .compute(app, &machine, raw.into())
        .map_err(|error| UnreadableRow {
            // A machine is identified by its app and its id; without one of them it may be any
            // machine.
            id: None,
            ..UnreadableRow::of(&row, error.message())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request() -> ComputeRequest {
        ComputeRequest::cpu(1).image("x/y:1")
    }

    fn created(request: &ComputeRequest) -> Value {
        let preset = Preset::parse("shared-cpu-1x").unwrap();
        let order = create(
            &CallContext::new(),
            &LaunchKey::untracked(),
            request,
            (preset, "fra"),
            false,
        )
        .unwrap();
        serde_json::to_value(order.body).unwrap()
    }

    #[test]
    fn the_first_http_port_is_https_and_the_others_keep_their_numbers() {
        let body = created(
            &request()
                .port(Port::tcp(22))
                .port(Port::http(8000))
                .port(Port::http(9000)),
        );
        let ports = |index: usize| body["config"]["services"][index]["ports"].clone();
        assert_eq!(ports(0), json!([{ "port": 22, "handlers": [] }]));
        assert_eq!(
            ports(1),
            json!([{ "port": 443, "handlers": ["tls", "http"] }, { "port": 80,
                "handlers": ["http"], "force_https": true }])
        );
        assert_eq!(
            ports(2),
            json!([{ "port": 9000, "handlers": ["tls", "http"] }])
        );
        let service = &body["config"]["services"][1];
        assert_eq!(
            (&service["autostop"], &service["autostart"]),
            (&json!("off"), &json!(false))
        );
    }

    #[test]
    fn options_that_fly_knows_are_in_the_order() {
        let body = created(&request().provider_opts(
            json!({ "config": { "stop_config": { "timeout": "30s" } }, "skip_launch": true }),
        ));
        assert_eq!(
            (
                &body["config"]["stop_config"]["timeout"],
                &body["skip_launch"]
            ),
            (&json!("30s"), &json!(true))
        );
    }

    #[test]
    fn a_command_that_ended_by_itself_has_its_code_and_one_that_was_stopped_has_none() {
        let event = |kind: &str, request: Value| {
            serde_json::from_value(json!({ "type": kind, "request": request })).unwrap()
        };
        let exit =
            |stop: bool| json!({ "exit_code": 3, "requested_stop": stop, "restarting": false });
        let (start, launch) = (event("start", Value::Null), event("launch", Value::Null));
        assert_eq!(
            super::exit(&[
                event("exit", json!({ "exit_event": exit(false) })),
                start,
                launch
            ]),
            (Some(3), Some(StopCause::CommandEnded))
        );
        assert_eq!(
            super::exit(&[event(
                "exit",
                json!({ "MonitorEvent": { "exit_event": exit(false) } })
            )]),
            (Some(3), Some(StopCause::CommandEnded))
        );
        assert_eq!(
            super::exit(&[event("exit", json!({ "exit_event": exit(true) }))]),
            (None, Some(StopCause::Requested))
        );
        assert_eq!(
            super::exit(&[
                event("start", Value::Null),
                event("exit", json!({ "exit_event": exit(false) }))
            ]),
            (None, None)
        );
        let oom = json!({ "exit_code": 0, "oom_killed": true, "requested_stop": false });
        assert_eq!(
            super::exit(&[event("exit", json!({ "exit_event": oom }))]),
            (Some(0), Some(StopCause::OutOfMemory))
        );
        assert_eq!(super::exit(&[]), (None, None));
    }

    #[test]
    fn only_destroyed_is_gone_and_what_is_on_its_way_is_not_there_yet() {
        for word in [
            "destroying",
            "stopping",
            "suspending",
            "replaced",
            "migrated",
            "brand-new",
        ] {
            assert_eq!(status(word), ComputeStatus::Other(word.to_owned()));
        }
        assert_eq!(
            (status("destroyed"), status("suspended")),
            (ComputeStatus::Terminated, ComputeStatus::Stopped)
        );
    }

    #[test]
    fn urls_are_the_apps_and_name_a_port_where_it_is_not_https() {
        let reader = Reader {
            provider: ProviderId::new("fly").unwrap(),
            url: "https://{app}.fly.dev".to_owned(),
        };
        let machine: wire::Machine = serde_json::from_value(
            json!({ "id": "6e", "state": "started", "config": { "metadata": {
                "atlas-ports": "8000/http,22/tcp,9000/http" } } }),
        )
        .unwrap();
        let compute = reader
            .compute(Some("pods"), &machine, Raw::default())
            .unwrap();
        assert_eq!(compute.url(8000), Some("https://pods.fly.dev"));
        assert_eq!(compute.url(9000), Some("https://pods.fly.dev:9000"));
        assert_eq!(compute.url(22), Some("tcp://pods.fly.dev:22"));
    }
}
