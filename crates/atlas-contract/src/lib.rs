//! The unpublished checks of the provider crates: against the clouds' own API documents, and against the conformance suite.

pub mod openapi;
