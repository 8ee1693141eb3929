//! Decides when a run ends. It has no thread, clock or channel: the conductor passes in the time and what it observes,
//! and carries out the steps that are returned.
//!
//! ```text
//! Running --a stop, the time limit, or a schema with new fields--> Closing --answered, or too late--> Draining --> end
//!    \----everything is read, with `until_caught_up`-------------------------------------------------/  fence settled
//! ```
//! 1. `Closing`: for a limited time, the run answers requests under way, reads what they brought, and reads a source's
//!    transaction that is still being delivered to its end.
//! 2. `Draining`: nothing is read any more. Workers take what readers have delivered, the epochs close in the graph,
//!    and a snapshot is sealed and committed.
//! 3. A recursive query may take long, or never end. A run that was asked to end leaves it after a limited time, and the
//!    next run reads again what this one has not committed.
//! 4. An empty queue does not mean that its last delivery is in an epoch yet; but a worker takes everything off a
//!    queue before it advances to the next epoch. So one more epoch, the fence, is opened once the queues are empty.
//!    When it has closed at every worker, every delivery is in an epoch before it.

use std::time::{Duration, Instant};

use crate::evolve::NewSchemaFields;
use crate::repr::Epoch;

/// The longest time in `Closing`. What is not read by then is left for the next run.
const CLOSING: Duration = Duration::from_secs(15);

/// The longest time that a run which was asked to end spends in the rounds of one epoch's recursive queries (3).
const ROUNDS: Duration = Duration::from_secs(4);

/// Questions to a run's parts. An answer may be out of date at once, so each decision asks in an order that stays
/// correct.
pub trait RunSurroundings {
    /// Whether workers take what feeds bring, because the lake's past is fed and sealed.
    fn is_live(&self) -> bool;
    /// Whether everything that `Closing` waits for is done (1).
    fn has_closed(&self) -> bool;
    /// Whether the readers of this process have nothing left to deliver, and no request is under way.
    fn is_exhausted(&self) -> bool;
    /// Whether no delivery or portion waits for a worker of this process.
    fn are_queues_empty(&self) -> bool;
    /// Whether every other process has read and taken everything that there is for now.
    fn have_others_caught_up(&self) -> bool;
    /// Whether every other process has stopped reading and has taken what it had read.
    fn have_others_drained(&self) -> bool;
    /// The oldest epoch whose recursive queries are in their rounds.
    fn in_rounds(&self) -> Option<Epoch>;
    /// Whether the fence is closed, nothing was taken since, and all is committed.
    fn is_settled(&self, fence: Epoch) -> bool;
}

/// The next step of the conductor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CourseStep {
    /// Change nothing.
    Stay,
    /// Accept no more requests.
    Close,
    /// Read no more. `is_caught_up` means that everything has been read, rather than that a stop was asked for.
    Drain { is_caught_up: bool },
    /// Open one more epoch, and report it by [`Course::observe_fence`]. If none can be opened yet, do nothing; the
    /// next call returns this step again.
    OpenFence,
    /// End the run: everything is committed.
    End,
    /// End now, and leave a recursive query in its rounds (3).
    Leave,
}

enum Phase {
    Running,
    /// Since this moment.
    Closing(Instant),
    Draining,
}

/// The course of one run to its end; see the module's header.
pub struct Course {
    started: Instant,
    limit: Option<Duration>,
    until_caught_up: bool,
    phase: Phase,
    /// Whether a stop was asked for, or the time limit is over.
    is_stopped: bool,
    /// Whether a stop was asked for.
    is_told: bool,
    /// Since a stop was asked for: the epoch whose recursive queries are in their rounds, and since when.
    in_rounds: Option<(Epoch, Instant)>,
    /// The schemas with new fields at which feeds hold records back. If there are any, the run is to begin anew.
    new_schemas: Vec<NewSchemaFields>,
    fence: Option<Epoch>,
}

impl Course {
    /// The course of a run that starts at `started`. `limit` is how long it may run; with `until_caught_up` it ends
    /// once everything is read.
    pub fn new(started: Instant, limit: Option<Duration>, until_caught_up: bool) -> Course {
        Course {
            started,
            limit,
            until_caught_up,
            phase: Phase::Running,
            is_stopped: false,
            is_told: false,
            in_rounds: None,
            new_schemas: vec![],
            fence: None,
        }
    }

    /// Takes note that somebody asked the run to end.
    pub fn observe_stop(&mut self) {
        self.is_stopped = true;
        self.is_told = true;
    }

