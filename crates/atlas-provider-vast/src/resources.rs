//! Vast operations beyond the contract: labels, reboots, bids, commands, SSH keys, volumes.

use atlas_core::{
    CallContext, ComputeId, DiskSize, Error, ErrorKind, Next, Outcome, Result, RetryClass,
    UsdPerHour,
};
use atlas_http::lenient;
use http::Method;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::client::call;
use crate::policy::dollars;
use crate::{Vast, logs};

/// An SSH key of the account, or of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SshKey {
    /// Vast's number of the key.
    #[serde(deserialize_with = "lenient::number")]
    pub id: u64,
    /// The public key. The API has two names for it.
    #[serde(alias = "public_key")]
    pub key: String,
}

/// A disk on one machine that an instance there can mount, one at a time. It bills until it is
/// deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Volume {
    /// Vast's number of the volume.
    #[serde(deserialize_with = "lenient::number")]
    pub id: u64,
    /// The only machine whose instances can mount it; 0 if the answer does not contain it.
    #[serde(default, deserialize_with = "machine")]
    pub machine_id: u64,
    /// The label the volume was created with.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub label: Option<String>,
    /// `created` or `in-use`.
    #[serde(default, deserialize_with = "lenient::opt_word")]
    pub status: Option<String>,
}

/// Disk space for rent on a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VolumeOffer {
    /// The number of the offer.
    #[serde(deserialize_with = "lenient::number")]
    pub id: u64,
    /// The machine.
    #[serde(deserialize_with = "lenient::number")]
    pub machine_id: u64,
    /// The available space in GB.
    #[serde(default, deserialize_with = "size")]
    pub disk_space: f64,
    /// Dollars per GB and month.
    #[serde(default, deserialize_with = "lenient::opt_number")]
    pub storage_cost: Option<f64>,
    /// The location, for display.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub geolocation: Option<String>,
}

fn machine<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(lenient::opt_number(deserializer)?.unwrap_or_default())
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(lenient::opt_number(deserializer)?.unwrap_or_default())
}

/// The error for a missing or malformed part of an answer.
fn missing(what: &str) -> Error {
    Error::new(ErrorKind::Provider, format!("the answer has no {what}"))
        .outcome_is(Outcome::Unknown(Vec::new()))
}

/// Checks that a public key begins with its type. Vast accepts anything else and then reports a key
/// that does not exist.
fn checked(public_key: &str) -> Result<()> {
    let known = ["ssh-", "ecdsa-", "sk-"]
        .iter()
        .any(|kind| public_key.trim_start().starts_with(kind));
    if known {
        Ok(())
    } else {
        Err(Error::validation("public_key", "is not an SSH public key"))
    }
}

impl Vast {
    fn named<T>(&self, operation: &'static str, result: Result<T>) -> Result<T> {
        result.map_err(|error| error.during(&self.id, operation))
    }

