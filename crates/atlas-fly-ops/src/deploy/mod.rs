//! Runs `fly deploy`: streams its lines, applies two time limits, and ends it without leaving a
//! process behind.
//!
//! The output of a deploy may contain build secrets: it is given only to the caller. Spans contain
//! counts and the outcome.

mod lines;
mod stage;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument as _, field};

use crate::app_name::AppName;
use crate::cli::FlyCli;
use crate::process::{Group, Pipe};
use crate::telemetry;
use crate::token::FlyToken;
use lines::{Line, Splitter};

pub use lines::plain;
pub use stage::Stage;

/// The maximum stored output: this much of its beginning, and as much of its end.
const KEPT_HALF: usize = 512 * 1024;
/// The maximum number of queued events, and of their bytes. Further events are counted and dropped.
const EVENTS: usize = 4096;
const EVENT_BYTES: usize = 4 * 1024 * 1024;
/// The maximum time limit, because an instant beyond it may not be representable.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// The caller's name for a deploy, for its spans.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeployTicket(pub String);

/// Whether colour stays in the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ansi {
    /// Terminal sequences are taken out.
    #[default]
    Strip,
    /// Terminal sequences are kept.
    Keep,
}

/// What to deploy, with time limits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeployRequest {
    /// The directory in which it runs: the build context.
    pub directory: PathBuf,
    /// `--app`, if the configuration names none or another.
    pub app: Option<AppName>,
    /// `--config`, if it is not the directory's own.
    pub config: Option<PathBuf>,
    /// Further arguments, unchanged. `--access-token` is refused, because every user of the machine
    /// could read it.
    pub arguments: Vec<String>,
    /// The credential, passed in the environment. `None` for `fly`'s own login.
    pub token: Option<FlyToken>,
    /// Whether colour stays in the lines.
    pub ansi: Ansi,
    /// The maximum silence. 5 min by default.
    pub activity_timeout: Duration,
    /// The maximum total time. 30 min by default.
    pub max_timeout: Duration,
    /// How long it may clean up (release its leases) after it was asked to end. 15 s by default.
    pub grace: Duration,
}

impl DeployRequest {
    /// A deploy of this directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            app: None,
            config: None,
            arguments: Vec::new(),
            token: None,
            ansi: Ansi::Strip,
            activity_timeout: Duration::from_secs(5 * 60),
            max_timeout: Duration::from_secs(30 * 60),
            grace: Duration::from_secs(15),
        }
    }
}

/// An event of a running deploy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeployEvent {
    /// A line that is not empty.
    Line {
        /// The output stream it was written to.
        pipe: Pipe,
        /// The line without its end.
        text: String,
        /// Whether it was longer than the stored maximum.
        cut: bool,
    },
    /// The preceding line begins or reports this stage.
    Stage(Stage),
    /// The reader was too slow for this many events; they are in the output.
    Missed(u64),
}

impl DeployEvent {
    fn bytes(&self) -> usize {
        match self {
            Self::Line { text, .. } => text.len(),
            Self::Stage(_) | Self::Missed(_) => 0,
        }
    }
}

/// The output of a deploy, both streams in order. Sensitive: `Debug` shows its length only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DeployOutput {
    head: String,
    tail: VecDeque<String>,
    tail_bytes: usize,
    dropped: usize,
}

impl DeployOutput {
    /// The text. If it was too long, a line in its middle says how much is missing.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.head.clone();
        if self.dropped > 0 {
            text.push_str(&format!("[{} bytes left out]\n", self.dropped));
        }
        text.extend(self.tail.iter().map(String::as_str));
        text
    }

    /// Bytes of the middle that were not kept.
    #[must_use]
    pub const fn dropped(&self) -> usize {
        self.dropped
    }

    fn push(&mut self, line: &str) {
        if self.tail.is_empty() && self.head.len() + line.len() < KEPT_HALF {
            self.head.push_str(line);
            self.head.push('\n');
            return;
        }
        self.tail_bytes += line.len() + 1;
        self.tail.push_back(format!("{line}\n"));
        while self.tail_bytes > KEPT_HALF
            && let Some(oldest) = self.tail.pop_front()
        {
            self.tail_bytes -= oldest.len();
            self.dropped += oldest.len();
        }
    }
}

impl fmt::Debug for DeployOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.head.len() + self.tail_bytes;
        f.debug_struct("DeployOutput")
            .field("bytes", &bytes)
            .field("dropped", &self.dropped)
            .finish()
    }
}

/// Why a deploy failed. An error of a deploy that ran contains its output so far.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeployError {
    /// The path is not a directory.
    #[error("the deploy folder is not a folder")]
    InvalidDirectory,
    /// A token is among the arguments, where every user of the machine could read it.
    #[error("a token must not be among the arguments: give it as the request's token")]
    TokenInArguments,
    /// There is no `fly` that can be run.
    #[error("no runnable fly executable was found")]
    NotFound,
    /// It could not be started, or its exit status could not be determined.
    #[error("fly could not be run")]
    Io(DeployOutput, #[source] io::Error),
    /// It exceeded a time limit; it and all processes it started were ended.
    #[error("the deploy took too long")]
    Timeout(DeployOutput),
    /// The caller cancelled it; it and all processes it started were ended.
    #[error("the deploy was cancelled")]
    Cancelled(DeployOutput),
    /// It ended with this exit code; `None` for a signal.
    #[error("fly ended with exit code {0:?}")]
    ExitCode(Option<i32>, DeployOutput),
}

