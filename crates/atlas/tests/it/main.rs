//! The facade over the mock cloud: checks and wiring.

mod facade;
mod owner;
#[cfg(feature = "runpod")]
mod runpod;
