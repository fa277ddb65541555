//! What a VM does with its `user_data`: the container that a shell script starts on it, read as the
//! shell would.

use std::collections::BTreeMap;

use atlas_core::Secret;

/// The container that a script runs.
#[derive(Debug, Default)]
pub(super) struct Container {
    pub(super) env: BTreeMap<String, Secret>,
    pub(super) ports: Vec<u16>,
    pub(super) image: Option<String>,
    pub(super) command: Vec<String>,
}

/// Reads a `#!` script: the variables it exports and its `docker run`. Anything else runs nothing.
pub(super) fn container(user_data: &str) -> Container {
    let mut found = Container::default();
    if !user_data.starts_with("#!") {
        return found;
    }
    let statements = statements(user_data);
    let mut exported: BTreeMap<String, String> = BTreeMap::new();
    for words in &statements {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["export", assignments @ ..] => {
                let pairs = assignments
                    .iter()
                    .filter_map(|assignment| assignment.split_once('='));
                exported.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
            }
            ["docker", "run", rest @ ..] | ["exec", "docker", "run", rest @ ..] => {
                run(rest, &exported, &mut found)
            }
            _ => {}
        }
    }
    found
}

fn run(args: &[&str], exported: &BTreeMap<String, String>, found: &mut Container) {
    let mut args = args.iter().copied();
    while let Some(arg) = args.next() {
        match arg {
            "-e" | "--env" => {
                let Some(given) = args.next() else { return };
                let value = given
                    .split_once('=')
                    .map(|(name, value)| (name, value.to_owned()));
                let value =
                    value.or_else(|| exported.get(given).map(|value| (given, value.clone())));
                found
                    .env
                    .extend(value.map(|(name, value)| (name.to_owned(), Secret::new(value))));
            }
            "-p" | "--publish" => {
                let inside: Option<u16> = args
                    .next()
                    .and_then(|ports| ports.rsplit(':').next()?.parse().ok());
                found.ports.extend(inside);
            }
            "--name" | "--gpus" | "--restart" | "--platform" => drop(args.next()),
            flag if flag.starts_with('-') => {}
            image => {
                found.image = Some(image.to_owned());
                found.command = args.map(str::to_owned).collect();
                return;
            }
        }
    }
}

/// The words of each simple command: quotes honoured, as POSIX has them; expansions left alone.
fn statements(script: &str) -> Vec<Vec<String>> {
    let (mut statements, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut chars = script.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                word.extend(chars.by_ref().take_while(|c| *c != '\''));
            }
            '"' => {
                let word = word.get_or_insert_default();
                while let Some(c) = chars.next() {
                    match c {
                        '"' => break,
                        '\\' => word.extend(chars.next()),
                        c => word.push(c),
                    }
                }
            }
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            '#' if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            c if c.is_whitespace() || matches!(c, ';' | '&' | '|' | '(' | ')' | '{' | '}') => {
                words.extend(word.take());
                if c == '\n' || !c.is_whitespace() {
                    statements.push(std::mem::take(&mut words));
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    statements.push(words);
    statements.retain(|words| !words.is_empty());
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_runs_the_container_a_shell_would_run() {
        let script = "#!/bin/bash\n# docker run nothing\n(\n  export TOKEN='s3cr'\\''t' MODEL=tiny\n  exec docker run -d --gpus all \\\n    -p 8000:8000 \
                      -e TOKEN -e A=b -e MISSING 'x/y:1' sh -c 'exit 3'\n) || log 'run failed'\n";
        let found = container(script);
        assert_eq!(found.image.as_deref(), Some("x/y:1"));
        assert_eq!(found.command, ["sh", "-c", "exit 3"]);
        assert_eq!(found.ports, [8000]);
        assert_eq!(found.env.keys().collect::<Vec<_>>(), ["A", "TOKEN"]);
        assert_eq!(found.env["TOKEN"].expose(), "s3cr't");
        assert!(container("#cloud-config\n").image.is_none());
    }
}
