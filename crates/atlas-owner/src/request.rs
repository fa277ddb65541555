//! The requests that an owner answers.

use std::collections::BTreeMap;
use std::fmt;

use atlas_core::{AccountName, ComputeRequest, Error};
use atlas_orchestrator::{AcceptReport, SessionId, SessionOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::answers::{
    EventItem, EventsSent, HealthReport, Progress, ReapReports, SessionView, Stopped, Touched,
};
use crate::call::{Answer, Call, Items, NoItem, to_json};
use crate::server::RawItems;

/// Declares every request once: the enum that travels, the types of what comes back, and what an
/// owner must implement.
macro_rules! requests {
    ($($call:ident: $item:ty => $answer:ty;)*) => {
        /// Any request to the owner, as it travels.
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(tag = "do", rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Request {
            $(
                #[doc = concat!("See [`", stringify!($call), "`].")]
                $call($call),
            )*
        }

        $(
            impl Call for $call {
                type Item = $item;
                type Answer = $answer;
            }

            impl From<$call> for Request {
                fn from(call: $call) -> Self {
                    Self::$call(call)
                }
            }
        )*

        /// An owner: it answers every request.
        pub trait Answers: $(Answer<$call> +)* Clone + Send + Sync + 'static {}

        impl<O> Answers for O where O: $(Answer<$call> +)* Clone + Send + Sync + 'static {}

        impl Request {
            pub(crate) async fn answered_by(
                self,
                owner: &impl Answers,
                items: RawItems,
            ) -> Result<Value, Error> {
                match self {
                    $(Self::$call(call) => {
                        let items = Items::lines(items);
                        let answer: $answer = owner.answer(call, items).await?;
                        to_json(&answer)
                    })*
                }
            }
        }
    };
}

requests! {
    Spawn: Progress => SessionView;
    SpawnAs: Progress => SessionView;
    Info: NoItem => SessionView;
    List: NoItem => Vec<SessionView>;
    Touch: NoItem => Touched;
    Stop: NoItem => Stopped;
    Await: NoItem => SessionView;
    Events: EventItem => EventsSent;
    Reap: NoItem => ReapReports;
    Audit: NoItem => atlas_orchestrator::Audit;
    Health: NoItem => HealthReport;
    Accept: NoItem => AcceptReport;
    AcceptAccount: NoItem => AccountName;
}

impl Request {
    /// Whether an owner that shuts down answers the request first, because it finishes soon by
    /// itself. Requests that wait or follow must be repeated to the next owner.
    pub(crate) fn is_short(&self) -> bool {
        !matches!(
            self,
            Self::Await(_) | Self::Events(Events { follow: true, .. })
        )
    }
}

/// Starts a session with a machine. Answered when it is known whether there is a machine; progress
/// is sent as items.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spawn {
    /// The encoding of `ComputeRequest::expose`. It may contain secrets; only the user can open the
    /// socket.
    pub request: Sealed,
    /// The session's options and limits.
    pub options: SessionOptions,
    /// Whether the session runs one command to its end.
    pub task: bool,
}

/// Like [`Spawn`], with an id chosen by the client. The client may repeat the request, also to
/// another owner, and there is never more than one session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpawnAs {
    /// The id.
    pub session: SessionId,
    /// As in [`Spawn`].
    pub request: Sealed,
    /// The session's options and limits.
    pub options: SessionOptions,
    /// Whether the session runs one command to its end.
    pub task: bool,
}

/// Returns information about a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Info {
    /// The session's id.
    pub session: SessionId,
    /// Whether the answer includes its credential.
    #[serde(default)]
    pub secrets: bool,
}

/// Lists recorded sessions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct List(pub Filter);

/// Records activity: resets the idle timer of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Touch {
    /// The session's id.
    pub session: SessionId,
}

/// Ends a session; answered when the end is recorded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stop {
    /// The session's id.
    pub session: SessionId,
}

/// Waits for a state with a time limit, then returns information about the session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Await {
    /// The session's id.
    pub session: SessionId,
    /// The state to wait for.
    pub until: Until,
    /// The maximum wait in milliseconds.
    pub longest_ms: u64,
}

/// Streams events, one per item. The `cursor` of each item is the position to resume from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Events {
    /// The session whose events are wanted; those of all sessions if unset.
    pub session: Option<SessionId>,
    /// Only events after this: the `cursor` of an item of the same stream, or 0 for all. The
    /// cursors of one session's events and those of all sessions count differently.
    #[serde(default)]
    pub since: u64,
    /// Continues with new events until the client disconnects.
    #[serde(default)]
    pub follow: bool,
}

/// Scans accounts for machines without a session at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reap {
    /// The account to scan; all if unset.
    pub account: Option<AccountName>,
    /// Only reports what would be deleted.
    pub dry_run: bool,
    /// Acknowledges the reaper's breaker, so that a reaper that found too many victims continues.
    #[serde(default)]
    pub acknowledge: bool,
}

/// Scans every account and reports current spend by purpose; deletes nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Audit {}

/// Reports what the orchestrator can do at the moment and what prevents the rest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {}

/// Accepts this store as the authoritative copy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accept {}

/// Accepts the currently configured API key as a key of the recorded account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AcceptAccount {
    /// The account whose current key is accepted.
    pub account: AccountName,
}

/// A state to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The session's machine is usable.
    Ready,
    /// The command of the session's task has ended.
    Outcome,
    /// Every machine the session had is proved absent.
    Terminated,
}

/// Selects the sessions to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Filter {
    /// Only sessions of this user.
    pub user: Option<String>,
    /// Only sessions with all these labels.
    pub labels: BTreeMap<String, String>,
    /// Only sessions on this account.
    pub account: Option<AccountName>,
    /// Includes sessions that have ended.
    pub ended: bool,
}

/// The complete JSON of a compute request, secrets included. Its `Debug` output shows nothing.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(Value);

impl Sealed {
    /// Encodes a request.
    #[must_use]
    pub fn new(request: &ComputeRequest) -> Self {
        Self(request.expose())
    }

    /// Decodes the request.
    ///
    /// # Errors
    /// `validation` when it is not the encoding of a request.
    pub fn open(self) -> Result<ComputeRequest, Error> {
        serde_json::from_value(self.0)
            .map_err(|_| Error::validation("request", "is not a compute request"))
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(..)")
    }
}
