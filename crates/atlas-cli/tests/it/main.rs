//! The built program, as a script would use it: exit codes, and JSON on one line.

mod program;
mod token;
mod url;
