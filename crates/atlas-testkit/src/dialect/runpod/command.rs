//! What a container runs, in the three forms of the official document: `entrypoint` and `cmd` as
//! lists of words, and `args`, the one string that both are stored as.

use serde_json::{Map, Value, json};

use super::problem::Problem;
use crate::dialect::check::Check;
use crate::world::split;

/// The fields of a body that say what a container runs.
pub(super) const FIELDS: [&str; 3] = ["args", "entrypoint", "cmd"];

/// A command, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    args: String,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
}

impl Command {
    /// Reads the stored form: the JSON text of both lists, or a bare string, which is CMD.
    pub(super) fn stored(args: &str) -> Self {
        let list = |lists: &Map<String, Value>, name: &str| match lists.get(name) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::Array(words)) => words
                .iter()
                .map(|word| word.as_str().map(str::to_owned))
                .collect(),
            Some(_) => None,
        };
        let lists = serde_json::from_str::<Map<String, Value>>(args)
            .ok()
            .and_then(|lists| Some((list(&lists, "entrypoint")?, list(&lists, "cmd")?)));
        let (entrypoint, cmd) = lists.unwrap_or_else(|| (Vec::new(), split(args)));
        Self {
            args: args.to_owned(),
            entrypoint,
            cmd,
        }
    }

    /// Two lists; what neither has is not stored.
    fn of_lists(entrypoint: Vec<String>, cmd: Vec<String>) -> Self {
        let mut lists = Map::new();
        for (name, words) in [("entrypoint", &entrypoint), ("cmd", &cmd)] {
            if !words.is_empty() {
                lists.insert(name.to_owned(), words.clone().into());
            }
        }
        let args = if lists.is_empty() {
            String::new()
        } else {
            Value::Object(lists).to_string()
        };
        Self {
            args,
            entrypoint,
            cmd,
        }
    }

    /// What runs, where the image has no ENTRYPOINT of its own.
    pub(super) fn words(&self) -> Vec<String> {
        [&self.entrypoint[..], &self.cmd[..]].concat()
    }

    /// Puts all three forms into an answer, or into what is kept.
    pub(super) fn put(&self, into: &mut Value) {
        into["args"] = self.args.clone().into();
        into["entrypoint"] = self.entrypoint.clone().into();
        into["cmd"] = self.cmd.clone().into();
    }
}

/// What a body says of the command: each form, where it was sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    args: Option<String>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
}

impl Sent {
    pub(super) fn read(check: &mut Check, body: &Map<String, Value>) -> Self {
        Self {
            args: check
                .string("$.args", body.get("args"), 0)
                .map(str::to_owned),
            entrypoint: check.strings("$.entrypoint", body.get("entrypoint")),
            cmd: check.strings("$.cmd", body.get("cmd")),
        }
    }

    /// The command after this body, where it says anything about it. A list that was not sent stays
    /// as it `was`.
    pub(super) fn over(&self, was: &Command) -> Result<Option<Command>, Problem> {
        let lists = self.entrypoint.is_some() || self.cmd.is_some();
        let Some(args) = &self.args else {
            return Ok(lists.then(|| {
                Command::of_lists(
                    self.entrypoint
                        .clone()
                        .unwrap_or_else(|| was.entrypoint.clone()),
                    self.cmd.clone().unwrap_or_else(|| was.cmd.clone()),
                )
            }));
        };
        let stored = Command::stored(args);
        let same = |sent: &Option<Vec<String>>, held: &Vec<String>| {
            sent.as_ref().is_none_or(|sent| sent == held)
        };
        if same(&self.entrypoint, &stored.entrypoint) && same(&self.cmd, &stored.cmd) {
            Ok(Some(stored))
        } else {
            Err(Problem::bad(
                "args describes another command than entrypoint and cmd",
            ))
        }
    }
}

/// Replaces what a checked body says of the command by all three forms of what it comes to.
pub(super) fn settle(body: &mut Map<String, Value>, was: &Value) -> Result<(), Problem> {
    let sent = Sent::read(&mut Check::default(), body);
    let held = Command::stored(was["args"].as_str().unwrap_or_default());
    if let Some(command) = sent.over(&held)? {
        let mut forms = json!({});
        command.put(&mut forms);
        body.extend(forms.as_object().cloned().unwrap_or_default());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_a_bare_cmd_or_the_json_of_both_lists() {
        let words = |command: &Command| (command.entrypoint.join("|"), command.cmd.join("|"));
        for (args, entrypoint, cmd) in [
            ("", "", ""),
            ("--model 'a b'", "", "--model|a b"),
            (
                r#"{"entrypoint":["sh","-c"],"cmd":["x y"]}"#,
                "sh|-c",
                "x y",
            ),
            (r#"{"cmd":["x"]}"#, "", "x"),
            (r#"{"cmd":7}"#, "", r"{cmd:7}"),
        ] {
            let read = Command::stored(args);
            assert_eq!(
                words(&read),
                (entrypoint.to_owned(), cmd.to_owned()),
                "{args}"
            );
            assert_eq!(read.args, args);
        }
        let lists = Command::of_lists(vec!["sh".to_owned()], Vec::new());
        assert_eq!(Command::stored(&lists.args), lists);
    }

    #[test]
    fn both_forms_may_be_sent_only_when_they_say_the_same() {
        let over = |body: Value| {
            let body = body.as_object().cloned().unwrap_or_default();
            Sent::read(&mut Check::default(), &body).over(&Command::stored("old"))
        };
        let same = json!({ "args": "a b", "cmd": ["a", "b"], "entrypoint": [] });
        assert_eq!(over(same).unwrap(), Some(Command::stored("a b")));
        assert!(over(json!({ "args": "a b", "cmd": ["a"] })).is_err());
        assert_eq!(over(json!({ "disk": 1 })).unwrap(), None);
        let entrypoint = over(json!({ "entrypoint": ["sh"] })).unwrap().unwrap();
        assert_eq!(entrypoint.words(), ["sh", "old"], "absent leaves");
        assert_eq!(
            over(json!({ "cmd": [] })).unwrap(),
            Some(Command::default())
        );
    }
}
