//! What is done with a machine: waiting, stopping, suspending, leases, metadata, commands, ends.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{ComputeRequest, ComputeStatus, ErrorKind, Next, Outcome, Presence};
use atlas_provider_fly::WaitFor;
use atlas_testkit::dialect::fly;
use atlas_testkit::world::FaultKind;
use serde_json::json;

use crate::stage::{at, cx, id, request, stage};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_wait_of_minutes_asks_again_after_each_408_and_its_end_is_no_failure() {
    let stage = stage();
    stage.fault("spawn_compute", FaultKind::NeverReady, 1);
    let made = stage.spawn(1).await.unwrap();
    stage.asked();
    let begun = tokio::time::Instant::now();
    let found = stage
        .own
        .wait(
            &cx(),
            &made.id,
            &[WaitFor::Started],
            Duration::from_secs(150),
        )
        .await
        .unwrap();
    assert_eq!((found, begun.elapsed().as_secs()), (None, 150));
    let asked = stage.asked();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(
        asked
            .iter()
            .all(|asked| asked.query.contains("timeout=60") || asked.query.contains("timeout=30")),
        "{asked:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_dies_on_the_way_is_told_to_who_waits_for_that_too() {
    let stage = stage();
    stage.fault("spawn_compute", FaultKind::NeverReady, 1);
    let made = stage.spawn(1).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    stage.world.fail_machine(fly::NAME, made.id.as_str());
    let states = [WaitFor::Started, WaitFor::Failed, WaitFor::Destroyed];
    assert_eq!(
        stage
            .own
            .wait(&cx(), &made.id, &states, MINUTE)
            .await
            .unwrap(),
        Some(WaitFor::Failed)
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_for_stopped_names_the_version_and_destroyed_may_end_in_404() {
    let stage = stage();
    let made = stage.running(1).await;
    stage.provider.stop(&cx(), &made.id).await.unwrap();
    stage.asked();
    assert_eq!(
        stage
            .own
            .wait(&cx(), &made.id, &[WaitFor::Stopped], MINUTE)
            .await
            .unwrap(),
        Some(WaitFor::Stopped)
    );
    assert!(stage.asked()[1].query.contains("version=01"));
    stage.quirks(|quirks| quirks.remembers = Duration::ZERO);
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
    assert_eq!(
        stage
            .own
            .wait(&cx(), &made.id, &[WaitFor::Destroyed], MINUTE)
            .await
            .unwrap(),
        Some(WaitFor::Destroyed)
    );
    // A wait for another state reports that it is gone, and does not continue.
    let error = stage
        .own
        .wait(&cx(), &made.id, &[WaitFor::Started], MINUTE)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    // And a 404 in an unknown app is not the end of a machine.
    let astray = id("0123456789abcd.never-was");
    assert_eq!(
        stage
            .own
            .wait(&cx(), &astray, &[WaitFor::Destroyed], MINUTE)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_sends_an_object_and_a_start_before_it_is_done_is_a_conflict() {
    let stage = stage();
    let made = stage.running(1).await;
    stage.asked();
    stage.provider.stop(&cx(), &made.id).await.unwrap();
    assert_eq!(
        stage.asked()[0].body,
        json!({}),
        "a body that is no object is refused"
    );
    let read = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    assert_eq!(
        read.status,
        ComputeStatus::Other("stopping".to_owned()),
        "it bills until it has stopped"
    );
    assert_eq!(
        stage
            .provider
            .start(&cx(), &made.id)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Conflict
    );
    tokio::time::sleep(MINUTE).await;
    stage.provider.stop(&cx(), &made.id).await.unwrap();
    stage.provider.start(&cx(), &made.id).await.unwrap();
    assert_eq!(
        stage
            .own
            .wait(&cx(), &made.id, &[WaitFor::Started], MINUTE)
            .await
            .unwrap(),
        Some(WaitFor::Started)
    );
}

#[tokio::test(start_paused = true)]
async fn only_small_machines_are_suspended_and_they_go_on_billing_a_little() {
    let stage = stage();
    let small = stage.running(1).await;
    stage.own.suspend(&cx(), &small.id).await.unwrap();
    assert_eq!(
        stage
            .own
            .wait(&cx(), &small.id, &[WaitFor::Suspended], MINUTE)
            .await
            .unwrap(),
        Some(WaitFor::Suspended)
    );
    let read = stage.provider.get_compute(&cx(), &small.id).await.unwrap();
    assert_eq!(
        (
            read.status,
            read.cost_per_hour
                .is_some_and(|cost| cost.per_hour().nanos() > 0)
        ),
        (ComputeStatus::Stopped, true)
    );
    let large = ComputeRequest::cpu(2)
        .image("x/y:1")
        .at(at("performance-2x:4096", "fra"));
    let large = stage
        .provider
        .spawn_compute(&cx(), &stage.key(2), &large)
        .await
        .unwrap();
    tokio::time::sleep(MINUTE).await;
    stage.asked();
    assert_eq!(
        stage
            .own
            .suspend(&cx(), &large.id)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Unsupported
    );
    assert!(!stage.lines().iter().any(|line| line.starts_with("POST")));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_ends_ends_the_bill_of_its_cpu_and_its_code_is_its_own() {
    let stage = stage();
    for n in 0..4 {
        let task = request().command(["sh", "-c", "sleep 5; exit 3"]);
        let made = stage
            .provider
            .spawn_compute(&cx(), &stage.key(n), &task)
            .await
            .unwrap();
        assert_eq!(
            stage
                .own
                .wait(&cx(), &made.id, &[WaitFor::Stopped], MINUTE)
                .await
                .unwrap(),
            Some(WaitFor::Stopped)
        );
        let read = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
        assert_eq!(
            (read.status, read.exit_code),
            (ComputeStatus::Stopped, Some(3)),
            "in either shape of its event"
        );
        let machine = stage.world.truth(fly::NAME, made.id.as_str()).unwrap();
        assert_eq!(
            machine.restarts(),
            0,
            "the cloud would have started it ten times"
        );
        stage.provider.terminate(&cx(), &made.id).await.unwrap();
    }
    let served = stage.running(9).await;
    stage.provider.stop(&cx(), &served.id).await.unwrap();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(
        stage
            .provider
            .get_compute(&cx(), &served.id)
            .await
            .unwrap()
            .exit_code,
        None,
        "it was stopped, and did not end"
    );
}

#[tokio::test(start_paused = true)]
async fn what_runs_may_be_told_to_start_again_or_to_go_with_its_end() {
    let stage = stage();
    let again = request().command(["sh", "-c", "sleep 1; exit 1"]);
    let stubborn = again.clone().provider_opts(
        json!({ "config": { "restart": { "policy": "on-failure", "max_retries": 2 } } }),
    );
    let made = stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &stubborn)
        .await
        .unwrap();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(
        stage
            .world
            .truth(fly::NAME, made.id.as_str())
            .unwrap()
            .restarts(),
        2
    );
    let brief = again.provider_opts(json!({ "config": { "auto_destroy": true } }));
    let made = stage
        .provider
        .spawn_compute(&cx(), &stage.key(2), &brief)
        .await
        .unwrap();
    assert_eq!(
        stage
            .own
            .wait(&cx(), &made.id, &[WaitFor::Destroyed], MINUTE)
            .await
            .unwrap(),
        Some(WaitFor::Destroyed)
    );
    let held_back = request().provider_opts(json!({ "skip_launch": true }));
    let made = stage
        .provider
        .spawn_compute(&cx(), &stage.key(3), &held_back)
        .await
        .unwrap();
    tokio::time::sleep(MINUTE).await;
    let read = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    assert_eq!(read.status, ComputeStatus::Provisioning);
    stage.provider.start(&cx(), &made.id).await.unwrap();
    assert_eq!(
        stage
            .own
            .wait(&cx(), &made.id, &[WaitFor::Started], MINUTE)
            .await
            .unwrap(),
        Some(WaitFor::Started)
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_keeps_others_out_until_it_expires_or_is_given_back() {
    let stage = stage();
    let made = stage.running(1).await;
    let held = stage
        .own
        .take_lease(&cx(), &made.id, MINUTE, Some("deploy"))
        .await
        .unwrap();
    assert!(
        !format!("{held:?}").contains(held.nonce.expose()),
        "a nonce is a secret"
    );
    assert_eq!(
        stage
            .own
            .take_lease(&cx(), &made.id, MINUTE, None)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Conflict
    );
    assert_eq!(
        stage
            .provider
            .stop(&cx(), &made.id)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Conflict
    );
    let seen = stage.own.lease(&cx(), &made.id).await.unwrap().unwrap();
    assert_eq!(
        (seen.nonce.expose(), seen.description.as_deref()),
        ("", Some("deploy"))
    );
    tokio::time::sleep(Duration::from_secs(40)).await;
    let held = stage.own.refresh_lease(&cx(), &held, MINUTE).await.unwrap();
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(
        stage.own.lease(&cx(), &made.id).await.unwrap().is_some(),
        "it was refreshed"
    );
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(
        stage.own.lease(&cx(), &made.id).await.unwrap().is_none(),
        "it expired"
    );
    stage.provider.stop(&cx(), &made.id).await.unwrap();
    let other = stage
        .own
        .take_lease(&cx(), &made.id, MINUTE, None)
        .await
        .unwrap();
    assert_eq!(
        stage
            .own
            .release_lease(&cx(), &held)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Conflict,
        "somebody else's by now"
    );
    stage.own.release_lease(&cx(), &other).await.unwrap();
    let none = stage
        .own
        .lease(&cx(), &id("0123456789abcd.sim-app"))
        .await
        .unwrap_err();
    assert_eq!(
        none.kind(),
        ErrorKind::NotFound,
        "no machine is not no lease"
    );
}

#[tokio::test(start_paused = true)]
async fn metadata_changes_make_no_new_version_and_commands_run_once() {
    let stage = stage();
    let made = stage.running(1).await;
    let before = stage.own.versions(&cx(), &made.id).await.unwrap();
    stage
        .own
        .set_metadata(&cx(), &made.id, "owner", "u42")
        .await
        .unwrap();
    let changes = BTreeMap::from([
        ("owner".to_owned(), None),
        ("note".to_owned(), Some("x".to_owned())),
    ]);
    stage
        .own
        .update_metadata(&cx(), &made.id, &changes)
        .await
        .unwrap();
    let metadata = stage.own.metadata(&cx(), &made.id).await.unwrap();
    assert_eq!(
        (metadata.get("owner"), metadata["note"].as_str()),
        (None, "x")
    );
    assert!(metadata.contains_key("atlas-launch-key"));
    assert_eq!(stage.own.versions(&cx(), &made.id).await.unwrap(), before);
    let missing = stage
        .own
        .metadata_value(&cx(), &made.id, "owner")
        .await
        .unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);

    let done = stage
        .own
        .exec(
            &cx(),
            &made.id,
            &["sh".into(), "-c".into(), "echo hi; exit 4".into()],
            MINUTE,
        )
        .await
        .unwrap();
    assert_eq!((done.exit_code, done.stdout.as_str()), (4, "hi\n"));
    stage.own.cordon(&cx(), &made.id, true).await.unwrap();
    let events = stage.own.events(&cx(), &made.id, 50).await.unwrap();
    assert_eq!(
        events.last().map(|event| event.kind.as_str()),
        Some("launch")
    );
    assert!(
        events[0].at > events[events.len() - 1].at,
        "newest first, and in milliseconds"
    );
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_moved_has_its_id_and_another_address() {
    let stage = stage();
    let made = stage.running(1).await;
    let before = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    assert!(stage.dialect.migrate(made.id.as_str()));
    let after = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    assert_eq!(before.id, after.id);
    assert_ne!(before.raw["private_ip"], after.raw["private_ip"]);
}

#[tokio::test(start_paused = true)]
async fn regions_are_read_in_either_case_and_room_is_advice() {
    let stage = stage();
    for capital in [false, true] {
        stage.quirks(|quirks| quirks.capital_regions = capital);
        assert_eq!(stage.own.regions(&cx()).await.unwrap().len(), 18);
    }
    stage
        .world
        .set_stock(fly::NAME, "shared-cpu-1x", "", "fra", 0);
    let wanted = ComputeRequest::cpu(1)
        .image("x/y:1")
        .region("fra")
        .region("ams");
    let room = stage.own.placements(&cx(), &wanted, 3).await.unwrap();
    let counts: Vec<_> = room
        .iter()
        .map(|place| (place.region.as_str(), place.count))
        .collect();
    assert_eq!(counts, [("fra", 0), ("ams", 3)]);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_met_another_is_a_conflict_to_be_repeated_and_what_is_stuck_is_not_waited_for_for_ever()
 {
    let stage = stage();
    let made = stage.running(1).await;
    stage.quirks(|quirks| quirks.busy = 1);
    let error = stage.provider.stop(&cx(), &made.id).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Conflict, &Outcome::NotApplied(Next::SameLater)),
        "{error}"
    );
    stage.quirks(|quirks| quirks.stuck = Some("stopping"));
    let begun = tokio::time::Instant::now();
    let found = stage
        .own
        .wait(
            &cx(),
            &made.id,
            &[WaitFor::Stopped, WaitFor::Failed],
            MINUTE,
        )
        .await
        .unwrap();
    assert_eq!((found, begun.elapsed()), (None, MINUTE));
    let read = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    assert_eq!(
        read.status,
        ComputeStatus::Other("stopping".to_owned()),
        "it is there, and bills"
    );
    assert!(matches!(
        stage.provider.presence(&cx(), &made.id).await,
        Presence::Present
    ));
}
