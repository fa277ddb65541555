//! Maps Fly's error bodies. The status word takes precedence over the text, which is not stable;
//! the text decides only if the word is missing.

use atlas_core::{Error, ErrorKind, Next, Outcome, REDACTED, Result, RetryClass, Secret};
use atlas_http::{Answer, FailedAnswer};

use crate::wire::ErrorBody;

/// The maximum length of a cloud's message in an error, in characters.
const LONGEST: usize = 300;

/// The error mapper of Fly's answers.
pub(crate) fn map(answer: &FailedAnswer) -> Option<Error> {
    let body: ErrorBody = serde_json::from_slice(answer.body()).ok()?;
    let (kind, next) = classify(answer.status().as_u16(), &body)?;
    let said = answer
        .message()
        .unwrap_or_else(|| "the cloud refused".to_owned());
    let error = answer.not_applied(kind, next, said);
    // The refusal of a read says nothing about the effect of other calls.
    Some(if answer.class() == RetryClass::Safe {
        error.outcome_is(answer.outcome())
    } else {
        error
    })
}

/// The meaning of an answer's text, if it is more specific than the status.
fn classify(status: u16, body: &ErrorBody) -> Option<(ErrorKind, Next)> {
    let text = body.text();
    let has = |needle: &str| text.contains(needle);
    match body.status.as_deref() {
        Some("insufficient_capacity" | "volume_placement_capacity") => {
            return Some((ErrorKind::NoCapacity, Next::NextCandidate));
        }
        Some("name_taken") => return Some((ErrorKind::Conflict, Next::Stop)),
        _ => {}
    }
    // Another update was faster. This is the only 409 with "aborted" that is not a shortage.
    if has("concurrent update") {
        return Some((ErrorKind::Conflict, Next::SameLater));
    }
    let short = text.ends_with("no capacity")
        || has("insufficient resources to create new machine")
        || (has("insufficient ") && has("available to fulfill request"));
    if short && matches!(status, 400 | 409 | 412 | 422 | 503) {
        return Some((ErrorKind::NoCapacity, Next::NextCandidate));
    }
    // A quota applies to one region, so another may have room. It is reported as a 403 and does not
    // concern permissions.
    if status == 403 && has("over the allowed quota") {
        return Some((ErrorKind::Quota, Next::NextCandidate));
    }
    let low = text.to_ascii_lowercase();
    if OF_THE_ACCOUNT.iter().any(|words| low.contains(words)) {
        return Some((ErrorKind::Quota, Next::Stop));
    }
    None
}

/// Messages that mean that the account may have no more machines: a limit, or its billing. No other
/// region or size helps.
const OF_THE_ACCOUNT: [&str; 4] = [
    "add a payment method",
    "reached its machine limit",
    "trial has ended",
    "unpaid invoice",
];

/// The id of the machine that already has the name, from the text of a 409.
pub(crate) fn existing_machine(body: &[u8]) -> Option<String> {
    let body: ErrorBody = serde_json::from_slice(body).ok()?;
    let text = body.text();
    if !text.contains("unique machine name violation") {
        return None;
    }
    let id = text
        .split("machine ID ")
        .nth(1)?
        .split_whitespace()
        .next()?;
    id.bytes()
        .all(|b| b.is_ascii_alphanumeric())
        .then(|| id.to_owned())
}

/// A 409 of a create that is not about the name: a host without room, or another refusal before any
/// work. The error contains Fly's message without the order's secrets.
pub(crate) fn of_conflict(body: &[u8], secrets: &[Secret], request_id: Option<&str>) -> Error {
    let known = serde_json::from_slice::<ErrorBody>(body).ok();
    let classified = known.as_ref().and_then(|body| classify(409, body));
    let (kind, next) = classified.unwrap_or((ErrorKind::Conflict, Next::Stop));
    let what = if kind == ErrorKind::NoCapacity {
        "the host has no room for it"
    } else {
        "the cloud refused the order as a conflict"
    };
    let message = match known.as_ref().map(|body| plain(body.text(), secrets)) {
        Some(said) if !said.is_empty() => format!("{what}: {said}"),
        _ => what.to_owned(),
    };
    // Only Fly's own messages prove that nothing was done.
    let outcome = if known.is_some() {
        Outcome::NotApplied(next)
    } else {
        Outcome::Unknown(Vec::new())
    };
    let error = Error::new(kind, message)
        .outcome_is(outcome)
        .with_status(409);
    match request_id {
        Some(id) => error.with_request_id(id),
        None => error,
    }
}

/// Reduces a cloud's text to one short line without these secrets.
pub(crate) fn plain(text: &str, secrets: &[Secret]) -> String {
    let mut values: Vec<&str> = secrets.iter().map(Secret::expose).collect();
    values.retain(|value| value.len() >= 4);
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    let mut text = text.to_owned();
    for value in values {
        text = text.replace(value, REDACTED);
    }
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let line = words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    line.chars().take(LONGEST).collect()
}

