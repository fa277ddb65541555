//! What docs/clouds says is proved, is: each test that it names exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The functions right below a line that makes them tests.
fn tests_of(text: &str) -> Vec<&str> {
    let (mut found, mut marked) = (Vec::new(), false);
    for line in text.lines().map(str::trim_start) {
        if let Some(rest) = line
            .strip_prefix("async ")
            .unwrap_or(line)
            .strip_prefix("fn ")
            .filter(|_| marked)
        {
            found.extend(rest.split('(').next());
        }
        marked = line.starts_with("#[") && (line.contains("test]") || line.contains("test("));
    }
    found
}

#[test]
fn every_rule_of_a_cloud_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    sources(&root.join("crates"), &mut files);
    let texts: Vec<String> = files
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let known: BTreeSet<&str> = texts.iter().flat_map(|text| tests_of(text)).collect();
    for (cloud, least) in [("fly", 60), ("lambda", 50), ("runpod", 45), ("vast", 55)] {
        let page = std::fs::read_to_string(root.join(format!("docs/clouds/{cloud}.md"))).unwrap();
        // A test's name is a sentence: three words at least.
        let named: Vec<&str> = page
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|word| {
                word.matches('_').count() >= 3
                    && word
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            })
            .collect();
        let missing: Vec<&&str> = named
            .iter()
            .filter(|name| !known.contains(**name))
            .collect();
        assert!(missing.is_empty(), "{cloud}: {missing:?}");
        assert!(named.len() >= least, "{cloud} names {} tests", named.len());
    }
}
