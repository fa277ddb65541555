//! Pods over GraphQL: orders, and what a pod looks like.

use std::collections::BTreeMap;

use atlas_core::{Secret, Timestamp};
use serde_json::{Value, json};

use super::{Resolved, SOLD_OUT, floor, message, over, per_hour};
use crate::dialect::runpod::RunPod;
use crate::dialect::runpod::command::Command;
use crate::dialect::runpod::pods::{dollars, wire_time};
use crate::dialect::runpod::stock::{CENTRES, CUDA, FLAVOURS, NAME, RAM_PER_GPU, VCPUS_PER_GPU};
use crate::world::{Account, Arrival, Machine, MachineSpec, MachineState, Shape};

/// The kinds of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    OnDemand,
    Spot,
    Cpu,
}

/// The plain fields of the type `Pod`, as far as clients ask for them.
const FIELDS: [&str; 36] = [
    "id",
    "name",
    "aiApiId",
    "adjustedCostPerHr",
    "apiKey",
    "consumerUserId",
    "containerDiskInGb",
    "containerRegistryAuthId",
    "costMultiplier",
    "costPerHr",
    "createdAt",
    "desiredStatus",
    "dockerArgs",
    "dockerId",
    "env",
    "gpuCount",
    "gpuPowerLimitPercent",
    "imageName",
    "lastStartedAt",
    "lastStatusChange",
    "locked",
    "lowestBidPriceToResume",
    "machineId",
    "memoryInGb",
    "networkVolumeId",
    "podType",
    "port",
    "ports",
    "templateId",
    "uptimeSeconds",
    "vcpuCount",
    "version",
    "volumeEncrypted",
    "volumeInGb",
    "volumeKey",
    "volumeMountPath",
];

/// The type `Pod`: every field null until it is filled in.
pub(super) fn pod_type() -> Value {
    let port = json!({
        "ip": null, "isIpPublic": null, "privatePort": null, "publicPort": null, "type": null,
    });
    let gpu = json!({ "id": null, "gpuUtilPercent": null, "memoryUtilPercent": null });
    let mut pod = json!({
        "__typename": "Pod",
        "machine": {
            "__typename": "PodMachineInfo", "podHostId": null, "gpuDisplayName": null,
            "dataCenterId": null, "location": null, "costPerHr": null, "secureCloud": null,
            "supportPublicIp": true,
        },
        "runtime": {
            "__typename": "PodRuntime", "uptimeInSeconds": null, "ports": [port], "gpus": [gpu],
            "container": { "cpuPercent": null, "memoryPercent": null },
        },
    });
    for field in FIELDS {
        pod[field] = Value::Null;
    }
    pod
}

