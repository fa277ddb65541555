//! Checks that every provider crate has the same rooms, and that a built-in cloud is named only in
//! the few files that CONTRIBUTING.md lists, so that another one is added in few places.

use std::path::Path;
use std::process::Command;

use crate::steps::Failed;

/// The files that every provider crate has. It may have more.
const ROOMS: &[&str] = &[
    "README.md",
    "src/candidates.rs",
    "src/check.rs",
    "src/client.rs",
    "src/config.rs",
    "src/error.rs",
    "src/lib.rs",
    "src/support.rs",
    "src/translate.rs",
    "src/wire.rs",
];
/// The modules that the rooms that only calculate must not use: they talk to the cloud.
const IMPURE: &[&str] = &["client", "config"];
/// The rooms that only calculate.
const PURE: &[&str] = &[
    "src/candidates.rs",
    "src/check.rs",
    "src/translate.rs",
    "src/wire.rs",
];

/// The source files that may name a built-in cloud, outside its own crate and dialect. `*` stands
/// for its name. Documents (README.md and docs/) come on top.
const NAMED_IN: &[&str] = &[
    "Cargo.toml",
    "crates/atlas/Cargo.toml",
    "crates/atlas/src/clouds.rs",
    "crates/atlas-contract/src/cloud/*.rs",
    "crates/atlas-contract/src/cloud/mod.rs",
    "crates/atlas-testkit/src/dialect/mod.rs",
    // The released clients that are driven, with the names of their packages.
    "xtask/src/clients.rs",
];

pub(crate) fn check() -> Result<(), Failed> {
    let files = tracked()?;
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    let mut complaints = Vec::new();
    let clouds = clouds(&files);
    if clouds.is_empty() {
        complaints.push("git lists no provider crate, so nothing was checked".to_owned());
    }
    for cloud in &clouds {
        complaints.extend(missing(cloud, &files));
        for room in PURE {
            let path = format!("crates/atlas-provider-{cloud}/{room}");
            complaints.extend(impure(&path, &read(&path)));
        }
        for file in &files {
            if may_name(cloud, file) || !is_source(file) {
                continue;
            }
            if let Some(line) = names(&cloud.to_lowercase(), &read(file)) {
                complaints.push(format!(
                    "{file}:{line} names the cloud {cloud}; take it from a list of the clouds \
                     (CONTRIBUTING.md, \"A built-in cloud\")"
                ));
            }
        }
    }
    for complaint in &complaints {
        eprintln!("rooms: {complaint}");
    }
    if complaints.is_empty() {
        println!(
            "rooms: {} provider crates have the same rooms",
            clouds.len()
        );
        Ok(())
    } else {
        Err(Failed(1))
    }
}

/// The tracked files, and those that are new and not ignored.
fn tracked() -> Result<Vec<String>, Failed> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .map_err(|error| {
            eprintln!("rooms: git did not list the files: {error}");
            Failed(1)
        })?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    Ok(text.lines().map(str::to_owned).collect())
}

/// The built-in clouds, by the names of their provider crates.
fn clouds(files: &[String]) -> Vec<String> {
    let crates = files.iter().filter_map(|file| {
        let rest = file.strip_prefix("crates/atlas-provider-")?;
        Some(rest.strip_suffix("/Cargo.toml")?.to_owned())
    });
    crates.filter(|name| !name.contains('/')).collect()
}

fn missing(cloud: &str, files: &[String]) -> Vec<String> {
    let absent = |room: &&&str| {
        let path = format!("crates/atlas-provider-{cloud}/{room}");
        !files.contains(&path)
    };
    ROOMS
        .iter()
        .filter(absent)
        .map(|room| format!("atlas-provider-{cloud} has no {room}"))
        .collect()
}

