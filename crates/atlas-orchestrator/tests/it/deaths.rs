//! Deaths, told apart; and what is no death.

use std::time::Duration;

use atlas_orchestrator::{Death, EventKind, OnFailure, Reason, SessionState};
use atlas_testkit::mock::CLOUD;
use atlas_testkit::world::{Fault, FaultKind, World};

use crate::node::{Bench, options, request, settle, sleep};

#[tokio::test(start_paused = true)]
async fn every_way_to_die_has_its_name_and_every_dead_machine_is_ended() {
    type Kill = fn(&World, &str) -> bool;
    let ways: [(Death, bool, Kill); 5] = [
        (Death::Preempted, true, |world, id| {
            world.preempt_machine(CLOUD, id)
        }),
        (Death::Vanished, false, |world, id| {
            world.vanish_machine(CLOUD, id)
        }),
        (Death::Failed, false, |world, id| {
            world.fail_machine(CLOUD, id)
        }),
        (Death::Stopped, false, |world, id| {
            world.stop_machine(CLOUD, id)
        }),
        // Gone for good by somebody else's hand: this cloud does not say so, it only does not know
        // it any more.
        (Death::Vanished, false, |world, id| {
            world.destroy_machine(CLOUD, id)
        }),
    ];
    for (seed, (how, spot, kill)) in (1..).zip(ways) {
        let bench = Bench::new(seed);
        let node = bench.node("a").await;
        let session = node
            .atlas
            .spawn(request().spot(spot), options())
            .await
            .unwrap();
        let info = session.await_ready(Duration::from_secs(300)).await.unwrap();
        sleep(300).await;
        assert!(kill(bench.cloud.world(), info.compute.unwrap().id.as_str()));
        sleep(600).await;
        let died: Vec<Death> = node
            .events()
            .await
            .into_iter()
            .filter_map(|event| match event.kind {
                EventKind::Died { how } => Some(how),
                _ => None,
            })
            .collect();
        assert_eq!(died, [how]);
        assert_eq!(
            session.info().await.unwrap().reason,
            Some(Reason::MachineDied { how })
        );
        settle(&node, session.id()).await;
        assert_eq!(bench.ledger().live, 0, "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_does_not_answer_is_not_a_death() {
    let bench = Bench::new(9);
    let node = bench.node("a").await;
    let session = node
        .atlas
        .spawn(
            request(),
            options()
                .idle_ttl(Duration::from_secs(7200))
                .on_failure(OnFailure::Respawn(3)),
        )
        .await
        .unwrap();
    let before = session.await_ready(Duration::from_secs(300)).await.unwrap();
    sleep(120).await;
    for kind in [
        FaultKind::Status500,
        FaultKind::Status429,
        FaultKind::EmptyList,
        FaultKind::PartialList,
        FaultKind::CommitThenTimeout,
    ] {
        for operation in ["list_compute", "get_compute", "presence"]
            .into_iter()
            .filter(|operation| kind.concerns(operation))
        {
            bench
                .cloud
                .world()
                .inject([Fault::new(CLOUD, operation, kind).times(20)]);
        }
        sleep(900).await;
    }
    let after = session.info().await.unwrap();
    assert_eq!((after.state, after.respawns), (SessionState::Ready, 0));
    assert_eq!(after.compute.unwrap().id, before.compute.unwrap().id);
    assert_eq!(bench.ledger().created, 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_readiness_follows_a_respawn_on_its_first_deadline() {
    let bench = Bench::new(10);
    let node = bench.node("a").await;
    bench
        .cloud
        .world()
        .inject([Fault::new(CLOUD, "spawn_compute", FaultKind::NeverReady).times(10)]);
    let options = options()
        .ready_timeout(Duration::from_secs(100))
        .on_failure(OnFailure::Respawn(9));
    let session = node.atlas.spawn(request(), options).await.unwrap();
    let begun = node.atlas.now();
    let error = session
        .await_ready(Duration::from_secs(350))
        .await
        .unwrap_err();
    assert_eq!(node.atlas.now().since(begun), Duration::from_secs(350));
    assert_eq!(error.kind(), atlas_core::ErrorKind::Timeout);
    assert!(
        error.to_string().contains("the session is starting"),
        "{error}"
    );
    assert_eq!(session.info().await.unwrap().respawns, 3);
}
