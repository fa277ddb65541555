//! Requests for machines.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use crate::candidate::Candidate;
use crate::credential::{Auth, CONTROL_KEY_ENV, Credential};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ids::VolumeId;
use crate::image;
use crate::launch_key::{LAUNCH_KEY_ENV, LaunchKey};
use crate::secret::Secret;
use crate::size::{DiskSize, MemorySize};

/// The maximum number of variables. RunPod documents 50 for a pod; no supported cloud accepts fewer
/// (docs/clouds/).
const MAX_ENV: usize = 48;
const MAX_PORTS: usize = 64;
const MAX_TEXT: usize = 64 * 1024;

/// The GPU that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GpuChoice {
    /// This GPU, or a variant of it.
    Named(Gpu),
    /// Any GPU with at least this much memory.
    AtLeast(MemorySize),
    /// A cloud's own GPU id, passed on unchanged.
    Native(String),
}

impl From<Gpu> for GpuChoice {
    fn from(gpu: Gpu) -> Self {
        Self::Named(gpu)
    }
}

/// The tier of data centre.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum CloudType {
    /// Certified data centres.
    Secure,
    /// Vetted private hosts.
    Community,
    /// Any tier that the provider offers; where tiers differ in price, the cheaper first.
    #[default]
    Any,
}

/// The protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP, reachable through the cloud's proxy where it has one.
    Http,
    /// Raw TCP.
    Tcp,
}

impl Protocol {
    /// `http` or `tcp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

/// A port to expose. Numbers from 70000 request a symmetric TCP port, which has the same number
/// inside and outside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    number: u32,
    protocol: Protocol,
}

impl Port {
    /// An HTTP port.
    #[must_use]
    pub const fn http(number: u16) -> Self {
        Self {
            number: number as u32,
            protocol: Protocol::Http,
        }
    }

    /// A TCP port.
    #[must_use]
    pub const fn tcp(number: u16) -> Self {
        Self {
            number: number as u32,
            protocol: Protocol::Tcp,
        }
    }

    /// A TCP port that has the same number inside and outside. The cloud chooses the number; `slot`
    /// identifies the port in the request.
    #[must_use]
    pub const fn symmetric_tcp(slot: u16) -> Self {
        Self {
            number: 70_000 + slot as u32,
            protocol: Protocol::Tcp,
        }
    }

    /// The number inside the container, or the slot of a symmetric port.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.number
    }

    /// The protocol.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        self.protocol
    }

    /// True for a symmetric port.
    #[must_use]
    pub const fn is_symmetric(self) -> bool {
        self.number >= 70_000
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol.as_str())
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Port {
    type Err = Error;

    /// Reads `8000/http`, `22/tcp`, `70001/tcp`; a bare number is HTTP.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::validation(
                "ports",
                format!("{text:?} is not a port such as 8000/http, 22/tcp or 70000/tcp"),
            )
        };
        let (number, protocol) = text.split_once('/').unwrap_or((text, "http"));
        let protocol = match protocol {
            "http" => Protocol::Http,
            "tcp" => Protocol::Tcp,
            _ => return Err(wrong()),
        };
        let number: u32 = number.parse().map_err(|_| wrong())?;
        let symmetric = protocol == Protocol::Tcp && (70_000..=70_000 + 65_535).contains(&number);
        if (1..=65_535).contains(&number) || symmetric {
            Ok(Self { number, protocol })
        } else {
            Err(wrong())
        }
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// What to rent. Unset fields mean "provider's choice"; a field the provider cannot honour is
/// refused, never dropped.
///
/// ```
/// use atlas_core::{ComputeRequest, Gpu, Port};
/// let request = ComputeRequest::gpu(Gpu::H100).image("ghcr.io/me/infer:1").port(Port::http(8000));
/// assert!(request.validate().is_ok());
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ComputeRequest {
    /// The GPU. Exactly one of `gpu` and `cpu` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuChoice>,
    /// Number of GPUs per machine.
    #[serde(default = "one")]
    pub gpu_count: u32,
    /// A machine without a GPU that has this many virtual CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// At least this much RAM. If unset, the RAM of a CPU machine follows from its shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemorySize>,
    /// The container image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The command and its arguments; empty for the image's own command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The tier of data centre.
    #[serde(default)]
    pub cloud_type: CloudType,
    /// Accept capacity the provider may take back at any time.
    #[serde(default)]
    pub spot: bool,
    /// Regions to try, best first; empty for any region.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub region_hints: Vec<String>,
    /// Ports to expose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Environment of the container. Values are secrets: they are never printed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Secret>,
    /// A disk that survives a stop and is deleted with the machine.
    #[serde(default, rename = "volume_gb", skip_serializing_if = "Option::is_none")]
    pub volume: Option<DiskSize>,
    /// Container disk. The clouds say GB; `DiskSize` says which GB a provider means.
    #[serde(
        default,
        rename = "container_disk_gb",
        skip_serializing_if = "Option::is_none"
    )]
    pub container_disk: Option<DiskSize>,
    /// A network volume of the account to mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_volume_id: Option<VolumeId>,
    /// A human-readable name. The machine's name is made from it and the launch key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A template of the account to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_id: Option<String>,
    /// How the browser will authenticate to the machine.
    #[serde(default)]
    pub auth: Auth,
    /// The credential minted for `auth`. The facade or the orchestrator sets it; the provider
    /// injects it into the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// The candidate that this request is pinned to. The orchestrator sets it for each attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Candidate>,
    /// The machine deletes itself, and so ends its bill, when its command has ended. The
    /// orchestrator sets it for tasks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_with_command: bool,
    /// JSON that is merged deeply into the request body sent to the cloud.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub provider_opts: Value,
}

