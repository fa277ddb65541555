//! The HTTP stack through which every provider calls its cloud.
//!
//! A [`Client`] is for one API of one account. It adds the credential and a `User-Agent`, paces the
//! account, limits the whole call by a deadline, repeats by class ([`atlas_core::RetryClass`]),
//! limits the size of answers, and converts failures into errors that say whether the cloud may
//! have acted ([`atlas_core::Outcome`]). Below it is a [`Transport`]: hyper, or any tower
//! `Service`.
//!
//! ```
//! use atlas_core::config::{ApiKey, Origin};
//! use atlas_core::{CallContext, ProviderId, RetryClass, Secret};
//! use atlas_http::{Call, Client, Transport};
//! use serde_json::Value;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let cloud = tower::service_fn(|request: http::Request<atlas_http::Body>| async move {
//!     assert_eq!(request.uri(), "https://cloud.example/v2/pods/p1");
//!     assert_eq!(request.headers()["authorization"], "Bearer k");
//!     Ok::<_, std::convert::Infallible>(http::Response::new(atlas_http::Body::from(r#"{"id":"p1"}"#)))
//! });
//! let key = ApiKey { secret: Secret::new("k"), origin: Origin::Builder };
//! let client = Client::builder(ProviderId::new("acme")?, "https://cloud.example/v2")
//!     .api_key("Bearer", key)
//!     .transport(Transport::new(cloud))
//!     .build()?;
//! let pod: Value = client.json(&CallContext::new(), Call::get("get_compute", RetryClass::Safe, ["pods", "p1"])).await?;
//! assert_eq!(pod["id"], "p1");
//! # Ok::<_, atlas_core::Error>(()) }).unwrap();
//! ```
//!
//! Deliberately absent: the meaning of a cloud's answers (a provider's mapper defines it), polling,
//! and proxies from the environment.

mod answer;
mod body;
mod call;
mod client;
mod connection;
mod credential;
mod failure;
mod headers;
pub mod lenient;
mod merge;
mod pace;
mod run;
mod scrub;
mod telemetry;
mod transport;
mod walk;

pub use answer::{Answer, StreamingAnswer};
pub use body::{Body, BoxError};
pub use call::{Call, escape_segment};
pub use client::{Client, ClientBuilder, DEFAULT_MAX_ANSWER, is_loopback};
pub use connection::Connection;
pub use credential::CredentialSource;
pub use failure::{ErrorMapper, FailedAnswer};
pub use merge::merge_json;
pub use pace::Pace;
pub use transport::{CallLayers, Transport, TransportError, TransportFuture};
pub use walk::{Page, Walk, walk};

/// The names that [`connection_setters!`] uses.
#[doc(hidden)]
pub mod setter {
    pub use atlas_core::config::{ApiKey, Origin};
    pub use atlas_core::{AccountLimits, Clock, Entropy, Secret};
    pub use bytes::Bytes;
    pub use http::{Request, Response};
    pub use http_body::Body as HttpBody;
    pub use tower::{Layer, Service};
}
