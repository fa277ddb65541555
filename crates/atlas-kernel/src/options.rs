//! Options of a session, and filters for listing sessions.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{AccountName, Error, Result, Usd};
use serde::{Deserialize, Serialize};

use crate::probe::Probe;
use crate::session::{SessionKind, SessionState};
use atlas_core::duration_ms;

/// The default idle limit of an interactive session.
pub const DEFAULT_IDLE_TTL: Duration = Duration::from_secs(30 * 60);
/// The default maximum run time of a task.
pub const DEFAULT_TASK_RUNTIME: Duration = Duration::from_secs(24 * 3600);

/// What to do when a session's machine is proved dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// End the session.
    #[default]
    End,
    /// Rent a replacement, at most this many times in the session's life. The token of the URL
    /// stays the same.
    Respawn(u32),
}

/// Limits and labels of a session.
///
/// ```
/// use atlas_kernel::options::SessionOptions;
/// use std::time::Duration;
/// let options = SessionOptions::new().user("u42").label("team", "vision").idle_ttl(Duration::from_secs(900));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SessionOptions {
    /// The user of the session, in the application's own terms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The session key: at most one session that is not ending has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Labels chosen by the application.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The account to rent from; the default account if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountName>,
    /// Ends the session after this much time without activity.
    #[serde(
        rename = "idle_ttl_ms",
        with = "duration_ms::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub idle_ttl: Option<Duration>,
    /// Disables the idle limit. `max_runtime` is then required.
    pub no_idle_ttl: bool,
    /// Ends the session this long after its creation, whatever happens.
    #[serde(
        rename = "max_runtime_ms",
        with = "duration_ms::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub max_runtime: Option<Duration>,
    /// Ends the session before it has cost more than this.
    #[serde(rename = "max_cost_usd", skip_serializing_if = "Option::is_none")]
    pub max_cost: Option<Usd>,
    /// Ends a machine that does not become usable within this time.
    #[serde(
        rename = "ready_timeout_ms",
        with = "duration_ms::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub ready_timeout: Option<Duration>,
    /// A check that must succeed before the machine counts as usable, in addition to its cloud's
    /// status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// The machine of a task does not delete itself when its command has ended. For images without
    /// a shell, or with an entrypoint.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_finished: bool,
    /// What to do when the machine dies.
    pub on_failure: OnFailure,
    /// Orders again while the outcome of an order is unknown. Faster, but may cost a second machine
    /// for a while.
    pub hedge: bool,
}

impl SessionOptions {
    /// The default options: the session ends after half an hour without activity.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the user of the session.
    #[must_use]
    pub fn user(self, user_id: impl Into<String>) -> Self {
        Self {
            user_id: Some(user_id.into()),
            ..self
        }
    }

