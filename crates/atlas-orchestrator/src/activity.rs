//! What the host knows of a machine: when it was active besides touches, and whether it is usable.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use atlas_core::{Compute, Result, Timestamp};

use crate::ids::SessionId;

/// Something that knows when a session was last active: a proxy's log, a queue, a callback.
///
/// It is asked before an idle warning or end. An error counts as activity at this moment: what cannot be read ends nothing.
pub trait ActivitySource: Debug + Send + Sync + 'static {
    /// Its name, for people.
    fn name(&self) -> &str;

    /// The newest activity it knows of.
    ///
    /// # Errors
    /// When it cannot say: the session counts as active.
    fn last_activity(&self, session: SessionId) -> impl Future<Output = Result<Option<Timestamp>>> + Send;
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

/// Something that can tell whether a running machine is usable: an HTTP or TCP probe of its ports.
///
/// It is asked at every look at a machine that its cloud says is running, until it says yes once.
pub trait ReadyProbe: Debug + Send + Sync + 'static {
    /// Whether the machine is usable now. Bounded by the account's call deadline; no answer in time is a no.
    fn is_ready(&self, session: SessionId, compute: &Compute) -> impl Future<Output = bool> + Send;
}

trait ErasedProbe: Debug + Send + Sync {
    fn is_ready<'a>(&'a self, session: SessionId, compute: &'a Compute) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>>;
}

impl<P: ReadyProbe> ErasedProbe for P {
    fn is_ready<'a>(&'a self, session: SessionId, compute: &'a Compute) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(ReadyProbe::is_ready(self, session, compute))
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

    pub(crate) async fn is_ready(&self, session: SessionId, compute: &Compute) -> bool {
        self.0.is_ready(session, compute).await
    }
}
