//! The command line: `atlas-sim --listen ADDR [--seed N] [--speed X] [--faults FILE]`.

use std::path::PathBuf;

use atlas_testkit::world::{Fault, FaultPlan};
use serde::Deserialize;

use crate::Options;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// Print how to use it.
    Help,
    /// Serve, with the faults in this file.
    Serve(Box<Options>, Option<PathBuf>),
}

/// A file of faults: a list, whose entries with `per_million` come by chance.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct FaultFile(Vec<Entry>);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Entry {
    Plan(FaultPlan),
    Fault(Fault),
}

impl FaultFile {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("not a list of faults: {error}"))
    }

    /// Adds what it holds to the options.
    #[must_use]
    pub fn apply(self, mut options: Options) -> Options {
        for entry in self.0 {
            match entry {
                Entry::Plan(plan) => options.plans.push(plan),
                Entry::Fault(fault) => options.faults.push(fault),
            }
        }
        options
    }
}

/// Reads the command line, the program's name left out.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut options = Options::default();
    let mut file = None;
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let (flag, mut inline) = match arg.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => {
                (flag.to_owned(), Some(value.to_owned()))
            }
            _ => (arg, None),
        };
        let mut value = || {
            inline
                .take()
                .or_else(|| args.next())
                .ok_or_else(|| format!("{flag} needs a value"))
        };
        match flag.as_str() {
            "--help" | "-h" => return Ok(Command::Help),
            "--listen" => {
                options.listen = read(&flag, &value()?, "an address such as 127.0.0.1:0")?
            }
            "--seed" => options.seed = read(&flag, &value()?, "a whole number")?,
            "--speed" => {
                options.speed = read(&flag, &value()?, "a number")?;
                if !(options.speed.is_finite() && options.speed > 0.0) {
                    return Err("--speed must be more than 0".into());
                }
            }
            "--faults" => file = Some(PathBuf::from(value()?)),
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    Ok(Command::Serve(Box::new(options), file))
}

fn read<T: std::str::FromStr>(flag: &str, text: &str, what: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{flag} must be {what}, not {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_is_asked_for_is_read_and_what_is_wrong_is_named() {
        let Ok(Command::Serve(options, file)) =
            args("--listen 127.0.0.1:7000 --seed 7 --speed=60 --faults f.json")
        else {
            panic!()
        };
        assert_eq!(
            (options.listen.port(), options.seed, file),
            (7000, 7, Some("f.json".into()))
        );
        assert!((options.speed - 60.0).abs() < f64::EPSILON);
        for (line, word) in [
            ("--speed 0", "more than 0"),
            ("--seed x", "whole number"),
            ("--port 1", "unknown"),
            ("--seed", "value"),
        ] {
            assert!(args(line).unwrap_err().contains(word), "{line}");
        }
    }

    #[test]
    fn a_fault_file_may_mix_faults_with_plans() {
        let text = r#"[{"cloud":"runpod","operation":"spawn_compute","kind":"commit-then-500","count":2},{"kind":"slow","per_million":5}]"#;
        let options = FaultFile::read(text).unwrap().apply(Options::default());
        assert_eq!(
            (options.faults[0].count, options.plans[0].per_million),
            (2, 5)
        );
        assert!(FaultFile::read(r#"[{"kind":"nope"}]"#).is_err());
    }
}
