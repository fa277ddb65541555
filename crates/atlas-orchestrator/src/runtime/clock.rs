//! Handles jumps of the time: after the host slept, or a clock was set.
//!
//! A return from sleep is like a restart: what was read before is old, the age of orders around it
//! is unknown, and no session could be touched meanwhile.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::nodes;
use crate::kernel::Input;

/// Handles every jump, and plans all sessions again when a doubt has ended.
pub(crate) async fn keep(core: Arc<Core>) {
    loop {
        tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            () = core.steady.changed.notified() => {}
        }
        if let Some(jump) = core.steady.take_jump() {
            jumped(&core, jump).await;
        }
        core.slots.wake_all();
    }
}

async fn jumped(core: &Arc<Core>, nanos: i64) {
    let by = Duration::from_nanos(nanos.unsigned_abs());
    let backwards = nanos < 0;
    tracing::warn!(
        ?by,
        backwards,
        "the time jumped: the host was suspended, or a clock was set"
    );
    if backwards {
        core.touches.not_later_than(core.now());
    }
    core.touches.wanted.notify_one();
    for id in core.slots.ids_after_a_jump(backwards) {
        core.slots.tell(id, Some(Input::TimeJumped));
    }
    if by <= core.policy.lease {
        return;
    }
    for account in &core.accounts {
        account.look.notify_one();
    }
    // In this process the touch already counts; the record is for the next process and for other
    // nodes.
    let mut wait = Duration::from_millis(500);
    while let Err(error) = nodes::count_as_touch(core).await {
        tracing::warn!(%error, "the return could not be put on record as a touch yet");
        if !core.sleep(wait).await {
            return;
        }
        wait = wait.saturating_mul(2).min(Duration::from_secs(10));
    }
}
