//! Fly's JSON types, with names as on the wire. Parsing is lenient ([`lenient`]): every field
//! except an id may be missing or malformed, and unknown ones are ignored.

use std::collections::BTreeMap;

use atlas_http::lenient::{self, Cursor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The usual error body, and its variants.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ErrorBody {
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) error: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) message: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) status: Option<String>,
}

impl ErrorBody {
    pub(crate) fn text(&self) -> &str {
        self.error
            .as_deref()
            .or(self.message.as_deref())
            .unwrap_or_default()
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Machine {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) id: String,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) name: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) app_name: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_word")]
    pub(crate) state: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) region: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) created_at: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) version: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) instance_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_object")]
    pub(crate) config: Option<ReadConfig>,
    /// The known part of the configuration, if the host does not answer.
    #[serde(default, deserialize_with = "lenient::opt_object")]
    pub(crate) incomplete_config: Option<ReadConfig>,
    #[serde(default, deserialize_with = "lenient::objects")]
    pub(crate) events: Vec<Event>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct ReadConfig {
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) image: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_object")]
    pub(crate) guest: Option<ReadGuest>,
    #[serde(default, deserialize_with = "lenient::text_map")]
    pub(crate) metadata: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct ReadGuest {
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) cpu_kind: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) cpus: Option<u32>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) memory_mb: Option<u32>,
    /// Present for machines from before August 2026.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) gpus: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) id: Option<String>,
    #[serde(default, rename = "type", deserialize_with = "lenient::opt_text")]
    pub(crate) kind: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) status: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) source: Option<String>,
    /// In milliseconds.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) timestamp: Option<i64>,
    #[serde(default)]
    pub(crate) request: Option<Value>,
}

/// How a container ended: in `request.MonitorEvent.exit_event` or `request.exit_event`.
#[derive(Debug, Deserialize)]
pub(crate) struct ExitEvent {
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) exit_code: Option<i32>,
    #[serde(default, deserialize_with = "not_false")]
    pub(crate) requested_stop: bool,
    #[serde(default, deserialize_with = "not_false")]
    pub(crate) restarting: bool,
    #[serde(default, deserialize_with = "is_true")]
    pub(crate) oom_killed: bool,
}

fn is_true<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(lenient::opt_flag(deserializer)? == Some(true))
}

/// False if it is missing or false. An unreadable value does not prove that a container ended by
/// itself.
fn not_false<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(lenient::opt_flag(deserializer)? != Some(false))
}

#[derive(Debug, Deserialize)]
pub(crate) struct OrgMachines {
    pub(crate) machines: Option<Vec<Value>>,
    #[serde(default)]
    pub(crate) next_cursor: Cursor,
    #[serde(default)]
    pub(crate) error_regions: Value,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OrgVolumes {
    pub(crate) volumes: Option<Vec<Value>>,
    #[serde(default)]
    pub(crate) next_cursor: Cursor,
    /// Not documented; if it is present and not empty, the list is incomplete.
    #[serde(default)]
    pub(crate) error_regions: Value,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Volume {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) id: String,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) name: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) app_name: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_word")]
    pub(crate) state: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) size_gb: Option<u32>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) region: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) attached_machine_id: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct CreateVolume<'a> {
    pub(crate) name: &'a str,
    pub(crate) region: &'a str,
    pub(crate) size_gb: u32,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Extended {
    pub(crate) volume: Volume,
}

#[derive(Debug, Deserialize)]
pub(crate) struct App {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) name: String,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) network: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) machine_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient::opt_object")]
    pub(crate) organization: Option<Organization>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Organization {
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) slug: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Apps {
    pub(crate) apps: Option<Vec<App>>,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) total_apps: Option<u64>,
    #[serde(default)]
    pub(crate) next_cursor: Cursor,
}

/// The field is `name`; the documentation's prose says `app_name`.
#[derive(Debug, Serialize)]
pub(crate) struct CreateApp<'a> {
    pub(crate) name: &'a str,
    pub(crate) org_slug: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<&'a str>,
    pub(crate) idempotency_key: &'a str,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Ips {
    pub(crate) ips: Option<Vec<Ip>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Ip {
    pub(crate) ip: String,
    #[serde(default)]
    pub(crate) shared: bool,
    #[serde(default)]
    pub(crate) egress: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct AssignIp<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
}

#[derive(Debug, Serialize)]
pub(crate) struct SetSecrets<'a> {
    pub(crate) values: BTreeMap<&'a str, &'a str>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SecretsSet {
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) version: Option<u64>,
    /// The same under its old name.
    #[serde(default, rename = "Version", deserialize_with = "lenient::opt_number")]
    pub(crate) old_version: Option<u64>,
}