impl DeployError {
    /// The stable name, for metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::InvalidDirectory => "invalid_directory",
            Self::TokenInArguments => "token_in_arguments",
            Self::NotFound => "not_found",
            Self::Io(..) => "io",
            Self::Timeout(_) => "timeout",
            Self::Cancelled(_) => "cancelled",
            Self::ExitCode(..) => "exit_code",
        }
    }

    /// Its output, if it ran.
    #[must_use]
    pub const fn output(&self) -> Option<&DeployOutput> {
        match self {
            Self::InvalidDirectory | Self::TokenInArguments | Self::NotFound => None,
            Self::Io(output, _)
            | Self::Timeout(output)
            | Self::Cancelled(output)
            | Self::ExitCode(_, output) => Some(output),
        }
    }
}

/// A running deploy. Dropping it ends it: it is asked first, and killed after its grace period.
#[derive(Debug)]
pub struct Deployment {
    events: mpsc::Receiver<DeployEvent>,
    waiting: Arc<AtomicUsize>,
    cancel: DropGuard,
    task: JoinHandle<Result<DeployOutput, DeployError>>,
}

impl Deployment {
    /// The next event; `None` when there are no more. Cancel safe.
    pub async fn next(&mut self) -> Option<DeployEvent> {
        let event = self.events.recv().await?;
        self.waiting.fetch_sub(event.bytes(), Ordering::Relaxed);
        Some(event)
    }

    /// Waits for the end, and returns the complete output.
    ///
    /// # Errors
    /// See [`DeployError`].
    ///
    /// # Cancel safety
    /// A dropped future ends the deploy.
    pub async fn finish(mut self) -> Result<DeployOutput, DeployError> {
        self.events.close();
        let joined = (&mut self.task).await;
        joined.unwrap_or_else(|lost| {
            Err(DeployError::Io(
                DeployOutput::default(),
                io::Error::other(lost),
            ))
        })
    }

    /// Ends it, and waits until no process of it is left.
    ///
    /// # Errors
    /// [`DeployError::Cancelled`] with the output, or its earlier result.
    pub async fn cancel(self) -> Result<DeployOutput, DeployError> {
        let Self {
            mut events,
            cancel,
            task,
            ..
        } = self;
        events.close();
        drop(cancel);
        task.await.unwrap_or_else(|lost| {
            Err(DeployError::Io(
                DeployOutput::default(),
                io::Error::other(lost),
            ))
        })
    }
}

impl FlyCli {
    /// Deploys, and returns the complete output. At most 15 min, whatever the request says.
    ///
    /// # Errors
    /// See [`DeployError`]. The directory is checked before the executable.
    ///
    /// # Cancel safety
    /// A dropped future ends the deploy and all its processes in the background.
    pub async fn deploy(&self, request: DeployRequest) -> Result<DeployOutput, DeployError> {
        let max_timeout = request.max_timeout.min(Duration::from_secs(15 * 60));
        let ticket = DeployTicket("deploy".to_owned());
        self.stream_deploy(
            ticket,
            DeployRequest {
                max_timeout,
                activity_timeout: max_timeout,
                ..request
            },
        )?
        .finish()
        .await
    }

    /// Starts a deploy whose lines are streamed. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// `InvalidDirectory`, `TokenInArguments`, `NotFound` or `Io`, before anything runs.
    pub fn stream_deploy(
        &self,
        ticket: DeployTicket,
        request: DeployRequest,
    ) -> Result<Deployment, DeployError> {
        if !request.directory.is_dir() {
            return Err(DeployError::InvalidDirectory);
        }
        // `-t TOKEN`, `-tTOKEN`, `--access-token TOKEN`, `--access-token=TOKEN`.
        let gives_token =
            |word: &String| word.starts_with("-t") || word.starts_with("--access-token");
        if request.arguments.iter().any(gives_token) {
            return Err(DeployError::TokenInArguments);
        }
        let mut command = self
            .command(request.token.as_ref())
            .ok_or(DeployError::NotFound)?;
        command
            .args(["deploy", "--remote-only"])
            .current_dir(&request.directory);
        if let Some(app) = &request.app {
            command.arg(format!("--app={app}"));
        }
        if let Some(config) = &request.config {
            command.arg("--config").arg(config);
        }
        command.args(&request.arguments);
        let group = Group::spawn(command)
            .map_err(|cause| DeployError::Io(DeployOutput::default(), cause))?;
        let (events, receiver) = mpsc::channel(EVENTS);
        let (cancelled, waiting) = (CancellationToken::new(), Arc::<AtomicUsize>::default());
        let span = tracing::info_span!(
            "fly.deploy",
            ticket = ticket.0,
            lines = field::Empty,
            result = field::Empty
        );
        let run = Run {
            ansi: request.ansi,
            events,
            waiting: Arc::clone(&waiting),
            missed: 0,
            lines: 0,
            output: DeployOutput::default(),
            splitters: [Splitter::default(), Splitter::default()],
        };
        let task = tokio::spawn(
            run.drive(group, request, cancelled.clone())
                .instrument(span),
        );
        Ok(Deployment {
            events: receiver,
            waiting,
            cancel: cancelled.drop_guard(),
            task,
        })
    }
}

