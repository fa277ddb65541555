//! Lenient readers of the parts that resources are made of, beside those of
//! [`atlas_http::lenient`].

use std::collections::BTreeMap;

use atlas_core::{Result, UnreadableRow};
use atlas_http::lenient;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A text; empty if there is none.
pub(crate) fn told<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(lenient::opt_text(deserializer)?.unwrap_or_default())
}

/// A count; zero if there is none.
pub(crate) fn count<'de, D: Deserializer<'de>, T: lenient::Number + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(lenient::opt_number(deserializer)?.unwrap_or_default())
}

/// An object's counts by name; other values are left out.
pub(crate) fn counts<'de, D: Deserializer<'de>, T: std::str::FromStr>(
    deserializer: D,
) -> Result<BTreeMap<String, T>, D::Error> {
    let texts = lenient::text_map(deserializer)?.unwrap_or_default();
    Ok(texts
        .into_iter()
        .filter_map(|(name, text)| Some((name, text.parse().ok()?)))
        .collect())
}

/// A value that is used only if all of it is readable.
pub(crate) fn opt_whole<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(T::deserialize(Value::deserialize(deserializer)?).ok())
}

/// The readable rows of a list inside a resource; a value that is not a list has none.
pub(crate) fn parts<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let rows: Vec<Value> = lenient::objects(deserializer)?;
    Ok(rows
        .into_iter()
        .filter_map(|row| T::deserialize(row).ok())
        .collect())
}

/// The readable rows of the list that an answer consists of.
///
/// # Errors
/// For a value that is not a list, and if there are rows and none is readable.
pub(crate) fn listed<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let rows = lenient::rows("rows", Vec::deserialize(deserializer)?).usable();
    rows.map_err(D::Error::custom)
}

/// The rows that could be read; the others are left out with a warning.
///
/// # Errors
/// `provider` if there are rows and none is readable.
pub(crate) fn readable<T>(
    what: &'static str,
    rows: impl IntoIterator<Item = Result<T, UnreadableRow>>,
) -> Result<Vec<T>> {
    let (mut read, mut unreadable) = (Vec::new(), Vec::new());
    for row in rows {
        match row {
            Ok(row) => read.push(row),
            Err(row) => unreadable.push(row),
        }
    }
    lenient::warn(what, &unreadable);
    match unreadable.pop() {
        Some(row) if read.is_empty() => Err(row.into_error()),
        _ => Ok(read),
    }
}
