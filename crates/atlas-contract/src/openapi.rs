//! A cloud's API document: which operations there are, and what may be sent and answered.
//!
//! OpenAPI 3.1 schemas are JSON Schema 2020-12; those of 3.0 are brought into its shape
//! (`nullable`). References are resolved inside the document only. Beyond the schemas, a field that
//! an object's schema does not name is reported, though JSON Schema would let it pass: a misspelt
//! field is otherwise never noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// A cloud's API document, ready to check against.
#[derive(Debug)]
pub struct Document {
    root: Value,
    operations: Vec<Operation>,
    base: String,
}

/// One operation: a method on a path.
#[derive(Debug)]
struct Operation {
    name: String,
    method: String,
    segments: Vec<Segment>,
    query: BTreeMap<String, Option<Validator>>,
    required_query: BTreeSet<String>,
    body: Option<Body>,
    body_required: bool,
    answers: BTreeMap<String, Body>,
    example: Option<Answer>,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Fixed(String),
    Variable,
}

/// A body by content type; `None` where the type has no schema.
type Body = BTreeMap<String, Option<Schema>>;

#[derive(Debug)]
struct Schema {
    validator: Validator,
    value: Value,
}

/// What was sent and what came back, as it was on the wire.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Where it was sent.
    pub host: String,
    /// `GET`, ...
    pub method: String,
    /// Path and query.
    pub path_and_query: String,
    /// The request's content type, without parameters.
    pub content_type: Option<String>,
    /// The request's body.
    pub body: Vec<u8>,
    /// What came back, if anything did.
    pub answer: Option<Answer>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The content type, without parameters.
    pub content_type: Option<String>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// What an exchange came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// `GET /v2/pods/{id}`, where the document has such an operation.
    pub operation: Option<String>,
    /// What the document does not allow.
    pub mismatches: Vec<String>,
}

impl Document {
    /// Reads a document: YAML by the end of its name, else JSON.
    ///
    /// # Errors
    /// When it is not readable, not an OpenAPI 3 document, or has a schema that does not compile.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let yaml = path
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml");
        let root = if yaml {
            serde_yaml::from_str(&text).map_err(|error| error.to_string())
        } else {
            serde_json::from_str(&text).map_err(|error| error.to_string())
        };
        let root = root.map_err(|error| format!("{}: {error}", path.display()))?;
        Self::new(root).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Takes a parsed document.
    ///
    /// # Errors
    /// When it is not an OpenAPI 3 document, or has a schema that does not compile.
    pub fn new(mut root: Value) -> Result<Self, String> {
        let version = root["openapi"].as_str().unwrap_or_default().to_owned();
        if !version.starts_with("3.") {
            return Err(format!("not an OpenAPI 3 document: {version:?}"));
        }
        if version.starts_with("3.0") {
            nullable(&mut root);
        }
        let server = root["servers"][0]["url"].as_str().unwrap_or_default();
        let base = server
            .split_once("://")
            .and_then(|(_, rest)| rest.split_once('/'))
            .map_or("", |(_, path)| path);
        let base = base.trim_matches('/').to_owned();
        let mut document = Self {
            operations: Vec::new(),
            base,
            root,
        };
        let paths = document.root["paths"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        for (path, item) in &paths {
            for method in ["get", "put", "post", "delete", "patch", "head", "options"] {
                if let Some(operation) = item.get(method) {
                    let built = document.operation(path, method, item, operation)?;
                    document.operations.push(built);
                }
            }
        }
        // A fixed segment is a better match than a variable one.
        document.operations.sort_by_key(|operation| {
            operation
                .segments
                .iter()
                .filter(|segment| **segment == Segment::Variable)
                .count()
        });
        Ok(document)
    }

    /// How many operations it has.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.operations.len()
    }

    /// The operations that none of these names is.
    #[must_use]
    pub fn uncovered(&self, seen: &BTreeSet<String>) -> Vec<&str> {
        let mut names: Vec<_> = self
            .operations
            .iter()
            .map(|op| op.name.as_str())
            .filter(|name| !seen.contains(*name))
            .collect();
        names.sort_unstable();
        names
    }

    /// The answer of success that the document shows for an operation.
    #[must_use]
    pub fn example(&self, method: &str, path: &str) -> Option<&Answer> {
        self.find(method, path)?.example.as_ref()
    }

