//! Writes latency files for HdrHistogram's own tools: an interval log (`latency.hlog`, with one tagged histogram per
//! second and series, in microseconds), and percentile distributions (`<input>.<stage>.hgrm`, in milliseconds, as its
//! plotter expects).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use thiserror::Error;

use super::Latency;

/// A latency file could not be written.
#[derive(Debug, Error)]
#[error("could not write latency file {path:?}; the run itself goes on")]
pub struct LatencyFileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Writes the interval log during a run, and the distributions at its end.
pub struct LatencyFiles {
    folder: PathBuf,
    log: BufWriter<File>,
    start: SystemTime,
    /// When the current interval began, relative to `start`.
    interval: Duration,
}

impl LatencyFiles {
    /// Begins `latency.hlog` in a folder, and makes the folder if it is missing.
    pub fn create(folder: &Path, start: SystemTime) -> Result<Self, LatencyFileError> {
        let path = folder.join("latency.hlog");
        let begin = || -> io::Result<BufWriter<File>> {
            std::fs::create_dir_all(folder)?;
            let mut log = BufWriter::new(File::create(&path)?);
            let seconds = start
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0.0, |d| d.as_secs_f64());
            writeln!(log, "#[Alluvium latencies in microseconds, tagged input.stage]")?;
            writeln!(log, "#[Histogram log format version 1.3]")?;
            writeln!(log, "#[StartTime: {seconds:.3} (seconds since epoch)]")?;
            writeln!(log, "#[BaseTime: {seconds:.3} (seconds since epoch)]")?;
            writeln!(
                log,
                "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\""
            )?;
            Ok(log)
        };
        let log = begin().map_err(|source| LatencyFileError {
            path: path.clone(),
            source,
        })?;
        Ok(LatencyFiles {
            folder: folder.to_path_buf(),
            log,
            start,
            interval: Duration::ZERO,
        })
    }

    /// Appends an interval that ends at `now`.
    pub fn write_interval(&mut self, latency: &Latency, now: SystemTime) -> Result<(), LatencyFileError> {
        let end = now.duration_since(self.start).unwrap_or(self.interval);
        let length = end.saturating_sub(self.interval);
        let mut write = || -> io::Result<()> {
            for (tag, histogram) in latency.take_interval() {
                let mut bytes = Vec::new();
                V2DeflateSerializer::new()
                    .serialize(&histogram, &mut bytes)
                    .map_err(io::Error::other)?;
                writeln!(
                    self.log,
                    "Tag={tag},{:.3},{:.3},{:.3},{}",
                    self.interval.as_secs_f64(),
                    length.as_secs_f64(),
                    histogram.max() as f64 / 1000.0,
                    STANDARD.encode(&bytes),
                )?;
            }
            self.log.flush()
        };
        let written = write();
        self.interval = end;
        written.map_err(|source| LatencyFileError {
            path: self.folder.join("latency.hlog"),
            source,
        })
    }

    /// Writes the last interval and all distributions.
    pub fn finish(mut self, latency: &Latency, now: SystemTime) -> Result<(), LatencyFileError> {
        self.write_interval(latency, now)?;
        for (tag, histogram) in latency.totals() {
            let path = self.folder.join(format!("{tag}.hgrm"));
            File::create(&path)
                .map(BufWriter::new)
                .and_then(|mut file| write_distribution(&mut file, &histogram))
                .map_err(|source| LatencyFileError { path, source })?;
        }
        Ok(())
    }
}

/// Writes the text format of HdrHistogram's `outputPercentileDistribution`, with five ticks per half distance.
fn write_distribution(out: &mut impl Write, micros: &Histogram<u64>) -> io::Result<()> {
    const MICROS_PER_MILLI: f64 = 1000.0;
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    for point in micros.iter_quantiles(5) {
        let value = point.value_iterated_to() as f64 / MICROS_PER_MILLI;
        let quantile = point.quantile_iterated_to();
        write!(
            out,
            "{value:12.3} {quantile:2.12} {:10}",
            micros.count_between(0, point.value_iterated_to())
        )?;
        if quantile < 1.0 {
            write!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
        micros.mean() / MICROS_PER_MILLI,
        micros.stdev() / MICROS_PER_MILLI
    )?;
    writeln!(
        out,
        "#[Max     = {:12.3}, Total count    = {:12}]",
        micros.max() as f64 / MICROS_PER_MILLI,
        micros.len()
    )?;
    writeln!(
        out,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        micros.buckets(),
        2048
    )?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Stamp;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use std::time::Instant;

    #[test]
    fn the_log_reads_back_with_every_record_and_the_distribution_ends_at_the_last() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (latency, now, wall) = (
            Latency::new(vec!["orders".into()], vec![]),
            Instant::now(),
            SystemTime::now(),
        );
        let mut files = LatencyFiles::create(folder.path(), wall).expect("a writable folder");
        for epoch in 1..=20 {
            let arrived = now - Duration::from_millis(epoch);
            latency.observe_arrivals(&mut vec![Stamp {
                input: 0,
                epoch,
                arrived,
                records: 10,
                source_ms: vec![],
                record_ms: vec![],
            }]);
        }
        latency.observe_closed(21, now, SystemTime::now());
        files
            .write_interval(&latency, wall + Duration::from_secs(1))
            .expect("an interval is written");
        files
            .finish(&latency, wall + Duration::from_secs(2))
            .expect("the files are finished");

        let log = std::fs::read(folder.path().join("latency.hlog")).expect("the log is there");
        let intervals = IntervalLogIterator::new(&log)
            .filter_map(|entry| match entry.expect("every line parses") {
                LogEntry::Interval(interval) => Some(interval),
                _ => None,
            })
            .collect::<Vec<_>>();
        assert_eq!(intervals.len(), 1);
        let bytes = STANDARD.decode(intervals[0].encoded_histogram()).expect("base64");
        let histogram: Histogram<u64> = hdrhistogram::serialization::Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .expect("a compressed histogram");
        assert_eq!(histogram.len(), 200);

        let text =
            std::fs::read_to_string(folder.path().join("orders.arrival-to-closed.hgrm")).expect("a distribution");
        let last = text
            .lines()
            .rfind(|l| !l.starts_with('#') && !l.trim().is_empty())
            .expect("it has points");
        let fields: Vec<&str> = last.split_whitespace().collect();
        assert_eq!((fields[1], fields[2]), ("1.000000000000", "200"));
        assert!(
            (fields[0].parse::<f64>().expect("a number") - 20.0).abs() < 0.1,
            "{last}"
        );
    }
}
