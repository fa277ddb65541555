//! Tests of both formats: known answers, tampering, and properties over arbitrary input.

use std::net::IpAddr;
use std::time::Duration;

use atlas_core::{Secret, SystemEntropy, Timestamp};
use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_747_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn secret() -> Secret {
    Secret::new("s3cret-of-twenty-two-b")
}

fn hour() -> Policy {
    Policy::until(at(NOW + 3600))
}

fn judge(url: &str, key: &Key) -> Verdict {
    judge_as("GET", url, key)
}

fn judge_as(method: &str, url: &str, key: &Key) -> Verdict {
    Target::from_url(method, url).map_or(Verdict::Malformed, |target| {
        atlas::verify(&target, std::slice::from_ref(key), at(NOW + 1))
    })
}

/// URLs and how `ex_atlas` signs them with `s3cret-of-twenty-two-b` until 1747003600, by an
/// independent model of it (Python's hmac and re).
const SIGNED_BY_THE_PEER: &[(&str, &str)] = &[
    (
        r#"https://pod-8000.proxy.example/stream?b=2&a=1"#,
        r#"https://pod-8000.proxy.example/stream?a=1&b=2&exp=1747003600&sig=A4th5HPBg4bjLhdyfRD2e3UtAvLHeCBFk5ov-SR-XNM"#,
    ),
    (
        r#"https://h"#,
        r#"https://h?exp=1747003600&sig=NMhNesSgXck2i2k_wwZjmDXytB4dpDYVfRbAOJQZyLA"#,
    ),
    (
        r#"https://h?"#,
        r#"https://h?exp=1747003600&sig=NMhNesSgXck2i2k_wwZjmDXytB4dpDYVfRbAOJQZyLA"#,
    ),
    (
        r#"https://h/#top"#,
        r#"https://h/?exp=1747003600&sig=NMhNesSgXck2i2k_wwZjmDXytB4dpDYVfRbAOJQZyLA#top"#,
    ),
    (
        r#"/p?x=%7E~*%2a'()!"#,
        r#"/p?exp=1747003600&sig=aCg9YQviD1i_na4vawJEy9XziJ7lmPL-21TClt0G7Ys&x=~~%2A%2A%27%28%29%21"#,
    ),
    (
        r#"https://h/p?a=1&a=2&b=%20+%2B"#,
        r#"https://h/p?a=2&b=++%2B&exp=1747003600&sig=MFckpqIYenLtZSnM7Q0lFPZ33EB7GXqzpjEZcMaDXlU"#,
    ),
    (
        r#"https://h/p?a&=v&&b="#,
        r#"https://h/p?=&a=&b=&exp=1747003600&sig=na_AaO__GX7b9z7Q56r-KNSmLxkrGn9hjnW-zoRC-5w"#,
    ),
    (
        r#"https://h/p?z=1&sih=2&sij=3&q=%zz%4&%41=é"#,
        r#"https://h/p?A=%C3%A9&exp=1747003600&q=%25zz%254&sig=vFHKMBdnZumfhxghj1l9EiKgVsZfeYlJNHp8QkEyrgU&sih=2&sij=3&z=1"#,
    ),
    (
        r#"https://h:443/a%20b/../c?k=%ff%00"#,
        r#"https://h:443/a%20b/../c?exp=1747003600&k=%FF%00&sig=m3QDbCJHuPWHmmQuQRc8TiSMTUzvIIjp0F_CA7lO5lQ"#,
    ),
    (
        r#"https://h/?A=1&a=2&%C3%A9=3&~=4&!=5"#,
        r#"https://h/?%21=5&A=1&a=2&exp=1747003600&sig=alHJJND4aYZySUNaWQeOlmSvbk-ojMdmhL_aE16AmGQ&~=4&%C3%A9=3"#,
    ),
    (
        r#"wss://u:p@[::1]:8/ws?x=/y?z"#,
        r#"wss://u:p@[::1]:8/ws?exp=1747003600&sig=_yyZjrMsW_9BByb8RVjA9SEYMQfHixAdMQUfUWRARFw&x=%2Fy%3Fz"#,
    ),
    (
        r#"foo/bar?x=1"#,
        r#"foo/bar?exp=1747003600&sig=UK9JqLE9qPzTOIvMwfOXRC_MAJ21CtbyF5hucNas_ZY&x=1"#,
    ),
    (
        r#"https://h//double/slash?x=1"#,
        r#"https://h//double/slash?exp=1747003600&sig=XSMExeU7PYCotYor6jBijqAuWYfOtFbVuJoj7c0GvJk&x=1"#,
    ),
    (
        r#"https://h/p?q=a=b=c;d&amp;e"#,
        r#"https://h/p?amp%3Be=&exp=1747003600&q=a%3Db%3Dc%3Bd&sig=APNcNEFq1rBGSpS5Z8VzjrhJlsS_M6x6aY5B5bK6NMY"#,
    ),
];

