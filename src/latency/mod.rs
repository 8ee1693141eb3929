//! Measures how long a record takes until (a) its epoch has closed in the graph, and (b) the snapshot that holds it is
//! committed. The time is measured from the record's arrival and, where these are known, from when its source made the
//! change, and from when it was written to its topic.
//!
//! Every record is measured, from the moment it *could* have been read: a reader stamps a delivery with the time when
//! its bytes were there, a rate-limited generator with the time when its event was due. A reader that does not know
//! the time uses the earliest possible one, so figures may be too long by the interval at which a source is polled,
//! but never too short. A stall therefore counts against every record that waits behind it (no coordinated omission),
//! and no correction is needed afterwards. Workers add [`Stamp`]s, and the conductor reports closed and committed
//! epochs; nothing here decides when these are.
//!
//! Figures are kept in HdrHistograms of microseconds, with three significant digits, up to one hour. Older records
//! come from a source's past (a backfill) and say nothing about latency; they are counted separately.

mod files;
mod report;

pub use files::{LatencyFileError, LatencyFiles};
pub(crate) use report::short;
pub use report::{Figures, StageFigures};

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;

use crate::repr::Epoch;

/// The greatest latency that histograms distinguish.
const CEILING: Duration = Duration::from_secs(3600);

/// Records of one input that arrived together.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// Index into `Dataflow::inputs`.
    pub input: usize,
    /// The epoch that they were taken into.
    pub epoch: Epoch,
    /// When their bytes were there to be read.
    pub arrived: Instant,
    /// The number of records.
    pub records: u64,
    /// When their source made the changes: (Unix milliseconds, how many records in a row have this time).
    pub source_ms: Vec<(i64, u64)>,
    /// When they were written to their topic, in the same form.
    pub record_ms: Vec<(i64, u64)>,
}

/// The latencies that one process adds to one input of the run.
#[derive(Clone)]
pub struct InputLatency {
    /// Index into `Dataflow::inputs`.
    pub input: usize,
    /// One histogram for each stage.
    pub stages: [Histogram<u64>; Stage::COUNT],
    /// Records whose source time is out of scale.
    pub out_of_scale: u64,
}

/// From which moment to which a record's latency is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// From arrival until the epoch has closed, so that the graph has computed all results.
    Closed,
    /// From arrival until the snapshot is committed, so that any reader of the tables sees it.
    Committed,
    /// From the source's own time until the epoch has closed.
    SourceToClosed,
    /// From the source's own time until the snapshot is committed.
    SourceToCommitted,
    /// From the time of the topic's record until the epoch has closed.
    RecordToClosed,
    /// From the time of the topic's record until the snapshot is committed.
    RecordToCommitted,
}

impl Stage {
    /// All stages, in the order of the report.
    pub const ALL: [Stage; Stage::COUNT] = [
        Stage::Closed,
        Stage::Committed,
        Stage::SourceToClosed,
        Stage::SourceToCommitted,
        Stage::RecordToClosed,
        Stage::RecordToCommitted,
    ];
    /// The number of stages.
    pub const COUNT: usize = 6;

    /// The name in the report and in files.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Closed => "arrival-to-closed",
            Stage::Committed => "arrival-to-committed",
            Stage::SourceToClosed => "source-to-closed",
            Stage::SourceToCommitted => "source-to-committed",
            Stage::RecordToClosed => "record-to-closed",
            Stage::RecordToCommitted => "record-to-committed",
        }
    }
}

/// The histograms of one input.
#[derive(Clone)]
struct InputHistograms {
    /// One histogram for each stage: since the start, and (`interval`) since the last [`Latency::take_interval`].
    total: [Histogram<u64>; Stage::COUNT],
    interval: [Histogram<u64>; Stage::COUNT],
    /// Records whose source time lies further back than the ceiling, or ahead of our clock.
    out_of_scale: u64,
    /// How many of those [`Latency::take_parts`] has taken.
    out_of_scale_taken: u64,
}

impl InputHistograms {
    fn new() -> Self {
        let empty = || {
            Histogram::new_with_bounds(1, CEILING.as_micros() as u64, 3)
                .expect("the bounds and digits are valid constants")
        };
        InputHistograms {
            total: std::array::from_fn(|_| empty()),
            interval: std::array::from_fn(|_| empty()),
            out_of_scale: 0,
            out_of_scale_taken: 0,
        }
    }

