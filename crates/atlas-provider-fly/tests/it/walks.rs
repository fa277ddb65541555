//! Walks over an organisation: what they see, and that they never claim more.

use std::time::Duration;

use atlas_core::{Claim, ComputeRequest, ErrorKind, ListFilter, Port, Presence, Secret};
use atlas_testkit::dialect::fly::{self, Scope};
use atlas_testkit::world::{FaultKind, MachineSpec};

use crate::stage::{answering, built, cx, paced, request, stage};

#[tokio::test(start_paused = true)]
async fn every_page_is_walked_and_a_region_in_error_makes_the_walk_incomplete() {
    let stage = stage();
    for n in 0..5 {
        stage.spawn(n).await.unwrap();
    }
    for size in [1, 2, 5, 100] {
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
        assert!(
            listing
                .computes
                .iter()
                .all(|compute| matches!(compute.keys.claim(), Claim::Whole(_)))
        );
    }
    for region in ["fra", "gru"] {
        stage.quirks(|quirks| quirks.error_regions = vec![region.to_owned()]);
        let listing = stage
            .provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .unwrap();
        let seen = if region == "fra" { 0 } else { 5 };
        assert_eq!(
            (listing.computes.len(), listing.is_complete()),
            (seen, false),
            "{region}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_walk_that_breaks_off_is_incomplete_and_one_that_never_began_is_an_error() {
    let stage = stage();
    for n in 0..3 {
        stage.spawn(n).await.unwrap();
    }
    stage.quirks(|quirks| {
        quirks.page_size = 1;
        quirks.cursor_life = Duration::ZERO;
    });
    stage.fault("list_compute", FaultKind::Slow, 2);
    let listing = stage
        .provider
        .list_compute(&cx(), &ListFilter::all())
        .await
        .unwrap();
    assert!(
        !listing.is_complete(),
        "its cursor expired: {:?}",
        listing.completeness
    );
    for kind in [
        FaultKind::Status500,
        FaultKind::Html502,
        FaultKind::Truncated,
    ] {
        stage.fault("list_compute", kind, 1);
        assert!(
            stage
                .provider
                .list_compute(&cx(), &ListFilter::all())
                .await
                .is_err(),
            "{kind}"
        );
    }
    for odd in [
        answering(&[("/orgs/acme/machines", 200, "{}")]),
        answering(&[("/orgs/acme/machines", 200, r#"{"machines":null}"#)]),
        answering(&[("/orgs/acme/machines", 200, r#"{"machines":[{"id":"6e"}]}"#)]),
        answering(&[(
            "/orgs/acme/machines",
            200,
            r#"{"machines":[],"next_cursor":"again"}"#,
        )]),
    ] {
        let listing = odd.list_compute(&cx(), &ListFilter::all()).await.unwrap();
        assert!(!listing.is_complete(), "{listing:?}");
    }
    let empty = answering(&[("/orgs/acme/machines", 200, "")]);
    assert!(empty.list_compute(&cx(), &ListFilter::all()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_machine_of_any_app_of_the_organisation_is_seen_and_others_are_not() {
    let own = built(|builder| builder.org(fly::ORG));
    let key = own.key(1);
    let made = own.supported(&key, &request()).await;
    assert!(made.id.as_str().contains(".atlas-a1-"), "{}", made.id);
    let found = own
        .provider
        .find_by_launch_key(&cx(), key.tracked().unwrap())
        .await
        .unwrap();
    assert_eq!((found.computes.len(), &found.computes[0].id), (1, &made.id));
    let elsewhere = own.world.account("somebody-else");
    own.world
        .plant_machine(fly::NAME, &elsewhere, MachineSpec::cpu("shared-cpu-1x", 1))
        .unwrap();
    own.world
        .plant_machine(
            fly::NAME,
            &own.world.account(fly::ORG),
            MachineSpec::cpu("shared-cpu-1x", 1),
        )
        .unwrap();
    let all = own
        .provider
        .list_compute(&cx(), &ListFilter::all())
        .await
        .unwrap();
    let mut claims: Vec<_> = all
        .computes
        .iter()
        .map(|compute| compute.keys.claim() == Claim::None)
        .collect();
    claims.sort_unstable();
    assert_eq!(
        claims,
        [false, true],
        "ours, and one that somebody made by hand"
    );
}

#[tokio::test(start_paused = true)]
async fn an_organisation_is_the_tokens_own_and_a_token_for_one_app_sees_that_app() {
    let stage = built(|builder| builder.app(fly::APP));
    stage.spawn(1).await.unwrap();
    let whole = stage.provider.identity(&cx()).await.unwrap();
    assert_eq!(whole, "fly-org-sim-org");
    assert_eq!(
        stage
            .provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .unwrap()
            .computes
            .len(),
        1
    );
    stage.dialect.limit_token("fm2_other", Scope::app(fly::APP));
    let narrow = cx().with_api_key(Secret::new("fm2_other"));
    assert_eq!(stage.provider.identity(&narrow).await.unwrap(), whole);
    let listing = stage
        .provider
        .list_compute(&narrow, &ListFilter::all())
        .await
        .unwrap();
    assert_eq!((listing.computes.len(), listing.is_complete()), (1, true));
    assert_eq!(
        listing.computes[0].id.as_str().split_once('.').unwrap().1,
        fly::APP
    );
    // The configured organisation does not make it see more.
    let configured = built(|builder| builder.org(fly::ORG).app(fly::APP));
    configured
        .dialect
        .limit_token(super::stage::KEY, Scope::app(fly::APP));
    configured.spawn(1).await.unwrap();
    let listing = configured
        .provider
        .list_compute(&cx(), &ListFilter::all())
        .await
        .unwrap();
    assert_eq!((listing.computes.len(), listing.is_complete()), (1, true));
    let volumes = configured.provider.network_volumes().unwrap();
    assert_eq!(volumes.list_network_volumes(&cx()).await.unwrap(), []);
    // A token that was swapped under us is another account.
    stage.world.swap_account(fly::NAME, super::stage::KEY);
    assert_ne!(stage.provider.identity(&cx()).await.unwrap(), whole);
    let of_a_user = [(
        "/tokens/current",
        200,
        r#"{"tokens":[{"org_slug":"","user":"u1","apps":null}]}"#,
    )];
    assert_eq!(
        answering(&of_a_user).identity(&cx()).await.unwrap(),
        "fly-org-acme"
    );
    let configured = built(|builder| builder.org("somebody-elses"));
    assert_eq!(
        configured
            .provider
            .identity(&cx())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Forbidden
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_rented_where_the_token_could_not_list_it() {
    let stage = built(|builder| builder.org(fly::ORG).app("elsewhere"));
    stage
        .dialect
        .limit_token(super::stage::KEY, Scope::app(fly::APP));
    let error = stage.spawn(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    let text = error.to_string();
    assert!(
        text.contains("sim-app") && text.contains("ATLAS_FLY_APP"),
        "{text}"
    );
    let (key, wanted) = (stage.key(2), request().port(Port::http(8000)));
    let planned = stage.provider.supports(&key, &wanted).unwrap();
    let error = stage
        .provider
        .ensure_support(&cx(), &key, &planned[0])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    assert!(error.to_string().contains("whole organisation"), "{error}");
    assert_eq!(stage.made(), 0);
    assert!(!stage.lines().iter().any(|line| line.starts_with("POST")));
    // An app of another organisation than the one that is listed.
    let provider = answering(&[(
        "/apps/pods",
        200,
        r#"{"name":"pods","organization":{"slug":"globex"}}"#,
    )]);
    let error = provider
        .spawn_compute(&cx(), &stage.key(3), &request())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    assert!(error.to_string().contains("globex"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_region_is_known_in_any_case_and_one_that_fly_has_not_is_refused_at_once() {
    let stage = stage();
    let in_region = |region: &str| ComputeRequest::cpu(1).image("x/y:1").region(region);
    for (hint, code) in [("FRA", "fra"), ("EU", "eu")] {
        let found = stage
            .provider
            .candidates(&cx(), &in_region(hint))
            .await
            .unwrap();
        assert_eq!(found[0].region.as_deref(), Some(code));
    }
    assert_eq!(stage.lines(), [""; 0], "nothing had to be looked up");
    let unknown = in_region("xyz");
    let looked_up = stage.provider.candidates(&cx(), &unknown).await;
    let ordered = stage
        .provider
        .spawn_compute(&cx(), &stage.key(1), &unknown)
        .await;
    for error in [looked_up.unwrap_err(), ordered.unwrap_err()] {
        assert_eq!(
            (error.kind(), error.field()),
            (ErrorKind::Validation, Some("region_hints"))
        );
        assert!(error.to_string().contains("fra"), "{error}");
    }
    assert_eq!(stage.made(), 0);
    // A region that is newer than our table.
    let provider = answering(&[(
        "/platform/regions",
        200,
        r#"{"regions":[{"code":"zrh","name":"Zurich"}]}"#,
    )]);
    let found = provider.candidates(&cx(), &in_region("ZRH")).await.unwrap();
    assert_eq!(found[0].region.as_deref(), Some("zrh"));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_answer_and_a_word_we_do_not_know_are_alive() {
    let stage = stage();
    let made = stage.running(1).await;
    stage.quirks(|quirks| quirks.unreachable = vec!["fra".to_owned()]);
    let read = stage.provider.get_compute(&cx(), &made.id).await.unwrap();
    assert_eq!(read.keys.claim(), Claim::Whole(made.keys.key().unwrap()));
    assert!(matches!(
        stage.provider.presence(&cx(), &made.id).await,
        Presence::Present
    ));
    for word in ["replaced", "migrated", "brand-new", "launch_failed"] {
        let body: &'static str =
            Box::leak(format!(r#"{{"id":"6e","state":"{word}"}}"#).into_boxed_str());
        let provider = answering(&[("/machines/6e", 200, body)]);
        assert!(
            matches!(
                provider.presence(&cx(), &super::stage::id("6e.pods")).await,
                Presence::Present
            ),
            "{word}"
        );
    }
    let other = answering(&[("/machines/6e", 200, r#"{"id":"7f","state":"destroyed"}"#)]);
    assert!(matches!(
        other.presence(&cx(), &super::stage::id("6e.pods")).await,
        Presence::NoAnswer(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn at_its_own_pace_the_cloud_refuses_no_call() {
    let stage = paced(|builder| builder.org(fly::ORG).app(fly::APP));
    for n in 0..6 {
        let made = stage.spawn(n).await.unwrap();
        for _ in 0..12 {
            stage.provider.get_compute(&cx(), &made.id).await.unwrap();
        }
        stage
            .provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .unwrap();
    }
    let hasty = paced(|builder| {
        let at_once = atlas_http::Pace::every(Duration::ZERO);
        builder.org(fly::ORG).app(fly::APP).paces(at_once, at_once)
    });
    let mut refused = 0;
    for n in 0..6 {
        refused += u32::from(
            hasty
                .spawn(n)
                .await
                .is_err_and(|error| error.kind() == ErrorKind::RateLimited),
        );
    }
    assert!(refused > 0, "or the limit was never there");
}

#[tokio::test(start_paused = true)]
async fn what_fly_leaves_out_adds_or_says_in_another_shape_is_understood_and_nothing_is_no_answer()
{
    let stage = stage();
    stage.quirks(|quirks| (quirks.loose, quirks.errors_as_message) = (true, true));
    let key = stage.key(1);
    let made = stage
        .provider
        .spawn_compute(&cx(), &key, &request())
        .await
        .unwrap();
    assert_eq!(
        stage
            .provider
            .get_compute(&cx(), &made.id)
            .await
            .unwrap()
            .keys
            .key(),
        key.tracked().copied()
    );
    let listing = stage
        .provider
        .list_compute(&cx(), &ListFilter::all())
        .await
        .unwrap();
    assert_eq!(
        (listing.computes.len(), listing.is_complete()),
        (1, true),
        "no region in error may be null"
    );
    assert_eq!(
        stage.provider.identity(&cx()).await.unwrap(),
        "fly-org-sim-org"
    );
    let again = stage
        .provider
        .spawn_compute(&cx(), &key, &request())
        .await
        .unwrap();
    assert_eq!(
        again.id, made.id,
        "a 409 names the machine that is there in either shape"
    );
    stage.provider.terminate(&cx(), &made.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(
        matches!(
            stage.provider.presence(&cx(), &made.id).await,
            Presence::Absent
        ),
        "`message` is Fly's own word too"
    );

    // What the token is of is known from the order before.
    stage.spawn(3).await.unwrap();
    stage.quirks(|quirks| quirks.says_nothing = true);
    let error = stage.spawn(2).await.unwrap_err();
    assert_eq!(
        (error.outcome().is_unknown(), stage.live()),
        (true, 2),
        "{error}"
    );
    assert!(
        stage
            .provider
            .list_compute(&cx(), &ListFilter::all())
            .await
            .is_err()
    );
    assert!(
        matches!(
            stage.provider.presence(&cx(), &made.id).await,
            Presence::NoAnswer(_)
        ),
        "not even of one that is gone"
    );
}
