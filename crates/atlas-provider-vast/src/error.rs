//! Maps Vast's error bodies, by their `error` and the text of their `msg`. The text is never shown,
//! because it echoes what was sent.

use std::time::Duration;

use atlas_core::{ComputeId, Error, ErrorKind, Next, Outcome, Result};
use atlas_http::{Answer, FailedAnswer};
use http::StatusCode;

use crate::wire::Verdict;

/// How long a client that rented too early is refused (docs/clouds/vast.md).
const PENALTY: Duration = Duration::from_secs(12);
/// The message of a start whose GPU is in use by another renter.
pub(crate) const QUEUED: &str = "required resources are currently unavailable";
/// The `error` of a search after the account's rows of the day are used up.
const SEARCH_QUOTA: &str = "search_quota_exceeded";
/// Messages about an offer that another renter took.
const TAKEN: [&str; 5] = [
    "no_such_ask",
    "no longer available",
    "no longer rentable",
    "already rented",
    "already been rented",
];
/// A 404 or 410 without Vast's own text says nothing about the requested object: a proxy wrote it.
const A_PROXYS: &str = "the answer is not the cloud's own";

/// The error mapper of Vast's answers.
pub(crate) fn map(answer: &FailedAnswer) -> Option<Error> {
    let status = answer.status().as_u16();
    if status == 429 {
        // The body decides, not the status: the rows of the day are used up, and a short wait does
        // not help. `Retry-After` says when new rows are granted, and the caller stores it.
        if answer
            .json()
            .is_some_and(|json| json["error"] == SEARCH_QUOTA)
        {
            return Some(answer.not_applied(
                ErrorKind::Quota,
                Next::Stop,
                "the account's offer rows of the day are used up",
            ));
        }
        // Plain text or JSON, with no further details.
        let error = answer.not_applied(ErrorKind::RateLimited, Next::SameLater, "called too often");
        let told = answer
            .retry_after()
            .or_else(|| (answer.operation() == "spawn_compute").then_some(PENALTY));
        return Some(told.into_iter().fold(error, Error::with_retry_after));
    }
    let verdict = answer
        .json()
        .and_then(|json| serde_json::from_value::<Verdict>(json.clone()).ok());
    let Some(verdict) = verdict else {
        // A proxy's page says nothing about the requested object.
        return matches!(status, 404 | 410)
            .then(|| answer.not_applied(ErrorKind::Provider, Next::Stop, A_PROXYS));
    };
    if verdict.new_contract.is_none() && status >= 500 {
        return Some(answer.error(ErrorKind::Unavailable, named(&verdict)));
    }
    Some(classify(status, &verdict))
}

/// The meaning of an error answer.
pub(crate) fn classify(status: u16, verdict: &Verdict) -> Error {
    use ErrorKind::{
        Conflict, Forbidden, NoCapacity, NotFound, Provider, Quota, Unauthorized, Validation,
    };
    let words = verdict.words();
    let (kind, next) = match verdict.code() {
        "auth_error" => (Unauthorized, Next::Stop),
        _ if TAKEN.iter().any(|taken| words.contains(taken)) => (NoCapacity, Next::NextCandidate),
        _ if words.contains(QUEUED) => (NoCapacity, Next::Stop),
        "insufficient_credit" | "spend_rate_limit" | "missing_billing" | SEARCH_QUOTA => {
            (Quota, Next::Stop)
        }
        "not_authorized" => (Forbidden, Next::Stop),
        "no_such_instance"
        | "invalid_id"
        | "no_such_volume"
        | "no_such_ssh_key"
        | "no_ssh_key"
        | "invalid_container_id" => (NotFound, Next::Stop),
        // The endpoint no longer exists, which says nothing about the requested object.
        "deprecated_endpoint" => (Provider, Next::Stop),
        "invalid_args" if words.contains("in use") || words.contains("in no state") => {
            (Conflict, Next::Stop)
        }
        "invalid_args" | "invalid_request" | "invalid_price" | "invalid_token"
        | "no_ssh_key_for_vm" => (Validation, Next::Stop),
        _ => match status {
            401 => (Unauthorized, Next::Stop),
            403 => (Forbidden, Next::Stop),
            404 if words.contains("not found") || words.contains("no ssh keys found") => {
                (NotFound, Next::Stop)
            }
            400 | 422 => (Validation, Next::Stop),
            _ => (Provider, Next::Stop),
        },
    };
    let error = Error::new(kind, named(verdict)).with_status(status);
    match verdict
        .new_contract
        .and_then(|id| ComputeId::new(id.to_string()).ok())
    {
        // Refused, but the machine was made nevertheless.
        Some(id) => error.outcome_is(Outcome::Unknown(vec![id])),
        None => error.outcome_is(Outcome::NotApplied(next)),
    }
}

