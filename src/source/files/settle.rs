//! Decides which file is read next: plain state, fed with listings, no I/O.
//!
//! 1. A file is read once. What is done stays done; if it changes afterwards that is a task of its own, once per change. One
//!    of which no record was taken (it was refused, skipped or empty) is read as it is then, for that repeats nothing.
//! 2. A file is read only when it is whole. In a folder: when two listings at least `settle` apart saw one tag, or when
//!    its last change is long past. In a store: at once.
//! 3. Files that can be read are read by name.
//! 4. A file that is there and cannot be read waits, and is tried again now and then. Where the order of arrival decides,
//!    no other file goes before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::listing::Found;
use crate::source::{Position, TextPlace};

/// How many times `settle` a file's last change must be past for it to count as whole at first sight.
const LONG_PAST: u32 = 2;

/// What to do with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub partition: Arc<str>,
    pub tag: String,
    pub size: u64,
    /// When it was last written.
    pub modified: SystemTime,
    /// When the file was first seen with this content.
    pub seen: Instant,
    /// Where in the text the first record is that is to be read; see [`Position::at`].
    pub at: Option<TextPlace>,
    pub task: Task,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Read it from this record on; `base` is the number of its first one.
    Read { next: u64, base: u64 },
    /// It was read up to this position, to its end or to where it broke off, and then changed: find out how, and say so.
    Changed(Position),
    /// It was read up to this record, and then changed: say so, and read no more of it.
    ChangedHalfway { next: u64 },
    /// It was read up to this record, and is gone: say so.
    Vanished { next: u64 },
}

#[derive(Debug)]
struct File {
    tag: String,
    size: u64,
    modified: SystemTime,
    /// Of this tag.
    seen: Instant,
    /// How far it is read, and as which content.
    position: Option<Position>,
    state: State,
    /// Whether the last listing had it.
    is_listed: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Seen, perhaps still being written; or not seen since a restart.
    Watched,
    /// It was read in part and is not there any more; waits for its turn.
    Lost,
    /// Handed out, or waiting for its turn.
    Queued,
    /// It could not be read, and is tried again at this time; by (4).
    Stuck {
        again: Instant,
    },
    Done,
}

/// The files of a feed.
pub(crate) struct Settle {
    atomic: bool,
    in_order: bool,
    settle: Duration,
    files: BTreeMap<Arc<str>, File>,
    ready: BTreeSet<Arc<str>>,
    /// Why files could not be read when they were tried last. Kept beside the files, which may be a hundred thousand: it is asked
    /// for whenever one of them ends.
    stuck: BTreeMap<Arc<str>, String>,
}

impl Settle {
    /// `resume` is how far files were read by an earlier run; `in_order` says that the order of arrival decides.
    pub fn new((atomic, in_order): (bool, bool), settle: Duration, resume: BTreeMap<Arc<str>, Position>) -> Self {
        let seen = Instant::now();
        let file = |position: Position| File {
            tag: position.tag.clone().unwrap_or_default(),
            size: 0,
            modified: SystemTime::UNIX_EPOCH,
            seen,
            state: if position.done { State::Done } else { State::Watched },
            position: Some(position),
            is_listed: false,
        };
        let files = resume
            .into_iter()
            .map(|(name, position)| (name, file(position)))
            .collect();
        Settle {
            atomic,
            in_order,
            settle,
            files,
            ready: BTreeSet::new(),
            stuck: BTreeMap::new(),
        }
    }

    /// Takes in a listing. None: the folder itself is not there, which tells nothing of its files. Of those that
    /// `is_unseen` names nothing is known either.
    pub fn observe(
        &mut self,
        listing: Option<Vec<Found>>,
        is_unseen: &dyn Fn(&str) -> bool,
        now: Instant,
        wall: SystemTime,
    ) {
        self.files.values_mut().for_each(|file| file.is_listed = false);
        let Some(listing) = listing else { return };
        self.observe_missing(&listing, is_unseen);
        for found in listing {
            let file = self.files.entry(found.partition.clone()).or_insert_with(|| File {
                tag: found.tag.clone(),
                size: found.size,
                modified: found.modified,
                seen: now,
                position: None,
                state: State::Watched,
                is_listed: true,
            });
            file.is_listed = true;
            if matches!(file.state, State::Queued | State::Lost) {
                continue;
            }
            file.size = found.size;
            file.modified = found.modified;
            if file.tag != found.tag {
                file.tag = found.tag;
                file.seen = now;
                file.state = State::Watched;
                self.stuck.remove(&found.partition);
            }
            if matches!(file.state, State::Stuck { again } if again <= now) {
                file.state = State::Queued;
                self.ready.insert(found.partition.clone());
            }
            if file.state == State::Watched {
                let age = wall.duration_since(found.modified).unwrap_or_default();
                let kept = now.saturating_duration_since(file.seen);
                if self.atomic || kept >= self.settle || age >= self.settle * LONG_PAST {
                    file.state = State::Queued;
                    self.ready.insert(found.partition);
                }
            }
        }
    }

