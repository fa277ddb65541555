//! Settings that every containerised resource shares: image, arguments, disk, environment, ports,
//! registry.

use std::collections::BTreeMap;

use atlas_core::{DiskSize, Port, Secret};
use atlas_http::lenient;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The settings of a container. In a request, `None` or an empty value leaves the setting to the
/// cloud or the template, or unchanged.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Container {
    /// The image.
    #[serde(deserialize_with = "lenient::opt_text")]
    pub image: Option<String>,
    /// The arguments of its entrypoint, as one string.
    #[serde(deserialize_with = "lenient::opt_text")]
    pub args: Option<String>,
    /// The size of its disk, which is wiped on restart.
    #[serde(rename = "disk", deserialize_with = "disk")]
    pub disk: Option<DiskSize>,
    /// Its environment. An update replaces all of it.
    #[serde(deserialize_with = "environment")]
    pub env: BTreeMap<String, Secret>,
    /// The ports it publishes.
    #[serde(deserialize_with = "ports")]
    pub ports: Vec<Port>,
    /// The id of the registry credential for pulling its image.
    #[serde(deserialize_with = "lenient::opt_text")]
    pub registry: Option<String>,
}

impl Container {
    /// A container with this image.
    pub fn image(image: impl Into<String>) -> Self {
        Self {
            image: Some(image.into()),
            ..Self::default()
        }
    }

    /// Writes the set fields into a body, secrets included.
    pub(crate) fn put(&self, body: &mut Map<String, Value>) {
        put(body, "image", self.image.as_ref());
        put(body, "args", self.args.as_ref());
        put(body, "disk", self.disk.map(DiskSize::as_gb));
        put(body, "registry", self.registry.as_ref());
        if !self.env.is_empty() {
            let env = self
                .env
                .iter()
                .map(|(name, value)| (name.clone(), Value::from(value.expose())));
            body.insert("env".to_owned(), Value::Object(env.collect()));
        }
        if !self.ports.is_empty() {
            body.insert(
                "ports".to_owned(),
                self.ports.iter().map(ToString::to_string).collect(),
            );
        }
    }

    /// The secrets that no error text may repeat.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        self.env.values().cloned().collect()
    }
}

/// Adds a field when there is a value.
pub(crate) fn put(body: &mut Map<String, Value>, name: &str, value: Option<impl Serialize>) {
    if let Some(value) = value.and_then(|value| serde_json::to_value(value).ok()) {
        body.insert(name.to_owned(), value);
    }
}

fn disk<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DiskSize>, D::Error> {
    Ok(lenient::opt_number(deserializer)?.map(DiskSize::gb))
}

fn environment<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Secret>, D::Error> {
    let texts = lenient::text_map(deserializer)?.unwrap_or_default();
    Ok(texts
        .into_iter()
        .map(|(name, value)| (name, Secret::new(value)))
        .collect())
}

/// Ports. A port in an unknown form (`53/udp`) is left out, so that it does not hide the rest.
fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Port>, D::Error> {
    let texts = lenient::texts(deserializer)?;
    Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
}