impl RunPod {
    pub(super) fn deploy(
        &self,
        input: &Value,
        account: &Account,
        arrival: &Arrival,
        order: Order,
    ) -> Resolved {
        let input = &self.with_graphql_template(input, account)?;
        let text = |field: &str| input[field].as_str().unwrap_or_default();
        let number = |field: &str| {
            input[field]
                .as_u64()
                .and_then(|number| u32::try_from(number).ok())
        };
        if text("imageName").is_empty() {
            return Err("imageName is required".to_owned());
        }
        let tier = match text("cloudType") {
            "SECURE" => Some("SECURE".to_owned()),
            "COMMUNITY" => Some("COMMUNITY".to_owned()),
            "" | "ALL" => None,
            other => {
                return Err(format!(
                    "Value \"{other}\" does not exist in \"CloudTypeEnum\" enum."
                ));
            }
        };
        let (shape, count) = self.ordered_shape(input, order)?;
        let mut spec = MachineSpec::gpu(&shape.native, count).named(text("name"));
        if order == Order::Spot {
            let bid = per_hour(&input["bidPerGpu"]).ok_or("bidPerGpu is required")?;
            let cheapest = shape
                .tiers
                .iter()
                .filter(|(name, _)| tier.as_ref().is_none_or(|wanted| wanted == *name));
            if cheapest
                .map(|(_, tier)| floor(tier.price))
                .min()
                .is_none_or(|floor| bid < floor)
            {
                return Err(SOLD_OUT.to_owned());
            }
            spec.bid = Some(bid);
        }
        let (ram, vcpus) = match order {
            Order::Cpu => (shape.ram_gb * count, count),
            _ => (RAM_PER_GPU * count, VCPUS_PER_GPU * count),
        };
        if number("minMemoryInGb").is_some_and(|least| least > ram)
            || number("minVcpuCount").is_some_and(|least| least > vcpus)
        {
            return Err(SOLD_OUT.to_owned());
        }
        spec.tier = tier;
        spec.spot = order == Order::Spot;
        spec.image = text("imageName").to_owned();
        let command = Command::stored(text("dockerArgs"));
        spec.command = command.words();
        spec.disk_gb = number("containerDiskInGb").unwrap_or(50);
        spec.volume_gb = number("volumeInGb").unwrap_or(0);
        spec.network_volume = input["networkVolumeId"]
            .as_str()
            .filter(|id| !id.is_empty())
            .map(str::to_owned);
        spec.regions = regions(input);
        spec.env = environment(input)?;
        if input["startSsh"] == true {
            let keys = self.ssh_keys_of(account);
            if !keys.is_empty() {
                spec.env
                    .entry("PUBLIC_KEY".to_owned())
                    .or_insert_with(|| Secret::new(keys.join("\n")));
            }
        }
        for port in text("ports").split(',').filter(|port| !port.is_empty()) {
            spec.ports.push(
                port.trim()
                    .parse()
                    .map_err(|_| format!("invalid port: {port}"))?,
            );
        }
        let path = text("volumeMountPath");
        let mounts = match (&spec.network_volume, spec.volume_gb) {
            (Some(volume), _) => json!({ "network": [{ "volumeId": volume, "path": path }] }),
            (None, 0) => json!({}),
            (None, size) => json!({ "persistent": { "size": size.max(10), "path": path } }),
        };
        let registry = input["containerRegistryAuthId"]
            .as_str()
            .filter(|id| !id.is_empty());
        spec.extra = json!({
            "registry": registry, "mounts": mounts, "globalNetworking": false,
            "cudaVersion": (order != Order::Cpu).then_some(CUDA[0]), "cpu": order == Order::Cpu,
        });
        command.put(&mut spec.extra);
        // Accepted, checked for form, and never acted on (docs/clouds/runpod.md, "GraphQL").
        for field in ["stopAfter", "terminateAfter"] {
            if input[field]
                .as_str()
                .is_some_and(|text| text.parse::<Timestamp>().is_err())
            {
                return Err(format!("{field} is not a DateTime"));
            }
        }
        let made = self
            .world
            .create_machine(NAME, account, spec, arrival)
            .map_err(|refusal| message(&refusal))?;
        Ok(self.graphql_pod(&made))
    }

    /// The shape of an order and how many units of it.
    fn ordered_shape(&self, input: &Value, order: Order) -> Result<(Shape, u32), String> {
        if order == Order::Cpu {
            // "cpu3c-2-4": the flavour, its vCPUs and its memory in GB.
            let id = input["instanceId"].as_str().unwrap_or("cpu3c-2-4");
            let unknown = || format!("Unknown instance: {id}");
            let [flavour, vcpus, ram] = id.split('-').collect::<Vec<_>>()[..] else {
                return Err(unknown());
            };
            let vcpus: u32 = vcpus.parse().map_err(|_| unknown())?;
            let known = FLAVOURS.iter().any(|(name, .., per_vcpu, _)| {
                *name == flavour && ram.parse() == Ok(per_vcpu.saturating_mul(vcpus))
            });
            let shape = self.world.shape(NAME, flavour).filter(|_| known);
            return Ok((shape.ok_or_else(unknown)?, vcpus));
        }
        let gpu = input["gpuTypeId"].as_str().unwrap_or_default();
        let shape = self
            .world
            .shape(NAME, gpu)
            .filter(|shape| shape.vram_gb > 0)
            .ok_or_else(|| format!("Unknown GPU type: {gpu}"))?;
        let count = input["gpuCount"]
            .as_u64()
            .and_then(|count| u32::try_from(count).ok());
        Ok((shape, count.unwrap_or(1).max(1)))
    }

