//! The checks through their public faces: the tap, and the two commands.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the verdict")]

mod clouds;
mod commands;
mod readmes;
mod rules;
mod tap;
