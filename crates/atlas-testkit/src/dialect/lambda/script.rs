//! Interprets `user_data` like a VM: finds the container that a shell script starts, parsed like a
//! shell.

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

/// Reads a `#!` script: the variables it exports and its `docker run`, which another program may
/// start (`python3 -c CODE docker run …`) with the environment that a here-document gives it: a
/// JSON object with the variables of `-e NAME` in `env` and those of `--env-file` in `file`.
/// Anything else runs nothing.
pub(super) fn container(user_data: &str) -> Container {
    let mut found = Container::default();
    if !user_data.starts_with("#!") {
        return found;
    }
    let mut exported: BTreeMap<String, String> = BTreeMap::new();
    for statement in &statements(user_data) {
        let words: Vec<&str> = statement.words.iter().map(String::as_str).collect();
        if let ["export", assignments @ ..] = words.as_slice() {
            let pairs = assignments
                .iter()
                .filter_map(|assignment| assignment.split_once('='));
            exported.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        let starts = |pair: &[&str]| pair == ["docker", "run"];
        let runs = matches!(words.first(), Some(&("docker" | "exec" | "python3")));
        if let Some(at) = words.windows(2).position(starts).filter(|_| runs) {
            let given = statement.given();
            let mut variables = exported.clone();
            variables.extend(given.env);
            run(&words[at + 2..], &variables, &given.file, &mut found);
        }
    }
    found
}

/// The environment in a here-document.
#[derive(Default, serde::Deserialize)]
struct Given {
    env: BTreeMap<String, String>,
    file: BTreeMap<String, String>,
}

fn run(
    args: &[&str],
    exported: &BTreeMap<String, String>,
    file: &BTreeMap<String, String>,
    found: &mut Container,
) {
    let secret = |(name, value): (&str, String)| (name.to_owned(), Secret::new(value));
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
                found.env.extend(value.map(secret));
            }
            "--env-file" => {
                let pairs = file.iter().map(|(name, value)| (&name[..], value.clone()));
                found.env.extend(pairs.map(secret));
                args.next();
            }
            "-p" | "--publish" => {
                let inside: Option<u16> = args
                    .next()
                    .and_then(|ports| ports.rsplit(':').next()?.parse().ok());
                found.ports.extend(inside);
            }
            "--name" | "--gpus" | "--restart" | "--platform" => {
                args.next();
            }
            flag if flag.starts_with('-') => {}
            image => {
                found.image = Some(image.to_owned());
                found.command = args.map(str::to_owned).collect();
                return;
            }
        }
    }
}

/// A simple command and the here-document on its standard input.
#[derive(Default)]
struct Statement {
    words: Vec<String>,
    input: Option<String>,
}

impl Statement {
    fn given(&self) -> Given {
        let input = self.input.as_deref().unwrap_or_default();
        serde_json::from_str(input).unwrap_or_default()
    }
}

/// Each simple command: quotes honoured, as POSIX has them, and here-documents whose end is quoted;
/// expansions left alone.
fn statements(script: &str) -> Vec<Statement> {
    let (mut statements, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut line_begins = 0;
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
                    let (words, input) = (std::mem::take(&mut words), None);
                    statements.push(Statement { words, input });
                }
                if c == '\n' {
                    for statement in &mut statements[line_begins..] {
                        here_document(statement, &mut chars);
                    }
                    line_begins = statements.len();
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    statements.push(Statement { words, input: None });
    statements.retain(|statement| !statement.words.is_empty());
    statements
}

/// Takes what a `<<END` of this statement announced, from the lines that follow its own.
fn here_document(statement: &mut Statement, following: &mut impl Iterator<Item = char>) {
    let mark = |word: &String| word.strip_prefix("<<").is_some_and(|end| !end.is_empty());
    let Some(at) = statement.words.iter().position(mark) else {
        return;
    };
    let end = statement.words.remove(at).split_off(2);
    let mut text = String::new();
    loop {
        let mut ended = false;
        let line: String = following
            .by_ref()
            .take_while(|c| {
                ended = *c == '\n';
                !ended
            })
            .collect();
        if line == end || (line.is_empty() && !ended) {
            break;
        }
        text.push_str(&line);
        text.push('\n');
    }
    statement.input = Some(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_runs_the_container_a_shell_would_run() {
        let script = "#!/bin/bash\n# docker run nothing\n(\n  export TOKEN='s3cr'\\''t' \
            MODEL=tiny\n  exec docker run -d --gpus all \\\n    -p 8000:8000 \
                      -e TOKEN -e A=b -e MISSING 'x/y:1' sh -c 'exit 3'\n) || log 'run failed'\n";
        let found = container(script);
        assert_eq!(found.image.as_deref(), Some("x/y:1"));
        assert_eq!(found.command, ["sh", "-c", "exit 3"]);
        assert_eq!(found.ports, [8000]);
        assert_eq!(found.env.keys().collect::<Vec<_>>(), ["A", "TOKEN"]);
        assert_eq!(found.env["TOKEN"].expose(), "s3cr't");
        assert!(container("#cloud-config\n").image.is_none());
    }

    #[test]
    fn a_here_document_gives_the_environment_to_what_starts_the_container() {
        let script = "#!/bin/bash\nlog() { :; }\npython3 -I -c 'code; \"x\"' docker run -d -e A -e \
            B \\
                      --env-file /dev/fd/9 x/y:1 true <<'END' || log 'no'\n\
                      {\"env\":{\"A\":\"it's; $(x)\",\"C\":\"not \
                          named\"},\"file\":{\"PATH\":\"/x\"}}\nEND\n\
                      echo docker run y:2 <<'END'\nnever ended";
        let found = container(script);
        let env = |name: &str| found.env.get(name).map(Secret::expose);
        assert_eq!(env("A"), Some("it's; $(x)"));
        assert_eq!((env("PATH"), env("B"), env("C")), (Some("/x"), None, None));
        assert_eq!(found.image.as_deref(), Some("x/y:1"));
    }
}
