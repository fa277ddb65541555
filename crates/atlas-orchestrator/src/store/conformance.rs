//! The test suite that every store must pass, built-in or user-defined.
//!
//! Implement a [`Subject`] and check the [`Report`]. Each case gets an empty store; the name of a
//! case is the promise it tests.
//!
//! ```no_run
//! # use std::{sync::Arc, time::Duration};
//! # use atlas_core::{Error, SystemClock, SystemEntropy};
//! # use atlas_orchestrator::store::{AnyStore, Memory, conformance};
//! struct InMemory;
//!
//! impl conformance::Subject for InMemory {
//!     async fn fresh(&self) -> Result<AnyStore, Error> {
//!         Ok(AnyStore::new(Memory::new(Arc::new(SystemClock), &SystemEntropy::new())))
//!     }
//!     async fn pass(&self, time: Duration) {
//!         tokio::time::sleep(time).await;
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let report = conformance::run(&InMemory).await;
//! assert!(report.failed.is_empty(), "{report:#?}");
//! # });
//! ```

mod leases;
mod logs;
mod rows;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::time::Duration;

use atlas_core::Error;

use super::{AnyStore, CommitError};

/// Gives the suite access to the store under test.
pub trait Subject: Send + Sync {
    /// Creates an empty store with its own incarnation.
    fn fresh(&self) -> impl Future<Output = Result<AnyStore, Error>> + Send;

    /// Lets this much time pass on the store's clock, by moving the clock or by waiting. A little
    /// more does no harm.
    fn pass(&self, time: Duration) -> impl Future<Output = ()> + Send;

    /// Closes the store and opens it again from its persistent data; `None` if it keeps none.
    fn reopen(
        &self,
        store: AnyStore,
    ) -> impl Future<Output = Result<Option<AnyStore>, Error>> + Send {
        async {
            drop(store);
            Ok(None)
        }
    }
}

/// The result of the suite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Cases that passed.
    pub passed: Vec<&'static str>,
    /// Cases that failed, with what was observed.
    pub failed: Vec<(&'static str, String)>,
    /// Cases that need something the subject does not have.
    pub skipped: Vec<&'static str>,
}

/// Runs every case, one after another, and continues after a failure.
pub async fn run<S: Subject>(subject: &S) -> Report {
    let mut report = Report::default();
    macro_rules! cases {
        ($($module:ident: $($case:ident)*;)*) => {
            $($(match $module::$case(subject).await {
                Ok(Verdict::Passed) => report.passed.push(stringify!($case)),
                Ok(Verdict::Skipped) => report.skipped.push(stringify!($case)),
                Err(Failure(seen)) => report.failed.push((stringify!($case), seen)),
            })*)*
        };
    }
    cases! {
        rows:
            an_empty_store_answers_nothing
            a_row_reads_back_with_the_number_of_its_commit
            tables_are_apart
            commit_numbers_grow_by_one
            an_empty_batch_tests_and_changes_nothing
            a_guard_holds_only_at_the_version_read
            a_row_written_again_after_a_delete_is_another_row
            the_last_put_wins_and_deletes_come_after_puts
            a_refused_guard_leaves_nothing_of_its_batch
            a_refused_append_leaves_nothing_of_its_batch
            hostile_keys_and_values_read_back
            scans_are_ordered_and_paged_without_loss
            a_scan_keeps_to_its_prefix
            a_hundred_thousand_rows_are_scanned_once_each
            a_batch_from_a_later_point_or_another_incarnation_is_refused_whole
            of_concurrent_commits_on_one_version_exactly_one_wins
            no_concurrent_update_is_lost
            a_store_is_bound_to_one_realm_for_ever
            incarnations_differ_and_can_be_set
            what_was_acknowledged_is_there_after_reopening;
        logs:
            a_log_takes_only_the_next_event
            events_read_from_a_cursor_in_pages
            the_feed_numbers_all_events_without_gaps
            of_concurrent_appends_of_one_place_exactly_one_wins
            forgotten_events_are_gone_and_the_next_still_follows;
        leases:
            a_lease_is_held_by_one_until_it_expires
            each_acquisition_grows_the_number
            a_renewal_keeps_the_number_and_moves_the_end
            an_expired_lease_that_nobody_took_still_counts
            a_released_lease_is_free_at_once
            a_batch_under_the_newest_fence_is_applied
            a_batch_under_a_lost_lease_is_refused_whole
            a_batch_under_a_released_or_invented_lease_is_refused
            a_batch_without_a_fence_needs_no_lease
            a_lost_lease_can_be_neither_renewed_nor_released
            of_concurrent_acquirers_exactly_one_wins
            leases_are_listed_in_order_also_when_over;
    }
    report
}

enum Verdict {
    Passed,
    Skipped,
}

/// A wrong observation of a case.
#[derive(Debug)]
struct Failure(String);

type Outcome = Result<Verdict, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        Self(format!("commit: {error:?}"))
    }
}

impl From<tokio::task::JoinError> for Failure {
    fn from(error: tokio::task::JoinError) -> Self {
        Self(error.to_string())
    }
}

/// Fails the case with what was observed, unless the two are equal.
fn same<T: PartialEq + std::fmt::Debug>(
    what: impl Display,
    seen: T,
    wanted: T,
) -> Result<(), Failure> {
    if seen == wanted {
        Ok(())
    } else {
        Err(Failure(format!("{what}: saw {seen:?}, wanted {wanted:?}")))
    }
}

fn holds(what: impl Display, so: bool) -> Result<(), Failure> {
    if so {
        Ok(())
    } else {
        Err(Failure(format!("not so: {what}")))
    }
}

/// The result of a commit in one word.
fn word(answer: &Result<u64, CommitError>) -> &'static str {
    match answer {
        Ok(_) => "applied",
        Err(CommitError::Conflict) => "conflict",
        Err(CommitError::Fenced) => "fenced",
        Err(CommitError::RolledBack) => "rolled back",
        Err(CommitError::Store(_)) => "store failure",
    }
}
