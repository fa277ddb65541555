//! Handles jumps of the time: after the host slept, or a clock was set.
//!
//! A return from sleep is like a restart: what was read before is old, the age of orders around it
//! is unknown, and no session could be touched meanwhile.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::Result;

use super::core::{CLOCK_ROW, ClockRow, Core};
use super::nodes;
use crate::kernel::Input;
use crate::kernel::clock::MAX_DIFFERENCE;
use crate::store::{Batch, Table};

/// How wrong the store's clock was when a process last compared it with the clouds'. What is on
/// record was stamped with the corrected time. Until a new process has heard from a cloud, it
/// cannot tell whether that time has passed.
pub(crate) async fn recorded_error(core: &Core) -> Result<Duration> {
    let row = recorded(core).await?;
    Ok(Duration::from_millis(row.ahead_ms.unsigned_abs()))
}

async fn recorded(core: &Core) -> Result<ClockRow> {
    let row = core.store.get(Table::Realm, CLOCK_ROW).await?;
    let row = row.and_then(|row| serde_json::from_slice(&row.value).ok());
    Ok(row.unwrap_or_default())
}

/// Puts on record how wrong the store's clock is, for the next process.
async fn record_error(core: &Core, known: &mut Option<ClockRow>) -> Result<()> {
    let Some(ahead_ms) = core.steady.store_ahead() else {
        return Ok(());
    };
    let before = match *known {
        Some(row) => row,
        None => *known.insert(recorded(core).await?),
    };
    let by = before.ahead_ms.saturating_sub(ahead_ms).unsigned_abs();
    if Duration::from_millis(by) <= MAX_DIFFERENCE {
        return Ok(());
    }
    let row = ClockRow { ahead_ms };
    let mut batch = Batch::new();
    let value = serde_json::to_vec(&row).unwrap_or_default();
    batch.put(Table::Realm, CLOCK_ROW, value);
    core.store.commit(batch).await?;
    *known = Some(row);
    Ok(())
}

/// Handles every jump, and plans all sessions again when a doubt has ended.
pub(crate) async fn keep(core: Arc<Core>) {
    let mut known = None;
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
        while let Err(error) = record_error(&core, &mut known).await {
            tracing::warn!(%error, "how wrong the store's clock is is not on record yet");
            if !core.sleep(Duration::from_secs(1)).await {
                return;
            }
        }
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
