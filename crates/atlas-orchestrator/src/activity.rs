//! Where activity can come from besides `touch`.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use atlas_core::{Result, Timestamp};

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
