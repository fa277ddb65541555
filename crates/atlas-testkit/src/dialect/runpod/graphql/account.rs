//! The account over GraphQL: its balance, keys, volumes, endpoints, templates and registries.

use atlas_core::{Usd, UsdPerHour};
use serde_json::{Map, Value, json};

use super::Resolved;
use crate::dialect::runpod::RunPod;
use crate::dialect::runpod::command::Command;
use crate::dialect::runpod::pods::{dollars, wire_time};
use crate::dialect::runpod::stock::NAME;
use crate::world::{Account, Endpoint, Machine, Standing};

/// The template that the official Python client names for CPU pods; everybody can read it.
const UBUNTU: &str = "runpod-ubuntu";

/// The fields of `PodTemplate`; null until filled in.
pub(super) fn template_type() -> Value {
    json!({
        "__typename": "PodTemplate", "id": null, "name": null, "imageName": null,
            "dockerArgs": null,
        "containerDiskInGb": null, "volumeInGb": null, "volumeMountPath": null, "ports": null,
        "env": [{ "key": null, "value": null }], "isServerless": null, "isPublic": null,
        "isRunpod": null, "readme": null, "containerRegistryAuthId": null, "startSsh": null,
        "startJupyter": null,
    })
}

/// The fields of `ContainerRegistryAuth`.
pub(super) fn registry_type() -> Value {
    json!({ "__typename": "ContainerRegistryAuth", "id": null, "name": null })
}

/// The fields of `User` that do not need the world.
pub(super) fn user_type() -> Value {
    json!({ "__typename": "User", "id": null, "pubKey": null })
}

impl RunPod {
    pub(super) fn myself(&self, account: &Account) -> Value {
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
        let volumes: Vec<Value> = self
            .world
            .volumes(NAME, account)
            .iter()
            .map(|volume| {
                json!({
                    "__typename": "NetworkVolume", "id": volume.id, "name": volume.name,
                    "size": volume.size_gb, "dataCenterId": volume.region,
                    "dataCenter": { "id": volume.region, "name": volume.region },
                })
            })
            .collect();
        let endpoints: Vec<Value> = self
            .world
            .endpoints(NAME, account)
            .iter()
            .map(|endpoint| self.graphql_endpoint(endpoint, account))
            .collect();
        let (templates, registries) = self.store_of(account, |store| {
            let templates: Vec<Value> = store.all("templates").map(shown_template).collect();
            let registries: Vec<Value> = store.all("registries").map(shown_registry).collect();
            (templates, registries)
        });
        json!({
            "__typename": "User", "id": format!("user_{}", account.as_str()),
            "authId": format!("auth_{}", account.as_str()),
            "email": format!("{}@example.com", account.as_str()),
            "pubKey": self.ssh_keys_of(account).join("\n"),
            "clientBalance": dollars(balance.nanos()), "minBalance": 0, "underBalance": false,
            "currentSpendPerHr": dollars(burn.per_hour().nanos()), "spendLimit": 80, "pods": pods,
            "networkVolumes": volumes, "endpoints": endpoints, "podTemplates": templates,
            "containerRegistryCreds": registries,
        })
    }

    pub(super) fn ssh_keys_of(&self, account: &Account) -> Vec<String> {
        let shared = self.shared();
        shared
            .ssh_keys
            .get(account.as_str())
            .cloned()
            .unwrap_or_default()
    }

    pub(super) fn update_user(&self, input: &Value, account: &Account) -> Resolved {
        if let Some(keys) = input["pubKey"].as_str() {
            let keys = keys.lines().filter(|key| !key.trim().is_empty());
            self.shared().ssh_keys.insert(
                account.as_str().to_owned(),
                keys.map(str::to_owned).collect(),
            );
        }
        Ok(self.myself(account))
    }

    /// Makes a template, or replaces the one whose id is given.
    pub(super) fn save_template(&self, input: &Value, account: &Account) -> Resolved {
        let text = |field: &str| input[field].as_str().unwrap_or_default();
        for required in ["name", "imageName"] {
            if text(required).is_empty() {
                return Err(format!("{required} is required"));
            }
        }
        let env: Map<String, Value> = input["env"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|pair| Some((pair["key"].as_str()?.to_owned(), pair["value"].clone())))
            .collect();
        let ports: Vec<&str> = text("ports")
            .split(',')
            .filter(|port| !port.is_empty())
            .collect();
        let mounts = match input["volumeInGb"].as_u64().unwrap_or(0) {
            0 => json!({}),
            size => json!({ "persistent": { "size": size, "path": text("volumeMountPath") } }),
        };
        let mut template = json!({
            "name": text("name"), "image": text("imageName"),
            "disk": input["containerDiskInGb"].as_u64().unwrap_or(50), "mounts": mounts,
            "ports": ports, "env": env,
            "registry": Some(text("containerRegistryAuthId")).filter(|id| !id.is_empty()),
            "serverless": input["isServerless"] == true, "public": input["isPublic"] == true,
            "category": "NVIDIA", "startSsh": input["startSsh"] != false,
            "startJupyter": input["startJupyter"] != false, "allowedCudaVersions": [],
        });
        Command::stored(text("dockerArgs")).put(&mut template);
        let given = input["id"].as_str().filter(|id| !id.is_empty());
        let id = given.map_or_else(|| self.world.word(10), str::to_owned);
        template["id"] = id.as_str().into();
        self.store_of(account, |store| {
            let taken = |held: &Value| held["name"] == template["name"] && held["id"] != id;
            if store.all("templates").any(taken) {
                return Err("Template name must be unique.".to_owned());
            }
            match store.change("templates", &id) {
                Some(held) => *held = template.clone(),
                None if given.is_some() => return Err("template not found".to_owned()),
                None => store.add("templates", template.clone()),
            }
            Ok(shown_template(&template))
        })
    }

