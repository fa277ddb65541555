//! Vast.ai under test.

use std::sync::Arc;
use std::time::Duration;

use atlas::vast::{OfferPolicy, Vast};
use atlas_core::{
    AnyProvider, CallContext, ComputeId, ComputeRequest, DiskSize, Gpu, LaunchKey, ListFilter,
    LogQuery, Port, Result, SpendQuery, Timestamp, Usd, UsdPerHour,
};
use atlas_http::Transport;
use atlas_sim::Ready;
use atlas_testkit::conformance::{BoxFuture, Subject};
use atlas_testkit::dialect::vast::{self, Quirks};
use atlas_testkit::world::{World, WorldClock};
use serde_json::{Value, json};

use super::{Calls, Cloud, CloudSubject, KEY, spawn, unexpected, unhurried};
use crate::openapi::Exchange;
use crate::tap::{Broken, Reading};

/// What is compared with Vast's document.
pub const CLOUD: Cloud = Cloud {
    name: vast::NAME,
    document: "vast.openapi.yaml",
    hosts: &["console.vast.ai"],
    world,
    dialect: |world| {
        Transport::new(vast::Vast::new(world.clone()).with_quirks(Quirks::unlimited()))
    },
    served: true,
    provider,
    live,
    reading: Reading {
        operation,
        lose_cursor: Some(Broken {
            pages: 2,
            by: repeat_the_token,
        }),
    },
    request: || ComputeRequest::gpu(Gpu::Rtx4090).image("x/y:1"),
    region: Some("SE"),
    unknown_id: "99999999",
    serverless: None,
    more: |subject| more(subject),
    every: |transport| Box::pin(every(transport)),
};

fn world(seed: u64, clock: WorldClock) -> World {
    let world = World::new(seed, clock).with_cloud(vast::cloud());
    world.add_key(vast::NAME, KEY, "me");
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

fn build(world: &World, transport: Transport, key: &str, served: Option<&Ready>) -> Result<Vast> {
    let mut builder = Vast::builder()
        .api_key(key)
        .transport(transport)
        .limits(unhurried())
        .endpoint_paces(false)
        .clock(Arc::new(world.clock().clone()));
    if let Some(ready) = served {
        builder = builder.base_url(ready.base_url(vast::NAME));
    }
    builder.build()
}

/// The account of the environment's key, or the same cloud with another key.
fn live(key: Option<&str>) -> Result<AnyProvider> {
    let mut builder = Vast::builder().environment(|name| std::env::var(name).ok());
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
        ("PUT", path) if path.starts_with("/api/v0/asks/") => Some("spawn_compute"),
        ("GET", "/api/v1/instances/") => Some("list_compute"),
        _ => None,
    }
}

/// Two pages in a row with one token: the walk goes in a circle.
fn repeat_the_token(page: &mut Value) {
    page["next_token"] = Value::from("eyJ2YWx1ZXMiOnsiaWQiOjF9fQ==");
}