    async fn change(
        &self,
        cx: &CallContext,
        method: (Method, &'static str),
        segments: &[&str],
        body: &Value,
    ) -> Result<Value> {
        let operation = method.1;
        self.named(
            operation,
            self.cloud.change(cx, method, segments, body).await,
        )
    }

    /// Changes a machine's label. The label carries the launch key: without it the machine is only
    /// partly claimed.
    ///
    /// # Errors
    /// `not_found` for an unknown machine, `validation` above 1024 characters.
    pub async fn label(&self, cx: &CallContext, id: &ComputeId, label: &str) -> Result<()> {
        self.change(
            cx,
            (Method::PUT, "label"),
            &["instances", id.as_str()],
            &json!({ "label": label }),
        )
        .await
        .map(drop)
    }

    /// Restarts a machine's container. It keeps its GPU, but not necessarily its outside ports.
    ///
    /// # Errors
    /// `not_found` for an unknown machine, `conflict` if its state does not allow it.
    pub async fn reboot(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        self.memory.started(id);
        self.change(
            cx,
            (Method::PUT, "reboot"),
            &["instances", "reboot", id.as_str()],
            &json!({}),
        )
        .await
        .map(drop)
    }

    /// Recreates a machine's container from a fresh pull. It keeps its GPU, but loses the contents
    /// of its disk.
    ///
    /// # Errors
    /// Like [`Vast::reboot`].
    pub async fn recycle(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        self.memory.started(id);
        self.change(
            cx,
            (Method::PUT, "recycle"),
            &["instances", "recycle", id.as_str()],
            &json!({}),
        )
        .await
        .map(drop)
    }

    /// Changes the bid for an interruptible machine. One that was outbid resumes at once if this
    /// bid wins.
    ///
    /// # Errors
    /// `not_found` for an unknown machine, `validation` for a price that cannot be bid.
    pub async fn change_bid(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        price: UsdPerHour,
    ) -> Result<()> {
        let body = json!({ "client_id": "me", "price": dollars(price) });
        self.change(
            cx,
            (Method::PUT, "bid"),
            &["instances", "bid_price", id.as_str()],
            &body,
        )
        .await
        .map(drop)
    }

    /// Runs one of the few commands that Vast allows (`ls`, `rm`, `du`) and returns its output.
    ///
    /// # Errors
    /// `validation` for any other command, `unavailable` when its output was not written in time.
    pub async fn execute(&self, cx: &CallContext, id: &ComputeId, command: &str) -> Result<String> {
        let made = self
            .change(
                cx,
                (Method::PUT, "exec"),
                &["instances", "command", id.as_str()],
                &json!({ "command": command }),
            )
            .await?;
        let url = made["result_url"]
            .as_str()
            .ok_or_else(|| missing("result"))?;
        self.named("exec", logs::fetch(&self.connection, cx, url).await)
    }

    /// The account's SSH keys.
    ///
    /// # Errors
    /// Like any read.
    pub async fn ssh_keys(&self, cx: &CallContext) -> Result<Vec<SshKey>> {
        match self
            .cloud
            .json(cx, call(Method::GET, "ssh_keys", RetryClass::Safe, ["ssh"]))
            .await
        {
            // An account without any is reported as missing (docs/clouds/vast.md).
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            other => self.named("ssh_keys", other),
        }
    }

    /// Adds an SSH key to the account.
    ///
    /// # Errors
    /// `validation` for an invalid key; with an unknown outcome it may have been added.
    pub async fn add_ssh_key(&self, cx: &CallContext, public_key: &str) -> Result<SshKey> {
        self.named("add_ssh_key", checked(public_key))?;
        let call = call(Method::POST, "add_ssh_key", RetryClass::Create, ["ssh"])
            .json(&json!({ "ssh_key": public_key }));
        let made: Value = self.named("add_ssh_key", self.cloud.json(cx, call).await)?;
        serde_json::from_value(made["key"].clone())
            .map_err(|error| missing("key").with_source(error))
    }

    /// Removes an SSH key from the account; if it is already gone, the call succeeds.
    ///
    /// # Errors
    /// Like any idempotent call.
    pub async fn delete_ssh_key(&self, cx: &CallContext, id: u64) -> Result<()> {
        let call = call(
            Method::DELETE,
            "delete_ssh_key",
            RetryClass::Idempotent,
            ["ssh", &id.to_string()],
        );
        self.gone(
            "delete_ssh_key",
            self.cloud.answer(cx, call).await.map(drop),
        )
    }

    /// The SSH keys of one machine.
    ///
    /// # Errors
    /// `not_found` for an unknown machine.
    pub async fn instance_ssh_keys(&self, cx: &CallContext, id: &ComputeId) -> Result<Vec<SshKey>> {
        let call = call(
            Method::GET,
            "instance_ssh_keys",
            RetryClass::Safe,
            ["instances", id.as_str(), "ssh"],
        );
        let read: Value = self.named("instance_ssh_keys", self.cloud.json(cx, call).await)?;
        // JSON inside a string, as documented.
        let listed = match &read["ssh_keys"] {
            Value::String(text) if text.is_empty() => Ok(Vec::new()),
            Value::String(text) => serde_json::from_str(text),
            other => serde_json::from_value(other.clone()),
        };
        self.named(
            "instance_ssh_keys",
            listed.map_err(|error| missing("list of keys").with_source(error)),
        )
    }

    /// Adds an SSH key to a machine.
    ///
    /// # Errors
    /// `not_found` for an unknown machine, `validation` for an invalid key.
    pub async fn attach_ssh_key(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        public_key: &str,
    ) -> Result<()> {
        self.named("attach_ssh_key", checked(public_key))?;
        let segments = ["instances", id.as_str(), "ssh"];
        self.change(
            cx,
            (Method::POST, "attach_ssh_key"),
            &segments,
            &json!({ "ssh_key": public_key }),
        )
        .await
        .map(drop)
    }

    /// Removes an SSH key from a machine; if it is already gone, the call succeeds.
    ///
    /// # Errors
    /// Like any idempotent call.
    pub async fn detach_ssh_key(&self, cx: &CallContext, id: &ComputeId, key: u64) -> Result<()> {
        let segments = ["instances", id.as_str(), "ssh", &key.to_string()];
        let call = call(
            Method::DELETE,
            "detach_ssh_key",
            RetryClass::Idempotent,
            segments,
        );
        self.gone(
            "detach_ssh_key",
            self.cloud.answer(cx, call).await.map(drop),
        )
    }

    /// Disk space for rent, on one machine or anywhere.
    ///
    /// # Errors
    /// Like any read.
    pub async fn volume_offers(
        &self,
        cx: &CallContext,
        machine: Option<u64>,
    ) -> Result<Vec<VolumeOffer>> {
        #[derive(Deserialize)]
        struct Found {
            offers: Vec<Value>,
        }
        let mut body = json!({ "limit": 64 });
        if let Some(machine) = machine {
            body["machine_id"] = json!({ "eq": machine });
        }
        let call = call(
            Method::POST,
            "volumes",
            RetryClass::Safe,
            ["volumes", "search"],
        )
        .json(&body);
        let found: Found = self.named("volume_offers", self.cloud.json(cx, call).await)?;
        let read = lenient::rows::<VolumeOffer>("volume offers", found.offers).usable();
        // Filters are not always applied.
        Ok(self
            .named("volume_offers", read)?
            .into_iter()
            .filter(|offer| machine.is_none_or(|machine| machine == offer.machine_id))
            .collect())
    }

    /// The account's volumes.
    ///
    /// # Errors
    /// Like any read.
    pub async fn volumes(&self, cx: &CallContext) -> Result<Vec<Volume>> {
        #[derive(Deserialize)]
        struct Found {
            volumes: Vec<Value>,
        }
        let call = call(Method::GET, "volumes", RetryClass::Safe, ["volumes"])
            .query("owner", "me")
            .query("type", "all_volume");
        let found: Found = self.named("volumes", self.cloud.json(cx, call).await)?;
        let read = lenient::rows("volumes", found.volumes).usable();
        self.named("volumes", read)
    }

    /// Creates a volume from an offer, and returns its number. Mount it on its own machine:
    /// `OfferPolicy::machine_id`, and in `provider_opts` `{"volume_info": {"create_new": false,
    /// "volume_id": ID, "mount_path": "/data"}}`.
    ///
    /// # Errors
    /// `validation` for a name with characters other than letters, digits and `_`; with an unknown
    /// outcome it may have been created.
    pub async fn create_volume(
        &self,
        cx: &CallContext,
        offer: u64,
        size: DiskSize,
        name: Option<&str>,
    ) -> Result<u64> {
        let plain = |name: &str| {
            (1..=64).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if name.is_some_and(|name| !plain(name)) {
            return self.named(
                "create_volume",
                Err(Error::validation(
                    "name",
                    "must be 1 to 64 letters, digits and _",
                )),
            );
        }
        let mut body = json!({ "id": offer, "size": size.as_gb() });
        if let Some(name) = name {
            body["name"] = Value::from(name);
        }
        let call = call(Method::PUT, "volumes", RetryClass::Create, ["volumes"]).json(&body);
        let made: Value = self.named("create_volume", self.cloud.json(cx, call).await)?;
        let told = lenient::opt_number(&made["volume_id"]).ok().flatten();
        let number = told.or_else(|| {
            made["volume_name"]
                .as_str()?
                .strip_prefix("V.")?
                .parse()
                .ok()
        });
        self.named(
            "create_volume",
            number.ok_or_else(|| missing("number of the volume")),
        )
    }

    /// Deletes a volume with its data; if it is already gone, the call succeeds.
    ///
    /// # Errors
    /// `conflict` while an instance mounts it, and for half a minute afterwards.
    pub async fn delete_volume(&self, cx: &CallContext, id: u64) -> Result<()> {
        let call = call(
            Method::DELETE,
            "volumes",
            RetryClass::Idempotent,
            ["volumes"],
        )
        .query("id", id.to_string());
        self.gone("delete_volume", self.cloud.answer(cx, call).await.map(drop))
    }

    /// An object that no longer exists need not be deleted. Only if Vast itself says so: a proxy's
    /// 404 proves nothing.
    fn gone(&self, operation: &'static str, result: Result<()>) -> Result<()> {
        let result = match result {
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && *error.outcome() == Outcome::NotApplied(Next::Stop) =>
            {
                Ok(())
            }
            other => other,
        };
        self.named(operation, result)
    }
}
