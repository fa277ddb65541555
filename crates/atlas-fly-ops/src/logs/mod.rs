//! Logs of apps: single pages, a tail without losses and duplicates, and one reader per app for any
//! number of subscribers.

mod client;
mod hub;
#[cfg(feature = "nats")]
mod nats;
mod tail;
mod wire;

pub use client::{LogClient, LogFilter};
pub use hub::{LogEvent, LogHub, LogHubOptions, LogSink, LogSubscription, SinkTask};
#[cfg(feature = "nats")]
pub use nats::NatsFeed;
pub use wire::{LogCursor, LogEntry, LogPage};