/// The modules that a file that only calculates uses and must not.
fn impure(path: &str, text: &str) -> Vec<String> {
    let code: String = without_tests(text).split_whitespace().collect();
    let uses = |module: &str| {
        code.contains(&format!("crate::{module}::"))
            || code.split("crate::{").skip(1).any(|list| {
                let list = list.split_once("};").map_or(list, |(list, _)| list);
                list.split(',')
                    .any(|name| name == module || name.starts_with(&format!("{module}::")))
            })
    };
    IMPURE
        .iter()
        .filter(|module| uses(module))
        .map(|module| format!("{path} must not use {module}: it only calculates"))
        .collect()
}

fn is_source(file: &str) -> bool {
    let of_tests = file.contains("/tests/") || file.ends_with("/tests.rs");
    (file.ends_with(".rs") || file.ends_with("Cargo.toml")) && !of_tests
}

/// Whether a file is the cloud's own, or one of those that list clouds.
fn may_name(cloud: &str, file: &str) -> bool {
    // RunPod and Fly have more than machines: the deprecated API, jobs and platform operations have
    // crates and verbs of their own, and documents use them as examples.
    if ["runpod", "fly"].contains(&cloud) {
        return true;
    }
    file.starts_with(&format!("crates/atlas-provider-{cloud}/"))
        || file.starts_with(&format!("crates/atlas-testkit/src/dialect/{cloud}"))
        || NAMED_IN
            .iter()
            .any(|listed| listed.replace('*', cloud) == file)
        || file == file!()
}

/// The line that names the cloud, as a word or a part of an identifier, outside tests.
fn names(cloud: &str, text: &str) -> Option<usize> {
    let is_letter = |c: Option<char>| c.is_some_and(char::is_alphabetic);
    let mut lines = without_tests(text).lines();
    lines
        .position(|line| {
            let lower = line.to_lowercase();
            lower.match_indices(cloud).any(|(at, _)| {
                !is_letter(lower[..at].chars().next_back())
                    && !is_letter(lower[at + cloud.len()..].chars().next())
            })
        })
        .map(|index| index + 1)
}

fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests")
        .and_then(|at| text.get(..at))
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_crate_without_a_room_is_named() {
        let complete = |cloud: &str| {
            let rooms = ROOMS.iter();
            rooms
                .map(|room| format!("crates/atlas-provider-{cloud}/{room}"))
                .collect::<Vec<_>>()
        };
        let files = complete("acme");
        assert!(missing("acme", &files).is_empty());
        assert_eq!(missing("acme", &files[1..]).len(), 1);
    }

    #[test]
    fn a_calculation_that_uses_the_client_is_named_and_its_tests_may() {
        assert_eq!(impure("x.rs", "use crate::client::Cloud;\n").len(), 1);
        assert_eq!(
            impure("x.rs", "use crate::{\n    client, wire,\n};\n").len(),
            1
        );
        assert!(impure("x.rs", "use crate::client_wire::A;\n").is_empty());
        let tested = "fn f() {}\n#[cfg(test)]\nmod tests { use crate::client::Cloud; }\n";
        assert!(impure("x.rs", tested).is_empty());
    }

    #[test]
    fn a_cloud_is_named_only_where_it_is_listed() {
        assert_eq!(
            names("acme", "a\nuse atlas_provider_acme::Acme;\n"),
            Some(2)
        );
        assert_eq!(names("acme", "acmes are fine, pacme too\n"), None);
        assert!(may_name("acme", "crates/atlas-contract/src/cloud/acme.rs"));
        assert!(may_name(
            "acme",
            "crates/atlas-testkit/src/dialect/acme/mod.rs"
        ));
        assert!(!may_name("acme", "crates/atlas-cli/src/args.rs"));
    }

    #[test]
    fn clouds_are_found_by_their_crates() {
        let files = [
            "crates/atlas-provider-acme/Cargo.toml",
            "crates/atlas-core/Cargo.toml",
        ];
        assert_eq!(clouds(&files.map(str::to_owned)), ["acme"]);
    }
}
