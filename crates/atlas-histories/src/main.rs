//! `cargo xtask sim`: runs histories and reports what they found.

use std::process::ExitCode;

use atlas_histories::cloud::Cloud;
use atlas_histories::{run, sabotage};
use serde_json::json;

const USAGE: &str = "usage: sim [--seeds N] [--from S] [--clouds NAME,...] \
    [--sabotage NAME|all] [--json]";

struct Args {
    seeds: Option<u64>,
    from: u64,
    clouds: Vec<Cloud>,
    sabotage: Option<String>,
    json: bool,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(message) => {
            eprintln!("sim: {message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match &args.sabotage {
        Some(name) => sabotaged(
            name,
            &args.clouds,
            args.seeds.unwrap_or(sabotage::SEEDS),
            args.json,
        ),
        None => histories(&args),
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut parsed = Args {
        seeds: None,
        from: 0,
        clouds: Cloud::all(),
        sabotage: None,
        json: false,
    };
    while let Some(arg) = args.next() {
        let mut number = |name: &str| {
            args.next()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| format!("{name} takes a number"))
        };
        match arg.as_str() {
            "--seeds" => parsed.seeds = Some(number("--seeds")?),
            "--from" => parsed.from = number("--from")?,
            "--clouds" => {
                let named = args
                    .next()
                    .ok_or("--clouds takes names with commas between")?;
                parsed.clouds = named.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            "--sabotage" => {
                parsed.sabotage = Some(args.next().ok_or("--sabotage takes a name, or all")?)
            }
            "--json" => parsed.json = true,
            other => return Err(format!("{other} is not an option")),
        }
    }
    Ok(parsed)
}

fn histories(args: &Args) -> ExitCode {
    let report = run::seeds(&args.clouds, args.from, args.seeds.unwrap_or(100));
    if let Some(first) = report.violations.first() {
        let (steps, shortest) = run::shortest(&args.clouds, first);
        eprintln!(
            "seed {} breaks {} within its first {steps} steps:\n{}",
            first.seed, first.invariant, shortest.story
        );
    }
    if args.json {
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    } else {
        println!(
            "{} histories, {} crashes, {} spawns, {:.0} simulated hours in {:.1} s; {} violations; \
                crashed at {} % of {} places; {}",
            report.histories,
            report.crashes,
            report.spawns,
            report.sim_hours,
            report.wall_s,
            report.violations.len(),
            report.awaits_crashed_percent,
            report.awaits_reached,
            report.hash,
        );
        for (cloud, of) in &report.clouds {
            println!(
                "  {cloud:8} {} histories, {} crashes, {} spawns",
                of.seeds, of.crashes, of.spawns
            );
        }
        for (kind, count) in &report.faults {
            println!("  {kind:24} {count}");
        }
        for (promise, percent) in &report.judged_percent {
            println!("  {promise} judged in {percent} % of the histories");
        }
        for (excuse, count) in &report.excuses {
            println!("  excused {count} times: {excuse}");
        }
    }
    // Fewer histories cannot be expected to crash everywhere.
    let enough = report.seeds < 300 || report.awaits_crashed_percent >= 90;
    if !enough {
        eprintln!(
            "sim: nodes crashed at only {} % of the places where they wait; never at {:?}",
            report.awaits_crashed_percent, report.awaits_never_crashed
        );
    }
    if report.violations.is_empty() && enough {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn sabotaged(name: &str, clouds: &[Cloud], seeds: u64, as_json: bool) -> ExitCode {
    let caught = match sabotage::run(name, clouds, seeds) {
        Ok(caught) => caught,
        Err(message) => {
            eprintln!("sim: {message}");
            return ExitCode::from(2);
        }
    };
    if as_json {
        println!("{}", json!({ "sabotage": caught }));
    } else {
        for (name, one) in &caught {
            println!(
                "{name:20} {} {} by seed {:?} in {} histories",
                if one.caught { "caught" } else { "MISSED" },
                one.invariant,
                one.seed,
                one.histories
            );
            for seed in &one.unclean {
                println!("{name:20} seed {seed} on record breaks the promise with it too");
            }
        }
    }
    if caught.values().all(|one| one.caught) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
