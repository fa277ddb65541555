//! `atlas-bench [--json] [NAME…]`: what atlas costs, as ratios to a bare baseline of the same run.
//!
//! A ratio survives another machine, a busy neighbour and a debug allocator better than a time
//! does; so nothing here is a timed test. The other side of a call runs in a process of its own:
//! only the caller's CPU is counted.

mod call_get;
mod call_spawn;
mod credentials;
mod fleet;
mod fly_logs;
mod measure;
mod proxy;
mod server;

use std::process::ExitCode;

use call_get::Way;
use credentials::Work;
use measure::Row;

/// Where a row's work is done; the sizes are in its name.
const ROWS: &[(&str, Measure)] = &[
    ("call_get_1", |name| {
        call_get::row(name, 1, Way::Provider, Way::Pooled)
    }),
    ("call_get_16", |name| {
        call_get::row(name, 16, Way::Provider, Way::Pooled)
    }),
    ("call_get_64", |name| {
        call_get::row(name, 64, Way::Provider, Way::Pooled)
    }),
    ("stack_get_64", |name| {
        call_get::row(name, 64, Way::Stack, Way::Pooled)
    }),
    ("pool_get_64", |name| {
        call_get::row(name, 64, Way::Pooled, Way::Held)
    }),
    ("call_spawn", call_spawn::row),
    ("token_verify", credentials::token_verify),
    ("url_sign", |name| credentials::one_shot(name, Work::Sign)),
    ("url_verify", |name| {
        credentials::one_shot(name, Work::Verify)
    }),
    ("kept_url_sign", |name| credentials::kept(name, Work::Sign)),
    ("kept_url_verify", |name| {
        credentials::kept(name, Work::Verify)
    }),
    ("atlas_url_sign", |name| {
        credentials::atlas_format(name, Work::Sign)
    }),
    ("atlas_url_verify", |name| {
        credentials::atlas_format(name, Work::Verify)
    }),
    ("guard_proxy", proxy::row),
    ("fly_log_parse", fly_logs::parse),
    ("fly_log_fanout", fly_logs::fanout),
    ("session_bytes_100k", fleet::row),
    ("session_bytes_1m", fleet::row),
    ("touch_1", fleet::row),
    ("touch_2", fleet::row),
    ("spawn_rate", fleet::row),
    ("recover", fleet::row),
    ("year_of_history", fleet::row),
    ("reap_scan", fleet::row),
    ("fanout", fleet::row),
    ("shutdown", fleet::row),
    ("terminate_all_2000", fleet::row),
    ("sim_rate", fleet::row),
];

type Measure = fn(&'static str) -> Result<Row, Failure>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let mut json = false;
    let mut wanted = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            fleet::FLAG => return finish(fleet::run(arguments.next().as_deref())),
            server::FLAG => return finish(server::run()),
            proxy::FLAG => return finish(proxy::run()),
            "--json" => json = true,
            name if ROWS.iter().any(|(row, _)| row.starts_with(name)) => wanted.push(argument),
            _ => {
                let names: Vec<_> = ROWS.iter().map(|(name, _)| *name).collect();
                eprintln!(
                    "usage: atlas-bench [--json] [NAME…]; rows: {}",
                    names.join(" ")
                );
                return ExitCode::from(2);
            }
        }
    }
    finish(rows(&wanted).map(|rows| print(&rows, json)))
}

fn rows(wanted: &[String]) -> Result<Vec<Row>, Failure> {
    let chosen = ROWS.iter().filter(|(name, _)| {
        wanted.is_empty()
            || wanted
                .iter()
                .any(|prefix| name.starts_with(prefix.as_str()))
    });
    chosen.map(|(name, row)| row(name)).collect()
}

fn print(rows: &[Row], json: bool) {
    if json {
        println!(
            "{}",
            serde_json::Value::from_iter(rows.iter().map(Row::json))
        );
        return;
    }
    println!(
        "{:<20}{:>14}{:>14}{:>8}  unit",
        "name", "value", "baseline", "ratio"
    );
    for row in rows {
        println!("{row}");
    }
}

fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("atlas-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