/// The tokens that an `Authorization` header consists of. They decide what may be rented, so they
/// are read strictly: an odd field is an answer that was not understood, never a narrower or wider
/// token.
#[derive(Debug, Deserialize)]
pub(crate) struct Tokens {
    pub(crate) tokens: Vec<Token>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Token {
    /// Empty for a user's own token, which belongs to no particular organisation.
    pub(crate) org_slug: String,
    /// The apps that it is limited to; none for a token of the whole organisation.
    #[serde(default)]
    pub(crate) apps: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ReadLease {
    #[serde(default)]
    pub(crate) data: Option<LeaseData>,
    #[serde(flatten)]
    pub(crate) bare: LeaseData,
}

#[derive(Debug, Deserialize)]
pub(crate) struct LeaseData {
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) nonce: Option<String>,
    /// In seconds.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub(crate) expires_at: Option<i64>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) owner: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub(crate) description: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct TakeLease<'a> {
    pub(crate) ttl: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Waited {
    #[serde(default, deserialize_with = "lenient::opt_word")]
    pub(crate) state: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Version {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) version: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct MetadataValue {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) value: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Exec<'a> {
    pub(crate) command: &'a [String],
    pub(crate) timeout: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Executed {
    #[serde(default)]
    pub(crate) exit_code: i32,
    #[serde(default)]
    pub(crate) stdout: String,
    #[serde(default)]
    pub(crate) stderr: String,
}

/// The real service has also answered with capitalised names.
#[derive(Debug, Deserialize)]
pub(crate) struct Regions {
    #[serde(alias = "Regions")]
    pub(crate) regions: Vec<Region>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Region {
    #[serde(alias = "Code")]
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) code: String,
    #[serde(default, alias = "Name", deserialize_with = "lenient::text")]
    pub(crate) name: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct AskPlacement<'a> {
    pub(crate) org_slug: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) region: Option<&'a str>,
    pub(crate) count: u32,
    pub(crate) compute: crate::config_wire::Guest,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Placements {
    pub(crate) regions: Option<Vec<Placement>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Placement {
    pub(crate) region: String,
    #[serde(default)]
    pub(crate) count: u32,
}

/// Removes secrets from a description: environments, files, and the nonce that permits changing a
/// machine.
pub(crate) fn redact(raw: &mut Value) {
    for config in ["config", "incomplete_config"] {
        raw.get_mut(config).map(redact_config);
    }
    for nonce in ["/nonce", "/lease/nonce"] {
        if let Some(nonce) = raw.pointer_mut(nonce) {
            *nonce = Value::from(atlas_core::REDACTED);
        }
    }
}

fn redact_config(config: &mut Value) {
    let Value::Object(fields) = config else {
        return;
    };
    if let Some(Value::Object(env)) = fields.get_mut("env") {
        env.values_mut()
            .for_each(|value| *value = Value::from(atlas_core::REDACTED));
    }
    for file in fields
        .get_mut("files")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(value) = file.get_mut("raw_value") {
            *value = Value::from(atlas_core::REDACTED);
        }
    }
    for part in ["processes", "containers"] {
        fields
            .get_mut(part)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
            .for_each(redact_config);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_holds_secrets_is_redacted_and_the_rest_is_kept() {
        let mut raw = json!({
            "id": "6e", "nonce": "zz-nonce", "state": "started",
            "config": {
                "image": "x", "env": { "A": "zz-env" }, "files": [{ "guest_path": "/a",
                    "raw_value": "enotemV2" }],
                "containers": [{ "name": "c", "env": { "B": "zz-inner" } }],
            },
        });
        redact(&mut raw);
        let text = raw.to_string();
        assert!(
            !text.contains("zz-") && !text.contains("enotemV2"),
            "{text}"
        );
        assert_eq!(
            (
                &raw["id"],
                &raw["config"]["image"],
                raw["config"]["env"]["A"].is_string()
            ),
            (&json!("6e"), &json!("x"), true)
        );
        let mut bare = json!({ "id": "6e" });
        redact(&mut bare);
        assert_eq!(bare, json!({ "id": "6e" }));
    }

    #[test]
    fn odd_descriptions_are_read() {
        for text in [
            r#"{"id":"6e"}"#,
            r#"{"id":"6e","config":null,"events":null,"checks":null,"image_ref":{"labels":null}}"#,
            r#"{"id":"6e","state":"brand-new","host_status":"unreachable","incomplete_config":{"metadata":null},"future":[1]}"#,
            r#"{"id":"6e","config":{"services":[{"autostop":false}],"guest":{"gpus":1,"gpu_kind":"a10"}}}"#,
        ] {
            assert_eq!(
                serde_json::from_str::<Machine>(text).unwrap().id,
                "6e",
                "{text}"
            );
        }
        assert_eq!(
            serde_json::from_str::<Regions>(r#"{"Nearest":"fra","Regions":[{"code":"fra"}]}"#)
                .unwrap()
                .regions
                .len(),
            1
        );
    }
}
