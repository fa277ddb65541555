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

use crate::demo_cloud::DemoCloud;
use crate::order::{LimitArgs, MachineArgs};
use crate::probe::ProbeArg;
use crate::verbs::gpus::GpusArgs;

/// Rent GPU and CPU machines and give them back.
///
/// Every machine belongs to a session, which has an idle limit or a maximum runtime and stays on
/// record until its machine is proved gone. Exit codes: 0 success, 1 failure, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "atlas", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The help of `--provider`, with the names of the clouds in this build.
fn provider_help() -> String {
    let clouds = atlas::built_in_clouds().iter();
    let names: String = clouds.map(|cloud| format!("`{}`, ", cloud.name)).collect();
    format!("Account to use: {names}`mock`, or one of the configuration file")
}

/// The flags that every verb takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    #[arg(long, global = true, value_name = "NAME", help = provider_help())]
    pub(crate) provider: Option<AccountName>,
    /// Print JSON on standard output, one document per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Configuration file [default: ./atlas.toml, or atlas/atlas.toml in the user's configuration
    /// folder]
    ///
    /// A file that is only found in the working folder may not set keys, base URLs or the places of
    /// secrets.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// File that records every machine [default: atlas/atlas.redb in the user's data folder]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
    /// Print no progress on standard error
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
}

/// The verb.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    #[command(flatten)]
    Kept(KeptVerb),
    #[command(flatten)]
    Plain(PlainVerb),
}

/// The verbs that read the configuration; most of them use the store.
#[derive(Debug, Subcommand)]
pub(crate) enum KeptVerb {
    /// Rent a machine for a new session and print its id, URL and credential
    Spawn(Box<SpawnArgs>),
    /// Run a command in a container and exit with its exit code
    ///
    /// The machine is given back when the command ends. Exit codes of atlas itself: 124 when a
    /// limit ended the command, 125 when atlas failed.
    Run(Box<RunArgs>),
    /// List sessions
    Ls(LsArgs),
    /// Show a session: its machine, cost, limits and the reasons for its state
    Show {
        /// Session id
        session: SessionId,
        /// Include the credential
        #[arg(long)]
        secrets: bool,
    },
    /// Reset a session's idle timer
    Touch {
        /// Session id
        session: SessionId,
    },
    /// End a session and delete its machine
    ///
    /// Returns when the end is on record; the machine is deleted after that, by this or a later
    /// process.
    Rm {
        /// Session id
        session: SessionId,
        /// Wait until every machine of the session is proved gone, at most this long
        #[arg(long, value_name = "DUR", value_parser = span::parse, num_args = 0..=1,
            default_missing_value = "15m")]
        wait: Option<Duration>,
    },
    /// Print the events of a session, oldest first
    Events {
        /// Session id [default: all sessions]
        session: Option<SessionId>,
        /// Resume after the event with this cursor, as printed for the same session or for all
        #[arg(long, value_name = "CURSOR", default_value_t = 0)]
        since: u64,
        /// Keep printing new events
        #[arg(short, long)]
        follow: bool,
    },
    /// Print the log of a session's machine
    Logs {
        /// Session id
        session: SessionId,
        /// Print only the last N lines
        #[arg(long, value_name = "N")]
        tail: Option<u32>,
        /// Keep printing new lines
        #[arg(short, long)]
        follow: bool,
    },
    /// Stop a machine that has no session; its disks may go on billing
    ///
    /// A machine of a session is refused, because stopping it would end the session.
    Stop {
        /// The cloud's id of the machine
        machine: ComputeId,
    },
    /// Start a stopped machine
    Start {
        /// The cloud's id of the machine
        machine: ComputeId,
    },
    /// Find machines that atlas made and no session uses, and delete them
    ///
    /// A machine is deleted only after several scans agree.
    Reap {
        /// Report what would be deleted, and delete nothing
        #[arg(long)]
        dry_run: bool,
        /// Continue after the reaper stopped because too many machines were to be deleted at once
        #[arg(long)]
        acknowledge: bool,
    },
    /// Report everything that bills on each account: sessions, other machines and volumes
    ///
    /// Deletes nothing. What could not be looked at is named, and makes the exit code 1.
    Audit,
    /// Check the store, the realm's secret and every account, and report problems
    Doctor {
        /// Accept this store as the surviving copy after a restore or a move, and end the hold
        #[arg(long)]
        accept_store: bool,
        /// Confirm that the configured key belongs to the same account as the key before it, so
        /// that deletions which are under way can be proved with it
        #[arg(long, value_name = "ACCOUNT")]
        accept_account: Option<AccountName>,
        /// List every machine on record, and delete them all with --yes
        #[arg(long, requires = "realm_lost", conflicts_with_all = ["accept_store",
            "accept_account"])]
        end_all: bool,
        /// Confirm that the realm's secret is lost, so that the store opens no more; needed with
        /// --end-all
        #[arg(long, requires = "end_all")]
        realm_lost: bool,
        /// Delete the listed machines
        #[arg(long, requires = "end_all")]
        yes: bool,
    },
    /// Run and follow serverless jobs
    #[command(subcommand)]
    Job(JobVerb),
    /// List the GPUs of every cloud that has a key, with price and stock
    ///
    /// A cloud that does not answer is listed as failed. The exit code is 0 when at least one
    /// answered.
    Gpus(GpusArgs),
    /// Run the orchestrator process of the demo
    #[command(hide = true)]
    DemoWorker,
}

