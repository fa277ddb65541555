//! The events of a history, drawn from its seed before it starts: users, faults, failures. A prefix
//! of it is a history too.

use std::time::Duration;

use atlas_core::Usd;
use atlas_testkit::world::{FaultKind, FaultPlan};

use crate::cloud::Cloud;
use crate::dice::Dice;
use crate::refusal::Refusal;

/// One event.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A user asks for a session.
    Spawn(Wish),
    /// A user asks for a task.
    Task(Wish, Vec<String>),
    /// A user's browser sends something.
    Touch(usize),
    /// A user goes away, perhaps before the machine is there.
    Stop(usize),
    /// A node is killed.
    Crash(usize),
    /// A node is paused for this long.
    Pause(usize, Duration),
    /// A host's clock is wrong by this many milliseconds from now on.
    WrongClock(Whose, i64),
    /// Every host of the deployment sleeps for this long: wall clocks continue, monotonic ones do
    /// not.
    Sleep(Duration),
    /// A node is asked to shut down, and another process replaces it: a deploy.
    Redeploy(usize),
    /// A machine is changed from outside atlas.
    Outside(Outside),
    /// The store is restored to its contents at an earlier step.
    Rollback(Under),
    /// An operator looks, and accepts the store if it is held.
    Accept,
    /// The key is refused for this long.
    KeyRevoked(Duration),
    /// The clouds refuse a class of calls for this long.
    Refuse(Refusal, Duration),
    /// A deploy with the key of another account.
    WrongKey,
    /// A deploy with the right key again.
    RightKey,
}

/// An action of another user at the cloud.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outside {
    /// Rents a machine that is unrelated to us.
    Foreign,
    /// Rents one whose name looks like ours.
    LookAlike,
    /// Another deployment of atlas rents one on the same account.
    OtherRealm,
    /// Rents one with a key of our realm that we never signed.
    Forged,
    /// Copies one of ours, including the key.
    Clone,
    /// Makes a dozen copies of one of ours, including name and key.
    Fleet,
    /// Makes a machine with the environment of one of ours and another name.
    CopiedEnvironment,
    /// For a while, the cloud shows another user's machine under the name and environment of one of
    /// ours that is long gone.
    Misshown(Duration),
    /// Renames one of ours.
    Rename,
    /// Strips the tags of one of ours and gives it the name of another realm's.
    Misname,
    /// Ends one of ours.
    Destroy,
    /// Stops one of ours.
    Stop,
    /// Stops one of ours and starts it again after this long.
    StopForAWhile(Duration),
    /// The cloud takes one back.
    Preempt,
    /// One breaks.
    Fail,
}

/// The host whose clock is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The host that runs the store. A single node runs it itself.
    Store,
    /// That of one of several nodes.
    Node(usize),
}

/// Whether a rollback of the store happens under running nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Under {
    /// Every node is down during the rollback.
    Rest,
    /// Nodes continue as if nothing had happened.
    Running,
}

/// What a user asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) user: usize,
    /// The cloud the session is ordered on.
    pub(crate) cloud: Cloud,
    pub(crate) idle_ttl: Duration,
    pub(crate) max_runtime: Option<Duration>,
    pub(crate) max_cost: Option<Usd>,
    pub(crate) ready_timeout: Option<Duration>,
    pub(crate) respawns: u32,
    pub(crate) hedge: bool,
    /// A machine that its cloud may take back.
    pub(crate) spot: bool,
    /// Its machine reports to the host.
    pub(crate) reports: bool,
}

/// A whole drawn history.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// The clouds that its deployment rents from: one, or two side by side.
    pub(crate) clouds: Vec<Cloud>,
    pub(crate) nodes: usize,
    pub(crate) crashes: u64,
    /// The maximum number of machines on one page of a list.
    pub(crate) page_size: usize,
    pub(crate) store_failures_per_thousand: u64,
    /// How often a process is paused between two steps for longer than its lease.
    pub(crate) stalls: u64,
    /// Whether hosts count the time for which they slept.
    pub(crate) counts_sleep: bool,
    /// For how many of a hundred deletions only the answer arrives.
    pub(crate) lost_deletes_percent: u64,
    pub(crate) weather: Vec<FaultPlan>,
    /// Nothing goes wrong except what users and the clouds' own lags cause: every bound must hold
    /// to the second.
    pub(crate) calm: bool,
    pub(crate) steps: Vec<(Duration, Step)>,
}

