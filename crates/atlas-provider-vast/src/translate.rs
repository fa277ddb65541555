//! Converts requests to Vast's API and Vast's answers to atlas types. Pure, except for the memory
//! of the account's handle.

use std::time::Duration;

use atlas_core::{
    CallContext, Compute, ComputeId, ComputeRequest, ComputeStatus, Error, KeyCarriers,
    LAUNCH_KEY_ENV, LaunchKey, Port, PortMapping, Protocol, ProviderId, Result, StopCause,
    Timestamp, UnreadableRow,
};
use atlas_http::lenient::{self, UNREADABLE};
use serde_json::{Map, Value};

use crate::candidates::{disk, largest, price, whole};
use crate::memory::Memory;
use crate::policy::dollars;
use crate::{catalogue, place, wire};

/// The environment variable with a machine's ports: Vast does not report their protocols, and
/// reports their numbers only while it runs.
pub(crate) const PORTS_ENV: &str = "ATLAS_PORTS";

/// Lines of `status_msg` with one of these are progress messages, whatever else they contain.
const PROGRESS: [&str; 6] = [
    "retrying",
    "downloading",
    "extracting",
    "pull complete",
    "waiting",
    "verifying checksum",
];
/// Messages of a host that cannot run the container. A line that begins with `error:` is one too.
const FAILURES: &[&str] = &[
    "error pulling image",
    "oci runtime create failed",
    "failed to start container",
    "container failed to start",
    "failed to create container",
    "error response from daemon",
    "manifest unknown",
    "no matching manifest",
    "no such image",
    "repository does not exist",
    "pull access denied",
    "failed to resolve reference",
    "failed to pull",
    "docker_build() error",
    "error writing dockerfile",
    "unauthorized:",
    "authentication required",
    "requested access to the resource is denied",
    "toomanyrequests",
    "invalid reference format",
    "failed to register layer",
    "could not select device driver",
    "exec format error",
    "no space left on device",
];
/// The maximum length of a host's message in a reason.
const LONGEST_REASON: usize = 200;

/// Variables, and Docker flags, which Vast passes as names.
pub(crate) fn environment(request: &ComputeRequest, key: &LaunchKey) -> Map<String, Value> {
    let env = request
        .environment(key)
        .into_iter()
        .map(|(name, value)| (name, Value::from(value.expose())));
    let flags = request
        .ports
        .iter()
        .map(|port| (format!("-p {0}:{0}", port.number()), Value::from("1")));
    let ports = request
        .ports
        .iter()
        .map(Port::to_string)
        .collect::<Vec<_>>()
        .join(",");
    let told = (!ports.is_empty()).then(|| (PORTS_ENV.to_owned(), Value::from(ports)));
    env.chain(flags).chain(told).collect()
}

/// The contents of a candidate: the ask and, for interruptible machines, the bid, `21870455@0.169`.
pub(crate) fn pinned(request: &ComputeRequest) -> Result<(String, Option<f64>)> {
    let wrong = || Error::validation("candidate", "vast needs an offer: pin a candidate");
    let offer = request
        .candidate
        .as_ref()
        .and_then(|candidate| candidate.offer.as_deref())
        .ok_or_else(wrong)?;
    let (ask, bid) = offer
        .split_once('@')
        .map_or((offer, None), |(ask, bid)| (ask, bid.parse().ok()));
    if ask.is_empty() || !ask.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Error::validation("candidate", "is not an offer of vast"));
    }
    if request.spot && bid.is_none() {
        // Without a price the machine would silently be rented on demand.
        return Err(Error::validation(
            "candidate",
            "an interruptible machine needs a bid: pin a candidate of a spot request",
        ));
    }
    Ok((ask.to_owned(), bid.filter(|_| request.spot)))
}

/// The body of a create.
pub(crate) fn create(
    cx: &CallContext,
    key: &LaunchKey,
    request: &ComputeRequest,
    bid: Option<f64>,
) -> wire::Create {
    wire::Create {
        client_id: "me",
        image: request.image.clone(),
        template_hash_id: request.template_id.clone(),
        label: key.machine_name(cx.name_prefix(), request.name.as_deref()),
        disk: disk(request),
        // The image's own program runs; the other run types would replace it.
        runtype: request.image.is_some().then_some("args"),
        args: request.command.clone(),
        price: bid,
        env: environment(request, key),
        cancel_unavail: true,
    }
}

/// A machine that was just ordered and has not been read yet.
pub(crate) fn ordered(
    provider: &ProviderId,
    id: ComputeId,
    order: &wire::Create,
    request: &ComputeRequest,
) -> Compute {
    let mut compute = Compute::new(id, provider.clone(), ComputeStatus::Provisioning);
    compute.keys = KeyCarriers::name_and_tag(
        &order.label,
        order.env.get(LAUNCH_KEY_ENV).and_then(Value::as_str),
    );
    compute.created_at = compute.keys.key().map(|key| key.attempt().created_at());
    compute.ports = request
        .ports
        .iter()
        .map(|port| mapping(*port, None))
        .collect();
    let pinned = request.candidate.clone().unwrap_or_default();
    compute.gpu_type = pinned.gpu;
    compute.native_type = pinned.native_type;
    compute.cost_per_hour = pinned.price;
    compute.region = pinned.region;
    compute.gpu_count = request.gpu_count;
    compute.image.clone_from(&request.image);
    compute.name = Some(order.label.clone());
    compute
}

