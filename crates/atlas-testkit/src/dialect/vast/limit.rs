//! Rate limits per endpoint: a minimum interval, and for searches a number per minute.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use atlas_core::Timestamp;

use super::Route;

/// Vast's intervals, or a fraction of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The factor by which the intervals are multiplied.
    pub factor: f64,
}

impl Default for Rates {
    fn default() -> Self {
        Self { factor: 1.0 }
    }
}

const DAY: i64 = 24 * 60 * 60;
/// How many searches there may be in a minute.
const SEARCHES: usize = 10;
/// The penalty after a create that came too early.
const PENALTY: Duration = Duration::from_secs(12);

#[derive(Debug, Default)]
pub(super) struct Limiter {
    last: BTreeMap<(String, &'static str), Timestamp>,
    barred: BTreeMap<String, Timestamp>,
    searches: BTreeMap<String, VecDeque<Timestamp>>,
    refused: u64,
    /// The number of rows that each account was given, with the day since 1970.
    rows: BTreeMap<String, (i64, u64)>,
}

/// An endpoint, and its interval in tenths of a second.
const fn interval(route: &Route) -> (&'static str, u32) {
    match route {
        Route::Create(_) => ("PUT asks", 45),
        Route::Bundles | Route::BundlesByQuery | Route::SearchAsks => ("POST bundles", 0),
        Route::OldList | Route::List => ("GET v1 instances", 10),
        Route::Get(_) => ("GET instances", 20),
        Route::Put(_) => ("PUT instances", 10),
        Route::Delete(_) => ("DELETE instances", 30),
        Route::Reboot(_) => ("PUT reboot", 10),
        Route::Recycle(_) => ("PUT recycle", 10),
        Route::Bid(_) => ("PUT bid_price", 55),
        Route::Prepay(_) => ("PUT prepay", 20),
        Route::Balance(_) => ("GET balance", 10),
        Route::Logs(_) => ("PUT request_logs", 10),
        Route::Command(_) => ("PUT command", 15),
        Route::InstanceKeys(_) => ("GET instance ssh", 10),
        Route::AddInstanceKey(_) => ("POST instance ssh", 10),
        Route::DeleteInstanceKey(..) => ("DELETE instance ssh", 10),
        Route::Keys => ("GET ssh", 10),
        Route::AddKey => ("POST ssh", 20),
        Route::PutKey(_) => ("PUT ssh", 20),
        Route::DeleteKey(_) => ("DELETE ssh", 20),
        Route::User => ("GET users", 50),
        Route::Charges => ("GET charges", 10),
        Route::VolumeOffers => ("POST volumes", 55),
        Route::Volumes => ("GET volumes", 55),
        Route::AddVolume => ("PUT volumes", 55),
        Route::DeleteVolume => ("DELETE volumes", 55),
        Route::GpuNames | Route::GpuTypes => ("GET gpu_names", 10),
        Route::UpdateTemplate(_) => ("PUT update_template", 10),
        Route::PriceIncreases => ("GET price increases", 10),
        Route::Secrets => ("GET secrets", 30),
        Route::Count => ("GET instances count", 10),
        Route::DeleteMany => ("DELETE many instances", 30),
        Route::PutMany => ("PUT many instances", 40),
    }
}

impl Limiter {
    /// Whether a call of this key respects the limits.
    pub(super) fn takes(&mut self, rates: Rates, key: &str, route: &Route, now: Timestamp) -> bool {
        let (endpoint, tenths) = interval(route);
        if endpoint == "POST bundles" {
            let window = self.searches.entry(key.to_owned()).or_default();
            let minute = Duration::from_secs(60).mul_f64(rates.factor);
            while window
                .front()
                .is_some_and(|first| now.since(*first) >= minute)
            {
                window.pop_front();
            }
            let free = window.len() < SEARCHES;
            if free {
                window.push_back(now);
            }
            return free;
        }
        if endpoint == "PUT asks" && self.barred.get(key).is_some_and(|until| now < *until) {
            return false;
        }
        let least = Duration::from_millis(u64::from(tenths) * 100).mul_f64(rates.factor);
        let last = self
            .last
            .entry((key.to_owned(), endpoint))
            .or_insert(Timestamp::UNIX_EPOCH);
        if now.since(*last) < least {
            if endpoint == "PUT asks" {
                self.barred.insert(
                    key.to_owned(),
                    now.saturating_add(PENALTY.mul_f64(rates.factor)),
                );
            }
            return false;
        }
        *last = now;
        true
    }

    /// Whether an account has rows left for the day; if not, the seconds until, and the instant at
    /// which, it gets new ones.
    pub(super) fn has_rows(
        &self,
        quota: u64,
        account: &str,
        now: Timestamp,
    ) -> Result<(), (u64, i64)> {
        let today = now.unix_seconds().div_euclid(DAY);
        let used = match self.rows.get(account) {
            Some((day, used)) if *day == today => *used,
            _ => 0,
        };
        if used < quota {
            return Ok(());
        }
        let midnight = (today + 1) * DAY;
        let wait = u64::try_from(midnight - now.unix_seconds()).unwrap_or(0);
        Err((wait, midnight))
    }

    /// Records that an account was given this many rows.
    pub(super) fn gave_rows(&mut self, account: &str, rows: usize, now: Timestamp) {
        let today = now.unix_seconds().div_euclid(DAY);
        let (day, used) = self.rows.entry(account.to_owned()).or_default();
        if *day != today {
            (*day, *used) = (today, 0);
        }
        *used += rows as u64;
    }

    /// Every other refusal is plain text.
    pub(super) fn next_is_plain(&mut self) -> bool {
        self.refused += 1;
        self.refused % 2 == 1
    }
}