#[test]
fn a_compatible_signature_is_to_the_byte_the_peers() {
    for (url, signed) in SIGNED_BY_THE_PEER {
        let ours = sign(
            Format::Compatible,
            url,
            &secret(),
            at(NOW),
            Duration::from_secs(3600),
        )
        .unwrap();
        assert_eq!(ours, *signed);
        assert_eq!(
            verify(Format::Compatible, signed, &secret(), at(NOW)),
            Verdict::Ok,
            "{signed}"
        );
    }
}

#[test]
fn the_verdicts_are_those_of_the_issue() {
    let url = SIGNED_BY_THE_PEER[0].1;
    let verdict = |url: &str, now| verify(Format::Compatible, url, &secret(), at(now)).as_str();
    assert_eq!(verdict(url, NOW + 1), "ok");
    assert_eq!(
        verdict(url, NOW + 3600),
        "ok",
        "the second of expiry is still in time"
    );
    assert_eq!(verdict(url, NOW + 3601), "expired");
    assert_eq!(
        verdict(&url.replace("a=1", "a=3"), NOW + 1),
        "bad_signature"
    );
    assert_eq!(
        verdict(&url.replace("a=1", "a=3"), NOW + 3601),
        "expired",
        "expired is told first"
    );
    assert_eq!(
        verdict(url.rsplit_once("&sig=").unwrap().0, NOW + 1),
        "malformed"
    );
    assert_eq!(
        verdict(
            url.strip_prefix("https://pod-8000.proxy.example").unwrap(),
            NOW + 1
        ),
        "ok"
    );
    assert_eq!(verdict("", NOW), "malformed");
}

#[test]
fn parameters_in_another_order_or_spelling_are_the_same_parameters() {
    let url = SIGNED_BY_THE_PEER[0].1;
    let (head, query) = url.split_once('?').unwrap();
    let mut pairs: Vec<&str> = query.split('&').collect();
    pairs.reverse();
    let turned = format!("{head}?{}", pairs.join("&")).replace("a=1", "%61=%31");
    assert_eq!(
        verify(Format::Compatible, &turned, &secret(), at(NOW)),
        Verdict::Ok
    );
}

#[test]
fn what_the_peers_verifier_wrongly_accepts_is_refused() {
    let url = SIGNED_BY_THE_PEER[0].1;
    for forged in [
        url.replace("?a=1", "?a=evil&a=1"),
        url.replace("?a=1", "?sig=x&a=1"),
        url.replace("?a=1", "?exp=1&a=1"),
        url.replace("https://pod-8000.proxy.example", "//pod-8000.proxy.example"),
    ] {
        assert_eq!(
            verify(Format::Compatible, &forged, &secret(), at(NOW)),
            Verdict::BadSignature,
            "{forged}"
        );
    }
    for exp in [
        "exp=%2B1747003600",
        "exp=01747003600",
        "exp=-0",
        "exp=",
        "exp=1747003600.0",
        "exp=0x7",
    ] {
        let forged = url.replace("exp=1747003600", exp);
        assert_eq!(
            verify(Format::Compatible, &forged, &secret(), at(NOW)),
            Verdict::Malformed,
            "{forged}"
        );
    }
}

#[test]
fn a_signed_url_is_signed_again_as_if_it_never_had_been() {
    for format in [Format::Compatible, Format::Atlas] {
        let sign = |url: &str, for_seconds| {
            sign(
                format,
                url,
                &secret(),
                at(NOW),
                Duration::from_secs(for_seconds),
            )
            .unwrap()
        };
        let once = sign("https://h/p?a=1&z=2", 60);
        assert_ne!(sign(&once, 90), once);
        assert_eq!(sign(&sign(&once, 90), 60), once);
    }
}

