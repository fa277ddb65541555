//! The search over asks: filters with operators, defaults, order, a cap. Facts:
//! docs/clouds/vast.md.

use std::cmp::Ordering;

use atlas_core::{Timestamp, Usd};
use http::Response;
use serde_json::{Map, Value, json};

use super::envelope::{Failure, ok};
use super::stock::{self, Ask, NAME, STORAGE_NANOS, WHOLE};
use super::{Call, Vast};
use crate::dialect::SimBody;

/// The most offers of one answer.
const MOST: usize = 64;
const OPERATORS: &[&str] = &["eq", "neq", "gt", "gte", "lt", "lte", "in", "notin"];
/// What of a search is no filter.
const PLAIN: &[&str] = &[
    "type",
    "order",
    "limit",
    "allocated_storage",
    "disable_bundling",
    "select_cols",
];

/// Dollars as the wire has them.
pub(super) fn dollars(amount: Usd) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "prices are far below 2^53 nano-dollars"
    )]
    let nanos = amount.nanos() as f64;
    nanos / 1e9
}

impl Vast {
    /// POST /bundles/: the filters stand at the top.
    pub(super) fn bundles(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        // A wrapped search is answered, and finds nothing: what it says of filters is not looked
        // at.
        if body.get("q").is_some_and(Value::is_object) {
            return Ok(ok(&json!({ "offers": [] })));
        }
        Ok(ok(&json!({ "offers": self.search(call, &body)? })))
    }

    /// GET /bundles/ with the filters in `q`.
    pub(super) fn bundles_by_query(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let query = call.query.get("q").unwrap_or("{}");
        let filters =
            serde_json::from_str(query).map_err(|_| Failure::invalid("q: is not JSON").bare())?;
        Ok(ok(&json!({ "offers": self.search(call, &filters)? })))
    }

    /// PUT /search/asks/ with the filters in `q`. Its rows have the offer's share of the memory,
    /// where those of `bundles` have the machine's (docs/clouds/vast.md, "Offers").
    pub(super) fn search_asks(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let mut offers = self.search(call, &call.json()?["q"])?;
        for offer in &mut offers {
            let share = offer["cpu_ram"].as_f64().zip(offer["gpu_frac"].as_f64());
            offer["cpu_ram"] = share.map_or(Value::Null, |(ram, share)| (ram * share).into());
        }
        Ok(ok(&json!({ "success": true, "offers": offers })))
    }

    /// A search, as far as the account has rows left of its day.
    pub(super) fn search(&self, call: &Call<'_>, search: &Value) -> Result<Vec<Value>, Failure> {
        let now = self.world.clock().on_the_wire(self.world.now());
        let account = call.account.as_str();
        let shared = self.shared();
        if let Some(quota) = shared.quirks.search_rows_a_day {
            shared
                .limiter
                .has_rows(quota, account, now)
                .map_err(|(wait, at)| Failure::no_rows_left(wait, at))?;
        }
        drop(shared);
        let found = self.found(search)?;
        self.shared().limiter.gave_rows(account, found.len(), now);
        Ok(found)
    }

    fn found(&self, search: &Value) -> Result<Vec<Value>, Failure> {
        let empty = Map::new();
        let search = search.as_object().unwrap_or(&empty);
        let bid = match search
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or("on-demand")
        {
            "on-demand" | "ondemand" | "reserved" => false,
            "bid" | "interruptible" => true,
            other => {
                return Err(Failure::new(
                    400,
                    "invalid_request",
                    format!("type: {other} is no type of offer"),
                )
                .bare());
            }
        };
        let storage = search
            .get("allocated_storage")
            .and_then(Value::as_f64)
            .unwrap_or(8.0);
        let mut filters: Vec<(String, Value)> =
            [("verified", true), ("rentable", true), ("rented", false)]
                .into_iter()
                .filter(|(name, _)| !search.contains_key(*name))
                .map(|(name, value)| (name.to_owned(), json!({ "eq": value })))
                .collect();
        for (name, value) in search
            .iter()
            .filter(|(name, _)| !PLAIN.contains(&name.as_str()))
        {
            let known = value
                .as_object()
                .is_some_and(|given| given.keys().all(|op| OPERATORS.contains(&op.as_str())));
            if !known {
                let msg = format!("error 400: {name}: Input should be a valid dictionary");
                return Err(Failure::new(400, "invalid_request", msg).bare());
            }
            filters.push((name.clone(), value.clone()));
        }
        let ignored = self.shared().quirks.ignores_filter.clone();
        filters.retain(|(name, _)| Some(name.as_str()) != ignored.as_deref());
        let now = self.world.now();
        let mut found: Vec<Value> = stock::asks()
            .iter()
            .filter(|ask| self.shown_rentable(ask, now))
            .map(|ask| self.offer(ask, bid, storage))
            .filter(|offer| {
                filters
                    .iter()
                    .all(|(name, wanted)| passes(offer, name, wanted))
            })
            .collect();
        let order: Vec<(String, bool)> = search
            .get("order")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(order)
            .collect();
        found.sort_by(|a, b| {
            let by = order.iter().map(|(field, desc)| {
                let ordering =
                    compare(&a[field.as_str()], &b[field.as_str()]).unwrap_or(Ordering::Equal);
                if *desc { ordering.reverse() } else { ordering }
            });
            by.fold(Ordering::Equal, Ordering::then)
        });
        let limit = search
            .get("limit")
            .and_then(Value::as_u64)
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(MOST);
        found.truncate(limit.min(MOST));
        Ok(found)
    }

