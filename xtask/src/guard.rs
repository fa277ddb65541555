//! Builds the guard as it goes into an image: static, stripped, and small.

use std::process::Command;

use serde_json::Value;

use crate::steps::{Cargo, Failed};

/// The maximum size of the binary.
const MOST_BYTES: u64 = 5_000_000;

/// Builds it for musl if that target is installed, otherwise with static glibc, and checks its
/// size.
pub(crate) fn check() -> Result<(), Failed> {
    let Some((architecture, host)) = host() else {
        println!("guard: SKIPPED, static binaries are built on Linux only");
        return Ok(());
    };
    let musl = format!("{architecture}-unknown-linux-musl");
    let target = if has(&musl) { &musl } else { &host };
    let built = Cargo::new("build")
        .args([
            "--quiet",
            "--release",
            "--package",
            "atlas-guard",
            "--message-format",
            "json",
            "--target",
            target,
        ])
        .env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C strip=symbols",
        )
        .stdout()?;
    let Some(size) = executable(&built).and_then(|path| std::fs::metadata(path).ok()) else {
        eprintln!("guard: cargo does not say what it built");
        return Err(Failed(1));
    };
    println!("guard: {} bytes for {target}", size.len());
    if size.len() > MOST_BYTES {
        eprintln!("guard: more than {MOST_BYTES} bytes");
        return Err(Failed(1));
    }
    Ok(())
}

/// This machine's architecture and target, on Linux.
fn host() -> Option<(String, String)> {
    let said = printed(&["-vV"])?;
    let host = said
        .lines()
        .find_map(|line| line.strip_prefix("host: "))?
        .trim();
    host.contains("-linux-").then(|| {
        (
            host.split('-').next().unwrap_or(host).to_owned(),
            host.to_owned(),
        )
    })
}

/// Whether a target's standard library is installed.
fn has(target: &str) -> bool {
    let folder = printed(&["--print", "target-libdir", "--target", target]);
    folder.is_some_and(|folder| std::path::Path::new(folder.trim()).is_dir())
}

fn printed(args: &[&str]) -> Option<String> {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(args)
        .output()
        .ok()?;
    output
        .status
        .success()
        .then_some(output.stdout)
        .and_then(|out| String::from_utf8(out).ok())
}

/// The executable among cargo's messages, one JSON document a line.
fn executable(messages: &[u8]) -> Option<String> {
    let lines = messages.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            serde_json::from_slice::<Value>(line).ok()?["executable"]
                .as_str()
                .map(str::to_owned)
        })
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_what_cargo_says() {
        let said = b"{\"reason\":\"compiler-artifact\",\"executable\":null}\nnoise\n{\"executable\":\"/t/atlas-guard\"}\n{\"reason\":\"x\"}\n";
        assert_eq!(executable(said).as_deref(), Some("/t/atlas-guard"));
        assert_eq!(executable(b""), None);
    }
}
