//! What the demo tells: a line for each thing that happens, with its time, and the cloud's own
//! ledger at the end.

use serde_json::Value;
use tokio::time::Instant;

use crate::failure::{Done, Failure};
use crate::output::{self, Output, Page};

/// The timeline. It goes to standard output for people, and to standard error where standard output
/// is for a program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Story {
    out: Output,
    since: Instant,
    /// The cloud it is about, where it is one of several.
    of: Option<&'static str>,
}

impl Story {
    pub(super) fn begin(out: Output) -> Self {
        Self {
            out,
            since: Instant::now(),
            of: None,
        }
    }

    /// The part of it that is about one of several clouds.
    pub(super) fn of(self, cloud: &'static str) -> Self {
        Self {
            of: Some(cloud),
            ..self
        }
    }

    /// Something happened, to somebody.
    pub(super) fn tell(&self, who: &str, what: impl AsRef<str>) -> Done {
        let cloud = self
            .of
            .map(|cloud| format!("{cloud:<8} "))
            .unwrap_or_default();
        let line = format!(
            "{:6.2}s  {cloud}{who:<8} {}",
            self.since.elapsed().as_secs_f64(),
            what.as_ref()
        );
        if self.out.is_json() {
            self.out.progress(line);
            return Ok(());
        }
        self.out.line(&line)
    }
}

/// The ledger as a table.
pub(super) fn table(ledger: &Value) -> Done<Page> {
    let clouds = clouds(ledger)?.map(|(name, cloud)| {
        let field = |key: &str| {
            cloud[key]
                .as_str()
                .map_or_else(|| cloud[key].to_string(), str::to_owned)
        };
        vec![
            name.clone(),
            field("created"),
            field("destroyed"),
            field("live"),
            format!("${}", field("billed_usd")),
        ]
    });
    Ok(output::table(
        &["CLOUD", "CREATED", "DESTROYED", "LIVE", "BILLED"],
        clouds,
    ))
}

/// How many machines there are of one sort, over all clouds.
pub(super) fn count(ledger: &Value, sort: &str) -> Done<u64> {
    clouds(ledger)?
        .map(|(name, cloud)| number(name, cloud, sort))
        .sum()
}

/// How many machines there are of one sort on one cloud.
pub(super) fn count_on(ledger: &Value, name: &str, sort: &str) -> Done<u64> {
    number(name, &ledger["clouds"][name], sort)
}

fn number(name: &str, cloud: &Value, sort: &str) -> Done<u64> {
    cloud[sort]
        .as_u64()
        .ok_or_else(|| Failure::new(format!("the ledger of {name} says no {sort:?}")))
}

fn clouds(ledger: &Value) -> Done<impl Iterator<Item = (&String, &Value)>> {
    let clouds = ledger["clouds"]
        .as_object()
        .ok_or_else(|| Failure::new("the simulator's ledger names no clouds"))?;
    Ok(clouds.iter())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_ledger_that_is_not_understood_is_never_taken_for_an_empty_one() {
        let good = json!({"clouds": {"runpod": {"created": 4, "live": 1}, "fly": {"created": 0,
            "live": 0}}});
        assert_eq!(
            (
                count(&good, "created").unwrap(),
                count(&good, "live").unwrap()
            ),
            (4, 1)
        );
        assert_eq!(
            (
                count_on(&good, "runpod", "live").unwrap(),
                count_on(&good, "fly", "live").unwrap()
            ),
            (1, 0)
        );
        assert!(count_on(&good, "vast", "live").is_err());
        for bad in [
            json!({}),
            json!({"clouds": []}),
            json!({"clouds": {"runpod": {}}}),
            json!({"clouds": {"runpod": {"live": "0"}}}),
        ] {
            assert!(
                count(&bad, "live").is_err() && count_on(&bad, "runpod", "live").is_err(),
                "{bad}"
            );
        }
    }
}
