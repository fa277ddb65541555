//! Maps Lambda's error bodies: the kind by status and code, and the message from Lambda's own,
//! which names the refused field. It may echo the `user_data` of a launch: text after the beginning
//! of a script is not shown, because a partial secret there would not be recognised.

use atlas_core::{Error, ErrorKind, Next, Outcome, Result, RetryClass};
use atlas_http::{Answer, FailedAnswer};

use crate::wire::ErrorEnvelope;

/// The error mapper of Lambda's answers. If an upstream fails during a read, the read is just
/// repeated.
pub(crate) fn map(answer: &FailedAnswer) -> Option<Error> {
    if answer.status().is_redirection() {
        // The old host answers with a redirect before any work. The redirect is not followed, so
        // that the key is not sent elsewhere, and a launch does not become a read.
        let text = "the base url answers with a redirect: it is not, or not any more, lambda's";
        return Some(answer.not_applied(ErrorKind::Provider, Next::Stop, text));
    }
    let error = classify(
        answer.status().as_u16(),
        answer.body(),
        answer.message().as_deref(),
    )?;
    if error.outcome().is_unknown() && answer.class() != RetryClass::Create {
        return Some(error.outcome_is(answer.outcome()));
    }
    Some(error)
}

/// Whether the object is gone: deleted, or a 404 from Lambda itself. A proxy's 404 proves nothing.
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

/// The meaning of an error answer; `None` when the body is not Lambda's. `message` is the cloud's
/// text on one line and without secrets.
fn classify(status: u16, body: &[u8], message: Option<&str>) -> Option<Error> {
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
        // An upstream of Lambda failed: the outcome of a write is unknown, whatever the status is.
        other
            if other.starts_with("provider/")
                || other == "global/internal-error"
                || other == "global/unknown" =>
        {
            return Some(
                named(ErrorKind::Unavailable, &code, message, status)
                    .outcome_is(Outcome::Unknown(Vec::new())),
            );
        }
        _ => return None,
    };
    Some(named(kind, &code, message, status).outcome_is(Outcome::NotApplied(next)))
}

fn named(kind: ErrorKind, code: &str, message: Option<&str>, status: u16) -> Error {
    let plain: String = code
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_'))
        .take(80)
        .collect();
    let said = message.unwrap_or_default();
    let said = said.split_once("#!").map_or(said, |(before, _)| before);
    let said = said.trim_end_matches(|c: char| !c.is_alphanumeric() && c != ')');
    let text = if said.is_empty() || said == code {
        format!("the cloud answered {plain}")
    } else {
        format!("the cloud answered {plain}: {said}")
    };
    Error::new(kind, text).with_status(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(status: u16, code: &str) -> Error {
        classify(
            status,
            format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#).as_bytes(),
            Some("Field name: is bad"),
        )
        .unwrap()
    }

    #[test]
    fn the_code_decides_and_the_clouds_own_message_is_shown() {
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
            let text = error.to_string();
            assert!(
                text.contains(&format!("{code}: Field name: is bad")),
                "{text}"
            );
        }
    }

    #[test]
    fn what_a_message_repeats_of_a_script_is_not_shown() {
        let body = br#"{"error":{"code":"global/invalid-parameters","message":"m"}}"#;
        let text = |message| classify(400, body, message).unwrap().to_string();
        let shown = text(Some("user_data: too long: '#!/bin/bash set -u zz-canary"));
        let end = "global/invalid-parameters: user_data: too long [validation, http 400]";
        assert!(shown.ends_with(end), "{shown}");
        let bare = "global/invalid-parameters [validation, http 400]";
        assert!(text(None).ends_with(bare), "{}", text(None));
        assert!(text(Some("#!/bin/sh")).ends_with(bare));
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
            assert!(classify(500, body.as_bytes(), None).is_none(), "{body}");
        }
    }
}
