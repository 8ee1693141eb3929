//! The latency report as text.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::Stage;

/// All figures of a run at one moment.
#[derive(Clone, Debug)]
pub struct Figures {
    /// One for each input or table and stage that saw records.
    pub lines: Vec<Line>,
    /// Records whose source time is out of scale: more than an hour back, or ahead of this machine's clock.
    pub out_of_scale: u64,
}

/// The figures of one input or table up to one stage.
#[derive(Clone, Debug)]
pub struct Line {
    /// `input order_lines`, or a table's name.
    pub name: String,
    /// What was measured.
    pub stage: Stage,
    /// Records.
    pub count: u64,
    /// Half of the records took at most this.
    pub p50: Duration,
    /// 99 of 100.
    pub p99: Duration,
    /// 999 of 1000.
    pub p999: Duration,
    /// All of them.
    pub max: Duration,
}

impl Line {
    pub(super) fn of(name: &str, stage: Stage, micros: &Histogram<u64>) -> Self {
        let at = |quantile| Duration::from_micros(micros.value_at_quantile(quantile));
        Line {
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

/// `12.3 ms`, `4.56 s`: three digits, the unit that suits.
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
