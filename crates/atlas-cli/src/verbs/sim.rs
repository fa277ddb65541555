//! `atlas sim`: the simulated clouds on this machine.

use atlas_sim::{FaultFile, Options};

use crate::args::SimArgs;
use crate::failure::{Done, Failure};
use crate::output::Output;

pub(crate) async fn run(args: SimArgs, out: Output) -> Done {
    if !(args.speed.is_finite() && args.speed > 0.0) {
        return Err(Failure::usage("--speed must be more than 0"));
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
    out.line(&sim.ready().line())?;
    // Until Ctrl-C, which is how a simulator is meant to end.
    tokio::signal::ctrl_c().await?;
    sim.stop().await;
    Ok(())
}
