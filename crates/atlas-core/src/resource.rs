//! What belongs to an account besides machines: logs, network volumes, spend.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ComputeId, VolumeId};
use crate::money::Usd;
use crate::size::DiskSize;
use crate::time::Timestamp;

/// Which of a machine's logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    /// What the container printed.
    #[default]
    Container,
    /// What the cloud says about it: pulls, starts, kills.
    System,
}

/// Which lines to read.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LogQuery {
    /// Which of its logs; both where unset.
    pub source: Option<LogSource>,
    /// The last so many lines.
    pub tail: Option<u32>,
    /// Lines from then on; beats `tail`.
    pub since: Option<Timestamp>,
    /// Goes on with new lines instead of ending.
    pub follow: bool,
}

impl LogQuery {
    /// The last so many lines.
    #[must_use]
    pub fn tail(self, lines: u32) -> Self {
        Self {
            tail: Some(lines),
            ..self
        }
    }

    /// Goes on with new lines.
    #[must_use]
    pub fn follow(self, follow: bool) -> Self {
        Self { follow, ..self }
    }
}

/// One line of a machine's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written, as the cloud says.
    pub timestamp: Option<Timestamp>,
    /// Which log it is of.
    pub source: LogSource,
    /// The line, without its end.
    pub text: String,
}

/// A network volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkVolume {
    /// What the cloud calls it.
    pub id: VolumeId,
    /// Its name; clouds do not keep names unique.
    pub name: String,
    /// Its capacity.
    #[serde(rename = "size_gb")]
    pub size: DiskSize,
    /// Where it is; machines that mount it must be there too.
    pub region: String,
}

impl NetworkVolume {
    /// A volume.
    pub fn new(
        id: VolumeId,
        name: impl Into<String>,
        size: DiskSize,
        region: impl Into<String>,
    ) -> Self {
        Self {
            id,
            name: name.into(),
            size,
            region: region.into(),
        }
    }
}

/// A network volume to create. It bills until it is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRequest {
    /// The name the volume is created with.
    pub name: String,
    /// Its capacity.
    #[serde(rename = "size_gb")]
    pub size: DiskSize,
    /// The region to create it in.
    pub region: String,
}

/// What a cloud billed for a machine in a span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComputeSpend {
    /// Which machine.
    pub id: ComputeId,
    /// From when.
    pub start: Timestamp,
    /// Until when.
    pub end: Timestamp,
    /// How much. Clouds bill in arrears: a recent span can still grow.
    pub amount: Usd,
}

/// Whose spend, and from when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpendQuery {
    /// Only of this machine.
    pub id: Option<ComputeId>,
    /// From when.
    pub start: Timestamp,
    /// Until when.
    pub end: Timestamp,
}

/// How long a cloud needs, and how often it may be called: configuration of an account, with the
/// provider's own as default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountLimits {
    /// The longest until a machine that was created shows in listings and point reads, and one that
    /// ended stops to.
    pub visibility_bound: Duration,
    /// The longest one call may take, its retries included.
    pub call_deadline: Duration,
    /// The least time between two calls, on average.
    pub call_interval: Duration,
    /// How many calls may come at once before that average counts.
    pub burst: u32,
    /// How many calls may be under way at once.
    pub concurrency: u32,
}

impl Default for AccountLimits {
    fn default() -> Self {
        Self {
            visibility_bound: Duration::from_secs(120),
            call_deadline: Duration::from_secs(30),
            call_interval: Duration::from_millis(100),
            burst: 10,
            concurrency: 16,
        }
    }
}

/// A supporting object of a machine: an app, an address, a rule set. Made before it, released with
/// it, idempotent by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Support {
    /// What kind of thing, in the cloud's words: `app`, `ip`, `firewall-ruleset`.
    pub kind: String,
    /// Its name, made from the launch key, so that making it twice makes one.
    pub name: String,
    /// What the cloud calls it, once it exists.
    pub id: Option<String>,
    /// What else its provider needs to make it: a region, rules. No secrets.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub spec: serde_json::Value,
}
