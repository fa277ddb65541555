//! Clusters: several pods of one shape in one data centre, made and ended together.

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::create;
use super::pods::wire_time;
use super::problem::{Problem, SOLD_OUT, json as answer, no_content};
use super::stock::NAME;
use super::{Call, RunPod};
use crate::dialect::SimBody;
use crate::dialect::check::Check;
use crate::world::{Machine, Refusal};

const CONTAINER: [&str; 7] = ["image", "args", "entrypoint", "cmd", "disk", "env", "ports"];
const FIELDS: [&str; 7] = [
    "name",
    "type",
    "compute",
    "dataCenterIds",
    "mounts",
    "startJupyter",
    "startSsh",
];

type Reply = Result<Response<SimBody>, Problem>;

/// The cluster that a pod belongs to.
pub(super) fn membership(machine: &Machine) -> Option<&Value> {
    machine.spec.extra.get("cluster")
}

impl RunPod {
    pub(super) fn list_clusters(&self, call: &Call<'_>) -> Reply {
        let held: Vec<Value> =
            self.with_store(call, |store| store.all("clusters").rev().cloned().collect());
        let clusters = held
            .iter()
            .map(|cluster| self.cluster(call, cluster))
            .collect();
        self.page(call, "clusters", clusters)
    }

    pub(super) fn create_cluster(&self, call: &Call<'_>) -> Reply {
        let body = call.json()?;
        let mut check = Check::default();
        let allowed = [&FIELDS[..], &CONTAINER[..]].concat();
        let Some(object) = check.object("$", &body, &allowed, &["name", "type", "compute"]) else {
            return Err(Problem::invalid(check.errors));
        };
        let kind = check
            .one_of(
                "$.type",
                object.get("type"),
                &["APPLICATION", "TRAINING", "SLURM", "RAY"],
            )
            .unwrap_or_default();
        let fields = ["gpuTypeId", "gpuCountPerPod", "podCount"];
        let compute = object
            .get("compute")
            .and_then(|compute| check.object("$.compute", compute, &fields, &fields));
        let field = |name: &str| compute.and_then(|compute| compute.get(name));
        let gpu = check
            .string("$.compute.gpuTypeId", field("gpuTypeId"), 1)
            .unwrap_or_default();
        let count = check
            .integer("$.compute.gpuCountPerPod", field("gpuCountPerPod"), 1)
            .unwrap_or(1);
        let pods = check
            .integer("$.compute.podCount", field("podCount"), 2)
            .unwrap_or(2);
        if pods > 250 {
            check.wrong(
                "$.compute.podCount",
                format!("maximum: got {pods}, want 250"),
            );
        }
        if !check.errors.is_empty() {
            return Err(Problem::invalid(check.errors));
        }
        let mut pod = body.clone();
        if let Some(object) = pod.as_object_mut() {
            object.remove("compute");
            object.remove("type");
            object.insert("gpu".into(), json!({ "id": gpu, "count": count }));
            object.insert("cloud".into(), "SECURE".into());
        }
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
        let mut spec = create::pod(&cloud, &pod, &keys, || self.world.word(24))?;
        // A cluster is always within one data centre.
        let stock = self.world.stock(NAME, gpu, "SECURE");
        let room = |region: &str| {
            stock
                .get(region)
                .is_some_and(|free| *free >= count.saturating_mul(pods))
        };
        let wanted: Vec<String> = if spec.regions.is_empty() {
            cloud
                .regions
                .iter()
                .map(|region| region.id.clone())
                .collect()
        } else {
            spec.regions.clone()
        };
        let region = wanted
            .into_iter()
            .find(|region| room(region))
            .ok_or_else(|| Problem::bad(SOLD_OUT))?;
        spec.regions = vec![region];
        let id = format!("cl{}", self.world.word(10));
        for rank in 0..pods {
            let mut member = spec.clone();
            member.name = format!("{}-{rank}", spec.name);
            let mut cluster =
                json!({ "id": id, "rank": rank, "ip": format!("10.65.0.{}", rank + 2) });
            let role = match (kind, rank) {
                ("SLURM", 0) => Some("SLURM_CONTROLLER"),
                ("SLURM", _) => Some("SLURM_COMPUTE"),
                ("RAY", 0) => Some("RAY_HEAD"),
                ("RAY", _) => Some("RAY_WORKER"),
                _ => None,
            };
            if let Some(role) = role {
                cluster["role"] = role.into();
            }
            member.extra["cluster"] = cluster;
            if let Err(refusal) =
                self.world
                    .create_machine(NAME, &call.account, member, &call.arrival)
            {
                self.end_members(call, &id);
                return Err(refusal.into());
            }
        }
        let made = json!({
            "id": id, "name": body["name"], "type": kind, "compute": body["compute"],
            "createdAt": wire_time(&self.world, self.world.now()),
        });
        self.with_store(call, |store| store.add("clusters", made.clone()));
        Ok(answer(StatusCode::CREATED, &self.cluster(call, &made)))
    }

