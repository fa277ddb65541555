//! The server process when the guard is a container's entry point: the guard starts it, stops it,
//! and ends together with it.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use atlas_core::{CONTROL_KEY_ENV, PRESHARED_KEY_ENV, SIGNING_SECRET_ENV};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::config::NEXT_SIGNING_SECRET_ENV;

/// How long the server may take to end by itself. With the time given to open requests before, this
/// is less than the ten seconds that container runtimes allow.
const GRACE: Duration = Duration::from_secs(4);

/// Variables for the guard only. A server that shows its environment, in a debug page or a crash
/// report, must not reveal the credentials.
const SECRETS: [&str; 4] = [
    PRESHARED_KEY_ENV,
    SIGNING_SECRET_ENV,
    NEXT_SIGNING_SECRET_ENV,
    CONTROL_KEY_ENV,
];

/// A running server.
#[derive(Debug)]
pub struct Server(Option<Child>);

impl Server {
    /// Starts `command`; if there is none, nothing is started and [`Server::ended`] never
    /// completes. The server does not inherit the guard's secrets.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &[OsString]) -> io::Result<Self> {
        let Some((program, arguments)) = command.split_first() else {
            return Ok(Self(None));
        };
        let mut command = Command::new(program);
        for secret in SECRETS {
            command.env_remove(secret);
        }
        command
            .args(arguments)
            .kill_on_drop(true)
            .spawn()
            .map(Some)
            .map(Self)
    }

    /// Waits for its end and returns its exit code, in a shell's convention. Cancel safe.
    pub async fn ended(&mut self) -> u8 {
        match &mut self.0 {
            Some(child) => child.wait().await.map_or(1, code),
            None => std::future::pending().await,
        }
    }

    /// Asks it to end, and kills it if it does not. Not cancel safe.
    pub async fn stop(mut self) -> Option<u8> {
        let child = self.0.as_mut()?;
        let pid = child
            .id()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            // It may have ended at this moment; the wait below then finds that.
            let _gone = kill_process(pid, Signal::TERM);
        }
        if let Ok(status) = tokio::time::timeout(GRACE, child.wait()).await {
            return Some(status.map_or(1, code));
        }
        child.kill().await.ok()?;
        Some(137)
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    u8::try_from(code.unwrap_or(1)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Server {
        Server::start(&["sh".into(), "-c".into(), script.into()]).unwrap()
    }

    #[tokio::test]
    async fn the_servers_exit_code_is_handed_on() {
        assert_eq!(shell("exit 7").ended().await, 7);
        assert_eq!(shell("kill -9 $$").ended().await, 137);
    }

    #[tokio::test]
    async fn a_server_is_told_to_end_before_it_is_made_to() {
        assert_eq!(shell("exec sleep 600").stop().await, Some(143));
    }
}
