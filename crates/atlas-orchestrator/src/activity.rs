//! What the host knows of a machine: when it was active besides touches, and whether it is usable.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use atlas_core::{Compute, Error, Result, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::SessionId;

/// Something that knows when a session was last active: a proxy's log, a queue, a callback.
///
/// It is asked before an idle warning or end. An error counts as activity at this moment: what
/// cannot be read ends nothing.
pub trait ActivitySource: Debug + Send + Sync + 'static {
    /// Its name, for people.
    fn name(&self) -> &str;

    /// The newest activity it knows of.
    ///
    /// # Errors
    /// When it cannot say: the session counts as active.
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

/// Any source of activity.
#[derive(Clone, Debug)]
pub struct AnyActivitySource(Arc<dyn Erased>);

impl AnyActivitySource {
    /// Takes a source.
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

/// What must answer before a session's machine counts as usable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum Probe {
    /// A GET of this path, behind this port of the container.
    Http {
        /// Inside the container.
        port: u32,
        /// Begins with `/`.
        path: String,
    },
    /// Taking a connection at this port of the container.
    Tcp {
        /// Inside the container.
        port: u32,
    },
}

impl Probe {
    /// A GET of this path, behind this port of the container.
    #[must_use]
    pub fn http(port: u32, path: impl Into<String>) -> Self {
        Self::Http {
            port,
            path: path.into(),
        }
    }

    /// Taking a connection at this port of the container.
    #[must_use]
    pub const fn tcp(port: u32) -> Self {
        Self::Tcp { port }
    }

    /// The port it asks at.
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

/// Something that can tell whether a running machine is usable: an HTTP or TCP probe of its ports.
///
/// It is asked at every look at a machine that its cloud says is running, until it says yes once.
pub trait ReadyProbe: Debug + Send + Sync + 'static {
    /// Whether the machine is usable now; `wanted` is what the session's options ask for. Bounded
    /// by the account's call deadline; no answer in time is a no.
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

/// Any probe.
#[derive(Clone, Debug)]
pub struct AnyReadyProbe(Arc<dyn ErasedProbe>);

impl AnyReadyProbe {
    /// Takes a probe.
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