    /// Checks what was sent.
    #[must_use]
    pub fn check_request(&self, exchange: &Exchange) -> Verdict {
        let mut mismatches = Vec::new();
        let (path, query) = exchange
            .path_and_query
            .split_once('?')
            .unwrap_or((&exchange.path_and_query, ""));
        let Some(operation) = self.find(&exchange.method, path) else {
            return Verdict {
                operation: None,
                mismatches: vec![format!("request: no operation {} {path}", exchange.method)],
            };
        };
        let mut named = BTreeSet::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name), decode(value));
            match operation.query.get(&name) {
                None => {
                    mismatches.push(format!("request: query parameter {name:?} is not declared"))
                }
                Some(Some(schema)) if !accepts(schema, &value) => {
                    mismatches.push(format!(
                        "request: query parameter {name:?} does not allow {value:?}"
                    ));
                }
                Some(_) => {}
            }
            named.insert(name);
        }
        for missing in operation.required_query.difference(&named) {
            mismatches.push(format!("request: query parameter {missing:?} is missing"));
        }
        match &operation.body {
            None if exchange.body.is_empty() => {}
            None => mismatches.push("request: a body where none is declared".to_owned()),
            Some(_) if exchange.body.is_empty() && !operation.body_required => {}
            Some(_) if exchange.body.is_empty() => {
                mismatches.push("request: the body is missing".to_owned())
            }
            Some(declared) => self.check_body(
                "request",
                declared,
                exchange.content_type.as_deref(),
                &exchange.body,
                &mut mismatches,
            ),
        }
        Verdict {
            operation: Some(operation.name.clone()),
            mismatches,
        }
    }

    /// Checks what was answered.
    #[must_use]
    pub fn check_answer(&self, exchange: &Exchange, answer: &Answer) -> Verdict {
        let path = exchange
            .path_and_query
            .split('?')
            .next()
            .unwrap_or_default();
        let Some(operation) = self.find(&exchange.method, path) else {
            return Verdict {
                operation: None,
                mismatches: Vec::new(),
            };
        };
        let mut mismatches = Vec::new();
        let wide = format!("{}XX", answer.status / 100);
        let declared = [answer.status.to_string(), wide, "default".to_owned()]
            .iter()
            .find_map(|status| operation.answers.get(status));
        match declared {
            None => mismatches.push(format!("answer {}: status is not declared", answer.status)),
            Some(body) if body.is_empty() && answer.body.is_empty() => {}
            Some(body) if body.is_empty() => mismatches.push(format!(
                "answer {}: a body where none is declared",
                answer.status
            )),
            Some(body) => {
                let place = format!("answer {}", answer.status);
                self.check_body(
                    &place,
                    body,
                    answer.content_type.as_deref(),
                    &answer.body,
                    &mut mismatches,
                );
            }
        }
        Verdict {
            operation: Some(operation.name.clone()),
            mismatches,
        }
    }

    fn check_body(
        &self,
        place: &str,
        declared: &Body,
        content_type: Option<&str>,
        body: &[u8],
        mismatches: &mut Vec<String>,
    ) {
        let content_type = content_type.unwrap_or("none");
        let Some(schema) = declared.get(content_type) else {
            mismatches.push(format!(
                "{place}: content type {content_type} is not declared"
            ));
            return;
        };
        let Some(schema) = schema else { return };
        if !is_json(content_type) {
            return;
        }
        let value: Value = match serde_json::from_slice(body) {
            Ok(value) => value,
            Err(error) => {
                mismatches.push(format!("{place}: not JSON: {error}"));
                return;
            }
        };
        for error in schema.validator.iter_errors(&value) {
            mismatches.push(format!(
                "{place}: at {:?}: {error}",
                error.instance_path().to_string()
            ));
        }
        let mut unknown = BTreeSet::new();
        self.undeclared(&[&schema.value], &value, "", &mut unknown);
        mismatches.extend(
            unknown
                .into_iter()
                .map(|field| format!("{place}: field {field} is not declared")),
        );
    }

    fn find(&self, method: &str, path: &str) -> Option<&Operation> {
        let path = path.trim_matches('/');
        let path = path
            .strip_prefix(&self.base)
            .map_or(path, |rest| rest.trim_start_matches('/'));
        let given: Vec<&str> = path.split('/').collect();
        self.operations.iter().find(|operation| {
            operation.method.eq_ignore_ascii_case(method)
                && operation.segments.len() == given.len()
                && operation
                    .segments
                    .iter()
                    .zip(&given)
                    .all(|(segment, given)| match segment {
                        Segment::Fixed(text) => text == given,
                        Segment::Variable => !given.is_empty(),
                    })
        })
    }

    fn operation(
        &self,
        path: &str,
        method: &str,
        item: &Value,
        operation: &Value,
    ) -> Result<Operation, String> {
        let name = format!("{} {path}", method.to_uppercase());
        let context = |error: String| format!("{name}: {error}");
        let parameters = [&operation["parameters"], &item["parameters"]]
            .into_iter()
            .filter_map(Value::as_array)
            .flatten();
        let mut query = BTreeMap::new();
        let mut required_query = BTreeSet::new();
        for parameter in parameters.map(|parameter| self.resolve(parameter)) {
            if parameter["in"] == "query"
                && let Some(parameter_name) = parameter["name"].as_str()
            {
                let schema = parameter
                    .get("schema")
                    .map(|schema| self.compile(schema))
                    .transpose()
                    .map_err(context)?;
                query.insert(parameter_name.to_owned(), schema);
                if parameter["required"] == true {
                    required_query.insert(parameter_name.to_owned());
                }
            }
        }
        let request = operation.get("requestBody").map(|body| self.resolve(body));
        let body = request
            .map(|body| self.body(body))
            .transpose()
            .map_err(context)?;
        let mut answers = BTreeMap::new();
        for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
            answers.insert(
                status.to_uppercase().replace("DEFAULT", "default"),
                self.body(self.resolve(answer)).map_err(context)?,
            );
        }
        let segments = path
            .trim_matches('/')
            .split('/')
            .map(|segment| {
                if segment.starts_with('{') {
                    Segment::Variable
                } else {
                    Segment::Fixed(segment.to_owned())
                }
            })
            .collect();
        let example = self.shown(operation);
        let body_required = request.is_some_and(|body| body["required"] == true);
        Ok(Operation {
            name: name.clone(),
            method: method.to_owned(),
            segments,
            query,
            required_query,
            body,
            body_required,
            answers,
            example,
        })
    }

    fn body(&self, holder: &Value) -> Result<Body, String> {
        let mut body = Body::new();
        for (content_type, media) in holder["content"].as_object().into_iter().flatten() {
            let schema = match media.get("schema") {
                Some(value) if is_json(content_type) => Some(Schema {
                    validator: self.compile(value)?,
                    value: value.clone(),
                }),
                _ => None,
            };
            body.insert(
                content_type
                    .split(';')
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_owned(),
                schema,
            );
        }
        Ok(body)
    }

    fn compile(&self, schema: &Value) -> Result<Validator, String> {
        // All references of such a document begin with `#/components/`, so the components ride
        // along with each schema.
        let whole = json!({ "allOf": [schema], "components": self.root["components"] });
        jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .should_validate_formats(true)
            .with_format("uri", is_uri)
            .build(&whole)
            .map_err(|error| error.to_string())
    }

    pub(crate) fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let mut value = value;
        // A chain of references longer than this is a circle.
        for _ in 0..32 {
            let Some(pointer) = value
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|text| text.strip_prefix('#'))
            else {
                return value;
            };
            let Some(target) = self.root.pointer(pointer) else {
                return value;
            };
            value = target;
        }
        value
    }

    /// Collects the fields of objects that no schema which applies to them names, where no schema
    /// says that it takes others.
    fn undeclared(
        &self,
        schemas: &[&Value],
        value: &Value,
        path: &str,
        found: &mut BTreeSet<String>,
    ) {
        let mut flat = Vec::new();
        for schema in schemas {
            self.flatten(schema, &mut flat, 0);
        }
        match value {
            Value::Object(fields) => {
                let open = flat.iter().any(|schema| {
                    schema
                        .get("additionalProperties")
                        .is_some_and(|more| more != &Value::Bool(false))
                        || schema.get("patternProperties").is_some()
                });
                let closed = flat.iter().any(|schema| schema.get("properties").is_some());
                for (name, inner) in fields {
                    let place = format!("{path}.{name}");
                    let mut named: Vec<&Value> = flat
                        .iter()
                        .filter_map(|schema| schema["properties"].get(name))
                        .collect();
                    if named.is_empty() {
                        named.extend(
                            flat.iter()
                                .filter_map(|schema| schema.get("additionalProperties"))
                                .filter(|more| more.is_object()),
                        );
                        if named.is_empty() && closed && !open {
                            found.insert(place);
                            continue;
                        }
                    }
                    self.undeclared(&named, inner, &place, found);
                }
            }
            Value::Array(items) => {
                let inner: Vec<&Value> = flat
                    .iter()
                    .filter_map(|schema| schema.get("items"))
                    .collect();
                for item in items {
                    self.undeclared(&inner, item, &format!("{path}[]"), found);
                }
            }
            _ => {}
        }
    }

    fn flatten<'a>(&'a self, schema: &'a Value, flat: &mut Vec<&'a Value>, depth: usize) {
        if depth > 16 {
            return;
        }
        flat.push(schema);
        if schema.get("$ref").is_some() {
            self.flatten(self.resolve(schema), flat, depth + 1);
        }
        for joined in ["allOf", "anyOf", "oneOf"] {
            for part in schema[joined].as_array().into_iter().flatten() {
                self.flatten(part, flat, depth + 1);
            }
        }
    }
}

