//! `atlas url`: the verdict word, and the exit code that goes with it.

use crate::program::Program;

const URL: &str = "https://pod-8000.proxy.example/stream?b=2&a=1";

#[test]
fn a_compatible_url_is_judged_by_its_time_its_bytes_and_its_signature() {
    let atlas = Program::new();
    let common = ["--secret", "s3cret", "--format", "compatible", "--now"];
    let signed = atlas.run(
        &[
            &["url", "sign", URL, "--expires-in", "3600"],
            &common[..],
            &["1747000000"],
        ]
        .concat(),
    );
    assert_eq!(signed.code, 0, "{signed:?}");
    let url = signed.out.trim();
    assert!(
        url.starts_with("https://pod-8000.proxy.example/stream?a=1&b=2&exp=1747003600&sig="),
        "{url}"
    );
    let unsigned = &url[..url.find("&sig=").unwrap()];
    for (url, now, verdict, code) in [
        (url, "1747000001", "ok", 0),
        (url, "1747003600", "ok", 0),
        (url, "1747003601", "expired", 1),
        (
            &*url.replace("a=1", "a=3"),
            "1747000001",
            "bad_signature",
            1,
        ),
        (unsigned, "1747000001", "malformed", 1),
    ] {
        let judged = atlas.run(&[&["url", "verify", url], &common[..], &[now]].concat());
        assert_eq!(
            (judged.out.trim(), judged.code),
            (verdict, code),
            "{url} at {now}"
        );
    }
}

#[test]
fn an_atlas_url_is_bound_to_its_host_and_method() {
    let atlas = Program::new();
    let key = ["--secret", "s3cret", "--now", "1747000000"];
    let signed = atlas
        .run(&[&["url", "sign", URL, "--json"], &key[..]].concat())
        .json();
    let url = signed["url"].as_str().unwrap();
    let verdict = |url: &str, more: &[&str]| {
        atlas
            .run(&[&["url", "verify", url], &key[..], more].concat())
            .out
            .trim()
            .to_owned()
    };
    assert_eq!(verdict(url, &[]), "ok");
    assert_eq!(verdict(url, &["--method", "POST"]), "bad_signature");
    assert_eq!(verdict(url, &["--method", "HEAD"]), "ok");
    assert_eq!(verdict(&url.replace("pod-", "pad-"), &[]), "bad_signature");
    assert_eq!(verdict(url, &["--format", "compatible"]), "malformed");
}

#[test]
fn an_empty_secret_is_refused_and_a_short_one_is_warned_of() {
    let atlas = Program::new();
    for format in ["compatible", "atlas"] {
        for verb in ["sign", "verify"] {
            let run =
                |secret| atlas.run(&["url", verb, URL, "--format", format, "--secret", secret]);
            let refused = run("");
            assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{refused:?}");
            assert!(refused.err.contains("must not be empty"), "{refused:?}");
            assert!(run("s3cret").err.contains("can be guessed"));
            let long = run("s3cret-of-twenty-two-b");
            assert!(!long.err.contains("guessed"), "{long:?}");
        }
    }
}

#[test]
fn the_secret_may_come_from_the_environment_and_is_never_repeated() {
    let atlas = Program::new();
    let mut command = atlas.command(&["url", "sign", "//host/path", "--format", "compatible"]);
    let refused = crate::program::ran(command.env("ATLAS_SIGNING_SECRET", "zz-canary"));
    assert_eq!(refused.code, 2, "{refused:?}");
    let help = crate::program::ran(
        atlas
            .command(&["url", "sign", "--help"])
            .env("ATLAS_SIGNING_SECRET", "zz-canary"),
    );
    assert!(!format!("{refused:?}{help:?}").contains("zz-canary"));
}
