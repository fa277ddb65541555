//! Every interleaving of create, crash, list, stop and reap, with two owners and lists that lag: an
//! exhaustive model of the protocol.
//!
//! Small on purpose: one session, one launch key, at most two calls. Time is one bit, "the bound
//! has passed": before it a list may omit anything and a call may still arrive; after it neither.
//! Each rule of the protocol is a switch, and each switch that is off must make the checker find
//! the loss that the rule exists to prevent.

use stateright::{Checker, Model, Property};

/// Which rules of the protocol hold.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// The record is committed before the call leaves.
    intent_first: bool,
    /// "Absent" and "terminated" are concluded only after the bound.
    wait_for_the_bound: bool,
    /// A lost answer leads to a search, not to a second call.
    search_before_retry: bool,
    /// The reaper walks the cloud first and reads records after.
    list_before_records: bool,
    /// The reaper spares machines whose attempt is still open.
    spare_open_attempts: bool,
    /// Writes are refused once another owner has taken over.
    fences: bool,
}

const PROTOCOL: Rules = Rules {
    intent_first: true,
    wait_for_the_bound: true,
    search_before_retry: true,
    list_before_records: true,
    spare_open_attempts: true,
    fences: true,
};

const OWNERS: usize = 2;
const MACHINES: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Machine {
    None,
    Alive,
    Dead,
}

/// The attempt, as the store holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Record {
    Missing,
    Calling,
    Live(usize),
    Absent,
    Terminating,
    Terminated,
}

/// What one owner is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Doing {
    Nothing,
    /// It committed `calling`, and has not sent the call.
    Committed,
    /// Its create call is under way.
    Calling,
    /// It got the machine's id, and has not recorded it.
    Answered(usize),
    /// It saw these machines in a list.
    Listed {
        seen: [bool; MACHINES],
        after_bound: bool,
        record_before: Record,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    machines: [Machine; MACHINES],
    record: Record,
    /// The user still wants the session.
    wanted: bool,
    /// Calls that the cloud may still commit.
    in_flight: u8,
    calls: u8,
    bound_passed: bool,
    /// Who holds the session; writes of the other are refused where fences hold.
    holder: usize,
    doing: [Doing; OWNERS],
    crashes: u8,
    /// A live session's machine was deleted by the reaper.
    killed_live: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Commit(usize),
    Send(usize),
    CloudCommits,
    Answer(usize, usize),
    LoseAnswer(usize),
    Record(usize),
    Crash(usize),
    BoundPasses,
    List(usize, [bool; MACHINES]),
    Conclude(usize),
    Reap(usize),
    UserStops,
    Delete(usize),
    ConcludeTerminated(usize),
    Retry(usize),
}

impl State {
    fn begun(&self) -> bool {
        self.calls > 0 || self.record != Record::Missing || self.doing.contains(&Doing::Committed)
    }
}

