//! Lambda's answers: success inside `data`, errors inside `error`.

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::dialect::SimBody;
use crate::world::Refusal;

/// A failed call and its answer.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Failure {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST),
            code,
            message: message.into(),
        }
    }

    /// An invalid body. The cloud repeats what was sent, including secrets.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "global/invalid-parameters", message)
    }

    pub(super) fn missing(what: &str) -> Self {
        Self::new(
            404,
            "global/object-does-not-exist",
            format!("Specified {what} does not exist."),
        )
    }

    /// A launch names an object that does not exist.
    pub(super) fn unknown(what: &str) -> Self {
        Self::new(
            400,
            "global/object-does-not-exist",
            format!("Specified {what} does not exist."),
        )
    }

    /// The same for a missing object, with the other observed status.
    pub(super) fn unknown_as_404(self, wanted: bool) -> Self {
        let unknown = wanted && self.code == "global/object-does-not-exist";
        Self {
            status: if unknown {
                StatusCode::NOT_FOUND
            } else {
                self.status
            },
            ..self
        }
    }

    pub(super) fn response(&self) -> Response<SimBody> {
        json_answer(self.status, &self.body())
    }

    fn body(&self) -> Value {
        let suggestion = match self.status {
            StatusCode::UNAUTHORIZED => "Check your API key or create a new one, then try again.",
            StatusCode::NOT_FOUND => "Check the ID, then try again.",
            _ => "Check the request, then try again.",
        };
        json!({ "error": { "code": self.code, "message": self.message, "suggestion": suggestion } })
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoCapacity => Self::new(
                400,
                "instance-operations/launch/insufficient-capacity",
                "Not enough capacity to fulfill launch request.",
            ),
            Refusal::UnknownShape | Refusal::TooMany => Self::unknown("instance type"),
            Refusal::UnknownRegion(_) => Self::unknown("region"),
            Refusal::NoMoney => {
                Self::new(403, "global/account-inactive", "Your account is inactive.")
            }
            Refusal::Quota => Self::new(400, "global/quota-exceeded", "Quota exceeded."),
            Refusal::Forbidden => Self::new(403, "global/forbidden", "Forbidden."),
            Refusal::NotFound | Refusal::NoSuchCloud => Self::missing("instance"),
            // Wrong state, locked, and errors that only other clouds have.
            _ => Self::new(
                409,
                "global/conflict",
                "The instance is not in a state that allows this.",
            ),
        }
    }
}

/// The same answer with an undocumented field in each of its objects: the live API adds fields
/// without notice.
pub(super) fn with_strange_fields(answer: Response<SimBody>) -> Response<SimBody> {
    let (parts, body) = answer.into_parts();
    let Some(mut value) = body
        .whole()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
    else {
        return Response::from_parts(parts, SimBody::empty());
    };
    estrange(&mut value);
    Response::from_parts(parts, SimBody::from(value.to_string().into_bytes()))
}

fn estrange(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(estrange),
        Value::Object(map) => {
            map.values_mut().for_each(estrange);
            // The price list is keyed by type: another field there would be another type.
            if !map.is_empty()
                && map
                    .values()
                    .all(|value| value.get("instance_type").is_some())
            {
                return;
            }
            map.insert("brand_new".to_owned(), json!({ "since": "yesterday" }));
        }
        _ => {}
    }
}

pub(super) fn data(value: &Value) -> Response<SimBody> {
    json_answer(StatusCode::OK, &json!({ "data": value }))
}

pub(super) fn json_answer(status: StatusCode, body: &Value) -> Response<SimBody> {
    let mut response = Response::new(SimBody::from(body.to_string().into_bytes()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
