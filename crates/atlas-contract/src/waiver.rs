//! Where a cloud has moved on from its document: committed exceptions, each quoting our digest of
//! the cloud.

use serde::Deserialize;

const COMMITTED: &str = include_str!("../waivers.json");

/// One exception.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// The cloud.
    pub cloud: String,
    /// The operation, `GET /v2/pods`; `*` for any.
    pub operation: String,
    /// What the mismatch's text contains.
    pub mismatch: String,
    /// Where our digest says so.
    pub source: String,
    /// The passage of the source that the waiver rests on.
    pub quote: String,
}

/// The committed waivers of a cloud.
///
/// # Panics
/// When the committed file is not what it should be; a test reads it.
#[must_use]
pub fn of(cloud: &str) -> Vec<Waiver> {
    let all: Vec<Waiver> =
        serde_json::from_str(COMMITTED).expect("the committed waivers are well-formed");
    all.into_iter()
        .filter(|waiver| waiver.cloud == cloud)
        .collect()
}

impl Waiver {
    /// Whether it excepts this mismatch.
    #[must_use]
    pub fn excepts(&self, operation: Option<&str>, mismatch: &str) -> bool {
        (self.operation == "*" || operation == Some(&*self.operation))
            && mismatch.contains(&self.mismatch)
    }

    /// Its line in the report.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{}: {} ({}: {:?})",
            self.operation, self.mismatch, self.source, self.quote
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_waiver_names_a_cloud_of_ours_and_quotes_its_digest() {
        let all: Vec<Waiver> = serde_json::from_str(COMMITTED).unwrap();
        for waiver in &all {
            assert!(
                crate::cloud::CLOUDS
                    .iter()
                    .any(|cloud| cloud.name == waiver.cloud),
                "{waiver:?}"
            );
            let digest = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../..")
                .join(&waiver.source);
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                words(&std::fs::read_to_string(digest).unwrap()).contains(&words(&waiver.quote)),
                "{waiver:?}"
            );
            assert!(
                waiver.quote.len() > 10 && waiver.mismatch.len() > 10,
                "{waiver:?}"
            );
        }
    }

    #[test]
    fn a_waiver_excepts_its_own_mismatch_only() {
        let text = r#"{"cloud":"c","operation":"GET /a","mismatch":"field .x","source":"docs/clouds/c.md","quote":"x is newer"}"#;
        let waiver: Waiver = serde_json::from_str(text).unwrap();
        assert!(waiver.excepts(Some("GET /a"), "answer 200: field .x is not declared"));
        assert!(!waiver.excepts(Some("GET /b"), "answer 200: field .x is not declared"));
        assert!(!waiver.excepts(None, "answer 200: field .x is not declared"));
        assert!(!waiver.excepts(Some("GET /a"), "answer 200: field .y is not declared"));
    }
}
