//! What the demo tells: a line for each thing that happens, with its time, and the cloud's own ledger at the end.

use serde_json::Value;
use tokio::time::Instant;

use crate::failure::{Done, Failure};
use crate::output::{self, Output};

/// The timeline. It goes to standard output for people, and to standard error where standard output is for a program.
#[derive(Debug)]
pub(super) struct Story {
    out: Output,
    since: Instant,
}

impl Story {
    pub(super) fn begin(out: Output) -> Self {
        Self { out, since: Instant::now() }
    }

    /// Something happened, to somebody.
    pub(super) fn tell(&self, who: &str, what: impl AsRef<str>) -> Done {
        let line = format!("{:6.2}s  {who:<8} {}", self.since.elapsed().as_secs_f64(), what.as_ref());
        if self.out.is_json() {
            self.out.progress(line);
            return Ok(());
        }
        self.out.line(&line)
    }
}

/// The ledger as a table.
pub(super) fn table(ledger: &Value) -> Done<String> {
    let clouds = clouds(ledger)?.map(|(name, cloud)| {
        let field = |key: &str| cloud[key].as_str().map_or_else(|| cloud[key].to_string(), str::to_owned);
        vec![name.clone(), field("created"), field("destroyed"), field("live"), format!("${}", field("billed_usd"))]
    });
    Ok(output::table(&["CLOUD", "CREATED", "DESTROYED", "LIVE", "BILLED"], clouds))
}

/// How many machines there are of one sort, over all clouds.
pub(super) fn count(ledger: &Value, sort: &str) -> Done<u64> {
    clouds(ledger)?
        .map(|(name, cloud)| cloud[sort].as_u64().ok_or_else(|| Failure::new(format!("the ledger of {name} says no {sort:?}"))))
        .sum()
}

fn clouds(ledger: &Value) -> Done<impl Iterator<Item = (&String, &Value)>> {
    let clouds = ledger["clouds"].as_object().ok_or_else(|| Failure::new("the simulator's ledger names no clouds"))?;
    Ok(clouds.iter())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_ledger_that_is_not_understood_is_never_taken_for_an_empty_one() {
        let good = json!({"clouds": {"runpod": {"created": 4, "live": 1}, "fly": {"created": 0, "live": 0}}});
        assert_eq!((count(&good, "created").unwrap(), count(&good, "live").unwrap()), (4, 1));
        for bad in
            [json!({}), json!({"clouds": []}), json!({"clouds": {"runpod": {}}}), json!({"clouds": {"runpod": {"live": "0"}}})]
        {
            assert!(count(&bad, "live").is_err(), "{bad}");
        }
    }
}
