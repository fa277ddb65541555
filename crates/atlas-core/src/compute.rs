//! What was rented, as a cloud last described it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::credential::Credential;
use crate::gpu::Gpu;
use crate::ids::{ComputeId, ProviderId};
use crate::launch_key::TrackedKey;
use crate::money::UsdPerHour;
use crate::raw::Raw;
use crate::request::Protocol;
use crate::time::Timestamp;

/// What a machine is doing, in words common to the clouds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ComputeStatus {
    /// Ordered; not running yet. It may bill already.
    Provisioning,
    /// Running. Whether it is *usable* is another question.
    Running,
    /// Not running, and still there: its disks bill.
    Stopped,
    /// The cloud says it broke. It may still bill.
    Failed,
    /// Gone.
    Terminated,
    /// A word of the cloud's that we do not know. Treated as alive.
    Other(String),
}

impl ComputeStatus {
    /// The word: `running`, ... or the cloud's own.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Terminated => "terminated",
            Self::Other(word) => word,
        }
    }
}

impl From<&str> for ComputeStatus {
    fn from(word: &str) -> Self {
        match word {
            "provisioning" => Self::Provisioning,
            "running" => Self::Running,
            "stopped" => Self::Stopped,
            "failed" => Self::Failed,
            "terminated" => Self::Terminated,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for ComputeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for ComputeStatus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ComputeStatus {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(String::deserialize(deserializer)?.as_str()))
    }
}

/// Why a container does not run any more, in the cloud's own words where it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopCause {
    /// Its command ended by itself.
    CommandEnded,
    /// A stop or deletion was requested by a user, by us, or by the cloud on behalf of the account.
    Requested,
    /// The kernel killed it because it used more memory than it had, whatever its exit code says.
    OutOfMemory,
    /// The host failed or cannot be reached.
    HostLost,
    /// It never ran: its image could not be pulled or built, or it could not be created.
    NeverRan,
}

/// A port of a machine, inside and outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The number inside the container.
    pub internal: u32,
    /// The number outside, once the cloud has given one. It can change with every start.
    pub external: Option<u16>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where to reach it, once that is known.
    pub url: Option<String>,
}

/// The launch keys found on a machine, one for each place a key can travel in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCarriers {
    /// The one at the end of its name.
    pub name: Option<TrackedKey>,
    /// The one in its metadata, tags or environment; `None` also where this cloud returns no such
    /// carrier.
    pub tag: Option<TrackedKey>,
    /// Whether this cloud returns a second carrier at all.
    pub has_tag: bool,
}

/// What a machine's carriers say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// No key anywhere: not ours.
    None,
    /// Every carrier the cloud returns names this key.
    Whole(TrackedKey),
    /// One carrier names this key and another is empty (renamed, or tags lost). Enough to
    /// recognise, not to kill.
    Partial(TrackedKey),
    /// Carriers name different keys. Reported, never killed.
    Ambiguous,
}

impl KeyCarriers {
    /// A cloud whose machines carry the key in their name only.
    #[must_use]
    pub fn name_only(name: &str) -> Self {
        Self {
            name: TrackedKey::in_name(name),
            tag: None,
            has_tag: false,
        }
    }

    /// A cloud whose machines carry the key in their name and in a tag, variable or metadata.
    #[must_use]
    pub fn name_and_tag(name: &str, tag: Option<&str>) -> Self {
        Self {
            name: TrackedKey::in_name(name),
            tag: tag.and_then(|text| text.parse().ok()),
            has_tag: true,
        }
    }

    /// What they say together.
    #[must_use]
    pub fn claim(&self) -> Claim {
        match (self.name, self.tag) {
            (None, None) => Claim::None,
            (Some(a), Some(b)) if a == b => Claim::Whole(a),
            (Some(_), Some(_)) => Claim::Ambiguous,
            (Some(key), None) if !self.has_tag => Claim::Whole(key),
            (Some(key), None) | (None, Some(key)) => Claim::Partial(key),
        }
    }

