//! Parses answers that differ from their documentation.
//!
//! Clouds write numbers as text and text as numbers, send `null` or nothing where a value was
//! promised, and add fields and rows. None of this may make a machine of ours unreadable, hide a
//! price list, or be read as another answer than was given. The rules, the same for every provider:
//!
//! * An optional field is `None` when its value is not usable: [`opt_text`], [`opt_number`],
//!   [`opt_flag`], [`opt_object`], [`texts`], [`objects`], [`text_map`].
//! * A state is read with [`opt_word`]: a value that is not a string becomes [`UNREADABLE`], which
//!   no provider treats as a known state. A wrong type is never read as "not there".
//! * A required field ([`text()`], [`number`]) makes its own row unreadable, and no other: [`rows`]
//!   reads a list row by row, and warns with a count.
//! * A list without a readable row is an error, never an empty list: [`Rows::usable`].
//! * A cursor that is not usable means that rows are missing, never the end of the list:
//!   [`Cursor`].
//!
//! ```
//! use atlas_http::lenient;
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! struct Offer {
//!     #[serde(deserialize_with = "lenient::number")]
//!     id: u64,
//!     #[serde(default, deserialize_with = "lenient::opt_number")]
//!     price: Option<f64>,
//! }
//!
//! let list = serde_json::json!([{ "id": "7", "price": "0.25" }, { "price": 1 }]);
//! let read = lenient::rows::<Offer>("offers", list.as_array().cloned().unwrap_or_default());
//! assert_eq!((read.rows[0].id, read.rows[0].price), (7, Some(0.25)));
//! assert_eq!(read.unreadable.len(), 1);
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use atlas_core::{Error, ErrorKind, Next, Outcome, Result, UnreadableRow};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::failure::without_quotes;
use crate::walk::Page;

/// The value of a state that is not a string.
pub const UNREADABLE: &str = "unreadable";

/// The maximum number of rows that a warning names.
const MOST_NAMED: usize = 5;

/// A JSON value without members, borrowed if possible.
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Flag(bool),
    /// `null`.
    Nothing,
    /// An object or a list.
    Nested,
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Signed(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Unsigned(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text)))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Nothing)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nested)
    }
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

impl Scalar<'_> {
    /// The value as text; a number is formatted. `None` for `null`, an object or a list.
    fn into_text(self) -> Option<String> {
        Some(match self {
            Self::Text(text) => text.into_owned(),
            Self::Unsigned(number) => number.to_string(),
            Self::Signed(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Nothing | Self::Nested => return None,
        })
    }

    fn as_number<T: sealed::Number>(&self) -> Option<T> {
        match self {
            Self::Unsigned(number) => T::of_integer(i128::from(*number)),
            Self::Signed(number) => T::of_integer(i128::from(*number)),
            Self::Float(number) => T::of_float(*number),
            Self::Text(text) => {
                let text = text.trim();
                match text.parse::<i128>() {
                    Ok(number) => T::of_integer(number),
                    Err(_) => T::of_float(text.parse().ok()?),
                }
            }
            Self::Flag(_) | Self::Nothing | Self::Nested => None,
        }
    }

    fn as_flag(&self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(*flag),
            Self::Unsigned(0) | Self::Signed(0) => Some(false),
            Self::Unsigned(1) | Self::Signed(1) => Some(true),
            Self::Text(text) => match text.trim() {
                "true" | "True" | "1" => Some(true),
                "false" | "False" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A number type of a field. Sealed: integers and `f64`.
pub trait Number: sealed::Number {}

mod sealed {
    pub trait Number: Sized {
        fn of_integer(number: i128) -> Option<Self>;
        fn of_float(number: f64) -> Option<Self>;
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl Number for $integer {}
        impl sealed::Number for $integer {
            fn of_integer(number: i128) -> Option<Self> {
                number.try_into().ok()
            }

            fn of_float(number: f64) -> Option<Self> {
                // `1.0` is an integer, `1.5` and `1e300` are not; above 2^53 a float is not a valid
                // id.
                let whole = number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
                whole.then(|| format!("{number:.0}").parse().ok()).flatten()
            }
        }
    )*};
}
integers!(u16, u32, u64, i32, i64);

impl Number for f64 {}
impl sealed::Number for f64 {
    fn of_integer(number: i128) -> Option<Self> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "amounts and sizes: the nearest float is what JSON means"
        )]
        let number = number as Self;
        Some(number)
    }

    fn of_float(number: f64) -> Option<Self> {
        number.is_finite().then_some(number)
    }
}

