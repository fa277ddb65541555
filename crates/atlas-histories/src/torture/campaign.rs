//! A run: the simulated cloud with its faults, one worker after the other on one store, and a kill
//! for each at a drawn moment.

use std::path::PathBuf;
use std::time::Duration;

use atlas_sim::Sim;
use atlas_store_redb::Redb;
use atlas_testkit::dialect::runpod;
use atlas_testkit::world::{CloudLedger, Fault, FaultKind, FaultPlan, Lag};
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::Score;
use crate::chance::Chance;
use crate::child::Hand;
use crate::disk::Disk;
use crate::faked::FakedClock;
use crate::judge::{Books, Verdict, is_live};
use crate::orders::{self, Orders, Task};

/// Simulated seconds for each second.
const SPEED: f64 = 100.0;
/// The longest a worker may take to come up, to settle, to end everything: many times what it takes
/// on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest a drawn moment is waited for.
const MOMENT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(1);

/// When a worker is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// While it starts: perhaps while it opens the store, or adopts.
    Starting(Duration),
    /// So long after it was up.
    Up(Duration),
    /// So long after so many of its orders reached the cloud.
    Ordered(u64, Duration),
    /// So long after one of its orders reached the cloud, whose answer it never gets.
    Unanswered(Duration),
    /// So long after a machine ended.
    Ended(Duration),
    /// After a pause longer than its lease.
    Asleep(Duration),
    /// So long after its clock was moved by so many seconds, and moved back.
    ClockStepped(i64, Duration),
    /// So long after its disk, which was full for as long, had room again.
    DiskFull(Duration),
    /// After an older copy of its store took the place of the newest, while it ran or before it
    /// started.
    FailedBack { running: bool },
}

pub(crate) struct Campaign {
    chance: Chance,
    kills: u32,
    runtime: Runtime,
    sim: Sim,
    dir: Disk,
    clock: Option<FakedClock>,
    /// A full run has pauses of minutes of real time.
    full: bool,
    score: Score,
}

impl Campaign {
    /// Starts the cloud.
    pub(crate) fn new(seed: u64, kills: u32, full: bool) -> Result<Self, String> {
        let runtime = Runtime::new().map_err(|error| format!("no runtime: {error}"))?;
        let mut options = atlas_sim::Options::default();
        (options.seed, options.speed, options.plans) = (seed, SPEED, weather());
        let sim = runtime
            .block_on(atlas_sim::serve(options))
            .map_err(|error| format!("the simulator: {error}"))?;
        // Reads lag for each machine by itself, within what the simulator announces.
        sim.world()
            .set_lag(runpod::NAME, Lag::within(Duration::from_secs(60)));
        let dir = Disk::new()?;
        let clock = FakedClock::find(dir.path());
        if clock.is_none() {
            eprintln!("torture: libfaketime is not installed, so no clock is moved");
        }
        if !dir.can_be_full() {
            eprintln!("torture: no file system can be mounted, so no disk is filled");
        }
        Ok(Self {
            chance: Chance::new(seed),
            kills,
            runtime,
            sim,
            dir,
            clock,
            full,
            score: Score::default(),
        })
    }

