//! Lambda Cloud under test.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::{
    AnyProvider, CallContext, Compute, ComputeId, ComputeRequest, DiskSize, Gpu, LaunchKey, ListFilter, Port, Result, VolumeId,
    VolumeRequest,
};
use atlas_http::Transport;
use atlas_provider_lambda::Lambda;
use atlas_sim::Ready;
use atlas_testkit::conformance::{BoxFuture, Subject};
use atlas_testkit::dialect::lambda::{self, Quirks};
use atlas_testkit::world::{World, WorldClock};
use serde_json::{Value, json};

use super::{Calls, Cloud, CloudSubject, KEY, unexpected};
use crate::openapi::Exchange;
use crate::tap::{Broken, Reading};

/// Lambda.
pub const CLOUD: Cloud = Cloud {
    name: lambda::NAME,
    document: "lambda-cloud-v1.openapi.json",
    hosts: &["cloud.lambda.ai"],
    world,
    dialect: |world| Transport::new(lambda::Lambda::new(world.clone())),
    served: false,
    provider,
    live,
    reading: Reading { operation, lose_cursor: Some(Broken { pages: 2, by: repeat_the_token }) },
    request: || ComputeRequest::gpu(Gpu::A10).image("x/y:1"),
    region: Some("us-south-1"),
    unknown_id: "0123456789abcdef0123456789abcdef",
    serverless: None,
    more: |subject| more(subject),
    every: |transport| Box::pin(every(transport)),
};

fn world(seed: u64, clock: WorldClock) -> World {
    let world = World::new(seed, clock).with_cloud(lambda::cloud());
    world.add_key(lambda::NAME, KEY, "me");
    world
}

fn provider(world: &World, transport: Transport, key: &str, _served: Option<&Ready>) -> Result<AnyProvider> {
    let built = Lambda::builder().api_key(key).transport(transport).clock(Arc::new(world.clock().clone())).build();
    built.map(AnyProvider::new)
}

/// The account of the environment's key, or the same cloud with another key.
fn live(key: Option<&str>) -> Result<AnyProvider> {
    let mut builder = Lambda::builder().environment(|name| std::env::var(name).ok());
    if let Some(key) = key {
        builder = builder.api_key(key);
    }
    builder.build().map(AnyProvider::new)
}

fn operation(exchange: &Exchange) -> Option<&'static str> {
    let path = exchange.path_and_query.split('?').next().unwrap_or_default();
    match (exchange.method.as_str(), path) {
        ("POST", "/api/v1/instance-operations/launch") => Some("spawn_compute"),
        ("GET", "/api/v1/instances") => Some("list_compute"),
        _ => None,
    }
}

/// Two pages in a row with one token: the walk goes in a circle.
fn repeat_the_token(page: &mut Value) {
    page["page_token"] = Value::from("again");
}

/// Ports with their rule sets, several pages, and what no provider of ours calls.
fn more(subject: &CloudSubject) -> BoxFuture<'_, Result<()>> {
    Box::pin(async move {
        let provider = subject.fresh().await?;
        let cx = subject.cx();
        let whole = ComputeRequest::gpu(Gpu::A10)
            .image("x/y:1")
            .command(["serve", "--port", "8000"])
            .region("us-east-1")
            .port(Port::http(8000))
            .port(Port::tcp(22))
            .env("A", "1")
            .name("every field");
        let key = LaunchKey::untracked();
        for support in provider.supports(&key, &whole)? {
            let made = provider.ensure_support(&cx, &key, &support).await?;
            provider.ensure_support(&cx, &key, &made).await?;
        }
        let made = spawn(&provider, subject, &whole).await?;
        tokio::time::sleep(Duration::from_secs(600)).await;
        provider.get_compute(&cx, &made.id).await?;

        let dialect = lambda::Lambda::new(subject.world());
        let mut quirks = Quirks::default();
        (quirks.page_size, quirks.rates) = (1, None);
        dialect.set_quirks(quirks);
        let paged = (CLOUD.provider)(&subject.world(), subject.tapped(Transport::new(dialect)), KEY, None)?;
        spawn(&paged, subject, &subject.request()).await?;
        let listing = paged.list_compute(&cx, &ListFilter::all()).await?;
        if !listing.is_complete() || listing.computes.len() != 2 {
            return Err(unexpected(format!("a walk over two pages saw {} instances", listing.computes.len())));
        }

        provider.terminate(&cx, &made.id).await?;
        for (method, path, body, due) in beside() {
            tokio::time::sleep(Duration::from_secs(15)).await;
            subject.send("https://cloud.lambda.ai", &[(method, path, body, due)]).await?;
        }
        Ok(())
    })
}

async fn spawn(provider: &AnyProvider, subject: &CloudSubject, request: &ComputeRequest) -> Result<Compute> {
    let candidates = provider.candidates(&subject.cx(), request).await?;
    let first = candidates.into_iter().next().ok_or_else(|| unexpected("a request has no candidate"))?;
    provider.spawn_compute(&subject.cx(), &LaunchKey::untracked(), &request.clone().at(first)).await
}

fn beside() -> Vec<(&'static str, &'static str, Option<Value>, u16)> {
    let launch = json!({ "region_name": "us-east-1", "instance_type_name": "gpu_1x_a10", "ssh_key_names": ["nobody's"] });
    vec![
        ("GET", "/api/v1/regions", None, 200),
        ("GET", "/api/v1/images", None, 200),
        ("GET", "/api/v1/ssh-keys", None, 200),
        ("POST", "/api/v1/ssh-keys", Some(json!({ "name": "second" })), 200),
        ("GET", "/api/v1/firewall-rules", None, 200),
        ("GET", "/api/v1/firewall-rulesets", None, 200),
        ("GET", "/api/v1/firewall-rulesets/nothing", None, 404),
        ("GET", "/api/v1/audit-events", None, 200),
        ("GET", "/api/v1/instances/nothing", None, 404),
        ("POST", "/api/v1/instance-operations/launch", Some(launch), 400),
    ]
}

/// The contract's operations and all the others, each once.
async fn every(transport: Transport) -> Result<Calls> {
    let lambda = Lambda::builder().api_key(KEY).ssh_key("macbook-pro").transport(transport).build()?;
    let provider = AnyProvider::new(lambda.clone());
    let cx = CallContext::new();
    let id = ComputeId::new("0920582c7ff041399e34823a0be62549")?;
    let volumes = provider.network_volumes().ok_or_else(|| unexpected("no network volumes"))?;
    let volume = VolumeRequest { name: "data".to_owned(), size: DiskSize::gb(20), region: "us-east-1".to_owned() };
    let volume_id = VolumeId::new("398578a2336b49079e74043f0bd2cfe8")?;
    Ok(vec![
        ("get_compute", provider.get_compute(&cx, &id).await.map(drop)),
        ("list_compute", provider.list_compute(&cx, &ListFilter::all()).await.map(drop)),
        ("terminate", provider.terminate(&cx, &id).await),
        ("restart", lambda.restart(&cx, &id).await),
        ("list_gpu_types", provider.list_gpu_types(&cx).await.map(drop)),
        ("list_network_volumes", volumes.list_network_volumes(&cx).await.map(drop)),
        ("create_network_volume", volumes.create_network_volume(&cx, &volume).await.map(drop)),
        ("delete_network_volume", volumes.delete_network_volume(&cx, &volume_id).await),
    ])
}
