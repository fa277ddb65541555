//! The stack against a cloud in process, on paused time, and against a real socket.

mod cloud;
mod credential;
mod date;
mod deadline;
mod errors;
mod layers;
mod metrics;
mod pacing;
mod redirect;
mod retry;
mod streaming;
mod telemetry;
mod tls;
mod wire;
