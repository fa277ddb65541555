//! A cloud that answers what its document shows: the examples of each operation, or an instance of
//! its schema where it shows none.
//!
//! What a provider sends there is held against the document as anywhere; that it understands the
//! answers shows that it reads what the document describes, not only what our own dialect says.

use std::convert::Infallible;
use std::sync::Arc;

use atlas_http::{Body, Transport};
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use serde_json::{Map, Value};

use crate::openapi::{Answer, Document};

/// The way to a cloud that answers this document's examples; 404 for what the document does not
/// have.
#[must_use]
pub fn transport(document: Arc<Document>) -> Transport {
    Transport::new(tower::service_fn(move |request: Request<Body>| {
        let answer = document
            .example(request.method().as_str(), request.uri().path())
            .cloned();
        let answer = answer.map(|answer| ended(answer, request.uri().query().unwrap_or_default()));
        async move { Ok::<_, Infallible>(answer.map_or_else(missing, response)) }
    }))
}

/// A page that was asked for by the cursor it shows is the last: a list that leads back to itself
/// is no list.
fn ended(answer: Answer, query: &str) -> Answer {
    let asked: Vec<&str> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(_, value)| value)
        .collect();
    match serde_json::from_slice::<Map<String, Value>>(&answer.body) {
        Ok(mut page)
            if page
                .values()
                .any(|value| value.as_str().is_some_and(|value| asked.contains(&value))) =>
        {
            for value in page
                .values_mut()
                .filter(|value| value.as_str().is_some_and(|value| asked.contains(&value)))
            {
                *value = Value::from("");
            }
            Answer {
                body: Value::Object(page).to_string().into(),
                ..answer
            }
        }
        _ => answer,
    }
}

fn missing() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

fn response(answer: Answer) -> Response<Body> {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    if let Some(kind) = answer.content_type.and_then(|kind| kind.parse().ok()) {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

impl Document {
    /// The answer of success that an operation's description shows.
    pub(crate) fn shown(&self, operation: &Value) -> Option<Answer> {
        let responses = operation["responses"].as_object()?;
        let (status, answer) = responses
            .iter()
            .find(|(status, _)| status.starts_with('2'))?;
        let status = status.parse().unwrap_or(200);
        let Some((kind, media)) = self.resolve(answer)["content"]
            .as_object()
            .and_then(|content| content.iter().next())
        else {
            return Some(Answer {
                status,
                content_type: None,
                body: Vec::new(),
            });
        };
        let named = media["examples"]
            .as_object()
            .and_then(|examples| examples.values().next())
            .map(|example| self.resolve(example));
        let value = media
            .get("example")
            .or_else(|| named.and_then(|example| example.get("value")))
            .cloned();
        let value = value.unwrap_or_else(|| self.instance(&media["schema"], 0));
        let body = if let (false, Some(text)) = (kind.ends_with("json"), value.as_str()) {
            text.to_owned()
        } else {
            value.to_string()
        };
        Some(Answer {
            status,
            content_type: Some(kind.clone()),
            body: body.into(),
        })
    }

    /// A value that a schema allows, as rich as it can be.
    fn instance(&self, schema: &Value, depth: usize) -> Value {
        let schema = self.resolve(schema);
        let shown = [
            schema.get("example"),
            schema["examples"].get(0),
            schema.get("const"),
            schema.get("default"),
            schema["enum"].get(0),
        ];
        if let Some(shown) = shown.into_iter().flatten().find(|value| !value.is_null()) {
            return shown.clone();
        }
        if depth > 12 {
            return Value::Null;
        }
        let inner = |schema: &Value| self.instance(schema, depth + 1);
        for choice in ["oneOf", "anyOf"] {
            if let Some(first) = schema[choice]
                .as_array()
                .and_then(|choices| choices.iter().find(|choice| choice["type"] != "null"))
            {
                return inner(first);
            }
        }
        let mut fields = Map::new();
        for part in schema["allOf"].as_array().into_iter().flatten() {
            match inner(part) {
                Value::Object(part) => fields.extend(part),
                other if fields.is_empty() && schema.get("properties").is_none() => return other,
                _ => {}
            }
        }
        fields.extend(
            schema["properties"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, schema)| (name.clone(), inner(schema))),
        );
        let kinds = schema["type"].as_array().map_or(&schema["type"], |kinds| {
            kinds
                .iter()
                .find(|kind| *kind != "null")
                .unwrap_or(&kinds[0])
        });
        match kinds.as_str() {
            Some("array") => Value::Array(vec![inner(&schema["items"])]),
            Some("string") if schema["format"] == "date-time" => {
                Value::from("2026-09-03T10:15:22.607Z")
            }
            Some("string") => Value::from("text"),
            Some("integer" | "number") => schema
                .get("minimum")
                .cloned()
                .unwrap_or_else(|| Value::from(1)),
            Some("boolean") => Value::from(false),
            _ => Value::Object(fields),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_is_the_documents_example_or_an_instance_of_its_schema() {
        let answer = |content: Value| {
            json!({ "get": { "responses": { "404": {}, "200": {
            "content": content } } } })
        };
        let document = Document::new(json!({
            "openapi": "3.1.0",
            "paths": {
                "/shown": answer(json!({ "application/json": { "examples": { "a": { "value": {
                    "x": 1 } } }, "schema": {} } })),
                "/made": answer(json!({ "application/json": { "schema": {
                    "$ref": "#/components/schemas/Made" } } })),
                "/stream": answer(json!({ "text/event-stream": { "schema": { "type": "string" },
                    "example": "data: x\n\n" } })),
                "/gone": { "delete": { "responses": { "204": {} } } }
            },
            "components": { "schemas": { "Made": { "allOf": [
                { "type": "object", "properties": { "id": { "type": "string",
                    "examples": ["a1"] } } },
                { "type": "object", "properties": {
                    "at": { "type": ["string", "null"], "format": "date-time" },
                    "kind": { "enum": ["FIRST", "SECOND"] },
                    "list": { "type": "array", "items": { "type": "integer", "minimum": 3 } }
                } }
            ] } } }
        }))
        .unwrap();
        let body = |path: &str| {
            serde_json::from_slice::<Value>(&document.example("GET", path).unwrap().body).unwrap()
        };
        assert_eq!(body("/shown"), json!({ "x": 1 }));
        assert_eq!(
            body("/made"),
            json!({ "id": "a1", "at": "2026-09-03T10:15:22.607Z", "kind": "FIRST", "list": [3] })
        );
        assert_eq!(
            document.example("GET", "/stream").unwrap().body,
            b"data: x\n\n"
        );
        assert_eq!(document.example("DELETE", "/gone").unwrap().status, 204);
        assert!(document.example("GET", "/nothing").is_none());
        let page = || Answer {
            status: 200,
            content_type: None,
            body: br#"{"next":"text","rows":["text"]}"#.to_vec(),
        };
        let last =
            |query: &str| serde_json::from_slice::<Value>(&ended(page(), query).body).unwrap();
        assert_eq!(last("limit=9"), json!({ "next": "text", "rows": ["text"] }));
        assert_eq!(
            last("limit=9&cursor=text"),
            json!({ "next": "", "rows": ["text"] })
        );
    }
}
