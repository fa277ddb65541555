//! What the account has besides machines: who it is, keys, volumes, charges.

use std::time::Duration;

use atlas_core::{
    Clock, ComputeRequest, DiskSize, ErrorKind, GpuChoice, MemorySize, SpendQuery, Usd,
};
use atlas_provider_vast::OfferPolicy;
use atlas_testkit::dialect::vast;
use serde_json::json;

use crate::stage::{answered, cx, request, stage};

#[tokio::test(start_paused = true)]
async fn an_identity_is_the_user_and_another_account_has_another() {
    let stage = stage();
    let mine = stage.provider.identity(&cx()).await.unwrap();
    stage.world.swap_account(vast::NAME, "sim-key");
    assert_ne!(stage.provider.identity(&cx()).await.unwrap(), mine);
}

#[tokio::test(start_paused = true)]
async fn an_account_without_keys_has_none_and_a_key_that_is_gone_is_deleted() {
    let stage = stage();
    assert_eq!(stage.own.ssh_keys(&cx()).await.unwrap(), []);
    let key = stage
        .own
        .add_ssh_key(&cx(), "ssh-ed25519 AAAA me")
        .await
        .unwrap();
    assert_eq!(
        stage.own.ssh_keys(&cx()).await.unwrap(),
        std::slice::from_ref(&key)
    );
    for _ in 0..2 {
        stage.own.delete_ssh_key(&cx(), key.id).await.unwrap();
    }
    assert_eq!(
        stage
            .own
            .add_ssh_key(&cx(), "no key")
            .await
            .unwrap_err()
            .field(),
        Some("public_key")
    );
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_mounted_on_its_own_machine_only_and_held_for_a_while_after() {
    let stage = stage();
    let offer = stage
        .own
        .volume_offers(&cx(), None)
        .await
        .unwrap()
        .into_iter()
        .rev()
        .find(|offer| offer.machine_id > 31_000)
        .unwrap();
    assert_eq!(
        stage
            .own
            .create_volume(&cx(), offer.id, DiskSize::gb(20), Some("a-b"))
            .await
            .unwrap_err()
            .field(),
        Some("name")
    );
    let volume = stage
        .own
        .create_volume(&cx(), offer.id, DiskSize::gb(20), Some("data_1"))
        .await
        .unwrap();
    let any = ComputeRequest::gpu(GpuChoice::AtLeast(MemorySize::gib(1))).image("x/y:1");
    let mounting = any.provider_opts(
        json!({ "volume_info": { "create_new": false, "volume_id": volume,
            "mount_path": "/data" } }),
    );
    let error = stage.order(1, &mounting).await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Validation,
        "on another machine: {error}"
    );

    let mut policy = OfferPolicy::default();
    policy.machine_id = Some(offer.machine_id);
    let there = cx().with_extension(policy);
    let at = stage
        .provider
        .candidates(&there, &mounting)
        .await
        .unwrap()
        .remove(0);
    let made = stage
        .provider
        .spawn_compute(&there, &stage.key(2), &mounting.at(at))
        .await
        .unwrap();
    assert_eq!(
        stage.own.volumes(&cx()).await.unwrap()[0].status.as_deref(),
        Some("in-use")
    );
    assert_eq!(
        stage
            .own
            .delete_volume(&cx(), volume)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Conflict
    );
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
    assert_eq!(
        stage
            .own
            .delete_volume(&cx(), volume)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Conflict
    );
    tokio::time::sleep(Duration::from_secs(31)).await;
    for _ in 0..2 {
        stage.own.delete_volume(&cx(), volume).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn charges_are_decimals_by_machine_and_a_stopped_one_pays_for_its_disk() {
    let stage = stage();
    let start = stage.world.clock().now();
    let made = stage.running(1, &request()).await;
    let other = stage.running(2, &request()).await;
    stage.provider.stop(&cx(), &made.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100 * 3600)).await;
    let query = |id| SpendQuery {
        id,
        start,
        end: stage.world.clock().now(),
    };
    let mine = stage
        .provider
        .compute_spend(&cx(), &query(Some(made.id.clone())))
        .await
        .unwrap();
    let disk = Usd::from_nanos(16 * 277_778 * 100);
    assert!(
        mine.len() == 1
            && mine[0].id == made.id
            && mine[0].amount > disk
            && mine[0].amount.nanos() % 1_000_000 == 0,
        "{mine:?}"
    );
    let all = stage
        .provider
        .compute_spend(&cx(), &query(None))
        .await
        .unwrap();
    assert_eq!(all.len(), 2);
    assert!(
        all.iter()
            .any(|row| row.id == other.id && row.amount > Usd::from_cents(2000)),
        "{all:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_image_that_was_pulled_is_among_the_charges() {
    let start = |stage: &crate::stage::Stage| stage.world.clock().now();
    let mut sums = Vec::new();
    for image_gb in [0, 5] {
        let stage = stage();
        stage.quirks(|quirks| quirks.image_gb = image_gb);
        let begun = start(&stage);
        let made = stage.running(1, &request()).await;
        let query = SpendQuery {
            id: Some(made.id),
            start: begun,
            end: start(&stage),
        };
        sums.push(stage.provider.compute_spend(&cx(), &query).await.unwrap()[0].amount);
    }
    assert_eq!(
        sums[1].nanos() - sums[0].nanos(),
        Usd::from_cents(1).nanos(),
        "5 GB at $0.002"
    );
}

#[tokio::test(start_paused = true)]
async fn a_page_of_a_proxy_is_no_deletion_and_no_empty_account() {
    for (status, body) in [
        (404, "<html>404</html>"),
        (404, ""),
        (410, "gone"),
        (404, r#"{"success":false,"error":"auth_error"}"#),
    ] {
        let vast = answered(&[(status, body)]).0;
        assert!(
            vast.delete_volume(&cx(), 5).await.is_err(),
            "{status} {body}"
        );
        assert!(
            vast.delete_ssh_key(&cx(), 5).await.is_err(),
            "{status} {body}"
        );
        assert!(vast.ssh_keys(&cx()).await.is_err(), "{status} {body}");
    }
}
