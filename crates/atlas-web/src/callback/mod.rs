//! Pod callbacks: a machine reports progress, lines of its log, activity and its exit code to the
//! host.
//!
//! A machine finds `ATLAS_CALLBACK_URL` and `ATLAS_CALLBACK_TOKEN` in its environment and sends
//! `POST $ATLAS_CALLBACK_URL/{progress|log|activity|exit}` with
//! `Authorization: Bearer $ATLAS_CALLBACK_TOKEN`. The token is bound to its session and attempt,
//! and
//! is kept nowhere. `progress`, `log` and `exit` are no activity.

mod address;
mod core;
mod limit;
mod service;

pub use address::{CallbackUrl, Reach};
pub use core::{Admitted, Callbacks, Kind, Refusal, TOKEN_ENV, URL_ENV};
pub use limit::{Limits, Rate};
pub use service::{CallbackService, NoBody};
