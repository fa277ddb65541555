//! Just enough GraphQL: one operation, fields with aliases, arguments and selections. No fragments,
//! no directives.

use serde_json::{Map, Value};

/// An operation.
#[derive(Debug)]
pub(super) struct Document {
    /// `Query` or `Mutation`.
    pub(super) kind: &'static str,
    /// Its root fields.
    pub(super) fields: Vec<Field>,
}

/// A field asked for.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) alias: Option<String>,
    pub(super) name: String,
    arguments: Vec<(String, Argument)>,
    fields: Vec<Field>,
}

#[derive(Debug)]
enum Argument {
    Variable(String),
    Scalar(Value),
    List(Vec<Argument>),
    Object(Vec<(String, Argument)>),
}

impl Document {
    /// Reads an operation.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut reader = Reader {
            tokens: tokens(text)?,
            at: 0,
        };
        let mut kind = "Query";
        if let Some("query" | "mutation") = reader.peek() {
            if reader.next()? == "mutation" {
                kind = "Mutation";
            }
            if reader.peek() != Some("{") && reader.peek() != Some("(") {
                reader.next()?;
            }
            if reader.peek() == Some("(") {
                // The variables' types are the schema's business.
                while reader.next()? != ")" {}
            }
        }
        let fields = reader.selection(0)?;
        Ok(Self { kind, fields })
    }
}

impl Field {
    /// An argument's value, variables filled in; null where it is not given.
    pub(super) fn argument(&self, name: &str, variables: &Value) -> Value {
        self.arguments
            .iter()
            .find(|(given, _)| given == name)
            .map_or(Value::Null, |(_, argument)| argument.value(variables))
    }

    /// A field of its selection.
    pub(super) fn selected(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// What was asked for of a value.
    pub(super) fn project(&self, value: &Value) -> Result<Value, String> {
        match value {
            Value::Array(items) => items.iter().map(|item| self.project(item)).collect(),
            Value::Object(object) if !self.fields.is_empty() => {
                let mut shown = Map::new();
                for field in &self.fields {
                    if field.name == "__typename" && !object.contains_key("__typename") {
                        // An object that is never selected by its type: named after its field.
                        let key = field.alias.clone().unwrap_or_else(|| field.name.clone());
                        shown.insert(key, type_name(&self.name).into());
                        continue;
                    }
                    let held = object.get(&field.name).ok_or_else(|| {
                        format!(
                            "Cannot query field \"{}\" on \"{}\".",
                            field.name, self.name
                        )
                    })?;
                    shown.insert(
                        field.alias.clone().unwrap_or_else(|| field.name.clone()),
                        field.project(held)?,
                    );
                }
                Ok(Value::Object(shown))
            }
            Value::Object(_) => Err(format!(
                "Field \"{}\" must have a selection of subfields.",
                self.name
            )),
            scalar => Ok(scalar.clone()),
        }
    }
}

fn type_name(field: &str) -> String {
    let mut name = field.to_owned();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    name
}

impl Argument {
    fn value(&self, variables: &Value) -> Value {
        match self {
            Self::Variable(name) => variables.get(name).cloned().unwrap_or(Value::Null),
            Self::Scalar(value) => value.clone(),
            Self::List(items) => items.iter().map(|item| item.value(variables)).collect(),
            Self::Object(fields) => Value::Object(
                fields
                    .iter()
                    .map(|(name, field)| (name.clone(), field.value(variables)))
                    .collect(),
            ),
        }
    }
}

struct Reader {
    tokens: Vec<String>,
    at: usize,
}

/// Deeper than any query of ours, shallower than any stack.
const DEEPEST: usize = 16;

impl Reader {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).map(String::as_str)
    }

    fn next(&mut self) -> Result<String, String> {
        let token = self
            .tokens
            .get(self.at)
            .cloned()
            .ok_or("Syntax Error: Unexpected <EOF>.")?;
        self.at += 1;
        Ok(token)
    }

    fn expect(&mut self, wanted: &str) -> Result<(), String> {
        let token = self.next()?;
        if token == wanted {
            Ok(())
        } else {
            Err(format!(
                "Syntax Error: Expected \"{wanted}\", found \"{token}\"."
            ))
        }
    }

    fn take(&mut self, wanted: &str) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn selection(&mut self, depth: usize) -> Result<Vec<Field>, String> {
        if depth > DEEPEST {
            return Err("Query is too deep.".to_owned());
        }
        self.expect("{")?;
        let mut fields = Vec::new();
        while !self.take("}") {
            let mut name = self.name()?;
            let alias = if self.take(":") {
                Some(std::mem::replace(&mut name, self.name()?))
            } else {
                None
            };
            let arguments = if self.take("(") {
                self.pairs(")", depth)?
            } else {
                Vec::new()
            };
            let nested = if self.peek() == Some("{") {
                self.selection(depth + 1)?
            } else {
                Vec::new()
            };
            fields.push(Field {
                alias,
                name,
                arguments,
                fields: nested,
            });
        }
        Ok(fields)
    }

    fn name(&mut self) -> Result<String, String> {
        let token = self.next()?;
        let named = token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if named {
            Ok(token)
        } else {
            Err(format!("Syntax Error: Expected Name, found \"{token}\"."))
        }
    }

    fn pairs(&mut self, end: &str, depth: usize) -> Result<Vec<(String, Argument)>, String> {
        let mut pairs = Vec::new();
        while !self.take(end) {
            let name = self.name()?;
            self.expect(":")?;
            pairs.push((name, self.argument(depth + 1)?));
        }
        Ok(pairs)
    }

    fn argument(&mut self, depth: usize) -> Result<Argument, String> {
        if depth > DEEPEST {
            return Err("Query is too deep.".to_owned());
        }
        let token = self.next()?;
        Ok(match token.as_str() {
            "$" => Argument::Variable(self.name()?),
            "{" => Argument::Object(self.pairs("}", depth)?),
            "[" => {
                let mut items = Vec::new();
                while !self.take("]") {
                    items.push(self.argument(depth + 1)?);
                }
                Argument::List(items)
            }
            // Strings, numbers, booleans and null are JSON; what is left is an enum's word.
            scalar => {
                Argument::Scalar(serde_json::from_str(scalar).unwrap_or_else(|_| scalar.into()))
            }
        })
    }
}

