//! What the orchestrator tells about sessions, and the results of its operations.

use std::time::Duration;

use atlas_core::{
    AccountName, AttemptId, Compute, ComputeId, ComputeStatus, Credential, ProviderId, Timestamp,
    UsdPerHour,
};
use serde::{Deserialize, Serialize};

use crate::event::{Reason, Stuck};
use crate::ids::SessionId;
use crate::options::SessionOptions;
use crate::outcome::TaskOutcome;
use crate::session::{AttemptPhase, Cost, Deadline, Decision, SessionKind, SessionState};
use crate::unattended::Unattended;

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

/// All information about a session. Its `Debug` and `Serialize` show no secret.
#[derive(Clone, Debug, Serialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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