    /// What was watched and is not listed any more owes nothing if nothing of it was taken or all of it was; the rest
    /// of a file that was read in part is lost, and that is said.
    fn observe_missing(&mut self, listing: &[Found], is_unseen: &dyn Fn(&str) -> bool) {
        let shown: BTreeSet<&str> = listing.iter().map(|f| &*f.partition).collect();
        let (ready, stuck) = (&mut self.ready, &mut self.stuck);
        self.files.retain(|name, file| {
            let waits = matches!(file.state, State::Watched | State::Stuck { .. });
            if waits && !shown.contains(&**name) && !is_unseen(name) {
                match &file.position {
                    None => {
                        stuck.remove(name);
                        return false;
                    }
                    Some(position) if position.done => {
                        file.state = State::Done;
                        stuck.remove(name);
                        file.tag = position.tag.clone().unwrap_or_default();
                    }
                    Some(_) => {
                        file.state = State::Lost;
                        stuck.remove(name);
                        ready.insert(name.clone());
                    }
                }
            }
            true
        });
    }

    /// The next file to turn to, by (3) and (4).
    pub fn next_job(&mut self) -> Option<Job> {
        if self.is_blocked() {
            return None;
        }
        let partition = self.ready.pop_first()?;
        let file = &self.files[&partition];
        let task = match &file.position {
            None => Task::Read { next: 0, base: 0 },
            Some(p) if file.state == State::Lost => Task::Vanished { next: p.next },
            Some(p) if p.next > p.base && (p.done || p.content.is_some() && p.tag.as_ref() != Some(&file.tag)) => {
                Task::Changed(p.clone())
            }
            Some(p) if p.next == p.base || p.tag.as_ref().is_none_or(|tag| *tag == file.tag) => Task::Read {
                next: p.next,
                base: p.base,
            },
            Some(p) => Task::ChangedHalfway { next: p.next },
        };
        Some(Job {
            partition,
            tag: file.tag.clone(),
            size: file.size,
            modified: file.modified,
            seen: file.seen,
            at: file.position.as_ref().and_then(|position| position.at),
            task,
        })
    }

    /// A file was read to its end or given up: this is its last position. None: it was gone before it was opened.
    pub fn observe_end(&mut self, partition: &str, position: Option<Position>) {
        match position {
            None => {
                self.files.remove(partition);
                self.stuck.remove(partition);
            }
            Some(position) => {
                let file = self.files.get_mut(partition).expect("a queued file is never forgotten");
                // It may have ended as other content than it was queued as; the next listing then notices nothing new.
                if let Some(tag) = &position.tag {
                    file.tag.clone_from(tag);
                }
                file.position = Some(position);
                file.state = State::Done;
                self.stuck.remove(partition);
            }
        }
    }

    /// A file was another one when it was opened, and nothing of it was read: the next listing says what it is.
    pub fn observe_changed(&mut self, partition: &str) {
        let file = self.files.get_mut(partition).expect("a queued file is never forgotten");
        file.state = State::Watched;
    }

    /// A file could not be read for this cause. It was read up to this position, if anything of it was, and is tried
    /// again at this time.
    pub fn observe_stuck(&mut self, partition: &str, position: Option<Position>, cause: String, again: Instant) {
        let file = self.files.get_mut(partition).expect("a queued file is never forgotten");
        file.position = position.or(file.position.take());
        file.state = State::Stuck { again };
        self.stuck.insert(partition.into(), cause);
    }

    /// Why a file waits, the first by name that does.
    pub fn stuck(&self) -> Option<&str> {
        self.stuck.values().next().map(String::as_str)
    }

    fn is_blocked(&self) -> bool {
        let is_stuck = |file: &File| matches!(file.state, State::Stuck { .. });
        let mut stuck = self.stuck.keys().filter_map(|name| self.files.get(name));
        self.in_order && stuck.any(is_stuck)
    }

    /// Whether only files are left that cannot be read now: they are stuck, wait behind such a file, or are not listed.
    pub fn is_at_rest(&self) -> bool {
        let is_blocked = self.is_blocked();
        self.files.values().all(|file| match file.state {
            State::Done | State::Stuck { .. } => true,
            State::Watched => is_blocked || !file.is_listed,
            State::Queued | State::Lost => is_blocked,
        })
    }

