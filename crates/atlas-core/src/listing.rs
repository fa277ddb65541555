//! Listings of a cloud's machines: what they prove and what they do not.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::compute::{Compute, ComputeStatus};
use crate::error::{Error, ErrorKind, Next, Outcome, Result};
use crate::gpu::Gpu;
use crate::launch_key::TrackedKey;

/// Selects the machines to list. An empty filter selects all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListFilter {
    /// Only machines with this status.
    pub status: Option<ComputeStatus>,
    /// Only machines whose name begins with this prefix.
    pub name_prefix: Option<String>,
    /// Only machines in this region, compared without case.
    pub region: Option<String>,
    /// Only machines with this GPU.
    pub gpu: Option<Gpu>,
    /// Only machines that carry this launch key in any carrier.
    pub launch_key: Option<TrackedKey>,
}

impl ListFilter {
    /// Selects every machine that the API key can see.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Selects machines that carry this launch key in any carrier.
    #[must_use]
    pub fn launch_key(key: TrackedKey) -> Self {
        Self {
            launch_key: Some(key),
            ..Self::default()
        }
    }

    /// Selects machines with this status.
    #[must_use]
    pub fn status(self, status: ComputeStatus) -> Self {
        Self {
            status: Some(status),
            ..self
        }
    }

    /// Selects machines whose name begins with this prefix.
    #[must_use]
    pub fn name_prefix(self, prefix: impl Into<String>) -> Self {
        Self {
            name_prefix: Some(prefix.into()),
            ..self
        }
    }

    /// Selects machines in this region.
    #[must_use]
    pub fn region(self, region: impl Into<String>) -> Self {
        Self {
            region: Some(region.into()),
            ..self
        }
    }

    /// Selects machines with this GPU or a variant of it.
    #[must_use]
    pub fn gpu(self, gpu: Gpu) -> Self {
        Self {
            gpu: Some(gpu),
            ..self
        }
    }

    /// Whether the filter selects a machine. Providers filter with this function, so that no
    /// cloud's own filter has to be trusted.
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
            && self.region.as_ref().is_none_or(|region| {
                compute
                    .region
                    .as_ref()
                    .is_some_and(|own| own.eq_ignore_ascii_case(region))
            })
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

/// Whether a walk over the pages of a listing reached its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// Every page was read and understood.
    Complete,
    /// Something is missing; the text says why: a failed page, a lost cursor, a region in error, or
    /// an implausible body.
    Incomplete(String),
}

/// A row of a listing that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableRow {
    /// The id that the cloud gives in the row, if any.
    pub id: Option<String>,
    /// What could not be read, without quoting it.
    pub reason: String,
    /// Whether the row contains a launch key anywhere.
    pub has_launch_key: bool,
}

impl UnreadableRow {
    /// Records what can be read of a row: the member `id`, and whether it contains a launch key.
    #[must_use]
    pub fn of(raw: &Value, reason: impl Into<String>) -> Self {
        let id = match raw.get("id") {
            Some(Value::String(id)) if !id.is_empty() => Some(id.clone()),
            Some(Value::Number(id)) => Some(id.to_string()),
            _ => None,
        };
        Self {
            id,
            reason: reason.into(),
            has_launch_key: has_launch_key(raw),
        }
    }

    /// Whether the row may be one of our machines: it has no id, so it may be any recorded machine,
    /// or it carries a launch key. The ids of our own machines have been read before, so a row with
    /// an unknown id and without a key belongs to another user.
    #[must_use]
    pub fn may_be_ours(&self) -> bool {
        self.id.is_none() || self.has_launch_key
    }

    /// Turns the row into the error of a call whose answer was only this row.
    #[must_use]
    pub fn into_error(self) -> Error {
        Error::new(
            ErrorKind::Provider,
            format!(
                "a description in the answer could not be understood: {}",
                self.reason
            ),
        )
        .outcome_is(Outcome::NotApplied(Next::SameLater))
    }
}