#[test]
fn an_expiry_beyond_64_bits_is_no_panic_and_no_expiry() {
    let url = format!("/p?exp={}&sig=x", "9".repeat(40));
    assert_eq!(
        verify(Format::Compatible, &url, &secret(), at(NOW)),
        Verdict::BadSignature
    );
    let url = format!("/p?exp=-{}&sig=x", "9".repeat(40));
    assert_eq!(
        verify(Format::Compatible, &url, &secret(), at(NOW)),
        Verdict::Expired
    );
}

/// The path and the parameters of a request for this URL.
fn sent(url: &str) -> (&str, Vec<query::Pair<'_>>) {
    let url = url.split('#').next().unwrap_or_default();
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    (path, query::collect(query))
}

#[test]
fn a_fragment_in_place_of_an_empty_value_leaves_the_same_request() {
    let minute = Duration::from_secs(60);
    let signed = sign(
        Format::Compatible,
        "https://h/p?~",
        &secret(),
        at(NOW),
        minute,
    )
    .unwrap();
    let cut = signed
        .strip_suffix('=')
        .expect("it ends in an empty value")
        .to_owned()
        + "#";
    assert_eq!(sent(&cut), sent(&signed));
    assert!(verify(Format::Compatible, &cut, &secret(), at(NOW)).is_ok());
}

#[test]
fn a_secret_that_is_empty_or_short_signs_nothing_and_verifies_nothing() {
    let until = at(NOW + 60);
    for short in ["", "fifteen-bytes-x"] {
        let short = Secret::new(short);
        assert!(Key::new(&short).is_err());
        for format in [Format::Compatible, Format::Atlas] {
            assert!(
                sign(
                    format,
                    "https://h/p",
                    &short,
                    at(NOW),
                    Duration::from_secs(60)
                )
                .is_err()
            );
        }
        // Signed by a signer without these checks.
        let forged = [
            compatible::sign_with(&compatible::key(&short), "https://h/p", until).unwrap(),
            atlas::sign("https://h/p", &Key::of(&short), &hour()).unwrap(),
        ];
        for (format, url) in [Format::Compatible, Format::Atlas].into_iter().zip(&forged) {
            assert_eq!(verify(format, url, &short, at(NOW)), Verdict::BadSignature);
        }
    }
    assert!(Key::existing(&Secret::new("")).is_err());
    assert!(Key::existing(&Secret::new("s3cret")).is_ok());
}

#[test]
fn a_url_signed_for_get_also_passes_for_head_and_not_the_other_way_round() {
    let key = Key::new(&secret()).unwrap();
    let get = atlas::sign("https://h/p", &key, &hour()).unwrap();
    let head = atlas::sign("https://h/p", &key, &hour().method("HEAD")).unwrap();
    assert_eq!(judge_as("HEAD", &get, &key), Verdict::Ok);
    assert_eq!(judge_as("HEAD", &head, &key), Verdict::Ok);
    assert_eq!(judge_as("GET", &head, &key), Verdict::BadSignature);
    for method in ["POST", "OPTIONS", "head"] {
        assert_eq!(
            judge_as(method, &get, &key),
            Verdict::BadSignature,
            "{method}"
        );
    }
}

#[test]
fn every_spelling_of_a_dot_segment_is_found() {
    for path in [
        "/a/..",
        "/a/./b",
        "/a/%2e%2E/b",
        "/a/%252e%252e/b",
        "/a/%25252e./b",
        "/a/..;x=1/b",
        "/a/..%3bx/b",
        "/a/.%3B/b",
        "/a\\..\\b",
        "/a/..%5cb",
        "/a%2f..%2fb",
        "/a/..%00/b",
        "/a/%09../b",
        "/a/.%20./b",
        "/a/%c0%ae%c0%ae/b",
        "/a/%ef%bc%8e%ef%bc%8e/b",
        "/a%ef%bc%8f../b",
        "/a/%2525252525252e/b",
    ] {
        assert!(atlas::has_dot_segments(path), "{path}");
    }
    for path in [
        "/",
        "/a/...",
        "/a/..b",
        "/a/b..",
        "/a/%2ehidden",
        "/a;x=../b",
        "/100%",
        "/a%20b",
        "/é",
        "/;/x",
    ] {
        assert!(!atlas::has_dot_segments(path), "{path}");
    }
}