/// One deploy under way.
struct Run {
    ansi: Ansi,
    events: mpsc::Sender<DeployEvent>,
    waiting: Arc<AtomicUsize>,
    missed: u64,
    lines: u64,
    output: DeployOutput,
    splitters: [Splitter; 2],
}

/// Why reading ended.
enum Ended {
    Itself,
    TooLate,
    Cancelled,
}

impl Run {
    async fn drive(
        mut self,
        mut group: Group,
        request: DeployRequest,
        cancelled: CancellationToken,
    ) -> Result<DeployOutput, DeployError> {
        let begun = Instant::now();
        let silence = request.activity_timeout.min(LONGEST);
        let last = begun + request.max_timeout.min(LONGEST);
        let mut silent = begun + silence;
        let ended = loop {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => break Ended::Cancelled,
                () = tokio::time::sleep_until(last.min(silent)) => break Ended::TooLate,
                chunk = group.next() => match chunk {
                    Some((pipe, bytes)) => {
                        silent = Instant::now() + silence;
                        self.take(pipe, &bytes);
                    }
                    None => break Ended::Itself,
                },
            }
        };
        if !matches!(ended, Ended::Itself) {
            group.ask_to_end();
            let clean_up = async {
                while let Some((pipe, bytes)) = group.next().await {
                    self.take(pipe, &bytes);
                }
            };
            // Past its grace it is killed, just below.
            let _ = tokio::time::timeout(request.grace, clean_up).await;
        }
        let status = group.finish().await;
        for pipe in [Pipe::Stdout, Pipe::Stderr] {
            let mut rest = Vec::new();
            self.splitter(pipe).finish(|line| rest.push(line));
            rest.into_iter().for_each(|line| self.line(pipe, line));
        }
        if self.missed > 0 {
            // No process is left. It waits for a reader that still reads; `finish` and `cancel`
            // close the channel.
            let _ = self.events.send(DeployEvent::Missed(self.missed)).await;
        }
        let lines = self.lines;
        let output = self.output;
        let result = match (ended, status) {
            (Ended::TooLate, _) => Err(DeployError::Timeout(output)),
            (Ended::Cancelled, _) => Err(DeployError::Cancelled(output)),
            (Ended::Itself, Err(cause)) => Err(DeployError::Io(output, cause)),
            (Ended::Itself, Ok(status)) if status.success() => Ok(output),
            (Ended::Itself, Ok(status)) => Err(DeployError::ExitCode(status.code(), output)),
        };
        let span = tracing::Span::current();
        span.record("lines", lines);
        let word = result.as_ref().map_or_else(DeployError::as_str, |_| "ok");
        span.record("result", word);
        telemetry::deploy_ended(word, begun.elapsed());
        result
    }

    fn splitter(&mut self, pipe: Pipe) -> &mut Splitter {
        &mut self.splitters[usize::from(pipe == Pipe::Stderr)]
    }

    fn take(&mut self, pipe: Pipe, bytes: &[u8]) {
        let mut whole = Vec::new();
        self.splitter(pipe).feed(bytes, |line| whole.push(line));
        whole.into_iter().for_each(|line| self.line(pipe, line));
    }

    fn line(&mut self, pipe: Pipe, Line { text, cut }: Line) {
        let plain = lines::plain(&text);
        let stage = Stage::of(&plain);
        let text = if self.ansi == Ansi::Keep { text } else { plain };
        if text.is_empty() {
            return;
        }
        self.lines += 1;
        telemetry::deploy_line(pipe, text.len());
        self.output.push(&text);
        self.event(DeployEvent::Line { pipe, text, cut });
        if let Some(stage) = stage {
            self.event(DeployEvent::Stage(stage));
        }
    }

    /// Never waits for the reader: a deploy must not hang because its events are not read.
    fn event(&mut self, event: DeployEvent) {
        let bytes = event.bytes();
        if self.waiting.load(Ordering::Relaxed) + bytes > EVENT_BYTES {
            self.missed += 1;
            return;
        }
        if self.missed > 0
            && self
                .events
                .try_send(DeployEvent::Missed(self.missed))
                .is_ok()
        {
            self.missed = 0;
        }
        // Counted before it can be taken out.
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        if self.missed > 0 || self.events.try_send(event).is_err() {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.missed += 1;
        }
    }
}
