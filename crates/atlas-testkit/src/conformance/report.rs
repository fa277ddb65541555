//! The result of a run of the suite.

use std::fmt;

use serde::Serialize;

use super::bench::Stop;

/// The number of cases by result, with the reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed.
    pub failed: usize,
    /// Cases that could not be tried.
    pub skipped: usize,
    /// Why they could not be tried.
    pub skips: Vec<Skip>,
    /// What was observed in failed cases.
    pub failures: Vec<Failure>,
}

/// A case that could not be tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skip {
    /// The case.
    pub case: &'static str,
    /// The capability that the provider does not declare, or `control:` and the fault that this
    /// cloud cannot be made to have.
    pub missing_capability: String,
}

/// A case that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The case.
    pub case: &'static str,
    /// What was observed.
    pub reason: String,
}

impl Report {
    /// The names of the cases that failed, in order.
    #[must_use]
    pub fn failed_cases(&self) -> Vec<&'static str> {
        self.failures.iter().map(|failure| failure.case).collect()
    }

    pub(super) fn add(&mut self, case: &'static str, verdict: Result<(), Stop>) {
        match verdict {
            Ok(()) => self.passed += 1,
            Err(Stop::Skipped(missing_capability)) => {
                self.skipped += 1;
                self.skips.push(Skip {
                    case,
                    missing_capability,
                });
            }
            Err(Stop::Failed(reason)) => {
                self.failed += 1;
                self.failures.push(Failure { case, reason });
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )?;
        for failure in &self.failures {
            write!(f, "\nfailed  {}: {}", failure.case, failure.reason)?;
        }
        for skip in &self.skips {
            write!(
                f,
                "\nskipped {}: needs {}",
                skip.case, skip.missing_capability
            )?;
        }
        Ok(())
    }
}
