//! Serverless endpoints: create, list, read, update, delete, their workers, releases and worker
//! logs.

use std::time::Duration;

use atlas_core::{Usd, UsdPerHour};
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::command;
use super::create::{CONTAINER, Container};
use super::page::MOST;
use super::pods::wire_time;
use super::problem::{Problem, json as answer, no_content};
use super::stock::{CARDS, FLAVOURS, NAME};
use super::store::{merge, over_template};
use super::{Call, RunPod};
use crate::dialect::SimBody;
use crate::dialect::check::Check;
use crate::world::{Endpoint, EndpointSpec, Worker};

const FIELDS: [&str; 12] = [
    "name",
    "type",
    "scaling",
    "gpu",
    "cpu",
    "dataCenterIds",
    "flashboot",
    "networkVolumes",
    "templateId",
    "timeout",
    "workers",
    "registry",
];
/// The most builds on a page.
const MOST_BUILDS: usize = 100;
/// Where a request of an endpoint goes (docs/clouds/runpod.md).
const RUNTIME: &str = "https://api.runpod.ai/v2";

type Reply = Result<Response<SimBody>, Problem>;

impl RunPod {
    pub(super) fn list_endpoints(&self, call: &Call<'_>) -> Reply {
        let endpoints = self
            .world
            .endpoints(NAME, &call.account)
            .iter()
            .map(|endpoint| self.endpoint(endpoint))
            .collect();
        self.page(call, "endpoints", endpoints)
    }

    pub(super) fn get_endpoint(&self, call: &Call<'_>, id: &str) -> Reply {
        Ok(answer(
            StatusCode::OK,
            &self.endpoint(&self.held(call, id)?),
        ))
    }

    pub(super) fn create_endpoint(&self, call: &Call<'_>) -> Reply {
        let body = self.with_template(call, call.json()?)?;
        let mut checked = Checked::default();
        let required: &[&str] = if body.get("templateId").is_some() {
            &["name", "type", "scaling"]
        } else {
            &["name", "type", "scaling", "image"]
        };
        checked.read(&body, required, true)?;
        let (gpu, cpu) = (body.get("gpu"), body.get("cpu"));
        if gpu.is_some() == cpu.is_some() {
            return Err(Problem::bad("exactly one of gpu or cpu must be set"));
        }
        let mut extra = json!({
            "workers": { "min": 0, "max": 3, "idleTimeout": 10 }, "dataCenterIds": [],
                "networkVolumes": [], "flashboot": "OFF",
            // The documented default is 300000; an omitted value came back as 0
            // (docs/clouds/runpod.md).
            "timeout": 0, "args": "", "disk": 20, "env": {}, "ports": [], "registry": null,
                "version": 1,
        });
        let workers = checked.workers(&extra["workers"], &body, &body)?;
        let mut fields = body.as_object().cloned().unwrap_or_default();
        command::settle(&mut fields, &extra)?;
        merge(&mut extra, fields);
        extra["workers"] = workers;
        if let Some(gpu) = gpu {
            extra["gpu"] = pools(None, gpu)?;
        }
        if let Some(cpu) = cpu {
            extra["cpu"] = flavours(cpu)?;
        }
        let id = self.world.add_endpoint(
            NAME,
            &call.account,
            timing(EndpointSpec {
                extra,
                ..EndpointSpec::default()
            }),
        );
        let made = self.held(call, &id.unwrap_or_default())?;
        Ok(answer(StatusCode::CREATED, &self.endpoint(&made)))
    }

    pub(super) fn update_endpoint(&self, call: &Call<'_>, id: &str) -> Reply {
        let held = self.held(call, id)?;
        let body = self.with_template(call, call.json()?)?;
        let mut checked = Checked::default();
        checked.read(&body, &[], false)?;
        let was = &held.spec.extra;
        let mut extra = was.clone();
        let mut fields = body.as_object().cloned().unwrap_or_default();
        let (gpu, cpu) = (fields.remove("gpu"), fields.remove("cpu"));
        fields.remove("workers");
        command::settle(&mut fields, was)?;
        merge(&mut extra, fields);
        if (gpu.is_some() && was.get("gpu").is_none())
            || (cpu.is_some() && was.get("cpu").is_none())
        {
            return Err(Problem::bad("endpoint compute family cannot be changed"));
        }
        if let Some(gpu) = gpu {
            extra["gpu"] = pools(was.get("gpu"), &gpu)?;
        }
        if let Some(cpu) = cpu {
            extra["cpu"] = flavours(&cpu)?;
        }
        extra["workers"] = checked.workers(&was["workers"], &body, &extra)?;
        extra["version"] = (was["version"].as_u64().unwrap_or(1) + 1).into();
        let changed = self
            .world
            .update_endpoint(NAME, &call.account, id, |spec| {
                *spec = timing(EndpointSpec {
                    extra,
                    ..spec.clone()
                });
            })?;
        Ok(answer(StatusCode::OK, &self.endpoint(&changed)))
    }

