//! Deterministic simulation: one seed decides everything that happens to a dataflow's lake.
//!
//! ```text
//! seed --> scheduler --+--> which operation of which process goes on, and what becomes of it
//!                      +--> crashes before and after it, lost answers, 503 for a while
//!                      +--> new processes beside sleeping old ones, which wake as zombies; numbers of writers vary
//!                      +--> other engines: appends, OPTIMIZEs that read now and commit later
//! ```
//! The processes are the real committer and writers; their feed, clock, store and sleep are simulated. One task is
//! polled at a time, and each task waits at every store operation, so a seed replays exactly. (Writers wait for the
//! store on threads of their own: their operations are decided at once.)
//!
//! At the end, a reader that follows Delta's protocol to the letter checks every snapshot of the ledger:
//! 1. epochs ascend, generations do not descend, and progress only goes forward,
//! 2. each table, at its version, holds what it should at the snapshot's progress, and possibly rows of other writers,
//! 3. the audit of a restart has found nothing but rows of other writers,
//! 4. only a zombie may stop with an error other than the store's.
//!
//! `ALLUVIUM_SEEDS=20000 cargo test --lib simulation` runs more; `ALLUVIUM_SEED=17` replays one, and prints what
//! happens.

mod others;
mod process;
mod reader;
mod store;
mod workload;

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};

use object_store::memory::InMemory;
use tokio::runtime::Runtime;

use self::others::Optimize;
use self::process::{ProcessStart, SimulatedReport, Stopped};
use self::reader::{LogReplay, now};
use self::store::{Fate, Random, World};
use self::workload::{SimFeed, specs};
use super::Safeguards;
use super::ledger::{self, LedgerEntry};
use crate::repr::{Epoch, FeedPositions};

/// Counts what happened in a run, so that a test can see that every kind of event is simulated.
#[derive(Debug, Default)]
struct Summary {
    snapshots: u64,
    crashes: u64,
    zombies: u64,
    appends: u64,
    optimizes: u64,
    relocations: u64,
    compactions: u64,
    corrections: u64,
    lost: u64,
    refused: u64,
}

type Task = Pin<Box<dyn Future<Output = Result<(), Stopped>>>>;

struct Process {
    number: usize,
    task: Task,
    report: Arc<SimulatedReport>,
    /// The step until which it sleeps.
    asleep: u64,
}

struct Simulation {
    world: Arc<World>,
    feed: SimFeed,
    safeguards: Safeguards,
    processes: Vec<Process>,
    started: usize,
    all: Vec<Arc<SimulatedReport>>,
    step: u64,
    optimizes: Vec<(u64, Optimize)>,
    others: u64,
    summary: Summary,
    verbose: bool,
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap()
    })
}

impl Simulation {
    fn new(seed: u64, safeguards: Safeguards, verbose: bool) -> Simulation {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        (0..8).for_each(|_| _ = random.below(2));
        Simulation {
            world: Arc::new(World {
                objects: Arc::new(InMemory::new()),
                waiting: Mutex::default(),
                random: Mutex::new(random),
                faults: Mutex::new(true),
            }),
            feed: SimFeed::new(seed),
            safeguards,
            processes: Vec::new(),
            started: 0,
            all: Vec::new(),
            step: 0,
            optimizes: Vec::new(),
            others: 0,
            summary: Summary::default(),
            verbose,
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{:5} {}", self.step, what());
        }
    }

    fn below(&self, n: u64) -> u64 {
        self.world.random().below(n)
    }

    fn chance(&self, permille: u64) -> bool {
        self.world.random().chance(permille)
    }

    fn start(&mut self) -> Result<(), String> {
        let report = Arc::new(SimulatedReport::default());
        let writers = 1 + self.below(3) as usize;
        let start = ProcessStart {
            process: self.started,
            writers,
            safeguards: self.safeguards,
            feed: self.feed,
            runtime: runtime().handle().clone(),
            world: self.world.clone(),
            report: report.clone(),
        };
        self.say(|| format!("process {} starts with {writers} writers", self.started));
        self.processes.push(Process {
            number: self.started,
            task: Box::pin(process::run(start)),
            report: report.clone(),
            asleep: 0,
        });
        self.all.push(report);
        self.started += 1;
        self.poll(self.processes.len() - 1)
    }

