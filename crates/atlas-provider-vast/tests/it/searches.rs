//! The day's quota of offer rows, and the searches that are shared because of it.

use std::time::Duration;

use atlas_core::{CallContext, ErrorKind, Next, Outcome, Secret};
use futures_util::future::join_all;

use crate::stage::{Stage, built, cx, request, stage, unlimited};

fn searches(stage: &Stage) -> usize {
    let asked = stage.asked();
    asked.iter().filter(|line| line.contains("bundles")).count()
}

#[tokio::test(start_paused = true)]
async fn identical_searches_within_some_seconds_are_one_call() {
    let stage = stage();
    let context = cx();
    let one = || async { stage.provider.candidates(&context, &request()).await };
    let found = join_all((0..40).map(|_| one())).await;
    assert_eq!(searches(&stage), 1);
    let first = found[0].as_ref().unwrap();
    assert!(!first.is_empty() && found.iter().all(|found| found.as_ref().unwrap() == first));
    assert_eq!(one().await.unwrap(), *first);
    assert_eq!(searches(&stage), 0);

    // What was ordered since is not offered again, without another search.
    let taken = first[0].clone();
    let order = request().at(taken.clone());
    stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &order)
        .await
        .unwrap();
    assert!(!one().await.unwrap().contains(&taken));
    assert_eq!(searches(&stage), 0);

    stage.after_shared_searches().await;
    one().await.unwrap();
    assert_eq!(searches(&stage), 1, "an old answer is not used");
    let other = request().gpu_count(2);
    stage.provider.candidates(&cx(), &other).await.unwrap();
    assert_eq!(searches(&stage), 1, "another search is another call");
    let keyed = cx().with_api_key(Secret::new(crate::stage::KEY));
    stage.provider.candidates(&keyed, &request()).await.unwrap();
    assert_eq!(searches(&stage), 1, "another account's search is its own");
}

#[tokio::test(start_paused = true)]
async fn a_search_that_fails_is_not_shared_and_whoever_waits_asks_again() {
    let stage = stage();
    stage.fault(
        "list_gpu_types",
        atlas_testkit::world::FaultKind::Status500,
        1,
    );
    let context = cx();
    let one = || async { stage.provider.candidates(&context, &request()).await };
    let found = join_all((0..4).map(|_| one())).await;
    assert_eq!(found.iter().filter(|found| found.is_err()).count(), 1);
    assert_eq!(searches(&stage), 2);
}

#[tokio::test(start_paused = true)]
async fn the_days_rows_used_up_are_a_quota_with_its_end_and_no_rate_limit() {
    let stage = built(|builder| unlimited(builder).endpoint_paces(false));
    stage.quirks(|quirks| quirks.search_rows_a_day = Some(1));
    // Retries are allowed: this is not repeated.
    let context = CallContext::new();
    let wanted = |count| request().gpu_count(count);
    stage
        .provider
        .candidates(&context, &wanted(1))
        .await
        .unwrap();
    assert_eq!(searches(&stage), 1);
    let error = stage
        .provider
        .candidates(&context, &wanted(2))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome(), error.status()),
        (
            ErrorKind::Quota,
            &Outcome::NotApplied(Next::Stop),
            Some(429)
        )
    );
    let wait = error.retry_after().unwrap();
    assert!(
        wait <= Duration::from_secs(24 * 3600) && wait > Duration::from_secs(60),
        "{wait:?}"
    );
    assert_eq!(searches(&stage), 1, "sent once");

    // No search is sent before the reset, and everything else goes on.
    tokio::time::sleep(wait / 2).await;
    let again = stage
        .provider
        .candidates(&context, &wanted(2))
        .await
        .unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Quota);
    assert!(again.retry_after().unwrap() <= wait / 2 + Duration::from_secs(1));
    assert_eq!(searches(&stage), 0);
    let all = atlas_core::ListFilter::all();
    assert!(stage.provider.list_compute(&context, &all).await.is_ok());

    tokio::time::sleep(wait / 2 + Duration::from_secs(2)).await;
    stage
        .provider
        .candidates(&context, &wanted(2))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_search_asks_for_no_more_rows_than_placements_can_use() {
    let stage = stage();
    let shown = stage.provider.candidates(&cx(), &request()).await.unwrap();
    assert!(!shown.is_empty() && shown.len() <= 32);
}
