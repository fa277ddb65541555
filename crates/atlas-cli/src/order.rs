//! The flags of `spawn` and `run`, and what is ordered with them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use atlas::span;
use atlas::{
    Auth, ComputeRequest, DiskSize, Error, Gpu, Port, Result, Secret, SessionOptions, Usd,
};
use clap::Args;

use crate::args::RawSecret;

/// The maximum runtime of a session without an idle limit.
const UNWATCHED: Duration = Duration::from_secs(24 * 3600);

/// What to rent, for `spawn` and `run`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Machine")]
pub(crate) struct MachineArgs {
    /// GPU by its canonical name, such as `h100`, `a100_80g` or `rtx_4090`; `atlas gpus` lists them
    #[arg(long, value_name = "NAME", conflicts_with = "cpu")]
    pub(crate) gpu: Option<Gpu>,
    /// Number of GPUs
    #[arg(long, value_name = "N", default_value_t = 1, requires = "gpu")]
    pub(crate) gpu_count: u32,
    /// Number of virtual CPUs of a machine without a GPU
    #[arg(long, value_name = "N")]
    pub(crate) cpu: Option<u32>,
    /// Container image
    #[arg(long, value_name = "REF")]
    pub(crate) image: String,
    /// Port to expose, such as `8000/http` or `22/tcp`. Repeatable
    #[arg(long, value_name = "N/http|tcp")]
    pub(crate) port: Vec<Port>,
    /// Environment variable of the container; NAME alone takes its value from the environment of
    /// atlas. Repeatable
    ///
    /// Every user of this host can read a command line: give a secret as NAME, or in a file with
    /// `--env-file`.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<RawSecret>,
    /// File of environment variables, one NAME=VALUE or NAME per line; lines that begin with `#`
    /// are comments. Repeatable; `--env` overrides it
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Name to show
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Region to try. Repeatable, best first
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Vec<String>,
    /// Accept capacity that the cloud may take back at any time
    #[arg(long)]
    pub(crate) spot: bool,
    /// Size of the container's disk in GB
    #[arg(long, value_name = "GB")]
    pub(crate) container_disk: Option<u32>,
    /// Size in GB of a disk that survives a stop
    #[arg(long, value_name = "GB")]
    pub(crate) volume: Option<u32>,
    /// Credential that the machine demands of its callers
    #[arg(long, value_name = "none|bearer|signed-url", default_value = "none")]
    pub(crate) auth: Auth,
}

/// When a session ends, and which user it is for.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Session")]
pub(crate) struct LimitArgs {
    /// End the session when nobody used it for this long, such as `15m` or `90s` [default:
    /// `idle_ttl` of the configuration file, else no idle limit and a `--max-runtime` of 24h]
    #[arg(long, value_name = "DUR", value_parser = span::parse)]
    pub(crate) idle_ttl: Option<Duration>,
    /// End the session after this long
    #[arg(long, value_name = "DUR", value_parser = span::parse)]
    pub(crate) max_runtime: Option<Duration>,
    /// End the session before it costs more than this
    #[arg(long, value_name = "USD")]
    pub(crate) max_cost: Option<Usd>,
    /// User that the session is for
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Order again without waiting when the outcome of an order is unknown; may rent twice
    #[arg(long)]
    pub(crate) hedge: bool,
}

impl MachineArgs {
    /// The request. `cpu_by_default` is for clouds that cost nothing: they need no machine to be
    /// named.
    pub(crate) fn request(
        &self,
        command: Vec<String>,
        cpu_by_default: bool,
    ) -> Result<ComputeRequest> {
        let base = match (self.gpu, self.cpu) {
            (Some(gpu), _) => ComputeRequest::gpu(gpu).gpu_count(self.gpu_count),
            (None, Some(cpus)) => ComputeRequest::cpu(cpus),
            (None, None) if cpu_by_default => ComputeRequest::cpu(1),
            (None, None) => {
                return Err(Error::validation(
                    "gpu",
                    "name a machine with --gpu NAME or --cpu N",
                ));
            }
        };
        let mut request = base
            .image(&self.image)
            .spot(self.spot)
            .auth(self.auth)
            .command(command);
        request.ports.clone_from(&self.port);
        request.region_hints.clone_from(&self.region);
        request.name.clone_from(&self.name);
        request.container_disk = self.container_disk.map(DiskSize::gb);
        request.volume = self.volume.map(DiskSize::gb);
        for (name, value) in self.variables(|name| env::var_os(name))? {
            request = request.env(name, value);
        }
        request.validate()?;
        Ok(request)
    }

    /// The container's environment; what is given by name alone is looked up in `own`. An error
    /// names a variable by its place only: its text may be a secret.
    fn variables(&self, own: impl Fn(&str) -> Option<OsString>) -> Result<Vec<(String, Secret)>> {
        let mut variables = Vec::new();
        for path in &self.env_file {
            let file = path.display();
            let read = fs::read_to_string(path).map(Secret::new).map_err(|error| {
                Error::validation("env_file", format!("could not read {file}")).with_source(error)
            })?;
            let text = read.expose().trim_start_matches('\u{feff}');
            for (line, text) in (1..).zip(text.lines()) {
                if text.trim().is_empty() || text.trim_start().starts_with('#') {
                    continue;
                }
                let variable = variable(text, &own).map_err(|why| {
                    Error::validation("env_file", format!("{file}, line {line} {why}"))
                })?;
                variables.push(variable);
            }
        }
        for (number, given) in (1..).zip(&self.env) {
            let variable = variable(given.0.expose(), &own)
                .map_err(|why| Error::validation("env", format!("number {number} {why}")))?;
            variables.push(variable);
        }
        Ok(variables)
    }
}

