//! One call to the mock cloud: its account, its fault, its repeats.

use std::time::Duration;

use atlas_core::{
    CallContext, DateListener, Error, ErrorKind, Next, Outcome, Provider, Result, RetryClass,
};
use tokio::time::Instant;

use super::CLOUD;
use super::provider::MockProvider;
use crate::world::{Account, Arrival, FaultKind};

/// Default maximum number of repeats of an idempotent call.
const RETRIES: u32 = 2;
/// The delay of an answer under the fault `slow`.
const SLOW: Duration = Duration::from_secs(5);

/// A call in progress.
pub(super) struct Call<'a> {
    operation: &'static str,
    class: RetryClass,
    target: Option<&'a str>,
}

impl<'a> Call<'a> {
    pub(super) const fn new(operation: &'static str, class: RetryClass) -> Self {
        Self {
            operation,
            class,
            target: None,
        }
    }

    /// Sets the machine concerned.
    pub(super) const fn about(self, id: &'a str) -> Self {
        Self {
            target: Some(id),
            ..self
        }
    }

    /// Makes the call, and repeats it as its class allows.
    pub(super) async fn make<T>(
        &self,
        provider: &MockProvider,
        cx: &CallContext,
        work: impl Fn(&Account, &Arrival) -> Result<T> + Send,
    ) -> Result<T> {
        let deadline = Instant::now() + cx.timeout().unwrap_or(provider.limits().call_deadline);
        let mut left = cx.retries().unwrap_or(RETRIES);
        let mut wait = Duration::from_millis(100);
        loop {
            let error = match self.once(provider, cx, deadline, &work).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let wait_now = wait.max(error.retry_after().unwrap_or_default());
            let repeats = left > 0 && error.is_retryable(self.class);
            if !repeats || Instant::now() + wait_now >= deadline {
                return Err(error);
            }
            left -= 1;
            tokio::time::sleep(wait_now).await;
            wait *= 2;
        }
    }

    async fn once<T>(
        &self,
        provider: &MockProvider,
        cx: &CallContext,
        deadline: Instant,
        work: &(impl Fn(&Account, &Arrival) -> Result<T> + Send),
    ) -> Result<T> {
        let (cloud, world) = (provider.cloud(), provider.cloud().world());
        *cloud
            .belongings()
            .calls
            .entry(self.operation.to_owned())
            .or_default() += 1;
        let key = cx.api_key().unwrap_or(provider.key()).expose();
        // A world that runs faster than its client, or stands still, has no comparable time.
        if let Some(listener) = cx.extension::<DateListener>()
            && world.clock().keeps_pace()
        {
            listener.asked()(world.now());
        }
        let arrival = world.arrive(CLOUD, self.operation, key, self.target, false);
        let Some(account) = world.authorize(CLOUD, key) else {
            let error =
                Error::new(ErrorKind::Unauthorized, "the api key was rejected").with_status(401);
            return Err(error.outcome_is(Outcome::NotApplied(Next::Stop)));
        };
        match arrival.refused() {
            Some(refusal @ (FaultKind::Status429 | FaultKind::Status429ForHours)) => {
                let error = Error::new(ErrorKind::RateLimited, "too many calls").with_status(429);
                let error = error.outcome_is(Outcome::NotApplied(Next::SameLater));
                return Err(match refusal {
                    FaultKind::Status429ForHours => error.with_retry_after(FaultKind::LONG_WAIT),
                    _ => error,
                });
            }
            Some(FaultKind::ResetBeforeCommit) => {
                return Err(lost(ErrorKind::Transport, "the connection was reset"));
            }
            Some(_) => {
                return Err(lost(ErrorKind::Unavailable, "the cloud failed").with_status(500));
            }
            None => {}
        }
        let answer = work(&account, &arrival);
        match arrival.answer() {
            None => answer,
            Some(FaultKind::CommitThen500) => {
                answer.and(Err(
                    lost(ErrorKind::Unavailable, "the cloud failed").with_status(500)
                ))
            }
            Some(FaultKind::Html502) => {
                Err(lost(ErrorKind::Unavailable, "a proxy answered with html").with_status(502))
            }
            Some(FaultKind::Truncated) => {
                Err(lost(ErrorKind::Provider, "the answer broke off").with_status(200))
            }
            Some(FaultKind::CommitThenReset) => {
                Err(lost(ErrorKind::Transport, "the connection was reset"))
            }
            Some(FaultKind::Slow) if Instant::now() + SLOW < deadline => {
                tokio::time::sleep(SLOW).await;
                answer
            }
            Some(_) => {
                tokio::time::sleep_until(deadline).await;
                Err(lost(ErrorKind::Timeout, "no answer in time"))
            }
        }
    }
}

/// An error with an unknown outcome.
fn lost(kind: ErrorKind, message: &str) -> Error {
    Error::new(kind, message).outcome_is(Outcome::Unknown(Vec::new()))
}