    /// Takes note that a feed holds records back at a schema with new fields.
    pub fn observe_met(&mut self, new_schema: NewSchemaFields) {
        self.new_schemas.push(new_schema);
    }

    /// Takes note that the fence is open.
    pub fn observe_fence(&mut self, fence: Epoch) {
        self.fence = Some(fence);
    }

    /// Decides on the next step.
    pub fn next(&mut self, now: Instant, around: &impl RunSurroundings) -> CourseStep {
        if self
            .limit
            .is_some_and(|limit| now.duration_since(self.started) >= limit)
        {
            self.is_stopped = true;
        }
        if self.is_told && self.are_rounds_long(now, around.in_rounds()) {
            return CourseStep::Leave;
        }
        match self.phase {
            Phase::Running if self.is_stopped || !self.new_schemas.is_empty() => {
                self.phase = Phase::Closing(now);
                CourseStep::Close
            }
            Phase::Running => {
                // The order matters: once readers are exhausted, nothing is added to the queues.
                let is_caught_up = self.until_caught_up
                    && around.is_live()
                    && around.is_exhausted()
                    && around.are_queues_empty()
                    && around.have_others_caught_up();
                match is_caught_up {
                    true => self.drain(true),
                    false => CourseStep::Stay,
                }
            }
            Phase::Closing(since) => match around.has_closed() || now.duration_since(since) >= CLOSING {
                true => self.drain(false),
                false => CourseStep::Stay,
            },
            Phase::Draining => {
                if !(around.is_live() && around.are_queues_empty() && around.have_others_drained()) {
                    return CourseStep::Stay;
                }
                match self.fence {
                    None => CourseStep::OpenFence,
                    Some(fence) if around.is_settled(fence) => CourseStep::End,
                    Some(_) => CourseStep::Stay,
                }
            }
        }
    }

    /// Whether one epoch's recursive queries have been in their rounds for long.
    fn are_rounds_long(&mut self, now: Instant, in_rounds: Option<Epoch>) -> bool {
        let since = match (self.in_rounds, in_rounds) {
            (Some((before, since)), Some(epoch)) if before == epoch => since,
            _ => now,
        };
        self.in_rounds = in_rounds.map(|epoch| (epoch, since));
        self.in_rounds.is_some() && now.duration_since(since) >= ROUNDS
    }

    fn drain(&mut self, is_caught_up: bool) -> CourseStep {
        self.phase = Phase::Draining;
        CourseStep::Drain { is_caught_up }
    }

