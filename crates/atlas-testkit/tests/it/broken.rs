//! The conformance suite against providers that are broken on purpose: each fails exactly the cases
//! that are about its flaw.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use atlas_core::{
    AccountLimits, AnyProvider, BoxStream, CallContext, Candidate, Capabilities, Capability,
    Completeness, Compute, ComputeId, ComputeRequest, ComputeSpend, ComputeStatus, Error,
    ErrorKind, GpuType, Job, JobRef, JobRequest, LaunchKey, ListFilter, Listing, LogLine, LogQuery,
    NetworkVolume, Next, Outcome, Presence, Provider, ProviderId, Result, SpendQuery, StopCause,
    Support, Timestamp, VolumeId, VolumeRequest,
};
use atlas_testkit::conformance::{self, BoxFuture, Control, Serverless, Subject};
use atlas_testkit::mock::MockSubject;
use serde_json::{Value, json};

/// What is wrong with a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    RepeatsACreateThatFailed,
    CallsAPartialListingComplete,
    FailsToTerminateWhatIsGone,
    TakesABadKeyForAbsence,
    TakesAnyErrorForAbsence,
    DropsTheRegion,
    DeclaresLogsItLacks,
    CallsAnUnknownOutcomeNotApplied,
    ShowsTheEnvironment,
    IgnoresTheKeyOfTheCall,
    RunsOnAfterItsCommand,
    CallsAnEndedCommandStopped,
    CallsAStopAnEnd,
    CallsWhatNeverRanEnded,
    NeedsEveryField,
    HidesARowItCannotRead,
    CountsTheRowsOfStrangers,
    SleepsThroughALongRefusal,
    CallsAQuotaARate,
}

#[derive(Debug)]
struct Broken {
    inner: AnyProvider,
    flaw: Flaw,
    seen_running: Mutex<BTreeSet<ComputeId>>,
}

impl Broken {
    fn with(flaw: Flaw, inner: AnyProvider) -> AnyProvider {
        AnyProvider::new(Self {
            inner,
            flaw,
            seen_running: Mutex::default(),
        })
    }

    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn context(&self, cx: &CallContext) -> CallContext {
        match (self.is(Flaw::IgnoresTheKeyOfTheCall), cx.timeout()) {
            (true, None) => CallContext::new().with_retries(cx.retries().unwrap_or(2)),
            (true, Some(timeout)) => CallContext::new()
                .with_retries(cx.retries().unwrap_or(2))
                .with_timeout(timeout),
            (false, _) => cx.clone(),
        }
    }
}

/// Whether every field of a description that was rewritten is as the contract has it.
fn is_wholly_readable(compute: &Compute) -> bool {
    let rewritten = compute.raw.get("keys").is_some();
    !rewritten || serde_json::from_value::<Compute>(compute.raw.value().clone()).is_ok()
}

fn missing(capability: Capability) -> Error {
    Error::unsupported(capability.as_str(), "this provider cannot do that")
}

