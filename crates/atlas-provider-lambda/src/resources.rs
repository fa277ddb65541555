//! What an account has besides machines: SSH keys, images, regions, firewall rules and rule sets,
//! file systems, its audit trail.
//!
//! Deliberately absent: cluster fabric and support tickets, which no machine of ours needs.

use std::ops::RangeInclusive;

use atlas_core::{CallContext, ComputeId, Error, Result, RetryClass, Secret, Timestamp};
use atlas_http::{Call, Walk};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::Lambda;

/// A public key that launches may name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct SshKey {
    /// Lambda's id of it.
    pub id: String,
    /// What a launch names it by.
    pub name: String,
    /// The public half.
    pub public_key: String,
}

/// A place where machines are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Region {
    /// Its name in requests.
    pub name: String,
    /// Its name for people.
    #[serde(default)]
    pub description: String,
}

/// What a machine boots from. Ids are per region and go stale: launches do better to name a family.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Image {
    /// Its id, a UUID.
    pub id: String,
    /// The image's name.
    pub name: String,
    /// The family it is the latest of, or was.
    pub family: String,
    /// The image's version, as Lambda writes it.
    pub version: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// Where it is.
    pub region: Region,
}

/// One thing that is let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FirewallRule {
    /// `tcp`, `udp`, `icmp` or `all`.
    pub protocol: String,
    /// First and last port; none for `icmp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_range: Option<[u16; 2]>,
    /// From where, in CIDR notation.
    pub source_network: String,
    /// For people.
    #[serde(default)]
    pub description: String,
}

impl FirewallRule {
    /// These TCP ports, from anywhere.
    #[must_use]
    pub fn tcp(ports: RangeInclusive<u16>, description: impl Into<String>) -> Self {
        Self {
            protocol: "tcp".to_owned(),
            port_range: Some([*ports.start(), *ports.end()]),
            source_network: "0.0.0.0/0".to_owned(),
            description: description.into(),
        }
    }

    /// The same, from this network only.
    #[must_use]
    pub fn from(self, network: impl Into<String>) -> Self {
        Self {
            source_network: network.into(),
            ..self
        }
    }
}

/// Rules that a launch in their region can be given. They cannot be given later.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct FirewallRuleset {
    /// Lambda's id of it.
    pub id: String,
    /// Its name, which need not be unique.
    pub name: String,
    /// Where it applies; none for the account's global one.
    #[serde(default)]
    pub region: Option<Region>,
    /// What it lets in.
    pub rules: Vec<FirewallRule>,
    /// The machines that have it.
    #[serde(default)]
    pub instance_ids: Vec<String>,
}

/// A shared file system. It bills for what is on it, mounted or not.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct FileSystem {
    /// Lambda's id of it.
    pub id: String,
    /// What a launch names it by.
    pub name: String,
    /// Where machines find it by default.
    pub mount_point: String,
    /// Since when it is.
    pub created: Timestamp,
    /// Whether a machine has it; then it cannot be deleted.
    pub is_in_use: bool,
    /// Where it is.
    pub region: Region,
    /// About how many bytes are on it.
    #[serde(default)]
    pub bytes_used: Option<u64>,
}

/// Which events to read; unset: all.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AuditQuery {
    /// Not before this.
    pub start: Option<Timestamp>,
    /// Not after this.
    pub end: Option<Timestamp>,
    /// Only of this kind, `cloud.instance` say.
    pub resource_type: Option<String>,
}

/// Something that was done in the account: independent evidence of a launch, and the only source of
/// its time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct AuditEvent {
    /// The event's id at Lambda.
    pub event_id: String,
    /// When it was.
    pub event_time: Timestamp,
    /// The kind of thing it was done to.
    pub resource_name: String,
    /// What was done.
    pub action: String,
    /// The things it was done to, as Lambda names resources.
    #[serde(default)]
    pub resource_lrns: Vec<String>,
    /// What else there is to say, by the kind of event.
    #[serde(default)]
    pub additional_details: Value,
}

#[derive(Deserialize)]
struct GeneratedKey {
    #[serde(flatten)]
    key: SshKey,
    private_key: Secret,
}