    /// Kills as often as asked, lets the last worker settle, and compares.
    pub(crate) fn run(mut self) -> Result<Verdict, String> {
        while self.score.kills < self.kills {
            self.one_life()?;
        }
        self.sim.world().calm();
        self.finish(Task::Settle)?;
        let ledger = self.ledger();
        let books = self.books()?;
        let mut verdict = Verdict::default();
        books.judge(&ledger, &mut verdict);
        self.finish(Task::End)?;
        let left = self
            .ledger()
            .machines
            .iter()
            .filter(|line| is_live(line))
            .count();
        if left > 0 {
            verdict.score.leaked += left;
            verdict
                .complaints
                .push(format!("{left} machines live after everything was ended"));
        }
        let score = &mut verdict.score;
        (score.kills, score.pauses) = (self.score.kills, self.score.pauses);
        (score.long_pauses, score.clock_steps) = (self.score.long_pauses, self.score.clock_steps);
        (score.full_disks, score.fail_backs) = (self.score.full_disks, self.score.fail_backs);
        verdict.score.created = ledger.created;
        if ledger.created < u64::from(self.kills) {
            verdict.complaints.push(format!(
                "only {} machines were made in {} lives",
                ledger.created, self.kills
            ));
        }
        let struck = self.sim.world().struck();
        if struck.is_empty() {
            verdict.complaints.push("no fault ever struck".to_owned());
        }
        let (sessions, live) = books.sizes();
        if live == 0 {
            verdict
                .complaints
                .push("no session outlived the kills, so none could be lost".to_owned());
        }
        let struck: Vec<String> = struck
            .iter()
            .map(|(kind, times)| format!("{kind} {times}"))
            .collect();
        eprintln!(
            "torture: {sessions} sessions, {live} of them to the end; faults: {}",
            struck.join(", ")
        );
        Ok(verdict)
    }

    /// One worker, from its start to its kill.
    fn one_life(&mut self) -> Result<(), String> {
        let moment = self.draw();
        let mut orders = self.orders(Task::Churn)?;
        orders.may_hold = matches!(moment, Moment::FailedBack { .. });
        let mut hand = self.start(&orders)?;
        if let Moment::Starting(after) = moment {
            std::thread::sleep(after);
        } else {
            self.until_up(&mut hand)?;
            let before = self.ledger();
            match moment {
                Moment::FailedBack { running } => return self.fail_back(hand, running),
                Moment::Asleep(span) => self.sleep_through(&hand, span)?,
                Moment::ClockStepped(by, after) => self.step_clock(by, after)?,
                Moment::DiskFull(span) => self.fill_disk(&mut hand, span)?,
                Moment::Starting(after) | Moment::Up(after) => {
                    std::thread::sleep(after);
                    if self.chance.percent(50) {
                        self.pause(&hand)?;
                    }
                }
                Moment::Ordered(orders, after) => {
                    self.until(&mut hand, |now| now.created >= before.created + orders)?;
                    std::thread::sleep(after);
                }
                Moment::Unanswered(after) => {
                    let lost =
                        Fault::new(runpod::NAME, "spawn_compute", FaultKind::CommitThenTimeout);
                    let unanswered = |world: &atlas_testkit::world::World| {
                        world
                            .struck()
                            .get(&FaultKind::CommitThenTimeout)
                            .copied()
                            .unwrap_or_default()
                    };
                    let struck = unanswered(self.sim.world());
                    self.sim.world().inject([lost]);
                    let world = self.sim.world().clone();
                    self.until(&mut hand, move |_| unanswered(&world) > struck)?;
                    std::thread::sleep(after);
                }
                Moment::Ended(after) => {
                    self.until(&mut hand, |now| now.destroyed > before.destroyed)?;
                    std::thread::sleep(after);
                }
            }
        }
        hand.kill()?;
        self.score.kills += 1;
        Ok(())
    }

    fn draw(&self) -> Moment {
        let chance = &self.chance;
        // The first one makes the store; a kill before that would only start over.
        match if self.score.kills == 0 {
            4
        } else {
            // Each of the rarer moments comes early and surely, and then by chance.
            match self.score.kills {
                2 => 10,
                4 => 11,
                6 => 12,
                8 => 13,
                _ => chance.draw(0..14),
            }
        } {
            0..2 => Moment::Starting(chance.millis(1..300)),
            2..4 => Moment::Up(chance.millis(1..4000)),
            4..7 => Moment::Ordered(chance.draw(1..6), chance.millis(0..25)),
            7..9 => Moment::Unanswered(chance.millis(0..1500)),
            9 => Moment::Ended(chance.millis(0..25)),
            // Of a full run, some pauses last minutes.
            10 if self.full && self.score.long_pauses < 2 => {
                Moment::Asleep(chance.millis(61_000..130_000))
            }
            10 => Moment::Asleep(chance.millis(2500..6000)),
            11 if self.clock.is_some() => {
                let by = i64::try_from(chance.draw(0..14_400)).unwrap_or_default() - 7200;
                Moment::ClockStepped(by, chance.millis(200..3000))
            }
            12 if self.dir.can_be_full() => Moment::DiskFull(chance.millis(500..4000)),
            13 => Moment::FailedBack {
                running: chance.percent(50),
            },
            _ => Moment::Up(chance.millis(1..4000)),
        }
    }

