//! The clouds' official clients against the simulator, over real sockets.
//!
//! They are installed into a virtual environment under the target directory, once. Without Python
//! or a package index the tests are skipped and say so; with `CI=true` they fail instead.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A simulator that ends with the test.
struct Sim {
    child: Child,
    ready: Value,
}

impl Sim {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_atlas-sim"))
            .args(["--listen", "127.0.0.1:0", "--speed", "5"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the simulator starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("a ready line");
        Self {
            child,
            ready: serde_json::from_str(&line).expect("one line of JSON"),
        }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        // A test that failed half-way leaves no simulator behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Python that has this package; `None` after saying why there is none.
fn python_with(package: &str, version: &str) -> Option<PathBuf> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sdk-{package}-{version}"));
    let python = home.join("bin/python");
    let done = home.join("installed");
    let run = |program: &Path, args: &[&str]| {
        Command::new(program)
            .args(args)
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if !done.exists() {
        let path = home.to_string_lossy().into_owned();
        let installed = run(Path::new("python3"), &["-m", "venv", "--clear", &path])
            && run(
                &python,
                &[
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    &format!("{package}=={version}"),
                ],
            )
            && std::fs::write(&done, "").is_ok();
        if !installed {
            let why = format!(
                "{package} {version} cannot be installed here: no python3 with venv, or no package \
                    index"
            );
            atlas_testkit::skip(&format!("the client {package}"), &why);
            return None;
        }
    }
    Some(python)
}

#[test]
fn runpods_python_sdk_runs_jobs_and_orders_pods() {
    let Some(python) = python_with("runpod", "1.12.0") else {
        return;
    };
    let sim = Sim::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/use_runpod.py");
    let runtime = sim.ready["runpod"]["runtime"]
        .as_str()
        .expect("a runtime URL");
    let graphql = sim.ready["runpod"]["graphql"]
        .as_str()
        .expect("a GraphQL URL");
    let ran = Command::new(python)
        .args([script.as_os_str(), runtime.as_ref(), graphql.as_ref()])
        .output()
        .expect("python runs");
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[test]
fn vasts_command_line_searches_creates_shows_stops_starts_labels_and_destroys() {
    let Some(python) = python_with("vastai", "1.9.1") else {
        return;
    };
    let sim = Sim::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/use_vastai.py");
    let ran = Command::new(python)
        .arg(script)
        .arg(sim.ready["vast"].as_str().expect("a URL"))
        .output()
        .expect("python runs");
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}
