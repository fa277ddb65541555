//! The proof that a machine is gone where many are ended at once.
//!
//! Two complete walks a visibility bound apart, both begun after the DELETE was answered, lack the
//! machine before its last proof is asked for. What that proof guards against is a listing that
//! lies: one that is stale, torn or empty and does not say so. A point read of every machine tells,
//! and is what is made while few are being ended. Where many are, one more walk is made for all
//! that ask by then, and some of them are read by their ids: if the listing hides one machine of
//! those, it is believed about none, and each is read by itself.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use atlas_core::{AttemptId, ComputeId, Timestamp};
use futures_util::future::join_all;

use super::account::{Account, Listed};
use super::coalesce::Coalesce;
use super::core::Core;
use super::pacer::Class;
use super::plausible;
use super::spawner::Spawner;
use crate::kernel::Reading;

/// While at most so many orders of an account are being ended or looked for, each machine is read
/// by itself.
const FEW: usize = 16;
/// Of those that ask for a proof together one in so many is read by its id, and at least so many.
const SAMPLE: (usize, usize) = (16, 2);
/// The same where the listing is empty, as a broken one is.
const SAMPLE_OF_NONE: (usize, usize) = (8, 8);

/// Those that ask within this part of a visibility bound are answered together.
const GATHERED_IN: u32 = 20;

/// A walk that point reads agree with, or `None`.
type Agreed = Option<Arc<Listed>>;

/// The proofs that are asked for on an account.
#[derive(Debug, Default)]
pub(crate) struct Proofs {
    asked: Mutex<Vec<ComputeId>>,
    walks: OnceLock<Coalesce<Agreed>>,
}

impl Proofs {
    /// Answers what is asked of this account from now on.
    pub(super) fn serve(&self, account: &Arc<Account>, spawner: Arc<dyn Spawner>) {
        let account = Arc::downgrade(account);
        let walks = Coalesce::new(
            spawner,
            Box::new(move || Box::pin(walk_and_compare(account.clone()))),
        );
        // Called once, right after it was made.
        let _ = self.walks.set(walks);
    }
}

/// Walks, and reads some of the machines that are asked about.
async fn walk_and_compare(account: Weak<Account>) -> Agreed {
    let account = account.upgrade()?;
    tokio::time::sleep(account.bounds.limits.visibility_bound / GATHERED_IN).await;
    let asked = {
        let asked = &account.proofs.asked;
        std::mem::take(&mut *asked.lock().unwrap_or_else(PoisonError::into_inner))
    };
    let listed = account
        .walk()
        .await
        .ok()
        .filter(|listed| listed.is_complete())?;
    let lacking: Vec<&ComputeId> = asked
        .iter()
        .filter(|id| listed.of_id(id).is_none())
        .collect();
    let (one_in, least) = if listed.machines.is_empty() {
        SAMPLE_OF_NONE
    } else {
        SAMPLE
    };
    let reads = least.max(lacking.len() / one_in);
    let every = lacking.len().div_ceil(reads).max(1);
    let reads = lacking
        .iter()
        .step_by(every)
        .map(|id| account.read(Class::Proof, id));
    let all_gone = join_all(reads)
        .await
        .iter()
        .all(|(_, reading)| matches!(reading, Reading::Absent));
    if !all_gone {
        tracing::warn!(account = %account.name, "a listing that ends are to be proved by lacks a machine that is there, or that could not be read");
    }
    all_gone.then_some(listed)
}

/// Whether a machine that was ended is gone, and when the call that says so began.
pub(super) async fn prove(
    core: &Core,
    account: &Arc<Account>,
    attempt: AttemptId,
    id: &ComputeId,
) -> (Timestamp, Reading) {
    if core.slots.unsettled(core.account_index(&account.name)) > FEW {
        let proofs = &account.proofs;
        proofs
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(id.clone());
        if let Some(walks) = proofs.walks.get()
            && let Some(Some(listed)) = walks.ask().await
            && listed.of_id(id).is_none()
            && listed.of_attempt(attempt).next().is_none()
            && plausible::is_plausible(core, account, &listed).await
        {
            return (listed.begun, Reading::Absent);
        }
    }
    account.read(Class::Proof, id).await
}
