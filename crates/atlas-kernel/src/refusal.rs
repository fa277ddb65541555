//! Why a cloud, or a check of ours, refused to rent a machine.

use std::fmt;

use atlas_core::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

/// An error as records and events keep it: its text and its fields, each once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Refusal {
    /// Who failed at what, and why. Records of older releases also have the kind and the status at
    /// its end, in brackets.
    pub message: String,
    /// The kind of the error.
    pub kind: ErrorKind,
    /// The HTTP status of the cloud's answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The cloud's own id of the request, for a question to its support.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Refusal {
    /// A refusal that came from no answer of a cloud.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind,
            status: None,
            request_id: None,
        }
    }

    /// The error of an operation that failed because of this refusal.
    #[must_use]
    pub fn error(&self, what_failed: &str) -> Error {
        let message = self.message.as_str();
        // Messages of older releases end with what `Error` adds by itself.
        let message = match message.rfind(" [") {
            Some(end) if message[end..].starts_with(&format!(" [{}", self.kind)) => &message[..end],
            _ => message,
        };
        let mut error = Error::new(self.kind, format!("{what_failed}: {message}"));
        if let Some(status) = self.status {
            error = error.with_status(status);
        }
        if let Some(id) = &self.request_id {
            error = error.with_request_id(id);
        }
        error
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        Self {
            message: error.headline(),
            kind: error.kind(),
            status: error.status(),
            request_id: error.request_id().map(str::to_owned),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}", self.message, self.kind)?;
        if let Some(status) = self.status {
            write!(f, ", http {status}")?;
        }
        if let Some(id) = &self.request_id {
            write!(f, ", request {id}")?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_fields_and_names_its_kind_once() {
        let provider = atlas_core::ProviderId::new("runpod").unwrap();
        let error = Error::new(ErrorKind::NoCapacity, "sold out")
            .with_status(400)
            .with_request_id("r-1")
            .during(&provider, "spawn_compute");
        let refusal = Refusal::from(&error);
        assert_eq!(refusal.to_string(), error.to_string());
        let text = serde_json::to_string(&refusal).unwrap();
        let refusal: Refusal = serde_json::from_str(&text).unwrap();
        let again = refusal.error("no machine could be had");
        assert_eq!(
            again.to_string(),
            "no machine could be had: runpod spawn_compute: sold out \
             [no_capacity, http 400, request r-1]"
        );
        assert_eq!(
            (again.status(), again.request_id()),
            (Some(400), Some("r-1"))
        );
    }

    #[test]
    fn a_record_of_an_older_release_is_read_and_its_kind_is_not_repeated() {
        let stored = r#"{"message":"runpod spawn_compute: sold out [no_capacity, http 400]",
            "kind":"no_capacity"}"#;
        let refusal: Refusal = serde_json::from_str(stored).unwrap();
        assert_eq!(
            refusal.error("no machine could be had").to_string(),
            "no machine could be had: runpod spawn_compute: sold out [no_capacity]"
        );
    }
}
