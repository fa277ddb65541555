//! RunPod under test: REST v2, and the calls that the conformance suite does not make.

mod resources;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use atlas::runpod::RunPod;
use atlas_core::{
    AnyProvider, CallContext, Clock, CloudType, ComputeId, ComputeRequest, ComputeStatus, DiskSize,
    Gpu, GpuChoice, LaunchKey, ListFilter, LogQuery, LogSource, MemorySize, Port, Result,
    SpendQuery, SystemClock, VolumeId, VolumeRequest,
};
use atlas_http::Transport;
use atlas_sim::Ready;
use atlas_testkit::conformance::{BoxFuture, Subject};
use atlas_testkit::dialect::runpod::{self, Quirks};
use atlas_testkit::world::{World, WorldClock};
use serde_json::{Value, json};

use super::{Calls, Cloud, CloudSubject, KEY, unexpected};
use crate::openapi::Exchange;
use crate::tap::{Broken, Reading};
use resources::Ids;

/// What is compared with RunPod's document.
pub const CLOUD: Cloud = Cloud {
    name: runpod::NAME,
    document: "runpod-rest-v2.openapi.json",
    hosts: &["api.runpod.io"],
    world,
    // One service for both hosts, the control plane and the job runtime.
    dialect: |world| Transport::new(runpod::RunPod::new(world.clone())),
    served: true,
    provider,
    reading: Reading {
        operation,
        lose_cursor: Some(Broken {
            pages: 1,
            by: lose_cursor,
        }),
    },
    request: || {
        ComputeRequest::gpu(Gpu::A4000)
            .image("x/y:1")
            .container_disk(DiskSize::gb(10))
    },
    region: Some("US-TX-3"),
    unknown_id: "zz0unknown0zz0",
    serverless: Some("sim-endpoint"),
    more: |subject| more(subject),
    every: |transport| Box::pin(every(transport)),
    live,
};

fn world(seed: u64, clock: WorldClock) -> World {
    let world = World::new(seed, clock).with_cloud(runpod::cloud());
    let account = world.add_key(runpod::NAME, KEY, "me");
    runpod::add_endpoint(&world, &account);
    world
}

fn provider(
    world: &World,
    transport: Transport,
    key: &str,
    served: Option<&Ready>,
) -> Result<AnyProvider> {
    build(world, transport, key, served).map(AnyProvider::new)
}

fn build(world: &World, transport: Transport, key: &str, served: Option<&Ready>) -> Result<RunPod> {
    let mut builder = RunPod::builder()
        .api_key(key)
        .transport(transport)
        .clock(Arc::new(world.clock().clone()));
    if let Some(ready) = served {
        builder = builder
            .control_url(ready.url(runpod::NAME, "control"))
            .runtime_url(ready.url(runpod::NAME, "runtime"))
            .proxy_url(ready.url(runpod::NAME, "proxy"));
    }
    builder.build()
}

/// The account of the environment's key, or the same cloud with another key.
fn live(key: Option<&str>) -> Result<AnyProvider> {
    let mut builder = RunPod::builder().environment(|name| std::env::var(name).ok());
    if let Some(key) = key {
        builder = builder.api_key(key);
    }
    builder.build().map(AnyProvider::new)
}

fn operation(exchange: &Exchange) -> Option<&'static str> {
    let path = exchange
        .path_and_query
        .split('?')
        .next()
        .unwrap_or_default();
    match (exchange.method.as_str(), path) {
        ("POST", "/v2/pods") => Some("spawn_compute"),
        ("GET", "/v2/pods") => Some("list_compute"),
        ("POST", "/v2/network-volumes") => Some("create_network_volume"),
        ("POST", path) if path.ends_with("/run") || path.ends_with("/runsync") => Some("run_job"),
        _ => None,
    }
}

fn lose_cursor(page: &mut Value) {
    page["pagination"] = json!({ "hasNextPage": true, "nextCursor": null });
}

