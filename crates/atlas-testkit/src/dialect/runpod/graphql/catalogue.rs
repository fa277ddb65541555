//! The open catalogue over GraphQL: cards with their prices, data centres, CPU flavours. No key is
//! asked for.

use atlas_core::{Stock, UsdPerHour};
use serde_json::{Value, json};

use super::document::Field;
use super::floor;
use crate::dialect::runpod::RunPod;
use crate::dialect::runpod::pods::dollars;
use crate::dialect::runpod::stock::{CARDS, CENTRES, CUDA, FLAVOURS, NAME, VCPUS_PER_GPU};
use crate::world::stock_level;

/// Whether a root field is answered without a key.
pub(super) fn is_open(field: &str) -> bool {
    matches!(
        field,
        "gpuTypes"
            | "dataCenters"
            | "cpuFlavors"
            | "countryCodes"
            | "serverlessGpuPools"
            | "allAiApiPublicConfigs"
            | "createFlashAuthRequest"
            | "flashAuthRequestStatus"
            | "listings"
            | "__typename"
    )
}

impl RunPod {
    pub(super) fn gpu_types(&self, filter: &Value, field: &Field, variables: &Value) -> Value {
        let lowest = field
            .selected("lowestPrice")
            .map(|field| field.argument("input", variables))
            .unwrap_or_default();
        let count = lowest["gpuCount"]
            .as_u64()
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(1)
            .max(1);
        let tier = match lowest["secureCloud"].as_bool() {
            Some(true) => "SECURE",
            Some(false) => "COMMUNITY",
            None => "",
        };
        let mut types: Vec<Value> = CARDS
            .iter()
            .filter_map(|card| self.world.shape(NAME, card.id))
            .filter(|shape| filter["id"].is_null() || filter["id"] == shape.native.as_str())
            .map(|shape| {
                let price = |tier: &str| {
                    shape
                        .tiers
                        .get(tier)
                        .map(|tier| dollars(tier.price.per_hour().nanos()))
                };
                let spot = |tier: &str| {
                    shape
                        .tiers
                        .get(tier)
                        .map(|tier| dollars(floor(tier.price).per_hour().nanos()))
                };
                let most = |tier: &str| shape.tiers.get(tier).map_or(0, |tier| tier.max_count);
                let tiers: Vec<&str> = ["SECURE", "COMMUNITY"]
                    .into_iter()
                    .filter(|name| tier.is_empty() || tier == *name)
                    .collect();
                let cheapest = tiers
                    .iter()
                    .filter_map(|name| Some((*name, shape.tiers.get(*name)?)))
                    .filter(|(_, tier)| count <= tier.max_count)
                    .min_by_key(|(_, tier)| tier.price);
                let free = cheapest.map_or(0, |(name, _)| {
                    let mut stock = self.world.stock(NAME, &shape.native, name);
                    if let Some(centre) = lowest["dataCenterId"].as_str() {
                        stock.retain(|id, _| id == centre);
                    }
                    stock.into_values().max().unwrap_or(0)
                });
                let level = if free < count {
                    Stock::None
                } else {
                    stock_level(free)
                };
                let offered = |price: UsdPerHour| {
                    (level != Stock::None).then(|| dollars(price.per_hour().nanos()))
                };
                let cuda: Vec<Value> = CUDA
                    .iter()
                    .map(|version| {
                        let free = level != Stock::None;
                        json!({ "__typename": "GpuTypeCudaVersion", "cudaVersion": version,
                            "availability": if free { "AVAILABLE" } else { "UNAVAILABLE" } })
                    })
                    .collect();
                // Clusters are made of whole secure machines.
                let clusters: Vec<Value> = self
                    .world
                    .stock(NAME, &shape.native, "SECURE")
                    .into_iter()
                    .filter(|(_, free)| *free >= most("SECURE"))
                    .map(|(id, _)| json!({ "__typename": "DataCenter", "id": id }))
                    .collect();
                json!({
                    "__typename": "GpuType", "cudaCores": 0, "oneMonthPrice": null,
                        "threeMonthPrice": null, "sixMonthPrice": null,
                    "minPodGpuCount": 1, "clusterPrice": price("SECURE"),
                        "nodeGroupDatacenters": clusters,
                    "oneWeekPrice": null, "id": shape.native, "displayName": shape.name,
                        "memoryInGb": shape.vram_gb,
                    "manufacturer": if shape.native.starts_with("AMD") { "AMD" } else { "Nvidia" },
                    "secureCloud": shape.tiers.contains_key("SECURE"),
                        "communityCloud": shape.tiers.contains_key("COMMUNITY"),
                    "securePrice": price("SECURE"), "communityPrice": price("COMMUNITY"),
                    "secureSpotPrice": spot("SECURE"), "communitySpotPrice": spot("COMMUNITY"),
                    "maxGpuCount": most("SECURE").max(most("COMMUNITY")),
                        "maxGpuCountSecureCloud": most("SECURE"),
                    "maxGpuCountCommunityCloud": most("COMMUNITY"),
                    "lowestPrice": {
                        "__typename": "LowestPrice", "gpuTypeCudaVersions": cuda,
                        "minimumBidPrice": cheapest.and_then(|(_,
                            tier)| offered(floor(tier.price))),
                        "uninterruptablePrice": cheapest.and_then(|(_, tier)| offered(tier.price)),
                        "minVcpu": VCPUS_PER_GPU, "minMemory": shape.ram_gb,
                            "stockStatus": word(level),
                        "availableGpuCounts": (1..=free.min(8)).collect::<Vec<_>>(),
                            "countryCode": null, "minDownload": null, "minUpload": null,
                                "minDisk": null, "compliance": null,
                        "supportPublicIp": null, "rentedCount": null, "totalCount": null,
                            "maxUnreservedGpuCount": null,
                        "rentalPercentage": null,
                    },
                })
            })
            .collect();
        if filter["id"].is_null() {
            // The live list has a sentinel that cannot be rented.
            types.push(json!({
                "__typename": "GpuType", "cudaCores": 0, "oneMonthPrice": null,
                    "threeMonthPrice": null, "sixMonthPrice": null, "minPodGpuCount": 0,
                    "clusterPrice": null, "nodeGroupDatacenters": [],
                "oneWeekPrice": null, "id": "unknown", "displayName": "unknown", "memoryInGb": 0,
                    "manufacturer": "unknown", "secureCloud": false,
                "communityCloud": false, "securePrice": null, "communityPrice": null,
                    "secureSpotPrice": null, "communitySpotPrice": null,
                "maxGpuCount": 0, "maxGpuCountSecureCloud": 0, "maxGpuCountCommunityCloud": 0,
                "lowestPrice": {
                        "__typename": "LowestPrice", "gpuTypeCudaVersions": [],
                    "minimumBidPrice": null, "uninterruptablePrice": null, "minVcpu": null,
                        "minMemory": null, "stockStatus": null,
                    "availableGpuCounts": [], "countryCode": null, "minDownload": null,
                        "minUpload": null, "minDisk": null, "compliance": null,
                        "supportPublicIp": null, "rentedCount": null, "totalCount": null,
                            "maxUnreservedGpuCount": null,
                        "rentalPercentage": null,
                },
            }));
        }
        types.into()
    }