fn one() -> u32 {
    1
}

impl ComputeRequest {
    fn empty() -> Self {
        Self {
            gpu: None,
            gpu_count: 1,
            cpu: None,
            memory: None,
            image: None,
            command: Vec::new(),
            cloud_type: CloudType::Any,
            spot: false,
            region_hints: Vec::new(),
            ports: Vec::new(),
            env: BTreeMap::new(),
            volume: None,
            container_disk: None,
            network_volume_id: None,
            name: None,
            template_id: None,
            auth: Auth::None,
            credential: None,
            candidate: None,
            ends_with_command: false,
            provider_opts: Value::Null,
        }
    }

    /// A request for a machine with one GPU of this kind.
    pub fn gpu(gpu: impl Into<GpuChoice>) -> Self {
        Self {
            gpu: Some(gpu.into()),
            ..Self::empty()
        }
    }

    /// A request for a machine without a GPU that has this many virtual CPUs.
    #[must_use]
    pub fn cpu(vcpus: u32) -> Self {
        Self {
            cpu: Some(vcpus),
            ..Self::empty()
        }
    }

    /// Sets the number of GPUs per machine.
    #[must_use]
    pub fn gpu_count(self, gpu_count: u32) -> Self {
        Self { gpu_count, ..self }
    }

    /// Sets the minimum RAM.
    #[must_use]
    pub fn memory(self, memory: MemorySize) -> Self {
        Self {
            memory: Some(memory),
            ..self
        }
    }

    /// Sets the container image.
    #[must_use]
    pub fn image(self, image: impl Into<String>) -> Self {
        Self {
            image: Some(image.into()),
            ..self
        }
    }

