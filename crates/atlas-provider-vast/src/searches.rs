//! Offer searches that are shared: Vast counts the rows of an account's searches, by the day.
//!
//! Identical searches within [`FRESH`] are one call, also when they are made at the same time.
//! After the day's rows are used up, no search is sent until they are given anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas_core::{
    AccountLimits, CallContext, Clock, Error, ErrorKind, Next, Outcome, Result, Timestamp,
};
use atlas_http::CallLayers;
use atlas_http::lenient::Rows;
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;

use crate::client::Cloud;
use crate::wire::Offer;

/// How old the answer of another placement's search may be.
pub(crate) const FRESH: Duration = Duration::from_secs(5);
/// How old a price list may be: it takes six searches of all rows.
pub(crate) const FRESH_PRICES: Duration = Duration::from_secs(60);
/// How many different searches are kept.
const MOST: usize = 200;

/// What a search found, and when.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) at: Timestamp,
    rows: Arc<Rows<Offer>>,
    /// Asks that were ordered since.
    ordered: BTreeSet<u64>,
}

impl Found {
    /// The offers that nobody here has ordered since.
    pub(crate) fn offers(&self) -> impl Iterator<Item = &Offer> {
        self.rows
            .rows
            .iter()
            .filter(|offer| !self.ordered.contains(&offer.id))
    }

    /// Whether what was found could be read.
    ///
    /// # Errors
    /// `provider`, where there are offers and none of them could be.
    pub(crate) fn check(&self) -> Result<()> {
        self.rows.check()
    }
}

/// The last answer of one search; whoever holds the lock is asking.
type Slot = Arc<AsyncMutex<Option<Found>>>;

#[derive(Clone, Debug)]
pub(crate) struct Searches {
    clock: Arc<dyn Clock>,
    limits: AccountLimits,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By the text of the search, with the time it was last made.
    slots: BTreeMap<String, (Timestamp, Slot)>,
    /// When offers were last ordered, by anybody here: older answers still show them.
    ordered: BTreeMap<u64, Timestamp>,
    /// The day's rows are used up until then.
    used_up_until: Option<Timestamp>,
}

impl Searches {
    pub(crate) fn new(clock: Arc<dyn Clock>, limits: AccountLimits) -> Self {
        Self {
            clock,
            limits,
            inner: Arc::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What fits a search, from an answer that is at most [`FRESH`] old.
    ///
    /// # Errors
    /// Like any read; `quota`, with the time until the rows are given anew, while they are used up.
    ///
    /// # Cancel safety
    /// Cancel safe: whoever waits for the same search makes it then.
    pub(crate) async fn find(
        &self,
        cloud: &Cloud,
        cx: &CallContext,
        search: &Value,
        fresh: Duration,
    ) -> Result<Found> {
        // Another account, another server, or a layer that wants to see every call.
        if cx.api_key().is_some()
            || cx.base_url().is_some()
            || cx.extension::<CallLayers>().is_some()
        {
            return self.ask(cloud, cx, search).await;
        }
        let slot = self.slot(search);
        let patience = cx.timeout().unwrap_or(self.limits.call_deadline);
        let Ok(mut last) = tokio::time::timeout(patience, slot.lock()).await else {
            let message = "another search for the same offers has not been answered yet";
            return Err(Error::new(ErrorKind::Timeout, message)
                .outcome_is(Outcome::NotApplied(Next::SameLater)));
        };
        if let Some(found) = &*last
            && self.clock.now().since(found.at) < fresh
        {
            return Ok(self.without_ordered(found));
        }
        let until = self.inner().used_up_until;
        if let Some(left) = until
            .map(|until| until.since(self.clock.now()))
            .filter(|left| !left.is_zero())
        {
            return Err(used_up(left));
        }
        let found = match self.ask(cloud, cx, search).await {
            Ok(found) => found,
            Err(error) => {
                if let (ErrorKind::Quota, Some(wait)) = (error.kind(), error.retry_after()) {
                    self.inner().used_up_until = Some(self.clock.now().saturating_add(wait));
                }
                return Err(error);
            }
        };
        *last = Some(found.clone());
        Ok(found)
    }

    async fn ask(&self, cloud: &Cloud, cx: &CallContext, search: &Value) -> Result<Found> {
        let at = self.clock.now();
        let rows = Arc::new(cloud.offers(cx, search).await?);
        let ordered = BTreeSet::new();
        Ok(Found { at, rows, ordered })
    }

    fn slot(&self, search: &Value) -> Slot {
        let now = self.clock.now();
        let mut inner = self.inner();
        let slot = inner
            .slots
            .entry(search.to_string())
            .or_insert_with(|| (now, Slot::default()));
        slot.0 = now;
        let slot = slot.1.clone();
        if inner.slots.len() > MOST
            && let Some(oldest) = inner
                .slots
                .iter()
                .min_by_key(|(_, (at, _))| *at)
                .map(|(search, _)| search.clone())
        {
            inner.slots.remove(&oldest);
        }
        slot
    }

    /// An offer is being ordered: answers from before are wrong about it.
    pub(crate) fn ordered(&self, ask: &str) {
        let Ok(ask) = ask.parse() else { return };
        let now = self.clock.now();
        let mut inner = self.inner();
        inner
            .ordered
            .retain(|_, at| now.since(*at) < FRESH_PRICES.max(FRESH));
        inner.ordered.insert(ask, now);
    }

    fn without_ordered(&self, found: &Found) -> Found {
        let inner = self.inner();
        let since = inner.ordered.iter().filter(|(_, at)| **at >= found.at);
        Found {
            ordered: since.map(|(ask, _)| *ask).collect(),
            ..found.clone()
        }
    }
}

fn used_up(left: Duration) -> Error {
    Error::new(
        ErrorKind::Quota,
        "the account's offer rows of the day are used up",
    )
    .outcome_is(Outcome::NotApplied(Next::Stop))
    .with_retry_after(left)
}
