//! The reaper: deletes machines whose orders have ended, and reports what it cannot decide.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use atlas_core::{
    Claim, Compute, ComputeId, ComputeStatus, Error, Result, Timestamp, TrackedKey, UsdPerHour,
};

use super::account::Account;
use super::adopt::{Doubt, take_up};
use super::core::{Core, Extra, Loaded};
use super::lease::scope;
use super::survey::observe;
use super::{accounts, plausible};
use crate::ids::SessionId;
use crate::info::{Finding, ReapReport};
use crate::kernel::{AttemptRow, Evidence, Input};
use crate::session::{AttemptPhase, SessionState};
use crate::store::{CommitError, Table};

/// When the reaper saw a machine without a session.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    first: Timestamp,
    scans: u32,
}

/// What the reaper remembers about an account between two scans; after a restart it starts over.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    known: Mutex<BTreeMap<ComputeId, Suspect>>,
    burn: Mutex<Astray>,
}

/// The price per hour of machines that the last scan found without a live session and did not
/// delete. Machines whose owner cannot be determined count as quarantined.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Astray {
    pub(crate) quarantined: UsdPerHour,
    pub(crate) orphan: UsdPerHour,
}

impl Suspects {
    /// The result of the last scan.
    pub(crate) fn astray(&self) -> Astray {
        *self.burn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left<'a>(&self, report: &ReapReport, orphans: impl Iterator<Item = &'a Compute>) {
        let astray = Astray {
            quarantined: report
                .quarantined
                .iter()
                .chain(&report.ambiguous)
                .filter_map(|finding| finding.burn)
                .sum(),
            orphan: orphans.filter_map(|machine| machine.cost_per_hour).sum(),
        };
        *self.burn.lock().unwrap_or_else(PoisonError::into_inner) = astray;
    }
}

fn finding(machine: &Compute, key: Option<&TrackedKey>, why: &str) -> Finding {
    Finding {
        compute: machine.id.clone(),
        name: machine.name.clone(),
        attempt: key.map(TrackedKey::attempt),
        why: why.to_owned(),
        burn: machine.cost_per_hour,
    }
}