impl Model for Rules {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            machines: [Machine::None; MACHINES],
            record: Record::Missing,
            wanted: true,
            in_flight: 0,
            calls: 0,
            bound_passed: false,
            holder: 0,
            doing: [Doing::Nothing; OWNERS],
            crashes: 0,
            killed_live: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.in_flight > 0 {
            actions.push(Action::CloudCommits);
        }
        if !state.bound_passed && state.begun() {
            actions.push(Action::BoundPasses);
        }
        if state.wanted && matches!(state.record, Record::Live(_) | Record::Calling) {
            actions.push(Action::UserStops);
        }
        for owner in 0..OWNERS {
            self.owner_actions(state, owner, actions);
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Commit(owner) => {
                if self.intent_first {
                    state.record = Record::Calling;
                }
                state.doing[owner] = Doing::Committed;
            }
            Action::Send(owner) | Action::Retry(owner) => {
                state.doing[owner] = Doing::Calling;
                state.in_flight += 1;
                state.calls += 1;
            }
            Action::CloudCommits => {
                let slot = state
                    .machines
                    .iter()
                    .position(|machine| *machine == Machine::None)?;
                state.machines[slot] = Machine::Alive;
                state.in_flight -= 1;
            }
            Action::Answer(owner, machine) => state.doing[owner] = Doing::Answered(machine),
            Action::LoseAnswer(owner) => state.doing[owner] = Doing::Nothing,
            Action::Record(owner) => {
                let Doing::Answered(machine) = state.doing[owner] else {
                    return None;
                };
                state.doing[owner] = Doing::Nothing;
                if state.record == Record::Calling
                    || (state.record == Record::Missing && !self.intent_first)
                {
                    state.record = Record::Live(machine);
                }
            }
            Action::Crash(owner) => {
                state.crashes += 1;
                state.doing[owner] = Doing::Nothing;
                state.holder = 1 - owner;
            }
            Action::BoundPasses => {
                state.bound_passed = true;
                state.in_flight = 0;
            }
            Action::List(owner, seen) => {
                state.doing[owner] = Doing::Listed {
                    seen,
                    after_bound: state.bound_passed,
                    record_before: state.record,
                };
            }
            Action::Conclude(owner) => {
                let Doing::Listed { seen, .. } = state.doing[owner] else {
                    return None;
                };
                state.doing[owner] = Doing::Nothing;
                state.record = match seen.iter().position(|s| *s) {
                    Some(machine) => Record::Live(machine),
                    None => Record::Absent,
                };
                // Every other machine under the key gets its terminate intent in the same
                // transaction.
                for (machine, seen) in seen.iter().enumerate() {
                    if *seen && state.record != Record::Live(machine) {
                        state.machines[machine] = Machine::Dead;
                    }
                }
            }
            Action::Reap(owner) => {
                let Doing::Listed {
                    seen,
                    record_before,
                    ..
                } = state.doing[owner]
                else {
                    return None;
                };
                state.doing[owner] = Doing::Nothing;
                let record = if self.list_before_records {
                    state.record
                } else {
                    record_before
                };
                for (machine, seen) in seen.iter().enumerate() {
                    let spared = match record {
                        Record::Live(own) => own == machine,
                        Record::Calling => self.spare_open_attempts,
                        Record::Missing => true,
                        Record::Absent | Record::Terminating | Record::Terminated => false,
                    };
                    if *seen && !spared && state.machines[machine] == Machine::Alive {
                        state.killed_live |= state.record == Record::Live(machine) && state.wanted;
                        state.machines[machine] = Machine::Dead;
                    }
                }
            }
            Action::UserStops => {
                state.wanted = false;
                state.record = Record::Terminating;
            }
            Action::Delete(owner) => {
                let Doing::Listed { seen, .. } = state.doing[owner] else {
                    return None;
                };
                for (machine, seen) in seen.iter().enumerate() {
                    if *seen {
                        state.machines[machine] = Machine::Dead;
                    }
                }
                state.doing[owner] = Doing::Nothing;
            }
            Action::ConcludeTerminated(owner) => {
                state.doing[owner] = Doing::Nothing;
                state.record = Record::Terminated;
            }
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("terminated is true", |_, state: &State| {
                state.record != Record::Terminated
                    || (!state.machines.contains(&Machine::Alive) && state.in_flight == 0)
            }),
            Property::always(
                "a live session's machine is never reaped",
                |_, state: &State| !state.killed_live,
            ),
            Property::always(
                "at rest every machine is a session's",
                |rules: &Rules, state: &State| {
                    !rules.at_rest(state)
                        || state.machines.iter().enumerate().all(|(machine, m)| {
                            *m != Machine::Alive || state.record == Record::Live(machine)
                        })
                },
            ),
            Property::always("at most one call has no known end", |_, state: &State| {
                state.calls <= 1 || !state.machines.iter().all(|m| *m == Machine::Alive)
            }),
        ]
    }
}

impl Rules {
    /// Nothing is left to do but for the reaper to look again: whatever is alive now stays alive.
    fn at_rest(&self, state: &State) -> bool {
        state.bound_passed
            && state.in_flight == 0
            && state.doing == [Doing::Nothing; OWNERS]
            && match state.record {
                Record::Live(_) | Record::Terminated => !self.reaper_would_act(state),
                Record::Absent => !self.reaper_would_act(state),
                Record::Missing => state.calls > 0,
                Record::Calling | Record::Terminating => false,
            }
    }

    fn reaper_would_act(&self, state: &State) -> bool {
        state
            .machines
            .iter()
            .enumerate()
            .any(|(machine, m)| *m == Machine::Alive && state.record != Record::Live(machine))
    }