    /// The key that this machine is recognised by, if its carriers do not contradict each other.
    #[must_use]
    pub fn key(&self) -> Option<TrackedKey> {
        match self.claim() {
            Claim::Whole(key) | Claim::Partial(key) => Some(key),
            Claim::None | Claim::Ambiguous => None,
        }
    }
}

/// A machine, as a cloud last described it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Compute {
    /// What the cloud calls it.
    pub id: ComputeId,
    /// Whose it is.
    pub provider: ProviderId,
    /// What it is doing.
    pub status: ComputeStatus,
    /// Its public address, once it has one of its own.
    pub public_ip: Option<String>,
    /// Its published ports, in the order of the request.
    pub ports: Vec<PortMapping>,
    /// Its GPU, where the catalogue knows it.
    pub gpu_type: Option<Gpu>,
    /// The cloud's own id of its GPU or shape.
    pub native_type: Option<String>,
    /// How many GPUs it has.
    pub gpu_count: u32,
    /// What it costs now, as the cloud says; a stopped machine's disks may be left out.
    pub cost_per_hour: Option<UsdPerHour>,
    /// Where it is.
    pub region: Option<String>,
    /// The image it runs.
    pub image: Option<String>,
    /// The name the cloud knows it by.
    pub name: Option<String>,
    /// What was minted for it; only in the answer to the spawn, and from the orchestrator.
    #[serde(skip)]
    pub auth: Option<Credential>,
    /// When the cloud created it.
    pub created_at: Option<Timestamp>,
    /// True once the cloud reports that its container runs, false while it reports that it does
    /// not.
    pub ready: Option<bool>,
    /// How its container ended, where the cloud says.
    pub exit_code: Option<i32>,
    /// Why its container does not run any more. `None` while it runs, and where the cloud does not
    /// tell.
    #[serde(default)]
    pub stop_cause: Option<StopCause>,
    /// Why it does not run, in words for people, where the cloud says. May quote the cloud; it is
    /// one short line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// True when the cloud says that it took a spot machine back.
    pub preempted: bool,
    /// The launch keys it carries.
    pub keys: KeyCarriers,
    /// The cloud's own description, with secrets it echoes redacted.
    pub raw: Raw,
}

impl Compute {
    /// A machine of which only this is known.
    #[must_use]
    pub fn new(id: ComputeId, provider: ProviderId, status: ComputeStatus) -> Self {
        Self {
            id,
            provider,
            status,
            public_ip: None,
            ports: Vec::new(),
            gpu_type: None,
            native_type: None,
            gpu_count: 0,
            cost_per_hour: None,
            region: None,
            image: None,
            name: None,
            auth: None,
            created_at: None,
            ready: None,
            exit_code: None,
            stop_cause: None,
            reason: None,
            preempted: false,
            keys: KeyCarriers::default(),
            raw: Raw::default(),
        }
    }

    /// The URL of the port with this inside number, once there is one.
    #[must_use]
    pub fn url(&self, internal: u32) -> Option<&str> {
        self.ports
            .iter()
            .find(|port| port.internal == internal)?
            .url
            .as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "a1-aaaaaa-nkyqgaabaeaqcaib-aibaeaqc";
    const B: &str = "a1-aaaaaa-nkyqgaabaeaqcaib-aibaeaqd";

    #[test]
    fn carriers_that_disagree_are_never_a_claim() {
        let name = |key: &str| format!("atlas-x-{key}");
        assert!(matches!(
            KeyCarriers::name_and_tag(&name(A), Some(A)).claim(),
            Claim::Whole(_)
        ));
        assert!(matches!(
            KeyCarriers::name_only(&name(A)).claim(),
            Claim::Whole(_)
        ));
        assert!(matches!(
            KeyCarriers::name_and_tag("renamed", Some(A)).claim(),
            Claim::Partial(_)
        ));
        assert!(matches!(
            KeyCarriers::name_and_tag(&name(A), None).claim(),
            Claim::Partial(_)
        ));
        assert_eq!(
            KeyCarriers::name_and_tag(&name(A), Some(B)).claim(),
            Claim::Ambiguous
        );
        assert_eq!(
            KeyCarriers::name_only("somebody-elses").claim(),
            Claim::None
        );
    }
}
