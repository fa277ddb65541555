//! The command line: every verb and flag of `atlas`, and nothing of what they do.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use atlas::fly_ops::{AppName, DEFAULT_DEPTH};
use atlas::owner::Filter;
use atlas::{AccountName, ComputeId, JobId, Secret, SessionId, span};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::demo::Place;
use crate::order::{LimitArgs, MachineArgs};
use crate::probe::ProbeArg;
use crate::verbs::gpus::GpusArgs;

/// Rents GPU and CPU machines and gives them back.
///
/// Every machine is a session: it has an idle limit or a longest life, and it is never forgotten.
/// Exit codes: 0 done, 1 failed, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "atlas", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags of every verb.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The account to use: `runpod`, `mock`, or one of the configuration file's.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) provider: Option<AccountName>,
    /// One JSON document on one line (or one a line, for streams) on standard output, and nothing
    /// else there.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The configuration file; `atlas.toml` here, where there is one.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The file that remembers every machine; one in the user's data directory where not given.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
    /// No progress on standard error.
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    #[command(flatten)]
    Kept(KeptVerb),
    #[command(flatten)]
    Plain(PlainVerb),
}

/// What works with the configuration, and mostly with the store.
#[derive(Debug, Subcommand)]
pub(crate) enum KeptVerb {
    /// Rents a machine for a session; prints its id, URL and credential.
    Spawn(Box<SpawnArgs>),
    /// Runs a command in a container to its end, gives the machine back, and exits with the
    /// command's code.
    ///
    /// 124 when a limit ended it, 125 when atlas itself failed.
    Run(Box<RunArgs>),
    /// Lists sessions.
    Ls(LsArgs),
    /// Shows a session: its machine, cost, next limit, and why it is alive or not.
    Show {
        /// Which.
        session: SessionId,
        /// With its credential.
        #[arg(long)]
        secrets: bool,
    },
    /// Says that somebody uses a session: its idle limit counts from now.
    Touch {
        /// Which.
        session: SessionId,
    },
    /// Ends a session, for good. Returns when its end is on record.
    Rm {
        /// Which.
        session: SessionId,
        /// Returns when the absence of every machine it had is proved, or after this long.
        #[arg(long, value_name = "DUR", value_parser = span::parse, num_args = 0..=1, default_missing_value = "15m")]
        wait: Option<Duration>,
    },
    /// Prints what happened in a session, in order.
    Events {
        /// Which; all of them where not given.
        session: Option<SessionId>,
        /// Only after this place in the session's log.
        #[arg(long, value_name = "N", default_value_t = 0)]
        since: u64,
        /// Goes on with what happens from now on.
        #[arg(short, long)]
        follow: bool,
    },
    /// Prints what a session's machine printed.
    Logs {
        /// Whose.
        session: SessionId,
        /// Only the last so many lines.
        #[arg(long, value_name = "N")]
        tail: Option<u32>,
        /// Goes on with new lines.
        #[arg(short, long)]
        follow: bool,
    },
    /// Stops a machine and keeps it; its disks may go on billing. For machines without a session: a
    /// stopped machine ends its session.
    Stop {
        /// The machine, as the cloud calls it.
        machine: ComputeId,
    },
    /// Starts a machine that was stopped.
    Start {
        /// The machine, as the cloud calls it.
        machine: ComputeId,
    },
    /// Scans for machines of ours that no session holds, and ends those that are proved to be so.
    Reap {
        /// Only reports.
        #[arg(long)]
        dry_run: bool,
        /// Lets the reaper go on after it stopped because there were too many to end.
        #[arg(long)]
        acknowledge: bool,
    },
    /// Reports what bills on each account: sessions, machines of ours without one, machines of
    /// others, volumes. Ends nothing.
    Audit,
    /// Looks at the store, the realm's secret and every account, and says what is in the way.
    Doctor {
        /// Accepts this store as the surviving copy, after a restore or a move: ends the hold.
        #[arg(long)]
        accept_store: bool,
        /// Says that the key which is configured now is of the same account as the one before: ends
        /// that were under way are proved under it.
        #[arg(long, value_name = "ACCOUNT")]
        accept_account: Option<AccountName>,
    },
    /// Runs and follows serverless jobs.
    #[command(subcommand)]
    Job(JobVerb),
    /// Lists the GPUs of every cloud there is a key for, with price and stock.
    ///
    /// A cloud that does not answer is shown as failed. Exit code 0 when at least one answered.
    Gpus(GpusArgs),
    /// The orchestrator's process of the demo.
    #[command(hide = true)]
    DemoWorker,
}

