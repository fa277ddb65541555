//! Converts requests to Vast's API and Vast's answers to atlas types. Pure, except for the memory
//! of the account's handle.

use std::collections::BTreeSet;
use std::time::Duration;

use atlas_core::{
    CallContext, Candidate, CloudType, Compute, ComputeId, ComputeRequest, ComputeStatus, Error,
    GpuChoice, GpuType, KeyCarriers, LAUNCH_KEY_ENV, LaunchKey, MemorySize, Port, PortMapping,
    Protocol, ProviderId, Result, Stock, StopCause, Timestamp, UnreadableRow, Usd, UsdPerHour,
};
use atlas_http::lenient::{self, UNREADABLE};
use serde_json::{Map, Value};

use crate::catalogue;
use crate::memory::Memory;
use crate::place;
use crate::policy::{OfferPolicy, dollars};
use crate::wire;

/// The environment variable with a machine's ports: Vast does not report their protocols, and
/// reports their numbers only while it runs.
const PORTS_ENV: &str = "ATLAS_PORTS";
const MAX_ENV: usize = 32_768;
const MAX_ARGS: usize = 4_096;
/// The default disk size, which is also the minimum.
const DEFAULT_DISK: u32 = 16;
const LEAST_DISK: u32 = 8;
/// Vast's month, by which it converts the price of storage to a price per hour.
const HOURS_A_MONTH: f64 = 30.0 * 24.0;

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

/// The disk to rent, in GB.
pub(crate) fn disk(request: &ComputeRequest) -> u32 {
    request
        .container_disk
        .map_or(DEFAULT_DISK, |disk| disk.as_gb())
        .max(LEAST_DISK)
}

/// Checks for what Vast would refuse, drop or misread, before any request.
pub(crate) fn check(request: &ComputeRequest) -> Result<()> {
    if let Some(GpuChoice::Named(gpu)) = &request.gpu
        && catalogue::names(*gpu).is_empty()
    {
        return Err(Error::unsupported(
            "gpu",
            format!("vast has no name for {gpu}"),
        ));
    }
    if let Some(flag) = request.env.keys().find(|name| name.starts_with('-')) {
        return Err(Error::validation(
            "env",
            format!("vast would take {flag:?} for a flag of docker's"),
        ));
    }
    if request.env.contains_key(PORTS_ENV) {
        return Err(Error::validation(
            "env",
            format!("{PORTS_ENV} is set by atlas"),
        ));
    }
    for region in &request.region_hints {
        place::check(region)?;
    }
    if request.provider_opts["volume_info"]["create_new"] == true {
        return Err(Error::validation(
            "provider_opts",
            "volume_info.create_new makes a volume that bills on after the machine and that \
             nothing deletes: make it with create_volume and mount it by its number",
        ));
    }
    if request.command.iter().map(|part| part.len()).sum::<usize>() > MAX_ARGS {
        return Err(Error::validation(
            "command",
            "vast takes at most 4096 characters",
        ));
    }
    if Value::Object(environment(request, &LaunchKey::Untracked))
        .to_string()
        .len()
        > MAX_ENV - 512
    {
        return Err(Error::validation(
            "env",
            "names, values and ports come to more than the 32768 characters that vast takes",
        ));
    }
    Ok(())
}

