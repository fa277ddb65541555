//! The deprecated GraphQL API, as far as its official clients use it: pods, the catalogue, the
//! account, templates, registries.
//!
//! Errors come with 200, as there; a field the schema does not have is a 400, before anything is
//! done. A documented mutation that is not simulated is answered 501 with its name.

mod account;
mod catalogue;
mod document;
mod pod;

use std::io;
use std::time::Duration;

use atlas_core::{Usd, UsdPerHour};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::problem::json as answer;
use super::stock::NAME;
use super::{RunPod, bearer};
use crate::dialect::{SimBody, deliver};
use crate::world::{Account, Arrival, Machine, Refusal};
use document::{Document, Field};
use pod::Order;

const SOLD_OUT: &str = super::problem::SOLD_OUT;
const NO_GPUS: &str = "There are not enough free GPUs on the host machine to start this pod.";

/// What a resolver answers: a value, or the message of an error.
type Resolved = Result<Value, String>;

/// Fields that are documented, or that an official client asks for, and that are not simulated
/// (docs/clouds/runpod.md, "The simulated RunPod").
const NOT_SIMULATED: [&str; 30] = [
    "allAiApiPublicConfigs",
    "createCluster",
    "createFlashApp",
    "createFlashAuthRequest",
    "createFlashEnvironment",
    "createNetworkVolume",
    "createSecret",
    "deleteCluster",
    "deleteEndpoint",
    "deleteFlashApp",
    "deleteFlashEnvironment",
    "deleteNetworkVolume",
    "deleteSavingsPlan",
    "deployBuildToEnvironment",
    "finalizeFlashArtifactUpload",
    "flashAppByName",
    "flashAuthRequestStatus",
    "flashEnvironmentByName",
    "listings",
    "podEditJob",
    "podEditName",
    "podLock",
    "podReset",
    "podRestart",
    "prepareFlashArtifactUpload",
    "saveEndpoint",
    "secretCreate",
    "secretDelete",
    "updateEndpointTemplate",
    "updateNetworkVolume",
];

