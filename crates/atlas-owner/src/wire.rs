//! The lines of the owner protocol.

use std::time::Duration;

use atlas_core::{ComputeId, Error, ErrorKind, Next, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Maximum length of a request in bytes.
pub(super) const MAX_REQUEST: u64 = 1 << 20;
/// Maximum length of an answer or item in bytes.
pub(super) const MAX_ANSWER: u64 = 64 << 20;

/// The ping request, which the owner answers at once, whatever else it is doing.
pub(super) fn ping() -> Value {
    serde_json::json!({ "do": "ping" })
}

/// Whether a request is a ping.
pub(super) fn is_ping(request: &Value) -> bool {
    *request == ping()
}

/// One line from the owner.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Item(Value),
    Done(Value),
    Error(Fault),
}

/// An error as sent to another process. Its sources are not sent; they are in the owner's log.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Fault {
    kind: String,
    message: String,
    field: Option<String>,
    status: Option<u16>,
    request_id: Option<String>,
    retry_after_ms: Option<u64>,
    outcome: FaultOutcome,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FaultOutcome {
    NeverSent,
    NextCandidate,
    SameLater,
    Stop,
    Unknown(Vec<ComputeId>),
    Unwanted(Vec<ComputeId>),
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        let provider = error
            .provider()
            .map(|p| format!("{p}: "))
            .unwrap_or_default();
        Self {
            kind: error.kind().as_str().to_owned(),
            message: format!("{provider}{}", error.message()),
            field: error.field().map(str::to_owned),
            status: error.status(),
            request_id: error.request_id().map(str::to_owned),
            retry_after_ms: error
                .retry_after()
                .map(|w| u64::try_from(w.as_millis()).unwrap_or(u64::MAX)),
            outcome: match error.outcome() {
                Outcome::NeverSent => FaultOutcome::NeverSent,
                Outcome::NotApplied(Next::NextCandidate) => FaultOutcome::NextCandidate,
                Outcome::NotApplied(Next::SameLater) => FaultOutcome::SameLater,
                Outcome::NotApplied(Next::Stop) => FaultOutcome::Stop,
                Outcome::Unknown(ids) => FaultOutcome::Unknown(ids.clone()),
                Outcome::Unwanted(ids) => FaultOutcome::Unwanted(ids.clone()),
            },
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let kind = fault.kind.parse().unwrap_or(ErrorKind::Unknown);
        let mut error = match fault.field {
            Some(field) if kind == ErrorKind::Unsupported => {
                Self::unsupported(field, fault.message)
            }
            Some(field) if kind == ErrorKind::Validation => Self::validation(field, fault.message),
            Some(field) => Self::new(kind, format!("{field}: {}", fault.message)),
            None => Self::new(kind, fault.message),
        };
        if let Some(status) = fault.status {
            error = error.with_status(status);
        }
        if let Some(id) = fault.request_id {
            error = error.with_request_id(id);
        }
        if let Some(ms) = fault.retry_after_ms {
            error = error.with_retry_after(Duration::from_millis(ms));
        }
        error.outcome_is(match fault.outcome {
            FaultOutcome::NeverSent => Outcome::NeverSent,
            FaultOutcome::NextCandidate => Outcome::NotApplied(Next::NextCandidate),
            FaultOutcome::SameLater => Outcome::NotApplied(Next::SameLater),
            FaultOutcome::Stop => Outcome::NotApplied(Next::Stop),
            FaultOutcome::Unknown(ids) => Outcome::Unknown(ids),
            FaultOutcome::Unwanted(ids) => Outcome::Unwanted(ids),
        })
    }
}

/// The result of reading a line.
#[derive(Debug)]
pub(super) enum Read<T> {
    Line(T),
    End,
    TooLong,
    NotJson,
}

/// Reads one line of at most this many bytes.
pub(super) async fn read<T: for<'de> Deserialize<'de>>(
    from: &mut (impl AsyncBufRead + Unpin),
    limit: u64,
) -> std::io::Result<Read<T>> {
    let mut line = Vec::new();
    (&mut *from)
        .take(limit)
        .read_until(b'\n', &mut line)
        .await?;
    if line.is_empty() {
        return Ok(Read::End);
    }
    if line.last() != Some(&b'\n') {
        return Ok(if line.len() as u64 == limit {
            Read::TooLong
        } else {
            Read::End
        });
    }
    Ok(serde_json::from_slice(&line).map_or(Read::NotJson, Read::Line))
}

/// Writes one line.
pub(super) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    what: &impl Serialize,
) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await
}
