//! Calls of the official client that rent nothing: names of cards, images of instances, secrets,
//! several instances at once. And the calls that are out of scope, each with its name.

use http::{Method, Response};
use serde_json::{Value, json};

use super::envelope::{Failure, ok};
use super::stock;
use super::{Call, Vast};
use crate::dialect::SimBody;

/// The most instances of one call.
const MOST_IDS: usize = 64;

/// Documented calls that this simulation does not make: by the beginning of their path.
const OUT_OF_SCOPE: &[(&str, &str)] = &[
    ("asks/bulk", "order several offers"),
    ("launch_instance", "search and order in one call"),
    ("endptjobs", "serverless endpoints"),
    ("workergroups", "serverless worker groups"),
    ("autojobs", "serverless worker groups"),
    ("deployment", "serverless deployments"),
    ("instances/take_snapshot", "snapshots"),
    ("instances/accept-price-increase", "price increases"),
    ("instances/reject-price-increase", "price increases"),
    ("commands", "copies and scheduled calls"),
    ("template", "templates"),
    ("team", "teams"),
    ("invoices", "invoices"),
    ("api_keys", "keys of the account"),
    ("auth", "keys of the account"),
    ("apikeys", "keys of the account"),
    ("users/create", "sub-accounts"),
    ("subaccounts", "sub-accounts"),
    ("machines", "what hosts do"),
    ("disks", "what hosts do"),
    ("network_volumes", "network volumes"),
    ("network_volume", "network volumes"),
    ("cluster", "clusters"),
    ("overlay", "clusters"),
    ("webhooks", "webhooks"),
    ("audit_logs", "audit logs"),
    ("benchmarks", "benchmarks"),
    ("metrics", "metrics"),
    ("reports", "reports"),
    ("charges/chart", "charts of charges"),
    ("users/cloud_integrations", "cloud credentials"),
    ("volumes/copy", "copies of volumes"),
    ("volumes", "what hosts do"),
    ("instances/filters", "filters of lists"),
    ("instance_backups", "backups"),
    ("network_disk", "network volumes"),
    ("contracts/fetch", "contracts"),
    ("secrets", "changes of secrets"),
    ("tfa", "two-factor authentication"),
    (
        "users",
        "changes of the account, its addresses and earnings",
    ),
];

/// The same for the router of serverless endpoints, a host of its own that clients look for at a
/// base URL that is not the ordinary one.
const ROUTER: &[&str] = &[
    "/get_autogroup_logs/",
    "/get_endpoint_logs/",
    "/get_endpoint_workers/",
    "/update_workers/",
];

/// The name of a documented call that is not simulated.
pub(super) fn out_of_scope(method: &Method, path: &str) -> Option<Failure> {
    if ROUTER.contains(&path) {
        let msg = format!("{method} {path}: the serverless router: not simulated");
        return Some(Failure::new(501, "not_simulated", msg));
    }
    let (_, rest) = path.strip_prefix("/api/")?.split_once('/')?;
    let (_, name) = OUT_OF_SCOPE.iter().find(|(begin, _)| {
        rest.strip_prefix(begin)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', 's']))
    })?;
    let msg = format!("{method} /api/v0/{rest}: {name}: not simulated");
    Some(Failure::new(501, "not_simulated", msg))
}

impl Vast {
    pub(super) fn gpu_names(&self) -> Response<SimBody> {
        let mut names: Vec<&str> = stock::asks().iter().map(|ask| ask.gpu_name).collect();
        names.sort_unstable();
        names.dedup();
        ok(&json!({ "success": true, "gpu_names": names }))
    }

    pub(super) fn gpu_types(&self) -> Response<SimBody> {
        let mut types: Vec<(&str, u32)> = stock::asks()
            .iter()
            .map(|ask| (ask.gpu_name, ask.gpu_ram))
            .collect();
        types.sort_unstable();
        types.dedup();
        let types: Vec<Value> = types
            .into_iter()
            .map(|(name, ram)| json!({ "gpu_name": name, "gpu_ram": ram, "gpu_arch": "nvidia" }))
            .collect();
        ok(&json!({ "success": true, "gpu_types": types }))
    }

    /// Another image, environment or arguments; the client recycles the instance after it.
    pub(super) fn update_template(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let machine = self.mine(call, id)?;
        let image = body["image"]
            .as_str()
            .unwrap_or(&machine.spec.image)
            .to_owned();
        if image.is_empty() || image.len() > 1024 {
            return Err(Failure::invalid("image"));
        }
        self.world
            .update(super::NAME, &call.account, id, |machine| {
                machine.spec.image = image
            })?;
        Ok(ok(
            &json!({ "success": true, "updated_instance": { "id": id.parse::<u64>().ok() } }),
        ))
    }

    /// No host asks for more.
    pub(super) fn price_increases(&self) -> Response<SimBody> {
        ok(&json!({ "success": true, "count": 0, "truncated": false,
                "pending_price_increases": [] }))
    }

    /// The account has no secrets.
    pub(super) fn secrets(&self) -> Response<SimBody> {
        ok(&json!({ "success": true, "secrets": {} }))
    }

    pub(super) fn count(&self, call: &Call<'_>) -> Response<SimBody> {
        let listed = self
            .world
            .machines(super::NAME, &call.account, &call.arrival);
        ok(&json!({ "success": true, "count": listed.len() }))
    }

    pub(super) fn delete_many(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let ids = numbers(&body["instance_ids"])?;
        let mut done = Vec::new();
        for id in &ids {
            if self.delete(call, &id.to_string()).is_ok() {
                done.push(*id);
            }
        }
        Ok(ok(&json!({ "success": true, "destroyed": done })))
    }

    pub(super) fn put_many(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        for id in numbers(&body["ids"])? {
            self.put(call, &id.to_string())?;
        }
        Ok(ok(&json!({ "success": true })))
    }
}

fn numbers(list: &Value) -> Result<Vec<u64>, Failure> {
    let ids: Vec<u64> = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .collect();
    if ids.is_empty() || ids.len() > MOST_IDS {
        return Err(Failure::invalid("ids must be 1 to 64 numbers"));
    }
    Ok(ids)
}
