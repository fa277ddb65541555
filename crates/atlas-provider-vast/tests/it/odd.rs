//! Odd fields in every answer that is read: nothing of ours is lost, and nothing is said to have
//! ended that has not.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::{AccountLimits, AnyProvider, Secret};
use atlas_http::Transport;
use atlas_provider_vast::Vast;
use atlas_testkit::dialect::mutated::{Mutated, Subject, violations};
use atlas_testkit::dialect::vast::{self, Quirks};
use atlas_testkit::world::{World, WorldClock};

use crate::stage::{KEY, cx, request};

#[tokio::test(start_paused = true)]
async fn no_odd_field_of_any_answer_loses_a_machine_or_ends_it() {
    let world = World::new(7, WorldClock::following(1.0)).with_cloud(vast::cloud());
    world.add_key(vast::NAME, KEY, "me");
    let dialect = vast::Vast::new(world.clone()).with_quirks(Quirks::unlimited());
    let mutated = Mutated::new(dialect);
    let plans = mutated.plans();
    let mut limits = AccountLimits::default();
    (limits.call_interval, limits.burst) = (Duration::ZERO, 1_000_000);
    let provider = AnyProvider::new(
        Vast::builder()
            .api_key(KEY)
            .transport(Transport::new(mutated))
            .clock(Arc::new(world.clock().clone()))
            .limits(limits)
            .endpoint_paces(false)
            .build()
            .unwrap(),
    );
    let mut ours = Vec::new();
    for n in [1, 2] {
        let key = world.key(n);
        let made = provider
            .spawn_compute(&cx(), &key, &request())
            .await
            .unwrap();
        ours.push((made.id, *key.tracked().unwrap()));
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    let subject = Subject {
        provider,
        // A key of its own: no search is answered from an earlier one.
        context: cx().with_api_key(Secret::new(KEY)),
        ours,
        request: request(),
        rows: "/instances/",
        absence: Some("/instances"),
    };
    let (counts, wrong) = violations(&plans, &subject).await;
    println!("vast: {counts:?}");
    assert!(counts.fields > 100, "{counts:?}");
    assert!(
        wrong.is_empty(),
        "{} of {counts:?}: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(20)]
    );
}
