//! How two ways of doing the same are compared: interleaved rounds, CPU time, medians.

use std::fmt;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// One line of the report.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) baseline: Option<f64>,
    /// Reads of single machines for each machine, where a row counts them.
    pub(crate) point_reads: Option<f64>,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.baseline.map(|baseline| self.value / baseline)
    }

    pub(crate) fn json(&self) -> Value {
        let round =
            |number: f64, digits: i32| (number * 10_f64.powi(digits)).round() / 10_f64.powi(digits);
        let mut row = json!({
            "name": self.name,
            "value": round(self.value, 1),
            "unit": self.unit,
            "baseline": self.baseline.map(|baseline| round(baseline, 1)),
            "ratio": self.ratio().map(|ratio| round(ratio, 4)),
        });
        if let Some(reads) = self.point_reads {
            row["point_reads_per_machine"] = json!(round(reads, 4));
        }
        row
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<f64>, digits| {
            number.map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
        };
        let (baseline, ratio) = (number(self.baseline, 0), number(self.ratio(), 3));
        write!(
            f,
            "{:<20}{:>14.0}{baseline:>14}{ratio:>8}  {}",
            self.name, self.value, self.unit
        )?;
        match self.point_reads {
            Some(reads) => write!(f, "; {reads:.3} point reads per machine"),
            None => Ok(()),
        }
    }
}

/// CPU time this process has used, in user and kernel, on all its threads.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// The middle one. Of an even number, the lower of the two in the middle.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[(numbers.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_not_moved_by_one_wild_round() {
        assert_eq!(median(vec![3.0, 1e9, 1.0]), 3.0);
        assert_eq!(median(vec![2.0, 1.0]), 1.0);
    }

    #[test]
    fn a_row_without_a_baseline_has_no_ratio() {
        let row = Row {
            name: "x",
            value: 2.0,
            unit: "y",
            baseline: None,
            point_reads: None,
        };
        assert_eq!(
            row.json(),
            json!({"name": "x", "value": 2.0, "unit": "y", "baseline": null, "ratio": null})
        );
        assert_eq!(
            Row {
                baseline: Some(4.0),
                point_reads: Some(0.125),
                ..row
            }
            .json(),
            json!({"name": "x", "value": 2.0, "unit": "y", "baseline": 4.0, "ratio": 0.5,
                "point_reads_per_machine": 0.125})
        );
    }
}
