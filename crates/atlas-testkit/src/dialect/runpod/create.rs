//! What a pod's create and update bodies must be.

use std::collections::BTreeMap;

use atlas_core::{Port, Protocol, Secret};
use http::StatusCode;
use serde_json::{Value, json};

use super::command::{Command, Sent};
use super::problem::{Problem, SOLD_OUT};
use super::stock::{CENTRES, CUDA, FLAVOURS, RAM_PER_GPU, VCPUS_PER_GPU};
use crate::dialect::check::{Check, version};
use crate::world::{CloudSpec, MachineSpec};

/// The most variables of a pod, and the most HTTP ports (docs/clouds/runpod.md).
const MAX_ENV: usize = 50;
const MAX_HTTP_PORTS: usize = 10;
const DEFAULT_DISK: u32 = 50;

pub(super) const CONTAINER: [&str; 8] = [
    "image",
    "args",
    "entrypoint",
    "cmd",
    "disk",
    "env",
    "ports",
    "registry",
];
const CREATE: [&str; 10] = [
    "name",
    "cloud",
    "cpu",
    "dataCenterIds",
    "globalNetworking",
    "gpu",
    "mounts",
    "startJupyter",
    "startSsh",
    "templateId",
];
const UPDATE: [&str; 5] = ["globalNetworking", "locked", "mounts", "name", "templateId"];

/// The container settings of a body: those that were sent.
#[derive(Debug, Default)]
pub(super) struct Container {
    pub(super) image: Option<String>,
    pub(super) command: Sent,
    pub(super) disk: Option<u32>,
    pub(super) env: Option<BTreeMap<String, Secret>>,
    pub(super) ports: Option<Vec<Port>>,
    pub(super) registry: Option<Value>,
    ports_as_sent: Vec<String>,
}

impl Container {
    pub(super) fn read(check: &mut Check, body: &serde_json::Map<String, Value>) -> Self {
        let ports_as_sent = check.strings("$.ports", body.get("ports"));
        let registry = body.get("registry");
        if let Some(registry) =
            registry.filter(|registry| !registry.is_null() && !registry.is_string())
        {
            check.string("$.registry", Some(registry), 0);
        }
        Self {
            image: check
                .string("$.image", body.get("image"), 0)
                .map(str::to_owned),
            command: Sent::read(check, body),
            disk: check.integer("$.disk", body.get("disk"), 1),
            env: check.map("$.env", body.get("env")).map(|pairs| {
                pairs
                    .into_iter()
                    .map(|(k, v)| (k, Secret::new(v)))
                    .collect()
            }),
            ports: ports_as_sent.as_ref().map(|_| Vec::new()),
            registry: registry.cloned(),
            ports_as_sent: ports_as_sent.unwrap_or_default(),
        }
    }

    /// The rules that the document leaves to prose.
    pub(super) fn hold(&mut self) -> Result<(), Problem> {
        if self.env.as_ref().is_some_and(|env| env.len() > MAX_ENV) {
            return Err(Problem::bad(format!(
                "env: at most {MAX_ENV} variables are allowed"
            )));
        }
        let mut ports = Vec::new();
        for text in &self.ports_as_sent {
            let port = text
                .contains('/')
                .then(|| text.parse::<Port>().ok())
                .flatten();
            ports.push(port.ok_or_else(|| Problem::bad(format!("invalid port: {text}")))?);
        }
        if ports
            .iter()
            .filter(|port| port.protocol() == Protocol::Http)
            .count()
            > MAX_HTTP_PORTS
        {
            return Err(Problem::bad(format!(
                "ports: at most {MAX_HTTP_PORTS} HTTP ports are allowed"
            )));
        }
        if self.ports.is_some() {
            self.ports = Some(ports);
        }
        Ok(())
    }
}

