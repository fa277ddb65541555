//! Sessions on RunPod's own API, in process: what its ledger says counts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use atlas::testkit::dialect::runpod;
use atlas::testkit::world::{Fault, FaultKind, World, WorldClock};
use atlas::{
    Atlas, ComputeRequest, DiskSize, Gpu, Limit, Proof, Reason, RunPod, SeededEntropy, SessionKind,
    SessionOptions, SessionState, StopOutcome, TaskCause, TaskKind, Usd,
};
use atlas_http::Transport;

const BOUND: Duration = Duration::from_secs(3600);

struct Cloud {
    world: World,
    atlas: Atlas,
}

async fn cloud(seed: u64) -> Cloud {
    let world = World::new(seed, WorldClock::following(1.0)).with_cloud(runpod::cloud());
    world.add_key(runpod::NAME, "sim-key", "me");
    let clock = Arc::new(world.clock().clone());
    let dialect = Transport::new(runpod::RunPod::new(world.clone()));
    let builder = RunPod::builder()
        .api_key("sim-key")
        .transport(dialect)
        .clock(clock.clone());
    let provider = builder
        .entropy(Arc::new(SeededEntropy::new(seed)))
        .build()
        .unwrap();
    // As a store in a file: it outlives the process that is shut down.
    let store = atlas::Memory::new(clock.clone(), &SeededEntropy::new(seed)).durable(true);
    let atlas = Atlas::builder()
        .provider(provider)
        .store(store)
        .clock(clock)
        .entropy(Arc::new(SeededEntropy::new(seed)))
        .build()
        .await
        .unwrap();
    Cloud { world, atlas }
}

impl Cloud {
    fn live(&self) -> u64 {
        self.world.ledger().clouds[runpod::NAME].live
    }

    fn billed(&self) -> Usd {
        self.world.ledger().clouds[runpod::NAME].billed_usd
    }

    async fn settle(&self, id: atlas::SessionId) {
        let outcome = self
            .atlas
            .orchestrator()
            .await_terminated(id, BOUND)
            .await
            .unwrap();
        assert_eq!(outcome, StopOutcome::Terminated);
    }
}

fn request() -> ComputeRequest {
    ComputeRequest::gpu(Gpu::Rtx4090)
        .image("x/y:1")
        .container_disk(DiskSize::gb(10))
        .volume(DiskSize::gb(20))
}

#[tokio::test(start_paused = true)]
async fn a_tasks_pod_is_gone_when_its_command_is_done_and_the_outcome_is_marked_as_inferred() {
    let cloud = cloud(1).await;
    let command = request().command(["sh", "-c", "sleep 600; exit 0"]);
    let (session, outcome) = cloud
        .atlas
        .run_task(command, SessionOptions::new())
        .await
        .unwrap();
    assert_eq!(
        (outcome.kind, outcome.exit_code, outcome.proof),
        (TaskKind::Completed, None, Proof::Inferred)
    );
    let machine = &cloud.world.ledger().clouds[runpod::NAME].machines[0];
    let ran = machine.destroyed_at.unwrap().since(machine.created_at);
    assert!(
        ran < Duration::from_secs(700),
        "it ended itself, {ran:?} after its order"
    );
    let info = session.info().await.unwrap();
    assert!(
        info.unattended.ends_with_command && info.reason == Some(Reason::TaskEnded),
        "{info:?}"
    );
    cloud.settle(session.id()).await;
}

#[tokio::test(start_paused = true)]
async fn a_tasks_pod_ends_itself_though_every_atlas_died() {
    let cloud = cloud(2).await;
    let command = request().command(["sleep", "600"]);
    let id = cloud
        .atlas
        .launch(command, SessionOptions::new(), SessionKind::Task)
        .await
        .unwrap();
    cloud
        .atlas
        .session(id)
        .await
        .unwrap()
        .await_ready(Duration::from_secs(300))
        .await
        .unwrap();
    cloud
        .atlas
        .shutdown(atlas::Shutdown::Handover)
        .await
        .unwrap();
    assert_eq!(cloud.live(), 1);
    tokio::time::sleep(Duration::from_secs(700)).await;
    let billed = cloud.billed();
    assert_eq!(cloud.live(), 0);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(cloud.billed(), billed, "nothing bills any more");
}

