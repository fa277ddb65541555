//! Ids of machines and volumes: a Fly id is meaningful only together with its app, so the ids that
//! atlas returns contain both.

use atlas_core::{ComputeId, Error, ErrorKind, Next, Outcome, Result, VolumeId};

/// A machine or a volume, and its app: `6e8294c17d5083.pods-u7f3` outside this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) app: String,
    pub(crate) id: String,
}

impl Place {
    pub(crate) fn new(app: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            app: app.into(),
            id: id.into(),
        }
    }

    /// Parses the id of a machine.
    pub(crate) fn of(id: &ComputeId) -> Result<Self> {
        Self::read(id.as_str(), "compute_id")
    }

    /// Parses the id of a volume.
    pub(crate) fn of_volume(id: &VolumeId) -> Result<Self> {
        Self::read(id.as_str(), "network_volume_id")
    }

    fn read(text: &str, field: &str) -> Result<Self> {
        let wrong = || Error::validation(field, "is not of the form <id>.<app>");
        let (id, app) = text.split_once('.').ok_or_else(wrong)?;
        if id.is_empty() || !is_app_name(app) {
            Err(wrong())
        } else {
            Ok(Self::new(app, id))
        }
    }

    pub(crate) fn compute_id(&self) -> Result<ComputeId> {
        ComputeId::new(format!("{}.{}", self.id, self.app))
            .map_err(|error| strange(error, "a machine's id"))
    }

    pub(crate) fn volume_id(&self) -> Result<VolumeId> {
        VolumeId::new(format!("{}.{}", self.id, self.app))
            .map_err(|error| strange(error, "a volume's id"))
    }
}

fn strange(cause: Error, what: &str) -> Error {
    Error::new(ErrorKind::Provider, format!("{what} is not valid"))
        .outcome_is(Outcome::NotApplied(Next::SameLater))
        .with_source(cause)
}

/// Whether this is a valid app name: lower-case letters, digits and dashes. Nothing else is ever
/// put into a path.
pub(crate) fn is_app_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_one_without_an_app_is_refused() {
        let place = Place::new("pods-u7f3", "6e8294c17d5083");
        assert_eq!(
            place.compute_id().unwrap().as_str(),
            "6e8294c17d5083.pods-u7f3"
        );
        assert_eq!(Place::of(&place.compute_id().unwrap()).unwrap(), place);
        for odd in [
            "6e8294c17d5083",
            "6e.",
            ".pods",
            "6e.Pods",
            "6e.a.b",
            "6e.a_b",
        ] {
            assert!(Place::of(&ComputeId::new(odd).unwrap()).is_err(), "{odd}");
        }
    }
}
