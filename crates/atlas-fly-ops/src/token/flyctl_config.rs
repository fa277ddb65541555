//! Reads the access token out of `fly`'s own configuration file. Never writes it, never keeps it
//! anywhere else.
//!
//! The file holds an all-powerful credential that `fly` renews by the minute, and private keys.
//! Only one field is read; a parser's message is dropped.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use atlas_core::Secret;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::token::form::FlyToken;

const LARGEST: u64 = 64 * 1024;

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    access_token: Option<Secret>,
}

/// The token, or why there is none. Blocks.
pub(crate) fn read(path: &Path) -> Result<FlyToken, &'static str> {
    // `fly` rewrites the file in place: one that was caught half written is read once more.
    once(path).or_else(|_| once(path))
}

fn once(path: &Path) -> Result<FlyToken, &'static str> {
    let meta = path
        .metadata()
        .map_err(|_| "there is no fly configuration file")?;
    if !meta.is_file() || meta.len() > LARGEST {
        return Err("the fly configuration file is not one");
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err("the fly configuration file belongs to someone else");
    }
    let mut text = Zeroizing::new(String::new());
    let file = File::open(path).map_err(|_| "the fly configuration file cannot be read")?;
    file.take(LARGEST)
        .read_to_string(&mut text)
        .map_err(|_| "the fly configuration file cannot be read")?;
    parse(&text)
}

fn parse(text: &str) -> Result<FlyToken, &'static str> {
    let config: Option<Config> =
        serde_yaml::from_str(text).map_err(|_| "the fly configuration file cannot be parsed")?;
    let token = config
        .and_then(|config| config.access_token)
        .ok_or("the fly configuration file holds no access token")?;
    FlyToken::parse(token.expose())
        .map_err(|_| "the access token in the fly configuration file is not valid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(text: &str) -> Option<String> {
        parse(text)
            .ok()
            .map(|token| token.joined().expose().to_owned())
    }

    #[test]
    fn every_way_yaml_can_write_the_token_is_read() {
        for text in [
            "access_token: fm2_a,fm2_b,fo1_c\nlast_login: \
                2026-09-20T07:00:12.5+02:00\nmetrics_token: fm2_m\nwire_guard_state: {}\n",
            "access_token: \"fm2_a,fm2_b,fo1_c\" # mine\n",
            "access_token: 'fm2_a,fm2_b,fo1_c'\n",
            "access_token: >-\n  fm2_a,fm2_b,fo1_c\n",
            "access_token:\n  fm2_a,fm2_b,fo1_c\n",
        ] {
            assert_eq!(token(text).as_deref(), Some("fm2_a,fm2_b,fo1_c"), "{text}");
        }
    }

    #[test]
    fn an_empty_token_never_takes_the_next_line_for_one() {
        for text in [
            "access_token:\nlast_login: x\n",
            "access_token: \"\"\nmetrics_token: fm2_m\n",
            "metrics_token: fm2_m\n",
            "# access_token: fm2_a\n",
            "wire_guard_state:\n  access_token: fm2_a\n",
            "access_token: [fm2_a]\n",
            "access_token: \"fm2_a\nlast",
            "",
        ] {
            assert_eq!(token(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..200),
            text in "[a-z_:&*!|> \n'\"{}\\[\\],#%@-]{0,80}") {
            let _ = (parse(&String::from_utf8_lossy(&bytes)), parse(&text));
        }
    }
}
