//! `atlas token`: bearer tokens, made and checked without a cloud.

use std::io::Read;

use atlas::{Secret, SystemEntropy};
use serde_json::json;

use crate::args::{RawSecret, TokenVerb};
use crate::failure::{Done, FAILED, Failure};
use crate::output::Output;

pub(crate) fn run(verb: TokenVerb, out: Output) -> Done {
    match verb {
        TokenVerb::Mint => {
            let minted = atlas::auth::token::mint(&SystemEntropy::new());
            let document = json!({
                "token": minted.secret().expose(),
                "hash": minted.hash(),
                "header": minted.header().as_ref().map(Secret::expose),
                "env": minted.env_name(),
            });
            out.answer(&document, || {
                format!(
                    "token  {}\nhash   {}",
                    minted.secret().expose(),
                    minted.hash().unwrap_or_default()
                )
            })
        }
        TokenVerb::Verify { token, hash } => {
            let token = read(token)?;
            let verdict = if atlas::auth::token::verify(token.expose(), &hash) {
                "ok"
            } else {
                "bad_token"
            };
            answer(out, verdict)
        }
    }
}

/// Prints a verdict; only `ok` is a success.
pub(crate) fn answer(out: Output, verdict: &str) -> Done {
    out.answer(&json!({ "verdict": verdict }), || verdict.to_owned())?;
    if verdict == "ok" {
        Ok(())
    } else {
        Err(Failure::silent(FAILED))
    }
}

/// The secret as given, or the first line of standard input for `-`.
pub(crate) fn read(given: RawSecret) -> Done<Secret> {
    if given.0.expose() != "-" {
        return Ok(given.0);
    }
    let mut text = String::new();
    std::io::stdin().take(64 * 1024).read_to_string(&mut text)?;
    Ok(Secret::new(text.lines().next().unwrap_or_default()))
}
