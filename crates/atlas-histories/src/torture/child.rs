//! One worker process: started with its orders, heard on its stdout, killed without a word.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use atlas_sim::Ready;
use atlas_testkit::dialect::runpod::CLOUD;
use rustix::process::{Pid, Signal, kill_process};

use crate::faked::FakedClock;
use crate::orders::{Orders, WORKER};

/// A running worker. It ends when its stdin does, so none outlives this process.
pub(crate) struct Hand {
    child: Child,
    _stdin: ChildStdin,
    said: Receiver<String>,
}

impl Hand {
    /// Starts a worker.
    pub(crate) fn start(
        orders: &Orders,
        ready: &Ready,
        clock: Option<&FakedClock>,
    ) -> Result<Self, String> {
        let own = std::env::current_exe()
            .map_err(|error| format!("this program cannot be found: {error}"))?;
        let mut command = Command::new(own);
        if let Some(clock) = clock {
            clock.set_on(&mut command);
        }
        let mut child = command
            .arg(WORKER)
            .env(CLOUD.client.key, atlas_sim::KEY)
            .envs(ready.variables(&CLOUD))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("a worker could not be started: {error}"))?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a worker has no pipes".to_owned());
        };
        let text = serde_json::to_string(orders).map_err(|error| error.to_string())?;
        writeln!(stdin, "{text}").map_err(|error| format!("a worker takes no orders: {error}"))?;
        let (say, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if say.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            _stdin: stdin,
            said,
        })
    }

    /// The next line it says, `None` when there is none within this time.
    ///
    /// # Errors
    /// When it ended.
    pub(crate) fn hear(&mut self, wait: Duration) -> Result<Option<String>, String> {
        match self.said.recv_timeout(wait) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self
                    .child
                    .wait()
                    .map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(format!("a worker ended by itself: {status}"))
            }
        }
    }

    /// SIGKILL: not one more instruction of it runs.
    pub(crate) fn kill(mut self) -> Result<(), String> {
        self.child
            .kill()
            .map_err(|error| format!("a worker could not be killed: {error}"))?;
        self.child
            .wait()
            .map(drop)
            .map_err(|error| format!("a killed worker is still there: {error}"))
    }

    /// Stands still, or goes on.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or("a worker has no process id")?;
        kill_process(pid, signal)
            .map_err(|error| format!("a worker could not be signalled: {error}"))
    }

    /// Waits for its own end.
    pub(crate) fn wait(mut self, most: Duration) -> Result<ExitStatus, String> {
        loop {
            match self.said.recv_timeout(most) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return self
                        .child
                        .wait()
                        .map_err(|error| format!("a worker cannot be waited for: {error}"));
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.kill()?;
                    return Err(format!("a worker did not end within {most:?}"));
                }
            }
        }
    }
}