impl Plan {
    /// Draws the history of this seed, on one or two of these clouds. There must be one.
    pub(crate) fn draw(seed: u64, among: &[Cloud]) -> Self {
        let which = Dice::new(seed, "clouds");
        let clouds = draw_clouds(&which, among);
        let dice = Dice::new(seed, "plan");
        let calm = dice.percent(12);
        let nodes = if dice.percent(50) {
            1
        } else {
            usize::try_from(dice.draw(2..5)).unwrap_or(2)
        };
        let mut steps = Vec::new();
        let few = usize::try_from(dice.draw(2..6)).unwrap_or(2);
        let crowd = Dice::new(seed, "crowd");
        // A crowd wants more calls than its account's pace has.
        let users = if crowd.percent(2) {
            usize::try_from(crowd.draw(20..36)).unwrap_or(20)
        } else {
            few
        };
        let spot = Dice::new(seed, "spot");
        let limits = Dice::new(seed, "limits");
        for user in 0..users {
            let cloud = *which.pick(&clouds);
            let may_be_taken_back = spot.percent(40) && cloud.lets_spot();
            draw_user(
                (&dice, &limits),
                (user, cloud, may_be_taken_back, which.percent(50)),
                calm,
                &mut steps,
            );
        }
        if !calm {
            draw_disasters(&dice, nodes, &mut steps);
            draw_time(&Dice::new(seed, "time"), nodes, &mut steps);
            draw_refusals(&Dice::new(seed, "refusals"), &mut steps);
            draw_accepts(&Dice::new(seed, "accepts"), &mut steps);
        }
        steps.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            clouds,
            nodes,
            // A crowd on pages of one machine takes a real minute of calls to list.
            page_size: if dice.percent(50) && users == few {
                usize::try_from(dice.draw(1..4)).unwrap_or(1)
            } else {
                1000
            },
            crashes: if calm { 0 } else { dice.draw(3..7) },
            store_failures_per_thousand: if calm { 0 } else { *dice.pick(&[0, 0, 2, 10]) },
            stalls: if calm || nodes == 1 || dice.percent(80) {
                0
            } else {
                dice.draw(1..4)
            },
            counts_sleep: Dice::new(seed, "host").percent(50),
            lost_deletes_percent: if calm { 0 } else { *dice.pick(&[0, 0, 0, 40]) },
            weather: if calm {
                Vec::new()
            } else {
                draw_weather(&dice)
            },
            calm,
            steps,
        }
    }

    /// The same history, ended early.
    pub(crate) fn prefix(&self, steps: usize) -> Self {
        let mut plan = self.clone();
        plan.steps.truncate(steps);
        plan
    }
}

/// One, and in two of five histories two.
fn draw_clouds(dice: &Dice, among: &[Cloud]) -> Vec<Cloud> {
    let first = *dice.pick(among);
    let others: Vec<Cloud> = among
        .iter()
        .copied()
        .filter(|cloud| *cloud != first)
        .collect();
    let two = !others.is_empty() && dice.percent(40);
    [first]
        .into_iter()
        .chain(two.then(|| *dice.pick(&others)))
        .collect()
}

/// What a session may cost at most. Some caps end it, unless something else is to.
fn draw_cap(dice: &Dice, spared: bool) -> Option<Usd> {
    let cents = if dice.percent(40) && !spared {
        dice.draw(3..30)
    } else {
        dice.draw(100..300)
    };
    let capped = dice.percent(70);
    capped.then(|| Usd::from_cents(i64::try_from(cents).unwrap_or(100)))
}

