//! Interprets a simulated container's command: a small table, the only strings that determine an
//! outcome.

use std::time::Duration;

/// The effect of a command: its lines, and when and how it ends, if it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The printed lines, with their time after the start.
    pub lines: Vec<(Duration, String)>,
    /// How long after its start it ends, and with which code; `None` for a server, which runs until
    /// it is stopped.
    pub end: Option<(Duration, i32)>,
    /// Its last action is to delete its own machine.
    pub removes_machine: bool,
}

impl Program {
    /// Interprets a command: `true`, `false`, `sleep N`, `echo …`, `exit N`, and `sh -c` with a
    /// list of those joined by `;` or `&&`. `sh -c SCRIPT NAME ARGV…` with a script that runs its
    /// arguments (`"$@"`) and then `runpodctl remove pod "$RUNPOD_POD_ID"` has the effect of ARGV,
    /// followed by the end of its machine. Everything else, an empty command included, is a server.
    #[must_use]
    pub fn of(command: &[String]) -> Self {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        if let ["sh" | "/bin/sh", "-c", script, _, ..] = words.as_slice()
            && script.starts_with(r#""$@";"#)
            && script.contains(r#"runpodctl remove pod "$RUNPOD_POD_ID""#)
        {
            return Self {
                removes_machine: true,
                ..Self::of(&command[4..])
            };
        }
        let mut program = Self::default();
        let mut at = Duration::ZERO;
        let code = match words.as_slice() {
            [
                "sh" | "/bin/sh" | "bash" | "/bin/bash",
                "-c" | "-lc" | "-ec",
                script,
                ..,
            ] => program.script(script, &mut at),
            simple => match program.simple(simple, &mut at) {
                Step::Code(code) | Step::Exit(code) => Some(code),
                Step::Server => None,
            },
        };
        program.end = code.map(|code| (at, code));
        program
    }

    fn script(&mut self, script: &str, at: &mut Duration) -> Option<i32> {
        let mut code = 0;
        for sequence in script.split(';') {
            for command in sequence.split("&&") {
                let words = split(command);
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                if words.is_empty() {
                    continue;
                }
                match self.simple(&words, at) {
                    Step::Exit(code) => return Some(code),
                    Step::Code(0) => code = 0,
                    Step::Code(failed) => {
                        code = failed;
                        break;
                    }
                    Step::Server => return None,
                }
            }
        }
        Some(code)
    }

    fn simple(&mut self, words: &[&str], at: &mut Duration) -> Step {
        match words {
            ["true" | ":"] => Step::Code(0),
            ["false"] => Step::Code(1),
            ["exit"] => Step::Exit(0),
            ["exit", code] => code
                .parse::<i32>()
                .map_or(Step::Exit(2), |code| Step::Exit(code & 0xff)),
            ["echo", words @ ..] => {
                self.lines.push((*at, words.join(" ")));
                Step::Code(0)
            }
            ["sleep", "infinity"] => Step::Server,
            ["sleep", span] => {
                match span
                    .trim_end_matches('s')
                    .parse::<f64>()
                    .ok()
                    .and_then(|s| Duration::try_from_secs_f64(s).ok())
                {
                    Some(span) => {
                        *at = at.saturating_add(span);
                        Step::Code(0)
                    }
                    None => Step::Code(1),
                }
            }
            _ => Step::Server,
        }
    }
}

enum Step {
    Code(i32),
    Exit(i32),
    Server,
}

/// Splits a command line into words as a shell does: white space, single and double quotes,
/// backslashes.
#[must_use]
pub fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Program {
        Program::of(&split(line))
    }

    #[test]
    fn the_table_says_how_a_command_ends() {
        let s = Duration::from_secs;
        for (line, end) in [
            ("true", Some((s(0), 0))),
            ("false", Some((s(0), 1))),
            ("exit 3", Some((s(0), 3))),
            ("sleep 5", Some((s(5), 0))),
            ("sh -c 'exit 3'", Some((s(0), 3))),
            ("sh -c 'sleep 2; exit 7'", Some((s(2), 7))),
            ("sh -c 'false && sleep 9; echo x'", Some((s(0), 0))),
            ("sh -c 'sleep 1 && false'", Some((s(1), 1))),
            ("sh -c \"echo 'a b'; exit 256\"", Some((s(0), 0))),
            ("sleep infinity", None),
            ("python -m http.server", None),
            ("", None),
        ] {
            assert_eq!(of(line).end, end, "{line:?}");
        }
        assert_eq!(
            of("sh -c 'sleep 1; echo hello world'").lines,
            [(s(1), "hello world".to_owned())]
        );
    }

    #[test]
    fn a_script_that_removes_its_machine_ends_as_its_arguments_do() {
        let script = r#""$@"; code=$?; until runpodctl remove pod "$RUNPOD_POD_ID"; do sleep 15; done; exit "$code""#;
        let words = ["sh", "-c", script, "name", "sh", "-c", "sleep 2; exit 7"].map(str::to_owned);
        let program = Program::of(&words);
        assert_eq!(
            (program.end, program.removes_machine),
            (Some((Duration::from_secs(2), 7)), true)
        );
        assert!(!of("sh -c 'exit 7'").removes_machine);
    }

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        assert_eq!(
            split(r#"a 'b c' "d \" e" f\ g ''"#),
            ["a", "b c", "d \" e", "f g", ""]
        );
    }
}
