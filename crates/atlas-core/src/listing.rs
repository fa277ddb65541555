//! What a walk over a cloud's machines proves, and what it does not.

use std::collections::BTreeSet;

use crate::compute::{Compute, ComputeStatus};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::launch_key::TrackedKey;

/// Which machines to list. Empty means all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListFilter {
    /// Only with this status.
    pub status: Option<ComputeStatus>,
    /// Only with a name that begins so.
    pub name_prefix: Option<String>,
    /// Only in this region.
    pub region: Option<String>,
    /// Only with this GPU.
    pub gpu: Option<Gpu>,
    /// Only those that carry this key, in any carrier.
    pub launch_key: Option<TrackedKey>,
}

impl ListFilter {
    /// Every machine the key can see.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Only those that carry this key, in any carrier.
    #[must_use]
    pub fn launch_key(key: TrackedKey) -> Self {
        Self {
            launch_key: Some(key),
            ..Self::default()
        }
    }

    /// Only with this status.
    #[must_use]
    pub fn status(self, status: ComputeStatus) -> Self {
        Self {
            status: Some(status),
            ..self
        }
    }

    /// Only with a name that begins so.
    #[must_use]
    pub fn name_prefix(self, prefix: impl Into<String>) -> Self {
        Self {
            name_prefix: Some(prefix.into()),
            ..self
        }
    }

    /// Only in this region.
    #[must_use]
    pub fn region(self, region: impl Into<String>) -> Self {
        Self {
            region: Some(region.into()),
            ..self
        }
    }

    /// Only with this GPU, or a variant of it.
    #[must_use]
    pub fn gpu(self, gpu: Gpu) -> Self {
        Self {
            gpu: Some(gpu),
            ..self
        }
    }

    /// Whether a machine passes. Providers filter here, so that no cloud's own filter has to be
    /// trusted.
    #[must_use]
    pub fn matches(&self, compute: &Compute) -> bool {
        self.status
            .as_ref()
            .is_none_or(|status| *status == compute.status)
            && self.name_prefix.as_ref().is_none_or(|prefix| {
                compute
                    .name
                    .as_ref()
                    .is_some_and(|name| name.starts_with(prefix))
            })
            && self
                .region
                .as_ref()
                .is_none_or(|region| compute.region.as_ref() == Some(region))
            && self.gpu.is_none_or(|gpu| {
                compute
                    .gpu_type
                    .is_some_and(|card| gpu == card || gpu.variants().contains(&card))
            })
            && self
                .launch_key
                .is_none_or(|key| compute.keys.name == Some(key) || compute.keys.tag == Some(key))
    }
}

/// Whether a walk reached its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// Every page was read and understood.
    Complete,
    /// Something is missing, and why: a failed page, a lost cursor, a region in error, an
    /// implausible body.
    Incomplete(String),
}

/// The machines a walk saw. It proves presence; it never proves absence by itself.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The machines, each id once.
    pub computes: Vec<Compute>,
    /// Whether the walk reached its end.
    pub completeness: Completeness,
}

impl Listing {
    /// A walk that reached its end.
    #[must_use]
    pub fn complete(computes: Vec<Compute>) -> Self {
        Self {
            computes,
            completeness: Completeness::Complete,
        }
    }

    /// A walk that did not, and why.
    #[must_use]
    pub fn incomplete(computes: Vec<Compute>, reason: impl Into<String>) -> Self {
        Self {
            computes,
            completeness: Completeness::Incomplete(reason.into()),
        }
    }

    /// What a walk read, and what it misses. Pages shift under a walk: the same id twice is one
    /// machine. A row that cannot be understood makes the walk incomplete.
    #[must_use]
    pub fn of_walk(
        rows: impl IntoIterator<Item = Result<Compute>>,
        mut missing: Option<String>,
    ) -> Self {
        let (mut computes, mut seen) = (Vec::new(), BTreeSet::new());
        for row in rows {
            match row {
                Ok(compute) if seen.insert(compute.id.clone()) => computes.push(compute),
                Ok(_) => {}
                Err(error) => missing = missing.or_else(|| Some(error.message().to_owned())),
            }
        }
        match missing {
            None => Self::complete(computes),
            Some(reason) => Self::incomplete(computes, reason),
        }
    }

    /// Whether the walk reached its end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.completeness == Completeness::Complete
    }

    /// Keeps only what the filter passes.
    #[must_use]
    pub fn filtered(mut self, filter: &ListFilter) -> Self {
        self.computes.retain(|compute| filter.matches(compute));
        self
    }
}

/// What a point read of one id proves.
#[derive(Debug)]
pub enum Presence {
    /// It is there, whatever its state.
    Present,
    /// The cloud said, in the way its provider's documentation counts as proof, that there is no
    /// such machine.
    Absent,
    /// Nothing was proved: no answer, no right, a wrong account, an answer that is not proof.
    NoAnswer(Error),
}
