//! The provider conformance suite: what every provider, built-in or user-defined, must do to be
//! trusted with money.
//!
//! Pass a [`Subject`] to [`run`] and read its [`Report`]. A case is skipped when the provider does
//! not declare the capability it tests, or when the cloud cannot be made to misbehave (a real one);
//! the skip names what is missing.
//!
//! ```
//! use atlas_testkit::conformance;
//! use atlas_testkit::mock::MockSubject;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! let report = conformance::run(&MockSubject::new(7)).await;
//! assert_eq!(report.failed, 0, "{report}");
//! # });
//! ```
//!
//! Deliberately absent: anything about one cloud. What differs between clouds comes from the
//! provider (capabilities, limits, candidates) or from the subject.

mod bench;
mod cases;
mod report;
mod subject;

use bench::{Bench, Stop};
pub use report::{Failure, Report, Skip};
pub use subject::{BoxFuture, Control, LedgerEntry, Rewrite, Serverless, Subject};

/// One case of the suite.
#[derive(Clone, Copy)]
pub struct Case {
    name: &'static str,
    run: for<'a> fn(&'a Bench<'a>) -> BoxFuture<'a, Result<(), Stop>>,
}

impl Case {
    /// The name of the case: the fact it proves.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every case, in the order in which they run.
#[must_use]
pub fn cases() -> &'static [Case] {
    cases::ALL
}

/// Runs every case, each on a fresh cloud.
///
/// # Cancel safety
/// Not cancel safe on a real cloud: a dropped run leaves its current machine billing.
pub async fn run(subject: &dyn Subject) -> Report {
    run_only(subject, |_| true).await
}

/// Runs the cases that `chosen` selects by name, each on a fresh cloud.
///
/// # Cancel safety
/// Like [`run`].
pub async fn run_only(subject: &dyn Subject, chosen: impl Fn(&str) -> bool) -> Report {
    let mut report = Report::default();
    for case in cases::ALL.iter().filter(|case| chosen(case.name)) {
        report.add(case.name, run_case(subject, case).await);
    }
    report
}

async fn run_case(subject: &dyn Subject, case: &Case) -> Result<(), Stop> {
    let bench = Bench::new(subject).await?;
    let verdict = (case.run)(&bench).await;
    let swept = bench.sweep().await;
    verdict.and(swept)
}
