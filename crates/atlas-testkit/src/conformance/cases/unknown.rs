//! Unknown outcomes: a create whose answer was lost must never be treated as one without effect.

use std::time::Duration;

use atlas_core::{CallContext, LaunchKey, Outcome};

use crate::conformance::bench::{Bench, Stop, Verdict, ensure};
use crate::world::FaultKind;

pub(super) async fn a_create_that_committed_and_answered_500_is_found_again(
    bench: &Bench<'_>,
) -> Verdict {
    lost_answer(bench, FaultKind::CommitThen500, bench.cx()).await
}

pub(super) async fn a_create_that_committed_and_broke_off_is_found_again(
    bench: &Bench<'_>,
) -> Verdict {
    lost_answer(bench, FaultKind::CommitThenReset, bench.cx()).await
}

pub(super) async fn a_create_that_committed_and_fell_silent_is_found_again(
    bench: &Bench<'_>,
) -> Verdict {
    lost_answer(
        bench,
        FaultKind::CommitThenTimeout,
        &bench.cx().clone().with_timeout(Duration::from_secs(3)),
    )
    .await
}

pub(super) async fn a_create_with_a_truncated_answer_is_found_again(bench: &Bench<'_>) -> Verdict {
    lost_answer(bench, FaultKind::Truncated, bench.cx()).await
}

async fn lost_answer(bench: &Bench<'_>, fault: FaultKind, cx: &CallContext) -> Verdict {
    bench.control()?;
    bench.inject("spawn_compute", fault, 1).await?;
    let (key, error) = bench.spawn_failing(cx, bench.request()).await?;
    ensure!(
        error.outcome().is_unknown(),
        "{fault} is {:?}: {error}",
        error.outcome()
    );
    let books = bench.ledger().await?;
    ensure!(books.len() == 1, "the cloud made {} machines", books.len());
    let found = bench.until_found(&key, 1).await?;
    ensure!(
        found == [books[0].id.clone()],
        "the key finds {found:?}, the books have {:?}",
        books[0].id
    );
    bench.provider().terminate(bench.cx(), &found[0]).await?;
    bench.until_absent(&found[0]).await
}

pub(super) async fn a_spawn_makes_one_call_even_on_500(bench: &Bench<'_>) -> Verdict {
    let before = bench.control()?.requests(Some("spawn_compute")).await;
    bench
        .inject("spawn_compute", FaultKind::Status500, 1)
        .await?;
    let (_, error) = bench.spawn_failing(bench.cx(), bench.request()).await?;
    ensure!(
        error.outcome().is_unknown(),
        "a 500 is {:?}: {error}",
        error.outcome()
    );
    let calls = bench.control()?.requests(Some("spawn_compute")).await - before;
    ensure!(calls == 1, "one spawn made {calls} calls");
    Ok(())
}

pub(super) async fn a_spawn_through_a_failing_proxy_is_unknown(bench: &Bench<'_>) -> Verdict {
    bench.inject("spawn_compute", FaultKind::Html502, 1).await?;
    let (_, error) = bench.spawn_failing(bench.cx(), bench.request()).await?;
    ensure!(
        error.outcome().is_unknown(),
        "a 502 of a proxy is {:?}: {error}",
        error.outcome()
    );
    Ok(())
}

pub(super) async fn a_reset_before_the_commit_never_doubles(bench: &Bench<'_>) -> Verdict {
    bench
        .inject("spawn_compute", FaultKind::ResetBeforeCommit, 1)
        .await?;
    let key = bench.key();
    let request = bench
        .prepared(&LaunchKey::Tracked(key), bench.request())
        .await?;
    let answer = bench
        .provider()
        .spawn_compute(bench.cx(), &LaunchKey::Tracked(key), &request)
        .await;
    let made = bench.ledger().await?.len();
    let calls = bench.control()?.requests(Some("spawn_compute")).await;
    match answer {
        Ok(_) => Err(Stop::Failed(format!(
            "a broken-off create was repeated: {calls} calls, {made} machines"
        ))),
        Err(error) => {
            ensure!(
                made == 0 && calls <= 1,
                "{calls} calls made {made} machines"
            );
            let honest = matches!(error.outcome(), Outcome::Unknown(_) | Outcome::NeverSent);
            ensure!(
                honest,
                "a broken connection is {:?}: {error}",
                error.outcome()
            );
            Ok(())
        }
    }
}

pub(super) async fn a_create_that_committed_twice_is_found_twice(bench: &Bench<'_>) -> Verdict {
    bench
        .inject("spawn_compute", FaultKind::DuplicateCommit, 1)
        .await?;
    let key = bench.key();
    let request = bench
        .prepared(&LaunchKey::Tracked(key), bench.request())
        .await?;
    // The cloud decides whether it answers with one of the two or with an error; the provider must
    // find both.
    let answered = bench
        .provider()
        .spawn_compute(bench.cx(), &LaunchKey::Tracked(key), &request)
        .await
        .ok();
    let made = bench.ledger().await?.len();
    let found = bench.until_found(&key, made).await?;
    ensure!(
        answered.is_none_or(|compute| found.contains(&compute.id)),
        "the answered machine is not among {found:?}"
    );
    for id in &found {
        bench.provider().terminate(bench.cx(), id).await?;
        bench.until_absent(id).await?;
    }
    Ok(())
}
