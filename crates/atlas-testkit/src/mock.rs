//! The mock provider: a typed face of the world, for a five-line unit test.