fn has_launch_key(raw: &Value) -> bool {
    match raw {
        Value::String(text) => TrackedKey::in_name(text).is_some(),
        Value::Array(items) => items.iter().any(has_launch_key),
        Value::Object(members) => members.values().any(has_launch_key),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The machines that a walk saw. It proves presence; it never proves absence by itself.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The machines; each id appears once.
    pub computes: Vec<Compute>,
    /// Whether the walk reached its end.
    pub completeness: Completeness,
    /// Rows that could not be read. A row that may be ours makes the walk incomplete.
    pub unreadable: Vec<UnreadableRow>,
}

impl Listing {
    /// The listing of a complete walk.
    #[must_use]
    pub fn complete(computes: Vec<Compute>) -> Self {
        Self {
            computes,
            completeness: Completeness::Complete,
            unreadable: Vec::new(),
        }
    }

    /// The listing of an incomplete walk, with the reason.
    #[must_use]
    pub fn incomplete(computes: Vec<Compute>, reason: impl Into<String>) -> Self {
        Self {
            computes,
            completeness: Completeness::Incomplete(reason.into()),
            unreadable: Vec::new(),
        }
    }

    /// Builds a listing from what a walk read and what it missed. Pages shift during a walk: the
    /// same id twice is one machine. An unreadable row that [may be
    /// ours](UnreadableRow::may_be_ours) makes the walk incomplete; a row that belongs to another
    /// user does not.
    #[must_use]
    pub fn of_walk(
        rows: impl IntoIterator<Item = Result<Compute, UnreadableRow>>,
        mut missing: Option<String>,
    ) -> Self {
        let (mut computes, mut seen) = (Vec::new(), BTreeSet::new());
        let mut unreadable = Vec::new();
        for row in rows {
            match row {
                Ok(compute) if seen.insert(compute.id.clone()) => computes.push(compute),
                Ok(_) => {}
                Err(row) => unreadable.push(row),
            }
        }
        if let Some(row) = unreadable.iter().find(|row| row.may_be_ours()) {
            missing = missing.or_else(|| {
                Some(format!(
                    "a row that may be a machine of ours could not be read: {}",
                    row.reason
                ))
            });
        }
        let listing = match missing {
            None => Self::complete(computes),
            Some(reason) => Self::incomplete(computes, reason),
        };
        Self {
            unreadable,
            ..listing
        }
    }

    /// Whether the walk reached its end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.completeness == Completeness::Complete
    }

    /// Keeps only the machines that the filter selects.
    #[must_use]
    pub fn filtered(mut self, filter: &ListFilter) -> Self {
        self.computes.retain(|compute| filter.matches(compute));
        self
    }
}

/// What a point read of one id proves.
#[derive(Debug)]
pub enum Presence {
    /// The machine exists, whatever its state.
    Present,
    /// The cloud answered that there is no such machine, in a way that its provider's documentation
    /// accepts as proof.
    Absent,
    /// Nothing was proved: no answer, missing permission, wrong account, or an answer that is not
    /// proof.
    NoAnswer(Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ComputeId, ProviderId};
    use serde_json::json;

    #[test]
    fn only_an_unreadable_row_that_may_be_ours_makes_a_listing_incomplete() {
        let compute = || {
            let id = ComputeId::new("m1").unwrap();
            Compute::new(id, ProviderId::new("acme").unwrap(), ComputeStatus::Running)
        };
        let key = "a1-aaaaaa-nkyqgaabaeaqcaib-aibaeaqc";
        for (raw, complete) in [
            (json!({ "id": "x y", "status": 7 }), true),
            (json!({ "id": 7, "name": "somebody-elses" }), true),
            (
                json!({ "id": "x y", "name": format!("atlas-x-{key}") }),
                false,
            ),
            (
                json!({ "id": "x y", "env": [["ATLAS_LAUNCH_KEY", key]] }),
                false,
            ),
            (json!({ "id": null, "status": "up" }), false),
            (json!(null), false),
        ] {
            let rows = [
                Ok(compute()),
                Err(UnreadableRow::of(&raw, "id: is not text")),
            ];
            let listing = Listing::of_walk(rows, None);
            assert_eq!(listing.is_complete(), complete, "{raw}");
            assert_eq!(
                (listing.computes.len(), listing.unreadable.len()),
                (1, 1),
                "{raw}"
            );
        }
        let cut = Listing::of_walk([Ok(compute())], Some("page 2 failed".to_owned()));
        assert!(!cut.is_complete(), "what the walk missed stays missing");
    }
}
