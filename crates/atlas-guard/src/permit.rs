//! The dead-man permit: if it is not renewed in time, the machine ends itself, even when no atlas
//! process is left to end it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The time until which the machine may run. Clones share one deadline.
#[derive(Clone, Debug)]
pub struct Permit {
    span: Option<Duration>,
    deadline: Arc<watch::Sender<Instant>>,
}

impl Permit {
    /// Valid for `span` from now and from each renewal; permanently if there is no span.
    #[must_use]
    pub fn new(span: Option<Duration>) -> Self {
        let deadline = Instant::now() + span.unwrap_or_default();
        Self {
            span,
            deadline: Arc::new(watch::channel(deadline).0),
        }
    }

    /// Makes it valid for the whole span again, from now.
    pub fn renew(&self) {
        if let Some(span) = self.span {
            self.deadline.send_replace(Instant::now() + span);
        }
    }

    /// Waits until the permit has expired. Cancel safe.
    pub async fn lapsed(&self) {
        if self.span.is_none() {
            return std::future::pending().await;
        }
        let mut changes = self.deadline.subscribe();
        loop {
            let deadline = *changes.borrow_and_update();
            tokio::select! {
                biased;
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep_until(deadline) => return,
            }
        }
    }
}
