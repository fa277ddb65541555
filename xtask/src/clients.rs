//! The clouds' official clients, unmodified, against the simulated clouds: `cargo xtask clients`.
//!
//! Each client has a driver in `xtask/clients`, which makes the client's calls and prints what became
//! of each as a line of JSON. Clients are installed below the target directory, once. One that cannot
//! be installed is skipped and listed with the reason.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::steps::{Cargo, Failed};

/// Where the drivers are.
const DRIVERS: &str = "xtask/clients";
/// How much faster than ours the simulated time passes, so that no driver waits long for a machine
/// or a rate limit.
const SPEED: &str = "60";

/// What a client is installed with.
#[derive(Clone, Copy)]
enum Installer {
    Pip,
    Npm,
}

struct Client {
    /// Its name and version, as it is listed.
    name: &'static str,
    installer: Installer,
    /// The packages, each with its version.
    packages: &'static [&'static str],
    driver: &'static str,
}

const CLIENTS: &[Client] = &[
    Client {
        name: "runpod 1.12.0 (pip)",
        installer: Installer::Pip,
        packages: &["runpod==1.12.0"],
        driver: "runpod_python.py",
    },
    Client {
        name: "runpod 2.0.0rc2 (pip)",
        installer: Installer::Pip,
        packages: &["runpod==2.0.0rc2"],
        driver: "runpod_python.py",
    },
    Client {
        name: "runpod-sdk 1.1.2 (npm)",
        installer: Installer::Npm,
        packages: &["runpod-sdk@1.1.2"],
        driver: "runpod_sdk.mjs",
    },
    Client {
        name: "@runpod/mcp-server 4.0.0 (npm)",
        installer: Installer::Npm,
        packages: &["@runpod/mcp-server@4.0.0"],
        driver: "runpod_mcp.mjs",
    },
    Client {
        name: "vastai 1.9.1 (pip), command line",
        installer: Installer::Pip,
        packages: &["vastai==1.9.1"],
        driver: "vastai_cli.py",
    },
    Client {
        name: "vastai 1.9.1 (pip), SDK",
        installer: Installer::Pip,
        packages: &["vastai==1.9.1"],
        driver: "vastai_python.py",
    },
    Client {
        name: "gpuhunt 0.1.34 (pip)",
        installer: Installer::Pip,
        packages: &["gpuhunt==0.1.34"],
        driver: "gpuhunt_online.py",
    },
    Client {
        name: "dstack 0.22.5 (pip)",
        installer: Installer::Pip,
        packages: &["dstack==0.22.5", "gpuhunt==0.1.34", "httpx==0.28.1"],
        driver: "dstack_backends.py",
    },
    Client {
        name: "skypilot 0.14.1 (pip)",
        installer: Installer::Pip,
        packages: &[
            "skypilot[runpod,vast,lambda]==0.14.1",
            "runpod==1.10.1",
            "vastai==1.9.1",
        ],
        driver: "skypilot_provision.py",
    },
];

const USAGE: &str = "clients takes --sim FILE (a built atlas-sim; by default it is built) and parts \
    of clients' names";

/// How many calls ended in which way.
#[derive(Debug, Default)]
struct Counts(BTreeMap<String, usize>);

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |verdict: &str| self.0.get(verdict).copied().unwrap_or_default();
        write!(
            f,
            "{} ok, {} refused, {} × 501",
            of("ok"),
            of("refused"),
            of("501")
        )?;
        match of("failed") {
            0 => Ok(()),
            failed => write!(f, ", {failed} FAILED"),
        }
    }
}

/// Drives the clients whose names contain one of the words; all without words.
pub(crate) fn check(args: &[String]) -> Result<(), Failed> {
    let (mut sim, mut words) = (None, Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match (arg.as_str(), arg.starts_with('-')) {
            ("--sim", _) => sim = args.next().map(PathBuf::from),
            (_, true) => {
                eprintln!("xtask: {USAGE}");
                return Err(Failed(2));
            }
            _ => words.push(arg),
        }
    }
    let target = target();
    let sim = match sim {
        Some(sim) => sim,
        None => {
            Cargo::new("build")
                .args(["--quiet", "--release", "--bin", "atlas-sim"])
                .run()?;
            target.join("release/atlas-sim")
        }
    };
    let chosen = CLIENTS.iter().filter(|client| {
        words.is_empty() || words.iter().any(|word| client.name.contains(word.as_str()))
    });
    let (mut summary, mut failed) = (Vec::new(), false);
    for client in chosen {
        println!("{}", client.name);
        let line = match install(client, &target.join("clients")) {
            Ok(home) => match drive(client, &home, &sim) {
                Ok(counts) => {
                    failed |= counts.0.contains_key("failed");
                    counts.to_string()
                }
                Err(why) => {
                    failed = true;
                    format!("FAILED: {why}")
                }
            },
            Err(why) => format!("SKIPPED: {why}"),
        };
        println!("  {line}");
        summary.push((client.name, line));
    }
    println!("clients:");
    for (name, line) in &summary {
        println!("  {name:<34} {line}");
    }
    if failed || summary.is_empty() {
        return Err(Failed(1));
    }
    Ok(())
}

/// The target directory of the workspace.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

