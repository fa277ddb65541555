//! Odd fields in every answer that is read: nothing of ours is lost, and nothing is said to have
//! ended that has not.

use std::sync::Arc;

use atlas_core::{AnyProvider, ComputeRequest, DiskSize, ErrorKind, Gpu};
use atlas_http::Transport;
use atlas_provider_runpod::RunPod;
use atlas_testkit::dialect::mutated::Subject;
use atlas_testkit::dialect::runpod;
use atlas_testkit::dialect::watched::Canned;
use atlas_testkit::provider_stage::{KEY, assert_none, at_once, cx, odd_answers};

fn request() -> ComputeRequest {
    ComputeRequest::gpu(Gpu::Rtx4090)
        .image("x/y:1")
        .container_disk(DiskSize::gb(10))
}

#[tokio::test(start_paused = true)]
async fn no_odd_field_of_any_answer_loses_a_pod_or_ends_it() {
    let found = odd_answers(
        &runpod::CLOUD,
        runpod::RunPod::new,
        |mutated, clock| {
            let builder = RunPod::builder()
                .api_key(KEY)
                .transport(Transport::new(mutated))
                .clock(Arc::new(clock))
                .limits(at_once(1_000_000));
            AnyProvider::new(builder.build().unwrap())
        },
        request(),
        |subject| Subject {
            rows: "/pods/",
            ..subject
        },
    )
    .await;
    assert_none(50, found);
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
