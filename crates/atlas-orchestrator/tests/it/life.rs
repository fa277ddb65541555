//! A session from its spawn to its proved end.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::{AccountLimits, AccountName, Auth, ComputeStatus};
use atlas_orchestrator::store::{AnyStore, Batch, Store as _, Table};
use atlas_orchestrator::{
    Cursor, EventKind, OnFailure, Orchestrator, Reason, SessionFilter, SessionKind, SessionState,
    Shutdown, StopOutcome, TaskKind, Touch,
};
use atlas_testkit::mock::{CLOUD, MockCloud};
use atlas_testkit::world::{Fault, FaultKind};

use crate::node::{Bench, account, assert_gapless, options, request, settle, sleep};

#[tokio::test(start_paused = true)]
async fn a_session_lives_from_spawn_to_proved_end() {
    let bench = Bench::new(1);
    let node = bench.node("a").await;
    let session = node
        .atlas
        .spawn(request().auth(Auth::Bearer), options().user("u42"))
        .await
        .unwrap();
    let info = session.info().await.unwrap();
    assert_eq!((bench.ledger().created, bench.ledger().live), (1, 1));
    let token = info.auth.as_ref().unwrap().secret().expose().to_owned();
    assert!(atlas_auth::token::verify(
        &token,
        info.auth.as_ref().unwrap().hash().unwrap()
    ));
    let ready = session.await_ready(Duration::from_secs(120)).await.unwrap();
    assert_eq!(
        (ready.state, ready.status()),
        (SessionState::Ready, Some(&ComputeStatus::Running))
    );
    assert_eq!(session.touch(), Touch::Recorded);
    assert_eq!(node.atlas.list_ids().await.unwrap(), [session.id()]);
    assert_eq!(
        node.atlas
            .list(SessionFilter::live().user("somebody"))
            .await
            .unwrap()
            .len(),
        0
    );
    assert!(matches!(
        session.stop().await.unwrap(),
        StopOutcome::Terminating { .. }
    ));
    settle(&node, session.id()).await;
    assert_eq!(bench.ledger().live, 0);
    assert!(node.atlas.list_ids().await.unwrap().is_empty());
    assert!(
        session.info().await.unwrap().auth.is_none(),
        "the sealed request is erased"
    );
    let events = node.events().await;
    assert_gapless(&events);
    let terminated = events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::Terminated { .. }))
        .count();
    let terminating = events
        .iter()
        .filter(|event| {
            event.kind
                == EventKind::Terminating {
                    reason: Reason::Requested,
                }
        })
        .count();
    assert_eq!((terminated, terminating), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn terminated_is_not_said_before_two_walks_a_bound_apart() {
    let bench = Bench::new(2);
    let node = bench.node("a").await;
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    sleep(600).await;
    let before = tokio::time::Instant::now();
    session.stop().await.unwrap();
    settle(&node, session.id()).await;
    assert!(
        before.elapsed() >= crate::node::BOUND,
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_leaves_nothing_behind() {
    let bench = Bench::new(3);
    let node = bench.node("a").await;
    let error = node
        .atlas
        .spawn(request().image("a b"), options())
        .await
        .unwrap_err();
    assert_eq!(error.field(), Some("image"));
    assert!(
        node.atlas
            .list(SessionFilter::all())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn sold_out_everywhere_fails_the_spawn_and_says_so() {
    let mut bench = Bench::new(4);
    bench.policy.placing_patience = Duration::from_secs(60);
    for tier in ["secure", "community"] {
        for region in ["r1", "r2"] {
            bench
                .cloud
                .world()
                .set_stock("mock", "gpu-a", tier, region, 0);
        }
    }
    let node = bench.node("a").await;
    let error = node.atlas.spawn(request(), options()).await.unwrap_err();
    assert_eq!(error.kind(), atlas_core::ErrorKind::NoCapacity, "{error}");
    assert_eq!(bench.ledger().created, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dead_machine_is_replaced_with_the_same_token_and_still_ended() {
    let bench = Bench::new(5);
    let node = bench.node("a").await;
    let session = node
        .atlas
        .spawn(
            request().auth(Auth::Bearer),
            options().on_failure(OnFailure::Respawn(1)),
        )
        .await
        .unwrap();
    let first = session.await_ready(Duration::from_secs(120)).await.unwrap();
    sleep(300).await;
    let id = first.compute.as_ref().unwrap().id.clone();
    assert!(bench.cloud.world().vanish_machine("mock", id.as_str()));
    sleep(600).await;
    let second = session.await_ready(Duration::from_secs(300)).await.unwrap();
    assert_eq!(second.respawns, 1);
    assert_ne!(second.compute.as_ref().unwrap().id, id);
    let token = |info: &atlas_orchestrator::SessionInfo| {
        info.auth.as_ref().unwrap().secret().expose().to_owned()
    };
    assert_eq!(token(&first), token(&second));
    sleep(300).await;
    assert_eq!(bench.ledger().live, 1);
    session.stop().await.unwrap();
    settle(&node, session.id()).await;
    assert_eq!(bench.ledger().live, 0);
    assert_gapless(&node.events().await);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_machine_ends_a_session_without_respawn() {
    let bench = Bench::new(6);
    let node = bench.node("a").await;
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    let info = session.await_ready(Duration::from_secs(120)).await.unwrap();
    bench
        .cloud
        .world()
        .stop_machine("mock", info.compute.unwrap().id.as_str());
    sleep(200).await;
    settle(&node, session.id()).await;
    assert!(matches!(
        session.info().await.unwrap().reason,
        Some(Reason::MachineDied { .. })
    ));
    assert_eq!(bench.ledger().live, 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_ends_with_the_code_the_machine_reports() {
    let bench = Bench::new(7);
    let node = bench.node("a").await;
    for (command, kind, code) in [
        ("exit 3", TaskKind::Failed, 3),
        ("exit 0", TaskKind::Completed, 0),
    ] {
        let (session, outcome) = node
            .atlas
            .run_task(request().command(["sh", "-c", command]), options())
            .await
            .unwrap();
        assert_eq!((outcome.kind, outcome.exit_code), (kind, Some(code)));
        assert_eq!(session.info().await.unwrap().kind, SessionKind::Task);
        settle(&node, session.id()).await;
    }
    assert_eq!((bench.ledger().created, bench.ledger().live), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_handover_is_refused_where_nobody_could_take_over() {
    let mut bench = Bench::new(8);
    bench.store = bench.store.durable(false);
    let node = bench.node("a").await;
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    let refused = node.atlas.shutdown(Shutdown::Handover).await.unwrap_err();
    assert_eq!(refused.field(), Some("shutdown"), "{refused}");
    // Nothing was shut down: it goes on as before, and ends what it has when told so.
    node.atlas.spawn(request(), options()).await.unwrap();
    session.stop().await.unwrap();
    settle(&node, session.id()).await;
    let wait = Duration::from_secs(900);
    let report = node.atlas.shutdown(Shutdown::TerminateAll { wait }).await;
    assert_eq!(report.unwrap().terminated, 1);
    assert_eq!(bench.ledger().live, 0);
    let node = bench.node("a").await;
    node.atlas.shutdown(Shutdown::Handover).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn settings_that_cannot_work_are_refused_at_the_start() {
    let started = async |change: fn(&mut atlas_orchestrator::Policy)| {
        let mut bench = Bench::new(8);
        change(&mut bench.policy);
        bench.try_node("a").await.map(drop)
    };
    started(|_| {}).await.unwrap();
    let wrong: [fn(&mut atlas_orchestrator::Policy); 6] = [
        |policy| policy.concurrency = 0,
        |policy| policy.max_orders = 0,
        |policy| policy.lease_renew = Duration::ZERO,
        |policy| policy.lease = policy.lease_renew + policy.lease_margin,
        |policy| policy.default_account.poll_interval = Duration::ZERO,
        |policy| {
            policy.default_account.limits = Some(atlas_core::AccountLimits {
                concurrency: 0,
                ..Default::default()
            });
        },
    ];
    for (case, change) in wrong.into_iter().enumerate() {
        let error = started(change).await.unwrap_err();
        assert_eq!(
            error.kind(),
            atlas_core::ErrorKind::Validation,
            "case {case}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_placed_at_the_candidate_that_its_request_names_and_nowhere_else() {
    let bench = Bench::new(8);
    let node = bench.node("a").await;
    let provider = bench.cloud.provider();
    let listed = provider
        .candidates(&atlas_core::CallContext::new(), &request())
        .await
        .unwrap();
    let (first, chosen) = (&listed[0], listed.last().unwrap());
    assert_ne!(first, chosen, "there is a choice");
    let session = node
        .atlas
        .spawn(request().at(chosen.clone()), options())
        .await
        .unwrap();
    let info = session.info().await.unwrap();
    assert_eq!(info.cost.quoted, chosen.price, "{info:?}");
    let machine = &bench.ledger().machines[0];
    let placed = info.attempts[0].placed.clone();
    assert!(
        chosen
            .region
            .as_ref()
            .is_none_or(|region| placed.contains(region.as_str())),
        "{placed} {machine:?}"
    );
    session.stop().await.unwrap();
    settle(&node, session.id()).await;
}

#[tokio::test(start_paused = true)]
async fn terminate_all_leaves_no_machine_and_handover_leaves_them_all() {
    let bench = Bench::new(8);
    let node = bench.node("a").await;
    for _ in 0..5 {
        node.atlas.spawn(request(), options()).await.unwrap();
    }
    let report = node.atlas.shutdown(Shutdown::Handover).await.unwrap();
    assert_eq!((report.handed_over, report.flushed), (5, true));
    assert_eq!(bench.ledger().live, 5);
    let node = bench.node("a").await;
    assert_eq!(node.atlas.tracked(), 5);
    let report = node
        .atlas
        .shutdown(Shutdown::TerminateAll {
            wait: Duration::from_secs(900),
        })
        .await
        .unwrap();
    assert_eq!((report.terminated, report.unsettled.len()), (5, 0));
    assert_eq!(bench.ledger().live, 0);
}

#[tokio::test(start_paused = true)]
async fn what_supports_a_machine_is_released_after_it_was_made_whenever_its_session_is_stopped() {
    for millis in (0..10_000).step_by(500) {
        let mut bench = Bench::new(11);
        // One call at a time, and a release goes before what is made: it could overtake it.
        let limits = AccountLimits {
            concurrency: 1,
            ..bench.limits
        };
        bench.cloud = bench.cloud.clone().limits(limits).supporting();
        let node = bench.node("a").await;
        bench.cloud.world().inject([
            Fault::new(CLOUD, "list_compute", FaultKind::Slow).times(20),
            Fault::new(CLOUD, "list_gpu_types", FaultKind::Slow),
        ]);
        let id = node
            .atlas
            .launch(request(), options(), SessionKind::Interactive)
            .await
            .unwrap();
        let atlas = node.atlas.clone();
        let busy =
            tokio::spawn(async move { while atlas.reap_now(&account(), true).await.is_ok() {} });
        tokio::time::sleep(Duration::from_millis(millis)).await;
        node.atlas.stop_tracked(id).await.unwrap();
        sleep(120).await;
        busy.abort();
        settle(&node, id).await;
        assert!(
            bench.cloud.supports().is_empty(),
            "stopped after {millis} ms"
        );
        node.crash();
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_whose_cloud_does_not_answer_keeps_no_other_account_waiting() {
    let mut bench = Bench::new(12);
    bench.policy.concurrency = 4;
    let (hanging, sound) = (
        AccountName::new("hanging").unwrap(),
        AccountName::new("sound").unwrap(),
    );
    let other = MockCloud::new(13).limits(bench.limits);
    let atlas = Orchestrator::builder()
        .account(hanging.clone(), bench.cloud.provider())
        .account(sound.clone(), other.provider())
        .store(AnyStore::new(bench.store.clone()))
        .realm(bench.realm.clone())
        .policy(bench.policy.clone())
        .start()
        .await
        .unwrap();
    for _ in 0..30 {
        let session = atlas
            .spawn(request(), options().account(hanging.clone()))
            .await
            .unwrap();
        session.await_ready(Duration::from_secs(300)).await.unwrap();
    }
    bench
        .cloud
        .world()
        .inject([Fault::new(CLOUD, "terminate", FaultKind::CommitThenTimeout).times(u32::MAX)]);
    for id in atlas.list_ids().await.unwrap() {
        atlas.stop_tracked(id).await.unwrap();
    }
    sleep(10).await;
    let session = atlas
        .spawn(request(), options().account(sound))
        .await
        .unwrap();
    session.stop().await.unwrap();
    let over = atlas
        .await_terminated(session.id(), Duration::from_secs(200))
        .await
        .unwrap();
    assert_eq!(over, StopOutcome::Terminated);
}

#[tokio::test(start_paused = true)]
async fn a_live_subscription_sees_what_the_log_keeps() {
    let bench = Bench::new(9);
    let node = bench.node("a").await;
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    let mut live = session.events(Cursor::START);
    let reader = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(delivery) = live.next().await.unwrap() {
            let last = matches!(delivery.event.kind, EventKind::Terminated { .. });
            seen.push(delivery.event);
            if last {
                break;
            }
        }
        seen
    });
    session.await_ready(Duration::from_secs(120)).await.unwrap();
    session.stop().await.unwrap();
    settle(&node, session.id()).await;
    let seen = reader.await.unwrap();
    let kept: Vec<_> = node.events().await;
    assert_eq!(seen, kept);
    assert_eq!(
        node.atlas
            .reap_now(&account(), true)
            .await
            .unwrap()
            .victims
            .len(),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_that_comes_while_all_are_being_ended_is_refused_and_leaves_nothing() {
    let bench = Bench::new(31);
    let node = bench.node("a").await;
    node.atlas.spawn(request(), options()).await.unwrap();
    sleep(300).await;
    let atlas = node.atlas.clone();
    let shutdown = tokio::spawn(async move {
        atlas
            .shutdown(Shutdown::TerminateAll {
                wait: Duration::from_secs(600),
            })
            .await
    });
    sleep(1).await;
    assert!(node.atlas.spawn(request(), options()).await.is_err());
    let report = shutdown.await.unwrap().unwrap();
    assert_eq!(
        (
            report.terminated,
            report.handed_over,
            report.unsettled.len()
        ),
        (1, 0, 0)
    );
    assert_eq!((bench.ledger().created, bench.ledger().live), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_from_memory_after_the_last_flush() {
    let bench = Bench::new(32);
    let node = bench.node("a").await;
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    sleep(300).await;
    assert_eq!(session.touch(), Touch::Recorded);
    let report = node.atlas.shutdown(Shutdown::Handover).await.unwrap();
    assert!(report.flushed);
    assert_eq!(session.touch(), Touch::Deferred);
}

#[tokio::test(start_paused = true)]
async fn other_tasks_run_while_many_ended_sessions_are_read() {
    let bench = Bench::new(9);
    let node = bench.node("a").await;
    let (id, _) = crate::node::ended(&bench, &node).await;
    let row = bench.store.get(Table::Sessions, id.as_bytes()).await;
    let row = row.unwrap().unwrap();
    let mut batch = Batch::new();
    for n in 0..2000_u128 {
        batch.put(Table::Sessions, n.to_be_bytes(), row.value.clone());
    }
    bench.store.commit(batch).await.unwrap();
    let turns = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = turns.clone();
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let mut turns_during = Vec::new();
    let since = || turns.swap(0, std::sync::atomic::Ordering::Relaxed);
    since();
    assert_eq!(
        node.atlas.list(SessionFilter::all()).await.unwrap().len(),
        2001
    );
    turns_during.push(since());
    node.atlas.audit().await.unwrap();
    turns_during.push(since());
    assert!(
        turns_during.iter().all(|turns| *turns >= 10),
        "{turns_during:?}"
    );
    other.abort();
}