/// The folder that a client is installed in, or why it cannot be installed.
fn install(client: &Client, below: &Path) -> Result<PathBuf, String> {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    let folder: String = client.packages.join("+").chars().map(plain).collect();
    let home = below.join(folder);
    let done = home.join("installed");
    if done.exists() {
        return Ok(home);
    }
    let path = home.to_string_lossy().into_owned();
    match client.installer {
        Installer::Pip => {
            run("python3", &["-m", "venv", "--clear", &path], &[])?;
            let python = python(&home).to_string_lossy().into_owned();
            let pip = [
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--retries",
                "1",
                "--timeout",
                "20",
            ];
            run(&python, &pip, client.packages)?;
        }
        Installer::Npm => {
            let npm = [
                "install",
                "--silent",
                "--no-save",
                "--no-audit",
                "--no-fund",
                "--fetch-retries",
                "1",
                "--prefix",
                &path,
            ];
            std::fs::create_dir_all(&home).map_err(|error| error.to_string())?;
            run("npm", &npm, client.packages)?;
        }
    }
    std::fs::write(&done, "").map_err(|error| error.to_string())?;
    std::path::absolute(&home).map_err(|error| error.to_string())
}

fn python(home: &Path) -> PathBuf {
    home.join("bin/python")
}

/// Runs a program to its end; the last line of what it says if it fails.
fn run(program: &str, args: &[&str], more: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(args)
        .args(more)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    Err(format!(
        "{program} failed: {}",
        last.unwrap_or("it says nothing")
    ))
}

/// A simulator that ends with its owner.
struct Sim {
    child: Child,
    ready: String,
}

impl Sim {
    fn start(program: &Path) -> Result<Self, String> {
        let mut child = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--speed", SPEED])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let out = child.stdout.take();
        let mut sim = Self {
            child,
            ready: String::new(),
        };
        let read = out.map(|out| BufReader::new(out).read_line(&mut sim.ready));
        match read {
            Some(Ok(1..)) => Ok(sim),
            _ => Err("the simulator did not start".to_owned()),
        }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        // One that has ended by itself has nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes the calls of a client and prints each.
fn drive(client: &Client, home: &Path, sim: &Path) -> Result<Counts, String> {
    let sim = Sim::start(sim)?;
    let home = std::path::absolute(home).map_err(|error| error.to_string())?;
    let program = match client.installer {
        Installer::Pip => python(&home),
        Installer::Npm => PathBuf::from("node"),
    };
    let mut driver = Command::new(program)
        .arg(Path::new(DRIVERS).join(client.driver))
        .arg(sim.ready.trim())
        .arg(&home)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    // Read apart from the calls, so that a talkative client is not held up.
    let errors = driver.stderr.take().map(|mut errors| {
        std::thread::spawn(move || {
            let mut said = String::new();
            let read = errors.read_to_string(&mut said);
            read.map_or_else(|error| error.to_string(), |_| said)
        })
    });
    let mut counts = Counts::default();
    if let Some(out) = driver.stdout.take() {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            tell(&line, &mut counts);
        }
    }
    let status = driver.wait().map_err(|error| error.to_string())?;
    let errors = errors.and_then(|errors| errors.join().ok());
    let calls: usize = counts.0.values().sum();
    // A driver whose calls failed says so with its exit code too.
    if calls > 0 && (status.success() || counts.0.contains_key("failed")) {
        return Ok(counts);
    }
    let errors = errors.unwrap_or_default();
    let last = errors.lines().rfind(|line| !line.trim().is_empty());
    let last = last.unwrap_or("it says nothing");
    Err(format!("the driver ended after {calls} calls: {last}"))
}

/// Prints what became of a call; a line that a client itself prints is passed over.
fn tell(line: &str, counts: &mut Counts) {
    let Ok(told) = serde_json::from_str::<Value>(line) else {
        return;
    };
    let (Some(call), Some(verdict)) = (told["call"].as_str(), told["verdict"].as_str()) else {
        return;
    };
    *counts.0.entry(verdict.to_owned()).or_default() += 1;
    match told["said"].as_str().filter(|said| !said.is_empty()) {
        Some(said) => println!("  {verdict:<8} {call}: {said}"),
        None => println!("  {verdict:<8} {call}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_what_became_of_them_and_other_lines_are_not() {
        let mut counts = Counts::default();
        for line in [
            r#"{"call": "a", "verdict": "ok", "said": ""}"#,
            r#"{"call": "b", "verdict": "501", "said": "b is not simulated"}"#,
            r#"{"call": "c", "verdict": "ok", "said": ""}"#,
            "a warning of the client",
            r#"{"some": "json"}"#,
        ] {
            tell(line, &mut counts);
        }
        assert_eq!(counts.to_string(), "2 ok, 0 refused, 1 × 501");
        tell(r#"{"call": "d", "verdict": "failed"}"#, &mut counts);
        assert_eq!(counts.to_string(), "2 ok, 0 refused, 1 × 501, 1 FAILED");
    }

    #[test]
    fn every_client_is_pinned_and_has_a_driver() {
        let drivers = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
        for client in CLIENTS {
            assert!(drivers.join(client.driver).is_file(), "{}", client.name);
            for package in client.packages {
                let pinned =
                    package.contains("==") || package.trim_start_matches('@').contains('@');
                assert!(pinned, "{package}");
            }
        }
    }
}
