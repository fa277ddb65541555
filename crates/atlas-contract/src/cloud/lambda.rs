//! Lambda Cloud under test.

use std::sync::Arc;
use std::time::Duration;

use atlas::lambda::{AuditQuery, FirewallRule, Lambda};
use atlas_core::{
    AnyProvider, CallContext, ComputeId, ComputeRequest, DiskSize, Gpu, LaunchKey, ListFilter,
    Port, Result, VolumeId, VolumeRequest,
};
use atlas_http::{Pace, Transport};
use atlas_sim::Ready;
use atlas_testkit::conformance::{BoxFuture, Subject};
use atlas_testkit::dialect::lambda::{self, Quirks};
use atlas_testkit::world::{World, WorldClock};
use serde_json::{Value, json};

use super::{Calls, Cloud, CloudSubject, KEY, spawn, unexpected, unhurried};
use crate::openapi::Exchange;
use crate::tap::{Broken, Reading};

/// A rule set of the document's examples.
const RULESET: &str = "c4d291f47f9d436fa39f58493ce3b50d";

/// What is compared with Lambda's document.
pub const CLOUD: Cloud = Cloud {
    name: lambda::NAME,
    document: "lambda-cloud-v1.openapi.json",
    hosts: &["cloud.lambda.ai"],
    world,
    dialect: |world| {
        Transport::new(lambda::Lambda::new(world.clone()).with_quirks(Quirks::unlimited()))
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

fn provider(
    world: &World,
    transport: Transport,
    key: &str,
    served: Option<&Ready>,
) -> Result<AnyProvider> {
    build(world, transport, key, served).map(AnyProvider::new)
}

fn build(world: &World, transport: Transport, key: &str, served: Option<&Ready>) -> Result<Lambda> {
    let mut builder = Lambda::builder()
        .api_key(key)
        .transport(transport)
        .limits(unhurried())
        .launch_pace(Pace::every(Duration::from_millis(1)))
        .clock(Arc::new(world.clock().clone()));
    if let Some(ready) = served {
        builder = builder.base_url(ready.base_url(lambda::NAME));
    }
    builder.build()
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
    let path = exchange
        .path_and_query
        .split('?')
        .next()
        .unwrap_or_default();
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
        let made = spawn(
            &provider,
            subject,
            &whole.provider_opts(json!({ "image": { "family": "lambda-stack-24-04" } })),
        )
        .await?;
        tokio::time::sleep(Duration::from_secs(600)).await;
        provider.get_compute(&cx, &made.id).await?;

        let dialect = lambda::Lambda::new(subject.world());
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
                "a walk over two pages saw {} instances",
                listing.computes.len()
            )));
        }

        provider.terminate(&cx, &made.id).await?;
        subject.send("https://cloud.lambda.ai", &beside()).await?;
        let lambda = build(&subject.world(), subject.transport(), KEY, None)?;
        machine(&lambda, subject).await?;
        account(&lambda, &cx).await
    })
}

fn beside() -> Vec<(&'static str, &'static str, Option<Value>, u16)> {
    let launch = json!({ "region_name": "us-east-1", "instance_type_name": "gpu_1x_a10",
        "ssh_key_names": ["nobody's"] });
    vec![
        ("GET", "/api/v1/firewall-rulesets/nothing", None, 404),
        ("DELETE", "/api/v1/firewall-rulesets/nothing", None, 404),
        ("DELETE", "/api/v1/filesystems/nothing", None, 404),
        ("DELETE", "/api/v1/ssh-keys/nothing", None, 404),
        ("GET", "/api/v1/instances/nothing", None, 404),
        (
            "POST",
            "/api/v1/instance-operations/launch",
            Some(launch),
            400,
        ),
    ]
}

/// A machine that is renamed and rebooted, and is in the audit trail.
async fn machine(lambda: &Lambda, subject: &CloudSubject) -> Result<()> {
    let cx = subject.cx();
    let made = spawn(
        &AnyProvider::new(lambda.clone()),
        subject,
        &subject.request(),
    )
    .await?;
    tokio::time::sleep(Duration::from_secs(600)).await;
    lambda.rename(&cx, &made.id, "another name").await?;
    lambda.restart(&cx, &made.id).await?;
    let mut query = AuditQuery::default();
    (query.start, query.end) = (made.created_at, Some(subject.world().now()));
    query.resource_type = Some("cloud.instance".to_owned());
    let events = lambda.audit_events(&cx, &query).await?;
    if !events
        .iter()
        .any(|event| event.additional_details["instance_lrn"] == made.id.as_str())
    {
        return Err(unexpected(format!(
            "a launch is not in the audit trail of {} events",
            events.len()
        )));
    }
    Ok(())
}

