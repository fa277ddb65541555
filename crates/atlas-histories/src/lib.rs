//! Simulated histories of atlas.
