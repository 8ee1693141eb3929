//! Pauses between attempts at something that may succeed later: each pause is twice as long as the one before, up to a
//! limit.
//!
//! Each pause is shortened at random by up to a quarter, so that callers that failed together do not all retry
//! together.

use std::time::Duration;

/// Computes the pauses between attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins with a pause of `first`; no pause is longer than `longest`.
    pub fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff {
            first,
            longest,
            next: first.min(longest),
        }
    }

    /// The greatest length of the next pause.
    pub fn most(&self) -> Duration {
        self.next
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let most = self.next;
        self.next = (most * 2).min(self.longest);
        most.mul_f64(rand::random_range(0.75..=1.0))
    }

    /// Begins again with the first pause, after an attempt has succeeded.
    pub fn reset(&mut self) {
        self.next = self.first.min(self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for most in [100, 200, 350, 350] {
            let most = Duration::from_millis(most);
            assert_eq!(backoff.most(), most);
            let pause = backoff.pause();
            assert!(most.mul_f64(0.75) <= pause && pause <= most, "{pause:?}");
        }
        backoff.reset();
        assert_eq!(backoff.most(), Duration::from_millis(100));
    }
}
