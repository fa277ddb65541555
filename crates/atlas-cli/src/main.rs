//! The program `atlas`: reads the command line, runs one verb, answers with an exit code.

mod args;
mod demo;
mod failure;
mod keeper;
mod order;
mod output;
mod setup;
mod verbs;
mod view;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Global, Verb};
use crate::failure::Done;
use crate::keeper::Keeper;
use crate::output::Output;
use crate::setup::Setup;
use crate::verbs::machine::Act;

fn main() -> ExitCode {
    let cli = Cli::parse();
    trace();
    let out = Output::new(cli.global.json, cli.global.quiet);
    match run(cli, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.text() {
                out.warn(format!("atlas: {text}"));
            }
            failure.code()
        }
    }
}

fn run(cli: Cli, out: Output) -> Done {
    match cli.verb {
        Verb::Token(verb) => return verbs::token::run(verb, out),
        Verb::Url(verb) => return verbs::url::run(verb, out),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(work(cli.verb, &cli.global, out))
}

async fn work(verb: Verb, global: &Global, out: Output) -> Done {
    let setup = Setup::new(global)?;
    match verb {
        Verb::Demo => return demo::run(out).await,
        Verb::DemoWorker => return demo::worker::run(&setup, out).await,
        Verb::Spawn(args) => return verbs::spawn::spawn(*args, &setup, out).await,
        Verb::Run(args) => return verbs::spawn::run(*args, &setup, out).await,
        Verb::Gpus => return verbs::gpus::run(&setup, out).await,
        Verb::Sim(args) => return verbs::sim::run(args, out).await,
        _ => {}
    }
    let mut keeper = Keeper::find(&setup).await?;
    let done = match verb {
        Verb::Ls(args) => verbs::session::ls(&mut keeper, args.into(), out).await,
        Verb::Show { session, secrets } => verbs::session::show(&mut keeper, session, secrets, out).await,
        Verb::Touch { session } => verbs::session::touch(&mut keeper, session, out).await,
        Verb::Rm { session, wait } => verbs::session::rm(&mut keeper, session, wait, out).await,
        Verb::Events { session, since, follow } => verbs::session::events(&mut keeper, session, since, follow, out).await,
        Verb::Logs { session, tail, follow } => verbs::logs::run(&mut keeper, &setup, session, tail, follow, out).await,
        Verb::Stop { machine } => verbs::machine::act(&mut keeper, &setup, Act::Stop, &machine, out).await,
        Verb::Start { machine } => verbs::machine::act(&mut keeper, &setup, Act::Start, &machine, out).await,
        Verb::Reap { dry_run, acknowledge } => verbs::care::reap(&mut keeper, &setup, dry_run, acknowledge, out).await,
        Verb::Audit => verbs::care::audit(&mut keeper, &setup, out).await,
        Verb::Doctor { accept_store } => verbs::care::doctor(&mut keeper, &setup, accept_store, out).await,
        _ => Ok(()),
    };
    let left = keeper.leave().await;
    done.and(left)
}

/// Spans and events go to standard error, as `RUST_LOG` says; without it, warnings.
fn trace() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
        .with_writer(io::stderr)
        .init();
}
