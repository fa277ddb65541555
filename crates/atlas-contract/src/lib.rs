//! The unpublished checks of the provider crates: against the clouds' own API documents, and
//! against the conformance suite.
//!
//! Each cloud's real provider crate, with its real HTTP stack, drives that cloud's dialect in
//! process; a [`tap::Tap`] between them keeps every exchange. `atlas-contract` holds the exchanges
//! against the cloud's document, `atlas-conformance` prints the matrix.

pub mod cloud;
pub mod contract;
pub mod examples;
pub mod openapi;
pub mod tap;
pub mod waiver;
