//! Injected faults: their kinds, the queue, the plans and the counters.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use atlas_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::dice::Dice;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $word:literal;)*) => {
        /// A kind of fault, with its name in the admin interface's JSON.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum FaultKind { $($(#[$doc])* #[serde(rename = $word)] $kind,)* }

        impl FaultKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The fault's stable name, as the admin interface takes it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $word,)* }
            }
        }
    };
}

kinds! {
    /// The work is done, the answer is a 500.
    CommitThen500 "commit-then-500";
    /// The work is done, the connection is reset.
    CommitThenReset "commit-then-reset";
    /// The work is done, no answer ever comes.
    CommitThenTimeout "commit-then-timeout";
    /// One order, two machines.
    DuplicateCommit "duplicate-commit";
    /// The connection is reset before anything is done.
    ResetBeforeCommit "reset-before-commit";
    /// A 500, and nothing done.
    Status500 "500";
    /// A 429, and nothing done.
    Status429 "429";
    /// A 429 that asks for a wait of hours ([`FaultKind::LONG_WAIT`]), and nothing done.
    Status429ForHours "429-for-hours";
    /// The work is done; the proxy in front loses the answer and writes HTML of its own.
    Html502 "html-502";
    /// The work is done; the answer breaks off in the middle.
    Truncated "truncated";
    /// The work is done; the answer is delayed.
    Slow "slow";
    /// The new machine stays invisible for longer than the cloud's bound.
    LateAppearance "late-appearance";
    /// A read shows each machine as it was some time ago.
    StaleList "stale-list";
    /// A list that looks whole lacks some machines.
    PartialList "partial-list";
    /// A list that looks whole is empty.
    EmptyList "empty-list";
    /// One machine is missing between two pages.
    PageShift "page-shift";
    /// Sold out.
    NoCapacity "no-capacity";
    /// A quota of the account is used up; refused in the cloud's own words, and nothing made.
    QuotaExceeded "quota-exceeded";
    /// The machine is taken back.
    Preempt "preempt";
    /// The machine is gone without a trace.
    Vanish "vanish";
    /// The machine never starts to run.
    NeverReady "never-ready";
    /// The key becomes invalid.
    RevokeKey "revoke-key";
    /// The key moves to another account; a second time moves it back to the first one.
    SwapAccount "swap-account";
}

impl FaultKind {
    /// The wait that a [`FaultKind::Status429ForHours`] asks for.
    pub const LONG_WAIT: Duration = Duration::from_secs(4 * 3600);

    /// Whether this fault can show on that operation.
    #[must_use]
    pub fn concerns(self, operation: &str) -> bool {
        let creates = operation == "spawn_compute";
        match self {
            Self::DuplicateCommit | Self::LateAppearance => creates || operation == "run_job",
            Self::QuotaExceeded => creates,
            Self::NoCapacity | Self::NeverReady => creates || operation == "start",
            Self::PartialList | Self::EmptyList | Self::PageShift => operation == "list_compute",
            Self::StaleList => matches!(operation, "list_compute" | "get_compute"),
            Self::Preempt | Self::Vanish => {
                matches!(
                    operation,
                    "spawn_compute"
                        | "get_compute"
                        | "list_compute"
                        | "start"
                        | "stop"
                        | "terminate"
                        | "logs"
                )
            }
            Self::CommitThen500
            | Self::CommitThenReset
            | Self::CommitThenTimeout
            | Self::ResetBeforeCommit
            | Self::Status500
            | Self::Status429
            | Self::Status429ForHours
            | Self::Html502
            | Self::Truncated
            | Self::Slow
            | Self::RevokeKey
            | Self::SwapAccount => true,
        }
    }

    /// Whether it affects the answer of a call, and not what is done or shown.
    const fn spoils_the_answer(self) -> bool {
        match self {
            Self::CommitThen500
            | Self::CommitThenReset
            | Self::CommitThenTimeout
            | Self::ResetBeforeCommit
            | Self::Status500
            | Self::Status429
            | Self::Status429ForHours
            | Self::Html502
            | Self::Truncated
            | Self::Slow => true,
            Self::DuplicateCommit
            | Self::LateAppearance
            | Self::StaleList
            | Self::PartialList
            | Self::EmptyList
            | Self::PageShift
            | Self::NoCapacity
            | Self::QuotaExceeded
            | Self::Preempt
            | Self::Vanish
            | Self::NeverReady
            | Self::RevokeKey
            | Self::SwapAccount => false,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for FaultKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| Error::validation("kind", format!("{text:?} is not a kind of fault")))
    }
}

