//! The simulated clouds as a program: one JSON line when ready, then until a signal.

use std::io::Write;
use std::process::ExitCode;

use atlas_sim::{Command, FaultFile, Options};

const USAGE: &str = "usage: atlas-sim --listen 127.0.0.1:0 [--seed N] [--speed X] [--faults FILE]";

fn main() -> ExitCode {
    let (options, file) = match atlas_sim::parse(std::env::args().skip(1)) {
        Ok(Command::Help) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Ok(Command::Serve(options, file)) => (*options, file),
        Err(wrong) => {
            eprintln!("atlas-sim: {wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let faults = file.map_or(Ok(FaultFile::default()), |file| {
        let text = std::fs::read_to_string(&file).map_err(|error| error.to_string());
        text.and_then(|text| FaultFile::read(&text))
            .map_err(|wrong| format!("{}: {wrong}", file.display()))
    });
    let done =
        faults.and_then(|faults| run(faults.apply(options)).map_err(|error| error.to_string()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("atlas-sim: {wrong}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let ended = ended()?;
        let sim = atlas_sim::serve(options).await?;
        let mut out = std::io::stdout();
        writeln!(out, "{}", sim.ready().line())?;
        out.flush()?;
        ended.await;
        sim.stop().await;
        Ok(())
    })
}

/// Resolves at the first ctrl-c or SIGTERM. The handlers are there when this returns.
fn ended() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    Ok(async move {
        tokio::select! { biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
