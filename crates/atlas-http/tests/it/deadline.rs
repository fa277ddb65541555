//! The deadline of the whole call.

use std::time::Duration;

use atlas_core::{CallContext, ErrorKind, Outcome, RetryClass};
use atlas_http::Call;
use tokio::time::Instant;

use crate::cloud::{Act, Cloud, answer, answer_with};

fn call(class: RetryClass) -> Call {
    Call::get("get_compute", class, ["pods"])
}

#[tokio::test(start_paused = true)]
async fn a_retry_never_sleeps_past_the_deadline() {
    let cloud = Cloud::new([answer_with(429, &[("retry-after", "30")], "")]);
    let begun = Instant::now();
    let cx = CallContext::new().with_timeout(Duration::from_secs(10));
    let error = cloud
        .client()
        .call(&cx, call(RetryClass::Safe))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), cloud.requests()),
        (ErrorKind::RateLimited, 1)
    );
    assert_eq!(
        (error.retry_after(), begun.elapsed()),
        (Some(Duration::from_secs(30)), Duration::ZERO)
    );
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_over_all_tries_together() {
    let slow = Act::Slow(Duration::from_secs(4), Box::new(answer(503, "")));
    let cloud = Cloud::new([slow]);
    let begun = Instant::now();
    let cx = CallContext::new()
        .with_timeout(Duration::from_secs(10))
        .with_retries(100);
    let error = cloud
        .client()
        .call(&cx, call(RetryClass::Safe))
        .await
        .unwrap_err();
    assert!(
        begun.elapsed() <= Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable)
            && cloud.requests() >= 2,
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn no_answer_in_time_leaves_a_create_unknown_and_a_read_harmless() {
    for (class, unknown) in [
        (RetryClass::Create, true),
        (RetryClass::Idempotent, true),
        (RetryClass::Safe, false),
    ] {
        let cloud = Cloud::new([Act::Silent]);
        let begun = Instant::now();
        let error = cloud
            .client()
            .call(&CallContext::new(), call(class))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome().is_unknown()),
            (ErrorKind::Timeout, unknown)
        );
        assert_ne!(error.outcome(), &Outcome::NeverSent);
        assert_eq!(begun.elapsed(), Duration::from_secs(30));
    }
}

#[tokio::test(start_paused = true)]
async fn the_contexts_deadline_counts_before_the_calls_and_the_accounts() {
    let cloud = Cloud::new([Act::Silent]);
    let begun = Instant::now();
    cloud
        .client()
        .call(
            &CallContext::new(),
            call(RetryClass::Safe).timeout(Duration::from_secs(5)),
        )
        .await
        .unwrap_err();
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    let cx = CallContext::new().with_timeout(Duration::from_secs(2));
    cloud
        .client()
        .call(&cx, call(RetryClass::Safe).timeout(Duration::from_secs(5)))
        .await
        .unwrap_err();
    assert_eq!(begun.elapsed(), Duration::from_secs(7));
    let endless = CallContext::new().with_timeout(Duration::MAX);
    cloud
        .client()
        .call(&endless, call(RetryClass::Safe))
        .await
        .unwrap_err();
}
