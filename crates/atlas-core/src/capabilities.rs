//! What a provider can do, declared once and checked both ways by the conformance suite.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::credential::Auth;
use crate::error::{Error, Result};
use crate::request::{ComputeRequest, Protocol};

/// One thing a provider may be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Capability {
    /// Machines with a GPU.
    Gpu,
    /// Machines without one.
    Cpu,
    /// Interruptible capacity.
    Spot,
    /// Runs a container image.
    ContainerImage,
    /// Starts from a template.
    Templates,
    /// Stops a machine and keeps it.
    Stop,
    /// Starts a stopped machine.
    Start,
    /// A disk of the machine's own, of a size that can be asked for.
    Volume,
    /// The container disk's size can be asked for.
    ContainerDisk,
    /// Network volumes.
    NetworkVolumes,
    /// Serverless jobs.
    Serverless,
    /// Streams of serverless jobs.
    JobStreaming,
    /// HTTP ports through a proxy of the cloud.
    HttpProxy,
    /// Raw TCP ports.
    RawTcp,
    /// TCP ports with one number inside and outside.
    SymmetricPorts,
    /// Calls a URL of ours when something ends.
    Webhooks,
    /// A private network over data centres.
    GlobalNetworking,
    /// Container logs.
    Logs,
    /// What was spent, as the cloud bills it.
    Spend,
    /// A choice of tier.
    CloudTypes,
    /// Regions can be asked for.
    Regions,
    /// A price is known before the order.
    Prices,
    /// Reports how a container ended.
    ExitCodes,
    /// A machine can end its own bill once its command has ended.
    EndsWithCommand,
}

impl Capability {
    /// The stable word: `http_proxy`, ...
    #[must_use]
    pub fn as_str(self) -> String {
        serde_json::to_value(self)
            .ok()
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default()
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_str())
    }
}

/// What a provider can do. Constant for the life of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(BTreeSet<Capability>);

impl<const N: usize> From<[Capability; N]> for Capabilities {
    fn from(list: [Capability; N]) -> Self {
        Self(list.into())
    }
}

impl Capabilities {
    /// Whether this one is declared.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.0.contains(&capability)
    }

    /// All that are declared.
    pub fn iter(&self) -> impl Iterator<Item = Capability> + '_ {
        self.0.iter().copied()
    }

    /// The same with one more.
    #[must_use]
    pub fn with(mut self, capability: Capability) -> Self {
        self.0.insert(capability);
        self
    }

    /// The same without one.
    #[must_use]
    pub fn without(mut self, capability: Capability) -> Self {
        self.0.remove(&capability);
        self
    }

    /// Demands one.
    ///
    /// # Errors
    /// `unsupported`, naming the capability.
    pub fn require(&self, capability: Capability) -> Result<()> {
        if self.has(capability) {
            Ok(())
        } else {
            Err(Error::unsupported(
                capability.as_str(),
                "this provider cannot do that",
            ))
        }
    }

    /// Whether every field of the request can be honoured, before any request.
    ///
    /// # Errors
    /// `unsupported`, naming the capability that is missing.
    pub fn check(&self, request: &ComputeRequest) -> Result<()> {
        let needs = [
            (request.gpu.is_some(), Capability::Gpu),
            (request.cpu.is_some(), Capability::Cpu),
            (request.spot, Capability::Spot),
            (request.image.is_some(), Capability::ContainerImage),
            (request.template_id.is_some(), Capability::Templates),
            (request.volume.is_some(), Capability::Volume),
            (request.container_disk.is_some(), Capability::ContainerDisk),
            (
                request.network_volume_id.is_some(),
                Capability::NetworkVolumes,
            ),
            // Without a proxy, an HTTP port is a TCP port on the machine's own address.
            (
                request.ports.iter().any(|p| p.protocol() == Protocol::Http)
                    && !self.has(Capability::RawTcp),
                Capability::HttpProxy,
            ),
            (
                request.ports.iter().any(|p| p.protocol() == Protocol::Tcp),
                Capability::RawTcp,
            ),
            (
                request.ports.iter().any(|p| p.is_symmetric()),
                Capability::SymmetricPorts,
            ),
            (!request.region_hints.is_empty(), Capability::Regions),
            (
                request.cloud_type != crate::CloudType::Any,
                Capability::CloudTypes,
            ),
            (request.ends_with_command, Capability::EndsWithCommand),
        ];
        needs
            .into_iter()
            .filter(|(needed, _)| *needed)
            .try_for_each(|(_, capability)| self.require(capability))?;
        if request.auth != Auth::None && request.credential.is_none() {
            return Err(Error::validation("auth", "no credential was minted for it"));
        }
        Ok(())
    }
}
