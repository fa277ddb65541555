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

/// The state of a machine, in terms common to all clouds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ComputeStatus {
    /// Ordered; not running yet. It may bill already.
    Provisioning,
    /// Running. Whether it is *usable* is another question.
    Running,
    /// Not running, but not deleted: its disks bill.
    Stopped,
    /// The cloud reports a failure. The machine may still bill.
    Failed,
    /// The machine was deleted.
    Terminated,
    /// A status of the cloud that atlas does not know. Treated as alive.
    Other(String),
}

impl ComputeStatus {
    /// The status as text: `running` and so on, or the cloud's own word.
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

/// Why a container no longer runs, as far as the cloud says.
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
    /// The container never ran: its image could not be pulled or built, or it could not be created.
    NeverRan,
}

/// A port of a machine: its number inside the container and its address outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The number inside the container.
    pub internal: u32,
    /// The number outside, once the cloud has assigned one. It can change with every start.
    pub external: Option<u16>,
    /// The protocol that the port speaks.
    pub protocol: Protocol,
    /// The URL under which it is reached, once known.
    pub url: Option<String>,
}

/// The launch keys found on a machine, one for each place a key can be carried in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCarriers {
    /// The key at the end of the machine's name.
    pub name: Option<TrackedKey>,
    /// The key in the machine's metadata, tags or environment. `None` also where this cloud returns
    /// no such carrier.
    pub tag: Option<TrackedKey>,
    /// Whether this cloud returns a second carrier.
    pub has_tag: bool,
}

/// What all carriers of a machine say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// No carrier has a key: the machine is not ours.
    None,
    /// Every carrier the cloud returns names this key.
    Whole(TrackedKey),
    /// One carrier names this key and another is empty (the machine was renamed, or its tags were
    /// lost). Enough to recognise the machine, not enough to delete it.
    Partial(TrackedKey),
    /// The carriers name different keys. Such a machine is reported and never deleted.
    Ambiguous,
}

impl KeyCarriers {
    /// The carriers of a cloud whose machines carry the key in their name only.
    #[must_use]
    pub fn name_only(name: &str) -> Self {
        Self {
            name: TrackedKey::in_name(name),
            tag: None,
            has_tag: false,
        }
    }

    /// The carriers of a cloud whose machines carry the key in their name and in a tag, variable or
    /// metadata entry.
    #[must_use]
    pub fn name_and_tag(name: &str, tag: Option<&str>) -> Self {
        Self {
            name: TrackedKey::in_name(name),
            tag: tag.and_then(|text| text.parse().ok()),
            has_tag: true,
        }
    }

    /// What the carriers say together.
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

    /// The key that identifies this machine, unless its carriers contradict each other.
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
    /// The cloud's id of the machine.
    pub id: ComputeId,
    /// The provider that rents it.
    pub provider: ProviderId,
    /// The state of the machine.
    pub status: ComputeStatus,
    /// The machine's own public address, once it has one.
    pub public_ip: Option<String>,
    /// Its published ports, in the order of the request.
    pub ports: Vec<PortMapping>,
    /// The GPU, if the catalogue knows it.
    pub gpu_type: Option<Gpu>,
    /// The cloud's own id of its GPU or shape.
    pub native_type: Option<String>,
    /// Number of GPUs.
    pub gpu_count: u32,
    /// The current price per hour as the cloud reports it. It may leave out the disks of a stopped
    /// machine.
    pub cost_per_hour: Option<UsdPerHour>,
    /// The region.
    pub region: Option<String>,
    /// The image it runs.
    pub image: Option<String>,
    /// The name of the machine in the cloud.
    pub name: Option<String>,
    /// The credential minted for this machine. Present only in the answer to the spawn and in
    /// values that come from the orchestrator.
    #[serde(skip)]
    pub auth: Option<Credential>,
    /// When the cloud created it.
    pub created_at: Option<Timestamp>,
    /// True once the cloud reports that its container runs, false while it reports that it does
    /// not.
    pub ready: Option<bool>,
    /// The exit code of the container, if the cloud reports one.
    pub exit_code: Option<i32>,
    /// Why the container no longer runs. `None` while it runs, and if the cloud does not say.
    #[serde(default)]
    pub stop_cause: Option<StopCause>,
    /// Why the machine does not run, as one short line for people, if the cloud says. It may quote
    /// the cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// True if the cloud reports that it took a spot machine back.
    pub preempted: bool,
    /// The launch keys that the machine carries.
    pub keys: KeyCarriers,
    /// The cloud's own description, with the secrets it echoes redacted.
    pub raw: Raw,
}

impl Compute {
    /// A machine of which only the id, provider and status are known.
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

    /// The URL of the port with this number inside the container, once it is known.
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
