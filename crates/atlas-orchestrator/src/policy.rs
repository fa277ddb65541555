//! How the orchestrator behaves where nobody says otherwise: bounds, intervals, safeguards.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{AccountLimits, AccountName, Error, Result};
use serde::{Deserialize, Serialize};

use crate::duration_ms;

/// Settings of one account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct AccountPolicy {
    /// Bounds and pace; the provider's own where unset.
    pub limits: Option<AccountLimits>,
    /// How long a machine must have been seen before the reaper may end it.
    #[serde(rename = "grace_ms", with = "duration_ms")]
    pub grace: Duration,
    /// The time between two scans of the reaper.
    #[serde(rename = "reap_interval_ms", with = "duration_ms")]
    pub reap_interval: Duration,
    /// The time between two looks at the machines of live sessions.
    #[serde(rename = "poll_interval_ms", with = "duration_ms")]
    pub poll_interval: Duration,
    /// Whether the reaper looks at this account (`reap_providers` in ex_atlas).
    pub reap: bool,
    /// The reaper reports what it would end, and ends nothing.
    pub report_only: bool,
    /// A respawn waits until the old machine is proved to be gone.
    pub one_at_a_time: bool,
}

impl Default for AccountPolicy {
    fn default() -> Self {
        Self {
            limits: None,
            grace: Duration::from_secs(120),
            reap_interval: Duration::from_secs(60),
            poll_interval: Duration::from_secs(60),
            reap: true,
            report_only: false,
            one_at_a_time: false,
        }
    }
}

/// The safeguards that the history runner removes one by one, to show that each is needed. Leave
/// them as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Safeguards {
    /// Resolve an unknown outcome before ordering again (`blind-retry`).
    pub resolve_unknown: bool,
    /// An incomplete walk proves nothing (`trust-partial-list`).
    pub complete_walks: bool,
    /// Only a point read proves absence (`absence-by-list`).
    pub point_read: bool,
    /// Two scans before a kill (`single-sighting`).
    pub two_sightings: bool,
    /// Grace before a kill (`no-grace`).
    pub grace: bool,
    /// Guarded writes test the fence and the version (`no-fence`).
    pub fence: bool,
    /// A key must carry our MAC (`no-mac`).
    pub mac: bool,
    /// Every carrier must agree (`one-carrier`).
    pub all_carriers: bool,
    /// Every machine found under a key is dealt with (`adopt-first-only`).
    pub every_duplicate: bool,
    /// A kill is confirmed before it is called done (`no-confirm`).
    pub confirm: bool,
    /// The account's identity is checked before absence is believed (`no-account`).
    pub account_identity: bool,
    /// A store that was rolled back is noticed (`no-incarnation`).
    pub incarnation: bool,
    /// A kill is repeated until it is done (`give-up-terminate`).
    pub retry_kill: bool,
    /// The reaper leaves unresolved attempts to the resolver (`reap-unknown`).
    pub spare_unresolved: bool,
    /// Too many victims stop the reaper (`no-breaker`).
    pub breaker: bool,
    /// Touches are flushed and compared before an idle kill (`touch-lost`).
    pub flush_touches: bool,
    /// An idle kill waits ttl and flush, and a touch near its time is acknowledged once it is
    /// durable (`idle-early`).
    pub idle_margin: bool,
    /// An idle end comes a lead after its warning, however late that was (`idle-unannounced`).
    pub announced_ends: bool,
    /// Nothing is decided on a time that the clocks do not agree on, and a return counts as a touch
    /// (`any-clock`).
    pub time_trust: bool,
    /// A cost kill is ordered before the cap is reached (`cost-overrun`).
    pub cost_margin: bool,
    /// A respawn commits the old machine's end with the new one's start (`respawn-leak`).
    pub respawn_kills_old: bool,
}

impl Default for Safeguards {
    fn default() -> Self {
        Self {
            resolve_unknown: true,
            complete_walks: true,
            point_read: true,
            two_sightings: true,
            grace: true,
            fence: true,
            mac: true,
            all_carriers: true,
            every_duplicate: true,
            confirm: true,
            account_identity: true,
            incarnation: true,
            retry_kill: true,
            spare_unresolved: true,
            breaker: true,
            flush_touches: true,
            idle_margin: true,
            announced_ends: true,
            time_trust: true,
            cost_margin: true,
            respawn_kills_old: true,
        }
    }
}