/// Mounts as sent, checked for shape: `persistent` or `network` or neither.
fn mounts(check: &mut Check, value: Option<&Value>) -> Option<Value> {
    let value = value?;
    let object = check.object("$.mounts", value, &["persistent", "network"], &[])?;
    if let Some(persistent) = object.get("persistent")
        && let Some(fields) = check.object(
            "$.mounts.persistent",
            persistent,
            &["size", "path"],
            &["size", "path"],
        )
    {
        check.integer("$.mounts.persistent.size", fields.get("size"), 10);
        check.string("$.mounts.persistent.path", fields.get("path"), 0);
    }
    if let Some(items) = check.array("$.mounts.network", object.get("network")) {
        if items.len() > 1 {
            check.wrong(
                "$.mounts.network",
                format!("maxItems: got {}, want 1", items.len()),
            );
        }
        for (index, item) in items.iter().enumerate() {
            let path = format!("$.mounts.network[{index}]");
            if let Some(fields) =
                check.object(&path, item, &["volumeId", "path"], &["volumeId", "path"])
            {
                check.string(&format!("{path}.volumeId"), fields.get("volumeId"), 0);
                check.string(&format!("{path}.path"), fields.get("path"), 0);
            }
        }
    }
    Some(value.clone())
}

/// A create's body, understood.
pub(super) fn pod(
    cloud: &CloudSpec,
    body: &Value,
    ssh_keys: &[String],
    password: impl FnOnce() -> String,
) -> Result<MachineSpec, Problem> {
    let mut check = Check::default();
    let allowed = [&CREATE[..], &CONTAINER[..]].concat();
    let has_template = body.get("templateId").is_some();
    let required: &[&str] = if has_template {
        &["name"]
    } else {
        &["name", "image"]
    };
    let Some(object) = check.object("$", body, &allowed, required) else {
        return Err(Problem::invalid(check.errors));
    };
    let name = check
        .string("$.name", object.get("name"), 1)
        .unwrap_or_default()
        .to_owned();
    let mut container = Container::read(&mut check, object);
    let tier = check
        .one_of("$.cloud", object.get("cloud"), &["SECURE", "COMMUNITY"])
        .unwrap_or("SECURE")
        .to_owned();
    let centres = check
        .strings("$.dataCenterIds", object.get("dataCenterIds"))
        .unwrap_or_default();
    let global = check
        .boolean("$.globalNetworking", object.get("globalNetworking"))
        .unwrap_or(false);
    let start_ssh = check
        .boolean("$.startSsh", object.get("startSsh"))
        .unwrap_or(false);
    let start_jupyter = check
        .boolean("$.startJupyter", object.get("startJupyter"))
        .unwrap_or(false);
    check.string("$.templateId", object.get("templateId"), 1);
    let gpu = object.get("gpu").map(|gpu| Gpu::read(&mut check, gpu));
    let cpu = object.get("cpu").map(|cpu| {
        let fields = check.object("$.cpu", cpu, &["id", "vcpuCount"], &["id", "vcpuCount"]);
        let id = fields
            .and_then(|fields| check.string("$.cpu.id", fields.get("id"), 1))
            .unwrap_or_default()
            .to_owned();
        let count = fields
            .and_then(|fields| check.integer("$.cpu.vcpuCount", fields.get("vcpuCount"), 2))
            .unwrap_or_default();
        (id, count)
    });
    let mounts = mounts(&mut check, object.get("mounts"));
    if name.chars().count() > 191 {
        check.wrong(
            "$.name",
            format!("maxLength: got {}, want 191", name.chars().count()),
        );
    }
    if !check.errors.is_empty() {
        return Err(Problem::invalid(check.errors));
    }
    container.hold()?;
    let mounts = mounts.unwrap_or_else(|| json!({}));
    let (persistent, network) = (
        mounts.get("persistent"),
        mounts.get("network").and_then(Value::as_array),
    );
    if persistent.is_some() && network.is_some() {
        return Err(Problem::bad(
            "mounts.persistent and mounts.network are mutually exclusive",
        ));
    }
    let (shape, count, cuda) = match (&gpu, &cpu) {
        (Some(gpu), None) => {
            let cuda = gpu.cuda(cloud)?;
            (gpu.id.clone(), gpu.count, cuda)
        }
        (None, Some((id, count))) => {
            flavour(id, *count, persistent.is_some(), &tier)?;
            (id.clone(), *count, None)
        }
        _ => return Err(Problem::bad("exactly one of gpu or cpu must be set")),
    };
    if let Some(unknown) = centres.iter().find(|id| cloud.region(id).is_none()) {
        let known: Vec<&str> = CENTRES.iter().map(|(id, ..)| *id).collect();
        return Err(Problem::bad(format!(
            "invalid data center {unknown}; supported data centers: {}",
            known.join(", ")
        )));
    }
    let mut regions = centres;
    if global {
        if gpu.as_ref().is_none_or(|gpu| !gpu.id.starts_with("NVIDIA")) {
            return Err(Problem::bad("global networking requires an NVIDIA GPU"));
        }
        let networked = |id: &str| {
            CENTRES
                .iter()
                .any(|(centre, .., global)| *centre == id && *global)
        };
        if regions.is_empty() {
            regions = CENTRES.iter().map(|(id, ..)| (*id).to_owned()).collect();
        }
        regions.retain(|id| networked(id));
        if regions.is_empty() {
            return Err(Problem::bad(
                "global networking is not available in the requested data centers",
            ));
        }
    }
    let mut env = container.env.unwrap_or_default();
    if start_ssh && !ssh_keys.is_empty() {
        env.entry("PUBLIC_KEY".into())
            .or_insert_with(|| Secret::new(ssh_keys.join("\n")));
    }
    if start_jupyter {
        env.entry("JUPYTER_PASSWORD".into())
            .or_insert_with(|| Secret::new(password()));
    }
    let command = container
        .command
        .over(&Command::default())?
        .unwrap_or_default();
    let mut spec = MachineSpec::gpu(shape, count).named(name);
    spec.tier = Some(tier);
    spec.regions = regions;
    spec.env = env;
    spec.image = container.image.unwrap_or_default();
    spec.command = command.words();
    spec.ports = container.ports.unwrap_or_default();
    spec.disk_gb = container.disk.unwrap_or(DEFAULT_DISK);
    spec.network_volume = network
        .and_then(|mounts| mounts.first())
        .and_then(|mount| mount["volumeId"].as_str())
        .map(str::to_owned);
    spec.volume_gb = persistent
        .and_then(|mount| mount["size"].as_u64())
        .and_then(|size| u32::try_from(size).ok())
        .unwrap_or(0);
    spec.extra = json!({
        "registry": container.registry.unwrap_or(Value::Null),
        "mounts": mounts,
        "cudaVersion": cuda,
        "globalNetworking": global,
        "cpu": cpu.is_some(),
    });
    command.put(&mut spec.extra);
    Ok(spec)
}

