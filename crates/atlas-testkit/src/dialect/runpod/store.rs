//! What an account of RunPod holds besides pods, endpoints and volumes: templates, registries,
//! delegations, clusters.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::command;
use super::create::Container;
use super::page::whole;
use super::problem::{Problem, json as answer, no_content};
use super::stock::NAME;
use super::{Call, RunPod};
use crate::dialect::SimBody;
use crate::dialect::check::Check;
use crate::world::{Account, Refusal, Volume};
use http::{Response, StatusCode};

/// Things by kind, each in order of creation.
#[derive(Debug, Default)]
pub(super) struct Store(BTreeMap<&'static str, Vec<Value>>);

impl Store {
    pub(super) fn all(&self, kind: &'static str) -> impl DoubleEndedIterator<Item = &Value> {
        self.0.get(kind).into_iter().flatten()
    }

    pub(super) fn get(&self, kind: &'static str, id: &str) -> Option<&Value> {
        self.all(kind).find(|thing| thing["id"] == id)
    }

    pub(super) fn add(&mut self, kind: &'static str, thing: Value) {
        self.0.entry(kind).or_default().push(thing);
    }

    pub(super) fn change(&mut self, kind: &'static str, id: &str) -> Option<&mut Value> {
        self.0
            .get_mut(kind)?
            .iter_mut()
            .find(|thing| thing["id"] == id)
    }

    pub(super) fn remove(&mut self, kind: &'static str, id: &str) -> bool {
        let things = self.0.entry(kind).or_default();
        let before = things.len();
        things.retain(|thing| thing["id"] != id);
        things.len() < before
    }
}

const TEMPLATE: [&str; 16] = [
    "name",
    "image",
    "args",
    "entrypoint",
    "cmd",
    "disk",
    "env",
    "ports",
    "registry",
    "allowedCudaVersions",
    "category",
    "mounts",
    "public",
    "serverless",
    "startJupyter",
    "startSsh",
];

/// A public template that every account can read and no simulated account owns.
fn official() -> Value {
    json!({
        "id": "30zmvf89kd", "name": "PyTorch 2.8",
            "image": "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404",
        "args": "", "entrypoint": [], "cmd": [], "disk": 50,
        "mounts": {}, "ports": ["8888/http", "22/tcp"], "env": {}, "registry": null,
            "serverless": false, "public": true,
        "category": "NVIDIA", "startSsh": true, "startJupyter": true, "allowedCudaVersions": [],
    })
}

type Reply = Result<Response<SimBody>, Problem>;

impl RunPod {
    /// A template of the account, or a public one.
    pub(super) fn template(&self, call: &Call<'_>, id: &str) -> Result<Value, Problem> {
        let own = self.with_store(call, |store| store.get("templates", id).cloned());
        own.or_else(|| Some(official()).filter(|template| template["id"] == id))
            .ok_or_else(|| Problem::not_found("template"))
    }

    pub(super) fn list_templates(&self, call: &Call<'_>) -> Reply {
        let templates = self.with_store(call, |store| {
            store.all("templates").rev().cloned().collect()
        });
        self.page(call, "templates", templates)
    }

    pub(super) fn public_templates(&self, call: &Call<'_>) -> Reply {
        let templates = match call.query.get("source") {
            None | Some("official") => vec![official()],
            Some("verified" | "community") => Vec::new(),
            Some(_) => {
                return Err(Problem::invalid(vec![
                    "source: value must be one of 'official', 'verified', 'community'".into(),
                ]));
            }
        };
        Ok(answer(StatusCode::OK, &json!({ "templates": templates })))
    }

    pub(super) fn create_template(&self, call: &Call<'_>) -> Reply {
        let body = call.json()?;
        let mut sent = template(&body, &["name", "image"])?;
        command::settle(&mut sent, &Value::Null)?;
        let mut made = json!({
            "id": self.world.word(10), "args": "", "entrypoint": [], "cmd": [], "disk": 50,
                "mounts": {}, "ports": [], "env": {}, "registry": null, "serverless": false,
            "public": false, "category": "NVIDIA", "startSsh": true, "startJupyter": true,
                "allowedCudaVersions": [],
        });
        merge(&mut made, sent);
        self.with_store(call, |store| store.add("templates", made.clone()));
        Ok(answer(StatusCode::CREATED, &made))
    }

    pub(super) fn get_template(&self, call: &Call<'_>, id: &str) -> Reply {
        Ok(answer(StatusCode::OK, &self.template(call, id)?))
    }

    pub(super) fn update_template(&self, call: &Call<'_>, id: &str) -> Reply {
        let body = call.json()?;
        let mut sent = template(&body, &[])?;
        if sent
            .get("mounts")
            .is_some_and(|mounts| mounts.as_object().is_some_and(Map::is_empty))
        {
            sent.remove("mounts");
        }
        self.with_store(call, |store| {
            let held = store
                .change("templates", id)
                .ok_or_else(|| Problem::not_found("template"))?;
            command::settle(&mut sent, held)?;
            merge(held, sent);
            Ok(answer(StatusCode::OK, held))
        })
    }

    pub(super) fn delete_template(&self, call: &Call<'_>, id: &str) -> Reply {
        let gone = self.with_store(call, |store| store.remove("templates", id));
        if gone {
            Ok(no_content())
        } else {
            Err(Problem::not_found("template"))
        }
    }

    pub(super) fn list_registries(&self, call: &Call<'_>) -> Reply {
        let registries = self.with_store(call, |store| {
            store.all("registries").rev().cloned().collect()
        });
        Ok(whole("registries", registries))
    }

    pub(super) fn create_registry(&self, call: &Call<'_>) -> Reply {
        let body = call.json()?;
        let mut check = Check::default();
        let fields = ["name", "username", "password"];
        let object = check.object("$", &body, &fields, &fields);
        for field in fields {
            check.string(
                &format!("$.{field}"),
                object.and_then(|object| object.get(field)),
                1,
            );
        }
        if !check.errors.is_empty() {
            return Err(Problem::invalid(check.errors));
        }
        let made = json!({ "id": self.world.word(8), "name": body["name"] });
        self.with_store(call, |store| {
            if store
                .all("registries")
                .any(|held| held["name"] == made["name"])
            {
                return Err(Problem::bad("a registry with this name already exists"));
            }
            store.add("registries", made.clone());
            Ok(answer(StatusCode::CREATED, &made))
        })
    }

    pub(super) fn get_registry(&self, call: &Call<'_>, id: &str) -> Reply {
        let held = self.with_store(call, |store| store.get("registries", id).cloned());
        Ok(answer(
            StatusCode::OK,
            &held.ok_or_else(|| Problem::not_found("registry"))?,
        ))
    }

    pub(super) fn delete_registry(&self, call: &Call<'_>, id: &str) -> Reply {
        let pods = self
            .world
            .machines(NAME, &call.account, &self.world.honest());
        if pods.iter().any(|pod| pod.spec.extra["registry"] == id) {
            return Err(Problem::bad("registry is in use by a pod"));
        }
        let gone = self.with_store(call, |store| store.remove("registries", id));
        if gone {
            Ok(no_content())
        } else {
            Err(Problem::not_found("registry"))
        }
    }

    pub(super) fn list_delegations(&self, call: &Call<'_>) -> Reply {
        let delegations = self.with_store(call, |store| {
            store.all("delegations").rev().cloned().collect()
        });
        Ok(whole("delegations", delegations))
    }

    pub(super) fn create_delegation(&self, call: &Call<'_>) -> Reply {
        let body = call.json()?;
        let mut check = Check::default();
        let object = check.object("$", &body, &["resource", "name"], &["resource"]);
        let resource = check
            .string(
                "$.resource",
                object.and_then(|object| object.get("resource")),
                0,
            )
            .unwrap_or_default();
        if let Some(name) = object
            .and_then(|object| object.get("name"))
            .filter(|name| !name.is_null())
        {
            check.string("$.name", Some(name), 0);
        }
        if !check.errors.is_empty() {
            return Err(Problem::invalid(check.errors));
        }
        // arn:aws:ecr:<region>:<user>:repository/<name>
        let parts: Vec<&str> = resource.splitn(6, ':').collect();
        let ["arn", "aws", "ecr", region, user, repository] = parts.as_slice() else {
            return Err(Problem::bad("resource must be an ECR repository ARN"));
        };
        let made = json!({
            "id": format!("deleg_{}", self.world.word(8)),
            "name": body.get("name").cloned().unwrap_or(Value::Null),
            "delegatorUserId": format!("user_{}", call.account.as_str()),
            "awsUser": user,
            "repository": repository.trim_start_matches("repository/"),
            "tag": "latest",
            "awsRegion": region,
            "dockerRegistryUri": format!("{user}.dkr.ecr.{region}.amazonaws.com"),
            "createdAt": super::pods::wire_time(&self.world, self.world.now()),
        });
        self.with_store(call, |store| store.add("delegations", made.clone()));
        Ok(answer(StatusCode::CREATED, &made))
    }

    pub(super) fn delete_delegation(&self, call: &Call<'_>, id: &str) -> Reply {
        let gone = self.with_store(call, |store| store.remove("delegations", id));
        if gone {
            Ok(no_content())
        } else {
            Err(Problem::not_found("delegation"))
        }
    }

    pub(super) fn list_volumes(&self, call: &Call<'_>) -> Reply {
        let volumes = self
            .world
            .volumes(NAME, &call.account)
            .iter()
            .map(volume)
            .collect();
        self.page(call, "networkVolumes", volumes)
    }

    pub(super) fn create_volume(&self, call: &Call<'_>) -> Reply {
        let body = call.json()?;
        let mut check = Check::default();
        let object = check.object(
            "$",
            &body,
            &["dataCenter", "name", "size", "type"],
            &["name", "size", "dataCenter"],
        );
        let field = |name: &str| object.and_then(|object| object.get(name));
        let name = check.string("$.name", field("name"), 1).unwrap_or_default();
        let centre = check
            .string("$.dataCenter", field("dataCenter"), 1)
            .unwrap_or_default();
        let size = size(&mut check, field("size"));
        let kind = check
            .one_of("$.type", field("type"), &["STANDARD", "HIGH_PERFORMANCE"])
            .unwrap_or("STANDARD");
        if !check.errors.is_empty() {
            return Err(Problem::invalid(check.errors));
        }
        let made = self.world.create_volume(
            NAME,
            &call.account,
            name,
            size.unwrap_or(10),
            centre,
            kind,
        )?;
        Ok(answer(StatusCode::CREATED, &volume(&made)))
    }

    pub(super) fn get_volume(&self, call: &Call<'_>, id: &str) -> Reply {
        let held = self
            .world
            .volume(NAME, &call.account, id)
            .ok_or_else(|| Problem::not_found("network volume"))?;
        Ok(answer(StatusCode::OK, &volume(&held)))
    }

    pub(super) fn update_volume(&self, call: &Call<'_>, id: &str) -> Reply {
        let body = call.json()?;
        let mut check = Check::default();
        let object = check.object("$", &body, &["name", "size"], &[]);
        if object.is_some_and(Map::is_empty) {
            check.wrong("$", "minProperties: got 0, want 1");
        }
        let name = check.string("$.name", object.and_then(|object| object.get("name")), 1);
        let size = size(&mut check, object.and_then(|object| object.get("size")));
        if !check.errors.is_empty() {
            return Err(Problem::invalid(check.errors));
        }
        match self
            .world
            .update_volume(NAME, &call.account, id, name, size)
        {
            Ok(held) => Ok(answer(StatusCode::OK, &volume(&held))),
            Err(Refusal::NotNow) => Err(Problem::bad("network volume size cannot be reduced")),
            Err(_) => Err(Problem::not_found("network volume")),
        }
    }

    pub(super) fn delete_volume(&self, call: &Call<'_>, id: &str) -> Reply {
        match self.world.delete_volume(NAME, &call.account, id) {
            Ok(()) => Ok(no_content()),
            Err(Refusal::NotNow) => Err(Problem::bad("network volume is attached to a pod")),
            Err(_) => Err(Problem::not_found("network volume")),
        }
    }

    pub(super) fn with_store<T>(&self, call: &Call<'_>, act: impl FnOnce(&mut Store) -> T) -> T {
        self.store_of(&call.account, act)
    }

    pub(super) fn store_of<T>(&self, account: &Account, act: impl FnOnce(&mut Store) -> T) -> T {
        act(self
            .shared()
            .stores
            .entry(account.as_str().to_owned())
            .or_default())
    }
}

fn size(check: &mut Check, value: Option<&Value>) -> Option<u32> {
    let size = check.integer("$.size", value, 10)?;
    if size > 4096 {
        check.wrong("$.size", format!("maximum: got {size}, want 4096"));
    }
    Some(size)
}

fn volume(volume: &Volume) -> Value {
    json!({ "id": volume.id, "name": volume.name, "size": volume.size_gb,
        "dataCenter": volume.region, "type": volume.kind })
}

/// A template's body, checked; the fields as sent.
fn template(body: &Value, required: &[&str]) -> Result<Map<String, Value>, Problem> {
    let mut check = Check::default();
    let Some(object) = check.object("$", body, &TEMPLATE, required) else {
        return Err(Problem::invalid(check.errors));
    };
    check.string("$.name", object.get("name"), 1);
    let mut container = Container::read(&mut check, object);
    check.one_of(
        "$.category",
        object.get("category"),
        &["CPU", "NVIDIA", "AMD"],
    );
    for field in ["public", "serverless", "startJupyter", "startSsh"] {
        check.boolean(&format!("$.{field}"), object.get(field));
    }
    for (index, text) in check
        .strings("$.allowedCudaVersions", object.get("allowedCudaVersions"))
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        check.version(&format!("$.allowedCudaVersions[{index}]"), text);
    }
    if let Some(mounts) = object.get("mounts")
        && let Some(fields) = check.object("$.mounts", mounts, &["persistent"], &[])
        && let Some(persistent) = fields.get("persistent")
        && let Some(fields) = check.object(
            "$.mounts.persistent",
            persistent,
            &["size", "path"],
            &["size", "path"],
        )
    {
        check.integer("$.mounts.persistent.size", fields.get("size"), 10);
        check.string("$.mounts.persistent.path", fields.get("path"), 0);
    }
    if !check.errors.is_empty() {
        return Err(Problem::invalid(check.errors));
    }
    container.hold()?;
    Ok(object.clone())
}

/// Puts the fields of one over those of the other.
pub(super) fn merge(into: &mut Value, fields: Map<String, Value>) {
    if let Some(object) = into.as_object_mut() {
        object.extend(fields);
    }
}

/// A body over a template: the body's fields win, its environment is merged into the template's key
/// by key.
pub(super) fn over_template(template: &Value, mut body: Value, fields: &[&str]) -> Value {
    let Some(object) = body.as_object_mut() else {
        return body;
    };
    let has_command = command::FIELDS
        .iter()
        .any(|field| object.contains_key(*field));
    for field in fields {
        let Some(value) = template.get(*field) else {
            continue;
        };
        if has_command && command::FIELDS.contains(field) {
            continue;
        }
        if *field == "env" {
            let mut env = value.as_object().cloned().unwrap_or_default();
            env.extend(
                object
                    .get("env")
                    .and_then(Value::as_object)
                    .cloned()
                    .unwrap_or_default(),
            );
            object.insert("env".into(), env.into());
        } else if !object.contains_key(*field) && !value.is_null() {
            object.insert((*field).into(), value.clone());
        }
    }
    body
}
