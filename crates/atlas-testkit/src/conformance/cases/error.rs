//! Kinds of error: each names what a caller can do about it.

use std::time::Duration;

use atlas_core::{ErrorKind, LaunchKey, ListFilter, Next, Outcome, Secret};

use crate::conformance::bench::{Bench, Stop, Verdict, ensure};
use crate::world::FaultKind;

pub(super) async fn a_bad_key_is_unauthorized(bench: &Bench<'_>) -> Verdict {
    let stranger = bench.with_bad_key()?;
    let (_, made) = bench.spawn(bench.request()).await?;
    bench.until_shown(&made.id).await?;
    let key = LaunchKey::Tracked(bench.key());
    let order = bench.prepared(&key, bench.request()).await?;
    let refused = [
        (
            "get_compute",
            stranger.get_compute(bench.cx(), &made.id).await.err(),
        ),
        (
            "list_compute",
            stranger
                .list_compute(bench.cx(), &ListFilter::all())
                .await
                .err(),
        ),
        (
            "terminate",
            stranger.terminate(bench.cx(), &made.id).await.err(),
        ),
        (
            "spawn_compute",
            stranger.spawn_compute(bench.cx(), &key, &order).await.err(),
        ),
    ];
    for (operation, error) in &refused {
        let kind = error.as_ref().map(|error| error.kind());
        ensure!(
            kind == Some(ErrorKind::Unauthorized),
            "{operation} with a bad key: {error:?}"
        );
    }
    let [.., (_, Some(error))] = &refused else {
        return Ok(());
    };
    ensure!(
        *error.outcome() == Outcome::NotApplied(Next::Stop),
        "a refused create is {:?}",
        error.outcome()
    );
    let again = bench.provider().get_compute(bench.cx(), &made.id).await?;
    ensure!(
        again.id == made.id,
        "a terminate with a bad key ended the machine"
    );
    Ok(())
}

pub(super) async fn a_key_of_the_call_counts(bench: &Bench<'_>) -> Verdict {
    let cx = bench
        .cx()
        .clone()
        .with_api_key(Secret::new("conformance-not-a-key"));
    let error = bench
        .provider()
        .list_compute(&cx, &ListFilter::all())
        .await
        .err();
    ensure!(
        error.as_ref().map(|e| e.kind()) == Some(ErrorKind::Unauthorized),
        "with a bad key of the call: {error:?}"
    );
    bench.list().await?;
    Ok(())
}

pub(super) async fn an_unknown_machine_is_not_found(bench: &Bench<'_>) -> Verdict {
    let error = bench
        .provider()
        .get_compute(bench.cx(), &bench.subject().unknown_id())
        .await
        .err();
    ensure!(
        error.as_ref().map(|e| e.kind()) == Some(ErrorKind::NotFound),
        "a machine that never was: {error:?}"
    );
    Ok(())
}

pub(super) async fn a_refused_rate_is_rate_limited_and_nothing_was_made(
    bench: &Bench<'_>,
) -> Verdict {
    bench.control()?;
    bench
        .inject("list_compute", FaultKind::Status429, 1)
        .await?;
    let error = bench
        .provider()
        .list_compute(&bench.once(), &ListFilter::all())
        .await
        .err();
    ensure!(
        error.as_ref().map(|e| e.kind()) == Some(ErrorKind::RateLimited),
        "a refused listing: {error:?}"
    );
    let made = bench.ledger().await?.len();
    bench
        .inject("spawn_compute", FaultKind::Status429, 1)
        .await?;
    let (_, error) = bench.spawn_failing(&bench.once(), bench.request()).await?;
    ensure!(
        error.kind() == ErrorKind::RateLimited,
        "a refused create: {error}"
    );
    ensure!(
        *error.outcome() == Outcome::NotApplied(Next::SameLater),
        "a refused create is {:?}",
        error.outcome()
    );
    ensure!(
        bench.ledger().await?.len() == made,
        "a refused create made a machine"
    );
    Ok(())
}

