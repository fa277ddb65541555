//! What a provider can do, declared once and checked both ways by the conformance suite.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::credential::Auth;
use crate::error::{Error, Result};
use crate::request::{ComputeRequest, Protocol};

/// A feature that a provider may support.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Capability {
    /// Machines with a GPU.
    Gpu,
    /// Machines without a GPU.
    Cpu,
    /// Interruptible capacity.
    Spot,
    /// Runs a container image.
    ContainerImage,
    /// Starts from a template.
    Templates,
    /// Stops a machine without deleting it.
    Stop,
    /// Starts a stopped machine.
    Start,
    /// A disk of the machine's own whose size can be requested.
    Volume,
    /// The size of the container disk can be requested.
    ContainerDisk,
    /// Network volumes.
    NetworkVolumes,
    /// Serverless jobs.
    Serverless,
    /// Streams the output of serverless jobs.
    JobStreaming,
    /// HTTP ports through a proxy that the cloud runs.
    HttpProxy,
    /// Raw TCP ports.
    RawTcp,
    /// TCP ports with the same number inside and outside.
    SymmetricPorts,
    /// Calls a webhook URL when a job or machine ends.
    Webhooks,
    /// A private network that spans data centres.
    GlobalNetworking,
    /// Container logs.
    Logs,
    /// Reports what was spent, as the cloud bills it.
    Spend,
    /// The tier of data centre can be chosen.
    CloudTypes,
    /// The region can be chosen.
    Regions,
    /// The price is known before the order.
    Prices,
    /// Reports the exit code of a container.
    ExitCodes,
    /// A machine can end its own bill once its command has ended.
    EndsWithCommand,
}

impl Capability {
    /// The stable name, such as `http_proxy`.
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

/// The set of capabilities of a provider. Constant for the life of the provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(BTreeSet<Capability>);

impl<const N: usize> From<[Capability; N]> for Capabilities {
    fn from(list: [Capability; N]) -> Self {
        Self(list.into())
    }
}

impl Capabilities {
    /// Whether this capability is declared.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.0.contains(&capability)
    }

    /// All declared capabilities.
    pub fn iter(&self) -> impl Iterator<Item = Capability> + '_ {
        self.0.iter().copied()
    }

    /// Adds a capability.
    #[must_use]
    pub fn with(mut self, capability: Capability) -> Self {
        self.0.insert(capability);
        self
    }

    /// Removes a capability.
    #[must_use]
    pub fn without(mut self, capability: Capability) -> Self {
        self.0.remove(&capability);
        self
    }

    /// Requires that a capability is declared.
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

    /// Checks that every field of the request can be honoured, before anything is sent.
    ///
    /// # Errors
    /// `unsupported`, naming the capability that is missing.
    pub fn check(&self, request: &ComputeRequest) -> Result<()> {
        // Every field is named, so that a new one is decided on here. A field that is bound to `_`
        // needs no capability: every provider takes it into account, or it is atlas's own.
        let ComputeRequest {
            gpu,
            gpu_count: _,
            cpu,
            memory: _,
            image,
            command: _,
            cloud_type,
            spot,
            region_hints,
            ports,
            env: _,
            volume,
            container_disk,
            network_volume_id,
            name: _,
            template_id,
            auth,
            credential,
            candidate: _,
            ends_with_command,
            provider_opts: _,
        } = request;
        let has = |protocol| ports.iter().any(|port| port.protocol() == protocol);
        let needs = [
            (gpu.is_some(), Capability::Gpu),
            (cpu.is_some(), Capability::Cpu),
            (*spot, Capability::Spot),
            (image.is_some(), Capability::ContainerImage),
            (template_id.is_some(), Capability::Templates),
            (volume.is_some(), Capability::Volume),
            (container_disk.is_some(), Capability::ContainerDisk),
            (network_volume_id.is_some(), Capability::NetworkVolumes),
            // Without a proxy, an HTTP port is a TCP port on the machine's own address.
            (
                has(Protocol::Http) && !self.has(Capability::RawTcp),
                Capability::HttpProxy,
            ),
            (has(Protocol::Tcp), Capability::RawTcp),
            (
                ports.iter().any(|port| port.is_symmetric()),
                Capability::SymmetricPorts,
            ),
            (!region_hints.is_empty(), Capability::Regions),
            (*cloud_type != crate::CloudType::Any, Capability::CloudTypes),
            (*ends_with_command, Capability::EndsWithCommand),
        ];
        needs
            .into_iter()
            .filter(|(needed, _)| *needed)
            .try_for_each(|(_, capability)| self.require(capability))?;
        if *auth != Auth::None && credential.is_none() {
            return Err(Error::validation("auth", "no credential was minted for it"));
        }
        Ok(())
    }
}