    pub(super) fn get_cluster(&self, call: &Call<'_>, id: &str) -> Reply {
        let held = self.held_cluster(call, id)?;
        Ok(answer(StatusCode::OK, &self.cluster(call, &held)))
    }

    pub(super) fn update_cluster(&self, call: &Call<'_>, id: &str) -> Reply {
        self.held_cluster(call, id)?;
        let body = call.json()?;
        let mut check = Check::default();
        let object = check.object("$", &body, &["name"], &[]);
        if object.is_some_and(serde_json::Map::is_empty) {
            check.wrong("$", "minProperties: got 0, want 1");
        }
        let name = check
            .string("$.name", object.and_then(|object| object.get("name")), 1)
            .map(str::to_owned);
        if !check.errors.is_empty() {
            return Err(Problem::invalid(check.errors));
        }
        self.with_store(call, |store| {
            if let (Some(held), Some(name)) = (store.change("clusters", id), name) {
                held["name"] = name.into();
            }
        });
        self.get_cluster(call, id)
    }

    pub(super) fn delete_cluster(&self, call: &Call<'_>, id: &str) -> Reply {
        self.held_cluster(call, id)?;
        self.end_members(call, id);
        self.with_store(call, |store| store.remove("clusters", id));
        Ok(no_content())
    }

    pub(super) fn cluster_pods(&self, call: &Call<'_>, id: &str) -> Reply {
        self.held_cluster(call, id)?;
        let pods: Vec<Value> = self
            .members(call, id)
            .iter()
            .map(|machine| self.pod(machine))
            .collect();
        Ok(answer(StatusCode::OK, &json!({ "pods": pods })))
    }

    fn held_cluster(&self, call: &Call<'_>, id: &str) -> Result<Value, Problem> {
        self.with_store(call, |store| store.get("clusters", id).cloned())
            .ok_or_else(|| Problem::not_found("cluster"))
    }

    fn members(&self, call: &Call<'_>, id: &str) -> Vec<Machine> {
        let mut members = self
            .world
            .machines(NAME, &call.account, &self.world.honest());
        members.retain(|machine| membership(machine).is_some_and(|cluster| cluster["id"] == id));
        members.sort_by_key(Machine::order);
        members
    }

    fn end_members(&self, call: &Call<'_>, id: &str) {
        for member in self.members(call, id) {
            self.world.destroy_machine(NAME, &member.id);
        }
    }

    fn cluster(&self, call: &Call<'_>, held: &Value) -> Value {
        let members = self.members(call, held["id"].as_str().unwrap_or_default());
        let pods: Vec<Value> = members.iter().map(|machine| self.pod(machine)).collect();
        let mut by_status: BTreeMap<&str, u32> = BTreeMap::new();
        for pod in &pods {
            *by_status
                .entry(pod["status"].as_str().unwrap_or_default())
                .or_default() += 1;
        }
        let mut cluster = held.clone();
        cluster["pods"] = json!({ "total": pods.len(), "byStatus": by_status });
        cluster["network"] = json!({ "cidr": "10.65.0.0/16", "vxlanId": 42, "vxlanPort": 4789 });
        if let Some(primary) = pods.first() {
            cluster["dataCenterId"] = primary["dataCenterId"].clone();
            cluster["primary"] = json!({ "podId": primary["id"], "status": primary["status"] });
            let ssh = &primary["ssh"]["direct"];
            if let (Some(host), Some(port)) = (ssh["host"].as_str(), ssh["port"].as_u64()) {
                cluster["primary"]["sshEndpoint"] = format!("{host}:{port}").into();
            }
        }
        cluster
    }
}
