//! Accepts a store as the authoritative copy, on behalf of an operator.

use atlas_core::{
    AccountName, AttemptId, Claim, Compute, ComputeId, ComputeStatus, Error, ErrorKind, Result,
    TrackedKey, Usd,
};
use serde::Serialize;

use crate::event::{EventKind, Reason};
use crate::ids::SessionId;
use crate::kernel::record::{Ending, Kill, Sighted};
use crate::kernel::{Attempt, AttemptRow, Fate, Input, SessionRecord};
use crate::options::SessionOptions;
use crate::orchestrator::Orchestrator;
use crate::realm::LastHolder;
use crate::runtime::adopt::{Doubt, take_up};
use crate::runtime::core::{ACCEPTED_ROW, AcceptedRow, Core, HOLD_ROW, Loaded};
use crate::runtime::pages::Pages;
use crate::runtime::{entries, nodes};
use crate::session::{AttemptPhase, SessionKind};
use crate::store::{Batch, CommitError, Table};

/// What accepting a store found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AcceptReport {
    /// The store's incarnation from now on.
    pub incarnation: String,
    /// Sessions whose unsettled orders are being resolved again.
    pub reopened: Vec<SessionId>,
    /// New sessions for machines that carry our key but had no recorded attempt. Each ends its
    /// machine.
    pub orphans: Vec<SessionId>,
    /// Machines with such a key in only one carrier: perhaps ours and renamed, perhaps another
    /// user's with a copied environment. They are left alone.
    pub unclear: Vec<ComputeId>,
}

impl Orchestrator {
    /// Accepts this store as the authoritative copy. This ends the hold, and records every machine
    /// of ours that had no record.
    ///
    /// Every order that was about to be made counts as unknown from now on. Every machine whose
    /// attempt is not recorded gets a session with a committed end. The accept counts as a touch on
    /// every session.
    ///
    /// # Errors
    /// When an account cannot be listed completely, or the store rejects the write. The hold then
    /// remains, and the call can be repeated.
    ///
    /// # Cancel safety
    /// If the future is dropped, the hold remains; repeat the call.
    pub async fn accept_store(&self) -> Result<AcceptReport> {
        let core = &self.core;
        let mut report = AcceptReport::default();
        if core.progress.is_refused() {
            nodes::watch_ledger(core).await;
        }
        nodes::count_as_touch(core).await?;
        let mut pages = Pages::default();
        while let Some(rows) = pages.next(core).await? {
            for row in rows {
                // An unreadable record is left as it is: no node can look after its machine,
                // whether the store is accepted or not.
                let Some(Loaded { record, .. }) = Loaded::readable(row) else {
                    continue;
                };
                if record.attempts.iter().any(|a| {
                    matches!(
                        a.phase,
                        AttemptPhase::Intent | AttemptPhase::Calling | AttemptPhase::Unknown
                    )
                }) {
                    core.tell(record.id, &Input::Accept).await?;
                    report.reopened.push(record.id);
                }
            }
        }
        for account in &core.accounts {
            let listed = account
                .walk()
                .await
                .map_err(|failure| Error::new(failure.kind, failure.message))?;
            if let Some(why) = &listed.incomplete {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "account {} could not be walked to its end: {why}",
                        account.name
                    ),
                ));
            }
            // The account that lists these machines also owns them.
            let identity = account.identity().await.ok();
            for machine in &listed.machines {
                let (key, whole) = match machine.keys.claim() {
                    Claim::Whole(key) => (Some(key), true),
                    Claim::Partial(key) => (Some(key), false),
                    Claim::Ambiguous => (machine.keys.tag, false),
                    Claim::None => (None, false),
                };
                let Some(key) = key else { continue };
                if machine.status == ComputeStatus::Terminated || !core.is_genuine(&key) {
                    continue;
                }
                if core
                    .store
                    .get(Table::Attempts, key.attempt().as_bytes())
                    .await?
                    .is_none()
                {
                    if !whole && core.policy.safeguards().all_carriers {
                        // Renamed by hand, or another user's machine with a copied environment. The
                        // two cannot be distinguished, so nothing is ended.
                        report.unclear.push(machine.id.clone());
                        continue;
                    }
                    let record = orphan(
                        core,
                        &account.name,
                        account.provider.id().clone(),
                        machine,
                        key,
                        identity.clone(),
                    );
                    report
                        .orphans
                        .push(put_orphan(core, record, key.attempt()).await?);
                }
            }
        }
        let mut random = [0; 10];
        core.entropy.fill(&mut random);
        report.incarnation = data_encoding::HEXLOWER.encode(&random);
        let before = core.store.info().await?.incarnation;
        let accepted = match core.store.get(Table::Realm, ACCEPTED_ROW).await? {
            Some(row) => serde_json::from_slice::<AcceptedRow>(&row.value).unwrap_or_default(),
            None => AcceptedRow::default(),
        };
        let mut predecessors = accepted.before;
        predecessors.push(before);
        // The origin is written first, then the new name, then the end of the hold. If this is
        // interrupted anywhere, a repetition still knows every predecessor.
        let row = AcceptedRow {
            incarnation: report.incarnation.clone(),
            before: predecessors,
        };
        let mut batch = Batch::new();
        batch.put(
            Table::Realm,
            ACCEPTED_ROW,
            serde_json::to_vec(&row).unwrap_or_default(),
        );
        core.store.commit(batch).await.map_err(Error::from)?;
        // From now on, this process writes for the accepted store.
        core.forget_store();
        core.store.set_incarnation(&report.incarnation).await?;
        if let Some(ledger) = &core.ledger {
            ledger.record(&LastHolder::of(&core.store.info().await?))?;
        }
        let mut batch = Batch::new();
        batch.delete(Table::Realm, HOLD_ROW);
        core.store.commit(batch).await.map_err(Error::from)?;
        core.unhold();
        // This process's memory may describe the store as it was before. Reload which sessions are
        // ours from the store.
        nodes::relearn(core).await;
        Ok(report)
    }
}

