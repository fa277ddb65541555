//! The built program, as a script would use it: exit codes, and JSON on one line.

mod demo;
mod fly;
mod gpus;
mod job;
mod program;
mod run;
mod session;
mod token;
mod url;
