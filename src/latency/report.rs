//! Formats the latency report as text.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::Stage;

/// All figures of a run at one moment.
#[derive(Clone, Debug)]
pub struct Figures {
    /// One line for each stage of an input or table with records.
    pub lines: Vec<StageFigures>,
    /// Records whose source time is out of scale: more than an hour back, or ahead of this machine's clock.
    pub out_of_scale: u64,
}

/// The figures of one input or table for one stage.
#[derive(Clone, Debug)]
pub struct StageFigures {
    /// The name: `input order_lines`, or a table's name.
    pub name: String,
    /// The stage.
    pub stage: Stage,
    /// The number of records.
    pub count: u64,
    /// The latency that half of the records did not exceed.
    pub p50: Duration,
    /// The latency that 99 of 100 records did not exceed.
    pub p99: Duration,
    /// The latency that 999 of 1000 records did not exceed.
    pub p999: Duration,
    /// The greatest latency.
    pub max: Duration,
}

impl StageFigures {
    pub(super) fn from_histogram(name: &str, stage: Stage, micros: &Histogram<u64>) -> Self {
        let at = |quantile| Duration::from_micros(micros.value_at_quantile(quantile));
        StageFigures {
            name: name.to_string(),
            stage,
            count: micros.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_micros(micros.max()),
        }
    }
}

/// A duration with three digits, in the unit that suits it: `12.3 ms`, `4.56 s`.
pub(crate) fn short(duration: Duration) -> String {
    let micros = duration.as_micros() as f64;
    let (value, unit) = match micros {
        m if m < 1e3 => (m, "us"),
        m if m < 1e6 => (m / 1e3, "ms"),
        m => (m / 1e6, "s"),
    };
    let digits = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {unit}")
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|l| l.name.len()).max().unwrap_or(0).max(8);
        writeln!(
            f,
            "{:width$}  {:21} {:>10} {:>9} {:>9} {:>9} {:>9}",
            "latency", "", "records", "p50", "p99", "p99.9", "max"
        )?;
        for line in &self.lines {
            writeln!(
                f,
                "{:width$}  {:21} {:>10} {:>9} {:>9} {:>9} {:>9}",
                line.name,
                line.stage.name(),
                line.count,
                short(line.p50),
                short(line.p99),
                short(line.p999),
                short(line.max),
            )?;
        }
        if self.out_of_scale > 0 {
            writeln!(
                f,
                "{} records left out of source-to-committed: their source time is out of scale",
                self.out_of_scale
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_three_digits() {
        let shown: Vec<String> = [950, 1_234, 45_678, 999_400, 12_345_678]
            .map(|us| short(Duration::from_micros(us)))
            .into();
        assert_eq!(shown, ["950 us", "1.23 ms", "45.7 ms", "999 ms", "12.3 s"]);
    }
}
