//! `fly_log_parse`: a page of Fly's log, over a typed serde_json on the same bytes.
//! `fly_log_fanout`: one line to one of 1,000 subscribers, over a bare channel of tokio's with as
//! many receivers.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;

use atlas_fly_ops::{
    AppName, FlyToken, LogClient, LogEvent, LogFilter, LogHub, LogHubOptions, LogPage, Tokens,
};
use atlas_http::{Body, Transport};
use http::{Request, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use crate::Failure;
use crate::measure::{Row, cpu_time, median};

const PAGE: u64 = 100;
const PARSE_ROUNDS: usize = 101;
const PARSES: u32 = 40;

const SUBSCRIBERS: usize = 1000;
/// Fewer lines than a subscriber's buffer holds: none may be dropped.
const PAGES: u64 = 20;
const FANOUT_ROUNDS: usize = 9;
const BASE_NS: u64 = 1_795_219_200_000_000_000;

/// What the documents show of a page, with nothing made of it.
#[derive(Deserialize)]
#[expect(dead_code, reason = "the baseline reads every field and uses none")]
struct Page {
    data: Vec<Element>,
    meta: PageMeta,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "the baseline reads every field and uses none")]
struct PageMeta {
    next_token: String,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "the baseline reads every field and uses none")]
struct Element {
    id: Option<String>,
    attributes: Attributes,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "the baseline reads every field and uses none")]
struct Attributes {
    timestamp: Option<String>,
    message: Option<String>,
    level: Option<String>,
    instance: Option<String>,
    region: Option<String>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "the baseline reads every field and uses none")]
struct Meta {
    instance: Option<String>,
    region: Option<String>,
    event: Option<Event>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "the baseline reads every field and uses none")]
struct Event {
    provider: Option<String>,
}

/// A page as the API writes it, beginning with this line.
fn page(first: u64) -> Vec<u8> {
    let line = |n: u64| {
        let machine = "6e8294c17d5083";
        json!({
            "id": format!("pods-u7f3-{machine}-{}", BASE_NS + n), "type": "log",
            "attributes": {
                "timestamp": format!("2026-11-21T00:{:02}:{:02}.{:09}Z", n / 60_000 % 60,
                    n / 1000 % 60, n % 1000 * 1_000_003),
                "message": format!("{n} GET /v1/sessions/7f3a9c2e/stream/{n}.ts 200 in 12.4 ms, \
                    \"HTTP/2\", 48213 bytes"),
                "level": "info", "instance": machine, "region": "fra",
                "meta": { "instance": machine, "region": "fra", "event": { "provider": "app" } },
            },
        })
    };
    let lines: Vec<_> = (first..first + PAGE).map(line).collect();
    json!({ "data": lines, "meta": { "next_token": (BASE_NS + first + PAGE - 1).to_string() } })
        .to_string()
        .into_bytes()
}

pub(crate) fn parse(name: &'static str) -> Result<Row, Failure> {
    let body = page(0);
    let (ours, bare) = (
        LogPage::parse(&body).ok_or("no page")?,
        serde_json::from_slice::<Page>(&body)?,
    );
    if ours.entries.len() != bare.data.len()
        || ours.entries.iter().any(|entry| entry.timestamp.is_none())
    {
        return Err("the two sides do not read the same".into());
    }
    let (mut value, mut base) = (Vec::new(), Vec::new());
    for round in 0..=PARSE_ROUNDS {
        let both = (
            nanos(|| LogPage::parse(black_box(&body)).is_some()),
            nanos(|| {
                serde_json::from_slice::<Page>(black_box(&body))
                    .is_ok_and(|page| black_box(&page).data.len() == 100)
            }),
        );
        // The first warms up.
        if round > 0 {
            value.push(both.0);
            base.push(both.1);
        }
    }
    Ok(Row {
        name,
        value: median(value),
        unit: "CPU nanoseconds a page of 100 lines",
        baseline: Some(median(base)),
        point_reads: None,
    })
}

fn nanos(work: impl Fn() -> bool) -> f64 {
    let before = cpu_time();
    for _ in 0..PARSES {
        assert!(black_box(work()), "a page is a page");
    }
    cpu_time().saturating_sub(before).as_secs_f64() * 1e9 / f64::from(PARSES)
}

