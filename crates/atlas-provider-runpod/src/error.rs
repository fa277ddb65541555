//! Maps RunPod's refusals to [`Error`] in one function, next to a table of real bodies.

use atlas_core::{ComputeId, Error, ErrorKind, Next, Outcome};
use atlas_http::{Answer, FailedAnswer};
use serde_json::Value;

use crate::wire::Problem;

/// RunPod reports "sold out" only by these sentences, without a machine-readable code
/// (docs/clouds/runpod.md, "Sold out").
const SOLD_OUT: [&str; 6] = [
    "no longer any instances available",
    "no instances currently available",
    "does not have the resources",
    "could not find any pods",
    "not enough free gpus",
    "out of stock",
];

/// Whether a lower-case text is one of the sentences for "sold out".
pub(crate) fn sold_out(detail: &str) -> bool {
    SOLD_OUT.iter().any(|words| detail.contains(words))
}

/// The error mapper for `atlas-http`. If RunPod itself did not answer, the generic mapping is as
/// good, and it knows the origin of a refused key.
pub(crate) fn map(failed: &FailedAnswer) -> Option<Error> {
    let refusal = Refusal::read(failed.status().as_u16(), failed.body());
    (refusal.problem.is_some() && refusal.status != 401).then(|| refusal.into_error())
}

/// A non-2xx answer: its status and the contents of its body.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: u16,
    /// `None` when the body is not RunPod's own JSON, because a proxy answered.
    problem: Option<Problem>,
}

impl From<&Answer> for Refusal {
    fn from(answer: &Answer) -> Self {
        Self::read(answer.status().as_u16(), answer.bytes())
    }
}

impl Refusal {
    pub(crate) fn read(status: u16, body: &[u8]) -> Self {
        let problem = serde_json::from_slice::<Value>(body)
            .ok()
            .and_then(|value| match value {
                // Also observed besides RFC 9457: a bare string, `{"error": ..}` and `{"message":
                // ..}`.
                Value::String(detail) => Some(Problem {
                    detail,
                    ..Problem::default()
                }),
                Value::Object(map) => {
                    let text = |name: &str| {
                        map.get(name)
                            .and_then(Value::as_str)
                            .unwrap_or_default()
                            .to_owned()
                    };
                    let detail = ["detail", "error", "message"]
                        .into_iter()
                        .map(text)
                        .find(|text| !text.is_empty());
                    let errors = map.get("errors").and_then(Value::as_array);
                    let errors = errors
                        .into_iter()
                        .flatten()
                        .filter_map(|e| e.as_str().map(str::to_owned))
                        .collect();
                    Some(Problem {
                        title: text("title"),
                        detail: detail.unwrap_or_default(),
                        errors,
                    })
                }
                _ => None,
            });
        Self { status, problem }
    }

    /// True for RunPod's own JSON that says that there is no such pod, in contrast to a proxy's
    /// page, an unknown path, or a refused key.
    pub(crate) fn says_no_pod(&self) -> bool {
        self.status == 404 && self.detail().to_ascii_lowercase().contains("pod not found")
    }

    /// True when RunPod's own JSON answered 404, for whatever reason.
    pub(crate) fn says_not_found(&self) -> bool {
        self.status == 404
            && self.problem.is_some()
            && !self.detail().contains("path was not found")
    }

    /// True for the refusal to stop, restart or delete a locked pod.
    pub(crate) fn says_locked(&self) -> bool {
        self.status == 400 && self.detail().to_ascii_lowercase().contains("locked")
    }

    fn detail(&self) -> &str {
        self.problem
            .as_ref()
            .map_or("", |problem| problem.detail.as_str())
    }

    fn sold_out(&self) -> bool {
        sold_out(&self.detail().to_ascii_lowercase())
    }

    /// Converts the refusal into an error.
    pub(crate) fn into_error(self) -> Error {
        let (kind, next) = self.kind();
        let outcome = next.map_or_else(|| Outcome::Unknown(Vec::new()), Outcome::NotApplied);
        let (field, unknown_gpu) = (self.field(), self.detail().starts_with("Unknown GPU type"));
        let message = self.message();
        let error = match (kind, field) {
            (ErrorKind::Validation, Some(field)) => Error::validation(field, message),
            (kind, _) => Error::new(kind, message),
        };
        // RunPod may know another GPU of the family.
        let outcome = if unknown_gpu {
            Outcome::NotApplied(Next::NextCandidate)
        } else {
            outcome
        };
        error.outcome_is(outcome).with_status(self.status)
    }

    /// The error of a refusal whose meaning the operation knows better than its status does.
    pub(crate) fn into_error_as(self, kind: ErrorKind) -> Error {
        Error::new(kind, self.message())
            .outcome_is(Outcome::NotApplied(Next::Stop))
            .with_status(self.status)
    }