/// The message in the body of an answer.
pub(crate) fn said(body: &[u8]) -> String {
    serde_json::from_slice::<ErrorBody>(body)
        .map_or_else(|_| String::new(), |body| plain(body.text(), &[]))
}

/// Whether an app was refused because its name is taken, by us or by others. A race results in a
/// database's message with the same status.
pub(crate) fn is_name_taken(body: &[u8]) -> bool {
    serde_json::from_slice::<ErrorBody>(body).is_ok_and(|body| {
        body.status.as_deref() == Some("name_taken") || body.text().contains("already been taken")
    })
}

/// Whether the object is gone: deleted, or a 404 from Fly itself. A proxy's 404 proves nothing.
pub(crate) fn gone(answer: &Answer) -> Result<()> {
    if answer.status().is_success() || is_flys_own(answer.bytes()) {
        return Ok(());
    }
    Err(answer.misunderstood("the answer is not the cloud's own 404"))
}

fn is_flys_own(body: &[u8]) -> bool {
    serde_json::from_slice::<ErrorBody>(body).is_ok_and(|body| !body.text().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(status: u16, text: &str, word: Option<&str>) -> Option<(ErrorKind, Next)> {
        let body = ErrorBody {
            error: Some(text.to_owned()),
            message: None,
            status: word.map(str::to_owned),
        };
        classify(status, &body)
    }

    #[test]
    fn the_status_word_wins_and_texts_decide_where_there_is_none() {
        use ErrorKind::{Conflict, NoCapacity, Quota};
        let capacity = Some((NoCapacity, Next::NextCandidate));
        let table = [
            (
                422,
                "could not find a candidate host for the requested size",
                Some("insufficient_capacity"),
                capacity,
            ),
            (503, "anything", Some("insufficient_capacity"), capacity),
            (
                412,
                "insufficient resources to create new machine with existing volume id 'vol_x'",
                None,
                capacity,
            ),
            (412, "x", Some("volume_placement_capacity"), capacity),
            (
                409,
                "aborted: insufficient memory available to fulfill request",
                None,
                capacity,
            ),
            (
                409,
                "insufficient CPUs available to fulfill request",
                None,
                capacity,
            ),
            (400, "aborted: no capacity", None, capacity),
            (
                409,
                "aborted: machine update failed due to concurrent update",
                None,
                Some((Conflict, Next::SameLater)),
            ),
            (
                422,
                "Validation failed: Name has already been taken",
                Some("name_taken"),
                Some((Conflict, Next::Stop)),
            ),
            (
                403,
                "organization \"X\" is using 4096 MB of memory in dfw which is over the allowed \
                    quota: ...",
                None,
                Some((Quota, Next::NextCandidate)),
            ),
            (
                422,
                "To create more than 1 machine per app please add a payment method",
                None,
                Some((Quota, Next::Stop)),
            ),
            (
                422,
                "Organization X has reached its machine limit. Please contact billing",
                None,
                Some((Quota, Next::Stop)),
            ),
            (
                403,
                "Your trial has ended, please add a credit card",
                None,
                Some((Quota, Next::Stop)),
            ),
            (
                402,
                "organization has an Unpaid Invoice",
                None,
                Some((Quota, Next::Stop)),
            ),
            (403, "unauthorized", None, None),
            (
                400,
                "invalid memory size 128; must be in 256 MiB increment",
                None,
                None,
            ),
            (500, "no capacity", None, None),
        ];
        for (status, text, word, wanted) in table {
            assert_eq!(classified(status, text, word), wanted, "{status} {text}");
        }
    }

    #[test]
    fn a_conflict_says_what_the_cloud_says_without_the_orders_secrets() {
        let body = br#"{"error":"aborted: insufficient memory\navailable to fulfill request for s3cr3t-a"}"#;
        let secrets = [Secret::new("s3cr3t"), Secret::new("s3cr3t-a")];
        let error = of_conflict(body, &secrets, None);
        assert_eq!(error.kind(), ErrorKind::NoCapacity);
        let text = error.to_string();
        assert!(text.contains("insufficient memory available"), "{text}");
        assert!(!text.contains("s3cr3t") && !text.contains("-a"), "{text}");
        let silent = of_conflict(b"<html>", &[], None);
        assert!(silent.outcome().is_unknown());
        assert!(!silent.to_string().contains("html"));
    }

    #[test]
    fn the_id_of_the_machine_that_has_the_name_is_in_the_text() {
        let body = br#"{"error":"already_exists: unique machine name violation, machine ID 6e8294c17d5083 already exists with name \"pod-a\""}"#;
        assert_eq!(existing_machine(body).as_deref(), Some("6e8294c17d5083"));
        for other in [
            &br#"{"error":"machine ID 6e82 lease currently held by x"}"#[..],
            b"<html>",
            b"{}",
        ] {
            assert_eq!(existing_machine(other), None);
        }
        assert!(
            is_flys_own(br#"{"error":"machine not found"}"#) && is_flys_own(br#"{"message":"m"}"#)
        );
        assert!(!is_flys_own(b"") && !is_flys_own(b"{}") && !is_flys_own(b"<html>404</html>"));
    }
}
