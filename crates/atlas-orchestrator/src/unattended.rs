//! What happens to a session's machine when no atlas process is running.

use atlas_core::{Timestamp, Usd, UsdPerHour};
use serde::Serialize;

use crate::kernel::SessionRecord;

/// What happens to a session's machine if every atlas process stops now.
///
/// A safety net counts only if the cloud was observed to honour it;
/// `docs/adr/0010-a-safety-net-counts-only-with-evidence.md` has the verdict on each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Unattended {
    /// The price per hour of what keeps running.
    pub burn: UsdPerHour,
    /// When the cloud itself ends the machine. `None` on every supported cloud: none was observed
    /// to end a machine at a requested time.
    pub ends_at: Option<Timestamp>,
    /// The command is wrapped so that the machine tries to delete itself when the command has
    /// ended. This is an attempt and not a guarantee: nothing repeats it if it fails.
    pub ends_with_command: bool,
    /// The maximum further cost; zero if nothing is running. `None` if nothing limits it, so that
    /// only a running atlas process ends the machine.
    pub at_most: Option<Usd>,
}

impl Unattended {
    /// Evaluates the safety nets of a session.
    #[must_use]
    pub fn of(record: &SessionRecord) -> Self {
        let burn: UsdPerHour = record
            .attempts
            .iter()
            .map(crate::kernel::Attempt::burn)
            .sum();
        Self {
            burn,
            ends_at: None,
            ends_with_command: record.ends_itself,
            at_most: (burn == UsdPerHour::ZERO).then_some(Usd::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Realm;
    use crate::ids::SessionId;
    use atlas_core::{Secret, SeededEntropy};
    use serde_json::json;

    #[test]
    fn a_time_at_which_an_old_record_expects_the_cloud_to_act_bounds_nothing() {
        let (entropy, at) = (
            SeededEntropy::new(7),
            Timestamp::from_unix_seconds(1_790_000_000),
        );
        let realm = Realm::new(&Secret::new("0123456789abcdef0123456789abcdef")).unwrap();
        let key = realm.mint_key(at, &entropy);
        let attempt = json!({
            "id": key.attempt(), "key": key, "account": "runpod", "created_at": at, "phase": "live",
            "serving": "p1", "price": UsdPerHour::from_f64(2.0),
        });
        let record = json!({
            "id": SessionId::from_bytes([7; 16]), "owner": "n", "account": "runpod",
            "provider": "runpod", "options": {}, "created_at": at, "attempts": [attempt],
            "last_seq": 1, "cloud_ends_at": at.saturating_add(std::time::Duration::from_secs(60)),
        });
        let record = SessionRecord::decode(record.to_string().as_bytes()).unwrap();
        let unattended = Unattended::of(&record);
        assert_eq!(Some(unattended.burn), UsdPerHour::from_f64(2.0));
        assert_eq!((unattended.ends_at, unattended.at_most), (None, None));
    }
}
