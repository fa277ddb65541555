//! Which offers are acceptable, and the search that finds them.

use std::collections::BTreeSet;
use std::time::Duration;

use atlas_core::{CloudType, ComputeRequest, GpuChoice, UsdPerHour};
use serde_json::{Map, Value, json};

use crate::catalogue;
use crate::place;

/// The maximum number of rows of one search.
const MOST_ROWS: u32 = 64;
/// The rows of a search for a placement: as many as several concurrent placements can use before
/// the next search. An account has a maximum number of rows per day.
const ROWS: u32 = 32;

/// Requirements for an offer beyond the request. The cheapest hosts are often bad; these minimum
/// values are those that public projects that rent there use. Set one on the builder, or for one
/// call with [`CallContext::with_extension`](atlas_core::CallContext::with_extension).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OfferPolicy {
    /// The minimum share of time for which the host was up, 0 to 1.
    pub min_reliability: f64,
    /// Only hosts that Vast verified.
    pub verified: bool,
    /// The minimum download speed in Mbps: images are large.
    pub min_inet_down_mbps: u32,
    /// The minimum time for which the host continues to rent out.
    pub min_duration: Duration,
    /// The maximum price of a machine, including its disk.
    pub max_price: Option<UsdPerHour>,
    /// How far a bid is above the minimum, in per cent of the minimum.
    pub bid_over_minimum_percent: u32,
    /// Only on this machine, such as the one with a volume.
    pub machine_id: Option<u64>,
    /// Never on these machines.
    pub avoid_machines: BTreeSet<u64>,
}

impl Default for OfferPolicy {
    fn default() -> Self {
        Self {
            min_reliability: 0.97,
            verified: true,
            min_inet_down_mbps: 500,
            min_duration: Duration::from_secs(24 * 3600),
            max_price: None,
            bid_over_minimum_percent: 5,
            machine_id: None,
            avoid_machines: BTreeSet::new(),
        }
    }
}

/// Dollars as Vast's API has them.
pub(crate) fn dollars(price: UsdPerHour) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "prices are far below 2^53 nano-dollars"
    )]
    let nanos = price.per_hour().nanos() as f64;
    nanos / 1e9
}

/// The filters of a search, each with its operator, because a bare value is refused.
#[derive(Debug, Default)]
pub(crate) struct Search(Map<String, Value>);

impl Search {
    /// On-demand or interruptible offers, priced with this much disk, the cheapest first.
    pub(crate) fn new(spot: bool, disk_gb: u32) -> Self {
        let mut search = Self::default();
        search.0.insert(
            "type".to_owned(),
            Value::from(if spot { "bid" } else { "ondemand" }),
        );
        search
            .0
            .insert("allocated_storage".to_owned(), Value::from(disk_gb));
        search.0.insert(
            "order".to_owned(),
            json!([["dph_total", "asc"], ["reliability", "desc"]]),
        );
        search.0.insert("limit".to_owned(), Value::from(MOST_ROWS));
        search
            .is("rentable", true)
            .is("rented", false)
            .at_least("disk_space", f64::from(disk_gb))
    }

    /// Limits the number of rows: each counts against the account's daily quota.
    fn rows(mut self, most: u32) -> Self {
        self.0.insert("limit".to_owned(), Value::from(most));
        self
    }

    pub(crate) fn is(self, field: &str, value: impl Into<Value>) -> Self {
        self.with(field, "eq", value)
    }

