//! How an account is set up: what counts before what, and what is refused.

use atlas_core::{ErrorKind, ListFilter, Port};
use atlas_provider_fly::{Fly, FlyBuilder};
use atlas_testkit::dialect::fly;
use atlas_testkit::world::FaultKind;

use crate::stage::{KEY, built, cx, request, stage};

fn refused(builder: FlyBuilder) -> (ErrorKind, Option<String>, String) {
    let error = builder.build().unwrap_err();
    (
        error.kind(),
        error.field().map(str::to_owned),
        error.to_string(),
    )
}

#[test]
fn what_cannot_be_is_refused_before_any_call_and_never_repeats_the_token() {
    let (kind, _, text) = refused(Fly::builder().environment(|_| None));
    assert!(
        kind == ErrorKind::Unauthorized && text.contains("FLY_API_TOKEN"),
        "{text}"
    );
    let keyed = || Fly::builder().api_key("fm2_zz-canary");
    for (builder, field) in [
        (keyed().app("No App"), Some("app")),
        (
            keyed().proxy_url("https://proxy.example"),
            Some("proxy_url"),
        ),
        (keyed().base_url("nowhere"), Some("base_url")),
        (keyed().base_url("http://machines.example"), None),
    ] {
        let (kind, named, text) = refused(builder);
        assert_eq!(
            (kind, named.as_deref()),
            (ErrorKind::Validation, field),
            "{text}"
        );
    }
    let (kind, _, text) = refused(Fly::builder().api_key("Bearer zz canary"));
    assert!(
        kind == ErrorKind::Unauthorized && !text.contains("canary"),
        "{text}"
    );
    let whole = keyed().build().unwrap();
    assert!(!format!("{whole:?} {:?}", keyed()).contains("zz-canary"));
}

#[tokio::test(start_paused = true)]
async fn what_is_set_counts_before_the_environment() {
    let environment = |name: &str| {
        let value = match name {
            "FLY_API_TOKEN" => "bad-key",
            "ATLAS_FLY_ORG" => "env-org",
            "ATLAS_FLY_APP" => "env-app",
            "ATLAS_FLY_URL" => "https://env.example",
            "ATLAS_FLY_PROXY_URL" => "https://{app}.env.example/",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let stage = built(|builder| {
        builder
            .environment(environment)
            .org(fly::ORG)
            .app(fly::APP)
            .api_key(KEY)
    });
    stage.spawn(1).await.unwrap();
    assert_eq!(
        stage.lines(),
        [
            "GET tokens/current",
            "GET apps/sim-app",
            "POST apps/sim-app/machines"
        ]
    );
    let key = stage.key(2);
    let made = stage
        .supported(&key, &request().port(Port::http(8000)))
        .await;
    let app = made.id.as_str().split_once('.').unwrap().1.to_owned();
    assert_eq!(
        made.url(8000),
        Some(format!("https://{app}.env.example").as_str())
    );
    let left = built(|builder| builder.environment(environment).api_key(KEY));
    left.provider
        .list_compute(&cx(), &ListFilter::all())
        .await
        .unwrap_err();
    assert_eq!(
        left.lines(),
        ["GET tokens/current"],
        "the token is of another organisation"
    );
}

#[tokio::test(start_paused = true)]
async fn a_calls_own_url_is_given_without_the_version_like_the_builders() {
    let stage = stage();
    for url in ["https://elsewhere.example", "https://elsewhere.example/"] {
        let cx = cx().with_base_url(url);
        stage
            .provider
            .list_compute(&cx, &ListFilter::all())
            .await
            .unwrap();
        assert_eq!(
            stage.lines(),
            ["GET tokens/current", "GET orgs/sim-org/machines"]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_has_the_clouds_own_request_id() {
    let stage = stage();
    stage.fault("spawn_compute", FaultKind::NoCapacity, 1);
    let refused = stage.spawn(1).await.unwrap_err();
    let missing = stage
        .provider
        .get_compute(&cx(), &crate::stage::id("0123456789abcd.sim-app"))
        .await
        .unwrap_err();
    for error in [refused, missing] {
        assert!(
            error.request_id().is_some_and(|id| id.starts_with("01SIM")),
            "{error}"
        );
    }
}
