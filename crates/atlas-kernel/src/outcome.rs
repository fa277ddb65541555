//! How a task ended, and how certain that is.

use serde::{Deserialize, Serialize};

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
    pub fn reported(code: i32) -> Self {
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
    pub fn inferred(kind: TaskKind, cause: Option<TaskCause>) -> Self {
        Self {
            kind,
            exit_code: None,
            proof: Proof::Inferred,
            cause,
        }
    }
}
