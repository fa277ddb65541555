//! Schedules that once broke an earlier wording of the protocol, step by step.

use super::*;
use atlas_core::Support;

use crate::event::{Death, Stuck};
use crate::record::Fate;

/// Runs until the session ends by itself, or an hour has passed.
fn run_to_its_end(run: &mut Run) {
    for _ in 0..720 {
        if run.record.ending.is_some() {
            return;
        }
        run.run(Duration::from_secs(5));
    }
}

fn last_touched(at: Timestamp, asked_at: Timestamp) -> Input {
    Input::Limits(Activity {
        at,
        source: "touch".to_owned(),
        asked_at,
    })
}

fn empty_walk(run: &Run) -> Input {
    Input::Walked(
        run.record.attempts[0].id,
        Ok(Walk {
            begun: run.now,
            complete: true,
            found: Vec::new(),
        }),
    )
}

#[test]
fn a_touch_an_extension_and_an_adoption_do_not_undo_an_end() {
    let mut run = Run::new(7, false, 0);
    run.run(Duration::from_secs(5));
    run.tell(&Input::Stop(Reason::Requested));
    run.tell(&Input::Extend(
        run.now.saturating_add(Duration::from_secs(9999)),
    ));
    run.tell(&last_touched(run.now, run.now));
    run.tell(&Input::Claim("b".to_owned()));
    assert_eq!(run.record.state(), SessionState::Terminating);
    assert!(run.record.not_idle_before.is_none());
}

#[test]
fn a_walk_that_was_under_way_when_a_delete_was_answered_is_walked_again() {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    let leaked = run.cloud.create(key, run.now, Duration::from_secs(1));
    run.tell(&Input::Answered(
        id,
        Answer::Unknown(vec![leaked.clone()], failure(ErrorKind::Timeout)),
    ));
    run.now = run.now.saturating_add(Duration::from_secs(3600));
    run.tell(&Input::Stop(Reason::Requested));
    // Both at once, as after a restart: the machine is gone already, its DELETE is answered while
    // the walk goes on.
    let begun = run.now;
    run.cloud.machines.get_mut(&leaked).unwrap().destroyed_at = Some(begun);
    run.now = run.now.saturating_add(Duration::from_millis(10));
    run.tell(&Input::Deleted(id, leaked, Ok(())));
    run.tell(&Input::Walked(
        id,
        Ok(Walk {
            begun,
            complete: true,
            found: Vec::new(),
        }),
    ));
    run.run(Duration::from_secs(3600));
    assert_eq!(
        run.record.state(),
        SessionState::Terminated,
        "{:#?} {:#?}",
        run.record,
        run.evidence
    );
}

#[test]
fn a_machine_with_a_copied_environment_is_not_taken_for_the_one_that_was_ordered() {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    run.tell(&Input::Answered(
        id,
        Answer::Unknown(Vec::new(), failure(ErrorKind::Timeout)),
    ));
    let theirs = run.cloud.create(key, run.now, Duration::from_secs(1));
    let mut copied = run.cloud.describe(&theirs);
    copied.keys = KeyCarriers {
        name: None,
        tag: Some(key),
        has_tag: true,
    };
    run.tell(&Input::Found(id, vec![copied.clone()]));
    assert!(run.record.serving().is_none());
    let ordered = run.cloud.create(key, run.now, Duration::from_secs(1));
    run.tell(&Input::Found(
        id,
        vec![copied, run.cloud.describe(&ordered)],
    ));
    assert_eq!(
        run.record
            .serving()
            .and_then(|attempt| attempt.serving.clone()),
        Some(ordered)
    );
    assert!(
        !run.events
            .iter()
            .any(|event| matches!(event, EventKind::DuplicateFound { .. })),
        "and it is not ours to end"
    );
}

#[test]
fn a_machine_that_looked_unclear_at_first_is_ended_once_it_served() {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    run.tell(&Input::Answered(
        id,
        Answer::Unknown(Vec::new(), failure(ErrorKind::Timeout)),
    ));
    let ours = run.cloud.create(key, run.now, Duration::from_secs(1));
    let whole = run.cloud.describe(&ours);
    let mut torn = whole.clone();
    torn.keys = KeyCarriers {
        name: None,
        tag: Some(key),
        has_tag: true,
    };
    run.tell(&Input::Found(id, vec![torn]));
    run.tell(&Input::Found(id, vec![whole]));
    assert!(run.record.serving().is_some());
    run.tell(&Input::Stop(Reason::Requested));
    run.run(Duration::from_secs(3600));
    assert_eq!(
        (run.record.state(), run.cloud.live()),
        (SessionState::Terminated, 0)
    );
}