/// The contract's operations and all the others, each once.
async fn every(transport: Transport) -> Result<Calls> {
    let runpod = RunPod::builder()
        .api_key(KEY)
        .transport(transport)
        .build()?;
    let provider = AnyProvider::new(runpod.clone());
    let (cx, now) = (CallContext::new(), SystemClock.now());
    let request = ComputeRequest::gpu(Gpu::L4)
        .image("x/y:1")
        .cloud_type(CloudType::Secure);
    let ids = Ids {
        // The pod of the document's own example: an answer about another one is refused.
        pod: ComputeId::new("7h9k2m4n6p")?,
        volume: VolumeId::new("k3v9q0w1za")?,
        other: "abc1234567",
    };
    let volume = VolumeRequest {
        name: "data".to_owned(),
        size: DiskSize::gb(20),
        region: "EU-RO-1".to_owned(),
    };
    let volumes = provider
        .network_volumes()
        .ok_or_else(|| unexpected("no network volumes"))?;
    let spend = SpendQuery {
        id: Some(ids.pod.clone()),
        start: now.saturating_sub(Duration::from_secs(3600)),
        end: now,
    };
    let mut calls: Calls = vec![
        (
            "spawn_compute",
            provider
                .spawn_compute(&cx, &LaunchKey::untracked(), &request)
                .await
                .map(drop),
        ),
        (
            "get_compute",
            provider.get_compute(&cx, &ids.pod).await.map(drop),
        ),
        (
            "list_compute",
            provider
                .list_compute(&cx, &ListFilter::all())
                .await
                .map(drop),
        ),
        ("stop", provider.stop(&cx, &ids.pod).await),
        ("start", provider.start(&cx, &ids.pod).await),
        ("terminate", provider.terminate(&cx, &ids.pod).await),
        (
            "list_gpu_types",
            provider.list_gpu_types(&cx).await.map(drop),
        ),
        (
            "candidates",
            provider
                .candidates(&cx, &ComputeRequest::cpu(2).image("x/y:1"))
                .await
                .map(drop),
        ),
        (
            "list_network_volumes",
            volumes.list_network_volumes(&cx).await.map(drop),
        ),
        (
            "create_network_volume",
            volumes.create_network_volume(&cx, &volume).await.map(drop),
        ),
        (
            "delete_network_volume",
            volumes.delete_network_volume(&cx, &ids.volume).await,
        ),
        (
            "compute_spend",
            provider.compute_spend(&cx, &spend).await.map(drop),
        ),
    ];
    let lines = async {
        let mut stream = provider
            .logs(&cx, &ids.pod, &LogQuery::default().tail(5))
            .await?;
        while let Some(line) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
            line?;
        }
        Ok(())
    };
    calls.push(("logs", lines.await));
    calls.extend(resources::all(&runpod, &cx, &ids, now).await);
    Ok(calls)
}

/// What the suite leaves out: every field of a request, locked pods, CPU pods, refusals of each
/// kind.
fn more(subject: &CloudSubject) -> BoxFuture<'_, Result<()>> {
    Box::pin(async move {
        let provider = subject.fresh().await?;
        let cx = subject.cx();
        let whole = ComputeRequest::gpu(GpuChoice::AtLeast(MemorySize::gib(40)))
            .gpu_count(2)
            .image("x/y:1")
            .command(["sh", "-c", "echo 'hello world'; sleep infinity"])
            .cloud_type(CloudType::Secure)
            .region("EU-RO-1")
            .region("US-TX-3")
            .port(Port::http(8000))
            .port(Port::tcp(22))
            .port(Port::symmetric_tcp(1))
            .env("A", "1")
            .volume(DiskSize::gb(20))
            .container_disk(DiskSize::gb(30))
            .name("every field");
        let cpu = ComputeRequest::cpu(4)
            .image("x/y:1")
            .container_disk(DiskSize::gb(10));
        let family = ComputeRequest::gpu(Gpu::H100)
            .image("x/y:1")
            .provider_opts(json!({ "startSsh": true }));
        for request in [whole, cpu, family] {
            let candidates = provider.candidates(&cx, &request).await?;
            let first = candidates
                .into_iter()
                .next()
                .ok_or_else(|| unexpected("a request has no candidate"))?;
            provider
                .spawn_compute(&cx, &LaunchKey::untracked(), &request.clone().at(first))
                .await?;
            let made = provider
                .spawn_compute(&cx, &LaunchKey::untracked(), &request)
                .await?;
            tokio::time::sleep(Duration::from_secs(120)).await;
            let read = provider.get_compute(&cx, &made.id).await?;
            if read.status != ComputeStatus::Running {
                return Err(unexpected(format!(
                    "a pod is {} after two minutes",
                    read.status
                )));
            }
            for source in [None, Some(LogSource::Container), Some(LogSource::System)] {
                let mut query = LogQuery::default().tail(10);
                query.source = source;
                drain(&provider, subject, &made, &query).await?;
                query.since = made.created_at;
                drain(&provider, subject, &made, &query).await?;
            }
            subject
                .world()
                .lock_machine(runpod::NAME, made.id.as_str(), true);
            provider.terminate(&cx, &made.id).await?;
        }
        let request = subject.request();
        let stopped = provider
            .spawn_compute(&cx, &LaunchKey::untracked(), &request)
            .await?;
        tokio::time::sleep(Duration::from_secs(120)).await;
        provider.stop(&cx, &stopped.id).await?;
        provider.stop(&cx, &stopped.id).await?;
        provider.start(&cx, &stopped.id).await?;
        subject
            .world()
            .fail_machine(runpod::NAME, stopped.id.as_str());
        provider.get_compute(&cx, &stopped.id).await?;
        provider.list_gpu_types(&cx).await?;
        pages(subject).await?;
        subject.send("https://api.runpod.io", &beside()).await?;
        resources::round(
            &build(&subject.world(), subject.transport(), KEY, None)?,
            subject,
        )
        .await
    })
}

