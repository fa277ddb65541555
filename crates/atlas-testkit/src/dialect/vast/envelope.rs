//! Vast's answers: a `success` field beside the data, and errors of several shapes.

use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::dialect::SimBody;
use crate::world::Refusal;

/// A failed call and its answer.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    body: Value,
    /// The seconds until, and the instant at which, a used-up allowance is granted again.
    anew: Option<(u64, i64)>,
}

impl Failure {
    pub(super) fn new(status: u16, error: &str, msg: impl Into<String>) -> Self {
        let body = json!({ "success": false, "error": error, "msg": msg.into() });
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST),
            body,
            anew: None,
        }
    }

    /// An invalid request. The cloud repeats what was sent, including secrets.
    pub(super) fn invalid(what: impl Into<String>) -> Self {
        Self::new(
            400,
            "invalid_args",
            format!("error 400/3502: invalid_args {}", what.into()),
        )
    }

    pub(super) fn no_instance(id: &str) -> Self {
        Self::new(
            404,
            "no_such_instance",
            format!("error 404/3211: Instance {id} not found."),
        )
    }

    /// The same without `success`, as some answers are.
    pub(super) fn bare(self) -> Self {
        self.without("success")
    }

    /// Without one of its fields.
    pub(super) fn without(mut self, field: &str) -> Self {
        if let Some(body) = self.body.as_object_mut() {
            body.remove(field);
        }
        self
    }

    /// Adds a field to the answer.
    pub(super) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.body[field] = value.into();
        self
    }

    /// The account's rows of the day are used up; with the time until new ones are granted.
    pub(super) fn no_rows_left(wait: u64, at: i64) -> Self {
        let told = "Daily search quota exceeded. It resets at midnight UTC.";
        let mut failure = Self::new(429, "search_quota_exceeded", told);
        failure.anew = Some((wait, at));
        failure
    }

    pub(super) fn response(&self) -> Response<SimBody> {
        let mut response = answer(self.status, &self.body);
        if let Some((wait, at)) = self.anew {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, wait.into());
            headers.insert(HeaderName::from_static("x-ratelimit-reset"), at.into());
        }
        response
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoMoney => Self::new(
                400,
                "insufficient_credit",
                "error 400/3120: Your account lacks credit.",
            ),
            Refusal::Quota => Self::new(
                400,
                "spend_rate_limit",
                "error 400/3121: Your account is new: its spend rate is limited.",
            ),
            Refusal::Forbidden => Self::new(
                403,
                "not_authorized",
                "error 403/3001: This key lacks the right.",
            ),
            Refusal::NotFound | Refusal::NoSuchCloud => Self::new(
                404,
                "no_such_instance",
                "error 404/3211: Instance not found.",
            ),
            other => Self::invalid(format!("the instance is in no state for this ({other})")),
        }
    }
}

pub(super) fn answer(status: StatusCode, body: &Value) -> Response<SimBody> {
    let mut response = Response::new(SimBody::from(body.to_string().into_bytes()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

pub(super) fn ok(body: &Value) -> Response<SimBody> {
    answer(StatusCode::OK, body)
}

pub(super) fn plain(status: StatusCode, text: &str) -> Response<SimBody> {
    let mut response = Response::new(SimBody::from(text.as_bytes().to_vec()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