/// The same in the selection of a root field.
const NOT_SIMULATED_IN: [(&str, &str); 2] = [("myself", "flashApps"), ("myself", "secrets")];

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
            .all(|field| catalogue::is_open(&field.name));
        let account = key.and_then(|key| self.world.authorize(NAME, key));
        if account.is_none() && !(open && key.is_none()) {
            return Ok(unauthorized());
        }
        if let Some(refused) = self.withheld(key.unwrap_or_default()) {
            return Ok(refused);
        }
        if let Some(field) = document.fields.iter().find_map(not_simulated) {
            let message = format!("{field} is not simulated");
            let body = json!({ "errors": [{ "message": message }] });
            return Ok(answer(StatusCode::NOT_IMPLEMENTED, &body));
        }
        // A schema is checked before anything is done.
        for field in &document.fields {
            if let Some(Err(unknown)) = returned(&field.name).map(|value| field.project(&value)) {
                return Ok(schema_error(&unknown));
            }
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
        deliver(&self.world, &arrival, honest, failed, too_many).await
    }

    /// The 410 after the API's end, or the 429 of its rate limit.
    fn withheld(&self, key: &str) -> Option<Response<SimBody>> {
        let now = self.world.now();
        let mut shared = self.shared();
        let quirks = shared.quirks.graphql;
        if quirks.ends_at.is_some_and(|end| now >= end) {
            let body = json!({ "errors": [{ "message": "The GraphQL API has been shut down." }] });
            return Some(answer(StatusCode::GONE, &body));
        }
        let (since, used) = shared
            .graphql_windows
            .entry(key.to_owned())
            .or_insert((now, 0));
        if now.since(*since) >= Duration::from_secs(60) {
            (*since, *used) = (now, 0);
        }
        *used += 1;
        (*used > quirks.per_minute).then(too_many)
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
            let Some(resolved) = self.resolve(field, document.kind, variables, account, arrival)
            else {
                return schema_error(&format!(
                    "Cannot query field \"{}\" on type \"{}\".",
                    field.name, document.kind
                ));
            };
            match resolved.map(|value| field.project(&value)) {
                Ok(Ok(value)) => drop(data.insert(name, value)),
                Ok(Err(unknown)) => return schema_error(&unknown),
                Err(message) => {
                    errors.push(json!({ "message": message, "path": [name], "extensions": {
                        "code": "RUNPOD" } }));
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
        kind: &str,
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
            "dataCenters" => Ok(self.graphql_centres()),
            "cpuFlavors" => Ok(self.graphql_flavours()),
            "countryCodes" => Ok(catalogue::countries()),
            "serverlessGpuPools" => Ok(catalogue::pools()),
            "__typename" => Ok(kind.into()),
            "myself" => Ok(self.myself(account)),
            "updateUserSettings" => self.update_user(&input, account),
            "saveTemplate" => self.save_template(&input, account),
            "deleteTemplate" => {
                self.delete_template_named(&field.argument("templateName", variables), account)
            }
            "saveRegistryAuth" => self.save_registry(&input, account),
            "updateRegistryAuth" => self.update_registry(&input, account),
            "deleteRegistryAuth" => {
                self.remove_registry(&field.argument("registryAuthId", variables), account)
            }
            "pod" => Ok(world
                .machine(NAME, account, pod_id, arrival)
                .map_or(Value::Null, |machine| self.graphql_pod(&machine))),
            "podFindAndDeployOnDemand" => self.deploy(&input, account, arrival, Order::OnDemand),
            "podRentInterruptable" => self.deploy(&input, account, arrival, Order::Spot),
            "deployCpuPod" => self.deploy(&input, account, arrival, Order::Cpu),
            "podStop" => shown(world.stop(NAME, account, pod_id)),
            "podResume" => shown(world.start(NAME, account, pod_id, arrival)),
            "podBidResume" => {
                let bid = per_hour(&input["bidPerGpu"]);
                if bid
                    .zip(self.held_floor(account, pod_id))
                    .is_some_and(|(bid, floor)| bid < floor)
                {
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
}

/// The name of the field that is asked for and not simulated.
fn not_simulated(field: &Field) -> Option<String> {
    if NOT_SIMULATED.contains(&field.name.as_str()) {
        return Some(field.name.clone());
    }
    let (outer, inner) = NOT_SIMULATED_IN
        .iter()
        .find(|(outer, inner)| field.name == *outer && field.selected(inner).is_some())?;
    Some(format!("{outer}.{inner}"))
}

/// The least bid that is taken: half the price.
fn floor(price: UsdPerHour) -> UsdPerHour {
    UsdPerHour::new(Usd::from_nanos(price.per_hour().nanos() / 2))
}

fn per_hour(value: &Value) -> Option<UsdPerHour> {
    value.as_f64().and_then(UsdPerHour::from_f64)
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
        "podFindAndDeployOnDemand" | "podRentInterruptable" | "deployCpuPod" => "spawn_compute",
        "podResume" | "podBidResume" => "start",
        "podStop" => "stop",
        "podTerminate" => "terminate",
        "pod" => "get_compute",
        "saveTemplate" | "deleteTemplate" => "templates",
        "saveRegistryAuth" | "updateRegistryAuth" | "deleteRegistryAuth" => "registries",
        field if catalogue::is_open(field) => "list_gpu_types",
        _ => "identity",
    }
}

/// The type that a mutation returns, where its selection can be wrong.
fn returned(mutation: &str) -> Option<Value> {
    match mutation {
        "podFindAndDeployOnDemand"
        | "podRentInterruptable"
        | "deployCpuPod"
        | "podStop"
        | "podResume"
        | "podBidResume" => Some(pod::pod_type()),
        "saveTemplate" => Some(account::template_type()),
        "saveRegistryAuth" | "updateRegistryAuth" => Some(account::registry_type()),
        "updateUserSettings" => Some(account::user_type()),
        _ => None,
    }
}

/// The fields of one object over those of another.
fn over(mut whole: Value, fields: Value) -> Value {
    if let (Some(whole), Value::Object(fields)) = (whole.as_object_mut(), fields) {
        whole.extend(fields);
    }
    whole
}

/// The cloud names no time in its 429 (docs/clouds/runpod.md, "GraphQL").
fn too_many() -> Response<SimBody> {
    let body = json!({ "errors": [{ "message": "Too many requests" }] });
    answer(StatusCode::TOO_MANY_REQUESTS, &body)
}

fn unauthorized() -> Response<SimBody> {
    answer(
        StatusCode::UNAUTHORIZED,
        &json!({ "errors": [{ "message": "Unauthorized", "extensions": {
            "code": "UNAUTHENTICATED" } }] }),
    )
}

fn schema_error(message: &str) -> Response<SimBody> {
    let error =
        json!({ "message": message, "extensions": { "code": "GRAPHQL_VALIDATION_FAILED" } });
    answer(StatusCode::BAD_REQUEST, &json!({ "errors": [error] }))
}