/// A URI, or a template of one: RunPod's document shows `…/status/{job_id}` as the example of a
/// field of this format.
fn is_uri(text: &str) -> bool {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let plain = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    plain
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"<>\"\\^`|".contains(&b))
}

fn is_json(content_type: &str) -> bool {
    content_type.ends_with("json")
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " "))
        .decode_utf8_lossy()
        .into_owned()
}

/// A query parameter has no type of its own: any reading of its text that the schema takes will do,
/// a list's items one by one.
fn accepts(schema: &Validator, text: &str) -> bool {
    let readings = |text: &str| {
        let mut readings = vec![Value::from(text)];
        readings.extend(
            serde_json::from_str::<Value>(text)
                .ok()
                .filter(|value| !value.is_object() && !value.is_array()),
        );
        readings
    };
    let list: Vec<Value> = text.split(',').map(Value::from).collect();
    readings(text)
        .iter()
        .any(|reading| schema.is_valid(reading))
        || schema.is_valid(&Value::from(list))
}

/// OpenAPI 3.0's `nullable: true` as JSON Schema says it, and its boolean `exclusive*` left out.
fn nullable(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(nullable),
        Value::Object(fields) => {
            fields.values_mut().for_each(nullable);
            for bound in ["exclusiveMinimum", "exclusiveMaximum"] {
                if fields.get(bound).is_some_and(Value::is_boolean) {
                    fields.remove(bound);
                }
            }
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("nullable");
                let schema = std::mem::take(fields);
                *fields =
                    Map::from_iter([("anyOf".to_owned(), json!([schema, { "type": "null" }]))]);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        Document::new(json!({
            "openapi": "3.1.0",
            "servers": [{ "url": "https://api.example.test" }],
            "paths": {
                "/v2/things": {
                    "get": {
                        "parameters": [{ "name": "size", "in": "query", "schema": {
                            "type": "integer", "minimum": 1 } }],
                        "responses": { "200": { "content": { "application/json": { "schema": {
                            "$ref": "#/components/schemas/Things" } } } } }
                    },
                    "post": {
                        "requestBody": { "required": true, "content": { "application/json": {
                            "schema": { "$ref": "#/components/schemas/Thing" } } } },
                        "responses": { "204": {}, "default": { "content": {
                            "application/problem+json": { "schema": { "type": "object" } } } } }
                    }
                },
                "/v2/things/{id}": { "delete": { "responses": { "204": {} } } },
                "/v2/things/special": { "delete": { "responses": { "200": {} } } }
            },
            "components": { "schemas": {
                "Thing": { "type": "object", "required": ["name"], "properties": { "name": {
                    "type": "string" }, "tags": { "type": "object", "additionalProperties": {
                        "type": "string" } } } },
                "Things": { "type": "object", "properties": { "things": { "type": "array",
                    "items": { "$ref": "#/components/schemas/Thing" } } } }
            } }
        }))
        .unwrap()
    }

    fn sent(method: &str, path: &str, body: &str) -> Exchange {
        let content_type = (!body.is_empty()).then(|| "application/json".to_owned());
        Exchange {
            host: "h".into(),
            method: method.into(),
            path_and_query: path.into(),
            content_type,
            body: body.into(),
            answer: None,
        }
    }

    fn answered(status: u16, content_type: &str, body: &str) -> Answer {
        Answer {
            status,
            content_type: (!content_type.is_empty()).then(|| content_type.into()),
            body: body.into(),
        }
    }

    #[test]
    fn what_the_document_allows_passes() {
        let document = document();
        for exchange in [
            sent("GET", "/v2/things?size=3", ""),
            sent("POST", "/v2/things", r#"{"name":"a","tags":{"x":"y"}}"#),
        ] {
            assert_eq!(document.check_request(&exchange).mismatches, [""; 0]);
        }
        let list = answered(200, "application/json", r#"{"things":[{"name":"a"}]}"#);
        assert_eq!(
            document
                .check_answer(&sent("GET", "/v2/things", ""), &list)
                .mismatches,
            [""; 0]
        );
        let post = sent("POST", "/v2/things", r#"{"name":"a"}"#);
        assert_eq!(
            document
                .check_answer(&post, &answered(204, "", ""))
                .mismatches,
            [""; 0]
        );
        assert_eq!(
            document
                .check_answer(&post, &answered(500, "application/problem+json", "{}"))
                .mismatches,
            [""; 0]
        );
    }

    #[test]
    fn everything_else_is_a_mismatch() {
        let document = document();
        for (exchange, wanted) in [
            (sent("GET", "/v2/nothing", ""), "no operation"),
            (sent("PUT", "/v2/things", ""), "no operation"),
            (
                sent("GET", "/v2/things?cursor=x", ""),
                "\"cursor\" is not declared",
            ),
            (sent("GET", "/v2/things?size=0", ""), "does not allow"),
            (
                sent("GET", "/v2/things", "{}"),
                "a body where none is declared",
            ),
            (sent("POST", "/v2/things", ""), "the body is missing"),
            (
                sent("POST", "/v2/things", "{}"),
                "\"name\" is a required property",
            ),
            (sent("POST", "/v2/things", r#"{"name":1}"#), "not of type"),
            (
                sent("POST", "/v2/things", r#"{"name":"a","nmae":1}"#),
                ".nmae is not declared",
            ),
            (sent("POST", "/v2/things", "{"), "not JSON"),
        ] {
            let verdict = document.check_request(&exchange);
            assert!(
                verdict.mismatches.iter().any(|text| text.contains(wanted)),
                "{exchange:?}: {verdict:?}"
            );
        }
        let list = sent("GET", "/v2/things", "");
        for (answer, wanted) in [
            (
                answered(404, "application/json", "{}"),
                "status is not declared",
            ),
            (
                answered(200, "text/html", "<p>"),
                "content type text/html is not declared",
            ),
            (
                answered(
                    200,
                    "application/json",
                    r#"{"things":[{"name":"a","x":1}]}"#,
                ),
                ".things[].x is not declared",
            ),
            (
                answered(200, "application/json", r#"{"things":{}}"#),
                "not of type",
            ),
        ] {
            let verdict = document.check_answer(&list, &answer);
            assert!(
                verdict.mismatches.iter().any(|text| text.contains(wanted)),
                "{answer:?}: {verdict:?}"
            );
        }
    }

    #[test]
    fn a_fixed_segment_wins_over_a_variable_one() {
        let document = document();
        assert_eq!(
            document
                .check_request(&sent("DELETE", "/v2/things/special", ""))
                .operation
                .unwrap(),
            "DELETE /v2/things/special"
        );
        assert_eq!(
            document
                .check_request(&sent("DELETE", "/v2/things/x1", ""))
                .operation
                .unwrap(),
            "DELETE /v2/things/{id}"
        );
        let seen = BTreeSet::from(["DELETE /v2/things/{id}".to_owned()]);
        assert_eq!(
            document.uncovered(&seen),
            [
                "DELETE /v2/things/special",
                "GET /v2/things",
                "POST /v2/things"
            ]
        );
    }

    #[test]
    fn a_uri_may_be_a_template_of_one() {
        for good in ["https://api.runpod.ai/v2/x/status/{job_id}", "urn:x:1"] {
            assert!(is_uri(good), "{good}");
        }
        for bad in ["", "/v2/x", "no scheme", "https://a b", "1x://a"] {
            assert!(!is_uri(bad), "{bad}");
        }
    }

    #[test]
    fn nullable_of_openapi_3_0_is_understood() {
        let document = Document::new(json!({
            "openapi": "3.0.3",
            "servers": [{ "url": "https://api.example.test/v1" }],
            "paths": { "/a": { "get": { "responses": { "200": { "content": { "application/json": {
                "schema": {
                "type": "object", "properties": { "x": { "type": "string",
                    "nullable": true } } } } } } } } } }
        }))
        .unwrap();
        let get = sent("GET", "/v1/a", "");
        assert_eq!(
            document
                .check_answer(&get, &answered(200, "application/json", r#"{"x":null}"#))
                .mismatches,
            [""; 0]
        );
        assert_ne!(
            document
                .check_answer(&get, &answered(200, "application/json", r#"{"x":1}"#))
                .mismatches,
            [""; 0]
        );
    }
}
