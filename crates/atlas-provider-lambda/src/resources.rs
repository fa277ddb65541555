//! Resources of an account besides machines: SSH keys, images, regions, firewall rules and rule
//! sets, file systems, the audit trail.
//!
//! Deliberately absent: cluster fabric and support tickets, which no machine of ours needs.

use atlas_core::{CallContext, ComputeId, Error, Result, RetryClass, Secret, Timestamp};
use atlas_http::{Call, Walk};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Lambda;
use crate::network::{FirewallRule, Region};

/// A public key that launches may name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct SshKey {
    /// Its id at Lambda.
    pub id: String,
    /// The name used in a launch.
    pub name: String,
    /// The public half.
    pub public_key: String,
}

/// A boot image of machines. Ids are per region and become outdated, so launches should name a
/// family.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Image {
    /// Its id, a UUID.
    pub id: String,
    /// The image's name.
    pub name: String,
    /// The family of which it is, or was, the latest image.
    pub family: String,
    /// The image's version, as Lambda writes it.
    pub version: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// The region of the image.
    pub region: Region,
}

/// A set of rules that a launch in its region can use. It cannot be added to a machine later.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct FirewallRuleset {
    /// Its id at Lambda.
    pub id: String,
    /// Its name, which need not be unique.
    pub name: String,
    /// The region where it applies; `None` for the account's global one.
    #[serde(default)]
    pub region: Option<Region>,
    /// The admitted traffic.
    pub rules: Vec<FirewallRule>,
    /// The machines that use it.
    #[serde(default)]
    pub instance_ids: Vec<String>,
}

/// A shared file system. Its contents bill, mounted or not.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct FileSystem {
    /// Its id at Lambda.
    pub id: String,
    /// The name used in a launch.
    pub name: String,
    /// The default mount path.
    pub mount_point: String,
    /// When it was created.
    pub created: Timestamp,
    /// Whether a machine uses it; it then cannot be deleted.
    pub is_in_use: bool,
    /// The region of the file system.
    pub region: Region,
    /// Approximate size of its contents in bytes.
    #[serde(default)]
    pub bytes_used: Option<u64>,
}

/// Selects events of the audit trail; unset fields select all.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AuditQuery {
    /// Not before this instant.
    pub start: Option<Timestamp>,
    /// Not after this instant.
    pub end: Option<Timestamp>,
    /// Only of this kind, such as `cloud.instance`.
    pub resource_type: Option<String>,
}

/// An event in the account: independent evidence of a launch, and the only source of its time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct AuditEvent {
    /// The event's id at Lambda.
    pub event_id: String,
    /// When it happened.
    pub event_time: Timestamp,
    /// The kind of resource it concerned.
    pub resource_name: String,
    /// The action.
    pub action: String,
    /// The affected resources, as Lambda names them.
    #[serde(default)]
    pub resource_lrns: Vec<String>,
    /// Further details, depending on the kind of event.
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
    /// Renames a machine. Nothing else about it can be changed. Its launch key remains in its tag.
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
    /// A dropped call may have added it: names are not unique.
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

    /// Lets Lambda generate a key pair; the private half is returned only once and is not stored.
    ///
    /// # Errors
    /// `validation` for a name that is not 1 to 64 characters.
    ///
    /// # Cancel safety
    /// A dropped call may have left a key whose private half is lost.
    pub async fn generate_ssh_key(&self, cx: &CallContext, name: &str) -> Result<(SshKey, Secret)> {
        let call = Call::post("generate_ssh_key", RetryClass::Create, ["ssh-keys"])
            .json(&json!({ "name": key_name(name)? }));
        let made: GeneratedKey = self.cloud.data(cx, call).await?;
        Ok((made.key, made.private_key))
    }

    /// Removes an SSH key; machines that have it keep it. If it does not exist, the call succeeds.
    ///
    /// # Errors
    /// Like any call. Idempotent.
    pub async fn delete_ssh_key(&self, cx: &CallContext, id: &str) -> Result<()> {
        self.cloud
            .delete(cx, "delete_ssh_key", ["ssh-keys", id])
            .await
    }

    /// The boot images, one entry per region.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn images(&self, cx: &CallContext) -> Result<Vec<Image>> {
        self.cloud
            .data(cx, Call::get("images", RetryClass::Safe, ["images"]))
            .await
    }

    /// The regions.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn regions(&self, cx: &CallContext) -> Result<Vec<Region>> {
        self.cloud
            .data(cx, Call::get("regions", RetryClass::Safe, ["regions"]))
            .await
    }

    /// The traffic that all machines of the account admit.
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

    /// Replaces **all** of the account's rules, including rules that were added concurrently;
    /// returns the stored ones.
    ///
    /// # Errors
    /// `validation` for a rule that Lambda does not accept. A dropped call may have replaced them.
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

    /// The account's rule sets, including those of atlas's machines.
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

    /// Creates a rule set in a region.
    ///
    /// # Errors
    /// `validation` for a name or rule that Lambda does not accept.
    ///
    /// # Cancel safety
    /// A dropped call may have created it: names are not unique.
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

    /// Changes a rule set's name, rules, or both; this affects the machines that use it. The
    /// account's set, `global`, has rules only.
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

    /// Deletes a rule set. If it does not exist, the call succeeds.
    ///
    /// # Errors
    /// `conflict` while a machine uses it, and for a while afterwards. Idempotent.
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

    /// The events in the account, from all pages.
    ///
    /// # Errors
    /// Like any read, and `provider` when the pages do not end, because an incomplete trail is
    /// useless. Cancel safe.
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
