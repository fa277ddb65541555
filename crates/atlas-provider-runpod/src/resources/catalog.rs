//! The catalogue as RunPod tells it: GPUs, CPU flavours, data centres. The contract's price list is
//! made of it.

use atlas_core::{CallContext, CloudType, MemorySize, Result, Stock, UsdPerHour};
use serde::{Deserialize, Serialize};

use super::container::nullable;
use super::units::{gigabytes, hourly};
use crate::RunPod;
use crate::candidates::cloud;

/// A GPU of the catalogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CatalogGpu {
    /// RunPod's id, exactly.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// The serverless pool it is in.
    #[serde(default)]
    pub pool: Option<String>,
    /// `NVIDIA` or `AMD`.
    pub manufacturer: String,
    /// Memory of one.
    #[serde(with = "gigabytes")]
    pub memory: MemorySize,
    /// Offered in the secure tier.
    pub secure: bool,
    /// Offered in the community tier.
    pub community: bool,
    /// For one, an hour. Where a tier does not offer it, its slot holds a placeholder.
    pub price: CatalogPrice,
    /// What one tier has of it.
    #[serde(default, deserialize_with = "stock")]
    pub availability: Option<Stock>,
    /// Where there is any.
    #[serde(default, deserialize_with = "nullable")]
    pub data_centers: Vec<PlaceStock>,
}

/// Prices of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CatalogPrice {
    /// In the secure tier.
    #[serde(default, with = "hourly")]
    pub secure: Option<UsdPerHour>,
    /// In the community tier.
    #[serde(default, with = "hourly")]
    pub community: Option<UsdPerHour>,
    /// In a serverless worker.
    #[serde(default, with = "hourly")]
    pub serverless: Option<UsdPerHour>,
}

/// What there is of something in one place, or of one thing in a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlaceStock {
    /// The data centre, or the GPU or flavour.
    pub id: String,
    /// How much.
    #[serde(default, deserialize_with = "stock")]
    pub availability: Option<Stock>,
}

/// A CPU flavour of the catalogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CatalogCpu {
    /// RunPod's id: `cpu3g`.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// The fewest and the most virtual CPUs of a pod.
    pub vcpu: CpuRange,
    /// RAM for each virtual CPU, in gigabytes.
    pub ram_gb_per_vcpu: f64,
    /// For one virtual CPU, an hour.
    pub price: CatalogCpuPrice,
    /// What there is of it.
    #[serde(default, deserialize_with = "stock")]
    pub availability: Option<Stock>,
}

/// A range of virtual CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct CpuRange {
    pub min: u32,
    pub max: u32,
}

/// Prices of a CPU flavour, for one virtual CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CatalogCpuPrice {
    /// In a pod.
    #[serde(default, with = "hourly")]
    pub secure_per_vcpu: Option<UsdPerHour>,
    /// In a serverless worker.
    #[serde(default, with = "hourly")]
    pub serverless_per_vcpu: Option<UsdPerHour>,
}

/// A data centre.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DataCentre {
    /// RunPod's id: `EU-RO-1`.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// `EUROPE`, `NORTH_AMERICA`, ...
    pub region: String,
    /// Whether its pods can join the account's private network.
    pub global_network: bool,
    /// The kinds of network volumes it has.
    #[serde(default, deserialize_with = "nullable")]
    pub network_volume_types: Vec<String>,
    /// What it is certified for.
    #[serde(default, deserialize_with = "nullable")]
    pub compliance: Vec<String>,
    /// The GPUs it has.
    #[serde(default, deserialize_with = "nullable")]
    pub gpu_availability: Vec<PlaceStock>,
    /// The CPU flavours it has.
    #[serde(default, deserialize_with = "nullable")]
    pub cpu_availability: Vec<PlaceStock>,
}

fn stock<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Stock>, D::Error> {
    Ok(crate::candidates::stock(
        Option::<String>::deserialize(deserializer)?.as_deref(),
    ))
}

fn availability(tier: CloudType) -> [(&'static str, String); 3] {
    [
        ("include", "AVAILABILITY".to_owned()),
        ("product", "POD".to_owned()),
        ("cloud", cloud(tier).to_owned()),
    ]
}

const STOCK: &str = "GPU_AVAILABILITY,CPU_AVAILABILITY";

impl RunPod {
    /// Every GPU, with what this tier has for pods.
    ///
    /// # Errors
    /// As any read. Cancel safe.
    pub async fn catalog_gpus(&self, cx: &CallContext, tier: CloudType) -> Result<Vec<CatalogGpu>> {
        self.control
            .all(
                cx,
                "catalog_gpus",
                &["catalog", "gpus"],
                &availability(tier),
                "gpus",
            )
            .await
    }

    /// One GPU, by RunPod's exact id.
    ///
    /// # Errors
    /// As any read. Cancel safe.
    pub async fn catalog_gpu(
        &self,
        cx: &CallContext,
        id: &str,
        tier: CloudType,
    ) -> Result<CatalogGpu> {
        self.control
            .fetch(
                cx,
                "catalog_gpu",
                &["catalog", "gpus", id],
                &availability(tier),
            )
            .await
    }

    /// Every CPU flavour.
    ///
    /// # Errors
    /// As any read. Cancel safe.
    pub async fn catalog_cpus(&self, cx: &CallContext) -> Result<Vec<CatalogCpu>> {
        let [include, product, _] = availability(CloudType::Secure);
        self.control
            .all(
                cx,
                "catalog_cpus",
                &["catalog", "cpus"],
                &[include, product],
                "cpus",
            )
            .await
    }

    /// One CPU flavour.
    ///
    /// # Errors
    /// As any read. Cancel safe.
    pub async fn catalog_cpu(&self, cx: &CallContext, id: &str) -> Result<CatalogCpu> {
        let [include, product, _] = availability(CloudType::Secure);
        self.control
            .fetch(
                cx,
                "catalog_cpu",
                &["catalog", "cpus", id],
                &[include, product],
            )
            .await
    }

    /// Every data centre, with what it has.
    ///
    /// # Errors
    /// As any read. Cancel safe.
    pub async fn data_centres(&self, cx: &CallContext) -> Result<Vec<DataCentre>> {
        let query = [("include", STOCK.to_owned())];
        self.control
            .all(
                cx,
                "data_centres",
                &["catalog", "datacenters"],
                &query,
                "dataCenters",
            )
            .await
    }

    /// One data centre, with what it has.
    ///
    /// # Errors
    /// As any read. Cancel safe.
    pub async fn data_centre(&self, cx: &CallContext, id: &str) -> Result<DataCentre> {
        self.control
            .fetch(
                cx,
                "data_centre",
                &["catalog", "datacenters", id],
                &[("include", STOCK.to_owned())],
            )
            .await
    }
}