    pub(super) fn delete_endpoint(&self, call: &Call<'_>, id: &str) -> Reply {
        self.held(call, id)?;
        self.world.delete_endpoint(NAME, &call.account, id)?;
        Ok(no_content())
    }

    pub(super) fn endpoint_workers(&self, call: &Call<'_>, id: &str) -> Reply {
        let held = self.held(call, id)?;
        let health = held.health();
        let workers: Vec<Value> = held
            .workers
            .iter()
            .map(|worker| self.worker(&held, worker))
            .collect();
        Ok(answer(
            StatusCode::OK,
            &json!({
                "summary": {
                    "running": health.running, "idle": health.idle,
                        "initializing": health.initializing, "throttled": 0, "unhealthy": 0,
                    "total": workers.len(),
                },
                "workers": workers,
                "endpointVersion": held.spec.extra["version"],
            }),
        ))
    }

    pub(super) fn endpoint_releases(&self, call: &Call<'_>, id: &str) -> Reply {
        let held = self.held(call, id)?;
        let (version, total) = (
            held.spec.extra["version"].as_u64().unwrap_or(1),
            held.workers.len(),
        );
        let releases: Vec<Value> = (1..=version)
            .rev()
            .map(|number| {
                json!({
                    "id": format!("rel_{id}_{number}"), "version": number, "source": "MANUAL",
                        "buildId": null, "createdByUserId": null,
                    "workerCount": if number == version { total } else { 0 },
                    "createdAt": wire_time(&self.world, held.created_at), "diff": [],
                })
            })
            .collect();
        let percent = if total == 0 { 0 } else { 100 };
        let rollout = json!({ "inProgress": false, "workersOnLatest": total, "workersTotal": total,
            "percentOnLatest": percent });
        let body = json!({ "endpointVersion": version, "rollout": rollout });
        let list = format!("releases of {id}");
        let body = self.put_page(call, &list, MOST, "releases", releases, body)?;
        Ok(answer(StatusCode::OK, &body))
    }

    /// The history of image builds: of an endpoint that is not built from a repository, none.
    pub(super) fn endpoint_builds(&self, call: &Call<'_>, id: &str) -> Reply {
        self.held(call, id)?;
        let list = format!("builds of {id}");
        let body = self.put_page(call, &list, MOST_BUILDS, "builds", Vec::new(), json!({}))?;
        Ok(answer(StatusCode::OK, &body))
    }

    pub(super) fn endpoint_build(&self, call: &Call<'_>, id: &str, _build: &str) -> Reply {
        self.held(call, id)?;
        Err(Problem::not_found("build"))
    }