impl LimitArgs {
    /// The session's limits. `idle_ttl` counts where none is given; a session without an idle limit
    /// lives a day at most.
    pub(crate) fn options(&self, idle_ttl: Option<Duration>) -> SessionOptions {
        let idle_ttl = self.idle_ttl.or(idle_ttl);
        let mut options = match idle_ttl {
            Some(ttl) => SessionOptions::new().idle_ttl(ttl),
            None => SessionOptions::new().no_idle_ttl(),
        };
        let longest = idle_ttl.is_none().then_some(UNWATCHED);
        options.max_runtime = self.max_runtime.or(longest);
        options.max_cost = self.max_cost;
        options.user_id.clone_from(&self.user);
        options.hedge = self.hedge;
        options
    }
}

/// Reads `NAME=VALUE`, or `NAME` with the value that `own` has. An error does not repeat the text.
fn variable(
    text: &str,
    own: impl Fn(&str) -> Option<OsString>,
) -> Result<(String, Secret), &'static str> {
    if let Some((name, value)) = text.split_once('=') {
        return Ok((name.to_owned(), Secret::new(value)));
    }
    let value = own(text).ok_or("is not NAME=VALUE, nor the name of a variable that is set")?;
    let value = value
        .into_string()
        .map_err(|_| "names a variable whose value is not UTF-8")?;
    Ok((text.to_owned(), Secret::new(value)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Both {
        #[command(flatten)]
        machine: MachineArgs,
        #[command(flatten)]
        limits: LimitArgs,
    }

    fn parsed(flags: &str) -> Both {
        Both::try_parse_from(std::iter::once("x").chain(flags.split_whitespace())).unwrap()
    }

    #[test]
    fn every_flag_of_the_machine_reaches_the_request() {
        let flags = "--gpu h100 --gpu-count 2 --image x/y:1 --port 8000/http --port 22/tcp --env \
            A=1 --env B=x=y --name n --region EU \
                     --region US --spot --container-disk 50 --volume 20 --auth bearer";
        let request = parsed(flags)
            .machine
            .request(vec!["sh".to_owned()], false)
            .unwrap();
        assert_eq!(
            (
                request.gpu_count,
                request.spot,
                request.ports.len(),
                request.env.len()
            ),
            (2, true, 2, 2)
        );
        assert_eq!(
            (request.env["B"].expose(), request.name.as_deref()),
            ("x=y", Some("n"))
        );
        assert_eq!(request.region_hints, ["EU", "US"]);
        assert_eq!(
            (
                request.container_disk.unwrap().as_gb(),
                request.volume.unwrap().as_gb()
            ),
            (50, 20)
        );
        assert_eq!(
            (request.auth, request.command),
            (atlas::Auth::Bearer, vec!["sh".to_owned()])
        );
    }

    #[test]
    fn a_variable_without_a_value_is_named_by_its_place_only() {
        let error = parsed("--cpu 1 --image x --env A=1 --env hunter2")
            .machine
            .request(vec![], false)
            .unwrap_err();
        assert!(
            error.to_string().contains("number 2") && !error.to_string().contains("hunter2"),
            "{error}"
        );
    }

    #[test]
    fn only_a_cloud_that_costs_nothing_needs_no_machine_named() {
        assert_eq!(
            parsed("--image x")
                .machine
                .request(vec![], false)
                .unwrap_err()
                .field(),
            Some("gpu")
        );
        assert_eq!(
            parsed("--image x")
                .machine
                .request(vec![], true)
                .unwrap()
                .cpu,
            Some(1)
        );
    }

    #[test]
    fn a_session_without_an_idle_limit_lives_a_day() {
        let limits = |flags: &str, configured| {
            let options = parsed(flags).limits.options(configured);
            (options.idle_ttl, options.max_runtime)
        };
        let minutes = |minutes: u64| Some(Duration::from_secs(60 * minutes));
        assert_eq!(limits("--image x", None), (None, Some(UNWATCHED)));
        assert_eq!(limits("--image x", minutes(20)), (minutes(20), None));
        assert_eq!(
            limits("--image x --idle-ttl 15m", minutes(20)),
            (minutes(15), None)
        );
        assert_eq!(
            limits("--image x --idle-ttl 15m --max-runtime 1h", None),
            (minutes(15), minutes(60))
        );
    }

    #[test]
    fn variables_come_from_arguments_files_and_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        let text = "\u{feff}# comment\r\n\r\nA=from file\r\nB=2\nHUSH\n";
        std::fs::write(&file, text).unwrap();
        let flags = format!(
            "--cpu 1 --image x --env-file {} --env B=x=y --env QUIET",
            file.display()
        );
        let own = |name: &str| Some(OsString::from(format!("own {name}")));
        let variables = parsed(&flags).machine.variables(own).unwrap();
        let shown: Vec<(&str, &str)> = variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose()))
            .collect();
        assert_eq!(
            shown,
            [
                ("A", "from file"),
                ("B", "2"),
                ("HUSH", "own HUSH"),
                ("B", "x=y"),
                ("QUIET", "own QUIET"),
            ]
        );
        let missing = parsed(&flags).machine.variables(|_| None).unwrap_err();
        assert!(
            missing.to_string().contains("line 5") && !missing.to_string().contains("HUSH"),
            "{missing}"
        );
    }
}
