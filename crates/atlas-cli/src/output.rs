//! What reaches the terminal: one JSON document on standard output, or tables and text for people;
//! progress goes to standard error.
//!
//! Everything that is printed passes through this file, and what comes from a cloud, a machine or a
//! repository is cleaned here: no control character, bidirectional control or invisible character
//! reaches a terminal, whatever a verb prints.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use atlas::{is_unsafe, plain, plain_line};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::failure::{Done, Failure};

/// How this run of the program prints, by the global flags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    /// `json` prints documents for programs, `quiet` leaves progress out.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Whether standard output is for a program.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// The verb's answer: `document` on one line with `--json`, else what `people` returns.
    pub(crate) fn answer<P: Into<Page>>(
        self,
        document: &impl Serialize,
        people: impl FnOnce() -> P,
    ) -> Done {
        if self.json {
            print(&json(document)?)
        } else {
            print(&people().into().shown())
        }
    }

    /// One entry of a stream: `document` on one line with `--json`, else what `people` returns, on
    /// one line.
    pub(crate) fn item(self, document: &impl Serialize, people: impl FnOnce() -> String) -> Done {
        if self.json {
            print(&json(document)?)
        } else {
            print(&indented(&plain(&people())))
        }
    }

    /// Text on standard output.
    pub(crate) fn line(self, text: &str) -> Done {
        print(&plain(text))
    }

    /// A line about what is going on, for people, on standard error.
    pub(crate) fn progress(self, text: impl AsRef<str>) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// A line of progress that begins a section. It is bold on a terminal.
    pub(crate) fn heading(self, text: impl AsRef<str>) {
        if !self.quiet {
            let text = plain_line(text.as_ref());
            eprint(&bold(&text, &io::stderr()));
        }
    }

    /// A line that people must see even with `--quiet`.
    pub(crate) fn warn(self, text: impl AsRef<str>) {
        eprint(&indented(&plain(text.as_ref())));
    }
}

/// Text for people, with headings, which are bold on a terminal.
#[derive(Debug, Default)]
pub(crate) struct Page(Vec<Part>);

#[derive(Debug)]
enum Part {
    Heading(String),
    Text(String),
}

impl From<String> for Page {
    fn from(text: String) -> Self {
        Self(vec![Part::Text(text)])
    }
}

impl From<&str> for Page {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl Page {
    /// Adds text at the end.
    pub(crate) fn with(mut self, text: &str) -> Self {
        self.0.push(Part::Text(text.to_owned()));
        self
    }

    /// Adds another page at the end.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    fn shown(&self) -> String {
        let shown = |part: &Part| match part {
            Part::Heading(text) => bold(&plain_line(text), &io::stdout()),
            Part::Text(text) => plain(text),
        };
        let text: String = self.0.iter().map(shown).collect();
        text.trim_end().to_owned()
    }
}

/// A table for people. Each cell is one line, whatever is in it.
pub(crate) fn table<S: AsRef<str>>(heads: &[&str], rows: impl IntoIterator<Item = Vec<S>>) -> Page {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| plain_line(cell.as_ref())));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut lines = table.lines().map(|line| line.trim_end().to_owned());
    let heading = lines.next().unwrap_or_default();
    let rows: String = lines.map(|line| format!("\n{line}")).collect();
    Page(vec![Part::Heading(heading), Part::Text(rows)])
}

/// Sends spans and events to standard error, as `RUST_LOG` selects them; without it, warnings. They
/// quote clouds, so they are cleaned as everything else, and never coloured.
pub(crate) fn trace() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(|| Cleaned)
        .init();
}

/// Standard error, cleaned. Each write is one whole event.
struct Cleaned;

impl Write for Cleaned {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        eprint(&indented(&plain(&String::from_utf8_lossy(event))));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bold, where this goes to a terminal and `NO_COLOR` is not set (no-color.org).
fn bold(text: &str, stream: &impl IsTerminal) -> String {
    let is_plain = !stream.is_terminal()
        || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if is_plain {
        text.to_owned()
    } else {
        format!("\x1b[1m{text}\x1b[0m")
    }
}

/// Later lines stand under the first: no foreign line end makes a line that looks like ours.
fn indented(text: &str) -> String {
    let mut lines = text.trim_end().lines();
    let mut out = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        out.push('\n');
        if !line.starts_with("  ") {
            out.push_str("  ");
        }
        out.push_str(line);
    }
    out
}

/// The document on one line. JSON may hold any character; those that could control a terminal are
/// escaped, which changes nothing for a reader of JSON.
fn json(document: &impl Serialize) -> Done<String> {
    let line = serde_json::to_string(document)
        .map_err(|error| Failure::new(format!("could not write the answer as JSON: {error}")))?;
    if !line.contains(is_unsafe) {
        return Ok(line);
    }
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        if is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Ok(out)
}

/// Writes clean text on standard output. A reader that went away is not an error: the program ends
/// quietly.
fn print(text: &str) -> Done {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::silent(0)),
        other => other.map_err(Failure::from),
    }
}

/// Writes clean text on standard error. It may be closed; then nobody reads it.
fn eprint(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "x\u{1b}]0;t\u{7}\u{1b}[31my\u{9b}2J\u{202e}\u{200b}z\nforged";

    #[test]
    fn a_table_keeps_one_line_for_each_row() {
        let page = table(&["A", "B"], [vec![HOSTILE, "end"]]);
        assert_eq!(page.shown(), "A           B\nxyz forged  end");
    }

    #[test]
    fn a_page_and_a_warning_hold_no_control_characters() {
        let page = Page::from(HOSTILE).with("\u{85}more");
        assert_eq!(page.shown(), "xyz\nforgedmore");
        assert_eq!(indented(&plain(HOSTILE)), "xyz\n  forged");
        assert_eq!(indented("a\n  because: b\n"), "a\n  because: b");
    }

    #[test]
    fn json_keeps_its_value_and_holds_no_raw_control_characters() {
        let hostile = format!("{HOSTILE}\u{e0041}");
        let line = json(&hostile).unwrap();
        assert!(!line.contains(is_unsafe), "{line:?}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), hostile);
    }
}
