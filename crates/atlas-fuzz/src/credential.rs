//! The parsers that read what a stranger sends: URLs, grants, callback tokens, bearer tokens, and
//! requests that carry them.
//!
//! No bytes verify that were not signed, what was signed verifies until it is changed, and a signed
//! URL is its own canonical form.

use std::sync::Arc;
use std::time::Duration;

use atlas_auth::callback::CallbackKey;
use atlas_auth::grant::{Access, GrantId, GrantKey, Scope};
use atlas_auth::signed_url::{self, Format, Key, Policy, Target, Verdict, atlas, compatible};
use atlas_auth::{Verifier, token};
use atlas_core::{Clock, Secret, SeededEntropy, Timestamp};
use http::{HeaderMap, HeaderValue, Method, Uri, header};

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        now()
    }
}

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_747_000_000)
}

fn late() -> Timestamp {
    now().saturating_add(2 * MINUTE)
}

fn secret() -> Secret {
    Secret::new("s3cret-of-twenty-two-b")
}

/// The last byte and the one before choose what is changed, and to what; the rest is the input.
fn change(signed: &str, data: &[u8]) -> Option<String> {
    let [.., at, to] = data else { return None };
    let mut bytes = signed.as_bytes().to_vec();
    let index = usize::from(*at) % bytes.len();
    let to = to % 0x5e + 0x21;
    if bytes[index] == to || !signed.is_ascii() {
        return None;
    }
    bytes[index] = to;
    String::from_utf8(bytes).ok()
}

pub(crate) fn compatible_url(data: &[u8]) {
    let url = String::from_utf8_lossy(data);
    let key = Key::new(&secret()).expect("it is long enough");
    assert_ne!(
        compatible::verify(&url, &key, now()),
        Verdict::Ok,
        "nobody signed {url:?}"
    );
    let Ok(signed) = compatible::sign(&url, &key, now().saturating_add(MINUTE)) else {
        return;
    };
    assert_eq!(
        compatible::verify(&signed, &key, now()),
        Verdict::Ok,
        "{signed:?}"
    );
    assert_eq!(
        compatible::verify(&signed, &key, late()),
        Verdict::Expired,
        "{signed:?}"
    );
    assert_eq!(
        signed_url::verify(
            Format::Compatible,
            &signed,
            &Secret::new("another-secret-as-long"),
            now()
        ),
        Verdict::BadSignature
    );
    assert_eq!(
        signed_url::verify(Format::Atlas, &signed, &secret(), now()),
        Verdict::Malformed,
        "{signed:?}"
    );
    assert_eq!(
        compatible::sign(&signed, &key, now().saturating_add(MINUTE))
            .ok()
            .as_ref(),
        Some(&signed)
    );
}

pub(crate) fn atlas_url(data: &[u8]) {
    let url = String::from_utf8_lossy(data);
    let keys = [Key::new(&secret()).expect("it is long enough")];
    let judge = |url: &str, now| {
        Target::from_url("GET", url).map(|target| atlas::verify(&target, &keys, now))
    };
    assert_ne!(
        judge(&url, now()),
        Some(Verdict::Ok),
        "nobody signed {url:?}"
    );
    // As a server sees it, and with a prefix that may be none of its path.
    let target = Target::new("GET", "pod.example", &url);
    assert_ne!(
        atlas::verify(&target, &keys, now()),
        Verdict::Ok,
        "nobody signed {url:?}"
    );
    let policy = Policy::until(now().saturating_add(MINUTE));
    // Refusing is all that a prefix may do to an odd URL.
    let _refused = atlas::sign(&url, &keys[0], &policy.clone().prefix(url.clone()));
    let Ok(signed) = atlas::sign(&url, &keys[0], &policy) else {
        return;
    };
    assert_eq!(judge(&signed, now()), Some(Verdict::Ok), "{signed:?}");
    assert_eq!(judge(&signed, late()), Some(Verdict::Expired), "{signed:?}");
    assert_ne!(
        signed_url::verify(Format::Compatible, &signed, &secret(), now()),
        Verdict::Ok,
        "{signed:?}"
    );
    assert_eq!(
        atlas::sign(&signed, &keys[0], &policy).ok().as_ref(),
        Some(&signed)
    );
}

