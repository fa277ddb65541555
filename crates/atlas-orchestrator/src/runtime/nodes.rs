//! Nodes: the lease and liveness of this one, the death of others, and taking over their sessions.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::{Error, Result, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::adopt::{self, Doubt, adopt, take_up};
use super::clock;
use super::core::{
    ACCEPTED_ROW, AcceptedRow, Core, DEATH_ROW, Extra, HOLD_ROW, INDEX_ROW, Loaded, Seen, TimeRow,
};
use super::index;
use super::lease::scope;
use super::pages::LivePages;
use super::steady::{Marks, later};
use crate::kernel::clock::{MAX_DIFFERENCE, MAX_DRIFT};
use crate::kernel::glance::glance;
use crate::kernel::{Evidence, Input};
use crate::session::SessionState;
use crate::store::{Batch, CommitError, Fence, Row, StorePoint, Table};

/// The row of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NodeRow {
    /// The number of the lease it lives or lived under.
    pub(super) number: u64,
    /// It said good-bye: everything it had acknowledged was flushed.
    pub(super) clean: bool,
    /// Its death was noted, and what it looked after was taken over, up to that number.
    pub(super) buried: bool,
    /// The format of the indexes that it maintains: 0 for an atlas older than the indexes, which
    /// drops this field when it starts.
    pub(super) indexes: u32,
}

async fn node_row(core: &Core, node: &str) -> Result<(NodeRow, Option<u64>)> {
    Ok(match core.store.get(Table::Nodes, node.as_bytes()).await? {
        Some(row) => (
            serde_json::from_slice(&row.value).unwrap_or_default(),
            Some(row.version),
        ),
        None => (NodeRow::default(), None),
    })
}

async fn put_node_row(
    core: &Core,
    node: &str,
    row: &NodeRow,
    version: Option<u64>,
) -> Result<(), CommitError> {
    let batch = node_batch(node, row, version);
    core.store.commit(batch).await.map(drop)
}

fn node_batch(node: &str, row: &NodeRow, version: Option<u64>) -> Batch {
    let mut batch = Batch::new();
    batch.guard(Table::Nodes, node.as_bytes(), version);
    batch.put(
        Table::Nodes,
        node.as_bytes(),
        serde_json::to_vec(row).unwrap_or_default(),
    );
    batch
}

/// Acquires this node's lease, and first records how the last process with this name ended.
///
/// # Errors
/// `conflict` when another node holds it: that node took over the sessions of an earlier process
/// with this name, or it has the same name.
pub(crate) async fn enlist(core: &Core) -> Result<()> {
    let name = scope(&core.node);
    let before = core
        .store
        .leases(&name)
        .await?
        .into_iter()
        .find(|fence| fence.scope == name);
    if let Some(newest) = before
        .as_ref()
        .filter(|newest| core.lease.was_taken_by(newest))
        && newest.expires_at > core.store.now().await?
    {
        // Two processes that took the lease from each other in turn would never finish anything.
        tracing::error!(
            node = core.node,
            "another process looks after this node's sessions: this one leaves them to it"
        );
        return Err(Error::new(
            atlas_core::ErrorKind::Conflict,
            "another process looks after this node's sessions at the moment",
        ));
    }
    let sent = Sent::now(core);
    let Some(fence) = core
        .store
        .lease_acquire(&name, &core.node, core.policy.lease)
        .await?
    else {
        return Err(Error::new(
            atlas_core::ErrorKind::Conflict,
            "another node looks after this node's sessions at the moment",
        ));
    };
    let starts = core.lease.took(&fence);
    core.steady
        .store_showed(fence.store_time, sent.marks.monotonic());
    // A lease from the future was granted by a clock that was ahead, so its age is unknown.
    let silence = before.as_ref().map_or(Duration::ZERO, |before| {
        let (then, now) = (before.store_time, fence.store_time);
        now.since(then).max(then.since(now))
    });
    if starts {
        let error = clock::recorded_error(core).await?;
        let silence = Some(silence).filter(|silence| *silence > core.policy.lease);
        let unwatched = error.saturating_add(silence.unwrap_or_default());
        if !unwatched.is_zero() {
            core.steady.unwatched(unwatched);
        }
    }
    core.steady.returned(silence);
    let (row, version) = node_row(core, &core.node).await?;
    if silence > core.policy.lease {
        count_as_touch(core).await?;
    } else if version.is_some() && !row.clean && !row.buried {
        note_death(
            core,
            before
                .as_ref()
                .map_or(fence.store_time, |fence| fence.store_time),
        )
        .await?;
    }
    watch_ledger(core).await;
    let alive = NodeRow {
        number: fence.number,
        clean: false,
        buried: false,
        indexes: index::FORMAT,
    };
    let mut batch = node_batch(&core.node, &alive, version);
    if version.is_some() && row.indexes != index::FORMAT {
        // Another release wrote sessions under this name, and no trace of it is left from here on.
        batch.delete(Table::Realm, INDEX_ROW);
    }
    core.store.commit(batch).await.map_err(Error::from)?;
    granted(core, fence, sent);
    Ok(())
}

