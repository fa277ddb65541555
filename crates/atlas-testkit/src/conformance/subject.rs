//! The input of the suite: a provider on a fresh cloud and, if the cloud is simulated, controls for
//! it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{AnyProvider, ComputeId, ComputeRequest, Result, Timestamp, TrackedKey};
use serde_json::Value;

use crate::world::FaultKind;

/// A boxed future that can be sent between tasks.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A provider under test, and the cloud behind it.
pub trait Subject: Send + Sync {
    /// The reset hook: a provider with a valid key, on a cloud without objects of the suite.
    ///
    /// # Errors
    /// When the cloud cannot be prepared; every case then fails with this error.
    fn fresh(&self) -> BoxFuture<'_, Result<AnyProvider>>;

    /// The same provider on the same cloud, which is *not* reset, with a key the cloud does not
    /// know.
    fn with_bad_key(&self) -> Option<AnyProvider>;

    /// A cheap request that this cloud can honour: shape and image, nothing more.
    fn request(&self) -> ComputeRequest;

    /// The cloud's time.
    fn now(&self) -> Timestamp;

    /// Lets this much of the cloud's time pass: sleeps on a real cloud, advances a simulated one.
    fn wait(&self, span: Duration) -> BoxFuture<'_, ()>;

    /// Controls of a simulated cloud. `None` for a real one: cases that need them are skipped.
    fn control(&self) -> Option<&dyn Control> {
        None
    }

    /// A serverless endpoint and inputs that its worker understands.
    fn serverless(&self) -> Option<Serverless> {
        None
    }

    /// An id of the right shape that no machine ever had.
    fn unknown_id(&self) -> ComputeId {
        ComputeId::new("zz0unknown0zz0").expect("letters and digits")
    }

    /// A region of this cloud in which the request can be honoured, and which is not the cloud's
    /// own first choice.
    fn region(&self) -> Option<String> {
        None
    }

    /// Texts that must appear in no error, `Debug` or raw description: the API keys in use.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    /// The maximum time from a machine's order until it runs.
    fn ready_within(&self) -> Duration {
        Duration::from_secs(20 * 60)
    }
}

/// Controls of a simulated cloud.
pub trait Control: Send + Sync {
    /// Makes the next `count` calls of this operation (its name in the contract) meet this fault.
    /// `false` when this cloud cannot have it.
    fn inject<'a>(
        &'a self,
        operation: &'a str,
        fault: FaultKind,
        count: u32,
    ) -> BoxFuture<'a, bool>;

    /// Makes the next listing break off after it has begun, visibly in its answers: a page that
    /// fails, a lost cursor, a region in error. `false` when this cloud's listing is a single
    /// answer.
    fn break_listing(&self) -> BoxFuture<'_, bool>;

    /// From now on every description of a machine in the cloud's answers is changed by this before
    /// the provider reads it; with `None`, answers are as the cloud gives them. `false` when the
    /// answers cannot be changed.
    fn rewrite_machines(&self, _rewrite: Option<Rewrite>) -> bool {
        false
    }

    /// The cloud's own books: every machine it made since it was fresh.
    fn ledger(&self) -> BoxFuture<'_, Vec<LedgerEntry>>;

    /// How many requests reached the cloud since it was fresh: for one operation, or in total.
    fn requests<'a>(&'a self, operation: Option<&'a str>) -> BoxFuture<'a, u64>;
}

/// A change of the JSON by which a cloud describes one machine, in a listing or alone.
#[derive(Clone)]
pub struct Rewrite(Arc<dyn Fn(&mut Value) + Send + Sync>);

impl Rewrite {
    /// This change.
    pub fn new(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        Self(Arc::new(change))
    }

    /// Changes one description.
    pub fn apply(&self, description: &mut Value) {
        (self.0)(description);
    }
}

impl fmt::Debug for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rewrite(..)")
    }
}

/// A machine in the cloud's own books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The cloud's id of it.
    pub id: ComputeId,
    /// Whether it still bills.
    pub live: bool,
    /// The launch key it carries.
    pub launch_key: Option<TrackedKey>,
    /// The environment that its container got; `None` if the records do not contain it.
    pub env: Option<BTreeMap<String, String>>,
}

/// A serverless endpoint for the suite, and inputs that its worker understands.
#[derive(Clone, Debug)]
pub struct Serverless {
    /// The endpoint.
    pub endpoint: String,
    /// Completes at once; its output contains this input again.
    pub echo: Value,
    /// Runs for a minute or so.
    pub long: Value,
    /// Yields this many chunks, then completes.
    pub stream: (Value, usize),
    /// Fails with this text in its error.
    pub error: (Value, String),
}