pub(crate) fn grant(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let key = GrantKey::new(&secret()).expect("it is long enough");
    for token in [text.to_string(), format!("ag1.{text}")] {
        assert!(
            key.verify(&token, now()).is_err(),
            "nobody granted {token:?}"
        );
    }
    if let Ok(id) = text.parse::<GrantId>() {
        assert_eq!(id.to_string(), text, "an id has one spelling");
    }
    let Ok(scope) = Scope::new(Access::Read, text.clone()) else {
        return;
    };
    assert!(
        !scope.allows("POST", scope.prefix()),
        "to read is not to write"
    );
    let (granted, shown) = key.mint(scope, now(), MINUTE, &SeededEntropy::new(7));
    assert_eq!(key.verify(shown.expose(), now()).as_ref(), Ok(&granted));
    assert_eq!(key.verify(shown.expose(), late()), Err(Verdict::Expired));
    if let Some(changed) = change(shown.expose(), data) {
        assert!(key.verify(&changed, now()).is_err(), "{changed:?}");
    }
}

pub(crate) fn callback(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let key = CallbackKey::new(&secret());
    for token in [text.to_string(), format!("ac1.{text}")] {
        assert_ne!(
            key.verify("task", &token, now()),
            Verdict::Ok,
            "nobody minted {token:?}"
        );
    }
    let shown = key.mint(&text, now());
    assert_eq!(key.verify(&text, shown.expose(), now()), Verdict::Ok);
    assert_eq!(key.verify(&text, shown.expose(), late()), Verdict::Expired);
    assert_eq!(
        key.verify(&format!("{text}x"), shown.expose(), now()),
        Verdict::BadSignature
    );
    if let Some(changed) = change(shown.expose(), data) {
        assert_ne!(
            key.verify(&text, &changed, now()),
            Verdict::Ok,
            "{changed:?}"
        );
    }
}

pub(crate) fn token(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let hash = token::hash(&text);
    assert!(token::verify(&text, &hash));
    assert!(!token::verify(&format!("{text}x"), &hash));
    if token::Hash::parse(&text).is_some() {
        assert!(
            text.bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
            "a hash has one spelling: {text:?}"
        );
    }
    if let Some(found) = token::from_header(&text) {
        assert!(
            !found.is_empty() && !found.contains(char::is_whitespace),
            "{text:?}"
        );
    }
}

/// A request whose target is the first line, and whose `Authorization` is the second.
pub(crate) fn request(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let (target, value) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    let Ok(mut uri) = Uri::try_from(target) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static("pod.example"));
    if let Ok(value) = HeaderValue::from_bytes(value) {
        headers.insert(header::AUTHORIZATION, value);
    }
    let verifier = Verifier::new(Arc::new(Fixed))
        .bearer(&secret())
        .and_then(|verifier| verifier.signed_url(&secret()))
        .and_then(|verifier| verifier.grants(&secret()))
        .expect("it is long enough");
    let who = verifier.check_parts(&Method::GET, &uri, &headers, None);
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(token::from_header);
    assert!(
        who.is_none() || shown == Some(secret().expose()),
        "nobody let {uri} in"
    );
    if let Ok(referer) = HeaderValue::from_bytes(target) {
        headers.insert(header::REFERER, referer);
    }
    verifier.strip(&mut uri, &mut headers);
    let referer = headers
        .get(header::REFERER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split_once('?'));
    for query in [
        uri.query().unwrap_or_default(),
        referer.map_or("", |(_, query)| query),
    ] {
        assert!(
            !query.split('&').any(|pair| pair.starts_with("atlas_sig=")),
            "{query} keeps a credential"
        );
    }
}