#[test]
fn a_machine_seen_torn_first_and_whole_later_is_ended_with_an_attempt_that_was_stopped_meanwhile() {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    run.tell(&Input::Answered(
        id,
        Answer::Unknown(Vec::new(), failure(ErrorKind::Timeout)),
    ));
    run.tell(&Input::Stop(Reason::Requested));
    let ours = run.cloud.create(key, run.now, Duration::from_secs(1));
    let mut torn = run.cloud.describe(&ours);
    torn.keys = KeyCarriers {
        name: None,
        tag: Some(key),
        has_tag: true,
    };
    run.tell(&Input::Found(id, vec![torn]));
    run.run(Duration::from_secs(3600));
    assert_eq!(
        (run.record.state(), run.cloud.live()),
        (SessionState::Terminated, 0)
    );
}

#[test]
fn a_machine_older_than_its_order_is_neither_adopted_nor_ended() {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    let relabelled = run.cloud.create(
        key,
        run.now.saturating_sub(Duration::from_secs(86_400)),
        Duration::from_secs(1),
    );
    run.tell(&Input::Answered(
        id,
        Answer::Unknown(Vec::new(), failure(ErrorKind::Timeout)),
    ));
    run.tell(&Input::Found(id, vec![run.cloud.describe(&relabelled)]));
    assert!(run.record.serving().is_none());
    let ordered = run.cloud.create(key, run.now, Duration::from_secs(1));
    run.tell(&Input::Found(
        id,
        vec![
            run.cloud.describe(&relabelled),
            run.cloud.describe(&ordered),
        ],
    ));
    assert_eq!(
        run.record
            .serving()
            .and_then(|attempt| attempt.serving.clone()),
        Some(ordered)
    );
    assert!(
        !run.events
            .iter()
            .any(|event| matches!(event, EventKind::DuplicateFound { .. }))
    );
}

#[test]
fn an_order_that_left_an_id_and_no_machine_counts_against_the_patience_for_others() {
    let mut run = Run::new(7, false, 0);
    run.policy.max_orders = 1;
    let (id, key) = run.order();
    let gone = run.cloud.create(key, run.now, Duration::from_secs(1));
    run.cloud.machines.get_mut(&gone).unwrap().destroyed_at = Some(run.now);
    run.tell(&Input::Answered(
        id,
        Answer::Unknown(vec![gone], failure(ErrorKind::Timeout)),
    ));
    run.run(Duration::from_secs(3600));
    assert!(
        run.events
            .iter()
            .any(|event| matches!(event, EventKind::Absent { attempt } if *attempt == id))
    );
    let reason = run.record.ending.as_ref().map(|ending| &ending.reason);
    assert!(
        matches!(reason, Some(Reason::CannotPlace { .. })),
        "{reason:?}"
    );
}

#[test]
fn a_copy_that_carries_the_key_does_not_stand_for_the_machine_that_serves() {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    let serving = run.cloud.create(key, run.now, Duration::from_secs(1));
    run.tell(&Input::Answered(
        id,
        Answer::Created(Box::new(run.cloud.describe(&serving)), None),
    ));
    run.run(Duration::from_secs(600));
    assert_eq!(run.record.state(), SessionState::Ready);
    let copy = run.cloud.create(key, run.now, Duration::from_secs(1));
    run.cloud.machines.get_mut(&serving).unwrap().destroyed_at = Some(run.now);
    run.now = run.now.saturating_add(Duration::from_secs(120));
    run.tell(&Input::Found(id, vec![run.cloud.describe(&copy)]));
    run_to_its_end(&mut run);
    assert!(
        run.record.ending.is_some(),
        "the death shows though a copy lives: {:?}",
        run.record
    );
    assert!(
        run.cloud.machines[&copy].destroyed_at.is_none(),
        "and the copy is not ours to end while it may be somebody's"
    );
}