/// What needs neither store nor configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum PlainVerb {
    /// Shows the whole of it over simulated clouds: three users, a crash at the worst moment, and
    /// the clouds' own ledger.
    ///
    /// Exit code 0 when every step did what it must, and no machine is alive at the end.
    Demo {
        /// On which of them, all at once.
        #[arg(
            long,
            value_enum,
            value_name = "CLOUD,...",
            value_delimiter = ',',
            default_value = "runpod"
        )]
        clouds: Vec<Place>,
    },
    /// Serves simulated clouds on this machine until it is stopped.
    Sim(SimArgs),
    /// Makes, reads and checks bearer tokens.
    #[command(subcommand)]
    Token(TokenVerb),
    /// Signs and checks URLs.
    #[command(subcommand)]
    Url(UrlVerb),
    /// Fly.io: finds apps, deploys them, follows their logs, keeps tokens for them.
    #[command(subcommand)]
    Fly(FlyVerb),
}

/// `atlas spawn`.
#[derive(Debug, Args)]
pub(crate) struct SpawnArgs {
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Wait until the machine is ready, not only until it is ordered
    #[arg(long)]
    pub(crate) wait_ready: bool,
    /// What must answer before the machine counts as ready: `http:PORT[/PATH]`, `tcp:PORT` or
    /// `none`; with `--wait-ready`, the first HTTP port by default
    ///
    /// Over HTTP, 2xx, 3xx, 401 and 403 are an answer. `none` trusts the cloud, which reports a
    /// machine as running before the server in it listens.
    #[arg(long, value_name = "PROBE")]
    pub(crate) probe: Option<ProbeArg>,
}

/// `atlas run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// The command and its arguments; the image's own where not given.
    #[arg(last = true, value_name = "ARGV")]
    pub(crate) command: Vec<String>,
}

/// `atlas job`.
#[derive(Debug, Subcommand)]
pub(crate) enum JobVerb {
    /// Submits a job.
    Run(SubmitArgs),
    /// Shows how far a job is; exit 1 when it ended other than well.
    Get {
        /// The endpoint it runs on.
        endpoint: String,
        /// Which.
        job: JobId,
    },
    /// Cancels a job.
    Cancel {
        /// The endpoint it runs on.
        endpoint: String,
        /// Which.
        job: JobId,
    },
    /// Prints what a job yields, as it comes.
    Stream {
        /// The endpoint it runs on.
        endpoint: String,
        /// Which.
        job: JobId,
    },
}

/// `atlas job run`.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// The endpoint to run on.
    pub(crate) endpoint: String,
    /// What the worker gets: JSON, `@FILE`, or `-` for standard input.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(crate) input: String,
    /// Waits for the end, as long as the cloud lets it.
    #[arg(long, conflicts_with = "stream")]
    pub(crate) sync: bool,
    /// Prints what it yields, as it comes.
    #[arg(long)]
    pub(crate) stream: bool,
    /// The longest to wait with `--sync`.
    #[arg(long, value_name = "DUR", value_parser = span::parse, requires = "sync")]
    pub(crate) timeout: Option<Duration>,
}

/// `atlas ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only of this user.
    #[arg(long, value_name = "S")]
    pub(crate) user: Option<String>,
    /// Also those that ended.
    #[arg(long)]
    pub(crate) all: bool,
}

/// `atlas sim`.
#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// Where its admin listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// The seed of its randomness.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Simulated seconds for each second.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(crate) speed: f64,
    /// A file of faults to come.
    #[arg(long, value_name = "FILE")]
    pub(crate) faults: Option<PathBuf>,
}

/// `atlas token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Mints a token and prints it with the hash to keep. It is shown this once.
    Mint,
    /// Checks a token against the hash that was kept: `ok` and exit 0, or `bad_token` and exit 1.
    Verify {
        /// The token; `-` reads it from standard input.
        #[arg(allow_hyphen_values = true)]
        token: RawSecret,
        /// SHA-256 of it, in hex.
        #[arg(long, value_name = "HEX")]
        hash: String,
    },
}

/// `atlas url`.
#[derive(Debug, Subcommand)]
pub(crate) enum UrlVerb {
    /// Signs a URL.
    Sign {
        /// The URL.
        url: String,
        #[command(flatten)]
        key: SigningKey,
        /// How long it is to be valid.
        #[arg(long, value_name = "SECS", default_value_t = 3600)]
        expires_in: u64,
    },
    /// Checks a signed URL: prints `ok`, `expired`, `bad_signature` or `malformed`; exit 0 only for
    /// `ok`.
    Verify {
        /// The URL, or its path and query.
        url: String,
        #[command(flatten)]
        key: SigningKey,
    },
}

