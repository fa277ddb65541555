//! `atlas gpus`: one price list over every cloud there is a key for; a cloud that cannot be read is
//! on it as failed.

use std::cmp::Ordering;
use std::time::Duration;

use atlas::{
    AccountName, CallContext, Clock, GpuType, SystemClock, Timestamp, Usd, UsdPerHour, span,
};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::failure::{Done, Failure};
use crate::output::{self, Output, Page};
use crate::setup::Setup;
use crate::view;

const HEADS: [&str; 11] = [
    "GPU",
    "MEMORY",
    "CLOUD",
    "ACCOUNT",
    "REGION",
    "PRICE",
    "SPOT",
    "STOCK",
    "AGE",
    "TIER",
    "CLOUD'S NAME",
];

/// `atlas gpus`.
#[derive(Debug, Default, Args)]
pub(crate) struct GpusArgs {
    /// Sort key; lines without that figure come last
    #[arg(long, value_enum, value_name = "KEY", default_value_t)]
    sort: Sort,
    /// List only GPUs whose canonical name or cloud's name contains this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// List only GPUs at this many dollars an hour or less, on demand or spot
    #[arg(long, value_name = "USD")]
    max_price: Option<Usd>,
}

/// The order of the lines. Equal lines are in the order of price, account and the cloud's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Cheapest on demand first
    #[default]
    Price,
    /// Cheapest spot price first
    Spot,
    /// Canonical name
    Name,
    /// Most memory first
    Vram,
    /// Account
    Cloud,
    /// Best stock first
    Stock,
}

/// A line of an account's list.
type Line = (AccountName, GpuType);

pub(crate) async fn run(args: GpusArgs, setup: &Setup, out: Output) -> Done {
    let accounts = setup.accounts();
    if accounts.is_empty() {
        let clouds = atlas::built_in_clouds().iter();
        let keys: Vec<&str> = clouds
            .filter_map(|cloud| cloud.key_variables.first().copied())
            .collect();
        return Err(Failure::usage(format!(
            "no cloud has a key; set one of {}",
            keys.join(", ")
        )));
    }
    let mut reading = JoinSet::new();
    for (account, provider) in accounts {
        reading.spawn(async move {
            tracing::debug!(%account, "reading the price list");
            let read = match provider {
                Ok(provider) => provider
                    .list_gpu_types(&CallContext::new())
                    .await
                    .map_err(Failure::from),
                Err(failure) => Err(failure),
            };
            (account, read)
        });
    }
    let (mut lines, mut failed, mut answered) = (Vec::new(), Vec::new(), 0_u32);
    let mut unpriced = 0_usize;
    for (account, read) in reading.join_all().await {
        match read {
            Ok(offers) => {
                answered += 1;
                if offers.is_empty() {
                    out.progress(format!("atlas: {account} offers no GPUs"));
                }
                unpriced += offers
                    .iter()
                    .filter(|offer| args.leaves_out_unpriced(offer))
                    .count();
                lines.extend(
                    offers
                        .into_iter()
                        .filter(|offer| args.wants(offer))
                        .map(|offer| (account.clone(), offer)),
                );
            }
            Err(failure) => failed.push((account, failure)),
        }
    }
    lines.sort_by(|one, other| args.sort.order(one, other));
    failed.sort_by(|(one, _), (other, _)| one.cmp(other));
    let now = SystemClock.now();
    let good = lines.iter().map(|line| document(line, now));
    let bad = failed.iter().map(|(account, why)| {
        json!({ "account": account, "failed": why.kind(),
        "error": why.to_string() })
    });
    out.answer(&good.chain(bad).collect::<Value>(), || {
        table(&lines, &failed, now)
    })?;
    if unpriced > 0 {
        out.progress(format!(
            "atlas: {unpriced} GPUs without a known price are left out by --max-price"
        ));
    }
    for (account, why) in &failed {
        out.warn(format!(
            "atlas: the list is incomplete, no price list from {account}: {why}"
        ));
    }
    if answered == 0 {
        Err(Failure::silent(crate::failure::FAILED))
    } else {
        Ok(())
    }
}

impl GpusArgs {
    /// Whether the offer is left out for no other reason than that its price is not known.
    fn leaves_out_unpriced(&self, offer: &GpuType) -> bool {
        self.max_price.is_some()
            && offer.price.is_none()
            && offer.spot_price.is_none()
            && self.is_named(offer)
    }

    fn is_named(&self, offer: &GpuType) -> bool {
        self.filter.as_ref().is_none_or(|wanted| {
            let canonical = offer.gpu.map(|gpu| gpu.to_string()).unwrap_or_default();
            [&canonical, &offer.native_id, &offer.display_name]
                .iter()
                .any(|name| plain(name).contains(&plain(wanted)))
        })
    }

    fn wants(&self, offer: &GpuType) -> bool {
        let cheap = |most: &Usd| {
            [offer.price, offer.spot_price]
                .into_iter()
                .flatten()
                .any(|price| price.per_hour() <= *most)
        };
        self.is_named(offer) && self.max_price.as_ref().is_none_or(cheap)
    }
}

/// A name as it is compared: `RTX 4090`, `rtx_4090` and `rtx-4090` are one.
fn plain(name: &str) -> String {
    name.to_lowercase().replace([' ', '-'], "_")
}

