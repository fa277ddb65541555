//! Instances and their types.

use std::collections::BTreeMap;

use atlas_core::Port;
use http::Response;
use serde_json::{Map, Value, json};

use super::envelope::{Failure, data, json_answer};
use super::script;
use super::stock::{self, KINDS, NAME, REGIONS};
use super::{Call, Capacity, Lambda};
use crate::dialect::SimBody;
use crate::world::{FaultKind, Machine, MachineSpec, MachineState, Refusal};

const MAX_NAME: usize = 64;
const MAX_USER_DATA: usize = 1_000_000;
const MAX_TAG_KEY: usize = 55;
const MAX_TAG_VALUE: usize = 128;

impl Lambda {
    pub(super) fn list(&self, call: &Call<'_>) -> Response<SimBody> {
        let mut machines = self.world.machines(NAME, &call.account, &call.arrival);
        if !call.arrival.has(FaultKind::EmptyList) {
            let ended = self
                .world
                .all(NAME)
                .into_iter()
                .filter(|machine| self.is_remembered(call, machine));
            let ended: Vec<Machine> = ended
                .filter(|ended| machines.iter().all(|shown| shown.id != ended.id))
                .collect();
            machines.extend(ended);
            machines.sort_by_key(|machine| std::cmp::Reverse(machine.order()));
        }
        let page = self.shared().quirks.page_size.max(1);
        let start: usize = call
            .query
            .get("page_token")
            .and_then(|token| token.strip_prefix("p")?.parse().ok())
            .unwrap_or(0);
        let rows: Vec<Value> = machines
            .iter()
            .skip(start)
            .take(page)
            .map(instance)
            .collect();
        let next = (start + page < machines.len()).then(|| format!("p{}", start + page));
        let mut body = json!({ "data": rows });
        if let Some(next) = next {
            body["page_token"] = Value::from(next);
        }
        json_answer(http::StatusCode::OK, &body)
    }

    pub(super) fn get(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        let shown = self.world.machine(NAME, &call.account, id, &call.arrival);
        let remembered = || {
            self.world
                .truth(NAME, id)
                .filter(|machine| self.is_remembered(call, machine))
        };
        let machine = shown
            .or_else(remembered)
            .ok_or_else(|| Failure::missing("instance"))?;
        Ok(data(&instance(&machine)))
    }

    /// A recently ended instance is still shown, as `terminated` or `preempted`.
    fn is_remembered(&self, call: &Call<'_>, machine: &Machine) -> bool {
        let remembers = self.shared().quirks.remembers;
        let told_of = machine.preempted || machine.was_ordered_to_end();
        let lately = machine
            .destroyed_at
            .is_some_and(|at| self.world.now().since(at) < remembers);
        machine.account == call.account.as_str() && told_of && lately
    }

    pub(super) fn rename(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let name = body["name"]
            .as_str()
            .filter(|name| name.len() <= MAX_NAME)
            .ok_or_else(|| Failure::invalid("name: 0 to 64 characters"))?;
        let machine = self.world.update(NAME, &call.account, id, |machine| {
            name.clone_into(&mut machine.spec.name)
        })?;
        Ok(data(&instance(&machine)))
    }

