//! How often and how many at once an account is called.

use std::time::Duration;

use atlas_core::{AccountLimits, CallContext, ErrorKind, Outcome, RetryClass};
use atlas_http::{Call, Pace};
use tokio::time::Instant;

use crate::cloud::{Act, Cloud, answer, answer_with, unpaced};

fn call(operation: &'static str) -> Call {
    Call::get(operation, RetryClass::Safe, ["x"])
}

fn gaps(cloud: &Cloud) -> Vec<u128> {
    let at = cloud.seen(|seen| seen.at);
    at.iter()
        .map(|instant| (*instant - at[0]).as_millis())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn an_account_is_called_at_its_pace_after_a_burst() {
    let cloud = Cloud::new([answer(200, "{}")]);
    let limits = AccountLimits {
        call_interval: Duration::from_secs(1),
        burst: 3,
        ..AccountLimits::default()
    };
    let client = cloud.builder().limits(limits).build().unwrap();
    for _ in 0..6 {
        client
            .clone()
            .call(&CallContext::new(), call("a"))
            .await
            .unwrap();
    }
    assert_eq!(gaps(&cloud), [0, 0, 0, 1000, 2000, 3000]);
}

#[tokio::test(start_paused = true)]
async fn an_operation_has_its_own_pace_and_each_key_its_own_share() {
    let cloud = Cloud::new([answer(200, "{}")]);
    let client = cloud
        .builder()
        .pace("launch", Pace::every(Duration::from_secs(12)))
        .build()
        .unwrap();
    let cx = CallContext::new();
    for next in [
        call("launch"),
        call("list"),
        call("launch").pace_key("m1"),
        call("launch").pace_key("m2"),
        call("launch"),
    ] {
        client.call(&cx, next).await.unwrap();
    }
    assert_eq!(gaps(&cloud), [0, 0, 0, 0, 12_000]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_start_before_its_deadline_fails_at_once_and_was_never_sent() {
    let cloud = Cloud::new([answer(200, "{}")]);
    let client = cloud
        .builder()
        .pace("launch", Pace::every(Duration::from_secs(12)))
        .build()
        .unwrap();
    let cx = CallContext::new().with_timeout(Duration::from_secs(10));
    client.call(&cx, call("launch")).await.unwrap();
    let begun = Instant::now();
    let error = client
        .call(&cx, Call::post("launch", RetryClass::Create, ["x"]))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Timeout, &Outcome::NeverSent)
    );
    assert_eq!((begun.elapsed(), cloud.requests()), (Duration::ZERO, 1));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(12)));
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_than_allowed_are_under_way_and_the_wait_counts_against_the_deadline() {
    let cloud = Cloud::new([Act::Slow(
        Duration::from_secs(6),
        Box::new(answer(200, "{}")),
    )]);
    let client = cloud
        .builder()
        .limits(AccountLimits {
            concurrency: 2,
            ..unpaced()
        })
        .build()
        .unwrap();
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let cx = CallContext::new().with_timeout(Duration::from_secs(10));
                client
                    .call(&cx, Call::post("spawn_compute", RetryClass::Create, ["x"]))
                    .await
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(
            call.await
                .unwrap()
                .map_err(|error| error.outcome().clone())
                .err(),
        );
    }
    assert_eq!(cloud.most_at_once(), 2);
    // Two answered; two began at second 6 and ran out under way; the last never got a place.
    let unknown = Some(Outcome::Unknown(vec![]));
    assert_eq!(
        outcomes,
        [
            None,
            None,
            unknown.clone(),
            unknown,
            Some(Outcome::NeverSent)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_announced_empty_window_holds_back_the_whole_account() {
    let used_up = [("ratelimit", r#""minute";r=0;t=12, "hour";r=2800;t=1812"#)];
    let cloud = Cloud::new([answer_with(200, &used_up, "{}"), answer(200, "{}")]);
    let client = cloud.client();
    client.call(&CallContext::new(), call("a")).await.unwrap();
    let short = CallContext::new().with_timeout(Duration::from_secs(5));
    let error = client.call(&short, call("b")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome(), cloud.requests()),
        (ErrorKind::RateLimited, &Outcome::NeverSent, 1)
    );
    client.call(&CallContext::new(), call("b")).await.unwrap();
    assert_eq!(gaps(&cloud), [0, 12_000]);
}

#[tokio::test(start_paused = true)]
async fn clients_of_one_account_can_share_its_pace() {
    let cloud = Cloud::new([answer(200, "{}")]);
    let limits = AccountLimits {
        call_interval: Duration::from_secs(1),
        burst: 1,
        ..AccountLimits::default()
    };
    let one = cloud.builder().limits(limits).build().unwrap();
    let other = cloud.builder().share_limits_with(&one).build().unwrap();
    one.call(&CallContext::new(), call("a")).await.unwrap();
    other.call(&CallContext::new(), call("a")).await.unwrap();
    assert_eq!(gaps(&cloud), [0, 1000]);
}

#[tokio::test(start_paused = true)]
async fn a_day_that_is_used_up_is_asked_again_after_two_minutes() {
    let used_up = [("ratelimit", r#""day";r=0;t=45012"#)];
    let cloud = Cloud::new([answer_with(200, &used_up, "{}"), answer(200, "{}")]);
    let client = cloud.client();
    let patient = CallContext::new().with_timeout(Duration::from_secs(200));
    client.call(&patient, call("a")).await.unwrap();
    client.call(&patient, call("terminate")).await.unwrap();
    assert_eq!(gaps(&cloud), [0, 120_000]);
}