/// A required text; a number is formatted.
///
/// # Errors
/// For `null`, an object or a list.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    opt_text(deserializer)?.ok_or_else(|| de::Error::custom("is not text"))
}

/// An optional text; a number is formatted, anything else is `None`.
///
/// # Errors
/// Only for malformed JSON.
pub fn opt_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Scalar::deserialize(deserializer)?.into_text())
}

/// A state. `null` is `None`; a value that is not a string is [`UNREADABLE`].
///
/// # Errors
/// Only for malformed JSON.
pub fn opt_word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Scalar::deserialize(deserializer)? {
        Scalar::Text(word) if !word.is_empty() => Some(word.into_owned()),
        Scalar::Nothing => None,
        _ => Some(UNREADABLE.to_owned()),
    })
}

/// A required state: [`UNREADABLE`] if there is none. With `#[serde(default = "lenient::no_word")]`
/// a missing field reads the same.
///
/// # Errors
/// Only for malformed JSON.
pub fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(opt_word(deserializer)?.unwrap_or_else(no_word))
}

/// The default for [`word`] when the field is missing.
#[must_use]
pub fn no_word() -> String {
    UNREADABLE.to_owned()
}

/// A required number, also if written as text.
///
/// # Errors
/// For anything else, and for a number that does not fit.
pub fn number<'de, D: Deserializer<'de>, T: Number>(deserializer: D) -> Result<T, D::Error> {
    opt_number(deserializer)?.ok_or_else(|| de::Error::custom("is not a number in range"))
}

/// An optional number, also if written as text; anything else is `None`, and so is a number that
/// does not fit.
///
/// # Errors
/// Only for malformed JSON.
pub fn opt_number<'de, D: Deserializer<'de>, T: Number>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Scalar::deserialize(deserializer)?.as_number())
}

/// An optional flag, also if written as `0`, `1` or text; anything else is `None`.
///
/// # Errors
/// Only for malformed JSON.
pub fn opt_flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    Ok(Scalar::deserialize(deserializer)?.as_flag())
}

/// A flag that is `false` unless the answer clearly says otherwise.
///
/// # Errors
/// Only for malformed JSON.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(opt_flag(deserializer)?.unwrap_or_default())
}

/// Accepts an object of one type, and ignores any other value.
struct Object<T>(Option<T>);

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        ScalarVisitor.visit_seq(list).map(|_| Object(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|object| Object(Some(object)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData))
    }
}

/// An optional object; any other value is `None`. The fields of `T` must be lenient themselves: one
/// that is not makes the whole value fail.
///
/// # Errors
/// Those of `T`'s own fields.
pub fn opt_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Object::deserialize(deserializer)?.0)
}

/// An object, with the default if there is none. Like [`opt_object`].
///
/// # Errors
/// Those of `T`'s own fields.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(opt_object(deserializer)?.unwrap_or_default())
}

/// Collects usable members; a value that is not a list or object has none.
struct Collect<T, U>(PhantomData<(T, U)>);

/// How a list's element or a map's value is parsed, and what is kept of it.
trait Element<U> {
    fn kept(self) -> Option<U>;
}

impl Element<String> for Scalar<'_> {
    fn kept(self) -> Option<String> {
        self.into_text()
    }
}

impl<T> Element<T> for Object<T> {
    fn kept(self) -> Option<T> {
        self.0
    }
}

impl<'de, T: Deserialize<'de> + Element<U>, U> Visitor<'de> for Collect<T, U> {
    type Value = Option<(Vec<U>, BTreeMap<String, U>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or an object")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while let Some(element) = list.next_element::<T>()? {
            kept.extend(element.kept());
        }
        Ok(Some((kept, BTreeMap::new())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut kept = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, T>()? {
            kept.extend(value.kept().map(|value| (name, value)));
        }
        Ok(Some((Vec::new(), kept)))
    }
}

/// The texts of a list; other elements are left out, and a value that is not a list has none.
///
/// # Errors
/// Only for malformed JSON.
pub fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let collect = Collect::<Scalar<'de>, String>(PhantomData);
    Ok(deserializer.deserialize_any(collect)?.unwrap_or_default().0)
}