    /// Polls a process whose operation was decided.
    fn poll(&mut self, at: usize) -> Result<(), String> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let process = &mut self.processes[at];
        let Poll::Ready(ended) = process.task.as_mut().poll(&mut context) else {
            return Ok(());
        };
        let Process { number, report, .. } = self.processes.remove(at);
        self.forget(number);
        let Err(Stopped(error)) = ended else {
            self.say(|| format!("process {number} has read everything"));
            return Ok(());
        };
        self.say(|| format!("process {number} stops: {error}"));
        let generation = report.generation.load(Relaxed);
        let zombie = generation < self.newest_generation() || error.contains("another run of this dataflow");
        // By (3) and (4), only these errors are allowed.
        match zombie || error.contains("503 Slow Down") {
            true => Ok(()),
            false => Err(format!("process {number} (generation {generation}) stopped: {error}")),
        }
    }

    /// The generation of the ledger's newest entry.
    fn newest_generation(&self) -> u64 {
        let lake = reader::lake(&self.world.objects);
        let newest = now(ledger::list(&lake)).unwrap().pop();
        match newest.and_then(|seq| now(ledger::read(&lake, seq)).unwrap()) {
            Some(LedgerEntry::Fence(fence)) => fence.generation,
            Some(LedgerEntry::Intent(intent)) => intent.generation,
            None => 0,
        }
    }

    fn forget(&self, process: usize) {
        self.world.waiting.lock().unwrap().retain(|w| w.process != process);
    }

    /// Indices of the waiting operations whose processes are awake.
    fn ready(&self) -> Vec<usize> {
        let asleep: Vec<usize> = (self.processes.iter())
            .filter(|p| p.asleep > self.step)
            .map(|p| p.number)
            .collect();
        let waiting = self.world.waiting.lock().unwrap();
        (0..waiting.len())
            .filter(|n| !asleep.contains(&waiting[*n].process))
            .collect()
    }

    /// Decides one waiting operation and polls its process; returns that process.
    fn advance(&mut self, fate: impl FnOnce(&mut Self) -> Fate) -> Result<Option<usize>, String> {
        let ready = self.ready();
        if ready.is_empty() {
            return Ok(None);
        }
        let pick = ready[self.below(ready.len() as u64) as usize];
        let operation = self.world.waiting.lock().unwrap().swap_remove(pick);
        let (process, is_store) = (operation.process, !["turn", "sleep"].contains(&operation.what.as_str()));
        let fate = if is_store { fate(self) } else { Fate::Done };
        self.say(|| format!("process {process}: {} {fate:?}", operation.what));
        self.summary.lost += u64::from(fate == Fate::Lost);
        self.summary.refused += u64::from(fate == Fate::Refused);
        operation.decide(fate);
        if let Some(at) = self.processes.iter().position(|p| p.number == process) {
            self.poll(at)?;
        }
        Ok(Some(process))
    }

    fn crash(&mut self, number: usize) {
        if let Some(at) = self.processes.iter().position(|p| p.number == number) {
            self.say(|| format!("process {number} crashes"));
            self.processes.remove(at);
            self.forget(number);
            self.summary.crashes += 1;
        }
    }

    /// Lets other engines act, at random.
    fn others(&mut self) {
        let lake = reader::lake(&self.world.objects);
        let tables = specs();
        if self.chance(8) {
            self.others += 1;
            let table = &tables[self.below(4) as usize].path;
            others::append(&lake, table, self.others);
            self.say(|| format!("another engine appends to {table}"));
            self.summary.appends += 1;
        }
        if self.chance(15) {
            self.others += 1;
            let table = &tables[self.below(4) as usize].path;
            let read = others::optimize(&lake, table, self.others, &mut self.world.random());
            let patience = if self.chance(500) { 0 } else { self.below(40) };
            self.say(|| format!("another engine reads {table}, for {patience} steps"));
            self.optimizes.extend(read.map(|o| (self.step + patience, o)));
        }
        let due = self.optimizes.extract_if(.., |(at, _)| *at <= self.step);
        for (_, optimize) in due.collect::<Vec<_>>() {
            let table = optimize.table.clone();
            let done = optimize.commit(&lake);
            self.say(|| format!("another engine optimizes {table}: {done}"));
            self.summary.optimizes += u64::from(done);
        }
    }

    fn run(&mut self) -> Result<(), String> {
        let steps = 400 + self.below(800);
        let mut outage = 0;
        while self.step < steps {
            self.step += 1;
            if self.processes.iter().all(|p| p.asleep > self.step) {
                self.start()?;
            } else if self.chance(6) {
                // The running process does not learn of the new one.
                let asleep = if self.chance(300) {
                    0
                } else {
                    self.step + self.below(300)
                };
                self.processes.iter_mut().for_each(|p| p.asleep = p.asleep.max(asleep));
                self.summary.zombies += 1;
                self.start()?;
            }
            self.others();
            if self.chance(4) {
                outage = self.step + self.below(40);
            }
            let refused = outage > self.step;
            if self.chance(5) && !self.processes.is_empty() {
                let number = self.processes[self.below(self.processes.len() as u64) as usize].number;
                self.crash(number);
                continue;
            }
            let process = self.advance(|sim| match sim.below(100) {
                _ if refused => Fate::Refused,
                0 | 1 => Fate::Lost,
                2 => Fate::Refused,
                _ => Fate::Done,
            })?;
            if let Some(process) = process
                && self.chance(5)
            {
                self.crash(process);
            }
        }
        self.say(|| "calm".into());
        *self.world.faults.lock().unwrap() = false;
        self.optimizes.clear();
        self.start()?;
        // Zombies wake up during these steps.
        for _ in 0..100_000 {
            self.step += 1;
            if self.advance(|_| Fate::Done)?.is_none() {
                match self.processes.iter().map(|p| p.asleep).min() {
                    None => return self.check(),
                    Some(wakes) => self.step = self.step.max(wakes),
                }
            }
        }
        Err("it does not come to an end".into())
    }

    /// Checks (1) and (2).
    fn check(&mut self) -> Result<(), String> {
        let lake = reader::lake(&self.world.objects);
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let mut walks: Vec<LogReplay> = specs().iter().map(|s| LogReplay::new(lake.clone(), &s.path)).collect();
        let mut progress = FeedPositions::new();
        let (mut last, mut reached): (Option<(u64, Epoch)>, u64) = (None, 0);
        // Epochs without changes are only in what committers reported, not in the ledger.
        let mut reported: BTreeMap<(u64, Epoch), Vec<i64>> = BTreeMap::new();
        for one in &self.all {
            let generation = one.generation.load(Relaxed);
            let snapshots = one.snapshots.lock().unwrap();
            reported.extend(
                snapshots
                    .iter()
                    .map(|(epoch, versions)| ((generation, *epoch), versions.clone())),
            );
            drop(snapshots);
            self.summary.relocations += one.relocations.load(Relaxed);
            self.summary.compactions += one.compactions.load(Relaxed);
            self.summary.corrections += one.corrections.load(Relaxed);
        }
        let mut intents = Vec::new();
        for seq in now(ledger::list(&lake)).map_err(|e| text(&e))? {
            if let Some(LedgerEntry::Intent(intent)) = now(ledger::read(&lake, seq)).map_err(|e| text(&e))? {
                intents.push(intent);
            }
        }
        for (number, intent) in intents.iter().enumerate() {
            let epoch = intent.epoch;
            if last.is_some_and(|(generation, before)| intent.generation < generation || epoch <= before) {
                return Err(format!(
                    "snapshot {epoch} of generation {} comes behind {last:?}",
                    intent.generation
                ));
            }
            last = Some((intent.generation, epoch));
            progress.extend(intent.progress.iter().cloned());
            let offset = progress.values().next().map_or(0, |p| p.next);
            if offset < reached {
                return Err(format!("snapshot {epoch} goes back from event {reached} to {offset}"));
            }
            reached = offset;
            // The versions that the next intent names as its base are those that this one led to.
            let behind = intents.get(number + 1).map(|next| {
                let versions = specs().iter().map(|s| next.versions[&s.name]).collect();
                ("its next intent", versions)
            });
            let published = reported
                .get(&(intent.generation, epoch))
                .map(|versions| ("its committer", versions.clone()));
            // The committer's versions come first: they are at most as new as the others.
            let mut asked: Vec<(&str, Vec<i64>)> = published.into_iter().chain(behind).collect();
            asked.dedup_by(|a, b| a.1 == b.1);
            let expected = self.feed.tables(offset);
            for (by, versions) in asked {
                for ((spec, walk), (version, expected)) in
                    specs().iter().zip(&mut walks).zip(versions.into_iter().zip(&expected))
                {
                    let (mut rows, _) = walk.rows(version)?;
                    if spec.summation.is_some() {
                        rows = workload::folded(&rows);
                    }
                    if &rows != expected {
                        return Err(format!(
                            "{} at version {version}, snapshot {epoch} (told by {by}), event {offset}:\n  holds   {rows:?}\n  instead {expected:?}",
                            spec.name
                        ));
                    }
                }
            }
            self.summary.snapshots += 1;
        }
        if reached != workload::EVENTS {
            return Err(format!("only {reached} events were taken"));
        }
        Ok(())
    }
}