/// The verbs that need neither store nor configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum PlainVerb {
    /// Demonstrate atlas on simulated clouds: three users, a crash at the worst moment, and what
    /// the clouds billed
    ///
    /// The exit code is 0 when every step succeeded and no machine is left.
    Demo {
        /// Clouds to use, all at once
        #[arg(
            long,
            value_parser = DemoCloud::parser(),
            value_name = "CLOUD,...",
            value_delimiter = ',',
            default_value = "runpod"
        )]
        clouds: Vec<DemoCloud>,
    },
    /// Serve simulated clouds on this machine until Ctrl-C
    Sim(SimArgs),
    /// Mint and verify bearer tokens
    #[command(subcommand)]
    Token(TokenVerb),
    /// Sign and verify URLs
    #[command(subcommand)]
    Url(UrlVerb),
    /// Work with Fly.io apps: find, deploy, logs, tokens
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
    /// Command and arguments [default: those of the image]
    #[arg(last = true, value_name = "ARGV")]
    pub(crate) command: Vec<String>,
}

/// `atlas job`.
#[derive(Debug, Subcommand)]
pub(crate) enum JobVerb {
    /// Submit a job
    Run(SubmitArgs),
    /// Show a job; the exit code is 1 when it failed
    Get {
        /// Endpoint of the job
        endpoint: String,
        /// Job id
        job: JobId,
    },
    /// Cancel a job
    Cancel {
        /// Endpoint of the job
        endpoint: String,
        /// Job id
        job: JobId,
    },
    /// Print the output of a job as it arrives
    Stream {
        /// Endpoint of the job
        endpoint: String,
        /// Job id
        job: JobId,
    },
}

/// `atlas job run`.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// Endpoint to run the job on
    pub(crate) endpoint: String,
    /// Input of the worker: JSON, `@FILE`, or `-` for standard input
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(crate) input: String,
    /// Wait for the result, as long as the cloud allows
    #[arg(long, conflicts_with = "stream")]
    pub(crate) sync: bool,
    /// Print the output as it arrives
    #[arg(long)]
    pub(crate) stream: bool,
    /// Maximum time to wait with `--sync`
    #[arg(long, value_name = "DUR", value_parser = span::parse, requires = "sync")]
    pub(crate) timeout: Option<Duration>,
}

/// `atlas ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// List only the sessions of this user
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Include sessions that ended
    #[arg(long)]
    pub(crate) all: bool,
}

/// `atlas sim`.
#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// Address of the admin API
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Seed of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Simulated seconds per second
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(crate) speed: f64,
    /// File of faults to inject
    #[arg(long, value_name = "FILE")]
    pub(crate) faults: Option<PathBuf>,
    /// Write a configuration file for these clouds, to be used with `--config`
    #[arg(long, value_name = "FILE")]
    pub(crate) write_config: Option<PathBuf>,
}

/// `atlas token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Mint a token and print it with its hash; store the hash, the token is not shown again
    Mint,
    /// Verify a token against its hash: print `ok`, or `bad_token` with exit code 1
    Verify {
        /// Token; `-` reads it from standard input
        #[arg(allow_hyphen_values = true)]
        token: RawSecret,
        /// SHA-256 of the token, in hex
        #[arg(long, value_name = "HEX")]
        hash: String,
    },
}

