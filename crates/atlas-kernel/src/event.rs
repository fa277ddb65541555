//! The events of a session, ordered and without gaps.

use std::time::Duration;

use atlas_core::{AccountName, AttemptId, ComputeId, ComputeStatus, Timestamp, Usd, UsdPerHour};
use serde::{Deserialize, Serialize};

use crate::ids::SessionId;
use crate::outcome::TaskOutcome;
use atlas_core::duration_ms;

/// A limit of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Limit {
    /// The idle limit: no activity for this long.
    IdleTtl,
    /// The maximum run time.
    MaxRuntime,
    /// The maximum cost.
    MaxCost,
    /// The time limit for becoming usable.
    ReadyTimeout,
    /// A limit that only a newer atlas knows.
    #[serde(other)]
    Other,
}

/// Why a session or one of its machines is ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
#[non_exhaustive]
pub enum Reason {
    /// It was requested.
    Requested,
    /// A limit was reached.
    Limit {
        /// The limit that was reached.
        limit: Limit,
    },
    /// Its machine died and no respawn was left.
    MachineDied {
        /// How the machine died.
        how: Death,
    },
    /// No machine could be rented.
    CannotPlace {
        /// The last message of the cloud or of a check.
        message: String,
        /// The kind of the last error, as in `atlas_core::ErrorKind::as_str`.
        kind: String,
    },
    /// The task's command ended.
    TaskEnded,
    /// The orchestrator was shut down and asked to end everything.
    Shutdown,
    /// Another machine serves the session.
    Replaced,
    /// The delivered machine is not what was ordered.
    NotAsOrdered,
    /// A machine appeared for an attempt that had ended.
    Reaped,
    /// An operator accepted the store, and no session needs the machine.
    Accepted,
    /// A reason that only a newer atlas knows.
    #[serde(other)]
    Other,
}

/// How a machine died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Death {
    /// It was stopped, by itself or from outside atlas.
    Stopped,
    /// The cloud deleted it.
    Terminated,
    /// The cloud reports a failure.
    Failed,
    /// The cloud took the spot capacity back.
    Preempted,
    /// It is gone and the cloud does not say why.
    Vanished,
    /// It never became usable.
    NeverReady,
    /// A cause that only a newer atlas knows.
    #[serde(other)]
    Other,
}

/// Why the absence of a machine could not be proved yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
#[non_exhaustive]
pub enum Stuck {
    /// The API key was refused.
    Credential,
    /// The API key now belongs to another account than before.
    AccountChanged,
    /// This process has no provider handle for the account.
    NoHandle,
    /// The cloud does not answer, or answers with errors.
    CloudUnreachable {
        /// The kind of the last error.
        kind: String,
    },
    /// The cloud reports the machine as existing after every attempt so far.
    StillThere,
    /// The store may have been rolled back; an operator must accept it first.
    Held,
    /// A cause that only a newer atlas knows.
    #[serde(other)]
    Other,
}

/// What happened. New kinds may be added; none is renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
#[non_exhaustive]
pub enum EventKind {
    /// The session was recorded.
    Created {
        /// The account to rent from.
        account: AccountName,
    },
    /// An order is about to be made.
    Attempt {
        /// The attempt of the order.
        attempt: AttemptId,
        /// The place and shape, for display.
        placed: String,
        /// The price per hour, if known.
        price: Option<UsdPerHour>,
    },
    /// The cloud accepted an order.
    Accepted {
        /// The attempt of the order.
        attempt: AttemptId,
        /// The machine.
        compute: ComputeId,
    },
    /// The cloud refused an order and certainly did nothing.
    Refused {
        /// The attempt of the order.
        attempt: AttemptId,
        /// The message of the refusal.
        message: String,
        /// The kind of the error.
        kind: String,
    },
    /// It is not known whether an order was carried out.
    OutcomeUnknown {
        /// The attempt of the order.
        attempt: AttemptId,
    },
    /// A machine was found for an order of unknown outcome, and now serves the session.
    Adopted {
        /// The attempt of the order.
        attempt: AttemptId,
        /// The machine.
        compute: ComputeId,
    },
    /// It is certain enough that an order made no machine. Its key remains watched.
    Absent {
        /// The attempt of the order.
        attempt: AttemptId,
    },
    /// A second machine with the same key was found; it is being deleted.
    DuplicateFound {
        /// The attempt that the key names.
        attempt: AttemptId,
        /// The machine.
        compute: ComputeId,
    },
    /// A machine appeared for an attempt that had ended; it is being deleted.
    Reopened {
        /// The attempt of the machine.
        attempt: AttemptId,
        /// The machine.
        compute: ComputeId,
    },
    /// The machine's status changed.
    Status {
        /// The new status.
        status: ComputeStatus,
    },
    /// The machine is usable.
    Ready,
    /// There was activity since the last heartbeat.
    Heartbeat {
        /// The time of the latest activity.
        last_activity: Timestamp,
    },
    /// A limit will be reached soon.
    Warning {
        /// The limit that will be reached.
        limit: Limit,
        /// When the session ends unless this changes.
        due: Timestamp,
    },
    /// The idle end was postponed.
    Extended {
        /// The session does not end for idleness before this time.
        until: Timestamp,
    },
    /// The machine died.
    Died {
        /// How the machine died.
        how: Death,
    },
    /// A replacement machine is being rented.
    Respawning {
        /// Replacement number, starting at 1.
        respawn: u32,
    },
    /// The command of a task ended.
    TaskEnded {
        /// How the task ended.
        outcome: TaskOutcome,
    },
    /// The end of the session was committed. Final.
    Terminating {
        /// Why the session ends.
        reason: Reason,
    },
    /// A machine could not be deleted so far; atlas keeps trying.
    TerminateFailed {
        /// Why it could not be deleted.
        stuck: Stuck,
        /// The price per hour of what is still running.
        burn: UsdPerHour,
    },
    /// Every machine that the session ever had is proved absent.
    Terminated {
        /// The total cost, as far as known.
        cost: Usd,
    },
    /// Another node now looks after the session.
    Owner {
        /// The node that now looks after the session.
        node: String,
    },
    /// A report from the machine.
    Reported {
        /// The kind of report: `progress`, `log`.
        kind: String,
        /// The text of the report; its size is limited.
        text: String,
    },
    /// A kind of event that only a newer atlas knows.
    #[serde(other)]
    Other,
}

