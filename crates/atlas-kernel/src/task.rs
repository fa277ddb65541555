//! How the end of a task is judged. A task is `completed` only on evidence: a reported exit code of
//! 0, or that its command ran and ended by itself. Everything else has failed, with a cause.
//!
//! | what the cloud shows | judged as |
//! |---|---|
//! | out of memory, with any exit code | failed, `out_of_memory` |
//! | an exit code, and no stop was requested | completed if 0, else failed; `reported` |
//! | stopped or gone because the command ended | completed, `inferred` |
//! | gone, the machine deletes itself after its command, and it was seen running | completed, `inferred` |
//! | the machine broke | failed; `never_ran` if it was never seen running |
//! | stopped or gone for another reason, or without one | the machine died: see [`of_death`] |

use atlas_core::{Compute, ComputeStatus, StopCause};

use crate::event::Death;
use crate::outcome::{TaskCause, TaskKind, TaskOutcome};

/// What is known about the run, besides the machine's current state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// A poll or a listing showed its container running.
    pub(super) seen_running: bool,
    /// The machine deletes itself when its command has ended.
    pub(super) ends_itself: bool,
}

/// Whether a machine's current state shows that its container runs.
pub(super) fn is_running(compute: &Compute) -> bool {
    compute.status == ComputeStatus::Running && compute.ready != Some(false)
}

/// The outcome that a machine's state shows. `None` while the task continues, and if the machine
/// died (the session's failure policy then decides).
pub(super) fn outcome(compute: &Compute, run: Run) -> Option<TaskOutcome> {
    if compute.preempted {
        return None;
    }
    let failed = |cause| Some(TaskOutcome::inferred(TaskKind::Failed, Some(cause)));
    let completed = Some(TaskOutcome::inferred(TaskKind::Completed, None));
    let over = matches!(
        compute.status,
        ComputeStatus::Stopped | ComputeStatus::Terminated
    );
    match (compute.stop_cause, compute.exit_code) {
        (Some(StopCause::OutOfMemory), code) => Some(TaskOutcome {
            exit_code: code.filter(|code| *code != 0),
            ..TaskOutcome::inferred(TaskKind::Failed, Some(TaskCause::OutOfMemory))
        }),
        (None | Some(StopCause::CommandEnded), Some(code)) => Some(TaskOutcome::reported(code)),
        (Some(StopCause::CommandEnded), None) if over => completed,
        (None, None)
            if compute.status == ComputeStatus::Terminated
                && run.ends_itself
                && run.seen_running =>
        {
            completed
        }
        (cause, _) if compute.status == ComputeStatus::Failed => {
            failed(told(cause, run).unwrap_or(TaskCause::HostLost))
        }
        _ => None,
    }
}

/// The outcome of a task whose machine died and is not replaced.
pub(super) fn of_death(how: Death, last: Option<&Compute>, run: Run) -> TaskOutcome {
    // It was to delete itself after its command, it ran, and it is gone.
    if how == Death::Vanished && run.ends_itself && run.seen_running {
        return TaskOutcome::inferred(TaskKind::Completed, None);
    }
    let cause = match how {
        Death::Preempted => TaskCause::Preempted,
        _ => told(last.and_then(|seen| seen.stop_cause), run).unwrap_or(match how {
            // A machine that deletes itself after its command does not stop by itself.
            Death::Stopped if run.ends_itself => TaskCause::Stopped,
            Death::Failed => TaskCause::HostLost,
            _ => TaskCause::Unknown,
        }),
    };
    TaskOutcome::inferred(TaskKind::Failed, Some(cause))
}

fn told(cause: Option<StopCause>, run: Run) -> Option<TaskCause> {
    match cause {
        Some(StopCause::NeverRan) => Some(TaskCause::NeverRan),
        Some(StopCause::OutOfMemory) => Some(TaskCause::OutOfMemory),
        _ if !run.seen_running => Some(TaskCause::NeverRan),
        Some(StopCause::Requested) => Some(TaskCause::Stopped),
        Some(StopCause::HostLost) => Some(TaskCause::HostLost),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use atlas_core::{ComputeId, ProviderId};

    use super::*;

    const RAN: Run = Run {
        seen_running: true,
        ends_itself: false,
    };
    const NEVER_RAN: Run = Run {
        seen_running: false,
        ends_itself: true,
    };
    const WRAPPED: Run = Run {
        seen_running: true,
        ends_itself: true,
    };

    fn machine(status: ComputeStatus, code: Option<i32>, cause: Option<StopCause>) -> Compute {
        let id = ComputeId::new("m-1").unwrap();
        let mut compute = Compute::new(id, ProviderId::new("mock").unwrap(), status);
        (compute.exit_code, compute.stop_cause) = (code, cause);
        compute
    }

    #[test]
    fn a_task_is_completed_only_on_evidence_that_it_ran_and_ended_by_itself() {
        use ComputeStatus::{Failed, Running, Stopped, Terminated};
        use StopCause::{CommandEnded, HostLost, NeverRan, OutOfMemory, Requested};
        let completed = |m: Compute, run| {
            outcome(&m, run).is_some_and(|outcome| outcome.kind == TaskKind::Completed)
        };
        assert!(completed(machine(Stopped, Some(0), None), RAN));
        assert!(completed(machine(Stopped, None, Some(CommandEnded)), RAN));
        assert!(completed(machine(Terminated, None, None), WRAPPED));
        for status in [Stopped, Terminated, Failed, Running] {
            for cause in [Requested, OutOfMemory, HostLost, NeverRan] {
                for code in [None, Some(0)] {
                    for run in [RAN, NEVER_RAN, WRAPPED] {
                        let seen = machine(status.clone(), code, Some(cause));
                        assert!(
                            !completed(seen, run),
                            "{status:?} {cause:?} {code:?} {run:?}"
                        );
                    }
                }
            }
            let odd = machine(status.clone(), None, None);
            assert!(!completed(odd.clone(), RAN), "{status:?}");
            assert!(!completed(odd, NEVER_RAN), "{status:?}");
        }
    }

    #[test]
    fn a_machine_that_was_gone_before_it_ran_completed_nothing() {
        for how in [
            Death::Vanished,
            Death::Terminated,
            Death::Stopped,
            Death::Failed,
        ] {
            let outcome = of_death(how, None, NEVER_RAN);
            assert_eq!(
                (outcome.kind, outcome.cause),
                (TaskKind::Failed, Some(TaskCause::NeverRan)),
                "{how:?}"
            );
        }
        let outcome = of_death(Death::Vanished, None, WRAPPED);
        assert_eq!(outcome.kind, TaskKind::Completed);
        let outcome = of_death(Death::Vanished, None, RAN);
        assert_eq!(outcome.cause, Some(TaskCause::Unknown));
    }
}
