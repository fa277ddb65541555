//! Odd fields in every answer that is read: nothing of ours is lost, and nothing is said to have
//! ended that has not.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::{AnyProvider, ComputeRequest, ErrorKind, Gpu, ListFilter};
use atlas_http::{Pace, Transport};
use atlas_provider_lambda::Lambda;
use atlas_testkit::dialect::lambda::{self, Quirks};
use atlas_testkit::dialect::mutated::Subject;
use atlas_testkit::provider_stage::{KEY, assert_none, at_once, odd_answers};

use crate::stage::{answering, cx};

#[tokio::test(start_paused = true)]
async fn no_odd_field_of_any_answer_loses_a_machine_or_ends_it() {
    let found = odd_answers(
        &lambda::CLOUD,
        |world| lambda::Lambda::new(world).with_quirks(Quirks::unlimited()),
        |mutated, clock| {
            let builder = Lambda::builder()
                .api_key(KEY)
                .transport(Transport::new(mutated))
                .clock(Arc::new(clock))
                .limits(at_once(1_000_000))
                .launch_pace(Pace::every(Duration::ZERO));
            AnyProvider::new(builder.build().unwrap())
        },
        ComputeRequest::gpu(Gpu::A10).image("x/y:1"),
        |subject| Subject {
            rows: "/data/",
            ..subject
        },
    )
    .await;
    assert_none(50, found);
}

const A10: &str = r#""gpu_1x_a10":{"instance_type":{"name":"gpu_1x_a10","description":"1x A10",
    "gpu_description":"A10 (24 GB PCIe)","price_cents_per_hour":"75",
    "specs":{"vcpus":30,"memory_gib":"200","storage_gib":1400,"gpus":1}},
    "regions_with_capacity_available":[{"name":"us-west-1"},{"name":null},7]}"#;

#[tokio::test(start_paused = true)]
async fn an_unreadable_type_is_one_type_less_and_a_list_of_them_is_no_unsupported_card() {
    let types = |rows: &[&str]| -> &'static str {
        Box::leak(format!(r#"{{"data":{{{}}}}}"#, rows.join(",")).into_boxed_str())
    };
    let odd = r#""gpu_1x_new":{"instance_type":{"name":"gpu_1x_new","price_cents_per_hour":1}}"#;
    let a10 = ComputeRequest::gpu(Gpu::A10).image("x");
    let (provider, _) = answering(200, types(&[odd, A10]));
    assert_eq!(provider.list_gpu_types(&cx()).await.unwrap().len(), 1);
    let found = provider.candidates(&cx(), &a10).await.unwrap();
    assert_eq!(found.len(), 1);
    // The card may be in the row that could not be read.
    let h100 = ComputeRequest::gpu(Gpu::H100).image("x");
    assert!(provider.candidates(&cx(), &h100).await.unwrap().is_empty());
    let (provider, _) = answering(200, types(&[A10]));
    let error = provider.candidates(&cx(), &h100).await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unsupported,
        "of a list that was read whole"
    );

    let (provider, _) = answering(200, types(&[odd]));
    let error = provider.candidates(&cx(), &a10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Provider);
    // An empty list is asked for again later: it does not say that the card is not on it.
    let (provider, _) = answering(200, types(&[]));
    let error = provider.candidates(&cx(), &a10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(provider.list_gpu_types(&cx()).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_instance_of_which_little_can_be_read_is_still_listed() {
    let body = r#"{"data":[{"id":17,"status":null,"region":7,"instance_type":null,"tags":{}},
        {"id":"x y","status":"active"}],"page_token":null}"#;
    let (provider, _) = answering(200, body);
    let listed = provider
        .list_compute(&cx(), &ListFilter::all())
        .await
        .unwrap();
    assert!(listed.is_complete(), "{listed:?}");
    assert_eq!(
        (
            listed.computes[0].id.as_str(),
            listed.computes[0].status.as_str()
        ),
        ("17", "unreadable")
    );
    assert_eq!((listed.computes.len(), listed.unreadable.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_type_that_contradicts_its_key_is_no_proof_that_a_card_is_not_offered() {
    let a10 = ComputeRequest::gpu(Gpu::A10).image("x");
    let other = A10.replace("gpu_1x_a10", "gpu_1x_a6000");
    for odd in [
        A10.replace(r#""name":"gpu_1x_a10""#, r#""name":"odd""#),
        A10.replace(r#""gpus":1"#, r#""gpus":7"#),
    ] {
        let both: &'static str =
            Box::leak(format!(r#"{{"data":{{{odd},{other}}}}}"#).into_boxed_str());
        let (provider, _) = answering(200, both);
        assert!(
            provider.candidates(&cx(), &a10).await.unwrap().is_empty(),
            "{odd}"
        );
        let alone: &'static str = Box::leak(format!(r#"{{"data":{{{odd}}}}}"#).into_boxed_str());
        let (provider, _) = answering(200, alone);
        let error = provider.candidates(&cx(), &a10).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Provider, "{odd}");
    }
}
