//! Fly.io platform operations, independent of renting machines: which apps a project holds,
//! credentials for them, deploys, logs.
//!
//! ```
//! let found = atlas_fly_ops::discover_apps(std::path::Path::new("."), 1);
//! for app in &found.apps {
//!     println!("{} in {}", app.name, app.directory.display());
//! }
//! for report in &found.reports {
//!     eprintln!("{report}");
//! }
//! ```
//!
//! Deliberately absent: renting Fly machines (the Fly provider does), any YAML from the network,
//! `fly` through a shell.

mod app_name;
mod cli;
mod config_file;
mod deploy;
mod discover;
mod logs;
mod process;
mod telemetry;
mod token;

pub use app_name::AppName;
pub use cli::FlyCli;
pub use deploy::{
    Ansi, DeployError, DeployEvent, DeployOutput, DeployRequest, DeployTicket, Deployment, Stage,
    plain,
};
pub use discover::{DEFAULT_DEPTH, Discovery, FlyApp, Problem, Report, discover_apps};
#[cfg(feature = "nats")]
pub use logs::NatsFeed;
pub use logs::{
    LogClient, LogCursor, LogEntry, LogEvent, LogFilter, LogHub, LogHubOptions, LogPage, LogSink,
    LogSubscription, SinkTask,
};
pub use process::Pipe;
#[cfg(feature = "redb")]
pub use token::RedbTokenStore;
#[cfg(feature = "conformance")]
pub use token::conformance;
pub use token::{
    Acquired, AnyTokenStore, AppCredential, FlyToken, MemoryTokenStore, MintScope, StoredToken,
    TokenScheme, TokenSlot, TokenSource, TokenStore, Tokens, TokensBuilder,
};
