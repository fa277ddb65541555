//! RunPod's catalogue: GPUs, CPU flavours, data centres. The contract's price list is derived from
//! it.

use atlas_core::{CallContext, CloudType, MemorySize, Result, Stock, UsdPerHour};
use atlas_http::lenient;
use serde::{Deserialize, Serialize};

use super::read::{opt_whole, parts, told};
use super::units::{gigabytes, hourly};
use crate::RunPod;
use crate::candidates::cloud;

/// A GPU of the catalogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CatalogGpu {
    /// RunPod's id, unchanged.
    #[serde(deserialize_with = "lenient::text")]
    pub id: String,
    /// The display name.
    #[serde(default, deserialize_with = "told")]
    pub name: String,
    /// The serverless pool it is in.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub pool: Option<String>,
    /// `NVIDIA` or `AMD`.
    #[serde(default, deserialize_with = "told")]
    pub manufacturer: String,
    /// Memory of one GPU.
    #[serde(default, deserialize_with = "gigabytes")]
    pub memory: Option<MemorySize>,
    /// Offered in the secure tier.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub secure: bool,
    /// Offered in the community tier.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub community: bool,
    /// Price of one GPU per hour. If a tier does not offer it, its field holds a placeholder.
    #[serde(default, deserialize_with = "lenient::object")]
    pub price: CatalogPrice,
    /// The stock of the requested tier.
    #[serde(default, deserialize_with = "stock")]
    pub availability: Option<Stock>,
    /// Data centres with stock.
    #[serde(default, deserialize_with = "parts")]
    pub data_centers: Vec<PlaceStock>,
}

/// Prices of a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CatalogPrice {
    /// Price in the secure tier.
    #[serde(default, deserialize_with = "hourly")]
    pub secure: Option<UsdPerHour>,
    /// Price in the community tier.
    #[serde(default, deserialize_with = "hourly")]
    pub community: Option<UsdPerHour>,
    /// Price in a serverless worker.
    #[serde(default, deserialize_with = "hourly")]
    pub serverless: Option<UsdPerHour>,
}

/// The stock of a GPU or flavour in a data centre.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlaceStock {
    /// The id of the data centre, or of the GPU or flavour.
    #[serde(deserialize_with = "lenient::text")]
    pub id: String,
    /// The stock.
    #[serde(default, deserialize_with = "stock")]
    pub availability: Option<Stock>,
}

/// A CPU flavour of the catalogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CatalogCpu {
    /// RunPod's id: `cpu3g`.
    #[serde(deserialize_with = "lenient::text")]
    pub id: String,
    /// The display name.
    #[serde(default, deserialize_with = "told")]
    pub name: String,
    /// The minimum and maximum number of virtual CPUs of a pod.
    #[serde(default, deserialize_with = "opt_whole")]
    pub vcpu: Option<CpuRange>,
    /// RAM for each virtual CPU, in gigabytes.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub ram_gb_per_vcpu: Option<f64>,
    /// Price of one virtual CPU per hour.
    #[serde(default, deserialize_with = "lenient::object")]
    pub price: CatalogCpuPrice,
    /// The stock.
    #[serde(default, deserialize_with = "stock")]
    pub availability: Option<Stock>,
}

/// A range of virtual CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct CpuRange {
    #[serde(deserialize_with = "lenient::number")]
    pub min: u32,
    #[serde(deserialize_with = "lenient::number")]
    pub max: u32,
}

/// Prices of a CPU flavour, for one virtual CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CatalogCpuPrice {
    /// Price in a pod.
    #[serde(default, deserialize_with = "hourly")]
    pub secure_per_vcpu: Option<UsdPerHour>,
    /// Price in a serverless worker.
    #[serde(default, deserialize_with = "hourly")]
    pub serverless_per_vcpu: Option<UsdPerHour>,
}

/// A data centre.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DataCentre {
    /// RunPod's id: `EU-RO-1`.
    #[serde(deserialize_with = "lenient::text")]
    pub id: String,
    /// The display name.
    #[serde(default, deserialize_with = "told")]
    pub name: String,
    /// `EUROPE`, `NORTH_AMERICA`, ...
    #[serde(default, deserialize_with = "told")]
    pub region: String,
    /// Whether its pods can join the account's private network.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub global_network: bool,
    /// The kinds of network volumes it has.
    #[serde(default, deserialize_with = "lenient::texts")]
    pub network_volume_types: Vec<String>,
    /// The certifications of the data centre.
    #[serde(default, deserialize_with = "lenient::texts")]
    pub compliance: Vec<String>,
    /// The stock of its GPUs.
    #[serde(default, deserialize_with = "parts")]
    pub gpu_availability: Vec<PlaceStock>,
    /// The stock of its CPU flavours.
    #[serde(default, deserialize_with = "parts")]
    pub cpu_availability: Vec<PlaceStock>,
}

fn stock<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Stock>, D::Error> {
    Ok(crate::candidates::stock(
        lenient::opt_text(deserializer)?.as_deref(),
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
    /// Every GPU, with this tier's stock for pods.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
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
    /// Like any read. Cancel safe.
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
    /// Like any read. Cancel safe.
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
    /// Like any read. Cancel safe.
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

    /// Every data centre, with its stock.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
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

    /// One data centre, with its stock.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
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
