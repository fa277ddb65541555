//! The flags of `spawn` and `run`, and what is ordered with them.

use std::time::Duration;

use atlas::span;
use atlas::{Auth, ComputeRequest, DiskSize, Error, Gpu, Port, Result, Secret, Usd};
use clap::Args;

use crate::args::RawSecret;

/// How long a session may live that was given no idle limit: nobody is there to touch it.
const UNWATCHED: Duration = Duration::from_secs(24 * 3600);

/// What to rent, for `spawn` and `run`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The machine")]
pub(crate) struct MachineArgs {
    /// A GPU by its canonical name: `h100`, `a100_80g`, `rtx_4090`; `atlas gpus` lists them.
    #[arg(long, value_name = "NAME", conflicts_with = "cpu")]
    pub(crate) gpu: Option<Gpu>,
    /// How many of it.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "gpu")]
    pub(crate) gpu_count: u32,
    /// No GPU, but so many virtual CPUs.
    #[arg(long, value_name = "N")]
    pub(crate) cpu: Option<u32>,
    /// The container image.
    #[arg(long, value_name = "REF")]
    pub(crate) image: String,
    /// A port to expose: `8000/http`, `22/tcp`. May be repeated.
    #[arg(long, value_name = "N/http|tcp")]
    pub(crate) port: Vec<Port>,
    /// A variable of the container. May be repeated.
    #[arg(long, value_name = "K=V")]
    pub(crate) env: Vec<RawSecret>,
    /// A name for people.
    #[arg(long, value_name = "S")]
    pub(crate) name: Option<String>,
    /// A region to try. May be repeated, best first.
    #[arg(long, value_name = "R")]
    pub(crate) region: Vec<String>,
    /// Accept capacity that the cloud may take back at any time.
    #[arg(long)]
    pub(crate) spot: bool,
    /// The container's disk, in GB.
    #[arg(long, value_name = "GB")]
    pub(crate) container_disk: Option<u32>,
    /// A disk that survives a stop, in GB.
    #[arg(long, value_name = "GB")]
    pub(crate) volume: Option<u32>,
    /// What a caller of the machine must show.
    #[arg(long, value_name = "none|bearer|signed-url", default_value = "none")]
    pub(crate) auth: Auth,
}

/// When a session ends, and whose it is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The session")]
pub(crate) struct LimitArgs {
    /// Ends it when nobody touched it for so long (`15m`, `90s`). Without it, `--max-runtime` is
    /// 24h.
    #[arg(long, value_name = "DUR", value_parser = span::parse)]
    pub(crate) idle_ttl: Option<Duration>,
    /// Ends it after so long, whatever happens.
    #[arg(long, value_name = "DUR", value_parser = span::parse)]
    pub(crate) max_runtime: Option<Duration>,
    /// Ends it before it has cost more than this.
    #[arg(long, value_name = "USD")]
    pub(crate) max_cost: Option<Usd>,
    /// Whose session it is.
    #[arg(long, value_name = "S")]
    pub(crate) user: Option<String>,
    /// Rather rent twice than wait, when a create's outcome is unknown.
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
        for (at, pair) in self.env.iter().enumerate() {
            let (name, value) = variable(pair, at)?;
            request = request.env(name, value);
        }
        request.validate()?;
        Ok(request)
    }
}

impl LimitArgs {
    /// The longest life: as given, or a day for a session that is not idle-limited.
    pub(crate) fn longest(&self) -> Option<Duration> {
        self.max_runtime
            .or_else(|| self.idle_ttl.is_none().then_some(UNWATCHED))
    }
}

/// Splits `K=V`. An error says which one was wrong by its place: its text may be a secret.
fn variable(pair: &RawSecret, at: usize) -> Result<(String, Secret)> {
    let (name, value) = pair.0.expose().split_once('=').ok_or_else(|| {
        Error::validation(
            "env",
            format!("number {} is not of the form NAME=VALUE", at + 1),
        )
    })?;
    Ok((name.to_owned(), Secret::new(value)))
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
        let flags = "--gpu h100 --gpu-count 2 --image x/y:1 --port 8000/http --port 22/tcp --env A=1 --env B=x=y --name n --region EU \
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
        assert_eq!(parsed("--image x").limits.longest(), Some(UNWATCHED));
        assert_eq!(parsed("--image x --idle-ttl 15m").limits.longest(), None);
        assert_eq!(
            parsed("--image x --idle-ttl 15m --max-runtime 1h")
                .limits
                .longest(),
            Some(Duration::from_secs(3600))
        );
    }
}
