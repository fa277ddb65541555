//! Information about a machine from the host application: activity besides touches, and readiness.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use atlas_core::{Compute, Result, Timestamp};

use crate::ids::SessionId;
use crate::probe::Probe;

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
