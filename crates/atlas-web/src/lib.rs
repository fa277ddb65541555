//! Inbound HTTP: the callbacks of machines, as a framework-free core and a tower service.
//!
//! ```
//! use atlas_web::callback::{CallbackUrl, Reach};
//!
//! assert!(CallbackUrl::check("https://app.example.com/callbacks", Reach::Public).is_ok());
//! assert!(CallbackUrl::check("https://10.0.0.7/callbacks", Reach::Public).is_err());
//! ```
//!
//! Deliberately absent: a listener (the host mounts the service in its own server), the facade, and
//! fly-ops.

pub mod callback;
