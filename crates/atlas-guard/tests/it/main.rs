//! The guard over loopback, in front of a server that answers what it saw.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the verdict")]

mod access;
mod ends;
mod exchange;
mod limits;
mod process;
mod streams;
mod upstream;
mod world;
