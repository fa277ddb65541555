//! Container registries: credentials for pulling images, and delegations of ECR repositories.
//! Secrets are sent and never returned.

use atlas_core::{CallContext, Error, Result, Secret, Timestamp};
use atlas_http::lenient;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::read::told;
use super::units::instant;
use crate::RunPod;

const PATH: &str = "registries";

/// A registry credential, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Registry {
    /// The id assigned by RunPod.
    #[serde(deserialize_with = "lenient::text")]
    pub id: String,
    /// Its name, unique in the account.
    #[serde(default, deserialize_with = "told")]
    pub name: String,
}

/// An ECR repository from which another account lets us pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Delegation {
    /// The id assigned by RunPod.
    #[serde(deserialize_with = "lenient::text")]
    pub id: String,
    /// The name of the registry account the credential is delegated from.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub name: Option<String>,
    /// The AWS account.
    #[serde(default, deserialize_with = "told")]
    pub aws_user: String,
    /// The repository.
    #[serde(default, deserialize_with = "told")]
    pub repository: String,
    /// The tag.
    #[serde(default, deserialize_with = "told")]
    pub tag: String,
    /// The AWS region.
    #[serde(default, deserialize_with = "told")]
    pub aws_region: String,
    /// When it was created.
    #[serde(default, deserialize_with = "instant")]
    pub created_at: Option<Timestamp>,
}

impl RunPod {
    /// Every registry credential.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn list_registries(&self, cx: &CallContext) -> Result<Vec<Registry>> {
        self.control
            .all(cx, "list_registries", &[PATH], &[], "registries")
            .await
    }

    /// One registry credential.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn registry(&self, cx: &CallContext, id: &str) -> Result<Registry> {
        self.control
            .fetch(cx, "get_registry", &[PATH, id], &[])
            .await
    }

    /// Stores a registry credential. Class `Create`: not cancel safe.
    ///
    /// # Errors
    /// `validation` for a blank value; RunPod refuses a name that exists.
    pub async fn create_registry(
        &self,
        cx: &CallContext,
        name: &str,
        username: &str,
        password: &Secret,
    ) -> Result<Registry> {
        for (field, value) in [
            ("name", name),
            ("username", username),
            ("password", password.expose()),
        ] {
            if value.is_empty() {
                return Err(Error::validation(field, "must not be empty"));
            }
        }
        let body = json!({"name": name, "username": username, "password": password.expose()});
        self.control
            .make(
                cx,
                "create_registry",
                &[PATH],
                &body,
                vec![password.clone()],
            )
            .await
    }

    /// Deletes a registry credential. Templates that used it lose it without notice.
    ///
    /// # Errors
    /// `conflict` while a pod uses it; if it is already gone, the call succeeds. A dropped call may
    /// have deleted it.
    pub async fn delete_registry(&self, cx: &CallContext, id: &str) -> Result<()> {
        self.control
            .remove(cx, "delete_registry", &[PATH, id])
            .await
    }

    /// Every delegation.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn list_delegations(&self, cx: &CallContext) -> Result<Vec<Delegation>> {
        self.control
            .all(
                cx,
                "list_delegations",
                &[PATH, "delegations"],
                &[],
                "delegations",
            )
            .await
    }

    /// Delegates an ECR repository, by its ARN. Class `Create`: not cancel safe.
    ///
    /// # Errors
    /// Like any create.
    pub async fn create_delegation(
        &self,
        cx: &CallContext,
        resource: &str,
        name: Option<&str>,
    ) -> Result<Delegation> {
        let mut body = json!({"resource": resource});
        if let Some(name) = name {
            body["name"] = name.into();
        }
        self.control
            .make(
                cx,
                "create_delegation",
                &[PATH, "delegations"],
                &body,
                Vec::new(),
            )
            .await
    }

    /// Revokes a delegation.
    ///
    /// # Errors
    /// Like any idempotent call; if it is already gone, the call succeeds. A dropped call may have
    /// revoked it.
    pub async fn revoke_delegation(&self, cx: &CallContext, id: &str) -> Result<()> {
        self.control
            .remove(cx, "revoke_delegation", &[PATH, "delegations", id])
            .await
    }
}