/// Variables, and Docker flags, which Vast passes as names.
fn environment(request: &ComputeRequest, key: &LaunchKey) -> Map<String, Value> {
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

fn price(hourly: f64) -> Option<UsdPerHour> {
    UsdPerHour::from_f64(hourly).filter(|price| price.per_hour() >= Usd::ZERO)
}

fn whole(number: f64) -> u32 {
    format!("{:.0}", number.clamp(0.0, 4e9))
        .parse()
        .unwrap_or(0)
}

/// A bid slightly above the minimum, rounded up to three decimals.
fn bid(offer: &wire::Offer, policy: &OfferPolicy) -> Option<f64> {
    let least = offer.min_bid.filter(|least| *least > 0.0)?;
    let wanted = least * (1.0 + f64::from(policy.bid_over_minimum_percent) / 100.0);
    // Rounding errors of a float are no reason to bid more.
    Some((wanted * 1000.0 - 1e-6).ceil() / 1000.0)
}

/// The candidates of a request, best first: region hints in their order, then cheaper ones. Every
/// limit is checked again here.
pub(crate) fn candidates<'a>(
    offers: impl IntoIterator<Item = &'a wire::Offer>,
    request: &ComputeRequest,
    policy: &OfferPolicy,
    memory: &Memory,
) -> Vec<Candidate> {
    let mut seen = BTreeSet::new();
    let mut found: Vec<Candidate> = offers
        .into_iter()
        .filter(|offer| {
            seen.insert(offer.id)
                && fits(offer, request, policy)
                && !offer.machine_id.is_some_and(|host| memory.is_bad(host))
        })
        .filter_map(|offer| candidate(offer, request, policy))
        .filter(|candidate| {
            policy
                .max_price
                .is_none_or(|most| candidate.price.is_some_and(|price| price <= most))
        })
        .collect();
    let rank = |region: &Option<String>| {
        request
            .region_hints
            .iter()
            .position(|hint| region.as_ref().is_some_and(|own| place::is_same(own, hint)))
    };
    found.sort_by_key(|candidate| (rank(&candidate.region), candidate.price));
    found
}

/// The price per hour of this much disk of an offer: the search's own figure or the price per GB
/// and month, whichever is higher. `None` if the answer contains neither.
fn storage(offer: &wire::Offer, disk_gb: u32) -> Option<f64> {
    let monthly = offer
        .storage_cost
        .map(|cost| cost * f64::from(disk_gb) / HOURS_A_MONTH);
    largest(offer.storage_total_cost, monthly).filter(|cost| *cost >= 0.0)
}

fn largest(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(f64::max)
}

fn candidate(
    offer: &wire::Offer,
    request: &ComputeRequest,
    policy: &OfferPolicy,
) -> Option<Candidate> {
    let bid = if request.spot {
        Some(bid(offer, policy)?)
    } else {
        None
    };
    let mut candidate = Candidate::default();
    candidate.offer =
        Some(bid.map_or_else(|| offer.id.to_string(), |bid| format!("{}@{bid}", offer.id)));
    candidate.native_type = Some(offer.gpu_name.clone());
    candidate.gpu = catalogue::gpu(&offer.gpu_name, whole(offer.gpu_ram));
    candidate.region = place::of(offer.geolocation.as_deref());
    candidate.cloud_type = Some(tier(offer));
    // The disk is part of the bill. `dph_total` includes it if the search priced it; otherwise the
    // price is added up from its parts.
    let disk = storage(offer, disk(request));
    candidate.price = match (bid, disk) {
        (Some(bid), Some(disk)) => Some(price(bid + disk)?),
        // The price is unknown, and must not be assumed low.
        (Some(_), None) => None,
        (None, disk) => {
            let parts = offer.dph_base.zip(disk).map(|(base, disk)| base + disk);
            Some(price(parts.map_or(offer.dph_total, |parts| {
                parts.max(offer.dph_total)
            }))?)
        }
    };
    candidate.stock = Some(Stock::Low);
    Some(candidate)
}

fn tier(offer: &wire::Offer) -> CloudType {
    if offer.hosting_type == Some(1) {
        CloudType::Secure
    } else {
        CloudType::Community
    }
}

