//! Serverless jobs: what to run, and how far it is.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{JobId, ProviderId};
use crate::secret::Secret;

/// How the answer to a submit is awaited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobMode {
    /// The submit answers at once.
    #[default]
    Async,
    /// The cloud holds the answer until the job ends or its own wait is over.
    Sync,
    /// Chunks are read as they come.
    Stream,
}

/// A serverless job to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobRequest {
    /// The endpoint to run on.
    pub endpoint: String,
    /// What the worker gets.
    pub input: Value,
    /// How the answer is awaited.
    #[serde(default)]
    pub mode: JobMode,
    /// The longest a `Sync` submit waits, on the client's side too.
    #[serde(default, rename = "timeout_ms", with = "crate::duration_ms::option")]
    pub timeout: Option<Duration>,
    /// The longest the job may run.
    #[serde(
        default,
        rename = "execution_timeout_ms",
        with = "crate::duration_ms::option"
    )]
    pub execution_timeout: Option<Duration>,
    /// The longest the job may exist, queueing included.
    #[serde(default, rename = "ttl_ms", with = "crate::duration_ms::option")]
    pub ttl: Option<Duration>,
    /// Does not make the endpoint grow.
    #[serde(default)]
    pub low_priority: bool,
    /// Where the cloud is to report the end. May hold a secret.
    #[serde(default)]
    pub webhook: Option<Secret>,
    /// Merged deeply into the body that goes to the cloud.
    #[serde(default)]
    pub provider_opts: Value,
}

impl JobRequest {
    /// A job for this endpoint with this input.
    pub fn new(endpoint: impl Into<String>, input: Value) -> Self {
        Self {
            endpoint: endpoint.into(),
            input,
            mode: JobMode::Async,
            timeout: None,
            execution_timeout: None,
            ttl: None,
            low_priority: false,
            webhook: None,
            provider_opts: Value::Null,
        }
    }

    /// How the answer is awaited.
    #[must_use]
    pub fn mode(self, mode: JobMode) -> Self {
        Self { mode, ..self }
    }

    /// The longest a `Sync` submit waits.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..self
        }
    }

    /// The longest the job may run.
    #[must_use]
    pub fn execution_timeout(self, timeout: Duration) -> Self {
        Self {
            execution_timeout: Some(timeout),
            ..self
        }
    }

    /// The longest the job may exist.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self {
            ttl: Some(ttl),
            ..self
        }
    }

    /// Where the cloud is to report the end.
    #[must_use]
    pub fn webhook(self, url: Secret) -> Self {
        Self {
            webhook: Some(url),
            ..self
        }
    }
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobStatus {
    /// Waiting for a worker.
    InQueue,
    /// Running.
    InProgress,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Ended by us.
    Cancelled,
    /// Ended by its limit.
    TimedOut,
    /// A word of the cloud's that we do not know. Not an end.
    Other(String),
}

impl JobStatus {
    /// True when nothing more will come.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Cancelled | Self::TimedOut
        )
    }

    /// The word: `in_queue`, ... or the cloud's own.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::InQueue => "in_queue",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Other(word) => word,
        }
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for JobStatus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A job, as the cloud last described it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Job {
    /// What the cloud calls it.
    pub id: JobId,
    /// Whose it is.
    pub provider: ProviderId,
    /// The endpoint it runs on.
    pub endpoint: String,
    /// How far it is.
    pub status: JobStatus,
    /// Its result once it completed; a progress report while it runs.
    pub output: Option<Value>,
    /// Why it failed.
    pub error: Option<String>,
    /// How long it waited for a worker.
    #[serde(rename = "delay_ms", with = "crate::duration_ms::option")]
    pub delay: Option<Duration>,
    /// How long it ran.
    #[serde(rename = "execution_ms", with = "crate::duration_ms::option")]
    pub execution: Option<Duration>,
    /// The cloud's own description.
    pub raw: Value,
}

impl Job {
    /// A job of which only this is known.
    pub fn new(
        id: JobId,
        provider: ProviderId,
        endpoint: impl Into<String>,
        status: JobStatus,
    ) -> Self {
        Self {
            id,
            provider,
            endpoint: endpoint.into(),
            status,
            output: None,
            error: None,
            delay: None,
            execution: None,
            raw: Value::Null,
        }
    }
}

/// A job's address: its endpoint and its id there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobRef {
    /// The endpoint.
    pub endpoint: String,
    /// The id.
    pub id: JobId,
}
