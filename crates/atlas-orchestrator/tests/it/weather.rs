//! A cloud behind bad weather: answers that a test puts in front of a provider's own, and a count
//! of the calls that were made.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atlas_core::{
    AccountLimits, AnyProvider, CallContext, Candidate, Capabilities, Compute, ComputeId,
    ComputeRequest, ComputeSpend, Error, ErrorKind, LaunchKey, ListFilter, Listing, Next, Outcome,
    Presence, Provider, ProviderId, Result, SpendQuery, Support, UsdPerHour,
};

type Says = Arc<dyn Fn() -> Option<Error> + Send + Sync>;

/// What the weather is like now.
#[derive(Default)]
struct Now {
    calls: BTreeMap<&'static str, usize>,
    instead: BTreeMap<&'static str, Says>,
    price: Option<Option<UsdPerHour>>,
}

/// The weather of an account. Fair until a test says otherwise.
#[derive(Clone, Default)]
pub(crate) struct Weather(Arc<Mutex<Now>>);

impl std::fmt::Debug for Weather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Weather")
    }
}

impl Weather {
    /// How often an operation was called.
    pub(crate) fn count(&self, operation: &str) -> usize {
        let now = self.0.lock().unwrap();
        now.calls.get(operation).copied().unwrap_or_default()
    }

    /// Every call of an operation is answered by this from now on, where it is an error.
    pub(crate) fn answer(
        &self,
        operation: &'static str,
        says: impl Fn() -> Option<Error> + Send + Sync + 'static,
    ) {
        self.0
            .lock()
            .unwrap()
            .instead
            .insert(operation, Arc::new(says));
    }

    /// The next call of an operation is answered by this.
    pub(crate) fn answer_once(&self, operation: &'static str, error: fn() -> Error) {
        let first = std::sync::atomic::AtomicBool::new(true);
        self.answer(operation, move || {
            first
                .swap(false, std::sync::atomic::Ordering::Relaxed)
                .then(error)
        });
    }

    /// An operation is answered by the cloud itself again.
    pub(crate) fn clear(&self, operation: &str) {
        self.0.lock().unwrap().instead.remove(operation);
    }

    /// Every machine and every offer shows this price, or none, from now on.
    pub(crate) fn show_price(&self, price: Option<UsdPerHour>) {
        self.0.lock().unwrap().price = Some(price);
    }

    fn call(&self, operation: &'static str) -> Result<()> {
        let says = {
            let mut now = self.0.lock().unwrap();
            *now.calls.entry(operation).or_default() += 1;
            now.instead.get(operation).cloned()
        };
        says.and_then(|says| says()).map_or(Ok(()), Err)
    }

    fn priced(&self, mut compute: Compute) -> Compute {
        if let Some(price) = self.0.lock().unwrap().price {
            compute.cost_per_hour = price;
        }
        compute
    }
}

/// 429, refused before any work, with this `Retry-After`.
pub(crate) fn too_many(wait: Duration) -> Error {
    Error::new(ErrorKind::RateLimited, "too many calls")
        .with_status(429)
        .outcome_is(Outcome::NotApplied(Next::SameLater))
        .with_retry_after(wait)
}

/// A refusal of one candidate.
pub(crate) fn refusal(kind: ErrorKind) -> Error {
    Error::new(kind, "not for you").outcome_is(Outcome::NotApplied(Next::NextCandidate))
}

/// 404.
pub(crate) fn no_such_machine() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such machine")
        .with_status(404)
        .outcome_is(Outcome::NotApplied(Next::Stop))
}

/// A provider behind this weather.
pub(crate) fn behind(inner: AnyProvider, weather: Weather) -> AnyProvider {
    AnyProvider::new(Behind { inner, weather })
}

#[derive(Debug)]
struct Behind {
    inner: AnyProvider,
    weather: Weather,
}

impl Provider for Behind {
    fn id(&self) -> &ProviderId {
        self.inner.id()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn limits(&self) -> AccountLimits {
        self.inner.limits()
    }

    fn check(&self, request: &ComputeRequest) -> Result<()> {
        self.inner.check(request)
    }

    fn supports(&self, key: &LaunchKey, request: &ComputeRequest) -> Result<Vec<Support>> {
        self.inner.supports(key, request)
    }

    async fn identity(&self, cx: &CallContext) -> Result<String> {
        self.weather.call("identity")?;
        self.inner.identity(cx).await
    }

    async fn candidates(
        &self,
        cx: &CallContext,
        request: &ComputeRequest,
    ) -> Result<Vec<Candidate>> {
        self.weather.call("candidates")?;
        let mut found = self.inner.candidates(cx, request).await?;
        let price = self.weather.0.lock().unwrap().price;
        for candidate in found.iter_mut().filter(|_| price.is_some()) {
            candidate.price = price.flatten();
        }
        Ok(found)
    }

    async fn spawn_compute(
        &self,
        cx: &CallContext,
        key: &LaunchKey,
        request: &ComputeRequest,
    ) -> Result<Compute> {
        self.weather.call("spawn_compute")?;
        let made = self.inner.spawn_compute(cx, key, request).await?;
        Ok(self.weather.priced(made))
    }

    async fn get_compute(&self, cx: &CallContext, id: &ComputeId) -> Result<Compute> {
        self.weather.call("get_compute")?;
        let found = self.inner.get_compute(cx, id).await?;
        Ok(self.weather.priced(found))
    }

    async fn presence(&self, cx: &CallContext, id: &ComputeId) -> Presence {
        match self.weather.call("presence") {
            Ok(()) => self.inner.presence(cx, id).await,
            Err(error) if error.kind() == ErrorKind::NotFound => Presence::Absent,
            Err(error) => Presence::NoAnswer(error),
        }
    }

    async fn list_compute(&self, cx: &CallContext, filter: &ListFilter) -> Result<Listing> {
        self.weather.call("list_compute")?;
        let mut listing = self.inner.list_compute(cx, filter).await?;
        let machines = listing.computes.into_iter();
        listing.computes = machines
            .map(|machine| self.weather.priced(machine))
            .collect();
        Ok(listing)
    }

    async fn terminate(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        self.weather.call("terminate")?;
        self.inner.terminate(cx, id).await
    }

    async fn compute_spend(
        &self,
        cx: &CallContext,
        query: &SpendQuery,
    ) -> Result<Vec<ComputeSpend>> {
        self.inner.compute_spend(cx, query).await
    }

    async fn list_gpu_types(&self, cx: &CallContext) -> Result<Vec<atlas_core::GpuType>> {
        self.inner.list_gpu_types(cx).await
    }

    async fn stop(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        self.inner.stop(cx, id).await
    }

    async fn start(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        self.inner.start(cx, id).await
    }

    async fn ensure_support(
        &self,
        cx: &CallContext,
        key: &LaunchKey,
        support: &Support,
    ) -> Result<Support> {
        self.inner.ensure_support(cx, key, support).await
    }

    async fn release_support(&self, cx: &CallContext, support: &Support) -> Result<()> {
        self.inner.release_support(cx, support).await
    }
}
