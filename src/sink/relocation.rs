//! Rows that another writer's OPTIMIZE moved to other files, and how our writers learn of it.
//!
//! ```text
//! committer: finds the rewrite, maps places --Relocations--> writers: move index entries, between two parts
//!            ^ translates parts of writers that have not learned of it yet --Prepared::learned--/
//! ```
//! 1. A relocation maps every row that was live in the removed files. Equal rows are mapped one to one, and committer
//!    and writers use the same map, so a row has one place.
//! 2. All places in a writer's part are as of the relocations that the writer has learned (`Prepared::learned`).
//! 3. The committer translates a part whose writer has not learned a relocation. So writers may be late, or never
//!    learn of it (those of another process); this costs the map's memory, 32 bytes a row, until all have learned.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use roaring::RoaringTreemap;

use super::writer::RowHash;
use super::{LiveFile, TableBatch};

/// The old and new place of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedRow {
    /// The row's position in the removed file.
    pub position: u32,
    /// The row's hash.
    pub hash: RowHash,
    /// The writer that owns the row.
    pub owner: u32,
    /// The file that holds the row now: index into [`Relocation::came`].
    pub file: u32,
    /// The row's position in that file.
    pub to: u32,
}

/// Files of one table that another writer rewrote.
#[derive(Clone, Debug, Default)]
pub struct Relocation {
    /// The relocation's number, from 1 in each run; 0 before the committer has numbered it.
    pub seq: u64,
    /// Index into the sink's tables.
    pub table: usize,
    /// Paths of the removed files.
    pub gone: Vec<String>,
    /// The added files. Their deleted positions are either places that `moved` does not name, or were removed by the
    /// newest snapshot.
    pub came: Vec<LiveFile>,
    /// The rows of each removed file, in the order of `gone`, each ordered by position.
    pub moved: Vec<Vec<MovedRow>>,
}

/// A batch whose places are as of a relocation.
#[derive(Debug)]
pub struct Translated {
    /// The translated batch.
    pub batch: TableBatch,
    /// For files that the batch removes as a whole: the places of all of their rows. Those that are still live are
    /// removed.
    pub sweeps: Vec<(String, RoaringTreemap)>,
}

impl Translated {
    /// A batch that needs no translation.
    pub fn plain(batch: TableBatch) -> Translated {
        Translated { batch, sweeps: vec![] }
    }

    /// Translates the batch further, by one more relocation.
    pub fn again(self, relocation: &Relocation) -> Translated {
        let Translated { batch, mut sweeps } = relocation.translate(self.batch);
        for (path, rows) in self.sweeps {
            let all = TableBatch {
                deletes: vec![(path, rows)],
                ..TableBatch::default()
            };
            sweeps.extend(relocation.translate(all).batch.deletes);
        }
        Translated { batch, sweeps }
    }
}

impl Relocation {
    /// The moved rows of a removed file.
    pub fn rows_of(&self, path: &str) -> Option<&[MovedRow]> {
        let file = self.gone.iter().position(|removed| removed == path)?;
        Some(&self.moved[file])
    }

    /// Combines this relocation with a later one.
    pub fn then(self, next: Relocation) -> Relocation {
        let mut came: Vec<LiveFile> = Vec::new();
        let mut number: HashMap<String, u32> = HashMap::new();
        let mut numbered = |file: &LiveFile| {
            *number.entry(file.path.clone()).or_insert_with(|| {
                came.push(file.clone());
                came.len() as u32 - 1
            })
        };
        let mut moved = Vec::with_capacity(self.moved.len() + next.moved.len());
        for rows in &self.moved {
            let further = rows.iter().filter_map(|row| {
                let file = &self.came[row.file as usize];
                match next.rows_of(&file.path) {
                    None => Some(MovedRow {
                        file: numbered(file),
                        ..*row
                    }),
                    // A row that the second relocation does not know was removed between the two.
                    Some(rows) => rows
                        .binary_search_by_key(&row.to, |r| r.position)
                        .ok()
                        .map(|at| MovedRow {
                            file: numbered(&next.came[rows[at].file as usize]),
                            to: rows[at].to,
                            ..*row
                        }),
                }
            });
            moved.push(further.collect());
        }
        for rows in &next.moved {
            let rows = rows.iter().map(|row| MovedRow {
                file: numbered(&next.came[row.file as usize]),
                ..*row
            });
            moved.push(rows.collect());
        }
        let mut removed = self.gone;
        removed.extend(next.gone);
        Relocation {
            gone: removed,
            came,
            moved,
            ..self
        }
    }

