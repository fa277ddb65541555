//! Rents GPU and CPU machines for a web backend and gives them back.

#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "config")]
pub mod span;

pub use atlas_core::*;
