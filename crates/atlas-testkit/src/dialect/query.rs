//! Reading paths and query strings.

use percent_encoding::percent_decode_str;

/// A path segment or query value, decoded; what is not UTF-8 is replaced.
pub(super) fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// A query string's pairs, in order.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(query: Option<&str>) -> Self {
        let decode = |text: &str| decode(&text.replace('+', " "));
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    pair.split_once('=')
                        .map_or((decode(pair), String::new()), |(k, v)| {
                            (decode(k), decode(v))
                        })
                })
                .collect(),
        )
    }

    /// The last value of this name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of this name, split at commas; `None` when it is not there.
    pub(super) fn list(&self, name: &str) -> Option<Vec<&str>> {
        let values: Vec<&str> = self
            .0
            .iter()
            .filter(|(key, _)| key == name)
            .flat_map(|(_, value)| value.split(','))
            .filter(|v| !v.is_empty())
            .collect();
        (!values.is_empty()).then_some(values)
    }

    /// Fly's filters on metadata: `metadata.<key>=<value>`.
    pub(super) fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix("metadata.")?, value.as_str())))
    }
}
