//! The kernel's inputs, and the evidence that it keeps only while a process runs.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{
    AttemptId, Candidate, Compute, ComputeId, Error, ErrorKind, Next, Outcome, Support, Timestamp,
    TrackedKey, Usd,
};

use super::clock::TimeTrust;
use super::record::Bounds;
use crate::event::{Reason, Stuck};
use crate::policy::{AccountPolicy, Policy};

/// The context of a step: settings and facts about this process. The kernel does not read any of
/// them itself.
#[derive(Clone, Copy, Debug)]
pub struct Cx<'a> {
    /// The current time.
    pub now: Timestamp,
    /// How far the current time can be trusted.
    pub trust: TimeTrust,
    /// The policy.
    pub policy: &'a Policy,
    /// The policy of the session's account.
    pub account: &'a AccountPolicy,
    /// The bounds of the session's account.
    pub bounds: Bounds,
    /// Whether the process holds because the store may have been rolled back.
    pub held: bool,
}

impl Cx<'_> {
    /// The time that every clock agrees has been reached.
    #[must_use]
    pub fn certain(&self) -> Timestamp {
        self.now.saturating_sub(self.trust.doubt)
    }

    /// Corrects a recorded instant that a clock that was ahead may have written.
    #[must_use]
    pub fn believed(&self, recorded: Timestamp) -> Timestamp {
        self.trust.believed(recorded, self.now)
    }
}

/// The parts of a failed call that matter to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The error's kind, which decides what is tried next.
    pub kind: ErrorKind,
    /// The error message.
    pub message: String,
    /// How long the cloud asked callers to wait.
    pub retry_after: Option<Duration>,
    /// This process has no provider handle for the account.
    pub no_handle: bool,
}

impl Failure {
    /// The cause to report when this failure prevents a proof.
    #[must_use]
    pub fn stuck(&self) -> Stuck {
        match self.kind {
            _ if self.no_handle => Stuck::NoHandle,
            ErrorKind::Unauthorized | ErrorKind::Forbidden => Stuck::Credential,
            kind => Stuck::CloudUnreachable {
                kind: kind.as_str().to_owned(),
            },
        }
    }

    /// The failure of a call on an account without a provider handle.
    #[must_use]
    pub fn no_handle() -> Self {
        Self {
            kind: ErrorKind::Unavailable,
            message: "this process has no provider for the account".to_owned(),
            retry_after: None,
            no_handle: true,
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            message: error.to_string(),
            retry_after: error.retry_after(),
            no_handle: false,
        }
    }
}

/// The result of an order.
#[derive(Clone, Debug)]
pub enum Answer {
    /// There is a machine, on the account with this identity if that could be read.
    Created(Box<Compute>, Option<String>),
    /// The cloud certainly did nothing.
    NotApplied(Next, Failure),
    /// The cloud may have acted; holds the ids that appeared in its answer.
    Unknown(Vec<ComputeId>, Failure),
    /// There are machines that are not what was ordered; their deletion may be in progress.
    Unwanted(Vec<ComputeId>, Failure),
}

impl From<&Error> for Answer {
    fn from(error: &Error) -> Self {
        let failure = Failure::from(error);
        match error.outcome() {
            Outcome::NotApplied(next) => Self::NotApplied(*next, failure),
            Outcome::NeverSent => Self::NotApplied(Next::SameLater, failure),
            Outcome::Unknown(ids) => Self::Unknown(ids.clone(), failure),
            Outcome::Unwanted(ids) => Self::Unwanted(ids.clone(), failure),
        }
    }
}

/// The result of a point read.
#[derive(Clone, Debug)]
pub enum Reading {
    /// The machine exists.
    Present,
    /// The machine is proved absent.
    Absent,
    /// Nothing was proved.
    NoAnswer(Failure),
}

/// The result of a walk over the account, reduced to one launch key.
#[derive(Clone, Debug)]
pub struct Walk {
    /// When the walk started.
    pub begun: Timestamp,
    /// Whether it reached its end and is plausible.
    pub complete: bool,
    /// The machines that carry the key, and those whose ids were sighted under it.
    pub found: Vec<Compute>,
}

