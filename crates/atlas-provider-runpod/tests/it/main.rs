//! The provider over its whole HTTP stack: against scripted answers, and against the simulated
//! cloud.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the verdict")]

mod cloud;
#[cfg(feature = "graphql")]
mod graphql;
mod jobs;
mod lists;
mod logs;
mod odd;
mod odd_resources;
mod pods;
mod resources;
mod script;
