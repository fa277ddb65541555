//! The old GraphQL API, as far as only it can do a thing: spot pods, the dead-man's switch, the
//! balance; and what leads there.
//!
//! Errors come with 200, as there; a field the schema does not have is a 400.

mod document;

use std::io;

use atlas_core::{Secret, Stock, Timestamp, Usd, UsdPerHour};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::pods::{dollars, wire_time};
use super::problem::json as answer;
use super::stock::{CARDS, CENTRES, CUDA, NAME, VCPUS_PER_GPU};
use super::{RunPod, bearer};
use crate::dialect::{SimBody, deliver};
use crate::world::{
    Account, Arrival, Machine, MachineSpec, MachineState, Refusal, Standing, split, stock_level,
};
use document::{Document, Field};

const SOLD_OUT: &str = super::problem::SOLD_OUT;
const NO_GPUS: &str = "There are not enough free GPUs on the host machine to start this pod.";

/// What a resolver answers: a value, or the message of an error.
type Resolved = Result<Value, String>;

impl RunPod {
    /// Answers `POST /graphql`.
    pub(super) async fn graphql(
        &self,
        parts: &http::request::Parts,
        body: &[u8],
    ) -> Result<Response<SimBody>, io::Error> {
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        let variables = asked.get("variables").cloned().unwrap_or_default();
        let document = match asked["query"]
            .as_str()
            .ok_or_else(|| "Must provide query string.".to_owned())
            .and_then(Document::read)
        {
            Ok(document) => document,
            Err(wrong) => return Ok(schema_error(&wrong)),
        };
        let key = bearer(&parts.headers);
        let open = document
            .fields
            .iter()
            .all(|field| matches!(field.name.as_str(), "gpuTypes" | "dataCenters"));
        let account = key.and_then(|key| self.world.authorize(NAME, key));
        if account.is_none() && !(open && key.is_none()) {
            return Ok(unauthorized());
        }
        let target = document.fields.first().and_then(|field| {
            field.argument("input", &variables)["podId"]
                .as_str()
                .map(str::to_owned)
        });
        let operation = document
            .fields
            .first()
            .map_or("graphql", |field| operation(&field.name));
        let arrival = self.world.arrive(
            NAME,
            operation,
            key.unwrap_or_default(),
            target.as_deref(),
            false,
        );
        let account = match key {
            Some(key) => match self.world.authorize(NAME, key) {
                Some(account) => account,
                None => return Ok(unauthorized()),
            },
            None => self.world.account(""),
        };
        let honest = if arrival.refused().is_some() {
            Response::new(SimBody::empty())
        } else {
            self.resolve_all(&document, &variables, &account, &arrival)
        };
        let failed = || {
            answer(
                StatusCode::INTERNAL_SERVER_ERROR,
                &json!({ "errors": [{ "message": "Internal server error" }] }),
            )
        };
        let limited = || {
            answer(
                StatusCode::TOO_MANY_REQUESTS,
                &json!({ "errors": [{ "message": "Too many requests" }] }),
            )
        };
        deliver(&self.world, &arrival, honest, failed, limited).await
    }

    fn resolve_all(
        &self,
        document: &Document,
        variables: &Value,
        account: &Account,
        arrival: &Arrival,
    ) -> Response<SimBody> {
        let (mut data, mut errors) = (Map::new(), Vec::new());
        for field in &document.fields {
            let name = field.alias.as_deref().unwrap_or(&field.name).to_owned();
            let Some(resolved) = self.resolve(field, variables, account, arrival) else {
                return schema_error(&format!(
                    "Cannot query field \"{}\" on type \"{}\".",
                    field.name, document.kind
                ));
            };
            match resolved.map(|value| field.project(&value)) {
                Ok(Ok(value)) => drop(data.insert(name, value)),
                Ok(Err(unknown)) => return schema_error(&unknown),
                Err(message) => {
                    errors.push(json!({ "message": message, "path": [name], "extensions": { "code": "RUNPOD" } }));
                    data.insert(name, Value::Null);
                }
            }
        }
        let mut body = json!({ "data": data });
        if !errors.is_empty() {
            body["errors"] = errors.into();
        }
        answer(StatusCode::OK, &body)
    }

