//! Reports spend that no live session accounts for, and machines that cannot be proved ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use atlas_core::{AccountName, Result, Support, UsdPerHour};
use serde::Serialize;

use crate::ids::SessionId;
use crate::info::{Finding, ReapReport};
use crate::kernel::SessionRecord;
use crate::orchestrator::Orchestrator;
use crate::runtime::core::{Core, Loaded};
use crate::runtime::pages::{LivePages, Pages};
use crate::runtime::reaper::Suspects;
use crate::session::AttemptPhase;
use crate::store::Row;

/// Spend in dollars per hour by purpose. Everything except `serving` is at risk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Risk {
    /// Machines that serve sessions.
    pub serving: UsdPerHour,
    /// Orders whose outcome is unknown.
    pub unknown: UsdPerHour,
    /// Machines being ended.
    pub terminating: UsdPerHour,
    /// Machines whose deletion is blocked.
    pub stuck: UsdPerHour,
    /// Machines with our key whose attempt is older than any record.
    pub quarantined: UsdPerHour,
    /// Machines whose attempts have ended and whose deletion has not started.
    pub orphan: UsdPerHour,
}

/// The result of an audit.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Audit {
    /// The findings of a scan without deletions, by account.
    pub accounts: BTreeMap<AccountName, ReapReport>,
    /// Accounts that could not be scanned, with the reason.
    pub unreachable: BTreeMap<AccountName, String>,
    /// Recorded supporting objects that are not released although their attempt has ended.
    pub supports: Vec<(SessionId, Support)>,
    /// Sessions with unreadable records: written by a newer atlas, or damaged. No node looks after
    /// their machines.
    pub unreadable: Vec<SessionId>,
    /// Current spend.
    pub risk: Risk,
    /// Machines that may bill at an unknown price; `risk` counts them as zero.
    pub unpriced: usize,
}

impl Audit {
    /// Whether the audit is complete: every account was listed completely, and every record can be
    /// read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.unreachable.is_empty()
            && self.unreadable.is_empty()
            && self.accounts.values().all(|report| report.complete)
    }
}

impl Orchestrator {
    /// Current spend without asking a cloud: from the records and, for machines without a live
    /// session, from the last scan of each account.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn risk(&self) -> Result<Risk> {
        let mut audit = Audit::default();
        // A session that is over burns nothing.
        tally_live(&self.core, &mut audit, |_| true).await?;
        astray(self.suspects.values(), &mut audit.risk);
        Ok(audit.risk)
    }

    /// Scans every account without deleting anything, and reports the findings.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read. A cloud that cannot be read is named in the
    /// report.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn audit(&self) -> Result<Audit> {
        let mut audit = Audit::default();
        tally(&self.core, &mut audit).await?;
        let names: Vec<AccountName> = self.accounts().map(|(name, _)| name.clone()).collect();
        for name in names {
            match self.reap_now(&name, true).await {
                Ok(report) => {
                    audit.risk.quarantined = audit.risk.quarantined + burn(&report.quarantined);
                    audit.risk.orphan = audit.risk.orphan + burn(&report.victims);
                    audit.unpriced += unpriced(&report.quarantined) + unpriced(&report.victims);
                    audit.accounts.insert(name, report);
                }
                Err(error) => drop(audit.unreachable.insert(name, error.to_string())),
            }
        }
        Ok(audit)
    }
}

/// Adds up what is at risk, without serving machines. For a session that is serving and complete,
/// only the header of its row is read.
#[cfg(feature = "metrics")]
pub(crate) async fn at_risk<'a>(
    core: &Core,
    suspects: impl Iterator<Item = &'a Arc<Suspects>>,
) -> Result<Risk> {
    let mut audit = Audit::default();
    tally_live(core, &mut audit, |row| {
        !crate::kernel::glance::glance(&row.value).is_some_and(|glance| glance.quiet)
    })
    .await?;
    astray(suspects, &mut audit.risk);
    Ok(Risk {
        serving: UsdPerHour::ZERO,
        ..audit.risk
    })
}

fn astray<'a>(suspects: impl Iterator<Item = &'a Arc<Suspects>>, risk: &mut Risk) {
    for astray in suspects.map(|suspects| suspects.astray()) {
        risk.quarantined = risk.quarantined + astray.quarantined;
        risk.orphan = risk.orphan + astray.orphan;
    }
}

async fn tally(core: &Core, audit: &mut Audit) -> Result<()> {
    let mut pages = Pages::default();
    while let Some(rows) = pages.next(core).await? {
        add_up(rows, audit);
    }
    Ok(())
}

/// The same, of the sessions that are not over and whose head concerns us.
async fn tally_live(core: &Core, audit: &mut Audit, concerns: impl Fn(&Row) -> bool) -> Result<()> {
    let mut pages = LivePages::begin(core).await?;
    while let Some(mut heads) = pages.next(core).await? {
        heads.retain(&concerns);
        add_up(pages.whole(core, heads).await?, audit);
    }
    Ok(())
}

fn add_up(rows: Vec<Row>, audit: &mut Audit) {
    for row in rows {
        let id = SessionId::from_slice(&row.key);
        match Loaded::readable(row) {
            Some(loaded) => count(&loaded.record, audit),
            None => audit.unreadable.extend(id),
        }
    }
}

fn count(record: &SessionRecord, audit: &mut Audit) {
    for attempt in &record.attempts {
        if attempt.is_terminal() {
            let kept = attempt.supports.iter().filter(|step| !step.released);
            audit
                .supports
                .extend(kept.map(|step| (record.id, step.support.clone())));
        }
        if attempt.may_bill() && attempt.price.is_none() {
            audit.unpriced += 1;
        }
        let risk = &mut audit.risk;
        let ending = |risk: &mut Risk, burn: UsdPerHour| {
            let cause = if attempt.stuck.is_some() {
                &mut risk.stuck
            } else {
                &mut risk.terminating
            };
            *cause = *cause + burn;
        };
        match (&attempt.kill, attempt.phase) {
            (Some(_), _) => ending(risk, attempt.burn()),
            (None, AttemptPhase::Live) => {
                risk.serving = risk.serving + attempt.own_burn();
                // Duplicates of its machine are deleted while it continues.
                ending(risk, attempt.double_burn());
            }
            (None, _) => risk.unknown = risk.unknown + attempt.burn(),
        }
    }
}

fn burn(findings: &[Finding]) -> UsdPerHour {
    findings.iter().filter_map(|finding| finding.burn).sum()
}

fn unpriced(findings: &[Finding]) -> usize {
    findings
        .iter()
        .filter(|finding| finding.burn.is_none())
        .count()
}
