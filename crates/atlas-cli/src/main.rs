//! The program `atlas`: reads the command line, runs one verb, answers with an exit code.

mod args;
mod demo;
mod demo_cloud;
mod failure;
mod keeper;
mod order;
mod output;
mod probe;
mod setup;
mod verbs;
mod view;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Global, KeptVerb, PlainVerb, Verb};
use crate::failure::{Done, Failure};
use crate::keeper::{Keeper, Slot};
use crate::output::Output;
use crate::setup::Setup;
use crate::verbs::machine::Act;

fn main() -> ExitCode {
    let cli = Cli::parse();
    output::trace();
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    match cli.verb {
        Verb::Plain(verb) => runtime.block_on(plain(verb, &cli.global, out)),
        Verb::Kept(verb) => runtime.block_on(work(verb, &cli.global, out)),
    }
}

/// Runs a verb, and lets go of the store however it ended. Ctrl-C ends the waiting, not what was
/// begun: that is on record.
async fn work(verb: KeptVerb, global: &Global, out: Output) -> Done {
    let mut slot = None;
    let done = tokio::select! {
        biased;
        asked = tokio::signal::ctrl_c() => asked.map_err(Failure::from).and(Err(Failure::interrupted())),
        done = obey(verb, global, &mut slot, out) => done,
    };
    let left = match slot {
        Some(keeper) => keeper.leave().await,
        None => Ok(()),
    };
    done.and(left)
}

async fn plain(verb: PlainVerb, global: &Global, out: Output) -> Done {
    match verb {
        PlainVerb::Demo { clouds } => demo::run(clouds, out).await,
        PlainVerb::Sim(args) => verbs::sim::run(args, out).await,
        PlainVerb::Token(verb) => verbs::token::run(verb, out),
        PlainVerb::Url(verb) => verbs::url::run(verb, out),
        PlainVerb::Fly(verb) => verbs::fly::run(verb, global, out).await,
    }
}

async fn obey(verb: KeptVerb, global: &Global, slot: &mut Slot, out: Output) -> Done {
    let setup = &Setup::new(global)?;
    match verb {
        KeptVerb::DemoWorker => demo::worker::run(setup, out).await,
        KeptVerb::Spawn(args) => verbs::spawn::spawn(*args, setup, slot, out).await,
        KeptVerb::Run(args) => verbs::spawn::run(*args, setup, slot, out).await,
        KeptVerb::Gpus(args) => verbs::gpus::run(args, setup, out).await,
        KeptVerb::Job(verb) => verbs::job::run(verb, setup, out).await,
        KeptVerb::Ls(args) => verbs::session::ls(kept(slot, setup).await?, args.into(), out).await,
        KeptVerb::Show { session, secrets } => {
            verbs::session::show(kept(slot, setup).await?, session, secrets, out).await
        }
        KeptVerb::Touch { session } => {
            verbs::session::touch(kept(slot, setup).await?, session, out).await
        }
        KeptVerb::Rm { session, wait } => {
            verbs::session::rm(kept(slot, setup).await?, session, wait, out).await
        }
        KeptVerb::Events {
            session,
            since,
            follow,
        } => verbs::session::events(kept(slot, setup).await?, session, since, follow, out).await,
        KeptVerb::Logs {
            session,
            tail,
            follow,
        } => verbs::logs::run(kept(slot, setup).await?, setup, session, tail, follow, out).await,
        KeptVerb::Stop { machine } => {
            verbs::machine::act(kept(slot, setup).await?, setup, Act::Stop, &machine, out).await
        }
        KeptVerb::Start { machine } => {
            verbs::machine::act(kept(slot, setup).await?, setup, Act::Start, &machine, out).await
        }
        KeptVerb::Reap {
            dry_run,
            acknowledge,
        } => verbs::care::reap(kept(slot, setup).await?, setup, dry_run, acknowledge, out).await,
        KeptVerb::Audit => verbs::care::audit(kept(slot, setup).await?, setup, out).await,
        KeptVerb::Doctor {
            end_all: true, yes, ..
        } => verbs::lost::end_all(setup, yes, out).await,
        KeptVerb::Doctor {
            accept_store,
            accept_account,
            ..
        } => {
            let accepts = verbs::care::Accepts {
                store: accept_store,
                account: accept_account,
            };
            verbs::care::doctor(kept(slot, setup).await?, setup, accepts, out).await
        }
    }
}

/// The process that holds the store from now on.
async fn kept<'a>(slot: &'a mut Slot, setup: &Setup) -> Done<&'a mut Keeper> {
    Ok(slot.insert(Keeper::find(setup).await?))
}
