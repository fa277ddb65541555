//! What can be known of a session.

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

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionState {
    /// A machine is being ordered.
    Launching,
    /// It has a machine that the cloud accepted; perhaps not usable yet.
    Starting,
    /// Its machine is usable.
    Ready,
    /// Its machine died and another is being ordered.
    Respawning,
    /// It is being ended; machines may still bill.
    Terminating,
    /// Every machine it ever had is proved to be gone.
    Terminated,
}

impl SessionState {
    /// The stable word: `launching`, ...
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

/// What a session is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionKind {
    /// Somebody uses its machine until nobody does.
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
    /// Somebody ended it first.
    Cancelled,
}

/// How sure that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The cloud, or the machine itself, reported the exit code.
    Reported,
    /// Concluded from the machine's end, or from ours.
    Inferred,
}

/// Why a task that did not end by itself has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskCause {
    /// Its machine was never seen to run: an image that was refused, a container that could not be
    /// created, or a machine that was gone before it ran.
    NeverRan,
    /// Its machine was stopped or deleted by somebody else.
    Stopped,
    /// It used more memory than its machine had.
    OutOfMemory,
    /// Its host failed, or the cloud says that the machine broke.
    HostLost,
    /// The cloud took its spot machine back.
    Preempted,
    /// Its machine is gone or stopped, and nothing tells why.
    Unknown,
}

/// The outcome of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskOutcome {
    /// How it ended.
    pub kind: TaskKind,
    /// The container's exit code, where one was reported.
    pub exit_code: Option<i32>,
    /// How sure that is.
    pub proof: Proof,
    /// Why it did not end by itself, where no exit code tells and it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<TaskCause>,
}

impl TaskOutcome {
    /// The exit code was reported, by the cloud or by the machine itself.
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

    /// Concluded without an exit code.
    pub(crate) fn inferred(kind: TaskKind, cause: Option<TaskCause>) -> Self {
        Self {
            kind,
            exit_code: None,
            proof: Proof::Inferred,
            cause,
        }
    }
}

/// Where one order is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AttemptPhase {
    /// On record; nothing was sent.
    Intent,
    /// The one call is being made, or its answer was lost with the process.
    Calling,
    /// It is not known whether there is a machine.
    Unknown,
    /// There is a machine.
    Live,
    /// The cloud did nothing.
    NotApplied,
    /// Nothing was found, for long enough.
    Absent,
    /// Its machines are proved to be gone.
    Dead,
}

/// One order of a session, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AttemptInfo {
    /// Its id, part of the machine's launch key.
    pub attempt: AttemptId,
    /// Where it is in its life.
    pub phase: AttemptPhase,
    /// Whether its machines are being ended, and why.
    pub terminating: Option<Reason>,
    /// Every id ever seen under it.
    pub computes: Vec<ComputeId>,
    /// Where, and of what shape.
    pub placed: String,
    /// The price it was ordered at, or was last seen to have.
    pub price: Option<UsdPerHour>,
    /// When it was put on record.
    pub created_at: Timestamp,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// What the cloud said, when it refused.
    pub message: Option<String>,
    /// Why its end could not be proved yet.
    pub stuck: Option<Stuck>,
}

/// The next moment at which a session ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// Which limit.
    pub limit: Limit,
    /// When, unless something happens before.
    pub at: Timestamp,
}

/// Money of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cost {
    /// The price the serving machine was ordered at.
    pub quoted: Option<UsdPerHour>,
    /// The price it was last seen to have.
    pub observed: Option<UsdPerHour>,
    /// What it cost so far, from prices and times: each machine until its last sign of life.
    #[serde(default)]
    pub spent: Usd,
    /// What it may owe so far: each machine until its absence was proved. More than `spent` by what
    /// a proof takes.
    pub estimated: Usd,
    /// What the cloud billed so far, where it says.
    pub billed: Option<Usd>,
    /// What every machine that is not proved to be gone burns.
    pub burn: UsdPerHour,
}

