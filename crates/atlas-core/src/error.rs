//! The error type of the workspace: a stable kind, and whether the cloud may have acted.

use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::ids::{ComputeId, ProviderId};
use crate::retry::RetryClass;

/// Result with the workspace's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Defines the kinds of errors: documentation, name and stable label of each, in one list.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $label:literal;)*) => {
        /// What went wrong. The labels never change: [`ErrorKind::as_str`] is a metrics label, and
        /// the label is also how a kind is written in JSON.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize,
            serde::Deserialize,
        )]
        #[non_exhaustive]
        pub enum ErrorKind { $($(#[$doc])* #[serde(rename = $label)] $kind,)* }

        impl ErrorKind {
            /// Every kind, for tables and metrics.
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$kind),*];

            /// The stable label: `no_capacity`, `rate_limited`, ...
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $label,)* }
            }
        }
    };
}

kinds! {
    /// The key is missing, wrong or revoked.
    Unauthorized "unauthorized";
    /// The key is valid but lacks the permission.
    Forbidden "forbidden";
    /// The thing named does not exist, as far as this cloud and this key can see.
    NotFound "not_found";
    /// The cloud refused the call before doing any work, because calls come too often.
    RateLimited "rate_limited";
    /// No answer arrived in time.
    Timeout "timeout";
    /// The cloud, or this provider, does not support the operation.
    Unsupported "unsupported";
    /// The request itself is wrong; the message names the field.
    Validation "validation";
    /// The cloud answered with an error, or with something atlas could not understand.
    Provider "provider";
    /// The connection failed.
    Transport "transport";
    /// Any other error.
    Unknown "unknown";
    /// The shape exists but is sold out here and now.
    NoCapacity "no_capacity";
    /// A limit of the account: money, quota, spend cap. Other offers will not help.
    Quota "quota";
    /// The state of the resource does not allow the operation, or the resource exists already.
    Conflict "conflict";
    /// The cloud, or a part of atlas that the call needs, cannot answer at the moment.
    Unavailable "unavailable";
}

impl FromStr for ErrorKind {
    type Err = Error;

    /// Reads a label.
    fn from_str(label: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == label)
            .ok_or_else(|| Error::validation("kind", format!("{label:?} is not a kind of error")))
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a caller may try after a create that certainly had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// This offer is gone or sold out; another candidate may work.
    NextCandidate,
    /// Repeat the same order later: it was refused before any work was done.
    SameLater,
    /// Do not repeat: bad key, no money, quota, or invalid request.
    Stop,
}

/// Whether the cloud may have acted on the call that failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The request provably never left this machine (refused locally, DNS, connect, TLS).
    NeverSent,
    /// The cloud answered that it did nothing.
    NotApplied(Next),
    /// The cloud may have acted. Holds the ids that appear in the answer: each may be billing.
    Unknown(Vec<ComputeId>),
    /// The cloud made these machines, and they are not what was ordered. Their deletion was
    /// requested but is not proved: each may be billing. Another candidate may work.
    Unwanted(Vec<ComputeId>),
}

impl Outcome {
    /// True when a machine may exist because of the failed call.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Unwanted(_))
    }
}

/// The error of every atlas crate. It is one word wide, and `Display` never prints its source or a
/// secret.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Inner>);

