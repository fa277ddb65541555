//! Runs one program, and defines the failure of a step.

use std::ffi::OsStr;
use std::process::Command;

/// A step failed; the exit code to leave with. What went wrong has been printed.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) u8);

/// A call of cargo.
#[derive(Debug)]
pub(crate) struct Cargo(Command);

impl Cargo {
    pub(crate) fn new(subcommand: &str) -> Self {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.arg(subcommand);
        Self(command)
    }

    /// Runs a binary of the workspace, built with optimisation. No package is named: each would
    /// have features of its own in crates that all of them use, and tokio with all its dependents
    /// would be built again for each.
    pub(crate) fn release(binary: &str) -> Self {
        Self::new("run").args(["--quiet", "--release", "--bin", binary, "--"])
    }

    pub(crate) fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.0.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    pub(crate) fn run(mut self) -> Result<(), Failed> {
        match self.0.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failed(
                status
                    .code()
                    .and_then(|code| u8::try_from(code).ok())
                    .unwrap_or(1),
            )),
            Err(error) => {
                eprintln!("xtask: cargo did not start: {error}");
                Err(Failed(1))
            }
        }
    }

    /// What it prints on stdout.
    pub(crate) fn stdout(mut self) -> Result<Vec<u8>, Failed> {
        let output = self
            .0
            .stderr(std::process::Stdio::inherit())
            .output()
            .map_err(|error| {
                eprintln!("xtask: cargo did not start: {error}");
                Failed(1)
            })?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(Failed(1))
        }
    }
}
