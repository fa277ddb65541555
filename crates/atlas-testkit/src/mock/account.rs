//! Resources of a mock cloud besides machines: jobs, network volumes, supporting objects, and the
//! call counters.

use std::collections::BTreeMap;

use atlas_core::{NetworkVolume, Support};

use super::job::MockJob;
use crate::conformance::Rewrite;

/// All of it, by account where it belongs to one.
#[derive(Debug, Default)]
pub(super) struct Belongings {
    pub(super) calls: BTreeMap<String, u64>,
    pub(super) broken_listings: u32,
    pub(super) rewrite: Option<Rewrite>,
    pub(super) jobs: BTreeMap<String, MockJob>,
    /// Volumes by id, each with the account it belongs to.
    pub(super) volumes: BTreeMap<String, (String, NetworkVolume)>,
    /// By kind and name.
    pub(super) supports: BTreeMap<(String, String), Support>,
    serial: u64,
}

impl Belongings {
    /// The next number for an id.
    pub(super) fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}
