//! Work without a deadline: reading what clouds billed, and deleting what was kept long enough.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{AccountName, Capability, ComputeId, Error, Result, SpendQuery, Timestamp, Usd};

use super::account::Account;
use super::core::{Core, Extra, Loaded};
use super::entries;
use super::index;
use super::lease::scope;
use super::pacer::Class;
use super::pages::{EndedPages, LivePages, Pages};
use crate::kernel::{Evidence, Input};
use crate::store::{Batch, CommitError, Row, Table};

const EVERY: Duration = Duration::from_secs(3600);
/// Bills arrive in arrears: those of an ended session are read for this long after its end.
const BILLED_WITHIN: Duration = Duration::from_secs(48 * 3600);

/// Makes a round once an hour, while the orchestrator runs.
pub(crate) async fn keep(core: Arc<Core>) {
    let start = core.entropy.duration_below(EVERY / 4);
    if !core.sleep(EVERY / 2 + start).await {
        return;
    }
    loop {
        if core.lease.may_act()
            && !core.is_held()
            && let Err(error) = round(&core).await
        {
            tracing::warn!(%error, "the hourly round was broken off");
        }
        if !core.sleep(EVERY).await {
            return;
        }
    }
}

/// One round over the sessions on record that are this node's, or whose node is gone. Of those that
/// are over, only the ones are read that something is due for.
pub(crate) async fn round(core: &Arc<Core>) -> Result<()> {
    let now = core.now();
    let mut bills = BTreeMap::new();
    for account in &core.accounts {
        if account.provider.capabilities().has(Capability::Spend) {
            match spend(account, now).await {
                Ok(billed) => drop(bills.insert(account.name.clone(), billed)),
                Err(error) => {
                    tracing::warn!(account = %account.name, %error,
                        "what was billed could not be read")
                }
            }
        }
    }
    let store_now = core.store.now().await?;
    let mut alive: BTreeSet<String> = core
        .store
        .leases("node/")
        .await?
        .into_iter()
        .filter(|fence| fence.expires_at > store_now)
        .map(|fence| fence.scope)
        .collect();
    alive.remove(&scope(&core.node));
    let round = Round { alive, bills, now };
    if !index::is_whole(core).await? {
        let mut pages = Pages::default();
        while let Some(rows) = pages.next(core).await? {
            round.visit(core, rows).await?;
        }
        return Ok(());
    }
    if !round.bills.is_empty() {
        let mut pages = LivePages::begin(core).await?;
        while let Some(heads) = pages.next(core).await? {
            round.visit(core, pages.whole(core, heads).await?).await?;
        }
    }
    let (kept, retention) = (core.policy.keep_events, core.policy.retention);
    for (forgotten, least) in [(false, kept.min(retention)), (true, retention)] {
        // What ended in this very millisecond is due too.
        let due = now
            .saturating_sub(least)
            .saturating_add(Duration::from_millis(1));
        let mut pages = EndedPages::of(forgotten, None, Some(due));
        while let Some(rows) = pages.next(core).await? {
            round.visit(core, rows).await?;
        }
        if !round.bills.is_empty() {
            let from = now.saturating_sub(BILLED_WITHIN);
            let mut pages = EndedPages::of(forgotten, Some(from), None);
            while let Some(rows) = pages.next(core).await? {
                round.visit(core, rows).await?;
            }
        }
    }
    Ok(())
}

/// What one round goes by.
struct Round {
    /// Scopes of the other nodes that live: they look after their own sessions.
    alive: BTreeSet<String>,
    bills: BTreeMap<AccountName, BTreeMap<ComputeId, Usd>>,
    now: Timestamp,
}

impl Round {
    async fn visit(&self, core: &Arc<Core>, rows: Vec<Row>) -> Result<()> {
        for loaded in rows.into_iter().filter_map(Loaded::readable) {
            if !self.alive.contains(&scope(&loaded.record.owner)) {
                one(core, loaded, &self.bills, self.now).await?;
            }
        }
        Ok(())
    }
}

async fn spend(account: &Account, now: Timestamp) -> Result<BTreeMap<ComputeId, Usd>> {
    // No session is older than the longest period that a cloud's billing covers.
    let query = SpendQuery {
        id: None,
        start: now.saturating_sub(Duration::from_secs(30 * 24 * 3600)),
        end: now,
    };
    let spends = account
        .call(
            Class::Scan,
            account.provider.compute_spend(account.context(), &query),
        )
        .await?;
    let mut billed: BTreeMap<ComputeId, Usd> = BTreeMap::new();
    for spend in spends {
        let total = billed.entry(spend.id).or_default();
        *total = *total + spend.amount;
    }
    Ok(billed)
}

async fn one(
    core: &Arc<Core>,
    mut loaded: Loaded,
    bills: &BTreeMap<AccountName, BTreeMap<ComputeId, Usd>>,
    now: Timestamp,
) -> Result<()> {
    let record = &loaded.record;
    let done_at = record.ending.as_ref().and_then(|ending| ending.done_at);
    if let Some(billed) = bills.get(&record.account)
        && done_at.is_none_or(|at| now.since(at) < BILLED_WITHIN)
    {
        // A copy by another user is billed to that user.
        let ids = record.attempts.iter().flat_map(|attempt| attempt.own());
        let amounts: Vec<Usd> = ids
            .filter_map(|seen| billed.get(&seen.id))
            .copied()
            .collect();
        let total = amounts.iter().copied().sum();
        if !amounts.is_empty() && record.billed != Some(total) {
            match core
                .apply(
                    &mut loaded,
                    &mut Evidence::default(),
                    &Input::Billed(total),
                    Extra::default(),
                )
                .await
            {
                Ok(_) => core.slots.wake(loaded.record.id),
                Err(CommitError::Conflict) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
    let record = &loaded.record;
    let Some(done_at) = done_at.filter(|_| record.is_over()) else {
        return Ok(());
    };
    if now.since(done_at) >= core.policy.retention {
        return forget(core, &loaded).await;
    }
    if now.since(done_at) >= core.policy.keep_events && !record.events_forgotten {
        core.store
            .forget_events(*record.id.as_bytes(), record.last_seq)
            .await?;
        match core
            .apply(
                &mut loaded,
                &mut Evidence::default(),
                &Input::EventsForgotten,
                Extra::default(),
            )
            .await
        {
            Ok(_) | Err(CommitError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Deletes a session whose keys are all older than any machine that would still be ended by them.
async fn forget(core: &Arc<Core>, loaded: &Loaded) -> Result<()> {
    let record = &loaded.record;
    core.store
        .forget_events(*record.id.as_bytes(), record.last_seq)
        .await?;
    let mut batch = Batch::new();
    batch.fence = core.lease.fence();
    batch.guard(Table::Sessions, *record.id.as_bytes(), Some(loaded.version));
    for attempt in &record.attempts {
        for row in core
            .store
            .scan(Table::Sightings, attempt.id.as_bytes(), None, 1000)
            .await?
        {
            batch.delete(Table::Sightings, row.key);
        }
        batch.delete(Table::Attempts, *attempt.id.as_bytes());
    }
    entries::delete_session(&mut batch, record, &loaded.bytes);
    for table in [Table::Sealed, Table::Touches] {
        batch.delete(table, *record.id.as_bytes());
    }
    match core.store.commit(batch).await {
        Ok(_) | Err(CommitError::Conflict) => Ok(()),
        Err(error) => Err(Error::from(error)),
    }
}
