//! `atlas sim`: the simulated clouds on this machine.

use std::io::Write as _;
use std::path::Path;

use atlas::testkit::dialect::CLOUDS;
use atlas_sim::{FaultFile, KEY, Options, Ready};

use crate::args::SimArgs;
use crate::failure::{Done, Failure};
use crate::output::Output;

pub(crate) async fn run(args: SimArgs, out: Output) -> Done {
    if !(args.speed.is_finite() && args.speed > 0.0) {
        return Err(Failure::usage("--speed must be greater than 0"));
    }
    let mut options = Options::default();
    options.listen = args.listen;
    options.seed = args.seed;
    options.speed = args.speed;
    if let Some(path) = &args.faults {
        let wrong = |why: String| Failure::usage(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        options = FaultFile::read(&text).map_err(wrong)?.apply(options);
    }
    let sim = atlas_sim::serve(options).await?;
    if let Some(path) = &args.write_config {
        write_config(path, sim.ready())?;
    }
    out.line(&sim.ready().line())?;
    // Until Ctrl-C, which is how a simulator is meant to end.
    tokio::signal::ctrl_c().await?;
    sim.stop().await;
    Ok(())
}

/// Writes a configuration for these clouds. It is there whole or not at all, so that a script can
/// wait for it.
fn write_config(path: &Path, ready: &Ready) -> Done {
    let bounds = &ready.bounds;
    let mut text = format!(
        "# The simulated clouds of one run of `atlas sim`.\n\
         default_provider = \"runpod\"\n\
         [orchestrator]\n\
         poll_interval = {}\nreap_interval = {}\nreap_grace = {}\n",
        bounds.poll_interval_ms, bounds.reap_interval_ms, bounds.grace_ms,
    );
    for cloud in CLOUDS {
        text += &format!(
            "[accounts.{}]\n\
             base_url = \"{}\"\napi_key = \"{KEY}\"\n\
             visibility_bound = {}\ncall_deadline = {}\ncall_interval = {}\n",
            cloud.name,
            ready.base_url(cloud.name),
            bounds.visibility_bound_ms,
            bounds.call_deadline_ms,
            bounds.call_interval_ms,
        );
        for (setting, value) in cloud.client.settings {
            text += &format!("{setting} = \"{value}\"\n");
        }
    }
    let failed = |error: std::io::Error| {
        Failure::new(format!("could not write {}: {error}", path.display()))
    };
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut draft = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    draft.write_all(text.as_bytes()).map_err(failed)?;
    draft.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
