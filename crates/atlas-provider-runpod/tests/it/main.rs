//! The provider over its whole HTTP stack: against scripted answers here, against the simulated cloud in `cloud`.

mod lists;
mod logs;
mod pods;
mod script;