#[deny(clippy::missing_trait_methods)]
impl Provider for Broken {
    fn id(&self) -> &ProviderId {
        self.inner.id()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn limits(&self) -> AccountLimits {
        self.inner.limits()
    }

    fn check(&self, request: &ComputeRequest) -> Result<()> {
        self.inner.check(request)
    }

    fn supports(&self, key: &LaunchKey, request: &ComputeRequest) -> Result<Vec<Support>> {
        self.inner.supports(key, request)
    }

    async fn identity(&self, cx: &CallContext) -> Result<String> {
        self.inner.identity(cx).await
    }

    async fn candidates(
        &self,
        cx: &CallContext,
        request: &ComputeRequest,
    ) -> Result<Vec<Candidate>> {
        self.inner.candidates(cx, request).await
    }

    async fn spawn_compute(
        &self,
        cx: &CallContext,
        key: &LaunchKey,
        request: &ComputeRequest,
    ) -> Result<Compute> {
        let mut request = request.clone();
        if self.is(Flaw::DropsTheRegion) {
            request.region_hints.clear();
            if let Some(candidate) = &mut request.candidate {
                candidate.region = None;
            }
        }
        if self.is(Flaw::RunsOnAfterItsCommand) && request.ends_with_command {
            request = request.command(["tail", "-f", "/dev/null"]);
        }
        let mut made = self.inner.spawn_compute(cx, key, &request).await;
        if self.is(Flaw::RepeatsACreateThatFailed)
            && made
                .as_ref()
                .is_err_and(|error| error.outcome().is_unknown())
        {
            made = self.inner.spawn_compute(cx, key, &request).await;
        }
        if self.is(Flaw::CallsAnUnknownOutcomeNotApplied) {
            made = made.map_err(|error| {
                if error.outcome().is_unknown() {
                    error.outcome_is(Outcome::NotApplied(Next::NextCandidate))
                } else {
                    error
                }
            });
        }
        if self.is(Flaw::CallsAQuotaARate) {
            made = made.map_err(|error| match error.kind() {
                ErrorKind::Quota => Error::new(ErrorKind::RateLimited, "slow down")
                    .outcome_is(error.outcome().clone()),
                _ => error,
            });
        }
        if self.is(Flaw::ShowsTheEnvironment) {
            let env: Value = request
                .env
                .iter()
                .map(|(name, value)| (name.clone(), json!(value.expose())))
                .collect();
            made = made.map(|compute| {
                let mut shown = compute;
                shown.raw = json!({ "env": env }).into();
                shown
            });
        }
        made
    }

    async fn get_compute(&self, cx: &CallContext, id: &ComputeId) -> Result<Compute> {
        let mut read = self.inner.get_compute(cx, id).await?;
        let mut seen_running = self.seen_running.lock().expect("no case panics");
        if read.status == ComputeStatus::Running {
            seen_running.insert(id.clone());
        }
        let stopped = read.status == ComputeStatus::Stopped;
        let ran = seen_running.contains(id);
        match self.flaw {
            Flaw::CallsAnEndedCommandStopped if read.exit_code.is_some() => {
                read.stop_cause = Some(StopCause::Requested);
            }
            Flaw::CallsAStopAnEnd if stopped && ran => read.exit_code = read.exit_code.or(Some(0)),
            Flaw::CallsWhatNeverRanEnded if stopped && !ran && read.exit_code.is_none() => {
                read.stop_cause = Some(StopCause::CommandEnded);
            }
            Flaw::NeedsEveryField if !is_wholly_readable(&read) => {
                return Err(Error::new(
                    ErrorKind::Provider,
                    "a field is of another type",
                ));
            }
            _ => {}
        }
        Ok(read)
    }

    async fn list_compute(&self, cx: &CallContext, filter: &ListFilter) -> Result<Listing> {
        let cx = self.context(cx);
        let mut listed = self.inner.list_compute(&cx, filter).await;
        if self.is(Flaw::SleepsThroughALongRefusal)
            && let Some(wait) = listed.as_ref().err().and_then(Error::retry_after)
        {
            tokio::time::sleep(wait).await;
            listed = self.inner.list_compute(&cx, filter).await;
        }
        let mut listing = listed?;
        if self.is(Flaw::CallsAPartialListingComplete) && listing.unreadable.is_empty()
            || self.is(Flaw::HidesARowItCannotRead) && !listing.unreadable.is_empty()
        {
            listing.completeness = Completeness::Complete;
        }
        if self.is(Flaw::CountsTheRowsOfStrangers)
            && !listing.computes.iter().all(is_wholly_readable)
        {
            listing.completeness = Completeness::Incomplete("an odd row".to_owned());
        }
        Ok(listing)
    }

    async fn presence(&self, cx: &CallContext, id: &ComputeId) -> Presence {
        match self.inner.presence(cx, id).await {
            Presence::NoAnswer(error)
                if self.is(Flaw::TakesABadKeyForAbsence)
                    && error.kind() == ErrorKind::Unauthorized =>
            {
                Presence::Absent
            }
            Presence::NoAnswer(_) if self.is(Flaw::TakesAnyErrorForAbsence) => Presence::Absent,
            proved => proved,
        }
    }

    async fn terminate(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        if self.is(Flaw::FailsToTerminateWhatIsGone) {
            self.inner.get_compute(cx, id).await?;
        }
        self.inner.terminate(cx, id).await
    }

    async fn list_gpu_types(&self, cx: &CallContext) -> Result<Vec<GpuType>> {
        self.inner.list_gpu_types(cx).await
    }

    async fn stop(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        self.inner.stop(cx, id).await
    }

    async fn start(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        self.inner.start(cx, id).await
    }

    async fn ensure_support(
        &self,
        cx: &CallContext,
        key: &LaunchKey,
        support: &Support,
    ) -> Result<Support> {
        self.inner.ensure_support(cx, key, support).await
    }

    async fn release_support(&self, cx: &CallContext, support: &Support) -> Result<()> {
        self.inner.release_support(cx, support).await
    }

    async fn logs(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        query: &LogQuery,
    ) -> Result<BoxStream<Result<LogLine>>> {
        if self.is(Flaw::DeclaresLogsItLacks) {
            return Err(missing(Capability::Logs));
        }
        self.inner.logs(cx, id, query).await
    }

    async fn run_job(&self, cx: &CallContext, request: &JobRequest) -> Result<Job> {
        self.inner
            .jobs()
            .ok_or_else(|| missing(Capability::Serverless))?
            .run_job(cx, request)
            .await
    }

    async fn get_job(&self, cx: &CallContext, job: &JobRef) -> Result<Job> {
        self.inner
            .jobs()
            .ok_or_else(|| missing(Capability::Serverless))?
            .get_job(cx, job)
            .await
    }

    async fn cancel_job(&self, cx: &CallContext, job: &JobRef) -> Result<Job> {
        self.inner
            .jobs()
            .ok_or_else(|| missing(Capability::Serverless))?
            .cancel_job(cx, job)
            .await
    }

    async fn stream_job(&self, cx: &CallContext, job: &JobRef) -> Result<BoxStream<Result<Value>>> {
        self.inner
            .jobs()
            .ok_or_else(|| missing(Capability::Serverless))?
            .stream_job(cx, job)
            .await
    }

    async fn list_network_volumes(&self, cx: &CallContext) -> Result<Vec<NetworkVolume>> {
        self.inner
            .network_volumes()
            .ok_or_else(|| missing(Capability::NetworkVolumes))?
            .list_network_volumes(cx)
            .await
    }

    async fn create_network_volume(
        &self,
        cx: &CallContext,
        request: &VolumeRequest,
    ) -> Result<NetworkVolume> {
        self.inner
            .network_volumes()
            .ok_or_else(|| missing(Capability::NetworkVolumes))?
            .create_network_volume(cx, request)
            .await
    }

    async fn delete_network_volume(&self, cx: &CallContext, id: &VolumeId) -> Result<()> {
        self.inner
            .network_volumes()
            .ok_or_else(|| missing(Capability::NetworkVolumes))?
            .delete_network_volume(cx, id)
            .await
    }

    async fn compute_spend(
        &self,
        cx: &CallContext,
        query: &SpendQuery,
    ) -> Result<Vec<ComputeSpend>> {
        self.inner.compute_spend(cx, query).await
    }
}

/// The mock cloud, seen through a broken provider.
struct BrokenSubject {
    good: MockSubject,
    flaw: Flaw,
}

impl Subject for BrokenSubject {
    fn fresh(&self) -> BoxFuture<'_, Result<AnyProvider>> {
        Box::pin(async {
            let good = self.good.fresh().await?;
            Ok(Broken::with(self.flaw, good))
        })
    }

