//! Sessions on Fly's own API, in process: what its ledger says counts, and what its apps say.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use atlas::testkit::dialect::fly;
use atlas::testkit::world::{Fault, FaultKind, World, WorldClock};
use atlas::{
    Atlas, ComputeRequest, Fly, Port, Proof, SeededEntropy, SessionId, SessionKind, SessionOptions,
    StopOutcome, TaskKind, Usd,
};
use atlas_http::Transport;

const BOUND: Duration = Duration::from_secs(3600);

struct Cloud {
    world: World,
    dialect: fly::Fly,
    atlas: Atlas,
}

async fn cloud(seed: u64) -> Cloud {
    let world = World::new(seed, WorldClock::following(1.0)).with_cloud(fly::cloud());
    world.add_key(fly::NAME, "fm2_sim", fly::ORG);
    let dialect = fly::Fly::new(world.clone());
    let clock = Arc::new(world.clock().clone());
    let entropy = || Arc::new(SeededEntropy::new(seed));
    let builder = Fly::builder()
        .api_key("fm2_sim")
        .transport(Transport::new(dialect.clone()));
    let provider = builder
        .clock(clock.clone())
        .entropy(entropy())
        .build()
        .unwrap();
    let atlas = Atlas::builder()
        .provider(provider)
        .clock(clock)
        .entropy(entropy())
        .build()
        .await
        .unwrap();
    Cloud {
        world,
        dialect,
        atlas,
    }
}

impl Cloud {
    /// How many machines were made, and how many are there.
    fn machines(&self) -> (u64, u64) {
        let books = &self.world.ledger().clouds[fly::NAME];
        (books.created, books.live)
    }

    async fn settle(&self, id: SessionId) {
        let outcome = self
            .atlas
            .orchestrator()
            .await_terminated(id, BOUND)
            .await
            .unwrap();
        assert_eq!(outcome, StopOutcome::Terminated);
    }

    /// Waits until the apps are these: supporting objects are released after the proof of the end.
    async fn until_apps(&self, wanted: &[&str]) {
        let mut patience = 600;
        while self.dialect.apps() != wanted {
            assert!(
                patience > 0,
                "{:?} are there, and {wanted:?} should be",
                self.dialect.apps()
            );
            patience -= 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

fn request() -> ComputeRequest {
    ComputeRequest::cpu(1)
        .image("x/y:1")
        .region("fra")
        .port(Port::http(8000))
}

#[tokio::test(start_paused = true)]
async fn a_session_has_an_app_of_its_own_with_its_url_and_gives_all_of_it_back() {
    let cloud = cloud(1).await;
    let session = cloud
        .atlas
        .spawn(request(), SessionOptions::new())
        .await
        .unwrap();
    let info = session.await_ready(Duration::from_secs(300)).await.unwrap();
    let compute = info.compute.unwrap();
    let (_, app) = compute.id.as_str().split_once('.').unwrap();
    assert_eq!(
        compute.url(8000),
        Some(format!("https://{app}.fly.dev").as_str())
    );
    assert_eq!(
        (cloud.dialect.apps(), cloud.dialect.addresses(app).len()),
        (vec![app.to_owned(), fly::APP.to_owned()], 2)
    );
    assert!(
        compute
            .cost_per_hour
            .is_some_and(|cost| cost.per_hour() > Usd::ZERO)
    );
    session.stop().await.unwrap();
    cloud.settle(session.id()).await;
    assert_eq!(cloud.machines(), (1, 0));
    cloud.until_apps(&[fly::APP]).await;
}

#[tokio::test(start_paused = true)]
async fn a_tasks_exit_code_is_the_commands_own_and_nothing_is_left() {
    let cloud = cloud(2).await;
    let command = request().command(["sh", "-c", "sleep 30; exit 7"]);
    let (session, outcome) = cloud
        .atlas
        .run_task(command, SessionOptions::new())
        .await
        .unwrap();
    assert_eq!(
        (outcome.kind, outcome.exit_code, outcome.proof),
        (TaskKind::Failed, Some(7), Proof::Reported)
    );
    cloud.settle(session.id()).await;
    assert_eq!(cloud.machines(), (1, 0));
    cloud.until_apps(&[fly::APP]).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_answer_is_lost_there_is_one_machine_in_one_app_and_none_of_either_afterwards() {
    for (seed, operation) in [
        "ensure_support",
        "spawn_compute",
        "terminate",
        "release_support",
        "get_compute",
    ]
    .iter()
    .enumerate()
    {
        for kind in [
            FaultKind::CommitThen500,
            FaultKind::CommitThenReset,
            FaultKind::Html502,
        ] {
            let cloud = cloud(10 + seed as u64).await;
            cloud
                .world
                .inject([Fault::new(fly::NAME, *operation, kind).times(3)]);
            let id = cloud
                .atlas
                .launch(request(), SessionOptions::new(), SessionKind::Interactive)
                .await
                .unwrap();
            let session = cloud.atlas.session(id).await.unwrap();
            session
                .await_ready(Duration::from_secs(1800))
                .await
                .unwrap();
            assert_eq!(cloud.machines().1, 1, "{operation} {kind}");
            session.stop().await.unwrap();
            cloud.settle(id).await;
            assert_eq!(cloud.machines().1, 0, "{operation} {kind}");
            cloud.until_apps(&[fly::APP]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_that_was_made_for_a_place_without_room_is_given_back_too() {
    let cloud = cloud(3).await;
    cloud
        .world
        .inject([Fault::new(fly::NAME, "spawn_compute", FaultKind::NoCapacity).times(1)]);
    let session = cloud
        .atlas
        .spawn(request(), SessionOptions::new())
        .await
        .unwrap();
    let compute = session
        .await_ready(Duration::from_secs(600))
        .await
        .unwrap()
        .compute
        .unwrap();
    let (_, app) = compute.id.as_str().split_once('.').unwrap();
    assert_eq!(cloud.machines(), (1, 1));
    cloud.until_apps(&[app, fly::APP]).await;
    session.stop().await.unwrap();
    cloud.settle(session.id()).await;
    cloud.until_apps(&[fly::APP]).await;
}
