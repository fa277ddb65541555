//! Pages of lists: `limit`, `cursor`, and the `pagination` block that every paged list carries.
//!
//! A cursor is valid only for the list and the parameters that issued it; a malformed one, or one
//! of another list, is refused with 422 (docs/clouds/runpod.md, "Lists").

use data_encoding::BASE64URL_NOPAD;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::problem::{Problem, json as answer};
use super::{Call, Pagination, RunPod};
use crate::dialect::SimBody;

/// The most things on a page of most lists, and the number where `limit` is not given.
pub(super) const MOST: usize = 1000;

/// A page of a list that was asked for.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    /// The list, with the parameters that select from it.
    list: &'a str,
    /// The most things on the page.
    pub(super) size: usize,
    /// Where the page before ended; `None` for the first page.
    pub(super) after: Option<u64>,
}

impl Asked<'_> {
    /// The block of a page after which there is `more`, and whose last thing is at `last`.
    pub(super) fn block(&self, quirk: Pagination, more: bool, last: Option<u64>) -> Option<Value> {
        let next = last.filter(|_| more).map(|at| write(self.list, at));
        match quirk {
            Pagination::Omitted => None,
            Pagination::Honest => Some(json!({ "hasNextPage": more, "nextCursor": next })),
            Pagination::LosesCursor => Some(json!({ "hasNextPage": true, "nextCursor": null })),
            Pagination::RepeatsCursor => {
                Some(json!({ "hasNextPage": true, "nextCursor": write(self.list, u64::MAX) }))
            }
        }
    }
}

impl RunPod {
    /// Reads `limit`, which is at most `most`, and `cursor`.
    pub(super) fn asked<'a>(
        &self,
        call: &Call<'_>,
        list: &'a str,
        most: usize,
    ) -> Result<Asked<'a>, Problem> {
        let limit = match call.query.get("limit") {
            None => most,
            Some(text) => match text.parse::<usize>() {
                Ok(limit) if (1..=most).contains(&limit) => limit,
                _ => {
                    return Err(Problem::invalid(vec![format!(
                        "limit: must be between 1 and {most}"
                    )]));
                }
            },
        };
        let cursor = call.query.get("cursor").filter(|cursor| !cursor.is_empty());
        let after = cursor.map(|cursor| read(list, cursor)).transpose()?;
        let size = limit.min(self.shared().quirks.page_size.max(1));
        Ok(Asked { list, size, after })
    }

    /// A page of things that are in the order of the list, put into `body`.
    pub(super) fn put_page(
        &self,
        call: &Call<'_>,
        list: &str,
        most: usize,
        field: &str,
        things: Vec<Value>,
        mut body: Value,
    ) -> Result<Value, Problem> {
        let asked = self.asked(call, list, most)?;
        let quirk = self.shared().quirks.pagination;
        if quirk == Pagination::Omitted {
            body[field] = things.into();
            return Ok(body);
        }
        let from = match (quirk, asked.after) {
            // The repeated cursor gives the first page forever.
            (Pagination::RepeatsCursor, _) | (_, None) => 0,
            (_, Some(after)) => usize::try_from(after).unwrap_or(usize::MAX),
        };
        let total = things.len();
        let page: Vec<Value> = things.into_iter().skip(from).take(asked.size).collect();
        let end = from.saturating_add(page.len());
        let last = u64::try_from(end).ok();
        if let Some(block) = asked.block(quirk, end < total, last) {
            body["pagination"] = block;
        }
        body[field] = page.into();
        Ok(body)
    }

    /// A page of a list that has nothing besides its things.
    pub(super) fn page(
        &self,
        call: &Call<'_>,
        field: &str,
        things: Vec<Value>,
    ) -> Result<Response<SimBody>, Problem> {
        let body = self.put_page(call, field, MOST, field, things, json!({}))?;
        Ok(answer(StatusCode::OK, &body))
    }
}

/// A list without pages.
pub(super) fn whole(field: &str, things: Vec<Value>) -> Response<SimBody> {
    let mut body = json!({});
    body[field] = things.into();
    answer(StatusCode::OK, &body)
}

/// Opaque to clients.
fn write(list: &str, at: u64) -> String {
    BASE64URL_NOPAD.encode(json!({ "l": list, "o": at }).to_string().as_bytes())
}

fn read(list: &str, cursor: &str) -> Result<u64, Problem> {
    let invalid = || Problem::invalid(vec!["cursor: invalid cursor".to_owned()]);
    let text = BASE64URL_NOPAD
        .decode(cursor.as_bytes())
        .map_err(|_| invalid())?;
    let held: Value = serde_json::from_slice(&text).map_err(|_| invalid())?;
    let at = held["o"].as_u64().filter(|_| held["l"] == list);
    at.ok_or_else(invalid)
}
