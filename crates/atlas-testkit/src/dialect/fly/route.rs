//! Maps a method and a path to an operation, and its name in the world.

use http::Method;

use crate::dialect::query::decode;

/// An operation. Machine operations name the app, then the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Apps,
    CreateApp,
    App(String),
    DeleteApp(String),
    Ips(String),
    AssignIp(String),
    ReleaseIp(String, String),
    Secrets(String),
    SetSecrets(String),
    Machines(String),
    Create(String),
    Machine(String, String, Verb),
    Volumes(String),
    CreateVolume(String),
    Volume(String, String, VolumeVerb),
    OrgMachines(String),
    OrgVolumes(String),
    Regions,
    Placements,
    Token,
}

/// What is done with one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Update,
    Destroy,
    Start,
    Stop,
    Suspend,
    Restart,
    Signal,
    Cordon(bool),
    Exec,
    Ps,
    Events,
    Versions,
    Wait,
    Lease,
    TakeLease,
    DropLease,
    Metadata,
    PatchMetadata,
    MetadataKey(String),
    SetMetadataKey(String),
    DropMetadataKey(String),
    Memory,
    SetMemory,
}

/// What is done with one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VolumeVerb {
    Get,
    Update,
    Delete,
    Extend,
    Snapshots,
    Snapshot,
}

impl Route {
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        let segments: Vec<String> = path.strip_prefix("/v1/")?.split('/').map(decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            return None;
        }
        let own = str::to_owned;
        let method = method.as_str();
        Some(match (method, segments.as_slice()) {
            ("GET", ["apps"]) => Self::Apps,
            ("POST", ["apps"]) => Self::CreateApp,
            ("GET", ["apps", app]) => Self::App(own(app)),
            ("DELETE", ["apps", app]) => Self::DeleteApp(own(app)),
            ("GET", ["apps", app, "ip_assignments"]) => Self::Ips(own(app)),
            ("POST", ["apps", app, "ip_assignments"]) => Self::AssignIp(own(app)),
            ("DELETE", ["apps", app, "ip_assignments", ip]) => Self::ReleaseIp(own(app), own(ip)),
            ("GET", ["apps", app, "secrets"]) => Self::Secrets(own(app)),
            ("POST", ["apps", app, "secrets"]) => Self::SetSecrets(own(app)),
            ("GET", ["apps", app, "machines"]) => Self::Machines(own(app)),
            ("POST", ["apps", app, "machines"]) => Self::Create(own(app)),
            (_, ["apps", app, "machines", id, rest @ ..]) => {
                Self::Machine(own(app), own(id), Verb::of(method, rest)?)
            }
            ("GET", ["apps", app, "volumes"]) => Self::Volumes(own(app)),
            ("POST", ["apps", app, "volumes"]) => Self::CreateVolume(own(app)),
            (_, ["apps", app, "volumes", id, rest @ ..]) => {
                Self::Volume(own(app), own(id), VolumeVerb::of(method, rest)?)
            }
            ("GET", ["orgs", org, "machines"]) => Self::OrgMachines(own(org)),
            ("GET", ["orgs", org, "volumes"]) => Self::OrgVolumes(own(org)),
            ("GET", ["platform", "regions"]) => Self::Regions,
            ("POST", ["platform", "placements"]) => Self::Placements,
            ("GET", ["tokens", "current"]) => Self::Token,
            _ => return None,
        })
    }

    /// The operation's name in the contract.
    pub(super) const fn operation(&self) -> &'static str {
        match self {
            Self::CreateApp | Self::AssignIp(_) => "ensure_support",
            Self::DeleteApp(_) | Self::ReleaseIp(..) => "release_support",
            Self::Apps | Self::App(_) | Self::Ips(_) | Self::Secrets(_) | Self::SetSecrets(_) => {
                "supports"
            }
            Self::Machines(_) | Self::OrgMachines(_) => "list_compute",
            Self::Create(_) => "spawn_compute",
            Self::Machine(_, _, verb) => match verb {
                Verb::Get => "get_compute",
                Verb::Destroy => "terminate",
                Verb::Start => "start",
                Verb::Stop | Verb::Suspend => "stop",
                Verb::Restart => "restart",
                _ => "machine",
            },
            Self::Volumes(_) | Self::OrgVolumes(_) => "list_network_volumes",
            Self::CreateVolume(_) => "create_network_volume",
            Self::Volume(_, _, VolumeVerb::Delete) => "delete_network_volume",
            Self::Volume(..) => "volume",
            Self::Regions | Self::Placements => "candidates",
            Self::Token => "identity",
        }
    }

    /// The machine concerned, by its id in the world.
    pub(super) fn target(&self) -> Option<String> {
        match self {
            Self::Machine(app, id, _) => Some(world_id(app, id)),
            _ => None,
        }
    }

    /// The app concerned.
    pub(super) fn app(&self) -> Option<&str> {
        match self {
            Self::App(app)
            | Self::DeleteApp(app)
            | Self::Ips(app)
            | Self::AssignIp(app)
            | Self::ReleaseIp(app, _) => Some(app),
            Self::Secrets(app) | Self::SetSecrets(app) => Some(app),
            Self::Machines(app) | Self::Create(app) | Self::Machine(app, ..) => Some(app),
            Self::Volumes(app) | Self::CreateVolume(app) | Self::Volume(app, ..) => Some(app),
            _ => None,
        }
    }

    /// The rate limit budget of the operation: the action, and the machine or app for which it is
    /// limited.
    pub(super) fn budget(&self) -> (String, bool) {
        match self {
            Self::Machine(app, id, Verb::Get) => (format!("get {app}/{id}"), true),
            Self::Machine(app, id, verb) => (format!("{} {app}/{id}", verb.word()), false),
            other => (
                format!("{} {}", other.word(), other.app().unwrap_or_default()),
                false,
            ),
        }
    }

    fn word(&self) -> String {
        let shown = format!("{self:?}");
        shown.split('(').next().unwrap_or_default().to_owned()
    }

    /// Whether it changes anything.
    pub(super) const fn writes(&self) -> bool {
        match self {
            Self::Apps
            | Self::App(_)
            | Self::Ips(_)
            | Self::Secrets(_)
            | Self::Machines(_)
            | Self::Volumes(_) => false,
            Self::OrgMachines(_)
            | Self::OrgVolumes(_)
            | Self::Regions
            | Self::Placements
            | Self::Token => false,
            Self::Machine(_, _, verb) => verb.writes(),
            Self::Volume(_, _, verb) => !matches!(verb, VolumeVerb::Get | VolumeVerb::Snapshots),
            _ => true,
        }
    }
}

