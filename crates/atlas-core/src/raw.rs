//! A cloud's own description of an object, parsed when it is first read.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// JSON as a cloud sent it, with the secrets it echoes redacted. Dereferences to a [`Value`]; cheap
/// to clone.
///
/// ```
/// use atlas_core::Raw;
///
/// let raw = Raw::parsed_later(br#"{"id":"p1","env":{"A":"x"}}"#, |pod| pod["env"] = "[redacted]".into());
/// assert_eq!((&raw["id"], &raw["env"]), (&"p1".into(), &"[redacted]".into()));
/// ```
#[derive(Clone, Default)]
pub struct Raw(Option<Arc<Inner>>);

struct Inner {
    value: OnceLock<Value>,
    text: Box<[u8]>,
    redact: fn(&mut Value),
}

impl Raw {
    /// Keeps the text. It is parsed and then redacted by `redact` when it is first read, because
    /// callers that poll a machine's state rarely read it. Text that is not JSON reads as `null`.
    #[must_use]
    pub fn parsed_later(text: &[u8], redact: fn(&mut Value)) -> Self {
        Self(Some(Arc::new(Inner {
            value: OnceLock::new(),
            text: text.into(),
            redact,
        })))
    }

    /// The parsed and redacted value.
    #[must_use]
    pub fn value(&self) -> &Value {
        const NOTHING: &Value = &Value::Null;
        let Some(inner) = &self.0 else { return NOTHING };
        inner.value.get_or_init(|| {
            let mut value = serde_json::from_slice(&inner.text).unwrap_or_default();
            (inner.redact)(&mut value);
            value
        })
    }
}

impl Deref for Raw {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.value()
    }
}

impl From<Value> for Raw {
    fn from(value: Value) -> Self {
        Self(Some(Arc::new(Inner {
            value: value.into(),
            text: Box::default(),
            redact: |_| {},
        })))
    }
}

impl PartialEq for Raw {
    fn eq(&self, other: &Self) -> bool {
        self.value() == other.value()
    }
}

impl PartialEq<Value> for Raw {
    fn eq(&self, other: &Value) -> bool {
        self.value() == other
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.value(), f)
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_kept_as_text_is_never_shown_before_it_is_redacted() {
        let raw = Raw::parsed_later(br#"{"id":1,"env":{"A":"canary"}}"#, |value| {
            value["env"] = json!("[redacted]")
        });
        let shown = [
            format!("{raw:?}"),
            raw.to_string(),
            serde_json::to_string(&raw).unwrap(),
            format!("{:?}", raw.clone()),
        ];
        assert!(
            shown
                .iter()
                .all(|text| text.contains("redacted") && !text.contains("canary")),
            "{shown:?}"
        );
        assert_eq!(raw, json!({"id": 1, "env": "[redacted]"}));
    }

    #[test]
    fn it_is_a_value_on_the_wire_and_back() {
        let raw = Raw::from(json!({"a": [1, null]}));
        assert_eq!(
            serde_json::from_str::<Raw>(&serde_json::to_string(&raw).unwrap()).unwrap(),
            raw
        );
        assert_eq!(
            (Raw::default().value(), Raw::parsed_later(b"{", |_| {})),
            (&Value::Null, Raw::default())
        );
    }
}
