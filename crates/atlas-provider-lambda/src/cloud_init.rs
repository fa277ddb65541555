//! The script that runs a container image on a Lambda VM. Facts: docs/clouds/lambda.md.
//!
//! Environment values are exported in a subshell and passed by name, so that `ps` never shows one.
//! Deliberately absent: anything that could end the VM from inside (`shutdown` does not end billing
//! there).

use std::collections::BTreeMap;
use std::fmt::Write;

use atlas_core::{ComputeRequest, Error, Result, Secret};

/// What Lambda takes at most, in bytes.
const MAX_USER_DATA: usize = 1_000_000;

/// Names that would change the shell, the loader or docker itself if they were exported.
const RESERVED_PREFIXES: [&str; 4] = ["DOCKER_", "LD_", "BASH_", "COMP_"];
const RESERVED_NAMES: [&str; 14] = [
    "PATH",
    "IFS",
    "UID",
    "EUID",
    "PPID",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "BASHOPTS",
    "ENV",
    "HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "PWD",
];

/// The script for this request, with this environment.
///
/// # Errors
/// `validation`, naming the field, for what a shell script cannot carry.
pub(crate) fn script(
    request: &ComputeRequest,
    env: &BTreeMap<String, Secret>,
    arm64: bool,
) -> Result<Option<Secret>> {
    let Some(image) = &request.image else {
        return Ok(None);
    };
    check_env(env)?;
    let mut script = String::from(
        "#!/bin/bash\nset -u\nlog() { echo \"atlas: $*\" >> /var/log/atlas-init.log; }\n\
         up=0; for _ in $(seq 90); do docker info >/dev/null 2>&1 && { up=1; break; }; sleep 2; done\n\
         [ \"$up\" = 1 ] || { log 'docker daemon missing'; exit 1; }\n",
    );
    let gpus = if request.gpu.is_some() {
        script.push_str(
            "for _ in $(seq 90); do nvidia-smi >/dev/null 2>&1 && break; sleep 2; done\n",
        );
        " --gpus all"
    } else {
        ""
    };
    let platform = if arm64 { " --platform linux/arm64" } else { "" };
    let image = quote(image);
    let _ = writeln!(
        script,
        "for _ in 1 2 3 4 5; do docker pull -q{platform} {image} && break; log 'pull retry'; sleep 10; done"
    );
    script.push_str("(\n");
    for (name, value) in env {
        let _ = writeln!(script, "  export {name}={}", quote(value.expose()));
    }
    let _ = write!(
        script,
        "  exec docker run -d --name atlas{platform}{gpus} --restart no"
    );
    for port in request.ports.iter().map(|port| port.number()) {
        let _ = write!(script, " -p {port}:{port}");
    }
    for name in env.keys() {
        let _ = write!(script, " -e {name}");
    }
    let _ = write!(script, " {image}");
    for word in &request.command {
        let _ = write!(script, " {}", quote(word));
    }
    script.push_str("\n) || log 'run failed'\n");
    if script.len() > MAX_USER_DATA {
        return Err(Error::validation(
            "env",
            "environment and command come to more than the 1 MB that Lambda takes",
        ));
    }
    Ok(Some(Secret::new(script)))
}

fn check_env(env: &BTreeMap<String, Secret>) -> Result<()> {
    for name in env.keys() {
        let mut chars = name.chars();
        let plain = chars
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !plain {
            return Err(Error::validation(
                "env",
                format!(
                    "{name:?} cannot be a variable of a shell script, which is how Lambda runs an image"
                ),
            ));
        }
        if RESERVED_NAMES.contains(&name.as_str())
            || RESERVED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
        {
            return Err(Error::validation(
                "env",
                format!("{name} would change the shell or docker itself on Lambda"),
            ));
        }
    }
    Ok(())
}

/// One word of a POSIX shell, whatever is in it.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::{Gpu, Port};

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, Secret> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Secret::new(*value)))
            .collect()
    }

    #[test]
    fn values_are_quoted_exported_and_passed_by_name_only() {
        let request = ComputeRequest::gpu(Gpu::A10)
            .image("x/y:1")
            .port(Port::http(8000))
            .command(["serve", "--name", "it's; $(rm -rf /)"]);
        let script = script(&request, &env(&[("TOKEN", "s3cr't\n$x")]), false)
            .unwrap()
            .unwrap();
        let script = script.expose();
        assert!(
            script.contains("export TOKEN='s3cr'\\''t\n$x'\n"),
            "{script}"
        );
        assert!(
            script.contains("--gpus all --restart no -p 8000:8000 -e TOKEN 'x/y:1' 'serve' '--name' 'it'\\''s; $(rm -rf /)'\n"),
            "{script}"
        );
        assert!(!script.contains("-e TOKEN="));
    }

    #[test]
    fn a_shell_reads_the_words_back() {
        let words = ["", "a b", "it's", "$(false) `x` \\ \"q\"", "new\nline"];
        for word in words {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quote(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn names_that_would_change_the_host_are_refused_with_the_field() {
        let request = ComputeRequest::gpu(Gpu::A10).image("x");
        for name in ["LD_PRELOAD", "PATH", "DOCKER_HOST", "A-B", "1A", "A B"] {
            let error = script(&request, &env(&[(name, "v")]), false).unwrap_err();
            assert_eq!(error.field(), Some("env"), "{name}");
            assert!(!error.to_string().contains("'v'"));
        }
        let huge = "x".repeat(MAX_USER_DATA);
        assert_eq!(
            script(&request, &env(&[("A", &huge)]), false)
                .unwrap_err()
                .field(),
            Some("env")
        );
    }
}
