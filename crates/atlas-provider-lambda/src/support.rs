//! The supporting object of a machine: the firewall rule set that opens its ports.

use atlas_core::{
    CallContext, Claim, ComputeRequest, ComputeStatus, Error, ErrorKind, LaunchKey, Result,
    Support, TrackedKey,
};
use serde_json::{Value, json};

use crate::network::FirewallRule;
use crate::{Lambda, SSH_KEY_ENV, translate, wire};

/// The kind of supporting object that opens a machine's ports.
const RULESET: &str = "firewall-ruleset";
const MAX_NAME: usize = 64;

/// The rule set that opens the machine's ports; none if no port is requested. A request that is
/// not pinned and may go to several regions has no plan yet: its region is known when it is
/// placed.
pub(crate) fn planned(key: &LaunchKey, request: &ComputeRequest) -> Vec<Support> {
    if request.ports.is_empty() {
        return Vec::new();
    }
    let Some(spec) = ruleset_spec(request) else {
        return Vec::new();
    };
    let name = match key.tracked() {
        Some(key) => format!("atlas-{key}"),
        // Without an attempt that would release it, one rule set serves every machine with
        // these ports in the region.
        None => shared_ruleset_name(&spec),
    };
    vec![Support {
        kind: RULESET.to_owned(),
        name,
        id: None,
        spec,
    }]
}

/// The parameters of a machine's rule set; `None` while its region is not decided.
fn ruleset_spec(request: &ComputeRequest) -> Option<Value> {
    let pinned = request
        .candidate
        .as_ref()
        .and_then(|candidate| candidate.region.as_deref());
    // Region names are in lower case.
    let region = match (pinned, &request.region_hints[..]) {
        (Some(region), _) => region.to_owned(),
        (None, [only]) => only.to_ascii_lowercase(),
        (None, _) => return None,
    };
    Some(json!({ "region": region,
            "ports": request.ports.iter().map(|port| port.number()).collect::<Vec<_>>() }))
}

