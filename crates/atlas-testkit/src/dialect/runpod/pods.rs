//! Pods: create, list, read, update, act on, delete.

use atlas_core::{Protocol, Timestamp};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::clusters::membership;
use super::command::Command;
use super::create::{self, CONTAINER, Update};
use super::page::{MOST, whole};
use super::problem::{Problem, json as answer, no_content};
use super::stock::{NAME, VCPUS_PER_GPU};
use super::store::over_template;
use super::{Call, MAX_BODY, Pagination, RunPod};
use crate::dialect::SimBody;
use crate::dialect::check::Check;
use crate::world::{FaultKind, Machine, MachineState, Refusal, World};

/// A live pod announces this port besides its own (docs/clouds/runpod.md).
const EXTRA_PORT: u32 = 19_123;
/// What a template gives the body of a create.
const POD_TEMPLATE: [&str; 11] = [
    "image",
    "args",
    "entrypoint",
    "cmd",
    "disk",
    "env",
    "ports",
    "registry",
    "mounts",
    "startSsh",
    "startJupyter",
];

impl RunPod {
    pub(super) fn create_pod(&self, call: &Call<'_>) -> Result<Response<SimBody>, Problem> {
        let body = self.over_pod_template(call, call.json()?, &POD_TEMPLATE)?;
        let cloud = self
            .world
            .cloud(NAME)
            .ok_or_else(|| Problem::from(Refusal::NoSuchCloud))?;
        let keys = self
            .shared()
            .ssh_keys
            .get(call.account.as_str())
            .cloned()
            .unwrap_or_default();
        let spec = create::pod(&cloud, &body, &keys, || self.world.word(24))?;
        if let Some(volume) = &spec.network_volume {
            let held = self
                .world
                .volume(NAME, &call.account, volume)
                .ok_or_else(|| Problem::not_found("network volume"))?;
            if !spec.regions.is_empty() && !spec.regions.contains(&held.region) {
                return Err(Problem::bad("network volume is in another data center"));
            }
        }
        let made = self
            .world
            .create_machine(NAME, &call.account, spec, &call.arrival)?;
        Ok(answer(StatusCode::CREATED, &self.pod(&made)))
    }

    pub(super) fn list_pods(&self, call: &Call<'_>) -> Result<Response<SimBody>, Problem> {
        let quirk = self.shared().quirks.pagination;
        let members_too = call.query.get("includeClusterPods") == Some("true");
        let list = if members_too { "pods+cluster" } else { "pods" };
        let asked = self.asked(call, list, MOST)?;
        let mut pods = self.world.machines(NAME, &call.account, &call.arrival);
        if quirk == Pagination::Omitted {
            pods.retain(|machine| members_too || membership(machine).is_none());
            let pods: Vec<Value> = pods.iter().map(|machine| self.pod(machine)).collect();
            return Ok(whole("pods", pods));
        }
        pods.retain(|machine| asked.after.is_none_or(|after| machine.order() < after));
        if call.arrival.has(FaultKind::PageShift) && !pods.is_empty() {
            pods.remove(0);
        }
        let more = pods.len() > asked.size;
        pods.truncate(asked.size);
        let pagination = asked.block(quirk, more, pods.last().map(Machine::order));
        // Members of clusters are taken out after the page was cut, so a page may be short, or
        // empty, and still have a next one (docs/clouds/runpod.md, "Lists").
        pods.retain(|machine| members_too || membership(machine).is_none());
        let pods: Vec<Value> = pods.iter().map(|machine| self.pod(machine)).collect();
        Ok(answer(
            StatusCode::OK,
            &json!({ "pods": pods, "pagination": pagination }),
        ))
    }

