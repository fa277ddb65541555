//! Converts a `ComputeRequest` to the body of `POST /v2/pods`, and a pod to a `Compute`. Pure.

use atlas_core::{
    Compute, ComputeId, ComputeRequest, ComputeStatus, DiskSize, Error, ErrorKind, KeyCarriers,
    LaunchKey, PortMapping, Protocol, ProviderId, REDACTED, Raw, Result, UnreadableRow, UsdPerHour,
};
use atlas_http::{Answer, Page, lenient, merge_json};
use serde_json::Value;

use crate::catalogue;
use crate::proxy::ProxyTemplate;
use crate::{pages, self_end, wire};

/// The default container disk. RunPod does not document the value of an omitted `disk`, so it is
/// always sent; v1 used this size (docs/clouds/runpod.md, "Create").
pub(crate) const DEFAULT_DISK: DiskSize = DiskSize::gb(50);
/// Where volumes are mounted in the container; `mounts` requires a path and a request has none.
pub(crate) const MOUNT_PATH: &str = "/workspace";
/// The maximum size of a create's body; for a larger one the cloud answers 413.
const MAX_BODY: usize = 102_400;

/// The shape of a create: what a candidate pins, or what the request alone determines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// A GPU id or a CPU flavour.
    pub(crate) native_type: String,
    /// `SECURE` or `COMMUNITY`.
    pub(crate) cloud: &'static str,
    /// Empty for any data centre.
    pub(crate) data_centres: Vec<String>,
}

/// The body of the create call.
///
/// # Errors
/// `validation` when the body is larger than the cloud accepts.
pub(crate) fn create(
    prefix: &str,
    key: &LaunchKey,
    request: &ComputeRequest,
    shape: &Shape,
) -> Result<Value> {
    let env = request.environment(key);
    let pod = wire::CreatePod {
        name: key.machine_name(prefix, request.name.as_deref()),
        image: request.image.as_deref(),
        template_id: request.template_id.as_deref(),
        gpu: request.gpu.is_some().then(|| wire::CreateGpu {
            id: &shape.native_type,
            count: request.gpu_count,
        }),
        cpu: request.cpu.map(|vcpu_count| wire::CreateCpu {
            id: &shape.native_type,
            vcpu_count,
        }),
        cloud: shape.cloud,
        data_center_ids: shape.data_centres.iter().map(String::as_str).collect(),
        // A template has its own disk, and the body takes precedence over it, so an unset field
        // leaves the template's.
        disk: request
            .container_disk
            .or(request.template_id.is_none().then_some(DEFAULT_DISK))
            .map(DiskSize::as_gb),
        mounts: mounts(request),
        ports: request.ports.iter().map(ToString::to_string).collect(),
        env: env
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose()))
            .collect(),
        command: self_end::command(request),
    };
    let mut body = serde_json::to_value(&pod).expect("a pod's description is plain data");
    if !request.provider_opts.is_null() {
        merge_json(&mut body, &request.provider_opts);
    }
    if serde_json::to_vec(&body).map_or(0, |bytes| bytes.len()) > MAX_BODY {
        return Err(Error::validation(
            "env",
            "the whole order is larger than the 100 KiB that runpod takes",
        ));
    }
    Ok(body)
}

fn mounts(request: &ComputeRequest) -> Option<wire::Mounts<'_>> {
    if let Some(size) = request.volume {
        return Some(wire::Mounts::Persistent {
            size: size.as_gb(),
            path: MOUNT_PATH,
        });
    }
    let id = request.network_volume_id.as_ref()?;
    Some(wire::Mounts::Network([wire::NetworkMount {
        volume_id: id.as_str(),
        path: MOUNT_PATH,
    }]))
}

/// Converts a pod. Keeps the whole value, with its environment redacted.
///
/// # Errors
/// When it has no usable id.
pub(crate) fn compute(
    provider: &ProviderId,
    proxy: &ProxyTemplate,
    mut value: Value,
) -> Result<Compute, UnreadableRow> {
    let pod: wire::Pod = lenient::row(&value)?;
    let id = ComputeId::new(&pod.id).map_err(|error| UnreadableRow::of(&value, error.message()))?;
    redact(&mut value);
    Ok(described(provider, proxy, id, pod, value.into()))
}

