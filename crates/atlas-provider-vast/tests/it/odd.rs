//! Odd fields in every answer that is read: nothing of ours is lost, and nothing is said to have
//! ended that has not.

use std::sync::Arc;

use atlas_core::{AnyProvider, Secret};
use atlas_http::Transport;
use atlas_provider_vast::Vast;
use atlas_testkit::dialect::mutated::Subject;
use atlas_testkit::dialect::vast::{self, Quirks};
use atlas_testkit::provider_stage::{KEY, assert_none, at_once, odd_answers};

use crate::stage::{cx, request};

#[tokio::test(start_paused = true)]
async fn no_odd_field_of_any_answer_loses_a_machine_or_ends_it() {
    let found = odd_answers(
        &vast::CLOUD,
        |world| vast::Vast::new(world).with_quirks(Quirks::unlimited()),
        |mutated, clock| {
            let builder = Vast::builder()
                .api_key(KEY)
                .transport(Transport::new(mutated))
                .clock(Arc::new(clock))
                .limits(at_once(1_000_000))
                .endpoint_paces(false);
            AnyProvider::new(builder.build().unwrap())
        },
        request(),
        |subject| Subject {
            // A key of its own: no search is answered from an earlier one.
            context: cx().with_api_key(Secret::new(KEY)),
            rows: "/instances/",
            absence: Some("/instances"),
            ..subject
        },
    )
    .await;
    assert_none(100, found);
}
