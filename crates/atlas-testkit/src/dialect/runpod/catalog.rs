//! The catalogue: cards, CPU flavours and data centres, with prices and stock.

use std::collections::BTreeMap;

use atlas_core::Stock;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::pods::dollars;
use super::problem::{Problem, json as answer};
use super::stock::{CARDS, CENTRES, CUDA, FLAVOURS, NAME};
use super::{Call, RunPod};
use crate::dialect::SimBody;
use crate::dialect::check::version;
use crate::world::{CloudSpec, Refusal, Shape, stock_level};

const PRODUCTS: [&str; 3] = ["POD", "CLUSTER", "SERVERLESS"];
const CPU_PRODUCTS: [&str; 2] = ["POD", "SERVERLESS"];

/// What availability was asked about.
struct Asked {
    tier: String,
    count: u32,
    countries: Option<Vec<String>>,
    cuda: Vec<&'static str>,
}

impl RunPod {
    pub(super) fn list_gpus(&self, call: &Call<'_>) -> Result<Response<SimBody>, Problem> {
        let (cloud, asked) = (self.spec()?, gpu_filters(call)?);
        let gpus: Vec<Value> = cloud
            .shapes
            .iter()
            .filter(|shape| shape.vram_gb > 0)
            .map(|shape| self.gpu(shape, asked.as_ref()))
            .filter(|gpu| {
                asked.as_ref().is_none_or(|asked| {
                    asked.countries.is_none() || gpu.get("dataCenters").is_some()
                })
            })
            .collect();
        Ok(answer(StatusCode::OK, &json!({ "gpus": gpus })))
    }