    pub(super) fn worker_logs(&self, call: &Call<'_>, id: &str, worker: &str) -> Reply {
        let held = self.held(call, id)?;
        let found = held
            .workers
            .iter()
            .find(|held| held.id == worker)
            .ok_or_else(|| Problem::not_found("worker"))?;
        let line = |at: String, source: &str, line: &str| {
            format!(
                "id: {at}\ndata: {}\n\n",
                json!({ "source": source, "line": line, "ts": at })
            )
        };
        let mut text = line(
            wire_time(&self.world, found.created_at),
            "system",
            "create container",
        );
        if let Some(ready) = found.ready_at {
            text.push_str(&line(
                wire_time(&self.world, ready),
                "container",
                "worker ready",
            ));
        }
        let mut response = Response::new(SimBody::from(text.into_bytes()));
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        );
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Ok(response)
    }

    fn held(&self, call: &Call<'_>, id: &str) -> Result<Endpoint, Problem> {
        self.world
            .endpoint(NAME, &call.account, id)
            .ok_or_else(|| Problem::not_found("endpoint"))
    }

    fn with_template(&self, call: &Call<'_>, body: Value) -> Result<Value, Problem> {
        let Some(id) = body.get("templateId").and_then(Value::as_str) else {
            return Ok(body);
        };
        let template = self.template(call, id)?;
        if template["serverless"] != true {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "template is not a serverless template",
            ));
        }
        Ok(over_template(&template, body, &CONTAINER))
    }

    fn endpoint(&self, endpoint: &Endpoint) -> Value {
        let extra = &endpoint.spec.extra;
        let mut shown =
            json!({ "id": endpoint.id, "createdAt": wire_time(&self.world, endpoint.created_at) });
        let defaults = json!({
            "name": endpoint.id, "type": "QUEUE", "image": "", "args": "", "entrypoint": [],
                "cmd": [], "disk": 20, "env": {}, "ports": [], "registry": null,
            "scaling": { "type": "QUEUE_DELAY", "queueDelay": 4 }, "dataCenterIds": [],
                "networkVolumes": [], "flashboot": "OFF",
            "timeout": 600_000, "workers": { "min": 0, "max": endpoint.spec.max_workers,
                "idleTimeout": 10 },
        });
        for (field, default) in defaults.as_object().into_iter().flatten() {
            shown[field] = extra.get(field).unwrap_or(default).clone();
        }
        for field in ["gpu", "cpu"] {
            if let Some(value) = extra.get(field) {
                shown[field] = value.clone();
            }
        }
        if shown["type"] == "QUEUE" && shown["scaling"]["type"] == "REQUEST_COUNT" {
            shown["workers"]
                .as_object_mut()
                .map(|workers| workers.remove("idleTimeout"));
        }
        let id = &endpoint.id;
        let url = |path: &str| format!("{RUNTIME}/{id}/{path}");
        shown["requestUrls"] = if shown["type"] == "QUEUE" {
            json!({
                "run": url("run"), "runSync": url("runsync"), "status": url("status/{job_id}"),
                    "stream": url("stream/{job_id}"),
                "cancel": url("cancel/{job_id}"), "retry": url("retry/{job_id}"),
                    "purgeQueue": url("purge-queue"),
                "health": url("health"),
            })
        } else {
            json!({ "base": format!("https://{id}.api.runpod.ai"),
                "health": format!("https://{id}.api.runpod.ai/ping") })
        };
        shown
    }

    fn worker(&self, endpoint: &Endpoint, worker: &Worker) -> Value {
        let status = match (worker.ready_at, &worker.job) {
            (None, _) => "INITIALIZING",
            (Some(_), None) => "IDLE",
            (Some(_), Some(_)) => "RUNNING",
        };
        let extra = &endpoint.spec.extra;
        let pool = extra["gpu"]["pools"][0].as_str();
        let card = CARDS
            .iter()
            .find(|card| pool.is_some() && card.pool == pool)
            .map(|card| card.id);
        json!({
            "id": worker.id,
            "status": status,
            "isStale": false,
            "version": extra.get("version").cloned().unwrap_or_else(|| 1.into()),
            "gpuCount": extra["gpu"]["count"].as_u64().unwrap_or(0),
            "image": extra.get("image").cloned().unwrap_or(Value::Null),
            "uptimeSeconds": worker.ready_at.map(|at| self.world.now().since(at).as_secs()),
            "gpuTypeId": card,
            "dataCenterId": worker.ready_at.map(|_| "EU-RO-1"),
            "startedAt": worker.ready_at.map(|at| wire_time(&self.world, at)),
        })
    }
}

/// What the world needs to know of an endpoint's fields.
fn timing(spec: EndpointSpec) -> EndpointSpec {
    let extra = &spec.extra;
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let timeout = extra["timeout"]
        .as_u64()
        .filter(|millis| *millis > 0)
        .map_or(Duration::from_secs(600), Duration::from_millis);
    let gpus = number(&extra["gpu"]["count"]).unwrap_or(1);
    EndpointSpec {
        max_workers: number(&extra["workers"]["max"]).unwrap_or(3),
        idle_timeout: number(&extra["workers"]["idleTimeout"])
            .map_or(Duration::from_secs(10), |s| Duration::from_secs(s.into())),
        execution_timeout: timeout,
        price: UsdPerHour::new(Usd::from_cents(190)).times(gpus),
        ..spec
    }
}

#[derive(Default)]
struct Checked {
    idle_timeout_sent: bool,
}