#[test]
fn a_404_on_a_fresh_id_is_no_proof_that_a_late_commit_made_nothing() {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    let leaked = run.cloud.create(key, run.now, Duration::from_secs(1));
    run.cloud.machines.get_mut(&leaked).unwrap().shows_at =
        run.now.saturating_add(Duration::from_secs(59));
    run.tell(&Input::Answered(
        id,
        Answer::Unknown(vec![leaked.clone()], failure(ErrorKind::Timeout)),
    ));
    run.tell(&Input::Read(id, leaked.clone(), run.now, Reading::Absent));
    run.run(Duration::from_secs(600));
    assert_eq!(
        run.record
            .serving()
            .and_then(|attempt| attempt.serving.clone()),
        Some(leaked)
    );
    assert_eq!((run.cloud.made, run.cloud.live()), (1, 1));
}

#[test]
fn walks_that_were_both_begun_before_the_bound_prove_nothing() {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    run.tell(&Input::Answered(
        id,
        Answer::Unknown(Vec::new(), failure(ErrorKind::Timeout)),
    ));
    for _ in 0..2 {
        run.now = run.now.saturating_add(Duration::from_secs(20));
        run.tell(&empty_walk(&run));
    }
    run.now = run.record.attempts[0].settled_at(&run.bounds);
    let me = Identity {
        now: "me".to_owned(),
        known: Some("me".to_owned()),
        aliases: Vec::new(),
    };
    run.tell(&Input::Conclude(id, Ok(me), Vec::new()));
    assert_eq!(run.record.attempts[0].phase, AttemptPhase::Unknown);
    // It was committed at the last moment, and shows only now.
    let late = run.cloud.create(key, run.now, Duration::from_secs(1));
    run.run(Duration::from_secs(60));
    assert_eq!(
        run.record
            .serving()
            .and_then(|attempt| attempt.serving.clone()),
        Some(late)
    );
}

#[test]
fn a_page_shift_that_hides_a_machine_from_both_walks_does_not_hide_it_from_the_point_read() {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    let machine = run.cloud.create(key, run.now, Duration::from_secs(1));
    run.tell(&Input::Answered(
        id,
        Answer::Created(Box::new(run.cloud.describe(&machine)), None),
    ));
    run.now = run.now.saturating_add(Duration::from_secs(600));
    run.tell(&Input::Stop(Reason::Requested));
    // Accepted, and forgotten by the cloud.
    run.tell(&Input::Deleted(id, machine.clone(), Ok(())));
    for _ in 0..2 {
        run.now = run.now.saturating_add(Duration::from_secs(61));
        run.tell(&empty_walk(&run));
    }
    let asked = plan(&run.record, &run.evidence, run.now, &run.cx()).effects;
    assert_eq!(asked, [Effect::PointRead(id, machine.clone())]);
    run.tell(&Input::Read(id, machine.clone(), run.now, Reading::Present));
    assert_eq!(run.record.state(), SessionState::Terminating);
    run.run(Duration::from_secs(1200));
    assert_eq!(
        (run.record.state(), run.cloud.live()),
        (SessionState::Terminated, 0)
    );
}

#[test]
fn an_order_sent_by_a_node_that_paused_after_calling_is_found_by_the_next() {
    let mut run = Run::new(7, false, 0);
    let (_, key) = run.order();
    // Another node takes over while the first stands still between its commit and its call.
    run.crash();
    run.run(run.bounds.lease);
    assert_eq!(run.record.attempts[0].phase, AttemptPhase::Unknown);
    let late = run
        .cloud
        .create(key, run.now, run.bounds.limits.visibility_bound);
    run.run(Duration::from_secs(600));
    assert_eq!(
        run.record
            .serving()
            .and_then(|attempt| attempt.serving.clone()),
        Some(late)
    );
    assert_eq!((run.cloud.made, run.record.attempts.len()), (1, 1));
}

#[test]
fn an_order_sent_after_its_attempt_was_given_up_is_ended_and_said() {
    let mut run = Run::new(7, false, 0);
    run.policy.max_orders = 1;
    let (id, key) = run.order();
    run.crash();
    run.run(Duration::from_secs(600));
    assert_eq!(run.record.attempts[0].phase, AttemptPhase::Absent);
    // The owner was paused across its lease: only the reaper can see this one.
    let late = run.cloud.create(key, run.now, Duration::from_secs(1));
    run.tell(&Input::Reap(id, vec![late.clone()]));
    assert!(run.events.contains(&EventKind::Reopened {
        attempt: id,
        compute: late
    }));
    run.run(Duration::from_secs(1200));
    assert_eq!(
        (run.record.state(), run.cloud.live()),
        (SessionState::Terminated, 0)
    );
}

