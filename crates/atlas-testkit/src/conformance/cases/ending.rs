//! How a machine came to its end. A task counts as completed on a provider's word, so a provider
//! says that a command ended by itself only where the cloud says so.

use atlas_core::{Capability, Compute, ComputeId, ComputeStatus, ErrorKind, StopCause};

use crate::conformance::bench::{Bench, Verdict, ensure};
use crate::world::FaultKind;

/// Whether a description claims that the command ended by itself: it says so, or it has an exit
/// code and no other cause.
fn claims_an_end(compute: &Compute) -> bool {
    match compute.stop_cause {
        Some(cause) => cause == StopCause::CommandEnded,
        None => compute.exit_code.is_some(),
    }
}

/// What a description says of the end of a machine.
fn told(compute: &Compute) -> String {
    format!(
        "it is {} with exit code {:?} and stop cause {:?}",
        compute.status, compute.exit_code, compute.stop_cause
    )
}

/// Ends the machine, and reads it until it is gone: no read may claim that its command ended by
/// itself.
async fn terminated_without_a_claim(bench: &Bench<'_>, id: &ComputeId, how: &str) -> Verdict {
    bench.provider().terminate(bench.cx(), id).await?;
    let mut patience = bench.patience();
    loop {
        match bench.provider().get_compute(bench.cx(), id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(read) => {
                ensure!(
                    !claims_an_end(&read),
                    "{how} and terminated, {}",
                    told(&read)
                );
                if read.status == ComputeStatus::Terminated {
                    return Ok(());
                }
                patience.again(&told(&read)).await?;
            }
        }
    }
}

pub(super) async fn a_command_that_ended_by_itself_is_not_called_stopped(
    bench: &Bench<'_>,
) -> Verdict {
    let codes = bench.has(Capability::ExitCodes);
    let request = bench.request().command(["sh", "-c", "exit 3"]);
    let (_, made) = bench.spawn(request).await?;
    bench.until_shown(&made.id).await?;
    let (mut patience, mut seen_running) = (bench.long_patience(), false);
    loop {
        let read = match bench.provider().get_compute(bench.cx(), &made.id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            read => read?,
        };
        let by_itself = |cause| cause == StopCause::CommandEnded;
        ensure!(
            !read.preempted
                && read.status != ComputeStatus::Failed
                && read.stop_cause.is_none_or(by_itself),
            "its command ended by itself, and {}",
            told(&read)
        );
        let over = matches!(
            read.status,
            ComputeStatus::Stopped | ComputeStatus::Terminated
        );
        if read.exit_code.is_some() || (over && !codes) {
            return Ok(());
        }
        if read.status == ComputeStatus::Running && !codes && !seen_running {
            // On some clouds a machine outlives its command, and there is no end to wait for.
            (patience, seen_running) = (bench.patience(), true);
        }
        match patience.again(&told(&read)).await {
            Err(_) if seen_running => return Ok(()),
            waited => waited?,
        }
    }
}

pub(super) async fn a_machine_that_was_stopped_is_not_said_to_have_ended_by_itself(
    bench: &Bench<'_>,
) -> Verdict {
    let request = bench.request().command(["sleep", "86400"]);
    let (_, made) = bench.spawn(request).await?;
    let read = bench
        .until_status(&made.id, &ComputeStatus::Running)
        .await?;
    ensure!(!claims_an_end(&read), "it runs, and {}", told(&read));
    if bench.has(Capability::Stop) {
        bench.provider().stop(bench.cx(), &made.id).await?;
        let read = bench
            .until_status(&made.id, &ComputeStatus::Stopped)
            .await?;
        ensure!(!claims_an_end(&read), "it was stopped, and {}", told(&read));
    }
    terminated_without_a_claim(bench, &made.id, "it was running").await
}

pub(super) async fn a_machine_that_never_ran_is_not_said_to_have_ended_by_itself(
    bench: &Bench<'_>,
) -> Verdict {
    bench
        .inject("spawn_compute", FaultKind::NeverReady, 1)
        .await?;
    let (_, made) = bench.spawn(bench.request()).await?;
    bench.until_shown(&made.id).await?;
    let mut patience = bench.patience();
    loop {
        let read = bench.provider().get_compute(bench.cx(), &made.id).await?;
        ensure!(!claims_an_end(&read), "it never ran, and {}", told(&read));
        ensure!(
            read.status != ComputeStatus::Running || read.ready == Some(false),
            "it never ran, and it is said to run"
        );
        if patience.again(&told(&read)).await.is_err() {
            break;
        }
    }
    // A cloud may refuse to stop what does not run yet.
    if bench.has(Capability::Stop) && bench.provider().stop(bench.cx(), &made.id).await.is_ok() {
        bench
            .subject()
            .wait(bench.provider().limits().visibility_bound)
            .await;
        let read = bench.provider().get_compute(bench.cx(), &made.id).await?;
        ensure!(
            !claims_an_end(&read),
            "it was stopped before it ran, and {}",
            told(&read)
        );
    }
    terminated_without_a_claim(bench, &made.id, "it never ran").await
}
