//! Who passes, what the server behind sees of it, and what only the orchestrator may ask.

use std::time::Duration;

use atlas_auth::control::{self, ControlSecret};
use atlas_auth::grant::Access;
use atlas_auth::signed_url::Format;
use atlas_core::{Clock, SystemClock, SystemEntropy};

use crate::world::{HOST, KEY, World, grant, signed};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn without_a_credential_every_path_but_health_is_401_with_no_hint() {
    let world = World::new(&[]).await;
    let mut bodies = std::collections::BTreeSet::new();
    let elsewhere = signed(Format::Atlas, "/p").replace("/p", "/q");
    for target in [
        "/",
        "/p?exp=1&sig=x",
        &elsewhere,
        "/_atlas/activity",
        "/_atlas/nothing",
        "//healthz",
    ] {
        let got = world.get(target).await;
        assert_eq!(got.status, 401, "{target}");
        assert!(
            got.head
                .contains("www-authenticate: bearer realm=\"atlas\""),
            "{got:?}"
        );
        bodies.insert(got.body);
    }
    assert_eq!(bodies.len(), 1);
    assert_eq!(world.get_with("/", "wrong").await.status, 401);
    assert_eq!(world.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_bearer_token_passes_and_the_server_never_sees_it() {
    let world = World::new(&[]).await;
    let got = world
        .ask(&format!(
            "GET /p?a=1\nauthorization: Bearer {KEY}\nx-atlas-principal: forged\nrange: bytes=1-"
        ))
        .await;
    assert_eq!(got.status, 200);
    assert!(
        got.body.contains("GET /p?a=1") && got.body.contains(&format!("\"host\": \"{HOST}\"")),
        "{}",
        got.body
    );
    assert!(
        got.body.contains("\"x-atlas-principal\": \"bearer\"") && got.body.contains("bytes=1-"),
        "{}",
        got.body
    );
    assert!(
        !got.body.contains(KEY) && !got.body.contains("forged"),
        "{}",
        got.body
    );
}

#[tokio::test]
async fn a_signed_url_of_either_format_passes_and_the_server_sees_only_its_own_parameters() {
    let world = World::new(&[]).await;
    for format in [Format::Compatible, Format::Atlas] {
        let got = world.get(&signed(format, "/p?a=1&b=2")).await;
        assert_eq!(got.status, 200, "{format:?}");
        assert!(got.body.contains("GET /p?a=1&b=2 "), "{}", got.body);
        assert!(
            got.body.contains("\"x-atlas-principal\": \"signed-url\""),
            "{}",
            got.body
        );
    }
    let strict = World::new(&[("ATLAS_GUARD_ATLAS_URLS_ONLY", "1")]).await;
    assert_eq!(
        strict.get(&signed(Format::Compatible, "/p")).await.status,
        401
    );
    assert_eq!(strict.get(&signed(Format::Atlas, "/p")).await.status, 200);
}

#[tokio::test]
async fn no_other_spelling_of_a_header_reaches_the_server_as_ours() {
    let world = World::new(&[]).await;
    let page = format!("https://{HOST}{}", signed(Format::Atlas, "/list?a=1"));
    let got = world
        .ask(&format!(
            "GET /p\nAUTHORIZATION: bEARER {KEY}\nX_Atlas-Principal: forged\nx_atlas_principal: \
                forged\nreferer: {page}\n\
             connection: x-atlas-principal"
        ))
        .await;
    assert_eq!(got.status, 200);
    assert!(
        !got.body.contains("forged") && !got.body.contains("atlas_sig") && !got.body.contains(KEY),
        "{}",
        got.body
    );
    assert!(
        got.body
            .contains(&format!("\"referer\": \"https://{HOST}/list?a=1\"")),
        "{}",
        got.body
    );
    assert!(
        got.body.contains("\"x-atlas-principal\": \"bearer\""),
        "{}",
        got.body
    );
}

#[tokio::test]
async fn two_authorization_headers_open_nothing() {
    let world = World::new(&[]).await;
    for target in ["/p", "/_atlas/activity"] {
        let got = world
            .ask(&format!(
                "GET {target}\nauthorization: Bearer {KEY}\nauthorization: Bearer other"
            ))
            .await;
        assert_eq!(got.status, 401, "{target}");
    }
}

#[tokio::test]
async fn a_grant_passes_in_its_scope_until_it_is_revoked() {
    let world = World::new(&[]).await;
    let (granted, token) = grant(Access::Read, "/api");
    assert_eq!(
        world
            .get(&format!("/api/x?atlas_grant={token}"))
            .await
            .status,
        200
    );
    assert_eq!(
        world
            .get(&format!("/other?atlas_grant={token}"))
            .await
            .status,
        401
    );
    let got = world.get_with("/api", &token).await;
    assert!(
        got.body.contains(&format!("grant {}", granted.id())) && !got.body.contains(&token),
        "{}",
        got.body
    );

    let revoke = format!(
        "POST /_atlas/revoke/{}\nauthorization: Bearer {KEY}",
        granted.id()
    );
    assert_eq!(world.ask(&revoke).await.status, 204);
    assert_eq!(world.get_with("/api", &token).await.status, 401);
    assert_eq!(
        world
            .ask(&format!(
                "POST /_atlas/revoke/x\nauthorization: Bearer {KEY}"
            ))
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn only_a_grant_made_for_control_opens_the_control_paths() {
    let world = World::new(&[]).await;
    let (_, everything) = grant(Access::All, "/");
    assert_eq!(
        world.get_with("/_atlas/activity", &everything).await.status,
        401
    );
    let (_, reading) = grant(Access::Read, "/_atlas/");
    assert_eq!(
        world.get_with("/_atlas/activity", &reading).await.status,
        200
    );
    let permit = |token: &str| format!("POST /_atlas/permit\nauthorization: Bearer {token}");
    assert_eq!(world.ask(&permit(&reading)).await.status, 401);
    assert_eq!(
        world
            .ask(&permit(
                &grant(Access::All, atlas_auth::grant::CONTROL_PREFIX).1
            ))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_browser_on_an_allowed_origin_may_call_and_on_another_may_not() {
    let world = World::new(&[(
        "ATLAS_GUARD_CORS_ORIGINS",
        "https://other.example, https://app.example/",
    )])
    .await;
    let preflight = |origin: &str| {
        format!(
            "OPTIONS /p\norigin: {origin}\naccess-control-request-method: \
                POST\naccess-control-request-headers: authorization"
        )
    };
    let got = world.ask(&preflight("https://app.example")).await;
    assert_eq!(got.status, 204);
    for line in [
        "access-control-allow-origin: https://app.example",
        "access-control-allow-methods: post",
        "access-control-allow-headers: authorization",
    ] {
        assert!(got.head.contains(line), "{line} in {}", got.head);
    }
    assert!(
        !world
            .ask(&preflight("https://evil.example"))
            .await
            .head
            .contains("access-control")
    );
    let refused = world.ask("GET /p\norigin: https://app.example").await;
    assert_eq!(refused.status, 401);
    assert!(
        refused
            .head
            .contains("access-control-allow-origin: https://app.example"),
        "{}",
        refused.head
    );
    for head in ["GET /p\norigin: https://evil.example", "GET /p\n"] {
        let unnamed = world.ask(head).await;
        assert!(
            unnamed.head.contains("vary: origin") && !unnamed.head.contains("allow-origin"),
            "{}",
            unnamed.head
        );
    }
    let open = World::new(&[("ATLAS_GUARD_CORS_ORIGINS", "*")]).await;
    assert!(
        open.ask(&preflight("https://any.example"))
            .await
            .head
            .contains("access-control-allow-origin: *")
    );
    let silent = World::new(&[]).await;
    assert_eq!(
        silent.ask(&preflight("https://app.example")).await.status,
        401
    );
}

#[tokio::test]
async fn what_is_refused_is_no_activity_and_what_passes_is() {
    let world = World::new(&[]).await;
    world.get("/").await;
    world.get("/healthz").await;
    assert_eq!(world.activity("requests").await, 0);
    let got = world.get_with("/_atlas/activity", KEY).await;
    assert!(got.body.contains("\"last_activity\":null"), "{}", got.body);

    let body = world.get_with("/p", KEY).await.body;
    assert_eq!(world.activity("requests").await, 1);
    world.until("open", 0).await;
    assert!(world.activity("bytes_out").await >= body.len() as u64 / 2);
    assert!(
        !world
            .get_with("/_atlas/activity", KEY)
            .await
            .body
            .contains("\"last_activity\":null")
    );
}

#[tokio::test]
async fn with_a_control_key_no_credential_of_a_browser_opens_the_control_paths() {
    let entropy = SystemEntropy::new();
    let text = control::mint(&entropy);
    let secret = ControlSecret::new(&text).unwrap();
    let key = secret.key().to_string();
    let world = World::new(&[("ATLAS_CONTROL_KEY", &key)]).await;
    let permit = |token: &str| format!("POST /_atlas/permit\nauthorization: Bearer {token}");
    let (_, signed_by_the_page) = grant(Access::All, "/_atlas/");
    for token in [KEY, signed_by_the_page.as_str(), key.as_str()] {
        let got = world.get_with("/_atlas/activity", token).await;
        assert_eq!(got.status, 401, "{token}");
        assert_eq!(world.ask(&permit(token)).await.status, 401, "{token}");
        let revoke = format!("POST /_atlas/revoke/x\nauthorization: Bearer {token}");
        assert_eq!(world.ask(&revoke).await.status, 401, "{token}");
    }
    assert_eq!(world.get_with("/p", KEY).await.status, 200);
    let lent = |access| secret.grant(access, SystemClock.now(), MINUTE, &entropy);
    let reading = lent(Access::Read);
    let got = world.get_with("/_atlas/activity", reading.expose()).await;
    assert_eq!(got.status, 200);
    assert_eq!(world.ask(&permit(reading.expose())).await.status, 401);
    for token in [lent(Access::All), text] {
        assert_eq!(world.ask(&permit(token.expose())).await.status, 200);
        assert_eq!(world.get_with("/p", token.expose()).await.status, 401);
    }
}

#[tokio::test]
async fn an_answer_to_a_credential_is_kept_out_of_shared_caches() {
    let world = World::new(&[]).await;
    let got = world.get_with("/p", KEY).await;
    assert!(got.head.contains("cache-control: private"), "{}", got.head);
}

#[tokio::test]
async fn a_signed_url_reads_with_get_and_head_and_does_nothing_else() {
    let world = World::new(&[]).await;
    for format in [Format::Compatible, Format::Atlas] {
        let target = signed(format, "/p");
        for (method, status) in [("GET", 200), ("HEAD", 200), ("POST", 401), ("DELETE", 401)] {
            let got = world.ask(&format!("{method} {target}\n")).await;
            assert_eq!(got.status, status, "{method} {format:?}");
        }
    }
    let any = World::new(&[("ATLAS_GUARD_COMPATIBLE_ANY_METHOD", "1")]).await;
    let target = signed(Format::Compatible, "/p");
    assert_eq!(any.ask(&format!("POST {target}\n")).await.status, 200);
}
