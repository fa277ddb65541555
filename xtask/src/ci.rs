//! The gate: runs each step, prints its time, and stops at the first that fails.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::guard;
use crate::layers;
use crate::prose;
use crate::rooms;
use crate::steps::{Cargo, Failed};

/// Where the clouds' own API documents lie beside a checkout.
const SPECS: &str = "../shared/specs";

type Step = (&'static str, fn() -> Result<(), Failed>);

const STEPS: &[Step] = &[
    ("fmt", || Cargo::new("fmt").args(["--all", "--check"]).run()),
    ("layers", layers::check),
    ("rooms", rooms::check),
    ("prose", prose::check),
    ("clippy, all features", || {
        clippy(&["--all-features", "--all-targets"])
    }),
    ("clippy, default features", || clippy(&["--all-targets"])),
    ("clippy, no features", || clippy(&["--no-default-features"])),
    ("single features", single_features),
    ("test", test),
    ("doc", doc),
    ("deny", deny),
    ("guard", guard::check),
    ("demo", || Cargo::release("atlas").args(["demo"]).run()),
    ("conformance", || Cargo::release("atlas-conformance").run()),
    ("contract", contract),
    ("sim", || {
        Cargo::release("atlas-histories")
            .args(["--seeds", "300"])
            .run()
    }),
    ("sabotage", || {
        Cargo::release("atlas-histories")
            .args(["--sabotage", "all"])
            .run()
    }),
    ("torture", || {
        Cargo::release("atlas-torture")
            .args(["--store", "redb"])
            .run()
    }),
];

pub(crate) fn run() -> Result<(), Failed> {
    let mut times = Vec::new();
    for (name, step) in STEPS {
        println!("── {name}");
        let started = now();
        let outcome = step();
        let took = now().saturating_sub(started).as_secs();
        println!(
            "── {name}: {} in {took} s",
            if outcome.is_ok() { "passed" } else { "FAILED" }
        );
        outcome?;
        times.push((name, took));
    }
    println!(
        "── all steps passed in {} s",
        times.iter().map(|(_, took)| took).sum::<u64>()
    );
    Ok(())
}

/// Every test and doctest of the workspace, and a list of what could not be tested here.
pub(crate) fn test() -> Result<(), Failed> {
    let unlisted = |error: std::io::Error| {
        eprintln!("test: the list of skipped tests cannot be written: {error}");
        Failed(1)
    };
    let folder = std::env::current_dir().map_err(unlisted)?.join("target");
    std::fs::create_dir_all(&folder).map_err(unlisted)?;
    let list = folder.join("skipped-tests.txt");
    std::fs::write(&list, "").map_err(unlisted)?;
    let outcome = Cargo::new("test")
        .args(["--workspace", "--all-features", "--no-fail-fast"])
        .env("ATLAS_SKIPPED_TESTS", &list.to_string_lossy())
        .run();
    print!(
        "{}",
        skipped(&std::fs::read_to_string(&list).map_err(unlisted)?)
    );
    outcome
}

/// What is printed of the tests that were skipped: each once, with the reason.
fn skipped(list: &str) -> String {
    let lines: BTreeSet<&str> = list.lines().collect();
    if lines.is_empty() {
        return "skipped tests: none\n".to_owned();
    }
    let rows = lines.iter().map(|line| format!("  {line}\n"));
    format!("skipped tests:\n{}", rows.collect::<String>())
}

pub(crate) fn doc() -> Result<(), Failed> {
    Cargo::new("doc")
        .args(["--workspace", "--all-features", "--no-deps"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}

fn clippy(args: &[&str]) -> Result<(), Failed> {
    Cargo::new("clippy")
        .args(["--workspace"])
        .args(args)
        .args(["--", "-D", "warnings"])
        .run()
}

/// Builds the umbrella crate with each of its features alone.
fn single_features() -> Result<(), Failed> {
    let metadata = Cargo::new("metadata")
        .args(["--format-version", "1", "--no-deps", "--locked"])
        .stdout()?;
    let features = features_of("atlas", &metadata);
    if features.is_empty() {
        eprintln!("single features: cargo metadata names no feature of atlas");
        return Err(Failed(1));
    }
    features.iter().try_for_each(|feature| {
        Cargo::new("check")
            .args([
                "--package",
                "atlas",
                "--no-default-features",
                "--features",
                feature,
            ])
            .run()
    })
}

/// The features of a package, by what `cargo metadata` prints, without those that only combine
/// others.
fn features_of(package: &str, metadata: &[u8]) -> Vec<String> {
    let metadata: Value = serde_json::from_slice(metadata).unwrap_or_default();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let features = packages
        .filter(|own| own["name"] == package)
        .filter_map(|own| own["features"].as_object())
        .flat_map(|features| features.keys());
    features
        .filter(|name| !["all-clouds", "default", "full"].contains(&name.as_str()))
        .cloned()
        .collect()
}

fn deny() -> Result<(), Failed> {
    let present = Command::new("cargo-deny")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    if !present {
        println!("cargo-deny is not installed here: licences, bans and sources were not checked");
        return Ok(());
    }
    Cargo::new("deny")
        .args(["--offline", "check", "bans", "licenses", "sources"])
        .run()
}

fn contract() -> Result<(), Failed> {
    if !Path::new(SPECS).is_dir() {
        if std::env::var_os("CI").is_some() {
            eprintln!(
                "contract: the clouds' API documents are not at {SPECS}, and CI may skip nothing"
            );
            return Err(Failed(1));
        }
        println!("contract: SKIPPED, the clouds' API documents are not at {SPECS}");
        return Ok(());
    }
    Cargo::release("atlas-contract")
        .args(["--specs", SPECS])
        .run()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a step's seconds are measured, not simulated"
)]
fn now() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_of_the_umbrella_is_found_in_the_metadata() {
        let metadata = br#"{"packages":[{"name":"atlas-core","features":{"x":[]}},
            {"name":"atlas","features":{"default":[],"full":["a"],"a":[],"b":["dep:c"]}}]}"#;
        assert_eq!(features_of("atlas", metadata), ["a", "b"]);
        assert!(features_of("atlas", b"").is_empty());
    }

    #[test]
    fn skipped_tests_are_listed_once_each_with_the_reason() {
        assert_eq!(skipped(""), "skipped tests: none\n");
        assert_eq!(
            skipped("b: no b\na: no a\nb: no b\n"),
            "skipped tests:\n  a: no a\n  b: no b\n"
        );
    }
}
