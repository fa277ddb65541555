//! Resources of an account besides machines: logs, network volumes, spend.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ComputeId, VolumeId};
use crate::money::Usd;
use crate::size::DiskSize;
use crate::time::Timestamp;

/// The source of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    /// Output of the container.
    #[default]
    Container,
    /// Messages of the cloud about the machine: pulls, starts, kills.
    System,
}

/// Selects log lines.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LogQuery {
    /// The log to read; both if unset.
    pub source: Option<LogSource>,
    /// Only this many of the last lines.
    pub tail: Option<u32>,
    /// Only lines since this instant; takes precedence over `tail`.
    pub since: Option<Timestamp>,
    /// Keeps the stream open for new lines.
    pub follow: bool,
}

impl LogQuery {
    /// Selects only this many of the last lines.
    #[must_use]
    pub fn tail(self, lines: u32) -> Self {
        Self {
            tail: Some(lines),
            ..self
        }
    }

    /// Keeps the stream open for new lines.
    #[must_use]
    pub fn follow(self, follow: bool) -> Self {
        Self { follow, ..self }
    }
}

/// One line of a machine's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When the line was written, according to the cloud.
    pub timestamp: Option<Timestamp>,
    /// The log that the line belongs to.
    pub source: LogSource,
    /// The line without its line end.
    pub text: String,
}

/// A network volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkVolume {
    /// The cloud's id of the volume.
    pub id: VolumeId,
    /// Its name; clouds do not keep names unique.
    pub name: String,
    /// The capacity of the volume.
    #[serde(rename = "size_gb")]
    pub size: DiskSize,
    /// The region; machines that mount the volume must be there too.
    pub region: String,
}

impl NetworkVolume {
    /// A volume with these fields.
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
    /// The capacity to create.
    #[serde(rename = "size_gb")]
    pub size: DiskSize,
    /// The region to create it in.
    pub region: String,
}

/// What a cloud billed for one machine in a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComputeSpend {
    /// The machine.
    pub id: ComputeId,
    /// Start of the period.
    pub start: Timestamp,
    /// End of the period.
    pub end: Timestamp,
    /// The amount. Clouds bill in arrears, so the amount of a recent period can still grow.
    pub amount: Usd,
}

/// Selects spend by machine and period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpendQuery {
    /// Only this machine.
    pub id: Option<ComputeId>,
    /// Start of the period.
    pub start: Timestamp,
    /// End of the period.
    pub end: Timestamp,
}

/// How long a cloud needs and how often it may be called. Configured per account, with the
/// provider's values as default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountLimits {
    /// The longest time until a created machine appears in listings and point reads, and until a
    /// deleted one disappears from them.
    pub visibility_bound: Duration,
    /// The maximum time of one call, including its retries.
    pub call_deadline: Duration,
    /// The minimum average time between two calls.
    pub call_interval: Duration,
    /// How many calls may be made at once before the average interval applies.
    pub burst: u32,
    /// The maximum number of concurrent calls.
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

/// A supporting object of a machine: an app, an address, a rule set. It is made before the machine
/// and released with it; making it is idempotent by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Support {
    /// The kind of object in the cloud's terms: `app`, `ip`, `firewall-ruleset`.
    pub kind: String,
    /// Its name, derived from the launch key, so that making it twice results in one object.
    pub name: String,
    /// The cloud's id of it, once it exists.
    pub id: Option<String>,
    /// Other data its provider needs to make it: a region, rules. No secrets.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub spec: serde_json::Value,
}
