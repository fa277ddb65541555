//! Information about a machine from the host application: activity besides touches, and readiness.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use atlas_core::{Compute, Error, Result, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::SessionId;

/// A source that knows when a session was last active: a proxy's log, a queue, a callback.
///
/// It is asked before an idle warning or an idle end. An error counts as activity at this moment,
/// so that a source that cannot be read ends no session.
pub trait ActivitySource: Debug + Send + Sync + 'static {
    /// The name of the source, for display.
    fn name(&self) -> &str;

    /// The latest activity that the source knows of.
    ///
    /// # Errors
    /// If the source cannot tell. The session then counts as active.
    fn last_activity(
        &self,
        session: SessionId,
    ) -> impl Future<Output = Result<Option<Timestamp>>> + Send;
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Option<Timestamp>>> + Send + 'a>>;

trait Erased: Debug + Send + Sync {
    fn name(&self) -> &str;
    fn last_activity(&self, session: SessionId) -> Answer<'_>;
}

impl<S: ActivitySource> Erased for S {
    fn name(&self) -> &str {
        ActivitySource::name(self)
    }

    fn last_activity(&self, session: SessionId) -> Answer<'_> {
        Box::pin(ActivitySource::last_activity(self, session))
    }
}

/// A handle to any activity source.
#[derive(Clone, Debug)]
pub struct AnyActivitySource(Arc<dyn Erased>);

impl AnyActivitySource {
    /// Wraps a source.
    pub fn new(source: impl ActivitySource) -> Self {
        Self(Arc::new(source))
    }

    pub(crate) fn name(&self) -> &str {
        self.0.name()
    }

    pub(crate) async fn last_activity(&self, session: SessionId) -> Result<Option<Timestamp>> {
        self.0.last_activity(session).await
    }
}

/// The check that must succeed before a session's machine counts as usable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum Probe {
    /// An HTTP GET of a path on a port of the container.
    Http {
        /// The port number inside the container.
        port: u32,
        /// The path; it begins with `/`.
        path: String,
    },
    /// A TCP connection to a port of the container.
    Tcp {
        /// The port number inside the container.
        port: u32,
    },
}

impl Probe {
    /// A check by HTTP GET of this path on this port of the container.
    #[must_use]
    pub fn http(port: u32, path: impl Into<String>) -> Self {
        Self::Http {
            port,
            path: path.into(),
        }
    }

    /// A check by TCP connection to this port of the container.
    #[must_use]
    pub const fn tcp(port: u32) -> Self {
        Self::Tcp { port }
    }

    /// The port that is checked.
    #[must_use]
    pub const fn port(&self) -> u32 {
        match self {
            Self::Http { port, .. } | Self::Tcp { port } => *port,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let plain = |path: &str| {
            path.starts_with('/') && path.len() <= 512 && path.bytes().all(|b| b.is_ascii_graphic())
        };
        match self {
            Self::Http { path, .. } if !plain(path) => Err(Error::validation(
                "probe",
                "its path must begin with / and be plain ASCII",
            )),
            _ => Ok(()),
        }
    }
}

/// Decides whether a running machine is usable, such as an HTTP or TCP probe of its ports.
///
/// It is called at every poll of a machine that its cloud reports as running, until it first
/// returns true.
pub trait ReadyProbe: Debug + Send + Sync + 'static {
    /// Whether the machine is usable now; `wanted` is the probe from the session's options. The
    /// call is limited by the account's call deadline; no answer in time counts as not ready.
    fn is_ready(
        &self,
        session: SessionId,
        compute: &Compute,
        wanted: Option<&Probe>,
    ) -> impl Future<Output = bool> + Send;
}

type Ready<'a> = Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

trait ErasedProbe: Debug + Send + Sync {
    fn is_ready<'a>(
        &'a self,
        session: SessionId,
        compute: &'a Compute,
        wanted: Option<&'a Probe>,
    ) -> Ready<'a>;
}

impl<P: ReadyProbe> ErasedProbe for P {
    fn is_ready<'a>(
        &'a self,
        session: SessionId,
        compute: &'a Compute,
        wanted: Option<&'a Probe>,
    ) -> Ready<'a> {
        Box::pin(ReadyProbe::is_ready(self, session, compute, wanted))
    }
}

/// A handle to any probe.
#[derive(Clone, Debug)]
pub struct AnyReadyProbe(Arc<dyn ErasedProbe>);

impl AnyReadyProbe {
    /// Wraps a probe.
    pub fn new(probe: impl ReadyProbe) -> Self {
        Self(Arc::new(probe))
    }

    pub(crate) async fn is_ready(
        &self,
        session: SessionId,
        compute: &Compute,
        wanted: Option<&Probe>,
    ) -> bool {
        self.0.is_ready(session, compute, wanted).await
    }
}