#[tokio::test(start_paused = true)]
async fn a_kept_task_that_reports_no_exit_code_is_not_called_completed() {
    let cloud = cloud(3).await;
    let options = SessionOptions::new().keep_finished();
    let (session, outcome) = cloud
        .atlas
        .run_task(request().command(["sleep", "60"]), options)
        .await
        .unwrap();
    assert_eq!(
        (outcome.kind, outcome.proof, outcome.cause),
        (TaskKind::Failed, Proof::Inferred, Some(TaskCause::Unknown)),
        "RunPod says EXITED of a pod that ended and of one that somebody stopped"
    );
    assert!(!session.info().await.unwrap().unattended.ends_with_command);
    cloud.settle(session.id()).await;
    assert_eq!(cloud.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_pod_was_taken_before_its_command_ended_is_not_called_completed_when_it_was_stopped()
 {
    let cloud = cloud(4).await;
    let id = cloud
        .atlas
        .launch(
            request().command(["sleep", "9000"]),
            SessionOptions::new(),
            SessionKind::Task,
        )
        .await
        .unwrap();
    let session = cloud.atlas.session(id).await.unwrap();
    let info = session.await_ready(Duration::from_secs(300)).await.unwrap();
    assert!(
        cloud
            .world
            .stop_machine(runpod::NAME, info.compute.unwrap().id.as_str())
    );
    let outcome = session.await_outcome().await.unwrap();
    assert_eq!(
        (outcome.kind, outcome.proof),
        (TaskKind::Failed, Proof::Inferred)
    );
    cloud.settle(id).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_pod_is_deleted_before_its_container_ran_has_failed() {
    let cloud = cloud(6).await;
    let never_ready = Fault::new(runpod::NAME, "spawn_compute", FaultKind::NeverReady);
    cloud.world.inject([never_ready]);
    let id = cloud
        .atlas
        .launch(
            request().command(["python", "train.py"]),
            SessionOptions::new(),
            SessionKind::Task,
        )
        .await
        .unwrap();
    let session = cloud.atlas.session(id).await.unwrap();
    session.await_accepted().await.unwrap();
    let info = session.info().await.unwrap();
    assert!(
        cloud
            .world
            .vanish_machine(runpod::NAME, info.compute.unwrap().id.as_str())
    );
    let outcome = session.await_outcome().await.unwrap();
    assert_eq!(
        (outcome.kind, outcome.cause),
        (TaskKind::Failed, Some(TaskCause::NeverRan))
    );
    cloud.settle(id).await;
}

#[tokio::test(start_paused = true)]
async fn max_runtime_is_the_backstop_of_a_task_that_never_ends() {
    let cloud = cloud(5).await;
    let options = SessionOptions::new().max_runtime(Duration::from_secs(600));
    let (session, outcome) = cloud
        .atlas
        .run_task(request().command(["serve"]), options)
        .await
        .unwrap();
    assert_eq!(outcome.kind, TaskKind::TimedOut);
    assert_eq!(
        session.info().await.unwrap().reason,
        Some(Reason::Limit {
            limit: Limit::MaxRuntime
        })
    );
    cloud.settle(session.id()).await;
    assert_eq!(cloud.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_runs_without_a_runtime_is_ended_once_its_time_to_be_ready_is_up() {
    let cloud = cloud(6).await;
    cloud.world.inject([Fault::new(
        runpod::NAME,
        "spawn_compute",
        FaultKind::NeverReady,
    )]);
    let options = SessionOptions::new().ready_timeout(Duration::from_secs(300));
    let session = cloud.atlas.spawn(request(), options).await.unwrap();
    let error = session
        .await_ready(Duration::from_secs(900))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("ready_timeout"), "{error}");
    cloud.settle(session.id()).await;
    assert_eq!(cloud.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_limit_bounds_nothing_once_no_atlas_process_lives_and_creation_says_so() {
    let cloud = cloud(7).await;
    let session = cloud
        .atlas
        .spawn(
            request(),
            SessionOptions::new().max_runtime(Duration::from_secs(3600)),
        )
        .await
        .unwrap();
    let info = session.info().await.unwrap();
    assert_eq!(
        (info.unattended.ends_at, info.unattended.at_most),
        (None, None)
    );
    assert_eq!(info.unattended.burn, info.cost.burn);
    assert!(
        info.decisions
            .iter()
            .any(|decision| decision.text.contains("nothing but a living atlas ends it")),
        "{info:?}"
    );
    assert_eq!(info.state, SessionState::Starting);
}

#[tokio::test(start_paused = true)]
async fn what_the_cloud_bills_beyond_its_price_brings_the_end_of_a_budget_forward() {
    let lasts = async |disk: u32| {
        let cloud = cloud(10).await;
        let request = request().container_disk(DiskSize::gb(disk));
        let options = SessionOptions::new()
            .idle_ttl(Duration::from_secs(90 * 3600))
            .max_cost(Usd::from_cents(500));
        let session = cloud.atlas.spawn(request, options).await.unwrap();
        let ended = cloud
            .atlas
            .orchestrator()
            .await_terminated(session.id(), Duration::from_secs(80 * 3600))
            .await
            .unwrap();
        assert_eq!(ended, StopOutcome::Terminated);
        let info = session.info().await.unwrap();
        assert_eq!(
            info.reason,
            Some(Reason::Limit {
                limit: Limit::MaxCost
            })
        );
        (info.cost.estimated, cloud.billed())
    };
    let (plain, _) = lasts(10).await;
    let (dear, billed) = lasts(2_000).await;
    assert!(
        dear < plain,
        "the price says {dear} of what was spent, and {plain} without the disk"
    );
    // Bills come by the hour, and later: what the disk costs until then was not known.
    assert!(
        billed < Usd::from_cents(600) && billed > Usd::from_cents(400),
        "{billed}"
    );
}
