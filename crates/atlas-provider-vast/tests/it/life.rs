//! What an instance is doing, read from five fields; its ports; stops, starts and bids.

use std::time::Duration;

use atlas_core::{
    Claim, ComputeId, ComputeStatus, ErrorKind, ListFilter, LogQuery, LogSource, Port, StopCause,
    Usd, UsdPerHour,
};
use atlas_testkit::dialect::vast;
use atlas_testkit::world::{MachineState, Visit};

use crate::stage::{answering, cx, request, stage};

#[tokio::test(start_paused = true)]
async fn a_start_that_would_wait_for_its_card_is_no_capacity_and_never_starts_by_itself() {
    let stage = stage();
    let made = stage.running(1, &request()).await;
    stage.provider.stop(&cx(), &made.id).await.unwrap();
    let truth = stage.world.truth(vast::NAME, made.id.as_str()).unwrap();
    let taken = |free| {
        stage
            .world
            .set_stock(vast::NAME, &truth.spec.shape, "", &truth.region, free)
    };
    taken(0);
    let error = stage.provider.start(&cx(), &made.id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoCapacity);
    assert_eq!(stage.read(&made).await.status, ComputeStatus::Stopped);
    // The card is free again: a start that still waited would be done now, and bill.
    taken(2);
    stage.read(&made).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(stage.read(&made).await.status, ComputeStatus::Stopped);
    assert_eq!(
        stage
            .world
            .truth(vast::NAME, made.id.as_str())
            .unwrap()
            .state,
        MachineState::Stopped
    );
    stage.provider.start(&cx(), &made.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(stage.read(&made).await.status, ComputeStatus::Running);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_waits_is_not_running_whoever_ordered_it() {
    let waits = r#"{"instances":{"id":7,"actual_status":"exited","intended_status":"running","cur_state":"stopped","next_state":"running"}}"#;
    let queued = r#"{"success":true,"msg":"Required resources are currently unavailable, state change queued."}"#;
    let id = atlas_core::ComputeId::new("7").unwrap();
    let (provider, _) = answering(&[(200, waits)]);
    assert_eq!(
        provider.get_compute(&cx(), &id).await.unwrap().status,
        ComputeStatus::Provisioning
    );
    for status in [200, 409] {
        let (provider, sent) = answering(&[(status, queued), (200, r#"{"success":true}"#)]);
        assert_eq!(
            provider.start(&cx(), &id).await.unwrap_err().kind(),
            ErrorKind::NoCapacity
        );
        assert_eq!(sent.take()[1].body["state"], "stopped");
    }
    let (provider, _) = answering(&[(200, queued), (500, "")]);
    assert!(
        provider
            .start(&cx(), &id)
            .await
            .unwrap_err()
            .outcome()
            .is_unknown(),
        "it may start after all"
    );
}

#[tokio::test(start_paused = true)]
async fn the_old_exited_that_is_shown_after_a_start_is_no_end() {
    let stage = stage();
    let made = stage.running(1, &request()).await;
    stage.quirks(|quirks| quirks.exited_after_start = Duration::from_secs(120));
    stage.provider.stop(&cx(), &made.id).await.unwrap();
    assert_eq!(stage.read(&made).await.status, ComputeStatus::Stopped);
    stage.provider.start(&cx(), &made.id).await.unwrap();
    let read = stage.read(&made).await;
    assert_eq!(
        (read.raw["actual_status"].as_str(), &read.status),
        (Some("exited"), &ComputeStatus::Provisioning)
    );
    tokio::time::sleep(Duration::from_secs(600)).await;
    stage.own.reboot(&cx(), &made.id).await.unwrap();
    assert_eq!(stage.read(&made).await.status, ComputeStatus::Provisioning);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ended_is_stopped_and_not_taken_back() {
    let stage = stage();
    let made = stage
        .running(1, &request().command(["sh", "-c", "exit 3"]))
        .await;
    assert_eq!(
        (&made.status, made.preempted, made.exit_code),
        (&ComputeStatus::Stopped, false, None)
    );
    assert_eq!(stage.live(), 1, "its disk bills");
}

#[tokio::test(start_paused = true)]
async fn an_outbid_machine_is_preempted_and_a_higher_bid_resumes_it() {
    let stage = stage();
    let made = stage.running(1, &request().spot(true)).await;
    assert!(stage.world.preempt_machine(vast::NAME, made.id.as_str()));
    let read = stage.read(&made).await;
    assert_eq!(
        (&read.status, read.preempted),
        (&ComputeStatus::Stopped, true)
    );
    assert!(
        read.cost_per_hour.unwrap() < made.cost_per_hour.unwrap(),
        "its disk alone"
    );
    stage
        .own
        .change_bid(&cx(), &made.id, UsdPerHour::new(Usd::from_cents(60)))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let read = stage.read(&made).await;
    assert_eq!(
        (&read.status, read.preempted),
        (&ComputeStatus::Running, false)
    );
    assert!(
        read.cost_per_hour.unwrap() > UsdPerHour::new(Usd::from_cents(60)),
        "{:?}",
        read.cost_per_hour
    );

    // Stopped by ourselves it looks the same, although it was not outbid.
    stage.provider.stop(&cx(), &made.id).await.unwrap();
    let read = stage.read(&made).await;
    assert_eq!(
        (&read.status, read.preempted),
        (&ComputeStatus::Stopped, false)
    );
}

#[tokio::test(start_paused = true)]
async fn an_outbid_machine_that_resumes_by_itself_runs_and_bills_again() {
    let stage = stage();
    stage.quirks(|quirks| quirks.resumes_after = Some(Duration::from_secs(3600)));
    let made = stage.running(1, &request().spot(true)).await;
    assert!(stage.world.preempt_machine(vast::NAME, made.id.as_str()));
    assert!(stage.read(&made).await.preempted);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    stage.read(&made).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let read = stage.read(&made).await;
    assert_eq!(
        (&read.status, read.preempted),
        (&ComputeStatus::Running, false)
    );
    assert_eq!(read.cost_per_hour, made.cost_per_hour);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_cannot_run_the_image_has_failed_and_is_avoided_and_progress_is_no_failure() {
    for (word, message, failed) in [
        (
            "loading",
            "Error response from daemon: manifest unknown\n",
            true,
        ),
        (
            "created",
            "OCI runtime create failed: cdi device injection failed",
            true,
        ),
        (
            "loading",
            "Error pulling image x/y:1: Retrying in 5 seconds\nabc: Downloading\n",
            false,
        ),
        // The official client's own table of failures, and what registries refuse with.
        ("created", "docker_build() error writing dockerfile", true),
        (
            "created",
            "Error: container failed to start: exec format error",
            true,
        ),
        ("loading", "unauthorized: authentication required", true),
        (
            "loading",
            "toomanyrequests: You have reached your pull rate limit.",
            true,
        ),
        (
            "loading",
            "1a2b: Extracting liberror-perl\n5d6e: Pull complete\n",
            false,
        ),
        ("loading", "", false),
    ] {
        let stage = stage();
        let best = stage.best(&request()).await;
        let made = stage.order(1, &request()).await.unwrap();
        stage.quirks(|quirks| quirks.boot = Some((word.to_owned(), message.to_owned())));
        let read = stage.read(&made).await;
        assert_eq!(
            read.status == ComputeStatus::Failed,
            failed,
            "{word} {message}: {}",
            read.status
        );
        if failed {
            let reason = read.reason.unwrap();
            assert!(message.contains(&reason), "{reason}");
        }
        stage.provider.terminate(&cx(), &made.id).await.unwrap();
        stage.after_shared_searches().await;
        assert_eq!(
            stage.best(&request()).await.offer != best.offer,
            failed,
            "{message}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_is_no_dead_machine_and_an_unknown_word_is_alive() {
    for (word, status) in [
        ("unknown", ComputeStatus::Other("unknown".to_owned())),
        ("frozen", ComputeStatus::Other("frozen".to_owned())),
        ("offline", ComputeStatus::Failed),
        ("scheduling", ComputeStatus::Provisioning),
        ("recycling", ComputeStatus::Provisioning),
    ] {
        let stage = stage();
        let made = stage.order(1, &request()).await.unwrap();
        stage.quirks(|quirks| quirks.boot = Some((word.to_owned(), String::new())));
        assert_eq!(stage.read(&made).await.status, status, "{word}");
    }
}

#[tokio::test(start_paused = true)]
async fn ports_are_texts_for_two_families_and_new_after_each_start() {
    let stage = stage();
    let made = stage
        .order(1, &request().port(Port::http(8000)).port(Port::tcp(22)))
        .await
        .unwrap();
    assert_eq!(made.ports.len(), 2);
    assert!(
        made.url(8000).is_none() && stage.read(&made).await.url(8000).is_none(),
        "not before it runs"
    );
    tokio::time::sleep(Duration::from_secs(600)).await;
    let read = stage.read(&made).await;
    let outside = stage.world.truth(vast::NAME, made.id.as_str()).unwrap();
    assert_eq!(
        read.public_ip.as_deref(),
        Some(outside.ip.as_str()),
        "without its blanks"
    );
    assert_eq!(
        read.url(8000).unwrap(),
        format!("http://{}:{}", outside.ip, outside.external[&8000])
    );
    assert_eq!(
        read.url(22).unwrap(),
        format!("tcp://{}:{}", outside.ip, outside.external[&22])
    );
    assert_eq!(
        read.ports.len(),
        2,
        "what is exposed and not published is no port: {:?}",
        read.ports
    );
    let before = read.url(8000).unwrap().to_owned();
    stage.own.recycle(&cx(), &made.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_ne!(stage.read(&made).await.url(8000), Some(before.as_str()));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_runs_and_is_never_reached_is_not_said_to_be_ready() {
    let stage = stage();
    stage.quirks(|quirks| quirks.unreachable = true);
    let made = stage.running(1, &request().port(Port::http(8000))).await;
    assert_eq!(
        (&made.status, made.ready),
        (&ComputeStatus::Running, None),
        "running is not reachable: whoever uses it probes it"
    );
    assert!(made.url(8000).is_some());
    assert_eq!(
        stage.world.visit(vast::NAME, made.id.as_str(), 8000, None),
        Visit::NotYet
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_command_printed_is_fetched_from_the_other_host_without_our_key() {
    let stage = stage();
    let made = stage.running(1, &request()).await;
    assert!(
        stage
            .own
            .execute(&cx(), &made.id, "ls -l")
            .await
            .unwrap()
            .contains("ls -l")
    );
    assert_eq!(stage.dialect.keys_leaked(), 0);
    assert!(
        stage
            .asked()
            .iter()
            .any(|call| call.starts_with("GET /s3/")),
        "or it was never asked for there"
    );
    assert_eq!(
        stage
            .own
            .execute(&cx(), &made.id, "curl evil")
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Validation
    );
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_label_was_changed_is_still_ours() {
    let stage = stage();
    let made = stage.running(1, &request()).await;
    let Claim::Whole(key) = made.keys.claim() else {
        panic!("{:?}", made.keys)
    };
    stage
        .own
        .label(&cx(), &made.id, "somebody's")
        .await
        .unwrap();
    assert_eq!(stage.read(&made).await.keys.claim(), Claim::Partial(key));
    let found = stage
        .provider
        .find_by_launch_key(&cx(), &key)
        .await
        .unwrap();
    assert_eq!(found.computes.len(), 1);
}

async fn lines(
    stage: &crate::stage::Stage,
    id: &atlas_core::ComputeId,
    query: &LogQuery,
) -> Vec<atlas_core::LogLine> {
    let mut stream = stage.provider.logs(&cx(), id, query).await.unwrap();
    let mut lines = Vec::new();
    while let Some(line) = std::future::poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        lines.push(line.unwrap());
    }
    lines
}

#[tokio::test(start_paused = true)]
async fn a_log_is_fetched_from_the_other_host_once_it_is_there_and_our_key_never_goes_there() {
    let stage = stage();
    stage.quirks(|quirks| quirks.result_polls = 7);
    let made = stage.running(1, &request()).await;
    stage.asked();
    let both = lines(&stage, &made.id, &LogQuery::default()).await;
    assert!(
        both.iter().any(|line| line.source == LogSource::System)
            && both.iter().any(|line| line.text == "container started")
    );
    assert_eq!(stage.dialect.keys_leaked(), 0);
    let polls = stage
        .asked()
        .iter()
        .filter(|call| call.starts_with("GET /s3/"))
        .count();
    assert_eq!(polls, 2 * 8, "two logs, each there at the eighth look");
    let mut own = LogQuery::default().tail(1);
    own.source = Some(LogSource::Container);
    assert_eq!(lines(&stage, &made.id, &own).await.len(), 1);
    for refused in [LogQuery::default().follow(true), {
        let mut query = LogQuery::default();
        query.since = made.created_at;
        query
    }] {
        let error = stage
            .provider
            .logs(&cx(), &made.id, &refused)
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    stage.quirks(|quirks| quirks.result_polls = 1000);
    let error = stage
        .provider
        .logs(&cx(), &made.id, &LogQuery::default())
        .await
        .map(drop)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "not for ever");
}

/// The status, what ended it, and whether a reason is told.
async fn told(row: &str) -> (String, Option<StopCause>, Option<String>) {
    let body: &'static str = Box::leak(format!(r#"{{"instances":{row}}}"#).into_boxed_str());
    let (provider, _) = answering(&[(200, body)]);
    let id = ComputeId::new("7").unwrap();
    let read = provider.get_compute(&cx(), &id).await.unwrap();
    (read.status.to_string(), read.stop_cause, read.reason)
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_stopped_is_told_apart_from_one_whose_container_ended() {
    let row = |actual: &str, intended: &str, current: &str| {
        format!(
            r#"{{"id":7,"actual_status":"{actual}","intended_status":"{intended}","cur_state":"{current}","next_state":"{current}"}}"#
        )
    };
    let (status, ended, reason) = told(&row("exited", "running", "running")).await;
    assert_eq!(
        (status.as_str(), ended),
        ("stopped", Some(StopCause::CommandEnded))
    );
    assert!(reason.unwrap().contains("by itself"));
    for actual in ["exited", "stopped", "loading", "created"] {
        let (status, ended, reason) = told(&row(actual, "stopped", "stopped")).await;
        assert_eq!(
            (status.as_str(), ended),
            ("stopped", Some(StopCause::Requested)),
            "{actual}"
        );
        assert!(reason.unwrap().contains("from outside"), "{actual}");
    }
    let refused = r#"{"id":7,"actual_status":"loading","intended_status":"stopped","cur_state":"stopped",
        "status_msg":"unauthorized: authentication required"}"#;
    let (status, ended, reason) = told(refused).await;
    assert_eq!(
        (status.as_str(), ended),
        ("failed", Some(StopCause::NeverRan))
    );
    assert_eq!(
        reason.as_deref(),
        Some("unauthorized: authentication required")
    );
    let (status, ended, reason) = told(&row("running", "running", "running")).await;
    assert_eq!((status.as_str(), ended, reason), ("running", None, None));
}

#[tokio::test(start_paused = true)]
async fn an_odd_field_makes_no_machine_unreadable_and_no_other_state() {
    let whole = r#"{"id":"7","actual_status":"running","intended_status":"running","cur_state":"running",
        "num_gpus":"2","gpu_ram":"24564","dph_total":"0.5","dph_base":0.4,"storage_total_cost":"0.2",
        "label":17,"public_ipaddr":null,"machine_id":"31","start_date":"1791201600.31","is_bid":"false",
        "instance":[],"ports":7,"extra_env":null,"new":{"a":[1]}}"#;
    let body: &'static str = Box::leak(format!(r#"{{"instances":{whole}}}"#).into_boxed_str());
    let (provider, _) = answering(&[(200, body)]);
    let read = provider
        .get_compute(&cx(), &ComputeId::new("7").unwrap())
        .await
        .unwrap();
    assert_eq!((read.id.as_str(), read.gpu_count), ("7", 2));
    assert_eq!(
        read.cost_per_hour,
        UsdPerHour::from_f64(0.6),
        "the disk is part of the price, whatever the sum says"
    );
    // A status that is no word is no state that we know, and no machine that has not begun.
    for odd in ["7", "true", "{}", "[]", "\"\""] {
        let (status, ended, _) = told(&format!(r#"{{"id":7,"actual_status":{odd}}}"#)).await;
        assert_eq!((status.as_str(), ended), ("unreadable", None), "{odd}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_row_of_somebody_else_is_no_hole_in_a_listing() {
    let listing = |rows: &str, token: &str| {
        let body =
            format!(r#"{{"success":true,"instances":[{{"id":7}},{rows}],"next_token":{token}}}"#);
        let body: &'static str = Box::leak(body.into_boxed_str());
        answering(&[(200, body), (500, "{}")]).0
    };
    for (row, token, complete) in [
        (r#"{"id":"not-a-number","label":"theirs"}"#, "null", true),
        (r#"{"id":8,"label":{}}"#, "null", true),
        (
            r#"{"id":"x","label":"atlas-x-a1-aaaaaa-nkyqgaabaeaqcaib-aibaeaqc"}"#,
            "null",
            false,
        ),
        (r#"{"label":"theirs"}"#, "null", false),
        ("null", "null", false),
        (r#"{"id":8}"#, r#"{"odd":1}"#, false),
        (r#"{"id":8}"#, "77", false),
    ] {
        let listed = listing(row, token)
            .list_compute(&cx(), &ListFilter::all())
            .await
            .unwrap();
        assert_eq!(listed.is_complete(), complete, "{row} {token}");
        assert_eq!(listed.computes[0].id.as_str(), "7", "{row}");
    }
}
