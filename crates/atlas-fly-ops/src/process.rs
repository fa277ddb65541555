//! A child process in its own process group: streams its output, and ends it without leaving a
//! process behind.
//!
//! The leader is reaped last. Until then its process id, which is the group's id, cannot be reused.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::time::Instant;

/// How long output is still read after the leader ended, if another process holds the pipe.
const DRAIN: Duration = Duration::from_secs(1);
const CHUNK: usize = 16 * 1024;

/// The output stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pipe {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Pipe {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A running group. Dropping it before its end kills it at once.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    leader: Option<Pid>,
    signals: SignalStream,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    buffers: [Vec<u8>; 2],
    stderr_first: bool,
    ended_at: Option<Instant>,
    reaped: bool,
}

impl Group {
    /// Starts the command in a new process group, without input and with both outputs piped.
    pub(crate) fn spawn(mut command: Command) -> io::Result<Self> {
        // Before the child exists: its end cannot be missed.
        let signals = signal(SignalKind::child())?;
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let leader = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        Ok(Self {
            leader,
            signals,
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            buffers: [vec![0; CHUNK], vec![0; CHUNK]],
            stderr_first: false,
            ended_at: None,
            reaped: false,
        })
    }

    /// The next output; `None` once the leader has ended and its output was read. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<(Pipe, Vec<u8>)> {
        loop {
            if let Some(ended) = self.ended_at
                && (ended.elapsed() >= DRAIN || (self.stdout.is_none() && self.stderr.is_none()))
            {
                return None;
            }
            self.stderr_first = !self.stderr_first;
            let ended = self.ended_at;
            let (read, pipe) = tokio::select! {
                biased;
                () = leader_end(self.leader, &mut self.signals), if ended.is_none() => {
                    self.ended_at = Some(Instant::now());
                    continue;
                }
                read = read_either(&mut self.stdout, &mut self.stderr, &mut self.buffers,
                    self.stderr_first) => read,
                () = tokio::time::sleep_until(ended.unwrap_or_else(Instant::now) + DRAIN),
                    if ended.is_some() => return None,
            };
            let buffer = if pipe == Pipe::Stdout {
                &self.buffers[0]
            } else {
                &self.buffers[1]
            };
            match read {
                Ok(count) if count > 0 => return Some((pipe, buffer[..count].to_vec())),
                _ if pipe == Pipe::Stdout => self.stdout = None,
                _ => self.stderr = None,
            }
        }
    }

    /// Asks the whole group to end (TERM). Keep reading [`Group::next`], or it may block on a full
    /// pipe.
    pub(crate) fn ask_to_end(&self) {
        self.send(Signal::TERM);
    }

    /// Kills the rest of the group, and reaps the leader.
    pub(crate) async fn finish(mut self) -> io::Result<ExitStatus> {
        self.send(Signal::KILL);
        let status = self.child.wait().await;
        self.reaped = true;
        status
    }

    fn send(&self, signal: Signal) {
        if let (Some(leader), false) = (self.leader, self.reaped) {
            // It fails only where nothing of the group is left.
            let _ = kill_process_group(leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The runtime reaps it: tokio keeps what is dropped unreaped.
        self.send(Signal::KILL);
    }
}

/// Completes when the leader has ended, without reaping it.
async fn leader_end(leader: Option<Pid>, signals: &mut SignalStream) {
    loop {
        let state = leader.map(|leader| {
            waitid(
                WaitId::Pid(leader),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT,
            )
        });
        if !matches!(state, Some(Ok(None))) || signals.recv().await.is_none() {
            return;
        }
    }
}

/// Reads once from the one that has something; neither can keep the other waiting.
async fn read_either(
    stdout: &mut Option<ChildStdout>,
    stderr: &mut Option<ChildStderr>,
    [out_buffer, err_buffer]: &mut [Vec<u8>; 2],
    stderr_first: bool,
) -> (io::Result<usize>, Pipe) {
    let out = async { (read_some(stdout, out_buffer).await, Pipe::Stdout) };
    let err = async { (read_some(stderr, err_buffer).await, Pipe::Stderr) };
    if stderr_first {
        tokio::select! { biased; read = err => read, read = out => read }
    } else {
        tokio::select! { biased; read = out => read, read = err => read }
    }
}

/// Reads once; never completes if the pipe is already closed.
async fn read_some(
    pipe: &mut Option<impl AsyncRead + Unpin>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    match pipe {
        Some(pipe) => pipe.read(buffer).await,
        None => std::future::pending().await,
    }
}
