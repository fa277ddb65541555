//! Checks that a crate imports only from layers below it. Reads `cargo metadata`; the layers are
//! defined here.

use std::io;
use std::path::Path;

use serde_json::Value;

use crate::steps::{Cargo, Failed};

/// The layer of each crate, in tenths: siblings share one, and must not import each other. Core is
/// below its neighbours.
const FLOORS: &[(&str, u32)] = &[
    ("atlas-core", 0),
    ("atlas-http", 5),
    ("atlas-auth", 5),
    ("atlas-testkit", 10),
    ("atlas-guard", 10),
    ("atlas-kernel", 10),
    ("atlas-orchestrator", 20),
    ("atlas-fly-ops", 20),
    ("atlas-sim", 20),
    ("atlas-store-redb", 25),
    ("atlas-owner", 25),
    ("atlas-web", 30),
    ("atlas", 40),
    ("atlas-cli", 50),
    ("atlas-histories", 50),
    ("atlas-bench", 55),
    ("atlas-contract", 50),
    ("atlas-fuzz", 50),
    ("xtask", 50),
];

/// The layer of every crate whose name begins like this, one for each built-in cloud.
const PROVIDERS: (&str, u32) = ("atlas-provider-", 10);

/// Edges that the layers would allow and the design forbids: `(from, to, why)`.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    (
        "atlas-orchestrator",
        "atlas-provider-",
        "the orchestrator is handed provider handles",
    ),
    (
        "atlas-orchestrator",
        "atlas-http",
        "the orchestrator makes no request of its own",
    ),
    (
        "atlas-orchestrator",
        "atlas-testkit",
        "the orchestrator does not know that a cloud is simulated",
    ),
    (
        "atlas-web",
        "atlas-fly-ops",
        "the web face is handed trait objects",
    ),
    (
        "atlas-fly-ops",
        "atlas-provider-",
        "fly-ops stands apart from the compute path",
    ),
    (
        "atlas-sim",
        "atlas-provider-",
        "a simulated cloud shares nothing with the provider it tests",
    ),
];

/// Third-party crates that must not be in the dependency tree.
const BANNED: &[&str] = &[
    "openssl-sys",
    "native-tls",
    "aws-lc-sys",
    "reqwest",
    "chrono",
    "serde_yml",
    "ctor",
];

/// All that the kernel may depend on: none of these has a clock, I/O, async or randomness.
const KERNEL_MAY_USE: &[&str] = &["atlas-core", "data-encoding", "serde", "serde_json"];

/// What the kernel's code must not name, each with the reason.
const KERNEL_MUST_NOT_NAME: &[(&str, &str)] = &[
    ("std::env", "it reads no environment"),
    ("std::fs", "it opens no file"),
    ("std::io", "it does no I/O"),
    ("std::net", "it makes no connection"),
    ("std::process", "it starts no process"),
    ("std::thread", "it starts no thread"),
    ("std::sync::Mutex", "it shares no state"),
    ("SystemTime", "it is handed the time"),
    ("Instant", "it is handed the time"),
    ("SystemClock", "it is handed the time"),
    ("SystemEntropy", "it is handed every random byte"),
    ("async fn", "it waits for nothing"),
    (".await", "it waits for nothing"),
];

pub(crate) fn check() -> Result<(), Failed> {
    let metadata = Cargo::new("metadata")
        .args(["--format-version", "1", "--all-features", "--locked"])
        .stdout()?;
    let metadata: Value = serde_json::from_slice(&metadata).map_err(|error| {
        eprintln!("layers: cargo metadata is not JSON: {error}");
        Failed(1)
    })?;
    let mut complaints = complaints(&metadata);
    let kernel = sources(Path::new("crates/atlas-kernel/src")).map_err(|error| {
        eprintln!("layers: the kernel's code could not be read: {error}");
        Failed(1)
    })?;
    if kernel.is_empty() {
        complaints.push("the kernel has no code where it was looked for".to_owned());
    }
    for (file, text) in &kernel {
        complaints.extend(impurities(file, text));
    }
    for complaint in &complaints {
        eprintln!("layers: {complaint}");
    }
    if complaints.is_empty() {
        println!("layers: every edge points down, and the kernel is pure");
        Ok(())
    } else {
        Err(Failed(1))
    }
}

fn floor_of(name: &str) -> Option<u32> {
    let listed = FLOORS.iter().find(|(own, _)| *own == name);
    let provider = name.starts_with(PROVIDERS.0).then_some(PROVIDERS.1);
    listed.map(|(_, floor)| *floor).or(provider)
}

