//! Default settings of the orchestrator: bounds, intervals and safeguards.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{AccountLimits, AccountName, Error, Result};
use serde::{Deserialize, Serialize};

use atlas_core::duration_ms;

/// Settings of one account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct AccountPolicy {
    /// Bounds and rate limits; the provider's own if unset.
    pub limits: Option<AccountLimits>,
    /// How long the reaper must have seen a machine before it may delete it.
    #[serde(rename = "grace_ms", with = "duration_ms")]
    pub grace: Duration,
    /// The time between two reaper scans.
    #[serde(rename = "reap_interval_ms", with = "duration_ms")]
    pub reap_interval: Duration,
    /// The time between two polls of a live session's machine.
    #[serde(rename = "poll_interval_ms", with = "duration_ms")]
    pub poll_interval: Duration,
    /// Whether the reaper scans this account (`reap_providers` in ex_atlas).
    pub reap: bool,
    /// The reaper only reports what it would delete.
    pub report_only: bool,
    /// A respawn waits until the old machine is proved absent.
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

/// Safeguards that the history runner disables one by one to show that each is needed. They can be
/// disabled only with the feature `sabotage`, which no other crate enables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Safeguards {
    /// Resolves an unknown outcome before ordering again (`blind-retry`).
    pub resolve_unknown: bool,
    /// An incomplete walk proves nothing (`trust-partial-list`).
    pub complete_walks: bool,
    /// Only a point read proves the absence of a machine (`absence-by-list`).
    pub point_read: bool,
    /// The reaper deletes a machine only after two scans (`single-sighting`).
    pub two_sightings: bool,
    /// The reaper deletes a machine only after a grace period (`no-grace`).
    pub grace: bool,
    /// Guarded writes test the fence and the version (`no-fence`).
    pub fence: bool,
    /// A launch key must carry the realm's MAC (`no-mac`).
    pub mac: bool,
    /// All carriers of a launch key must agree (`one-carrier`).
    pub all_carriers: bool,
    /// Every machine found with a key is handled (`adopt-first-only`).
    pub every_duplicate: bool,
    /// A deletion is confirmed before it counts as done (`no-confirm`).
    pub confirm: bool,
    /// The account's identity is checked before absence is believed (`no-account`).
    pub account_identity: bool,
    /// A store that was rolled back is detected (`no-incarnation`).
    pub incarnation: bool,
    /// A deletion is repeated until it is done (`give-up-terminate`).
    pub retry_kill: bool,
    /// The reaper leaves unresolved attempts to the resolver (`reap-unknown`).
    pub spare_unresolved: bool,
    /// Too many victims in one scan stop the reaper (`no-breaker`).
    pub breaker: bool,
    /// Touches are flushed and compared before an idle end (`touch-lost`).
    pub flush_touches: bool,
    /// An idle end waits for the idle limit plus the flush interval, and a touch near that time is
    /// acknowledged only when it is durable (`idle-early`).
    pub idle_margin: bool,
    /// An idle end follows its warning by the full lead, however late the warning was
    /// (`idle-unannounced`).
    pub announced_ends: bool,
    /// Nothing is decided by a time on which the clocks disagree, and a return counts as a touch.
    /// No history has shown its absence yet.
    pub time_trust: bool,
    /// The end for cost is ordered before the cap is reached (`cost-overrun`).
    pub cost_margin: bool,
    /// A respawn commits the old machine's end with the new one's start (`respawn-leak`).
    pub respawn_kills_old: bool,
}

impl Safeguards {
    /// Every safeguard is on: the only value in production.
    pub const ALL: Self = Self {
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
    };
}

/// Settings of the whole orchestrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Policy {
    /// Settings by account; accounts that are not named use `default_account`.
    pub accounts: BTreeMap<AccountName, AccountPolicy>,
    /// Settings of the accounts that are not named.
    pub default_account: AccountPolicy,
    /// How long a node's lease lasts.
    #[serde(rename = "lease_ms", with = "duration_ms")]
    pub lease: Duration,
    /// How often the lease is renewed.
    #[serde(rename = "lease_renew_ms", with = "duration_ms")]
    pub lease_renew: Duration,
    /// The margin before the end of the lease in which no side effect is started.
    #[serde(rename = "lease_margin_ms", with = "duration_ms")]
    pub lease_margin: Duration,
    /// The longest time a touch stays only in memory; a tenth of the idle limit if that is less.
    #[serde(rename = "flush_ms", with = "duration_ms")]
    pub flush: Duration,
    /// How late a deadline may be noticed.
    #[serde(rename = "tick_ms", with = "duration_ms")]
    pub tick: Duration,
    /// How long ended attempts stay recorded. At least 30 days outside simulations.
    #[serde(rename = "retention_ms", with = "duration_ms")]
    pub retention: Duration,
    /// How long events are kept after the end of their session.
    #[serde(rename = "keep_events_ms", with = "duration_ms")]
    pub keep_events: Duration,
    /// How long other candidates or later repeats of an order are tried before the spawn fails.
    #[serde(rename = "placing_patience_ms", with = "duration_ms")]
    pub placing_patience: Duration,
    /// The maximum number of orders of one placement.
    pub max_orders: u32,
    /// The minimum number of victims in one scan that stops the reaper.
    pub breaker_victims: u32,
    /// The share of our scanned machines, in percent, above which the reaper stops.
    pub breaker_percent: u32,
    /// The maximum number of sessions of one account that are worked on concurrently.
    pub concurrency: usize,
    /// The safeguards that the history runner has disabled.
    #[cfg(feature = "sabotage")]
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
            #[cfg(feature = "sabotage")]
            safeguards: Safeguards::ALL,
        }
    }
}

impl Policy {
    /// The safeguards, of which every one is on unless the history runner disabled it.
    #[must_use]
    pub const fn safeguards(&self) -> Safeguards {
        #[cfg(feature = "sabotage")]
        return self.safeguards;
        #[cfg(not(feature = "sabotage"))]
        Safeguards::ALL
    }

    /// The settings of this account.
    #[must_use]
    pub fn account(&self, name: &AccountName) -> &AccountPolicy {
        self.accounts.get(name).unwrap_or(&self.default_account)
    }

    /// Sets the settings of this account.
    #[must_use]
    pub fn with_account(mut self, name: AccountName, policy: AccountPolicy) -> Self {
        self.accounts.insert(name, policy);
        self
    }

    /// Refuses settings that would prevent all work, or lose every lease.
    pub fn check(&self) -> Result<()> {
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

    /// The longest time a touch may stay only in memory with this idle limit.
    #[must_use]
    pub fn flush_of(&self, idle_ttl: Duration) -> Duration {
        self.flush.min(idle_ttl / 10)
    }
}