/// The same for a pod that is the whole answer; its value is rarely needed.
///
/// # Errors
/// Like [`compute`], and when the answer is not a pod.
pub(crate) fn computed(
    provider: &ProviderId,
    proxy: &ProxyTemplate,
    answer: &Answer,
) -> Result<Compute> {
    let pod: wire::Pod = answer.json()?;
    let id = ComputeId::new(&pod.id)
        .map_err(|_| Error::new(ErrorKind::Provider, "a pod in the answer has no usable id"))?;
    let raw = Raw::parsed_later(answer.bytes(), redact);
    Ok(described(provider, proxy, id, pod, raw))
}

/// A page of pods: the result for each, and the cursor of the next page. One unreadable pod does
/// not hide the others.
///
/// # Errors
/// When the answer is not a page.
pub(crate) fn page(
    provider: &ProviderId,
    proxy: &ProxyTemplate,
    answer: &Answer,
) -> Result<Page<Result<Compute, UnreadableRow>>> {
    if let Some((pods, pagination)) = pages::pods(answer.bytes()) {
        let read = |(pod, text): (wire::Pod, &[u8])| match ComputeId::new(&pod.id) {
            Ok(id) => {
                let raw = Raw::parsed_later(text, redact);
                Ok(described(provider, proxy, id, pod, raw))
            }
            Err(error) => {
                let raw: Value = serde_json::from_slice(text).unwrap_or_default();
                Err(UnreadableRow::of(&raw, error.message()))
            }
        };
        return Ok(pages::page(
            pods.into_iter().map(read).collect(),
            pagination,
        ));
    }
    let (pods, pagination) = pages::items(answer, "pods")?;
    Ok(pages::page(
        pods.into_iter()
            .map(|pod| compute(provider, proxy, pod))
            .collect(),
        pagination,
    ))
}

fn described(
    provider: &ProviderId,
    proxy: &ProxyTemplate,
    id: ComputeId,
    pod: wire::Pod,
    raw: Raw,
) -> Compute {
    let status = status(&pod.status);
    let mut compute = Compute::new(id, provider.clone(), status);
    compute.ready = ready(&compute.status, pod.runtime.as_ref());
    let runtime = pod.runtime.unwrap_or_default();
    compute.ports = pod
        .ports
        .iter()
        .filter_map(|port| port_mapping(&pod.id, port, &pod.ports, &runtime, proxy))
        .collect();
    compute.public_ip = runtime
        .ports
        .iter()
        .filter(|port| port.kind.as_deref() == Some("tcp"))
        .find_map(|port| port.ip.clone())
        .or(pod
            .ssh
            .and_then(|ssh| ssh.direct)
            .and_then(|direct| direct.host))
        .filter(|ip| !ip.is_empty());
    if let Some(gpu) = pod.gpu {
        compute.gpu_type = gpu.id.as_deref().and_then(catalogue::canonical);
        compute.native_type = gpu.id;
        compute.gpu_count = gpu.count.unwrap_or(1);
    } else if let Some(cpu) = pod.cpu {
        compute.native_type = cpu.id;
    }
    compute.cost_per_hour = pod.cost.and_then(UsdPerHour::from_f64);
    compute.region = pod.data_center_id.filter(|id| !id.is_empty());
    compute.image = pod.image.filter(|image| !image.is_empty());
    compute.created_at = pod.created_at.and_then(|text| text.parse().ok());
    compute.keys = KeyCarriers::name_and_tag(
        pod.name.as_deref().unwrap_or_default(),
        pod.env.launch_key.as_deref(),
    );
    compute.name = pod.name;
    compute.raw = raw;
    compute
}

fn status(word: &str) -> ComputeStatus {
    match word {
        "PROVISIONING" | "STARTING" => ComputeStatus::Provisioning,
        "RUNNING" => ComputeStatus::Running,
        "EXITED" => ComputeStatus::Stopped,
        "ERROR" => ComputeStatus::Failed,
        "TERMINATED" => ComputeStatus::Terminated,
        // Missing, or in an unknown form: the pod exists, and may be billing.
        "" => ComputeStatus::Other("UNKNOWN".to_owned()),
        other => ComputeStatus::Other(other.to_owned()),
    }
}

