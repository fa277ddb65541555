//! What a backend sees of this crate, against real folders, a fake `fly` and a log API in process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod deploying;
mod discovering;
mod fly;
mod log_api;
mod logs;
mod nats;
mod tokens;