/// An input of the kernel.
#[derive(Clone, Debug)]
pub enum Input {
    /// Nothing new: only re-evaluate.
    Tick,
    /// The candidates that could be tried.
    Candidates(Result<Vec<Candidate>, Failure>),
    /// The candidates with a key minted for the first of them, so that one write is enough.
    Place {
        /// The candidates, best first.
        candidates: Vec<Candidate>,
        /// The minted key.
        key: TrackedKey,
        /// The supporting objects that the first candidate needs, in order.
        supports: Vec<Support>,
    },
    /// A key was minted for the next order.
    Intend {
        /// The minted key.
        key: TrackedKey,
        /// The supporting objects that the order needs, in order.
        supports: Vec<Support>,
    },
    /// The result of making a supporting object.
    SupportMade(AttemptId, usize, Result<Support, Failure>),
    /// The result of releasing a supporting object.
    SupportReleased(AttemptId, usize, Result<(), Failure>),
    /// The create call is about to be made, on the account with this identity if that could be
    /// read.
    Call(AttemptId, Option<String>),
    /// The create call was answered.
    Answered(AttemptId, Answer),
    /// The answer of the create call was lost with a process; holds the ids recorded outside the
    /// session's row.
    Lost(AttemptId, Vec<ComputeId>),
    /// A walk ended.
    Walked(AttemptId, Result<Walk, Failure>),
    /// Machines with the key were seen in a walk made for another purpose.
    Found(AttemptId, Vec<Compute>),
    /// A complete walk that started at this time did not contain the serving machine.
    Missing(AttemptId, Timestamp),
    /// The serving machine was read.
    Observed(AttemptId, Result<Box<Compute>, Failure>),
    /// The result of a point read that started at this time.
    Read(AttemptId, ComputeId, Timestamp, Reading),
    /// The result of a DELETE.
    Deleted(AttemptId, ComputeId, Result<(), Failure>),
    /// Everything is proved except the account: holds its identity, read after the point reads, and
    /// the ids recorded outside the row.
    Conclude(AttemptId, Result<Identity, Failure>, Vec<ComputeId>),
    /// Machines of an ended attempt that the reaper wants to delete.
    Reap(AttemptId, Vec<ComputeId>),
    /// End the session.
    Stop(Reason),
    /// The session must not end for idleness before this time.
    Extend(Timestamp),
    /// Evaluate the limits with the latest known activity.
    Limits(Activity),
    /// The named node takes the session over.
    Claim(String),
    /// An operator accepted the store as the authoritative copy.
    Accept,
    /// This process's time jumped: its host was suspended, or a clock was set. The age of orders
    /// around the jump is unknown, and no recorded instant is later than now.
    TimeJumped,
    /// A machine reported how its command ended.
    TaskReported(i32),
    /// The machine of this attempt reported how its command ended. It counts only while the attempt
    /// is the session's current one.
    TaskReportedBy(AttemptId, i32),
    /// What the cloud has billed for the session's machines so far.
    Billed(Usd),
    /// The session's events were deleted after their retention.
    EventsForgotten,
    /// A machine sent another report: its kind and text.
    Reported(String, String),
}

/// The identity of the account behind a handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The identity that the cloud reports now.
    pub now: String,
    /// The recorded identity of the account.
    pub known: Option<String>,
    /// Earlier identities of the account: its key was replaced, and machines of ours were seen with
    /// the new one.
    pub aliases: Vec<String>,
}

impl Identity {
    /// Whether what this handle reads is valid for an order made on the account `expected`.
    #[must_use]
    pub fn speaks_for(&self, expected: Option<&str>) -> bool {
        let same = |name: &str| {
            name == self.now
                || (self.known.as_ref() == Some(&self.now)
                    && self.aliases.iter().any(|a| a == name))
        };
        expected.or(self.known.as_deref()).is_none_or(same)
    }
}