/// How an instance differs from its order: the GPU, their number, the kind of contract, or the
/// price.
pub(crate) fn mismatch(raw: &Value, request: &ComputeRequest, wants_bid: bool) -> Option<String> {
    let instance: wire::Instance = serde_json::from_value(raw.clone()).ok()?;
    let ordered = request.candidate.clone().unwrap_or_default();
    if let (Some(name), Some(wanted)) = (&instance.gpu_name, &ordered.native_type)
        && name != wanted
    {
        return Some("another card than was ordered".to_owned());
    }
    if instance
        .num_gpus
        .is_some_and(|count| count != request.gpu_count)
    {
        return Some("another number of cards than was ordered".to_owned());
    }
    if instance.is_bid.is_some_and(|is_bid| is_bid != wants_bid) {
        return Some(
            if wants_bid {
                "on demand instead of interruptible"
            } else {
                "interruptible instead of on demand"
            }
            .to_owned(),
        );
    }
    let most = ordered.price.map(|price| dollars(price) * 1.02 + 0.001);
    if instance
        .dph_total
        .zip(most)
        .is_some_and(|(asked, most)| asked > most)
    {
        return Some("a higher price than was ordered".to_owned());
    }
    None
}

/// Converts a machine. If it has an id, it is parsed, whatever else is wrong with it. A host that
/// failed to start it is remembered.
pub(crate) fn compute(
    provider: &ProviderId,
    raw: Value,
    memory: &Memory,
) -> Result<Compute, UnreadableRow> {
    let instance: wire::Instance = lenient::row(&raw)?;
    let id = ComputeId::new(instance.id.to_string())
        .map_err(|error| UnreadableRow::of(&raw, error.message()))?;
    let failed = boot_failed(&instance);
    if let (true, Some(machine)) = (failed, instance.machine_id) {
        memory.host_failed(machine);
    }
    let (status, reason) = status(&instance, failed, memory.lately_started(&id));
    let mut compute = Compute::new(id, provider.clone(), status);
    let env = instance.environment();
    let variable = |name: &str| {
        env.as_ref()?
            .iter()
            .find(|(own, _)| *own == name)
            .map(|(_, value)| *value)
    };
    let label = instance.label.as_deref().unwrap_or_default();
    compute.keys = match &env {
        Some(_) => KeyCarriers::name_and_tag(label, variable(LAUNCH_KEY_ENV)),
        None => KeyCarriers::name_only(label),
    };
    let address = instance
        .public_ipaddr
        .as_deref()
        .map(str::trim)
        .filter(|address| !address.is_empty());
    compute.ports = ports(
        &instance.ports,
        variable(PORTS_ENV).unwrap_or_default(),
        address,
    );
    compute.public_ip = address.map(str::to_owned);
    compute.created_at = instance
        .start_date
        .and_then(|start| Duration::try_from_secs_f64(start).ok())
        .map(|start| Timestamp::UNIX_EPOCH.saturating_add(start));
    let ram = instance.gpu_ram.map_or(0, whole);
    compute.gpu_type = instance
        .gpu_name
        .as_deref()
        .and_then(|name| catalogue::gpu(name, ram));
    compute.native_type.clone_from(&instance.gpu_name);
    compute.gpu_count = instance.num_gpus.unwrap_or(0);
    let now = instance
        .instance
        .as_ref()
        .and_then(|price| price.total_hour)
        .filter(|_| compute.status == ComputeStatus::Stopped);
    let parts = instance
        .dph_base
        .zip(instance.storage_total_cost)
        .map(|(base, disk)| base + disk);
    compute.cost_per_hour = now.or(largest(instance.dph_total, parts)).and_then(price);
    compute.region = place::of(instance.geolocation.as_deref());
    compute.image = instance
        .image_uuid
        .clone()
        .filter(|image| !image.is_empty());
    compute.name = instance.label.clone().filter(|label| !label.is_empty());
    compute.preempted = is_outbid(&instance) && !memory.stopped_by_us(&compute.id);
    compute.stop_cause = stop_cause(&instance, &compute.status, failed);
    compute.reason = reason;
    compute.raw = wire::redacted(raw).into();
    Ok(compute)
}

/// The host's last message, if it means that the container will never start.
fn failure(instance: &wire::Instance) -> Option<&str> {
    let told = instance.status_msg.as_deref()?;
    told.lines().find(|line| {
        let line = line.to_lowercase();
        !PROGRESS.iter().any(|word| line.contains(word))
            && (line.trim_start().starts_with("error:")
                || FAILURES.iter().any(|failure| line.contains(failure)))
    })
}

