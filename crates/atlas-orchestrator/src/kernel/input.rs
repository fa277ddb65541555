//! What the kernel is told, and what it remembers only as long as a process lives.

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

/// What holds while a step is taken: settings and facts about this process, never read by the
/// kernel itself.
#[derive(Clone, Copy, Debug)]
pub struct Cx<'a> {
    /// The time now.
    pub now: Timestamp,
    /// How far that may be trusted.
    pub trust: TimeTrust,
    /// The policy.
    pub policy: &'a Policy,
    /// That of the session's account.
    pub account: &'a AccountPolicy,
    /// The bounds of the session's account.
    pub bounds: Bounds,
    /// Set while the store may have been rolled back.
    pub held: bool,
}

impl Cx<'_> {
    /// What every clock agrees has been reached.
    #[must_use]
    pub fn certain(&self) -> Timestamp {
        self.now.saturating_sub(self.trust.doubt)
    }

    /// What an instant on record says, when a clock that was ahead may have written it.
    #[must_use]
    pub fn believed(&self, recorded: Timestamp) -> Timestamp {
        self.trust.believed(recorded, self.now)
    }
}

/// A failed call, as far as the kernel cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The error's kind, which decides what is tried next.
    pub kind: ErrorKind,
    /// What was said.
    pub message: String,
    /// How long the cloud asked us to wait.
    pub retry_after: Option<Duration>,
    /// There is no handle for the account in this process.
    pub no_handle: bool,
}

impl Failure {
    /// What keeps a proof from being made.
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

    /// No handle for the account was given to this process.
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

/// What an order came to.
#[derive(Clone, Debug)]
pub enum Answer {
    /// There is a machine, on the account of this identity where that could be read.
    Created(Box<Compute>, Option<String>),
    /// Certainly nothing happened.
    NotApplied(Next, Failure),
    /// Perhaps something happened; ids that leaked.
    Unknown(Vec<ComputeId>, Failure),
    /// There are machines that are not what was ordered, and perhaps being ended.
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

/// What a point read said.
#[derive(Clone, Debug)]
pub enum Reading {
    /// It is there.
    Present,
    /// Proved absent.
    Absent,
    /// Nothing was proved.
    NoAnswer(Failure),
}

/// A walk over the account, as far as one key is concerned.
#[derive(Clone, Debug)]
pub struct Walk {
    /// When it was begun.
    pub begun: Timestamp,
    /// Whether it reached its end, plausibly.
    pub complete: bool,
    /// The machines that carry the key, and those whose ids were sighted under it.
    pub found: Vec<Compute>,
}

/// What the kernel is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Nothing new: look again.
    Tick,
    /// What could be tried.
    Candidates(Result<Vec<Candidate>, Failure>),
    /// The same, with a key minted for the first of them: one write instead of two.
    Place {
        /// What could be tried.
        candidates: Vec<Candidate>,
        /// The key.
        key: TrackedKey,
        /// The supporting objects that the first of them needs, in order.
        supports: Vec<Support>,
    },
    /// A key was minted for the next order.
    Intend {
        /// It.
        key: TrackedKey,
        /// The supporting objects it needs, in order.
        supports: Vec<Support>,
    },
    /// A support was made, or not.
    SupportMade(AttemptId, usize, Result<Support, Failure>),
    /// A support was released, or not.
    SupportReleased(AttemptId, usize, Result<(), Failure>),
    /// The one call is about to be made, on the account of this identity where that could be read.
    Call(AttemptId, Option<String>),
    /// It was answered.
    Answered(AttemptId, Answer),
    /// Its answer was lost with a process; the ids on record outside the session's row.
    Lost(AttemptId, Vec<ComputeId>),
    /// A walk ended.
    Walked(AttemptId, Result<Walk, Failure>),
    /// Machines were seen under the key in somebody else's walk.
    Found(AttemptId, Vec<Compute>),
    /// A complete walk, begun then, lacked the serving machine.
    Missing(AttemptId, Timestamp),
    /// The serving machine was read.
    Observed(AttemptId, Result<Box<Compute>, Failure>),
    /// A point read, begun then.
    Read(AttemptId, ComputeId, Timestamp, Reading),
    /// A DELETE was answered, or failed.
    Deleted(AttemptId, ComputeId, Result<(), Failure>),
    /// Everything is proved but the account: its identity, read after the point reads; and ids on
    /// record outside the row.
    Conclude(AttemptId, Result<Identity, Failure>, Vec<ComputeId>),
    /// Machines under an ended attempt, by the reaper's rule.
    Reap(AttemptId, Vec<ComputeId>),
    /// End it.
    Stop(Reason),
    /// Not idle before then.
    Extend(Timestamp),
    /// Look at the limits, with the newest activity there is.
    Limits(Activity),
    /// Another node takes it over.
    Claim(String),
    /// An operator accepted the store as the surviving copy.
    Accept,
    /// This process's time jumped: its host was suspended, or a clock was set. What was ordered
    /// around that is of an unknown age, and no instant on record is later than now.
    TimeJumped,
    /// A machine reported how its command ended.
    TaskReported(i32),
    /// The machine of this attempt reported how its command ended. It counts only while the attempt
    /// is the session's own.
    TaskReportedBy(AttemptId, i32),
    /// What the cloud billed for its machines so far.
    Billed(Usd),
    /// Its events were forgotten.
    EventsForgotten,
    /// A machine reported something else.
    Reported(String, String),
}

/// Whose account a handle is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What the cloud says now.
    pub now: String,
    /// What is on record for the account.
    pub known: Option<String>,
    /// What else the account was called before its key was changed, and machines of ours were seen
    /// under the new one.
    pub aliases: Vec<String>,
}

