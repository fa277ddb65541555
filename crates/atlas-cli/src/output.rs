//! What reaches the terminal: one JSON document on standard output, or tables and words for people;
//! progress goes to standard error.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::{Done, Failure};

/// How this run of the program speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    /// As the global flags say.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Whether standard output is for a program.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// The verb's answer: `document` on one line with `--json`, else what `people` says.
    pub(crate) fn answer(self, document: &impl Serialize, people: impl FnOnce() -> String) -> Done {
        if self.json {
            let line = serde_json::to_string(document)
                .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
            self.line(&line)
        } else {
            self.line(people().trim_end())
        }
    }

    /// One line on standard output. A reader that went away is not an error of ours: the program
    /// ends quietly.
    pub(crate) fn line(self, text: &str) -> Done {
        let mut out = io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::silent(0)),
            other => other.map_err(Failure::from),
        }
    }

    /// A line about what is going on, for people, on standard error.
    pub(crate) fn progress(self, text: impl AsRef<str>) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// A line that people must see even with `--quiet`. Standard error may be closed; then there is
    /// nobody to tell.
    pub(crate) fn warn(self, text: impl AsRef<str>) {
        let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
    }
}

/// A table for people; the heading stands out on a terminal.
pub(crate) fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads.to_vec());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    if let Some(head) = lines.first_mut() {
        *head = bold(head);
    }
    lines.join("\n")
}

/// Bold, where standard output is a terminal and `NO_COLOR` is not set (no-color.org).
pub(crate) fn bold(text: &str) -> String {
    let plain = !io::stdout().is_terminal()
        || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain {
        text.to_owned()
    } else {
        format!("\x1b[1m{text}\x1b[0m")
    }
}