    pub(super) fn get_pod(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Problem> {
        let machine = self
            .world
            .machine(NAME, &call.account, id, &call.arrival)
            .ok_or_else(|| Problem::not_found("pod"))?;
        Ok(answer(StatusCode::OK, &self.pod(&machine)))
    }

    pub(super) fn update_pod(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Problem> {
        let body = call.json()?;
        let machine = self
            .world
            .machine(NAME, &call.account, id, &call.arrival)
            .ok_or_else(|| Problem::not_found("pod"))?;
        refuse_members(&machine)?;
        let body = self.over_pod_template(call, body, &CONTAINER)?;
        let update = Update::read(&body, &machine.spec.extra)?;
        let restarts = update.restarts();
        let changed = self
            .world
            .update(NAME, &call.account, id, |machine| apply(update, machine))?;
        let changed = if restarts && changed.state == MachineState::Running && !changed.locked {
            self.world.restart(NAME, &call.account, id)?
        } else {
            changed
        };
        Ok(answer(StatusCode::OK, &self.pod(&changed)))
    }

    pub(super) fn delete_pod(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Problem> {
        if let Some(machine) = self.world.machine(NAME, &call.account, id, &call.arrival) {
            refuse_members(&machine)?;
        }
        self.world.destroy(NAME, &call.account, id)?;
        Ok(no_content())
    }

    pub(super) fn pod_action(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Problem> {
        let body = call.json()?;
        let mut check = Check::default();
        let action = check
            .object("$", &body, &["action"], &["action"])
            .and_then(|object| {
                check.one_of(
                    "$.action",
                    object.get("action"),
                    &["start", "stop", "restart", "terminate"],
                )
            })
            .unwrap_or_default()
            .to_owned();
        if !check.errors.is_empty() {
            return Err(Problem::invalid(check.errors));
        }
        if let Some(machine) = self.world.machine(NAME, &call.account, id, &call.arrival) {
            refuse_members(&machine)?;
        }
        let machine = match action.as_str() {
            "terminate" => return self.delete_pod(call, id),
            "stop" => self.world.stop(NAME, &call.account, id)?,
            "restart" => self.world.restart(NAME, &call.account, id)?,
            _ => self
                .world
                .start(NAME, &call.account, id, &call.arrival)
                .map_err(|refusal| match refusal {
                    Refusal::NoCapacity => Problem::bad(
                        "There are not enough free GPUs on the host machine to start this pod.",
                    ),
                    other => Problem::from(other),
                })?,
        };
        Ok(answer(StatusCode::OK, &self.pod(&machine)))
    }

    /// A pod's body over the template it names.
    fn over_pod_template(
        &self,
        call: &Call<'_>,
        body: Value,
        fields: &[&str],
    ) -> Result<Value, Problem> {
        let Some(id) = body.get("templateId").and_then(Value::as_str) else {
            return Ok(body);
        };
        let template = self.template(call, id)?;
        if template["serverless"] == true {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "template is a serverless template",
            ));
        }
        let on_cpu = body.get("cpu").is_some();
        let fields: Vec<&str> = fields
            .iter()
            .copied()
            .filter(|field| !(on_cpu && *field == "mounts"))
            .collect();
        let mut body = over_template(&template, body, &fields);
        if body.to_string().len() > MAX_BODY {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the order with its template exceeds {MAX_BODY} bytes"),
            ));
        }
        let versions = template["allowedCudaVersions"].clone();
        // Either CUDA field of the body replaces the template's constraint.
        if versions
            .as_array()
            .is_some_and(|versions| !versions.is_empty())
            && let Some(gpu) = body.get_mut("gpu").and_then(Value::as_object_mut)
            && !gpu.contains_key("allowedCudaVersions")
            && !gpu.contains_key("minCudaVersion")
        {
            gpu.insert("allowedCudaVersions".into(), versions);
        }
        Ok(body)
    }

    pub(super) fn get_ssh_keys(&self, call: &Call<'_>) -> Result<Response<SimBody>, Problem> {
        let keys = self
            .shared()
            .ssh_keys
            .get(call.account.as_str())
            .cloned()
            .unwrap_or_default();
        Ok(answer(StatusCode::OK, &json!({ "keys": keys })))
    }

