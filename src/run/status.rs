//! What a person sees of a run: one live block on a terminal, plain log lines otherwise.

use std::io::IsTerminal;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::pacer::Pacer;
use super::shared::Shared;
use crate::latency::{Latency, short};
use crate::repr::Epoch;
use crate::source::Readers;

/// How often the terminal is drawn, and how often a log line is written.
const DRAW: Duration = Duration::from_millis(200);
const LOG: Duration = Duration::from_secs(10);

/// See the module's header.
pub struct Status {
    inputs: Vec<String>,
    started: Instant,
    last: Option<Instant>,
    /// Records taken at `last`, for a rate.
    records: u64,
    committed_at: Option<Instant>,
    snapshot: Epoch,
    bar: Option<ProgressBar>,
}

impl Status {
    /// For these inputs; `live` says whether stderr may be drawn on.
    pub fn new(inputs: Vec<String>, live: bool) -> Self {
        let bar = (live && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("the template is a constant"));
            bar
        });
        Status {
            inputs,
            started: Instant::now(),
            last: None,
            records: 0,
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

    /// Draws or logs, if it is time to.
    pub fn update(&mut self, shared: &Shared, pacer: &Pacer, latency: &Latency, readers: Option<&Readers>) {
        let period = if self.bar.is_some() { DRAW } else { LOG };
        let now = Instant::now();
        let since = now.duration_since(self.last.unwrap_or(self.started));
        if since < period {
            return;
        }
        let counts: Vec<(u64, u64)> = shared
            .inputs
            .iter()
            .map(|c| (c.records.load(Ordering::Relaxed), c.rejected.load(Ordering::Relaxed)))
            .collect();
        let records: u64 = counts.iter().map(|(records, _)| records).sum();
        let rejected: u64 = counts.iter().map(|(_, rejected)| rejected).sum();
        let rate = (records - self.records) as f64 / since.as_secs_f64();
        let idle = records == self.records;
        (self.last, self.records) = (Some(now), records);
        let by_input: Vec<String> = self
            .inputs
            .iter()
            .zip(&counts)
            .map(|(name, (records, _))| format!("{name} {records}"))
            .collect();
        let age = self.committed_at.map_or("none yet".to_string(), |at| {
            format!("{} ({} ago)", self.snapshot, short(at.elapsed()))
        });
        let waiting: u64 = readers.map_or(0, |r| r.statuses().iter().map(|s| s.lag_bytes).sum());
        let (p50, p99) = latency
            .committed_p50_p99()
            .map_or(("-".into(), "-".into()), |(a, b)| (short(a), short(b)));
        match &self.bar {
            Some(bar) => bar.set_message(format!(
                "in    {} | {rate:.0}/s | {rejected} dead letters\n  epoch {} | snapshot {age} | lag {} | to commit p50 {p50} p99 {p99}",
                by_input.join(", "),
                pacer.open(),
                indicatif::HumanBytes(waiting),
            )),
            // An idle run needs no line every ten seconds.
            None if idle => {}
            None => tracing::info!(
                records = by_input.join(", "),
                rate = rate as u64,
                epoch = pacer.open(),
                snapshot = self.snapshot,
                lag = waiting,
                dead_letters = rejected,
                p50,
                p99,
                "running"
            ),
        }
    }

    /// Takes the live block away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
