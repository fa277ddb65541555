//! Why a verb did not succeed, and with what exit code.

use std::fmt;
use std::process::ExitCode;

use atlas::{Error, ErrorKind};

/// The verb failed.
pub(crate) const FAILED: u8 = 1;
/// The command line was wrong.
pub(crate) const USAGE: u8 = 2;

/// An exit code other than 0 and what to tell people, if anything is left to say.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: Option<String>,
    source: Option<Error>,
    next: Option<String>,
}

/// What a verb comes to.
pub(crate) type Done<T = ()> = Result<T, Failure>;

impl Failure {
    /// It failed, and this is why.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            code: FAILED,
            message: Some(message.into()),
            source: None,
            next: None,
        }
    }

    /// The command line was wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            code: USAGE,
            message: Some(message.into()),
            source: None,
            next: None,
        }
    }

    /// What the command line said was refused; `validation` makes it a wrong command line.
    pub(crate) fn given(error: Error) -> Self {
        let code = if error.kind() == ErrorKind::Validation {
            USAGE
        } else {
            FAILED
        };
        Self {
            code,
            ..Self::from(error)
        }
    }

    /// Somebody pressed Ctrl-C. What was begun is on record and goes on with the next verb.
    pub(crate) fn interrupted() -> Self {
        Self::new("interrupted; what was begun goes on").goes_on_with("atlas ls")
    }

    /// Everything was said already; only the code is left.
    pub(crate) fn silent(code: u8) -> Self {
        Self {
            code,
            message: None,
            source: None,
            next: None,
        }
    }

    /// Names the command that goes on with what was left unsettled.
    pub(crate) fn goes_on_with(mut self, command: impl fmt::Display) -> Self {
        self.next = Some(command.to_string());
        self
    }

    /// The same, beginning with what failed.
    pub(crate) fn about(self, message: impl Into<String>) -> Self {
        Self {
            message: Some(message.into()),
            ..self
        }
    }

    /// The same, with another exit code; a wrong command line stays one.
    pub(crate) fn coded(self, code: u8) -> Self {
        Self {
            code: if self.code == USAGE { USAGE } else { code },
            ..self
        }
    }

    /// The stable word for what went wrong; `failed` where no cloud was asked.
    pub(crate) fn kind(&self) -> &'static str {
        self.source
            .as_ref()
            .map_or("failed", |error| error.kind().as_str())
    }

    /// The process's exit code.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            code: FAILED,
            message: None,
            source: Some(error),
            next: None,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl Failure {
    /// What to print, one line for each cause; `None` when nothing is left to say.
    pub(crate) fn text(&self) -> Option<String> {
        if self.message.is_none() && self.source.is_none() {
            return None;
        }
        Some(self.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(message) = &self.message {
            f.write_str(message)?;
        }
        let mut cause: Option<&dyn std::error::Error> =
            self.source.as_ref().map(|error| error as _);
        let mut first = self.message.is_none();
        let mut last = String::new();
        while let Some(error) = cause {
            let text = error.to_string();
            if text != last {
                f.write_str(if first { "" } else { "\n  because: " })?;
                f.write_str(&text)?;
                first = false;
            }
            last = text;
            cause = error.source();
        }
        self.next
            .as_ref()
            .map_or(Ok(()), |command| write!(f, "\n  next: {command}"))
    }
}
