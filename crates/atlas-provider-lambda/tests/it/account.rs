//! Ports and their rule sets, reboots, keys, and what else the account has.

use std::time::Duration;

use atlas_core::{ComputeRequest, ErrorKind, Gpu, LaunchKey, Port};
use atlas_provider_lambda::{AuditQuery, FirewallRule};
use atlas_testkit::dialect::lambda;
use atlas_testkit::world::{FaultKind, Visit};

use crate::stage::{at, cx, on, request, stage, unlimited};

#[tokio::test(start_paused = true)]
async fn a_machines_ports_are_opened_by_a_rule_set_that_goes_when_the_machine_is_gone() {
    let stage = stage();
    let (key, wanted) = (stage.key(1), request().port(Port::http(8000)));
    let planned = stage.provider.supports(&key, &wanted).unwrap();
    let support = stage
        .provider
        .ensure_support(&cx(), &key, &planned[0])
        .await
        .unwrap();
    let made = stage
        .provider
        .spawn_compute(&cx(), &key, &wanted)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let sets = stage.own.firewall_rulesets(&cx()).await.unwrap();
    assert_eq!(
        (sets.len(), sets[0].instance_ids.as_slice()),
        (1, &[made.id.to_string()][..])
    );
    let ports: Vec<u16> = sets[0]
        .rules
        .iter()
        .filter_map(|rule| rule.port_range)
        .map(|range| range[0])
        .collect();
    assert_eq!(ports, [22, 8000]);
    let read = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    assert_eq!(read.ports[0].external, Some(8000));
    let early = stage
        .provider
        .release_support(&cx(), &support)
        .await
        .unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Conflict);
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    stage
        .provider
        .release_support(&cx(), &support)
        .await
        .unwrap();
    stage
        .provider
        .release_support(&cx(), &support)
        .await
        .unwrap();
    assert!(stage.own.firewall_rulesets(&cx()).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn ports_are_not_promised_where_no_firewall_applies() {
    let stage = stage();
    let wanted = ComputeRequest::gpu(Gpu::A10)
        .image("x/y:1")
        .port(Port::http(8000));
    let regions: Vec<_> = stage
        .provider
        .candidates(&cx(), &wanted)
        .await
        .unwrap()
        .into_iter()
        .filter_map(|candidate| candidate.region)
        .collect();
    assert!(
        !regions.is_empty() && !regions.contains(&"us-south-1".to_owned()),
        "{regions:?}"
    );
    stage.asked();
    let (hinted, pinned) = (
        wanted.clone().region("us-south-1"),
        wanted.at(at("gpu_1x_a10", "us-south-1")),
    );
    for (refused, field) in [(hinted, "region_hints"), (pinned, "candidate")] {
        let error = stage
            .provider
            .spawn_compute(&cx(), &stage.key(1), &refused)
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.field()),
            (ErrorKind::Validation, Some(field))
        );
    }
    assert_eq!(stage.asked(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_is_not_pinned_places_itself_and_opens_its_ports_there() {
    let stage = stage();
    let wanted = ComputeRequest::gpu(Gpu::A10)
        .image("x/y:1")
        .port(Port::http(8000));
    assert!(
        stage
            .provider
            .supports(&LaunchKey::untracked(), &wanted)
            .unwrap()
            .is_empty()
    );
    let made = stage
        .provider
        .spawn_compute(&cx(), &LaunchKey::untracked(), &wanted)
        .await
        .unwrap();
    let region = made.region.clone().unwrap();
    let sets = stage.own.firewall_rulesets(&cx()).await.unwrap();
    assert_eq!(
        sets[0].region.as_ref().map(|place| &place.name),
        Some(&region)
    );
    let truth = stage.world.truth(lambda::NAME, made.id.as_str()).unwrap();
    assert_eq!(truth.spec.ports.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_rebooted_only_once_it_is_active() {
    let stage = stage();
    let made = stage.spawn(1).await.unwrap();
    assert_eq!(
        stage.own.restart(&cx(), &made.id).await.unwrap_err().kind(),
        ErrorKind::Conflict
    );
    tokio::time::sleep(Duration::from_secs(600)).await;
    stage.own.restart(&cx(), &made.id).await.unwrap();
    stage.own.rename(&cx(), &made.id, "by hand").await.unwrap();
    let read = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    assert_eq!(
        (read.name.as_deref(), read.keys.key().is_some()),
        (Some("by hand"), true)
    );
}

#[tokio::test(start_paused = true)]
async fn a_reboot_keeps_the_address_and_the_container_stays_down() {
    let stage = stage();
    let key = stage.key(1);
    let made = stage
        .provider
        .spawn_compute(&cx(), &key, &request().port(Port::http(8000)))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let before = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    let visit = || {
        stage
            .world
            .visit(lambda::NAME, made.id.as_str(), 8000, None)
    };
    assert!(matches!(visit(), Visit::Welcome { .. }));
    stage.own.restart(&cx(), &made.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let after = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    assert_eq!(
        (&after.status, after.public_ip),
        (&before.status, before.public_ip)
    );
    assert_eq!(visit(), Visit::NotYet, "cloud-init does not run again");
}

#[tokio::test(start_paused = true)]
async fn what_the_rules_of_now_let_in_is_reached_and_nothing_else() {
    let stage = stage();
    let wanted = request().port(Port::http(8000));
    let made = stage
        .provider
        .spawn_compute(&cx(), &LaunchKey::untracked(), &wanted)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let reached = || {
        matches!(
            stage
                .world
                .visit(lambda::NAME, made.id.as_str(), 8000, None),
            Visit::Welcome { .. }
        )
    };
    let set = stage.own.firewall_rulesets(&cx()).await.unwrap().remove(0);
    assert!(reached());
    let ssh = [FirewallRule::tcp(22..=22, "ssh")];
    stage
        .own
        .update_firewall_ruleset(&cx(), &set.id, None, Some(&ssh))
        .await
        .unwrap();
    assert!(!reached());
    stage
        .own
        .set_firewall_rules(&cx(), &[FirewallRule::tcp(8000..=8010, "all machines")])
        .await
        .unwrap();
    assert!(reached());
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(stage.live(), 0);
    let held = stage
        .own
        .delete_firewall_ruleset(&cx(), &set.id)
        .await
        .unwrap_err();
    assert_eq!(held.kind(), ErrorKind::Conflict, "in use for a while after");
    tokio::time::sleep(Duration::from_secs(60)).await;
    stage
        .own
        .delete_firewall_ruleset(&cx(), &set.id)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn with_several_ssh_keys_one_must_be_named() {
    let stage = stage();
    let (made, private) = stage.own.generate_ssh_key(&cx(), "second").await.unwrap();
    assert!(
        private.expose().contains("PRIVATE KEY") && !format!("{private:?}").contains("PRIVATE KEY")
    );
    assert_eq!(stage.spawn(1).await.unwrap_err().field(), Some("ssh_key"));
    stage.own.delete_ssh_key(&cx(), &made.id).await.unwrap();
    stage.spawn(2).await.unwrap();
    assert_eq!(stage.live(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_ssh_key_that_is_missing_is_found_before_a_rule_set_is_made() {
    let stage = on(lambda::cloud(), |builder| {
        unlimited(builder).ssh_key("nobody's")
    });
    stage.quirks(|_| {});
    let wanted = request().port(Port::http(8000));
    let key = stage.key(1);
    let planned = stage.provider.supports(&key, &wanted).unwrap();
    let error = stage
        .provider
        .ensure_support(&cx(), &key, &planned[0])
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.field()),
        (ErrorKind::Validation, Some("ssh_key"))
    );
    assert!(error.to_string().contains("nobody's"), "{error}");
    let ordered = stage.provider.spawn_compute(&cx(), &key, &wanted).await;
    assert_eq!(ordered.unwrap_err().field(), Some("ssh_key"));
    let sets = stage.own.firewall_rulesets(&cx()).await.unwrap();
    assert!(sets.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_moved_to_another_workspace_is_another_account() {
    let stage = stage();
    let first = stage.provider.identity(&cx()).await.unwrap();
    assert!(first.starts_with("lambda-key-") && !first.contains("workspace"));
    stage.quirks(|quirks| quirks.workspace = "Research".to_owned());
    let moved = stage.provider.identity(&cx()).await.unwrap();
    assert_eq!(moved, format!("{first}, workspace Research"));
    stage.quirks(|_| {});
    assert_eq!(stage.provider.identity(&cx()).await.unwrap(), first);
    stage.fault("supports", FaultKind::Status500, 1);
    assert!(stage.provider.identity(&cx()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_audit_trail_knows_when_a_machine_was_ordered() {
    let stage = stage();
    let made = stage.spawn(1).await.unwrap();
    let ordered = stage
        .world
        .truth(lambda::NAME, made.id.as_str())
        .unwrap()
        .created_at;
    let events = stage
        .own
        .audit_events(&cx(), &AuditQuery::default())
        .await
        .unwrap();
    let event = events
        .iter()
        .find(|event| event.additional_details["instance_lrn"] == made.id.as_str())
        .unwrap();
    assert_eq!(event.event_time, ordered);
    // In pages, and no half of it.
    for n in 2..6 {
        stage.spawn(n).await.unwrap();
    }
    for size in [1, 2, 5] {
        stage.quirks(|quirks| quirks.page_size = size);
        assert_eq!(
            stage
                .own
                .audit_events(&cx(), &AuditQuery::default())
                .await
                .unwrap()
                .len(),
            5,
            "pages of {size}"
        );
    }
    let mut later = AuditQuery::default();
    later.start = Some(ordered.saturating_add(Duration::from_secs(3600)));
    assert_eq!(stage.own.audit_events(&cx(), &later).await.unwrap(), []);
    stage.fault("audit", FaultKind::Status500, 1);
    assert!(
        stage
            .own
            .audit_events(&cx(), &AuditQuery::default())
            .await
            .is_err()
    );
}
