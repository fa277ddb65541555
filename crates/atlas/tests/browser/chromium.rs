//! Runs the installed Chromium in headless mode.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

/// Finds the browser on `PATH`. If there is none, the test says so and ends; in CI (`CI=true`) that
/// is a failure.
pub(crate) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let mut programs =
        std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name)));
    let found = programs.find(|program| program.is_file());
    if found.is_none() {
        atlas_testkit::skip(
            "pages in a browser",
            "there is no chromium on PATH: install the package chromium",
        );
    }
    found
}

/// A browser that shows one page. Its profile is deleted with it.
pub(crate) struct Chromium {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Chromium {
    pub(crate) fn start(program: &Path, url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let child = Command::new(program)
            // The sandbox needs privileges that containers lack. The browser loads only our own
            // pages.
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--mute-audio",
            ])
            .args([
                "--no-first-run",
                "--no-proxy-server",
                "--autoplay-policy=no-user-gesture-required",
            ])
            .args([
                "--disable-background-networking",
                "--disable-extensions",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            child,
            _profile: profile,
        }
    }

    pub(crate) async fn end(mut self) {
        self.child.kill().await.unwrap();
    }
}
