//! Serverless jobs: requests and their state.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{JobId, ProviderId};
use crate::secret::Secret;

/// How the caller waits for the result of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobMode {
    /// The submit call returns at once.
    #[default]
    Async,
    /// The cloud holds the answer until the job ends or its own wait limit is reached.
    Sync,
    /// Output is read in chunks as it is produced.
    Stream,
}

/// A serverless job to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobRequest {
    /// The endpoint that runs the job.
    pub endpoint: String,
    /// The input of the worker.
    pub input: Value,
    /// How the caller waits for the result.
    #[serde(default)]
    pub mode: JobMode,
    /// The maximum wait of a `Sync` submit, also on the client's side.
    #[serde(default, rename = "timeout_ms", with = "crate::duration_ms::option")]
    pub timeout: Option<Duration>,
    /// The maximum run time of the job.
    #[serde(
        default,
        rename = "execution_timeout_ms",
        with = "crate::duration_ms::option"
    )]
    pub execution_timeout: Option<Duration>,
    /// The maximum life of the job, including its time in the queue.
    #[serde(default, rename = "ttl_ms", with = "crate::duration_ms::option")]
    pub ttl: Option<Duration>,
    /// The job does not cause the endpoint to scale up.
    #[serde(default)]
    pub low_priority: bool,
    /// The URL to which the cloud reports the end of the job. It may contain a secret.
    #[serde(default)]
    pub webhook: Option<Secret>,
    /// JSON that is merged deeply into the request body.
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

    /// Sets how the caller waits for the result.
    #[must_use]
    pub fn mode(self, mode: JobMode) -> Self {
        Self { mode, ..self }
    }

    /// Sets the maximum wait of a `Sync` submit.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..self
        }
    }

    /// Sets the maximum run time.
    #[must_use]
    pub fn execution_timeout(self, timeout: Duration) -> Self {
        Self {
            execution_timeout: Some(timeout),
            ..self
        }
    }

    /// Sets the maximum life of the job, including its time in the queue.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self {
            ttl: Some(ttl),
            ..self
        }
    }

    /// Sets the URL to which the cloud reports the end of the job.
    #[must_use]
    pub fn webhook(self, url: Secret) -> Self {
        Self {
            webhook: Some(url),
            ..self
        }
    }
}

/// The state of a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobStatus {
    /// Waiting for a worker.
    InQueue,
    /// A worker is running it.
    InProgress,
    /// Ended successfully.
    Completed,
    /// Ended with a failure.
    Failed,
    /// Cancelled by the caller.
    Cancelled,
    /// Ended because a time limit was reached.
    TimedOut,
    /// A status of the cloud that atlas does not know. Not a terminal state.
    Other(String),
}

impl JobStatus {
    /// True if the state will not change any more.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Cancelled | Self::TimedOut
        )
    }

    /// The status as text: `in_queue` and so on, or the cloud's own word.
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
    /// The cloud's id of the job.
    pub id: JobId,
    /// The provider that runs it.
    pub provider: ProviderId,
    /// The endpoint that runs it.
    pub endpoint: String,
    /// The state of the job.
    pub status: JobStatus,
    /// The result of a completed job, or a progress report while it runs.
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
    /// A job of which only these fields are known.
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

/// Identifies a job by its endpoint and the id it has there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobRef {
    /// The endpoint.
    pub endpoint: String,
    /// The id.
    pub id: JobId,
}
