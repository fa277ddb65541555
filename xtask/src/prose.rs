//! Keeps the language of code and documents plain: phrases that a reader has to read twice, doc
//! comments of one word, and citations of documents that are not in the repository. CONTRIBUTING.md
//! gives the reasons.

use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::steps::Failed;

/// Phrases that are archaic, inverted or riddles, each with what to write instead.
const PHRASES: &[(&str, &str)] = &[
    ("is none of", "say what it is: \"is not one of ...\""),
    ("are none of", "say what they are: \"are not among ...\""),
    ("so long as", "\"as long as\" or \"while\""),
    ("anew", "\"again\""),
    (
        "whoever",
        "name the actor: the caller, the process, the client",
    ),
    ("as told", "name who decides, or drop it"),
    ("of meanwhile", "\"in the meantime\", or name the interval"),
    ("how-manieth", "\"number, starting at 1\""),
    (
        "knows nothing of",
        "code knows nothing; say what it does not use or check",
    ),
    ("it lives on", "\"it is still running\""),
    ("is told of", "\"receives\", \"is notified of\""),
];
/// Documents that a reader of the repository does not have.
const FOREIGN: &[&str] = &[
    concat!("DESIGN", " §"),
    concat!("NEXT", " §"),
    concat!("the mis", "sion"),
];

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// Reads every tracked source file and document.
pub(crate) fn check() -> Result<(), Failed> {
    let listed = Command::new("git")
        .args(["ls-files", "*.rs", "*.md"])
        .output()
        .map_err(|error| {
            eprintln!("prose: git did not list the files: {error}");
            Failed(1)
        })?;
    let mut count = 0;
    // This file holds the phrases, and the changelog the history of names.
    let own = [file!(), "CHANGELOG.md"];
    let files = String::from_utf8_lossy(&listed.stdout).into_owned();
    for file in files.lines().filter(|file| !own.contains(file)) {
        let text = std::fs::read_to_string(Path::new(file)).map_err(|error| {
            eprintln!("prose: {file} cannot be read: {error}");
            Failed(1)
        })?;
        for finding in findings(&text, file.ends_with(".rs")) {
            eprintln!("{file}:{finding}");
            count += 1;
        }
    }
    if files.is_empty() {
        eprintln!("prose: git lists no file, so nothing was checked");
        return Err(Failed(1));
    }
    if count == 0 { Ok(()) } else { Err(Failed(1)) }
}

fn findings(text: &str, is_code: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let mut report = |what: String| {
            found.push(Finding {
                line: index + 1,
                what,
            });
        };
        let prose = if is_code { comment(line) } else { Some(*line) };
        if let Some(prose) = prose {
            let lower = prose.to_lowercase();
            for (phrase, instead) in PHRASES {
                if has_phrase(&lower, phrase) {
                    report(format!("\"{phrase}\": {instead}"));
                }
            }
        }
        for name in FOREIGN.iter().filter(|name| line.contains(**name)) {
            report(format!("\"{name}\" is not in the repository; cite docs/"));
        }
        if is_code && is_one_word_doc(&lines, index) {
            report("a doc comment of one word; write a sentence".to_owned());
        }
    }
    found
}

/// The text of a line that is a comment.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start();
    ["///", "//!", "//"]
        .iter()
        .find_map(|mark| text.strip_prefix(mark))
}

/// The text of a line of documentation.
fn doc(line: &str) -> Option<&str> {
    let text = line.trim();
    let doc = text
        .strip_prefix("///")
        .or_else(|| text.strip_prefix("//!"))?;
    Some(doc.trim())
}

/// A whole doc comment that is one word, or one word after `Its` or `With`: `/// Which.`
fn is_one_word_doc(lines: &[&str], index: usize) -> bool {
    let Some(text) = doc(lines[index]) else {
        return false;
    };
    let is_doc = |at: Option<usize>| {
        at.and_then(|at| lines.get(at))
            .and_then(|l| doc(l))
            .is_some()
    };
    if is_doc(index.checked_sub(1)) || is_doc(Some(index + 1)) {
        return false;
    }
    let Some(text) = text.strip_suffix('.') else {
        return false;
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        [only] => only.chars().all(char::is_alphabetic),
        ["Its" | "With", second] => second.chars().all(char::is_alphabetic),
        _ => false,
    }
}

fn has_phrase(lower: &str, phrase: &str) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    lower.match_indices(phrase).any(|(at, _)| {
        !is_word(lower[..at].chars().next_back())
            && !is_word(lower[at + phrase.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(text: &str) -> Vec<usize> {
        findings(text, true).iter().map(|f| f.line).collect()
    }

    #[test]
    fn planted_faults_are_found() {
        assert_eq!(whats("/// Which.\nid: u8,\n"), [1]);
        assert_eq!(whats("    /// Its name.\n"), [1]);
        assert_eq!(whats("// Asked anew, later.\n"), [1]);
        assert_eq!(whats(&format!("//! See {}.\n", FOREIGN[0])), [1]);
    }

    #[test]
    fn plain_text_passes() {
        let text = "/// The session's id.\n/// Whether `renewal` is due.\nfn renewal() {}\n\
                    let anew = 1;\n/// # Errors\n/// Never.\nfn f() {}\n";
        assert_eq!(whats(text), [0; 0]);
    }
}