    pub(super) fn put_ssh_keys(&self, call: &Call<'_>) -> Result<Response<SimBody>, Problem> {
        let body = call.json()?;
        let mut check = Check::default();
        let keys = check
            .object("$", &body, &["keys"], &["keys"])
            .and_then(|object| check.strings("$.keys", object.get("keys")))
            .unwrap_or_default();
        if !check.errors.is_empty() {
            return Err(Problem::invalid(check.errors));
        }
        self.shared()
            .ssh_keys
            .insert(call.account.as_str().to_owned(), keys.clone());
        Ok(answer(StatusCode::OK, &json!({ "keys": keys })))
    }

    /// A pod as it is written on the wire.
    pub(super) fn pod(&self, machine: &Machine) -> Value {
        let now = self.world.now();
        let spec = &machine.spec;
        let extra = |name: &str| spec.extra.get(name).cloned().unwrap_or(Value::Null);
        let on = |name: &str| {
            spec.extra
                .get(name)
                .and_then(Value::as_bool)
                .unwrap_or(false)
        };
        let (status, actions): (&str, &[&str]) = match machine.state {
            MachineState::Provisioning => ("PROVISIONING", &["stop", "terminate"]),
            MachineState::Starting => ("STARTING", &["stop", "terminate"]),
            MachineState::Running => ("RUNNING", &["stop", "restart", "terminate"]),
            MachineState::Stopped => ("EXITED", &["start", "terminate"]),
            MachineState::Failed => ("ERROR", &["start", "terminate"]),
            MachineState::Destroyed => ("TERMINATED", &[]),
        };
        let billing = !matches!(
            machine.state,
            MachineState::Stopped | MachineState::Destroyed
        );
        let env: Map<String, Value> = spec
            .env
            .iter()
            .map(|(name, value)| (name.clone(), value.expose().into()))
            .collect();
        let mut networking = json!({ "enabled": on("globalNetworking") });
        if on("globalNetworking") {
            networking["ip"] = format!(
                "10.65.{}.{}",
                machine.order() % 250,
                machine.order() / 250 % 250
            )
            .into();
            networking["internalDns"] = format!("{}.runpod.internal", machine.id).into();
        }
        let ports: Vec<String> = spec.ports.iter().map(ToString::to_string).collect();
        let mut pod = json!({
            "id": machine.id,
            "name": spec.name,
            "status": status,
            "actions": actions,
            "image": spec.image,
            "disk": spec.disk_gb.max(1),
            "mounts": spec.extra.get("mounts").cloned().unwrap_or_else(|| json!({})),
            "ports": ports,
            "env": env,
            "registry": extra("registry"),
            "cloud": machine.tier,
            "dataCenterId": machine.region,
            "cudaVersion": extra("cudaVersion"),
            "ssh": ssh(machine, now),
            "template": null,
            "cost": if billing { dollars(machine.price.per_hour().nanos()) } else { 0.0 },
            "locked": machine.locked,
            "globalNetworking": networking,
            "runtime": runtime(machine, now),
            "createdAt": wire_time(&self.world, machine.created_at),
            "startedAt": machine.started_at.map(|at| wire_time(&self.world, at)),
        });
        let args = spec.extra["args"].as_str().map(str::to_owned);
        Command::stored(&args.unwrap_or_else(|| spec.command.join(" "))).put(&mut pod);
        if let Some(cluster) = membership(machine) {
            pod["cluster"] = cluster.clone();
        }
        let shape_of = self.world.shape(NAME, &spec.shape);
        match shape_of.as_ref().filter(|shape| shape.vram_gb == 0) {
            Some(shape) => {
                pod["cpu"] = json!({ "id": spec.shape, "vcpuCount": spec.count,
                    "memory": shape.ram_gb * spec.count })
            }
            None => {
                let per_gpu = shape_of.map_or(0, |shape| shape.ram_gb);
                pod["gpu"] = json!({
                    "id": spec.shape, "count": spec.count, "vcpuCount": VCPUS_PER_GPU * spec.count,
                    "memory": per_gpu * spec.count,
                });
            }
        }
        pod
    }
}

/// A cluster's pods are the cluster's.
fn refuse_members(machine: &Machine) -> Result<(), Problem> {
    match membership(machine) {
        Some(_) => Err(Problem::new(
            StatusCode::CONFLICT,
            "pod belongs to a cluster",
        )),
        None => Ok(()),
    }
}

