//! A database table that changes, as Debezium's Postgres connector describes it.
//!
//! 1. A row is a function of its id and version; the state is a list of live ids with their versions.
//! 2. A version is the number of the event that made it. `source.lsn` is twice that, so that there is room below it
//!    for a late version: one that is older than the row's newest, and arrives after it.

use std::io::Write;

use rand::{RngExt, SeedableRng};

use super::text::{Fields, Rendering};
use super::{Random, Timing};

/// The first events, which Debezium's snapshot (`r`) makes of rows that existed before.
const SNAPSHOT: u64 = 50;
/// The share of inserts that bring a deleted id back.
const REBORN: f64 = 0.2;

/// The definition of a table.
pub(super) struct TableShape {
    pub name: &'static str,
    /// Writes the key's field.
    pub key: fn(id: u64, fields: &mut Fields<'_>),
    /// Writes the row's fields, including the key. The random source is seeded for each version of a row.
    pub row: fn(id: u64, updated_us: i64, random: &mut Random, fields: &mut Fields<'_>),
}

/// A kind of change to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GeneratedChange {
    Insert,
    Update,
    Delete,
    /// An older version of a row arrives late.
    Late,
    /// A row that never exists, for events that are made undecodable afterwards.
    Sample,
}

struct LiveRow {
    id: u64,
    version: u64,
}

/// A table's state.
pub(super) struct GeneratedTable {
    shape: &'static TableShape,
    live: Vec<LiveRow>,
    /// Deleted ids.
    deleted_ids: Vec<u64>,
    next_id: u64,
}

/// A version of a row, as an image in an envelope.
#[derive(Clone, Copy)]
struct RowImage {
    id: u64,
    version: u64,
    updated_us: i64,
}

impl GeneratedTable {
    pub fn new(shape: &'static TableShape) -> Self {
        GeneratedTable {
            shape,
            live: Vec::new(),
            deleted_ids: Vec::new(),
            next_id: 0,
        }
    }

    /// Writes the columns' names.
    pub fn columns(&self, fields: &mut Fields<'_>) {
        (self.shape.row)(0, 0, &mut Random::seed_from_u64(0), fields);
    }

    /// Writes event `index`, and returns its actual kind: an insert if there was no row to change.
    pub fn write(
        &mut self,
        change: GeneratedChange,
        index: u64,
        timing: Timing,
        random: &mut Random,
        key: &mut Vec<u8>,
        value: &mut Vec<u8>,
    ) -> GeneratedChange {
        let now = timing.at(index);
        let change = match change {
            GeneratedChange::Update | GeneratedChange::Delete | GeneratedChange::Late if self.live.is_empty() => {
                GeneratedChange::Insert
            }
            change => change,
        };
        let image = |id, version| RowImage {
            id,
            version,
            updated_us: timing.at(version),
        };
        let mut lsn = index * 2;
        let (before, after, op, made_us) = match change {
            GeneratedChange::Insert => {
                let reborn = !self.deleted_ids.is_empty() && random.random_bool(REBORN);
                let id = if reborn {
                    self.deleted_ids
                        .swap_remove(random.random_range(0..self.deleted_ids.len()))
                } else {
                    self.next_id += 1;
                    self.next_id - 1
                };
                self.live.push(LiveRow { id, version: index });
                (
                    None,
                    Some(image(id, index)),
                    if index < SNAPSHOT { 'r' } else { 'c' },
                    now,
                )
            }
            GeneratedChange::Sample => (None, Some(image(self.next_id, index)), 'c', now),
            GeneratedChange::Update => {
                let live = random.random_range(0..self.live.len());
                let live = &mut self.live[live];
                let before = image(live.id, live.version);
                live.version = index;
                (Some(before), Some(image(live.id, index)), 'u', now)
            }
            GeneratedChange::Delete => {
                let live = self.live.swap_remove(random.random_range(0..self.live.len()));
                self.deleted_ids.push(live.id);
                (Some(image(live.id, live.version)), None, 'd', now)
            }
            GeneratedChange::Late => {
                let live = &self.live[random.random_range(0..self.live.len())];
                let updated_us = timing.at(live.version) - 1;
                lsn = (live.version * 2).saturating_sub(1); // by (2)
                // Its content differs from every other version's, so that a test notices if it is taken for the
                // newest.
                let after = RowImage {
                    id: live.id,
                    version: u64::MAX - index,
                    updated_us,
                };
                (None, Some(after), 'u', updated_us)
            }
        };
        let id = after.or(before).expect("an envelope has an image").id;
        let mut fields = Fields::new(key, Rendering::Json);
        (self.shape.key)(id, &mut fields);
        fields.end();
        for (name, image) in [(&b"{\"before\":"[..], before), (b",\"after\":", after)] {
            value.extend_from_slice(name);
            match image {
                None => value.extend_from_slice(b"null"),
                Some(image) => self.write_row(image, value),
            }
        }
        write!(
            value,
            ",\"source\":{{\"version\":\"3.0.0.Final\",\"connector\":\"postgresql\",\"name\":\"alluvium\",\
             \"ts_ms\":{},\"snapshot\":\"{}\",\"db\":\"retail\",\"schema\":\"public\",\"table\":\"{}\",\
             \"txId\":{index},\"lsn\":{lsn}}},\"op\":\"{op}\",\"ts_ms\":{}}}",
            made_us.div_euclid(1000),
            op == 'r',
            self.shape.name,
            now.div_euclid(1000),
        )
        .expect("writing to memory does not fail");
        change
    }

    fn write_row(&self, image: RowImage, value: &mut Vec<u8>) {
        let mut own = Random::seed_from_u64(image.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ image.version);
        let mut fields = Fields::new(value, Rendering::Json);
        (self.shape.row)(image.id, image.updated_us, &mut own, &mut fields);
        fields.end();
    }
}