fn draw_user(
    (dice, limits): (&Dice, &Dice),
    (user, cloud, spot, reports): (usize, Cloud, bool, bool),
    calm: bool,
    steps: &mut Vec<(Duration, Step)>,
) {
    let start = dice.seconds(0..900);
    // One forgets the session, so that almost every history has one that ends for idleness.
    let forgets = limits.percent(if user == 0 { 97 } else { 10 });
    // Some outlive the history: they show that nothing alive is lost.
    let ttl = if dice.percent(30) && !forgets {
        dice.seconds(14_400..20_000)
    } else {
        dice.seconds(120..900)
    };
    let some = |share: u64, range| dice.percent(share).then(|| dice.seconds(range));
    let wish = Wish {
        user,
        cloud,
        idle_ttl: ttl,
        max_runtime: some(20, 600..2400).filter(|_| !forgets),
        max_cost: draw_cap(limits, forgets),
        ready_timeout: some(30, 300..900),
        respawns: if dice.percent(40) { 2 } else { 0 },
        hedge: !calm && dice.percent(15),
        spot,
        reports,
    };
    if dice.percent(25) && !forgets {
        let seconds = dice.draw(5..400);
        let command = match dice.draw(0..4) {
            0 => vec!["true".to_owned()],
            1 => vec![
                "sh".to_owned(),
                "-c".to_owned(),
                format!("sleep {seconds}; exit 3"),
            ],
            2 => vec!["false".to_owned()],
            _ => vec!["sleep".to_owned(), seconds.to_string()],
        };
        steps.push((
            start,
            Step::Task(
                Wish {
                    max_runtime: Some(Duration::from_secs(1800)),
                    ..wish
                },
                command,
            ),
        ));
    } else {
        steps.push((start, Step::Spawn(wish)));
    }
    let mut at = start;
    for _ in 0..dice.draw(0..12) {
        at += dice.seconds(10..ttl.as_secs().min(900) * 11 / 10);
        steps.push((at, Step::Touch(user)));
    }
    if dice.percent(20) {
        // A user comes back just when the session is about to end.
        steps.push((at + ttl + dice.seconds(0..3), Step::Touch(user)));
    }
    if dice.percent(55) && !forgets {
        let gone = if dice.percent(30) {
            start + dice.seconds(0..30)
        } else {
            at + dice.seconds(0..600)
        };
        steps.push((gone, Step::Stop(user)));
    }
}

fn draw_weather(dice: &Dice) -> Vec<FaultPlan> {
    let kinds = [
        FaultKind::CommitThen500,
        FaultKind::CommitThenReset,
        FaultKind::CommitThenTimeout,
        FaultKind::DuplicateCommit,
        FaultKind::ResetBeforeCommit,
        FaultKind::Status500,
        FaultKind::Status429,
        FaultKind::Html502,
        FaultKind::Truncated,
        FaultKind::Slow,
        FaultKind::LateAppearance,
        FaultKind::StaleList,
        FaultKind::PartialList,
        FaultKind::EmptyList,
        FaultKind::PageShift,
        FaultKind::NoCapacity,
        FaultKind::NeverReady,
        FaultKind::Preempt,
        FaultKind::Vanish,
    ];
    let mut plans = Vec::new();
    for kind in kinds {
        if dice.percent(35) {
            // What spoils a create must be likely, for there are few; what spoils a read must not
            // drown everything.
            let (operation, per_million) = match kind {
                FaultKind::Preempt | FaultKind::Vanish => (None, 1_500),
                FaultKind::DuplicateCommit
                | FaultKind::LateAppearance
                | FaultKind::NoCapacity
                | FaultKind::NeverReady => (None, 200_000),
                FaultKind::CommitThen500
                | FaultKind::CommitThenReset
                | FaultKind::CommitThenTimeout
                | FaultKind::Truncated
                    if dice.percent(70) =>
                {
                    (Some("spawn_compute".to_owned()), 250_000)
                }
                FaultKind::PartialList
                | FaultKind::EmptyList
                | FaultKind::PageShift
                | FaultKind::StaleList => {
                    // Some clouds have such a day.
                    (None, if dice.percent(20) { 500_000 } else { 60_000 })
                }
                _ => (None, 25_000),
            };
            plans.push(FaultPlan {
                cloud: None,
                operation,
                kind,
                per_million,
            });
        }
    }
    plans
}