/// A queued fault: it strikes the next `count` calls of its operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The cloud; any if unset.
    #[serde(default)]
    pub cloud: Option<String>,
    /// The operation, by its name in the contract; any that the kind concerns if unset.
    #[serde(default)]
    pub operation: Option<String>,
    /// The kind of fault.
    pub kind: FaultKind,
    /// How many times; once if unset.
    #[serde(default = "once")]
    pub count: u32,
}

const fn once() -> u32 {
    1
}

impl Fault {
    /// A fault of this kind that strikes one call of this operation of this cloud.
    pub fn new(cloud: impl Into<String>, operation: impl Into<String>, kind: FaultKind) -> Self {
        Self {
            cloud: Some(cloud.into()),
            operation: Some(operation.into()),
            kind,
            count: 1,
        }
    }

    /// Sets how many times it strikes.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        Self { count, ..self }
    }

    fn strikes(&self, cloud: &str, operation: &str) -> bool {
        self.count > 0
            && self.cloud.as_deref().is_none_or(|named| named == cloud)
            && self
                .operation
                .as_deref()
                .is_none_or(|named| same_operation(named) == operation)
            && self.kind.concerns(operation)
    }
}

/// A fault that may strike any call, at random.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultPlan {
    /// The cloud; any if unset.
    #[serde(default)]
    pub cloud: Option<String>,
    /// The operation; any that the kind concerns if unset.
    #[serde(default)]
    pub operation: Option<String>,
    /// The kind of fault.
    pub kind: FaultKind,
    /// The probability, per million calls.
    pub per_million: u32,
}

/// The name of an operation in the queue: operations that are served by the same HTTP call share
/// one name.
#[must_use]
pub fn same_operation(operation: &str) -> &str {
    match operation {
        "presence" => "get_compute",
        "find_by_launch_key" => "list_compute",
        "candidates" => "list_gpu_types",
        other => other,
    }
}

/// The faults of one call: those on what is done or shown, and the one on its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    pub(super) effects: Vec<FaultKind>,
    pub(super) answer: Option<FaultKind>,
}

impl Arrival {
    /// Whether this fault applies.
    #[must_use]
    pub fn has(&self, kind: FaultKind) -> bool {
        self.effects.contains(&kind)
    }

    /// The fault of the answer, if any.
    #[must_use]
    pub const fn answer(&self) -> Option<FaultKind> {
        self.answer
    }

    /// The fault that prevents the work, if any.
    #[must_use]
    pub fn refused(&self) -> Option<FaultKind> {
        self.answer.filter(|kind| {
            matches!(
                kind,
                FaultKind::ResetBeforeCommit
                    | FaultKind::Status500
                    | FaultKind::Status429
                    | FaultKind::Status429ForHours
            )
        })
    }
}

/// The queued faults, and counters of those that struck.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) queue: Vec<Fault>,
    pub(super) plans: Vec<FaultPlan>,
    pub(super) struck: BTreeMap<FaultKind, u64>,
}

impl Faults {
    /// At most one fault of the answer strikes a call, and one of each other kind; faults that
    /// could not have an effect remain queued.
    pub(super) fn strike(
        &mut self,
        cloud: &str,
        operation: &str,
        dice: &Dice,
        shows: impl Fn(FaultKind) -> bool,
    ) -> Arrival {
        let mut arrival = Arrival::default();
        for fault in &mut self.queue {
            if fault.strikes(cloud, operation) && shows(fault.kind) && arrival.take(fault.kind) {
                fault.count -= 1;
            }
        }
        self.queue.retain(|fault| fault.count > 0);
        for plan in &self.plans {
            let concerned = plan.cloud.as_deref().is_none_or(|named| named == cloud)
                && plan
                    .operation
                    .as_deref()
                    .is_none_or(|named| same_operation(named) == operation)
                && plan.kind.concerns(operation);
            if concerned && dice.chance(plan.per_million) && shows(plan.kind) {
                arrival.take(plan.kind);
            }
        }
        arrival
    }

    pub(super) fn count(&mut self, kind: FaultKind) {
        *self.struck.entry(kind).or_default() += 1;
    }
}

impl Arrival {
    fn take(&mut self, kind: FaultKind) -> bool {
        if kind.spoils_the_answer() {
            let free = self.answer.is_none();
            if free {
                self.answer = Some(kind);
            }
            free
        } else {
            let free = !self.effects.contains(&kind);
            if free {
                self.effects.push(kind);
            }
            free
        }
    }
}