impl EventKind {
    /// Whether a kind of event can be caused by a node other than the owner. Every kind is listed:
    /// one that is forgotten here would leave its session asleep at the owner.
    #[must_use]
    pub fn concerns_owner(&self) -> bool {
        match self {
            Self::Terminating { .. }
            | Self::Extended { .. }
            | Self::Reopened { .. }
            | Self::TaskEnded { .. }
            | Self::Owner { .. } => true,
            Self::Created { .. }
            | Self::Attempt { .. }
            | Self::Accepted { .. }
            | Self::Refused { .. }
            | Self::OutcomeUnknown { .. }
            | Self::Adopted { .. }
            | Self::Absent { .. }
            | Self::DuplicateFound { .. }
            | Self::Status { .. }
            | Self::Ready
            | Self::Heartbeat { .. }
            | Self::Warning { .. }
            | Self::Died { .. }
            | Self::Respawning { .. }
            | Self::TerminateFailed { .. }
            | Self::Terminated { .. }
            | Self::Reported { .. }
            | Self::Other => false,
        }
    }

    /// What a person who waits for a machine is shown: a message, or the name of the event.
    #[must_use]
    pub fn progress(&self) -> String {
        let name = match self {
            Self::Attempt { placed, price, .. } => {
                let price = price.map_or_else(String::new, |price| format!(" at ${price}"));
                return format!("ordering {placed}{price}");
            }
            Self::Accepted { compute, .. } => return format!("machine {compute} is ordered"),
            Self::Adopted { compute, .. } => {
                return format!("machine {compute} was found by its launch key");
            }
            Self::Refused { message, .. } => return format!("refused: {message}"),
            Self::OutcomeUnknown { .. } => {
                "the answer was lost: looking for the machine by its launch key"
            }
            Self::Created { .. } => "created",
            Self::Absent { .. } => "absent",
            Self::DuplicateFound { .. } => "duplicate_found",
            Self::Reopened { .. } => "reopened",
            Self::Status { .. } => "status",
            Self::Ready => "ready",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Warning { .. } => "warning",
            Self::Extended { .. } => "extended",
            Self::Died { .. } => "died",
            Self::Respawning { .. } => "respawning",
            Self::TaskEnded { .. } => "task_ended",
            Self::Terminating { .. } => "terminating",
            Self::TerminateFailed { .. } => "terminate_failed",
            Self::Terminated { .. } => "terminated",
            Self::Owner { .. } => "owner",
            Self::Reported { .. } => "reported",
            Self::Other => "other",
        };
        name.to_owned()
    }
}

/// One event of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// The session it happened to.
    pub session: SessionId,
    /// The user of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The sequence number in the session's log, from 1 and without gaps.
    pub seq: u64,
    /// When it was committed, on the store's clock.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// Selects the events of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The events of one session.
    Session(SessionId),
    /// The events of all sessions of one user.
    User(String),
    /// The events of all sessions.
    All,
}

/// A position in a log; reading resumes after it. For one session's log it is the `seq` of an
/// event, otherwise [`Delivery::cursor`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(u64);

impl Cursor {
    /// Before the first event.
    pub const START: Self = Self(0);
    /// After the latest event: only new events are delivered.
    pub const NOW: Self = Self(u64::MAX);

    /// The cursor after this position.
    #[must_use]
    pub const fn after(place: u64) -> Self {
        Self(place)
    }

