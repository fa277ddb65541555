//! Fly under test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atlas::fly::{Fly, IpKind, WaitFor};
use atlas_core::{
    AnyProvider, CallContext, ComputeId, ComputeRequest, DiskSize, LaunchKey, ListFilter, Port,
    Result, VolumeId, VolumeRequest,
};
use atlas_http::{Pace, Transport};
use atlas_sim::Ready;
use atlas_testkit::conformance::{BoxFuture, Subject};
use atlas_testkit::dialect::fly::{self, Quirks};
use atlas_testkit::world::{World, WorldClock};
use serde_json::{Value, json};

use super::{Calls, Cloud, CloudSubject, KEY, spawn, unexpected, unhurried};
use crate::openapi::Exchange;
use crate::tap::{Broken, Reading};

/// What is compared with Fly's document.
pub const CLOUD: Cloud = Cloud {
    name: fly::NAME,
    document: "fly-machines.openapi.json",
    hosts: &["api.machines.dev"],
    world,
    dialect: |world| Transport::new(fly::Fly::new(world.clone()).with_quirks(Quirks::unlimited())),
    served: true,
    provider,
    live,
    reading: Reading {
        operation,
        lose_cursor: Some(Broken {
            pages: 1,
            by: silence_a_region,
        }),
    },
    request: || ComputeRequest::cpu(1).image("x/y:1"),
    region: Some("gru"),
    unknown_id: "0123456789abcd.sim-app",
    serverless: None,
    more: |subject| more(subject),
    every: |transport| Box::pin(every(transport)),
};

fn world(seed: u64, clock: WorldClock) -> World {
    let world = World::new(seed, clock).with_cloud(fly::cloud());
    world.add_key(fly::NAME, KEY, fly::ORG);
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

fn build(world: &World, transport: Transport, key: &str, served: Option<&Ready>) -> Result<Fly> {
    let at_once = Pace::every(Duration::ZERO);
    let mut builder = Fly::builder()
        .api_key(key)
        .org(fly::ORG)
        .app(fly::APP)
        .transport(transport)
        .limits(unhurried())
        .paces(at_once, at_once)
        .clock(Arc::new(world.clock().clone()));
    if let Some(ready) = served {
        builder = builder
            .base_url(ready.url(fly::NAME, "machines"))
            .proxy_url(ready.url(fly::NAME, "proxy"));
    }
    builder.build()
}

/// The account of the environment's token, or the same cloud with another token.
fn live(key: Option<&str>) -> Result<AnyProvider> {
    let mut builder = Fly::builder().environment(|name| std::env::var(name).ok());
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
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (exchange.method.as_str(), segments.as_slice()) {
        ("POST", ["v1", "apps", _, "machines"]) => Some("spawn_compute"),
        ("GET", ["v1", "orgs", _, "machines"]) => Some("list_compute"),
        _ => None,
    }
}

/// A region that did not answer: its machines are not on the list.
fn silence_a_region(page: &mut Value) {
    page["error_regions"] = json!(["gru"]);
    page["machines"] = json!([]);
}

fn stopped(state: WaitFor) -> Vec<WaitFor> {
    vec![state, WaitFor::Failed, WaitFor::Destroyed]
}

/// Ports with an app and its addresses, several pages, every verb of a machine, and what no
/// provider of ours calls.
fn more(subject: &CloudSubject) -> BoxFuture<'_, Result<()>> {
    Box::pin(async move {
        let provider = subject.fresh().await?;
        let cx = subject.cx();
        let fly = build(&subject.world(), subject.transport(), KEY, None)?;
        let at = VolumeRequest {
            name: "data".to_owned(),
            size: DiskSize::gb(10),
            region: "fra".to_owned(),
        };
        let volumes = provider
            .network_volumes()
            .ok_or_else(|| unexpected("no network volumes"))?;
        let volume = volumes.create_network_volume(&cx, &at).await?;
        let whole = ComputeRequest::cpu(2)
            .image("x/y:1")
            .command(["serve", "--port", "8000"])
            .region("fra")
            .env("A", "1")
            .name("every-field")
            .network_volume(volume.id.clone());
        let made = spawn(&provider, subject, &whole).await?;
        machine(&fly, subject, &made.id).await?;
        volumes_and_apps(&fly, &cx, &volume.id).await?;

        let dialect = fly::Fly::new(subject.world());
        let mut quirks = Quirks::unlimited();
        quirks.page_size = 1;
        dialect.set_quirks(quirks);
        let paged = (CLOUD.provider)(
            &subject.world(),
            subject.tapped(Transport::new(dialect)),
            KEY,
            None,
        )?;
        spawn(&paged, subject, &subject.request()).await?;
        let listing = paged.list_compute(&cx, &ListFilter::all()).await?;
        if !listing.is_complete() || listing.computes.len() != 2 {
            return Err(unexpected(format!(
                "a walk over two pages saw {} machines",
                listing.computes.len()
            )));
        }
        provider.terminate(&cx, &made.id).await?;
        fly.wait(
            &cx,
            &made.id,
            &[WaitFor::Destroyed],
            Duration::from_secs(120),
        )
        .await?;
        volumes.delete_network_volume(&cx, &volume.id).await?;
        with_ports(&provider, subject).await?;
        let table = beside(&made.id);
        let table: Vec<_> = table
            .iter()
            .map(|(method, path, body, due)| (*method, path.as_str(), body.clone(), *due))
            .collect();
        subject
            .send("https://api.machines.dev", &table)
            .await
            .map(drop)
    })
}

