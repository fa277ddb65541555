//! Calls that a cloud documents and a dialect does not serve.

use http::Method;

use super::query::decode;

/// The operation that a method and a path name, among calls given as method, path (`*` for one
/// segment) and operation.
pub(super) fn documented(
    calls: &[(&'static str, &'static str, &'static str)],
    method: &Method,
    path: &str,
) -> Option<&'static str> {
    let given: Vec<String> = path.split('/').map(decode).collect();
    let matches = |pattern: &str| {
        let wanted: Vec<&str> = pattern.split('/').collect();
        wanted.len() == given.len()
            && wanted
                .iter()
                .zip(&given)
                .all(|(wanted, given)| !given.is_empty() && (*wanted == "*" || wanted == given))
    };
    let call = calls
        .iter()
        .find(|(own, pattern, _)| *own == method.as_str() && matches(pattern))?;
    Some(call.2)
}