impl Identity {
    /// Whether what this handle reads counts for an order that was made on the account `expected`.
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

/// The newest activity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// When the activity was, on the store's clock.
    pub at: Timestamp,
    /// Where it came from.
    pub source: String,
    /// When it was asked for: what was acknowledged since is not in it, however late the answer is
    /// put to use.
    pub asked_at: Timestamp,
}

/// Facts about a session that only this process has; rebuilt by looking again after a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// By attempt.
    pub attempts: BTreeMap<AttemptId, AttemptEvidence>,
}

/// Facts about an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptEvidence {
    /// This process committed the call and has not had its answer: no other may be made, and none
    /// is lost.
    pub in_call: bool,
    /// What became of DELETEs.
    pub deletes: BTreeMap<ComputeId, DeleteEvidence>,
    /// The first and second complete walks without a machine: begun.
    pub walks: [Option<Timestamp>; 2],
    /// No walk before then.
    pub next_walk: Option<Timestamp>,
    /// Walks that failed in a row, or found nothing yet while searching.
    pub walk_tries: u32,
    /// Point reads that proved absence: begun.
    pub absent: BTreeMap<ComputeId, Timestamp>,
    /// No point read before then.
    pub next_read: Option<Timestamp>,
    /// Point reads without a proof in a row.
    pub read_tries: u32,
    /// No conclusion before then.
    pub next_conclude: Option<Timestamp>,
    /// Conclusions refused in a row.
    pub conclude_tries: u32,
    /// A complete walk lacked the serving machine, or a read did not find it.
    pub suspect: bool,
    /// Its first point read that proved absence: begun.
    pub suspect_since: Option<Timestamp>,
    /// The newest walk that did not show the serving machine: begun.
    pub unshown: Option<Timestamp>,
    /// No look at the machine before then.
    pub next_poll: Option<Timestamp>,
    /// Looks so far.
    pub polls: u32,
    /// No support call before then.
    pub next_support: Option<Timestamp>,
    /// Support calls that failed in a row.
    pub support_tries: u32,
}

/// Facts about the DELETEs of one id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteEvidence {
    /// When the last one was answered well; none while another is due.
    pub answered_at: Option<Timestamp>,
    /// How many were sent.
    pub tries: u32,
    /// No other before then.
    pub next_at: Option<Timestamp>,
}

impl Evidence {
    /// Facts about an attempt.
    pub fn of(&mut self, attempt: AttemptId) -> &mut AttemptEvidence {
        self.attempts.entry(attempt).or_default()
    }

    /// Forgets whatever was seen, or is to happen, later than now: a clock that was ahead said so,
    /// and it is looked at again.
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

    /// Whether there is anything in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }
}

/// The wait before try number `tries` (from 1): doubling from `base`, capped.
#[must_use]
pub fn backoff(base: Duration, cap: Duration, tries: u32) -> Duration {
    base.saturating_mul(
        1_u32
            .checked_shl(tries.saturating_sub(1))
            .unwrap_or(u32::MAX),
    )
    .min(cap)
}
