//! Simulated clouds for tests: one seeded world, a dialect for each cloud, a mock provider and the
//! provider conformance suite.
//!
//! ```
//! use std::time::Duration;
//! use atlas_testkit::world::{CloudSpec, MachineSpec, MachineState, World, WorldClock};
//!
//! let world = World::new(7, WorldClock::manual()).with_cloud(CloudSpec::plain("mock"));
//! let account = world.add_key("mock", "sim-key", "me");
//! let machine = world.create_machine("mock", &account, MachineSpec::gpu("gpu-a", 1), &world.honest()).unwrap();
//! world.advance(Duration::from_secs(60));
//! assert_eq!(world.truth("mock", &machine.id).unwrap().state, MachineState::Running);
//! assert_eq!(world.ledger().clouds["mock"].live, 1);
//! ```
//!
//! Deliberately absent: sockets (`atlas-sim` serves the same dialects on TCP) and every type of a
//! provider crate, so that a mistake in a provider is never repeated by the cloud it is tested
//! against.

pub mod conformance;
pub mod dialect;
#[cfg(unix)]
pub mod fake_fly;
pub mod mock;
pub mod provider_stage;
mod skip;
pub mod world;

pub use skip::{SKIPPED_TESTS_ENV, skip};