/// Several pages, a bid that is refused, and everything beside the contract.
fn more(subject: &CloudSubject) -> BoxFuture<'_, Result<()>> {
    Box::pin(async move {
        let provider = subject.fresh().await?;
        let cx = subject.cx();
        let whole = ComputeRequest::gpu(Gpu::A100_80G)
            .image("x/y:1")
            .command(["serve", "--port", "8000"])
            .region("NO")
            .port(Port::http(8000))
            .port(Port::tcp(22))
            .container_disk(DiskSize::gb(40))
            .env("A", "1")
            .name("every field");
        let made = spawn(&provider, subject, &whole).await?;
        let bid = spawn(&provider, subject, &subject.request().spot(true)).await?;
        tokio::time::sleep(Duration::from_secs(600)).await;
        provider.get_compute(&cx, &made.id).await?;

        let dialect = vast::Vast::new(subject.world());
        let mut quirks = Quirks::unlimited();
        quirks.page_size = 1;
        dialect.set_quirks(quirks);
        let paged = (CLOUD.provider)(
            &subject.world(),
            subject.tapped(Transport::new(dialect)),
            KEY,
            None,
        )?;
        let listing = paged.list_compute(&cx, &ListFilter::all()).await?;
        if !listing.is_complete() || listing.computes.len() != 2 {
            return Err(unexpected(format!(
                "a walk over two pages saw {} instances",
                listing.computes.len()
            )));
        }
        let low = subject
            .request()
            .spot(true)
            .provider_opts(json!({ "price": 0.01 }));
        match spawn(&provider, subject, &low).await {
            Err(error) if error.kind() == atlas_core::ErrorKind::NoCapacity => {}
            other => return Err(unexpected(format!("a bid below the minimum is {other:?}"))),
        }
        subject.send("https://console.vast.ai", &beside()).await?;
        let vast = build(&subject.world(), subject.transport(), KEY, None)?;
        machine(&vast, &cx, &made.id, &bid.id).await?;
        account(&vast, &cx).await?;
        provider.terminate(&cx, &made.id).await
    })
}

fn beside() -> Vec<(&'static str, &'static str, Option<Value>, u16)> {
    vec![
        (
            "PUT",
            "/api/v0/asks/1/",
            Some(json!({ "image": "x/y:1" })),
            404,
        ),
        ("DELETE", "/api/v0/instances/99999999/", None, 404),
        (
            "PUT",
            "/api/v0/instances/bid_price/99999999/",
            Some(json!({ "client_id": "me", "price": 0.2 })),
            404,
        ),
        ("DELETE", "/api/v0/ssh/99999999/", None, 400),
    ]
}

/// One machine that is changed in every way, and one on a bid.
async fn machine(vast: &Vast, cx: &CallContext, id: &ComputeId, bid: &ComputeId) -> Result<()> {
    vast.label(cx, id, "another label").await?;
    vast.reboot(cx, id).await?;
    vast.recycle(cx, id).await?;
    vast.change_bid(cx, bid, UsdPerHour::new(Usd::from_cents(40)))
        .await?;
    if !vast.execute(cx, id, "ls -l").await?.contains("ls -l") {
        return Err(unexpected("a command printed something else"));
    }
    vast.attach_ssh_key(cx, id, "ssh-ed25519 AAAA me").await?;
    for key in vast.instance_ssh_keys(cx, id).await? {
        vast.detach_ssh_key(cx, id, key.id).await?;
        vast.detach_ssh_key(cx, id, key.id).await?;
    }
    let left = vast.instance_ssh_keys(cx, id).await?;
    if left.is_empty() {
        Ok(())
    } else {
        Err(unexpected(format!("{} keys are left", left.len())))
    }
}

/// Keys and a volume: made, read, used, deleted.
async fn account(vast: &Vast, cx: &CallContext) -> Result<()> {
    if !vast.ssh_keys(cx).await?.is_empty() {
        return Err(unexpected("a fresh account has keys"));
    }
    let added = vast.add_ssh_key(cx, "ssh-ed25519 AAAA me").await?;
    if !vast.ssh_keys(cx).await?.contains(&added) {
        return Err(unexpected("an added key is not listed"));
    }
    vast.delete_ssh_key(cx, added.id).await?;
    vast.delete_ssh_key(cx, added.id).await?;

    let provider = AnyProvider::new(vast.clone());
    let offers = vast.volume_offers(cx, None).await?;
    let offer = offers
        .iter()
        .rev()
        .find(|offer| offer.disk_space > 0.0)
        .ok_or_else(|| unexpected("no volume is to let"))?;
    let volume = vast
        .create_volume(cx, offer.id, DiskSize::gb(20), Some("data_1"))
        .await?;
    let mut policy = OfferPolicy::default();
    policy.machine_id = Some(offer.machine_id);
    let there = cx.clone().with_extension(policy);
    let card = ComputeRequest::gpu(atlas_core::GpuChoice::AtLeast(atlas_core::MemorySize::gib(
        1,
    )))
    .image("x/y:1");
    let request = card.provider_opts(
        json!({ "volume_info": { "create_new": false, "volume_id": volume,
            "mount_path": "/data" } }),
    );
    let first = provider
        .candidates(&there, &request)
        .await?
        .into_iter()
        .next();
    let first = first.ok_or_else(|| unexpected("the volume's machine has no offer"))?;
    let made = provider
        .spawn_compute(&there, &LaunchKey::untracked(), &request.at(first))
        .await?;
    if vast.delete_volume(cx, volume).await.is_ok() {
        return Err(unexpected("a mounted volume was deleted"));
    }
    provider.terminate(cx, &made.id).await?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    vast.delete_volume(cx, volume).await?;
    vast.delete_volume(cx, volume).await?;
    let left = vast.volumes(cx).await?;
    if left.is_empty() {
        Ok(())
    } else {
        Err(unexpected(format!("{} volumes are left", left.len())))
    }
}

