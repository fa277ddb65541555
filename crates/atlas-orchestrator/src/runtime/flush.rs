//! Makes acknowledged touches durable, in batches.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::Error;

use super::core::Core;
use super::touches::{Unflushed, touch_time};
use crate::store::{Batch, CommitError, Table};

const BATCH: usize = 1000;

/// Flushes whenever something is due, while the orchestrator runs.
pub(crate) async fn keep(core: Arc<Core>) {
    loop {
        let due = core.touches.flush_at();
        let wait = due.map_or_else(
            || tokio::time::Instant::now() + Duration::from_secs(3600),
            |due| core.steady.instant(due),
        );
        tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            () = core.touches.wanted.notified() => {}
            () = tokio::time::sleep_until(wait) => {
                if core.policy.safeguards().flush_touches {
                    flush(&core).await;
                } else {
                    drop(core.touches.take());
                }
            }
        }
    }
}

/// Makes every touch durable that was acknowledged so far. False if the store did not accept all of
/// them.
pub(crate) async fn flush(core: &Core) -> bool {
    let mut all = true;
    // While a store hangs, flushing counts as failing.
    let began = core.now();
    core.touches.works(false, began);
    for chunk in core.touches.take().chunks(BATCH) {
        all &= write(core, chunk.to_vec()).await;
    }
    core.touches.works(all, began);
    all
}

async fn write(core: &Core, mut chunk: Vec<Unflushed>) -> bool {
    for round in 0..4 {
        if chunk.is_empty() {
            return true;
        }
        let mut batch = Batch::new();
        for touch in &chunk {
            batch.guard(Table::Touches, *touch.id.as_bytes(), touch.version);
            batch.put(
                Table::Touches,
                *touch.id.as_bytes(),
                touch.newest.unix_millis().to_string(),
            );
        }
        match core.store.commit(batch).await {
            Ok(version) => {
                for touch in &chunk {
                    core.touches.flushed(touch.id, touch.newest, version);
                }
                return true;
            }
            Err(CommitError::Conflict) => {
                // Another node wrote some of them, or a session ended: read again, and write only
                // what is newer.
                match refresh(core, chunk).await {
                    Ok(rest) => chunk = rest,
                    Err(rest) => {
                        chunk = rest;
                        break;
                    }
                }
            }
            Err(error) => {
                tracing::warn!(error = %Error::from(error), round, "touches could not be flushed");
                break;
            }
        }
    }
    let again = core.now().saturating_add(Duration::from_millis(500));
    core.touches.again(chunk, again);
    false
}

async fn refresh(core: &Core, chunk: Vec<Unflushed>) -> Result<Vec<Unflushed>, Vec<Unflushed>> {
    let mut rest = Vec::with_capacity(chunk.len());
    for touch in &chunk {
        match core.store.get(Table::Touches, touch.id.as_bytes()).await {
            Ok(Some(row)) => {
                let durable = touch_time(&row.value).unwrap_or(touch.newest);
                core.touches.flushed(touch.id, durable, row.version);
                if durable < touch.newest {
                    rest.push(Unflushed {
                        version: Some(row.version),
                        ..*touch
                    });
                }
            }
            Ok(None) if core.slots.contains(touch.id) => rest.push(Unflushed {
                version: None,
                ..*touch
            }),
            // The session ended, and its row was deleted with it.
            Ok(None) => {}
            Err(_) => return Err(chunk),
        }
    }
    Ok(rest)
}