#[test]
fn neither_format_is_mistaken_for_the_other() {
    for (signed_as, judged_as) in [
        (Format::Compatible, Format::Atlas),
        (Format::Atlas, Format::Compatible),
    ] {
        let signed = sign(
            signed_as,
            "https://h/p?a=1",
            &secret(),
            at(NOW),
            Duration::from_secs(60),
        )
        .unwrap();
        assert_eq!(verify(signed_as, &signed, &secret(), at(NOW)), Verdict::Ok);
        assert_eq!(
            verify(judged_as, &signed, &secret(), at(NOW)),
            Verdict::Malformed
        );
    }
}

#[test]
fn an_atlas_signature_is_bound_to_host_method_path_and_query() {
    let key = Key::new(&secret()).unwrap();
    let url = atlas::sign("https://Pod.example:443/a/b?x=1&x=2&y=%20", &key, &hour()).unwrap();
    assert_eq!(judge(&url, &key), Verdict::Ok);
    assert_eq!(
        judge(&url.replace("Pod.example:443", "pod.example"), &key),
        Verdict::Ok,
        "what a browser makes of the host"
    );
    for (from, to) in [
        ("Pod.example", "other.example"),
        (":443", ":8443"),
        ("/a/b", "/a/c"),
        ("x=1&x=2", "x=2&x=1"),
        ("x=1&x=2", "x=2"),
        ("%20", "+"),
        ("&atlas_sig", "&z=1&atlas_sig"),
    ] {
        assert_eq!(
            judge(&url.replace(from, to), &key),
            Verdict::BadSignature,
            "{from} → {to}"
        );
    }
    assert_eq!(judge_as("POST", &url, &key), Verdict::BadSignature);
    let twice = format!(
        "{url}&{}",
        url.split_once('?').unwrap().1.rsplit_once('&').unwrap().1
    );
    assert_eq!(judge(&twice, &key), Verdict::Malformed);
    let target = Target::from_url("GET", &url).unwrap();
    assert_eq!(
        atlas::verify(&target, std::slice::from_ref(&key), at(NOW + 3601)),
        Verdict::Expired
    );
}

#[test]
fn a_websocket_url_and_its_request_are_the_same_target() {
    let key = Key::new(&secret()).unwrap();
    let url = atlas::sign("wss://h/socket", &key, &hour()).unwrap();
    let path_and_query = url.strip_prefix("wss://h").unwrap();
    assert_eq!(
        atlas::verify(&Target::new("GET", "H", path_and_query), &[key], at(NOW)),
        Verdict::Ok
    );
}

#[test]
fn any_live_key_verifies_and_a_retired_one_does_not() {
    let (old, new) = (
        Key::new(&secret()).unwrap(),
        Key::new(mint_secret(&SystemEntropy::new()).secret()).unwrap(),
    );
    let url = atlas::sign("https://h/p", &old, &hour()).unwrap();
    let target = Target::from_url("GET", &url).unwrap();
    assert_eq!(
        atlas::verify(&target, &[new.clone(), old], at(NOW)),
        Verdict::Ok
    );
    assert_eq!(
        atlas::verify(&target, &[new], at(NOW)),
        Verdict::BadSignature
    );
}

#[test]
fn a_signature_is_not_valid_before_its_time_nor_from_another_address() {
    let key = Key::new(&secret()).unwrap();
    let here: IpAddr = "192.0.2.7".parse().unwrap();
    let url = atlas::sign(
        "https://h/p",
        &key,
        &hour().not_before(at(NOW + 10)).client(here),
    )
    .unwrap();
    let target = Target::from_url("GET", &url).unwrap();
    let judge =
        |target: Target<'_>, now| atlas::verify(&target, std::slice::from_ref(&key), at(now));
    assert_eq!(judge(target.client(here), NOW + 10), Verdict::Ok);
    assert_eq!(
        judge(target.client("::ffff:192.0.2.7".parse().unwrap()), NOW + 10),
        Verdict::Ok
    );
    assert_eq!(judge(target.client(here), NOW + 9), Verdict::BadSignature);
    assert_eq!(
        judge(target.client("192.0.2.8".parse().unwrap()), NOW + 10),
        Verdict::BadSignature
    );
    assert_eq!(
        judge(target, NOW + 10),
        Verdict::BadSignature,
        "an unknown address is another one"
    );
}

