//! Decides whether a complete walk is plausible: one without some of the live machines is first
//! checked by point reads.

use std::sync::Arc;

use super::account::{Account, Listed};
use super::core::{Core, Loaded};
use super::pacer::Class;
use crate::kernel::Reading;
use crate::store::Table;

/// How many missing machines are read before the rest is believed.
const PROBES: usize = 8;

/// True unless the walk lacks a machine of a live session that a point read, made after the walk
/// started, still finds.
///
/// Machines that are being terminated do not count: they are expected to disappear.
pub(crate) async fn is_plausible(core: &Core, account: &Arc<Account>, listed: &Listed) -> bool {
    *listed
        .plausible
        .get_or_init(|| probe(core, account, listed))
        .await
}

async fn probe(core: &Core, account: &Arc<Account>, listed: &Listed) -> bool {
    let mut open = core.slots.open_attempts(core.account_index(&account.name));
    open.retain(|open| open.serving);
    let missing: Vec<_> = open
        .iter()
        .filter(|open| listed.of_attempt(open.attempt).next().is_none())
        .map(|open| open.session)
        .collect();
    if missing.is_empty() || (!listed.machines.is_empty() && missing.len() * 2 < open.len()) {
        return true;
    }
    let mut probes = 0;
    for id in missing {
        let Ok(row) = core.store.get(Table::Sessions, id.as_bytes()).await else {
            return false;
        };
        // An unreadable record is skipped: it must not make every walk of its account implausible.
        let Some(loaded) = row.and_then(Loaded::readable) else {
            continue;
        };
        let Some(attempt) = loaded.record.serving() else {
            continue;
        };
        // A machine younger than the visibility bound may still be missing.
        if core.now() < attempt.settled_at(&account.bounds) {
            continue;
        }
        let Some(compute) = &attempt.serving else {
            continue;
        };
        if listed.of_id(compute).is_some() {
            continue;
        }
        if matches!(
            account.read(Class::Proof, compute).await.1,
            Reading::Present
        ) {
            tracing::warn!(account = %account.name, %compute,
                "a listing lacked a machine that is there: it is not believed");
            return false;
        }
        probes += 1;
        if probes >= PROBES {
            break;
        }
    }
    true
}
