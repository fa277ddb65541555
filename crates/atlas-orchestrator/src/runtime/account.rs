//! One account as the runtime uses it: its handle, its call budget, and every call on it, with a
//! time limit and isolated from panics.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use atlas_core::{
    AccountName, AnyProvider, AttemptId, CallContext, Compute, ComputeId, Error, ErrorKind,
    LaunchKey, ListFilter, Outcome, Presence, Result, Timestamp, TrackedKey,
};
use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::coalesce::Coalesce;
use super::looks::Looks;
use super::pacer::{Class, Pacer, Permit, deadline};
use super::proofs::Proofs;
use super::spawner::Spawner;
use super::steady::Steady;
use crate::kernel::{Bounds, Failure, Reading};
use crate::policy::{AccountPolicy, Policy};

/// A listing of all machines of an account, shared by every task that needed one.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) begun: Timestamp,
    /// Why nothing may be concluded from machines that are missing in it.
    pub(crate) incomplete: Option<String>,
    pub(crate) machines: Vec<Compute>,
    /// Whether the listing is plausible, once this was checked.
    pub(crate) plausible: tokio::sync::OnceCell<bool>,
    /// Machines by the attempt that their keys name. The reader must check whether a key is
    /// genuine.
    by_attempt: BTreeMap<AttemptId, Vec<(TrackedKey, usize)>>,
    /// Indexes in the order of machine ids, once a machine was searched by id.
    by_id: OnceLock<Vec<usize>>,
}

impl Listed {
    fn new(
        begun: Timestamp,
        incomplete: Option<String>,
        machines: Vec<Compute>,
        one_carrier: bool,
    ) -> Self {
        let mut by_attempt: BTreeMap<AttemptId, Vec<(TrackedKey, usize)>> = BTreeMap::new();
        for (index, machine) in machines.iter().enumerate() {
            // A machine whose name contradicts the metadata it was created with is indexed by the
            // metadata: it may be the result of an order. That is enough to look after it, and not
            // enough to delete it by its key.
            let key = if one_carrier {
                machine.keys.name.or(machine.keys.tag)
            } else {
                machine.keys.key().or(machine.keys.tag)
            };
            if let Some(key) = key {
                by_attempt
                    .entry(key.attempt())
                    .or_default()
                    .push((key, index));
            }
        }
        Self {
            begun,
            incomplete,
            machines,
            plausible: tokio::sync::OnceCell::new(),
            by_attempt,
            by_id: OnceLock::new(),
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.incomplete.is_none()
    }

    /// The machines that carry this key.
    pub(crate) fn of_key<'a>(&'a self, key: &'a TrackedKey) -> impl Iterator<Item = &'a Compute> {
        self.of_attempt(key.attempt())
            .filter(move |(found, _)| *found == key)
            .map(|(_, machine)| machine)
    }

    /// The machines whose keys name this attempt, with those keys.
    pub(crate) fn of_attempt(
        &self,
        attempt: AttemptId,
    ) -> impl Iterator<Item = (&TrackedKey, &Compute)> {
        self.by_attempt
            .get(&attempt)
            .into_iter()
            .flatten()
            .map(|(key, index)| (key, &self.machines[*index]))
    }

    pub(crate) fn of_id(&self, id: &ComputeId) -> Option<&Compute> {
        let id_of = |place: &usize| self.machines.get(*place).map(|machine| &machine.id);
        let by_id = self.by_id.get_or_init(|| {
            let mut places: Vec<usize> = (0..self.machines.len()).collect();
            places.sort_by_key(id_of);
            places
        });
        let found = by_id.binary_search_by_key(&Some(id), id_of).ok()?;
        by_id.get(found).and_then(|place| self.machines.get(*place))
    }
}

pub(crate) type SharedListing = Result<Arc<Listed>, Failure>;
/// The identity of the account, or why it could not be read.
pub(crate) type SharedIdentity = Result<String, Failure>;

/// An account with a provider handle.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) name: AccountName,
    pub(crate) provider: AnyProvider,
    pub(crate) policy: AccountPolicy,
    pub(crate) bounds: Bounds,
    pub(crate) pacer: Pacer,
    context: CallContext,
    one_carrier: bool,
    steady: Arc<Steady>,
    /// How many returns of this process had happened before the walk that was last compared with
    /// the records.
    looked_after: AtomicU64,
    /// Requests a walk at once.
    pub(crate) look: Notify,
    walks: OnceLock<Coalesce<SharedListing>>,
    /// The latest answered walk, with its start time.
    newest: Mutex<Option<(Instant, Arc<Listed>)>>,
    identities: OnceLock<Coalesce<SharedIdentity>>,
    pub(crate) looks: Looks,
    pub(crate) proofs: Proofs,
}