    /// Files that are not done, and their bytes.
    pub fn lag(&self) -> (u64, u64) {
        let open = self.files.values().filter(|f| f.state != State::Done);
        open.fold((0, 0), |(files, bytes), f| (files + 1, bytes + f.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, tag: &str, modified: SystemTime) -> Found {
        Found {
            partition: name.into(),
            size: 10,
            tag: tag.into(),
            modified,
        }
    }

    fn done(next: u64, tag: &str) -> Option<Position> {
        Some(Position {
            done: true,
            ..open(next, tag)
        })
    }

    /// Where a file is that was read in part.
    fn open(next: u64, tag: &str) -> Position {
        Position {
            next,
            tag: Some(tag.into()),
            ..Position::default()
        }
    }

    fn names(settle: &mut Settle) -> Vec<(String, Task)> {
        std::iter::from_fn(|| settle.next_job())
            .map(|j| (j.partition.to_string(), j.task))
            .collect()
    }

    fn some(listing: Vec<Found>) -> Option<Vec<Found>> {
        Some(listing)
    }

    /// Listings show everything.
    fn seen(_: &str) -> bool {
        false
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_growing_file_waits_until_it_keeps_its_tag() {
        let mut files = Settle::new((false, false), SECOND, BTreeMap::new());
        let (now, wall) = (Instant::now(), SystemTime::now());
        files.observe(some(vec![found("a", "1", wall)]), &seen, now, wall);
        files.observe(
            some(vec![found("a", "2", wall + SECOND)]),
            &seen,
            now + SECOND,
            wall + SECOND,
        );
        assert_eq!(names(&mut files), []);
        assert_eq!(files.lag(), (1, 10));
        files.observe(
            some(vec![found("a", "2", wall + SECOND)]),
            &seen,
            now + SECOND * 2,
            wall + SECOND * 2,
        );
        let job = files.next_job().unwrap();
        assert_eq!(
            (job.tag.as_str(), job.task, job.seen),
            ("2", Task::Read { next: 0, base: 0 }, now + SECOND)
        );
        assert_eq!(files.lag(), (1, 10));
        files.observe_end("a", done(3, "2"));
        assert_eq!(files.lag(), (0, 0));
    }

    #[test]
    fn old_files_and_stores_need_no_second_look_and_come_by_name() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut files = Settle::new((false, false), SECOND, BTreeMap::new());
        files.observe(
            some(vec![
                found("b", "1", wall - SECOND * 2),
                found("a", "1", wall - SECOND * 9),
            ]),
            &seen,
            now,
            wall,
        );
        let read = |name: &str| (name.to_string(), Task::Read { next: 0, base: 0 });
        assert_eq!(names(&mut files), [read("a"), read("b")]);
        let mut store = Settle::new((true, false), SECOND, BTreeMap::new());
        store.observe(some(vec![found("a", "1", wall)]), &seen, now, wall);
        assert_eq!(names(&mut store), [read("a")]);
    }

    #[test]
    fn a_change_after_the_end_is_told_once_and_not_read() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut files = Settle::new(
            (true, false),
            SECOND,
            BTreeMap::from([("a".into(), done(7, "1").unwrap())]),
        );
        files.observe(some(vec![found("a", "1", wall)]), &seen, now, wall);
        assert_eq!(names(&mut files), []);
        files.observe(some(vec![found("a", "2", wall)]), &seen, now, wall);
        assert_eq!(names(&mut files), [("a".into(), Task::Changed(done(7, "1").unwrap()))]);
        files.observe_end("a", done(7, "2"));
        files.observe(some(vec![found("a", "2", wall)]), &seen, now, wall);
        assert_eq!(names(&mut files), []);
    }

    /// A file that was refused and then repaired, or skipped and then grown, was never read.
    #[test]
    fn a_file_of_which_nothing_was_taken_is_read_once_it_changes() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let again = Position {
            base: 4,
            ..done(4, "1").unwrap()
        };
        let resume = BTreeMap::from([("a".into(), done(0, "1").unwrap()), ("b".into(), again)]);
        let mut files = Settle::new((true, false), SECOND, resume);
        let listing = |tag: &str| some(vec![found("a", tag, wall), found("b", tag, wall)]);
        files.observe(listing("1"), &seen, now, wall);
        assert_eq!(names(&mut files), []);
        files.observe(listing("2"), &seen, now, wall);
        let expected = [
            ("a".into(), Task::Read { next: 0, base: 0 }),
            ("b".into(), Task::Read { next: 4, base: 4 }),
        ];
        assert_eq!(names(&mut files), expected);
    }

