//! Shows people the state of a run: as one live block on a terminal, otherwise as log lines.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::pacer::Pacer;
use crate::latency::{Latency, short};
use crate::repr::Epoch;
use crate::run::board::Board;
use crate::run::lags;
use crate::source::FeedStatus;

/// How often the terminal is redrawn, and how often a log line is written.
const DRAW: Duration = Duration::from_millis(200);
const LOG: Duration = Duration::from_secs(10);

/// How many inputs have a line of their own in the live block.
const SHOWN: usize = 12;

/// The live block, while one is drawn. All other output to stderr has to be written above it.
static LIVE: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Standard error for log lines, which scroll above the live block of a run.
pub struct AboveStatus;

impl Write for AboveStatus {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let live = LIVE.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match live {
            Some(bar) => bar.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// See the module's header.
pub struct StatusLine {
    inputs: Vec<String>,
    started: Instant,
    last: Option<Instant>,
    /// Records taken and replayed by each input at `last`, to compute a rate.
    records: Vec<u64>,
    committed_at: Option<Instant>,
    snapshot: Epoch,
    bar: Option<ProgressBar>,
}

/// The figures shown of one input.
#[derive(Clone)]
struct InputLine {
    name: String,
    /// Records taken from feeds.
    records: u64,
    /// Records replayed from the past.
    replayed: u64,
    /// Records per second.
    rate: f64,
    dead_letters: u64,
    lag: Lag,
}

/// What a feed has and is not yet read: in records where the feed counts them, otherwise in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lag {
    bytes: u64,
    records: u64,
}

impl Lag {
    fn of_feeds<'a>(feeds: impl Iterator<Item = &'a FeedStatus>) -> Lag {
        feeds.map(Lag::of_feed).sum()
    }

    fn of_feed(feed: &FeedStatus) -> Lag {
        Lag {
            bytes: feed.lag_bytes,
            records: feed.partitions.iter().map(|partition| partition.records).sum(),
        }
    }
}

impl std::iter::Sum for Lag {
    fn sum<I: Iterator<Item = Lag>>(lags: I) -> Lag {
        lags.fold(Lag::default(), |sum, lag| Lag {
            bytes: sum.bytes + lag.bytes,
            records: sum.records + lag.records,
        })
    }
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = HumanCount(self.records);
        match (self.bytes, self.records) {
            (bytes, 0) => write!(f, "{}", HumanBytes(bytes)),
            (0, _) => write!(f, "{records} records"),
            (bytes, _) => write!(f, "{}, {records} records", HumanBytes(bytes)),
        }
    }
}

/// The figures shown of the run.
struct StatusView {
    inputs: Vec<InputLine>,
    epoch: Epoch,
    /// The newest snapshot and its age.
    snapshot: Option<(Epoch, Duration)>,
    /// p50 and p99 from arrival to commit.
    latency: Option<(Duration, Duration)>,
    /// Rows of restored state that were loaded.
    loaded: u64,
    /// Feeds that wait, each with its cause.
    waiting: Vec<String>,
}