    fn record(&mut self, stage: Stage, latency: Duration, records: u64) {
        let micros = (latency.as_micros() as u64).max(1);
        for histogram in [&mut self.total[stage as usize], &mut self.interval[stage as usize]] {
            histogram.saturating_record_n(micros, records);
        }
    }

    /// Records the latencies at `wall_ms` of records with these start times, in Unix milliseconds. Returns how many
    /// are out of scale.
    fn record_since(&mut self, stage: Stage, times: &[(i64, u64)], wall_ms: i64) -> u64 {
        let mut out_of_scale = 0;
        for (since, records) in times {
            let millis = wall_ms.saturating_sub(*since);
            if (0..CEILING.as_millis() as i64).contains(&millis) {
                self.record(stage, Duration::from_millis(millis as u64), *records);
            } else {
                out_of_scale += records;
            }
        }
        out_of_scale
    }
}

#[derive(Default)]
struct WaitingStamps {
    /// Stamps whose epoch is open in the graph, and, in `closed`, those that wait for their commit.
    open: BTreeMap<Epoch, Vec<Stamp>>,
    closed: BTreeMap<Epoch, Vec<Stamp>>,
}

struct LatencyState {
    waiting: WaitingStamps,
    series: Vec<InputHistograms>,
}

/// Collects stamps and computes figures. All threads of a run share it.
pub struct Latency {
    inputs: Vec<String>,
    /// The name of each table, and the inputs that it is computed from.
    tables: Vec<(String, Vec<usize>)>,
    state: Mutex<LatencyState>,
}