/// The objects of a list; other elements are left out, and a value that is not a list has none.
/// Like [`opt_object`].
///
/// # Errors
/// Those of `T`'s own fields.
pub fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let collect = Collect::<Object<T>, T>(PhantomData);
    Ok(deserializer.deserialize_any(collect)?.unwrap_or_default().0)
}

/// An object's texts by name; other values are left out. `None` for a value that is not an object.
///
/// # Errors
/// Only for malformed JSON.
pub fn text_map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    let collect = Collect::<Scalar<'de>, String>(PhantomData);
    Ok(deserializer.deserialize_any(collect)?.map(|(_, map)| map))
}

/// The position at which a list continues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cursor {
    /// The end of the list: `null`, empty or missing.
    #[default]
    End,
    /// The cursor of the next page.
    Next(String),
    /// The value is not a valid cursor. There may be more pages.
    Unreadable,
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Scalar::deserialize(deserializer)? {
            Scalar::Nothing => Self::End,
            Scalar::Text(text) if text.is_empty() => Self::End,
            Scalar::Flag(_) | Scalar::Nested => Self::Unreadable,
            scalar => scalar.into_text().map_or(Self::Unreadable, Self::Next),
        })
    }
}

impl<T> Page<T> {
    /// A page, and the cursor of the next one.
    #[must_use]
    pub fn at(items: Vec<T>, cursor: Cursor) -> Self {
        let (next, missing) = match cursor {
            Cursor::End => (None, None),
            Cursor::Next(next) => (Some(next), None),
            Cursor::Unreadable => (
                None,
                Some("where the list goes on could not be read".to_owned()),
            ),
        };
        Self {
            items,
            next,
            missing,
        }
    }
}

/// A list that was parsed row by row.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rows<T> {
    /// The readable rows, in the list's order.
    pub rows: Vec<T>,
    /// The unreadable rows.
    pub unreadable: Vec<UnreadableRow>,
    what: &'static str,
}

impl<T> Rows<T> {
    /// The readable rows.
    ///
    /// # Errors
    /// `provider`, if there are rows and none of them is readable: that is another format, not an
    /// empty list.
    pub fn usable(self) -> Result<Vec<T>> {
        self.check().map(|()| self.rows)
    }

    /// Checks that there are no rows, or that at least one is readable.
    ///
    /// # Errors
    /// Like [`Rows::usable`].
    pub fn check(&self) -> Result<()> {
        match self.unreadable.first() {
            Some(first) if self.rows.is_empty() => Err(none_readable(
                self.what,
                self.unreadable.len(),
                &first.reason,
            )),
            _ => Ok(()),
        }
    }
}

fn none_readable(what: &str, count: usize, reason: &str) -> Error {
    Error::new(
        ErrorKind::Provider,
        format!("none of {count} {what} in the answer could be read: {reason}"),
    )
    .outcome_is(Outcome::NotApplied(Next::SameLater))
}

/// Parses a list row by row. Logs a warning for unreadable rows; `what` names the kind of row.
pub fn rows<T: DeserializeOwned>(what: &'static str, list: Vec<Value>) -> Rows<T> {
    let mut read = Rows {
        rows: Vec::with_capacity(list.len()),
        unreadable: Vec::new(),
        what,
    };
    for raw in list {
        match row::<T>(&raw) {
            Ok(row) => read.rows.push(row),
            Err(unreadable) => read.unreadable.push(unreadable),
        }
    }
    warn(what, &read.unreadable);
    read
}

/// The same for rows in an object, whose member names count as their ids.
pub fn named_rows<T: DeserializeOwned>(
    what: &'static str,
    list: impl IntoIterator<Item = (String, Value)>,
) -> Rows<(String, T)> {
    let (mut rows, mut unreadable) = (Vec::new(), Vec::new());
    for (name, raw) in list {
        match row(&raw) {
            Ok(row) => rows.push((name, row)),
            Err(row) => unreadable.push(UnreadableRow {
                id: Some(name),
                ..row
            }),
        }
    }
    warn(what, &unreadable);
    Rows {
        rows,
        unreadable,
        what,
    }
}