    fn owner_actions(&self, state: &State, owner: usize, actions: &mut Vec<Action>) {
        let may_write = state.holder == owner || !self.fences;
        let alive = |machine: &usize| state.machines[*machine] == Machine::Alive;
        if state.crashes < 1 && state.doing[owner] != Doing::Nothing {
            actions.push(Action::Crash(owner));
        }
        match state.doing[owner] {
            Doing::Nothing => {
                if may_write && !state.begun() {
                    actions.push(Action::Commit(owner));
                }
                if !self.search_before_retry
                    && may_write
                    && state.record == Record::Calling
                    && state.calls == 1
                {
                    actions.push(Action::Retry(owner));
                }
                if state.begun() {
                    // Before the bound a list may omit any machine; after it, none.
                    for pattern in 0..(1_u8 << MACHINES) {
                        let seen: [bool; MACHINES] =
                            std::array::from_fn(|m| pattern & (1 << m) != 0);
                        let possible = (0..MACHINES).all(|m| {
                            if seen[m] {
                                alive(&m)
                            } else {
                                !state.bound_passed || !alive(&m)
                            }
                        });
                        if possible {
                            actions.push(Action::List(owner, seen));
                        }
                    }
                }
            }
            Doing::Committed => {
                // A lease that has run out, renewed or not, forbids the call.
                if (may_write && !state.bound_passed) || !self.fences {
                    actions.push(Action::Send(owner));
                }
                actions.push(Action::LoseAnswer(owner));
            }
            Doing::Calling => {
                if state.in_flight == 0 {
                    (0..MACHINES)
                        .filter(alive)
                        .for_each(|machine| actions.push(Action::Answer(owner, machine)));
                }
                actions.push(Action::LoseAnswer(owner));
            }
            Doing::Answered(_) => {
                if may_write {
                    actions.push(Action::Record(owner));
                } else {
                    actions.push(Action::LoseAnswer(owner));
                }
            }
            Doing::Listed {
                seen,
                after_bound,
                record_before,
            } => {
                let found = seen.contains(&true);
                let settled = after_bound || !self.wait_for_the_bound;
                if may_write
                    && state.record == Record::Calling
                    && record_before == Record::Calling
                    && (found || settled)
                {
                    actions.push(Action::Conclude(owner));
                }
                if state.record == Record::Terminating && found {
                    actions.push(Action::Delete(owner));
                }
                if may_write
                    && state.record == Record::Terminating
                    && record_before == Record::Terminating
                    && !found
                    && settled
                {
                    actions.push(Action::ConcludeTerminated(owner));
                }
                actions.push(Action::Reap(owner));
            }
        }
    }
}

/// The name of the property that breaks, if one does.
fn broken(rules: Rules) -> Option<&'static str> {
    let checker = rules.checker().threads(1).spawn_bfs().join();
    assert!(
        checker.unique_state_count() > 20,
        "the model explores next to nothing"
    );
    checker.discoveries().into_keys().min()
}

#[test]
fn no_interleaving_of_the_protocol_loses_a_machine() {
    let checker = PROTOCOL.checker().threads(1).spawn_bfs().join();
    checker.assert_properties();
    assert!(
        checker.unique_state_count() > 500,
        "only {} states",
        checker.unique_state_count()
    );
}

#[test]
fn without_the_intent_a_crash_leaks_a_machine() {
    assert_eq!(
        broken(Rules {
            intent_first: false,
            ..PROTOCOL
        }),
        Some("at rest every machine is a session's")
    );
}

#[test]
fn without_the_bound_terminated_is_said_of_a_machine_that_lives() {
    assert!(
        broken(Rules {
            wait_for_the_bound: false,
            ..PROTOCOL
        })
        .is_some_and(|name| name.contains("terminated") || name.contains("at rest"))
    );
}

#[test]
fn a_blind_retry_makes_two_machines() {
    assert_eq!(
        broken(Rules {
            search_before_retry: false,
            ..PROTOCOL
        }),
        Some("at most one call has no known end")
    );
}

#[test]
fn records_read_before_the_list_kill_an_adopted_machine() {
    let rules = Rules {
        list_before_records: false,
        spare_open_attempts: false,
        ..PROTOCOL
    };
    assert_eq!(
        broken(rules),
        Some("a live session's machine is never reaped")
    );
}

#[test]
fn without_a_fence_an_owner_paused_before_its_call_makes_a_machine_of_a_terminated_session() {
    assert_eq!(
        broken(Rules {
            fences: false,
            ..PROTOCOL
        }),
        Some("terminated is true")
    );
}
