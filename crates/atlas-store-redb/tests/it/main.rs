//! The redb store: what every store promises, and sessions that outlive their process on its file.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod conformance;
mod restart;
