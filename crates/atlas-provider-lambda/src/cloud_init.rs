//! The script that runs a container image on a Lambda VM. See docs/clouds/lambda.md.
//!
//! The environment is data in the script, never a shell variable: bash evaluates assignments to
//! some names (`OPTIND`, `SRANDOM`), changes values assigned to others (`LINENO`), and both would
//! happen as root on the VM. It is passed as JSON in a quoted here-document, which no shell
//! expands, to a Python program that starts `docker run` with it. Python is on every image, because
//! cloud-init, which runs this script, is written in it. No value is ever an argument, where `ps`
//! would show it.
//!
//! Deliberately absent: anything that could shut the VM down from inside (`shutdown` does not end
//! billing there).

use std::collections::BTreeMap;
use std::fmt::Write;

use atlas_core::{ComputeRequest, Error, Result, Secret};

/// The maximum size that Lambda accepts, in bytes.
const MAX_USER_DATA: usize = 1_000_000;

/// Reads the environment and then executes the command in its arguments. Variables that the
/// `docker` client itself reads are passed to the container through descriptor 9, an environment
/// file in memory; the rest are in the client's own environment, where `-e NAME` finds them
/// whatever their value is.
const STARTER: &str = "import json, os, shutil, sys
given = json.load(sys.stdin.buffer)
lines = \"\".join(name + \"=\" + value + \"\\n\" for name, value in given[\"file\"].items())
file = os.memfd_create(\"environment\", 0)
with os.fdopen(file, \"wb\", closefd=False) as writer: writer.write(lines.encode())
os.dup2(file, 9)
environment = dict(os.environb)
environment.update((name.encode(), value.encode()) for name, value in given[\"env\"].items())
os.execve(shutil.which(sys.argv[1]), sys.argv[1:], environment)";

/// Names that every POSIX shell sets itself: the first shell in the image would drop the value, and
/// dash does not even start if `OPTIND` is not a number.
const OF_THE_SHELL: [&str; 4] = ["IFS", "OPTIND", "PPID", "PWD"];

/// Names that the `docker` client, its loader or its Go runtime read.
const OF_DOCKER: [&str; 12] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "GODEBUG",
    "GOGC",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "GOTRACEBACK",
    "GOCOVERDIR",
    "GCONV_PATH",
    "LOCPATH",
    "NOTIFY_SOCKET",
];
const OF_DOCKER_PREFIXES: [&str; 9] = [
    "DOCKER_",
    "BUILDKIT_",
    "BUILDX_",
    "COMPOSE_",
    "LD_",
    "GLIBC_",
    "MALLOC_",
    "OTEL_",
    "SSL_CERT_",
];
/// The longest line of an environment file that docker reads (its scanner's limit is 64 KiB).
const MAX_FILE_LINE: usize = 65_000;

/// How a variable is passed to the container.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    /// In the environment of the `docker` client, named by `-e`. Exact forevery value.
    Inherited,
    /// As a line of an environment file, which the client does not apply to itself. Exact for any
    /// value that fits on a line.
    File,
}

/// The script for this request with this environment.
///
/// # Errors
/// `validation`, naming the field, for a variable that could not be passed to a container exactly.
pub(crate) fn script(
    request: &ComputeRequest,
    env: &BTreeMap<String, Secret>,
    arm64: bool,
) -> Result<Option<Secret>> {
    let Some(image) = &request.image else {
        return Ok(None);
    };
    let routed = env
        .iter()
        .map(|(name, value)| Ok((route(name, value.expose())?, name, value)))
        .collect::<Result<Vec<_>>>()?;
    let on = |wanted: Route| routed.iter().filter(move |(route, ..)| *route == wanted);
    let mut script = String::from(
        "#!/bin/bash\nset -u\nlog() { echo \"atlas: $*\" >> /var/log/atlas-init.log; }\n\
         up=0; for _ in $(seq 90); do docker info >/dev/null 2>&1 && { up=1; break; }; sleep 2; \
             done\n\
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
        "for _ in 1 2 3 4 5; do docker pull -q{platform} {image} && break; \
         log 'pull retry'; sleep 10; done"
    );
    let _ = write!(
        script,
        "python3 -I -c {} docker run -d --name atlas{platform}{gpus} --restart no",
        quote(STARTER)
    );
    for port in request.ports.iter().map(|port| port.number()) {
        let _ = write!(script, " -p {port}:{port}");
    }
    if on(Route::File).next().is_some() {
        script.push_str(" --env-file /dev/fd/9");
    }
    for (_, name, _) in on(Route::Inherited) {
        let _ = write!(script, " -e {}", quote(name));
    }
    let _ = write!(script, " {image}");
    for word in &request.command {
        let _ = write!(script, " {}", quote(word));
    }
    let object = |route| {
        let pairs = on(route)
            .map(|(_, name, value)| format!("{}:{}", ascii_json(name), ascii_json(value.expose())));
        format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
    };
    let _ = writeln!(
        script,
        " <<'ATLAS_ENV' || log 'run failed'\n{{\"env\":{},\"file\":{}}}\nATLAS_ENV",
        object(Route::Inherited),
        object(Route::File)
    );
    if script.len() > MAX_USER_DATA {
        return Err(Error::validation(
            "env",
            "environment and command come to more than the 1 MB that Lambda takes",
        ));
    }
    Ok(Some(Secret::new(script)))
}

/// The encodings of these values in a script. An error that quotes the script must show none of
/// them.
pub(crate) fn spellings(env: &BTreeMap<String, Secret>) -> Vec<Secret> {
    let written = |value: &Secret| {
        let json = ascii_json(value.expose());
        Secret::new(json[1..json.len() - 1].to_owned())
    };
    env.values()
        .flat_map(|value| [value.clone(), written(value)])
        .collect()
}

fn route(name: &str, value: &str) -> Result<Route> {
    if OF_THE_SHELL.contains(&name) {
        return Err(Error::validation(
            "env",
            format!("{name} is set by every shell itself, so that no program would see this value"),
        ));
    }
    let docker = OF_DOCKER.contains(&name)
        || OF_DOCKER_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
        || name.to_ascii_uppercase().ends_with("_PROXY");
    if !docker {
        return Ok(Route::Inherited);
    }
    let line = name.len() + 1 + value.len();
    if value.contains('\n') || value.ends_with('\r') || line > MAX_FILE_LINE {
        return Err(Error::validation(
            "env",
            format!(
                "{name} would change docker itself on Lambda unless it is one line of at most \
                 {MAX_FILE_LINE} bytes"
            ),
        ));
    }
    Ok(Route::File)
}

/// Quotes a text as one word of a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A JSON string of printable ASCII only, so that neither the locale of the VM nor a control
/// character that bash uses internally (DEL) can change it.
fn ascii_json(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            ' '..='~' => json.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(json, "\\u{unit:04x}");
                }
            }
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::process::Command;

    use atlas_core::{Gpu, Port};
    use serde_json::{Value, json};

    /// A fake `docker` that records the arguments of `run`, and reads an environment file line by
    /// line like the real client.
    const DOCKER: &str = r##"#!/usr/bin/env python3
import json, os, sys
if sys.argv[1] != "run":
    sys.exit(0)
words, env, rest = sys.argv[2:], {}, []
while words:
    word = words.pop(0)
    if word == "--env-file":
        for line in open(words.pop(0), "rb").read().split(b"\n"):
            line = line.decode().lstrip(" \t\f\v\r")
            if line and not line.startswith("#"):
                name, _, value = line.partition("=")
                env[name] = value
    elif word == "-e":
        name = words.pop(0)
        env[name] = os.environb[name.encode()].decode()
    else:
        rest.append(word)
here = os.path.dirname(os.path.abspath(__file__))
shown = open("/proc/self/cmdline").read()
own = {name: value for name, value in os.environ.items() if name.startswith(("DOCKER_", "LD_"))}
with open(os.path.join(here, "ran.json"), "w") as file:
    json.dump({"env": env, "rest": rest, "cmdline": shown, "own": own}, file)
"##;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, Secret> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Secret::new(*value)))
            .collect()
    }

    /// Runs a script with a real shell; returns what its `docker run` received.
    fn run(shell: &str, folder: &Path, script: &str) -> Value {
        for (name, text) in [("docker", DOCKER), ("nvidia-smi", "#!/bin/sh\n")] {
            let program = folder.join(name);
            fs::write(&program, text).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let file = folder.join("user-data");
        fs::write(&file, script).unwrap();
        let path = std::env::var("PATH").unwrap();
        let status = Command::new(shell)
            .arg(&file)
            .env("PATH", format!("{}:{path}", folder.display()))
            .current_dir(folder)
            .status()
            .unwrap();
        assert!(status.success(), "{shell}: {status}");
        serde_json::from_slice(&fs::read(folder.join("ran.json")).unwrap()).unwrap()
    }

    #[test]
    fn every_name_and_value_reaches_the_container_exactly_and_the_shell_evaluates_none() {
        let folder = tempfile::tempdir().unwrap();
        let trap = "BASH_VERSINFO[$(touch trapped)]";
        let names = [
            "SRANDOM",
            "HISTCMD",
            "GROUPS",
            "FUNCNAME",
            "DIRSTACK",
            "LINENO",
            "EPOCHSECONDS",
            "EPOCHREALTIME",
            "PIPESTATUS",
            "BASHPID",
            "RANDOM",
            "SECONDS",
            "UID",
            "EUID",
            "ENV",
            "BASH_ENV",
            "SHELLOPTS",
            "BASHOPTS",
            "COMP_WORDBREAKS",
            "PS4",
            "PYTHONPATH",
            "PATH",
            "HOME",
            "LD_LIBRARY_PATH",
            "DOCKER_HOST",
            "https_proxy",
            "HTTP_PROXY",
            "GODEBUG",
            "dotted.name",
            "dashed-name",
            "1st",
            "nämé",
            "#no-comment",
            "$(touch trapped)",
        ];
        let mut wanted = env(&names.map(|name| (name, trap)));
        wanted.extend(env(&[
            ("EMPTY", ""),
            (
                "QUOTES",
                "it's; \"quoted\" `touch trapped` \\ \\n $HOME $(touch trapped)",
            ),
            ("LINES", "first\nATLAS_ENV\n\n'last'\r\n"),
            ("UNUSUAL", "\u{1}\u{7f}\u{9b}é𝄞\t "),
            ("NO_PROXY", "  spaces kept  "),
            ("LONG", &"x'\n".repeat(20_000)),
        ]));
        let request = ComputeRequest::gpu(Gpu::A10)
            .image("x/y:1")
            .port(Port::http(8000))
            .command(["serve", "it's; $(touch trapped)", "two\nlines"]);
        let script = script(&request, &wanted, false).unwrap().unwrap();
        for shell in ["bash", "sh"] {
            let ran = run(shell, folder.path(), script.expose());
            for (name, value) in &wanted {
                assert_eq!(ran["env"][name], value.expose(), "{shell} {name}");
            }
            assert_eq!(ran["env"].as_object().unwrap().len(), wanted.len());
            let rest = ran["rest"].as_array().unwrap();
            assert_eq!(
                rest[rest.len() - 4..],
                json!(["x/y:1", "serve", "it's; $(touch trapped)", "two\nlines"])
                    .as_array()
                    .unwrap()[..]
            );
            assert!(!folder.path().join("trapped").exists(), "{shell}");
            let shown = ran["cmdline"].as_str().unwrap();
            assert!(!shown.contains("spaces kept") && !shown.contains("quoted"));
            let own = ran["own"].to_string();
            assert!(!own.contains("trapped"), "docker itself obeys it: {own}");
        }
    }

    #[test]
    fn the_words_of_a_machine_without_gpu_or_environment_are_these() {
        let request = ComputeRequest::cpu(4).image("x/y:1").port(Port::tcp(22));
        let folder = tempfile::tempdir().unwrap();
        let script = script(&request, &BTreeMap::new(), true).unwrap().unwrap();
        let ran = run("bash", folder.path(), script.expose());
        let words = "-d --name atlas --platform linux/arm64 --restart no -p 22:22 x/y:1";
        assert_eq!(ran["rest"], json!(words.split(' ').collect::<Vec<_>>()));
    }

    #[test]
    fn what_no_container_could_be_given_exactly_is_refused_with_the_field() {
        let request = ComputeRequest::gpu(Gpu::A10).image("x");
        let long = "x".repeat(70_000);
        let cases = [
            ("OPTIND", "canary"),
            ("IFS", "canary"),
            ("PPID", "canary"),
            ("PWD", "canary"),
            ("LD_PRELOAD", "a\ncanary"),
            ("DOCKER_HOST", "canary\r"),
            ("HTTP_PROXY", &long),
        ];
        for (name, value) in cases {
            let error = script(&request, &env(&[(name, value)]), false).unwrap_err();
            assert_eq!(error.field(), Some("env"), "{name}");
            let text = error.to_string();
            assert!(text.contains(name) && !text.contains("canary"), "{text}");
        }
        let huge = "x".repeat(MAX_USER_DATA);
        assert_eq!(
            script(&request, &env(&[("A", &huge)]), false)
                .unwrap_err()
                .field(),
            Some("env")
        );
    }

    #[test]
    fn the_spelling_of_a_value_in_the_script_is_scrubbed_too() {
        let spellings = spellings(&env(&[("A", "two\nlines \"é\"")]));
        let shown: Vec<&str> = spellings.iter().map(Secret::expose).collect();
        let in_script = "two\\u000alines \\\"\\u00e9\\\"";
        assert_eq!(shown, ["two\nlines \"é\"", in_script]);
    }
}
