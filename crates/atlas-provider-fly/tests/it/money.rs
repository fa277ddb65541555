//! The rules that keep a machine from billing unseen, each once: what the cloud's ledger says
//! counts, not what we were told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atlas_core::{
    Auth, CallContext, ComputeRequest, ComputeStatus, Credential, DiskSize, ErrorKind, Gpu,
    ListFilter, Next, Outcome, Port, Presence, Secret, Usd, UsdPerHour, VolumeId, VolumeRequest,
};
use atlas_http::CredentialSource;
use atlas_provider_fly::{IpKind, WaitFor};
use atlas_testkit::dialect::fly::{self, NoRoom, Scope};
use atlas_testkit::world::{FaultKind, Standing};
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

use crate::stage::{answering, at, built, cx, id, request, stage};

#[tokio::test(start_paused = true)]
async fn an_order_whose_answer_was_spoiled_is_unknown_made_once_and_found_by_its_key() {
    for kind in [
        FaultKind::CommitThen500,
        FaultKind::CommitThenReset,
        FaultKind::Html502,
        FaultKind::Truncated,
        FaultKind::CommitThenTimeout,
    ] {
        let stage = stage();
        stage.fault("spawn_compute", kind, 1);
        let patient = CallContext::new().with_retries(5);
        let error = stage
            .provider
            .spawn_compute(&patient, &stage.key(1), &request())
            .await
            .unwrap_err();
        assert!(error.outcome().is_unknown(), "{kind}: {error:?}");
        assert_eq!(stage.made(), 1, "{kind}");
        let key = stage.world.all(fly::NAME)[0].launch_key().unwrap();
        let found = stage
            .provider
            .find_by_launch_key(&cx(), &key)
            .await
            .unwrap();
        assert_eq!(
            (found.computes.len(), found.is_complete()),
            (1, true),
            "{kind}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_408_of_an_order_is_no_refusal() {
    let stage = stage();
    stage.quirks(|quirks| quirks.lost_is_408 = true);
    stage.fault("spawn_compute", FaultKind::CommitThen500, 1);
    let patient = CallContext::new().with_retries(5);
    let error = stage
        .provider
        .spawn_compute(&patient, &stage.key(1), &request())
        .await
        .unwrap_err();
    assert_eq!(
        (error.status(), error.outcome().is_unknown(), stage.made()),
        (Some(408), true, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn the_same_order_again_is_the_machine_that_is_there_and_no_second_one() {
    let stage = stage();
    stage.fault("spawn_compute", FaultKind::CommitThen500, 1);
    stage.spawn(1).await.unwrap_err();
    let again = stage.spawn(1).await.unwrap();
    assert_eq!(
        (stage.made(), again.id.as_str()),
        (1, stage.world.all(fly::NAME)[0].id.as_str())
    );
    assert_eq!(again.keys.key(), stage.key(1).tracked().copied());
    // A read that fails leaves the outcome unknown, with the id that the text had.
    stage.fault("get_compute", FaultKind::Status500, 1);
    let error = stage.spawn(1).await.unwrap_err();
    assert_eq!(error.outcome(), &Outcome::Unknown(vec![again.id.clone()]));
    // One whose metadata say otherwise is not taken for ours.
    stage
        .world
        .retag_machine(fly::NAME, again.id.as_str(), None);
    stage
        .world
        .rename_machine(fly::NAME, again.id.as_str(), &again.name.clone().unwrap());
    let untagged = stage.spawn(1).await.unwrap();
    assert_eq!(untagged.id, again.id, "the name alone still recognises it");
}

#[tokio::test(start_paused = true)]
async fn an_untracked_name_that_is_taken_is_a_conflict() {
    let stage = stage();
    let named = request().name("mine");
    let untracked = atlas_core::LaunchKey::untracked();
    stage
        .provider
        .spawn_compute(&cx(), &untracked, &named)
        .await
        .unwrap();
    let error = stage
        .provider
        .spawn_compute(&cx(), &untracked, &named)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Conflict, &Outcome::NotApplied(Next::Stop))
    );
    assert_eq!(stage.made(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_field_that_fly_would_ignore_is_refused_before_any_call() {
    let stage = stage();
    for opts in [
        json!({ "config": { "services": [{ "auto_stop_machines": "stop" }] } }),
        json!({ "config": { "auto_destory": true } }),
        json!({ "skip_lunch": true }),
    ] {
        let error = stage
            .provider
            .spawn_compute(&cx(), &stage.key(1), &request().provider_opts(opts))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.field()),
            (ErrorKind::Validation, Some("provider_opts")),
            "{error}"
        );
    }
    assert_eq!(stage.lines(), [""; 0]);
    // And of what is sent, the cloud knows every field.
    let whole = request().provider_opts(json!({ "config": { "auto_destroy": true } }));
    stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &whole)
        .await
        .unwrap();
    let sent = stage.asked().pop().unwrap().body;
    let kept = stage.world.all(fly::NAME)[0].spec.extra["config"].clone();
    assert_eq!(
        sent["config"]
            .as_object()
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        {
            let mut keys: Vec<_> = kept
                .as_object()
                .unwrap()
                .keys()
                .filter(|key| *key != "init")
                .collect();
            keys.sort_unstable();
            keys
        }
    );
    assert!(stage.world.all(fly::NAME)[0].spec.exit_destroys);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_runs_is_destroyed_by_force_and_gone_only_when_the_cloud_says_so() {
    let stage = stage();
    let made = stage.running(1).await;
    stage.asked();
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
    let asked = stage.asked().remove(0);
    assert_eq!(asked.query, "force=true");
    assert!(
        matches!(
            stage.provider.presence(&cx(), &made.id).await,
            Presence::Present
        ),
        "accepted is not gone"
    );
    tokio::time::sleep(Duration::from_secs(30)).await;
    // First 200 `destroyed`, and later 404: both are proof.
    let read = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    assert_eq!(read.status, ComputeStatus::Terminated);
    assert!(matches!(
        stage.provider.presence(&cx(), &made.id).await,
        Presence::Absent
    ));
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(
        stage
            .provider
            .get_compute(&cx(), &made.id)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    assert!(matches!(
        stage.provider.presence(&cx(), &made.id).await,
        Presence::Absent
    ));
    assert_eq!(stage.live(), 0);
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_destroy_that_was_accepted_and_did_nothing_proves_nothing() {
    let stage = stage();
    stage.quirks(|quirks| quirks.destroys_nothing = true);
    let made = stage.running(1).await;
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(matches!(
        stage.provider.presence(&cx(), &made.id).await,
        Presence::Present
    ));
    assert_eq!(stage.live(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_destroy_that_was_refused_is_an_error() {
    let stage = stage();
    let made = stage.running(1).await;
    let held = stage
        .own
        .take_lease(&cx(), &made.id, Duration::from_secs(60), None)
        .await
        .unwrap();
    let error = stage.provider.terminate(&cx(), &made.id).await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Conflict,
        "somebody else's lease: {error}"
    );
    assert_eq!(stage.live(), 1);
    stage.own.release_lease(&cx(), &held).await.unwrap();
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_machine_bills_and_is_never_said_to_be_free() {
    let stage = stage();
    let made = stage.running(1).await;
    stage.provider.stop(&cx(), &made.id).await.unwrap();
    let stopped = [WaitFor::Stopped];
    assert_eq!(
        stage
            .own
            .wait(&cx(), &made.id, &stopped, Duration::from_secs(60))
            .await
            .unwrap(),
        Some(WaitFor::Stopped)
    );
    let read = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    assert_eq!(read.status, ComputeStatus::Stopped);
    let said = read.cost_per_hour.unwrap().per_hour();
    let before = stage.world.ledger().clouds[fly::NAME].billed_usd;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let hour = stage.world.ledger().clouds[fly::NAME].billed_usd.nanos() - before.nanos();
    assert!(
        hour > 0 && said.nanos() >= hour,
        "an hour costs {hour}, and is said to cost {said}"
    );
    assert_eq!(stage.live(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_volume_outlives_its_machine_and_bills_until_it_is_deleted() {
    let stage = stage();
    let volumes = stage.provider.network_volumes().unwrap();
    let wanted = VolumeRequest {
        name: "data".to_owned(),
        size: DiskSize::gb(10),
        region: "fra".to_owned(),
    };
    let volume = volumes.create_network_volume(&cx(), &wanted).await.unwrap();
    let mounting = request().network_volume(volume.id.clone());
    let made = stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &mounting)
        .await
        .unwrap();
    // 15 cents for a GB and thirty days, besides the machine.
    let priced = |price: Option<UsdPerHour>| price.unwrap().per_hour().nanos();
    let open = ComputeRequest::cpu(1).image("x/y:1").region("fra");
    let plain = stage.provider.candidates(&cx(), &open).await.unwrap();
    let alone = priced(plain[0].price);
    let offered = stage
        .provider
        .candidates(&cx(), &open.network_volume(volume.id.clone()))
        .await
        .unwrap();
    let read = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    for price in [made.cost_per_hour, read.cost_per_hour, offered[0].price] {
        assert_eq!(priced(price) - alone, 10 * 150_000_000 / 720);
    }
    let error = volumes
        .delete_network_volume(&cx(), &volume.id)
        .await
        .unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Conflict,
        "while a machine mounts it"
    );
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(
        (
            stage.live(),
            volumes.list_network_volumes(&cx()).await.unwrap().len()
        ),
        (0, 1)
    );
    volumes
        .delete_network_volume(&cx(), &volume.id)
        .await
        .unwrap();
    volumes
        .delete_network_volume(&cx(), &volume.id)
        .await
        .unwrap();
    assert_eq!(volumes.list_network_volumes(&cx()).await.unwrap(), []);
    // A 404 about a volume of an unknown app says nothing.
    let strange = VolumeId::new("vol_x.somebody-elses").unwrap();
    assert_eq!(
        volumes
            .delete_network_volume(&cx(), &strange)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test(start_paused = true)]
async fn a_404_of_a_wrong_app_a_wrong_token_or_a_proxy_ends_nothing() {
    let stage = stage();
    let made = stage.running(1).await;
    let (machine, _) = made.id.as_str().split_once('.').unwrap();
    stage.dialect.add_app("somebody-else", "theirs");
    stage.dialect.add_app(fly::ORG, "other-app");
    for app in ["never-was", "theirs"] {
        let astray = id(&format!("{machine}.{app}"));
        assert!(
            matches!(
                stage.provider.presence(&cx(), &astray).await,
                Presence::NoAnswer(_)
            ),
            "{app}"
        );
        assert!(
            stage.provider.terminate(&cx(), &astray).await.is_err(),
            "{app}"
        );
    }
    // A token for another app sees neither this machine nor its app.
    stage
        .dialect
        .limit_token("fm2_other", Scope::app("other-app"));
    let narrow = cx().with_api_key(Secret::new("fm2_other"));
    assert!(matches!(
        stage.provider.presence(&narrow, &made.id).await,
        Presence::NoAnswer(_)
    ));
    assert!(stage.provider.terminate(&narrow, &made.id).await.is_err());
    // A token that is another organisation's from now on.
    stage.world.swap_account(fly::NAME, super::stage::KEY);
    assert!(matches!(
        stage.provider.presence(&cx(), &made.id).await,
        Presence::NoAnswer(_)
    ));
    assert!(stage.provider.terminate(&cx(), &made.id).await.is_err());
    assert!(
        stage
            .provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .is_err()
    );
    assert_eq!(stage.live(), 1);
    for body in ["", "<html>404</html>", "{}"] {
        let provider = match body {
            "" => answering(&[("/apps/pods", 200, r#"{"name":"pods"}"#)]),
            "{}" => answering(&[
                ("/machines/6e", 404, "{}"),
                ("/apps/pods", 200, r#"{"name":"pods"}"#),
            ]),
            _ => answering(&[
                ("/machines/6e", 404, "<html>404</html>"),
                ("/apps/pods", 200, r#"{"name":"pods"}"#),
            ]),
        };
        assert!(
            matches!(
                provider.presence(&cx(), &id("6e.pods")).await,
                Presence::NoAnswer(_)
            ),
            "{body}"
        );
        assert!(
            provider.terminate(&cx(), &id("6e.pods")).await.is_err(),
            "{body}"
        );
    }
    let provider = answering(&[
        ("/machines/6e", 404, r#"{"error":"machine not found"}"#),
        ("/apps/pods", 200, r#"{"name":"pods"}"#),
    ]);
    assert!(matches!(
        provider.presence(&cx(), &id("6e.pods")).await,
        Presence::Absent
    ));
    provider.terminate(&cx(), &id("6e.pods")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_token_goes_under_its_own_scheme_and_never_under_two() {
    for (token, sent) in [
        ("fm2_good", "FlyV1 fm2_good"),
        ("FlyV1 fm2_good,fm2_third", "FlyV1 fm2_good,fm2_third"),
        ("Bearer FlyV1 fm2_good", "FlyV1 fm2_good"),
        ("fo1_good", "Bearer fo1_good"),
        ("fo1_good,fm2_good", "FlyV1 fm2_good"),
    ] {
        let stage = built(|builder| builder.api_key(token).org(fly::ORG).app(fly::APP));
        stage.spawn(1).await.unwrap();
        assert_eq!(stage.asked()[0].authorization, sent);
        // A call's own token too, whatever the account's is.
        for (own, sent) in [
            ("fm2_good", "FlyV1 fm2_good"),
            ("fo1_good", "Bearer fo1_good"),
        ] {
            let cx = cx().with_api_key(Secret::new(own));
            stage
                .provider
                .list_compute(&cx, &ListFilter::all())
                .await
                .unwrap();
            assert_eq!(stage.asked()[0].authorization, sent);
        }
    }
}

/// A source whose first token is stale.
#[derive(Debug, Default)]
struct Renewing(AtomicBool);

impl CredentialSource for Renewing {
    async fn authorization(&self) -> atlas_core::Result<Secret> {
        Ok(Secret::new(if self.0.load(Ordering::SeqCst) {
            "FlyV1 fm2_good"
        } else {
            "FlyV1 fm2_stale"
        }))
    }

    fn rejected(&self, _value: &Secret) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_of_tokens_is_asked_again_when_one_was_refused_but_not_for_an_order() {
    let stage = built(|builder| {
        builder
            .credential_source(Renewing::default())
            .org(fly::ORG)
            .app(fly::APP)
    });
    // In an app of its own, so that nothing is read before the order.
    let own = request().port(Port::http(8000));
    let error = stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &own)
        .await
        .unwrap_err();
    assert_eq!((error.kind(), stage.made()), (ErrorKind::Unauthorized, 0));
    stage
        .provider
        .list_compute(&cx(), &ListFilter::all())
        .await
        .unwrap();
    stage.spawn(1).await.unwrap();
    let sent: Vec<_> = stage
        .asked()
        .into_iter()
        .map(|asked| asked.authorization)
        .collect();
    assert_eq!(
        sent.last().map(String::as_str),
        Some("FlyV1 fm2_good"),
        "{sent:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_gpu_is_refused_before_any_call_and_none_is_listed() {
    let stage = stage();
    let asks = [
        ComputeRequest::gpu(Gpu::A10).image("x/y:1"),
        request().provider_opts(json!({ "config": { "guest": { "gpu_kind": "a10", "gpus": 1 } } })),
    ];
    for ask in asks {
        let error = stage
            .provider
            .spawn_compute(&cx(), &stage.key(1), &ask)
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Unsupported, &Outcome::NotApplied(Next::Stop))
        );
        assert_eq!(
            stage
                .provider
                .candidates(&cx(), &ask)
                .await
                .unwrap_err()
                .kind(),
            ErrorKind::Unsupported
        );
    }
    assert_eq!(stage.provider.list_gpu_types(&cx()).await.unwrap(), []);
    assert_eq!(stage.lines(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn two_machines_with_ports_share_neither_app_nor_network_nor_url() {
    let stage = stage();
    let wanted = request().port(Port::http(8000));
    let mut urls = Vec::new();
    for n in 1..=2 {
        let made = stage.supported(&stage.key(n), &wanted).await;
        let url = made.url(8000).unwrap().to_owned();
        let app = made.id.as_str().split_once('.').unwrap().1.to_owned();
        assert_eq!(url, format!("https://{app}.fly.dev"));
        let mut addresses = stage.dialect.addresses(&app);
        addresses.sort_unstable();
        assert_eq!(
            addresses,
            ["shared_v4", "v6"],
            "without an address there is no url"
        );
        assert_eq!(
            stage.own.app(&cx(), &app).await.unwrap().unwrap().network,
            Some(app)
        );
        urls.push(url);
    }
    assert_ne!(urls[0], urls[1]);
    // And one without ports has none, wherever it is.
    assert_eq!(stage.spawn(3).await.unwrap().ports, []);
}

#[tokio::test(start_paused = true)]
async fn a_raw_tcp_port_is_reached_at_the_apps_ipv6_address() {
    let stage = stage();
    for (n, with_http) in [(1, false), (2, true)] {
        let mut wanted = request().port(Port::tcp(5432));
        if with_http {
            wanted = wanted.port(Port::http(8000));
        }
        let made = stage.supported(&stage.key(n), &wanted).await;
        let app = made.id.as_str().split_once('.').unwrap().1;
        let ips = stage.own.ips(&cx(), app).await.unwrap();
        let mut kinds: Vec<_> = ips.iter().filter_map(|ip| ip.kind).collect();
        kinds.sort_by_key(|kind| kind.as_str());
        let expected = [&[IpKind::SharedV4, IpKind::V6][..], &[IpKind::V6]];
        assert_eq!(kinds, expected[usize::from(!with_http)]);
        let v6 = ips.iter().find(|ip| ip.kind == Some(IpKind::V6)).unwrap();
        let url = format!("tcp://[{}]:5432", v6.ip);
        let read = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
        let listed = stage
            .provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .unwrap();
        let listed = listed
            .computes
            .iter()
            .find(|one| one.id == made.id)
            .unwrap();
        for machine in [&made, &read, listed] {
            assert_eq!(machine.url(5432), Some(&url[..]));
        }
        if with_http {
            assert_eq!(made.url(8000), Some(&format!("https://{app}.fly.dev")[..]));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_room_is_no_capacity_in_each_of_its_words_and_a_regions_quota_leaves_other_regions() {
    for words in [
        NoRoom::Unprocessable,
        NoRoom::Host,
        NoRoom::Unavailable,
        NoRoom::Volume,
    ] {
        let stage = stage();
        stage.quirks(|quirks| quirks.no_room = words);
        stage.fault("spawn_compute", FaultKind::NoCapacity, 1);
        let error = stage.spawn(1).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (
                ErrorKind::NoCapacity,
                &Outcome::NotApplied(Next::NextCandidate)
            ),
            "{words:?}"
        );
        assert_eq!(stage.made(), 0);
    }
    let stage = stage();
    for (standing, next) in [
        (Standing::Quota(0), Next::NextCandidate),
        (Standing::NoMoney, Next::Stop),
    ] {
        stage
            .world
            .set_standing(fly::NAME, &stage.world.account(fly::ORG), standing);
        let error = stage.spawn(1).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Quota, &Outcome::NotApplied(next)),
            "{error}"
        );
    }
    stage.world.set_standing(
        fly::NAME,
        &stage.world.account(fly::ORG),
        Standing::ReadOnly,
    );
    let error = stage.spawn(1).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Forbidden, &Outcome::NotApplied(Next::Stop))
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_said_to_be_the_price_is_what_the_cloud_bills() {
    let stage = stage();
    for (kind, region) in [
        ("shared-cpu-1x:256", "iad"),
        ("shared-cpu-4x:2048", "lax"),
        ("performance-2x:8192", "gru"),
    ] {
        let pinned = ComputeRequest::cpu(1).image("x/y:1").at(at(kind, region));
        let made = stage
            .provider
            .spawn_compute(&cx(), &stage.key(1), &pinned)
            .await
            .unwrap();
        let said = made.cost_per_hour.unwrap().per_hour();
        let truth = stage
            .world
            .truth(fly::NAME, made.id.as_str())
            .unwrap()
            .price
            .per_hour();
        assert!(
            said > Usd::ZERO && (said.nanos() - truth.nanos()).abs() <= 1,
            "{kind} in {region}: {said} and {truth}"
        );
        assert_eq!(
            (made.region.as_deref(), made.native_type.as_deref()),
            (Some(region), kind.split(':').next())
        );
        stage.provider.terminate(&cx(), &made.id).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_environment_that_every_read_shows_is_kept_nowhere() {
    let stage = stage();
    let token = Credential::bearer(Secret::new("zz-canary-token-0123456789"), "0".repeat(64));
    let secret = request()
        .env("TOKEN", "zz-canary-env")
        .auth(Auth::Bearer)
        .credential(Some(token));
    let made = stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &secret)
        .await
        .unwrap();
    let read = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    let machine = stage.world.truth(fly::NAME, made.id.as_str()).unwrap();
    assert_eq!(machine.spec.env["TOKEN"].expose(), "zz-canary-env");
    for compute in [&made, &read] {
        let shown = format!(
            "{compute:?} {} {}",
            serde_json::to_string(compute).unwrap(),
            compute.raw.value()
        );
        assert!(!shown.contains("zz-canary"), "{shown}");
    }
    assert_eq!(read.raw["config"]["image"], "x/y:1");
}

#[tokio::test(start_paused = true)]
async fn in_an_app_of_its_own_a_machines_secrets_are_shown_to_nobody_who_may_read_it() {
    let stage = stage();
    let secret = request()
        .port(Port::http(8000))
        .env("TOKEN", "zz-canary")
        .env("odd.name", "zz-plain");
    let made = stage.supported(&stage.key(1), &secret).await;
    let machine = stage.world.truth(fly::NAME, made.id.as_str()).unwrap();
    assert_eq!(
        (
            machine.spec.env["TOKEN"].expose(),
            machine.spec.env["odd.name"].expose()
        ),
        ("zz-canary", "zz-plain")
    );
    let asked = stage.asked();
    let sent = asked
        .iter()
        .find(|asked| asked.line.ends_with("/machines"))
        .unwrap();
    assert!(
        sent.body["config"]["env"].get("TOKEN").is_none()
            && sent.body["config"]["env"]["odd.name"] == "zz-plain"
    );
    assert_eq!(sent.body["min_secrets_version"], 1);
    // A read-only reader sees neither the machine's nor the app's.
    let (id, app) = made.id.as_str().split_once('.').unwrap();
    for path in [
        format!("/v1/apps/{app}/machines/{id}"),
        format!("/v1/apps/{app}/secrets"),
        "/v1/orgs/sim-org/machines".to_owned(),
    ] {
        let get = http::Request::builder().uri(format!("https://api.machines.dev{path}"));
        let get = get
            .header("authorization", "Bearer sim-key")
            .body(atlas_http::Body::empty())
            .unwrap();
        let answer = stage.dialect.clone().oneshot(get).await.unwrap();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(
            !String::from_utf8_lossy(&text).contains("zz-canary"),
            "{path}"
        );
    }
    // What fails before the order leaves nothing ordered.
    for kind in [FaultKind::CommitThen500, FaultKind::CommitThenReset] {
        let key = stage.key(2);
        for support in stage.provider.supports(&key, &secret).unwrap() {
            stage
                .provider
                .ensure_support(&cx(), &key, &support)
                .await
                .unwrap();
        }
        stage.fault("supports", kind, 1);
        let error = stage
            .provider
            .spawn_compute(&cx(), &key, &secret)
            .await
            .unwrap_err();
        assert_eq!(
            (error.outcome(), stage.made()),
            (&Outcome::NotApplied(Next::SameLater), 1),
            "{kind}"
        );
        assert!(!format!("{error:?}").contains("zz-canary"));
        stage.world.calm();
    }
    // A machine that is to have none of its app's secrets still gets its environment.
    let skipping = secret.provider_opts(json!({ "skip_secrets": true }));
    let made = stage.supported(&stage.key(3), &skipping).await;
    assert_eq!(
        stage
            .world
            .truth(fly::NAME, made.id.as_str())
            .unwrap()
            .spec
            .env["TOKEN"]
            .expose(),
        "zz-canary"
    );
}

#[tokio::test(start_paused = true)]
async fn metadata_that_makes_a_deploy_destroy_a_machine_is_never_set() {
    let stage = stage();
    let made = stage.running(1).await;
    for key in [
        "fly_platform_version",
        "fly_process_group",
        "atlas-launch-key",
    ] {
        assert_eq!(
            stage
                .own
                .set_metadata(&cx(), &made.id, key, "v2")
                .await
                .unwrap_err()
                .kind(),
            ErrorKind::Validation
        );
        let opts = json!({ "config": { "metadata": { key: "v2" } } });
        let error = stage
            .provider
            .spawn_compute(&cx(), &stage.key(2), &request().provider_opts(opts))
            .await
            .unwrap_err();
        assert_eq!(error.field(), Some("provider_opts"));
    }
    let tags = stage
        .world
        .truth(fly::NAME, made.id.as_str())
        .unwrap()
        .spec
        .tags;
    assert!(tags.keys().all(|key| !key.starts_with("fly_")), "{tags:?}");
}