/// Everything of the account that is no machine: made, read, changed, deleted.
async fn account(lambda: &Lambda, cx: &CallContext) -> Result<()> {
    let (generated, _private) = lambda.generate_ssh_key(cx, "generated").await?;
    let added = lambda
        .add_ssh_key(cx, "added", "ssh-ed25519 AAAA me")
        .await?;
    for key in [generated, added] {
        if !lambda.ssh_keys(cx).await?.contains(&key) {
            return Err(unexpected(format!("the key {} is not listed", key.name)));
        }
        lambda.delete_ssh_key(cx, &key.id).await?;
        lambda.delete_ssh_key(cx, &key.id).await?;
    }
    lambda.images(cx).await?;
    let region = lambda.regions(cx).await?.remove(0).name;
    let mut rules = lambda.firewall_rules(cx).await?;
    rules.push(FirewallRule::tcp(8000..=8010, "ours").from("203.0.113.0/24"));
    if lambda.set_firewall_rules(cx, &rules).await? != rules {
        return Err(unexpected("the account's rules are not what was put"));
    }
    lambda
        .update_firewall_ruleset(cx, "global", None, Some(&rules))
        .await?;
    lambda.firewall_ruleset(cx, "global").await?;
    let made = lambda
        .create_firewall_ruleset(cx, "ours", &region, &rules)
        .await?;
    lambda
        .update_firewall_ruleset(cx, &made.id, Some("renamed"), None)
        .await?;
    let read = lambda.firewall_ruleset(cx, &made.id).await?;
    if read.name != "renamed"
        || read.rules != rules
        || !lambda.firewall_rulesets(cx).await?.contains(&read)
    {
        return Err(unexpected(format!("a changed rule set is {read:?}")));
    }
    lambda.delete_firewall_ruleset(cx, &made.id).await?;
    lambda.file_systems(cx).await.map(drop)
}

/// The contract's operations and all the others, each once.
async fn every(transport: Transport) -> Result<Calls> {
    let lambda = Lambda::builder()
        .api_key(KEY)
        .ssh_key("macbook-pro")
        .transport(transport)
        .build()?;
    let provider = AnyProvider::new(lambda.clone());
    let cx = CallContext::new();
    let id = ComputeId::new("0920582c7ff041399e34823a0be62549")?;
    let volumes = provider
        .network_volumes()
        .ok_or_else(|| unexpected("no network volumes"))?;
    let volume = VolumeRequest {
        name: "data".to_owned(),
        size: DiskSize::gb(20),
        region: "us-east-1".to_owned(),
    };
    let volume_id = VolumeId::new("398578a2336b49079e74043f0bd2cfe8")?;
    let rules = [FirewallRule::tcp(22..=22, "ssh")];
    Ok(vec![
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
        ("restart", lambda.restart(&cx, &id).await),
        (
            "list_gpu_types",
            provider.list_gpu_types(&cx).await.map(drop),
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
            volumes.delete_network_volume(&cx, &volume_id).await,
        ),
        ("rename", lambda.rename(&cx, &id, "x").await),
        ("ssh_keys", lambda.ssh_keys(&cx).await.map(drop)),
        (
            "add_ssh_key",
            lambda
                .add_ssh_key(&cx, "x", "ssh-ed25519 AAAA me")
                .await
                .map(drop),
        ),
        (
            "delete_ssh_key",
            lambda
                .delete_ssh_key(&cx, "ddf9a910ceb744a0bb95242cbba6cb50")
                .await,
        ),
        ("images", lambda.images(&cx).await.map(drop)),
        ("regions", lambda.regions(&cx).await.map(drop)),
        ("firewall_rules", lambda.firewall_rules(&cx).await.map(drop)),
        (
            "set_firewall_rules",
            lambda.set_firewall_rules(&cx, &rules).await.map(drop),
        ),
        (
            "firewall_rulesets",
            lambda.firewall_rulesets(&cx).await.map(drop),
        ),
        (
            "firewall_ruleset",
            lambda.firewall_ruleset(&cx, RULESET).await.map(drop),
        ),
        (
            "create_firewall_ruleset",
            lambda
                .create_firewall_ruleset(&cx, "x", "us-west-1", &rules)
                .await
                .map(drop),
        ),
        (
            "update_firewall_ruleset",
            lambda
                .update_firewall_ruleset(&cx, RULESET, Some("y"), Some(&rules))
                .await
                .map(drop),
        ),
        (
            "delete_firewall_ruleset",
            lambda.delete_firewall_ruleset(&cx, RULESET).await,
        ),
        (
            "the global ruleset",
            lambda.firewall_ruleset(&cx, "global").await.map(drop),
        ),
        ("file_systems", lambda.file_systems(&cx).await.map(drop)),
    ])
}