/// RUNNING alone does not mean ready: a pod can bill forever with `runtime: null`. An empty
/// `runtime` gives no information.
fn ready(status: &ComputeStatus, runtime: Option<&wire::Runtime>) -> Option<bool> {
    match (status, runtime) {
        (ComputeStatus::Running, Some(runtime))
            if runtime.uptime.is_none() && runtime.ports.is_empty() =>
        {
            None
        }
        (ComputeStatus::Running, Some(_)) => Some(true),
        _ => Some(false),
    }
}

/// HTTP ports are reached through the proxy; the addresses that `runtime` lists for them are
/// internal. TCP ports are reached as `runtime` says.
fn port_mapping(
    pod: &str,
    text: &str,
    all: &[String],
    runtime: &wire::Runtime,
    proxy: &ProxyTemplate,
) -> Option<PortMapping> {
    let (number, protocol) = text.split_once('/')?;
    let internal: u32 = number.parse().ok()?;
    match protocol {
        "http" => Some(PortMapping {
            internal,
            external: None,
            protocol: Protocol::Http,
            url: Some(proxy.url(pod, internal)),
        }),
        "tcp" => {
            let seen = tcp_entry(internal, all, runtime);
            let external = seen
                .and_then(|port| port.public)
                .and_then(|public| u16::try_from(public).ok());
            let ip = seen
                .and_then(|port| port.ip.as_deref())
                .filter(|ip| !ip.is_empty());
            let url = external
                .zip(ip)
                .map(|(port, ip)| format!("tcp://{ip}:{port}"));
            Some(PortMapping {
                internal,
                external,
                protocol: Protocol::Tcp,
                url,
            })
        }
        _ => None,
    }
}

fn tcp_entry<'a>(
    internal: u32,
    all: &[String],
    runtime: &'a wire::Runtime,
) -> Option<&'a wire::RuntimePort> {
    let tcp = || {
        runtime
            .ports
            .iter()
            .filter(|port| port.kind.as_deref() == Some("tcp"))
    };
    let exact = tcp().find(|port| port.private == Some(internal));
    if exact.is_some() || internal < 70_000 {
        return exact;
    }
    // A symmetric port is requested by a slot and reported with the number it got, the same on both
    // sides. With several slots, or several such ports, only the container's own
    // RUNPOD_TCP_PORT_<slot> could distinguish them; then no mapping is reported.
    let asked = |port: &&wire::RuntimePort| {
        all.iter()
            .any(|text| text.strip_suffix("/tcp").and_then(|n| n.parse().ok()) == port.private)
    };
    let mut symmetric =
        tcp().filter(|port| port.private.is_some() && port.private == port.public && !asked(port));
    let slots = all.iter().filter(|text| {
        text.split_once('/')
            .and_then(|(n, _)| n.parse::<u32>().ok())
            .is_some_and(|n| n >= 70_000)
    });
    match (slots.count(), symmetric.next(), symmetric.next()) {
        (1, Some(only), None) => Some(only),
        _ => None,
    }
}

