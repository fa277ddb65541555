//! Checks a JSON body against a shape, with error messages like those of the JSON-schema library
//! that RunPod's answers quote.

use serde_json::{Map, Value};

/// The faults found so far.
#[derive(Debug, Default)]
pub(super) struct Check {
    pub(super) errors: Vec<String>,
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Check {
    pub(super) fn wrong(&mut self, path: &str, what: impl AsRef<str>) {
        self.errors.push(format!("{path}: {}", what.as_ref()));
    }

    fn mismatch(&mut self, path: &str, value: &Value, want: &str) {
        self.wrong(path, format!("got {}, want {want}", kind(value)));
    }

    /// An object with these fields allowed and those required.
    pub(super) fn object<'a>(
        &mut self,
        path: &str,
        value: &'a Value,
        allowed: &[&str],
        required: &[&str],
    ) -> Option<&'a Map<String, Value>> {
        let Some(object) = value.as_object() else {
            self.mismatch(path, value, "object");
            return None;
        };
        for field in required
            .iter()
            .filter(|field| !object.contains_key(**field))
        {
            self.wrong(path, format!("missing property '{field}'"));
        }
        let extra: Vec<String> = object
            .keys()
            .filter(|key| !allowed.contains(&key.as_str()))
            .map(|key| format!("'{key}'"))
            .collect();
        if !extra.is_empty() {
            self.wrong(
                path,
                format!("additional properties {} not allowed", extra.join(", ")),
            );
        }
        Some(object)
    }

    pub(super) fn string<'a>(
        &mut self,
        path: &str,
        value: Option<&'a Value>,
        min: usize,
    ) -> Option<&'a str> {
        let value = value?;
        let Some(text) = value.as_str() else {
            self.mismatch(path, value, "string");
            return None;
        };
        if text.chars().count() < min {
            self.wrong(
                path,
                format!("minLength: got {}, want {min}", text.chars().count()),
            );
        }
        Some(text)
    }

    pub(super) fn integer(&mut self, path: &str, value: Option<&Value>, min: u32) -> Option<u32> {
        let value = value?;
        // 1.0 is an integer to JSON schema.
        let number = value.as_i64().or_else(|| {
            let float = value
                .as_f64()
                .filter(|float| float.fract() == 0.0 && float.abs() < 9e15)?;
            format!("{float:.0}").parse().ok()
        });
        match number {
            None => {
                self.mismatch(path, value, "integer");
                None
            }
            Some(number) if number < i64::from(min) => {
                self.wrong(path, format!("minimum: got {number}, want {min}"));
                None
            }
            Some(number) => Some(u32::try_from(number).unwrap_or(u32::MAX)),
        }
    }

    pub(super) fn boolean(&mut self, path: &str, value: Option<&Value>) -> Option<bool> {
        let value = value?;
        if !value.is_boolean() {
            self.mismatch(path, value, "boolean");
        }
        value.as_bool()
    }

    pub(super) fn one_of<'a>(
        &mut self,
        path: &str,
        value: Option<&'a Value>,
        words: &[&str],
    ) -> Option<&'a str> {
        let text = self.string(path, value, 0)?;
        if !words.contains(&text) {
            let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
            self.wrong(path, format!("value must be one of {}", words.join(", ")));
        }
        Some(text)
    }

    pub(super) fn array<'a>(
        &mut self,
        path: &str,
        value: Option<&'a Value>,
    ) -> Option<&'a Vec<Value>> {
        let value = value?;
        let Some(items) = value.as_array() else {
            self.mismatch(path, value, "array");
            return None;
        };
        Some(items)
    }

    pub(super) fn strings(&mut self, path: &str, value: Option<&Value>) -> Option<Vec<String>> {
        let items = self.array(path, value)?;
        let mut strings = Vec::new();
        for (index, item) in items.iter().enumerate() {
            strings.extend(
                self.string(&format!("{path}[{index}]"), Some(item), 0)
                    .map(str::to_owned),
            );
        }
        Some(strings)
    }

    /// An object of strings.
    pub(super) fn map(
        &mut self,
        path: &str,
        value: Option<&Value>,
    ) -> Option<Vec<(String, String)>> {
        let value = value?;
        let Some(object) = value.as_object() else {
            self.mismatch(path, value, "object");
            return None;
        };
        let mut pairs = Vec::new();
        for (key, value) in object {
            pairs.extend(
                self.string(&format!("{path}.{key}"), Some(value), 0)
                    .map(|text| (key.clone(), text.to_owned())),
            );
        }
        Some(pairs)
    }

    /// `major.minor`.
    pub(super) fn version(&mut self, path: &str, text: &str) {
        if version(text).is_none() {
            self.wrong(
                path,
                format!("'{text}' does not match pattern '^\\\\d+\\\\.\\\\d+$'"),
            );
        }
    }
}

/// The two numbers of a `major.minor`.
pub(super) fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    let digits = |part: &str| {
        part.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| part.parse().ok())
            .flatten()
    };
    Some((digits(major)?, digits(minor)?))
}
