//! `atlas-fuzz TARGET [FILE…]`: runs a target on each file, or on standard input. What does not
//! hold is a panic.

use std::io::Read as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(target) = arguments.next().as_deref().and_then(atlas_fuzz::target) else {
        let names: Vec<_> = atlas_fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!(
            "usage: atlas-fuzz TARGET [FILE…]; targets: {}",
            names.join(" ")
        );
        return ExitCode::from(2);
    };
    let files: Vec<String> = arguments.collect();
    let ran = if files.is_empty() {
        let mut data = Vec::new();
        std::io::stdin()
            .read_to_end(&mut data)
            .map(|_| target(&data))
    } else {
        files
            .iter()
            .try_for_each(|file| std::fs::read(file).map(|data| target(&data)))
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("atlas-fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}
