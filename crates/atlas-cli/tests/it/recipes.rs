//! The guides' recipes for the command line, each run as it is written, in a scratch home.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A recipe takes no longer than this.
const LONGEST: Duration = Duration::from_secs(180);

/// A fenced block of shell in a guide.
struct Recipe {
    place: String,
    script: String,
}

/// Every block that calls `atlas`, of every guide.
fn recipes() -> Vec<Recipe> {
    let guides = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides");
    let mut files: Vec<PathBuf> = fs::read_dir(guides)
        .expect("the guides are there")
        .map(|entry| entry.expect("a folder can be listed").path())
        .collect();
    files.sort();
    let mut recipes = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a guide is text");
        let mut lines = (1..).zip(text.lines());
        while let Some((line, text)) = lines.next() {
            if text != "```sh" {
                continue;
            }
            let block = lines.by_ref().map(|(_, text)| text);
            let script: Vec<&str> = block.take_while(|text| *text != "```").collect();
            let name = file
                .file_name()
                .expect("a file has a name")
                .to_string_lossy();
            recipes.push(Recipe {
                place: format!("{name}:{line}"),
                script: script.join("\n"),
            });
        }
    }
    recipes.retain(|recipe| {
        let calls_atlas = |line: &str| line.starts_with("atlas ") || line.contains("$(atlas ");
        recipe.script.lines().any(calls_atlas)
    });
    recipes
}

/// Runs a script, and ends it and whatever it started when it takes too long.
fn run(script: &str, home: &Path) -> Option<Output> {
    use std::os::unix::process::CommandExt as _;
    let (out, err) = (home.join("stdout"), home.join("stderr"));
    let mut child = Command::new("sh")
        .args(["-c", script])
        .current_dir(home)
        .env_clear()
        .env("HOME", home)
        .env(
            "PATH",
            format!("{}:/usr/bin:/bin", home.join("bin").display()),
        )
        .stdin(Stdio::null())
        .stdout(fs::File::create(&out).expect("a scratch file"))
        .stderr(fs::File::create(&err).expect("a scratch file"))
        .process_group(0)
        .spawn()
        .expect("a shell starts");
    let begun = tokio::time::Instant::now();
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break Some(status),
            None if begun.elapsed() > LONGEST => break None,
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    // A recipe may leave its simulator running.
    let group = format!("-{}", child.id());
    let _ = Command::new("kill")
        .args(["-KILL", "--", &group])
        .stderr(Stdio::null())
        .status();
    let _ = child.wait();
    Some(Output {
        status: status?,
        stdout: fs::read(out).expect("its output"),
        stderr: fs::read(err).expect("its errors"),
    })
}

#[test]
fn every_recipe_of_the_guides_succeeds_and_leaves_no_session() {
    let recipes = recipes();
    assert!(
        recipes.len() >= 4,
        "only {} recipes were found",
        recipes.len()
    );
    for Recipe { place, script } in recipes {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("bin")).unwrap();
        symlink(env!("CARGO_BIN_EXE_atlas"), home.path().join("bin/atlas")).unwrap();
        let Some(output) = run(&script, home.path()) else {
            panic!("{place} did not end");
        };
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success() && !err.lines().any(|line| line.starts_with("atlas: ")),
            "{place}: {}\n{out}\n{err}",
            output.status
        );
        let left = run("atlas ls --json", home.path()).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&left.stdout).trim(),
            "[]",
            "{place} left a session in the user's own store"
        );
    }
}
