//! `atlas token`, and what holds for every verb.

use std::io::Write;
use std::process::Stdio;

use crate::program::{Program, ran};

#[test]
fn a_minted_token_verifies_against_its_hash_and_another_does_not() {
    let atlas = Program::new();
    let minted = atlas.run(&["token", "mint", "--json"]);
    assert_eq!(minted.code, 0, "{minted:?}");
    let document = minted.json();
    let (token, hash) = (
        document["token"].as_str().unwrap(),
        document["hash"].as_str().unwrap(),
    );
    assert_eq!(
        (token.len(), hash.len(), &document["env"]),
        (43, 64, &"ATLAS_PRESHARED_KEY".into())
    );

    let good = atlas.run(&["token", "verify", token, "--hash", hash]);
    assert_eq!((good.code, good.out.as_str()), (0, "ok\n"));
    let other = atlas.run(&["token", "mint", "--json"]).json();
    let bad = atlas.run(&[
        "token",
        "verify",
        other["token"].as_str().unwrap(),
        "--hash",
        hash,
        "--json",
    ]);
    assert_eq!(
        (bad.code, bad.json()["verdict"].as_str()),
        (1, Some("bad_token"))
    );
}

#[test]
fn a_token_can_come_from_standard_input() {
    let atlas = Program::new();
    let mut child = atlas
        .command(&[
            "token",
            "verify",
            "-",
            "--hash",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"abc\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(0), &b"ok\n"[..])
    );
}

#[test]
fn a_token_may_begin_with_a_dash_as_one_in_64_does() {
    let atlas = Program::new();
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for args in [
        ["token", "verify", "-abc", "--hash", hash],
        ["token", "verify", "--hash", hash, "--abc"],
    ] {
        let judged = atlas.run(&args);
        assert_eq!(
            (judged.code, judged.out.as_str()),
            (1, "bad_token\n"),
            "{judged:?}"
        );
    }
}

#[test]
fn a_wrong_command_line_exits_2_and_says_nothing_on_standard_output() {
    let atlas = Program::new();
    for args in [
        &["no-such-verb"][..],
        &[],
        &["token"],
        &["token", "verify", "t"],
        &["token", "mint", "--nope"],
    ] {
        let wrong = atlas.run(args);
        assert_eq!((wrong.code, wrong.out.as_str()), (2, ""), "{args:?}");
        assert!(!wrong.err.is_empty());
    }
}

#[test]
fn help_and_version_exit_0() {
    let atlas = Program::new();
    for args in [["--help"], ["--version"]] {
        assert_eq!(ran(&mut atlas.command(&args)).code, 0);
    }
}
