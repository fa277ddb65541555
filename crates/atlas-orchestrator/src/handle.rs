//! A handle to one session.

use std::time::Duration;

use atlas_core::{Compute, Error, ErrorKind, Result};

use crate::event::{Cursor, Scope};
use crate::ids::SessionId;
use crate::info::{SessionInfo, StopOutcome, Touch};
use crate::orchestrator::{Orchestrator, ended};
use crate::outcome::TaskOutcome;
use crate::runtime::{Subscription, feed};
use crate::session::SessionState;

/// A handle to one session. Cheap to clone; dropping it does not end the session.
#[derive(Clone, Debug)]
pub struct Session {
    orchestrator: Orchestrator,
    id: SessionId,
}

impl Session {
    pub(crate) fn new(orchestrator: Orchestrator, id: SessionId) -> Self {
        Self { orchestrator, id }
    }

    /// The session's id.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// The serving machine as last seen, with its credential.
    ///
    /// # Errors
    /// `not_found` while there is none; `unavailable` when the store cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn compute(&self) -> Result<Compute> {
        let info = self.info().await?;
        info.compute.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                "the session has no machine at the moment",
            )
        })
    }

    /// All information about the session.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn info(&self) -> Result<SessionInfo> {
        self.orchestrator.info(self.id).await
    }

    /// Records activity now; see [`Orchestrator::touch`].
    pub fn touch(&self) -> Touch {
        self.orchestrator.touch(self.id)
    }

    /// Subscribes to the session's events after a cursor.
    #[must_use]
    pub fn events(&self, cursor: Cursor) -> Subscription {
        self.orchestrator.subscribe(Scope::Session(self.id), cursor)
    }

    /// Vetoes the idle end that was announced; see [`Orchestrator::veto`].
    ///
    /// # Errors
    /// See [`Orchestrator::veto`].
    ///
    /// # Cancel safety
    /// Like [`Orchestrator::veto`].
    pub async fn veto(&self) -> Result<()> {
        self.orchestrator.veto(self.id).await
    }

    /// Postpones an idle end until `span` from now.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be written.
    ///
    /// # Cancel safety
    /// Like [`Orchestrator::extend`].
    pub async fn extend(&self, span: Duration) -> Result<()> {
        self.orchestrator.extend(self.id, span).await
    }

    /// Commits the end of the session and of its machines. Final. Returns at once; the orchestrator
    /// carries the end out, also after a crash.
    ///
    /// # Errors
    /// `unavailable` when the store rejected the write.
    ///
    /// # Cancel safety
    /// Like [`Orchestrator::stop_tracked`].
    pub async fn terminate(&self) -> Result<StopOutcome> {
        self.orchestrator.stop_tracked(self.id).await
    }

    /// The former name of [`terminate`](Self::terminate): it ends the session permanently.
    ///
    /// # Errors
    /// See [`terminate`](Self::terminate).
    ///
    /// # Cancel safety
    /// See [`terminate`](Self::terminate).
    pub async fn stop(&self) -> Result<StopOutcome> {
        self.terminate().await
    }

    /// Waits until the session's machine is usable; see [`Orchestrator::await_ready`].
    ///
    /// # Errors
    /// See [`Orchestrator::await_ready`].
    ///
    /// # Cancel safety
    /// Safe: it only waits, and can be called again.
    pub async fn await_ready(&self, wait: Duration) -> Result<SessionInfo> {
        self.orchestrator.await_ready(self.id, wait).await
    }

    /// Waits until a cloud has accepted an order for the session.
    ///
    /// # Errors
    /// The last refusal, if no machine could be rented.
    ///
    /// # Cancel safety
    /// Safe: it only waits, and can be called again.
    pub async fn await_accepted(&self) -> Result<()> {
        let reason = feed::wait_for(
            &self.orchestrator.core,
            self.id,
            None,
            |record| match &record.ending {
                Some(ending) => Some(Some(ending.reason.clone())),
                None => record.serving().map(|_| None),
            },
        )
        .await?;
        match reason.flatten() {
            Some(reason) => Err(ended(&reason, "the session ended before it had a machine")),
            None => Ok(()),
        }
    }

    /// Waits for the end of the session's task.
    ///
    /// # Errors
    /// When the task could not be placed, or the session is not a task.
    ///
    /// # Cancel safety
    /// Safe: it only waits, and can be called again.
    pub async fn await_outcome(&self) -> Result<TaskOutcome> {
        let seen = feed::wait_for(&self.orchestrator.core, self.id, None, |record| {
            let placed = record
                .attempts
                .iter()
                .any(|attempt| attempt.serving.is_some());
            match (&record.outcome, &record.ending) {
                (Some(_), Some(ending))
                    if !placed
                        && matches!(ending.reason, crate::event::Reason::CannotPlace { .. }) =>
                {
                    Some(Err(ended(&ending.reason, "the task was not placed")))
                }
                (Some(outcome), _) => Some(Ok(*outcome)),
                (None, Some(ending)) => Some(Err(ended(&ending.reason, "the session ended"))),
                (None, None) if record.state() == SessionState::Terminated => Some(Err(
                    Error::new(ErrorKind::Conflict, "the session ended without an outcome"),
                )),
                (None, None) => None,
            }
        })
        .await?;
        seen.unwrap_or_else(|| Err(Error::new(ErrorKind::Timeout, "the task has not ended")))
    }
}