/// `atlas url`.
#[derive(Debug, Subcommand)]
pub(crate) enum UrlVerb {
    /// Sign a URL
    Sign {
        /// URL to sign
        url: String,
        #[command(flatten)]
        key: SigningKey,
        /// Validity in seconds
        #[arg(long, value_name = "SECS", default_value_t = 3600)]
        expires_in: u64,
    },
    /// Verify a signed URL: print `ok`, or `expired`, `bad_signature` or `malformed` with exit
    /// code 1
    Verify {
        /// URL, or its path and query
        url: String,
        #[command(flatten)]
        key: SigningKey,
    },
}

/// `atlas fly`.
#[derive(Debug, Subcommand)]
pub(crate) enum FlyVerb {
    /// List the Fly.io apps in a folder; unusable files are reported on standard error
    Apps {
        /// Folder of the project
        path: PathBuf,
        /// Levels of folders to search below it; 0 is the folder alone
        #[arg(long, value_name = "N", default_value_t = DEFAULT_DEPTH)]
        max_depth: usize,
    },
    /// Deploy a folder with `fly deploy` and show its output
    ///
    /// Ctrl-C ends the deploy and every process that it started.
    Deploy(FlyDeployArgs),
    /// Print the log of an app: the newest page, or with -f everything from now on
    Logs(FlyLogsArgs),
    /// Manage the tokens of apps, which are stored beside the store
    #[command(subcommand)]
    Tokens(FlyTokensVerb),
}

/// `atlas fly deploy`.
#[derive(Debug, Args)]
pub(crate) struct FlyDeployArgs {
    /// Folder to deploy, which is the build context
    pub(crate) path: PathBuf,
    /// App to deploy to [default: the app of the folder's configuration]
    #[arg(long, value_name = "APP")]
    pub(crate) app: Option<AppName>,
    /// End the deploy when it prints nothing for this long
    #[arg(long, value_name = "DUR", value_parser = span::parse, default_value = "5m")]
    pub(crate) activity_timeout: Duration,
    /// End the deploy after this long
    #[arg(long, value_name = "DUR", value_parser = span::parse, default_value = "30m")]
    pub(crate) timeout: Duration,
    /// Further arguments of `fly deploy`; never a token, because other users can read them
    #[arg(last = true, value_name = "ARGV")]
    pub(crate) arguments: Vec<String>,
}

/// `atlas fly logs`.
#[derive(Debug, Args)]
pub(crate) struct FlyLogsArgs {
    /// App name
    pub(crate) app: AppName,
    /// Keep printing new entries
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print only entries of this region
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// Print only entries of this machine
    #[arg(long, value_name = "ID")]
    pub(crate) instance: Option<String>,
}

/// `atlas fly tokens`.
#[derive(Debug, Subcommand)]
pub(crate) enum FlyTokensVerb {
    /// Find a token for an app
    ///
    /// The places are tried in this order: the environment, the store, the configuration of `fly`,
    /// `fly tokens create`, the token that was set.
    Get {
        /// App name
        app: AppName,
        /// Print the token itself
        #[arg(long)]
        secrets: bool,
    },
    /// Find a new token for an app, other than the one in use and the one in the store
    Refresh {
        /// App name
        app: AppName,
        /// Print the token itself
        #[arg(long)]
        secrets: bool,
    },
    /// Store the token in the first line of standard input, as the last one to try
    Set {
        /// App name
        app: AppName,
    },
    /// Revoke every token that atlas made for the app on this host
    Revoke {
        /// App name
        app: AppName,
    },
}

/// The flags that signing and verifying a URL share.
#[derive(Debug, Args)]
pub(crate) struct SigningKey {
    /// Signing secret; `-` reads it from standard input
    #[arg(
        long,
        value_name = "S",
        env = "ATLAS_SIGNING_SECRET",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(crate) secret: RawSecret,
    /// Time to use instead of now, in Unix seconds
    #[arg(long, value_name = "UNIX")]
    pub(crate) now: Option<i64>,
    /// Format of the signature
    #[arg(long, value_enum, default_value_t = UrlFormat::Atlas)]
    pub(crate) format: UrlFormat,
    /// HTTP method that the URL is for (format `atlas` only)
    #[arg(long, default_value = "GET")]
    pub(crate) method: String,
}

/// The two forms of a signed URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UrlFormat {
    /// Signs path and query, as `ex_atlas` does
    Compatible,
    /// Signs method, host, path and query
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