/// The meaning of a 404 about an instance: that it is gone, or, as an error, something else: a bad
/// key, or a proxy's answer. `None` for any other status.
pub(crate) fn gone(answer: &Answer) -> Option<Result<()>> {
    (answer.status() == StatusCode::NOT_FOUND).then(|| {
        match serde_json::from_slice::<Verdict>(answer.bytes()) {
            Ok(verdict) if says_gone(&verdict) => Ok(()),
            Ok(verdict) if !verdict.code().is_empty() => Err(classify(404, &verdict)),
            _ => Err(answer.misunderstood(A_PROXYS)),
        }
    })
}

fn says_gone(verdict: &Verdict) -> bool {
    matches!(verdict.code(), "no_such_instance" | "invalid_id")
}

fn named(verdict: &Verdict) -> String {
    let code: String = verdict
        .code()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
        .take(60)
        .collect();
    if code.is_empty() {
        "the cloud answered an error without a code".to_owned()
    } else {
        format!("the cloud answered {code}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(status: u16, body: &str) -> Error {
        classify(status, &serde_json::from_str(body).unwrap())
    }

    #[test]
    fn codes_and_words_decide_and_are_not_repeated() {
        use ErrorKind::{
            Forbidden, NoCapacity, NotFound, Provider, Quota, Unauthorized, Validation,
        };
        let stop = Next::Stop;
        let table = [
            (
                404,
                r#"{"error":"auth_error","msg":"Invalid user key zz-canary"}"#,
                Unauthorized,
                stop,
            ),
            (
                403,
                r#"{"error":"auth_error","msg":"This action requires login."}"#,
                Unauthorized,
                stop,
            ),
            (
                404,
                r#"{"error":"invalid_args","msg":"error 404/3603: no_such_ask zz-canary"}"#,
                NoCapacity,
                Next::NextCandidate,
            ),
            (
                410,
                r#"{"error":"no_such_ask","msg":"error 410/3907"}"#,
                NoCapacity,
                Next::NextCandidate,
            ),
            (
                400,
                r#"{"msg":"the offer has already been rented"}"#,
                NoCapacity,
                Next::NextCandidate,
            ),
            (
                410,
                r#"{"error":"deprecated_endpoint","msg":"zz-canary"}"#,
                Provider,
                stop,
            ),
            (404, r#"{"error":"no_such_instance"}"#, NotFound, stop),
            (404, r#"{"message":"Instance not found"}"#, NotFound, stop),
            (404, r#"{"error":"something_new"}"#, Provider, stop),
            (400, r#"{"error":"insufficient_credit"}"#, Quota, stop),
            (402, r#"{"error":"missing_billing"}"#, Quota, stop),
            (403, r#"{"msg":"Offer 1 is not your own"}"#, Forbidden, stop),
            (
                400,
                r#"{"error":"invalid_args","msg":"got zz-canary"}"#,
                Validation,
                stop,
            ),
        ];
        for (status, body, kind, next) in table {
            let error = classified(status, body);
            assert_eq!(
                (error.kind(), error.outcome()),
                (kind, &Outcome::NotApplied(next)),
                "{body}"
            );
            assert!(
                !format!("{error} {error:?}").contains("zz-canary"),
                "{body}"
            );
        }
    }

    #[test]
    fn an_instance_in_an_error_is_harvested() {
        let error = classified(400, r#"{"error":"invalid_price","new_contract":25417733}"#);
        assert_eq!(
            error.outcome(),
            &Outcome::Unknown(vec![ComputeId::new("25417733").unwrap()])
        );
    }

    #[test]
    fn a_404_about_the_key_is_no_absence() {
        let says = |body: &str| says_gone(&serde_json::from_str(body).unwrap());
        assert!(says(r#"{"error":"no_such_instance"}"#));
        for body in [
            "{}",
            r#"{"error":"auth_error"}"#,
            r#"{"error":"invalid_args"}"#,
        ] {
            assert!(!says(body), "{body}");
        }
    }
}