    /// The position.
    #[must_use]
    pub const fn place(self) -> u64 {
        self.0
    }
}

/// One event delivered by a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The event.
    pub event: Event,
    /// The cursor to resume from after this event.
    pub cursor: Cursor,
    /// How many later events of the whole store were known at delivery: the lag of this reader.
    pub behind: u64,
}

/// How long before an end its warning is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead(#[serde(with = "duration_ms")] pub Duration);

impl Lead {
    /// The default lead: a fifth of the limit, at most one minute.
    pub fn of(limit: Duration) -> Self {
        Self((limit / 5).min(Duration::from_secs(60)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::SeededEntropy;

    #[test]
    fn an_event_reads_back_as_written_and_an_unknown_kind_is_still_an_event() {
        let now = Timestamp::from_unix_seconds(1_790_000_000);
        let attempt = AttemptId::new(now, [1; 6]);
        let compute = ComputeId::new("m1").unwrap();
        let kinds = [
            EventKind::Created {
                account: AccountName::new("mock").unwrap(),
            },
            EventKind::Attempt {
                attempt,
                placed: "mock".to_owned(),
                price: Some(UsdPerHour::ZERO),
            },
            EventKind::Accepted {
                attempt,
                compute: compute.clone(),
            },
            EventKind::Refused {
                attempt,
                message: "sold out".to_owned(),
                kind: "no_capacity".to_owned(),
            },
            EventKind::OutcomeUnknown { attempt },
            EventKind::Adopted {
                attempt,
                compute: compute.clone(),
            },
            EventKind::Absent { attempt },
            EventKind::DuplicateFound {
                attempt,
                compute: compute.clone(),
            },
            EventKind::Reopened { attempt, compute },
            EventKind::Status {
                status: ComputeStatus::Running,
            },
            EventKind::Ready,
            EventKind::Heartbeat { last_activity: now },
            EventKind::Warning {
                limit: Limit::IdleTtl,
                due: now,
            },
            EventKind::Extended { until: now },
            EventKind::Died {
                how: Death::Vanished,
            },
            EventKind::Respawning { respawn: 1 },
            EventKind::TaskEnded {
                outcome: TaskOutcome::reported(3),
            },
            EventKind::Terminating {
                reason: Reason::CannotPlace {
                    message: "x".to_owned(),
                    kind: "quota".to_owned(),
                },
            },
            EventKind::Terminating {
                reason: Reason::Limit {
                    limit: Limit::MaxCost,
                },
            },
            EventKind::TerminateFailed {
                stuck: Stuck::CloudUnreachable {
                    kind: "timeout".to_owned(),
                },
                burn: UsdPerHour::ZERO,
            },
            EventKind::Terminated { cost: Usd::ZERO },
            EventKind::Owner {
                node: "a".to_owned(),
            },
            EventKind::Reported {
                kind: "progress".to_owned(),
                text: "50%".to_owned(),
            },
        ];
        for (seq, kind) in kinds.into_iter().enumerate() {
            let session = SessionId::new(now, &SeededEntropy::new(1));
            let event = Event {
                session,
                user_id: Some("u".to_owned()),
                seq: seq as u64,
                at: now,
                kind,
            };
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(
                serde_json::from_str::<Event>(&text).unwrap(),
                event,
                "{text}"
            );
        }
        let newer = format!(
            r#"{{"session":"{}","seq":1,"at":"{now}","event":"from_the_future","x":1}}"#,
            SessionId::new(now, &SeededEntropy::new(1))
        );
        assert_eq!(
            serde_json::from_str::<Event>(&newer).unwrap().kind,
            EventKind::Other
        );
        assert_eq!(
            serde_json::from_str::<Reason>(r#"{"why":"from_the_future","x":1}"#).unwrap(),
            Reason::Other
        );
        assert_eq!(
            serde_json::from_str::<Reason>(r#"{"why":"limit","limit":"later"}"#).unwrap(),
            Reason::Limit {
                limit: Limit::Other
            }
        );
        assert_eq!(
            serde_json::from_str::<Stuck>(r#"{"cause":"from_the_future"}"#).unwrap(),
            Stuck::Other
        );
        assert_eq!(
            serde_json::from_str::<Death>(r#""from_the_future""#).unwrap(),
            Death::Other
        );
    }

    #[test]
    fn progress_is_the_events_own_name_where_there_is_no_message() {
        let node = "n".to_owned();
        let terminated = EventKind::Terminated { cost: Usd::ZERO };
        for kind in [
            EventKind::Ready,
            EventKind::Respawning { respawn: 1 },
            EventKind::Owner { node },
            terminated,
            EventKind::Other,
        ] {
            let written = serde_json::to_value(&kind).unwrap();
            assert_eq!(written["event"], kind.progress(), "{kind:?}");
        }
    }
}
