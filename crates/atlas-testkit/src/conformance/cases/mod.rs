//! The cases, by the promise they are about.

mod capability;
mod ending;
mod error;
mod group;
mod input;
mod job;
mod lifecycle;
mod listing;
mod odd_answer;
mod presence;
mod secret;
mod unknown;

use super::Case;

macro_rules! cases {
    ($($module:ident { $($case:ident)* })*) => {
        pub(super) const ALL: &[Case] = &[$($(Case { name: stringify!($case),
            run: |bench| Box::pin($module::$case(bench)) },)*)*];
    };
}

cases! {
    lifecycle {
        a_machine_goes_the_whole_round
        a_bearer_credential_is_injected_and_returned
        a_launch_key_is_carried_and_found
        an_untracked_machine_keeps_its_name_and_has_no_key
        what_was_asked_for_is_what_was_rented
        terminate_is_idempotent
        terminate_of_an_unknown_id_is_a_success
        terminate_that_failed_is_an_error
        a_stopped_machine_starts_again
        supporting_objects_are_made_once_and_released
        an_identity_is_stable_and_not_the_key
    }
    listing {
        a_listing_is_whole_and_names_each_machine_once
        filters_select
        a_partial_listing_is_incomplete
        an_unreadable_listing_is_never_an_empty_one
    }
    odd_answer {
        an_odd_field_never_makes_a_machine_unreadable
        an_unreadable_row_that_may_be_ours_makes_a_listing_incomplete
        an_unreadable_row_of_a_stranger_leaves_a_listing_complete
    }
    presence {
        absence_is_proved_only_after_death
        a_bad_key_proves_nothing
        a_failing_cloud_proves_nothing
        a_vanished_machine_is_absent_and_terminates
    }
    error {
        a_bad_key_is_unauthorized
        a_key_of_the_call_counts
        an_unknown_machine_is_not_found
        a_refused_rate_is_rate_limited_and_nothing_was_made
        sold_out_is_no_capacity_and_the_next_candidate
        a_refusal_for_hours_is_returned_at_once
        a_used_up_quota_is_quota_and_nothing_was_made
        a_failing_cloud_is_unavailable
        a_deadline_is_a_timeout
    }
    unknown {
        a_create_that_committed_and_answered_500_is_found_again
        a_create_that_committed_and_broke_off_is_found_again
        a_create_that_committed_and_fell_silent_is_found_again
        a_create_with_a_truncated_answer_is_found_again
        a_spawn_makes_one_call_even_on_500
        a_spawn_through_a_failing_proxy_is_unknown
        a_reset_before_the_commit_never_doubles
        a_create_that_committed_twice_is_found_twice
    }
    capability {
        what_is_declared_is_supported
        what_is_not_declared_is_refused_without_a_request
        candidates_are_priced
        a_price_list_has_prices_and_stock
        a_region_asked_for_is_the_region_rented
        an_http_port_gets_a_url
        spot_is_declared_exactly_when_it_is_rented
        an_exit_code_is_reported_exactly_when_declared
        a_machine_ends_with_its_command_where_declared
    }
    ending {
        a_command_that_ended_by_itself_is_not_called_stopped
        a_machine_that_was_stopped_is_not_said_to_have_ended_by_itself
        a_machine_that_never_ran_is_not_said_to_have_ended_by_itself
    }
    input {
        bad_input_names_its_field_and_is_never_sent
        an_unknown_gpu_has_no_candidate
    }
    secret {
        no_secret_is_shown
        no_secret_is_in_an_error
    }
    group {
        logs_are_read_to_their_end
        a_network_volume_is_made_listed_and_deleted
        spend_is_what_the_cloud_billed
    }
    job {
        a_job_runs_to_its_output
        a_job_is_cancelled
        every_chunk_of_a_stream_comes_once
        a_failing_job_says_why
        an_unknown_job_is_not_found
        a_submit_that_committed_and_answered_500_is_unknown
    }
}
