//! The demo's two helpers: the simulated clouds in this process, and an orchestrator's process,
//! which can be killed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use atlas::owner::{Answer, Call};
use atlas::{Atlas, ShutdownReport};
use atlas_sim::{Options, Sim};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::{PATIENCE, worker};
use crate::demo_cloud::DemoCloud;
use crate::failure::{Done, Failure};
use crate::keeper::Keeper;

/// The simulated clouds, and the directory in which the orchestrators keep what they know.
pub(super) struct Clouds {
    sim: Sim,
    dir: TempDir,
}

impl Clouds {
    /// Starts them so many times as fast as time, and writes the configuration that goes with each.
    pub(super) async fn start(speed: f64, places: &BTreeSet<DemoCloud>) -> Done<Self> {
        let mut options = Options::default();
        options.speed = speed;
        // So many times as fast, a hiccup of this machine's scheduler is longer than the seconds
        // that rate limits are about.
        options.rates = false;
        let sim = atlas_sim::serve(options).await?;
        let dir = tempfile::Builder::new().prefix("atlas-demo-").tempdir()?;
        let clouds = Self { sim, dir };
        let bounds = clouds.sim.ready().bounds;
        for place in places {
            // The lease shrinks with the cloud's bounds: all of them are waited for before a
            // machine is called gone.
            let text = format!(
                "[orchestrator]\nreap_interval = {}\nreap_grace = {}\npoll_interval = {}\n\
                 [policy]\nlease_ms = 2000\nlease_renew_ms = 500\nlease_margin_ms = 200\nflush_ms \
                     = 200\ntick_ms = 100\n\
                 [accounts.{}]\nvisibility_bound = {}\ncall_deadline = {}\ncall_interval = {}\n",
                bounds.reap_interval_ms,
                bounds.grace_ms,
                bounds.poll_interval_ms,
                place.name(),
                bounds.visibility_bound_ms,
                bounds.call_deadline_ms,
                bounds.call_interval_ms,
            );
            std::fs::create_dir(clouds.home(*place))?;
            std::fs::write(clouds.home(*place).join("atlas.toml"), text)?;
        }
        Ok(clouds)
    }

    pub(super) fn ledger_url(&self) -> String {
        format!("{}/ledger", self.sim.ready().admin)
    }

    pub(super) fn faults_url(&self) -> String {
        format!("{}/faults", self.sim.ready().admin)
    }

    /// Where the orchestrator of one cloud keeps its files.
    fn home(&self, place: DemoCloud) -> PathBuf {
        self.dir.path().join(place.name())
    }

    fn store(&self, place: DemoCloud) -> PathBuf {
        self.home(place).join("demo.redb")
    }

    /// The process that holds a cloud's store now.
    pub(super) fn keeper(&self, place: DemoCloud) -> Keeper {
        Keeper::Only(self.store(place))
    }

    /// The variables that lead to one of them.
    fn variables(&self, place: DemoCloud) -> Vec<(&'static str, &str)> {
        let mut variables = self.sim.ready().variables(place.0);
        variables.push((place.0.client.key, atlas_sim::KEY));
        variables
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
    pub(super) async fn start(clouds: &Clouds, place: DemoCloud) -> Done<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        // What the caller has set for the real clouds is not for these.
        let keys = atlas::built_in_clouds().iter();
        for name in keys.flat_map(|cloud| cloud.key_variables) {
            command.env_remove(name);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ATLAS_") {
                command.env_remove(name);
            }
        }
        command
            .args(["demo-worker", "--provider", place.name(), "--config"])
            .arg(clouds.home(place).join("atlas.toml"))
            .arg("--store")
            .arg(clouds.store(place))
            .envs(clouds.variables(place))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let no_pipe = || Failure::new("the orchestrator's process has no pipes");
        let told = child.stdin.take().ok_or_else(no_pipe)?;
        let lines = BufReader::new(child.stdout.take().ok_or_else(no_pipe)?).lines();
        let mut hand = Self {
            child,
            told,
            lines,
            keeper: clouds.keeper(place),
        };
        hand.line::<Value>().await?;
        Ok(hand)
    }

    /// Its process id.
    pub(super) fn process(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Asks it, as a command-line verb would, and waits for the answer.
    pub(super) async fn ask<C: Call>(&mut self, call: C) -> Done<C::Answer>
    where
        Atlas: Answer<C>,
    {
        let late = || Failure::new("the orchestrator does not answer");
        timeout(PATIENCE, self.keeper.ask(call, |_| Ok(())))
            .await
            .map_err(|_| late())?
    }

    /// SIGKILL, and waits until it is gone.
    pub(super) async fn kill(&mut self) -> Done {
        Ok(self.child.kill().await?)
    }

    /// Ends everything, and waits until the process ended by itself.
    pub(super) async fn terminate_all(mut self) -> Done<ShutdownReport> {
        self.told
            .write_all(format!("{}\n", worker::TERMINATE_ALL).as_bytes())
            .await?;
        self.told.flush().await?;
        let report = self.line().await?;
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .map_err(|_| Failure::new("the orchestrator does not end"))??;
        if status.success() {
            Ok(report)
        } else {
            Err(Failure::new(format!(
                "the orchestrator ended with {status}"
            )))
        }
    }

    async fn line<T: DeserializeOwned>(&mut self) -> Done<T> {
        let late = || Failure::new("the orchestrator does not answer");
        let line = timeout(PATIENCE + Duration::from_secs(5), self.lines.next_line())
            .await
            .map_err(|_| late())??;
        let line = line.ok_or_else(|| Failure::new("the orchestrator's process ended"))?;
        serde_json::from_str(&line).map_err(|error| Failure::new(format!("an odd answer: {error}")))
    }
}
