//! The program: its ready line, its end, its complaints.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_atlas-sim"))
}

#[test]
fn it_prints_one_ready_line_and_ends_at_sigterm() {
    let mut child = program()
        .args(["--listen", "127.0.0.1:0", "--speed", "60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    assert!(
        ready["admin"]
            .as_str()
            .unwrap()
            .starts_with("http://127.0.0.1:")
    );
    assert!(
        ready["runpod"]["proxy"]
            .as_str()
            .unwrap()
            .ends_with("/{id}/{port}")
    );
    assert_eq!(ready["bounds"]["visibility_bound_ms"], 2000);
    let killed = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    line.clear();
    assert_eq!(
        out.read_line(&mut line).unwrap(),
        0,
        "nothing else on stdout: {line}"
    );
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    assert_eq!(
        program()
            .arg("--nope")
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .code(),
        Some(2)
    );
    assert_eq!(
        program()
            .args(["--faults", "/nonexistent"])
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .code(),
        Some(1)
    );
    assert_eq!(
        program()
            .arg("--help")
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .code(),
        Some(0)
    );
}