#[test]
fn a_row_that_a_listing_still_shows_as_ended_tells_how_the_machine_died() {
    for (preempted, how) in [(false, Death::Terminated), (true, Death::Preempted)] {
        let mut run = Run::new(7, false, 0);
        let (id, key) = run.order();
        let machine = run.cloud.create(key, run.now, Duration::from_secs(1));
        let mut row = run.cloud.describe(&machine);
        run.tell(&Input::Answered(
            id,
            Answer::Created(Box::new(row.clone()), None),
        ));
        run.run(Duration::from_secs(300));
        run.cloud.machines.get_mut(&machine).unwrap().destroyed_at = Some(run.now);
        (row.status, row.preempted) = (ComputeStatus::Terminated, preempted);
        run.tell(&Input::Found(id, vec![row]));
        assert!(
            run.events.contains(&EventKind::Died { how }),
            "{:?}",
            run.events
        );
        assert_eq!(
            run.record.ending.as_ref().map(|ending| &ending.reason),
            Some(&Reason::MachineDied { how })
        );
    }
}

#[test]
fn a_double_that_cannot_be_ended_is_stuck_and_counted_until_it_is_gone() {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    let serving = run.cloud.create(key, run.now, Duration::from_secs(1));
    let double = run.cloud.create(key, run.now, Duration::from_secs(1));
    let price = run.cloud.describe(&double).cost_per_hour.unwrap();
    run.tell(&Input::Answered(
        id,
        Answer::Created(Box::new(run.cloud.describe(&serving)), None),
    ));
    run.tell(&Input::Found(
        id,
        vec![run.cloud.describe(&serving), run.cloud.describe(&double)],
    ));
    assert_eq!(run.record.cost(run.now).burn, price + price);
    run.tell(&Input::Deleted(
        id,
        double.clone(),
        Err(failure(ErrorKind::Unauthorized)),
    ));
    assert_eq!(run.record.attempts[0].stuck, Some(Stuck::Credential));
    assert!(run.events.contains(&EventKind::TerminateFailed {
        stuck: Stuck::Credential,
        burn: price
    }));
    let an_hour = Duration::from_secs(3600);
    run.now = run.now.saturating_add(an_hour);
    let both = (price + price).cost_of(an_hour).unwrap();
    assert_eq!(run.record.cost(run.now).estimated, both);
    // The key works again.
    run.tell(&Input::Deleted(id, double.clone(), Ok(())));
    run.cloud.machines.get_mut(&double).unwrap().destroyed_at = Some(run.now);
    let gone = run.now.saturating_add(run.bounds.limits.visibility_bound);
    run.now = gone;
    run.tell(&Input::Read(id, double, gone, Reading::Absent));
    assert_eq!(
        (
            &run.record.attempts[0].stuck,
            run.record.attempts[0].sighted[1].fate
        ),
        (&None, Fate::Gone)
    );
    assert_eq!(run.record.cost(run.now).burn, price);
}

#[test]
fn a_strangers_copy_is_not_on_the_bill() {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    let serving = run.cloud.create(key, run.now, Duration::from_secs(1));
    run.tell(&Input::Answered(
        id,
        Answer::Created(Box::new(run.cloud.describe(&serving)), None),
    ));
    let price = run.record.cost(run.now).burn;
    run.now = run.now.saturating_add(Duration::from_secs(3000));
    let copy = run.cloud.create(key, run.now, Duration::from_secs(1));
    let mut dear = run.cloud.describe(&copy);
    dear.cost_per_hour = Some(UsdPerHour::new(Usd::from_cents(9900)));
    for _ in 0..2 {
        run.tell(&Input::Found(
            id,
            vec![run.cloud.describe(&serving), dear.clone()],
        ));
        assert_eq!(run.record.cost(run.now).burn, price);
        run.tell(&Input::Stop(Reason::Requested));
    }
}