/// Parses one row.
///
/// # Errors
/// If it is unreadable: its id if it has one, and the position of the error.
pub fn row<T: DeserializeOwned>(raw: &Value) -> std::result::Result<T, UnreadableRow> {
    T::deserialize(raw).map_err(|_| {
        // The second parse is slower and knows the position.
        let reason = match serde_path_to_error::deserialize::<_, T>(raw) {
            Err(error) => format!(
                "{}: {}",
                error.path(),
                without_quotes(&error.inner().to_string())
            ),
            Ok(_) => "it is not as expected".to_owned(),
        };
        UnreadableRow::of(raw, reason)
    })
}

/// Warns about unreadable rows: how many, which, and why the first one.
pub fn warn(what: &'static str, unreadable: &[UnreadableRow]) {
    let Some(first) = unreadable.first() else {
        return;
    };
    let ids: Vec<&str> = unreadable
        .iter()
        .filter_map(|row| row.id.as_deref())
        .take(MOST_NAMED)
        .collect();
    tracing::warn!(
        rows = what,
        unreadable = unreadable.len(),
        ids = ids.join(", "),
        first = first.reason,
        "some rows of an answer could not be read and are left out"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    struct Inner {
        #[serde(default, deserialize_with = "opt_number")]
        n: Option<u32>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Row {
        #[serde(deserialize_with = "number")]
        id: u64,
        #[serde(deserialize_with = "text")]
        name: String,
        #[serde(default, deserialize_with = "opt_number")]
        price: Option<f64>,
        #[serde(default, deserialize_with = "opt_number")]
        count: Option<u16>,
        #[serde(default, deserialize_with = "opt_flag")]
        on: Option<bool>,
        #[serde(default = "no_word", deserialize_with = "word")]
        state: String,
        #[serde(default, deserialize_with = "opt_word")]
        next_state: Option<String>,
        #[serde(default, deserialize_with = "opt_object")]
        inner: Option<Inner>,
        #[serde(default, deserialize_with = "objects")]
        inners: Vec<Inner>,
        #[serde(default, deserialize_with = "texts")]
        tags: Vec<String>,
        #[serde(default, deserialize_with = "text_map")]
        map: Option<BTreeMap<String, String>>,
    }

    #[test]
    fn numbers_are_read_from_text_and_text_from_numbers() {
        let row: Row = row(&json!({
            "id": "25417733", "name": 17, "price": " 0.25 ", "count": 3.0, "on": "1", "state": "up",
            "next_state": null, "inner": { "n": "4", "new": [] }, "inners": [{ "n": 1 }, null, 7,
                {}],
            "tags": ["a", 7, null, {}], "map": { "a": "x", "b": 1, "c": [], "d": null },
        }))
        .unwrap();
        assert_eq!(
            (row.id, row.name.as_str(), row.price, row.count, row.on),
            (25_417_733, "17", Some(0.25), Some(3), Some(true))
        );
        assert_eq!((row.state.as_str(), row.next_state), ("up", None));
        assert_eq!(row.inner, Some(Inner { n: Some(4) }));
        assert_eq!(row.inners, [Inner { n: Some(1) }, Inner { n: None }]);
        assert_eq!(row.tags, ["a", "7"]);
        let map = row.map.unwrap();
        assert_eq!((map.len(), map["b"].as_str()), (2, "1"));
    }

    #[test]
    fn a_number_that_does_not_fit_is_no_number() {
        let read = |value: Value| {
            row::<Row>(&json!({ "id": 1, "name": "x", "count": value }))
                .unwrap()
                .count
        };
        for odd in [
            json!(-1),
            json!(70_000),
            json!(1.5),
            json!(1e300),
            json!("NaN"),
            json!("inf"),
            json!(true),
            json!("many"),
            json!({}),
        ] {
            assert_eq!(read(odd.clone()), None, "{odd}");
        }
        // An id above 2^53 is exact as an integer and as text, and invalid as a float.
        let id = |id: Value| row::<Row>(&json!({ "id": id, "name": "x" })).map(|row| row.id);
        assert_eq!(id(json!(u64::MAX)).unwrap(), u64::MAX);
        assert_eq!(id(json!(u64::MAX.to_string())).unwrap(), u64::MAX);
        assert!(id(json!(1.8e19)).is_err());
    }

    #[test]
    fn a_state_of_a_wrong_type_is_unreadable_and_never_missing() {
        let read = |value: Value| {
            let row: Row =
                row(&json!({ "id": 1, "name": "x", "state": value, "next_state": value })).unwrap();
            (row.state, row.next_state)
        };
        for odd in [
            json!(7),
            json!(false),
            json!({ "a": 1 }),
            json!([]),
            json!(""),
        ] {
            let (state, next) = read(odd.clone());
            assert_eq!(
                (state.as_str(), next.as_deref()),
                (UNREADABLE, Some(UNREADABLE)),
                "{odd}"
            );
        }
        assert_eq!(read(Value::Null), (UNREADABLE.to_owned(), None));
    }

    #[test]
    fn an_unreadable_row_costs_one_row_and_keeps_its_id() {
        let list = vec![
            json!({ "id": 1, "name": "a" }),
            json!({ "id": 2, "name": ["secret"] }),
            json!(null),
            json!({ "name": "secret", "id": "secret" }),
        ];
        let read = rows::<Row>("offers", list);
        assert_eq!(read.rows.len(), 1);
        let ids: Vec<_> = read
            .unreadable
            .iter()
            .map(|row| row.id.as_deref())
            .collect();
        assert_eq!(ids, [Some("2"), None, Some("secret")]);
        assert!(
            read.unreadable
                .iter()
                .all(|row| !row.reason.contains("secret")),
            "{read:?}"
        );
        assert_eq!(read.unreadable[0].reason, "name: is not text");
        assert_eq!(read.usable().unwrap().len(), 1);
    }

    #[test]
    fn a_list_in_which_no_row_is_readable_is_an_error_and_an_empty_one_is_not() {
        let error = rows::<Row>("offers", vec![json!({}), json!(7)])
            .usable()
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Provider, &Outcome::NotApplied(Next::SameLater))
        );
        assert!(error.message().starts_with("none of 2 offers"), "{error}");
        assert!(rows::<Row>("offers", vec![]).usable().unwrap().is_empty());

        let good = ("a".to_owned(), json!({ "id": 1, "name": "a" }));
        let bad = ("b".to_owned(), json!({ "id": 2, "name": null }));
        let read = named_rows::<Row>("types", [good, bad.clone()]);
        assert_eq!(read.unreadable[0].id.as_deref(), Some("b"));
        assert_eq!(read.usable().unwrap()[0].0, "a");
        assert!(named_rows::<Row>("types", [bad]).usable().is_err());
        assert!(named_rows::<Row>("types", []).usable().unwrap().is_empty());
    }

    #[test]
    fn a_cursor_that_cannot_be_read_is_a_hole_and_not_the_end() {
        let read = |value: Value| Cursor::deserialize(value).unwrap();
        assert_eq!(read(Value::Null), Cursor::End);
        assert_eq!(read(json!("")), Cursor::End);
        assert_eq!(read(json!("x")), Cursor::Next("x".to_owned()));
        assert_eq!(read(json!(7)), Cursor::Next("7".to_owned()));
        for odd in [json!({ "a": 1 }), json!([1]), json!(true)] {
            assert_eq!(read(odd.clone()), Cursor::Unreadable, "{odd}");
            assert!(Page::<u8>::at(vec![], read(odd)).missing.is_some());
        }
    }

    fn anything() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            // Sixteenths are parsed exactly; the parser rounds the last digit of other fractions.
            any::<i32>().prop_map(|n| Value::from(f64::from(n) / 16.0)),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None,
            ..ProptestConfig::default() })]

        /// Parsed from text, like answers, and from a value, like rows.
        #[test]
        fn whatever_stands_in_a_field_that_is_not_needed_the_row_is_read(
            fields in prop::collection::vec(anything(), 9),
        ) {
            let names = ["price", "count", "on", "state", "next_state", "inner", "inners", "tags",
                "map"];
            let mut raw = json!({ "id": 7, "name": "x" });
            for (name, value) in names.iter().zip(fields) {
                raw[*name] = value;
            }
            let from_value = row::<Row>(&raw).unwrap();
            let from_text: Row = serde_json::from_str(&raw.to_string()).unwrap();
            prop_assert_eq!(from_value.id, 7);
            prop_assert_eq!(from_value, from_text);
        }
    }
}