    fn start(&self, orders: &Orders) -> Result<Hand, String> {
        Hand::start(orders, self.sim.ready(), self.clock.as_ref())
    }

    /// Stops a worker for longer than its lease, and lets it go on for a while.
    fn sleep_through(&mut self, hand: &Hand, span: Duration) -> Result<(), String> {
        hand.signal(Signal::STOP)?;
        std::thread::sleep(span);
        hand.signal(Signal::CONT)?;
        std::thread::sleep(self.chance.millis(0..1500));
        self.score.long_pauses += 1;
        Ok(())
    }

    /// Moves the worker's clock, and moves it back.
    fn step_clock(&mut self, by: i64, after: Duration) -> Result<(), String> {
        if let Some(clock) = &self.clock {
            clock.step(by)?;
            std::thread::sleep(after);
            clock.step(0)?;
            std::thread::sleep(after / 2);
            self.score.clock_steps += 1;
        }
        Ok(())
    }

    /// Fills the worker's disk, and makes room again. The worker lives through it.
    fn fill_disk(&mut self, hand: &mut Hand, span: Duration) -> Result<(), String> {
        let filler = self.dir.fill()?;
        std::thread::sleep(span);
        drop(filler);
        let until = Instant::now() + span;
        while Instant::now() < until {
            hand.hear(LOOK)?;
        }
        self.score.full_disks += 1;
        Ok(())
    }

    /// An older copy of the store takes the place of the newest, as after a fail-over to a replica
    /// that lags, and later gives it back. While it is there, nothing may be ordered.
    fn fail_back(&mut self, mut hand: Hand, running: bool) -> Result<(), String> {
        let (store, older) = (self.store(), self.dir.path().join("older"));
        let newest = self.dir.path().join("newest");
        let failed = |error: std::io::Error| format!("the store could not be replaced: {error}");
        hand.signal(Signal::STOP)?;
        std::fs::copy(&store, &older).map_err(failed)?;
        hand.signal(Signal::CONT)?;
        // What comes now is not in the copy.
        let before = self.ledger().created;
        self.until(&mut hand, |now| now.created > before)?;
        std::thread::sleep(self.chance.millis(300..900));
        if running {
            hand.signal(Signal::STOP)?;
        } else {
            hand.kill()?;
            self.score.kills += 1;
            hand = self.held_soon(&newest, &older)?;
        }
        if running {
            std::fs::rename(&store, &newest).map_err(failed)?;
            std::fs::rename(&older, &store).map_err(failed)?;
            hand.signal(Signal::CONT)?;
        }
        let until = Instant::now() + PATIENCE;
        while hand.hear(LOOK)?.as_deref() != Some("held") {
            if Instant::now() > until {
                return Err("a worker whose store went back does not hold".to_owned());
            }
        }
        // An order that had left before may still arrive.
        std::thread::sleep(Duration::from_millis(1500));
        let held = self.ledger().created;
        std::thread::sleep(Duration::from_millis(1500));
        let ordered = self.ledger().created - held;
        if ordered > 0 {
            return Err(format!("a worker that holds ordered {ordered} machines"));
        }
        hand.kill()?;
        self.score.kills += 1;
        std::fs::rename(&newest, &store).map_err(failed)?;
        self.score.fail_backs += 1;
        Ok(())
    }

    /// Starts a worker on the older copy.
    fn held_soon(&self, newest: &std::path::Path, older: &std::path::Path) -> Result<Hand, String> {
        let failed = |error: std::io::Error| format!("the store could not be replaced: {error}");
        std::fs::rename(self.store(), newest).map_err(failed)?;
        std::fs::rename(older, self.store()).map_err(failed)?;
        let mut orders = self.orders(Task::Churn)?;
        orders.may_hold = true;
        let mut hand = self.start(&orders)?;
        self.until_up(&mut hand)?;
        Ok(hand)
    }