    /// Sets the command and its arguments, replacing the image's own.
    #[must_use]
    pub fn command<I: IntoIterator<Item: Into<String>>>(self, command: I) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            ..self
        }
    }

    /// Sets the tier of data centre.
    #[must_use]
    pub fn cloud_type(self, cloud_type: CloudType) -> Self {
        Self { cloud_type, ..self }
    }

    /// Accepts or refuses interruptible capacity.
    #[must_use]
    pub fn spot(self, spot: bool) -> Self {
        Self { spot, ..self }
    }

    /// Adds a region to try after those already added.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region_hints.push(region.into());
        self
    }

    /// Adds a port to expose.
    #[must_use]
    pub fn port(mut self, port: Port) -> Self {
        self.ports.push(port);
        self
    }

    /// Sets one environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Requests a disk that survives a stop and is deleted with the machine.
    #[must_use]
    pub fn volume(self, size: DiskSize) -> Self {
        Self {
            volume: Some(size),
            ..self
        }
    }

    /// Sets the size of the container disk.
    #[must_use]
    pub fn container_disk(self, size: DiskSize) -> Self {
        Self {
            container_disk: Some(size),
            ..self
        }
    }

    /// Mounts a network volume of the account.
    #[must_use]
    pub fn network_volume(self, id: VolumeId) -> Self {
        Self {
            network_volume_id: Some(id),
            ..self
        }
    }

    /// Sets a human-readable name.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..self
        }
    }

    /// Sets a template of the account to start from.
    #[must_use]
    pub fn template(self, id: impl Into<String>) -> Self {
        Self {
            template_id: Some(id.into()),
            ..self
        }
    }

    /// Sets how the browser will authenticate to the machine.
    #[must_use]
    pub fn auth(self, auth: Auth) -> Self {
        Self { auth, ..self }
    }

    /// Sets the credential minted for [`ComputeRequest::auth`].
    #[must_use]
    pub fn credential(self, credential: Option<Credential>) -> Self {
        Self { credential, ..self }
    }

    /// Pins the request to one candidate.
    #[must_use]
    pub fn at(self, candidate: Candidate) -> Self {
        Self {
            candidate: Some(candidate),
            ..self
        }
    }

    /// Makes the machine delete itself when its command has ended. Requires a command.
    #[must_use]
    pub fn ends_with_command(self, ends: bool) -> Self {
        Self {
            ends_with_command: ends,
            ..self
        }
    }

    /// Sets additional JSON for the cloud's request body.
    #[must_use]
    pub fn provider_opts(self, opts: Value) -> Self {
        Self {
            provider_opts: opts,
            ..self
        }
    }

    /// Checks for what no cloud could honour, before any request.
    ///
    /// # Errors
    /// `validation`, naming the field.
    pub fn validate(&self) -> Result<()> {
        let wrong = |field: &str, message: &str| Err(Error::validation(field, message));
        match (&self.gpu, self.cpu) {
            (None, None) => return wrong("gpu", "name a gpu, or a number of cpus"),
            (Some(_), Some(_)) => return wrong("cpu", "name a gpu or a number of cpus, not both"),
            (Some(GpuChoice::Native(id)), _) if id.is_empty() => {
                return wrong("gpu", "must not be empty");
            }
            (Some(GpuChoice::AtLeast(size)), _) if size.as_mib() == 0 => {
                return wrong("gpu", "at least some memory must be asked for");
            }
            (Some(_), None) if !(1..=64).contains(&self.gpu_count) => {
                return wrong("gpu_count", "must be 1 to 64");
            }
            (None, Some(cpus)) if !(1..=1024).contains(&cpus) => {
                return wrong("cpu", "must be 1 to 1024");
            }
            _ => {}
        }
        match (&self.image, &self.template_id) {
            (None, None) => return wrong("image", "name an image, or a template"),
            (Some(image), _) => {
                if let Err(why) = image::check(image) {
                    let message = format!("{image:?} is not an image reference: {why}");
                    return wrong("image", &message);
                }
            }
            (None, Some(_)) => {}
        }
        if let Some(template) = &self.template_id
            && !is_plain(template, 200)
        {
            return wrong("template_id", "must be 1 to 200 printable characters");
        }
        if self.command.iter().any(|part| part.contains('\0'))
            || self.command.iter().map(String::len).sum::<usize>() > MAX_TEXT
        {
            return wrong("command", "must not contain NUL, nor be longer than 64 KiB");
        }
        if self.ends_with_command && self.command.is_empty() {
            return wrong(
                "ends_with_command",
                "needs a command: the image's own is not known here",
            );
        }
        if let Some(name) = &self.name
            && !is_plain(name, 128)
        {
            return wrong("name", "must be 1 to 128 printable characters");
        }
        if self.region_hints.iter().any(|region| !is_plain(region, 64)) {
            return wrong(
                "region_hints",
                "a region must be 1 to 64 printable characters",
            );
        }
        if self.ports.len() > MAX_PORTS
            || self.ports.iter().collect::<BTreeSet<_>>().len() != self.ports.len()
        {
            return wrong("ports", "must be at most 64, each named once");
        }
        if self.ports.iter().any(|port| port.number() == 0) {
            return wrong("ports", "port 0 does not exist");
        }
        for (name, value) in &self.env {
            if name.is_empty()
                || name.len() > 256
                || name.contains(['=', '\0'])
                || name.chars().any(char::is_whitespace)
            {
                return wrong(
                    "env",
                    "a name must be 1 to 256 characters without =, NUL and white space",
                );
            }
            if value.expose().contains('\0') || value.expose().len() > MAX_TEXT {
                return wrong(
                    "env",
                    "a value must not contain NUL, nor be longer than 64 KiB",
                );
            }
            if name.starts_with("ATLAS_") && RESERVED_ENV.contains(&name.as_str()) {
                return wrong(
                    "env",
                    "ATLAS_LAUNCH_KEY, ATLAS_PRESHARED_KEY, ATLAS_SIGNING_SECRET and \
                     ATLAS_CONTROL_KEY are set by atlas",
                );
            }
        }
        if self.env.len() > MAX_ENV {
            return wrong("env", "must be at most 48 variables");
        }
        for (field, size) in [
            ("volume_gb", self.volume),
            ("container_disk_gb", self.container_disk),
        ] {
            if size.is_some_and(|size| size.as_gb() == 0) {
                return wrong(field, "must be at least 1 GB");
            }
        }
        if !matches!(self.provider_opts, Value::Null | Value::Object(_)) {
            return wrong("provider_opts", "must be an object");
        }
        if self
            .credential
            .as_ref()
            .is_some_and(|credential| credential.scheme() != self.auth)
        {
            return wrong("auth", "the minted credential is of another scheme");
        }
        Ok(())
    }

    /// The complete environment of the container: the caller's variables, the credential's and the
    /// launch key's.
    #[must_use]
    pub fn environment(&self, key: &LaunchKey) -> BTreeMap<String, Secret> {
        let mut env = self.env.clone();
        if let Some(credential) = &self.credential {
            env.insert(
                credential.env_name().to_owned(),
                credential.secret().clone(),
            );
            if let Some(key) = credential.control_key() {
                env.insert(CONTROL_KEY_ENV.to_owned(), Secret::new(key));
            }
        }
        if let Some(key) = key.tracked() {
            env.insert(LAUNCH_KEY_ENV.to_owned(), Secret::new(key.to_string()));
        }
        env
    }

    /// The complete request as JSON, **secrets included**, for encryption at rest. `serde` reads it
    /// back.
    #[must_use]
    pub fn expose(&self) -> Value {
        let mut value = serde_json::to_value(self).expect("a request is plain data");
        if let Some(env) = value.get_mut("env").and_then(Value::as_object_mut) {
            for (name, shown) in env {
                if let Some(secret) = self.env.get(name) {
                    *shown = Value::from(secret.expose());
                }
            }
        }
        if let Some(credential) = &self.credential {
            value["credential"] = credential.expose();
        }
        value
    }
}