/// Records a session for a machine without a record, with the only purpose of ending it.
fn orphan(
    core: &Core,
    account: &AccountName,
    provider: atlas_core::ProviderId,
    machine: &Compute,
    key: TrackedKey,
    identity: Option<String>,
) -> SessionRecord {
    let now = core.now();
    let attempt = Attempt {
        id: key.attempt(),
        key,
        account: account.clone(),
        candidate: atlas_core::Candidate::default(),
        created_at: key.attempt().created_at(),
        calling_at: Some(now),
        phase: AttemptPhase::Unknown,
        serving: None,
        compute: None,
        seen_at: None,
        ran_at: None,
        sighted: vec![Sighted::new(machine.id.clone(), now, Fate::Doomed)],
        kill: Some(Kill {
            reason: Reason::Accepted,
            at: now,
        }),
        supports: Vec::new(),
        identity,
        identity_held: false,
        price: machine.cost_per_hour,
        spent: Usd::ZERO,
        highest: machine.cost_per_hour,
        spent_at_highest: Usd::ZERO,
        used: None,
        metered_to: Some(now),
        ended_at: None,
        message: None,
        stuck: None,
    };
    SessionRecord {
        id: SessionId::new(now, &*core.entropy),
        owner: core.node.clone(),
        kind: SessionKind::Interactive,
        account: account.clone(),
        provider,
        options: SessionOptions::new().account(account.clone()),
        created_at: now,
        attempts: vec![attempt],
        placing: None,
        ready_at: None,
        respawns: 0,
        last_seq: 1,
        ending: Some(Ending {
            reason: Reason::Accepted,
            at: now,
            done_at: None,
        }),
        not_idle_before: None,
        warned: Vec::new(),
        heartbeat: None,
        outcome: None,
        decisions: Vec::new(),
        events_forgotten: false,
        billed: None,
        reports: crate::Reports::default(),
        ends_itself: false,
        key_until_absent: false,
    }
}

async fn put_orphan(core: &Core, record: SessionRecord, attempt: AttemptId) -> Result<SessionId> {
    let id = record.id;
    let kind = EventKind::Terminating {
        reason: Reason::Accepted,
    };
    let event = record.event(1, record.created_at, kind);
    let mut batch = Batch::new();
    batch.fence = core.lease.fence();
    batch.guard(Table::Attempts, *attempt.as_bytes(), None);
    let row = AttemptRow {
        session: id,
        account: record.account.clone(),
    };
    batch.put(
        Table::Attempts,
        *attempt.as_bytes(),
        serde_json::to_vec(&row).unwrap_or_default(),
    );
    entries::put_session(&mut batch, None, &record, record.encode());
    batch.append(
        *id.as_bytes(),
        1,
        serde_json::to_vec(&event).unwrap_or_default(),
    );
    let doubt = Doubt::begin(core);
    match core.store.commit(batch).await {
        Ok(_) => {
            take_up(core, &record).await?;
            doubt.settled();
            core.fed.notify_one();
            Ok(id)
        }
        // A second machine with the same key: the session of the first one finds it.
        Err(CommitError::Conflict) => {
            doubt.settled();
            let row = core.store.get(Table::Attempts, attempt.as_bytes()).await?;
            let known = row.and_then(|row| serde_json::from_slice::<AttemptRow>(&row.value).ok());
            known
                .map(|row| row.session)
                .ok_or_else(|| CommitError::Conflict.into())
        }
        Err(error) => Err(error.into()),
    }
}
