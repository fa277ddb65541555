//! The built program, as a script would use it: exit codes, and JSON on one line.

mod demo;
mod fly;
mod gpus;
mod hostile;
mod job;
mod program;
#[cfg(unix)]
mod recipes;
mod run;
mod session;
mod token;
mod url;
