//! Lambda's JSON types, with names as on the wire. Unknown fields are ignored, every enum is open,
//! and optional fields are parsed leniently ([`lenient`]), because the live API is ahead of its
//! documentation.

use std::collections::BTreeMap;

use atlas_http::lenient::{self, Cursor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::network::FirewallRule;

/// The envelope of successful answers, in `data`.
#[derive(Debug, Deserialize)]
pub(crate) struct Envelope<T> {
    pub(crate) data: T,
    #[serde(default)]
    pub(crate) page_token: Cursor,
}

/// The envelope of errors, in `error`.
#[derive(Debug, Deserialize)]
pub(crate) struct ErrorEnvelope {
    pub(crate) error: ErrorBody,
}

/// Use `code` for decisions; the message may change, and may echo what was sent.
#[derive(Debug, Deserialize)]
pub(crate) struct ErrorBody {
    pub(crate) code: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Instance {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) id: String,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) name: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) ip: Option<String>,
    #[serde(default = "lenient::no_word", deserialize_with = "lenient::word")]
    pub(crate) status: String,
    #[serde(default, deserialize_with = "lenient::opt_object")]
    pub(crate) region: Option<SomeRegion>,
    #[serde(default, deserialize_with = "lenient::object")]
    pub(crate) instance_type: SomeType,
    #[serde(default, deserialize_with = "lenient::objects")]
    pub(crate) tags: Vec<SomeTag>,
}

/// The region of an instance, as far as it is reported.
#[derive(Debug, Deserialize)]
pub(crate) struct SomeRegion {
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) name: Option<String>,
}

/// The type of an instance, as far as it is reported.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct SomeType {
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) name: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) price_cents_per_hour: Option<i64>,
    #[serde(default, deserialize_with = "lenient::object")]
    pub(crate) specs: SomeSpecs,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct SomeSpecs {
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) gpus: Option<u32>,
}

/// A tag of an instance, as far as it is reported.
#[derive(Debug, Deserialize)]
pub(crate) struct SomeTag {
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) key: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) value: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Region {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) name: String,
}

/// A type of the price list. Without a price or a number of GPUs it cannot be chosen.
#[derive(Debug, Deserialize)]
pub(crate) struct InstanceType {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) name: String,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) description: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) gpu_description: Option<String>,
    /// US cents for the whole instance.
    #[serde(deserialize_with = "lenient::number")]
    pub(crate) price_cents_per_hour: i64,
    pub(crate) specs: Specs,
}

impl InstanceType {
    /// Whether this type is the one that a key of the price list names: `gpu_8x_h100_sxm5`.
    pub(crate) fn is_called(&self, key: &str) -> bool {
        let count = key
            .strip_prefix("gpu_")
            .and_then(|rest| rest.split_once('x')?.0.parse::<u32>().ok());
        self.name == key && count.is_none_or(|count| count == self.specs.gpus)
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Specs {
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) vcpus: Option<u32>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) memory_gib: Option<u32>,
    #[serde(deserialize_with = "lenient::number")]
    pub(crate) gpus: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tag {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// The price list: an object keyed by type name.
#[derive(Debug)]
pub(crate) struct InstanceTypes {
    pub(crate) types: BTreeMap<String, InstanceTypeItem>,
    /// Whether there are types and all of them could be read. Only then does a missing type mean
    /// that Lambda does not have it.
    pub(crate) complete: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct InstanceTypeItem {
    pub(crate) instance_type: InstanceType,
    #[serde(default, deserialize_with = "open_regions")]
    pub(crate) regions_with_capacity_available: Vec<Region>,
}

/// The regions that have a name.
fn open_regions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Region>, D::Error> {
    let regions: Vec<SomeRegion> = lenient::objects(deserializer)?;
    let named = regions.into_iter().filter_map(|region| region.name);
    Ok(named.map(|name| Region { name }).collect())
}

#[derive(Debug, Serialize)]
pub(crate) struct Launch {
    pub(crate) region_name: String,
    pub(crate) instance_type_name: String,
    pub(crate) ssh_key_names: [String; 1],
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_data: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) file_system_names: Vec<String>,
    pub(crate) tags: Vec<Tag>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) firewall_rulesets: Vec<Id>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Id {
    pub(crate) id: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Launched {
    pub(crate) instance_ids: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct InstanceIds<'a> {
    pub(crate) instance_ids: [&'a str; 1],
}

#[derive(Debug, Deserialize)]
pub(crate) struct SshKey {
    pub(crate) name: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct CreateRuleset<'a> {
    pub(crate) name: &'a str,
    pub(crate) region: &'a str,
    pub(crate) rules: Vec<FirewallRule>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Ruleset {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) id: String,
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) name: String,
    pub(crate) region: Region,
}

/// The rules of a workspace; their name contains the workspace's.
#[derive(Debug, Deserialize)]
pub(crate) struct GlobalRuleset {
    #[serde(default)]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct FileSystem {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) id: String,
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) name: String,
    pub(crate) region: Region,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) bytes_used: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct CreateFileSystem<'a> {
    pub(crate) name: &'a str,
    pub(crate) region: &'a str,
}

/// Fields of an instance that hold secrets.
const SECRET_FIELDS: [&str; 2] = ["jupyter_token", "jupyter_url"];

/// The cloud's own description, without the secrets it echoes.
pub(crate) fn redacted(mut raw: Value) -> Value {
    for field in SECRET_FIELDS {
        if let Some(value) = raw.get_mut(field) {
            *value = Value::from(atlas_core::REDACTED);
        }
    }
    raw
}