#[test]
fn what_supported_a_machine_is_stuck_no_more_once_it_is_released() {
    let mut run = Run::new(7, false, 0);
    let support = Support {
        kind: "rules".to_owned(),
        name: "r".to_owned(),
        id: None,
        spec: serde_json::Value::Null,
    };
    let (id, key) = run.intend(vec![support.clone()]);
    run.tell(&Input::SupportMade(id, 0, Ok(support)));
    run.tell(&Input::Call(id, None));
    let serving = run.cloud.create(key, run.now, Duration::from_secs(1));
    run.tell(&Input::Answered(
        id,
        Answer::Created(Box::new(run.cloud.describe(&serving)), None),
    ));
    run.tell(&Input::Stop(Reason::Requested));
    for _ in 0..3 {
        run.tell(&Input::SupportReleased(
            id,
            0,
            Err(failure(ErrorKind::Unauthorized)),
        ));
    }
    assert_eq!(run.record.attempts[0].stuck, Some(Stuck::Credential));
    run.tell(&Input::SupportReleased(id, 0, Ok(())));
    assert_eq!(run.record.attempts[0].stuck, None);
}

#[test]
fn what_was_delivered_and_not_ordered_is_ended_and_never_serves_and_the_next_offer_is_tried_at_once()
 {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    let other = Candidate::default();
    if let Some(placing) = run.record.placing.as_mut() {
        placing.candidates = Some(vec![other.clone(), other]);
    }
    let wrong = run.cloud.create(key, run.now, Duration::from_secs(1));
    run.tell(&Input::Answered(
        id,
        Answer::Unwanted(vec![wrong.clone()], failure(ErrorKind::NoCapacity)),
    ));
    assert!(
        plan(&run.record, &run.evidence, run.now, &run.cx())
            .effects
            .contains(&Effect::Intend),
        "nobody waits for its end"
    );
    assert_eq!(
        run.record
            .placing
            .as_ref()
            .and_then(|placing| placing.candidates.as_ref())
            .map(Vec::len),
        Some(1)
    );
    // The DELETE was accepted and forgotten by the cloud: the machine still exists.
    run.tell(&Input::Found(id, vec![run.cloud.describe(&wrong)]));
    assert!(run.record.serving().is_none());
    run.run(Duration::from_secs(1800));
    assert!(run.cloud.machines[&wrong].destroyed_at.is_some());
    assert_eq!(run.record.attempts[0].phase, AttemptPhase::Dead);
    assert_ne!(
        run.record
            .serving()
            .and_then(|attempt| attempt.serving.clone()),
        Some(wrong)
    );
}

#[test]
fn a_refusal_for_haste_does_not_hide_what_is_in_the_way() {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    let machine = run.cloud.create(key, run.now, Duration::from_secs(1));
    run.tell(&Input::Answered(
        id,
        Answer::Created(Box::new(run.cloud.describe(&machine)), None),
    ));
    run.tell(&Input::Stop(Reason::Requested));
    for kind in [
        ErrorKind::Unauthorized,
        ErrorKind::RateLimited,
        ErrorKind::RateLimited,
        ErrorKind::RateLimited,
    ] {
        run.tell(&Input::Deleted(id, machine.clone(), Err(failure(kind))));
    }
    assert_eq!(run.record.attempts[0].stuck, Some(Stuck::Credential));
    let said = run
        .events
        .iter()
        .filter(|event| matches!(event, EventKind::TerminateFailed { .. }))
        .count();
    assert_eq!(said, 1);
}

#[test]
fn an_order_whose_account_nobody_has_a_handle_on_ends_unsent_and_is_tried_again_later() {
    let mut run = Run::new(7, false, 0);
    let (id, _) = run.intend(Vec::new());
    run.tell(&Input::Answered(
        id,
        Answer::NotApplied(Next::SameLater, Failure::no_handle()),
    ));
    assert_eq!(run.record.attempts[0].phase, AttemptPhase::NotApplied);
    let again = plan(&run.record, &run.evidence, run.now, &run.cx());
    assert!(
        again.effects.is_empty() && again.due.is_some_and(|due| due > run.now),
        "{again:?}"
    );
    run.run(Duration::from_secs(3600));
    assert_eq!(
        (run.record.state(), run.cloud.live()),
        (SessionState::Ready, 1)
    );
}

#[test]
fn a_session_stopped_while_atlas_held_is_said_to_be_over_once_it_holds_no_more() {
    let mut run = Run::new(7, false, 0);
    run.held = true;
    run.tell(&Input::Stop(Reason::Requested));
    assert_eq!(run.record.state(), SessionState::Terminating);
    run.held = false;
    run.run(Duration::from_secs(5));
    assert_eq!(run.record.state(), SessionState::Terminated);
}

