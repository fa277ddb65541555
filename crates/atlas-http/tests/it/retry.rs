//! What is repeated, how often, and what is not.

use std::time::Duration;

use atlas_core::{CallContext, ErrorKind, Next, Outcome, RetryClass};
use atlas_http::Call;
use proptest::prelude::*;

use crate::cloud::{Act, Cloud, answer, answer_with};

fn get() -> Call {
    Call::get("get_compute", RetryClass::Safe, ["pods", "p1"])
}

fn create() -> Call {
    Call::post("spawn_compute", RetryClass::Create, ["pods"]).json("x")
}

fn delete() -> Call {
    Call::delete("terminate", RetryClass::Idempotent, ["pods", "p1"])
}

#[tokio::test(start_paused = true)]
async fn a_read_is_repeated_until_it_is_answered() {
    let cloud = Cloud::new([answer(503, ""), Act::Broken, answer(200, r#"{"id":1}"#)]);
    let answer = cloud
        .client()
        .call(&CallContext::new(), get())
        .await
        .unwrap();
    assert_eq!((answer.resends(), cloud.requests()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_create_is_sent_once_whatever_comes_after_it_left() {
    for act in [
        answer(500, ""),
        answer(502, ""),
        answer(408, ""),
        Act::Broken,
    ] {
        let cloud = Cloud::new([act]);
        let error = cloud
            .client()
            .call(&CallContext::new(), create())
            .await
            .unwrap_err();
        assert_eq!(
            (error.outcome(), cloud.requests()),
            (&Outcome::Unknown(vec![]), 1),
            "{error}"
        );
    }
    let cloud = Cloud::new([answer_with(429, &[("retry-after", "1")], "")]);
    let error = cloud
        .client()
        .call(&CallContext::new(), create())
        .await
        .unwrap_err();
    assert_eq!(
        (error.outcome(), cloud.requests()),
        (&Outcome::NotApplied(Next::SameLater), 1)
    );
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn a_create_that_never_left_is_repeated() {
    let cloud = Cloud::new([Act::NeverSent, Act::NeverSent, answer(201, "{}")]);
    assert!(
        cloud
            .client()
            .call(&CallContext::new(), create())
            .await
            .is_ok()
    );
    assert_eq!(cloud.requests(), 3);
    let cloud = Cloud::new([Act::NeverSent]);
    let error = cloud
        .client()
        .call(&CallContext::new(), create())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome(), cloud.requests()),
        (ErrorKind::Transport, &Outcome::NeverSent, 4)
    );
}

#[tokio::test(start_paused = true)]
async fn a_definite_refusal_is_not_repeated() {
    for status in [400, 401, 403, 404, 409, 422] {
        for call in [get(), delete(), create()] {
            let cloud = Cloud::new([answer(status, "{}")]);
            let error = cloud
                .client()
                .call(&CallContext::new(), call)
                .await
                .unwrap_err();
            assert_eq!(
                (error.outcome(), cloud.requests()),
                (&Outcome::NotApplied(Next::Stop), 1)
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_try_that_never_left_does_not_hide_one_that_may_have_been_applied() {
    let cloud = Cloud::new([Act::Broken, Act::NeverSent]);
    let error = cloud
        .client()
        .call(&CallContext::new(), delete())
        .await
        .unwrap_err();
    assert_eq!(error.outcome(), &Outcome::Unknown(vec![]));
}

#[tokio::test(start_paused = true)]
async fn retries_of_the_call_count_before_the_clients() {
    let cloud = Cloud::new([answer(503, "")]);
    let client = cloud.builder().retries(5).build().unwrap();
    client
        .call(&CallContext::new().with_retries(0), get())
        .await
        .unwrap_err();
    assert_eq!(cloud.requests(), 1);
    client
        .call(&CallContext::new().with_retries(2), get())
        .await
        .unwrap_err();
    assert_eq!(cloud.requests(), 1 + 3);
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_says_at_once_is_asked_later_every_time() {
    let at_once = || answer_with(429, &[("retry-after", "0")], "");
    let cloud = Cloud::new([at_once(), at_once(), at_once(), answer(200, "{}")]);
    let client = cloud.builder().build().unwrap();
    client
        .call(&CallContext::new().with_retries(3), get())
        .await
        .unwrap();
    let at = cloud.seen(|seen| seen.at);
    let waits: Vec<Duration> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.is_sorted() && waits[2] >= waits[0] * 2, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for() {
    for told in ["7", "Thu, 01 Jan 1970 00:00:07 GMT"] {
        let cloud = Cloud::new([
            answer_with(429, &[("retry-after", told)], ""),
            answer(200, "{}"),
        ]);
        let client = cloud
            .builder()
            .clock(std::sync::Arc::new(Epoch))
            .build()
            .unwrap();
        client.call(&CallContext::new(), get()).await.unwrap();
        let at = cloud.seen(|seen| seen.at);
        let waited = at[1] - at[0];
        assert!(
            waited >= Duration::from_secs(7) && waited < Duration::from_secs(8),
            "{told}: {waited:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_cloud_is_not_stormed_by_many_callers() {
    let cloud = Cloud::new([answer(503, "")]);
    let client = cloud.client();
    for _ in 0..50 {
        client
            .call(
                &CallContext::new().with_timeout(Duration::from_millis(900)),
                get(),
            )
            .await
            .unwrap_err();
    }
    // 50 calls, ten repeats saved up, and about one more for each second that went by.
    assert!(
        cloud.requests() < 50 + 10 + 25,
        "{} requests",
        cloud.requests()
    );
}

#[derive(Debug)]
struct Epoch;

impl atlas_core::Clock for Epoch {
    fn now(&self) -> atlas_core::Timestamp {
        atlas_core::Timestamp::UNIX_EPOCH
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None,
        ..ProptestConfig::default() })]
    #[test]
    fn no_script_makes_a_create_leave_twice(script in prop::collection::vec(0_u16..8, 1..6)) {
        let acts: Vec<_> = script
            .iter()
            .map(|act| match act {
                0 => Act::NeverSent,
                1 => Act::Broken,
                2 => Act::Silent,
                3 => answer(429, ""),
                4 => answer(500, ""),
                5 => answer(200, "{}"),
                6 => answer_with(307, &[("location", "https://cloud.example/v2/elsewhere")], ""),
                _ => Act::Slow(Duration::from_secs(100), Box::new(answer(200, "{}"))),
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let cloud = Cloud::new(acts.clone());
        let result = runtime.block_on(cloud.client().call(&CallContext::new(), create()));
        let left = acts.iter().cycle().take(cloud.requests()).filter(|act| !matches!(act,
            Act::NeverSent)).count();
        prop_assert!(left <= 1, "{left} left");
        if let Err(error) = result {
            prop_assert_eq!(left == 0, error.outcome() == &Outcome::NeverSent);
        }
    }
}
