//! Templates: stored settings of a container.

use atlas_core::{CallContext, DiskSize, Error, Result};
use atlas_http::lenient;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::container::{Container, put};
use super::read::told;
use crate::RunPod;

const PATH: &str = "templates";

/// A template to create or to change. `None` or an empty value is left to RunPod, or unchanged.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TemplateSpec {
    /// Its name; required to create one.
    pub name: Option<String>,
    /// Its container; an image is required to create one.
    pub container: Container,
    /// A volume of the pod itself: its size and mount path.
    pub volume: Option<(DiskSize, String)>,
    /// For serverless endpoints instead of pods.
    pub serverless: Option<bool>,
    /// Visible to all RunPod users.
    pub public: Option<bool>,
    /// `NVIDIA`, `AMD` or `CPU`.
    pub category: Option<String>,
    /// Starts an SSH server.
    pub start_ssh: Option<bool>,
    /// Starts Jupyter.
    pub start_jupyter: Option<bool>,
    /// Only hosts with one of these CUDA versions.
    pub allowed_cuda_versions: Vec<String>,
}

impl TemplateSpec {
    /// A template with this name and image.
    pub fn new(name: impl Into<String>, image: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            container: Container::image(image),
            ..Self::default()
        }
    }

    fn body(&self) -> Value {
        let mut body = Map::new();
        self.container.put(&mut body);
        put(&mut body, "name", self.name.as_ref());
        let mount = self
            .volume
            .as_ref()
            .map(|(size, path)| json!({"persistent": {"size": size.as_gb(), "path": path}}));
        put(&mut body, "mounts", mount);
        put(&mut body, "serverless", self.serverless);
        put(&mut body, "public", self.public);
        put(&mut body, "category", self.category.as_ref());
        put(&mut body, "startSsh", self.start_ssh);
        put(&mut body, "startJupyter", self.start_jupyter);
        put(
            &mut body,
            "allowedCudaVersions",
            (!self.allowed_cuda_versions.is_empty()).then_some(&self.allowed_cuda_versions),
        );
        Value::Object(body)
    }
}

/// A template.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Template {
    /// The id assigned by RunPod.
    #[serde(deserialize_with = "lenient::text")]
    pub id: String,
    /// The template's name.
    #[serde(default, deserialize_with = "told")]
    pub name: String,
    /// The container that the template describes.
    #[serde(flatten)]
    pub container: Container,
    /// For serverless endpoints instead of pods.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub serverless: bool,
    /// Visible to all RunPod users.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub public: bool,
    /// `NVIDIA`, `AMD` or `CPU`.
    #[serde(default, deserialize_with = "told")]
    pub category: String,
    /// Starts an SSH server.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub start_ssh: bool,
    /// Starts Jupyter.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub start_jupyter: bool,
    /// Only hosts with one of these CUDA versions.
    #[serde(default, deserialize_with = "lenient::texts")]
    pub allowed_cuda_versions: Vec<String>,
}

/// The source of public templates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TemplateSource {
    /// RunPod's own.
    #[default]
    Official,
    /// Templates that RunPod has verified.
    Verified,
    /// Templates of all users.
    Community,
}

impl RunPod {
    /// Every template of the account.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn list_templates(&self, cx: &CallContext) -> Result<Vec<Template>> {
        self.control
            .all(cx, "list_templates", &[PATH], &[], "templates")
            .await
    }

    /// Public templates.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn list_public_templates(
        &self,
        cx: &CallContext,
        source: TemplateSource,
    ) -> Result<Vec<Template>> {
        let source = match source {
            TemplateSource::Official => "official",
            TemplateSource::Verified => "verified",
            TemplateSource::Community => "community",
        };
        let query = [("source", source.to_owned())];
        self.control
            .all(
                cx,
                "list_public_templates",
                &["catalog", PATH],
                &query,
                "templates",
            )
            .await
    }

    /// One template.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn template(&self, cx: &CallContext, id: &str) -> Result<Template> {
        self.control
            .fetch(cx, "get_template", &[PATH, id], &[])
            .await
    }

    /// Creates a template. Class `Create`: not cancel safe.
    ///
    /// # Errors
    /// `validation` before any request; otherwise the outcome says whether it may exist
    /// nevertheless.
    pub async fn create_template(&self, cx: &CallContext, spec: &TemplateSpec) -> Result<Template> {
        if spec.name.as_ref().is_none_or(String::is_empty) {
            return Err(Error::validation("name", "must not be empty"));
        }
        if spec.container.image.as_ref().is_none_or(String::is_empty) {
            return Err(Error::validation("image", "must not be empty"));
        }
        self.control
            .make(
                cx,
                "create_template",
                &[PATH],
                &spec.body(),
                spec.container.secrets(),
            )
            .await
    }

    /// Changes a template. Pods already made from it are not changed.
    ///
    /// # Errors
    /// Like any idempotent call. A dropped call may have changed it.
    pub async fn update_template(
        &self,
        cx: &CallContext,
        id: &str,
        spec: &TemplateSpec,
    ) -> Result<Template> {
        self.control
            .change(
                cx,
                "update_template",
                &[PATH, id],
                &spec.body(),
                spec.container.secrets(),
            )
            .await
    }

    /// Deletes a template.
    ///
    /// # Errors
    /// `conflict` while a pod or endpoint uses it; if it is already gone, the call succeeds. A
    /// dropped call may have deleted it.
    pub async fn delete_template(&self, cx: &CallContext, id: &str) -> Result<()> {
        self.control
            .remove(cx, "delete_template", &[PATH, id])
            .await
    }
}