    /// The kind of the error, and what may be tried next; `None` if the cloud may have acted.
    fn kind(&self) -> (ErrorKind, Option<Next>) {
        match self.status {
            400..=499 if self.status != 408 && self.sold_out() => {
                (ErrorKind::NoCapacity, Some(Next::NextCandidate))
            }
            400 if self.says_locked() => (ErrorKind::Conflict, Some(Next::Stop)),
            400 | 413 | 422 => (ErrorKind::Validation, Some(Next::Stop)),
            401 => (ErrorKind::Unauthorized, Some(Next::Stop)),
            402 => (ErrorKind::Quota, Some(Next::Stop)),
            // For a create: this pool is not open to the account; another may be.
            403 => (ErrorKind::Forbidden, Some(Next::NextCandidate)),
            404 => (ErrorKind::NotFound, Some(Next::Stop)),
            405 => (ErrorKind::Unsupported, Some(Next::Stop)),
            408 => (ErrorKind::Timeout, None),
            409 => (ErrorKind::Conflict, Some(Next::Stop)),
            // Refused before any work: safe to repeat after `Retry-After`.
            429 => (ErrorKind::RateLimited, Some(Next::SameLater)),
            _ if self.status < 400 => (ErrorKind::Provider, None),
            400..=499 => (ErrorKind::Provider, Some(Next::Stop)),
            // RunPod has answered 500 to creates although the pod existed and billed, so this
            // applies even if the message says "sold out".
            500 if self.sold_out() => (ErrorKind::NoCapacity, None),
            _ => (ErrorKind::Unavailable, None),
        }
    }

    fn message(&self) -> String {
        let Some(problem) = &self.problem else {
            return "a proxy answered in place of the cloud".to_owned();
        };
        let mut text = if problem.detail.is_empty() {
            problem.title.clone()
        } else {
            problem.detail.clone()
        };
        for error in &problem.errors {
            text.push_str("; ");
            text.push_str(error);
        }
        let text: String = text.chars().filter(|c| !c.is_control()).take(400).collect();
        let text = text.trim().trim_end_matches('.');
        if text.is_empty() {
            "refused without a reason".to_owned()
        } else {
            text.to_owned()
        }
    }

    /// The field of the request that the first violation names, with its name in atlas.
    fn field(&self) -> Option<String> {
        if self.detail().starts_with("Unknown GPU type") {
            return Some("gpu".to_owned());
        }
        let first = self.problem.as_ref()?.errors.first()?;
        let (path, text) = first.split_once(": ").unwrap_or(("$", first));
        let path = path.trim_start_matches('$').trim_start_matches(['.', '/']);
        let quoted = text.split('\'').nth(1).unwrap_or_default();
        let names = text.starts_with("missing") || text.starts_with("additional");
        let whole = match (path.is_empty(), names && !quoted.is_empty()) {
            (true, _) => quoted.to_owned(),
            (false, true) => format!("{path}.{quoted}"),
            (false, false) => path.to_owned(),
        };
        (!whole.is_empty()).then(|| ours(&whole))
    }
}

/// The name in atlas of a field of `POST /v2/pods`, or RunPod's own name if there is none.
fn ours(path: &str) -> String {
    let head = path.split(['.', '/', '[']).next().unwrap_or(path);
    let name = match head {
        "disk" => "container_disk_gb",
        "cloud" => "cloud_type",
        "dataCenterIds" => "region_hints",
        "args" | "cmd" | "entrypoint" => "command",
        "templateId" => "template_id",
        "mounts" if path.contains("persistent") => "volume_gb",
        "mounts" => "network_volume_id",
        "gpu" if path.contains("count") => "gpu_count",
        "gpu" | "cpu" | "env" | "image" | "name" | "ports" => head,
        _ => path,
    };
    name.to_owned()
}