fn simulate(seed: u64, safeguards: Safeguards, verbose: bool) -> Result<Summary, String> {
    let mut simulation = Simulation::new(seed, safeguards, verbose);
    let ran = catch_unwind(AssertUnwindSafe(|| simulation.run()));
    if verbose {
        let lake = reader::lake(&simulation.world.objects);
        specs().iter().for_each(|spec| {
            reader::log_of(&lake, &spec.path)
                .iter()
                .for_each(|line| eprintln!("{line}"))
        });
    }
    let ran = ran.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or(panic.downcast_ref::<&str>().map(|t| t.to_string()));
        Err(format!("panicked: {}", message.unwrap_or_default()))
    });
    ran.map(|()| simulation.summary)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn every_snapshot_is_exact_whatever_happens() {
    if let Some(seed) = number("ALLUVIUM_SEED") {
        let ran = simulate(seed, Safeguards::default(), true);
        panic!("seed {seed}: {ran:?}");
    }
    let seeds = number("ALLUVIUM_SEEDS").unwrap_or(1200);
    let mut sum = Summary::default();
    let mut failed = Vec::new();
    for (seed, ran) in simulate_all(seeds) {
        match ran {
            Ok(ran) => {
                sum.snapshots += ran.snapshots;
                sum.crashes += ran.crashes;
                sum.zombies += ran.zombies;
                sum.appends += ran.appends;
                sum.optimizes += ran.optimizes;
                sum.relocations += ran.relocations;
                sum.compactions += ran.compactions;
                sum.corrections += ran.corrections;
                sum.lost += ran.lost;
                sum.refused += ran.refused;
            }
            Err(error) => failed.push(format!("seed {seed}: {error}")),
        }
        assert!(
            failed.len() < 5,
            "replay with ALLUVIUM_SEED=<seed>:\n{}",
            failed.join("\n")
        );
    }
    assert!(
        failed.is_empty(),
        "replay with ALLUVIUM_SEED=<seed>:\n{}",
        failed.join("\n")
    );
    println!("{seeds} seeds: {sum:?}");
    // Every kind of event must really have occurred.
    for (what, count) in [
        ("snapshots", sum.snapshots),
        ("crashes", sum.crashes),
        ("zombies", sum.zombies),
        ("appends", sum.appends),
        ("optimizes", sum.optimizes),
        ("relocations", sum.relocations),
        ("compactions", sum.compactions),
        ("corrections", sum.corrections),
        ("lost answers", sum.lost),
        ("refusals", sum.refused),
    ] {
        assert!(count > seeds / 50, "{what}: {count} in {seeds} seeds");
    }
}

