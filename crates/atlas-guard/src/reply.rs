//! The answers that the guard itself gives.

use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::body::Body;

/// An answer without a body.
pub(crate) fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}

/// An answer with a line of text.
pub(crate) fn text(code: StatusCode, text: &str) -> Response<Body> {
    status(code).map(|_| Body::from(text.to_owned()))
}

/// An answer that asks the client to repeat the request soon.
pub(crate) fn later(mut response: Response<Body>) -> Response<Body> {
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
