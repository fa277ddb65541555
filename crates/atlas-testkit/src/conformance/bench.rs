//! The environment of a case: a fresh provider, its own keys, waiting, and cleaning up.

use std::sync::Mutex;
use std::time::Duration;

use atlas_core::{
    AnyProvider, AttemptId, CallContext, Capability, Compute, ComputeId, ComputeRequest,
    ComputeStatus, Error, ErrorKind, LaunchKey, ListFilter, Listing, Presence, RealmId, Secret,
    Support, TrackedKey,
};

use super::subject::{Control, LedgerEntry, Rewrite, Subject};
use crate::world::FaultKind;

/// Why a case ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The promise does not hold; holds what was observed.
    Failed(String),
    /// The case cannot be tried; holds what is missing.
    Skipped(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error.to_string())
    }
}

pub(super) type Verdict = Result<(), Stop>;

/// Fails the case with this message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::conformance::bench::Stop::Failed(format!($($message)+)));
        }
    };
}
pub(super) use ensure;

/// The environment of a case.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    subject: &'a dyn Subject,
    provider: AnyProvider,
    cx: CallContext,
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    keys: Vec<TrackedKey>,
    ids: Vec<ComputeId>,
    supports: Vec<Support>,
}

impl std::fmt::Debug for dyn Subject + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subject")
    }
}

impl<'a> Bench<'a> {
    pub(super) async fn new(subject: &'a dyn Subject) -> Result<Self, Stop> {
        let provider = subject
            .fresh()
            .await
            .map_err(|error| Stop::Failed(format!("no fresh cloud: {error}")))?;
        Ok(Self {
            subject,
            provider,
            cx: CallContext::new(),
            made: Mutex::default(),
        })
    }

    pub(super) fn subject(&self) -> &dyn Subject {
        self.subject
    }

    pub(super) fn provider(&self) -> &AnyProvider {
        &self.provider
    }

    pub(super) fn cx(&self) -> &CallContext {
        &self.cx
    }

    /// A context whose calls are made without repeats.
    pub(super) fn once(&self) -> CallContext {
        self.cx.clone().with_retries(0)
    }

    pub(super) fn has(&self, capability: Capability) -> bool {
        self.provider.capabilities().has(capability)
    }

    /// Skips the case unless the provider declares this capability.
    pub(super) fn need(&self, capability: Capability) -> Verdict {
        if self.has(capability) {
            Ok(())
        } else {
            Err(Stop::Skipped(capability.as_str()))
        }
    }

    /// The controls of the simulated cloud; without them the case is skipped.
    pub(super) fn control(&self) -> Result<&dyn Control, Stop> {
        self.subject
            .control()
            .ok_or_else(|| Stop::Skipped("control:faults".to_owned()))
    }

    /// The provider with a key the cloud does not know; without one the case is skipped.
    pub(super) fn with_bad_key(&self) -> Result<AnyProvider, Stop> {
        self.subject
            .with_bad_key()
            .ok_or_else(|| Stop::Skipped("control:bad_key".to_owned()))
    }

    /// Makes the next calls meet a fault; if this cloud cannot have it, the case is skipped.
    pub(super) async fn inject(&self, operation: &str, fault: FaultKind, count: u32) -> Verdict {
        if self.control()?.inject(operation, fault, count).await {
            Ok(())
        } else {
            Err(Stop::Skipped(format!("control:{fault} on {operation}")))
        }
    }

    /// Changes the descriptions of machines from now on; where this cloud's answers cannot be
    /// changed, the case is skipped.
    pub(super) fn rewrite(&self, rewrite: Option<Rewrite>) -> Verdict {
        if self.control()?.rewrite_machines(rewrite) {
            Ok(())
        } else {
            Err(Stop::Skipped("control:rewrite_machines".to_owned()))
        }
    }

    /// A launch key that no other case uses.
    pub(super) fn key(&self) -> TrackedKey {
        let mut made = self.made();
        let number = u16::try_from(made.keys.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        let millis = self.subject.now().unix_millis().to_be_bytes();
        let random = [
            number[0], number[1], millis[4], millis[5], millis[6], millis[7],
        ];
        let key = TrackedKey::new(
            RealmId::from_bytes(*b"conf"),
            AttemptId::new(self.subject.now(), random),
            [7; 5],
        );
        made.keys.push(key);
        key
    }

    /// The subject's request with a unique name.
    pub(super) fn request(&self) -> ComputeRequest {
        self.subject.request().name("conformance")
    }

    /// The request pinned to the provider's first candidate, with its supporting objects made, as
    /// an orchestrator does.
    pub(super) async fn prepared(
        &self,
        key: &LaunchKey,
        request: ComputeRequest,
    ) -> Result<ComputeRequest, Stop> {
        let candidates = self.provider.candidates(&self.cx, &request).await?;
        let Some(first) = candidates.into_iter().next() else {
            return Err(Stop::Failed(
                "the subject's request has no candidate".to_owned(),
            ));
        };
        let request = request.at(first);
        for support in self.provider.supports(key, &request)? {
            let support = self
                .provider
                .ensure_support(&self.cx, key, &support)
                .await?;
            self.made().supports.push(support);
        }
        Ok(request)
    }

    /// Orders one machine with a unique key, as an orchestrator does.
    pub(super) async fn spawn(
        &self,
        request: ComputeRequest,
    ) -> Result<(TrackedKey, Compute), Stop> {
        let key = self.key();
        let compute = self.spawn_as(&LaunchKey::Tracked(key), request).await?;
        Ok((key, compute))
    }

    /// Orders one machine with this key.
    pub(super) async fn spawn_as(
        &self,
        key: &LaunchKey,
        request: ComputeRequest,
    ) -> Result<Compute, Stop> {
        let request = self.prepared(key, request).await?;
        let compute = self.provider.spawn_compute(&self.cx, key, &request).await?;
        self.made().ids.push(compute.id.clone());
        Ok(compute)
    }

    /// Makes one spawn that is expected to fail, with a unique key.
    pub(super) async fn spawn_failing(
        &self,
        cx: &CallContext,
        request: ComputeRequest,
    ) -> Result<(TrackedKey, Error), Stop> {
        let key = self.key();
        let request = self.prepared(&LaunchKey::Tracked(key), request).await?;
        match self
            .provider
            .spawn_compute(cx, &LaunchKey::Tracked(key), &request)
            .await
        {
            Ok(compute) => {
                self.made().ids.push(compute.id.clone());
                Err(Stop::Failed(format!(
                    "the spawn answered {} where an error was due",
                    compute.id
                )))
            }
            Err(error) => Ok((key, error)),
        }
    }

    /// The complete listing.
    pub(super) async fn list(&self) -> Result<Listing, Stop> {
        Ok(self
            .provider
            .list_compute(&self.cx, &ListFilter::all())
            .await?)
    }

    /// The cloud's own records, if the cloud is simulated.
    pub(super) async fn ledger(&self) -> Result<Vec<LedgerEntry>, Stop> {
        Ok(self.control()?.ledger().await)
    }

    /// Waits for as long as a machine may take to appear or disappear, according to the cloud.
    pub(super) fn patience(&self) -> Patience<'a> {
        Patience::new(self.subject, self.provider.limits().visibility_bound * 2)
    }

