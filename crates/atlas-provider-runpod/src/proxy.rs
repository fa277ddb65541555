//! The URL of a pod's HTTP port. Pure.

use atlas_core::{Error, Result};
use atlas_http::is_loopback;

/// The URL of a pod's HTTP port: RunPod's proxy, or a template such as
/// `http://127.0.0.1:9000/{id}/{port}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyTemplate(Vec<Piece>);

/// A piece of a template. It is split once, because every machine that is read needs a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Id,
    Port,
}

impl Default for ProxyTemplate {
    fn default() -> Self {
        Self::pieces("https://{id}-{port}.proxy.runpod.net")
    }
}

impl ProxyTemplate {
    /// Checks and splits a template.
    ///
    /// # Errors
    /// `validation` when a placeholder is missing, or it is neither `https://` nor `http://` to
    /// loopback.
    pub(crate) fn new(text: &str, allow_plain_http: bool) -> Result<Self> {
        let wrong = |message| Err(Error::validation("proxy_url", message));
        if !text.contains("{id}") || !text.contains("{port}") {
            return wrong("must contain {id} and {port}");
        }
        if !text.starts_with("https://")
            && !text
                .strip_prefix("http://")
                .is_some_and(|rest| allow_plain_http || is_loopback(host(rest)))
        {
            return wrong("must be https://, or http:// to loopback");
        }
        Ok(Self::pieces(text))
    }

    fn pieces(text: &str) -> Self {
        let mut pieces = Vec::new();
        for (nth, around_id) in text.split("{id}").enumerate() {
            pieces.extend((nth > 0).then_some(Piece::Id));
            for (nth, text) in around_id.split("{port}").enumerate() {
                pieces.extend((nth > 0).then_some(Piece::Port));
                pieces.push(Piece::Text(text.to_owned()));
            }
        }
        Self(pieces)
    }

    /// The URL of a pod's port.
    pub(crate) fn url(&self, pod: &str, port: u32) -> String {
        let mut url = String::with_capacity(64);
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => url.push_str(text),
                Piece::Id => url.push_str(pod),
                Piece::Port => url.push_str(&port.to_string()),
            }
        }
        url
    }
}

/// The host in the part of a URL after its scheme. A template is not a valid URL because of its
/// braces.
fn host(rest: &str) -> &str {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_template_has_both_places_and_is_safe_to_send_a_token_to() {
        let sim = ProxyTemplate::new("http://127.0.0.1:9000/{id}/{port}", false).unwrap();
        assert_eq!(sim.url("abc", 8000), "http://127.0.0.1:9000/abc/8000");
        for bad in [
            "https://x/{id}",
            "https://x/{port}",
            "http://example.com/{id}/{port}",
            "http://127.evil.example/{id}/{port}",
            "http://localhost.evil.example/{id}/{port}",
            "http://{id}/{port}",
            "ftp://{id}{port}",
        ] {
            assert_eq!(
                ProxyTemplate::new(bad, false).unwrap_err().field(),
                Some("proxy_url"),
                "{bad}"
            );
        }
    }
}