struct Gpu {
    id: String,
    count: u32,
    allowed: Vec<String>,
    min: Option<String>,
    /// The least memory in GB and the fewest vCPUs of a host for each GPU.
    host: (u32, u32),
}

impl Gpu {
    fn read(check: &mut Check, value: &Value) -> Self {
        let fields = check.object(
            "$.gpu",
            value,
            &[
                "id",
                "count",
                "allowedCudaVersions",
                "minCudaVersion",
                "minRamPerGpu",
                "minVcpuCountPerGpu",
            ],
            &["id"],
        );
        let field = |name: &str| fields.and_then(|fields| fields.get(name));
        let allowed = check
            .strings("$.gpu.allowedCudaVersions", field("allowedCudaVersions"))
            .unwrap_or_default();
        let min = check
            .string("$.gpu.minCudaVersion", field("minCudaVersion"), 0)
            .map(str::to_owned);
        for (index, text) in allowed.iter().enumerate() {
            check.version(&format!("$.gpu.allowedCudaVersions[{index}]"), text);
        }
        if let Some(min) = &min {
            check.version("$.gpu.minCudaVersion", min);
        }
        let mut least = |name: &str| {
            check
                .integer(&format!("$.gpu.{name}"), field(name), 1)
                .unwrap_or_default()
        };
        let host = (least("minRamPerGpu"), least("minVcpuCountPerGpu"));
        Self {
            host,
            id: check
                .string("$.gpu.id", field("id"), 0)
                .unwrap_or_default()
                .to_owned(),
            count: check.integer("$.gpu.count", field("count"), 1).unwrap_or(1),
            allowed,
            min,
        }
    }

