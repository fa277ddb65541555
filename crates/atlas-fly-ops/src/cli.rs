//! The `fly` executable: its path, and the environment it gets. It never runs through a shell, and
//! never gets a secret in its arguments.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use atlas_core::{Error, ErrorKind, Result};
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::process::{Group, Pipe};
use crate::token::FlyToken;

/// The variables of our own environment that a child gets. The others may hold the host's secrets
/// or, inside a Fly machine, that machine's `FLY_REGION` and `FLY_APP`, which `fly` would use as
/// options.
const PASSED_ON: [&str; 34] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "TZ",
    "SSH_AUTH_SOCK",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "FLY_CONFIG_DIR",
    "FLY_API_BASE_URL",
    "FLY_FLAPS_BASE_URL",
    "FLY_ORG",
    "FLY_ORGANIZATION",
    "FLY_ACCESS_TOKEN",
    "FLY_API_TOKEN",
];

/// The maximum length of a short command's stored output.
const MAX_ANSWER: usize = 256 * 1024;

/// How to run `fly`.
#[derive(Clone, Default)]
pub struct FlyCli {
    program: Option<PathBuf>,
    search_path: Option<OsString>,
    env: BTreeMap<OsString, OsString>,
}

/// The result of a short command.
pub(crate) struct CommandAnswer {
    pub(crate) status: ExitStatus,
    /// Standard output only; standard error is read and discarded.
    pub(crate) stdout: Zeroizing<String>,
}

impl fmt::Debug for FlyCli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlyCli")
            .field("program", &self.program)
            .field("search_path", &self.search_path)
            .field("env", &self.env.keys())
            .finish()
    }
}

impl FlyCli {
    /// `fly`, or `flyctl`, from the `PATH`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses this executable.
    #[must_use]
    pub fn program(self, program: impl Into<PathBuf>) -> Self {
        Self {
            program: Some(program.into()),
            ..self
        }
    }

    /// Searches these directories instead of those of the `PATH`.
    #[must_use]
    pub fn search_path(self, folders: impl Into<OsString>) -> Self {
        Self {
            search_path: Some(folders.into()),
            ..self
        }
    }

    /// Adds a variable to the child's environment. `Debug` shows its name only.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// The executable, if there is one.
    #[must_use]
    pub fn find(&self) -> Option<PathBuf> {
        let runs = |path: &PathBuf| {
            path.metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        if let Some(program) = &self.program {
            return Some(program.clone()).filter(runs);
        }
        let folders = self.search_path.clone().or_else(|| env::var_os("PATH"))?;
        ["fly", "flyctl"]
            .into_iter()
            .flat_map(|name| {
                env::split_paths(&folders)
                    .map(move |folder| folder.join(name))
                    .collect::<Vec<_>>()
            })
            .find(runs)
    }

    /// A command without arguments; `None` if there is no executable.
    pub(crate) fn command(&self, token: Option<&FlyToken>) -> Option<Command> {
        // Absolute, because the child starts in another directory and must not find another `fly`
        // there.
        let mut command = Command::new(std::path::absolute(self.find()?).ok()?);
        command.env_clear();
        for name in PASSED_ON {
            // For `fly`, a variable that is set and blank hides a valid one after it.
            if let Some(value) = env::var_os(name)
                .filter(|value| !value.as_os_str().to_string_lossy().trim().is_empty())
            {
                command.env(name, value);
            }
        }
        command.envs([
            ("CI", "1"),
            ("NO_COLOR", "1"),
            ("FLY_NO_UPDATE_CHECK", "1"),
            ("FLY_SEND_METRICS", "0"),
        ]);
        if let Some(token) = token {
            command
                .env_remove("FLY_ACCESS_TOKEN")
                .env("FLY_API_TOKEN", token.joined().expose());
        }
        command.envs(&self.env);
        Some(command)
    }

    /// Runs a short command to its end.
    pub(crate) async fn run<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        limit: Duration,
    ) -> Result<CommandAnswer> {
        let missing = || {
            Error::new(
                ErrorKind::Unavailable,
                "no runnable fly executable was found",
            )
        };
        let mut command = self.command(None).ok_or_else(missing)?;
        command.args(arguments);
        let mut group = Group::spawn(command).map_err(|_| missing())?;
        let mut stdout = Zeroizing::new(Vec::new());
        let ended = tokio::time::timeout(limit, async {
            while let Some((pipe, bytes)) = group.next().await {
                let bytes = Zeroizing::new(bytes);
                if pipe == Pipe::Stdout && stdout.len() + bytes.len() <= MAX_ANSWER {
                    stdout.extend_from_slice(&bytes);
                }
            }
        })
        .await;
        let status = group.finish().await;
        match (ended, status) {
            (Err(_), _) => Err(Error::new(ErrorKind::Timeout, "fly did not answer in time")),
            (Ok(()), Err(_)) => Err(Error::new(
                ErrorKind::Unavailable,
                "how fly ended cannot be told",
            )),
            (Ok(()), Ok(status)) => {
                let stdout = Zeroizing::new(String::from_utf8_lossy(&stdout).into_owned());
                Ok(CommandAnswer { status, stdout })
            }
        }
    }
}