/// The error of a create whose successful answer could not be read: any id it leaks may be billing.
pub(crate) fn unread_create(body: &[u8], cause: &Error) -> Error {
    let text = String::from_utf8_lossy(body);
    let id = text
        .split_once("\"id\"")
        .and_then(|(_, rest)| rest.split('"').nth(1))
        .and_then(|id| ComputeId::new(id).ok());
    Error::new(
        ErrorKind::Provider,
        format!("the order was accepted, and its answer {}", cause.message()),
    )
    .outcome_is(Outcome::Unknown(id.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOCK: &str = r#"{"title":"Bad Request","status":400,"detail":"There are no longer any instances available with the requested specifications. Please refresh and try again."}"#;

    fn error(status: u16, body: &str) -> Error {
        Refusal::read(status, body.as_bytes()).into_error()
    }

    #[test]
    fn every_refusal_has_its_kind_and_what_to_do_next() {
        use ErrorKind::{
            Conflict, Forbidden, NoCapacity, NotFound, Quota, RateLimited, Unauthorized,
            Unavailable, Validation,
        };
        use Next::{NextCandidate, SameLater, Stop};
        let problem = |status: u16, detail: &str| {
            format!(r#"{{"title":"T","status":{status},"detail":"{detail}"}}"#)
        };
        let not = Outcome::NotApplied;
        let unknown = Outcome::Unknown(vec![]);
        let table = [
            (400, STOCK.to_owned(), NoCapacity, not(NextCandidate)),
            (400, problem(400, "persistent and network mounts are exclusive"), Validation,
                not(Stop)),
            (400, problem(400, "Pod is locked"), Conflict, not(Stop)),
            (401, problem(401, "missing bearer token"), Unauthorized, not(Stop)),
            (401, String::new(), Unauthorized, not(Stop)),
            (402, problem(402, "insufficient balance"), Quota, not(Stop)),
            (403, problem(403, "access denied"), Forbidden, not(NextCandidate)),
            (404, problem(404, "template not found"), NotFound, not(Stop)),
            (409, problem(409, "pod belongs to a cluster"), Conflict, not(Stop)),
            (413, problem(413, "body too large"), Validation, not(Stop)),
            (429, problem(429, "rate limit exceeded for the minute window"), RateLimited,
                not(SameLater)),
            (500, r#"{"error":"Unknown column 'NetworkVolume.userId'","status":500}"#.to_owned(),
                Unavailable, unknown.clone()),
            (
                500,
                r#"{"error":"create pod: There are no instances currently available","status":500}"#.to_owned(),
                NoCapacity,
                unknown.clone(),
            ),
            (502, "<html><h1>502 Bad Gateway</h1></html>".to_owned(), Unavailable, unknown.clone()),
            (524, String::new(), Unavailable, unknown.clone()),
            (408, String::new(), ErrorKind::Timeout, unknown),
        ];
        for (status, body, kind, outcome) in table {
            let error = error(status, &body);
            assert_eq!(
                (error.kind(), error.outcome(), error.status()),
                (kind, &outcome, Some(status)),
                "{status} {body}"
            );
        }
    }

    #[test]
    fn a_schema_violation_names_the_field_in_our_words() {
        let body = |violation: &str| {
            format!(
                r#"{{"title":"Unprocessable Entity","status":422,"detail":"Request validation failed.","errors":["{violation}"]}}"#
            )
        };
        for (violation, field) in [
            ("$: missing property 'name'", "name"),
            (
                "$: additional properties 'gpuTypeIds' not allowed",
                "gpuTypeIds",
            ),
            ("$.disk: must be at least 1", "container_disk_gb"),
            (
                "$.mounts.network[0]: missing property 'path'",
                "network_volume_id",
            ),
            ("$.mounts.persistent.size: 5 is less than 10", "volume_gb"),
            ("$.gpu.count: must be at least 1", "gpu_count"),
            ("$.dataCenterIds[0]: unknown", "region_hints"),
        ] {
            let error = error(422, &body(violation));
            assert_eq!(
                (error.kind(), error.field()),
                (ErrorKind::Validation, Some(field)),
                "{violation}"
            );
            assert!(
                error.message().starts_with("Request validation failed.; $"),
                "{error}"
            );
        }
        let unknown = error(
            422,
            r#"{"title":"T","status":422,"detail":"Unknown GPU type: NVIDIA A10"}"#,
        );
        assert_eq!(
            (unknown.field(), unknown.outcome()),
            (Some("gpu"), &Outcome::NotApplied(Next::NextCandidate))
        );
    }

    #[test]
    fn a_proxys_page_is_never_quoted() {
        assert!(
            !error(502, "<html>zz-canary</html>")
                .to_string()
                .contains("canary")
        );
    }

    #[test]
    fn only_the_clouds_own_words_prove_that_a_pod_is_gone() {
        let says = |status: u16, body: &str| Refusal::read(status, body.as_bytes()).says_no_pod();
        assert!(says(
            404,
            r#"{"title":"Not Found","status":404,"detail":"pod not found"}"#
        ));
        assert!(!says(
            404,
            r#"{"title":"Not Found","status":404,"detail":"The requested path was not found."}"#
        ));
        assert!(!says(404, "<html>pod not found</html>"));
        assert!(!says(401, r#"{"detail":"pod not found"}"#));
        assert!(!says(500, r#"{"detail":"pod not found"}"#));
    }

    #[test]
    fn an_accepted_order_with_a_torn_answer_keeps_the_id_it_leaked() {
        let cause = Error::new(ErrorKind::Provider, "ended early");
        let torn = unread_create(br#"{"id":"q8d2m5x0c7hn4v","name":"atl"#, &cause);
        assert_eq!(
            torn.outcome(),
            &Outcome::Unknown(vec![ComputeId::new("q8d2m5x0c7hn4v").unwrap()])
        );
        assert_eq!(
            unread_create(b"<html>", &cause).outcome(),
            &Outcome::Unknown(vec![])
        );
    }
}
