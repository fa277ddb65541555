//! Sizes of disks and memory, in the units the clouds sell.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A disk size in whole gigabytes, as the cloud that rents it counts them.
///
/// Most clouds sell decimal gigabytes, Fly binary ones (docs/clouds/). The clouds do not convert,
/// and neither does atlas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiskSize(u32);

impl DiskSize {
    /// A size of this many gigabytes.
    #[must_use]
    pub const fn gb(gb: u32) -> Self {
        Self(gb)
    }

    /// The size in gigabytes.
    #[must_use]
    pub const fn as_gb(self) -> u32 {
        self.0
    }
}

impl fmt::Display for DiskSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} GB", self.0)
    }
}

/// Memory in whole mebibytes: RAM, or VRAM of one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemorySize(u32);

impl MemorySize {
    /// A size of this many mebibytes.
    #[must_use]
    pub const fn mib(mib: u32) -> Self {
        Self(mib)
    }

    /// A size of this many gibibytes, the usual unit of VRAM.
    #[must_use]
    pub const fn gib(gib: u32) -> Self {
        Self(gib.saturating_mul(1024))
    }

    /// The size in mebibytes.
    #[must_use]
    pub const fn as_mib(self) -> u32 {
        self.0
    }

    /// The size in whole gibibytes, rounded down.
    #[must_use]
    pub const fn as_gib(self) -> u32 {
        self.0 / 1024
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1024) {
            write!(f, "{} GiB", self.0 / 1024)
        } else {
            write!(f, "{} MiB", self.0)
        }
    }
}
