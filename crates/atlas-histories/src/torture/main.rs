//! `cargo xtask torture`: real processes on a real disk, killed at random moments, judged by the
//! simulated cloud's ledger.
//!
//! The parent serves `atlas-sim` on TCP and starts this binary again as a worker, which runs
//! sessions on one redb file. Deliberately absent: simulated time and anything inside the
//! orchestrator; the worker is a program like any user's.

mod campaign;
mod chance;
mod child;
mod disk;
mod faked;
mod judge;
mod orders;
mod worker;

use std::process::ExitCode;

use serde::Serialize;

use campaign::Campaign;

const USAGE: &str = "usage: torture --store redb [--full] [--kills N] [--seed N] [--json]";
/// Kills of a short run and of a full one.
const KILLS: (u32, u32) = (10, 60);

/// What a run found, in the shape that scripts read.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Score {
    kills: u32,
    pauses: u32,
    /// Pauses longer than a lease.
    long_pauses: u32,
    clock_steps: u32,
    full_disks: u32,
    /// Times that an older copy of the store took the place of the newest, and gave it back.
    fail_backs: u32,
    db_kills: u32,
    created: u64,
    leaked: usize,
    lost: usize,
    double: usize,
    event_gaps: usize,
}

struct Args {
    full: bool,
    kills: Option<u32>,
    seed: u64,
    json: bool,
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    if args.peek().is_some_and(|first| first == orders::WORKER) {
        return worker::main();
    }
    let args = match parse(args) {
        Ok(args) => args,
        Err(message) => {
            eprintln!("torture: {message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let kills = args
        .kills
        .unwrap_or(if args.full { KILLS.1 } else { KILLS.0 });
    match Campaign::new(args.seed, kills, args.full).and_then(Campaign::run) {
        Ok(verdict) => {
            for complaint in &verdict.complaints {
                eprintln!("torture: {complaint}");
            }
            if args.json {
                println!(
                    "{}",
                    serde_json::to_string(&verdict.score).unwrap_or_default()
                );
            } else {
                println!("{:#?}", verdict.score);
            }
            if verdict.complaints.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(message) => {
            eprintln!("torture: seed {}: {message}", args.seed);
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut parsed = Args {
        full: false,
        kills: None,
        seed: 1,
        json: false,
    };
    let mut store = None;
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} takes a value"));
        match arg.as_str() {
            "--store" => store = Some(value()?),
            "--kills" => {
                parsed.kills = Some(value()?.parse().map_err(|_| "--kills takes a number")?)
            }
            "--seed" => parsed.seed = value()?.parse().map_err(|_| "--seed takes a number")?,
            "--full" => parsed.full = true,
            "--json" => parsed.json = true,
            other => return Err(format!("{other} is not an option")),
        }
    }
    match store.as_deref() {
        Some("redb") => Ok(parsed),
        Some(other) => Err(format!("there is no store {other} to torture")),
        None => Err("--store says which store".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_store_that_there_is_can_be_tortured() {
        let args = |line: &str| parse(line.split_whitespace().map(str::to_owned));
        assert!(
            args("--store redb --full --json --seed 3")
                .is_ok_and(|args| args.full && args.json && args.seed == 3)
        );
        for wrong in [
            "",
            "--store",
            "--store paper",
            "--store redb --kills many",
            "--store redb --gently",
        ] {
            assert!(args(wrong).is_err(), "{wrong}");
        }
    }
}
