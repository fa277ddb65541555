//! The recorded state of an account: its identity, and the progress of the reaper.

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
    /// The account's identity, as first reported by the cloud.
    pub(crate) identity: Option<String>,
    /// Earlier identities, under keys that were replaced.
    pub(crate) aliases: Vec<String>,
    /// Consecutive complete scans that found the same victims.
    pub(crate) agreeing_scans: u32,
    /// The victims of the last scan.
    pub(crate) last_victims: BTreeSet<ComputeId>,
    /// Set when there were too many victims, until an operator acknowledges them.
    pub(crate) breaker: Option<Timestamp>,
    /// The victims that the operator acknowledged; they may be deleted, whatever their number.
    pub(crate) acknowledged: BTreeSet<ComputeId>,
}

impl AccountRow {
    /// Records that the key was replaced: the earlier identity, and the identity under which one
    /// more order was made, belong to the same account.
    fn becomes(&mut self, now: &str, ordered_as: Option<String>) {
        let old = self.identity.replace(now.to_owned());
        self.aliases.extend([old, ordered_as].into_iter().flatten());
        self.aliases.retain(|alias| alias != now);
        self.aliases.sort();
        self.aliases.dedup();
    }
}

/// Reads an account's row and its version.
pub(crate) async fn row(core: &Core, name: &AccountName) -> Result<(AccountRow, Option<u64>)> {
    Ok(
        match core
            .store
            .get(Table::Accounts, name.as_str().as_bytes())
            .await?
        {
            Some(row) => (
                serde_json::from_slice(&row.value).unwrap_or_default(),
                Some(row.version),
            ),
            None => (AccountRow::default(), None),
        },
    )
}

/// Changes an account's row, guarded by its version.
pub(crate) async fn update(
    core: &Core,
    name: &AccountName,
    change: impl Fn(&mut AccountRow),
) -> Result<AccountRow> {
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
        batch.put(
            Table::Accounts,
            key,
            serde_json::to_vec(&after).unwrap_or_default(),
        );
        match core.store.commit(batch).await {
            Ok(_) => return Ok(after),
            Err(CommitError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::from(CommitError::Conflict))
}

/// The recorded identity of an account, and its earlier ones.
pub(crate) async fn known_identity(
    core: &Core,
    name: &AccountName,
) -> Result<(Option<String>, Vec<String>)> {
    let row = row(core, name).await?.0;
    Ok((row.identity, row.aliases))
}

/// The identity of a handle's account.
#[derive(Clone, Debug)]
pub(crate) struct Whose {
    /// The identity that the cloud reports.
    now: String,
    /// Whether it is the recorded account.
    is_known: bool,
}

impl Whose {
    pub(crate) fn is_known(&self) -> bool {
        self.is_known
    }

    /// Whether a machine seen through this handle may be ended, if it was ordered on the account
    /// `ordered_as`. With a new key that is not yet connected to the old one, only machines ordered
    /// with the new key may be.
    pub(crate) fn may_end(&self, ordered_as: Option<&str>) -> bool {
        self.is_known || ordered_as == Some(self.now.as_str())
    }
}

/// The operator has seen the victims of the last scan: they may be deleted, whatever their number.
pub(crate) async fn acknowledge(core: &Core, name: &AccountName) -> Result<()> {
    update(core, name, |row| {
        row.breaker = None;
        row.acknowledged.clone_from(&row.last_victims);
    })
    .await
    .map(drop)
}

/// The operator states that the configured key belongs to the recorded account: what is read with
/// it is valid for orders made with the old key.
pub(crate) async fn accept_identity(core: &Core, account: &Account) -> Result<()> {
    let now = account
        .identity()
        .await
        .map_err(|failure| Error::new(failure.kind, failure.message))?;
    update(core, &account.name, |row| row.becomes(&now, None))
        .await
        .map(drop)
}

/// Reads the identity of the handle's account, and records the first one ever read.
///
/// A different identity proves nothing until `walk`, made with this handle, shows a machine that
/// was ordered under the old identity. Then the key was replaced, and the account is the same.
pub(crate) async fn check_identity(core: &Core, account: &Account, walk: &Listed) -> Result<Whose> {
    let now = account
        .identity()
        .await
        .map_err(|failure| Error::new(failure.kind, failure.message))?;
    let is_known = is_known(core, account, walk, &now).await?;
    Ok(Whose { now, is_known })
}

async fn is_known(core: &Core, account: &Account, walk: &Listed, now: &str) -> Result<bool> {
    let name = &account.name;
    let before = update(core, name, |row| {
        row.identity.get_or_insert_with(|| now.to_owned());
    })
    .await?;
    if before.identity.as_deref() == Some(now) {
        return Ok(true);
    }
    for Open {
        attempt, session, ..
    } in core.slots.open_attempts(core.account_index(name))
    {
        let whole = |machine: &&Compute| {
            matches!(machine.keys.claim(),
            Claim::Whole(key) if key.attempt() == attempt)
        };
        let shown: Vec<&Compute> = walk
            .of_attempt(attempt)
            .filter(|(key, _)| core.is_genuine(key))
            .map(|(_, machine)| machine)
            .filter(whole)
            .collect();
        if shown.is_empty() {
            continue;
        }
        let Some(loaded) = core.load(session).await? else {
            continue;
        };
        // A key can be copied to another account, an id cannot. Only a machine made on its recorded
        // account proves anything: the key may have belonged to another account during the call.
        let Some(attempt) = loaded
            .record
            .attempt(attempt)
            .filter(|attempt| attempt.identity_held)
        else {
            continue;
        };
        if !shown.into_iter().any(|machine| attempt.owns(&machine.id)) {
            continue;
        }
        let ordered_as = attempt.identity.clone();
        if ordered_as.as_ref().is_some_and(|old| *old != now) {
            tracing::info!(account = %name, "the account's key was replaced: machines of ours are \
                seen under the new one");
            update(core, name, |row| row.becomes(now, ordered_as.clone())).await?;
            return Ok(true);
        }
    }
    tracing::error!(account = %name, "the account's key answers for another account than before: \
        it proves nothing until that is settled");
    Ok(false)
}
