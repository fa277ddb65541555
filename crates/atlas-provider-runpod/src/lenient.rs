//! Reads values in every form that RunPod's APIs were seen to use: numbers as text, `null` for a
//! field that has no value, a field of another type than the document says.
//!
//! A pod of ours must stay readable whatever one of its fields looks like: what cannot be read
//! hides a machine that bills. So an odd value counts as absent here, and only what a thing cannot
//! be without (`id`) is an error, where it is used.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A scalar as text: a number or a flag is written out.
#[derive(Debug, Default)]
struct Scalar(Option<String>);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(Some(text.to_owned())))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Scalar, E> {
                Ok(Scalar(Some(text)))
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<Scalar, E> {
                Ok(Scalar(Some(flag.to_string())))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(Some(number.to_string())))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar(Some(number.to_string())))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar(Some(number.to_string())))
            }

            fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
                Ok(Scalar(None))
            }

            fn visit_none<E: Error>(self) -> Result<Scalar, E> {
                Ok(Scalar(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Scalar, A::Error> {
                IgnoredAny.visit_seq(items).map(|_| Scalar(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Scalar, A::Error> {
                IgnoredAny.visit_map(fields).map(|_| Scalar(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A text, or a number written out; anything else is `None`.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Scalar::deserialize(deserializer).map(|scalar| scalar.0)
}

/// The same, where no text is the empty one.
pub(crate) fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer).map(Option::unwrap_or_default)
}

/// A number, or a text that is one; anything else is `None`.
pub(crate) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let number = |text: String| text.trim().parse::<f64>().ok().filter(|n| n.is_finite());
    text(deserializer).map(|text| text.and_then(number))
}

/// A whole number that is not negative, or a text that is one; anything else is `None`.
pub(crate) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    number(deserializer).map(|number| {
        let number = number.filter(|n| n.fract() == 0.0 && *n >= 0.0 && *n <= f64::from(u32::MAX));
        number.and_then(|n| format!("{n:.0}").parse().ok())
    })
}

/// The same where a thing cannot be described without it: anything else is an error.
pub(crate) fn needed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    whole(deserializer)?.ok_or_else(|| D::Error::custom("not a whole number"))
}

/// `true`, or the text of it.
pub(crate) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    text(deserializer).map(|text| text.is_some_and(|text| text.eq_ignore_ascii_case("true")))
}

/// An object; anything else is what an empty object would be.
pub(crate) fn object<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Maybe::<T>::deserialize(deserializer).map(|maybe| maybe.0.unwrap_or_default())
}

/// An object; anything else is `None`.
pub(crate) fn maybe<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Maybe::<T>::deserialize(deserializer).map(|maybe| maybe.0)
}

/// A list of objects, without what is none; anything else is an empty list.
pub(crate) fn objects<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let list = List::<Maybe<T>>::deserialize(deserializer)?;
    Ok(list.0.into_iter().filter_map(|maybe| maybe.0).collect())
}

/// A list of texts, without what is none; anything else is an empty list.
pub(crate) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let list = List::<Scalar>::deserialize(deserializer)?;
    Ok(list.0.into_iter().filter_map(|scalar| scalar.0).collect())
}

struct Maybe<T>(Option<T>);

struct List<T>(Vec<T>);

macro_rules! forgiving {
    ($kind:ident, $bound:ident, $visit:ident, $access:ident, $from:ident, $empty:expr, $full:expr,
     $other:ident, $other_access:ident) => {
        impl<'de, T: Deserialize<'de>> Deserialize<'de> for $kind<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct $bound<T>(PhantomData<T>);
                impl<'de, T: Deserialize<'de>> Visitor<'de> for $bound<T> {
                    type Value = $kind<T>;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("anything")
                    }

                    fn visit_str<E: Error>(self, _: &str) -> Result<$kind<T>, E> {
                        Ok($empty)
                    }

                    fn visit_bool<E: Error>(self, _: bool) -> Result<$kind<T>, E> {
                        Ok($empty)
                    }

                    fn visit_i64<E: Error>(self, _: i64) -> Result<$kind<T>, E> {
                        Ok($empty)
                    }

                    fn visit_u64<E: Error>(self, _: u64) -> Result<$kind<T>, E> {
                        Ok($empty)
                    }

                    fn visit_f64<E: Error>(self, _: f64) -> Result<$kind<T>, E> {
                        Ok($empty)
                    }

                    fn visit_unit<E: Error>(self) -> Result<$kind<T>, E> {
                        Ok($empty)
                    }

                    fn visit_none<E: Error>(self) -> Result<$kind<T>, E> {
                        Ok($empty)
                    }

                    fn $visit<A: $access<'de>>(self, access: A) -> Result<$kind<T>, A::Error> {
                        Deserialize::deserialize($from::new(access)).map($full)
                    }

                    fn $other<A: $other_access<'de>>(self, it: A) -> Result<$kind<T>, A::Error> {
                        IgnoredAny.$other(it).map(|_| $empty)
                    }
                }
                deserializer.deserialize_any($bound(PhantomData))
            }
        }
    };
}

forgiving!(
    Maybe,
    Object,
    visit_map,
    MapAccess,
    MapAccessDeserializer,
    Maybe(None),
    |value| Maybe(Some(value)),
    visit_seq,
    SeqAccess
);
forgiving!(
    List,
    Items,
    visit_seq,
    SeqAccess,
    SeqAccessDeserializer,
    List(Vec::new()),
    List,
    visit_map,
    MapAccess
);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_value_of_another_form_is_read_or_counts_as_absent() {
        let odd = [json!(null), json!([1]), json!({"a": 1})];
        for value in odd {
            assert_eq!(text(&value).unwrap(), None);
            assert_eq!(
                (number(&value).unwrap(), whole(&value).unwrap()),
                (None, None)
            );
            assert_eq!(texts(&value).unwrap().len(), usize::from(value.is_array()));
        }
        let read = |value: Value| (text(&value).unwrap(), number(&value).unwrap());
        assert_eq!(read(json!(7)), (Some("7".into()), Some(7.0)));
        assert_eq!(read(json!("1.09")), (Some("1.09".into()), Some(1.09)));
        assert_eq!(read(json!("soon")).1, None);
        for (value, expected) in [
            (json!("48"), Some(48)),
            (json!(48.0), Some(48)),
            (json!(-1), None),
            (json!(1.5), None),
            (json!("1e300"), None),
        ] {
            assert_eq!(whole(&value).unwrap(), expected, "{value}");
        }
        assert!(flag(&json!("True")).unwrap() && !flag(&json!(1)).unwrap());
        assert_eq!(maybe::<_, Value>(&json!("x")).unwrap(), None);
        assert_eq!(maybe::<_, Value>(&json!({})).unwrap(), Some(json!({})));
        let mixed = json!([{"a": 1}, null, "x", 3]);
        assert_eq!(objects::<_, Value>(&mixed).unwrap(), [json!({"a": 1})]);
        assert_eq!(
            texts(&json!(["80/http", 22, null])).unwrap(),
            ["80/http", "22"]
        );
    }
}