/// Runs seeds on all cores; yields outcomes as they are done.
fn simulate_all(seeds: u64) -> impl Iterator<Item = (u64, Result<Summary, String>)> {
    let (done, ran) = crossbeam_channel::bounded(16);
    let next = Arc::new(AtomicU64::new(1));
    for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
        let (done, next) = (done.clone(), next.clone());
        std::thread::spawn(move || {
            loop {
                let seed = next.fetch_add(1, Relaxed);
                // The receiver is gone after the last failure that counts.
                if seed > seeds || done.send((seed, simulate(seed, Safeguards::default(), false))).is_err() {
                    return;
                }
            }
        });
    }
    ran.into_iter()
}

/// The failures among these seeds.
fn failures(safeguards: Safeguards, seeds: u64) -> Vec<String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let ran = (1..=seeds).filter_map(|seed| simulate(seed, safeguards, false).err());
    let failed = ran.collect();
    std::panic::set_hook(hook);
    failed
}

#[test]
fn without_the_fence_a_zombie_spoils_the_lake() {
    let safeguards = Safeguards {
        fence: false,
        ..Safeguards::default()
    };
    let failed = failures(safeguards, 60);
    assert!(failed.len() > 3, "{failed:?}");
}

#[test]
fn without_transactions_a_commit_is_put_twice() {
    let safeguards = Safeguards {
        transactions: false,
        ..Safeguards::default()
    };
    let failed = failures(safeguards, 60);
    assert!(failed.len() > 3, "{failed:?}");
}

#[test]
fn without_the_redo_a_snapshot_stays_torn() {
    let safeguards = Safeguards {
        redo: false,
        ..Safeguards::default()
    };
    let failed = failures(safeguards, 60);
    assert!(failed.len() > 3, "{failed:?}");
}

#[test]
fn a_seed_replays_to_the_letter() {
    for seed in [3, 8] {
        let once = format!("{:?}", simulate(seed, Safeguards::default(), false));
        assert_eq!(format!("{:?}", simulate(seed, Safeguards::default(), false)), once);
    }
}