/// The reaper's verdict on one machine.
enum Verdict {
    /// The machine is not ours, or belongs to a live session.
    Leave,
    /// Its attempt has ended: it must be deleted.
    Victim {
        session: SessionId,
        /// The account on which the order was made.
        ordered_as: Option<String>,
    },
    /// Its attempt is not recorded and is older than any record: kept and reported.
    Quarantine,
    /// Its attempt is not recorded and should be.
    RolledBack,
    /// Its owner cannot be determined.
    Ambiguous(&'static str),
}

/// One scan: lists the cloud first, then reads the records.
///
/// # Errors
/// When the cloud or the store could not be read; nothing was concluded.
pub(crate) async fn scan(
    core: &Arc<Core>,
    account: &Arc<Account>,
    suspects: &Suspects,
    dry_run: bool,
) -> Result<ReapReport> {
    let listed = account
        .walk()
        .await
        .map_err(|failure| Error::new(failure.kind, failure.message))?;
    let whose = accounts::check_identity(core, account, &listed)
        .await
        .inspect_err(|error| {
            tracing::warn!(account = %account.name, %error,
            "could not read which account the key belongs to");
        });
    let check = core.policy.safeguards().account_identity;
    let is_known = !check || whose.as_ref().is_ok_and(accounts::Whose::is_known);
    // Only machines on our own account may be ended.
    let may_end = |ordered_as: Option<&str>| {
        !check || whose.as_ref().is_ok_and(|whose| whose.may_end(ordered_as))
    };
    observe(core, account, &listed).await;
    let complete = listed.is_complete() && plausible::is_plausible(core, account, &listed).await;
    let mut report = ReapReport {
        scanned: listed.machines.len(),
        complete,
        held: core.is_held(),
        ..ReapReport::default()
    };
    let mut victims = Vec::new();
    for machine in &listed.machines {
        if machine.status == ComputeStatus::Terminated {
            continue;
        }
        let key = match claim(core, machine) {
            Claimed::Not => continue,
            Claimed::Ours(key) => key,
            Claimed::Unclear(key, why) => {
                report.ours += 1;
                if !is_known_by_id(core, key.as_ref(), &machine.id).await? {
                    report.ambiguous.push(finding(machine, key.as_ref(), why));
                }
                continue;
            }
        };
        report.ours += 1;
        match judge(core, account, &key).await? {
            Verdict::Leave => {}
            Verdict::Victim {
                session,
                ordered_as,
            } if may_end(ordered_as.as_deref()) => victims.push((machine, key, session)),
            Verdict::Victim { .. } => {
                let why = "its attempt is over, and was made under a key that is not known to be \
                    of this account";
                report.ambiguous.push(finding(machine, Some(&key), why));
            }
            Verdict::Quarantine => report.quarantined.push(finding(
                machine,
                Some(&key),
                "its attempt is older than any record",
            )),
            Verdict::Ambiguous(why) => report.ambiguous.push(finding(machine, Some(&key), why)),
            Verdict::RolledBack => {
                core.hold(&format!(
                    "machine {} carries a key of ours whose attempt is not on record",
                    machine.id
                ))
                .await;
                report.held = true;
                report.ambiguous.push(finding(
                    machine,
                    Some(&key),
                    "its attempt is not on record, and should be",
                ));
            }
        }
    }
    report.victims = victims
        .iter()
        .map(|(machine, key, _)| finding(machine, Some(key), "its attempt is over"))
        .collect();
    let ids: BTreeSet<ComputeId> = victims
        .iter()
        .map(|(machine, ..)| machine.id.clone())
        .collect();
    let ripe = ripen(core, account, suspects, &ids, complete && !dry_run);
    let row = if complete && !dry_run && is_known {
        accounts::update(core, &account.name, |row| {
            // Two scans that agree are enough, permanently. A scan that disagrees before that
            // counts as the first of another two.
            let agrees = row.agreeing_scans == 0 || row.last_victims == ids;
            row.agreeing_scans = if agrees {
                (row.agreeing_scans + 1).min(2)
            } else {
                row.agreeing_scans
            };
            row.last_victims.clone_from(&ids);
        })
        .await?
    } else {
        accounts::row(core, &account.name).await?.0
    };
    let share = u64::from(core.policy.breaker_percent) * report.ours as u64 / 100;
    let fresh = ids.difference(&row.acknowledged).count() as u64;
    let too_many = fresh > share.max(u64::from(core.policy.breaker_victims));
    report.breaker = core.policy.safeguards().breaker && (too_many || row.breaker.is_some());
    report.report_only = dry_run || row.agreeing_scans < 2;
    if report.breaker && row.breaker.is_none() && !dry_run {
        let now = core.now();
        accounts::update(core, &account.name, |row| {
            row.breaker = Some(now);
            row.last_victims.clone_from(&ids);
        })
        .await?;
        tracing::error!(account = %account.name, victims = victims.len(),
            "too many machines to end in one scan: an operator must acknowledge");
    }
    if report.report_only
        || report.breaker
        || report.held
        || !complete && core.policy.safeguards().complete_walks
    {
        suspects.left(&report, victims.iter().map(|(machine, ..)| *machine));
        return Ok(report);
    }
    suspects.left(
        &report,
        victims
            .iter()
            .map(|(machine, ..)| *machine)
            .filter(|machine| !ripe.contains(&machine.id)),
    );
    for (machine, key, session) in victims {
        if ripe.contains(&machine.id) {
            reap(core, session, &key, &machine.id).await?;
        }
    }
    Ok(report)
}

/// Whether a session of ours has recorded this machine by its id, whatever its carriers say now.
async fn is_known_by_id(core: &Core, key: Option<&TrackedKey>, id: &ComputeId) -> Result<bool> {
    let Some(key) = key else { return Ok(false) };
    let Some(session) = core.slots.session_of(key.attempt()) else {
        return Ok(false);
    };
    let Some(loaded) = core.load(session).await? else {
        return Ok(false);
    };
    Ok(loaded
        .record
        .attempt(key.attempt())
        .is_some_and(|attempt| attempt.owns(id)))
}

enum Claimed {
    Not,
    Ours(TrackedKey),
    Unclear(Option<TrackedKey>, &'static str),
}

/// Determines the owner that a machine's carriers claim.
fn claim(core: &Core, machine: &Compute) -> Claimed {
    let safeguards = core.policy.safeguards();
    let genuine = |key: &TrackedKey| core.is_genuine(key);
    let prefixed = core.name_prefix.is_empty()
        || machine
            .name
            .as_ref()
            .is_some_and(|name| name.starts_with(&core.name_prefix));
    match machine.keys.claim() {
        Claim::Whole(key) if genuine(&key) && prefixed => Claimed::Ours(key),
        Claim::Whole(key) if genuine(&key) => {
            Claimed::Unclear(Some(key), "its name does not begin as ours do")
        }
        Claim::Partial(key) if genuine(&key) && !safeguards.all_carriers => Claimed::Ours(key),
        Claim::Partial(key) if genuine(&key) => {
            Claimed::Unclear(Some(key), "one of its carriers lost the key")
        }
        Claim::Ambiguous => match [machine.keys.name, machine.keys.tag]
            .into_iter()
            .flatten()
            .find(|key| genuine(key))
        {
            Some(key) if !safeguards.all_carriers => Claimed::Ours(key),
            Some(key) => Claimed::Unclear(Some(key), "its carriers name different keys"),
            None => Claimed::Not,
        },
        _ => Claimed::Not,
    }
}

async fn judge(core: &Arc<Core>, account: &Arc<Account>, key: &TrackedKey) -> Result<Verdict> {
    // Its driver knows of it, and was informed above.
    if core.slots.session_of(key.attempt()).is_some() && core.policy.safeguards().spare_unresolved {
        return Ok(Verdict::Leave);
    }
    let Some(row) = core
        .store
        .get(Table::Attempts, key.attempt().as_bytes())
        .await?
    else {
        let age = core.now().since(key.attempt().created_at());
        return Ok(if age < core.policy.retention {
            Verdict::RolledBack
        } else {
            Verdict::Quarantine
        });
    };
    let Ok(row) = serde_json::from_slice::<AttemptRow>(&row.value) else {
        return Ok(Verdict::Ambiguous("its attempt's row cannot be read"));
    };
    if row.account != account.name {
        return Ok(Verdict::Ambiguous(
            "its attempt was made on another account",
        ));
    }
    let Some(session) = core
        .store
        .get(Table::Sessions, row.session.as_bytes())
        .await?
    else {
        return Ok(Verdict::Ambiguous("its session is not on record"));
    };
    let Some(loaded) = Loaded::readable(session) else {
        return Ok(Verdict::Ambiguous("its session's record cannot be read"));
    };
    let Some(attempt) = loaded.record.attempt(key.attempt()) else {
        return Ok(Verdict::Ambiguous("its session does not know its attempt"));
    };
    let unresolved = matches!(
        attempt.phase,
        AttemptPhase::Intent | AttemptPhase::Calling | AttemptPhase::Unknown
    );
    if attempt.is_terminal()
        || unresolved && attempt.kill.is_none() && !core.policy.safeguards().spare_unresolved
    {
        return Ok(Verdict::Victim {
            session: row.session,
            ordered_as: attempt.identity.clone(),
        });
    }
    // Unresolved or alive: the walks of its owner see the machine. If the owner is this node, the
    // session has no driver yet.
    if loaded.record.owner == core.node {
        Doubt::raise(core);
    }
    Ok(Verdict::Leave)
}

/// Counts complete scans; returns the victims that were seen often and long enough.
fn ripen(
    core: &Core,
    account: &Account,
    suspects: &Suspects,
    victims: &BTreeSet<ComputeId>,
    complete: bool,
) -> Vec<ComputeId> {
    let now = core.now();
    let safeguards = core.policy.safeguards();
    let mut known = suspects
        .known
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if complete {
        known.retain(|id, _| victims.contains(id));
    }
    let mut ripe = Vec::new();
    for id in victims {
        let suspect = match known.entry(id.clone()) {
            Entry::Occupied(entry) => {
                let suspect = entry.into_mut();
                suspect.scans += u32::from(complete);
                suspect
            }
            Entry::Vacant(entry) => entry.insert(Suspect {
                first: now,
                scans: u32::from(complete),
            }),
        };
        let often = suspect.scans >= 2 || !safeguards.two_sightings;
        let long = now.since(suspect.first) >= account.policy.grace || !safeguards.grace;
        if often && long {
            ripe.push(id.clone());
        }
    }
    ripe
}

/// Commits the end of a machine of an ended attempt. Adoption and this exclude each other through
/// the record's version.
async fn reap(
    core: &Arc<Core>,
    session: SessionId,
    key: &TrackedKey,
    machine: &ComputeId,
) -> Result<()> {
    let doubt = Doubt::begin(core);
    for _ in 0..4 {
        let Some(mut loaded) = core.load(session).await? else {
            doubt.settled();
            return Ok(());
        };
        let mut evidence = Evidence::default();
        if loaded.record.owner != core.node {
            let owner = scope(&loaded.record.owner);
            let alive = core.store.leases(&owner).await?;
            let now = core.store.now().await?;
            if loaded.record.state() != SessionState::Terminated
                && alive
                    .iter()
                    .any(|fence| fence.scope == owner && fence.expires_at > now)
            {
                // A live owner of a live session learns of it through the record and the feed.
            } else if core
                .apply(
                    &mut loaded,
                    &mut evidence,
                    &Input::Claim(core.node.clone()),
                    Extra::default(),
                )
                .await
                .is_err()
            {
                continue;
            }
        }
        let input = Input::Reap(key.attempt(), vec![machine.clone()]);
        match core
            .apply(&mut loaded, &mut evidence, &input, Extra::default())
            .await
        {
            Ok(_) => {
                if loaded.record.owner == core.node {
                    take_up(core, &loaded.record).await?;
                    core.slots.wake(session);
                }
                doubt.settled();
                return Ok(());
            }
            Err(CommitError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