    /// The regions with free machines of each type, slightly outdated.
    fn capacity(&self) -> Capacity {
        let now = self.world.now();
        let mut shared = self.shared();
        let (claims, age) = (
            shared.quirks.claims_capacity.clone(),
            shared.quirks.capacity_age,
        );
        if let Some((_, known)) = shared
            .capacity
            .as_ref()
            .filter(|(at, _)| now.since(*at) < age)
        {
            return known.clone();
        }
        let free = |kind: &'static str| {
            let free = self.world.stock(NAME, kind, "");
            let shown = REGIONS.iter().map(|(id, _)| *id);
            shown
                .filter(|id| {
                    claims.as_deref() == Some(*id) || free.get(*id).is_some_and(|units| *units > 0)
                })
                .collect()
        };
        let known: Capacity = KINDS
            .iter()
            .map(|kind| (kind.name, free(kind.name)))
            .collect();
        shared.capacity = Some((now, known.clone()));
        known
    }

    pub(super) fn types(&self, _call: &Call<'_>) -> Response<SimBody> {
        let capacity = self.capacity();
        let mut map = Map::new();
        for kind in KINDS {
            let regions: Vec<Value> = capacity
                .get(kind.name)
                .into_iter()
                .flatten()
                .map(|id| region(id))
                .collect();
            map.insert(
                kind.name.to_owned(),
                json!({ "instance_type": instance_type(kind.name),
                    "regions_with_capacity_available": regions }),
            );
        }
        data(&Value::Object(map))
    }

    pub(super) fn launch(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let text = |field: &str| body[field].as_str().map(str::to_owned);
        let keys: Vec<&str> = body["ssh_key_names"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if keys.len() != 1 {
            return Err(Failure::invalid("Exactly one SSH key must be specified."));
        }
        if !self.has_key(call, keys[0]) {
            return Err(Failure::unknown("SSH key"));
        }
        let kind = text("instance_type_name")
            .and_then(|name| stock::find(&name))
            .ok_or_else(|| Failure::unknown("instance type"))?;
        let place = text("region_name")
            .filter(|name| REGIONS.iter().any(|(id, _)| id == name))
            .ok_or_else(|| Failure::unknown("region"))?;
        if !Self::has_image(&body["image"]) {
            return Err(Failure::unknown("image"));
        }
        let name = text("name").unwrap_or_default();
        if name.len() > MAX_NAME {
            return Err(Failure::invalid(format!(
                "name: at most 64 characters: {name}"
            )));
        }
        if let Some(odd) = text("hostname").filter(|hostname| !is_hostname(hostname)) {
            return Err(Failure::invalid(format!(
                "hostname: string does not match regex: {odd}"
            )));
        }
        let tags = tags(&body["tags"])?;
        let user_data = text("user_data").unwrap_or_default();
        if user_data.len() > MAX_USER_DATA {
            return Err(Failure::invalid(format!(
                "user_data: too long: {user_data}"
            )));
        }
        if body["quantity"]
            .as_u64()
            .is_some_and(|quantity| quantity > 1)
        {
            return Err(Failure::invalid("Requested too many instances"));
        }
        let rulesets: Vec<String> = body["firewall_rulesets"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|r| r["id"].as_str().map(str::to_owned))
            .collect();
        let opened = self.opened(call, &place, &rulesets)?;
        self.attach_file_systems(call, &place, &body["file_system_names"])?;
        self.mount_file_systems(call, &place, &body["file_system_mounts"])?;
        self.within_quota(call)?;
        let container = script::container(&user_data);
        let mut spec = MachineSpec::gpu(kind.name, 1).named(name);
        spec.tier = Some(String::new());
        spec.regions = vec![place];
        spec.tags = tags;
        spec.env = container.env;
        spec.image = container.image.unwrap_or_default();
        spec.command = container.command;
        spec.ports = reached(&container.ports, opened.as_deref());
        spec.extra = json!({
            "ssh_key": keys[0], "rulesets": rulesets,
                "file_systems": body["file_system_names"].clone(), "publishes": container.ports,
            "mounts": body["file_system_mounts"].clone(),
        });
        let machine = self
            .world
            .create_machine(NAME, &call.account, spec, &call.arrival)?;
        if self.shared().quirks.boots_unhealthy {
            self.world.fail_machine(NAME, &machine.id);
        }
        Ok(data(&json!({ "instance_ids": [machine.id] })))
    }

    pub(super) fn restart(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let mut restarted = Vec::new();
        for id in ids(&call.json()?)? {
            // cloud-init runs once: the container that its script started does not start again.
            let bare = |machine: &mut Machine| machine.spec.command.clear();
            if self
                .world
                .machine(NAME, &call.account, &id, &self.world.honest())
                .is_some_and(|m| m.state == MachineState::Running)
            {
                self.world.update(NAME, &call.account, &id, bare)?;
            }
            self.world.restart(NAME, &call.account, &id)?;
            restarted.push(instance(&self.world.update(
                NAME,
                &call.account,
                &id,
                |machine| machine.warm_at = None,
            )?));
        }
        Ok(data(&json!({ "restarted_instances": restarted })))
    }

    /// One unknown id makes all fail.
    pub(super) fn terminate(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let ids = ids(&call.json()?)?;
        let holds = self.shared().quirks.holds_while_booting;
        let mut terminated = Vec::new();
        for id in &ids {
            let machine = self
                .world
                .machine(NAME, &call.account, id, &self.world.honest());
            // A machine ordered once is not found by a second order.
            let machine = machine
                .filter(|machine| !machine.is_being_destroyed())
                .ok_or_else(|| Failure::missing("instance"))?;
            if holds && boots(&machine) {
                return Err(Refusal::WrongState(machine.state).into());
            }
            terminated.push(machine);
        }
        for id in &ids {
            match self.world.destroy(NAME, &call.account, id) {
                Ok(()) | Err(Refusal::NotFound) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        let shown: Vec<Value> = terminated
            .iter()
            .map(|machine| {
                let mut shown = instance(machine);
                shown["status"] = Value::from("terminating");
                shown
            })
            .collect();
        Ok(data(&json!({ "terminated_instances": shown })))
    }
}

fn boots(machine: &Machine) -> bool {
    matches!(
        machine.state,
        MachineState::Provisioning | MachineState::Starting
    )
}

/// The ports that a container publishes and the firewall lets in; `None` is no firewall at all.
pub(super) fn reached(published: &[u16], opened: Option<&[u16]>) -> Vec<Port> {
    let reached = published
        .iter()
        .filter(|port| opened.is_none_or(|opened| opened.contains(port)));
    reached.map(|port| Port::http(*port)).collect()
}

fn is_hostname(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn ids(body: &Value) -> Result<Vec<String>, Failure> {
    let ids: Vec<String> = body["instance_ids"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|id| id.as_str().map(str::to_owned))
        .collect();
    if ids.is_empty() {
        Err(Failure::invalid("instance_ids: at least one"))
    } else {
        Ok(ids)
    }
}

fn tags(sent: &Value) -> Result<BTreeMap<String, String>, Failure> {
    let mut tags = BTreeMap::new();
    for tag in sent.as_array().into_iter().flatten() {
        let (Some(key), Some(value)) = (tag["key"].as_str(), tag["value"].as_str()) else {
            return Err(Failure::invalid(format!("tags: {tag}")));
        };
        let plain = key.starts_with(|c: char| c.is_ascii_lowercase())
            && key
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b':'));
        if !plain || !(2..=MAX_TAG_KEY).contains(&key.len()) || value.len() > MAX_TAG_VALUE {
            return Err(Failure::invalid(format!("tags: {key}={value}")));
        }
        tags.insert(key.to_owned(), value.to_owned());
    }
    Ok(tags)
}

pub(super) fn region(id: &str) -> Value {
    let description = REGIONS
        .iter()
        .find(|(known, _)| *known == id)
        .map_or("", |(_, description)| description);
    json!({ "name": id, "description": description })
}

fn instance_type(name: &str) -> Value {
    let Some(kind) = stock::find(name) else {
        return Value::Null;
    };
    let architecture = if name.ends_with("gh200") {
        "arm64"
    } else {
        "x86_64"
    };
    let description = if kind.gpus == 0 {
        "4x general CPU".to_owned()
    } else {
        format!("{}x {}", kind.gpus, kind.gpu_description)
    };
    json!({
        "name": kind.name,
        "description": description,
        "gpu_description": kind.gpu_description,
        "price_cents_per_hour": kind.cents,
        "architecture": architecture,
        "specs": { "vcpus": kind.vcpus, "memory_gib": kind.memory_gib,
            "storage_gib": kind.storage_gib, "gpus": kind.gpus },
    })
}

fn status(machine: &Machine) -> &'static str {
    match machine.state {
        _ if machine.is_being_destroyed() => "terminating",
        MachineState::Provisioning | MachineState::Starting => "booting",
        MachineState::Running => "active",
        MachineState::Stopped | MachineState::Failed => "unhealthy",
        MachineState::Destroyed if machine.preempted => "preempted",
        MachineState::Destroyed => "terminated",
    }
}

