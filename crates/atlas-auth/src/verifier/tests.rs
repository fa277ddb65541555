//! Which requests are accepted, and what remains of a request's credentials behind the verifier.

use std::time::Duration;

use atlas_core::{SystemEntropy, Timestamp};
use http::Response;
use http::StatusCode;
use http::header::{CONNECTION, RANGE, UPGRADE, WWW_AUTHENTICATE};
use proptest::prelude::*;
use tower_layer::Layer;
use tower_service::Service;

use super::*;
use crate::grant::{Access, Scope};
use crate::layer::VerifyLayer;
use crate::signed_url::{self, Policy};

const NOW: i64 = 1_747_000_000;

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        now()
    }
}

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(NOW)
}

fn secret() -> Secret {
    Secret::new("s3cret-of-twenty-two-b")
}

fn verifier() -> Verifier {
    Verifier::new(Arc::new(Stopped))
}

fn either() -> Verifier {
    verifier()
        .bearer(&secret())
        .unwrap()
        .signed_url(&secret())
        .unwrap()
        .grants(&secret())
        .unwrap()
}

fn get(target: &str) -> Request<()> {
    let mut request = Request::new(());
    *request.uri_mut() = target.parse().unwrap();
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_static("h"));
    request
}

fn showing(mut request: Request<()>, token: &str) -> Request<()> {
    request
        .headers_mut()
        .append(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    request
}

fn signed(format: Format, path: &str) -> String {
    let url = signed_url::sign(
        format,
        &format!("https://h{path}"),
        &secret(),
        now(),
        Duration::from_secs(60),
    )
    .unwrap();
    url.strip_prefix("https://h").unwrap().to_owned()
}

fn grant(access: Access, prefix: &str) -> (Grant, Secret) {
    let scope = Scope::new(access, prefix).unwrap();
    GrantKey::new(&secret()).unwrap().mint(
        scope,
        now(),
        Duration::from_secs(60),
        &SystemEntropy::new(),
    )
}

#[test]
fn nothing_passes_until_a_credential_is_named() {
    assert_eq!(
        verifier().check(&showing(get("/"), "s3cret-of-twenty-two-b")),
        None
    );
    assert_eq!(
        verifier().check(&get(&signed(Format::Compatible, "/"))),
        None
    );
}

#[test]
fn each_credential_passes_where_it_is_named_and_nowhere_else() {
    let bearer = verifier()
        .bearer_hash(&token::hash("s3cret-of-twenty-two-b"))
        .unwrap();
    let urls = verifier().signed_url(&secret()).unwrap();
    let by_token = showing(get("/"), "s3cret-of-twenty-two-b");
    assert_eq!(bearer.check(&by_token), Some(Principal::Bearer));
    assert_eq!(urls.check(&by_token), None);
    for format in [Format::Compatible, Format::Atlas] {
        let by_url = get(&signed(format, "/p?a=1"));
        assert_eq!(urls.check(&by_url), Some(Principal::SignedUrl(format)));
        assert_eq!(bearer.check(&by_url), None);
        assert_eq!(either().check(&by_url), Some(Principal::SignedUrl(format)));
    }
    assert_eq!(
        urls.clone()
            .atlas_format_only()
            .check(&get(&signed(Format::Compatible, "/"))),
        None
    );
    assert!(verifier().bearer_hash("x").is_err());
}

#[test]
fn a_wrong_token_beside_a_good_signature_does_not_spoil_it() {
    let request = showing(get(&signed(Format::Atlas, "/p")), "an app's own");
    assert_eq!(
        either().check(&request),
        Some(Principal::SignedUrl(Format::Atlas))
    );
}

#[test]
fn of_two_authorization_headers_none_is_read() {
    assert_eq!(
        either().check(&showing(
            showing(get("/"), "s3cret-of-twenty-two-b"),
            "other"
        )),
        None
    );
}

#[test]
fn a_grant_passes_by_header_or_parameter_within_its_scope_until_it_is_revoked() {
    let revoked = Arc::new(Revoked::default());
    let verifier = either().revoked(Arc::clone(&revoked));
    let (grant, token) = grant(Access::Read, "/ws");
    let by_parameter = get(&format!("/ws?room=1&atlas_grant={}", token.expose()));
    assert_eq!(
        verifier.check(&by_parameter),
        Some(Principal::Grant(grant.clone()))
    );
    assert_eq!(
        verifier.check(&showing(get("/ws"), token.expose())),
        Some(Principal::Grant(grant.clone()))
    );
    assert_eq!(
        verifier.check(&showing(get("/other"), token.expose())),
        None
    );
    let mut post = showing(get("/ws"), token.expose());
    *post.method_mut() = Method::POST;
    assert_eq!(verifier.check(&post), None);
    revoked.revoke(grant.id(), now());
    assert_eq!(verifier.check(&by_parameter), None);
}

#[test]
fn the_host_is_the_authority_or_the_header_or_what_was_configured() {
    let target = signed(Format::Atlas, "/p");
    let elsewhere = |mut request: Request<()>| {
        request
            .headers_mut()
            .insert(HOST, HeaderValue::from_static("internal:8000"));
        request
    };
    assert!(either().check(&elsewhere(get(&target))).is_none());
    assert!(either().host("h").check(&elsewhere(get(&target))).is_some());
    assert!(
        either()
            .check(&elsewhere(get(&format!("http://h{target}"))))
            .is_some()
    );
}

#[test]
fn a_signature_for_one_address_needs_to_be_told_the_address() {
    let policy = Policy::until(now()).client("192.0.2.1".parse().unwrap());
    let url = atlas::sign("https://h/p", &Key::new(&secret()).unwrap(), &policy).unwrap();
    let mut request = get(url.strip_prefix("https://h").unwrap());
    assert!(either().check(&request).is_none());
    request
        .extensions_mut()
        .insert(ClientAddress("192.0.2.1".parse().unwrap()));
    assert!(either().check(&request).is_some());
}

#[test]
fn no_credential_of_ours_is_left_behind_the_verifier_and_nothing_else_is_touched() {
    let stripped = |request: Request<()>| {
        let (mut parts, ()) = request.into_parts();
        either().strip(&mut parts.uri, &mut parts.headers);
        (
            parts.uri.to_string(),
            parts.headers.contains_key(AUTHORIZATION),
        )
    };
    let token = grant(Access::All, "/").1;
    assert_eq!(
        stripped(showing(get("/p?a=%20&b"), "s3cret-of-twenty-two-b")),
        ("/p?a=%20&b".to_owned(), false)
    );
    assert_eq!(
        stripped(showing(get("/p"), "an app's own")),
        ("/p".to_owned(), true)
    );
    assert_eq!(
        stripped(showing(get("/p"), token.expose())),
        ("/p".to_owned(), false)
    );
    assert_eq!(
        stripped(get(&signed(Format::Atlas, "/p?b=2&a=%zz"))).0,
        "/p?b=2&a=%zz"
    );
    assert_eq!(stripped(get(&signed(Format::Atlas, "/p"))).0, "/p");
    assert_eq!(
        stripped(get(&signed(Format::Compatible, "/p?z=1&a=2"))).0,
        "/p?a=2&z=1"
    );
    assert_eq!(
        stripped(get(
            &signed(Format::Compatible, "/p?z").replace("exp=", "%65xp=")
        ))
        .0,
        "/p?z="
    );
    assert_eq!(
        stripped(get(&format!("/p?atlas_grant={}&x", token.expose()))).0,
        "/p?x"
    );
    assert_eq!(
        stripped(get("/p?exp=1")).0,
        "/p?exp=1",
        "an expiry without a signature is the application's"
    );
}

#[test]
fn a_referer_keeps_its_page_and_loses_the_signature_it_repeats() {
    let left = |referers: &[&str]| {
        let mut request = get("/segment.ts");
        for referer in referers {
            request.headers_mut().append(
                REFERER,
                HeaderValue::from_bytes(referer.as_bytes()).unwrap(),
            );
        }
        let (mut parts, ()) = request.into_parts();
        either().strip(&mut parts.uri, &mut parts.headers);
        let left = parts
            .headers
            .get_all(REFERER)
            .iter()
            .map(|value| value.to_str().unwrap().to_owned());
        left.collect::<Vec<_>>()
    };
    for format in [Format::Compatible, Format::Atlas] {
        assert_eq!(
            left(&[&format!("https://h{}", signed(format, "/list.m3u8?a=1"))]),
            ["https://h/list.m3u8?a=1"]
        );
        assert_eq!(
            left(&[&format!("https://h{}", signed(format, "/list.m3u8"))]),
            ["https://h/list.m3u8"]
        );
    }
    let token = grant(Access::All, "/").1;
    let by_grant = format!("https://h/page?atlas_grant={}&x=%zz", token.expose());
    assert_eq!(
        left(&["https://h/other?q=1", &by_grant]),
        ["https://h/other?q=1", "https://h/page?x=%zz"]
    );
    assert!(
        left(&["https://h/\u{e9}?atlas_sig=1"]).is_empty(),
        "what cannot be read is not passed on"
    );
}

#[test]
fn of_several_authorization_headers_ours_is_taken_out_and_the_others_stay() {
    let (mut parts, ()) = showing(
        showing(get(&signed(Format::Atlas, "/p")), "s3cret-of-twenty-two-b"),
        "an app's_own",
    )
    .into_parts();
    either().strip(&mut parts.uri, &mut parts.headers);
    let left: Vec<_> = parts.headers.get_all(AUTHORIZATION).iter().collect();
    assert_eq!(left, ["Bearer an app's_own"]);
}

#[derive(Clone)]
struct Echo;

impl Service<Request<()>> for Echo {
    type Response = Response<String>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Response<String>, Self::Error>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let principal = request.extensions().get::<Principal>();
        std::future::ready(Ok(Response::new(format!(
            "{principal:?} {:?}",
            request.headers()
        ))))
    }
}