    /// Whether a search still shows an ask: one that was rented is shown for a while.
    fn shown_rentable(&self, ask: &Ask, now: Timestamp) -> bool {
        self.rentable(ask) || {
            let shared = self.shared();
            let rented = shared.rented.get(&ask.id).copied();
            rented.is_some_and(|rented| now.since(rented) < shared.quirks.search_lag)
        }
    }

    /// Whether no instance uses it.
    pub(super) fn rentable(&self, ask: &Ask) -> bool {
        self.world
            .stock(NAME, &ask.id.to_string(), "")
            .get(ask.place.0)
            .is_some_and(|free| *free >= WHOLE)
    }

    fn offer(&self, ask: &Ask, bid: bool, storage: f64) -> Value {
        let storage_total = storage * dollars(Usd::from_nanos(STORAGE_NANOS));
        let base = dollars(if bid { ask.min_bid } else { ask.price }.per_hour());
        let wire = self
            .world
            .clock()
            .on_the_wire(self.world.now())
            .unix_seconds();
        let mut shown = json!({
            "id": ask.id, "ask_contract_id": ask.id, "machine_id": ask.machine,
                "host_id": ask.host, "bundle_id": 900_000 + ask.id % 1000,
            "gpu_name": ask.gpu_name, "num_gpus": ask.num_gpus, "gpu_ram": ask.gpu_ram,
                "gpu_total_ram": ask.gpu_ram * ask.num_gpus,
            "gpu_frac": f64::from(ask.num_gpus) / f64::from(ask.of), "gpu_arch": "nvidia",
            "dph_base": base, "dph_total": base + storage_total,
                "min_bid": dollars(ask.min_bid.per_hour()),
            "storage_cost": 0.2, "storage_total_cost": storage_total,
            "search": { "gpuCostPerHour": base, "diskHour": storage_total,
                "totalHour": base + storage_total,
                "discountTotalHour": 0, "discountedTotalPerHour": base + storage_total },
            "reliability": ask.reliability, "reliability2": ask.reliability,
            "verification": if ask.verified { "verified" } else { "unverified" },
            "rentable": true, "rented": false, "is_bid": bid, "external": false,
        });
        let more = json!({
            "direct_port_count": ask.ports, "direct_port_start": 40_000, "direct_port_end": 40_199,
                "static_ip": true,
            "public_ipaddr": "203.0.113.9", "inet_down": ask.inet_down, "inet_up": 611.0,
                "inet_down_cost": 0.002, "inet_up_cost": 0.003,
            "cuda_max_good": ask.cuda, "driver_version": "570.124.06", "compute_cap": 890,
            "cpu_cores": ask.cpu_cores, "cpu_cores_effective": f64::from(ask.num_gpus) * 16.0,
                "cpu_ram": 257_654,
            "cpu_arch": if ask.arm64 { "arm64" } else { "amd64" }, "cpu_name": "AMD EPYC",
                "disk_space": 311.4, "disk_name": "nvme", "disk_bw": 2800.0,
            "geolocation": ask.place.1, "geolocode": 0, "hosting_type": u32::from(ask.datacenter),
                "datacenter": ask.datacenter,
            "end_date": wire + 5_184_000, "duration": 5_184_000.0, "vms_enabled": false,
                "score": 100.0 / base,
        });
        if let (Some(shown), Value::Object(more)) = (shown.as_object_mut(), more) {
            shown.extend(more);
        }
        shown
    }
}

fn order(given: &Value) -> Option<(String, bool)> {
    Some((
        given[0].as_str()?.to_owned(),
        given[1].as_str() == Some("desc"),
    ))
}

/// Whether a row passes one filter. A filter on `id` matches nothing; on a field that no row has,
/// everything.
pub(super) fn passes(row: &Value, name: &str, wanted: &Value) -> bool {
    let code = || {
        Value::from(
            row["geolocation"]
                .as_str()
                .and_then(|place| place.rsplit(' ').next())
                .unwrap_or_default(),
        )
    };
    let value = match name {
        "id" => return false,
        "verified" => Value::from(row["verification"] == "verified"),
        "geolocation" => code(),
        name => match row.get(name) {
            Some(value) => value.clone(),
            None => return true,
        },
    };
    fits(&value, wanted)
}

/// Whether a value fits every operator.
pub(super) fn fits(value: &Value, wanted: &Value) -> bool {
    wanted
        .as_object()
        .into_iter()
        .flatten()
        .all(|(operator, wanted)| {
            let among = || {
                wanted.as_array().is_some_and(|all| {
                    all.iter()
                        .any(|one| compare(value, one) == Some(Ordering::Equal))
                })
            };
            let ordering = compare(value, wanted);
            match operator.as_str() {
                "eq" => ordering == Some(Ordering::Equal),
                "neq" => ordering != Some(Ordering::Equal),
                "gt" => ordering == Some(Ordering::Greater),
                "gte" => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
                "lt" => ordering == Some(Ordering::Less),
                "lte" => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
                "in" => among(),
                "notin" => !among(),
                _ => false,
            }
        })
}

/// The official client writes numbers as texts, and the cloud takes them.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => number(a)?.partial_cmp(&number(b)?),
    }
}