impl Verb {
    fn of(method: &str, rest: &[&str]) -> Option<Self> {
        Some(match (method, rest) {
            ("GET", []) => Self::Get,
            ("POST", []) => Self::Update,
            ("DELETE", []) => Self::Destroy,
            ("POST", ["start"]) => Self::Start,
            ("POST", ["stop"]) => Self::Stop,
            ("POST", ["suspend"]) => Self::Suspend,
            ("POST", ["restart"]) => Self::Restart,
            ("POST", ["signal"]) => Self::Signal,
            ("POST", ["cordon"]) => Self::Cordon(true),
            ("POST", ["uncordon"]) => Self::Cordon(false),
            ("POST", ["exec"]) => Self::Exec,
            ("GET", ["ps"]) => Self::Ps,
            ("GET", ["events"]) => Self::Events,
            ("GET", ["versions"]) => Self::Versions,
            ("GET", ["wait"]) => Self::Wait,
            ("GET", ["lease"]) => Self::Lease,
            ("POST", ["lease"]) => Self::TakeLease,
            ("DELETE", ["lease"]) => Self::DropLease,
            ("GET", ["metadata"]) => Self::Metadata,
            ("PATCH" | "PUT", ["metadata"]) => Self::PatchMetadata,
            ("GET", ["metadata", key]) => Self::MetadataKey((*key).to_owned()),
            ("POST", ["metadata", key]) => Self::SetMetadataKey((*key).to_owned()),
            ("DELETE", ["metadata", key]) => Self::DropMetadataKey((*key).to_owned()),
            ("GET", ["memory"]) => Self::Memory,
            ("PUT", ["memory"]) => Self::SetMemory,
            _ => return None,
        })
    }

    fn word(&self) -> String {
        let shown = format!("{self:?}");
        shown.split('(').next().unwrap_or_default().to_owned()
    }

    pub(super) const fn writes(&self) -> bool {
        !matches!(
            self,
            Self::Get
                | Self::Ps
                | Self::Events
                | Self::Versions
                | Self::Wait
                | Self::Lease
                | Self::Metadata
                | Self::MetadataKey(_)
                | Self::Memory
        )
    }

    /// Whether another client's lease forbids it.
    pub(super) const fn respects_leases(&self) -> bool {
        self.writes() && !matches!(self, Self::TakeLease | Self::DropLease | Self::Exec)
    }
}

impl VolumeVerb {
    fn of(method: &str, rest: &[&str]) -> Option<Self> {
        Some(match (method, rest) {
            ("GET", []) => Self::Get,
            ("PUT", []) => Self::Update,
            ("DELETE", []) => Self::Delete,
            ("PUT", ["extend"]) => Self::Extend,
            ("GET", ["snapshots"]) => Self::Snapshots,
            ("POST", ["snapshots"]) => Self::Snapshot,
            _ => return None,
        })
    }
}

/// The world's id of a machine: Fly's ids are meaningful only together with their app.
pub(super) fn world_id(app: &str, id: &str) -> String {
    format!("{id}.{app}")
}

/// Fly's id and the app of a machine of the world.
pub(super) fn parts(world_id: &str) -> (&str, &str) {
    world_id.split_once('.').unwrap_or((world_id, super::APP))
}
