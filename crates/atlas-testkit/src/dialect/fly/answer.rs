//! Fly's answers: bare JSON, errors as `{"error", "status"}`, and a request id on each.

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::dialect::SimBody;
use crate::world::Refusal;

/// A failed call and its answer.
#[derive(Debug)]
pub(super) struct Failure {
    code: StatusCode,
    body: Value,
}

impl Failure {
    pub(super) fn new(code: u16, error: impl Into<String>) -> Self {
        let code = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST);
        Self {
            code,
            body: json!({ "error": error.into() }),
        }
    }

    /// Adds the machine-readable status word that some errors have.
    pub(super) fn with_status(mut self, status: &'static str) -> Self {
        self.body["status"] = Value::from(status);
        self
    }

    /// A failure with another body.
    pub(super) fn shaped(code: u16, body: Value) -> Self {
        Self {
            body,
            ..Self::new(code, "")
        }
    }

    pub(super) fn invalid(error: impl Into<String>) -> Self {
        Self::new(400, error)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, "authenticate: token validation error")
    }

    pub(super) fn no_app(app: &str) -> Self {
        Self::new(404, format!("Could not find App \"{app}\""))
    }

    pub(super) fn no_machine() -> Self {
        Self::new(404, "machine not found")
    }

    pub(super) fn precondition(error: impl Into<String>) -> Self {
        Self::new(412, format!("failed_precondition: {}", error.into()))
    }

    /// The same in the other observed shape of errors.
    pub(super) fn in_the_other_shape(mut self) -> Self {
        if let Some(text) = self
            .body
            .as_object_mut()
            .and_then(|body| body.remove("error"))
        {
            self.body["message"] = text;
        }
        self
    }

    pub(super) fn response(&self) -> Response<SimBody> {
        answer(self.code.as_u16(), &self.body)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoCapacity => Self::new(
                422,
                "could not find a candidate host for the requested size",
            )
            .with_status("insufficient_capacity"),
            Refusal::UnknownRegion(region) => Self::invalid(format!("region {region} not found")),
            Refusal::UnknownShape | Refusal::TooMany => Self::invalid("invalid config.guest"),
            Refusal::NoMoney => Self::new(
                422,
                "To create more than 1 machine per app please add a payment method",
            ),
            Refusal::Quota => Self::new(
                403,
                "organization \"Sim\" is using 4096 MB of memory in dfw which is over the allowed \
                    quota: contact support",
            ),
            Refusal::Forbidden => Self::new(403, "this token may not do that"),
            Refusal::NotFound | Refusal::NoSuchCloud => Self::no_machine(),
            // Another client holds the lease.
            Refusal::Locked => Self::lease_held("", "ops@acme.example"),
            _ => Self::precondition("the machine is in no state for that"),
        }
    }
}

impl Failure {
    pub(super) fn lease_held(id: &str, owner: &str) -> Self {
        let message = format!("machine ID {id} lease currently held by {owner}");
        Self::shaped(
            409,
            json!({ "status": "error", "message": message, "code": "invalid" }),
        )
    }
}

/// The same answer as a less strict server writes it: objects with an undocumented field, `null`
/// for empty values.
pub(super) fn loosened(answer: Response<SimBody>) -> Response<SimBody> {
    let (parts, body) = answer.into_parts();
    let bytes = body.whole().unwrap_or_default();
    let Ok(mut value) = serde_json::from_slice::<Value>(&bytes) else {
        return Response::from_parts(parts, SimBody::from(bytes.to_vec()));
    };
    loosen(&mut value);
    Response::from_parts(parts, SimBody::from(value.to_string().into_bytes()))
}

fn loosen(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(loosen),
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                // A page without rows has them all the same; what describes a machine may be null.
                let rows = matches!(name.as_str(), "machines" | "volumes" | "apps");
                let texts = matches!(name.as_str(), "env" | "metadata");
                match value {
                    Value::Array(list) if list.is_empty() && !rows => *value = Value::Null,
                    other if !texts => loosen(other),
                    _ => {}
                }
            }
            map.insert("brand_new".to_owned(), json!({ "since": "yesterday" }));
        }
        _ => {}
    }
}

pub(super) fn ok(body: &Value) -> Response<SimBody> {
    answer(200, body)
}

/// `{"ok": true}`.
pub(super) fn done() -> Response<SimBody> {
    ok(&json!({ "ok": true }))
}

pub(super) fn empty(code: u16) -> Response<SimBody> {
    let mut response = Response::new(SimBody::empty());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
    response
}

pub(super) fn answer(code: u16, body: &Value) -> Response<SimBody> {
    let mut response = Response::new(SimBody::from(body.to_string().into_bytes()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