impl Sort {
    fn order(self, one: &Line, other: &Line) -> Ordering {
        let ((a, x), (b, y)) = (one, other);
        let first = match self {
            Self::Price => Ordering::Equal,
            Self::Spot => dearest_last(x.spot_price, y.spot_price),
            Self::Name => x
                .gpu
                .is_none()
                .cmp(&y.gpu.is_none())
                .then_with(|| name(x).cmp(&name(y))),
            Self::Vram => y.vram.cmp(&x.vram),
            Self::Cloud => a.cmp(b),
            // `None` is less than any stock: what nobody said comes last.
            Self::Stock => y.stock.cmp(&x.stock),
        };
        let rest = || {
            (a, &x.native_id, x.cloud_type, &x.region).cmp(&(
                b,
                &y.native_id,
                y.cloud_type,
                &y.region,
            ))
        };
        first
            .then_with(|| dearest_last(x.price, y.price))
            .then_with(rest)
    }
}

/// The cheaper one first, and one without a price last.
fn dearest_last(one: Option<UsdPerHour>, other: Option<UsdPerHour>) -> Ordering {
    one.is_none().cmp(&other.is_none()).then(one.cmp(&other))
}

/// The canonical name, else the cloud's.
fn name(offer: &GpuType) -> String {
    offer
        .gpu
        .map_or_else(|| offer.display_name.clone(), |gpu| gpu.to_string())
}

/// A line as a document.
#[derive(Debug, Serialize)]
struct Document<'a> {
    account: &'a AccountName,
    age_ms: u64,
    #[serde(flatten)]
    offer: &'a GpuType,
}

fn document((account, offer): &Line, now: Timestamp) -> Value {
    json!(Document {
        account,
        age_ms: u64::try_from(now.since(offer.observed_at).as_millis()).unwrap_or(u64::MAX),
        offer,
    })
}

fn table(lines: &[Line], failed: &[(AccountName, Failure)], now: Timestamp) -> Page {
    let dash = || "-".to_owned();
    let rows = lines.iter().map(|(account, offer)| {
        vec![
            offer.gpu.map_or_else(dash, |gpu| gpu.to_string()),
            offer.vram.to_string(),
            offer.provider.to_string(),
            account.to_string(),
            offer.region.clone().unwrap_or_else(dash),
            offer.price.map_or_else(dash, |price| format!("${price}")),
            offer
                .spot_price
                .map_or_else(dash, |price| format!("${price}")),
            offer.stock.map_or_else(dash, |stock| view::plain(&stock)),
            span::show(Duration::from_secs(now.since(offer.observed_at).as_secs())),
            offer
                .cloud_type
                .map_or_else(dash, |tier| view::plain(&tier)),
            offer.native_id.clone(),
        ]
    });
    let broken = failed.iter().map(|(account, why)| {
        let mut row = vec![format!("failed: {}", why.kind())];
        row.resize_with(HEADS.len(), dash);
        row[3] = account.to_string();
        row
    });
    output::table(&HEADS, rows.chain(broken))
}

#[cfg(test)]
mod tests {
    use atlas::{Gpu, MemorySize, ProviderId, Stock};

    use super::*;

    fn line(native: &str, gpu: Option<Gpu>, price: Option<i64>, spot: Option<i64>) -> Line {
        let (provider, at) = (ProviderId::new("acme").unwrap(), SystemClock.now());
        let mut offer = GpuType::new(provider, native, MemorySize::gib(80), at);
        let cents = |cents: i64| UsdPerHour::new(Usd::from_cents(cents));
        (offer.gpu, offer.price, offer.spot_price) = (gpu, price.map(cents), spot.map(cents));
        (AccountName::new("acme").unwrap(), offer)
    }

    #[test]
    fn a_line_without_the_figure_that_is_sorted_by_comes_last() {
        let mut lines = [
            line("a", None, None, None),
            line("b", Some(Gpu::H100), Some(300), Some(90)),
            line("c", None, Some(100), None),
            line("d", Some(Gpu::A100_80GPcie), Some(200), Some(150)),
        ];
        lines[2].1.stock = Some(Stock::Low);
        lines[3].1.vram = MemorySize::gib(141);
        let mut sorted = |sort: Sort| {
            lines.sort_by(|one, other| sort.order(one, other));
            lines
                .iter()
                .map(|(_, offer)| offer.native_id.as_str())
                .collect::<String>()
        };
        assert_eq!(
            (sorted(Sort::Price), sorted(Sort::Spot), sorted(Sort::Name)),
            ("cdba".into(), "bdca".into(), "dbac".into())
        );
        assert_eq!(
            (sorted(Sort::Vram), sorted(Sort::Cloud), sorted(Sort::Stock)),
            ("dcba".into(), "cdba".into(), "cdba".into())
        );
    }

    #[test]
    fn a_filter_reads_every_name_and_both_prices() {
        let (_, offer) = line("NVIDIA GeForce RTX 4090", None, Some(69), Some(34));
        let wants = |filter: Option<&str>, most: Option<i64>| {
            let args = GpusArgs {
                filter: filter.map(str::to_owned),
                max_price: most.map(Usd::from_cents),
                ..Default::default()
            };
            args.wants(&offer)
        };
        assert!(
            wants(None, None) && wants(Some("rtx_4090"), None) && wants(Some("RTX-4090"), Some(34))
        );
        assert!(
            !wants(Some("rtx_3090"), None)
                && !wants(None, Some(33))
                && !wants(Some("h100"), Some(100))
        );
    }
}