    /// Whether a stop was asked for, or the time limit is over.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Whether the run has not begun to end.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    /// Whether nothing is read any more.
    pub fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining)
    }

    /// The fence, once it is open; see (4).
    pub fn fence(&self) -> Option<Epoch> {
        self.fence
    }

    /// How long the run may still go on; `None` without a limit, and once the run has begun to end.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let limit = self.limit.filter(|_| self.is_running())?;
        Some((self.started + limit).saturating_duration_since(now))
    }

    /// After the end: the schemas for which the run is to begin anew. `None` if there are none, or if a stop was asked
    /// for as well.
    pub fn into_met(self) -> Option<Vec<NewSchemaFields>> {
        (!self.is_stopped && !self.new_schemas.is_empty()).then_some(self.new_schemas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Around {
        live: bool,
        closed: bool,
        exhausted: bool,
        empty: bool,
        others: bool,
        settled: bool,
        rounds: Option<Epoch>,
    }

    const BUSY: Around = Around {
        live: true,
        closed: false,
        exhausted: false,
        empty: false,
        others: false,
        settled: false,
        rounds: None,
    };
    const IDLE: Around = Around {
        closed: true,
        exhausted: true,
        empty: true,
        others: true,
        ..BUSY
    };

    impl RunSurroundings for Around {
        fn is_live(&self) -> bool {
            self.live
        }
        fn has_closed(&self) -> bool {
            self.closed
        }
        fn is_exhausted(&self) -> bool {
            self.exhausted
        }
        fn are_queues_empty(&self) -> bool {
            self.empty
        }
        fn have_others_caught_up(&self) -> bool {
            self.others
        }
        fn have_others_drained(&self) -> bool {
            self.others
        }
        fn in_rounds(&self) -> Option<Epoch> {
            self.rounds
        }
        fn is_settled(&self, _: Epoch) -> bool {
            self.settled
        }
    }

    /// Checks the steps from draining to the end.
    fn ends(course: &mut Course, now: Instant) {
        for waiting in [
            Around { live: false, ..IDLE },
            Around { empty: false, ..IDLE },
            Around { others: false, ..IDLE },
        ] {
            assert_eq!(course.next(now, &waiting), CourseStep::Stay);
        }
        assert_eq!(course.next(now, &IDLE), CourseStep::OpenFence);
        // No fence could be opened, because a delivery for the open epoch was under way: the course asks again.
        assert_eq!(course.next(now, &IDLE), CourseStep::OpenFence);
        course.observe_fence(7);
        assert_eq!(course.next(now, &IDLE), CourseStep::Stay);
        assert_eq!(course.next(now, &Around { settled: true, ..IDLE }), CourseStep::End);
    }

    #[test]
    fn a_run_that_is_stopped_closes_drains_and_ends() {
        let now = Instant::now();
        let mut course = Course::new(now, None, false);
        assert_eq!(course.next(now, &IDLE), CourseStep::Stay);
        course.observe_stop();
        assert_eq!(course.next(now, &BUSY), CourseStep::Close);
        assert_eq!(course.next(now, &BUSY), CourseStep::Stay);
        assert_eq!(course.next(now, &IDLE), CourseStep::Drain { is_caught_up: false });
        ends(&mut course, now);
        assert!(course.into_met().is_none());
    }

    #[test]
    fn requests_that_are_never_answered_hold_the_end_up_for_a_while_only() {
        let now = Instant::now();
        let mut course = Course::new(now, Some(Duration::from_secs(5)), false);
        assert_eq!(course.left(now), Some(Duration::from_secs(5)));
        let over = now + Duration::from_secs(5);
        assert_eq!(course.next(over, &BUSY), CourseStep::Close);
        assert_eq!(course.next(over + CLOSING / 2, &BUSY), CourseStep::Stay);
        assert_eq!(
            course.next(over + CLOSING, &BUSY),
            CourseStep::Drain { is_caught_up: false }
        );
    }

    #[test]
    fn a_run_that_is_told_to_end_leaves_the_rounds_of_a_recursive_query_that_goes_on() {
        let started = Instant::now();
        let at = |seconds| started + Duration::from_secs(seconds);
        let rounds = |epoch| Around {
            rounds: Some(epoch),
            ..IDLE
        };
        let mut course = Course::new(started, None, false);
        // Nobody told it to end.
        assert_eq!(course.next(at(0), &rounds(1)), CourseStep::Stay);
        assert_eq!(course.next(at(100), &rounds(1)), CourseStep::Stay);
        course.observe_stop();
        assert_eq!(course.next(at(100), &rounds(1)), CourseStep::Close);
        assert_eq!(
            course.next(at(103), &rounds(1)),
            CourseStep::Drain { is_caught_up: false }
        );
        // An epoch is through.
        assert_eq!(course.next(at(103), &rounds(2)), CourseStep::OpenFence);
        assert_eq!(course.next(at(106), &rounds(2)), CourseStep::OpenFence);
        assert_eq!(course.next(at(107), &rounds(2)), CourseStep::Leave);

        // A limit alone lets everything be computed.
        let mut course = Course::new(started, Some(Duration::from_secs(1)), false);
        assert_eq!(course.next(at(1), &rounds(1)), CourseStep::Close);
        assert_eq!(
            course.next(at(2), &rounds(1)),
            CourseStep::Drain { is_caught_up: false }
        );
        assert_eq!(course.next(at(100), &rounds(1)), CourseStep::OpenFence);
    }

    #[test]
    fn a_run_that_is_to_catch_up_ends_once_everybody_has() {
        let now = Instant::now();
        let mut course = Course::new(now, None, true);
        for waiting in [
            Around { live: false, ..IDLE },
            Around {
                exhausted: false,
                ..IDLE
            },
            Around { empty: false, ..IDLE },
            Around { others: false, ..IDLE },
        ] {
            assert_eq!(course.next(now, &waiting), CourseStep::Stay);
        }
        assert_eq!(course.next(now, &IDLE), CourseStep::Drain { is_caught_up: true });
        ends(&mut course, now);
    }

    #[test]
    fn a_run_that_met_new_fields_begins_anew_unless_somebody_wants_its_end() {
        let now = Instant::now();
        let met = || NewSchemaFields {
            input: "orders".to_string(),
            feed: "topic".to_string(),
            schema: 3,
        };
        for stopped in [false, true] {
            let mut course = Course::new(now, None, false);
            course.observe_met(met());
            assert_eq!(course.next(now, &BUSY), CourseStep::Close);
            if stopped {
                course.observe_stop();
            }
            assert_eq!(course.next(now, &IDLE), CourseStep::Drain { is_caught_up: false });
            ends(&mut course, now);
            assert_eq!(course.into_met().is_none(), stopped);
        }
    }
}
