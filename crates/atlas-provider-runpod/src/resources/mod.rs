//! RunPod's resources besides machines and jobs, each kind in its own file, as methods of
//! [`crate::RunPod`].
//!
//! Names that the cloud may extend (a status, a category) remain text; numbers have units;
//! environments are [`atlas_core::Secret`]s.

pub(crate) mod account;
pub(crate) mod billing;
pub(crate) mod catalog;
pub(crate) mod clusters;
pub(crate) mod container;
pub(crate) mod endpoints;
pub(crate) mod pods;
mod read;
pub(crate) mod registries;
pub(crate) mod templates;
mod units;
pub(crate) mod volumes;

use atlas_core::{CallContext, ErrorKind, Result, RetryClass, Secret};
use atlas_http::{Call, lenient};
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::client::Control;
use crate::error::Refusal;

/// A path below `/v2`.
fn below<'a>(path: &[&'a str]) -> Vec<&'a str> {
    ["v2"].into_iter().chain(path.iter().copied()).collect()
}

impl Control {
    /// Reads one resource.
    pub(crate) async fn fetch<T: DeserializeOwned>(
        &self,
        cx: &CallContext,
        operation: &'static str,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T> {
        let call = Call::get(operation, RetryClass::Safe, below(path));
        let call = query
            .iter()
            .fold(call, |call, (name, value)| call.query(name, value));
        self.0.json(cx, call).await
    }

    /// Reads a list to its last page; one that breaks off is an error. An unreadable row is left
    /// out with a warning, and a list in which no row is readable is an error.
    pub(crate) async fn all<T: DeserializeOwned>(
        &self,
        cx: &CallContext,
        operation: &'static str,
        path: &[&str],
        query: &[(&str, String)],
        field: &'static str,
    ) -> Result<Vec<T>> {
        self.rows(cx, operation, path, query, field).await?.usable()
    }

    /// The same where a missing row makes the rest worthless: an unreadable row is an error.
    pub(crate) async fn every<T: DeserializeOwned>(
        &self,
        cx: &CallContext,
        operation: &'static str,
        path: &[&str],
        query: &[(&str, String)],
        field: &'static str,
    ) -> Result<Vec<T>> {
        let mut read = self.rows(cx, operation, path, query, field).await?;
        match read.unreadable.pop() {
            Some(unreadable) => Err(unreadable.into_error()),
            None => Ok(read.rows),
        }
    }

    async fn rows<T: DeserializeOwned>(
        &self,
        cx: &CallContext,
        operation: &'static str,
        path: &[&str],
        query: &[(&str, String)],
        field: &'static str,
    ) -> Result<lenient::Rows<T>> {
        let walk = self.walk(cx, operation, &below(path), query, field).await?;
        Ok(lenient::rows(field, walk.whole()?))
    }

    /// Creates a resource.
    pub(crate) async fn make<T: DeserializeOwned>(
        &self,
        cx: &CallContext,
        operation: &'static str,
        path: &[&str],
        body: &Value,
        secrets: Vec<Secret>,
    ) -> Result<T> {
        self.0
            .json(
                cx,
                Call::post(operation, RetryClass::Create, below(path))
                    .json(body)
                    .scrub(secrets),
            )
            .await
    }

    /// Changes a resource.
    pub(crate) async fn change<T: DeserializeOwned>(
        &self,
        cx: &CallContext,
        operation: &'static str,
        path: &[&str],
        body: &Value,
        secrets: Vec<Secret>,
    ) -> Result<T> {
        self.0
            .json(
                cx,
                Call::patch(operation, RetryClass::Idempotent, below(path))
                    .json(body)
                    .scrub(secrets),
            )
            .await
    }

    /// Replaces a resource.
    pub(crate) async fn replace<T: DeserializeOwned>(
        &self,
        cx: &CallContext,
        operation: &'static str,
        path: &[&str],
        body: &Value,
    ) -> Result<T> {
        self.0
            .json(
                cx,
                Call::new(Method::PUT, operation, RetryClass::Idempotent, below(path)).json(body),
            )
            .await
    }

    /// Deletes a resource; if it is already gone, the call succeeds. RunPod refuses with 400 if
    /// another resource still uses it.
    pub(crate) async fn remove(
        &self,
        cx: &CallContext,
        operation: &'static str,
        path: &[&str],
    ) -> Result<()> {
        let call = Call::delete(operation, RetryClass::Idempotent, below(path));
        let answer = self
            .0
            .call(
                cx,
                call.accept_status(StatusCode::NOT_FOUND)
                    .accept_status(StatusCode::BAD_REQUEST),
            )
            .await?;
        let refusal = Refusal::from(&answer);
        if answer.status().is_success() || refusal.says_not_found() {
            return Ok(());
        }
        let in_use = answer.status() == StatusCode::BAD_REQUEST;
        Err(if in_use {
            refusal.into_error_as(ErrorKind::Conflict)
        } else {
            refusal.into_error()
        })
    }
}