    /// The CUDA version of the host it lands on; sold out where no host has one that fits.
    fn cuda(&self, cloud: &CloudSpec) -> Result<Option<&'static str>, Problem> {
        if cloud.shape(&self.id).is_none_or(|shape| shape.vram_gb == 0) {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("Unknown GPU type: {}", self.id),
            ));
        }
        if !self.allowed.is_empty() && self.min.is_some() {
            return Err(Problem::bad(
                "gpu.allowedCudaVersions and gpu.minCudaVersion are mutually exclusive",
            ));
        }
        let (ram, vcpus) = self.host;
        if ram > RAM_PER_GPU || vcpus > VCPUS_PER_GPU {
            return Err(Problem::bad(SOLD_OUT));
        }
        if !self.id.starts_with("NVIDIA") && !self.id.starts_with("Tesla") {
            return if self.allowed.is_empty() && self.min.is_none() {
                Ok(None)
            } else {
                Err(Problem::bad(SOLD_OUT))
            };
        }
        let fits = |host: &&str| {
            (self.allowed.is_empty() || self.allowed.iter().any(|allowed| allowed == host))
                && self
                    .min
                    .as_deref()
                    .is_none_or(|min| version(host) >= version(min))
        };
        CUDA.iter()
            .copied()
            .find(fits)
            .map(Some)
            .ok_or_else(|| Problem::bad(SOLD_OUT))
    }
}

fn flavour(id: &str, count: u32, persistent: bool, tier: &str) -> Result<(), Problem> {
    if !FLAVOURS.iter().any(|(flavour, ..)| *flavour == id) {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("Unknown CPU flavor: {id}"),
        ));
    }
    if !count.is_power_of_two() || count > 32 {
        return Err(Problem::bad(
            "cpu.vcpuCount must be a power of two valid for the selected CPU flavor",
        ));
    }
    if persistent {
        return Err(Problem::bad(
            "mounts.persistent is not supported on CPU pods",
        ));
    }
    if tier != "SECURE" {
        return Err(Problem::bad(SOLD_OUT));
    }
    Ok(())
}

/// An update's body, understood.
#[derive(Debug, Default)]
pub(super) struct Update {
    pub(super) name: Option<String>,
    pub(super) locked: Option<bool>,
    pub(super) global: Option<bool>,
    pub(super) mounts: Option<Value>,
    pub(super) container: Container,
    /// What it runs from now on, where the body says.
    pub(super) command: Option<Command>,
}

impl Update {
    /// Reads it, over what the pod `was`.
    pub(super) fn read(body: &Value, was: &Value) -> Result<Self, Problem> {
        let mut check = Check::default();
        let Some(object) = check.object("$", body, &[&UPDATE[..], &CONTAINER[..]].concat(), &[])
        else {
            return Err(Problem::invalid(check.errors));
        };
        let mut update = Self {
            name: check
                .string("$.name", object.get("name"), 1)
                .map(str::to_owned),
            locked: check.boolean("$.locked", object.get("locked")),
            global: check.boolean("$.globalNetworking", object.get("globalNetworking")),
            mounts: mounts(&mut check, object.get("mounts")),
            container: Container::read(&mut check, object),
            command: None,
        };
        check.string("$.templateId", object.get("templateId"), 0);
        if !check.errors.is_empty() {
            return Err(Problem::invalid(check.errors));
        }
        update.container.hold()?;
        let held = Command::stored(was["args"].as_str().unwrap_or_default());
        update.command = update.container.command.over(&held)?;
        let sent = update
            .mounts
            .take()
            .filter(|mounts| mounts.as_object().is_some_and(|mounts| !mounts.is_empty()));
        if let Some(sent) = sent {
            update.mounts = Some(remount(sent, &was["mounts"])?);
        }
        Ok(update)
    }

    /// Whether it changes what the container is made of, so that it is restarted.
    pub(super) fn restarts(&self) -> bool {
        let container = &self.container;
        container.image.is_some()
            || self.command.is_some()
            || container.disk.is_some()
            || container.env.is_some()
            || container.ports.is_some()
            || container.registry.is_some()
            || self.mounts.is_some()
    }
}

/// A mount's path and size may change; its kind and volume may not.
fn remount(sent: Value, was: &Value) -> Result<Value, Problem> {
    match (
        sent.get("persistent"),
        sent.get("network").and_then(Value::as_array),
    ) {
        (Some(_), Some(_)) => Err(Problem::bad(
            "mounts.persistent and mounts.network are mutually exclusive",
        )),
        (_, Some(network)) if network.is_empty() => {
            Err(Problem::bad("clearing mounts is not supported"))
        }
        (Some(_), None) if was.get("persistent").is_some() => Ok(sent),
        (None, Some(network)) if was.get("network").is_some() => {
            if network[0]["volumeId"] == was["network"][0]["volumeId"] {
                Ok(sent)
            } else {
                Err(Problem::bad("the volumeId of a network mount is immutable"))
            }
        }
        _ => Err(Problem::bad("mount kind is fixed at create")),
    }
}