/// The instance object. It has no creation time, no environment, no image: those are write-only.
pub(super) fn instance(machine: &Machine) -> Value {
    let spec = &machine.spec;
    let active = machine.state == MachineState::Running && !machine.is_being_destroyed();
    let action = |available: bool| {
        if available {
            json!({ "available": true })
        } else {
            json!({ "available": false, "reason_code": "vm-has-not-launched",
                "reason_description": "The VM has not launched." })
        }
    };
    let tags: Vec<Value> = spec
        .tags
        .iter()
        .map(|(key, value)| json!({ "key": key, "value": value }))
        .collect();
    let mut shown = json!({
        "id": machine.id,
        "status": status(machine),
        "ssh_key_names": [spec.extra["ssh_key"].as_str().unwrap_or("planted")],
        "file_system_names": spec.extra["file_systems"].as_array().cloned().unwrap_or_default(),
        "region": region(&machine.region),
        "instance_type": instance_type(&spec.shape),
        "actions": {
            "migrate": action(false), "rebuild": action(active), "restart": action(active),
            "cold_reboot": action(active), "terminate": action(!machine.is_being_destroyed()),
        },
        "tags": tags,
        "firewall_rulesets": spec.extra["rulesets"].as_array().into_iter().flatten().map(|id| json!({ "id": id })).collect::<Vec<_>>(),
        "is_reserved": false,
    });
    if !spec.name.is_empty() {
        shown["name"] = Value::from(spec.name.as_str());
    }
    // An address is shown before the machine is up, but not at once.
    if machine.state != MachineState::Provisioning {
        shown["ip"] = Value::from(machine.ip.as_str());
        shown["private_ip"] = Value::from("10.19.4.12");
        shown["hostname"] = Value::from(format!(
            "{}.cloud.example.net",
            machine.ip.replace('.', "-")
        ));
    }
    if active {
        shown["jupyter_token"] = Value::from(format!("zz-jupyter-{}", machine.id));
        shown["jupyter_url"] = Value::from(format!(
            "https://jupyter-{0}.example.net/?token=zz-jupyter-{0}",
            machine.id
        ));
    }
    shown
}