/// How soon a refusal that asks for a wait of hours must be back.
const AT_ONCE: Duration = Duration::from_secs(15);
/// The least wait that such a refusal must tell.
const AN_HOUR: Duration = Duration::from_secs(3600);

/// A caller that learns of the wait can go elsewhere; one whose call sleeps cannot.
pub(super) async fn a_refusal_for_hours_is_returned_at_once(bench: &Bench<'_>) -> Verdict {
    bench.control()?;
    bench
        .inject("list_compute", FaultKind::Status429ForHours, 1)
        .await?;
    let all = ListFilter::all();
    let listing = bench.provider().list_compute(bench.cx(), &all);
    let Ok(answer) = tokio::time::timeout(AT_ONCE, listing).await else {
        return Err(Stop::Failed(format!(
            "a refusal for hours is not returned within {} s",
            AT_ONCE.as_secs()
        )));
    };
    let error = answer.err();
    ensure!(
        error
            .as_ref()
            .is_some_and(|error| matches!(error.kind(), ErrorKind::RateLimited | ErrorKind::Quota)),
        "a listing that was refused for hours: {error:?}"
    );
    let wait = error.as_ref().and_then(|error| error.retry_after());
    ensure!(
        wait.is_some_and(|wait| wait >= AN_HOUR),
        "the cloud asked for a wait of hours, and the error says {wait:?}"
    );
    Ok(())
}

pub(super) async fn a_used_up_quota_is_quota_and_nothing_was_made(bench: &Bench<'_>) -> Verdict {
    bench.control()?;
    bench
        .inject("spawn_compute", FaultKind::QuotaExceeded, 1)
        .await?;
    let (_, error) = bench.spawn_failing(bench.cx(), bench.request()).await?;
    ensure!(
        error.kind() == ErrorKind::Quota,
        "a create beyond the quota: {error}"
    );
    ensure!(
        matches!(error.outcome(), Outcome::NotApplied(_)),
        "a create beyond the quota is {:?}",
        error.outcome()
    );
    ensure!(
        bench.ledger().await?.is_empty(),
        "a create beyond the quota made a machine"
    );
    Ok(())
}

pub(super) async fn sold_out_is_no_capacity_and_the_next_candidate(bench: &Bench<'_>) -> Verdict {
    bench.control()?;
    bench
        .inject("spawn_compute", FaultKind::NoCapacity, 1)
        .await?;
    let (_, error) = bench.spawn_failing(bench.cx(), bench.request()).await?;
    ensure!(error.kind() == ErrorKind::NoCapacity, "sold out: {error}");
    ensure!(
        *error.outcome() == Outcome::NotApplied(Next::NextCandidate),
        "sold out is {:?}",
        error.outcome()
    );
    ensure!(
        bench.ledger().await?.is_empty(),
        "a sold-out create made a machine"
    );
    Ok(())
}

pub(super) async fn a_failing_cloud_is_unavailable(bench: &Bench<'_>) -> Verdict {
    bench.control()?;
    for fault in [FaultKind::Status500, FaultKind::Html502] {
        bench.inject("list_compute", fault, 1).await?;
        let error = bench
            .provider()
            .list_compute(&bench.once(), &ListFilter::all())
            .await
            .err();
        let kind = error.as_ref().map(|error| error.kind());
        ensure!(
            kind == Some(ErrorKind::Unavailable),
            "through {fault}: {error:?}"
        );
    }
    Ok(())
}

pub(super) async fn a_deadline_is_a_timeout(bench: &Bench<'_>) -> Verdict {
    bench.control()?;
    bench.inject("list_compute", FaultKind::Slow, 1).await?;
    let cx = bench.once().with_timeout(Duration::from_millis(200));
    let error = bench
        .provider()
        .list_compute(&cx, &ListFilter::all())
        .await
        .err();
    ensure!(
        error.as_ref().map(|e| e.kind()) == Some(ErrorKind::Timeout),
        "a slow answer: {error:?}"
    );
    Ok(())
}
