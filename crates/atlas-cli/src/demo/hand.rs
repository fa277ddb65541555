//! The demo's two helpers: the simulated cloud in this process, and the orchestrator's process, which can be killed.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use atlas::owner::Request;
use atlas_sim::{Options, Sim};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::{PATIENCE, worker};
use crate::failure::{Done, Failure};
use crate::keeper::Keeper;

/// The simulated cloud, and the directory in which the orchestrator keeps what it knows.
pub(super) struct Cloud {
    sim: Sim,
    dir: TempDir,
}

impl Cloud {
    /// Starts it so many times as fast as time, and writes the configuration that goes with it.
    pub(super) async fn start(speed: f64) -> Done<Self> {
        let mut options = Options::default();
        options.speed = speed;
        let sim = atlas_sim::serve(options).await?;
        let dir = tempfile::Builder::new().prefix("atlas-demo-").tempdir()?;
        let bounds = sim.ready().bounds;
        // The lease shrinks with the cloud's bounds: all of them are waited for before a machine is called gone.
        let text = format!(
            "[orchestrator]\nreap_interval = {}\nreap_grace = {}\npoll_interval = {}\n\
             [policy]\nlease_ms = 2000\nlease_renew_ms = 500\nlease_margin_ms = 200\nflush_ms = 200\ntick_ms = 100\n\
             [accounts.runpod]\nvisibility_bound = {}\ncall_deadline = {}\ncall_interval = {}\n",
            bounds.reap_interval_ms,
            bounds.grace_ms,
            bounds.poll_interval_ms,
            bounds.visibility_bound_ms,
            bounds.call_deadline_ms,
            bounds.call_interval_ms,
        );
        std::fs::write(dir.path().join("atlas.toml"), text)?;
        Ok(Self { sim, dir })
    }

    pub(super) fn ledger_url(&self) -> String {
        format!("{}/ledger", self.sim.ready().admin)
    }

    pub(super) fn faults_url(&self) -> String {
        format!("{}/faults", self.sim.ready().admin)
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("demo.redb")
    }

    /// Whoever holds the store now.
    pub(super) fn keeper(&self) -> Keeper {
        Keeper::Only(self.store())
    }
}

/// The orchestrator's process.
pub(super) struct Hand {
    child: Child,
    told: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    keeper: Keeper,
}

impl Hand {
    /// Starts it, and waits until it is ready.
    pub(super) async fn start(cloud: &Cloud) -> Done<Self> {
        let urls = &cloud.sim.ready().runpod;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["demo-worker", "--provider", "runpod", "--config"])
            .arg(cloud.dir.path().join("atlas.toml"))
            .arg("--store")
            .arg(cloud.store())
            .env("RUNPOD_API_KEY", atlas_sim::KEY)
            .env("ATLAS_RUNPOD_URL", &urls.control)
            .env("ATLAS_RUNPOD_PROXY_URL", &urls.proxy)
            .env_remove("ATLAS_REALM_SECRET")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let no_pipe = || Failure::new("the orchestrator's process has no pipes");
        let told = child.stdin.take().ok_or_else(no_pipe)?;
        let lines = BufReader::new(child.stdout.take().ok_or_else(no_pipe)?).lines();
        let mut hand = Self { child, told, lines, keeper: cloud.keeper() };
        hand.line().await?;
        Ok(hand)
    }

    /// Its process id.
    pub(super) fn process(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Asks it, as a command-line verb would, and waits for the answer.
    pub(super) async fn ask(&mut self, request: Request) -> Done<Value> {
        let late = || Failure::new("the orchestrator does not answer");
        timeout(PATIENCE, self.keeper.ask(request, |_| Ok(()))).await.map_err(|_| late())?
    }

    /// SIGKILL, and waits until it is gone.
    pub(super) async fn kill(&mut self) -> Done {
        Ok(self.child.kill().await?)
    }

    /// Ends everything, and waits until the process ended by itself.
    pub(super) async fn terminate_all(mut self) -> Done<Value> {
        self.told.write_all(format!("{}\n", worker::TERMINATE_ALL).as_bytes()).await?;
        self.told.flush().await?;
        let report = self.line().await?;
        let status = timeout(PATIENCE, self.child.wait()).await.map_err(|_| Failure::new("the orchestrator does not end"))??;
        if status.success() { Ok(report) } else { Err(Failure::new(format!("the orchestrator ended with {status}"))) }
    }

    async fn line(&mut self) -> Done<Value> {
        let late = || Failure::new("the orchestrator does not answer");
        let line = timeout(PATIENCE + Duration::from_secs(5), self.lines.next_line()).await.map_err(|_| late())??;
        let line = line.ok_or_else(|| Failure::new("the orchestrator's process ended"))?;
        serde_json::from_str(&line).map_err(|error| Failure::new(format!("an odd answer: {error}")))
    }
}