impl Lambda {
    /// Renames a machine: the only thing of it that can be changed. Its launch key stays in its
    /// tag.
    ///
    /// # Errors
    /// `validation` for more than 64 bytes; `not_found`. Idempotent.
    pub async fn rename(&self, cx: &CallContext, id: &ComputeId, name: &str) -> Result<()> {
        if name.len() > 64 {
            return Err(Error::validation("name", "has at most 64 characters"));
        }
        let call = Call::post("rename", RetryClass::Idempotent, ["instances", id.as_str()])
            .json(&json!({ "name": name }));
        self.cloud.data::<Value>(cx, call).await.map(drop)
    }

    /// The account's SSH keys.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn ssh_keys(&self, cx: &CallContext) -> Result<Vec<SshKey>> {
        self.cloud
            .data(cx, Call::get("ssh_keys", RetryClass::Safe, ["ssh-keys"]))
            .await
    }

    /// Adds a public key.
    ///
    /// # Errors
    /// `validation` for a name that is not 1 to 64 characters, or a key of more than one line.
    ///
    /// # Cancel safety
    /// Dropped, it may have been added: names are not unique.
    pub async fn add_ssh_key(
        &self,
        cx: &CallContext,
        name: &str,
        public_key: &str,
    ) -> Result<SshKey> {
        if public_key.is_empty() || public_key.contains(['\n', '\r']) {
            return Err(Error::validation(
                "public_key",
                "must be one line such as ssh-ed25519 AAAA... comment",
            ));
        }
        let body = json!({ "name": key_name(name)?, "public_key": public_key });
        self.cloud
            .data(
                cx,
                Call::post("add_ssh_key", RetryClass::Create, ["ssh-keys"]).json(&body),
            )
            .await
    }

    /// Has Lambda make a pair; the private half is answered this once and kept nowhere.
    ///
    /// # Errors
    /// `validation` for a name that is not 1 to 64 characters.
    ///
    /// # Cancel safety
    /// Dropped, a key may be there whose private half is lost.
    pub async fn generate_ssh_key(&self, cx: &CallContext, name: &str) -> Result<(SshKey, Secret)> {
        let call = Call::post("generate_ssh_key", RetryClass::Create, ["ssh-keys"])
            .json(&json!({ "name": key_name(name)? }));
        let made: GeneratedKey = self.cloud.data(cx, call).await?;
        Ok((made.key, made.private_key))
    }

    /// Removes an SSH key; machines that have it keep it. One that is not there is a success.
    ///
    /// # Errors
    /// Like any call. Idempotent.
    pub async fn delete_ssh_key(&self, cx: &CallContext, id: &str) -> Result<()> {
        self.cloud
            .delete(cx, "delete_ssh_key", ["ssh-keys", id])
            .await
    }

    /// What machines can boot from, a line for each region.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn images(&self, cx: &CallContext) -> Result<Vec<Image>> {
        self.cloud
            .data(cx, Call::get("images", RetryClass::Safe, ["images"]))
            .await
    }

    /// Where machines can be.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn regions(&self, cx: &CallContext) -> Result<Vec<Region>> {
        self.cloud
            .data(cx, Call::get("regions", RetryClass::Safe, ["regions"]))
            .await
    }

    /// What all machines of the account let in.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn firewall_rules(&self, cx: &CallContext) -> Result<Vec<FirewallRule>> {
        self.cloud
            .data(
                cx,
                Call::get("firewall_rules", RetryClass::Safe, ["firewall-rules"]),
            )
            .await
    }

    /// Replaces **all** of the account's rules, also those that others just added; answers what is
    /// kept.
    ///
    /// # Errors
    /// `validation` for a rule Lambda does not take. Dropped, it may have replaced them.
    pub async fn set_firewall_rules(
        &self,
        cx: &CallContext,
        rules: &[FirewallRule],
    ) -> Result<Vec<FirewallRule>> {
        let call = Call::put(
            "set_firewall_rules",
            RetryClass::Idempotent,
            ["firewall-rules"],
        )
        .json(&json!({ "data": rules }));
        self.cloud.data(cx, call).await
    }

    /// The account's rule sets, those of our machines among them.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn firewall_rulesets(&self, cx: &CallContext) -> Result<Vec<FirewallRuleset>> {
        self.cloud
            .data(
                cx,
                Call::get("firewall_rulesets", RetryClass::Safe, ["firewall-rulesets"]),
            )
            .await
    }

    /// One rule set; `global` is the account's.
    ///
    /// # Errors
    /// `not_found`. Cancel safe.
    pub async fn firewall_ruleset(&self, cx: &CallContext, id: &str) -> Result<FirewallRuleset> {
        self.cloud
            .data(
                cx,
                Call::get(
                    "firewall_ruleset",
                    RetryClass::Safe,
                    ["firewall-rulesets", id],
                ),
            )
            .await
    }

    /// Makes a rule set in a region.
    ///
    /// # Errors
    /// `validation` for a name or rule Lambda does not take.
    ///
    /// # Cancel safety
    /// Dropped, it may have been made: names are not unique.
    pub async fn create_firewall_ruleset(
        &self,
        cx: &CallContext,
        name: &str,
        region: &str,
        rules: &[FirewallRule],
    ) -> Result<FirewallRuleset> {
        let body = json!({ "name": name, "region": region, "rules": rules });
        let call = Call::post(
            "create_firewall_ruleset",
            RetryClass::Create,
            ["firewall-rulesets"],
        )
        .json(&body);
        self.cloud.data(cx, call).await
    }

    /// Changes a rule set's name, rules, or both; machines that have it follow. The account's,
    /// `global`, has rules only.
    ///
    /// # Errors
    /// `not_found`; `conflict`. Idempotent.
    pub async fn update_firewall_ruleset(
        &self,
        cx: &CallContext,
        id: &str,
        name: Option<&str>,
        rules: Option<&[FirewallRule]>,
    ) -> Result<FirewallRuleset> {
        let mut body = Map::new();
        body.extend(name.map(|name| ("name".to_owned(), json!(name))));
        body.extend(rules.map(|rules| ("rules".to_owned(), json!(rules))));
        let call = Call::patch(
            "update_firewall_ruleset",
            RetryClass::Idempotent,
            ["firewall-rulesets", id],
        )
        .json(&body);
        self.cloud.data(cx, call).await
    }

    /// Deletes a rule set. One that is not there is a success.
    ///
    /// # Errors
    /// `conflict` while a machine has it, and for a while after. Idempotent.
    pub async fn delete_firewall_ruleset(&self, cx: &CallContext, id: &str) -> Result<()> {
        self.cloud
            .delete(cx, "delete_firewall_ruleset", ["firewall-rulesets", id])
            .await
    }

    /// The account's file systems.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn file_systems(&self, cx: &CallContext) -> Result<Vec<FileSystem>> {
        self.cloud
            .data(
                cx,
                Call::get("file_systems", RetryClass::Safe, ["file-systems"]),
            )
            .await
    }

    /// What was done in the account, all pages of it.
    ///
    /// # Errors
    /// Like any read, and `provider` when the pages do not end: half a trail is no trail. Cancel
    /// safe.
    pub async fn audit_events(
        &self,
        cx: &CallContext,
        query: &AuditQuery,
    ) -> Result<Vec<AuditEvent>> {
        let call = |token: Option<String>| {
            Call::get("audit_events", RetryClass::Safe, ["audit-events"])
                .query_opt("start", query.start.map(|start| start.to_string()))
                .query_opt("end", query.end.map(|end| end.to_string()))
                .query_opt("resource_type", query.resource_type.as_ref())
                .query_opt("page_token", token)
        };
        let events = self.cloud.pages(cx, call).await.and_then(Walk::whole);
        events.map_err(|error| error.during(&self.id, "audit_events"))
    }
}

fn key_name(name: &str) -> Result<&str> {
    if (1..=64).contains(&name.chars().count()) {
        Ok(name)
    } else {
        Err(Error::validation("name", "has 1 to 64 characters"))
    }
}