    pub(super) fn delete_template_named(&self, name: &Value, account: &Account) -> Resolved {
        self.store_of(account, |store| {
            let id = store
                .all("templates")
                .find(|held| held["name"] == *name)
                .and_then(|held| held["id"].as_str())
                .map(str::to_owned);
            match id {
                Some(id) => Ok(Value::from(store.remove("templates", &id))),
                None => Err("template not found".to_owned()),
            }
        })
    }

    pub(super) fn save_registry(&self, input: &Value, account: &Account) -> Resolved {
        let name = input["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            return Err("name is required".to_owned());
        }
        let made = json!({ "id": self.world.word(8), "name": name });
        self.store_of(account, |store| {
            if store.all("registries").any(|held| held["name"] == name) {
                return Err("A registry with this name already exists.".to_owned());
            }
            store.add("registries", made.clone());
            Ok(shown_registry(&made))
        })
    }

    /// New credentials under the same id: they are never read back, so nothing shows it.
    pub(super) fn update_registry(&self, input: &Value, account: &Account) -> Resolved {
        let id = input["id"].as_str().unwrap_or_default();
        self.store_of(account, |store| {
            let held = store.get("registries", id).map(shown_registry);
            held.ok_or_else(|| "registry auth not found".to_owned())
        })
    }

    pub(super) fn remove_registry(&self, id: &Value, account: &Account) -> Resolved {
        let id = id.as_str().unwrap_or_default();
        if self.store_of(account, |store| store.remove("registries", id)) {
            Ok(true.into())
        } else {
            Err("registry auth not found".to_owned())
        }
    }

    /// An order over the template that it names: what the order says wins.
    pub(super) fn with_graphql_template(
        &self,
        input: &Value,
        account: &Account,
    ) -> Result<Value, String> {
        let id = input["templateId"].as_str().filter(|id| !id.is_empty());
        let Some(id) = id.filter(|id| *id != UBUNTU) else {
            return Ok(input.clone());
        };
        let held = self.store_of(account, |store| {
            store.get("templates", id).map(shown_template)
        });
        let template = held.ok_or_else(|| "template not found".to_owned())?;
        let mut whole = input.clone();
        for field in [
            "imageName",
            "dockerArgs",
            "containerDiskInGb",
            "volumeInGb",
            "volumeMountPath",
            "ports",
            "containerRegistryAuthId",
        ] {
            if whole
                .get(field)
                .is_none_or(|sent| sent.is_null() || sent == "")
            {
                whole[field] = template[field].clone();
            }
        }
        let env = [&template["env"], &input["env"]]
            .into_iter()
            .filter_map(Value::as_array)
            .flatten()
            .cloned();
        whole["env"] = env.collect();
        Ok(whole)
    }

    fn graphql_endpoint(&self, endpoint: &Endpoint, account: &Account) -> Value {
        let extra = &endpoint.spec.extra;
        let pools: Vec<&str> = extra["gpu"]["pools"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let env: Vec<Value> = extra["env"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| json!({ "key": key, "value": value }))
            .collect();
        let scaling = &extra["scaling"];
        let value = [&scaling["queueDelay"], &scaling["requestCount"]]
            .into_iter()
            .find(|value| value.is_number());
        let volume = extra["networkVolumes"][0].as_str();
        json!({
            "__typename": "Endpoint", "aiKey": null, "gpuIds": pools.join(","), "id": endpoint.id,
            "idleTimeout": extra["workers"]["idleTimeout"].as_u64().unwrap_or(10),
            "name": extra["name"], "networkVolumeId": volume, "locations": "",
            "scalerType": scaling["type"], "scalerValue": value, "templateId": extra["templateId"],
            "type": extra["type"], "userId": format!("user_{}", account.as_str()),
            "version": extra["version"].as_u64().unwrap_or(1),
            "workersMax": endpoint.spec.max_workers, "workersStandby": 0,
            "workersMin": extra["workers"]["min"].as_u64().unwrap_or(0),
            "gpuCount": extra["gpu"]["count"].as_u64().unwrap_or(1), "env": env,
            "createdAt": wire_time(&self.world, endpoint.created_at),
            "networkVolume": volume.map(|id| json!({ "id": id, "dataCenterId": null })),
        })
    }
}

fn shown_template(held: &Value) -> Value {
    let ports: Vec<&str> = held["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let env: Vec<Value> = held["env"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| json!({ "key": key, "value": value }))
        .collect();
    let volume = &held["mounts"]["persistent"];
    super::over(
        template_type(),
        json!({
            "id": held["id"], "name": held["name"], "imageName": held["image"],
            "dockerArgs": held["args"], "containerDiskInGb": held["disk"],
            "volumeInGb": volume["size"].as_u64().unwrap_or(0), "volumeMountPath": volume["path"],
            "ports": ports.join(","), "env": env, "isServerless": held["serverless"],
            "isPublic": held["public"], "isRunpod": false, "readme": "",
            "containerRegistryAuthId": held["registry"], "startSsh": held["startSsh"],
            "startJupyter": held["startJupyter"],
        }),
    )
}

fn shown_registry(held: &Value) -> Value {
    super::over(
        registry_type(),
        json!({ "id": held["id"], "name": held["name"] }),
    )
}