#[derive(Debug, thiserror::Error)]
struct Inner {
    kind: ErrorKind,
    outcome: Outcome,
    provider: Option<ProviderId>,
    operation: Option<&'static str>,
    message: String,
    field: Option<String>,
    status: Option<u16>,
    request_id: Option<String>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(provider) = &self.provider {
            write!(f, "{provider} ")?;
        }
        if let Some(operation) = self.operation {
            write!(f, "{operation}: ")?;
        } else if self.provider.is_some() {
            f.write_str("failed: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)?;
        write!(f, " [{}", self.kind)?;
        if let Some(status) = self.status {
            write!(f, ", http {status}")?;
        }
        if let Some(id) = &self.request_id {
            write!(f, ", request {id}")?;
        }
        f.write_str("]")
    }
}

impl Error {
    /// An error that happened before anything was sent. If that is not so, set the outcome with
    /// [`Error::outcome_is`].
    ///
    /// `message` is a lower-case fragment without a period, a secret, or the text of the source.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            outcome: Outcome::NeverSent,
            provider: None,
            operation: None,
            message: message.into(),
            field: None,
            status: None,
            request_id: None,
            retry_after: None,
            source: None,
        }))
    }

    /// Bad input, found before any request. `field` is the public name of the offending field.
    pub fn validation(field: impl Into<String>, message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorKind::Validation, message);
        error.0.field = Some(field.into());
        error.outcome_is(Outcome::NotApplied(Next::Stop))
    }

    /// A field or operation that this provider cannot honour, found before any request.
    pub fn unsupported(capability: impl Into<String>, message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorKind::Unsupported, message);
        error.0.field = Some(capability.into());
        error.outcome_is(Outcome::NotApplied(Next::Stop))
    }

    /// Names the field that the error is about.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Sets whether the cloud may have acted.
    #[must_use]
    pub fn outcome_is(mut self, outcome: Outcome) -> Self {
        self.0.outcome = outcome;
        self
    }

    /// Marks an error of a call that is made before the order of a create: nothing was ordered,
    /// whatever the failed call itself may have done.
    #[must_use]
    pub fn before_the_order(self) -> Self {
        match self.outcome() {
            Outcome::Unknown(_) => self.outcome_is(Outcome::NotApplied(Next::SameLater)),
            _ => self,
        }
    }

    /// Sets the provider and the operation, unless they are already set.
    #[must_use]
    pub fn during(mut self, provider: &ProviderId, operation: &'static str) -> Self {
        self.0.provider.get_or_insert_with(|| provider.clone());
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Sets the HTTP status of the answer.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.0.status = Some(status);
        self
    }

    /// Sets the cloud's request id (`x-request-id`, `fly-request-id`).
    #[must_use]
    pub fn with_request_id(mut self, id: impl Into<String>) -> Self {
        self.0.request_id = Some(id.into());
        self
    }

    /// Sets how long the cloud asked callers to wait.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Sets the cause. Its text is not repeated in `Display`: reporters walk the source chain.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the cloud may have acted.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.0.outcome
    }

    /// The message alone, without provider, operation and kind.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The field or capability that caused the error, if any.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// The provider that was called.
    #[must_use]
    pub fn provider(&self) -> Option<&ProviderId> {
        self.0.provider.as_ref()
    }

    /// The HTTP status of the answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The cloud's own id for the request.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// How long the cloud asked us to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// True when repeating a call of this class is safe and might succeed.
    #[must_use]
    pub fn is_retryable(&self, class: RetryClass) -> bool {
        let passing = matches!(
            self.0.kind,
            ErrorKind::RateLimited
                | ErrorKind::Unavailable
                | ErrorKind::Timeout
                | ErrorKind::Transport
        );
        passing && (class != RetryClass::Create || self.0.outcome == Outcome::NeverSent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back_from_its_label_and_from_json() {
        for kind in ErrorKind::ALL {
            assert_eq!(kind.as_str().parse::<ErrorKind>().unwrap(), kind);
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{kind}\""));
            assert_eq!(serde_json::from_str::<ErrorKind>(&json).unwrap(), kind);
        }
        let error = "sold out".parse::<ErrorKind>().unwrap_err();
        assert_eq!(error.field(), Some("kind"));
    }

    #[test]
    fn display_names_who_what_and_kind_and_never_the_source() {
        let error = Error::new(ErrorKind::NoCapacity, "sold out")
            .with_status(400)
            .with_request_id("r-1")
            .with_source("the key is rpa_1")
            .during(&ProviderId::new("runpod").unwrap(), "spawn_compute");
        assert_eq!(
            error.to_string(),
            "runpod spawn_compute: sold out [no_capacity, http 400, request r-1]"
        );
        assert_eq!(error.source().unwrap().to_string(), "the key is rpa_1");
    }

    #[test]
    fn a_create_is_only_repeated_when_it_never_left() {
        let lost = Error::new(ErrorKind::Timeout, "no answer").outcome_is(Outcome::Unknown(vec![]));
        assert!(!lost.is_retryable(RetryClass::Create));
        assert!(lost.is_retryable(RetryClass::Idempotent));
        assert!(Error::new(ErrorKind::Transport, "refused").is_retryable(RetryClass::Create));
    }

    #[test]
    fn an_error_is_one_word_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
