//! The words for sessions and their orders: states, kinds, phases, deadlines, cost.

use atlas_core::{Timestamp, Usd, UsdPerHour};
use serde::{Deserialize, Serialize};

use crate::event::Limit;

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

/// A decision and its reason, for display.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When it was made.
    pub at: Timestamp,
    /// The decision and its reason.
    pub text: String,
}
