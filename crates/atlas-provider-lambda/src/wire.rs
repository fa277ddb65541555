//! Lambda's JSON, names as on the wire. Unknown fields are ignored and every enum is open: the live
//! API runs ahead of its document.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::resources::FirewallRule;

/// Success travels only inside `data`.
#[derive(Debug, Deserialize)]
pub(crate) struct Envelope<T> {
    pub(crate) data: T,
    #[serde(default)]
    pub(crate) page_token: Option<String>,
}

/// Errors travel only inside `error`.
#[derive(Debug, Deserialize)]
pub(crate) struct ErrorEnvelope {
    pub(crate) error: ErrorBody,
}

/// Decide by `code`; the message may change, and may echo what was sent.
#[derive(Debug, Deserialize)]
pub(crate) struct ErrorBody {
    pub(crate) code: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Instance {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) ip: Option<String>,
    pub(crate) status: String,
    pub(crate) region: Region,
    pub(crate) instance_type: InstanceType,
    #[serde(default)]
    pub(crate) tags: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Region {
    pub(crate) name: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct InstanceType {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) gpu_description: String,
    /// US cents for the whole instance.
    pub(crate) price_cents_per_hour: i64,
    pub(crate) specs: Specs,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Specs {
    pub(crate) vcpus: u32,
    pub(crate) memory_gib: u32,
    pub(crate) gpus: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tag {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// The price list: an object keyed by type name.
pub(crate) type InstanceTypes = BTreeMap<String, InstanceTypeItem>;

#[derive(Debug, Deserialize)]
pub(crate) struct InstanceTypeItem {
    pub(crate) instance_type: InstanceType,
    #[serde(default)]
    pub(crate) regions_with_capacity_available: Vec<Region>,
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
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) region: Region,
}

/// The rules of a whole workspace, in whose name the workspace is.
#[derive(Debug, Deserialize)]
pub(crate) struct GlobalRuleset {
    #[serde(default)]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct FileSystem {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) region: Region,
    #[serde(default)]
    pub(crate) bytes_used: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct CreateFileSystem<'a> {
    pub(crate) name: &'a str,
    pub(crate) region: &'a str,
}

/// Fields of an instance that hold secrets.
const SECRET_FIELDS: [&str; 2] = ["jupyter_token", "jupyter_url"];

/// The cloud's own description without the secrets it echoes.
pub(crate) fn redacted(mut raw: Value) -> Value {
    for field in SECRET_FIELDS {
        if let Some(value) = raw.get_mut(field) {
            *value = Value::from(atlas_core::REDACTED);
        }
    }
    raw
}