    /// Sets the session key, such as `studio:u42`. At most one session that is not ending has a
    /// key, on any number of nodes: `get_or_spawn` returns that session instead of renting a second
    /// machine. The key is free again as soon as the end of its session is committed; with
    /// [`AccountPolicy::one_at_a_time`](crate::policy::AccountPolicy), once the machines of that
    /// session are proved absent.
    #[must_use]
    pub fn key(self, key: impl Into<String>) -> Self {
        Self {
            key: Some(key.into()),
            ..self
        }
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Sets the account to rent from, instead of the default one.
    #[must_use]
    pub fn account(self, account: AccountName) -> Self {
        Self {
            account: Some(account),
            ..self
        }
    }

    /// Ends the session after this much time without activity.
    #[must_use]
    pub fn idle_ttl(self, ttl: Duration) -> Self {
        Self {
            idle_ttl: Some(ttl),
            no_idle_ttl: false,
            ..self
        }
    }

    /// Disables the idle limit; `max_runtime` must be set.
    #[must_use]
    pub fn no_idle_ttl(self) -> Self {
        Self {
            idle_ttl: None,
            no_idle_ttl: true,
            ..self
        }
    }

    /// Ends the session this long after its creation.
    #[must_use]
    pub fn max_runtime(self, limit: Duration) -> Self {
        Self {
            max_runtime: Some(limit),
            ..self
        }
    }

    /// Ends the session before it has cost more than this.
    #[must_use]
    pub fn max_cost(self, limit: Usd) -> Self {
        Self {
            max_cost: Some(limit),
            ..self
        }
    }

    /// Ends a machine that does not become usable within this time.
    #[must_use]
    pub fn ready_timeout(self, limit: Duration) -> Self {
        Self {
            ready_timeout: Some(limit),
            ..self
        }
    }

    /// Sets the check that must succeed before the machine counts as usable.
    #[must_use]
    pub fn probe(self, probe: Probe) -> Self {
        Self {
            probe: Some(probe),
            ..self
        }
    }

    /// Prevents the machine of a task from deleting itself after its command. `max_runtime` still
    /// ends it.
    #[must_use]
    pub fn keep_finished(self) -> Self {
        Self {
            keep_finished: true,
            ..self
        }
    }

    /// Sets what to do when the machine dies.
    #[must_use]
    pub fn on_failure(self, policy: OnFailure) -> Self {
        Self {
            on_failure: policy,
            ..self
        }
    }

    /// Orders again while the outcome of an order is unknown.
    #[must_use]
    pub fn hedge(self) -> Self {
        Self {
            hedge: true,
            ..self
        }
    }

    /// Sets the limit that a session of this kind must have, unless the caller chose one: the idle
    /// limit of an interactive session, the maximum run time of a task.
    #[must_use]
    pub fn with_default_limits(mut self, kind: SessionKind) -> Self {
        match kind {
            SessionKind::Interactive => {
                if self.idle_ttl.is_none() && !self.no_idle_ttl {
                    self.idle_ttl = Some(DEFAULT_IDLE_TTL);
                }
            }
            SessionKind::Task => {
                self.max_runtime = self.max_runtime.or(Some(DEFAULT_TASK_RUNTIME));
            }
        }
        self
    }

    /// Checks the options for contradictions, without looking at anything else.
    ///
    /// # Errors
    /// `validation`, naming the field.
    pub fn validate(&self) -> Result<()> {
        let wrong = |field: &str, message: &str| Err(Error::validation(field, message));
        let too_short =
            |limit: Option<Duration>| limit.is_some_and(|limit| limit < Duration::from_millis(100));
        if too_short(self.idle_ttl) {
            return wrong("idle_ttl", "must be at least 100 ms");
        }
        if too_short(self.max_runtime) {
            return wrong("max_runtime", "must be at least 100 ms");
        }
        if too_short(self.ready_timeout) {
            return wrong("ready_timeout", "must be at least 100 ms");
        }
        if self.max_cost.is_some_and(|cost| cost <= Usd::ZERO) {
            return wrong("max_cost", "must be more than nothing");
        }
        if self.no_idle_ttl && self.max_runtime.is_none() {
            return wrong("max_runtime", "a session without an idle limit needs one");
        }
        if let Some(probe) = &self.probe {
            probe.validate()?;
        }
        let long = |text: &String| text.len() > 1024 || text.chars().any(char::is_control);
        if self
            .user_id
            .as_ref()
            .is_some_and(|user| user.is_empty() || long(user))
        {
            return wrong("user_id", "must be 1 to 1024 printable characters");
        }
        if let Some(key) = &self.key {
            validate_key(key)?;
        }
        if self.labels.len() > 64
            || self
                .labels
                .iter()
                .any(|(name, value)| name.is_empty() || long(name) || long(value))
        {
            return wrong(
                "labels",
                "must be at most 64, each of at most 1024 printable characters",
            );
        }
        Ok(())
    }
}

/// Checks a session key.
///
/// # Errors
/// `validation` if it is empty, longer than 512 bytes, or contains control characters.
pub fn validate_key(key: &str) -> Result<()> {
    if key.is_empty() || key.len() > 512 || key.chars().any(char::is_control) {
        return Err(Error::validation(
            "key",
            "must be 1 to 512 bytes without control characters",
        ));
    }
    Ok(())
}

/// Selects sessions to list. The default filter selects all that have not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionFilter {
    /// Only sessions of this user.
    pub user_id: Option<String>,
    /// Only sessions with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only sessions on this account.
    pub account: Option<AccountName>,
    /// Only sessions in this state.
    pub state: Option<SessionState>,
    /// Includes sessions that have ended.
    pub ended: bool,
}

impl SessionFilter {
    /// Selects every session that has not ended.
    #[must_use]
    pub fn live() -> Self {
        Self::default()
    }

    /// Selects every recorded session.
    #[must_use]
    pub fn all() -> Self {
        Self {
            ended: true,
            ..Self::default()
        }
    }

    /// Selects sessions of this user.
    #[must_use]
    pub fn user(self, user_id: impl Into<String>) -> Self {
        Self {
            user_id: Some(user_id.into()),
            ..self
        }
    }

    /// Selects sessions with this label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Selects sessions on this account.
    #[must_use]
    pub fn account(self, account: AccountName) -> Self {
        Self {
            account: Some(account),
            ..self
        }
    }

    /// Selects sessions in this state.
    #[must_use]
    pub fn state(self, state: SessionState) -> Self {
        Self {
            state: Some(state),
            ended: true,
            ..self
        }
    }
}
