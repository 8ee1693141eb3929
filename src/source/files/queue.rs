//! Decides which file is read next: plain state, fed with listings, no I/O.
//!
//! 1. A file is read once. If it changes after it was done, each change is a task of its own. A file that was done
//!    without a record (it was refused, skipped or empty) is then read from its beginning, which repeats nothing.
//! 2. A file is read only when it is complete. In a folder: when two listings at least `settle` apart saw the same
//!    tag, or when its last change is long past. In a store: at once.
//! 3. Of the files that can be read, the first by name comes next.
//! 4. A file that exists but cannot be read waits, and is retried from time to time. If the order of arrival matters
//!    to the input, no other file is read before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::listing::ListedFile;
use crate::repr::{Position, TextPlace};

/// A file that ends where more must follow counts as damaged after this many times `settle` without a change.
pub(super) const TORN_PATIENCE: u32 = 20;

/// A file counts as complete at first sight if its last change is more than this many times `settle` ago.
const LONG_PAST: u32 = 2;

/// What to do with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileJob {
    pub partition: Arc<str>,
    pub tag: String,
    pub size: u64,
    /// When it was last written.
    pub modified: SystemTime,
    /// When the file was first seen with this content.
    pub seen: Instant,
    /// The place in the text of the first record to read; see [`Position::at`].
    pub at: Option<TextPlace>,
    pub task: FileTask,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileTask {
    /// Read it from this record on; `base` is the number of its first one.
    Read { next: u64, base: u64 },
    /// It was read up to this position, to its end or to where it broke off, and has changed since: find out how, and
    /// report it.
    Changed(Position),
    /// It was read up to this record, and has changed since: report that, and read no more of it.
    ChangedHalfway { next: u64 },
    /// It was read up to this record, and has vanished: report that.
    Vanished { next: u64 },
}

#[derive(Debug)]
struct File {
    tag: String,
    size: u64,
    modified: SystemTime,
    /// When this tag was first seen.
    seen: Instant,
    /// How far it was read, and which version that was.
    position: Option<Position>,
    state: State,
    /// Whether the last listing had it.
    is_listed: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// It may still be being written, or was not listed since a restart.
    Watched,
    /// It vanished after a part was read; its report waits in the queue.
    Lost,
    /// It waits in the queue, or a reader has it.
    Queued,
    /// It could not be read and is retried at this time, by (4).
    Stuck {
        again: Instant,
    },
    Done,
}

/// The files of a feed.
pub(crate) struct FileQueue {
    atomic: bool,
    in_order: bool,
    settle: Duration,
    files: BTreeMap<Arc<str>, File>,
    ready: BTreeSet<Arc<str>>,
    /// Why files could not be read at the last attempt. This map is apart from `files`, which may be a hundred
    /// thousand, because it is consulted whenever a file ends.
    stuck: BTreeMap<Arc<str>, String>,
}

