//! The command line: every verb and flag of `atlas`, and nothing of what they do.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use atlas_core::{AccountName, Secret};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Rents GPU and CPU machines and gives them back.
///
/// Every machine is a session: it has an idle limit or a longest life, and it is never forgotten. Exit codes: 0 done, 1 failed, 2 wrong
/// usage.
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
    /// One JSON document on one line (or one a line, for streams) on standard output, and nothing else there.
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
    /// Makes, reads and checks bearer tokens.
    #[command(subcommand)]
    Token(TokenVerb),
    /// Signs and checks URLs.
    #[command(subcommand)]
    Url(UrlVerb),
}

/// `atlas token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Mints a token and prints it with the hash to keep. It is shown this once.
    Mint,
    /// Checks a token against the hash that was kept: `ok` and exit 0, or `bad_token` and exit 1.
    Verify {
        /// The token; `-` reads it from standard input.
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
    /// Checks a signed URL: prints `ok`, `expired`, `bad_signature` or `malformed`; exit 0 only for `ok`.
    Verify {
        /// The URL, or its path and query.
        url: String,
        #[command(flatten)]
        key: SigningKey,
    },
}

/// What signing and checking a URL share.
#[derive(Debug, Args)]
pub(crate) struct SigningKey {
    /// The secret; `-` reads it from standard input.
    #[arg(long, value_name = "S", env = "ATLAS_SIGNING_SECRET", hide_env_values = true)]
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

/// Text from the command line that is never printed: clap repeats what it could not read, so it reads everything.
#[derive(Clone, Debug)]
pub(crate) struct RawSecret(pub(crate) Secret);

impl FromStr for RawSecret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(Secret::new(text)))
    }
}