    pub(super) fn get_gpu(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Problem> {
        let (cloud, asked) = (self.spec()?, gpu_filters(call)?);
        let shape = cloud
            .shape(id)
            .filter(|shape| shape.vram_gb > 0)
            .ok_or_else(|| Problem::not_found("gpu type"))?;
        Ok(answer(StatusCode::OK, &self.gpu(shape, asked.as_ref())))
    }

    pub(super) fn list_cpus(&self, call: &Call<'_>) -> Result<Response<SimBody>, Problem> {
        let (cloud, asked) = (self.spec()?, cpu_filters(call)?);
        let cpus: Vec<Value> = cloud
            .shapes
            .iter()
            .filter(|shape| shape.vram_gb == 0)
            .map(|shape| self.cpu(shape, asked.as_ref()))
            .collect();
        Ok(answer(StatusCode::OK, &json!({ "cpus": cpus })))
    }

    pub(super) fn get_cpu(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Problem> {
        let (cloud, asked) = (self.spec()?, cpu_filters(call)?);
        let shape = cloud
            .shape(id)
            .filter(|shape| shape.vram_gb == 0)
            .ok_or_else(|| Problem::not_found("cpu type"))?;
        Ok(answer(StatusCode::OK, &self.cpu(shape, asked.as_ref())))
    }

    pub(super) fn list_centres(&self, call: &Call<'_>) -> Result<Response<SimBody>, Problem> {
        let (gpus, cpus) = centre_includes(call)?;
        let regions = call.query.list("regions");
        let kinds = call.query.list("networkVolumeTypes").unwrap_or_default();
        let global = call.query.get("globalNetwork").map(|text| text == "true");
        let wanted = |centre: &Value| {
            let has = |field: &str, word: &&str| {
                centre[field]
                    .as_array()
                    .is_some_and(|list| list.iter().any(|item| item == *word))
            };
            regions
                .as_ref()
                .is_none_or(|regions| regions.iter().any(|region| centre["region"] == *region))
                && kinds.iter().all(|kind| has("networkVolumeTypes", kind))
                && call
                    .query
                    .list("compliance")
                    .unwrap_or_default()
                    .iter()
                    .all(|word| has("compliance", word))
                && global.is_none_or(|global| centre["globalNetwork"] == global)
        };
        let centres: Vec<Value> = CENTRES
            .iter()
            .filter_map(|(id, ..)| self.centre(id, gpus, cpus))
            .filter(wanted)
            .collect();
        Ok(answer(StatusCode::OK, &json!({ "dataCenters": centres })))
    }

    pub(super) fn get_centre(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Problem> {
        let (gpus, cpus) = centre_includes(call)?;
        let centre = self
            .centre(id, gpus, cpus)
            .ok_or_else(|| Problem::not_found("data center"))?;
        Ok(answer(StatusCode::OK, &centre))
    }

    fn spec(&self) -> Result<CloudSpec, Problem> {
        self.world
            .cloud(NAME)
            .ok_or_else(|| Problem::from(Refusal::NoSuchCloud))
    }

    fn gpu(&self, shape: &Shape, asked: Option<&Asked>) -> Value {
        let card = CARDS.iter().find(|card| card.id == shape.native);
        let tier = |name: &str| shape.tiers.get(name);
        // The price of a tier it is not offered in is a placeholder.
        let price =
            |name: &str| tier(name).map_or(0.5, |tier| dollars(tier.price.per_hour().nanos()));
        let most = |name: &str| tier(name).map_or(0, |tier| tier.max_count);
        let pool = card.and_then(|card| card.pool);
        let mut price_list = json!({ "secure": price("SECURE"), "community": price("COMMUNITY") });
        if pool.is_some() {
            price_list["serverless"] = json!((price("SECURE") * 1.75 * 100.0).round() / 100.0);
        }
        let amd = shape.native.starts_with("AMD");
        let mut gpu = json!({
            "id": shape.native,
            "name": card.map_or(shape.name.as_str(), |card| card.name),
            "pool": pool,
            "manufacturer": if amd { "AMD" } else { "NVIDIA" },
            "memory": shape.vram_gb,
            "secure": tier("SECURE").is_some(),
            "community": tier("COMMUNITY").is_some(),
            "price": price_list,
            "maxCount": { "secure": most("SECURE"), "community": most("COMMUNITY") },
        });
        if let Some(asked) = asked {
            let free = self.free(&shape.native, &asked.tier, asked);
            let fits = asked.count <= most(&asked.tier);
            let best = free.values().copied().max().filter(|_| fits).unwrap_or(0);
            gpu["availability"] = word(level(best, asked.count)).into();
            let centres = centres_with(&free, asked.count);
            if best >= asked.count && !centres.is_empty() && asked.tier == "SECURE" {
                gpu["dataCenters"] = centres.into();
            }
            if !amd {
                let versions: Vec<Value> = asked
                    .cuda
                    .iter()
                    .map(|version| json!({ "version": version, "available": best >= asked.count }))
                    .collect();
                gpu["cudaVersions"] = versions.into();
            }
        }
        gpu
    }

    fn cpu(&self, shape: &Shape, asked: Option<&Asked>) -> Value {
        let group = FLAVOURS
            .iter()
            .find(|(id, ..)| *id == shape.native)
            .map_or("", |(_, _, group, ..)| *group);
        let price = shape
            .tiers
            .get("SECURE")
            .map_or(0.0, |tier| dollars(tier.price.per_hour().nanos()));
        let mut cpu = json!({
            "id": shape.native,
            "name": shape.name,
            "group": group,
            "vcpu": { "min": 2, "max": 32 },
            "ramGbPerVcpu": shape.ram_gb,
            "price": { "securePerVcpu": price, "serverlessPerVcpu": price },
        });
        if let Some(asked) = asked {
            let free = self.free(&shape.native, "SECURE", asked);
            let best = free.values().copied().max().unwrap_or(0);
            cpu["availability"] = word(level(best, asked.count)).into();
            let centres = centres_with(&free, asked.count);
            if !centres.is_empty() {
                cpu["dataCenters"] = centres.into();
            }
        }
        cpu
    }

    fn centre(&self, id: &str, gpus: bool, cpus: bool) -> Option<Value> {
        let (_, name, region, _, global) = CENTRES.iter().find(|(centre, ..)| *centre == id)?;
        let mut centre = json!({
            "id": id,
            "name": name,
            "region": region,
            "globalNetwork": global,
            "networkVolumeTypes": if *global { vec!["STANDARD", "HIGH_PERFORMANCE"] } else {
                vec!["STANDARD"] },
            "compliance": ["SOC_2_TYPE_2", "ISO_IEC_27001"],
        });
        let spec = self.world.cloud(NAME)?;
        let offered = |on_gpu: bool| -> Vec<Value> {
            let shapes = spec
                .shapes
                .iter()
                .filter(|shape| (shape.vram_gb > 0) == on_gpu);
            shapes
                .filter_map(|shape| {
                    let free = self
                        .world
                        .stock(NAME, &shape.native, "SECURE")
                        .get(id)
                        .copied()?;
                    Some(json!({ "id": shape.native, "name": shape.name,
                        "availability": word(stock_level(free)) }))
                })
                .collect()
        };
        for (wanted, field, on_gpu) in [
            (gpus, "gpuAvailability", true),
            (cpus, "cpuAvailability", false),
        ] {
            let list = if wanted { offered(on_gpu) } else { Vec::new() };
            if !list.is_empty() {
                centre[field] = list.into();
            }
        }
        Some(centre)
    }

    /// Free units by data centre, within the countries asked for.
    fn free(&self, shape: &str, tier: &str, asked: &Asked) -> BTreeMap<String, u32> {
        let mut free = self.world.stock(NAME, shape, tier);
        if let Some(countries) = &asked.countries {
            let inside = |id: &str| {
                CENTRES.iter().any(|(centre, _, _, country, _)| {
                    *centre == id && countries.iter().any(|c| c == country)
                })
            };
            free.retain(|id, _| inside(id));
        }
        free
    }
}

fn level(free: u32, count: u32) -> Stock {
    if free < count {
        Stock::None
    } else {
        stock_level(free)
    }
}

fn centres_with(free: &BTreeMap<String, u32>, count: u32) -> Vec<Value> {
    let name = |id: &str| {
        CENTRES
            .iter()
            .find(|(centre, ..)| *centre == id)
            .map_or("", |(_, name, ..)| *name)
            .to_owned()
    };
    free.iter()
        .filter(|(_, free)| **free >= count && **free > 0)
        .map(|(id, free)| {
            json!({ "id": id, "name": name(id), "availability": word(level(*free,
            count)) })
        })
        .collect()
}

const fn word(stock: Stock) -> &'static str {
    match stock {
        Stock::None => "NONE",
        Stock::Low => "LOW",
        Stock::Medium => "MEDIUM",
        Stock::High => "HIGH",
    }
}

/// `include=AVAILABILITY` and `product` come together or not at all.
fn availability(call: &Call<'_>, products: &[&str]) -> Result<bool, Problem> {
    let include = call.query.list("include").unwrap_or_default();
    if include.iter().any(|word| *word != "AVAILABILITY") {
        return Err(Problem::invalid(vec![
            "include: value must be one of 'AVAILABILITY'".into(),
        ]));
    }
    let product = call.query.list("product").unwrap_or_default();
    if let Some(odd) = product.iter().find(|word| !products.contains(word)) {
        return Err(Problem::invalid(vec![format!(
            "product: '{odd}' is not a supported product"
        )]));
    }
    match (include.is_empty(), product.is_empty()) {
        (true, true) => Ok(false),
        (false, false) => Ok(true),
        (false, true) => Err(Problem::bad(
            "product is required with include=AVAILABILITY",
        )),
        (true, false) => Err(Problem::bad(
            "product is only valid with include=AVAILABILITY",
        )),
    }
}

fn only_with_availability(call: &Call<'_>, names: &[&str]) -> Result<(), Problem> {
    match names.iter().find(|name| call.query.get(name).is_some()) {
        Some(name) => Err(Problem::bad(format!(
            "{name} is only valid with include=AVAILABILITY"
        ))),
        None => Ok(()),
    }
}

fn gpu_filters(call: &Call<'_>) -> Result<Option<Asked>, Problem> {
    if !availability(call, &PRODUCTS)? {
        return only_with_availability(
            call,
            &[
                "count",
                "cloud",
                "countryCodes",
                "cudaVersions",
                "minCudaVersion",
            ],
        )
        .map(|()| None);
    }
    let wrong = |text: &str| Problem::invalid(vec![text.to_owned()]);
    let count = match call.query.get("count").map(str::parse::<u32>) {
        None => 1,
        Some(Ok(count)) if count >= 1 => count,
        Some(_) => return Err(wrong("count: minimum: want 1")),
    };
    let tier = call.query.get("cloud").unwrap_or("SECURE");
    if !matches!(tier, "SECURE" | "COMMUNITY") {
        return Err(wrong("cloud: value must be one of 'SECURE', 'COMMUNITY'"));
    }
    let countries = call.query.list("countryCodes");
    if countries
        .iter()
        .flatten()
        .any(|code| code.len() != 2 || !code.bytes().all(|b| b.is_ascii_uppercase()))
    {
        return Err(wrong("countryCodes: does not match pattern '^[A-Z]{2}$'"));
    }
    let (exact, min) = (
        call.query.list("cudaVersions"),
        call.query.get("minCudaVersion"),
    );
    if exact.is_some() && min.is_some() {
        return Err(Problem::bad(
            "cudaVersions and minCudaVersion are mutually exclusive",
        ));
    }
    if exact.iter().flatten().any(|text| version(text).is_none()) {
        return Err(wrong(
            "cudaVersions: does not match pattern '^\\d+\\.\\d+$'",
        ));
    }
    let floor = match min {
        None => (0, 0),
        Some(text) => version(text)
            .or_else(|| text.parse().ok().map(|major| (major, 0)))
            .ok_or_else(|| wrong("minCudaVersion: does not match pattern '^\\d+(\\.\\d+)?$'"))?,
    };
    let fits = |host: &&str| {
        exact.as_ref().is_none_or(|exact| exact.contains(host)) && version(host) >= Some(floor)
    };
    Ok(Some(Asked {
        tier: tier.to_owned(),
        count,
        countries: countries.map(|codes| codes.into_iter().map(str::to_owned).collect()),
        cuda: CUDA.iter().copied().filter(fits).collect(),
    }))
}

fn cpu_filters(call: &Call<'_>) -> Result<Option<Asked>, Problem> {
    if !availability(call, &CPU_PRODUCTS)? {
        return only_with_availability(call, &["vcpuCount"]).map(|()| None);
    }
    let count = match call.query.get("vcpuCount").map(str::parse::<u32>) {
        None => 2,
        Some(Ok(count)) if count >= 2 && count.is_power_of_two() => count,
        Some(_) => {
            return Err(Problem::invalid(vec![
                "vcpuCount: must be a power of two of at least 2".into(),
            ]));
        }
    };
    Ok(Some(Asked {
        tier: "SECURE".into(),
        count,
        countries: None,
        cuda: Vec::new(),
    }))
}

fn centre_includes(call: &Call<'_>) -> Result<(bool, bool), Problem> {
    let include = call.query.list("include").unwrap_or_default();
    if include
        .iter()
        .any(|word| !matches!(*word, "GPU_AVAILABILITY" | "CPU_AVAILABILITY"))
    {
        return Err(Problem::invalid(vec![
            "include: value must be one of 'GPU_AVAILABILITY', 'CPU_AVAILABILITY'".into(),
        ]));
    }
    Ok((
        include.contains(&"GPU_AVAILABILITY"),
        include.contains(&"CPU_AVAILABILITY"),
    ))
}
