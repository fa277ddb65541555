//! Proof of absence: reported only when the cloud really said so.

use atlas_core::{ErrorKind, Presence};

use crate::conformance::bench::{Bench, Verdict, ensure};
use crate::world::FaultKind;

pub(super) async fn absence_is_proved_only_after_death(bench: &Bench<'_>) -> Verdict {
    let (_, made) = bench.spawn(bench.request()).await?;
    bench.until_shown(&made.id).await?;
    let before = bench.provider().presence(bench.cx(), &made.id).await;
    ensure!(
        matches!(before, Presence::Present),
        "before its end: {before:?}"
    );
    bench.provider().terminate(bench.cx(), &made.id).await?;
    bench.until_absent(&made.id).await?;
    if let Some(control) = bench.subject().control() {
        let live = control
            .ledger()
            .await
            .iter()
            .any(|entry| entry.id == made.id && entry.live);
        ensure!(
            !live,
            "absence is proved, and the cloud's books say it lives"
        );
    }
    Ok(())
}

pub(super) async fn a_bad_key_proves_nothing(bench: &Bench<'_>) -> Verdict {
    let stranger = bench.with_bad_key()?;
    let (_, made) = bench.spawn(bench.request()).await?;
    bench.until_shown(&made.id).await?;
    for id in [made.id, bench.subject().unknown_id()] {
        let seen = stranger.presence(bench.cx(), &id).await;
        ensure!(
            matches!(seen, Presence::NoAnswer(_)),
            "with a bad key {id} is {seen:?}"
        );
    }
    Ok(())
}

pub(super) async fn a_failing_cloud_proves_nothing(bench: &Bench<'_>) -> Verdict {
    bench.control()?;
    let (_, made) = bench.spawn(bench.request()).await?;
    bench.until_shown(&made.id).await?;
    for fault in [
        FaultKind::Status500,
        FaultKind::Status429,
        FaultKind::Html502,
        FaultKind::Truncated,
        FaultKind::ResetBeforeCommit,
    ] {
        bench.inject("get_compute", fault, 1).await?;
        let seen = bench.provider().presence(&bench.once(), &made.id).await;
        ensure!(
            matches!(seen, Presence::NoAnswer(_)),
            "through {fault} it is {seen:?}"
        );
    }
    let after = bench.provider().presence(bench.cx(), &made.id).await;
    ensure!(
        matches!(after, Presence::Present),
        "after the faults it is {after:?}"
    );
    Ok(())
}

pub(super) async fn a_vanished_machine_is_absent_and_terminates(bench: &Bench<'_>) -> Verdict {
    bench.control()?;
    let (_, made) = bench.spawn(bench.request()).await?;
    bench.until_shown(&made.id).await?;
    bench.inject("get_compute", FaultKind::Vanish, 1).await?;
    bench.until_absent(&made.id).await?;
    let read = bench.provider().get_compute(bench.cx(), &made.id).await;
    let gone = match &read {
        Ok(compute) => compute.status == atlas_core::ComputeStatus::Terminated,
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    ensure!(gone, "it is absent, and read as {read:?}");
    bench.provider().terminate(bench.cx(), &made.id).await?;
    Ok(())
}
