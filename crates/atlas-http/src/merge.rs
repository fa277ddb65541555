//! `provider_opts`: additional JSON from the caller, merged deeply into the outgoing body.

use serde_json::Value;

/// Merges `opts` into `body`: objects key by key, anything else replaced. A `null` in `opts` is
/// sent as `null`.
///
/// ```
/// use serde_json::json;
///
/// let mut body = json!({"image": "a", "cloud": {"type": "secure", "tier": 1}, "ports": [1]});
/// atlas_http::merge_json(&mut body, &json!({"cloud": {"type": "community"}, "ports": [2, 3]}));
/// assert_eq!(body, json!({"image": "a", "cloud": {"type": "community", "tier": 1}, "ports": [2, 3]}));
/// ```
pub fn merge_json(body: &mut Value, opts: &Value) {
    match (body, opts) {
        (Value::Object(body), Value::Object(opts)) => {
            for (key, value) in opts {
                match body.get_mut(key) {
                    Some(known) => merge_json(known, value),
                    None => {
                        body.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (body, opts) => *body = opts.clone(),
    }
}
