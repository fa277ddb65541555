//! Callbacks in process, over the mock cloud.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bench;
mod reports;
mod tasks;