async fn answer(request: Request<()>) -> Response<String> {
    VerifyLayer::new(either())
        .layer(Echo)
        .call(request)
        .await
        .unwrap()
}

#[tokio::test]
async fn the_layer_passes_upgrades_and_ranges_on_untouched_with_the_principal() {
    let mut request = get(&signed(Format::Atlas, "/ws"));
    for (name, value) in [
        (CONNECTION, "Upgrade"),
        (UPGRADE, "websocket"),
        (RANGE, "bytes=1-"),
    ] {
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    let expected = format!("Some(SignedUrl(Atlas)) {:?}", request.headers());
    let response = answer(request).await;
    assert_eq!(
        (response.status(), response.body()),
        (StatusCode::OK, &expected)
    );
}

#[tokio::test]
async fn every_refusal_is_the_same_bare_401() {
    let mut seen = std::collections::BTreeSet::new();
    let expired = "/?exp=1&sig=x";
    let elsewhere = signed(Format::Atlas, "/p").replace("/p", "/q");
    for request in [
        get("/"),
        showing(get("/"), "wrong"),
        get(expired),
        get(&elsewhere),
        showing(get("/"), "ag1.x.y"),
    ] {
        let response = answer(request).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(
            response.headers()[WWW_AUTHENTICATE],
            "Bearer realm=\"atlas\""
        );
        seen.insert(format!("{response:?}"));
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
}

proptest! {
    #[test]
    fn no_request_panics(target in "/[!-~]{0,60}", authorization in "[ -~]{0,60}",
        host in "[!-~]{0,20}") {
        let Ok(uri) = target.parse::<Uri>() else { return Ok(()) };
        let mut request = get("/");
        *request.uri_mut() = uri;
        request.headers_mut().insert(AUTHORIZATION, authorization.parse().unwrap());
        request.headers_mut().insert(HOST, host.parse().unwrap());
        prop_assert_eq!(either().check(&request), None);
        let (mut parts, ()) = request.into_parts();
        either().strip(&mut parts.uri, &mut parts.headers);
    }
}

#[test]
fn a_compatible_url_only_reads_unless_more_was_asked_for() {
    let verifier = verifier().signed_url(&secret()).unwrap();
    let ask = |verifier: &Verifier, method: &str| {
        let mut request = get(&signed(Format::Compatible, "/p"));
        *request.method_mut() = method.parse().unwrap();
        verifier.check(&request).is_some()
    };
    for method in ["GET", "HEAD"] {
        assert!(ask(&verifier, method), "{method}");
    }
    let any = verifier.clone().compatible_for_any_method();
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
        assert!(!ask(&verifier, method), "{method}");
        assert!(ask(&any, method), "{method}");
    }
}

#[test]
fn no_verifier_takes_a_credential_that_can_be_guessed() {
    for short in ["", "fifteen-bytes-x"] {
        let short = Secret::new(short);
        assert!(verifier().bearer(&short).is_err());
        assert!(verifier().signed_url(&short).is_err());
        assert!(verifier().grants(&short).is_err());
    }
}