    pub(crate) fn among<'a>(self, field: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        let values: Vec<&str> = values.into_iter().collect();
        self.with(field, "in", values)
    }

    pub(crate) fn at_least(self, field: &str, value: f64) -> Self {
        self.with(field, "gte", value)
    }

    pub(crate) fn at_most(self, field: &str, value: f64) -> Self {
        self.with(field, "lte", value)
    }

    fn with(mut self, field: &str, operator: &str, value: impl Into<Value>) -> Self {
        let filter = self.0.entry(field).or_insert_with(|| json!({}));
        if let Some(filter) = filter.as_object_mut() {
            filter.insert(operator.to_owned(), value.into());
        }
        self
    }

    pub(crate) fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// The search for a request. Its conditions are checked again for every offer, because filters
    /// are not always applied.
    pub(crate) fn of(request: &ComputeRequest, policy: &OfferPolicy, disk_gb: u32) -> Self {
        let mut search = Self::new(request.spot, disk_gb)
            .rows(ROWS)
            .with("num_gpus", "in", vec![request.gpu_count])
            .at_least("reliability", policy.min_reliability)
            .at_least("inet_down", f64::from(policy.min_inet_down_mbps))
            .at_least("duration", policy.min_duration.as_secs_f64());
        search = match &request.gpu {
            Some(GpuChoice::Named(gpu)) => {
                let names = catalogue::names(*gpu);
                let least = names.iter().map(|named| named.ram.start).min().unwrap_or(0);
                let most = names
                    .iter()
                    .map(|named| named.ram.end)
                    .max()
                    .unwrap_or(u32::MAX);
                let cuda = names
                    .iter()
                    .filter_map(|named| catalogue::cuda(named.gpu))
                    .reduce(f64::min);
                let mut found = search
                    .among(
                        "gpu_name",
                        names
                            .iter()
                            .map(|named| named.name)
                            .collect::<BTreeSet<_>>(),
                    )
                    .at_least("gpu_ram", f64::from(least))
                    .is("cpu_arch", catalogue::cpu_arch(Some(*gpu)));
                if most != u32::MAX {
                    found = found.at_most("gpu_ram", f64::from(most));
                }
                match cuda.filter(|_| {
                    names
                        .iter()
                        .all(|named| catalogue::cuda(named.gpu).is_some())
                }) {
                    Some(cuda) => found.at_least("cuda_max_good", cuda),
                    None => found,
                }
            }
            Some(GpuChoice::AtLeast(vram)) => search
                .at_least("gpu_ram", f64::from(catalogue::reported(*vram)))
                .is("cpu_arch", catalogue::cpu_arch(None)),
            Some(GpuChoice::Native(name)) => search.among("gpu_name", [name.as_str()]),
            _ => search,
        };
        if policy.verified {
            search = search.is("verified", true);
        }
        if request.cloud_type == CloudType::Secure {
            search = search.is("datacenter", true);
        }
        if !request.ports.is_empty() {
            search = search.at_least(
                "direct_port_count",
                f64::from(u32::try_from(request.ports.len()).unwrap_or(u32::MAX)),
            );
        }
        if !request.region_hints.is_empty() {
            let countries: Vec<String> = request
                .region_hints
                .iter()
                .map(|hint| place::code(hint))
                .collect();
            search = search.among("geolocation", countries.iter().map(String::as_str));
        }
        if let Some(memory) = request.memory {
            search = search.at_least("cpu_ram", f64::from(memory.as_mib()));
        }
        if let Some(most) = policy.max_price {
            search = search.at_most("dph_total", dollars(most));
        }
        if let Some(machine) = policy.machine_id {
            search = search.is("machine_id", machine);
        }
        search
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::{Gpu, MemorySize, Port, Usd};

    #[test]
    fn a_search_has_names_with_spaces_a_band_of_memory_and_no_bare_value() {
        let request = ComputeRequest::gpu(Gpu::A100_40GSxm)
            .image("x")
            .gpu_count(2)
            .port(Port::http(80))
            .memory(MemorySize::gib(64));
        let policy = OfferPolicy {
            max_price: Some(UsdPerHour::new(Usd::from_cents(150))),
            ..OfferPolicy::default()
        };
        let search = Search::of(&request.region("no"), &policy, 40).into_value();
        let plain = ["type", "order", "limit", "allocated_storage"];
        for (name, filter) in search
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| !plain.contains(&name.as_str()))
        {
            assert!(filter.is_object(), "{name}: {filter}");
        }
        let expected = json!({
            "type": "ondemand", "allocated_storage": 40, "limit": 32, "order": [["dph_total",
                "asc"], ["reliability", "desc"]],
            "rentable": { "eq": true }, "rented": { "eq": false }, "verified": { "eq": true },
            "gpu_name": { "in": ["A100 SXM4"] }, "gpu_ram": { "gte": 36000.0, "lte": 50000.0 },
                "num_gpus": { "in": [2] },
            "cpu_arch": { "eq": "amd64" }, "reliability": { "gte": 0.97 }, "inet_down": {
                "gte": 500.0 }, "duration": { "gte": 86400.0 },
            "disk_space": { "gte": 40.0 }, "direct_port_count": { "gte": 1.0 }, "geolocation": {
                "in": ["NO"] },
            "cpu_ram": { "gte": 65536.0 }, "dph_total": { "lte": 1.5 },
        });
        assert_eq!(search, expected);
    }

    #[test]
    fn a_new_card_needs_a_new_driver_and_an_arm_host_its_own_images() {
        let search = |gpu| {
            Search::of(
                &ComputeRequest::gpu(gpu).image("x").spot(true),
                &OfferPolicy::default(),
                16,
            )
            .into_value()
        };
        let blackwell = search(Gpu::Rtx5090);
        assert_eq!(
            (&blackwell["cuda_max_good"], &blackwell["type"]),
            (&json!({ "gte": 12.8 }), &json!("bid"))
        );
        assert_eq!(search(Gpu::Rtx4090)["cuda_max_good"], Value::Null);
        assert_eq!(search(Gpu::Gh200)["cpu_arch"], json!({ "eq": "arm64" }));
    }
}