#[test]
fn an_intent_that_is_ended_while_atlas_holds_may_have_been_sent_in_a_past_we_lost() {
    let mut run = Run::new(7, false, 0);
    let (_, key) = run.intend(Vec::new());
    let lost = run.cloud.create(key, run.now, Duration::from_secs(1));
    run.held = true;
    run.tell(&Input::Stop(Reason::Requested));
    assert_eq!(run.record.attempts[0].phase, AttemptPhase::Unknown);
    run.held = false;
    run.tell(&Input::Accept);
    run.run(Duration::from_secs(3600));
    assert_eq!(
        (run.record.state(), run.cloud.live()),
        (SessionState::Terminated, 0)
    );
    assert!(run.cloud.machines[&lost].destroyed_at.is_some());
}

#[test]
fn where_a_cloud_tells_no_birth_the_first_machine_of_an_order_is_ended_however_late_it_is_seen() {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    run.tell(&Input::Answered(
        id,
        Answer::Unknown(Vec::new(), failure(ErrorKind::Timeout)),
    ));
    run.tell(&Input::Stop(Reason::Requested));
    let ours = run.cloud.create(key, run.now, Duration::from_secs(1));
    // No machine could be polled for an hour.
    run.now = run.now.saturating_add(Duration::from_secs(3600));
    let mut shown = run.cloud.describe(&ours);
    shown.created_at = None;
    run.tell(&Input::Walked(
        id,
        Ok(Walk {
            begun: run.now,
            complete: true,
            found: vec![shown],
        }),
    ));
    assert!(run.record.attempts[0].owns(&ours));
    run.run(Duration::from_secs(3600));
    assert_eq!(
        (run.record.state(), run.cloud.live()),
        (SessionState::Terminated, 0)
    );
}

#[test]
fn a_machine_that_an_answer_named_is_ours_though_a_listing_made_it_look_unclear_first() {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    run.tell(&Input::Answered(
        id,
        Answer::Unknown(Vec::new(), failure(ErrorKind::Timeout)),
    ));
    run.tell(&Input::Stop(Reason::Requested));
    let ours = run.cloud.create(key, run.now, Duration::from_secs(1));
    let mut torn = run.cloud.describe(&ours);
    torn.keys = KeyCarriers {
        name: None,
        tag: Some(key),
        has_tag: true,
    };
    run.tell(&Input::Found(id, vec![torn]));
    assert!(!run.record.attempts[0].owns(&ours));
    let me = Identity {
        now: "me".to_owned(),
        known: Some("me".to_owned()),
        aliases: Vec::new(),
    };
    run.tell(&Input::Conclude(id, Ok(me), vec![ours.clone()]));
    assert!(run.record.attempts[0].owns(&ours));
}

#[test]
fn a_support_that_was_made_after_its_release_was_said_is_released_again() {
    let mut run = Run::new(7, false, 0);
    let support = Support {
        kind: "app".to_owned(),
        name: "atlas-x".to_owned(),
        id: None,
        spec: serde_json::Value::Null,
    };
    let (id, _) = run.intend(vec![support.clone()]);
    run.tell(&Input::Stop(Reason::Requested));
    run.tell(&Input::SupportReleased(id, 0, Ok(())));
    run.tell(&Input::SupportMade(id, 0, Ok(support)));
    assert!(!run.record.is_over());
    let again = plan(&run.record, &run.evidence, run.now, &run.cx());
    assert!(
        again.effects.contains(&Effect::ReleaseSupport(id, 0)),
        "{again:?}"
    );
}

#[test]
fn an_activity_that_was_read_before_the_idle_end_ends_nobody_however_late_the_store_takes_it() {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    let machine = run.cloud.create(key, run.now, Duration::from_secs(1));
    run.tell(&Input::Answered(
        id,
        Answer::Created(Box::new(run.cloud.describe(&machine)), None),
    ));
    let touched = run.now;
    // Read when the warning was due; a touch was acknowledged since, and the store was away.
    let asked = touched.saturating_add(Duration::from_secs(3500));
    run.now = touched.saturating_add(Duration::from_secs(3700));
    run.tell(&last_touched(touched, asked));
    assert!(run.record.ending.is_none());
    run.tell(&last_touched(touched, run.now));
    assert!(
        run.record.ending.is_none(),
        "its warning was given only now"
    );
    run.now = run.now.saturating_add(Duration::from_secs(60));
    run.tell(&last_touched(touched, run.now));
    assert!(run.record.ending.is_some());
}