/// `atlas fly`.
#[derive(Debug, Subcommand)]
pub(crate) enum FlyVerb {
    /// Lists the apps of a project. What was seen and not used is told on standard error.
    Apps {
        /// The project's folder.
        path: PathBuf,
        /// How many levels of folders below it; 0 is the folder alone.
        #[arg(long, value_name = "N", default_value_t = DEFAULT_DEPTH)]
        max_depth: usize,
    },
    /// Deploys the app of a folder with `fly`, and shows what it prints. Ctrl-C ends the deploy and
    /// all that it started.
    Deploy(FlyDeployArgs),
    /// Prints what an app printed: the newest page, or with -f on and on.
    Logs(FlyLogsArgs),
    /// Keeps tokens for apps, beside the store's file. A token is shown only with --secrets.
    #[command(subcommand)]
    Tokens(FlyTokensVerb),
}

/// `atlas fly deploy`.
#[derive(Debug, Args)]
pub(crate) struct FlyDeployArgs {
    /// The folder to deploy: the build's context.
    pub(crate) path: PathBuf,
    /// The app, where the folder's configuration names none or another.
    #[arg(long, value_name = "A")]
    pub(crate) app: Option<AppName>,
    /// The longest silence.
    #[arg(long, value_name = "DUR", value_parser = span::parse, default_value = "5m")]
    pub(crate) activity_timeout: Duration,
    /// The longest it may take.
    #[arg(long, value_name = "DUR", value_parser = span::parse, default_value = "30m")]
    pub(crate) timeout: Duration,
    /// Further arguments of `fly deploy`. Never a token: others can read them.
    #[arg(last = true, value_name = "ARGV")]
    pub(crate) arguments: Vec<String>,
}

/// `atlas fly logs`.
#[derive(Debug, Args)]
pub(crate) struct FlyLogsArgs {
    /// The app.
    pub(crate) app: AppName,
    /// Goes on with what it prints from now on.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only of this region.
    #[arg(long, value_name = "R")]
    pub(crate) region: Option<String>,
    /// Only of this machine.
    #[arg(long, value_name = "ID")]
    pub(crate) instance: Option<String>,
}

/// `atlas fly tokens`.
#[derive(Debug, Subcommand)]
pub(crate) enum FlyTokensVerb {
    /// Finds a token: in the environment, the store, `fly`'s configuration, from
    /// `fly tokens create`, or the one that was set.
    Get {
        /// The app.
        app: AppName,
        /// With the token itself.
        #[arg(long)]
        secrets: bool,
    },
    /// Finds a token that is neither the one in use nor the one in the store.
    Refresh {
        /// The app.
        app: AppName,
        /// With the token itself.
        #[arg(long)]
        secrets: bool,
    },
    /// Keeps the token on standard input's first line, as the last that is tried.
    Set {
        /// The app.
        app: AppName,
    },
    /// Has `fly` revoke every token that atlas on this host made for the app.
    Revoke {
        /// The app.
        app: AppName,
    },
}

/// What signing and checking a URL share.
#[derive(Debug, Args)]
pub(crate) struct SigningKey {
    /// The secret; `-` reads it from standard input.
    #[arg(
        long,
        value_name = "S",
        env = "ATLAS_SIGNING_SECRET",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(crate) secret: RawSecret,
    /// Another time than now, in Unix seconds.
    #[arg(long, value_name = "UNIX")]
    pub(crate) now: Option<i64>,
    /// Which form of signature.
    #[arg(long, value_enum, default_value_t = UrlFormat::Atlas)]
    pub(crate) format: UrlFormat,
    /// The method the URL is for (format atlas).
    #[arg(long, default_value = "GET")]
    pub(crate) method: String,
}

/// The two forms of a signed URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UrlFormat {
    /// As `ex_atlas` signs: path and query.
    Compatible,
    /// Bound to host and method too.
    Atlas,
}

/// Text from the command line that is never printed: clap repeats what it could not read, so it
/// reads everything.
#[derive(Clone, Debug)]
pub(crate) struct RawSecret(pub(crate) Secret);

impl FromStr for RawSecret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(Secret::new(text)))
    }
}

impl From<LsArgs> for Filter {
    fn from(args: LsArgs) -> Self {
        let mut filter = Self::default();
        filter.user = args.user;
        filter.ended = args.all;
        filter
    }
}