fn boot_failed(instance: &wire::Instance) -> bool {
    let booting = matches!(
        instance.actual_status.as_deref(),
        None | Some("created" | "loading" | "exited")
    );
    booting && failure(instance).is_some()
}

/// A machine's status, and why it does not run. `unknown` is a silent host, not a dead machine; any
/// unknown word counts as alive and billing.
fn status(
    instance: &wire::Instance,
    failed: bool,
    lately_started: bool,
) -> (ComputeStatus, Option<String>) {
    let [intended, current] = [&instance.intended_status, &instance.cur_state]
        .map(|word| word.as_deref().unwrap_or("running"));
    let status = match instance.actual_status.as_deref() {
        _ if failed => ComputeStatus::Failed,
        Some("offline") => ComputeStatus::Failed,
        Some("exited" | "stopped") if intended == "stopped" => ComputeStatus::Stopped,
        // A start that waits for its GPU.
        Some("exited" | "stopped" | "running" | "scheduling")
            if current == "stopped" && intended == "running" =>
        {
            ComputeStatus::Provisioning
        }
        Some("exited") if lately_started => ComputeStatus::Provisioning,
        Some("exited" | "stopped") if intended == "running" && current != UNREADABLE => {
            ComputeStatus::Stopped
        }
        Some("running") if intended == "running" => ComputeStatus::Running,
        Some("running") => ComputeStatus::Other("stopping".to_owned()),
        None | Some("created" | "loading" | "rebooting" | "recycling" | "scheduling")
            if intended == "stopped" && current == "stopped" =>
        {
            ComputeStatus::Stopped
        }
        None | Some("created" | "loading" | "rebooting" | "recycling" | "scheduling") => {
            ComputeStatus::Provisioning
        }
        Some(other) => ComputeStatus::Other(other.to_owned()),
    };
    let reason = match &status {
        ComputeStatus::Failed if failed => failure(instance).map(one_line),
        ComputeStatus::Failed => Some("its host is offline".to_owned()),
        ComputeStatus::Stopped if intended == "stopped" => Some(
            "it was stopped from outside: by its account, its host, or for lack of credit"
                .to_owned(),
        ),
        ComputeStatus::Stopped => Some("its container ended by itself".to_owned()),
        _ => None,
    };
    (status, reason)
}

/// Reduces cloud text to a short line of printable characters.
fn one_line(text: &str) -> String {
    let printable = text.trim().chars().filter(|c| !c.is_control());
    printable.take(LONGEST_REASON).collect()
}

/// Why it does not run. A stop changes the intended state, a command that ends does not.
fn stop_cause(
    instance: &wire::Instance,
    status: &ComputeStatus,
    failed: bool,
) -> Option<StopCause> {
    match status {
        ComputeStatus::Failed if failed => Some(StopCause::NeverRan),
        ComputeStatus::Failed => Some(StopCause::HostLost),
        ComputeStatus::Stopped
            if instance.actual_status.as_deref() == Some("exited")
                && instance.intended_status.as_deref() != Some("stopped") =>
        {
            Some(StopCause::CommandEnded)
        }
        ComputeStatus::Stopped => Some(StopCause::Requested),
        _ => None,
    }
}

/// Stopped in every respect, and rented with a bid. Whether we requested the stop is decided
/// elsewhere.
fn is_outbid(instance: &wire::Instance) -> bool {
    let says = |word: &Option<String>| word.as_deref() == Some("stopped");
    instance.is_bid == Some(true)
        && matches!(
            instance.actual_status.as_deref(),
            Some("stopped" | "exited")
        )
        && says(&instance.cur_state)
        && says(&instance.next_state)
        && says(&instance.intended_status)
}

/// The requested ports with the numbers that Docker assigned, and any other published ports.
fn ports(map: &Value, asked: &str, address: Option<&str>) -> Vec<PortMapping> {
    let asked: Vec<Port> = asked
        .split(',')
        .filter_map(|port| port.parse().ok())
        .collect();
    let outside = |port: Port| {
        let rows = map.get(format!("{}/tcp", port.number()))?.as_array()?;
        // One row per address family, with the same number.
        let number = rows
            .iter()
            .find_map(|row| row["HostPort"].as_str()?.parse().ok())?;
        Some((number, address?))
    };
    let mut ports: Vec<PortMapping> = asked
        .iter()
        .map(|port| mapping(*port, outside(*port)))
        .collect();
    let others = map
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, _)| name.parse::<Port>().ok());
    let others = others.filter(|port| asked.iter().all(|own| own.number() != port.number()));
    ports.extend(others.filter_map(|port| Some(mapping(port, Some(outside(port)?)))));
    ports
}

fn mapping(port: Port, outside: Option<(u16, &str)>) -> PortMapping {
    let scheme = if port.protocol() == Protocol::Http {
        "http"
    } else {
        "tcp"
    };
    PortMapping {
        internal: port.number(),
        external: outside.map(|(number, _)| number),
        protocol: port.protocol(),
        url: outside.map(|(number, address)| format!("{scheme}://{address}:{number}")),
    }
}
