//! RunPod's REST v2 wire types: pods, catalogue, lists. Names are the cloud's.
//!
//! Every field that was missing in an observed body is optional (docs/clouds/runpod.md, "Reading
//! answers"); unknown fields are kept where the whole value is kept.

use std::collections::BTreeMap;

use atlas_core::{Error, ErrorKind, Result};
use atlas_http::lenient;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// A pod. If it has an id, it is parsed, whatever else is wrong with it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pod {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) id: String,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) name: Option<String>,
    #[serde(default = "lenient::no_word", deserialize_with = "lenient::word")]
    pub(crate) status: String,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) image: Option<String>,
    #[serde(default, deserialize_with = "lenient::texts")]
    pub(crate) ports: Vec<String>,
    #[serde(default, deserialize_with = "lenient::object")]
    pub(crate) env: PodEnv,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) data_center_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_object")]
    pub(crate) gpu: Option<PodGpu>,
    #[serde(default, deserialize_with = "lenient::opt_object")]
    pub(crate) cpu: Option<PodCpu>,
    #[serde(default, deserialize_with = "lenient::opt_object")]
    pub(crate) ssh: Option<Ssh>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) cost: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt_object")]
    pub(crate) runtime: Option<Runtime>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) created_at: Option<String>,
}

/// The only variable that is read back. The others are secrets.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct PodEnv {
    #[serde(
        default,
        rename = "ATLAS_LAUNCH_KEY",
        deserialize_with = "lenient::opt_text"
    )]
    pub(crate) launch_key: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PodGpu {
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) id: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) count: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PodCpu {
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) id: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Ssh {
    #[serde(default, deserialize_with = "lenient::opt_object")]
    pub(crate) direct: Option<SshEndpoint>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SshEndpoint {
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) host: Option<String>,
}

/// The state reported by the container; every member is optional, and `{}` gives no information.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Runtime {
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) uptime: Option<f64>,
    #[serde(default, deserialize_with = "lenient::objects")]
    pub(crate) ports: Vec<RuntimePort>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RuntimePort {
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) private: Option<u32>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) public: Option<u32>,
    #[serde(default, rename = "type", deserialize_with = "lenient::opt_text")]
    pub(crate) kind: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) ip: Option<String>,
}

/// The cursor of the next page. Missing before autumn 2026; then the first page is everything.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pagination {
    /// `None` where it cannot be read: then the page is the last one only if nothing else says
    /// more.
    #[serde(default, deserialize_with = "lenient::opt_flag")]
    pub(crate) has_next_page: Option<bool>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) next_cursor: Option<String>,
}

/// The body of `POST /v2/pods`. The cloud refuses unknown fields, so only requested fields are
/// sent.
///
/// No `Debug`: `env` holds secrets.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreatePod<'a> {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) template_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu: Option<CreateGpu<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<CreateCpu<'a>>,
    pub(crate) cloud: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) data_center_ids: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disk: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mounts: Option<Mounts<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ports: Vec<String>,
    pub(crate) env: BTreeMap<&'a str, &'a str>,
    #[serde(flatten)]
    pub(crate) command: Command,
}

/// The command of a container, in exec form: RunPod's shell does not interpret it. Empty lists
/// leave the image's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Command {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) cmd: Vec<String>,
}

impl Command {
    /// The same as the single string that RunPod stores, the only form that GraphQL accepts; `None`
    /// for the image's own.
    #[cfg(feature = "graphql")]
    pub(crate) fn stored(&self) -> Option<String> {
        (*self != Self::default())
            .then(|| serde_json::to_string(self).expect("lists of words are plain data"))
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct CreateGpu<'a> {
    pub(crate) id: &'a str,
    pub(crate) count: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreateCpu<'a> {
    pub(crate) id: &'a str,
    pub(crate) vcpu_count: u32,
}

/// Exactly one of the two kinds of storage.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mounts<'a> {
    Persistent { size: u32, path: &'static str },
    Network([NetworkMount<'a>; 1]),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NetworkMount<'a> {
    pub(crate) volume_id: &'a str,
    pub(crate) path: &'static str,
}

/// A GPU of the catalogue, with the availability in the requested tier. One without an id cannot be
/// ordered; one without its memory is found by its name only.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GpuType {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) id: String,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) name: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) memory: Option<u32>,
    #[serde(default, deserialize_with = "lenient::flag")]
    pub(crate) secure: bool,
    #[serde(default, deserialize_with = "lenient::flag")]
    pub(crate) community: bool,
    #[serde(default, deserialize_with = "lenient::object")]
    pub(crate) price: GpuPrice,
    #[serde(default, deserialize_with = "lenient::object")]
    pub(crate) max_count: MaxCount,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) availability: Option<String>,
    #[serde(default, deserialize_with = "centres")]
    pub(crate) data_centers: Vec<DataCenterStock>,
}

/// US dollars per hour for one GPU. If the tier's flag is false, its field holds a placeholder.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct GpuPrice {
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) secure: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) community: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct MaxCount {
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) secure: Option<u32>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) community: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct DataCenterStock {
    pub(crate) id: String,
    pub(crate) availability: Option<String>,
}

/// The data centres that have an id.
fn centres<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DataCenterStock>, D::Error> {
    #[derive(Deserialize)]
    struct Centre {
        #[serde(default, deserialize_with = "lenient::opt_text")]
        id: Option<String>,
        #[serde(default, deserialize_with = "lenient::opt_text")]
        availability: Option<String>,
    }
    let told: Vec<Centre> = lenient::objects(deserializer)?;
    let named = told.into_iter().filter_map(|centre| {
        let availability = centre.availability;
        centre.id.map(|id| DataCenterStock { id, availability })
    });
    Ok(named.collect())
}

/// A CPU flavour of the catalogue. RunPod rents them in its secure tier only.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CpuType {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) id: String,
    #[serde(default, deserialize_with = "lenient::opt_object")]
    pub(crate) vcpu: Option<VcpuRange>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) ram_gb_per_vcpu: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt_object")]
    pub(crate) price: Option<CpuPrice>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) availability: Option<String>,
    #[serde(default, deserialize_with = "centres")]
    pub(crate) data_centers: Vec<DataCenterStock>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct VcpuRange {
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) min: Option<u32>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) max: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CpuPrice {
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) secure_per_vcpu: Option<f64>,
}

/// RFC 9457, the format of every REST v2 error.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Problem {
    #[serde(default, deserialize_with = "told")]
    pub(crate) title: String,
    #[serde(default, deserialize_with = "told")]
    pub(crate) detail: String,
    #[serde(default, deserialize_with = "lenient::texts")]
    pub(crate) errors: Vec<String>,
}

fn told<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(lenient::opt_text(deserializer)?.unwrap_or_default())
}

/// A network volume.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Volume {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) id: String,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) name: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) size: Option<u32>,
    #[serde(default, deserialize_with = "told")]
    pub(crate) data_center: String,
}

/// What a pod cost in a period, in US dollars.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodSpend {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) pod_id: String,
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) start_time: String,
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) end_time: String,
    #[serde(deserialize_with = "lenient::number")]
    pub(crate) total_amount: f64,
}

/// Parses an answer's value, naming the position of an error. The text of the value is never
/// quoted.
pub(crate) fn read<T: DeserializeOwned>(value: &Value) -> Result<T> {
    T::deserialize(value).map_err(|_| {
        let place = serde_path_to_error::deserialize::<_, T>(value)
            .err()
            .map(|error| error.path().to_string());
        Error::new(
            ErrorKind::Provider,
            format!(
                "an answer could not be understood at {}",
                place.unwrap_or_default()
            ),
        )
    })
}
