//! The facade over the mock cloud: checks and wiring.

mod facade;
#[cfg(feature = "fly")]
mod fly;
mod in_house;
mod located;
mod owner;
#[cfg(feature = "runpod")]
mod runpod;
