//! Pages of lists: their rows, and the cursor of the next page. Pods are read in one pass: each is
//! parsed, and its text is kept for closer inspection.
//!
//! A list of a hundred thousand pods is read every minute, and callers rarely look at more than the
//! parsed fields. A page without the expected shape is left to the slower reader, which reports
//! what is wrong with which pod.

use atlas_core::Result;
use atlas_http::{Answer, Page};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Deserializer, Value};

use crate::wire::{self, read};

/// The pods of a page, each with its text, and the cursor of the next page.
pub(crate) type Pods<'a> = (Vec<(wire::Pod, &'a [u8])>, Option<wire::Pagination>);

/// Reads a page with the expected shape; `None` for any other.
pub(crate) fn pods(body: &[u8]) -> Option<Pods<'_>> {
    let mut text = Text { body, at: 0 };
    let (mut pods, mut pagination) = (None, None);
    text.token(b'{')?;
    loop {
        let name: String = text.value()?.0;
        text.token(b':')?;
        match name.as_str() {
            "pods" if pods.is_none() => pods = Some(text.list()?),
            "pagination" if pagination.is_none() => {
                pagination = text.value::<Option<wire::Pagination>>()?.0
            }
            "pods" | "pagination" => return None,
            _ => drop(text.value::<IgnoredAny>()?),
        }
        match text.any()? {
            b',' => {}
            b'}' if text.rest().is_empty() => return Some((pods?, pagination)),
            _ => return None,
        }
    }
}

/// Parses a page of any list, naming the field of its rows.
pub(crate) fn rows(answer: &Answer, field: &str) -> Result<Page<Value>> {
    let (items, pagination) = items(answer, field)?;
    Ok(page(items, pagination))
}

/// The items of a page, and the cursor of the next one.
pub(crate) fn items(
    answer: &Answer,
    field: &str,
) -> Result<(Vec<Value>, Option<wire::Pagination>)> {
    let mut body: Value = answer.json()?;
    let pagination = body
        .get("pagination")
        .filter(|pagination| !pagination.is_null());
    let pagination = pagination
        .map(read::<wire::Pagination>)
        .transpose()
        .map_err(|error| answer.misunderstood(error.message()))?;
    match body.get_mut(field).map(Value::take) {
        Some(Value::Array(items)) => Ok((items, pagination)),
        _ => Err(answer.misunderstood(&format!("the answer has no list of {field}"))),
    }
}

/// A page with the cursor of the next one, if the answer gives one. A page is the last one only
/// where the answer clearly says so: a flag that cannot be read hides no page.
pub(crate) fn page<T>(items: Vec<T>, pagination: Option<wire::Pagination>) -> Page<T> {
    let last = |items| Page {
        items,
        next: None,
        missing: None,
    };
    let Some(pagination) = pagination else {
        return last(items);
    };
    if pagination.has_next_page == Some(false) {
        return last(items);
    }
    let next = pagination.next_cursor.filter(|cursor| !cursor.is_empty());
    let missing = next
        .is_none()
        .then(|| "a page does not say that it is the last one, nor where the next is".to_owned());
    Page {
        items,
        next,
        missing,
    }
}

/// JSON that is read value by value.
struct Text<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Text<'a> {
    /// The remaining text, without leading white space.
    fn rest(&mut self) -> &'a [u8] {
        let rest = self.body.get(self.at..).unwrap_or_default();
        self.at += rest
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        self.body.get(self.at..).unwrap_or_default()
    }

    /// The next character between values.
    fn any(&mut self) -> Option<u8> {
        let mark = *self.rest().first()?;
        self.at += 1;
        Some(mark)
    }

    fn token(&mut self, wanted: u8) -> Option<()> {
        (self.any()? == wanted).then_some(())
    }

    /// The next value with its text.
    fn value<T: DeserializeOwned>(&mut self) -> Option<(T, &'a [u8])> {
        let rest = self.rest();
        let mut values = Deserializer::from_slice(rest).into_iter::<T>();
        let value = values.next()?.ok()?;
        let text = rest.get(..values.byte_offset())?;
        self.at += text.len();
        Some((value, text))
    }

    fn list<T: DeserializeOwned>(&mut self) -> Option<Vec<(T, &'a [u8])>> {
        self.token(b'[')?;
        let mut items = Vec::new();
        if self.rest().first() == Some(&b']') {
            self.at += 1;
            return Some(items);
        }
        loop {
            items.push(self.value()?);
            match self.any()? {
                b',' => {}
                b']' => return Some(items),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_page_is_read_with_the_text_of_each_pod() {
        let body =
            br#" { "x": [1, {"a": "}],"}], "pods" : [ {"id":"a","status":"RUNNING","n":"\"]"} , {"id":"b","status":"EXITED"} ] ,
            "pagination": {"hasNextPage": true, "nextCursor": "c"} } "#;
        let (pods, pagination) = pods(body).unwrap();
        let read: Vec<_> = pods
            .iter()
            .map(|(pod, text)| (pod.id.as_str(), std::str::from_utf8(text).unwrap()))
            .collect();
        assert_eq!(
            read,
            [
                ("a", r#"{"id":"a","status":"RUNNING","n":"\"]"}"#),
                ("b", r#"{"id":"b","status":"EXITED"}"#)
            ]
        );
        assert_eq!(pagination.unwrap().next_cursor.as_deref(), Some("c"));
        assert!(super::pods(br#"{"pods":[]}"#).unwrap().0.is_empty());
        let odd = super::pods(br#"{"pods":[{"id":7,"env":[],"gpu":"x"}]}"#)
            .unwrap()
            .0;
        assert_eq!(
            (odd[0].0.id.as_str(), odd[0].0.status.as_str()),
            ("7", "unreadable")
        );
    }

    #[test]
    fn what_is_no_plain_page_is_left_to_the_slower_reader() {
        for body in [
            "",
            "[]",
            "{}",
            "null",
            r#"{"pods":null}"#,
            r#"{"pods":{}}"#,
            r#"{"pods":[],"pods":[]}"#,
            r#"{"pods":[]} x"#,
            r#"{"pods":[{"status":"x"}]}"#,
            r#"{"pods":[{"id":"a","status":"x"},]}"#,
            r#"{"pods":[{"id":"a","status":"x"}"#,
            r#"{"pods":[],"pagination":7}"#,
        ] {
            assert!(pods(body.as_bytes()).is_none(), "{body}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_nothing_panics_and_each_text_is_its_pod(bytes: Vec<u8>,
            cut in 0_usize..200, id in "[a-z\"\\\\{}\\[\\],]{1,8}") {
            drop(pods(&bytes));
            let body = json!({ "pods": [{ "id": id, "status": "RUNNING", "env": {
                "A": id } }] }).to_string();
            drop(pods(body.get(..cut.min(body.len())).unwrap_or_default().as_bytes()));
            let (read, _) = pods(body.as_bytes()).unwrap();
            let again: Value = serde_json::from_slice(read[0].1).unwrap();
            prop_assert_eq!(&again["id"], &Value::from(read[0].0.id.clone()));
        }
    }
}
