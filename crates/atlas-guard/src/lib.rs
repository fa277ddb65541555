//! A verifying reverse proxy for the inside of a machine: only requests with a credential pass, and
//! the server never sees the credential.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use atlas_guard::{Config, Guard};
//!
//! let config = Config::from_env(|name| std::env::var(name).ok())?;
//! let guard = Guard::bind(config).await?;
//! println!("listening on {}", guard.local_addr()?);
//! guard.serve(std::future::pending()).await;
//! # Ok(())
//! # }
//! ```
//!
//! Deliberately absent: TLS (the cloud's proxy terminates it), several upstreams, caching,
//! rewriting, and any file.

mod activity;
mod body;
pub mod child;
mod config;
mod control;
mod cors;
mod forward;
mod permit;
mod places;
mod proxy;
mod reply;
mod server;
mod socket;
mod streams;
mod tunnel;
mod upstream;

pub use activity::Report;
pub use config::{Config, ConfigError};
pub use permit::Permit;
pub use server::Guard;
