//! A run: the simulated cloud with its faults, one worker after the other on one store, and a kill
//! for each at a drawn moment.

use std::path::PathBuf;
use std::time::Duration;

use atlas_sim::Sim;
use atlas_store_redb::Redb;
use atlas_testkit::dialect::runpod;
use atlas_testkit::world::{CloudLedger, Fault, FaultKind, FaultPlan, Lag};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::Score;
use crate::chance::Chance;
use crate::child::Hand;
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
}

pub(crate) struct Campaign {
    chance: Chance,
    kills: u32,
    runtime: Runtime,
    sim: Sim,
    dir: TempDir,
    score: Score,
}

impl Campaign {
    /// Starts the cloud.
    pub(crate) fn new(seed: u64, kills: u32) -> Result<Self, String> {
        let runtime = Runtime::new().map_err(|error| format!("no runtime: {error}"))?;
        let mut options = atlas_sim::Options::default();
        (options.seed, options.speed, options.plans) = (seed, SPEED, weather());
        let sim = runtime
            .block_on(atlas_sim::serve(options))
            .map_err(|error| format!("the simulator: {error}"))?;
        // Reads lag for each machine by itself, within what the simulator announces.
        sim.world()
            .set_lag(runpod::NAME, Lag::within(Duration::from_secs(60)));
        let dir = tempfile::Builder::new()
            .prefix("atlas-torture-")
            .tempdir()
            .map_err(|error| format!("no directory: {error}"))?;
        Ok(Self {
            chance: Chance::new(seed),
            kills,
            runtime,
            sim,
            dir,
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
        (verdict.score.kills, verdict.score.pauses) = (self.score.kills, self.score.pauses);
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
        let mut hand = Hand::start(&self.orders(Task::Churn)?, self.sim.ready())?;
        if let Moment::Starting(after) = moment {
            std::thread::sleep(after);
        } else {
            self.until_up(&mut hand)?;
            let before = self.ledger();
            match moment {
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
            chance.draw(0..10)
        } {
            0..2 => Moment::Starting(chance.millis(1..300)),
            2..4 => Moment::Up(chance.millis(1..4000)),
            4..7 => Moment::Ordered(chance.draw(1..6), chance.millis(0..25)),
            7..9 => Moment::Unanswered(chance.millis(0..1500)),
            _ => Moment::Ended(chance.millis(0..25)),
        }
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
        let mut hand = Hand::start(&self.orders(task)?, self.sim.ready())?;
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
