//! Reads `app` and `primary_region` out of a `fly.toml`, `fly.json` or `fly.yaml`, with the real
//! parser of each.
//!
//! A parser's own message is dropped: it may quote values of `[env]`. Only the line is kept.

use serde::Deserialize;

/// What is needed of a configuration file. Everything else in it is skipped.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AppConfig {
    pub(crate) app: Option<String>,
    pub(crate) primary_region: Option<String>,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Toml,
    Json,
    Yaml,
}

impl Format {
    /// The largest file of this format that is read, in bytes.
    pub(crate) const fn limit(self) -> u64 {
        match self {
            Self::Toml | Self::Json => 1024 * 1024,
            Self::Yaml => 64 * 1024,
        }
    }
}

/// Where a file stopped making sense, counted from 1; `None` where the parser does not say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BrokenAt(pub(crate) Option<usize>);

/// Reads the whole text of one file, without its byte order mark.
pub(crate) fn read(format: Format, text: &str) -> Result<AppConfig, BrokenAt> {
    match format {
        Format::Toml => toml::from_str(text).map_err(|error| {
            BrokenAt(error.span().map(|span| {
                1 + text
                    .bytes()
                    .take(span.start)
                    .filter(|byte| *byte == b'\n')
                    .count()
            }))
        }),
        Format::Json => serde_json::from_str(text).map_err(|error| BrokenAt(Some(error.line()))),
        Format::Yaml => serde_yaml::from_str::<Option<AppConfig>>(text)
            .map(Option::unwrap_or_default)
            .map_err(|error| BrokenAt(error.location().map(|place| place.line()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn app(format: Format, text: &str) -> Result<Option<String>, BrokenAt> {
        read(format, text).map(|config| config.app)
    }

    #[test]
    fn only_a_top_level_app_counts() {
        for text in [
            "[build]\napp = \"x\"\n",
            "# app = \"x\"\n",
            "note = \"\"\"\napp = \"x\"\n\"\"\"\n",
            "[env]\n'app' = 'x'\n",
            "",
        ] {
            assert_eq!(app(Format::Toml, text), Ok(None), "{text}");
        }
    }

    #[test]
    fn every_way_toml_can_quote_a_name_is_read() {
        for text in [
            "app = \"x\"",
            "app='x'",
            "app   =   \"x\"   # the shop",
            "primary_region = \"fra\"\r\napp = \"x\"\r\n[env]\r\napp = \"y\"\r\n",
            "\"app\" = \"\\u0078\"",
            "app = '''x'''",
        ] {
            assert_eq!(app(Format::Toml, text), Ok(Some("x".into())), "{text}");
        }
    }

    #[test]
    fn bare_doubled_and_wrongly_typed_names_are_broken_at_their_line() {
        for (text, line) in [
            ("a = 1\napp = x", 2),
            ("app = \"x\"\napp = \"y\"", 2),
            ("app = 7", 1),
            ("a = 1\n\napp =", 3),
        ] {
            assert_eq!(app(Format::Toml, text), Err(BrokenAt(Some(line))), "{text}");
        }
        assert!(app(Format::Json, r#"{"app":"x","app":"y"}"#).is_err());
        assert!(app(Format::Yaml, "app: x\napp: y\n").is_err());
    }

    #[test]
    fn json_and_yaml_have_the_same_keys() {
        assert_eq!(
            app(Format::Json, r#"{"env":{"app":"y"},"app":"x"}"#),
            Ok(Some("x".into()))
        );
        assert_eq!(
            app(Format::Yaml, "# app: z\nenv:\n  app: y\napp: 'x' # shop\n"),
            Ok(Some("x".into()))
        );
        assert_eq!(app(Format::Yaml, "# nothing\n"), Ok(None));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_a_parser(bytes in proptest::collection::vec(any::<u8>(), 0..200),
            yamlish in "[a-z:\\-&*!|> \n'\"{}\\[\\],#%@]{0,80}") {
            for text in [&*String::from_utf8_lossy(&bytes), &yamlish] {
                for format in [Format::Toml, Format::Json, Format::Yaml] {
                    let _ = read(format, text);
                }
            }
        }
    }
}
