//! Apps and addresses as recorded steps: made once whatever answer was lost, and released only when
//! nothing goes with them.

use std::time::Duration;

use atlas_core::{ErrorKind, LaunchKey, Next, Outcome, Port, Presence, Secret, Support};
use atlas_provider_fly::IpKind;
use atlas_testkit::dialect::fly::{self, Scope};
use atlas_testkit::world::FaultKind;
use serde_json::json;

use crate::stage::{Stage, answering, built, cx, id, request, stage};

/// The steps of a machine with an HTTP port.
fn planned(stage: &Stage, key: &LaunchKey) -> Vec<Support> {
    stage
        .provider
        .supports(key, &request().port(Port::http(8000)))
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaves_one_app_and_one_address_of_each_kind() {
    for kind in [
        FaultKind::CommitThen500,
        FaultKind::CommitThenReset,
        FaultKind::Html502,
    ] {
        let stage = stage();
        let key = stage.key(1);
        let steps = planned(&stage, &key);
        assert_eq!(
            steps
                .iter()
                .map(|step| step.kind.as_str())
                .collect::<Vec<_>>(),
            ["app", "ip", "ip"]
        );
        for step in &steps {
            stage.fault("ensure_support", kind, 1);
            let _ = stage.provider.ensure_support(&cx(), &key, step).await;
            let (first, second) = (
                stage
                    .provider
                    .ensure_support(&cx(), &key, step)
                    .await
                    .unwrap(),
                stage
                    .provider
                    .ensure_support(&cx(), &key, step)
                    .await
                    .unwrap(),
            );
            assert!(first.id.is_some() && first == second, "{kind}");
        }
        assert_eq!(stage.dialect.apps(), [steps[0].name.as_str(), fly::APP]);
        assert_eq!(stage.dialect.addresses(&steps[0].name).len(), 2, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_app_is_waited_for_before_a_machine_is_made_in_it() {
    let stage = stage();
    stage.quirks(|quirks| quirks.app_appears = Duration::from_secs(8));
    let made = stage
        .supported(&stage.key(1), &request().port(Port::http(8000)))
        .await;
    assert!(stage.world.truth(fly::NAME, made.id.as_str()).is_some());
    // Where it never shows, the step fails and may be repeated.
    stage.quirks(|quirks| quirks.app_appears = Duration::from_secs(3600));
    let key = stage.key(2);
    let error = stage
        .provider
        .ensure_support(&cx(), &key, &planned(&stage, &key)[0])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_somebody_elses_is_a_conflict_and_never_ours() {
    let stage = stage();
    let key = stage.key(1);
    let step = planned(&stage, &key).remove(0);
    stage.dialect.add_app("somebody-else", &step.name);
    let error = stage
        .provider
        .ensure_support(&cx(), &key, &step)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Conflict, &Outcome::NotApplied(Next::Stop))
    );
    // Releasing it succeeds at once, because it is not ours, and leaves it alone.
    stage.provider.release_support(&cx(), &step).await.unwrap();
    assert!(stage.dialect.apps().contains(&step.name));
    assert!(!stage.lines().iter().any(|line| line.starts_with("DELETE")));
}

#[tokio::test(start_paused = true)]
async fn an_app_is_released_with_its_addresses_and_not_while_a_machine_is_in_it() {
    let stage = stage();
    let key = stage.key(1);
    let made = stage
        .supported(&key, &request().port(Port::http(8000)))
        .await;
    let steps = planned(&stage, &key);
    let error = stage
        .provider
        .release_support(&cx(), &steps[0])
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), stage.live()),
        (ErrorKind::Conflict, 1),
        "deleting an app takes its machines along"
    );
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    for step in steps.iter().rev().chain(steps.iter().rev()) {
        stage.provider.release_support(&cx(), step).await.unwrap();
    }
    assert_eq!(stage.dialect.apps(), [fly::APP]);
}

