//! Simulated histories: the real kernel, runtime, providers and HTTP stack over one or two of the
//! simulated clouds, on virtual time, one seed for each.
//!
//! A history is drawn from its seed (`plan`), run on a paused clock (`history`), and judged by the
//! world's own ledger (`checker`). The same seed gives the same history, byte for byte.
//! Deliberately absent: any knowledge of the orchestrator's internals; faults are injected only
//! from outside.

mod callback;
mod checker;
mod clock;
pub mod cloud;
mod dice;
mod facts;
mod history;
mod leak;
mod node;
mod plan;
mod process;
mod refusal;
pub mod report;
mod rules;
pub mod run;
pub mod sabotage;
mod store;
mod watchdog;
mod way;
