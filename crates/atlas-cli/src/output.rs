//! What reaches the terminal: one JSON document on standard output, or tables and words for people; progress goes to standard error.

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::{Done, Failure};

/// How this run of the program speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// As the global flags say.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// The verb's answer: `document` on one line with `--json`, else what `people` says.
    pub(crate) fn answer(self, document: &impl Serialize, people: impl FnOnce() -> String) -> Done {
        if self.json {
            let line = serde_json::to_string(document).map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
            self.line(&line)
        } else {
            self.line(people().trim_end())
        }
    }

    /// One line on standard output. A reader that went away is not an error of ours: the program ends quietly.
    pub(crate) fn line(self, text: &str) -> Done {
        let mut out = io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::silent(0)),
            other => other.map_err(Failure::from),
        }
    }

    /// A line that people must see even with `--quiet`. Standard error may be closed; then there is nobody to tell.
    pub(crate) fn warn(self, text: impl AsRef<str>) {
        let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
    }
}