fn fits(offer: &wire::Offer, request: &ComputeRequest, policy: &OfferPolicy) -> bool {
    let ram = whole(offer.gpu_ram);
    let card = match &request.gpu {
        Some(GpuChoice::Named(gpu)) => {
            let own = catalogue::names(*gpu)
                .into_iter()
                .find(|named| named.name == offer.gpu_name && named.ram.contains(&ram));
            own.is_some_and(|own| {
                catalogue::cuda(own.gpu)
                    .is_none_or(|least| offer.cuda_max_good.unwrap_or(0.0) >= least)
            })
        }
        Some(GpuChoice::AtLeast(vram)) => ram >= catalogue::reported(*vram),
        Some(GpuChoice::Native(name)) => offer.gpu_name == *name,
        _ => false,
    };
    let arch = match &request.gpu {
        Some(GpuChoice::Named(gpu)) => Some(catalogue::cpu_arch(Some(*gpu))),
        Some(GpuChoice::AtLeast(_)) => Some(catalogue::cpu_arch(None)),
        _ => None,
    };
    let ports = u32::try_from(request.ports.len()).unwrap_or(u32::MAX);
    let at_least = |value: Option<f64>, least: f64| value.is_some_and(|value| value >= least);
    // `cpu_ram` is the machine's, of which the offer gets its share (docs/clouds/vast.md, "Offers").
    let cores = || Some(offer.cpu_cores_effective? / offer.cpu_cores?);
    let share = offer.gpu_frac.or_else(cores);
    let memory = offer.cpu_ram.zip(share).map(|(ram, share)| ram * share);
    card && offer.num_gpus == request.gpu_count
        && offer.rentable != Some(false)
        && offer.rented != Some(true)
        && offer.cpu_cores.is_some()
        && arch.is_none_or(|arch| offer.cpu_arch.as_deref().unwrap_or("amd64") == arch)
        && (!policy.verified || offer.verification.as_deref() == Some("verified"))
        && at_least(offer.reliability2, policy.min_reliability)
        && at_least(offer.inet_down, f64::from(policy.min_inet_down_mbps))
        && at_least(offer.duration, policy.min_duration.as_secs_f64())
        && at_least(offer.disk_space, f64::from(disk(request)))
        && (ports == 0 || at_least(offer.direct_port_count, f64::from(ports)))
        && request
            .memory
            .is_none_or(|least| at_least(memory, f64::from(least.as_mib())))
        && (request.cloud_type == CloudType::Any || tier(offer) == request.cloud_type)
        && (request.region_hints.is_empty()
            || place::of(offer.geolocation.as_deref()).is_some_and(|own| {
                request
                    .region_hints
                    .iter()
                    .any(|hint| place::is_same(&own, hint))
            }))
        && policy
            .machine_id
            .is_none_or(|machine| offer.machine_id == Some(machine))
        && offer
            .machine_id
            .map_or(policy.avoid_machines.is_empty(), |host| {
                !policy.avoid_machines.contains(&host)
            })
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

/// The price list, one entry per GPU and country: the cheapest offer of each, for one GPU.
pub(crate) fn gpu_types<'a>(
    provider: &ProviderId,
    offers: impl IntoIterator<Item = &'a wire::Offer>,
    now: Timestamp,
) -> Vec<GpuType> {
    let mut lines: Vec<GpuType> = Vec::new();
    let mut counts: Vec<u32> = Vec::new();
    for offer in offers {
        let place = place::of(offer.geolocation.as_deref());
        let gpu = catalogue::gpu(&offer.gpu_name, whole(offer.gpu_ram));
        let each = |hourly: f64| {
            price(hourly / f64::from(offer.num_gpus.max(1)))
                .filter(|price| price.per_hour() > Usd::ZERO)
        };
        let (on_demand, spot) = (each(offer.dph_total), offer.min_bid.and_then(each));
        let same = |line: &GpuType| {
            line.native_id == offer.gpu_name && line.gpu == gpu && line.region == place
        };
        let index = lines.iter().position(same).unwrap_or_else(|| {
            let mut line = GpuType::new(
                provider.clone(),
                offer.gpu_name.clone(),
                MemorySize::mib(whole(offer.gpu_ram)),
                now,
            );
            (line.gpu, line.region) = (gpu, place.clone());
            lines.push(line);
            counts.push(0);
            lines.len() - 1
        });
        let line = &mut lines[index];
        let cheaper = |known: Option<UsdPerHour>, other: Option<UsdPerHour>| {
            known.into_iter().chain(other).min()
        };
        line.price = cheaper(line.price, on_demand);
        line.spot_price = cheaper(line.spot_price, spot);
        line.max_count = line.max_count.max(Some(offer.num_gpus));
        counts[index] += 1;
        line.stock = Some(match counts[index] {
            0 => Stock::None,
            1..=2 => Stock::Low,
            3..=5 => Stock::Medium,
            _ => Stock::High,
        });
    }
    lines
}
