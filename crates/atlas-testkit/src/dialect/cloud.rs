//! What a program needs to know of a simulated cloud to serve it, to call it and to judge it. Each
//! dialect has one description; [`CLOUDS`](super::CLOUDS) lists them.

use std::fmt;
use std::io;
use std::sync::Arc;

use atlas_core::{AccountLimits, ComputeRequest};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::Full;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::SimBody;
use super::face::{CloudService, front};
use crate::world::{Account, CloudSpec, MachineSpec, World};

/// The largest request body that an [`Api`] reads.
const MOST: usize = 8 << 20;

/// A simulated cloud: its name, how it is started, how clients reach it, and the facts about its
/// API that a test needs.
#[derive(Clone, Copy, Debug)]
pub struct SimulatedCloud {
    /// The name in the world, in the ledger, in faults, and of a user's account.
    pub name: &'static str,
    /// The name of the account that keys belong to, where the cloud prescribes one.
    pub account: Option<&'static str>,
    /// The cloud, as the world knows it.
    pub spec: fn() -> CloudSpec,
    /// The names of its listeners, each with an address of its own. The first one is the API that a
    /// provider's base URL names.
    pub listeners: &'static [&'static str],
    /// Whether it reports when a machine was made.
    pub reports_birth: bool,
    /// The URLs that clients use. The first one is the provider's base URL.
    pub urls: &'static [Url],
    /// Starts the cloud over a world.
    pub start: fn(&World, &Setting) -> Started,
    /// Adds what a new account has besides its key.
    pub furnish: fn(&World, &Account),
    /// How a client is configured for it.
    pub client: ClientSetup,
    /// The machines that users rent there.
    pub usage: Usage,
    /// The machines that other programs and people put into the same account.
    pub strangers: Strangers,
    /// What the traffic to its API means.
    pub traffic: Traffic,
}

/// One URL of a cloud.
#[derive(Clone, Copy, Debug)]
pub struct Url {
    /// The name by which clients and programs find it: `control`, `proxy`.
    pub name: &'static str,
    /// The listener that serves it.
    pub listener: &'static str,
    /// What follows the listener's address; it may have placeholders.
    pub path: &'static str,
}

/// How a cloud is started.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Setting {
    /// The URL of each listener's address, in the order of the listeners. Empty in process.
    pub addresses: Vec<String>,
    /// A key that every API of the cloud accepts.
    pub key: Option<String>,
    /// The maximum number of machines on a page; the cloud's own maximum if unset.
    pub page_size: Option<usize>,
    /// Whether the cloud limits the rate of calls.
    pub rates: bool,
    /// Whether there is a place, such as an app, into which others copy machines.
    pub strangers: bool,
}

/// A cloud that has been started.
pub struct Started {
    /// What each listener serves, in the order of the listeners.
    pub services: Vec<Served>,
    /// Resets the dialect's own state; the world has its own reset.
    pub reset: Box<dyn Fn() + Send + Sync>,
}

/// What one listener serves.
pub enum Served {
    /// An HTTP API of the cloud.
    Api(Api),
    /// The public ports of machines.
    Ports(Reach),
}

/// Finds the machine, by its id, and the port that a request to a public URL is for.
pub type Reach = Arc<dyn Fn(&Uri, &HeaderMap) -> Option<(String, u32)> + Send + Sync>;

/// An HTTP API of any cloud.
#[derive(Clone)]
pub struct Api(BoxCloneSyncService<Request<Full<Bytes>>, Response<SimBody>, io::Error>);

impl Api {
    /// The API that this dialect answers for.
    pub fn new(dialect: impl CloudService + Sync) -> Self {
        Self(BoxCloneSyncService::new(dialect))
    }

    async fn pass(self, parts: Parts, body: Bytes) -> io::Result<Response<SimBody>> {
        self.0
            .oneshot(Request::from_parts(parts, Full::new(body)))
            .await
    }
}

front!(Api);

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Api(..)")
    }
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Api(_) => "Api(..)",
            Self::Ports(_) => "Ports(..)",
        })
    }
}

/// How a client is configured for a simulated cloud.
#[derive(Clone, Copy, Debug)]
pub struct ClientSetup {
    /// The environment variable of the API key.
    pub key: &'static str,
    /// The environment variables of URLs, each with the name of the URL.
    pub urls: &'static [(&'static str, &'static str)],
    /// Settings of an account in the configuration file, besides key and URL.
    pub settings: &'static [(&'static str, &'static str)],
}

/// The machines that users rent on a cloud.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// A cheap machine that the cloud has in stock.
    pub machine: fn() -> ComputeRequest,
    /// Whether a machine without ports is placed differently from one with ports.
    pub portless_differs: bool,
    /// Whether the cloud rents machines that it may take back.
    pub spot: bool,
    /// Bounds and pace of an account, as its provider assumes them at least.
    pub limits: AccountLimits,
    /// Variables that the provider adds to a machine and that are not secret.
    pub open_variables: &'static [&'static str],
}

/// The machines that other programs and people put into an account.
#[derive(Clone, Copy, Debug)]
pub struct Strangers {
    /// A machine without a launch key.
    pub machine: fn(&World) -> MachineSpec,
    /// Changes the order of an existing machine so that the cloud accepts it a second time.
    pub copy: fn(&World, &mut MachineSpec),
    /// Where a machine carries its launch key besides its name.
    pub key_in: KeyIn,
    /// Whether a copy of a machine keeps the supporting objects of the original in use.
    pub share_support: bool,
}

/// Where a machine carries its launch key besides its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyIn {
    /// In its environment.
    Environment,
    /// In its tags.
    Tags,
}

/// What the traffic to a cloud's API means, for a network that acts on single calls.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Whether a call orders a machine.
    pub orders: fn(&Method, &str) -> bool,
    /// Whether a call reads one machine.
    pub reads: fn(&Method, &str) -> bool,
    /// The ids of the machines that a call orders the end of, by its method, path and body.
    pub ends: fn(&World, &Method, &str, &[u8]) -> Vec<String>,
    /// The status and the body that answer an accepted deletion.
    pub deleted: (u16, &'static str),
}

/// Whether the second-to-last segment of a path is this one: `/pods/abc` is one of `pods`.
pub(super) fn is_one_of(path: &str, kind: &str) -> bool {
    let mut segments = path.rsplit('/').filter(|segment| !segment.is_empty());
    segments.next().is_some() && segments.next() == Some(kind)
}

/// The segments of a path.
pub(super) fn segments(path: &str) -> Vec<&str> {
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .collect()
}

/// The limits of an account: seconds, seconds, milliseconds.
pub(super) const fn limits(
    bound: u64,
    deadline: u64,
    interval_ms: u64,
    burst: u32,
    concurrency: u32,
) -> AccountLimits {
    AccountLimits {
        visibility_bound: std::time::Duration::from_secs(bound),
        call_deadline: std::time::Duration::from_secs(deadline),
        call_interval: std::time::Duration::from_millis(interval_ms),
        burst,
        concurrency,
    }
}