    fn resolve(
        &self,
        field: &Field,
        variables: &Value,
        account: &Account,
        arrival: &Arrival,
    ) -> Option<Resolved> {
        let input = field.argument("input", variables);
        let pod_id = input["podId"].as_str().unwrap_or_default();
        let world = &self.world;
        let shown = |done: Result<Machine, Refusal>| {
            done.map(|machine| self.graphql_pod(&machine))
                .map_err(|refusal| message(&refusal))
        };
        Some(match field.name.as_str() {
            "gpuTypes" => Ok(self.gpu_types(&input, field, variables)),
            "dataCenters" => Ok(CENTRES
                .iter()
                .map(|(id, name, ..)| json!({ "id": id, "name": name, "location": name, "listed": true }))
                .collect()),
            "myself" => Ok(self.myself(account)),
            "pod" => Ok(world.machine(NAME, account, pod_id, arrival).map_or(Value::Null, |machine| self.graphql_pod(&machine))),
            "podFindAndDeployOnDemand" => self.deploy(&input, account, arrival, false),
            "podRentInterruptable" => self.deploy(&input, account, arrival, true),
            "podStop" => shown(world.stop(NAME, account, pod_id)),
            "podResume" => shown(world.start(NAME, account, pod_id, arrival)),
            "podBidResume" => {
                let bid = per_hour(&input["bidPerGpu"]);
                if bid.zip(self.held_floor(account, pod_id)).is_some_and(|(bid, floor)| bid < floor) {
                    return Some(Err(SOLD_OUT.to_owned()));
                }
                let repriced = world.update(NAME, account, pod_id, |machine| {
                    if let Some(bid) = bid {
                        machine.price = bid.times(machine.spec.count);
                    }
                });
                shown(repriced.and_then(|_| world.start(NAME, account, pod_id, arrival)))
            }
            "podTerminate" => match world.destroy(NAME, account, pod_id) {
                Ok(()) => Ok(Value::Null),
                Err(Refusal::NotFound) => Err("pod not found to terminate".to_owned()),
                Err(refusal) => Err(message(&refusal)),
            },
            _ => return None,
        })
    }

    fn gpu_types(&self, filter: &Value, field: &Field, variables: &Value) -> Value {
        let lowest = field
            .selected("lowestPrice")
            .map(|field| field.argument("input", variables))
            .unwrap_or_default();
        let count = lowest["gpuCount"]
            .as_u64()
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(1)
            .max(1);
        let tier = match lowest["secureCloud"].as_bool() {
            Some(true) => "SECURE",
            Some(false) => "COMMUNITY",
            None => "",
        };
        let mut types: Vec<Value> = CARDS
            .iter()
            .filter_map(|card| self.world.shape(NAME, card.id))
            .filter(|shape| filter["id"].is_null() || filter["id"] == shape.native.as_str())
            .map(|shape| {
                let price = |tier: &str| shape.tiers.get(tier).map(|tier| dollars(tier.price.per_hour().nanos()));
                let spot = |tier: &str| shape.tiers.get(tier).map(|tier| dollars(floor(tier.price).per_hour().nanos()));
                let most = |tier: &str| shape.tiers.get(tier).map_or(0, |tier| tier.max_count);
                let tiers: Vec<&str> =
                    ["SECURE", "COMMUNITY"].into_iter().filter(|name| tier.is_empty() || tier == *name).collect();
                let cheapest = tiers
                    .iter()
                    .filter_map(|name| Some((*name, shape.tiers.get(*name)?)))
                    .filter(|(_, tier)| count <= tier.max_count)
                    .min_by_key(|(_, tier)| tier.price);
                let free = cheapest.map_or(0, |(name, _)| {
                    let mut stock = self.world.stock(NAME, &shape.native, name);
                    if let Some(centre) = lowest["dataCenterId"].as_str() {
                        stock.retain(|id, _| id == centre);
                    }
                    stock.into_values().max().unwrap_or(0)
                });
                let level = if free < count { Stock::None } else { stock_level(free) };
                let offered = |price: UsdPerHour| (level != Stock::None).then(|| dollars(price.per_hour().nanos()));
                json!({
                    "id": shape.native, "displayName": shape.name, "memoryInGb": shape.vram_gb,
                    "manufacturer": if shape.native.starts_with("AMD") { "AMD" } else { "Nvidia" },
                    "secureCloud": shape.tiers.contains_key("SECURE"), "communityCloud": shape.tiers.contains_key("COMMUNITY"),
                    "securePrice": price("SECURE"), "communityPrice": price("COMMUNITY"),
                    "secureSpotPrice": spot("SECURE"), "communitySpotPrice": spot("COMMUNITY"),
                    "maxGpuCount": most("SECURE").max(most("COMMUNITY")), "maxGpuCountSecureCloud": most("SECURE"),
                    "maxGpuCountCommunityCloud": most("COMMUNITY"),
                    "lowestPrice": {
                        "minimumBidPrice": cheapest.and_then(|(_, tier)| offered(floor(tier.price))),
                        "uninterruptablePrice": cheapest.and_then(|(_, tier)| offered(tier.price)),
                        "minVcpu": VCPUS_PER_GPU, "minMemory": shape.ram_gb, "stockStatus": word(level),
                        "availableGpuCounts": (1..=free.min(8)).collect::<Vec<_>>(), "countryCode": null,
                    },
                })
            })
            .collect();
        if filter["id"].is_null() {
            // The live list has a sentinel that nobody can rent.
            types.push(json!({
                "id": "unknown", "displayName": "unknown", "memoryInGb": 0, "manufacturer": "unknown", "secureCloud": false,
                "communityCloud": false, "securePrice": null, "communityPrice": null, "secureSpotPrice": null, "communitySpotPrice": null,
                "maxGpuCount": 0, "maxGpuCountSecureCloud": 0, "maxGpuCountCommunityCloud": 0,
                "lowestPrice": {
                    "minimumBidPrice": null, "uninterruptablePrice": null, "minVcpu": null, "minMemory": null, "stockStatus": null,
                    "availableGpuCounts": [], "countryCode": null,
                },
            }));
        }
        types.into()
    }

