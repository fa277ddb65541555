//! The task that decides which sessions are worked on: a queue of timers, a set of ready sessions,
//! and a limited number of concurrent drivers.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::driver::drive;

/// Runs drivers for every session that is due, while the orchestrator runs.
pub(crate) async fn keep(core: Arc<Core>) {
    loop {
        let next = loop {
            match core.slots.next(core.now(), core.policy.concurrency) {
                Ok((id, work)) => core.spawn("driver", drive(core.clone(), id, work)),
                Err(next) => break next,
            }
        };
        let wait = next.map_or_else(
            || tokio::time::Instant::now() + Duration::from_secs(3600),
            |at| core.steady.instant(at),
        );
        tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            () = core.slots.changed.notified() => {}
            () = tokio::time::sleep_until(wait) => {}
        }
    }
}