/// The same, but waits for a node that is just taking over the sessions of the last process with
/// this name.
pub(crate) async fn enlist_within(core: &Core, longest: Duration) -> Result<()> {
    let until = later(longest);
    loop {
        match enlist(core).await {
            Err(error)
                if error.kind() == atlas_core::ErrorKind::Conflict && Instant::now() < until =>
            {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            enlisted => return enlisted,
        }
    }
}

/// When a lease was requested, on every clock.
#[derive(Clone, Copy)]
struct Sent {
    marks: Marks,
    steady: Timestamp,
}

impl Sent {
    fn now(core: &Core) -> Self {
        Self {
            marks: core.steady.marks(),
            steady: core.now(),
        }
    }
}

fn granted(core: &Core, fence: Fence, sent: Sent) {
    core.steady
        .store_showed(fence.store_time, sent.marks.monotonic());
    core.lease.granted(
        fence,
        sent.marks,
        core.policy.lease,
        core.policy.lease_margin,
    );
    core.touches.trusted_until(last_word(core, sent.steady));
}

/// The last moment at which a node whose lease was renewed at `renewed` can acknowledge a touch
/// without flushing it.
fn last_word(core: &Core, renewed: Timestamp) -> Timestamp {
    renewed
        .saturating_add(core.policy.lease_renew)
        .saturating_add(core.policy.flush)
}

/// Records the death of a node that stopped without deregistering. It counts as one touch on every
/// session, at the last moment at which the node can have acknowledged a touch without flushing it.
async fn note_death(core: &Core, last_life: Timestamp) -> Result<()> {
    let at = last_word(core, last_life);
    // A later instant was written by a clock that was ahead.
    let wrong = core
        .now()
        .saturating_add(MAX_DIFFERENCE.saturating_add(core.policy.lease));
    for _ in 0..8 {
        let row = core.store.get(Table::Realm, DEATH_ROW).await?;
        let known = row
            .as_ref()
            .and_then(|row| serde_json::from_slice::<TimeRow>(&row.value).ok());
        if known.is_some_and(|known| known.at >= at && known.at <= wrong) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.guard(Table::Realm, DEATH_ROW, row.map(|row| row.version));
        batch.put(
            Table::Realm,
            DEATH_ROW,
            serde_json::to_vec(&TimeRow { at }).unwrap_or_default(),
        );
        match core.store.commit(batch).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(CommitError::Conflict.into())
}

/// Counts as activity now on every session.
pub(crate) async fn count_as_touch(core: &Core) -> Result<()> {
    let back = core.policy.lease_renew.saturating_add(core.policy.flush);
    note_death(core, core.now().saturating_sub(back)).await
}

fn name_of(fence: &Fence) -> Option<&str> {
    fence.scope.strip_prefix("node/")
}

/// Records the death of every node whose lease expired without deregistration.
pub(crate) async fn note_deaths(core: &Core) -> Result<()> {
    let now = core.store.now().await?;
    for fence in core.store.leases("node/").await? {
        let Some(node) = name_of(&fence) else {
            continue;
        };
        if node == core.node || fence.expires_at > now {
            continue;
        }
        let (row, version) = node_row(core, node).await?;
        if version.is_some() && !row.clean && !row.buried {
            note_death(core, fence.store_time).await?;
        }
    }
    Ok(())
}

/// Renews this node's lease. After the host slept, or its clock was set, the store's clock is read
/// at once.
pub(crate) async fn keep(core: Arc<Core>) {
    let look = core.policy.tick.min(core.policy.lease_renew);
    let mut renewed = Instant::now();
    loop {
        let noticed = tokio::select! {
            biased;
            () = core.progress.noticed.notified() => true,
            running = core.sleep(look) => {
                if !running {
                    return;
                }
                false
            }
        };
        if noticed {
            watch_ledger(&core).await;
        }
        let (wall, slept) = core.steady.missed();
        let due = renewed.elapsed().saturating_add(look / 2) >= core.policy.lease_renew;
        if due || wall.max(slept) > MAX_DRIFT {
            renewed = Instant::now();
            renew(&core).await;
        }
    }
}

/// Takes over the sessions of dead nodes, and sessions that became this node's unnoticed. Runs
/// separately from [`keep`], because it may take longer than a lease.
pub(crate) async fn inherit(core: Arc<Core>) {
    while core.sleep(core.policy.lease_renew).await {
        if !core.lease.may_act() || core.stopping.is_cancelled() {
            continue;
        }
        if let Err(error) = adopt::dispel(&core).await {
            tracing::warn!(%error, "whether all of this node's sessions are looked after could not \
                be read");
        }
        if !core.exclusive
            && let Err(error) = bury(&core).await
        {
            tracing::warn!(%error, "what other nodes left could not be looked at");
        }
    }
}

async fn renew(core: &Arc<Core>) {
    let Some(fence) = core.lease.fence() else {
        if !core.stopping.is_cancelled() {
            relearn(core).await;
        }
        return;
    };
    let sent = Sent::now(core);
    match core.store.lease_renew(&fence, core.policy.lease).await {
        Ok(Some(renewed)) => {
            granted(core, renewed, sent);
            watch_ledger(core).await;
        }
        Ok(None) if core.stopping.is_cancelled() => core.lease.lost(),
        Ok(None) => {
            tracing::warn!(
                node = core.node,
                "another node has taken over; starting again"
            );
            core.lease.lost();
            relearn(core).await;
        }
        Err(error) => {
            tracing::warn!(%error, "the node's lease could not be renewed");
            // A store whose file was replaced refuses every batch, and reports this only in answer
            // to one.
            if let Err(CommitError::RolledBack) = core.store.commit(Batch::new()).await {
                watch_ledger(core).await;
            }
        }
    }
}

/// The lease was lost: reload from the store which sessions are ours.
pub(crate) async fn relearn(core: &Arc<Core>) {
    core.slots.clear();
    core.touches.let_all_go();
    if enlist(core).await.is_ok()
        && let Err(error) = adopt(core).await
    {
        tracing::warn!(%error, "this node's sessions could not be read");
        core.lease.lost();
    }
}

/// Records how far the store has come; detects when it is behind that.
pub(crate) async fn watch_ledger(core: &Core) {
    let known = core.known_store();
    let Ok(info) = core.store.info().await else {
        return;
    };
    match core.saw_store(known.as_ref(), &info) {
        Seen::Goes => {}
        Seen::Other if goes_on_from(core, &info, known.as_ref()).await => {
            // An operator accepted the store on another node: our records are read again.
            core.forget_store();
            core.unhold();
            core.lease.lost();
            return;
        }
        Seen::Other => {
            core.hold("the store is another than this process saw before")
                .await
        }
        Seen::Behind => {
            core.hold("the store has less in it than this process saw before")
                .await
        }
        Seen::Refused => {
            core.hold("the store's file was replaced or removed under this process")
                .await
        }
    }
    let Some(ledger) = &core.ledger else { return };
    match ledger
        .last()
        .map(|last| crate::realm::Claim::of(&info, last))
    {
        Ok(crate::realm::Claim::First | crate::realm::Claim::Continues) => {
            if !core.is_held()
                && let Err(error) = ledger.record(&crate::realm::LastHolder::of(&info))
            {
                tracing::warn!(%error, "the store's progress could not be written down");
            }
        }
        Ok(crate::realm::Claim::Stranger(last)) => {
            let before = StorePoint {
                incarnation: last.incarnation,
                commit: 0,
            };
            // An operator accepted the store where another ledger is kept.
            if !goes_on_from(core, &info, Some(&before)).await {
                core.hold("another store held the realm last").await;
            } else if let Err(error) = ledger.record(&crate::realm::LastHolder::of(&info)) {
                tracing::warn!(%error, "the store's progress could not be written down");
            }
        }
        Ok(crate::realm::Claim::Behind(_)) => {
            core.hold("the store has less in it than it had").await
        }
        // The ledger may show that this store is not the one that held the realm last.
        Err(error) => {
            core.hold(&format!("the realm's last holder cannot be read: {error}"))
                .await
        }
    }
}

/// Whether an operator accepted the store as a continuation of this one.
async fn goes_on_from(
    core: &Core,
    info: &crate::store::StoreInfo,
    before: Option<&StorePoint>,
) -> bool {
    let Ok(Some(row)) = core.store.get(Table::Realm, ACCEPTED_ROW).await else {
        return false;
    };
    let Ok(row) = serde_json::from_slice::<AcceptedRow>(&row.value) else {
        return false;
    };
    let held = core.store.get(Table::Realm, HOLD_ROW).await;
    row.incarnation == info.incarnation
        && before.is_some_and(|before| row.before.contains(&before.incarnation))
        && matches!(held, Ok(None))
}

/// Takes over the sessions of every node that is gone.
async fn bury(core: &Arc<Core>) -> Result<()> {
    let now = core.store.now().await?;
    for fence in core.store.leases("node/").await? {
        let Some(node) = name_of(&fence) else {
            continue;
        };
        if node == core.node || fence.expires_at > now {
            continue;
        }
        let (row, version) = node_row(core, node).await?;
        if version.is_none() || row.buried {
            continue;
        }
        let silence = now.since(fence.store_time);
        core.steady.returned(silence);
        if silence > core.policy.lease {
            // Its sessions could not be touched since then.
            count_as_touch(core).await?;
        } else if !row.clean {
            note_death(core, fence.store_time).await?;
        }
        // Its fence ends here: whatever it still tries to write is refused.
        let Some(held) = core
            .store
            .lease_acquire(&fence.scope, &core.node, core.policy.lease)
            .await?
        else {
            continue;
        };
        tracing::info!(node, "taking over the sessions of a node that is gone");
        take_over(core, node).await?;
        let (now, version) = node_row(core, node).await?;
        // It may have come back meanwhile. Then this is another life, whose death is still to be
        // recorded.
        if now.number == row.number {
            let buried = NodeRow {
                buried: true,
                ..now
            };
            put_node_row(core, node, &buried, version)
                .await
                .map_err(Error::from)?;
        }
        core.store.lease_release(&held).await?;
    }
    Ok(())
}

/// Claims the sessions of a node that is gone.
async fn take_over(core: &Arc<Core>, node: &str) -> Result<()> {
    let doubt = Doubt::begin(core);
    let mut pages = LivePages::begin(core).await?;
    while let Some(heads) = pages.next(core).await? {
        let of_others = |row: &Row| glance(&row.value).is_some_and(|glance| glance.owner != node);
        let heads = heads.into_iter().filter(|row| !of_others(row)).collect();
        for row in pages.whole(core, heads).await? {
            let Some(mut loaded) = Loaded::readable(row) else {
                continue;
            };
            while loaded.record.owner == node && loaded.record.state() != SessionState::Terminated {
                let claim = Input::Claim(core.node.clone());
                match core
                    .apply(
                        &mut loaded,
                        &mut Evidence::default(),
                        &claim,
                        Extra::default(),
                    )
                    .await
                {
                    Ok(_) => take_up(core, &loaded.record).await?,
                    // It was changed meanwhile, for example by a stop or an extension.
                    Err(CommitError::Conflict) => match core.load(loaded.record.id).await? {
                        Some(fresh) => loaded = fresh,
                        None => break,
                    },
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    doubt.settled();
    Ok(())
}

/// Deregisters this node: all its touches are flushed, and others may take over at once.
pub(crate) async fn leave(core: &Core, flushed: bool) {
    if flushed && let Ok((row, version)) = node_row(core, &core.node).await {
        let left = NodeRow { clean: true, ..row };
        if put_node_row(core, &core.node, &left, version)
            .await
            .is_err()
        {
            tracing::warn!(
                "could not record this node's departure; a takeover will treat it as a crash"
            );
        }
    }
    if let Some(fence) = core.lease.fence()
        && core.store.lease_release(&fence).await.is_err()
    {
        tracing::warn!("the node's lease could not be released; it runs out by itself");
    }
    core.lease.lost();
}
