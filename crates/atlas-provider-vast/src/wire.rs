//! Vast's JSON types, with names as on the wire. Unknown fields are ignored, every word is open,
//! and optional fields are parsed leniently ([`lenient`]), because the live API is ahead of its
//! documentation.

use atlas_http::lenient::{self, Cursor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The success or failure of an answer, whatever else it contains.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Verdict {
    #[serde(deserialize_with = "lenient::opt_flag")]
    pub(crate) success: Option<bool>,
    pub(crate) error: Option<Value>,
    /// Used for its text, and never shown, because it echoes what was sent.
    pub(crate) msg: Option<Value>,
    pub(crate) message: Option<Value>,
    #[serde(deserialize_with = "lenient::opt_number")]
    pub(crate) new_contract: Option<u64>,
}

impl Verdict {
    /// The cloud's own word for the kind of failure.
    pub(crate) fn code(&self) -> &str {
        self.error
            .as_ref()
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// All of its text, in lower case.
    pub(crate) fn words(&self) -> String {
        let texts = [&self.error, &self.msg, &self.message]
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        texts.collect::<Vec<_>>().join(" ").to_lowercase()
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Offers {
    pub(crate) offers: Found,
}

/// A list; the documentation's own example shows one offer without it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Found {
    Several(Vec<Value>),
    One(Map<String, Value>),
}

/// The used fields of an offer. Without its number, GPU, count, memory or price it cannot be
/// rented.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Offer {
    #[serde(deserialize_with = "lenient::number")]
    pub(crate) id: u64,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) machine_id: Option<u64>,
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) gpu_name: String,
    #[serde(deserialize_with = "lenient::number")]
    pub(crate) num_gpus: u32,
    /// In MB.
    #[serde(deserialize_with = "lenient::number")]
    pub(crate) gpu_ram: f64,
    /// The offer's share of the machine.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) gpu_frac: Option<f64>,
    /// Without storage.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) dph_base: Option<f64>,
    #[serde(deserialize_with = "lenient::number")]
    pub(crate) dph_total: f64,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) min_bid: Option<f64>,
    /// Dollars per GB and month.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) storage_cost: Option<f64>,
    /// Dollars per hour for the disk size of the search.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) storage_total_cost: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) reliability2: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) verification: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_flag")]
    pub(crate) rentable: Option<bool>,
    #[serde(default, deserialize_with = "lenient::opt_flag")]
    pub(crate) rented: Option<bool>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) direct_port_count: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) inet_down: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) cuda_max_good: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) cpu_cores: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) cpu_cores_effective: Option<f64>,
    /// In MB, of the whole machine.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) cpu_ram: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) cpu_arch: Option<String>,
    /// In GB, the space available to this offer.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) disk_space: Option<f64>,
    /// In seconds.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) duration: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) geolocation: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) hosting_type: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Create {
    pub(crate) client_id: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) template_hash_id: Option<String>,
    pub(crate) label: String,
    pub(crate) disk: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runtype: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) args: Vec<String>,
    /// If present, the machine is interruptible; if missing, it is rented on demand at the full
    /// price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) price: Option<f64>,
    pub(crate) env: Map<String, Value>,
    pub(crate) cancel_unavail: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Created {
    #[serde(deserialize_with = "lenient::number")]
    pub(crate) new_contract: u64,
}

/// A point read. The field is present and null when there is no such instance; a missing field
/// means nothing.
#[derive(Debug, Deserialize)]
pub(crate) struct PointRead {
    #[serde(deserialize_with = "present")]
    pub(crate) instances: Option<Value>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(|value| Some(value).filter(|value| !value.is_null()))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    pub(crate) instances: Vec<Value>,
    #[serde(default)]
    pub(crate) next_token: Cursor,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Instance {
    #[serde(deserialize_with = "lenient::number")]
    pub(crate) id: u64,
    #[serde(default, deserialize_with = "lenient::opt_word")]
    pub(crate) actual_status: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_word")]
    pub(crate) intended_status: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_word")]
    pub(crate) cur_state: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_word")]
    pub(crate) next_state: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) status_msg: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) label: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) image_uuid: Option<String>,
    #[serde(default)]
    pub(crate) extra_env: Value,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) public_ipaddr: Option<String>,
    #[serde(default)]
    pub(crate) ports: Value,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) gpu_name: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) num_gpus: Option<u32>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) gpu_ram: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt_flag")]
    pub(crate) is_bid: Option<bool>,
    /// Without storage.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) dph_base: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) dph_total: Option<f64>,
    /// Dollars per hour for its disk.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) storage_total_cost: Option<f64>,
    /// The price in its current state.
    #[serde(default, deserialize_with = "lenient::opt_object")]
    pub(crate) instance: Option<Price>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) machine_id: Option<u64>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) geolocation: Option<String>,
    /// Epoch seconds: when the contract began.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) start_date: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Price {
    #[serde(
        default,
        rename = "totalHour",
        deserialize_with = "lenient::opt_number"
    )]
    pub(crate) total_hour: Option<f64>,
}

impl Instance {
    /// The environment it was given: pairs, or an object; both were observed.
    pub(crate) fn environment(&self) -> Option<Vec<(&str, &str)>> {
        match &self.extra_env {
            Value::Array(pairs) => Some(
                pairs
                    .iter()
                    .filter_map(|pair| Some((pair[0].as_str()?, pair[1].as_str()?)))
                    .collect(),
            ),
            Value::Object(map) => Some(
                map.iter()
                    .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
                    .collect(),
            ),
            _ => None,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct ResultAt {
    pub(crate) result_url: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct User {
    #[serde(deserialize_with = "lenient::number")]
    pub(crate) id: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Charges {
    pub(crate) results: Vec<Charge>,
    #[serde(default)]
    pub(crate) next_token: Cursor,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Charge {
    #[serde(deserialize_with = "lenient::number")]
    pub(crate) start: i64,
    #[serde(deserialize_with = "lenient::number")]
    pub(crate) end: i64,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) source: Option<String>,
    #[serde(deserialize_with = "lenient::number")]
    pub(crate) amount: f64,
}

/// The cloud's own description, without the secrets it echoes.
pub(crate) fn redacted(mut raw: Value) -> Value {
    let hidden = || Value::from(atlas_core::REDACTED);
    match raw.get_mut("extra_env") {
        Some(Value::Array(pairs)) => {
            for pair in pairs {
                match pair {
                    Value::Array(parts) => {
                        parts.iter_mut().skip(1).for_each(|part| *part = hidden())
                    }
                    other => *other = hidden(),
                }
            }
        }
        Some(Value::Object(map)) => map.values_mut().for_each(|value| *value = hidden()),
        Some(other) if !other.is_null() => *other = hidden(),
        _ => {}
    }
    // A script and its arguments may contain anything, including secrets.
    for field in [
        "jupyter_token",
        "onstart",
        "instance_api_key",
        "image_login",
    ] {
        if let Some(value) = raw
            .get_mut(field)
            .filter(|value| value.as_str().is_some_and(|text| !text.is_empty()))
        {
            *value = hidden();
        }
    }
    raw
}
