//! Where a machine is and what reaches it: regions and firewall rules.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// A region of machines.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Region {
    /// Its name in requests.
    pub name: String,
    /// The display name.
    #[serde(default)]
    pub description: String,
}

/// A rule that admits traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FirewallRule {
    /// `tcp`, `udp`, `icmp` or `all`.
    pub protocol: String,
    /// First and last port; `None` for `icmp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_range: Option<[u16; 2]>,
    /// The admitted source network, in CIDR notation.
    pub source_network: String,
    /// A description for display.
    #[serde(default)]
    pub description: String,
}

impl FirewallRule {
    /// Admits these TCP ports from anywhere.
    #[must_use]
    pub fn tcp(ports: RangeInclusive<u16>, description: impl Into<String>) -> Self {
        Self {
            protocol: "tcp".to_owned(),
            port_range: Some([*ports.start(), *ports.end()]),
            source_network: "0.0.0.0/0".to_owned(),
            description: description.into(),
        }
    }

    /// Restricts the rule to this source network.
    #[must_use]
    pub fn from(self, network: impl Into<String>) -> Self {
        Self {
            source_network: network.into(),
            ..self
        }
    }
}