#[tokio::test(start_paused = true)]
async fn an_app_into_which_somebody_put_a_machine_is_left_to_them() {
    let stage = stage();
    let key = stage.key(1);
    let made = stage
        .supported(&key, &request().port(Port::http(8000)))
        .await;
    let clone = stage
        .world
        .clone_machine(fly::NAME, made.id.as_str())
        .unwrap();
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    let step = planned(&stage, &key).remove(0);
    let error = stage
        .provider
        .release_support(&cx(), &step)
        .await
        .unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Conflict,
        "one with our whole key is ours to end first"
    );
    stage
        .world
        .rename_machine(fly::NAME, &clone.id, "somebodys");
    stage.provider.release_support(&cx(), &step).await.unwrap();
    assert_eq!(
        (stage.live(), stage.dialect.apps().contains(&step.name)),
        (1, true)
    );
    stage.world.destroy_machine(fly::NAME, &clone.id);
    stage.provider.release_support(&cx(), &step).await.unwrap();
    assert_eq!(stage.dialect.apps(), [fly::APP]);
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_own_app_is_gone_is_gone_where_the_whole_organisation_can_be_seen() {
    let stage = stage();
    let made = stage
        .supported(&stage.key(1), &request().port(Port::http(8000)))
        .await;
    let app = made.id.as_str().split_once('.').unwrap().1.to_owned();
    stage.own.delete_app(&cx(), &app).await.unwrap();
    assert_eq!(stage.live(), 0);
    // A token for another app sees nothing of it, and one of another organisation is told nothing.
    stage.dialect.limit_token("fm2_other", Scope::app(fly::APP));
    let narrow = cx().with_api_key(Secret::new("fm2_other"));
    assert!(matches!(
        stage.provider.presence(&narrow, &made.id).await,
        Presence::NoAnswer(_)
    ));
    assert!(stage.provider.terminate(&narrow, &made.id).await.is_err());
    // A list of apps that fails, or is not whole, proves nothing.
    stage.fault("supports", FaultKind::Html502, 2);
    assert!(matches!(
        stage.provider.presence(&cx(), &made.id).await,
        Presence::NoAnswer(_)
    ));
    stage.world.calm();
    let partial = answering(&[
        ("/machines/6e", 404, r#"{"error":"machine not found"}"#),
        (
            "/apps/atlas-a1-aaaaaa-nkyqgaabaeaqcaib-aibaeaqc",
            404,
            r#"{"error":"Could not find App"}"#,
        ),
        (
            "/tokens/current",
            200,
            r#"{"tokens":[{"org_slug":"acme"}]}"#,
        ),
        ("/apps", 200, r#"{"apps":[],"total_apps":7}"#),
    ]);
    let own = id("6e.atlas-a1-aaaaaa-nkyqgaabaeaqcaib-aibaeaqc");
    assert!(matches!(
        partial.presence(&cx(), &own).await,
        Presence::NoAnswer(_)
    ));
    assert!(matches!(
        stage.provider.presence(&cx(), &made.id).await,
        Presence::Absent
    ));
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
    // The name belongs to another organisation now: where the machine went is unknown.
    stage.dialect.add_app("somebody-else", &app);
    assert!(matches!(
        stage.provider.presence(&cx(), &made.id).await,
        Presence::NoAnswer(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn the_accounts_app_is_for_machines_without_ports_unless_each_is_to_have_its_own() {
    let key = stage().key(1);
    let kinds = |stage: &Stage, request: &atlas_core::ComputeRequest| -> Vec<String> {
        stage
            .provider
            .supports(&key, request)
            .unwrap()
            .into_iter()
            .map(|step| step.kind)
            .collect()
    };
    let (plain, open) = (request(), request().port(Port::tcp(22)));
    assert_eq!(
        (kinds(&stage(), &plain).len(), kinds(&stage(), &open).len()),
        (0, 2)
    );
    let own = built(|builder| builder.org(fly::ORG).app(fly::APP).own_apps(true));
    assert_eq!(
        (kinds(&own, &plain), kinds(&own, &open).len()),
        (vec!["app".to_owned()], 2)
    );
    let none = built(|builder| builder.org(fly::ORG));
    assert_eq!(kinds(&none, &plain), ["app"]);
    // Without an orchestrator it would never be released.
    let error = none
        .provider
        .spawn_compute(&cx(), &LaunchKey::untracked(), &plain)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.field()),
        (ErrorKind::Validation, Some("app"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_app_that_is_gone_is_not_found_and_a_new_one_is_tried_again() {
    let stage = built(|builder| builder.org(fly::ORG).app("never-was"));
    let error = stage.spawn(1).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::NotFound, &Outcome::NotApplied(Next::Stop))
    );
    let own = built(|builder| builder.org(fly::ORG));
    let error = own.spawn(1).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::NotFound, &Outcome::NotApplied(Next::SameLater))
    );
}

#[tokio::test(start_paused = true)]
async fn apps_and_addresses_are_made_listed_and_deleted() {
    let stage = stage();
    stage
        .own
        .create_app(&cx(), "mine", Some("net"))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    stage.own.create_app(&cx(), "mine", None).await.unwrap();
    stage.dialect.add_app("somebody-else", "theirs");
    assert_eq!(
        stage
            .own
            .create_app(&cx(), "theirs", None)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Forbidden
    );
    assert_eq!(
        stage
            .own
            .create_app(&cx(), "No Name", None)
            .await
            .unwrap_err()
            .field(),
        Some("app")
    );
    assert_eq!(stage.own.apps(&cx()).await.unwrap().len(), 2);
    let dedicated = stage
        .own
        .allocate_ip(&cx(), "mine", IpKind::V4)
        .await
        .unwrap();
    let shared = stage
        .own
        .allocate_ip(&cx(), "mine", IpKind::SharedV4)
        .await
        .unwrap();
    assert_eq!(
        (dedicated.kind, shared.kind),
        (Some(IpKind::V4), Some(IpKind::SharedV4))
    );
    stage
        .own
        .release_ip(&cx(), "mine", &dedicated.ip)
        .await
        .unwrap();
    stage
        .own
        .release_ip(&cx(), "mine", &dedicated.ip)
        .await
        .unwrap();
    assert_eq!(stage.own.ips(&cx(), "mine").await.unwrap(), [shared]);
    stage.own.delete_app(&cx(), "mine").await.unwrap();
    stage.own.delete_app(&cx(), "mine").await.unwrap();
    assert_eq!(stage.own.app(&cx(), "mine").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_none_of_ours_is_refused() {
    let stage = stage();
    for (kind, spec) in [
        ("ruleset", json!({})),
        ("ip", json!({ "app": "../x", "type": "v6" })),
        ("ip", json!({ "app": "a", "type": "v9" })),
    ] {
        let step = Support {
            kind: kind.to_owned(),
            name: "x".to_owned(),
            id: None,
            spec,
        };
        assert_eq!(
            stage
                .provider
                .ensure_support(&cx(), &stage.key(1), &step)
                .await
                .unwrap_err()
                .field(),
            Some("support")
        );
        assert_eq!(
            stage
                .provider
                .release_support(&cx(), &step)
                .await
                .unwrap_err()
                .field(),
            Some("support")
        );
    }
    assert_eq!(stage.lines(), [""; 0]);
}
