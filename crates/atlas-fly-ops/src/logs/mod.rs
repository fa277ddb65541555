//! Logs of apps: one page, a tail that loses and doubles nothing, and one reader per app for any number of subscribers.

mod client;
mod hub;
mod tail;
mod wire;

pub use client::{LogClient, LogFilter};
pub use hub::{LogEvent, LogHub, LogHubOptions, LogSink, LogSubscription, SinkTask};
pub use wire::{LogCursor, LogEntry, LogPage};