fn apply(update: Update, machine: &mut Machine) {
    let spec = &mut machine.spec;
    if let Some(name) = update.name {
        spec.name = name;
    }
    if let Some(locked) = update.locked {
        machine.locked = locked;
    }
    let container = update.container;
    spec.image = container
        .image
        .unwrap_or_else(|| std::mem::take(&mut spec.image));
    spec.disk_gb = container.disk.unwrap_or(spec.disk_gb);
    if let Some(env) = container.env {
        spec.env = env;
    }
    if let Some(ports) = container.ports {
        spec.ports = ports;
    }
    if !spec.extra.is_object() {
        spec.extra = json!({});
    }
    if let Some(command) = update.command {
        spec.command = command.words();
        command.put(&mut spec.extra);
    }
    for (name, value) in [
        ("registry", container.registry),
        ("mounts", update.mounts),
        ("globalNetworking", update.global.map(Value::from)),
    ] {
        if let Some(value) = value {
            spec.extra[name] = value;
        }
    }
}

/// What a port is called outside, once it is announced.
fn runtime(machine: &Machine, now: Timestamp) -> Value {
    let (MachineState::Running, Some(started)) = (machine.state, machine.started_at) else {
        return Value::Null;
    };
    let mut ports = Vec::new();
    if machine.ports_announced(now) {
        for port in &machine.spec.ports {
            let number = port.number();
            match (port.protocol(), machine.external.get(&number).copied()) {
                (Protocol::Tcp, external) => {
                    // A symmetric port has the outside number inside too.
                    let inside = external
                        .filter(|_| port.is_symmetric())
                        .map_or(number, u32::from);
                    ports.push(
                        json!({ "private": inside, "public": external, "type": "tcp",
                        "ip": machine.ip }),
                    );
                }
                (Protocol::Http, _) => ports.push(internal(machine, number)),
            }
        }
        ports.push(internal(machine, EXTRA_PORT));
    }
    let gpus = vec![
        json!({ "util": 0, "memoryUtil": 0 });
        if on_cpu(machine) {
            0
        } else {
            machine.spec.count as usize
        }
    ];
    json!({
        "uptime": now.since(started).as_secs(),
        "gpus": gpus,
        "cpu": { "util": 3 },
        "memory": { "util": 7 },
        "ports": ports,
    })
}

fn on_cpu(machine: &Machine) -> bool {
    machine
        .spec
        .extra
        .get("cpu")
        .and_then(Value::as_bool)
        .unwrap_or(false)
}

/// An HTTP port in `runtime`: at an internal address that cannot be reached from outside.
fn internal(machine: &Machine, number: u32) -> Value {
    let last = machine.ip.rsplit('.').next().unwrap_or("9");
    json!({ "private": number, "public": 60_000 + machine.order() % 5_000, "type": "http",
        "ip": format!("100.65.14.{last}") })
}

fn ssh(machine: &Machine, now: Timestamp) -> Value {
    let user = format!("{}-6441{:04x}", machine.id, machine.order() & 0xffff);
    let direct = machine
        .external
        .get(&22)
        .filter(|_| machine.ports_announced(now))
        .map(|port| {
            json!({ "host": machine.ip, "port": port, "username": "root",
            "command": format!("ssh root@{} -p {port}", machine.ip) })
        });
    json!({
        "proxy": { "host": "ssh.runpod.io", "port": 22, "username": user,
            "command": format!("ssh {user}@ssh.runpod.io") },
        "direct": direct,
    })
}

/// RFC 3339 with milliseconds, in the client's frame of time.
pub(super) fn wire_time(world: &World, at: Timestamp) -> String {
    let at = world.clock().on_the_wire(at);
    let seconds = Timestamp::from_unix_seconds(at.unix_seconds()).to_string();
    format!(
        "{}.{:03}Z",
        seconds.trim_end_matches('Z'),
        at.unix_millis().rem_euclid(1000)
    )
}

/// Nano-dollars as the floating-point dollars of the wire.
#[expect(
    clippy::cast_precision_loss,
    reason = "the wire has floating-point dollars"
)]
pub(super) fn dollars(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}
