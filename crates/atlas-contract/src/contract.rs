//! Exchanges against a document: how many, which operations, and what the document does not allow.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::openapi::{Document, Exchange};
use crate::waiver::Waiver;

/// What a cloud's exchanges came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Finding {
    /// How many operations of the document were called.
    pub operations: usize,
    /// How many requests were checked.
    pub requests: usize,
    /// How many answers were checked.
    pub answers: usize,
    /// How many different things the document does not allow, waived ones left out.
    pub mismatches: usize,
    /// The waivers that were needed.
    pub waived: Vec<String>,
    /// The mismatches themselves, with how often each was seen.
    #[serde(skip)]
    pub details: BTreeMap<String, usize>,
    /// The operations of the document that were never called.
    #[serde(skip)]
    pub uncovered: Vec<String>,
    /// Waivers that nothing needed: the cloud's document or our dialect has caught up.
    #[serde(skip)]
    pub idle: Vec<String>,
}

/// Checks every exchange with the document's hosts.
#[must_use]
pub fn check(
    document: &Document,
    hosts: &[&str],
    exchanges: &[Exchange],
    waivers: &[Waiver],
) -> Finding {
    let mut finding = Finding::default();
    let mut seen = BTreeSet::new();
    let mut needed = BTreeSet::new();
    for exchange in exchanges
        .iter()
        .filter(|exchange| hosts.contains(&exchange.host.as_str()))
    {
        finding.requests += 1;
        let mut verdicts = vec![document.check_request(exchange)];
        if let Some(answer) = &exchange.answer {
            finding.answers += 1;
            verdicts.push(document.check_answer(exchange, answer));
        }
        for verdict in verdicts {
            seen.extend(verdict.operation.clone());
            for mismatch in verdict.mismatches {
                match waivers
                    .iter()
                    .position(|waiver| waiver.excepts(verdict.operation.as_deref(), &mismatch))
                {
                    Some(index) => drop(needed.insert(index)),
                    None => {
                        let operation = verdict.operation.as_deref().unwrap_or("no operation");
                        *finding
                            .details
                            .entry(format!("{operation}: {mismatch}"))
                            .or_default() += 1;
                    }
                }
            }
        }
    }
    finding.operations = seen.len();
    finding.mismatches = finding.details.len();
    finding.uncovered = document
        .uncovered(&seen)
        .into_iter()
        .map(str::to_owned)
        .collect();
    for (index, waiver) in waivers.iter().enumerate() {
        if needed.contains(&index) {
            finding.waived.push(waiver.line())
        } else {
            finding.idle.push(waiver.line())
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openapi::Answer;
    use serde_json::json;

    #[test]
    fn a_mismatch_is_counted_once_and_a_waived_one_not_at_all() {
        let document = Document::new(json!({ "openapi": "3.1.0", "paths": { "/a": { "get": {
            "responses": { "200": {
            "content": { "application/json": { "schema": { "type": "object", "properties": {
                "x": {} } } } } } } } } } }))
        .unwrap();
        let exchange = |host: &str, body: &str| Exchange {
            host: host.into(),
            method: "GET".into(),
            path_and_query: "/a?limit=1".into(),
            content_type: None,
            body: Vec::new(),
            answer: Some(Answer {
                status: 200,
                content_type: Some("application/json".into()),
                body: body.into(),
            }),
        };
        let exchanges = [
            exchange("c", r#"{"y":1}"#),
            exchange("c", r#"{"y":2}"#),
            exchange("elsewhere", "{"),
        ];
        let waiver = |mismatch: &str| Waiver {
            cloud: "c".into(),
            operation: "GET /a".into(),
            mismatch: mismatch.into(),
            source: "docs/clouds/c.md".into(),
            quote: "paged".into(),
        };
        let finding = check(
            &document,
            &["c"],
            &exchanges,
            &[waiver("\"limit\""), waiver("never seen")],
        );
        assert_eq!(
            (
                finding.operations,
                finding.requests,
                finding.answers,
                finding.mismatches
            ),
            (1, 2, 2, 1)
        );
        assert_eq!(
            finding.details,
            BTreeMap::from([("GET /a: answer 200: field .y is not declared".to_owned(), 2)])
        );
        assert_eq!((finding.waived.len(), finding.idle.len()), (1, 1));
    }
}