impl Latency {
    /// For these inputs. `tables` has the name of each table, and the indices of the inputs that it is computed from.
    pub fn new(inputs: Vec<String>, tables: Vec<(String, Vec<usize>)>) -> Self {
        let series = inputs.iter().map(|_| InputHistograms::new()).collect();
        Latency {
            inputs,
            tables,
            state: Mutex::new(LatencyState {
                waiting: WaitingStamps::default(),
                series,
            }),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, LatencyState> {
        // A panic in another thread must not hide the figures: every update below leaves the state consistent.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes note that records were taken into an epoch; empties `stamps`.
    pub fn observe_arrivals(&self, stamps: &mut Vec<Stamp>) {
        if stamps.is_empty() {
            return;
        }
        let mut state = self.state();
        for stamp in stamps.drain(..) {
            state.waiting.open.entry(stamp.epoch).or_default().push(stamp);
        }
    }

    /// Takes note that every epoch before `frontier` has closed. `now` and `wall` are the same moment on two clocks.
    pub fn observe_closed(&self, frontier: Epoch, now: Instant, wall: SystemTime) {
        let wall_ms = millis(wall);
        let mut state = self.state();
        let LatencyState { waiting, series } = &mut *state;
        let still_open = waiting.open.split_off(&frontier);
        for (epoch, stamps) in std::mem::replace(&mut waiting.open, still_open) {
            for stamp in &stamps {
                let series = &mut series[stamp.input];
                series.record(
                    Stage::Closed,
                    now.saturating_duration_since(stamp.arrived),
                    stamp.records,
                );
                series.record_since(Stage::SourceToClosed, &stamp.source_ms, wall_ms);
                series.record_since(Stage::RecordToClosed, &stamp.record_ms, wall_ms);
            }
            waiting.closed.entry(epoch).or_default().extend(stamps);
        }
    }

    /// Takes note that the snapshot at `epoch` is committed. `now` and `wall` are the same moment on two clocks.
    pub fn observe_committed(&self, epoch: Epoch, now: Instant, wall: SystemTime) {
        let wall_ms = millis(wall);
        let mut state = self.state();
        let LatencyState { waiting, series } = &mut *state;
        let later = waiting.closed.split_off(&(epoch + 1));
        for stamp in std::mem::replace(&mut waiting.closed, later).into_values().flatten() {
            let series = &mut series[stamp.input];
            series.record(
                Stage::Committed,
                now.saturating_duration_since(stamp.arrived),
                stamp.records,
            );
            series.out_of_scale += series.record_since(Stage::SourceToCommitted, &stamp.source_ms, wall_ms);
            series.record_since(Stage::RecordToCommitted, &stamp.record_ms, wall_ms);
        }
    }

    /// The figures so far.
    pub fn figures(&self) -> Figures {
        let state = self.state();
        let mut lines = Vec::new();
        for (name, series) in self.inputs.iter().zip(&state.series) {
            for stage in Stage::ALL {
                lines.push(StageFigures::from_histogram(
                    &format!("input {name}"),
                    stage,
                    &series.total[stage as usize],
                ));
            }
        }
        for (name, inputs) in &self.tables {
            for stage in [Stage::Closed, Stage::Committed] {
                lines.push(StageFigures::from_histogram(
                    name,
                    stage,
                    &merged(&state.series, inputs, stage),
                ));
            }
        }
        lines.retain(|line| line.count > 0);
        let out_of_scale = state.series.iter().map(|s| s.out_of_scale).sum();
        Figures { lines, out_of_scale }
    }

    /// p50 and p99 from arrival to commit over all inputs, for the status; `None` if there are no records.
    pub fn committed_p50_p99(&self) -> Option<(Duration, Duration)> {
        let state = self.state();
        let every: Vec<usize> = (0..state.series.len()).collect();
        let all = merged(&state.series, &every, Stage::Committed);
        let at = |quantile| Duration::from_micros(all.value_at_quantile(quantile));
        (!all.is_empty()).then(|| (at(0.5), at(0.99)))
    }

    /// The histograms since the last call, as (tag, histogram) of each input and stage with records.
    pub fn take_interval(&self) -> Vec<(String, Histogram<u64>)> {
        let mut state = self.state();
        let mut taken = Vec::new();
        for (name, series) in self.inputs.iter().zip(&mut state.series) {
            for stage in Stage::ALL {
                let histogram = &mut series.interval[stage as usize];
                if !histogram.is_empty() {
                    taken.push((tag(name, stage), histogram.clone()));
                    histogram.reset();
                }
            }
        }
        taken
    }

    /// The latencies since the last call, for another process to absorb. It shares the histograms with
    /// [`Latency::take_interval`], so a process uses only one of the two.
    pub fn take_parts(&self) -> Vec<InputLatency> {
        let mut state = self.state();
        let mut parts = Vec::new();
        for (input, series) in state.series.iter_mut().enumerate() {
            let out_of_scale =
                series.out_of_scale - std::mem::replace(&mut series.out_of_scale_taken, series.out_of_scale);
            if out_of_scale > 0 || series.interval.iter().any(|histogram| !histogram.is_empty()) {
                parts.push(InputLatency {
                    input,
                    stages: series.interval.clone(),
                    out_of_scale,
                });
                series.interval.iter_mut().for_each(Histogram::reset);
            }
        }
        parts
    }

    /// Adds latencies that another process has taken; ignores those of an unknown input.
    pub fn absorb(&self, part: &InputLatency) {
        let mut state = self.state();
        let Some(series) = state.series.get_mut(part.input) else {
            return;
        };
        for (stage, histogram) in part.stages.iter().enumerate() {
            for own in [&mut series.total[stage], &mut series.interval[stage]] {
                own.add(histogram).expect("all histograms have the same bounds");
            }
        }
        series.out_of_scale += part.out_of_scale;
    }

    /// The histograms since the start, as (tag, histogram) of each input and stage with records.
    pub fn totals(&self) -> Vec<(String, Histogram<u64>)> {
        let state = self.state();
        let mut totals = Vec::new();
        for (name, series) in self.inputs.iter().zip(&state.series) {
            for stage in Stage::ALL {
                if !series.total[stage as usize].is_empty() {
                    totals.push((tag(name, stage), series.total[stage as usize].clone()));
                }
            }
        }
        totals
    }
}

/// The time in Unix milliseconds.
fn millis(wall: SystemTime) -> i64 {
    wall.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as i64)
}

fn tag(input: &str, stage: Stage) -> String {
    format!("{input}.{}", stage.name())
}

fn merged(series: &[InputHistograms], inputs: &[usize], stage: Stage) -> Histogram<u64> {
    let mut sum = InputHistograms::new().total[stage as usize].clone();
    for &input in inputs {
        sum.add(&series[input].total[stage as usize])
            .expect("all histograms have the same bounds");
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency() -> Latency {
        Latency::new(
            vec!["orders".into(), "idle".into()],
            vec![("gold.sales".into(), vec![0])],
        )
    }

    fn stamp(epoch: Epoch, arrived: Instant, records: u64) -> Stamp {
        Stamp {
            input: 0,
            epoch,
            arrived,
            records,
            source_ms: vec![],
            record_ms: vec![],
        }
    }

    #[test]
    fn a_record_is_measured_once_at_its_close_and_once_at_its_commit() {
        let (latency, start) = (latency(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        latency.observe_arrivals(&mut vec![stamp(10, at(0), 3), stamp(20, at(5), 1)]);
        latency.observe_closed(11, at(7), SystemTime::now());
        latency.observe_closed(11, at(8), SystemTime::now());
        latency.observe_committed(10, at(30), SystemTime::now());
        let figures = latency.figures();
        let of = |stage| {
            figures
                .lines
                .iter()
                .find(|l| l.name == "gold.sales" && l.stage == stage)
                .cloned()
        };
        let closed = of(Stage::Closed).expect("three records closed");
        assert_eq!((closed.count, closed.max.as_millis()), (3, 7));
        let committed = of(Stage::Committed).expect("three records were committed");
        assert_eq!((committed.count, committed.p50.as_millis()), (3, 30));
        latency.observe_closed(21, at(50), SystemTime::now());
        latency.observe_committed(20, at(60), SystemTime::now());
        assert_eq!(latency.totals()[1].1.len(), 4, "the later record is committed too");
    }

    #[test]
    fn a_stall_counts_against_every_record_behind_it() {
        let (latency, start) = (latency(), Instant::now());
        for n in 0..100u64 {
            latency.observe_arrivals(&mut vec![stamp(1, start + Duration::from_millis(n), 1)]);
        }
        latency.observe_closed(2, start + Duration::from_millis(1000), SystemTime::now());
        let line = latency
            .figures()
            .lines
            .into_iter()
            .find(|l| l.stage == Stage::Closed)
            .expect("records closed");
        assert!(
            line.p50 > Duration::from_millis(940),
            "half of the records waited longer than {:?}",
            line.p50
        );
    }

    #[test]
    fn a_source_time_of_last_year_is_counted_apart() {
        let (latency, now, wall) = (latency(), Instant::now(), SystemTime::now());
        let wall_ms = wall
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("after 1970")
            .as_millis() as i64;
        let source_ms = vec![(wall_ms - 40, 2), (wall_ms - 400 * 86_400_000, 5)];
        latency.observe_arrivals(&mut vec![Stamp {
            source_ms,
            ..stamp(1, now, 7)
        }]);
        latency.observe_closed(2, now, SystemTime::now());
        latency.observe_committed(1, now, wall);
        let elsewhere = self::latency();
        for _ in 0..2 {
            latency.take_parts().iter().for_each(|part| elsewhere.absorb(part));
        }
        assert_eq!(
            elsewhere.figures().to_string(),
            latency.figures().to_string(),
            "absorbed once"
        );
        let figures = latency.figures();
        assert_eq!(figures.out_of_scale, 5);
        let line = figures
            .lines
            .iter()
            .find(|l| l.stage == Stage::SourceToCommitted)
            .expect("two are in scale");
        assert_eq!((line.count, line.p50.as_millis()), (2, 40));
    }

    #[test]
    fn intervals_add_up_to_the_total() {
        let (latency, start) = (latency(), Instant::now());
        let mut seen = 0;
        for epoch in 1..5 {
            latency.observe_arrivals(&mut vec![stamp(epoch, start, epoch)]);
            latency.observe_closed(epoch + 1, start + Duration::from_millis(epoch), SystemTime::now());
            seen += latency.take_interval().iter().map(|(_, h)| h.len()).sum::<u64>();
        }
        assert_eq!(seen, latency.totals()[0].1.len());
        assert!(latency.take_interval().is_empty());
    }
}
