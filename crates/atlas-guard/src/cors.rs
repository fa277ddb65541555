//! CORS: answers a browser's preflight requests, and sets the allowed origin on every answer.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, Request, Response, StatusCode};

use crate::body::Body;
use crate::config::Origins;

impl Origins {
    /// The answer to a preflight request, which never carries a credential. `None` if it is not
    /// one, or must be answered by the server.
    pub(crate) fn preflight<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let headers = request.headers();
        let asks =
            headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if *request.method() != Method::OPTIONS || !asks || *self == Self::Passed {
            return None;
        }
        let mut response = Response::new(Body::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let allowed = self.mark(headers.get(ORIGIN), response.headers_mut());
        if allowed {
            let asked = |name| headers.get(name).cloned();
            let answer = response.headers_mut();
            if let Some(method) = asked(ACCESS_CONTROL_REQUEST_METHOD) {
                answer.insert(ACCESS_CONTROL_ALLOW_METHODS, method);
            }
            if let Some(names) = asked(ACCESS_CONTROL_REQUEST_HEADERS) {
                answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
            }
            answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
        Some(response)
    }

    /// Sets the allowed origin on an answer, replacing the server's own headers. True if the origin
    /// is allowed.
    pub(crate) fn mark(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) -> bool {
        let named = match self {
            Self::Passed => return false,
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::These(origins) => {
                // Also if no origin is named: no cache may serve one page's answer to another.
                answer.append(VARY, HeaderValue::from_static("Origin"));
                origin.filter(|origin| origins.contains(origin)).cloned()
            }
        };
        answer.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
        let Some(named) = named else { return false };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, named);
        answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        true
    }
}