/// Names, numbers, strings and punctuation; commas are white space, `#` begins a comment.
fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = if first.is_whitespace() || first == ',' {
            first.len_utf8()
        } else if first == '#' {
            rest.find('\n').unwrap_or(rest.len())
        } else if first == '"' {
            let mut escaped = false;
            let end = rest.char_indices().skip(1).find(|(_, c)| {
                let ends = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            });
            end.map(|(index, _)| index + 1)
                .ok_or("Syntax Error: Unterminated string.")?
        } else if first.is_ascii_alphanumeric() || first == '_' || first == '-' {
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+')))
                .unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let token = &rest[..len];
        if !(first.is_whitespace() || first == ',' || first == '#') {
            tokens.push(token.to_owned());
        }
        rest = &rest[len..];
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_operation_is_read_with_its_aliases_arguments_and_selections() {
        let text = "mutation Rent($in: I!) { made: rent(input: $in, other: {a: [1, \"x } y\"], b: \
            SECURE}) { id deep { x } } } # end";
        let document = Document::read(text).unwrap();
        let field = &document.fields[0];
        assert_eq!(
            (document.kind, field.alias.as_deref(), field.name.as_str()),
            ("Mutation", Some("made"), "rent")
        );
        assert_eq!(field.argument("input", &json!({ "in": 7 })), 7);
        assert_eq!(
            field.argument("other", &Value::Null),
            json!({ "a": [1, "x } y"], "b": "SECURE" })
        );
        assert_eq!(
            field.project(&json!({ "id": 1, "deep": { "x": 2, "y": 3 } })),
            Ok(json!({ "id": 1, "deep": { "x": 2 } }))
        );
        assert!(
            field
                .project(&json!({ "id": 1 }))
                .unwrap_err()
                .contains("deep")
        );
    }

    #[test]
    fn nonsense_is_an_error_and_never_a_panic() {
        for text in [
            "",
            "{",
            "{ a(",
            "{ a(b: \"c }",
            "query",
            "mutation X(",
            "{ 1 }",
            "}",
            &"{ a ".repeat(10_000),
            "{ a(b: é) }",
        ] {
            assert!(
                Document::read(text).is_err() || text.contains('é'),
                "{text:.20}"
            );
        }
    }
}
