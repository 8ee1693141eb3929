//! What a person sees of a run: one live block on a terminal, plain log lines otherwise.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::lags;
use super::pacer::Pacer;
use super::shared::Shared;
use crate::latency::{Latency, short};
use crate::repr::Epoch;
use crate::source::FeedStatus;

/// How often the terminal is drawn, and how often a log line is written.
const DRAW: Duration = Duration::from_millis(200);
const LOG: Duration = Duration::from_secs(10);

/// Inputs that have a line of their own in the live block.
const SHOWN: usize = 12;

/// The live block, while one is drawn: whoever else writes to stderr has to write above it.
static LIVE: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Standard error for log lines: they stay, above the live block of a run.
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
pub struct Status {
    inputs: Vec<String>,
    started: Instant,
    last: Option<Instant>,
    /// By input, records taken and replayed at `last`, for a rate.
    records: Vec<u64>,
    committed_at: Option<Instant>,
    snapshot: Epoch,
    bar: Option<ProgressBar>,
}

/// What is shown of one input.
#[derive(Clone)]
struct InputLine {
    name: String,
    /// Taken from feeds.
    records: u64,
    /// Of the past.
    replayed: u64,
    /// Records a second.
    rate: f64,
    dead_letters: u64,
    lag: Lag,
}

/// What is there and not yet read: records where a feed counts them, else bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lag {
    bytes: u64,
    records: u64,
}

impl Lag {
    fn of<'a>(feeds: impl Iterator<Item = &'a FeedStatus>) -> Lag {
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

/// What is shown of the whole.
struct View {
    inputs: Vec<InputLine>,
    epoch: Epoch,
    /// The newest snapshot, and how old it is.
    snapshot: Option<(Epoch, Duration)>,
    /// p50 and p99 from arrival to commit.
    latency: Option<(Duration, Duration)>,
    /// Rows of what the graph held before.
    loaded: u64,
    /// Feeds that wait, with their causes.
    waiting: Vec<String>,
}

impl Status {
    /// For these inputs; `live` says whether stderr may be drawn on.
    pub fn new(inputs: Vec<String>, live: bool) -> Self {
        let bar = (live && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template("{msg}").expect("the template is a constant"));
            *LIVE.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
            bar
        });
        Status {
            records: vec![0; inputs.len()],
            inputs,
            started: Instant::now(),
            last: None,
            committed_at: None,
            snapshot: 0,
            bar,
        }
    }

    /// How often [`Status::update`] wants to be called.
    pub fn period(&self) -> Duration {
        if self.bar.is_some() {
            DRAW
        } else {
            Duration::from_secs(1)
        }
    }

    /// A snapshot was committed.
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

    /// A restart compared all tables with what it recomputed.
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

    /// No more input is read.
    pub fn observe_draining(&mut self) {
        self.print("no more input: committing what was taken");
    }

    /// A line that stays, above the live block.
    pub fn print(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => text.lines().for_each(|line| tracing::info!("{line}")),
        }
    }

    /// Draws or logs, if it is time to; only then asks how feeds are doing.
    pub fn update(
        &mut self,
        shared: &Shared,
        pacer: &Pacer,
        latency: &Latency,
        feeds: impl FnOnce() -> Vec<FeedStatus>,
    ) {
        let period = if self.bar.is_some() { DRAW } else { LOG };
        let now = Instant::now();
        let since = now.duration_since(self.last.unwrap_or(self.started));
        if since < period {
            return;
        }
        self.last = Some(now);
        let feeds = feeds();
        let counted = self.inputs.iter().zip(&shared.inputs).zip(&mut self.records);
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
                    lag: Lag::of(feeds.iter().filter(|feed| feed.input == *name)),
                }
            })
            .collect();
        let view = View {
            inputs,
            epoch: pacer.open(),
            snapshot: self.committed_at.map(|at| (self.snapshot, at.elapsed())),
            latency: latency.committed_p50_p99(),
            loaded: shared.loaded.load(Ordering::Relaxed),
            waiting: lags::waiting(&feeds),
        };
        match &self.bar {
            Some(bar) => bar.set_message(view.block()),
            // An idle run needs no line every ten seconds.
            None if view.is_idle() => {}
            None => view.log(),
        }
    }

    /// Takes the live block away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            LIVE.lock().unwrap_or_else(PoisonError::into_inner).take();
            bar.finish_and_clear();
        }
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.finish(); // a run that failed ends without
    }
}

impl View {
    /// Whether nothing came since it was last looked, and the past is behind.
    fn is_idle(&self) -> bool {
        let restarting = self.loaded > 0 && self.snapshot.is_none();
        !restarting && self.inputs.iter().all(|input| input.rate == 0.0)
    }

    /// The live block: a line for each input, one for the whole. At most 80 columns wide where names are not long.
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
        let view = View {
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
        let view = View {
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
        let mut view = View {
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
