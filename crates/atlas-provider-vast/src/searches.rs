//! Shared offer searches: Vast counts the rows of an account's searches per day.
//!
//! Identical searches within [`FRESH`] are one call, even when they are made concurrently. When the
//! rows of the day are used up, no search is sent until new ones are granted.

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

/// Maximum age of the answer of another placement's search.
pub(crate) const FRESH: Duration = Duration::from_secs(5);
/// Maximum age of a price list: it takes six searches of all rows.
pub(crate) const FRESH_PRICES: Duration = Duration::from_secs(60);
/// Maximum number of different searches that are kept.
const MOST: usize = 200;

/// The result of a search, with its time.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) at: Timestamp,
    rows: Arc<Rows<Offer>>,
    /// Offers that were ordered since.
    ordered: BTreeSet<u64>,
}

impl Found {
    /// The offers that were not ordered through this handle since.
    pub(crate) fn offers(&self) -> impl Iterator<Item = &Offer> {
        self.rows
            .rows
            .iter()
            .filter(|offer| !self.ordered.contains(&offer.id))
    }

    /// Checks that the result could be read.
    ///
    /// # Errors
    /// `provider`, if there are offers and none of them is readable.
    pub(crate) fn check(&self) -> Result<()> {
        self.rows.check()
    }
}

/// The last answer of one search; the holder of the lock is making the call.
type Slot = Arc<AsyncMutex<Option<Found>>>;

#[derive(Clone, Debug)]
pub(crate) struct Searches {
    clock: Arc<dyn Clock>,
    limits: AccountLimits,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By the text of the search, with the time of the last search.
    slots: BTreeMap<String, (Timestamp, Slot)>,
    /// When offers were last ordered through this handle: older answers still contain them.
    ordered: BTreeMap<u64, Timestamp>,
    /// The rows of the day are used up until then.
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

    /// The offers of a search, from an answer that is at most [`FRESH`] old.
    ///
    /// # Errors
    /// Like any read; `quota`, with the time until new rows are granted, while they are used up.
    ///
    /// # Cancel safety
    /// Cancel safe: another caller that waits for the same search then makes it.
    pub(crate) async fn find(
        &self,
        cloud: &Cloud,
        cx: &CallContext,
        search: &Value,
        fresh: Duration,
    ) -> Result<Found> {
        // Another account, another server, or a layer that must see every call.
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

    /// An offer is being ordered: earlier answers about it are outdated.
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