    fn myself(&self, account: &Account) -> Value {
        let mine = self.world.machines(NAME, account, &self.world.honest());
        let burn: UsdPerHour = mine.iter().map(Machine::burn).sum();
        let spent: Usd = self
            .world
            .all(NAME)
            .iter()
            .filter(|machine| machine.account == account.as_str())
            .map(|machine| machine.billed(self.world.now()))
            .sum();
        let balance = match self.world.standing(NAME, account) {
            Standing::NoMoney => Usd::ZERO,
            _ => Usd::from_cents(100_000) - spent,
        };
        let pods: Vec<Value> = mine
            .iter()
            .map(|machine| self.graphql_pod(machine))
            .collect();
        json!({
            "id": format!("user_{}", account.as_str()), "clientBalance": dollars(balance.nanos()),
            "currentSpendPerHr": dollars(burn.per_hour().nanos()), "spendLimit": 80, "pods": pods,
        })
    }

    /// The least that is taken per GPU for a pod's units.
    fn held_floor(&self, account: &Account, id: &str) -> Option<UsdPerHour> {
        let machine = self
            .world
            .machine(NAME, account, id, &self.world.honest())?;
        Some(floor(
            self.world
                .shape(NAME, &machine.spec.shape)?
                .tiers
                .get(&machine.tier)?
                .price,
        ))
    }

