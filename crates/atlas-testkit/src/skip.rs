//! Tests that cannot run where they are, reported where a person sees it: libtest shows no output
//! of a test that passes.

use std::io::Write as _;

/// The environment variable with the path of a file to which a line is added for each skipped test.
/// `cargo xtask test` sets it, and prints the file at its end.
pub const SKIPPED_TESTS_ENV: &str = "ATLAS_SKIPPED_TESTS";

/// Reports that something is not tested here, and why.
///
/// # Panics
/// With `CI=true`, where nothing may be skipped, and when the report cannot be written.
pub fn skip(what: &str, why: &str) {
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{what} cannot be tested here, and CI may skip nothing: {why}"
    );
    eprintln!("SKIPPED: {what}: {why}");
    if let Some(path) = std::env::var_os(SKIPPED_TESTS_ENV) {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path);
        file.and_then(|mut file| file.write_all(format!("{what}: {why}\n").as_bytes()))
            .expect("the list of skipped tests can be written");
    }
}
