//! What happens in a session, in order and without gaps.

use std::time::Duration;

use atlas_core::{AccountName, AttemptId, ComputeId, ComputeStatus, Timestamp, Usd, UsdPerHour};
use serde::{Deserialize, Serialize};

use crate::duration_ms;
use crate::ids::SessionId;
use crate::session::TaskOutcome;

/// A limit of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Limit {
    /// Nothing was active for so long.
    IdleTtl,
    /// It ran for so long.
    MaxRuntime,
    /// It cost so much.
    MaxCost,
    /// It did not become usable in time.
    ReadyTimeout,
    /// One that a newer atlas knows and this one does not.
    #[serde(other)]
    Other,
}

/// Why a session, or one of its machines, is ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
#[non_exhaustive]
pub enum Reason {
    /// Somebody asked for it.
    Requested,
    /// A limit was reached.
    Limit {
        /// The limit that was reached or is about to be.
        limit: Limit,
    },
    /// Its machine died and no respawn was left.
    MachineDied {
        /// How the machine died.
        how: Death,
    },
    /// No machine could be had.
    CannotPlace {
        /// What the cloud, or a check, said last.
        message: String,
        /// Its kind, as `atlas_core::ErrorKind::as_str` says it.
        kind: String,
    },
    /// The task's command ended.
    TaskEnded,
    /// The orchestrator was told to end everything.
    Shutdown,
    /// Another machine serves the session.
    Replaced,
    /// What was delivered is not what was ordered.
    NotAsOrdered,
    /// A machine appeared under an attempt that had ended.
    Reaped,
    /// An operator's accept of the store left nobody who wants it.
    Accepted,
    /// One that a newer atlas wrote and this one does not know.
    #[serde(other)]
    Other,
}

/// How a machine died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Death {
    /// It was stopped by somebody else, or by itself.
    Stopped,
    /// The cloud ended it.
    Terminated,
    /// The cloud says it broke.
    Failed,
    /// The cloud took spot capacity back.
    Preempted,
    /// It is gone and nobody says why.
    Vanished,
    /// It never became usable.
    NeverReady,
    /// In a way that a newer atlas tells apart and this one does not.
    #[serde(other)]
    Other,
}

/// Why a machine could not yet be proved to be gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
#[non_exhaustive]
pub enum Stuck {
    /// The key was refused.
    Credential,
    /// The key answers for another account than it did.
    AccountChanged,
    /// No provider handle for the account was given to this process.
    NoHandle,
    /// The cloud does not answer, or answers with errors.
    CloudUnreachable {
        /// The kind of the last error.
        kind: String,
    },
    /// The cloud says it is still there, after every try so far.
    StillThere,
    /// The store may have been rolled back: an operator must accept it first.
    Held,
    /// Something that a newer atlas knows and this one does not.
    #[serde(other)]
    Other,
}

/// What happened. New kinds are added; none is renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
#[non_exhaustive]
pub enum EventKind {
    /// The session is on record.
    Created {
        /// Where it is to be placed.
        account: AccountName,
    },
    /// An order is about to be made.
    Attempt {
        /// The attempt it belongs to.
        attempt: AttemptId,
        /// Where, and of what shape, for people.
        placed: String,
        /// At what price.
        price: Option<UsdPerHour>,
    },
    /// The cloud accepted an order.
    Accepted {
        /// The attempt it belongs to.
        attempt: AttemptId,
        /// The machine.
        compute: ComputeId,
    },
    /// The cloud refused an order, and certainly did nothing.
    Refused {
        /// The attempt it belongs to.
        attempt: AttemptId,
        /// What it said.
        message: String,
        /// The kind of the error.
        kind: String,
    },
    /// It is not known whether an order was carried out.
    OutcomeUnknown {
        /// The attempt it belongs to.
        attempt: AttemptId,
    },
    /// A machine was found under an order of unknown outcome, and serves the session.
    Adopted {
        /// The attempt it belongs to.
        attempt: AttemptId,
        /// The machine.
        compute: ComputeId,
    },
    /// It is certain enough that an order made no machine. Its key stays watched.
    Absent {
        /// The attempt it belongs to.
        attempt: AttemptId,
    },
    /// A second machine was found under a key; it is being ended.
    DuplicateFound {
        /// The attempt it belongs to.
        attempt: AttemptId,
        /// The machine.
        compute: ComputeId,
    },
    /// A machine appeared under an attempt that had ended; it is being ended.
    Reopened {
        /// The attempt it belongs to.
        attempt: AttemptId,
        /// The machine.
        compute: ComputeId,
    },
    /// The machine's status changed.
    Status {
        /// The new one.
        status: ComputeStatus,
    },
    /// The machine is usable.
    Ready,
    /// Something was active since the last one.
    Heartbeat {
        /// When last.
        last_activity: Timestamp,
    },
    /// A limit will be reached.
    Warning {
        /// The limit that was reached or is about to be.
        limit: Limit,
        /// When, unless something happens before.
        due: Timestamp,
    },
    /// Somebody put an end off.
    Extended {
        /// Not before then.
        until: Timestamp,
    },
    /// The machine died.
    Died {
        /// How the machine died.
        how: Death,
    },
    /// Another machine is being rented.
    Respawning {
        /// Replacement number, starting at 1.
        respawn: u32,
    },
    /// The command of a task ended.
    TaskEnded {
        /// How the task ended.
        outcome: TaskOutcome,
    },
    /// The session is being ended. Final.
    Terminating {
        /// Why the session ends.
        reason: Reason,
    },
    /// Ending a machine does not succeed for now; it goes on being tried.
    TerminateFailed {
        /// Why not.
        stuck: Stuck,
        /// What it burns meanwhile.
        burn: UsdPerHour,
    },
    /// Every machine the session ever had is proved to be gone.
    Terminated {
        /// What it cost, as far as we can tell.
        cost: Usd,
    },
    /// Another node looks after the session now.
    Owner {
        /// The node that looks after the session from now on.
        node: String,
    },
    /// Reported by the machine.
    Reported {
        /// What kind of report: `progress`, `log`.
        kind: String,
        /// What it says; bounded.
        text: String,
    },
    /// Of a kind that a newer atlas wrote and this one does not know.
    #[serde(other)]
    Other,
}

/// One event of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// The session it happened to.
    pub session: SessionId,
    /// Whose session that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Its place in the session's log, from 1, without gaps.
    pub seq: u64,
    /// When it was committed, on the store's clock.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// Whose events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One session's.
    Session(SessionId),
    /// Those of all sessions of one user.
    User(String),
    /// All.
    All,
}

/// A place in a log: reading goes on after it. Of a session's log it is the `seq`, otherwise
/// [`Delivery::cursor`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(u64);

impl Cursor {
    /// Before the first event.
    pub const START: Self = Self(0);
    /// After the newest: only what happens from now on.
    pub const NOW: Self = Self(u64::MAX);

    /// After this place.
    #[must_use]
    pub const fn after(place: u64) -> Self {
        Self(place)
    }

    /// The place.
    #[must_use]
    pub const fn place(self) -> u64 {
        self.0
    }
}

/// What a subscription hands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The event.
    pub event: Event,
    /// Where to go on after it.
    pub cursor: Cursor,
    /// How many newer events of the whole store were known when it was handed out: how far this
    /// reader lags.
    pub behind: u64,
}

/// A heads-up before an end: how long before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lead(#[serde(with = "duration_ms")] pub(crate) Duration);

impl Lead {
    /// A fifth of the limit, at most a minute.
    pub(crate) fn of(limit: Duration) -> Self {
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
}