impl StatusLine {
    /// Shows these inputs. `live` says whether a block may be drawn on stderr, if that is a terminal.
    pub fn new(inputs: Vec<String>, live: bool) -> Self {
        let bar = (live && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template("{msg}").expect("the template is a constant"));
            *LIVE.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
            bar
        });
        StatusLine {
            records: vec![0; inputs.len()],
            inputs,
            started: Instant::now(),
            last: None,
            committed_at: None,
            snapshot: 0,
            bar,
        }
    }

    /// How often [`StatusLine::update`] wants to be called.
    pub fn period(&self) -> Duration {
        if self.bar.is_some() {
            DRAW
        } else {
            Duration::from_secs(1)
        }
    }

    /// Takes note that a snapshot is committed, and reports the first one.
    pub fn observe_committed(&mut self, epoch: Epoch) {
        if self.snapshot == 0 {
            self.print(&format!(
                "first snapshot {epoch} after {}",
                short(self.started.elapsed())
            ));
        }
        self.snapshot = epoch;
        self.committed_at = Some(Instant::now());
    }

    /// Reports the result of a restart's audit, and how long the steps of the start took.
    pub fn observe_audit(&self, corrections: &[(String, u64)], phases: &[(&str, Duration)]) {
        let steps = phases.iter().map(|(phase, took)| format!("{phase} {}", short(*took)));
        self.print(&format!("restarted: {}", steps.collect::<Vec<_>>().join(", ")));
        let of_table = |(table, rows): &(String, u64)| format!("{table} {rows}");
        self.print(&match corrections {
            [] => "audited: every table is as recomputed".to_string(),
            some => format!(
                "audited: rows corrected: {}",
                some.iter().map(of_table).collect::<Vec<_>>().join(", ")
            ),
        });
    }

    /// Reports that no more input is read.
    pub fn observe_draining(&mut self) {
        self.print("no more input: committing what was taken");
    }

    /// Prints text that stays, above the live block.
    pub fn print(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => text.lines().for_each(|line| tracing::info!("{line}")),
        }
    }

    /// Draws the block or logs a line, if it is time to. `feeds` is called only then.
    pub fn update(&mut self, board: &Board, pacer: &Pacer, latency: &Latency, feeds: impl FnOnce() -> Vec<FeedStatus>) {
        let period = if self.bar.is_some() { DRAW } else { LOG };
        let now = Instant::now();
        let since = now.duration_since(self.last.unwrap_or(self.started));
        if since < period {
            return;
        }
        self.last = Some(now);
        let feeds = feeds();
        let counted = self.inputs.iter().zip(&board.counters.inputs).zip(&mut self.records);
        let inputs: Vec<InputLine> = counted
            .map(|((name, counters), before)| {
                let records = counters.records.load(Ordering::Relaxed);
                let replayed = counters.replayed.load(Ordering::Relaxed);
                let more = records + replayed - std::mem::replace(before, records + replayed);
                InputLine {
                    name: name.clone(),
                    records,
                    replayed,
                    rate: more as f64 / since.as_secs_f64(),
                    dead_letters: counters.rejected.load(Ordering::Relaxed)
                        + counters.rejected_files.load(Ordering::Relaxed),
                    lag: Lag::of_feeds(feeds.iter().filter(|feed| feed.input == *name)),
                }
            })
            .collect();
        let view = StatusView {
            inputs,
            epoch: pacer.open(),
            snapshot: self.committed_at.map(|at| (self.snapshot, at.elapsed())),
            latency: latency.committed_p50_p99(),
            loaded: board.counters.loaded.load(Ordering::Relaxed),
            waiting: lags::waiting(&feeds),
        };
        match &self.bar {
            Some(bar) => bar.set_message(view.block()),
            // No line is logged while a run is idle.
            None if view.is_idle() => {}
            None => view.log(),
        }
    }

    /// Removes the live block.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            LIVE.lock().unwrap_or_else(PoisonError::into_inner).take();
            bar.finish_and_clear();
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.finish(); // a run that failed has not called it
    }
}

impl StatusView {
    /// Whether no input has taken anything since the last look, and the past is over.
    fn is_idle(&self) -> bool {
        let restarting = self.loaded > 0 && self.snapshot.is_none();
        !restarting && self.inputs.iter().all(|input| input.rate == 0.0)
    }

    /// The live block: one line for each input, and one for the run. It is at most 80 columns wide unless names are
    /// long.
    fn block(&self) -> String {
        let mut lines = self.inputs.clone();
        if lines.len() > SHOWN {
            let others = lines.split_off(SHOWN - 1);
            let sum = |count: fn(&InputLine) -> u64| others.iter().map(count).sum();
            lines.push(InputLine {
                name: format!("{} others", others.len()),
                records: sum(|o| o.records),
                replayed: sum(|o| o.replayed),
                rate: others.iter().map(|o| o.rate).sum(),
                dead_letters: sum(|o| o.dead_letters),
                lag: others.iter().map(|o| o.lag).sum(),
            });
        }
        let width = lines.iter().map(|input| input.name.chars().count()).max().unwrap_or(0);
        let mut block = String::new();
        for InputLine {
            name,
            records,
            rate,
            dead_letters,
            lag,
            ..
        } in &lines
        {
            block += &format!(
                "{name:width$} {:>12} rows in {:>9}/s {:>7} dead letters  lag {}\n",
                HumanCount(*records).to_string(),
                HumanCount(*rate as u64).to_string(),
                HumanCount(*dead_letters).to_string(),
                lag,
            );
        }
        for waiting in self.waiting.iter().take(SHOWN) {
            block += &format!("{waiting}\n");
        }
        let snapshot = self.snapshot.map_or("none yet".to_string(), |(epoch, age)| {
            format!("{epoch}, {:.1} s ago", age.as_secs_f64())
        });
        block += &format!("epoch {}  snapshot {snapshot}", self.epoch);
        if self.loaded > 0 && self.snapshot.is_none() {
            block += &format!("  loaded {}", HumanCount(self.loaded));
        }
        let replayed: u64 = self.inputs.iter().map(|input| input.replayed).sum();
        if replayed > 0 && self.snapshot.is_none() {
            block += &format!("  replayed {}", HumanCount(replayed));
        }
        if let Some((p50, p99)) = self.latency {
            block += &format!("  p50 {}  p99 {}", short(p50), short(p99));
        }
        block
    }