/// A machine that gets an app of its own, and gives it back.
async fn with_ports(provider: &AnyProvider, subject: &CloudSubject) -> Result<()> {
    let cx = subject.cx();
    let text = "a1-aaaaaa-nkyqgaabaeaqcaib-aibaeaqc";
    let key = LaunchKey::Tracked(text.parse()?);
    let request = ComputeRequest::cpu(1)
        .image("x/y:1")
        .port(Port::http(8000))
        .port(Port::tcp(22))
        .env("TOKEN", "secret");
    let request = request
        .clone()
        .at(provider.candidates(&cx, &request).await?.remove(0));
    let mut made = Vec::new();
    for support in provider.supports(&key, &request)? {
        made.push(provider.ensure_support(&cx, &key, &support).await?);
    }
    let machine = provider.spawn_compute(&cx, &key, &request).await?;
    provider.terminate(&cx, &machine.id).await?;
    tokio::time::sleep(Duration::from_secs(300)).await;
    for support in made.iter().rev() {
        provider.release_support(&cx, support).await?;
    }
    Ok(())
}

/// Every verb of a machine.
async fn machine(fly: &Fly, subject: &CloudSubject, id: &ComputeId) -> Result<()> {
    let (cx, minute) = (subject.cx(), Duration::from_secs(60));
    let provider = AnyProvider::new(fly.clone());
    let settled = |what: &str, found: Option<WaitFor>, wanted: WaitFor| match found {
        Some(state) if state == wanted => Ok(()),
        other => Err(unexpected(format!(
            "{what}: waited for {wanted:?} and found {other:?}"
        ))),
    };
    settled(
        "launched",
        fly.wait(&cx, id, &stopped(WaitFor::Started), minute)
            .await?,
        WaitFor::Started,
    )?;
    let held = fly.take_lease(&cx, id, minute, Some("contract")).await?;
    fly.lease(&cx, id)
        .await?
        .ok_or_else(|| unexpected("a lease that was taken is not there"))?;
    let held = fly.refresh_lease(&cx, &held, minute).await?;
    fly.release_lease(&cx, &held).await?;
    fly.set_metadata(&cx, id, "owner", "u42").await?;
    fly.update_metadata(
        &cx,
        id,
        &BTreeMap::from([
            ("note".to_owned(), Some("x".to_owned())),
            ("owner".to_owned(), None),
        ]),
    )
    .await?;
    if fly.metadata_value(&cx, id, "note").await? != "x"
        || fly.metadata(&cx, id).await?.contains_key("owner")
    {
        return Err(unexpected("metadata is not as it was set"));
    }
    fly.remove_metadata(&cx, id, "note").await?;
    fly.exec(&cx, id, &["echo".to_owned(), "hello".to_owned()], minute)
        .await?;
    fly.events(&cx, id, 10).await?;
    fly.versions(&cx, id).await?;
    fly.cordon(&cx, id, true).await?;
    fly.cordon(&cx, id, false).await?;
    fly.signal(&cx, id, "SIGUSR1").await?;
    fly.restart(&cx, id).await?;
    provider.stop(&cx, id).await?;
    settled(
        "stopped",
        fly.wait(&cx, id, &stopped(WaitFor::Stopped), minute)
            .await?,
        WaitFor::Stopped,
    )?;
    provider.start(&cx, id).await?;
    settled(
        "started",
        fly.wait(&cx, id, &stopped(WaitFor::Started), minute)
            .await?,
        WaitFor::Started,
    )?;
    fly.suspend(&cx, id).await?;
    settled(
        "suspended",
        fly.wait(&cx, id, &stopped(WaitFor::Suspended), minute)
            .await?,
        WaitFor::Suspended,
    )?;
    provider.start(&cx, id).await?;
    fly.wait(&cx, id, &[WaitFor::Failed], Duration::from_secs(1))
        .await
        .map(drop)
}