#[test]
fn an_answer_that_is_told_again_does_not_count_as_having_seen_the_machine() {
    let mut run = Run::new(7, false, 0);
    let (id, key) = run.order();
    let machine = run.cloud.create(key, run.now, Duration::from_secs(1));
    let answer = Input::Answered(
        id,
        Answer::Created(Box::new(run.cloud.describe(&machine)), None),
    );
    run.tell(&answer);
    run.tell(&answer);
    assert_eq!(run.record.attempts[0].seen_at, None);
}

/// An order that made so many machines and whose answer was lost, without an id. Since then, so
/// many seconds have passed without a walk.
fn lost_answer_and_a_pause(run: &mut Run, machines: u64, seconds: u64) -> AttemptId {
    let (id, key) = run.order();
    for _ in 0..machines {
        run.cloud.create(key, run.now, Duration::from_secs(1));
    }
    run.tell(&Input::Answered(
        id,
        Answer::Unknown(Vec::new(), failure(ErrorKind::Timeout)),
    ));
    run.now = run.now.saturating_add(Duration::from_secs(seconds));
    id
}

#[test]
fn after_a_pause_two_wrong_listings_do_not_prove_an_order_absent_that_nobody_searched_for() {
    for stopped in [false, true] {
        let mut run = Run::new(7, false, 0);
        let id = lost_answer_and_a_pause(&mut run, 1, 3600);
        if stopped {
            run.tell(&Input::Stop(Reason::Requested));
        }
        for _ in 0..2 {
            run.tell(&empty_walk(&run));
            run.now = run.now.saturating_add(Duration::from_secs(60));
        }
        let asked = plan(&run.record, &run.evidence, run.now, &run.cx()).effects;
        assert_eq!(asked, [Effect::Walk(id)], "stopped: {stopped}");
        // A driver that concludes nevertheless is refused.
        let me = Identity {
            now: "me".to_owned(),
            known: Some("me".to_owned()),
            aliases: Vec::new(),
        };
        run.tell(&Input::Conclude(id, Ok(me), Vec::new()));
        assert_eq!(run.record.attempts[0].phase, AttemptPhase::Unknown);
        run.run(Duration::from_secs(600));
        if stopped {
            assert_eq!(run.record.state(), SessionState::Terminated);
            assert_eq!(run.cloud.live(), 0);
        } else {
            let serving = run.record.serving().map(|attempt| attempt.id);
            assert_eq!((serving, run.cloud.live()), (Some(id), 1));
        }
    }
}

/// Walks as planned, without finding anything, until the end of the search. Returns when that is,
/// and the number of walks.
fn search_in_vain(run: &mut Run, id: AttemptId) -> (Timestamp, u32) {
    let mut walks = 0;
    loop {
        let planned = plan(&run.record, &run.evidence, run.now, &run.cx());
        match planned.effects.first() {
            Some(Effect::Walk(_)) => {
                walks += 1;
                run.tell(&empty_walk(run));
            }
            Some(effect) => {
                assert_eq!(*effect, Effect::Conclude(id));
                return (run.now, walks);
            }
            None => run.now = planned.due.expect("it is not over yet"),
        }
    }
}

#[test]
fn a_search_that_went_on_while_the_bounds_passed_ends_soon_after_them() {
    let mut run = Run::new(7, false, 0);
    let id = lost_answer_and_a_pause(&mut run, 0, 0);
    let settled = run.record.attempts[0].settled_at(&run.bounds);
    let (ended, _) = search_in_vain(&mut run, id);
    let late = ended.since(settled);
    assert!(late <= run.bounds.limits.visibility_bound / 2, "{late:?}");
}

#[test]
fn a_search_that_starts_after_a_pause_ends_within_a_visibility_bound() {
    let mut run = Run::new(7, false, 0);
    let id = lost_answer_and_a_pause(&mut run, 0, 3600);
    let woke = run.now;
    let (ended, walks) = search_in_vain(&mut run, id);
    assert!(ended.since(woke) <= run.bounds.limits.visibility_bound);
    assert!(walks <= 8, "{walks} walks");
}
