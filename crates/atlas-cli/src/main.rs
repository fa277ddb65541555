//! The program `atlas`: reads the command line, runs one verb, answers with an exit code.

mod args;
mod failure;
mod output;
mod verbs;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Verb};
use crate::output::Output;

fn main() -> ExitCode {
    let cli = Cli::parse();
    trace();
    let out = Output::new(cli.global.json);
    let done = match cli.verb {
        Verb::Token(verb) => verbs::token::run(verb, out),
        Verb::Url(verb) => verbs::url::run(verb, out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.text() {
                out.warn(format!("atlas: {text}"));
            }
            failure.code()
        }
    }
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
