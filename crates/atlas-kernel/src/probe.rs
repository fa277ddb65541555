//! The check that decides whether a machine is usable.

use atlas_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// The check that must succeed before a session's machine counts as usable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum Probe {
    /// An HTTP GET of a path on a port of the container.
    Http {
        /// The port number inside the container.
        port: u32,
        /// The path; it begins with `/`.
        path: String,
    },
    /// A TCP connection to a port of the container.
    Tcp {
        /// The port number inside the container.
        port: u32,
    },
}

impl Probe {
    /// A check by HTTP GET of this path on this port of the container.
    #[must_use]
    pub fn http(port: u32, path: impl Into<String>) -> Self {
        Self::Http {
            port,
            path: path.into(),
        }
    }

    /// A check by TCP connection to this port of the container.
    #[must_use]
    pub const fn tcp(port: u32) -> Self {
        Self::Tcp { port }
    }

    /// The port that is checked.
    #[must_use]
    pub const fn port(&self) -> u32 {
        match self {
            Self::Http { port, .. } | Self::Tcp { port } => *port,
        }
    }

    /// Checks the path.
    ///
    /// # Errors
    /// `validation` if the path does not begin with `/`, is too long, or is not plain ASCII.
    pub fn validate(&self) -> Result<()> {
        let plain = |path: &str| {
            path.starts_with('/') && path.len() <= 512 && path.bytes().all(|b| b.is_ascii_graphic())
        };
        match self {
            Self::Http { path, .. } if !plain(path) => Err(Error::validation(
                "probe",
                "its path must begin with / and be plain ASCII",
            )),
            _ => Ok(()),
        }
    }
}