impl Account {
    pub(crate) fn new(
        name: AccountName,
        provider: AnyProvider,
        policy: &Policy,
        prefix: &str,
        steady: Arc<Steady>,
        spawner: Arc<dyn Spawner>,
    ) -> Arc<Self> {
        let account = policy.account(&name).clone();
        let limits = account.limits.unwrap_or_else(|| provider.limits());
        let this = Arc::new(Self {
            bounds: Bounds {
                lease: policy.lease,
                limits,
            },
            pacer: Pacer::new(limits, spawner.clone()),
            context: CallContext::new()
                .with_timeout(deadline(&limits))
                .with_extension(steady.listener(&name))
                .with_name_prefix(prefix),
            one_carrier: !policy.safeguards().all_carriers,
            name,
            provider,
            policy: account,
            steady,
            looked_after: AtomicU64::new(0),
            look: Notify::new(),
            walks: OnceLock::new(),
            newest: Mutex::default(),
            identities: OnceLock::new(),
            looks: Looks::new(&limits),
            proofs: Proofs::default(),
        });
        this.proofs.serve(&this, spawner.clone());
        let weak = Arc::downgrade(&this);
        let walk = Coalesce::new(
            spawner.clone(),
            Box::new(move || Box::pin(Self::walk_now(weak.clone()))),
        );
        let weak = Arc::downgrade(&this);
        let identity = Coalesce::new(
            spawner,
            Box::new(move || Box::pin(Self::identity_now(weak.clone()))),
        );
        // Both cells were created above and are empty.
        let _ = (this.walks.set(walk), this.identities.set(identity));
        this
    }

    /// The context of a call.
    pub(crate) fn context(&self) -> &CallContext {
        &self.context
    }

    /// How many returns of this process had happened before the walk that was last compared with
    /// the records.
    pub(crate) fn looked_after(&self) -> u64 {
        self.looked_after.load(Ordering::Acquire)
    }

    /// Records that a complete walk was compared with the records, which started after this many
    /// returns. Returns whether it is the first since the last of them.
    pub(crate) fn has_looked(&self, after: u64) -> bool {
        self.looked_after.fetch_max(after, Ordering::AcqRel) < after
    }

    /// Waits for a turn in the account's budget, then makes the call.
    pub(crate) async fn call<T>(
        &self,
        class: Class,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let permit = self.pacer.admit(class).await;
        self.call_with(permit, call).await
    }

    /// Makes the call within its deadline. A panic in the provider counts as an unknown outcome.
    pub(crate) async fn call_with<T>(
        &self,
        permit: Permit,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let lost = |kind, message: &str| {
            Error::new(kind, message).outcome_is(Outcome::Unknown(Vec::new()))
        };
        let bounded = tokio::time::timeout(
            deadline(&self.bounds.limits),
            AssertUnwindSafe(call).catch_unwind(),
        );
        let answer = bounded.await;
        drop(permit);
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(lost(ErrorKind::Unknown, "the provider panicked")),
            Err(_) => Err(lost(
                ErrorKind::Timeout,
                "no answer within the account's call deadline",
            )),
        }
    }

    /// A walk that starts after this call.
    pub(crate) async fn walk(&self) -> SharedListing {
        match self.walks.get() {
            Some(walks) => walks
                .ask()
                .await
                .unwrap_or_else(|| Err(Failure::no_handle())),
            None => Err(Failure::no_handle()),
        }
    }

    /// A walk that starts now, or one that started at most `age` ago.
    pub(crate) async fn walked_within(&self, age: Duration) -> SharedListing {
        let newest = {
            let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
            newest.clone()
        };
        match (newest, self.walks.get()) {
            (Some((begun, listed)), _) if begun.elapsed() <= age => Ok(listed),
            (_, Some(walks)) => walks
                .join()
                .await
                .unwrap_or_else(|| Err(Failure::no_handle())),
            (_, None) => Err(Failure::no_handle()),
        }
    }

    async fn walk_now(this: Weak<Self>) -> SharedListing {
        let Some(this) = this.upgrade() else {
            return Err(Failure::no_handle());
        };
        let permit = this.pacer.admit(Class::Scan).await;
        let (begun, at) = (this.steady.now(), Instant::now());
        let filter = ListFilter::all();
        let listing = this
            .call_with(permit, this.provider.list_compute(&this.context, &filter))
            .await;
        let listing = listing.map_err(|error| Failure::from(&error))?;
        let incomplete = match listing.completeness {
            atlas_core::Completeness::Complete => None,
            atlas_core::Completeness::Incomplete(why) => Some(why),
        };
        let listed = Arc::new(Listed::new(
            begun,
            incomplete,
            listing.computes,
            this.one_carrier,
        ));
        *this.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, listed.clone()));
        Ok(listed)
    }

    /// The identity of the handle's account, read after this call.
    pub(crate) async fn identity(&self) -> SharedIdentity {
        match self.identities.get() {
            Some(identities) => identities
                .ask()
                .await
                .unwrap_or_else(|| Err(Failure::no_handle())),
            None => Err(Failure::no_handle()),
        }
    }

    async fn identity_now(this: Weak<Self>) -> SharedIdentity {
        let Some(this) = this.upgrade() else {
            return Err(Failure::no_handle());
        };
        this.call(Class::Resolve, this.provider.identity(&this.context))
            .await
            .map_err(|error| Failure::from(&error))
    }

    /// A point read, with its start time.
    pub(crate) async fn read(&self, class: Class, id: &ComputeId) -> (Timestamp, Reading) {
        let permit = self.pacer.admit(class).await;
        let begun = self.steady.now();
        let reading = self
            .call_with(permit, async {
                Ok(self.provider.presence(&self.context, id).await)
            })
            .await;
        let reading = match reading {
            Ok(Presence::Present) => Reading::Present,
            Ok(Presence::Absent) => Reading::Absent,
            Ok(Presence::NoAnswer(error)) | Err(error) => Reading::NoAnswer(Failure::from(&error)),
        };
        (begun, reading)
    }

    /// Checks a request without asking the cloud.
    pub(crate) fn check(&self, request: &atlas_core::ComputeRequest) -> Result<()> {
        self.provider.check(request)?;
        self.provider
            .supports(&LaunchKey::untracked(), request)
            .map(drop)
    }
}