    fn log(&self) {
        let by_input = |of: fn(&InputLine) -> u64| {
            let named = self.inputs.iter().map(|input| format!("{} {}", input.name, of(input)));
            named.collect::<Vec<_>>().join(", ")
        };
        let (p50, p99) = match self.latency {
            Some((p50, p99)) => (short(p50), short(p99)),
            None => ("-".to_string(), "-".to_string()),
        };
        tracing::info!(
            records = by_input(|input| input.records),
            loaded = self.loaded,
            replayed = self.inputs.iter().map(|input| input.replayed).sum::<u64>(),
            rate = self.inputs.iter().map(|input| input.rate).sum::<f64>() as u64,
            epoch = self.epoch,
            snapshot = self.snapshot.map_or(0, |(epoch, _)| epoch),
            lag = %self.inputs.iter().map(|input| input.lag).sum::<Lag>(),
            dead_letters = self.inputs.iter().map(|input| input.dead_letters).sum::<u64>(),
            p50,
            p99,
            "running"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, records: u64) -> InputLine {
        InputLine {
            name: name.into(),
            records,
            replayed: 0,
            rate: 5800.4,
            dead_letters: 12,
            lag: Lag {
                bytes: 1_500_000,
                records: 0,
            },
        }
    }

    #[test]
    fn the_block_has_a_line_for_each_input_and_one_for_the_whole() {
        let view = StatusView {
            inputs: vec![input("order_lines", 541_909), input("products", 0)],
            epoch: 1_795_260_472_387,
            snapshot: Some((1_795_260_472_334, Duration::from_millis(234))),
            latency: Some((Duration::from_millis(45), Duration::from_micros(87_400))),
            loaded: 0,
            waiting: vec![],
        };
        assert_eq!(
            view.block(),
            "order_lines      541,909 rows in     5,800/s      12 dead letters  lag 1.43 MiB\n\
             products               0 rows in     5,800/s      12 dead letters  lag 1.43 MiB\n\
             epoch 1795260472387  snapshot 1795260472334, 0.2 s ago  p50 45.0 ms  p99 87.4 ms"
        );
        assert!(view.block().lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn many_inputs_share_the_last_line_and_what_is_not_there_yet_is_left_out() {
        let view = StatusView {
            inputs: (0..20).map(|n| input(&format!("input{n}"), 10)).collect(),
            epoch: 7,
            snapshot: None,
            latency: None,
            loaded: 0,
            waiting: vec![],
        };
        let block = view.block();
        assert_eq!(block.lines().count(), SHOWN + 1);
        assert!(block.contains("9 others           90 rows in"), "{block}");
        assert!(block.ends_with("epoch 7  snapshot none yet"), "{block}");
    }

    #[test]
    fn what_is_replayed_is_told_apart_until_its_snapshot_is_there() {
        let mut view = StatusView {
            inputs: vec![InputLine {
                replayed: 541_909,
                ..input("order_lines", 0)
            }],
            epoch: 7,
            snapshot: None,
            latency: None,
            loaded: 0,
            waiting: vec![],
        };
        assert!(
            view.block().ends_with("snapshot none yet  replayed 541,909"),
            "{}",
            view.block()
        );
        assert!(view.block().contains(" 0 rows in"), "{}", view.block());
        view.snapshot = Some((7, Duration::ZERO));
        assert!(
            view.block().ends_with("epoch 7  snapshot 7, 0.0 s ago"),
            "{}",
            view.block()
        );
    }
}
