//! The answers of an owner, and the items that precede them. Their JSON is what `atlas --json`
//! prints.

use std::collections::BTreeMap;
use std::fmt;

use atlas_core::{AccountName, Auth, Credential, Secret};
use atlas_orchestrator::{
    ClockReport, Event, ReapReport, SessionId, SessionInfo, StopOutcome, Touch,
};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// What a session is and does, with its credential if that was asked for.
///
/// As JSON it is the information's own, with the id also as `session` and the credential as
/// `compute.auth`.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// The session. Its own `auth` is unset.
    pub info: SessionInfo,
    /// The credential of its machine, while it has one.
    pub auth: Option<CredentialView>,
}

impl SessionView {
    /// The view of a session; its credential's secret is included only with `secrets`.
    #[must_use]
    pub fn new(mut info: SessionInfo, secrets: bool) -> Self {
        let auth = info.auth.take().filter(|_| info.compute.is_some());
        Self {
            auth: auth.map(|credential| CredentialView::new(&credential, secrets)),
            info,
        }
    }
}

const ID: &str = "session";
const MACHINE: &str = "compute";
const CREDENTIAL: &str = "auth";

impl Serialize for SessionView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = serde_json::to_value(&self.info).map_err(S::Error::custom)?;
        document[ID] = serde_json::to_value(self.info.id).map_err(S::Error::custom)?;
        if self.info.compute.is_some() {
            document[MACHINE][CREDENTIAL] =
                serde_json::to_value(&self.auth).map_err(S::Error::custom)?;
        }
        document.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SessionView {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut document = Value::deserialize(deserializer)?;
        let credential = document
            .get_mut(MACHINE)
            .and_then(|machine| machine.get_mut(CREDENTIAL))
            .map(Value::take);
        let auth = credential.map(serde_json::from_value).transpose();
        Ok(Self {
            auth: auth.map_err(D::Error::custom)?.flatten(),
            info: serde_json::from_value(document).map_err(D::Error::custom)?,
        })
    }
}

/// The credential of a session's machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CredentialView {
    /// How a client presents it.
    pub scheme: Auth,
    /// The bearer token, or the secret that signs URLs, if it was asked for.
    pub token: Option<Exposed>,
    /// The value of the `Authorization` header, if the scheme has one and it was asked for.
    pub header: Option<Exposed>,
    /// The SHA-256 of the token in hexadecimal, which the server checks.
    pub hash: Option<String>,
}

impl CredentialView {
    fn new(credential: &Credential, secrets: bool) -> Self {
        let shown = |secret: &Secret| secrets.then(|| Exposed(secret.expose().to_owned()));
        Self {
            scheme: credential.scheme(),
            token: shown(credential.secret()),
            header: credential.header().as_ref().and_then(shown),
            hash: credential.hash().map(str::to_owned),
        }
    }
}

/// A secret in an answer to a client that asked for it. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Exposed(String);

impl Exposed {
    /// The secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exposed(..)")
    }
}

/// Progress of a launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The session that is being launched.
    pub session: SessionId,
    /// What happened, for people.
    pub progress: String,
}

/// The answer to a touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// The session that was touched.
    pub session: SessionId,
    /// Whether the touch counts.
    pub touch: Touch,
}

/// The answer to a stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The session that is ended.
    pub session: SessionId,
    /// How far its end has come.
    #[serde(flatten)]
    pub outcome: StopOutcome,
}

/// One event of a stream, and where to resume after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventItem {
    /// The value of [`Events::since`](crate::Events::since) that continues this stream after this
    /// event.
    pub cursor: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// The end of a stream of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsSent {
    /// How many events were sent.
    pub events: u64,
}

/// The reaper's reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReapReports {
    /// The report of each account that was scanned.
    pub accounts: BTreeMap<AccountName, ReapReport>,
}

/// What the orchestrator can do at the moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthReport {
    /// Why nothing is rented or deleted, if that is so.
    pub hold: Option<String>,
    /// How the clocks compare.
    pub clocks: Clocks,
    /// Whether the store outlives the process.
    pub durable: bool,
    /// How many sessions this process looks after.
    pub sessions: usize,
    /// Whether each account can be read.
    pub accounts: BTreeMap<AccountName, AccountHealth>,
}

/// A comparison of clocks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Clocks {
    /// The differences.
    pub report: ClockReport,
    /// The clouds whose clock differs so much that no decision relies on it, in words.
    pub differing: Vec<String>,
}

/// Whether an account can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccountHealth {
    /// Whether the cloud listed its machines.
    pub answers: bool,
    /// How many machines it listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machines: Option<usize>,
    /// Whether the list was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
    /// Why it did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl AccountHealth {
    /// An account that listed this many machines.
    #[must_use]
    pub fn answering(machines: usize, complete: bool) -> Self {
        Self {
            answers: true,
            machines: Some(machines),
            complete: Some(complete),
            error: None,
        }
    }

    /// An account that could not be listed.
    #[must_use]
    pub fn silent(error: String) -> Self {
        Self {
            error: Some(error),
            ..Self::default()
        }
    }
}