/// RunPod shows the environment to every reader of the pod, so its values are removed from what we
/// keep.
fn redact(pod: &mut Value) {
    if let Some(env) = pod.get_mut("env").and_then(Value::as_object_mut) {
        for value in env.values_mut() {
            *value = Value::from(REDACTED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::{Auth, Claim, Credential, Gpu, Port, Secret, VolumeId};
    use proptest::prelude::*;
    use serde_json::json;

    const KEY: &str = "a1-aaaaaa-nkyqgaabaeaqcaib-aibaeaqc";

    fn shape(cloud: &'static str) -> Shape {
        Shape {
            native_type: "NVIDIA L40S".to_owned(),
            cloud,
            data_centres: vec!["EU-RO-1".to_owned()],
        }
    }

    fn key() -> LaunchKey {
        LaunchKey::Tracked(KEY.parse().unwrap())
    }

    fn runpod() -> ProviderId {
        ProviderId::new("runpod").unwrap()
    }

    fn to_compute(value: Value) -> Result<Compute> {
        compute(&runpod(), &ProxyTemplate::default(), value).map_err(UnreadableRow::into_error)
    }

    #[test]
    fn an_order_always_names_tier_and_disk_and_carries_its_key_twice() {
        let request = ComputeRequest::gpu(Gpu::L40S)
            .image("acme/infer:1")
            .name("u7")
            .port(Port::http(8000))
            .port(Port::tcp(22));
        let body = create(
            "atlas-",
            &key(),
            &request.env("MODEL", "llama"),
            &shape("SECURE"),
        )
        .unwrap();
        assert_eq!(
            body,
            json!({
                "name": format!("atlas-u7-{KEY}"), "image": "acme/infer:1",
                    "gpu": {"id": "NVIDIA L40S", "count": 1},
                "cloud": "SECURE", "dataCenterIds": ["EU-RO-1"], "disk": 50, "ports": ["8000/http",
                    "22/tcp"],
                "env": {"MODEL": "llama", "ATLAS_LAUNCH_KEY": KEY},
            })
        );
    }

    #[test]
    fn every_field_of_a_request_reaches_the_order() {
        let request = ComputeRequest::cpu(4)
            .template("r7n2c0k5xe")
            .container_disk(DiskSize::gb(30))
            .network_volume(VolumeId::new("k3v9q0w1za").unwrap())
            .command(["sh", "-c", "echo it's $HOME"])
            .auth(Auth::Bearer)
            .credential(Some(Credential::bearer(
                Secret::new("tok"),
                "hash".to_owned(),
            )))
            .provider_opts(json!({"startSsh": true, "env": {"EXTRA": "1"}, "disk": 31}));
        let shape = Shape {
            native_type: "cpu3g".to_owned(),
            cloud: "SECURE",
            data_centres: vec![],
        };
        assert_eq!(
            create("", &LaunchKey::untracked(), &request, &shape).unwrap(),
            json!({
                "name": "untracked", "templateId": "r7n2c0k5xe", "cpu": {"id": "cpu3g",
                    "vcpuCount": 4}, "cloud": "SECURE",
                "disk": 31, "mounts": {"network": [{"volumeId": "k3v9q0w1za",
                    "path": "/workspace"}]},
                "env": {"ATLAS_PRESHARED_KEY": "tok", "EXTRA": "1"}, "cmd": ["sh", "-c",
                    "echo it's $HOME"], "startSsh": true,
            })
        );
    }

    #[test]
    fn a_volume_becomes_a_persistent_mount_and_a_template_keeps_its_own_disk() {
        let request = ComputeRequest::gpu(Gpu::L40S)
            .template("t")
            .volume(DiskSize::gb(20));
        let body = create("atlas-", &key(), &request, &shape("COMMUNITY")).unwrap();
        assert_eq!(
            body["mounts"],
            json!({"persistent": {"size": 20, "path": "/workspace"}})
        );
        assert_eq!(body.get("disk"), None);
    }

    #[test]
    fn an_order_larger_than_the_cloud_takes_is_refused_here() {
        let request = ComputeRequest::gpu(Gpu::L40S)
            .image("x")
            .env("A", "x".repeat(60_000))
            .env("B", "x".repeat(60_000));
        let error = create("atlas-", &key(), &request, &shape("SECURE")).unwrap_err();
        assert_eq!(
            (error.kind(), error.field()),
            (ErrorKind::Validation, Some("env"))
        );
    }

    fn running() -> Value {
        json!({
            "id": "q8d2m5x0c7hn4v", "name": format!("atlas-u7-{KEY}"), "status": "RUNNING",
                "actions": ["stop", "restart", "terminate"],
            "image": "acme/infer:1.4.2", "args": "", "disk": 40, "mounts": {},
                "ports": ["8000/http", "22/tcp"],
            "env": {"CANARY": "zz-canary", "ATLAS_LAUNCH_KEY": KEY}, "registry": null,
                "cloud": "SECURE",
            "dataCenterId": "EU-RO-1", "cudaVersion": "12.8", "gpu": {"id": "NVIDIA L40S",
                "count": 2},
            "ssh": {"proxy": null, "direct": {"host": "203.0.113.24", "port": 22071,
                "username": "root", "command": "ssh"}},
            "template": null, "cost": 1.09, "locked": false, "globalNetworking": {"enabled": false},
            "runtime": {"uptime": 412, "gpus": [{"util": 37, "memoryUtil": 52}],
                "cpu": {"util": 8}, "memory": {"util": 21}, "ports": [
                {"private": 22, "public": 22071, "type": "tcp", "ip": "203.0.113.24"},
                {"private": 8000, "public": 60412, "type": "http", "ip": "100.65.14.9"},
                {"private": 19123, "public": 60413, "type": "http", "ip": "100.65.14.9"}]},
            "createdAt": "2026-09-03T10:15:22.607Z", "startedAt": "2026-09-03T10:16:01.120Z",
                "someday": 1
        })
    }

    #[test]
    fn a_running_pod_is_read_whole() {
        let compute = to_compute(running()).unwrap();
        assert_eq!(
            (compute.id.as_str(), compute.status.as_str(), compute.ready),
            ("q8d2m5x0c7hn4v", "running", Some(true))
        );
        assert_eq!(compute.gpu_type, Some(Gpu::L40S));
        assert_eq!(
            (compute.native_type.as_deref(), compute.gpu_count),
            (Some("NVIDIA L40S"), 2)
        );
        assert_eq!(compute.cost_per_hour, UsdPerHour::from_f64(1.09));
        assert_eq!(
            (compute.region.as_deref(), compute.public_ip.as_deref()),
            (Some("EU-RO-1"), Some("203.0.113.24"))
        );
        assert_eq!(
            compute.created_at.unwrap().to_string(),
            "2026-09-03T10:15:22.607Z"
        );
        assert_eq!(
            compute.ports.len(),
            2,
            "the port nobody asked for is not shown"
        );
        assert_eq!(
            compute.url(8000),
            Some("https://q8d2m5x0c7hn4v-8000.proxy.runpod.net")
        );
        assert_eq!(
            (compute.ports[1].external, compute.url(22)),
            (Some(22071), Some("tcp://203.0.113.24:22071"))
        );
        assert!(matches!(compute.keys.claim(), Claim::Whole(_)));
    }

    #[test]
    fn the_environment_a_cloud_echoes_is_redacted_and_the_unknown_is_kept() {
        let compute = to_compute(running()).unwrap();
        assert!(!format!("{compute:?}").contains("zz-canary"));
        assert_eq!(
            (&compute.raw["env"]["CANARY"], &compute.raw["someday"]),
            (&json!(REDACTED), &json!(1))
        );
    }

    #[test]
    fn status_words_and_readiness() {
        let table = [
            ("PROVISIONING", json!({}), "provisioning", Some(false)),
            ("STARTING", json!(null), "provisioning", Some(false)),
            ("RUNNING", json!(null), "running", Some(false)),
            ("RUNNING", json!({}), "running", None),
            ("RUNNING", json!({"uptime": 3}), "running", Some(true)),
            ("EXITED", json!(null), "stopped", Some(false)),
            ("ERROR", json!(null), "failed", Some(false)),
            ("TERMINATED", json!(null), "terminated", Some(false)),
            ("REBOOTING", json!(null), "REBOOTING", Some(false)),
        ];
        for (word, runtime, status, ready) in table {
            let compute =
                to_compute(json!({"id": "p", "name": "n", "status": word, "runtime": runtime}))
                    .unwrap();
            assert_eq!(
                (compute.status.as_str(), compute.ready),
                (status, ready),
                "{word}"
            );
        }
    }

    #[test]
    fn a_pod_without_the_other_carrier_is_only_partly_claimed() {
        let compute = to_compute(
            json!({"id": "p", "name": format!("x-{KEY}"), "status": "EXITED", "env": null}),
        )
        .unwrap();
        assert!(matches!(compute.keys.claim(), Claim::Partial(_)));
    }

    #[test]
    fn no_odd_field_makes_a_pod_unreadable() {
        let odd = [
            json!(null),
            json!(7),
            json!("7"),
            json!(true),
            json!(["x"]),
            json!({"x": 1}),
        ];
        let mut whole = running();
        let names: Vec<String> = whole.as_object().unwrap().keys().cloned().collect();
        for name in names.iter().filter(|name| *name != "id") {
            for value in &odd {
                let mut pod = running();
                pod[name] = value.clone();
                let compute = to_compute(pod).unwrap();
                assert_eq!(compute.id.as_str(), "q8d2m5x0c7hn4v", "{name}: {value}");
            }
            let mut pod = running();
            pod.as_object_mut().unwrap().remove(name);
            to_compute(pod).unwrap();
        }
        whole["cost"] = json!("1.09");
        whole["gpu"]["count"] = json!("2");
        whole["runtime"]["ports"][0]["public"] = json!("22071");
        whole["runtime"]["gpus"] = json!(null);
        whole["ports"] = json!(["22/tcp", null, 7]);
        let compute = to_compute(whole).unwrap();
        assert_eq!(compute.cost_per_hour, UsdPerHour::from_f64(1.09));
        assert_eq!(
            (compute.gpu_count, compute.ports[0].external),
            (2, Some(22071))
        );
        assert_eq!(compute.ready, Some(true));
        let bare = to_compute(json!({"id": "p"})).unwrap();
        assert_eq!(
            (bare.status.as_str(), bare.ready),
            ("unreadable", Some(false))
        );
    }

    #[test]
    fn no_status_says_how_a_container_ended_or_that_one_ran() {
        for status in ["EXITED", "ERROR", "TERMINATED", "RUNNING", "STARTING"] {
            for started in [json!(null), json!("2026-09-03T10:16:01.120Z")] {
                let pod =
                    json!({"id": "p", "status": status, "runtime": null, "startedAt": started});
                let compute = to_compute(pod).unwrap();
                assert_eq!(
                    (compute.exit_code, compute.ready),
                    (None, Some(false)),
                    "{status}"
                );
            }
        }
    }

    #[test]
    fn an_answer_that_is_no_pod_names_the_place_and_quotes_nothing() {
        let error = to_compute(json!({"id": {"secret": "zz-canary"}})).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Provider);
        assert!(error.message().ends_with("id: is not text"), "{error}");
        let odd = to_compute(json!({"id": "p", "status": {"secret": "zz-canary"}})).unwrap();
        assert_eq!(odd.status, ComputeStatus::Other("unreadable".to_owned()));
        assert!(to_compute(json!({"id": "../x", "status": "RUNNING"})).is_err());
    }

    #[test]
    fn a_symmetric_port_is_told_only_when_it_cannot_be_another() {
        let pod = |ports: Value| {
            let seen = json!([{"private": 41001, "public": 41001, "type": "tcp", "ip": "1.2.3.4"}]);
            to_compute(json!({"id": "p", "status": "RUNNING", "ports": ports,
                "runtime": {"uptime": 1, "ports": seen}}))
            .unwrap()
        };
        assert_eq!(pod(json!(["70000/tcp"])).ports[0].external, Some(41001));
        assert_eq!(
            pod(json!(["70000/tcp", "70001/tcp"])).ports[0].external,
            None
        );
    }

    proptest! {
        #[test]
        fn no_answer_panics_and_no_environment_is_kept(status in "[A-Z]{0,8}",
            name in "\\PC{0,20}", secret in "zz[a-z]{8}", port in "\\PC{0,8}",
                cost in proptest::num::f64::ANY) {
            let pod = json!({"id": "p1", "name": name, "status": status, "env": {"A": secret},
                "ports": [port, "8000/http"],
                "cost": cost, "runtime": {"ports": [{"private": 1, "public": 70_000, "type": "tcp",
                    "ip": ""}]}});
            let compute = to_compute(pod).unwrap();
            let shown = format!("{compute:?}");
            prop_assert!(!shown.contains(&secret), "it is shown");
            prop_assert!(!serde_json::to_string(&compute).unwrap().contains(&secret),
                "it is written");
        }
    }
}