/// The latest activity of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// When the activity was, on the store's clock.
    pub at: Timestamp,
    /// The source of the activity.
    pub source: String,
    /// When the sources were asked. Touches acknowledged since then are not included, however late
    /// the answer is used.
    pub asked_at: Timestamp,
}

/// Facts about a session that only this process has; a new process gathers them again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Facts by attempt.
    pub attempts: BTreeMap<AttemptId, AttemptEvidence>,
}

/// Facts about an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptEvidence {
    /// This process committed the call and is still waiting for its answer: no other call may be
    /// made, and the answer is not lost.
    pub in_call: bool,
    /// The state of each DELETE.
    pub deletes: BTreeMap<ComputeId, DeleteEvidence>,
    /// When the first and second complete walk without a machine started.
    pub walks: [Option<Timestamp>; 2],
    /// How many complete walks without a machine were made since the order should be listed, and
    /// when the latest of them started.
    pub searched: Option<(u32, Timestamp)>,
    /// No walk starts before this time.
    pub next_walk: Option<Timestamp>,
    /// Consecutive walks that failed, or found nothing yet while searching.
    pub walk_tries: u32,
    /// Point reads that proved absence, with their start time.
    pub absent: BTreeMap<ComputeId, Timestamp>,
    /// No point read starts before this time.
    pub next_read: Option<Timestamp>,
    /// Consecutive point reads without a proof.
    pub read_tries: u32,
    /// No conclusion is tried before this time.
    pub next_conclude: Option<Timestamp>,
    /// Consecutive conclusions that were refused.
    pub conclude_tries: u32,
    /// A complete walk did not contain the serving machine, or a read did not find it.
    pub suspect: bool,
    /// When the first point read started that proved the serving machine absent.
    pub suspect_since: Option<Timestamp>,
    /// When the latest walk started that did not contain the serving machine.
    pub unshown: Option<Timestamp>,
    /// The machine is not polled before this time.
    pub next_poll: Option<Timestamp>,
    /// Number of polls so far.
    pub polls: u32,
    /// No call for a supporting object before this time.
    pub next_support: Option<Timestamp>,
    /// Consecutive failed calls for supporting objects.
    pub support_tries: u32,
}

/// Facts about the DELETE calls of one id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteEvidence {
    /// When the last one succeeded; `None` while another is due.
    pub answered_at: Option<Timestamp>,
    /// Number of DELETE calls sent.
    pub tries: u32,
    /// No further DELETE before this time.
    pub next_at: Option<Timestamp>,
}

impl Evidence {
    /// The evidence of an attempt.
    pub fn of(&mut self, attempt: AttemptId) -> &mut AttemptEvidence {
        self.attempts.entry(attempt).or_default()
    }

    /// Drops everything that was seen, or is planned, at a time later than now: it comes from a
    /// clock that was ahead, and is gathered again.
    pub fn not_later_than(&mut self, now: Timestamp) {
        for e in self.attempts.values_mut() {
            let is_later = |at: &Timestamp| *at > now;
            for delete in e.deletes.values_mut() {
                delete.answered_at = delete.answered_at.filter(|at| !is_later(at));
                delete.next_at = delete.next_at.filter(|at| !is_later(at));
            }
            if e.walks.iter().flatten().any(is_later) {
                e.walks = [None; 2];
            }
            e.searched = e.searched.filter(|(_, at)| !is_later(at));
            e.absent.retain(|_, begun| !is_later(begun));
            let times = [
                &mut e.next_walk,
                &mut e.next_read,
                &mut e.next_conclude,
                &mut e.suspect_since,
                &mut e.next_poll,
                &mut e.next_support,
            ];
            for time in times {
                *time = time.filter(|at| !is_later(at));
            }
        }
    }

    /// Whether there is no evidence.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }
}

/// The wait before attempt number `tries` (from 1): doubling from `base`, capped.
#[must_use]
pub fn backoff(base: Duration, cap: Duration, tries: u32) -> Duration {
    base.saturating_mul(
        1_u32
            .checked_shl(tries.saturating_sub(1))
            .unwrap_or(u32::MAX),
    )
    .min(cap)
}