impl Checked {
    /// The shape of a body.
    fn read(&mut self, body: &Value, required: &[&str], creating: bool) -> Result<(), Problem> {
        let mut check = Check::default();
        let mut allowed = [&FIELDS[..], &CONTAINER[..]].concat();
        if !creating {
            // The routing model is chosen once.
            allowed.retain(|field| *field != "type");
        }
        let Some(object) = check.object("$", body, &allowed, required) else {
            return Err(Problem::invalid(check.errors));
        };
        check.string("$.name", object.get("name"), 1);
        let mut container = Container::read(&mut check, object);
        check.one_of("$.type", object.get("type"), &["QUEUE", "LOAD_BALANCER"]);
        check.one_of(
            "$.flashboot",
            object.get("flashboot"),
            &["OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"],
        );
        check.strings("$.dataCenterIds", object.get("dataCenterIds"));
        check.strings("$.networkVolumes", object.get("networkVolumes"));
        check.integer("$.timeout", object.get("timeout"), 0);
        if let Some(scaling) = object.get("scaling") {
            scaling_of(&mut check, scaling);
        }
        if let Some(workers) = object.get("workers")
            && let Some(fields) =
                check.object("$.workers", workers, &["min", "max", "idleTimeout"], &[])
        {
            check.integer("$.workers.min", fields.get("min"), 0);
            check.integer("$.workers.max", fields.get("max"), 0);
            let idle = check.integer("$.workers.idleTimeout", fields.get("idleTimeout"), 1);
            self.idle_timeout_sent = idle.is_some();
            if idle.is_some_and(|idle| idle > 3600) {
                check.wrong("$.workers.idleTimeout", "maximum: want 3600");
            }
        }
        if let Some(gpu) = object.get("gpu") {
            gpu_of(&mut check, gpu, creating);
        }
        if let Some(items) = check.array("$.cpu", object.get("cpu")) {
            if items.is_empty() {
                check.wrong("$.cpu", "minItems: got 0, want 1");
            }
            for (index, item) in items.iter().enumerate() {
                if let Some(fields) = check.object(
                    &format!("$.cpu[{index}]"),
                    item,
                    &["id", "vcpuCount"],
                    &["id", "vcpuCount"],
                ) {
                    check.string(&format!("$.cpu[{index}].id"), fields.get("id"), 1);
                    check.integer(
                        &format!("$.cpu[{index}].vcpuCount"),
                        fields.get("vcpuCount"),
                        2,
                    );
                }
            }
        }
        if !check.errors.is_empty() {
            return Err(Problem::invalid(check.errors));
        }
        container.hold()
    }

    /// The workers block after this body; `whole` has the endpoint's type and scaling.
    fn workers(&self, was: &Value, body: &Value, whole: &Value) -> Result<Value, Problem> {
        if self.idle_timeout_sent
            && whole["type"] == "QUEUE"
            && whole["scaling"]["type"] == "REQUEST_COUNT"
        {
            return Err(Problem::invalid(vec![
                "$.workers.idleTimeout: not applicable to queue endpoints scaling on REQUEST_COUNT"
                    .into(),
            ]));
        }
        let mut workers = if was.is_object() {
            was.clone()
        } else {
            json!({ "min": 0, "max": 3, "idleTimeout": 10 })
        };
        merge(
            &mut workers,
            body.get("workers")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
        );
        if workers["min"].as_u64() > workers["max"].as_u64() {
            return Err(Problem::bad("workers.min must not exceed workers.max"));
        }
        Ok(workers)
    }
}

fn scaling_of(check: &mut Check, scaling: &Value) {
    let (fields, kind): (&[&str], &str) = match scaling["type"].as_str() {
        Some("REQUEST_COUNT") => (&["type", "requestCount"], "REQUEST_COUNT"),
        _ => (&["type", "queueDelay"], "QUEUE_DELAY"),
    };
    let Some(object) = check.object("$.scaling", scaling, fields, fields) else {
        return;
    };
    check.one_of("$.scaling.type", object.get("type"), &[kind]);
    check.integer("$.scaling.requestCount", object.get("requestCount"), 1);
    match object.get("queueDelay").map(Value::as_f64) {
        Some(None) => check.wrong("$.scaling.queueDelay", "want number"),
        Some(Some(delay)) if delay < 0.5 => check.wrong(
            "$.scaling.queueDelay",
            format!("minimum: got {delay}, want 0.5"),
        ),
        _ => {}
    }
}

