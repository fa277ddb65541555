//! The guard's command line: `atlas-guard [--listen IP:PORT] [--upstream IP:PORT] [-- COMMAND
//! ARGUMENT…]`.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use atlas_guard::child::Server;
use atlas_guard::{Config, Guard};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: atlas-guard [--listen IP:PORT] [--upstream IP:PORT] [-- COMMAND \
    ARGUMENT...]
The credential comes from ATLAS_PRESHARED_KEY or ATLAS_SIGNING_SECRET; everything else from \
    ATLAS_GUARD_*.";
/// EX_SOFTWARE of sysexits.h: not a usual exit code of servers, so that an expired permit can be
/// distinguished from a crash.
const LAPSED: u8 = 70;

fn main() -> ExitCode {
    let (config, command) = match arguments() {
        Ok(parsed) => parsed,
        Err(problem) => {
            say(&format!("{problem}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime.and_then(|runtime| runtime.block_on(run(config, &command))) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Prints to stderr. A closed stderr is no reason to exit.
fn say(text: &str) {
    let _unread = writeln!(std::io::stderr(), "atlas-guard: {text}");
}

/// Raises the limit of open files to the system's maximum: a stream needs two, and containers often
/// start with 1,024.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .is_err()
    {
        say("the limit of open files stays as it is");
    }
}

/// Prevents the server, which may run as the same user, from reading the guard's environment and
/// memory through `/proc`.
#[cfg(target_os = "linux")]
fn hide_memory() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    if set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err() {
        say("the guard's memory stays readable to its user");
    }
}

#[cfg(not(target_os = "linux"))]
fn hide_memory() {}

fn arguments() -> Result<(Config, Vec<OsString>), String> {
    let mut config =
        Config::from_env(|name| std::env::var(name).ok()).map_err(|error| error.to_string());
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        let argument = argument
            .into_string()
            .map_err(|_| "an argument is not UTF-8")?;
        let mut value = || {
            arguments
                .next()
                .and_then(|value| value.into_string().ok())
                .unwrap_or_default()
        };
        config = match argument.as_str() {
            "--listen" => config?.listen(&value()).map_err(|error| error.to_string()),
            "--upstream" => config?
                .upstream(&value())
                .map_err(|error| error.to_string()),
            "--" => break,
            "--help" | "-h" => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            _ => return Err(format!("unknown argument {argument}")),
        };
    }
    Ok((config?, arguments.collect()))
}

/// Runs guard and server until one ends, the permit expires or a signal arrives. Returns the exit
/// code.
async fn run(config: Config, command: &[OsString]) -> std::io::Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let warnings = config.warnings().to_vec();
    let guard = Guard::bind(config).await?;
    let permit = guard.permit();
    say(&format!("listening on {}", guard.local_addr()?));
    for warning in warnings {
        say(&warning.to_string());
    }
    if !command.is_empty() {
        hide_memory();
    }
    let mut server = Server::start(command)?;
    // Only after the server was started, so that the server keeps its own limit.
    raise_file_limit();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(guard.serve(async move {
        // Dropped or sent, both mean the end.
        let _over = stopped.await;
    }));
    let code = tokio::select! {
        biased;
        () = permit.lapsed() => {
            say("the permit was not renewed in time, ending the machine");
            server.stop().await;
            return Ok(LAPSED);
        }
        code = server.ended() => return Ok(code),
        _ = terminate.recv() => 0,
        _ = interrupt.recv() => 0,
    };
    drop(stop);
    // Requests end first, then the server that answers them.
    if let Err(error) = serving.await {
        say(&error.to_string());
    }
    Ok(server.stop().await.unwrap_or(code))
}