/// The name of a rule set that all machines with these ports in that region can share. Long lists
/// are distinguished by a digest.
fn shared_ruleset_name(spec: &Value) -> String {
    let mut ports: Vec<u64> = spec["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    let ports = ports
        .iter()
        .map(u64::to_string)
        .collect::<Vec<_>>()
        .join("-");
    let name = |ports: &str| {
        format!(
            "atlas-{}-{ports}",
            spec["region"].as_str().unwrap_or_default()
        )
    };
    if name(&ports).len() <= MAX_NAME {
        return name(&ports);
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, ports.as_bytes());
    name(&data_encoding::HEXLOWER.encode(&digest.as_ref()[..12]))
}

/// Parses region and ports of a rule set.
fn read_ruleset_spec(spec: &Value) -> Result<(String, Vec<u16>)> {
    let wrong = || Error::validation("support", "is not a rule set of lambda");
    let region = spec["region"].as_str().ok_or_else(wrong)?.to_owned();
    let port = |port: &Value| {
        port.as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .ok_or_else(wrong)
    };
    let ports = spec["ports"]
        .as_array()
        .ok_or_else(wrong)?
        .iter()
        .map(port)
        .collect::<Result<_>>()?;
    Ok((region, ports))
}

/// The rules of a machine's own rule set. Port 22 is always included, because Lambda does not
/// document whether a rule set adds to the account's rules.
fn rules(ports: &[u16]) -> Vec<FirewallRule> {
    let mut ports: Vec<u16> = ports.iter().copied().chain([22]).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
        .into_iter()
        .map(|port| FirewallRule::tcp(port..=port, "atlas"))
        .collect()
}

impl Lambda {
    /// The id of the rule set that a launch uses, if it needs one.
    pub(crate) async fn ruleset(
        &self,
        cx: &CallContext,
        key: &LaunchKey,
        request: &ComputeRequest,
    ) -> Result<Option<String>> {
        let Some(wanted) = planned(key, request).into_iter().next() else {
            return Ok(None);
        };
        Ok(self
            .ensure_ruleset(cx, &wanted)
            .await
            .map_err(Error::before_the_order)?
            .id)
    }

    /// Names are not unique at Lambda: a lost answer is resolved by searching for the name before
    /// another one is made.
    pub(crate) async fn ensure_ruleset(
        &self,
        cx: &CallContext,
        support: &Support,
    ) -> Result<Support> {
        let existing = self.cloud.rulesets(cx, "ensure_support find").await?;
        let (region, ports) = read_ruleset_spec(&support.spec)?;
        if let Some(ruleset) = existing
            .into_iter()
            .find(|set| set.name == support.name && set.region.name == region)
        {
            return Ok(Support {
                id: Some(ruleset.id),
                ..support.clone()
            });
        }
        // Without a key there will be no machine, and the rule set would be useless.
        self.ssh_key_of_account(cx).await?;
        let body = wire::CreateRuleset {
            name: &support.name,
            region: &region,
            rules: rules(&ports),
        };
        let made = self.cloud.create_ruleset(cx, &body).await?;
        Ok(Support {
            id: Some(made.id),
            ..support.clone()
        })
    }

    /// Refused while the machine exists and for a while afterwards, so it is repeated until it
    /// succeeds. All rule sets with the name are deleted: a lost answer may have left two.
    pub(crate) async fn release_ruleset(&self, cx: &CallContext, support: &Support) -> Result<()> {
        let existing = self.cloud.rulesets(cx, "release_support find").await?;
        for ruleset in existing
            .into_iter()
            .filter(|ruleset| ruleset.name == support.name)
        {
            match self.cloud.delete_ruleset(cx, &ruleset.id).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    if !self.is_others(cx, &ruleset.id, &support.name).await? {
                        return Err(error);
                    }
                }
                answer => answer?,
            }
        }
        Ok(())
    }

    /// Whether a rule set is used only by machines of other owners. Atlas will not end those, so
    /// the rule set, which costs nothing, is left in place. A machine with our complete key is
    /// waited for.
    async fn is_others(&self, cx: &CallContext, ruleset: &str, name: &str) -> Result<bool> {
        let Some(key) = TrackedKey::in_name(name) else {
            return Ok(false);
        };
        let walk = self.cloud.instances(cx).await?;
        let mut others = walk.missing.is_none();
        let mut guarded = false;
        for raw in walk.items {
            let by_it = raw["firewall_rulesets"]
                .as_array()
                .is_some_and(|sets| sets.iter().any(|set| set["id"] == ruleset));
            let Ok(machine) = translate::compute(&self.id, raw) else {
                // The owner cannot be determined.
                others &= !by_it;
                continue;
            };
            if by_it && machine.status != ComputeStatus::Terminated {
                guarded = true;
                others &= machine.keys.claim() != Claim::Whole(key);
            }
        }
        Ok(guarded && others)
    }

    /// The key that a launch would name, from the account's list of keys.
    pub(crate) async fn ssh_key_of_account(&self, cx: &CallContext) -> Result<String> {
        let keys = self
            .cloud
            .ssh_keys(cx)
            .await
            .map_err(Error::before_the_order)?;
        if let Some(name) = &self.ssh_key {
            if keys.iter().any(|key| key.name == *name) {
                return Ok(name.clone());
            }
            let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
            return Err(Error::validation(
                "ssh_key",
                format!(
                    "the account has no SSH key {name:?}: it has {}",
                    if names.is_empty() {
                        "none".to_owned()
                    } else {
                        names.join(", ")
                    }
                ),
            ));
        }
        match &keys[..] {
            [only] => Ok(only.name.clone()),
            [] => Err(Error::validation(
                "ssh_key",
                "lambda demands one and the account has none: add one there",
            )),
            _ => Err(Error::validation(
                "ssh_key",
                format!("the account has several: name one in {SSH_KEY_ENV}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_sets_are_shared_by_the_same_ports_in_one_region_only() {
        let name = |region: &str, ports: &[u16]| {
            shared_ruleset_name(&json!({ "region": region, "ports": ports }))
        };
        assert_eq!(
            name("us-east-1", &[8000, 22, 8000]),
            "atlas-us-east-1-22-8000"
        );
        let many: Vec<u16> = (8000..8030).collect();
        let other: Vec<u16> = (8000..8029).chain([9000]).collect();
        assert_ne!(name("us-east-1", &many), name("us-east-1", &other));
        assert_ne!(name("us-east-1", &many), name("us-west-2", &many));
        assert!(name("asia-northeast-1", &many).len() <= MAX_NAME);
    }
}