fn complaints(metadata: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let packages = metadata["packages"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        if BANNED.contains(&name) {
            found.push(format!("{name} is in the tree, and banned"));
        }
        if !package["source"].is_null() {
            continue;
        }
        let Some(from) = floor_of(name) else {
            found.push(format!(
                "{name} stands on no floor: name one in xtask/src/layers.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
        {
            let to_name = dependency["name"].as_str().unwrap_or_default();
            let dev = dependency["kind"] == "dev";
            if name == "atlas-kernel" && !dev && !KERNEL_MAY_USE.contains(&to_name) {
                found.push(format!("atlas-kernel imports {to_name}: it must stay pure"));
            }
            let Some(to) = floor_of(to_name) else {
                continue;
            };
            if dev {
                if name == "atlas-core"
                    || (to >= from && ![name, "atlas-testkit", "atlas-sim"].contains(&to_name))
                {
                    found.push(format!("{name} has a dev edge up to {to_name}"));
                }
                continue;
            }
            if to >= from {
                found.push(format!(
                    "{name} (floor {from}) imports {to_name} (floor {to}): floors are in tenths, \
                        edges point down"
                ));
            }
            for (source, target, why) in FORBIDDEN {
                if name == *source
                    && (to_name == *target
                        || (target.ends_with('-') && to_name.starts_with(target)))
                {
                    found.push(format!("{name} imports {to_name}: {why}"));
                }
            }
        }
    }
    found
}

/// Every source file below a folder that is not a test, with its text.
fn sources(folder: &Path) -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("tests") {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("tests.rs") {
            found.push((path.display().to_string(), std::fs::read_to_string(&path)?));
        }
    }
    Ok(found)
}

/// The lines of a kernel file, outside comments, that name what the kernel must not use.
fn impurities(file: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        for (name, why) in KERNEL_MUST_NOT_NAME {
            if line.contains(name) {
                found.push(format!(
                    "{file}:{}: the kernel names {name}: {why}",
                    number + 1
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, edges: &[(&str, Option<&str>)]) -> Value {
        let edges: Vec<_> = edges
            .iter()
            .map(|(name, kind)| json!({ "name": name, "kind": kind }))
            .collect();
        json!({ "name": name, "source": null, "dependencies": edges })
    }

    fn complaints_of(packages: &[Value]) -> Vec<String> {
        complaints(&json!({ "packages": packages }))
    }

    #[test]
    fn an_edge_that_climbs_or_joins_siblings_is_named() {
        assert!(complaints_of(&[package("atlas-http", &[("atlas-core", None)])]).is_empty());
        assert_eq!(
            complaints_of(&[package("atlas-core", &[("atlas-http", None)])]).len(),
            1
        );
        assert_eq!(
            complaints_of(&[package(
                "atlas-provider-fly",
                &[("atlas-provider-runpod", None)]
            )])
            .len(),
            1
        );
        assert_eq!(
            complaints_of(&[package(
                "atlas-orchestrator",
                &[("atlas-provider-runpod", None)]
            )])
            .len(),
            1
        );
        assert_eq!(
            complaints_of(&[package("atlas-core", &[("atlas-testkit", Some("dev"))])]).len(),
            1
        );
        assert!(
            complaints_of(&[package(
                "atlas-provider-runpod",
                &[("atlas-testkit", Some("dev"))]
            )])
            .is_empty()
        );
    }

    #[test]
    fn a_crate_without_a_floor_and_a_banned_one_are_named() {
        assert_eq!(complaints_of(&[package("atlas-attic", &[])]).len(), 1);
        assert_eq!(
            complaints_of(&[
                json!({ "name": "reqwest", "source": "registry", "dependencies": [] })
            ])
            .len(),
            1
        );
    }

    #[test]
    fn a_kernel_that_imports_a_runtime_or_reads_a_clock_is_named() {
        assert!(complaints_of(&[package("atlas-kernel", &[("atlas-core", None)])]).is_empty());
        for runtime in ["tokio", "redb", "rand"] {
            let planted = package("atlas-kernel", &[(runtime, None)]);
            assert_eq!(complaints_of(&[planted]).len(), 1, "{runtime}");
        }
        assert!(complaints_of(&[package("atlas-kernel", &[("proptest", Some("dev"))])]).is_empty());
        assert!(impurities("a.rs", "/// Not an `Instant`.\nlet at = cx.now;").is_empty());
        for planted in ["let now = SystemTime::now();", "    async fn step() {}"] {
            assert_eq!(impurities("a.rs", planted).len(), 1, "{planted}");
        }
    }
}