#[test]
fn one_prefix_signature_opens_a_playlist_and_its_segments_and_nothing_beside() {
    let key = Key::new(&secret()).unwrap();
    let url = atlas::sign(
        "https://h/hls/movie/index.m3u8",
        &key,
        &hour().prefix("/hls/movie/"),
    )
    .unwrap();
    for (path, verdict) in [
        ("/hls/movie/index.m3u8", Verdict::Ok),
        ("/hls/movie/720p/seg-1.ts", Verdict::Ok),
        ("/hls/movie/seg.ts?start=1", Verdict::Ok),
        ("/hls/movies/index.m3u8", Verdict::BadSignature),
        ("/hls/other/index.m3u8", Verdict::BadSignature),
        ("/hls/movie/../../admin", Verdict::BadSignature),
        ("/hls/movie/%2e%2E/x", Verdict::BadSignature),
        ("/hls/movie/..%2fx", Verdict::BadSignature),
        ("/hls/movie/..;/x", Verdict::BadSignature),
        ("/hls/movie", Verdict::BadSignature),
    ] {
        let signature = url.split_once('?').unwrap().1;
        let joint = if path.contains('?') { '&' } else { '?' };
        assert_eq!(
            judge(&format!("https://h{path}{joint}{signature}"), &key),
            verdict,
            "{path}"
        );
    }
    assert_eq!(
        judge(&url.replace(".p11.", ".p5."), &key),
        Verdict::BadSignature
    );
    assert!(atlas::sign("https://h/other", &key, &hour().prefix("/hls/")).is_err());
    assert!(atlas::sign("https://h/hls/x", &key, &hour().prefix("/hls")).is_err());
}

#[test]
fn what_a_browser_would_rewrite_is_rewritten_before_signing_or_refused() {
    let key = Key::new(&secret()).unwrap();
    let url = atlas::sign("https://h/a b/é?q=\"x y\"&r='", &key, &hour()).unwrap();
    assert!(
        url.starts_with("https://h/a%20b/%C3%A9?q=%22x%20y%22&r=%27&atlas_sig=1."),
        "{url}"
    );
    assert_eq!(judge(&url, &key), Verdict::Ok);
    for refused in [
        "/p",
        "//h/p",
        "https://h/a/../b",
        "https://h/%2e%2e/b",
        "https://u@h/p",
        "ftp://h/p",
        "https://h/a\tb",
        "https:///p",
    ] {
        assert!(atlas::sign(refused, &key, &hour()).is_err(), "{refused}");
    }
    assert!(atlas::sign("https://h/p", &key, &hour().method("get")).is_err());
}

#[test]
fn no_secret_shows_in_a_debug_print() {
    let printed = format!(
        "{:?} {:?}",
        Key::new(&secret()).unwrap(),
        mint_secret(&SystemEntropy::new())
    );
    assert!(!printed.contains("s3cret"), "{printed}");
}

fn urls() -> impl Strategy<Value = String> {
    "https://[a-z]{1,5}(:[1-9][0-9]{0,3})?(/[a-zé %~*+.-]{0,4}[a-z]){0,3}(\\?([a-dsx \
        ]{0,3}=?[a-z%20+~*é&=]{0,4}&?){0,4})?(#[a-z]{0,3})?"
}