impl FileQueue {
    /// `resume` holds the positions of an earlier run; `in_order` means that the order of arrival matters, as in (4).
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
        FileQueue {
            atomic,
            in_order,
            settle,
            files,
            ready: BTreeSet::new(),
            stuck: BTreeMap::new(),
        }
    }

    /// Takes in a listing. None means that the folder itself is missing, which says nothing about its files. Nor does
    /// the listing say anything about files for which `is_unseen` holds.
    pub fn observe(
        &mut self,
        listing: Option<Vec<ListedFile>>,
        is_unseen: &dyn Fn(&str) -> bool,
        now: Instant,
        wall: SystemTime,
    ) {
        self.files.values_mut().for_each(|file| file.is_listed = false);
        let Some(listing) = listing else { return };
        self.observe_missing(&listing, is_unseen);
        for listed in listing {
            let file = self.files.entry(listed.partition.clone()).or_insert_with(|| File {
                tag: listed.tag.clone(),
                size: listed.size,
                modified: listed.modified,
                seen: now,
                position: None,
                state: State::Watched,
                is_listed: true,
            });
            file.is_listed = true;
            if matches!(file.state, State::Queued | State::Lost) {
                continue;
            }
            file.size = listed.size;
            file.modified = listed.modified;
            if file.tag != listed.tag {
                file.tag = listed.tag;
                file.seen = now;
                file.state = State::Watched;
                self.stuck.remove(&listed.partition);
            }
            if matches!(file.state, State::Stuck { again } if again <= now) {
                file.state = State::Queued;
                self.ready.insert(listed.partition.clone());
            }
            if file.state == State::Watched {
                let age = wall.duration_since(listed.modified).unwrap_or_default();
                let unchanged = now.saturating_duration_since(file.seen);
                if self.atomic || unchanged >= self.settle || age >= self.settle * LONG_PAST {
                    file.state = State::Queued;
                    self.ready.insert(listed.partition);
                }
            }
        }
    }

    /// Handles files that are no longer listed. A file of which nothing or everything was read is simply forgotten or
    /// done; of a file that was read in part the rest is lost, which is reported.
    fn observe_missing(&mut self, listing: &[ListedFile], is_unseen: &dyn Fn(&str) -> bool) {
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
    pub fn next_job(&mut self) -> Option<FileJob> {
        if self.is_blocked() {
            return None;
        }
        let partition = self.ready.pop_first()?;
        let file = &self.files[&partition];
        let task = match &file.position {
            None => FileTask::Read { next: 0, base: 0 },
            Some(p) if file.state == State::Lost => FileTask::Vanished { next: p.next },
            Some(p) if p.next > p.base && (p.done || p.content.is_some() && p.tag.as_ref() != Some(&file.tag)) => {
                FileTask::Changed(p.clone())
            }
            Some(p) if p.next == p.base || p.tag.as_ref().is_none_or(|tag| *tag == file.tag) => FileTask::Read {
                next: p.next,
                base: p.base,
            },
            Some(p) => FileTask::ChangedHalfway { next: p.next },
        };
        Some(FileJob {
            partition,
            tag: file.tag.clone(),
            size: file.size,
            modified: file.modified,
            seen: file.seen,
            at: file.position.as_ref().and_then(|position| position.at),
            task,
        })
    }

    /// Records that a file was read to its end or given up, with its last position. None: it vanished before it was
    /// opened.
    pub fn observe_end(&mut self, partition: &str, position: Option<Position>) {
        match position {
            None => {
                self.files.remove(partition);
                self.stuck.remove(partition);
            }
            Some(position) => {
                let file = self.files.get_mut(partition).expect("a queued file is never forgotten");
                // The file may have ended as a newer version than the queued one; the next listing must not report
                // that as a change.
                if let Some(tag) = &position.tag {
                    file.tag.clone_from(tag);
                }
                file.position = Some(position);
                file.state = State::Done;
                self.stuck.remove(partition);
            }
        }
    }

    /// Records that a file had changed when it was opened, and nothing was read: the next listing decides again.
    pub fn observe_changed(&mut self, partition: &str) {
        let file = self.files.get_mut(partition).expect("a queued file is never forgotten");
        file.state = State::Watched;
    }

    /// Records that a file could not be read, with the cause, the position reached (none: no record was read), and
    /// the time of the next attempt.
    pub fn observe_stuck(&mut self, partition: &str, position: Option<Position>, cause: String, again: Instant) {
        let file = self.files.get_mut(partition).expect("a queued file is never forgotten");
        file.position = position.or(file.position.take());
        file.state = State::Stuck { again };
        self.stuck.insert(partition.into(), cause);
    }

    /// Why the first stuck file, by name, cannot be read.
    pub fn stuck(&self) -> Option<&str> {
        self.stuck.values().next().map(String::as_str)
    }

    fn is_blocked(&self) -> bool {
        let is_stuck = |file: &File| matches!(file.state, State::Stuck { .. });
        let mut stuck = self.stuck.keys().filter_map(|name| self.files.get(name));
        self.in_order && stuck.any(is_stuck)
    }

    /// Whether all files that are left cannot be read now: they are stuck, wait behind a stuck file, or are not
    /// listed.
    pub fn is_at_rest(&self) -> bool {
        let is_blocked = self.is_blocked();
        self.files.values().all(|file| match file.state {
            State::Done | State::Stuck { .. } => true,
            State::Watched => is_blocked || !file.is_listed,
            State::Queued | State::Lost => is_blocked,
        })
    }

    /// The number of files that are not done, and their size in bytes.
    pub fn lag(&self) -> (u64, u64) {
        let open = self.files.values().filter(|f| f.state != State::Done);
        open.fold((0, 0), |(files, bytes), f| (files + 1, bytes + f.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, tag: &str, modified: SystemTime) -> ListedFile {
        ListedFile {
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

    /// The position of a file that was read in part.
    fn open(next: u64, tag: &str) -> Position {
        Position {
            next,
            tag: Some(tag.into()),
            ..Position::default()
        }
    }

    fn names(queue: &mut FileQueue) -> Vec<(String, FileTask)> {
        std::iter::from_fn(|| queue.next_job())
            .map(|j| (j.partition.to_string(), j.task))
            .collect()
    }

    fn some(listing: Vec<ListedFile>) -> Option<Vec<ListedFile>> {
        Some(listing)
    }

    /// Listings show everything.
    fn seen(_: &str) -> bool {
        false
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_growing_file_waits_until_it_keeps_its_tag() {
        let mut files = FileQueue::new((false, false), SECOND, BTreeMap::new());
        let (now, wall) = (Instant::now(), SystemTime::now());
        files.observe(some(vec![listed("a", "1", wall)]), &seen, now, wall);
        files.observe(
            some(vec![listed("a", "2", wall + SECOND)]),
            &seen,
            now + SECOND,
            wall + SECOND,
        );
        assert_eq!(names(&mut files), []);
        assert_eq!(files.lag(), (1, 10));
        files.observe(
            some(vec![listed("a", "2", wall + SECOND)]),
            &seen,
            now + SECOND * 2,
            wall + SECOND * 2,
        );
        let job = files.next_job().unwrap();
        assert_eq!(
            (job.tag.as_str(), job.task, job.seen),
            ("2", FileTask::Read { next: 0, base: 0 }, now + SECOND)
        );
        assert_eq!(files.lag(), (1, 10));
        files.observe_end("a", done(3, "2"));
        assert_eq!(files.lag(), (0, 0));
    }

    #[test]
    fn old_files_and_stores_need_no_second_look_and_come_by_name() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut files = FileQueue::new((false, false), SECOND, BTreeMap::new());
        files.observe(
            some(vec![
                listed("b", "1", wall - SECOND * 2),
                listed("a", "1", wall - SECOND * 9),
            ]),
            &seen,
            now,
            wall,
        );
        let read = |name: &str| (name.to_string(), FileTask::Read { next: 0, base: 0 });
        assert_eq!(names(&mut files), [read("a"), read("b")]);
        let mut store = FileQueue::new((true, false), SECOND, BTreeMap::new());
        store.observe(some(vec![listed("a", "1", wall)]), &seen, now, wall);
        assert_eq!(names(&mut store), [read("a")]);
    }

    #[test]
    fn a_change_after_the_end_is_told_once_and_not_read() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut files = FileQueue::new(
            (true, false),
            SECOND,
            BTreeMap::from([("a".into(), done(7, "1").unwrap())]),
        );
        files.observe(some(vec![listed("a", "1", wall)]), &seen, now, wall);
        assert_eq!(names(&mut files), []);
        files.observe(some(vec![listed("a", "2", wall)]), &seen, now, wall);
        assert_eq!(
            names(&mut files),
            [("a".into(), FileTask::Changed(done(7, "1").unwrap()))]
        );
        files.observe_end("a", done(7, "2"));
        files.observe(some(vec![listed("a", "2", wall)]), &seen, now, wall);
        assert_eq!(names(&mut files), []);
    }

    /// A file that was refused and later repaired, or skipped and later appended to, used to be ignored.
    #[test]
    fn a_file_of_which_nothing_was_taken_is_read_once_it_changes() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let again = Position {
            base: 4,
            ..done(4, "1").unwrap()
        };
        let resume = BTreeMap::from([("a".into(), done(0, "1").unwrap()), ("b".into(), again)]);
        let mut files = FileQueue::new((true, false), SECOND, resume);
        let listing = |tag: &str| some(vec![listed("a", tag, wall), listed("b", tag, wall)]);
        files.observe(listing("1"), &seen, now, wall);
        assert_eq!(names(&mut files), []);
        files.observe(listing("2"), &seen, now, wall);
        let expected = [
            ("a".into(), FileTask::Read { next: 0, base: 0 }),
            ("b".into(), FileTask::Read { next: 4, base: 4 }),
        ];
        assert_eq!(names(&mut files), expected);
    }

    #[test]
    fn an_open_file_goes_on_where_it_was_unless_it_changed() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let resume = BTreeMap::from([("a".into(), open(5, "1")), ("b".into(), open(5, "1"))]);
        let mut files = FileQueue::new((true, false), SECOND, resume);
        files.observe(
            some(vec![listed("a", "1", wall), listed("b", "2", wall)]),
            &seen,
            now,
            wall,
        );
        let expected = [
            ("a".into(), FileTask::Read { next: 5, base: 0 }),
            ("b".into(), FileTask::ChangedHalfway { next: 5 }),
        ];
        assert_eq!(names(&mut files), expected);
    }

    #[test]
    fn a_file_that_vanishes_before_its_turn_owes_nothing() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut files = FileQueue::new((false, false), SECOND, BTreeMap::new());
        files.observe(some(vec![listed("a", "1", wall)]), &seen, now, wall);
        files.observe(None, &seen, now + SECOND, wall);
        assert_eq!(files.lag(), (1, 10), "a folder that is not there tells nothing");
        files.observe(some(vec![]), &seen, now + SECOND, wall);
        assert_eq!(files.lag(), (0, 0));
    }

    #[test]
    fn a_file_that_vanishes_halfway_over_a_restart_is_told_once() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let resume = BTreeMap::from([("a".into(), open(5, "1")), ("b".into(), done(9, "1").unwrap())]);
        let mut files = FileQueue::new((false, false), SECOND, resume);
        files.observe(None, &seen, now, wall);
        assert_eq!((names(&mut files), files.lag().0), (vec![], 1));
        files.observe(some(vec![]), &seen, now, wall);
        files.observe(some(vec![]), &seen, now, wall);
        assert_eq!(names(&mut files), [("a".into(), FileTask::Vanished { next: 5 })]);
        files.observe_end("a", done(5, "1"));
        files.observe(some(vec![]), &seen, now, wall);
        assert_eq!((names(&mut files), files.lag()), (vec![], (0, 0)));
    }

    /// A file without read permission became a dead letter, and was not read once it could be.
    #[test]
    fn a_file_that_is_stuck_waits_and_lets_others_by_unless_order_decides() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let listing = || some(vec![listed("a", "1", wall), listed("b", "1", wall)]);
        for in_order in [false, true] {
            let mut files = FileQueue::new((true, in_order), SECOND, BTreeMap::new());
            files.observe(listing(), &seen, now, wall);
            assert_eq!(files.next_job().unwrap().partition.as_ref(), "a");
            files.observe_stuck("a", None, "permission denied".into(), now + SECOND);
            assert_eq!(files.stuck(), Some("permission denied"));
            assert_eq!(files.is_at_rest(), in_order);
            let others = if in_order {
                vec![]
            } else {
                vec![("b".into(), FileTask::Read { next: 0, base: 0 })]
            };
            assert_eq!(names(&mut files), others);
            files.observe(listing(), &seen, now + SECOND, wall);
            assert_eq!(files.next_job().unwrap().partition.as_ref(), "a");
        }
    }

    /// A file that grew again before its turn came was given up, and what was appended was not read.
    #[test]
    fn a_file_that_changes_before_its_turn_comes_is_looked_at_again() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let resume = BTreeMap::from([("a".into(), done(7, "1").unwrap()), ("b".into(), done(3, "1").unwrap())]);
        let mut files = FileQueue::new((true, false), SECOND, resume);
        let listing = |a: &str| some(vec![listed("a", a, wall), listed("b", "1", wall)]);
        files.observe(listing("2"), &seen, now, wall);
        let task = FileTask::Changed(done(7, "1").unwrap());
        assert_eq!(names(&mut files), [("a".into(), task.clone())]);
        files.observe_changed("a");
        files.observe(listing("3"), &seen, now, wall);
        let job = files.next_job().unwrap();
        assert_eq!((job.tag.as_str(), job.task), ("3", task));
        // If it vanishes instead, nothing is lost, because it was read to its end.
        files.observe_changed("a");
        files.observe(some(vec![]), &seen, now, wall);
        assert_eq!((names(&mut files), files.lag()), (vec![], (0, 0)));
    }

    /// When a folder lost its read permission, a file below it was reported as vanished, and its rest was never read.
    #[test]
    fn what_cannot_be_seen_has_not_vanished() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut files = FileQueue::new((false, false), SECOND, BTreeMap::from([("sub/a".into(), open(5, "1"))]));
        files.observe(some(vec![]), &|name| name.starts_with("sub/"), now, wall);
        assert_eq!(
            (names(&mut files), files.lag().0, files.is_at_rest()),
            (vec![], 1, true)
        );
        files.observe(some(vec![]), &seen, now, wall);
        assert_eq!(names(&mut files), [("sub/a".into(), FileTask::Vanished { next: 5 })]);
    }
}
