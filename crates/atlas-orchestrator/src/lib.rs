//! Sessions over rented machines, and the kernel that never loses one.
//!
//! Deliberately absent: any cloud (the orchestrator is handed provider handles), HTTP, files other than the store's own.

pub mod realm;
pub mod store;