/// Everything known of a session. Its `Debug` and `Serialize` show no secret.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SessionInfo {
    /// The session's id.
    pub id: SessionId,
    /// What it is for.
    pub kind: SessionKind,
    /// Where it is in its life.
    pub state: SessionState,
    /// The account it rents from.
    pub account: AccountName,
    /// The cloud.
    pub provider: ProviderId,
    /// The options it was made with.
    pub options: SessionOptions,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its serving machine, as last seen.
    pub compute: Option<Compute>,
    /// The credential its browser carries: the same after a respawn and after a restart. Gone when
    /// the session ended.
    #[serde(skip)]
    pub auth: Option<Credential>,
    /// Every order it ever made.
    pub attempts: Vec<AttemptInfo>,
    /// The newest activity that this process knows of.
    pub last_activity: Timestamp,
    /// What that was: `created`, `touch`, or the name of another source.
    pub last_activity_source: String,
    /// The next limit.
    pub next_deadline: Option<Deadline>,
    /// Money.
    pub cost: Cost,
    /// What becomes of its machines if every atlas process stops now.
    pub unattended: Unattended,
    /// How often its machine was replaced.
    pub respawns: u32,
    /// Why it is ending, or ended.
    pub reason: Option<Reason>,
    /// How its task ended.
    pub outcome: Option<TaskOutcome>,
    /// What keeps it from being `terminated`.
    pub stuck: Option<Stuck>,
    /// Which node looks after it.
    pub owner: String,
    /// The newest decisions, oldest first, for people.
    pub decisions: Vec<Decision>,
    /// The newest event.
    pub last_seq: u64,
}

impl SessionInfo {
    /// The serving machine's status, where there is one.
    #[must_use]
    pub fn status(&self) -> Option<&ComputeStatus> {
        self.compute.as_ref().map(|compute| &compute.status)
    }
}

/// A decision and its reason, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When the decision was taken.
    pub at: Timestamp,
    /// What and why.
    pub text: String,
}

/// What [`stop_tracked`](crate::Orchestrator::stop_tracked) can truly say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[non_exhaustive]
pub enum StopOutcome {
    /// Every machine it ever had is proved to be gone.
    Terminated,
    /// Its end is on record, final, and being carried out.
    Terminating {
        /// What is in the way, if something is.
        stuck: Option<Stuck>,
        /// What it burns meanwhile.
        burn: UsdPerHour,
    },
}

/// What became of a touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Touch {
    /// It counts.
    Recorded,
    /// It could not be made durable and may be lost with this process; call again.
    Deferred,
    /// There is no such session, or it is being ended.
    Ended,
}

/// What happens to machines at a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Nothing: flush, release, let the next process or another node go on. The default with a
    /// durable store.
    Handover,
    /// All are ended, and it is waited for, at most so long. The default with the memory store.
    TerminateAll {
        /// The longest to wait for the proof.
        wait: Duration,
    },
}

/// What a shutdown left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Sessions handed over, alive.
    pub handed_over: usize,
    /// Sessions of which every machine is proved to be gone.
    pub terminated: usize,
    /// Sessions still being ended, or whose end could not be put on record. With a durable store
    /// the next process goes on.
    pub unsettled: Vec<SessionId>,
    /// Whether every acknowledged touch was made durable.
    pub flushed: bool,
}

/// A machine the reaper speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The machine.
    pub compute: ComputeId,
    /// The machine's name at the cloud.
    pub name: Option<String>,
    /// Whose attempt it claims to be.
    pub attempt: Option<AttemptId>,
    /// Why it is spoken of.
    pub why: String,
    /// What it burns.
    pub burn: Option<UsdPerHour>,
}

/// What one scan of the reaper found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReapReport {
    /// Machines in the walk.
    pub scanned: usize,
    /// Whether the walk was complete and plausible.
    pub complete: bool,
    /// Machines with a key of this realm.
    pub ours: usize,
    /// Being ended because of this scan; in a dry run: those that would be.
    pub victims: Vec<Finding>,
    /// Kept: their attempts are unknown here and older than the retention.
    pub quarantined: Vec<Finding>,
    /// Kept: carriers that contradict each other, renamed machines, clones.
    pub ambiguous: Vec<Finding>,
    /// Set when there were too many victims: nothing was ended, an operator must acknowledge.
    pub breaker: bool,
    /// Set when this scan only reported: a dry run, the first scans of an account, or by policy.
    pub report_only: bool,
    /// Set when the store may have been rolled back: nothing is ended until an operator accepts it.
    pub held: bool,
}
