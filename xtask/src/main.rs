//! The project's own commands: `cargo xtask <command>`. Parses arguments and runs other programs;
//! holds no logic of atlas.

mod ci;
mod clients;
mod guard;
mod layers;
mod prose;
mod rooms;
mod steps;

use std::process::ExitCode;

use steps::Cargo;

const USAGE: &str = "\
cargo xtask <command>

  demo [args]              the main job on simulated clouds
  test [--live NAME]       every test; with --live the conformance suite on a real cloud, at a \
      cost of at most $0.50
  ci                       the whole gate, as CI runs it
  guard                    builds the static guard, and looks at its size
  layers                   proves that crates import only from the floors below them
  prose                    rejects phrases, doc comments and citations that a reader stumbles over
  conformance [--json]     one suite over every provider
  clients [--sim FILE] ... the clouds' official clients against the simulated clouds, each call \
      listed
  contract --specs DIR     requests and answers against the clouds' own API documents
  sim [--seeds N] ...      simulated histories; --clouds A,B chooses, --sabotage NAME|all removes \
      a safeguard
  torture --store redb     kills real processes on a real disk
  bench [--json] [NAME]    ratios to a bare baseline of the same run
  doc                      builds the documentation
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(command) = args.next() else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    let rest: Vec<String> = args.collect();
    let outcome = match command.as_str() {
        "demo" => Cargo::release("atlas").args(["demo"]).args(&rest).run(),
        "test" => match rest.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => ci::test(),
            ["--live", cloud] => Cargo::release("atlas-conformance")
                .args(["--live", cloud])
                .run(),
            _ => return usage("test takes nothing, or --live NAME"),
        },
        "ci" => ci::run(),
        "guard" => guard::check(),
        "layers" => layers::check(),
        "clients" => clients::check(&rest),
        "prose" => prose::check(),
        "rooms" => rooms::check(),
        "conformance" => Cargo::release("atlas-conformance").args(&rest).run(),
        "contract" => Cargo::release("atlas-contract").args(&rest).run(),
        "sim" => Cargo::release("atlas-histories").args(&rest).run(),
        "torture" => Cargo::release("atlas-torture").args(&rest).run(),
        "bench" => Cargo::release("atlas-bench").args(&rest).run(),
        "doc" => ci::doc(),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => return usage(&format!("{other} is not a command")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(steps::Failed(code)) => ExitCode::from(code),
    }
}

fn usage(message: &str) -> ExitCode {
    eprintln!("xtask: {message}\n\n{USAGE}");
    ExitCode::from(2)
}