    pub(super) fn graphql_centres(&self) -> Value {
        CENTRES
            .iter()
            .map(|(id, name, ..)| {
                let gpus: Vec<Value> = CARDS
                    .iter()
                    .map(|card| {
                        let stock = self.world.stock(NAME, card.id, "SECURE");
                        let free = stock.get(*id).copied().unwrap_or(0);
                        json!({
                            "__typename": "GpuAvailability", "available": free > 0,
                            "stockStatus": word(stock_level(free)), "gpuTypeId": card.id,
                            "displayName": card.name, "gpuTypeDisplayName": card.name,
                        })
                    })
                    .collect();
                json!({
                    "__typename": "DataCenter", "id": id, "name": name, "location": name,
                    "listed": true, "storageSupport": true, "globalNetwork": true,
                    "gpuAvailability": gpus,
                })
            })
            .collect()
    }

    pub(super) fn graphql_flavours(&self) -> Value {
        FLAVOURS
            .iter()
            .map(|(id, name, group, ram, mills)| {
                json!({
                    "__typename": "CpuFlavor", "id": id, "displayName": name, "groupId": group,
                    "groupName": group, "minVcpu": 2, "maxVcpu": 32, "ramMultiplier": ram,
                    "vcpuBurstable": false, "diskLimitPerVcpu": 10,
                    "specifics": {
                        "__typename": "CpuFlavorSpecifics", "stockStatus": "High",
                        "securePrice": dollars(mills * 1_000_000), "slsPrice": null,
                    },
                })
            })
            .collect()
    }
}

/// The serverless pools, each with its cards.
pub(super) fn pools() -> Value {
    let mut names: Vec<&str> = CARDS.iter().filter_map(|card| card.pool).collect();
    names.sort_unstable();
    names.dedup();
    names
        .iter()
        .map(|name| {
            let cards = CARDS.iter().filter(|card| card.pool == Some(*name));
            let ids: Vec<&str> = cards.map(|card| card.id).collect();
            json!({ "__typename": "ServerlessGpuPool", "id": name, "gpuTypeIds": ids })
        })
        .collect()
}

/// The countries of the data centres.
pub(super) fn countries() -> Value {
    let mut codes: Vec<&str> = CENTRES.iter().map(|(.., code, _)| *code).collect();
    codes.sort_unstable();
    codes.dedup();
    codes.into()
}

fn word(stock: Stock) -> Option<&'static str> {
    match stock {
        Stock::None => None,
        Stock::Low => Some("Low"),
        Stock::Medium => Some("Medium"),
        Stock::High => Some("High"),
    }
}