    /// Translates a batch to places as of this relocation.
    pub fn translate(&self, batch: TableBatch) -> Translated {
        let mut deletes: BTreeMap<String, RoaringTreemap> = BTreeMap::new();
        for (path, positions) in batch.deletes {
            match self.rows_of(&path) {
                None => *deletes.entry(path).or_default() |= positions,
                Some(rows) => {
                    for row in rows.iter().filter(|row| positions.contains(u64::from(row.position))) {
                        let to = &self.came[row.file as usize].path;
                        match deletes.get_mut(to) {
                            Some(places) => drop(places.insert(u64::from(row.to))),
                            None => drop(deletes.insert(to.clone(), [u64::from(row.to)].into_iter().collect())),
                        }
                    }
                }
            }
        }
        let mut sweeps: BTreeMap<u32, RoaringTreemap> = BTreeMap::new();
        let mut removes = Vec::new();
        for path in batch.removes {
            match self.rows_of(&path) {
                None => removes.push(path),
                Some(rows) => rows.iter().for_each(|row| {
                    sweeps.entry(row.file).or_default().insert(u64::from(row.to));
                }),
            }
        }
        Translated {
            batch: TableBatch {
                deletes: deletes.into_iter().collect(),
                removes,
                ..batch
            },
            sweeps: sweeps
                .into_iter()
                .map(|(file, rows)| (self.came[file as usize].path.clone(), rows))
                .collect(),
        }
    }
}

/// The board on which the committer posts relocations; writers look at it between two parts.
#[derive(Clone, Default)]
pub struct Relocations(Arc<PostedRelocations>);

#[derive(Default)]
struct PostedRelocations {
    newest: AtomicU64,
    posted: Mutex<Vec<Arc<Relocation>>>,
}

impl Relocations {
    /// Posts a relocation; numbers must ascend.
    pub fn post(&self, relocation: Arc<Relocation>) {
        let newest = relocation.seq;
        self.board().push(relocation);
        self.0.newest.store(newest, Ordering::Release);
    }

    /// The relocations after `learned`, in order.
    pub fn behind(&self, learned: u64) -> Vec<Arc<Relocation>> {
        if !self.is_behind(learned) {
            return Vec::new();
        }
        self.board().iter().filter(|r| r.seq > learned).cloned().collect()
    }

    /// Whether there are relocations after `learned`.
    pub fn is_behind(&self, learned: u64) -> bool {
        self.0.newest.load(Ordering::Acquire) > learned
    }

    /// Forgets the relocations up to `learned`, which every writer has learned.
    pub fn forget(&self, learned: u64) {
        self.board().retain(|r| r.seq > learned);
    }

    fn board(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Relocation>>> {
        self.0
            .posted
            .lock()
            .expect("nobody panics while holding the board of relocations")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, rows: u64) -> LiveFile {
        LiveFile {
            path: path.into(),
            partition_values: BTreeMap::new(),
            size: 1,
            rows,
            deleted: RoaringTreemap::new(),
        }
    }

    fn moved(position: u32, file: u32, to: u32) -> MovedRow {
        MovedRow {
            position,
            hash: RowHash::of_row(&position.to_be_bytes()),
            owner: 0,
            file,
            to,
        }
    }

    #[test]
    fn a_batch_is_said_in_the_places_of_now_over_two_rewrites() {
        let first = Relocation {
            seq: 1,
            table: 0,
            gone: vec!["a".into(), "b".into()],
            came: vec![file("g", 5), file("h", 1)],
            moved: vec![
                vec![moved(0, 0, 4), moved(2, 0, 3)],
                vec![moved(0, 0, 2), moved(1, 1, 0)],
            ],
        };
        // Position 3 of g was removed before the second rewrite.
        let second = Relocation {
            seq: 2,
            table: 0,
            gone: vec!["g".into()],
            came: vec![file("k", 2)],
            moved: vec![vec![moved(2, 0, 0), moved(4, 0, 1)]],
        };
        let both = first.then(second);
        assert_eq!(both.gone, ["a", "b", "g"]);
        let batch = TableBatch {
            deletes: vec![
                ("a".into(), [0].into_iter().collect()),
                ("z".into(), [9].into_iter().collect()),
            ],
            removes: vec!["b".into(), "y".into()],
            data_change: true,
            ..TableBatch::default()
        };
        let said = both.translate(batch);
        let places = |list: &[(String, RoaringTreemap)]| -> Vec<(String, Vec<u64>)> {
            list.iter()
                .map(|(f, rows)| (f.clone(), rows.iter().collect()))
                .collect()
        };
        assert_eq!(
            places(&said.batch.deletes),
            [("k".into(), vec![1]), ("z".into(), vec![9])]
        );
        assert_eq!(said.batch.removes, ["y"]);
        assert_eq!(places(&said.sweeps), [("k".into(), vec![0]), ("h".into(), vec![0])]);
    }

    #[test]
    fn the_board_tells_what_is_new_and_forgets_what_all_know() {
        let board = Relocations::default();
        assert!(!board.is_behind(0));
        for seq in 1..=3 {
            let relocation = Relocation {
                seq,
                ..Relocation::default()
            };
            board.post(Arc::new(relocation));
        }
        let seqs = |learned| board.behind(learned).iter().map(|r| r.seq).collect::<Vec<_>>();
        assert_eq!(seqs(1), [2, 3]);
        board.forget(2);
        assert_eq!((seqs(0), board.is_behind(3)), (vec![3], false));
    }
}