const RESERVED_ENV: [&str; 4] = [
    LAUNCH_KEY_ENV,
    crate::credential::PRESHARED_KEY_ENV,
    crate::credential::SIGNING_SECRET_ENV,
    CONTROL_KEY_ENV,
];

impl fmt::Debug for ComputeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComputeRequest")
            .field("gpu", &self.gpu)
            .field("gpu_count", &self.gpu_count)
            .field("cpu", &self.cpu)
            .field("image", &self.image)
            .field("ports", &self.ports)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("name", &self.name)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

fn is_plain(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ComputeRequest {
        ComputeRequest::gpu(Gpu::H100).image("x/y:1")
    }

    #[test]
    fn bad_input_names_its_field() {
        let cases = [
            ("gpu_count", request().gpu_count(0)),
            ("image", ComputeRequest::gpu(Gpu::H100)),
            ("image", request().image("a b")),
            ("image", request().image("ghcr.io/Acme/infer:1")),
            ("image", request().image("docker://acme/infer")),
            ("image", request().image("acme/infer:").template("t1")),
            ("template_id", request().template("")),
            (
                "cpu",
                ComputeRequest {
                    cpu: Some(2),
                    ..request()
                },
            ),
            ("cpu", ComputeRequest::cpu(0).image("x")),
            ("ports", request().port(Port::http(0))),
            ("ports", request().port(Port::http(80)).port(Port::http(80))),
            ("env", request().env("A=B", "x")),
            ("env", request().env("A\0", "x")),
            ("env", request().env("A", "x\0")),
            ("env", request().env("", "x")),
            ("env", request().env("ATLAS_PRESHARED_KEY", "x")),
            ("name", request().name("")),
            ("name", request().name("a\nb")),
            ("volume_gb", request().volume(DiskSize::gb(0))),
            ("provider_opts", request().provider_opts(Value::from(1))),
            ("command", request().command(["a\0"])),
            ("ends_with_command", request().ends_with_command(true)),
        ];
        for (field, request) in cases {
            let error = request.validate().unwrap_err();
            assert_eq!(
                (error.kind(), error.field()),
                (crate::ErrorKind::Validation, Some(field)),
                "{error}"
            );
        }
    }

    #[test]
    fn a_port_reads_back_as_written() {
        for port in [Port::http(8000), Port::tcp(22), Port::symmetric_tcp(3)] {
            assert_eq!(port.to_string().parse::<Port>().unwrap(), port);
        }
        for odd in [
            "0/http",
            "70000/http",
            "65536/tcp",
            "22/udp",
            "",
            "/http",
            "-1",
        ] {
            assert!(odd.parse::<Port>().is_err(), "{odd}");
        }
    }

    #[test]
    fn a_request_never_shows_its_secrets_but_seals_them_whole() {
        let request = request().env("CANARY", "zz-canary");
        assert!(!format!("{request:?}").contains("zz-canary"));
        assert!(
            !serde_json::to_string(&request)
                .unwrap()
                .contains("zz-canary")
        );
        let back: ComputeRequest = serde_json::from_value(request.expose()).unwrap();
        assert_eq!(back.env["CANARY"].expose(), "zz-canary");
    }
}