    #[test]
    fn an_open_file_goes_on_where_it_was_unless_it_changed() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let resume = BTreeMap::from([("a".into(), open(5, "1")), ("b".into(), open(5, "1"))]);
        let mut files = Settle::new((true, false), SECOND, resume);
        files.observe(
            some(vec![found("a", "1", wall), found("b", "2", wall)]),
            &seen,
            now,
            wall,
        );
        let expected = [
            ("a".into(), Task::Read { next: 5, base: 0 }),
            ("b".into(), Task::ChangedHalfway { next: 5 }),
        ];
        assert_eq!(names(&mut files), expected);
    }

    #[test]
    fn a_file_that_vanishes_before_its_turn_owes_nothing() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut files = Settle::new((false, false), SECOND, BTreeMap::new());
        files.observe(some(vec![found("a", "1", wall)]), &seen, now, wall);
        files.observe(None, &seen, now + SECOND, wall);
        assert_eq!(files.lag(), (1, 10), "a folder that is not there tells nothing");
        files.observe(some(vec![]), &seen, now + SECOND, wall);
        assert_eq!(files.lag(), (0, 0));
    }

    #[test]
    fn a_file_that_vanishes_halfway_over_a_restart_is_told_once() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let resume = BTreeMap::from([("a".into(), open(5, "1")), ("b".into(), done(9, "1").unwrap())]);
        let mut files = Settle::new((false, false), SECOND, resume);
        files.observe(None, &seen, now, wall);
        assert_eq!((names(&mut files), files.lag().0), (vec![], 1));
        files.observe(some(vec![]), &seen, now, wall);
        files.observe(some(vec![]), &seen, now, wall);
        assert_eq!(names(&mut files), [("a".into(), Task::Vanished { next: 5 })]);
        files.observe_end("a", done(5, "1"));
        files.observe(some(vec![]), &seen, now, wall);
        assert_eq!((names(&mut files), files.lag()), (vec![], (0, 0)));
    }

    /// A file without permission was a dead letter, and never read when it could be.
    #[test]
    fn a_file_that_is_stuck_waits_and_lets_others_by_unless_order_decides() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let listing = || some(vec![found("a", "1", wall), found("b", "1", wall)]);
        for in_order in [false, true] {
            let mut files = Settle::new((true, in_order), SECOND, BTreeMap::new());
            files.observe(listing(), &seen, now, wall);
            assert_eq!(files.next_job().unwrap().partition.as_ref(), "a");
            files.observe_stuck("a", None, "permission denied".into(), now + SECOND);
            assert_eq!(files.stuck(), Some("permission denied"));
            assert_eq!(files.is_at_rest(), in_order);
            let others = if in_order {
                vec![]
            } else {
                vec![("b".into(), Task::Read { next: 0, base: 0 })]
            };
            assert_eq!(names(&mut files), others);
            files.observe(listing(), &seen, now + SECOND, wall);
            assert_eq!(files.next_job().unwrap().partition.as_ref(), "a");
        }
    }

    /// A file that had grown again when its turn came was given up, and what was added to it was not read.
    #[test]
    fn a_file_that_changes_before_its_turn_comes_is_looked_at_again() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let resume = BTreeMap::from([("a".into(), done(7, "1").unwrap()), ("b".into(), done(3, "1").unwrap())]);
        let mut files = Settle::new((true, false), SECOND, resume);
        let listing = |a: &str| some(vec![found("a", a, wall), found("b", "1", wall)]);
        files.observe(listing("2"), &seen, now, wall);
        let task = Task::Changed(done(7, "1").unwrap());
        assert_eq!(names(&mut files), [("a".into(), task.clone())]);
        files.observe_changed("a");
        files.observe(listing("3"), &seen, now, wall);
        let job = files.next_job().unwrap();
        assert_eq!((job.tag.as_str(), job.task), ("3", task));
        // Or it is gone: it was read to its end.
        files.observe_changed("a");
        files.observe(some(vec![]), &seen, now, wall);
        assert_eq!((names(&mut files), files.lag()), (vec![], (0, 0)));
    }

    /// A file below a folder that lost its permission was told to have vanished, and its rest was not read.
    #[test]
    fn what_cannot_be_seen_has_not_vanished() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut files = Settle::new((false, false), SECOND, BTreeMap::from([("sub/a".into(), open(5, "1"))]));
        files.observe(some(vec![]), &|name| name.starts_with("sub/"), now, wall);
        assert_eq!(
            (names(&mut files), files.lag().0, files.is_at_rest()),
            (vec![], 1, true)
        );
        files.observe(some(vec![]), &seen, now, wall);
        assert_eq!(names(&mut files), [("sub/a".into(), Task::Vanished { next: 5 })]);
    }
}