    fn with_bad_key(&self) -> Option<AnyProvider> {
        let good = self.good.with_bad_key()?;
        Some(Broken::with(self.flaw, good))
    }

    fn request(&self) -> ComputeRequest {
        self.good.request()
    }

    fn now(&self) -> Timestamp {
        self.good.now()
    }

    fn wait(&self, span: Duration) -> BoxFuture<'_, ()> {
        self.good.wait(span)
    }

    fn control(&self) -> Option<&dyn Control> {
        self.good.control()
    }

    fn serverless(&self) -> Option<Serverless> {
        self.good.serverless()
    }

    fn region(&self) -> Option<String> {
        self.good.region()
    }

    fn secrets(&self) -> Vec<String> {
        self.good.secrets()
    }
}

async fn failed_with(flaw: Flaw) -> Vec<&'static str> {
    let report = conformance::run(&BrokenSubject {
        good: MockSubject::new(7),
        flaw,
    })
    .await;
    assert_eq!(report.skipped, 0, "{report}");
    report.failed_cases()
}

macro_rules! flaws {
    ($($test:ident $flaw:ident [$($case:ident)*];)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $test() {
            assert_eq!(failed_with(Flaw::$flaw).await, [$(stringify!($case)),*]);
        }
    )*};
}

flaws! {
    a_provider_that_repeats_a_create_is_found_out RepeatsACreateThatFailed [
        a_create_that_committed_and_answered_500_is_found_again
        a_create_that_committed_and_broke_off_is_found_again
        a_create_that_committed_and_fell_silent_is_found_again
        a_create_with_a_truncated_answer_is_found_again
        a_spawn_makes_one_call_even_on_500
        a_spawn_through_a_failing_proxy_is_unknown
        a_reset_before_the_commit_never_doubles
        no_secret_is_in_an_error
    ];
    a_provider_that_calls_a_partial_listing_complete_is_found_out CallsAPartialListingComplete [
        a_partial_listing_is_incomplete
    ];
    a_provider_that_fails_to_terminate_what_is_gone_is_found_out FailsToTerminateWhatIsGone [
        terminate_is_idempotent
        terminate_of_an_unknown_id_is_a_success
        a_vanished_machine_is_absent_and_terminates
    ];
    a_provider_that_takes_a_bad_key_for_absence_is_found_out TakesABadKeyForAbsence [
        a_bad_key_proves_nothing
    ];
    a_provider_that_takes_any_error_for_absence_is_found_out TakesAnyErrorForAbsence [
        a_bad_key_proves_nothing
        a_failing_cloud_proves_nothing
    ];
    a_provider_that_drops_a_field_is_found_out DropsTheRegion [
        a_region_asked_for_is_the_region_rented
    ];
    a_provider_that_declares_what_it_lacks_is_found_out DeclaresLogsItLacks [
        what_is_declared_is_supported
        logs_are_read_to_their_end
    ];
    a_provider_that_calls_an_unknown_outcome_not_applied_is_found_out CallsAnUnknownOutcomeNotApplied [
        a_create_that_committed_and_answered_500_is_found_again
        a_create_that_committed_and_broke_off_is_found_again
        a_create_that_committed_and_fell_silent_is_found_again
        a_create_with_a_truncated_answer_is_found_again
        a_spawn_makes_one_call_even_on_500
        a_spawn_through_a_failing_proxy_is_unknown
        a_reset_before_the_commit_never_doubles
    ];
    a_provider_that_shows_the_environment_is_found_out ShowsTheEnvironment [
        no_secret_is_shown
    ];
    a_provider_that_ignores_the_key_of_the_call_is_found_out IgnoresTheKeyOfTheCall [
        a_key_of_the_call_counts
    ];
    a_provider_whose_machine_outlives_its_command_is_found_out RunsOnAfterItsCommand [
        a_machine_ends_with_its_command_where_declared
    ];
    a_provider_that_calls_an_ended_command_stopped_is_found_out CallsAnEndedCommandStopped [
        a_command_that_ended_by_itself_is_not_called_stopped
    ];
    a_provider_that_calls_a_stop_an_end_is_found_out CallsAStopAnEnd [
        a_machine_that_was_stopped_is_not_said_to_have_ended_by_itself
    ];
    a_provider_that_calls_what_never_ran_ended_is_found_out CallsWhatNeverRanEnded [
        a_machine_that_never_ran_is_not_said_to_have_ended_by_itself
    ];
    a_provider_that_needs_every_field_is_found_out NeedsEveryField [
        an_odd_field_never_makes_a_machine_unreadable
    ];
    a_provider_that_hides_a_row_it_cannot_read_is_found_out HidesARowItCannotRead [
        an_unreadable_row_that_may_be_ours_makes_a_listing_incomplete
    ];
    a_provider_that_counts_the_rows_of_strangers_is_found_out CountsTheRowsOfStrangers [
        an_unreadable_row_of_a_stranger_leaves_a_listing_complete
    ];
    a_provider_that_sleeps_through_a_long_refusal_is_found_out SleepsThroughALongRefusal [
        a_refusal_for_hours_is_returned_at_once
    ];
    a_provider_that_calls_a_quota_a_rate_is_found_out CallsAQuotaARate [
        a_used_up_quota_is_quota_and_nothing_was_made
    ];
}