    fn until_up(&self, hand: &mut Hand) -> Result<(), String> {
        match hand.hear(PATIENCE)? {
            Some(line) if line == "started" => Ok(()),
            Some(line) => Err(format!("a worker said {line:?}")),
            None => Err(format!("a worker did not come up within {PATIENCE:?}")),
        }
    }

    /// Waits for a state of the cloud, at most so long: a moment that does not come is a kill at
    /// another.
    fn until(&self, hand: &mut Hand, is: impl Fn(&CloudLedger) -> bool) -> Result<(), String> {
        let latest = Instant::now() + MOMENT;
        while !is(&self.ledger()) && Instant::now() < latest {
            hand.hear(LOOK)?;
        }
        Ok(())
    }

    /// Shorter than its lease: the process notices nothing but that time has passed.
    fn pause(&mut self, hand: &Hand) -> Result<(), String> {
        hand.signal(Signal::STOP)?;
        std::thread::sleep(self.chance.millis(100..1200));
        hand.signal(Signal::CONT)?;
        std::thread::sleep(self.chance.millis(0..300));
        self.score.pauses += 1;
        Ok(())
    }

    /// A last worker, which ends by itself.
    fn finish(&self, task: Task) -> Result<(), String> {
        let mut hand = self.start(&self.orders(task)?)?;
        self.until_up(&mut hand)?;
        let status = hand.wait(PATIENCE * 2)?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the last worker ({task:?}) failed: {status}"))
        }
    }

    fn orders(&self, task: Task) -> Result<Orders, String> {
        let bounds = self.sim.ready().bounds;
        Ok(Orders {
            task,
            seed: self.chance.draw(0..u64::MAX),
            store: self.store(),
            secret: self.dir.path().join("realm"),
            policy: orders::policy(&bounds).map_err(|error| error.to_string())?,
            limits: orders::limits(&bounds),
            patience: PATIENCE,
            may_hold: false,
        })
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("atlas.redb")
    }

    fn ledger(&self) -> CloudLedger {
        self.sim
            .world()
            .ledger()
            .clouds
            .remove(runpod::NAME)
            .unwrap_or_default()
    }

    fn books(&self) -> Result<Books, String> {
        self.runtime
            .block_on(async { Books::read(&Redb::open(self.store())?).await })
            .map_err(|error| format!("the store cannot be read: {error}"))
    }
}

/// What goes wrong by chance, besides the kills.
fn weather() -> Vec<FaultPlan> {
    let plan = |operation: &str, kind, per_million| FaultPlan {
        cloud: Some(runpod::NAME.to_owned()),
        operation: Some(operation.to_owned()),
        kind,
        per_million,
    };
    vec![
        plan("spawn_compute", FaultKind::CommitThen500, 80_000),
        plan("spawn_compute", FaultKind::CommitThenReset, 80_000),
        plan("spawn_compute", FaultKind::CommitThenTimeout, 40_000),
        plan("spawn_compute", FaultKind::ResetBeforeCommit, 60_000),
        plan("spawn_compute", FaultKind::Status500, 60_000),
        plan("spawn_compute", FaultKind::Truncated, 40_000),
        plan("spawn_compute", FaultKind::Slow, 100_000),
        plan("terminate", FaultKind::Status500, 80_000),
        plan("terminate", FaultKind::CommitThenReset, 80_000),
        plan("terminate", FaultKind::CommitThenTimeout, 20_000),
        plan("list_compute", FaultKind::Status500, 20_000),
        plan("list_compute", FaultKind::Truncated, 20_000),
        plan("list_compute", FaultKind::Slow, 20_000),
        plan("get_compute", FaultKind::Status500, 20_000),
        plan("get_compute", FaultKind::Slow, 20_000),
    ]
}
