//! RunPod's answers: JSON, nothing, and RFC 9457 problems.

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::dialect::SimBody;
use crate::world::Refusal;

/// Why a call was not done, as it is answered.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    errors: Vec<String>,
}

/// The sentence that means sold out; the cloud has no code for it.
pub(super) const SOLD_OUT: &str = "There are no longer any instances available with the requested \
    specifications. Please refresh and try again.";

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{what} not found"))
    }

    pub(super) fn invalid(errors: Vec<String>) -> Self {
        Self {
            errors,
            ..Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "Request validation failed.",
            )
        }
    }

    pub(super) fn response(&self) -> Response<SimBody> {
        let mut body = json!({
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if !self.errors.is_empty() {
            body["errors"] = Value::from(self.errors.clone());
        }
        with_type(self.status, &body, "application/problem+json")
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoCapacity | Refusal::TooMany => Self::bad(SOLD_OUT),
            Refusal::UnknownShape => Self::bad(SOLD_OUT),
            Refusal::UnknownRegion(region) => Self::bad(format!("invalid data center: {region}")),
            Refusal::Locked => Self::bad("Pod is locked"),
            Refusal::WrongState(_) => Self::new(
                StatusCode::CONFLICT,
                "action not valid for current pod status",
            ),
            Refusal::NoMoney => Self::new(StatusCode::PAYMENT_REQUIRED, "insufficient balance"),
            Refusal::Quota => Self::new(StatusCode::PAYMENT_REQUIRED, "spend limit reached"),
            Refusal::Forbidden => Self::new(StatusCode::FORBIDDEN, "access denied"),
            _ => Self::not_found("pod"),
        }
    }
}

pub(super) fn json(status: StatusCode, body: &Value) -> Response<SimBody> {
    with_type(status, body, "application/json")
}

pub(super) fn no_content() -> Response<SimBody> {
    let mut response = Response::new(SimBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn with_type(status: StatusCode, body: &Value, kind: &'static str) -> Response<SimBody> {
    let mut response = Response::new(SimBody::from(body.to_string().into_bytes()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
