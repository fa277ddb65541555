//! The proof that machines are absent when many are being ended at once.
//!
//! Before the last proof of a machine is requested, two complete walks one visibility bound apart,
//! both started after its DELETE was answered, did not contain it. The last proof protects against
//! a wrong listing: one that is stale, torn or empty without saying so. A point read of every
//! machine detects this, and is used while few machines are being ended. When many are, one more
//! walk is made for all pending requests, and a sample of their machines is read by id. If the
//! listing lacks one machine of the sample that exists, it is believed about none, and each machine
//! is read separately.

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

/// While at most this many orders of an account are being ended or searched for, each machine is
/// read separately.
const FEW: usize = 16;
/// The sample: one in this many of the machines, and at least this many.
const SAMPLE: (usize, usize) = (16, 2);
/// The sample if the listing is empty, which is more likely to be a fault.
const SAMPLE_OF_NONE: (usize, usize) = (8, 8);

/// Requests within this fraction of a visibility bound are answered together.
const GATHERED_IN: u32 = 20;

/// A walk that agrees with the point reads, or `None`.
type Agreed = Option<Arc<Listed>>;

/// The pending proofs of an account.
#[derive(Debug, Default)]
pub(crate) struct Proofs {
    asked: Mutex<Vec<ComputeId>>,
    walks: OnceLock<Coalesce<Agreed>>,
}

impl Proofs {
    /// Starts answering requests for this account.
    pub(super) fn serve(&self, account: &Arc<Account>, spawner: Arc<dyn Spawner>) {
        let account = Arc::downgrade(account);
        let walks = Coalesce::new(
            spawner,
            Box::new(move || Box::pin(walk_and_compare(account.clone()))),
        );
        // Called only once, directly after construction.
        let _ = self.walks.set(walks);
    }
}

/// Walks the account, and reads a sample of the requested machines.
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
        tracing::warn!(account = %account.name,
            "a listing that ends are to be proved by lacks a machine that is there, or that could \
                not be read");
    }
    all_gone.then_some(listed)
}

/// Whether an ended machine is absent, and when the call that proves it started.
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
