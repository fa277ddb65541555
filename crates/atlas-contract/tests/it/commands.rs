//! The two commands, as scripts see them.

use std::process::{Command, Output};

use serde_json::Value;

fn contract(ci: bool, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atlas-contract"));
    command.args(args).env("CI", if ci { "true" } else { "" });
    command.output().unwrap()
}

#[test]
fn absent_documents_are_skipped_loudly_for_a_newcomer_and_fail_in_ci() {
    let newcomer = contract(false, &["--specs", "no-such-folder", "--json"]);
    assert!(newcomer.status.success(), "{newcomer:?}");
    assert!(
        String::from_utf8_lossy(&newcomer.stderr).contains("SKIPPED"),
        "{newcomer:?}"
    );
    assert_eq!(
        serde_json::from_slice::<Value>(&newcomer.stdout).unwrap(),
        serde_json::json!({ "clouds": {} })
    );
    let ci = contract(true, &["--specs", "no-such-folder", "--json"]);
    assert_eq!(ci.status.code(), Some(1), "{ci:?}");
}

#[test]
fn a_wrong_call_says_how_it_is_called() {
    for args in [&[][..], &["--specs"], &["--nonsense"]] {
        let answer = contract(false, args);
        assert_eq!(answer.status.code(), Some(2), "{answer:?}");
        assert!(
            String::from_utf8_lossy(&answer.stderr).contains("usage"),
            "{answer:?}"
        );
    }
}

#[test]
fn the_matrix_is_one_line_of_json_and_its_verdict_is_the_exit_code() {
    let answer = Command::new(env!("CARGO_BIN_EXE_atlas-conformance"))
        .arg("--json")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&answer.stdout);
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    let matrix: Value = serde_json::from_str(&text).unwrap();
    let providers = matrix["providers"].as_object().unwrap();
    assert!(
        providers.contains_key("mock") && providers.contains_key("runpod"),
        "{text}"
    );
    for (name, report) in providers {
        let count = |field: &str| report[field].as_u64().unwrap();
        assert!(count("passed") >= 15, "{name}: {report}");
        assert_eq!(
            report["skips"].as_array().unwrap().len() as u64,
            count("skipped"),
            "{name}: {report}"
        );
    }
    let failed = providers.values().any(|report| report["failed"] != 0);
    assert_eq!(answer.status.code(), Some(i32::from(failed)), "{text}");
}
