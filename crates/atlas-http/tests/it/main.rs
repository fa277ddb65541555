//! The stack against a cloud in process, on paused time, and against a real socket.

mod cloud;
mod deadline;
mod errors;
mod pacing;
mod retry;
