//! Information about sessions.

use std::time::Duration;

use atlas_core::{
    AccountName, AttemptId, Compute, ComputeId, ComputeStatus, Credential, ProviderId, Timestamp,
    Usd, UsdPerHour,
};
use serde::{Deserialize, Serialize};

use crate::event::{Limit, Reason, Stuck};
use crate::ids::SessionId;
use crate::nets::Unattended;
use crate::options::SessionOptions;

/// The state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionState {
    /// A machine is being ordered.
    Launching,
    /// A cloud accepted its machine, which may not be usable yet.
    Starting,
    /// Its machine is usable.
    Ready,
    /// Its machine died and another is being ordered.
    Respawning,
    /// It is being ended; its machines may still bill.
    Terminating,
    /// Every machine it ever had is proved absent.
    Terminated,
}

impl SessionState {
    /// The stable name, such as `launching`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Launching => "launching",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Respawning => "respawning",
            Self::Terminating => "terminating",
            Self::Terminated => "terminated",
        }
    }
}

/// The purpose of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionKind {
    /// A user works with its machine until the session is ended.
    #[default]
    Interactive,
    /// Its machine runs one command to its end.
    Task,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// The command ended with exit code 0. Without a reported code: there is evidence that it ran
    /// and that it ended by itself.
    Completed,
    /// The command ended with another code, or nothing shows that it ran to its end.
    Failed,
    /// A limit was reached first.
    TimedOut,
    /// It was ended by request before that.
    Cancelled,
}

/// How certain the outcome of a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The cloud, or the machine itself, reported the exit code.
    Reported,
    /// Inferred from the end of the machine, or from atlas's own action.
    Inferred,
}

/// Why a task ended that did not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskCause {
    /// Its machine was never seen running: its image was refused, its container could not be
    /// created, or the machine was gone before it ran.
    NeverRan,
    /// Its machine was stopped or deleted from outside atlas.
    Stopped,
    /// It used more memory than its machine had.
    OutOfMemory,
    /// Its host failed, or the cloud reports that the machine failed.
    HostLost,
    /// The cloud took its spot machine back.
    Preempted,
    /// Its machine is gone or stopped, and the cause is unknown.
    Unknown,
}

/// The outcome of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskOutcome {
    /// How it ended.
    pub kind: TaskKind,
    /// The container's exit code, if one was reported.
    pub exit_code: Option<i32>,
    /// How certain the outcome is.
    pub proof: Proof,
    /// Why it did not end by itself, if no exit code tells and the cause is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<TaskCause>,
}

impl TaskOutcome {
    /// The outcome with a reported exit code.
    pub(crate) fn reported(code: i32) -> Self {
        let kind = if code == 0 {
            TaskKind::Completed
        } else {
            TaskKind::Failed
        };
        Self {
            kind,
            exit_code: Some(code),
            proof: Proof::Reported,
            cause: None,
        }
    }

    /// The outcome inferred without an exit code.
    pub(crate) fn inferred(kind: TaskKind, cause: Option<TaskCause>) -> Self {
        Self {
            kind,
            exit_code: None,
            proof: Proof::Inferred,
            cause,
        }
    }
}

/// The phase of one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AttemptPhase {
    /// Recorded; nothing was sent.
    Intent,
    /// The create call is in progress, or its answer was lost with the process.
    Calling,
    /// It is unknown whether there is a machine.
    Unknown,
    /// There is a machine.
    Live,
    /// The cloud certainly did nothing.
    NotApplied,
    /// Nothing was found, for long enough.
    Absent,
    /// Its machines are proved absent.
    Dead,
}

/// One order of a session, for display.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AttemptInfo {
    /// The attempt's id, part of the machine's launch key.
    pub attempt: AttemptId,
    /// The phase of the attempt.
    pub phase: AttemptPhase,
    /// Why its machines are being ended, if they are.
    pub terminating: Option<Reason>,
    /// Every machine id ever seen with its key.
    pub computes: Vec<ComputeId>,
    /// The place and shape.
    pub placed: String,
    /// The price it was ordered at, or the price last observed.
    pub price: Option<UsdPerHour>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The cloud's message, if it refused.
    pub message: Option<String>,
    /// Why its end could not be proved yet.
    pub stuck: Option<Stuck>,
}

/// The next moment at which a limit ends the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The limit.
    pub limit: Limit,
    /// When the session ends unless this changes.
    pub at: Timestamp,
}

/// The cost of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cost {
    /// The price the serving machine was ordered at.
    pub quoted: Option<UsdPerHour>,
    /// The price of the serving machine that was last observed.
    pub observed: Option<UsdPerHour>,
    /// The cost so far, from prices and times: each machine until its last sign of life.
    #[serde(default)]
    pub spent: Usd,
    /// What may be owed so far: each machine until its absence was proved. It exceeds `spent` by
    /// the duration of the proofs.
    pub estimated: Usd,
    /// What the cloud has billed so far, if it reports that.
    pub billed: Option<Usd>,
    /// The price per hour of every machine that is not proved absent.
    pub burn: UsdPerHour,
}