    fn deploy(&self, input: &Value, account: &Account, arrival: &Arrival, spot: bool) -> Resolved {
        let text = |field: &str| input[field].as_str().unwrap_or_default();
        let number = |field: &str| {
            input[field]
                .as_u64()
                .and_then(|number| u32::try_from(number).ok())
        };
        let gpu = text("gpuTypeId");
        let shape = self
            .world
            .shape(NAME, gpu)
            .filter(|shape| shape.vram_gb > 0)
            .ok_or_else(|| format!("Unknown GPU type: {gpu}"))?;
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
        let mut spec = MachineSpec::gpu(gpu, number("gpuCount").unwrap_or(1)).named(text("name"));
        if spot {
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
        spec.tier = tier;
        spec.spot = spot;
        spec.image = text("imageName").to_owned();
        spec.command = split(text("dockerArgs"));
        spec.disk_gb = number("containerDiskInGb").unwrap_or(50);
        spec.volume_gb = number("volumeInGb").unwrap_or(0);
        spec.network_volume = input["networkVolumeId"].as_str().map(str::to_owned);
        spec.regions = input["dataCenterId"]
            .as_str()
            .map(str::to_owned)
            .into_iter()
            .collect();
        for pair in input["env"].as_array().into_iter().flatten() {
            let (Some(name), Some(value)) = (pair["key"].as_str(), pair["value"].as_str()) else {
                return Err(
                    "Field \"key\" of required type \"String!\" was not provided.".to_owned(),
                );
            };
            spec.env.insert(name.to_owned(), Secret::new(value));
        }
        for port in text("ports").split(',').filter(|port| !port.is_empty()) {
            spec.ports.push(
                port.trim()
                    .parse()
                    .map_err(|_| format!("invalid port: {port}"))?,
            );
        }
        let mounts = match (&spec.network_volume, spec.volume_gb) {
            (Some(volume), _) => {
                json!({ "network": [{ "volumeId": volume, "path": text("volumeMountPath") }] })
            }
            (None, 0) => json!({}),
            (None, size) => {
                json!({ "persistent": { "size": size.max(10), "path": text("volumeMountPath") } })
            }
        };
        let args = text("dockerArgs");
        spec.extra = json!({ "args": args, "registry": null, "mounts": mounts, "cudaVersion": CUDA[0], "globalNetworking": false });
        let instant = |field: &str| -> Result<Option<Timestamp>, String> {
            let Some(text) = input[field].as_str() else {
                return Ok(None);
            };
            text.parse()
                .map(Some)
                .map_err(|_| format!("{field} is not a DateTime"))
        };
        let (stop, terminate) = (instant("stopAfter")?, instant("terminateAfter")?);
        let made = self
            .world
            .create_machine(NAME, account, spec, arrival)
            .map_err(|refusal| message(&refusal))?;
        let clock = self.world.clock();
        if let Some(at) = stop {
            self.world.stop_at(NAME, &made.id, clock.off_the_wire(at));
        }
        if let Some(at) = terminate {
            self.world
                .destroy_at(NAME, &made.id, clock.off_the_wire(at));
        }
        Ok(self.graphql_pod(&made))
    }

    fn graphql_pod(&self, machine: &Machine) -> Value {
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
        let runtime = machine.ports_announced(now).then(|| {
            let ports: Vec<Value> = machine
                .external
                .iter()
                .map(|(inside, outside)| {
                    json!({ "ip": machine.ip, "isIpPublic": true, "privatePort": inside, "publicPort": outside, "type": "tcp" })
                })
                .collect();
            let gpus = vec![json!({ "id": "GPU-0", "gpuUtilPercent": 0, "memoryUtilPercent": 0 }); spec.count as usize];
            let up = machine.started_at.map_or(0, |at| now.since(at).as_secs());
            json!({ "uptimeInSeconds": up, "ports": ports, "gpus": gpus })
        });
        json!({
            "id": machine.id, "name": spec.name, "desiredStatus": status, "imageName": spec.image, "env": env, "ports": ports.join(","),
            "costPerHr": dollars(machine.price.per_hour().nanos()), "gpuCount": spec.count, "containerDiskInGb": spec.disk_gb,
            "volumeInGb": spec.volume_gb, "runtime": runtime, "machine": { "podHostId": format!("{}-6441", machine.id) },
            "createdAt": wire_time(&self.world, machine.created_at), "podType": if spec.spot { "INTERRUPTABLE" } else { "RESERVED" },
        })
    }
}

/// The least bid that is taken: half the price.
fn floor(price: UsdPerHour) -> UsdPerHour {
    UsdPerHour::new(Usd::from_nanos(price.per_hour().nanos() / 2))
}

fn per_hour(value: &Value) -> Option<UsdPerHour> {
    value.as_f64().and_then(UsdPerHour::from_f64)
}

fn word(stock: Stock) -> Option<&'static str> {
    match stock {
        Stock::None => None,
        Stock::Low => Some("Low"),
        Stock::Medium => Some("Medium"),
        Stock::High => Some("High"),
    }
}

fn message(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoCapacity | Refusal::TooMany | Refusal::UnknownShape => SOLD_OUT.to_owned(),
        Refusal::NoMoney => "Your account balance is too low.".to_owned(),
        Refusal::Quota => "Spend limit exceeded.".to_owned(),
        Refusal::Forbidden => "Unauthorized".to_owned(),
        Refusal::NotFound => "pod not found".to_owned(),
        Refusal::WrongState(_) => NO_GPUS.to_owned(),
        other => other.to_string(),
    }
}

/// The contract's word for a root field.
fn operation(field: &str) -> &'static str {
    match field {
        "podFindAndDeployOnDemand" | "podRentInterruptable" => "spawn_compute",
        "podResume" | "podBidResume" => "start",
        "podStop" => "stop",
        "podTerminate" => "terminate",
        "pod" => "get_compute",
        "gpuTypes" | "dataCenters" => "list_gpu_types",
        _ => "identity",
    }
}

fn unauthorized() -> Response<SimBody> {
    answer(
        StatusCode::UNAUTHORIZED,
        &json!({ "errors": [{ "message": "Unauthorized", "extensions": { "code": "UNAUTHENTICATED" } }] }),
    )
}

fn schema_error(message: &str) -> Response<SimBody> {
    let error =
        json!({ "message": message, "extensions": { "code": "GRAPHQL_VALIDATION_FAILED" } });
    answer(StatusCode::BAD_REQUEST, &json!({ "errors": [error] }))
}