proptest! {
    #[test]
    fn what_was_signed_verifies(url in urls(), format in prop_oneof![Just(Format::Compatible),
        Just(Format::Atlas)]) {
        let signed = sign(format, &url, &secret(), at(NOW), Duration::from_secs(60)).unwrap();
        prop_assert_eq!(verify(format, &signed, &secret(), at(NOW + 60)), Verdict::Ok, "{}",
            signed);
        prop_assert_eq!(verify(format, &signed, &secret(), at(NOW + 61)), Verdict::Expired);
        prop_assert!(!verify(format, &signed, &Secret::new("other"), at(NOW)).is_ok());
    }

    #[test]
    fn a_signed_url_is_its_own_canonical_form(url in urls()) {
        for format in [Format::Compatible, Format::Atlas] {
            let sign = |url: &str| sign(format, url, &secret(), at(NOW),
                Duration::from_secs(60)).unwrap();
            let once = sign(&url);
            prop_assert_eq!(sign(&once), once);
        }
    }

    #[test]
    fn any_changed_byte_of_an_atlas_url_fails(url in urls(), at_byte: prop::sample::Index,
        to in 0x21_u8..0x7f) {
        let signed = sign(Format::Atlas, &url, &secret(), at(NOW),
            Duration::from_secs(60)).unwrap();
        // A fragment is never sent, and scheme and host are compared without case.
        let signed = signed.split('#').next().unwrap_or_default().to_owned();
        let path_at = signed[8..].find(['/', '?']).unwrap() + 8;
        let mut bytes = signed.clone().into_bytes();
        let index = path_at + at_byte.index(bytes.len() - path_at);
        prop_assume!(bytes[index] != to);
        bytes[index] = to;
        let changed = String::from_utf8(bytes).unwrap();
        // An empty path is the path `/`.
        prop_assume!(!(index == path_at && signed.as_bytes()[index] == b'?'));
        prop_assert!(!verify(Format::Atlas, &changed, &secret(), at(NOW)).is_ok(), "{} → {}",
            signed, changed);
    }

    #[test]
    fn any_changed_character_of_a_compatible_url_fails_unless_it_spells_the_same(
        url in urls(), at_byte: prop::sample::Index, to in prop::char::range('!', '~'),
    ) {
        let signed = sign(Format::Compatible, &url, &secret(), at(NOW),
            Duration::from_secs(60)).unwrap();
        let signed = signed.split('#').next().unwrap_or_default().to_owned();
        let path_at = signed[8..].find('?').map_or(8,
            |query| signed[8..8 + query].find('/').unwrap_or(query + 1) + 8);
        let (index,
            old) = signed[path_at..].char_indices().nth(at_byte.index(signed[path_at..].chars().count())).unwrap();
        let index = path_at + index;
        // The digits of an escape are equivalent in either case.
        let in_escape = (1..=2).any(|back| signed.as_bytes()[index - back] == b'%');
        prop_assume!(old != to && !(in_escape && old.eq_ignore_ascii_case(&to)));
        let changed = format!("{}{to}{}", &signed[..index], &signed[index + old.len_utf8()..]);
        // A fragment is never sent. One that begins where there was only the `=` of an empty value
        // or an empty pair leaves the same request.
        prop_assume!(to != '#' || sent(&changed) != sent(&signed));
        prop_assert!(!verify(Format::Compatible, &changed, &secret(), at(NOW)).is_ok(), "{} → {}",
            signed, changed);
    }

    #[test]
    fn no_input_panics(url in any::<String>(),
        near in "(https?:)?/{0,3}[a-z]{0,3}[?&=%.a-z0-9_-]{0,40}", now: i64) {
        let key = Key::new(&secret()).unwrap();
        for url in [url, near.clone(), format!("https://h/?atlas_sig={near}"),
            format!("/?exp={now}&sig={near}")] {
            for format in [Format::Compatible, Format::Atlas] {
                let _ = verify(format, &url, &secret(), at(now));
                let _ = sign(format, &url, &secret(), at(now), Duration::MAX);
            }
            let _ = atlas::verify(&Target::new(&near, &url, &near), std::slice::from_ref(&key),
                at(now));
            let _ = atlas::sign(&url, &key,
                &Policy::until(at(now)).prefix(near.clone()).method(near.clone()));
        }
    }

    #[test]
    fn different_requests_have_different_signatures(a in urls(), b in urls()) {
        let key = Key::new(&secret()).unwrap();
        let (a, b) = (atlas::sign(&a, &key, &hour()).unwrap(), atlas::sign(&b, &key,
            &hour()).unwrap());
        let strip = |url: &str| url.split('#').next().unwrap_or_default().rsplit_once("atlas_sig=").map(|(head, mac)| (head.to_owned(), mac.to_owned())).unwrap();
        let ((a_head, a_mac), (b_head, b_mac)) = (strip(&a), strip(&b));
        // The scheme is not signed, and an empty path is `/`.
        prop_assume!(a_head.replace("/?", "?") != b_head.replace("/?", "?"));
        prop_assert_ne!(a_mac, b_mac);
    }
}