    pub(super) fn graphql_pod(&self, machine: &Machine) -> Value {
        let spec = &machine.spec;
        let env: Vec<String> = spec
            .env
            .iter()
            .map(|(name, value)| format!("{name}={}", value.expose()))
            .collect();
        let ports: Vec<String> = spec.ports.iter().map(ToString::to_string).collect();
        let status = match machine.state {
            MachineState::Destroyed => "TERMINATED",
            MachineState::Stopped | MachineState::Failed => "EXITED",
            _ => "RUNNING",
        };
        let now = self.world.now();
        let up = machine.started_at.map_or(0, |at| now.since(at).as_secs());
        let runtime = machine.ports_announced(now).then(|| {
            let ports: Vec<Value> = machine
                .external
                .iter()
                .map(|(inside, outside)| {
                    json!({ "ip": machine.ip, "isIpPublic": true, "privatePort": inside,
                        "publicPort": outside, "type": "tcp" })
                })
                .collect();
            let gpu = json!({ "id": "GPU-0", "gpuUtilPercent": 0, "memoryUtilPercent": 0 });
            json!({
                "__typename": "PodRuntime", "uptimeInSeconds": up, "ports": ports,
                "gpus": vec![gpu; spec.count as usize],
                "container": { "cpuPercent": 3, "memoryPercent": 7 },
            })
        });
        let shape = self.world.shape(NAME, &spec.shape);
        let on_cpu = spec.extra["cpu"] == true;
        let (per_unit, vcpus) = if on_cpu {
            (shape.as_ref().map_or(0, |shape| shape.ram_gb), spec.count)
        } else {
            (RAM_PER_GPU, VCPUS_PER_GPU * spec.count)
        };
        let price = dollars(machine.price.per_hour().nanos());
        let created = wire_time(&self.world, machine.created_at);
        let mounts = &spec.extra["mounts"];
        let path = [&mounts["persistent"]["path"], &mounts["network"][0]["path"]]
            .into_iter()
            .find(|path| path.is_string());
        over(
            pod_type(),
            json!({
                "id": machine.id, "name": spec.name, "desiredStatus": status,
                "imageName": spec.image, "env": env, "ports": ports.join(","), "costPerHr": price,
                "adjustedCostPerHr": price, "gpuCount": if on_cpu { 0 } else { spec.count },
                "containerDiskInGb": spec.disk_gb, "volumeInGb": spec.volume_gb,
                "volumeMountPath": path, "dockerArgs": spec.extra["args"],
                "networkVolumeId": spec.network_volume, "runtime": runtime,
                "containerRegistryAuthId": spec.extra["registry"], "locked": machine.locked,
                "machineId": format!("m{}", machine.order()), "memoryInGb": per_unit * spec.count,
                "vcpuCount": vcpus, "uptimeSeconds": up, "createdAt": created,
                "lastStartedAt": machine.started_at.map(|at| wire_time(&self.world, at)),
                "lastStatusChange": format!("Rented by User: {created}"),
                "podType": if spec.spot { "INTERRUPTABLE" } else { "RESERVED" },
                "machine": {
                    "__typename": "PodMachineInfo", "podHostId": format!("{}-6441", machine.id),
                    "gpuDisplayName": shape.map(|shape| shape.name), "dataCenterId": machine.region,
                    "location": machine.region, "costPerHr": price,
                    "secureCloud": machine.tier == "SECURE", "supportPublicIp": true,
                },
            }),
        )
    }
}

/// The data centres of an order: one by its id, or those of a country; none means any.
fn regions(input: &Value) -> Vec<String> {
    if let Some(centre) = input["dataCenterId"].as_str() {
        return vec![centre.to_owned()];
    }
    let Some(country) = input["countryCode"].as_str() else {
        return Vec::new();
    };
    CENTRES
        .iter()
        .filter(|(.., code, _)| *code == country)
        .map(|(id, ..)| (*id).to_owned())
        .collect()
}

fn environment(input: &Value) -> Result<BTreeMap<String, Secret>, String> {
    let mut env = BTreeMap::new();
    for pair in input["env"].as_array().into_iter().flatten() {
        let (Some(name), Some(value)) = (pair["key"].as_str(), pair["value"].as_str()) else {
            return Err("Field \"key\" of required type \"String!\" was not provided.".to_owned());
        };
        env.insert(name.to_owned(), Secret::new(value));
    }
    Ok(env)
}