/// All information about a session. Its `Debug` and `Serialize` show no secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionInfo {
    /// The session's id.
    pub id: SessionId,
    /// The purpose of the session.
    pub kind: SessionKind,
    /// The state of the session.
    pub state: SessionState,
    /// The account it rents from.
    pub account: AccountName,
    /// The provider of that account.
    pub provider: ProviderId,
    /// The options it was made with.
    pub options: SessionOptions,
    /// When the session was created.
    pub created_at: Timestamp,
    /// The serving machine, as last seen.
    pub compute: Option<Compute>,
    /// The credential for the browser: the same after a respawn and after a restart. `None` once
    /// the session has ended.
    #[serde(skip)]
    pub auth: Option<Credential>,
    /// Every order it ever made.
    pub attempts: Vec<AttemptInfo>,
    /// The latest activity that this process knows of.
    pub last_activity: Timestamp,
    /// The source of that activity: `created`, `touch`, or the name of another source.
    pub last_activity_source: String,
    /// The next limit.
    pub next_deadline: Option<Deadline>,
    /// The cost of the session.
    pub cost: Cost,
    /// What happens to its machines if every atlas process stops now.
    pub unattended: Unattended,
    /// How many times its machine was replaced.
    pub respawns: u32,
    /// Why it is ending or has ended.
    pub reason: Option<Reason>,
    /// The outcome of its task.
    pub outcome: Option<TaskOutcome>,
    /// What prevents it from becoming `terminated`.
    pub stuck: Option<Stuck>,
    /// The node that looks after the session.
    pub owner: String,
    /// The latest decisions, oldest first, for display.
    pub decisions: Vec<Decision>,
    /// The sequence number of the latest event.
    pub last_seq: u64,
}

impl SessionInfo {
    /// The status of the serving machine, if there is one.
    #[must_use]
    pub fn status(&self) -> Option<&ComputeStatus> {
        self.compute.as_ref().map(|compute| &compute.status)
    }
}

/// A decision and its reason, for display.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When it was made.
    pub at: Timestamp,
    /// The decision and its reason.
    pub text: String,
}

/// The result of [`stop_tracked`](crate::Orchestrator::stop_tracked).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[non_exhaustive]
pub enum StopOutcome {
    /// Every machine it ever had is proved absent.
    Terminated,
    /// The end is committed and final, and is being carried out.
    Terminating {
        /// What blocks it, if anything.
        stuck: Option<Stuck>,
        /// The price per hour of what is still running.
        burn: UsdPerHour,
    },
}

impl StopOutcome {
    /// The session's state.
    #[must_use]
    pub const fn state(&self) -> SessionState {
        match self {
            Self::Terminated => SessionState::Terminated,
            Self::Terminating { .. } => SessionState::Terminating,
        }
    }
}

/// The result of a touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Touch {
    /// The touch counts.
    Recorded,
    /// The touch could not be made durable and may be lost with this process; call again.
    Deferred,
    /// There is no such session, or it is being ended.
    Ended,
}

/// What to do with the machines at a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Leaves them running: flushes, releases the lease, and lets the next process or another node
    /// continue. The default with a durable store.
    Handover,
    /// Ends all of them and waits for the proof, at most `wait`. The default with the memory store.
    TerminateAll {
        /// The maximum wait for the proof.
        wait: Duration,
    },
}

/// The result of a shutdown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Sessions handed over, alive.
    pub handed_over: usize,
    /// Sessions of which every machine is proved absent.
    pub terminated: usize,
    /// Sessions that are still being ended, or whose end could not be recorded. With a durable
    /// store the next process continues.
    pub unsettled: Vec<SessionId>,
    /// Whether every acknowledged touch was made durable.
    pub flushed: bool,
}

/// A machine in the reaper's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// The machine.
    pub compute: ComputeId,
    /// The machine's name in the cloud.
    pub name: Option<String>,
    /// The attempt that its key claims.
    pub attempt: Option<AttemptId>,
    /// Why it is reported.
    pub why: String,
    /// Its price per hour.
    pub burn: Option<UsdPerHour>,
}

/// The result of one scan of the reaper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReapReport {
    /// Machines in the walk.
    pub scanned: usize,
    /// Whether the walk was complete and plausible.
    pub complete: bool,
    /// Machines with a key of this realm.
    pub ours: usize,
    /// Machines whose end this scan committed; in a dry run, those whose end it would have
    /// committed.
    pub victims: Vec<Finding>,
    /// Kept: their attempts are not recorded and older than the retention.
    pub quarantined: Vec<Finding>,
    /// Kept: machines with contradicting carriers, renamed machines, clones.
    pub ambiguous: Vec<Finding>,
    /// Set when there were too many victims: none was deleted, and an operator must acknowledge.
    pub breaker: bool,
    /// Set when this scan only reported: in a dry run, in the first scans of an account, or by
    /// policy.
    pub report_only: bool,
    /// Set when the store may have been rolled back: nothing is ended until an operator accepts it.
    pub held: bool,
}