async fn volumes_and_apps(fly: &Fly, cx: &CallContext, volume: &VolumeId) -> Result<()> {
    fly.volume(cx, volume).await?;
    fly.extend_volume(cx, volume, DiskSize::gb(20)).await?;
    fly.keep_snapshots(cx, volume, 7).await?;
    fly.volumes(cx, fly::APP).await?;
    fly.create_app(cx, "contract-app", Some("contract-net"))
        .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    fly.app(cx, "contract-app")
        .await?
        .ok_or_else(|| unexpected("an app that was made is not there"))?;
    let ip = fly
        .allocate_ip(cx, "contract-app", IpKind::SharedV4)
        .await?;
    fly.release_ip(cx, "contract-app", &ip.ip).await?;
    fly.ips(cx, "contract-app").await?;
    fly.apps(cx).await?;
    fly.delete_app(cx, "contract-app").await?;
    fly.regions(cx).await?;
    fly.placements(cx, &ComputeRequest::cpu(1).image("x").region("fra"), 3)
        .await?;
    AnyProvider::new(fly.clone()).identity(cx).await.map(drop)
}

/// What the provider never sends, and how it is answered all the same.
fn beside(gone: &ComputeId) -> Vec<(&'static str, String, Option<Value>, u16)> {
    let gone = gone.as_str().split('.').next().unwrap_or_default();
    let machines = "/v1/apps/sim-app/machines";
    let gpu = json!({ "config": { "image": "x", "guest": { "gpu_kind": "a10", "gpus": 1 } } });
    let named = json!({ "name": "twice", "region": "ams", "config": { "image": "x" } });
    vec![
        ("POST", machines.to_owned(), Some(named.clone()), 200),
        ("POST", machines.to_owned(), Some(named), 409),
        ("POST", machines.to_owned(), Some(gpu), 400),
        ("GET", machines.to_owned(), None, 200),
        ("GET", format!("{machines}?state=unheard-of"), None, 400),
        (
            "GET",
            format!("{machines}/{gone}/wait?timeout=90"),
            None,
            400,
        ),
        ("GET", format!("{machines}/nothing"), None, 404),
        ("GET", format!("{machines}/nothing/ps"), None, 404),
        (
            "POST",
            format!("{machines}/nothing"),
            Some(json!({ "config": { "image": "x" } })),
            404,
        ),
        ("GET", format!("{machines}/nothing/memory"), None, 404),
        ("GET", "/v1/apps?org_slug=sim-org".to_owned(), None, 200),
        ("GET", "/v1/apps/nobodys".to_owned(), None, 404),
        (
            "GET",
            "/v1/orgs/sim-org/machines?updated_after=2026-11-01T00:00:00Z&summary=true".to_owned(),
            None,
            200,
        ),
        (
            "GET",
            "/v1/apps/sim-app/volumes/vol_nothing/snapshots".to_owned(),
            None,
            404,
        ),
    ]
}

