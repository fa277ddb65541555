//! Whether the indexes over sessions cover every session on record, and building them.
//!
//! Every commit of a session carries its index entries, so indexes that were built once stay whole,
//! unless an atlas writes that does not know of them: an older release on the same store. Every
//! process writes its node's row before it writes anything else, and one that does not maintain the
//! indexes leaves [`NodeRow::indexes`] out. A node row without it, of a life that the indexes were
//! not built after, says that they cannot be trusted. They are built again once no such node can
//! write any more; until then every reader walks the records themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::core::{Core, INDEX_ROW};
use super::entries;
use super::nodes::NodeRow;
use super::pages::PAGE;
use crate::ids::SessionId;
use crate::store::{Batch, CommitError, Table};

/// The format of the indexes that this release maintains. Another one builds its own.
pub(super) const FORMAT: u32 = 1;

const INDEXES: [Table; 3] = [Table::Live, Table::Users, Table::Ended];
/// Entries removed in one step, and nodes read at once.
const MANY: usize = 1000;
/// How often whole indexes are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(300);
/// How often a step is repeated whose sessions are written to at the same time.
const REPEATS: u32 = 16;

/// How far the indexes are built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct IndexRow {
    format: u32,
    /// Lives of nodes that did not maintain the indexes, and all of whose writes were made before
    /// the build began: the number of the lease by node.
    covers: BTreeMap<String, u64>,
    step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    /// What is left of earlier indexes is removed.
    Clearing,
    /// Entries are written for the sessions after this one, `None` before the first.
    Filling(Option<SessionId>),
    /// Every session has its entries.
    Whole,
}

/// Nodes whose newest life did not maintain the indexes.
#[derive(Debug, Default)]
struct Strangers {
    /// The numbers of their leases.
    numbers: BTreeMap<String, u64>,
    /// Whether one of them may still write.
    alive: bool,
}

async fn strangers(core: &Core) -> Result<Strangers> {
    let mut found = Strangers::default();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = core
            .store
            .scan(Table::Nodes, &[], after.as_deref(), MANY)
            .await?;
        for row in &rows {
            let node: NodeRow = serde_json::from_slice(&row.value).unwrap_or_default();
            if node.indexes != FORMAT {
                let name = String::from_utf8_lossy(&row.key).into_owned();
                found.numbers.insert(name, node.number);
                // One process at a time holds an exclusive store, and this is it.
                found.alive |= !core.exclusive && !node.clean && !node.buried;
            }
        }
        match rows.into_iter().last() {
            Some(last) => after = Some(last.key),
            None => return Ok(found),
        }
    }
}

async fn read(core: &Core) -> Result<(Option<IndexRow>, Option<u64>)> {
    let row = core.store.get(Table::Realm, INDEX_ROW).await?;
    let version = row.as_ref().map(|row| row.version);
    let read = row.and_then(|row| serde_json::from_slice::<IndexRow>(&row.value).ok());
    Ok((read.filter(|row| row.format == FORMAT), version))
}

impl IndexRow {
    fn covers(&self, strangers: &Strangers) -> bool {
        let covered = |(name, number)| self.covers.get(name) == Some(number);
        strangers.numbers.iter().all(covered)
    }
}

/// Whether every session on record has its index entries.
pub(crate) async fn is_whole(core: &Core) -> Result<bool> {
    match read(core).await? {
        (Some(row), _) if row.step == Step::Whole => Ok(row.covers(&strangers(core).await?)),
        _ => Ok(false),
    }
}

/// Builds the indexes where they are not whole, as long as the orchestrator runs.
pub(crate) async fn keep(core: Arc<Core>) {
    loop {
        let mut next = core.policy.lease_renew;
        if core.lease.may_act() && !core.is_held() {
            match build(&core).await {
                // Nobody else writes to this store, so they stay whole.
                Ok(true) if core.exclusive => return,
                // Every reader asks for itself whether they still are.
                Ok(true) => next = next.max(LOOK_AGAIN),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "the indexes of the store could not be built; sessions \
                        are found by reading every record until they are");
                }
            }
        }
        if !core.sleep(next).await {
            return;
        }
    }
}

/// Builds the indexes, in steps that are committed one by one: broken off, it goes on from the last
/// one. Whether they are whole now; false when an older release is still at work, or another node
/// builds them.
async fn build(core: &Core) -> Result<bool> {
    let strangers = strangers(core).await?;
    let (row, mut version) = read(core).await?;
    let mut row = match row.filter(|row| row.covers(&strangers)) {
        Some(row) if row.step == Step::Whole => return Ok(true),
        _ if strangers.alive => return Ok(false),
        Some(row) => row,
        None => IndexRow {
            format: FORMAT,
            covers: strangers.numbers,
            step: Step::Clearing,
        },
    };
    let mut repeats = 0;
    while !core.stopped.is_cancelled() && !core.is_held() {
        let Some(fence) = core.lease.fence() else {
            return Ok(false);
        };
        let mut batch = Batch::new().fenced(fence);
        batch.guard(Table::Realm, INDEX_ROW, version);
        let next = IndexRow {
            step: match &row.step {
                Step::Clearing => clear(core, &mut batch).await?,
                Step::Filling(after) => fill(core, &mut batch, *after).await?,
                Step::Whole => return Ok(true),
            },
            ..row.clone()
        };
        batch.put(
            Table::Realm,
            INDEX_ROW,
            serde_json::to_vec(&next).unwrap_or_default(),
        );
        match core.store.commit(batch).await {
            Ok(number) => {
                (row, version, repeats) = (next, Some(number), 0);
            }
            // A session was written to, or another node builds the indexes too.
            Err(CommitError::Conflict) => {
                repeats += 1;
                if repeats > REPEATS || read(core).await?.1 != version {
                    return Ok(false);
                }
            }
            Err(error) => return Err(Error::from(error)),
        }
        tokio::task::yield_now().await;
    }
    Ok(false)
}

/// Removes entries. One that is written meanwhile belongs to a session that the next steps read.
async fn clear(core: &Core, batch: &mut Batch) -> Result<Step> {
    for table in INDEXES {
        let rows = core.store.scan(table, &[], None, MANY).await?;
        if !rows.is_empty() {
            batch
                .deletes
                .extend(rows.into_iter().map(|row| (table, row.key)));
            return Ok(Step::Clearing);
        }
    }
    Ok(Step::Filling(None))
}

/// Writes the entries of the next sessions, each as it was read or not at all.
async fn fill(core: &Core, batch: &mut Batch, after: Option<SessionId>) -> Result<Step> {
    let from = after.as_ref().map(|id| id.as_bytes().as_slice());
    let rows = core.store.scan(Table::Sessions, &[], from, PAGE).await?;
    let mut last = None;
    for row in rows {
        let Some(id) = SessionId::from_slice(&row.key) else {
            continue;
        };
        batch.guard(Table::Sessions, row.key, Some(row.version));
        entries::put_entries(batch, id, &row.value);
        last = Some(id);
    }
    Ok(last.map_or(Step::Whole, |id| Step::Filling(Some(id))))
}