/// The contract's operations and all the others, each once.
async fn every(transport: Transport) -> Result<Calls> {
    let vast = Vast::builder()
        .api_key(KEY)
        .transport(transport)
        .endpoint_paces(false)
        .build()?;
    let provider = AnyProvider::new(vast.clone());
    let cx = CallContext::new();
    let id = ComputeId::new("883")?;
    let (start, end) = (
        Timestamp::from_unix_seconds(1_767_225_600),
        Timestamp::from_unix_seconds(1_769_903_999),
    );
    // The example says that there is more, at the same place: a walk that never ends is not taken
    // for a sum.
    let spent = provider
        .compute_spend(
            &cx,
            &SpendQuery {
                id: None,
                start,
                end,
            },
        )
        .await;
    let spent = spent.map(drop).or_else(|error| {
        if error.message().contains("leads back") {
            Ok(())
        } else {
            Err(error)
        }
    });
    let logs = provider.logs(&cx, &id, &LogQuery::default()).await;
    Ok(vec![
        ("identity", provider.identity(&cx).await.map(drop)),
        (
            "candidates",
            provider.candidates(&cx, &(CLOUD.request)()).await.map(drop),
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
            "list_gpu_types",
            provider.list_gpu_types(&cx).await.map(drop),
        ),
        ("compute_spend", spent),
        ("label", vast.label(&cx, &id, "x").await),
        ("reboot", vast.reboot(&cx, &id).await),
        ("recycle", vast.recycle(&cx, &id).await),
        (
            "change_bid",
            vast.change_bid(&cx, &id, UsdPerHour::new(Usd::from_cents(20)))
                .await,
        ),
        ("ssh_keys", vast.ssh_keys(&cx).await.map(drop)),
        (
            "add_ssh_key",
            vast.add_ssh_key(&cx, "ssh-ed25519 AAAA me").await.map(drop),
        ),
        ("delete_ssh_key", vast.delete_ssh_key(&cx, 5).await),
        (
            "attach_ssh_key",
            vast.attach_ssh_key(&cx, &id, "ssh-ed25519 AAAA me").await,
        ),
        ("detach_ssh_key", vast.detach_ssh_key(&cx, &id, 5).await),
        (
            "volume_offers",
            vast.volume_offers(&cx, None).await.map(drop),
        ),
        ("volumes", vast.volumes(&cx).await.map(drop)),
        (
            "create_volume",
            vast.create_volume(&cx, 5, DiskSize::gb(20), None)
                .await
                .map(drop),
        ),
        ("delete_volume", vast.delete_volume(&cx, 5).await),
        // What the example's URL holds is another host's, and is not there.
        (
            "logs",
            logs.map(drop).or_else(|error| {
                if error.message().contains("result") {
                    Ok(())
                } else {
                    Err(error)
                }
            }),
        ),
    ])
}
