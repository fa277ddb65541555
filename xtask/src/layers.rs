//! Checks that a crate imports only from layers below it. Reads `cargo metadata`; the layers are
//! defined here.

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
    ("atlas-orchestrator", 20),
    ("atlas-fly-ops", 20),
    ("atlas-sim", 20),
    ("atlas-web", 30),
    ("atlas-store-postgres", 30),
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

pub(crate) fn check() -> Result<(), Failed> {
    let metadata = Cargo::new("metadata")
        .args(["--format-version", "1", "--all-features", "--locked"])
        .stdout()?;
    let metadata: Value = serde_json::from_slice(&metadata).map_err(|error| {
        eprintln!("layers: cargo metadata is not JSON: {error}");
        Failed(1)
    })?;
    let complaints = complaints(&metadata);
    for complaint in &complaints {
        eprintln!("layers: {complaint}");
    }
    if complaints.is_empty() {
        println!("layers: every edge points down");
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
            let Some(to) = floor_of(to_name) else {
                continue;
            };
            if dependency["kind"] == "dev" {
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
}
