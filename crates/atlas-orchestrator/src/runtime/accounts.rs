//! What is on record of an account: whose it is, and how far the reaper has come with it.

use std::collections::BTreeSet;

use atlas_core::{AccountName, Claim, Compute, ComputeId, Error, Result, Timestamp};
use serde::{Deserialize, Serialize};

use super::account::{Account, Listed};
use super::core::Core;
use super::slots::Open;
use crate::store::{Batch, CommitError, Table};

/// The row of an account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AccountRow {
    /// Whose account it is, as the cloud said when we saw it first.
    pub(crate) identity: Option<String>,
    /// What it was called before, under keys that were replaced.
    pub(crate) aliases: Vec<String>,
    /// Complete scans in a row that found the same victims.
    pub(crate) agreeing_scans: u32,
    /// The victims of the last one.
    pub(crate) last_victims: BTreeSet<ComputeId>,
    /// Set when there were too many victims, until an operator acknowledges.
    pub(crate) breaker: Option<Timestamp>,
}

/// An account's row and its version.
pub(crate) async fn row(core: &Core, name: &AccountName) -> Result<(AccountRow, Option<u64>)> {
    Ok(match core.store.get(Table::Accounts, name.as_str().as_bytes()).await? {
        Some(row) => (serde_json::from_slice(&row.value).unwrap_or_default(), Some(row.version)),
        None => (AccountRow::default(), None),
    })
}

/// Changes an account's row, under its version.
pub(crate) async fn update(core: &Core, name: &AccountName, change: impl Fn(&mut AccountRow)) -> Result<AccountRow> {
    let key = name.as_str().as_bytes();
    for _ in 0..8 {
        let (before, version) = row(core, name).await?;
        let mut after = before.clone();
        change(&mut after);
        if before == after {
            return Ok(after);
        }
        let mut batch = Batch::new();
        batch.guard(Table::Accounts, key, version);
        batch.put(Table::Accounts, key, serde_json::to_vec(&after).unwrap_or_default());
        match core.store.commit(batch).await {
            Ok(_) => return Ok(after),
            Err(CommitError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::from(CommitError::Conflict))
}

/// Whose account it is by our record, and what else it was called.
pub(crate) async fn known_identity(core: &Core, name: &AccountName) -> Result<(Option<String>, Vec<String>)> {
    let row = row(core, name).await?.0;
    Ok((row.identity, row.aliases))
}

/// Reads whose account the handle is, and records the first answer there ever was.
///
/// Another name than the recorded one proves nothing, until `walk` (of this very handle) shows a machine that we ordered under the
/// old name: then the key was replaced, and the account is the same.
pub(crate) async fn check_identity(core: &Core, account: &Account, walk: &Listed) -> Result<bool> {
    let now = account.identity().await.map_err(|failure| Error::new(failure.kind, failure.message))?;
    let name = &account.name;
    let before = update(core, name, |row| {
        row.identity.get_or_insert_with(|| now.clone());
    })
    .await?;
    if before.identity.as_ref() == Some(&now) {
        return Ok(true);
    }
    for Open { attempt, session, .. } in core.slots.open_attempts(core.account_index(name)) {
        let whole = |machine: &&Compute| matches!(machine.keys.claim(), Claim::Whole(key) if key.attempt() == attempt);
        let shown: Vec<&Compute> =
            walk.of_attempt(attempt).filter(|(key, _)| core.is_genuine(key)).map(|(_, machine)| machine).filter(whole).collect();
        if shown.is_empty() {
            continue;
        }
        let Some(loaded) = core.load(session).await? else { continue };
        // A key can be copied to another account, an id cannot.
        let owned = |machine: &Compute| loaded.record.attempt(attempt).is_some_and(|attempt| attempt.owns(&machine.id));
        if !shown.into_iter().any(owned) {
            continue;
        }
        let ordered_as = loaded.record.attempt(attempt).and_then(|attempt| attempt.identity.clone());
        if ordered_as.as_ref().is_some_and(|old| *old != now) {
            tracing::info!(account = %name, "the account's key was replaced: machines of ours are seen under the new one");
            update(core, name, |row| {
                let old = row.identity.replace(now.clone());
                row.aliases.retain(|alias| *alias != now);
                row.aliases.extend([old, ordered_as.clone()].into_iter().flatten().filter(|old| *old != now));
                row.aliases.sort();
                row.aliases.dedup();
            })
            .await?;
            return Ok(true);
        }
    }
    tracing::error!(account = %name, "the account's key answers for another account than before: it proves nothing until that is settled");
    Ok(false)
}