/// Hosts that sleep, and clocks that are set wrong: for a while, for good, or over a restart.
fn draw_time(dice: &Dice, nodes: usize, steps: &mut Vec<(Duration, Step)>) {
    let when = || dice.seconds(30..3000);
    if dice.percent(20) {
        let span = if dice.percent(50) {
            dice.seconds(20..900)
        } else {
            dice.seconds(3600..8 * 3600)
        };
        steps.push((when(), Step::Sleep(span)));
    }
    if dice.percent(30) {
        let node = usize::try_from(dice.draw(0..nodes as u64)).unwrap_or(0);
        let whose = if nodes == 1 || dice.percent(50) {
            Whose::Store
        } else {
            Whose::Node(node)
        };
        let error = i64::try_from(dice.draw(0..14_400_000)).unwrap_or(0) - 7_200_000;
        let at = if dice.percent(30) {
            Duration::ZERO
        } else {
            when()
        };
        steps.push((at, Step::WrongClock(whose, error)));
        if dice.percent(40) {
            steps.push((at + dice.seconds(0..60), Step::Crash(node)));
        }
        if dice.percent(60) {
            let until = at + dice.seconds(20..1800);
            steps.push((until, Step::WrongClock(whose, 0)));
        }
    }
}

/// An operator who does not wait for the end of all trouble.
fn draw_accepts(dice: &Dice, steps: &mut Vec<(Duration, Step)>) {
    let rolled_back = |(_, step): &&(Duration, Step)| matches!(step, Step::Rollback(_));
    let held = steps.iter().find(rolled_back).map(|(at, _)| *at);
    if let Some(at) = held
        && dice.percent(70)
    {
        steps.push((at + dice.seconds(60..600), Step::Accept));
    }
}

fn draw_refusals(dice: &Dice, steps: &mut Vec<(Duration, Step)>) {
    if dice.percent(30) {
        for _ in 0..dice.draw(1..3) {
            let (refusal, span) = Refusal::draw(dice);
            steps.push((dice.seconds(10..2400), Step::Refuse(refusal, span)));
        }
    }
    if dice.percent(15) {
        let resumed = Outside::StopForAWhile(dice.seconds(5..300));
        steps.push((dice.seconds(60..3000), Step::Outside(resumed)));
    }
}

fn draw_disasters(dice: &Dice, nodes: usize, steps: &mut Vec<(Duration, Step)>) {
    let node = || usize::try_from(dice.draw(0..nodes as u64)).unwrap_or(0);
    let when = || dice.seconds(30..3000);
    for _ in 0..dice.draw(0..3) {
        steps.push((when(), Step::Crash(node())));
    }
    for _ in 0..dice.draw(0..3) {
        let span = if dice.percent(50) {
            dice.seconds(1..14)
        } else {
            dice.seconds(16..240)
        };
        steps.push((when(), Step::Pause(node(), span)));
    }
    for _ in 0..dice.draw(0..2) {
        steps.push((when(), Step::Redeploy(node())));
    }
    let outside = [
        Outside::Foreign,
        Outside::LookAlike,
        Outside::OtherRealm,
        Outside::Forged,
        Outside::Clone,
        Outside::Fleet,
        Outside::CopiedEnvironment,
        Outside::Misshown(dice.seconds(20..100)),
        Outside::Rename,
        Outside::Misname,
        Outside::Destroy,
        Outside::Stop,
        Outside::Preempt,
        Outside::Fail,
    ];
    for _ in 0..dice.draw(1..5) {
        steps.push((when(), Step::Outside(*dice.pick(&outside))));
    }
    if dice.percent(12) {
        let under = if dice.percent(50) {
            Under::Rest
        } else {
            Under::Running
        };
        steps.push((when(), Step::Rollback(under)));
    }
    if dice.percent(10) {
        steps.push((when(), Step::KeyRevoked(dice.seconds(60..600))));
    }
    if dice.percent(10) {
        let at = when();
        steps.push((at, Step::WrongKey));
        steps.push((at + dice.seconds(60..1500), Step::RightKey));
    }
}