/// The contract's operations and all the others, each once; not those whose example cannot be an
/// answer: a list whose cursor leads back to itself, a wait for a state that is none.
async fn every(transport: Transport) -> Result<Calls> {
    let fly = Fly::builder()
        .api_key(KEY)
        .org("text")
        .app("text")
        .transport(transport)
        .build()?;
    let provider = AnyProvider::new(fly.clone());
    let cx = CallContext::new();
    let id = ComputeId::new("text.text")?;
    let volumes = provider
        .network_volumes()
        .ok_or_else(|| unexpected("no network volumes"))?;
    let volume = VolumeRequest {
        name: "data".to_owned(),
        size: DiskSize::gb(20),
        region: "fra".to_owned(),
    };
    let volume_id = VolumeId::new("text.text")?;
    let changes = BTreeMap::from([("a".to_owned(), None)]);
    let minute = Duration::from_secs(60);
    let request = ComputeRequest::cpu(1).image("x/y:1");
    Ok(vec![
        ("identity", provider.identity(&cx).await.map(drop)),
        (
            "spawn_compute",
            provider
                .spawn_compute(&cx, &LaunchKey::untracked(), &request)
                .await
                .map(drop),
        ),
        (
            "get_compute",
            provider.get_compute(&cx, &id).await.map(drop),
        ),
        (
            "list_compute",
            provider
                .list_compute(&cx, &ListFilter::all())
                .await
                .map(drop),
        ),
        ("terminate", provider.terminate(&cx, &id).await),
        ("stop", provider.stop(&cx, &id).await),
        ("start", provider.start(&cx, &id).await),
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
            volumes.delete_network_volume(&cx, &volume_id).await,
        ),
        (
            "take_lease",
            fly.take_lease(&cx, &id, minute, Some("x")).await.map(drop),
        ),
        ("lease", fly.lease(&cx, &id).await.map(drop)),
        ("suspend", fly.suspend(&cx, &id).await),
        ("restart", fly.restart(&cx, &id).await),
        ("signal", fly.signal(&cx, &id, "SIGTERM").await),
        ("cordon", fly.cordon(&cx, &id, true).await),
        ("uncordon", fly.cordon(&cx, &id, false).await),
        (
            "exec",
            fly.exec(&cx, &id, &["true".to_owned()], minute)
                .await
                .map(drop),
        ),
        ("events", fly.events(&cx, &id, 5).await.map(drop)),
        ("versions", fly.versions(&cx, &id).await.map(drop)),
        ("metadata", fly.metadata(&cx, &id).await.map(drop)),
        (
            "metadata_value",
            fly.metadata_value(&cx, &id, "a").await.map(drop),
        ),
        ("set_metadata", fly.set_metadata(&cx, &id, "a", "b").await),
        (
            "update_metadata",
            fly.update_metadata(&cx, &id, &changes).await,
        ),
        ("remove_metadata", fly.remove_metadata(&cx, &id, "a").await),
        ("app", fly.app(&cx, "text").await.map(drop)),
        ("create_app", fly.create_app(&cx, "text", None).await),
        ("delete_app", fly.delete_app(&cx, "text").await),
        ("ips", fly.ips(&cx, "text").await.map(drop)),
        (
            "allocate_ip",
            fly.allocate_ip(&cx, "text", IpKind::V6).await.map(drop),
        ),
        (
            "release_ip",
            fly.release_ip(&cx, "text", "2001:db8::1").await,
        ),
        ("volume", fly.volume(&cx, &volume_id).await.map(drop)),
        ("volumes", fly.volumes(&cx, "text").await.map(drop)),
        (
            "extend_volume",
            fly.extend_volume(&cx, &volume_id, DiskSize::gb(30))
                .await
                .map(drop),
        ),
        (
            "keep_snapshots",
            fly.keep_snapshots(&cx, &volume_id, 7).await.map(drop),
        ),
        ("regions", fly.regions(&cx).await.map(drop)),
        (
            "placements",
            fly.placements(&cx, &request, 1).await.map(drop),
        ),
    ])
}
