//! The rules that keep a machine from billing unseen, each once: what the cloud's ledger says
//! counts, not what we were told.

use std::time::Duration;

use atlas_core::{
    CallContext, ComputeId, ComputeRequest, ErrorKind, Gpu, ListFilter, Next, Outcome, Presence,
    Usd, UsdPerHour,
};
use atlas_testkit::dialect::vast;
use atlas_testkit::world::{FaultKind, Standing};
use serde_json::json;

use crate::stage::{answering, at, built, cx, request, stage, unlimited};

const NEXT: Outcome = Outcome::NotApplied(Next::NextCandidate);
const STOP: Outcome = Outcome::NotApplied(Next::Stop);

fn id(text: &str) -> ComputeId {
    ComputeId::new(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_order_whose_answer_was_spoiled_is_unknown_sent_once_and_found_by_its_key() {
    for kind in [
        FaultKind::CommitThen500,
        FaultKind::CommitThenReset,
        FaultKind::Html502,
        FaultKind::Truncated,
        FaultKind::CommitThenTimeout,
    ] {
        let stage = stage();
        // One offer can be rented twice: a repeated order pays for both.
        stage.quirks(|quirks| quirks.lets_twice = true);
        let wanted = request().at(stage.best(&request()).await);
        stage.fault("spawn_compute", kind, 1);
        let patient = CallContext::new().with_retries(5);
        let error = stage
            .provider
            .spawn_compute(&patient, &stage.key(1), &wanted)
            .await
            .unwrap_err();
        assert!(error.outcome().is_unknown(), "{kind}: {error:?}");
        assert_eq!((stage.live(), stage.orders()), (1, 1), "{kind}");
        let key = stage.world.all(vast::NAME)[0].launch_key().unwrap();
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
async fn an_order_that_was_answered_with_nothing_is_unknown_and_so_is_every_change() {
    let stage = stage();
    let wanted = request().at(stage.best(&request()).await);
    stage.quirks(|quirks| quirks.says_nothing = true);
    let error = stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &wanted)
        .await
        .unwrap_err();
    assert_eq!(
        (error.outcome().is_unknown(), stage.live()),
        (true, 1),
        "{error}"
    );
    let made = id(&stage.world.all(vast::NAME)[0].id);
    assert!(
        stage
            .provider
            .terminate(&cx(), &made)
            .await
            .unwrap_err()
            .outcome()
            .is_unknown(),
        "an empty 200 confirms nothing"
    );
    assert!(matches!(
        stage.provider.presence(&cx(), &made).await,
        Presence::NoAnswer(_)
    ));
    assert!(
        stage
            .provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn credit_that_runs_out_stops_what_runs_and_then_ends_it_and_nothing_more_is_rented() {
    let stage = stage();
    let made = stage.running(1, &request()).await;
    let price = made.cost_per_hour.unwrap().per_hour();
    stage.quirks(|quirks| quirks.credit = Some(Usd::from_nanos(price.nanos() * 2)));
    assert_eq!(
        stage.read(&made).await.status,
        atlas_core::ComputeStatus::Running
    );
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    let read = stage.read(&made).await;
    assert_eq!(
        (&read.status, read.preempted),
        (&atlas_core::ComputeStatus::Stopped, false),
        "nobody outbid us"
    );
    for error in [
        stage.order(2, &request()).await.map(drop),
        stage.provider.start(&cx(), &made.id).await,
    ] {
        let error = error.unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Quota, &STOP),
            "{error}"
        );
    }
    tokio::time::sleep(Duration::from_secs(49 * 3600)).await;
    assert!(
        matches!(
            stage.provider.presence(&cx(), &made.id).await,
            Presence::Absent
        ),
        "deleted with its data"
    );
    assert_eq!(stage.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_lets_one_ask_twice_does_so_to_whoever_asks_twice() {
    let stage = stage();
    stage.quirks(|quirks| quirks.lets_twice = true);
    let wanted = request().at(stage.best(&request()).await);
    for n in 1..=2 {
        stage
            .provider
            .spawn_compute(&cx(), &stage.key(n), &wanted)
            .await
            .unwrap();
    }
    assert_eq!(stage.live(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_bid_below_the_minimum_leaves_nothing_that_bills() {
    let stage = stage();
    let low = request().spot(true).provider_opts(json!({ "price": 0.01 }));
    let error = stage.order(1, &low).await.unwrap_err();
    let ledger = stage.world.ledger().clouds[vast::NAME].clone();
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::NoCapacity, Some(400)),
        "{error}"
    );
    assert_eq!(
        error.outcome(),
        &Outcome::Unwanted(vec![id(&ledger.machines[0].id)]),
        "its end is ordered, and not proved"
    );
    assert_eq!(
        (ledger.created, ledger.live),
        (1, 0),
        "the refused bid made an instance, and it is gone"
    );

    stage.fault("terminate", FaultKind::Status500, 1);
    let error = stage.order(2, &low).await.unwrap_err();
    let left = stage.world.all(vast::NAME).pop().unwrap();
    assert_eq!(
        error.outcome(),
        &Outcome::Unwanted(vec![id(&left.id)]),
        "what could not be destroyed is handed on"
    );
}

#[tokio::test(start_paused = true)]
async fn a_destroy_of_our_own_that_was_accepted_and_forgotten_leaves_the_id_with_whoever_ordered() {
    for (what, wanted) in [
        (
            "a bid below the minimum",
            request().spot(true).provider_opts(json!({ "price": 0.01 })),
        ),
        ("another card", request()),
        ("another contract", request().spot(true)),
    ] {
        let stage = stage();
        stage.quirks(|quirks| {
            quirks.destroys_nothing = true;
            quirks.delivers = (what == "another card").then(|| "H100 SXM".to_owned());
            quirks.forgets_bid = what == "another contract";
        });
        let error = stage.order(1, &wanted).await.unwrap_err();
        assert!(
            stage.asked().iter().any(|call| call.starts_with("DELETE")),
            "{what}: its end was ordered"
        );
        let left = stage.world.all(vast::NAME).pop().unwrap();
        assert_eq!(
            (stage.live(), error.outcome()),
            (1, &Outcome::Unwanted(vec![id(&left.id)])),
            "{what}: {error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_for_a_card_that_is_gone_makes_nothing_that_waits_for_it() {
    let stage = stage();
    let wanted = request().spot(true);
    let at = stage.best(&wanted).await;
    stage.quirks(|quirks| quirks.races_lost = 1);
    let error = stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &wanted.clone().at(at))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::NoCapacity, &NEXT),
        "{error}"
    );
    assert_eq!(stage.world.ledger().clouds[vast::NAME].created, 0);
    // Another setting gives an instance that bills its disk, and starts by itself.
    let at = stage.best(&wanted).await;
    stage.quirks(|quirks| quirks.races_lost = 1);
    let waiting = wanted
        .provider_opts(json!({ "cancel_unavail": false }))
        .at(at);
    let made = stage
        .provider
        .spawn_compute(&cx(), &stage.key(2), &waiting)
        .await
        .unwrap();
    assert_eq!(
        (stage.read(&made).await.status, stage.live()),
        (atlas_core::ComputeStatus::Provisioning, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn an_interruptible_order_always_has_its_price_and_one_without_is_never_sent() {
    let stage = stage();
    let spot = request().spot(true);
    stage.asked();
    let error = stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &spot.clone().at(at("21310070")))
        .await
        .unwrap_err();
    assert_eq!(
        (error.field(), stage.asked()),
        (Some("candidate"), Vec::new())
    );
    let best = stage.best(&spot).await;
    let made = stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &spot.clone().at(best.clone()))
        .await
        .unwrap();
    let truth = stage.world.truth(vast::NAME, made.id.as_str()).unwrap();
    assert!(
        truth.spec.spot && truth.burn() <= best.price.unwrap(),
        "{:?} {best:?}",
        truth.burn()
    );
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_not_what_was_ordered_is_destroyed_and_its_host_left_alone() {
    for (spot, with) in [(false, "H100 SXM"), (true, "")] {
        let stage = stage();
        let wanted = request().spot(spot);
        let best = stage.best(&wanted).await;
        stage.quirks(|quirks| {
            quirks.delivers = (!with.is_empty()).then(|| with.to_owned());
            quirks.forgets_bid = spot;
        });
        let error = stage.order(1, &wanted).await.unwrap_err();
        let ledger = stage.world.ledger().clouds[vast::NAME].clone();
        assert_eq!((ledger.created, ledger.live), (1, 0), "{error}");
        assert_eq!(error.kind(), ErrorKind::NoCapacity);
        assert_eq!(
            error.outcome(),
            &Outcome::Unwanted(vec![id(&ledger.machines[0].id)]),
            "{error}"
        );
        assert_ne!(
            stage.best(&wanted).await.offer,
            best.offer,
            "a failed host stays the cheapest"
        );
        tokio::time::sleep(Duration::from_secs(3700)).await;
        assert_eq!(stage.best(&wanted).await.offer, best.offer, "not for ever");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dearer_contract_than_was_ordered_is_destroyed_and_one_that_cannot_be_read_yet_is_kept() {
    const MADE: (u16, &str) = (200, r#"{"success":true,"new_contract":7}"#);
    let mut pinned = at("21");
    pinned.price = Some(UsdPerHour::new(Usd::from_cents(30)));
    let wanted = request().at(pinned);
    let dear = (
        200,
        r#"{"instances":{"id":7,"gpu_name":"RTX 4090","num_gpus":1,"is_bid":false,"dph_total":0.9}}"#,
    );
    let (provider, sent) = answering(&[MADE, dear, (200, r#"{"success":true}"#)]);
    let error = provider
        .spawn_compute(&cx(), &stage().key(1), &wanted)
        .await
        .unwrap_err();
    assert_eq!(error.outcome(), &Outcome::Unwanted(vec![id("7")]));
    assert_eq!(
        sent.take().last().unwrap().line,
        "DELETE /api/v0/instances/7/"
    );
    let (provider, _) = answering(&[MADE, dear, (500, "")]);
    let error = provider
        .spawn_compute(&cx(), &stage().key(1), &wanted)
        .await
        .unwrap_err();
    assert_eq!(error.outcome(), &Outcome::Unwanted(vec![id("7")]));
    for unread in [
        (200, r#"{"instances":null}"#),
        (429, "too frequent"),
        (500, ""),
        (200, "<html>"),
    ] {
        let (provider, _) = answering(&[MADE, unread]);
        let made = provider
            .spawn_compute(&cx(), &stage().key(1), &wanted)
            .await
            .unwrap();
        assert_eq!(made.id, id("7"), "no failed read may lose the id");
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_says_all_that_would_cost_if_it_were_left_out() {
    let (provider, sent) = answering(&[
        (200, r#"{"success":true,"new_contract":7}"#),
        (200, r#"{"instances":null}"#),
    ]);
    let key = stage().key(1);
    let wanted = request()
        .env("MODEL", "tiny")
        .port(atlas_core::Port::http(8000))
        .command(["serve", "--port", "8000"])
        .at(at("21870455"));
    provider.spawn_compute(&cx(), &key, &wanted).await.unwrap();
    let asked = sent.take().remove(0);
    let body = asked.body;
    assert_eq!(asked.line, "PUT /api/v0/asks/21870455/");
    let launch_key = key.tracked().unwrap().to_string();
    assert!(
        body["label"].as_str().unwrap().ends_with(&launch_key),
        "{body}"
    );
    assert_eq!(
        body,
        json!({
            "client_id": "me", "image": "x/y:1", "label": body["label"], "disk": 16,
                "runtype": "args",
            "args": ["serve", "--port", "8000"], "cancel_unavail": true,
            "env": { "MODEL": "tiny", "-p 8000:8000": "1", "ATLAS_PORTS": "8000/http",
                "ATLAS_LAUNCH_KEY": launch_key },
        })
    );
}

#[tokio::test(start_paused = true)]
async fn an_offer_that_vanished_is_the_next_ones_turn_however_it_is_told() {
    let stage = stage();
    let mut offers = stage
        .provider
        .candidates(&cx(), &request())
        .await
        .unwrap()
        .into_iter();
    let mut told = std::collections::BTreeSet::new();
    stage.quirks(|quirks| quirks.races_lost = 2);
    for offer in offers.by_ref().take(2) {
        let error = stage
            .provider
            .spawn_compute(&cx(), &stage.key(1), &request().at(offer))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::NoCapacity, &NEXT),
            "{error}"
        );
        told.insert(error.status());
    }
    assert_eq!(told, [Some(404), Some(410)].into(), "both forms were met");
    stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &request().at(offers.next().unwrap()))
        .await
        .unwrap();
    assert_eq!(stage.live(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_success_that_says_false_is_no_success() {
    let stage = stage();
    let wanted = request().at(stage.best(&request()).await);
    stage.quirks(|quirks| quirks.refuses_with_200 = true);
    let error = stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &wanted)
        .await
        .unwrap_err();
    assert_eq!((error.outcome(), stage.live()), (&STOP, 0), "{error}");
    let (provider, sent) = answering(&[
        (200, r#"{"success":false,"error":"x","new_contract":9}"#),
        (200, r#"{"success":true}"#),
    ]);
    let error = provider
        .spawn_compute(&cx(), &stage.key(1), &request().at(at("21")))
        .await
        .unwrap_err();
    assert_eq!(error.outcome(), &Outcome::Unwanted(vec![id("9")]));
    assert_eq!(sent.take()[1].line, "DELETE /api/v0/instances/9/");
    let (provider, _) = answering(&[(200, r#"{"success":false,"msg":"no"}"#)]);
    assert!(provider.terminate(&cx(), &id("9")).await.is_err());
    assert!(provider.stop(&cx(), &id("9")).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_account_without_credit_stops() {
    for (standing, error_kind) in [
        (Standing::NoMoney, ErrorKind::Quota),
        (Standing::Quota(0), ErrorKind::Quota),
        (Standing::ReadOnly, ErrorKind::Forbidden),
    ] {
        let stage = stage();
        stage
            .world
            .set_standing(vast::NAME, &stage.world.account("me"), standing);
        let error = stage.order(1, &request()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (error_kind, &STOP),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_is_gone_refused_or_without_its_list_is_never_an_empty_one() {
    let table = [
        (
            410,
            r#"{"success":false,"error":"deprecated_endpoint","msg":"Use /api/v1/instances/ instead."}"#,
        ),
        (200, ""),
        (200, "<html>"),
        (200, "{}"),
        (200, "[]"),
        (200, r#"{"success":true,"instances":null}"#),
        (200, r#"{"success":false,"instances":[]}"#),
        (
            404,
            r#"{"success":false,"error":"auth_error","msg":"Invalid user key"}"#,
        ),
        (404, "<html>404</html>"),
        (429, "API requests too frequent"),
    ];
    for (status, body) in table {
        let (provider, _) = answering(&[(status, body)]);
        let listing = provider.list_compute(&cx(), &ListFilter::all()).await;
        assert!(listing.is_err(), "{status} {body}: {listing:?}");
    }
    let (provider, sent) =
        answering(&[(200, r#"{"success":true,"instances":[],"next_token":null}"#)]);
    let listing = provider
        .list_compute(&cx(), &ListFilter::all())
        .await
        .unwrap();
    assert!(listing.is_complete() && listing.computes.is_empty());
    assert_eq!(sent.take()[0].line, "GET /api/v1/instances/");
}

#[tokio::test(start_paused = true)]
async fn every_page_is_walked_and_a_walk_that_breaks_off_or_goes_in_a_circle_is_incomplete() {
    let stage = stage();
    for n in 0..5 {
        stage.order(n, &request()).await.unwrap();
    }
    for size in [1, 2, 5, 25] {
        stage.quirks(|quirks| quirks.page_size = size);
        let listing = stage
            .provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .unwrap();
        assert_eq!(
            (listing.computes.len(), listing.is_complete()),
            (5, true),
            "pages of {size}"
        );
    }
    const MORE: (u16, &str) = (
        200,
        r#"{"success":true,"instances":[],"next_token":"again"}"#,
    );
    for answers in [vec![MORE], vec![MORE, (500, "")], vec![MORE, (200, "{}")]] {
        let (provider, _) = answering(&answers);
        let listing = provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .unwrap();
        assert!(!listing.is_complete());
    }
    let (provider, _) = answering(&[(
        200,
        r#"{"success":true,"instances":[{"label":"no id"}],"next_token":null}"#,
    )]);
    assert!(
        !provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .unwrap()
            .is_complete()
    );
}

#[tokio::test(start_paused = true)]
async fn a_bad_key_is_told_as_a_404_and_is_neither_an_absence_nor_the_end_of_a_machine() {
    for told_as_401 in [false, true] {
        let stage = stage();
        let made = stage.order(1, &request()).await.unwrap();
        stage.quirks(|quirks| quirks.bad_key_is_401 = told_as_401);
        stage.world.revoke_key(vast::NAME, "sim-key");
        assert_eq!(
            stage
                .provider
                .terminate(&cx(), &made.id)
                .await
                .unwrap_err()
                .kind(),
            ErrorKind::Unauthorized
        );
        assert_eq!(
            stage
                .provider
                .get_compute(&cx(), &made.id)
                .await
                .unwrap_err()
                .kind(),
            ErrorKind::Unauthorized
        );
        let seen = stage.provider.presence(&cx(), &made.id).await;
        assert!(
            matches!(&seen, Presence::NoAnswer(error) if error.kind() == ErrorKind::Unauthorized),
            "{seen:?}"
        );
        stage.after_shared_searches().await;
        let error = stage
            .provider
            .candidates(&cx(), &request())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        assert_eq!(stage.live(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn absence_is_a_null_or_the_clouds_own_404_and_nothing_else() {
    let table = [
        (200, r#"{"instances":null}"#, true),
        (
            404,
            r#"{"success":false,"error":"no_such_instance","msg":"error 404/3211"}"#,
            true,
        ),
        (200, r#"{"instances":{}}"#, false),
        (200, r#"{"instances":{"id":8}}"#, false),
        (200, r#"{"instances":[]}"#, false),
        (200, "{}", false),
        (200, "", false),
        (200, "null", false),
        (404, "", false),
        (404, "<html>404</html>", false),
        (404, r#"{"success":false,"error":"invalid_args"}"#, false),
        (
            410,
            r#"{"success":false,"error":"deprecated_endpoint"}"#,
            false,
        ),
    ];
    for (status, body, absent) in table {
        let (provider, _) = answering(&[(status, body)]);
        let seen = provider.presence(&cx(), &id("7")).await;
        assert_eq!(
            matches!(seen, Presence::Absent),
            absent,
            "{status} {body}: {seen:?}"
        );
        assert!(
            absent || matches!(seen, Presence::NoAnswer(_)),
            "{status} {body}: {seen:?}"
        );
        if status == 404 {
            assert_eq!(
                provider.terminate(&cx(), &id("7")).await.is_ok(),
                absent,
                "{body}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_destroy_that_came_too_early_is_repeated_until_it_is_confirmed() {
    let stage = built(|builder| unlimited(builder).endpoint_paces(false));
    stage.quirks(|_| {});
    let machines = [
        stage.order(1, &request()).await.unwrap(),
        stage.order(2, &request()).await.unwrap(),
    ];
    stage.quirks(|quirks| quirks.rates = Some(vast::Rates::default()));
    let patient = CallContext::new().with_retries(8);
    for machine in &machines {
        stage
            .provider
            .terminate(&patient, &machine.id)
            .await
            .unwrap();
    }
    assert_eq!(stage.live(), 0);
    assert!(
        stage
            .asked()
            .iter()
            .filter(|call| call.starts_with("DELETE"))
            .count()
            > 2,
        "or the limit was never there"
    );
}

#[tokio::test(start_paused = true)]
async fn at_its_own_pace_the_cloud_refuses_no_call() {
    let stage = built(|builder| builder);
    for n in 0..4 {
        let made = stage.order(n, &request()).await.unwrap();
        stage.read(&made).await;
        stage
            .provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .unwrap();
        stage.provider.identity(&cx()).await.unwrap();
        stage.provider.terminate(&cx(), &made.id).await.unwrap();
    }
    for _ in 0..2 {
        stage
            .provider
            .list_gpu_types(&cx().with_timeout(Duration::from_secs(600)))
            .await
            .unwrap();
    }
    let hasty = built(|builder| unlimited(builder).endpoint_paces(false));
    hasty.order(1, &request()).await.unwrap();
    let error = hasty.order(2, &request()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (
            ErrorKind::RateLimited,
            &Outcome::NotApplied(Next::SameLater)
        )
    );
    assert_eq!(
        error.retry_after(),
        Some(Duration::from_secs(12)),
        "who comes again sooner is refused again"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_cloud_echoes_reaches_no_error_and_no_description() {
    let stage = stage();
    let secret = request().env("TOKEN", "zz-canary-env");
    let error = stage
        .order(
            1,
            &secret
                .clone()
                .provider_opts(json!({ "disk": 1, "onstart": "zz-canary-script" })),
        )
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Validation);
    assert!(
        !format!("{error} {error:?}").contains("zz-canary"),
        "{error:?}"
    );
    let read = stage
        .running(
            2,
            &secret.provider_opts(json!({ "onstart": "echo zz-canary-script" })),
        )
        .await;
    let listed = stage
        .provider
        .list_compute(&cx(), &ListFilter::all())
        .await
        .unwrap()
        .computes;
    for compute in listed.iter().chain([&read]) {
        let text = format!(
            "{compute:?} {} {}",
            serde_json::to_string(compute).unwrap(),
            compute.raw.value()
        );
        assert!(!text.contains("zz-"), "{text}");
        assert!(text.contains("TOKEN"), "names are no secrets");
    }
}

#[tokio::test(start_paused = true)]
async fn what_vast_would_misread_or_refuse_is_refused_before_any_call() {
    let stage = stage();
    let long = "x".repeat(5000);
    let bad: [(&str, ComputeRequest); 6] = [
        ("env", request().env("--privileged", "1")),
        ("env", request().env("ATLAS_PORTS", "1")),
        ("command", request().command([long.as_str()])),
        (
            "env",
            (0..10).fold(request(), |request, n| {
                request.env(format!("A{n}"), long.as_str())
            }),
        ),
        ("gpu", ComputeRequest::gpu(Gpu::Mi300X).image("x/y:1")),
        ("candidate", request().at(at("../instances/7"))),
    ];
    for (field, request) in bad {
        let error = stage
            .provider
            .spawn_compute(&cx(), &stage.key(1), &request)
            .await
            .unwrap_err();
        assert_eq!(error.field(), Some(field), "{error}");
    }
    let foreign = id("q8d2m5x0c7hn4v");
    for error in [
        stage.provider.get_compute(&cx(), &foreign).await.map(drop),
        stage.provider.terminate(&cx(), &foreign).await,
        stage.provider.stop(&cx(), &foreign).await,
    ] {
        assert_eq!(error.unwrap_err().field(), Some("compute_id"));
    }
    assert!(matches!(
        stage.provider.presence(&cx(), &foreign).await,
        Presence::NoAnswer(_)
    ));
    assert_eq!(stage.asked(), Vec::<String>::new());
}
