//! The name of a Fly app, safe in a URL, in an argument list and as a file name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use atlas_core::{Error, Result};

/// A valid Fly app name: 1 to 63 characters of `[a-z0-9-]`, not beginning or ending with `-`.
///
/// ```
/// use atlas_fly_ops::AppName;
/// assert_eq!(AppName::new("pods-u7f3")?.as_str(), "pods-u7f3");
/// assert!(AppName::new("--access-token").is_err());
/// # Ok::<(), atlas_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppName(Arc<str>);

impl AppName {
    /// Checks the text and wraps it.
    ///
    /// # Errors
    /// `validation` for a name that Fly would refuse. The name is not repeated in the message.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        let ok = (1..=63).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if ok {
            Ok(Self(text.into()))
        } else {
            Err(Error::validation(
                "app",
                "must be 1 to 63 of a-z, 0-9 and -, not beginning or ending with -",
            ))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for AppName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}
