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
    // Whose token it is is not guessed: a token that does not clearly belong to the organisation is
    // refused, because what it rents could not be listed.
    wrong.retain(|line| !(line.contains("[forbidden]") && line.contains("GET /v1/tokens/current")));
    assert_none(50, (counts, wrong));
}