fn gpu_of(check: &mut Check, gpu: &Value, creating: bool) {
    let required: &[&str] = if creating { &["pools"] } else { &[] };
    let allowed = [
        "pools",
        "excludedTypes",
        "count",
        "allowedCudaVersions",
        "minCudaVersion",
    ];
    let Some(fields) = check.object("$.gpu", gpu, &allowed, required) else {
        return;
    };
    if check
        .strings("$.gpu.pools", fields.get("pools"))
        .is_some_and(|pools| pools.is_empty())
    {
        check.wrong("$.gpu.pools", "minItems: got 0, want 1");
    }
    check.strings("$.gpu.excludedTypes", fields.get("excludedTypes"));
    if fields.contains_key("excludedTypes") && !fields.contains_key("pools") {
        check.wrong(
            "$.gpu",
            "properties 'pools' required, if 'excludedTypes' exists",
        );
    }
    check.integer("$.gpu.count", fields.get("count"), 1);
    let versions = check
        .strings(
            "$.gpu.allowedCudaVersions",
            fields.get("allowedCudaVersions"),
        )
        .unwrap_or_default();
    for (index, text) in versions.iter().enumerate() {
        check.version(&format!("$.gpu.allowedCudaVersions[{index}]"), text);
    }
    if let Some(min) = check
        .string("$.gpu.minCudaVersion", fields.get("minCudaVersion"), 0)
        .filter(|min| creating || !min.is_empty())
    {
        check.version("$.gpu.minCudaVersion", min);
    }
}

/// A GPU selection over the one before: `pools` replaces it wholesale, exclusions included.
fn pools(was: Option<&Value>, sent: &Value) -> Result<Value, Problem> {
    let mut gpu = was.cloned().unwrap_or_else(
        || json!({ "count": 1, "allowedCudaVersions": [], "minCudaVersion": null }),
    );
    let mut fields: Map<String, Value> = sent.as_object().cloned().unwrap_or_default();
    if fields.get("minCudaVersion").is_some_and(|min| min == "") {
        fields.insert("minCudaVersion".into(), Value::Null);
    }
    if fields.contains_key("pools")
        && let Some(object) = gpu.as_object_mut()
    {
        object.remove("excludedTypes");
    }
    merge(&mut gpu, fields);
    let pools: Vec<&str> = gpu["pools"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if let Some(unknown) = pools
        .iter()
        .find(|pool| !CARDS.iter().any(|card| card.pool == Some(**pool)))
    {
        return Err(Problem::bad(format!("Unknown GPU pool: {unknown}")));
    }
    let members: Vec<&str> = CARDS
        .iter()
        .filter(|card| card.pool.is_some_and(|pool| pools.contains(&pool)))
        .map(|card| card.id)
        .collect();
    let excluded: Vec<&str> = gpu["excludedTypes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::trim)
        .collect();
    if let Some(odd) = excluded.iter().find(|id| !members.contains(id)) {
        return Err(Problem::bad(format!(
            "{odd} is not a GPU type in one of the selected pools"
        )));
    }
    if members.iter().all(|id| excluded.contains(id)) {
        return Err(Problem::bad("the selection leaves no GPU type"));
    }
    let exact = gpu["allowedCudaVersions"]
        .as_array()
        .is_some_and(|versions| !versions.is_empty());
    if exact && gpu["minCudaVersion"].is_string() {
        return Err(Problem::bad(
            "gpu.allowedCudaVersions and gpu.minCudaVersion are mutually exclusive",
        ));
    }
    Ok(gpu)
}

fn flavours(sent: &Value) -> Result<Value, Problem> {
    let mut shown = Vec::new();
    for item in sent.as_array().into_iter().flatten() {
        let (id, count) = (
            item["id"].as_str().unwrap_or_default(),
            item["vcpuCount"].as_u64().unwrap_or(0),
        );
        let Some((.., ram, _)) = FLAVOURS.iter().find(|(flavour, ..)| *flavour == id) else {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("Unknown CPU flavor: {id}"),
            ));
        };
        if !count.is_power_of_two() || count > 32 {
            return Err(Problem::bad(
                "cpu.vcpuCount must be a power of two valid for the selected CPU flavor",
            ));
        }
        let config = json!({ "id": id, "vcpuCount": count, "memory": u64::from(*ram) * count });
        if shown.contains(&config) {
            return Err(Problem::invalid(vec!["$.cpu: items must be unique".into()]));
        }
        shown.push(config);
    }
    Ok(shown.into())
}
