//! Lambda's error bodies into ours, by status and code. The message is never shown: it may echo
//! `user_data`, and with it secrets.

use atlas_core::{Error, ErrorKind, Next, Outcome, Result, RetryClass};
use atlas_http::{Answer, FailedAnswer};

use crate::wire::ErrorEnvelope;

/// The mapper of this cloud's answers. An upstream failure behind a read is just a read to repeat.
pub(crate) fn map(answer: &FailedAnswer) -> Option<Error> {
    if answer.status().is_redirection() {
        // The old host answers so, before any work: the key goes nowhere else, and no launch
        // becomes a read.
        let text = "the base url answers with a redirect: it is not, or not any more, lambda's";
        return Some(answer.not_applied(ErrorKind::Provider, Next::Stop, text));
    }
    let error = classify(answer.status().as_u16(), answer.body())?;
    if error.outcome().is_unknown() && answer.class() != RetryClass::Create {
        return Some(error.outcome_is(answer.outcome()));
    }
    Some(error)
}

/// Whether what was asked for is gone by now: done, or a 404 in Lambda's own words. A proxy's 404
/// proves nothing.
pub(crate) fn gone(answer: &Answer) -> Result<()> {
    if answer.status().is_success() || says_gone(answer.bytes()) {
        return Ok(());
    }
    Err(answer.misunderstood("the answer is not the cloud's own 404"))
}

fn says_gone(body: &[u8]) -> bool {
    serde_json::from_slice::<ErrorEnvelope>(body).is_ok_and(|envelope| {
        matches!(
            envelope.error.code.as_str(),
            "global/object-does-not-exist" | "global/not-found"
        )
    })
}

/// What an answer that is not a success means; `None` when the body is not Lambda's.
pub(crate) fn classify(status: u16, body: &[u8]) -> Option<Error> {
    let code = serde_json::from_slice::<ErrorEnvelope>(body)
        .ok()?
        .error
        .code;
    let (kind, next) = match code.as_str() {
        "global/invalid-api-key" => (ErrorKind::Unauthorized, Next::Stop),
        "global/account-inactive" | "global/forbidden" => (ErrorKind::Forbidden, Next::Stop),
        "global/invalid-address" | "global/quota-exceeded" => (ErrorKind::Quota, Next::Stop),
        "instance-operations/launch/insufficient-capacity" => {
            (ErrorKind::NoCapacity, Next::NextCandidate)
        }
        "global/object-does-not-exist" | "global/not-found" => (ErrorKind::NotFound, Next::Stop),
        "global/conflict"
        | "global/duplicate"
        | "filesystems/filesystem-in-use"
        | "firewall-rulesets/firewall-ruleset-in-use" => (ErrorKind::Conflict, Next::Stop),
        "global/invalid-parameters" | "instance-operations/launch/file-system-in-wrong-region" => {
            (ErrorKind::Validation, Next::Stop)
        }
        // An upstream of Lambda failed: what became of a write is not known, whatever the status
        // says.
        other
            if other.starts_with("provider/")
                || other == "global/internal-error"
                || other == "global/unknown" =>
        {
            return Some(
                named(ErrorKind::Unavailable, &code, status)
                    .outcome_is(Outcome::Unknown(Vec::new())),
            );
        }
        _ => return None,
    };
    Some(named(kind, &code, status).outcome_is(Outcome::NotApplied(next)))
}

fn named(kind: ErrorKind, code: &str, status: u16) -> Error {
    let plain: String = code
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_'))
        .take(80)
        .collect();
    Error::new(kind, format!("the cloud answered {plain}")).with_status(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(status: u16, code: &str) -> Error {
        classify(
            status,
            format!(r#"{{"error":{{"code":"{code}","message":"zz-canary"}}}}"#).as_bytes(),
        )
        .unwrap()
    }

    #[test]
    fn codes_decide_and_messages_are_never_shown() {
        use ErrorKind::{
            Conflict, Forbidden, NoCapacity, NotFound, Quota, Unauthorized, Validation,
        };
        let stop = Outcome::NotApplied(Next::Stop);
        let table = [
            (401, "global/invalid-api-key", Unauthorized, stop.clone()),
            (403, "global/account-inactive", Forbidden, stop.clone()),
            (403, "global/invalid-address", Quota, stop.clone()),
            (400, "global/quota-exceeded", Quota, stop.clone()),
            (
                400,
                "instance-operations/launch/insufficient-capacity",
                NoCapacity,
                Outcome::NotApplied(Next::NextCandidate),
            ),
            (404, "global/object-does-not-exist", NotFound, stop.clone()),
            (409, "global/conflict", Conflict, stop.clone()),
            (400, "global/invalid-parameters", Validation, stop),
            (
                400,
                "provider/internal-unavailable",
                ErrorKind::Unavailable,
                Outcome::Unknown(vec![]),
            ),
        ];
        for (status, code, kind, outcome) in table {
            let error = classified(status, code);
            assert_eq!((error.kind(), error.outcome()), (kind, &outcome), "{code}");
            assert!(!error.to_string().contains("zz-canary"));
        }
    }

    #[test]
    fn a_body_that_is_not_lambdas_is_left_to_the_transport() {
        for body in [
            "",
            "<html>",
            "{}",
            r#"{"error":"x"}"#,
            r#"{"error":{"code":"new/code"}}"#,
        ] {
            assert!(classify(500, body.as_bytes()).is_none(), "{body}");
        }
    }
}