/// Settings of the whole orchestrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Policy {
    /// Of each account; the default for those not named.
    pub accounts: BTreeMap<AccountName, AccountPolicy>,
    /// Of the accounts not named.
    pub default_account: AccountPolicy,
    /// How long a node's lease lasts.
    #[serde(rename = "lease_ms", with = "duration_ms")]
    pub lease: Duration,
    /// How often it is renewed.
    #[serde(rename = "lease_renew_ms", with = "duration_ms")]
    pub lease_renew: Duration,
    /// No side effect starts later than this before the lease's end.
    #[serde(rename = "lease_margin_ms", with = "duration_ms")]
    pub lease_margin: Duration,
    /// The longest a touch stays in memory only; a tenth of the idle limit where that is less.
    #[serde(rename = "flush_ms", with = "duration_ms")]
    pub flush: Duration,
    /// How late a deadline may be noticed.
    #[serde(rename = "tick_ms", with = "duration_ms")]
    pub tick: Duration,
    /// How long ended attempts stay on record. At least 30 days outside simulations.
    #[serde(rename = "retention_ms", with = "duration_ms")]
    pub retention: Duration,
    /// How long events are kept after their session's end.
    #[serde(rename = "keep_events_ms", with = "duration_ms")]
    pub keep_events: Duration,
    /// How long an order is tried with other candidates, or the same later, before the spawn fails.
    #[serde(rename = "placing_patience_ms", with = "duration_ms")]
    pub placing_patience: Duration,
    /// How many orders one placement makes at most.
    pub max_orders: u32,
    /// The least number of victims in one scan that stops the reaper.
    pub breaker_victims: u32,
    /// The share of the scanned machines of ours, in percent, that stops it.
    pub breaker_percent: u32,
    /// How many sessions of one account are worked on at once.
    pub concurrency: usize,
    /// Removed only by the history runner.
    #[serde(skip)]
    pub safeguards: Safeguards,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            accounts: BTreeMap::new(),
            default_account: AccountPolicy::default(),
            lease: Duration::from_secs(15),
            lease_renew: Duration::from_secs(5),
            lease_margin: Duration::from_secs(2),
            flush: Duration::from_secs(5),
            tick: Duration::from_secs(1),
            retention: Duration::from_secs(30 * 24 * 3600),
            keep_events: Duration::from_secs(7 * 24 * 3600),
            placing_patience: Duration::from_secs(600),
            max_orders: 12,
            breaker_victims: 5,
            breaker_percent: 20,
            concurrency: 256,
            safeguards: Safeguards::default(),
        }
    }
}

impl Policy {
    /// What holds for this account.
    #[must_use]
    pub fn account(&self, name: &AccountName) -> &AccountPolicy {
        self.accounts.get(name).unwrap_or(&self.default_account)
    }

    /// Sets what holds for this account.
    #[must_use]
    pub fn with_account(mut self, name: AccountName, policy: AccountPolicy) -> Self {
        self.accounts.insert(name, policy);
        self
    }

    /// Refuses settings under which nothing would ever be done, or every lease be lost.
    pub(crate) fn check(&self) -> Result<()> {
        let refused = |field: &str, why: &str| Err(Error::validation(field, why));
        if self.concurrency == 0 {
            return refused(
                "concurrency",
                "must be at least 1, or no session is worked on",
            );
        }
        if self.max_orders == 0 {
            return refused(
                "max_orders",
                "must be at least 1, or nothing is ever ordered",
            );
        }
        if self.lease_renew.is_zero() {
            return refused("lease_renew_ms", "must be longer than zero");
        }
        if self.lease <= self.lease_renew.saturating_add(self.lease_margin) {
            return refused(
                "lease_ms",
                "must be longer than lease_renew_ms and lease_margin_ms together, or the lease is \
                 over before it is renewed",
            );
        }
        let accounts = self.accounts.values().chain([&self.default_account]);
        for account in accounts {
            if account.poll_interval.is_zero() || account.reap_interval.is_zero() {
                return refused(
                    "poll_interval_ms, reap_interval_ms",
                    "must be longer than zero",
                );
            }
            if account.limits.is_some_and(|limits| {
                limits.concurrency == 0 || limits.burst == 0 || limits.call_deadline.is_zero()
            }) {
                return refused(
                    "limits",
                    "concurrency and burst must be at least 1, call_deadline longer than zero, or \
                     no call is ever made",
                );
            }
        }
        Ok(())
    }

    /// How long a touch may stay in memory only, under this idle limit.
    #[must_use]
    pub fn flush_of(&self, idle_ttl: Duration) -> Duration {
        self.flush.min(idle_ttl / 10)
    }
}
