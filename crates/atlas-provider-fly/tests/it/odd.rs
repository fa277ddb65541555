//! Odd fields in every answer that is read: nothing of ours is lost, and nothing is said to have
//! ended that has not.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::{AnyProvider, ComputeRequest};
use atlas_http::{Pace, Transport};
use atlas_provider_fly::Fly;
use atlas_testkit::dialect::fly::{self, Quirks};
use atlas_testkit::dialect::mutated::Subject;
use atlas_testkit::provider_stage::{KEY, assert_none, at_once, odd_answers};

use crate::stage::request;

#[tokio::test(start_paused = true)]
async fn no_odd_field_of_any_answer_loses_a_machine_or_ends_it() {
    let (counts, mut wrong) = odd_answers(
        &fly::CLOUD,
        |world| fly::Fly::new(world).with_quirks(Quirks::unlimited()),
        |mutated, clock| {
            let pace = Pace::every(Duration::ZERO);
            let builder = Fly::builder()
                .api_key(KEY)
                .org(fly::ORG)
                .app(fly::APP)
                .transport(Transport::new(mutated))
                .clock(Arc::new(clock));
            let builder = builder.limits(at_once(1_000_000)).paces(pace, pace);
            AnyProvider::new(builder.build().unwrap())
        },
        request(),
        |subject| Subject {
            request: ComputeRequest::cpu(1).image("x/y:1"),
            rows: "/machines/",
            ..subject
        },
    )
    .await;
    // Another organisation's name is not odd: that token is refused, because what it rents could
    // not be listed. Everything else in that answer that cannot be understood is no refusal.
    wrong.retain(|line| {
        let named = ["Text", "NumberAsText"];
        let another = |word| line.contains(&format!("/tokens/0/org_slug {word}"));
        !(line.contains("[forbidden]") && named.into_iter().any(another))
    });
    assert_none(50, (counts, wrong));
}
