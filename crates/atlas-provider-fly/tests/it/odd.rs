//! Odd fields in every answer that is read: nothing of ours is lost, and nothing is said to have
//! ended that has not.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::{AccountLimits, AnyProvider, ComputeRequest};
use atlas_http::{Pace, Transport};
use atlas_provider_fly::Fly;
use atlas_testkit::dialect::fly::{self, Quirks};
use atlas_testkit::dialect::mutated::{Mutated, Subject, violations};
use atlas_testkit::world::{World, WorldClock};

use crate::stage::{KEY, cx, request};

#[tokio::test(start_paused = true)]
async fn no_odd_field_of_any_answer_loses_a_machine_or_ends_it() {
    let world = World::new(7, WorldClock::following(1.0)).with_cloud(fly::cloud());
    world.add_key(fly::NAME, KEY, fly::ORG);
    let dialect = fly::Fly::new(world.clone()).with_quirks(Quirks::unlimited());
    let mutated = Mutated::new(dialect);
    let plans = mutated.plans();
    let mut limits = AccountLimits::default();
    (limits.call_interval, limits.burst) = (Duration::ZERO, 1_000_000);
    let at_once = Pace::every(Duration::ZERO);
    let provider = AnyProvider::new(
        Fly::builder()
            .api_key(KEY)
            .org(fly::ORG)
            .app(fly::APP)
            .transport(Transport::new(mutated))
            .clock(Arc::new(world.clock().clone()))
            .limits(limits)
            .paces(at_once, at_once)
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
        context: cx(),
        ours,
        request: ComputeRequest::cpu(1).image("x/y:1"),
        rows: "/machines/",
        absence: None,
    };
    let (counts, mut wrong) = violations(&plans, &subject).await;
    // Another organisation's name is not odd: that token is refused, because what it rents could not
    // be listed. Everything else in that answer that cannot be understood is no refusal.
    wrong.retain(|line| {
        let named = ["Text", "NumberAsText"];
        let another = |word| line.contains(&format!("/tokens/0/org_slug {word}"));
        !(line.contains("[forbidden]") && named.into_iter().any(another))
    });
    println!("fly: {counts:?}");
    assert!(counts.fields > 50, "{counts:?}");
    assert!(
        wrong.is_empty(),
        "{} of {counts:?}: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(20)]
    );
}