pub(crate) fn fanout(name: &'static str) -> Result<Row, Failure> {
    let pages: Arc<Vec<Vec<u8>>> = Arc::new((0..PAGES).map(|n| page(n * PAGE)).collect());
    let (mut value, mut base) = (Vec::new(), Vec::new());
    for round in 0..=FANOUT_ROUNDS {
        let both = (ours(&pages)?, bare()?);
        if round > 0 {
            value.push(both.0);
            base.push(both.1);
        }
    }
    Ok(Row {
        name,
        value: median(value),
        unit: "CPU nanoseconds a line and subscriber",
        baseline: Some(median(base)),
        point_reads: None,
    })
}

/// Paused time: the waits between pages cost nothing and take nothing.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()?)
}

#[expect(clippy::cast_precision_loss, reason = "a few million")]
fn each(took: std::time::Duration) -> f64 {
    took.as_secs_f64() * 1e9 / (PAGES * PAGE) as f64 / SUBSCRIBERS as f64
}

/// From the API's bytes to every subscriber.
fn ours(pages: &Arc<Vec<Vec<u8>>>) -> Result<f64, Failure> {
    runtime()?.block_on(async {
        let pages = Arc::clone(pages);
        let api = tower::service_fn(move |request: Request<Body>| {
            let asked = request
                .uri()
                .query()
                .and_then(|query| query.strip_prefix("next_token=")?.parse::<u64>().ok());
            // Asked one nanosecond before the last line of a page: the next one. Its last line
            // comes again with it in the real API; here it would only blur what is counted.
            let next = asked.map_or(0, |asked| asked.saturating_sub(BASE_NS).div_ceil(PAGE));
            let body = usize::try_from(next)
                .ok()
                .and_then(|next| pages.get(next))
                .cloned();
            let end = move || {
                json!({ "data": [], "meta": {
                    "next_token": asked.unwrap_or(BASE_NS).to_string() } })
                .to_string()
                .into_bytes()
            };
            async move { Ok::<_, Infallible>(Response::new(Body::from(body.unwrap_or_else(end)))) }
        });
        let tokens = Tokens::builder()
            .config_file(None)
            .cli(None)
            .environment(Some(FlyToken::parse("fo1_x")?))
            .build();
        let hub = LogHub::new(
            LogClient::with_transport(tokens, "https://api.example", Transport::new(api)),
            LogHubOptions::default(),
        );
        let app = AppName::new("shop")?;
        let before = cpu_time();
        let mut readers = JoinSet::new();
        for _ in 0..SUBSCRIBERS {
            let mut lines = hub.subscribe(&app, LogFilter::all(), None);
            readers.spawn(async move {
                let mut got = 0;
                while got < PAGES * PAGE {
                    match lines.next().await {
                        Some(LogEvent::Entry(_)) => got += 1,
                        other => return Err(format!("{other:?} after {got} lines")),
                    }
                }
                Ok(())
            });
        }
        while let Some(reader) = readers.join_next().await {
            reader??;
        }
        Ok(each(cpu_time().saturating_sub(before)))
    })
}

/// The same lines, ready made, through a channel.
fn bare() -> Result<f64, Failure> {
    runtime()?.block_on(async {
        let (send, first) = broadcast::channel::<Arc<String>>(4096);
        drop(first);
        let before = cpu_time();
        let mut readers = JoinSet::new();
        for _ in 0..SUBSCRIBERS {
            let mut lines = send.subscribe();
            readers.spawn(async move {
                for _ in 0..PAGES * PAGE {
                    black_box(lines.recv().await.map_err(|error| error.to_string())?);
                }
                Ok::<_, String>(())
            });
        }
        for n in 0..PAGES * PAGE {
            send.send(Arc::new(n.to_string()))?;
            // As with the hub, a page at a time.
            if n % PAGE == PAGE - 1 {
                tokio::task::yield_now().await;
            }
        }
        while let Some(reader) = readers.join_next().await {
            reader??;
        }
        Ok(each(cpu_time().saturating_sub(before)))
    })
}
