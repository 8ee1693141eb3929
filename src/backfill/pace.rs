//! Decides how fast portions are fed: plain state, without a clock.

use std::time::{Duration, Instant};

/// Live records count as arriving until this long after the last one.
const LIVE: Duration = Duration::from_secs(2);

/// The longest pause between two portions, however low the rate; a longer one could overflow the clock.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Paces the records of a request.
#[derive(Debug)]
pub struct BackfillPace {
    /// The rate of the request, in records per second.
    asked: Option<f64>,
    /// The rate while live records arrive, if the request has none, in records per second.
    beside_live: f64,
    /// The number of live records so far, and when it last grew.
    live: Option<(u64, Option<Instant>)>,
    /// When the next portion may go.
    next: Option<Instant>,
}

impl BackfillPace {
    /// A pace with the request's rate, or else with the rate that applies while live records arrive.
    pub fn new(asked: Option<f64>, beside_live: f64) -> BackfillPace {
        BackfillPace {
            asked,
            beside_live,
            live: None,
            next: None,
        }
    }

    /// Records the total number of live records.
    pub fn observe_live(&mut self, records: u64, now: Instant) {
        match &mut self.live {
            Some((before, grew)) if *before < records => (*before, *grew) = (records, Some(now)),
            Some(_) => {}
            None => self.live = Some((records, None)),
        }
    }

    /// Whether live records are arriving.
    pub fn is_live(&self, now: Instant) -> bool {
        let grew = self.live.and_then(|(_, grew)| grew);
        grew.is_some_and(|grew| now.saturating_duration_since(grew) < LIVE)
    }

    /// How long to wait before the next records are fed.
    pub fn wait(&self, now: Instant) -> Duration {
        self.next
            .map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }

    /// Records that this number of records was fed.
    pub fn observe_sent(&mut self, records: usize, now: Instant) {
        let rate = match self.asked {
            Some(rate) => rate,
            None if self.is_live(now) => self.beside_live,
            None => {
                self.next = None;
                return;
            }
        };
        let from = self.next.map_or(now, |next| next.max(now));
        let pause = Duration::try_from_secs_f64(records as f64 / rate).unwrap_or(LONGEST);
        self.next = Some(from + pause.min(LONGEST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_next_to_nothing_is_a_long_pause() {
        let now = Instant::now();
        let mut slow = BackfillPace::new(Some(1e-300), 10.0);
        for _ in 0..2 {
            slow.observe_sent(100, now);
        }
        assert!(slow.wait(now) >= LONGEST);
    }

    #[test]
    fn an_asked_rate_holds_and_without_one_only_live_records_slow_down() {
        let start = Instant::now();
        let mut asked = BackfillPace::new(Some(1000.0), 10.0);
        let mut now = start;
        for _ in 0..10 {
            now += asked.wait(now);
            asked.observe_sent(100, now);
        }
        now += asked.wait(now);
        assert_eq!((now - start).as_millis(), 1000);

        let mut free = BackfillPace::new(None, 1000.0);
        free.observe_live(77, start);
        free.observe_sent(5000, start);
        assert_eq!(free.wait(start), Duration::ZERO, "what came before is not live");
        free.observe_live(78, start);
        assert!(free.is_live(start));
        free.observe_sent(500, start);
        assert_eq!(free.wait(start), Duration::from_millis(500));
        let later = start + Duration::from_secs(3);
        free.observe_live(78, later);
        free.observe_sent(500, later);
        assert_eq!(free.wait(later), Duration::ZERO);
    }

    #[test]
    fn time_that_was_not_used_is_not_caught_up() {
        let start = Instant::now();
        let mut pace = BackfillPace::new(Some(100.0), 1.0);
        pace.observe_sent(100, start);
        let later = start + Duration::from_secs(60);
        pace.observe_sent(100, later);
        assert_eq!(pace.wait(later), Duration::from_secs(1));
    }
}
