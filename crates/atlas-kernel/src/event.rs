//! The events of a session, ordered and without gaps.

use std::time::Duration;

use atlas_core::{AccountName, AttemptId, ComputeId, ComputeStatus, Timestamp, Usd, UsdPerHour};
use serde::{Deserialize, Serialize};

use crate::ids::SessionId;
use crate::outcome::TaskOutcome;
use crate::refusal::Refusal;
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
    /// No machine could be rented; holds the last refusal of the cloud or of a check.
    CannotPlace(Refusal),
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
        /// The refusal.
        #[serde(flatten)]
        refusal: Refusal,
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
    /// The stable name of the kind, which is the `event` of its JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::Attempt { .. } => "attempt",
            Self::Accepted { .. } => "accepted",
            Self::Refused { .. } => "refused",
            Self::OutcomeUnknown { .. } => "outcome_unknown",
            Self::Adopted { .. } => "adopted",
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
        }
    }

    /// Whether a kind of event can be caused by a node other than the owner. Every kind is listed: one
    /// that is forgotten here would leave its session asleep at the owner.
    #[must_use]
    pub const fn concerns_owner(&self) -> bool {
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

impl Scope {
    /// The cursor that continues a subscription with this scope after the delivery whose cursor had
    /// this [`number`](Cursor::number); 0 starts with the first event.
    #[must_use]
    pub const fn after(&self, number: u64) -> Cursor {
        match self {
            _ if number == 0 => Cursor::START,
            Self::Session(_) => Cursor::after_seq(number),
            Self::User(_) | Self::All => Cursor::after_position(number),
        }
    }
}

/// A position in a log; reading resumes after it.
///
/// The log of one session counts its own events. Scopes of several sessions count the events of the
/// whole store. A cursor knows which of the two it belongs to, and a subscription refuses a cursor
/// of the other kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(Place);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Start,
    Now,
    Seq(u64),
    Position(u64),
}

impl Cursor {
    /// Before the first event.
    pub const START: Self = Self(Place::Start);
    /// After the latest event: only new events are delivered.
    pub const NOW: Self = Self(Place::Now);

    /// The cursor after the event with this `seq`, for [`Scope::Session`].
    #[must_use]
    pub const fn after_seq(seq: u64) -> Self {
        Self(Place::Seq(seq))
    }

    /// The cursor after this position in the store's log, for [`Scope::User`] and [`Scope::All`].
    #[must_use]
    pub const fn after_position(position: u64) -> Self {
        Self(Place::Position(position))
    }

    /// The number to store for a later subscription with the same scope; see [`Scope::after`].
    #[must_use]
    pub const fn number(self) -> u64 {
        match self.0 {
            Place::Start => 0,
            Place::Now => u64::MAX,
            Place::Seq(number) | Place::Position(number) => number,
        }
    }

    /// Whether the cursor can be one of this scope.
    #[must_use]
    pub const fn fits(self, scope: &Scope) -> bool {
        match (self.0, scope) {
            (Place::Start | Place::Now, _) => true,
            (Place::Seq(_), scope) => matches!(scope, Scope::Session(_)),
            (Place::Position(_), scope) => !matches!(scope, Scope::Session(_)),
        }
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
    use atlas_core::{ErrorKind, SeededEntropy};

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
                refusal: Refusal::new(ErrorKind::NoCapacity, "sold out"),
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
                reason: Reason::CannotPlace(Refusal::new(ErrorKind::Quota, "x")),
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
            assert!(
                text.contains(&format!(r#""event":"{}""#, event.kind.name())),
                "{text}"
            );
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
            serde_json::from_str::<Reason>(
                r#"{"why":"cannot_place","message":"sold out","kind":"no_capacity"}"#
            )
            .unwrap(),
            Reason::CannotPlace(Refusal::new(ErrorKind::NoCapacity, "sold out")),
            "as older releases wrote it"
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
}
