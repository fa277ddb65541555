//! Odd fields in every answer that is read: nothing of ours is lost, and nothing is said to have
//! ended that has not.

use std::sync::Arc;

use atlas_core::{
    AccountLimits, AnyProvider, CallContext, ComputeRequest, DiskSize, ErrorKind, Gpu,
};
use atlas_http::Transport;
use atlas_provider_runpod::RunPod;
use atlas_testkit::dialect::mutated::{Mutated, Subject, violations};
use atlas_testkit::dialect::runpod;
use atlas_testkit::dialect::watched::Canned;
use atlas_testkit::world::{World, WorldClock};
use std::time::Duration;

const KEY: &str = "sim-key";

fn cx() -> CallContext {
    CallContext::new().with_retries(0)
}

fn request() -> ComputeRequest {
    ComputeRequest::gpu(Gpu::Rtx4090)
        .image("x/y:1")
        .container_disk(DiskSize::gb(10))
}

#[tokio::test(start_paused = true)]
async fn no_odd_field_of_any_answer_loses_a_pod_or_ends_it() {
    let world = World::new(7, WorldClock::following(1.0)).with_cloud(runpod::cloud());
    world.add_key(runpod::NAME, KEY, "me");
    let dialect = runpod::RunPod::new(world.clone());
    let mutated = Mutated::new(dialect);
    let plans = mutated.plans();
    let mut limits = AccountLimits::default();
    (limits.call_interval, limits.burst) = (Duration::ZERO, 1_000_000);
    let provider = AnyProvider::new(
        RunPod::builder()
            .api_key(KEY)
            .transport(Transport::new(mutated))
            .clock(Arc::new(world.clock().clone()))
            .limits(limits)
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
        request: request(),
        rows: "/pods/",
        absence: None,
    };
    let (counts, wrong) = violations(&plans, &subject).await;
    println!("runpod: {counts:?}");
    assert!(counts.fields > 50, "{counts:?}");
    assert!(
        wrong.is_empty(),
        "{} of {counts:?}: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(20)]
    );
}

fn answering(body: &'static str) -> AnyProvider {
    let transport = Transport::new(Canned::in_turn(&[(200, body)]));
    let built = RunPod::builder().api_key(KEY).transport(transport).build();
    AnyProvider::new(built.unwrap())
}

const CARD: &str = r#"{"id":"NVIDIA GeForce RTX 4090","memory":"24","secure":true,"community":"true",
    "price":{"secure":"0.69","community":0.34},"maxCount":{"secure":"8"},"availability":"HIGH",
    "dataCenters":null}"#;

#[tokio::test(start_paused = true)]
async fn an_unreadable_card_is_one_card_less_and_a_list_of_them_is_no_unknown_card() {
    let gpus = |rows: &[&str]| -> &'static str {
        Box::leak(format!(r#"{{"gpus":[{}]}}"#, rows.join(",")).into_boxed_str())
    };
    let new = r#"{"id":"NVIDIA NEW 9000","memory":null,"secure":true,"price":{"secure":1.0}}"#;
    let provider = answering(gpus(&[new, "null", CARD]));
    let lines = provider.list_gpu_types(&cx()).await.unwrap();
    let named = |name: &str| lines.iter().filter(|line| line.native_id == name).count();
    assert_eq!(
        (named("NVIDIA GeForce RTX 4090"), named("NVIDIA NEW 9000")),
        (2, 1)
    );
    assert_eq!(
        provider.candidates(&cx(), &request()).await.unwrap().len(),
        2
    );
    // The card may be in the row that could not be read.
    let h200 = ComputeRequest::gpu(Gpu::H200).image("x");
    assert!(provider.candidates(&cx(), &h200).await.unwrap().is_empty());
    let error = answering(gpus(&[CARD]))
        .candidates(&cx(), &h200)
        .await
        .unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Validation,
        "of a catalogue that was read whole"
    );

    let provider = answering(gpus(&["{}", "7"]));
    for error in [
        provider.candidates(&cx(), &request()).await.unwrap_err(),
        provider.list_gpu_types(&cx()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Provider);
    }
    let provider = answering(gpus(&[]));
    assert!(
        provider
            .candidates(&cx(), &request())
            .await
            .unwrap()
            .is_empty()
    );
}
