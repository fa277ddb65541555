//! The testkit through its public faces.

mod broken;
mod fly;
mod fly_logs;
mod graphql;
mod lambda;
mod mock;
mod resources;
mod runpod;
mod runtime;
mod vast;
mod world;
