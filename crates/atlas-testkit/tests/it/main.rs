//! The testkit through its public faces.

mod broken;
mod graphql;
mod mock;
mod resources;
mod runpod;
mod runtime;
mod world;
