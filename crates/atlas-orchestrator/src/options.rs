//! What a caller may say about a session, and how sessions are selected.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{AccountName, Error, Result, Usd};
use serde::{Deserialize, Serialize};

use crate::activity::Probe;
use crate::duration_ms;
use crate::session::SessionState;

/// The idle limit of an interactive session that names none.
pub const DEFAULT_IDLE_TTL: Duration = Duration::from_secs(30 * 60);

/// What happens when a session's machine is proved to be dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The session ends.
    #[default]
    End,
    /// Another machine is rented, at most this often in the session's life; the URL's token stays
    /// the same.
    Respawn(u32),
}

/// Limits and labels of a session.
///
/// ```
/// use atlas_orchestrator::SessionOptions;
/// use std::time::Duration;
/// let options = SessionOptions::new().user("u42").label("team", "vision").idle_ttl(Duration::from_secs(900));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Whose session it is, in the application's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Free labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The account to rent from; the default one where unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountName>,
    /// Ends the session when nothing was active for so long.
    #[serde(
        rename = "idle_ttl_ms",
        with = "duration_ms::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub idle_ttl: Option<Duration>,
    /// Never ends it for idleness. `max_runtime` is demanded then.
    pub no_idle_ttl: bool,
    /// Ends it so long after its creation, whatever happens.
    #[serde(
        rename = "max_runtime_ms",
        with = "duration_ms::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub max_runtime: Option<Duration>,
    /// Ends it before it has cost more.
    #[serde(rename = "max_cost_usd", skip_serializing_if = "Option::is_none")]
    pub max_cost: Option<Usd>,
    /// Ends a machine that does not become usable within this.
    #[serde(
        rename = "ready_timeout_ms",
        with = "duration_ms::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub ready_timeout: Option<Duration>,
    /// What must answer before its machine counts as usable, besides what its cloud says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// The machine of a task is not told to end itself once its command ended. For images without a
    /// shell, or with an entrypoint.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_finished: bool,
    /// What happens when its machine dies.
    pub on_failure: OnFailure,
    /// Orders again while the outcome of an order is unknown. Faster, and may cost a second machine
    /// for a while.
    pub hedge: bool,
}

impl SessionOptions {
    /// Nothing set: half an hour of idleness ends it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whose session it is.
    #[must_use]
    pub fn user(self, user_id: impl Into<String>) -> Self {
        Self {
            user_id: Some(user_id.into()),
            ..self
        }
    }

    /// Adds a free label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Rents from this account instead of the default one.
    #[must_use]
    pub fn account(self, account: AccountName) -> Self {
        Self {
            account: Some(account),
            ..self
        }
    }

    /// Ends the session when nothing was active for so long.
    #[must_use]
    pub fn idle_ttl(self, ttl: Duration) -> Self {
        Self {
            idle_ttl: Some(ttl),
            no_idle_ttl: false,
            ..self
        }
    }

    /// Never ends it for idleness; `max_runtime` must be set.
    #[must_use]
    pub fn no_idle_ttl(self) -> Self {
        Self {
            idle_ttl: None,
            no_idle_ttl: true,
            ..self
        }
    }

    /// Ends it so long after its creation.
    #[must_use]
    pub fn max_runtime(self, limit: Duration) -> Self {
        Self {
            max_runtime: Some(limit),
            ..self
        }
    }

    /// Ends it before it has cost more.
    #[must_use]
    pub fn max_cost(self, limit: Usd) -> Self {
        Self {
            max_cost: Some(limit),
            ..self
        }
    }

    /// Ends a machine that does not become usable within this.
    #[must_use]
    pub fn ready_timeout(self, limit: Duration) -> Self {
        Self {
            ready_timeout: Some(limit),
            ..self
        }
    }

    /// Its machine counts as usable once this answers.
    #[must_use]
    pub fn probe(self, probe: Probe) -> Self {
        Self {
            probe: Some(probe),
            ..self
        }
    }

    /// Does not wrap a task's command so that its machine ends itself. `max_runtime` still ends it.
    #[must_use]
    pub fn keep_finished(self) -> Self {
        Self {
            keep_finished: true,
            ..self
        }
    }

    /// What happens when its machine dies.
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

    /// What is wrong with it by itself.
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

/// Which sessions to list. Empty means all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionFilter {
    /// Only of this user.
    pub user_id: Option<String>,
    /// Only with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only on this account.
    pub account: Option<AccountName>,
    /// Only in this state.
    pub state: Option<SessionState>,
    /// Also those that ended.
    pub ended: bool,
}

impl SessionFilter {
    /// Every session that has not ended.
    #[must_use]
    pub fn live() -> Self {
        Self::default()
    }

    /// Every session on record.
    #[must_use]
    pub fn all() -> Self {
        Self {
            ended: true,
            ..Self::default()
        }
    }

    /// Only of this user.
    #[must_use]
    pub fn user(self, user_id: impl Into<String>) -> Self {
        Self {
            user_id: Some(user_id.into()),
            ..self
        }
    }

    /// Only with this label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Only on this account.
    #[must_use]
    pub fn account(self, account: AccountName) -> Self {
        Self {
            account: Some(account),
            ..self
        }
    }

    /// Only in this state.
    #[must_use]
    pub fn state(self, state: SessionState) -> Self {
        Self {
            state: Some(state),
            ended: true,
            ..self
        }
    }
}