    /// Waits for as long as a machine may take until it runs.
    pub(super) fn long_patience(&self) -> Patience<'a> {
        Patience::new(self.subject, self.subject.ready_within())
    }

    /// Waits until a point read shows this status.
    pub(super) async fn until_status(
        &self,
        id: &ComputeId,
        wanted: &ComputeStatus,
    ) -> Result<Compute, Stop> {
        let mut patience = self.long_patience();
        loop {
            let seen = match self.provider.get_compute(&self.cx, id).await {
                Ok(compute) if compute.status == *wanted => return Ok(compute),
                Ok(compute) => compute.status.to_string(),
                Err(error) if error.kind() == ErrorKind::NotFound => error.to_string(),
                Err(error) => return Err(error.into()),
            };
            patience
                .again(&format!("{id} is {seen}, not {wanted}"))
                .await?;
        }
    }

    /// Waits until a point read shows the machine.
    pub(super) async fn until_shown(&self, id: &ComputeId) -> Result<Compute, Stop> {
        let mut patience = self.patience();
        loop {
            match self.provider.get_compute(&self.cx, id).await {
                Ok(compute) => return Ok(compute),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    patience.again(&error.to_string()).await?
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the key finds this many machines, and returns their ids.
    pub(super) async fn until_found(
        &self,
        key: &TrackedKey,
        count: usize,
    ) -> Result<Vec<ComputeId>, Stop> {
        let mut patience = self.patience();
        loop {
            let found = self.provider.find_by_launch_key(&self.cx, key).await?;
            let ids: Vec<_> = found
                .computes
                .into_iter()
                .map(|compute| compute.id)
                .collect();
            if ids.len() == count {
                return Ok(ids);
            }
            patience
                .again(&format!("the key finds {ids:?}, not {count}"))
                .await?;
        }
    }

    /// Waits until absence is proved.
    pub(super) async fn until_absent(&self, id: &ComputeId) -> Verdict {
        let mut patience = self.patience();
        loop {
            match self.provider.presence(&self.cx, id).await {
                Presence::Absent => return Ok(()),
                other => {
                    patience
                        .again(&format!("the presence of {id} is {other:?}"))
                        .await?
                }
            }
        }
    }

    /// Deletes what the case made, on a real cloud; a simulated one is discarded.
    pub(super) async fn sweep(self) -> Verdict {
        if self.subject.control().is_some() {
            return Ok(());
        }
        let made = std::mem::take(&mut *self.made());
        let mut ids = made.ids;
        for key in &made.keys {
            let found = self.provider.find_by_launch_key(&self.cx, key).await?;
            ids.extend(found.computes.into_iter().map(|compute| compute.id));
        }
        for id in &ids {
            self.provider.terminate(&self.cx, id).await?;
        }
        for support in made.supports.iter().rev() {
            self.provider.release_support(&self.cx, support).await?;
        }
        Ok(())
    }

    /// Checks that a text contains no secret: neither the keys in use nor the case's own.
    pub(super) fn shows_no_secret(&self, shown: &str, own: &[&Secret]) -> Verdict {
        let keys = self.subject.secrets();
        for secret in keys
            .iter()
            .map(String::as_str)
            .chain(own.iter().map(|secret| secret.expose()))
        {
            ensure!(
                !shown.contains(secret),
                "a secret of {} characters is shown",
                secret.len()
            );
        }
        Ok(())
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The remaining time for which a case waits for a condition.
pub(super) struct Patience<'a> {
    subject: &'a dyn Subject,
    left: Duration,
    step: Duration,
}

impl<'a> Patience<'a> {
    fn new(subject: &'a dyn Subject, whole: Duration) -> Self {
        Self {
            subject,
            left: whole,
            step: (whole / 40).max(Duration::from_millis(100)),
        }
    }

    /// Waits a little, or fails with what was last observed.
    pub(super) async fn again(&mut self, seen: &str) -> Verdict {
        if self.left.is_zero() {
            return Err(Stop::Failed(format!("in vain: {seen}")));
        }
        let step = self.step.min(self.left);
        self.left -= step;
        self.subject.wait(step).await;
        Ok(())
    }
}