/// Lists over several pages.
async fn pages(subject: &CloudSubject) -> Result<()> {
    let mut quirks = Quirks::default();
    quirks.page_size = 2;
    let dialect = runpod::RunPod::new(subject.world()).with_quirks(quirks);
    let provider = provider(
        &subject.world(),
        subject.tapped(Transport::new(dialect)),
        KEY,
        None,
    )?;
    let volumes = provider
        .network_volumes()
        .ok_or_else(|| unexpected("no network volumes"))?;
    for nth in 0..3 {
        provider
            .spawn_compute(&subject.cx(), &LaunchKey::untracked(), &subject.request())
            .await?;
        let request = VolumeRequest {
            name: format!("page-{nth}"),
            size: DiskSize::gb(20),
            region: "EU-RO-1".to_owned(),
        };
        volumes
            .create_network_volume(&subject.cx(), &request)
            .await?;
    }
    let listing = provider
        .list_compute(&subject.cx(), &ListFilter::all())
        .await?;
    if !listing.is_complete() || listing.computes.len() < 3 {
        let seen = listing.computes.len();
        return Err(unexpected(format!("a walk over pages saw {seen} pods")));
    }
    let seen = volumes.list_network_volumes(&subject.cx()).await?.len();
    if seen < 3 {
        return Err(unexpected(format!("a walk over pages saw {seen} volumes")));
    }
    Ok(())
}

/// What no provider of ours calls, and refusals of every kind.
fn beside() -> Vec<(&'static str, &'static str, Option<Value>, u16)> {
    let pod = |more: Value| {
        let mut body = json!({ "name": "x", "image": "x/y:1", "disk": 10, "cloud": "SECURE",
            "gpu": { "id": "NVIDIA L4" } });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        Some(body)
    };
    vec![
        ("GET", "/v2/account/ssh-keys", None, 200),
        (
            "PUT",
            "/v2/account/ssh-keys",
            Some(json!({ "keys": ["ssh-ed25519 AAAA me"] })),
            200,
        ),
        ("GET", "/v2/account/secrets", None, 200),
        ("GET", "/v2/account/secrets?name=hf-token", None, 200),
        (
            "POST",
            "/v2/account/secrets",
            Some(json!({ "name": "hf-token", "value": "v", "description": "a token" })),
            201,
        ),
        (
            "POST",
            "/v2/account/secrets",
            Some(json!({ "name": "hf-token", "value": "v" })),
            409,
        ),
        ("GET", "/v2/account/secrets", None, 200),
        ("GET", "/v2/account/secrets/nothing", None, 404),
        (
            "PATCH",
            "/v2/account/secrets/nothing",
            Some(json!({ "value": "w" })),
            404,
        ),
        ("DELETE", "/v2/account/secrets/nothing", None, 404),
        ("GET", "/v2/serverless/sim-endpoint/builds", None, 200),
        ("GET", "/v2/serverless/sim-endpoint/builds/none", None, 404),
        ("GET", "/v2/catalog/gpus", None, 200),
        ("GET", "/v2/catalog/gpus/NVIDIA%20L4", None, 200),
        ("GET", "/v2/catalog/gpus/nothing", None, 404),
        ("GET", "/v2/catalog/cpus", None, 200),
        ("GET", "/v2/catalog/cpus/cpu3c", None, 200),
        ("GET", "/v2/catalog/datacenters", None, 200),
        ("GET", "/v2/catalog/datacenters/EU-RO-1", None, 200),
        ("GET", "/v2/pods?includeClusterPods=true", None, 200),
        ("GET", "/v2/pods?cursor=another-list", None, 422),
        ("GET", "/v2/templates?cursor=another-list", None, 422),
        ("GET", "/v2/pods/nothing", None, 404),
        ("GET", "/v2/pods/nothing/logs", None, 404),
        ("DELETE", "/v2/pods/nothing", None, 404),
        (
            "POST",
            "/v2/pods",
            pod(json!({ "dataCenterIds": ["AP-JP-1"] })),
            400,
        ),
        (
            "POST",
            "/v2/pods",
            pod(json!({ "entrypoint": ["sh", "-c"], "cmd": ["sleep 9"] })),
            201,
        ),
        (
            "POST",
            "/v2/pods/nothing/action",
            Some(json!({ "action": "stop" })),
            404,
        ),
    ]
}

async fn drain(
    provider: &AnyProvider,
    subject: &CloudSubject,
    made: &atlas_core::Compute,
    query: &LogQuery,
) -> Result<()> {
    let mut stream = provider.logs(&subject.cx(), &made.id, query).await?;
    while let Some(line) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        line?;
    }
    Ok(())
}
